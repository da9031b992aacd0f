/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_TAGGED_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_TAGGED_CUH

#include "tests/emu/emu.h"

static inline const uint32_t *rt_tag_of(const uint64_t *both)
{
    return (const uint32_t *)both + 1;
}

static inline void rt_tagged_store(uint64_t *to, float number, uint32_t tag)
{
    __atomic_store_n(to, (uint64_t)tag << 32 | __float_as_uint(number), __ATOMIC_RELAXED);
    emu_ticket_drawn(rt_tag_of(to));
}

static inline uint32_t rt_tagged_load(const uint64_t *from, float &number)
{
    emu_ticket_look(rt_tag_of(from));
    const uint64_t both = __atomic_load_n(from, __ATOMIC_RELAXED);
    number = __uint_as_float((uint32_t)both);
    return (uint32_t)(both >> 32);
}

#endif
