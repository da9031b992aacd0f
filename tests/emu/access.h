/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_ACCESS_H
#define RT_TESTS_EMU_ACCESS_H

/*
 * What kernels and what they ask for read and write. Of the emulator these alone, and the kernels,
 * are compiled for the thread sanitizer; what it does for itself is not looked at.
 */
#include <stdint.h>

struct alignas(16) emu_16_bytes {
    uint64_t low, high;
};

struct emu_16_bytes emu_load_16(const void *from);
void emu_store_8(void *to, uint64_t value);
void emu_store_16(void *to, struct emu_16_bytes value);
uint32_t emu_load_4(const void *from);
void emu_store_4(void *to, uint32_t value);

#endif
