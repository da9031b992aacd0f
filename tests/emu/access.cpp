/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/access.h"

struct emu_16_bytes emu_load_16(const void *from)
{
    return *(const struct emu_16_bytes *)from;
}

void emu_store_16(void *to, struct emu_16_bytes value)
{
    *(struct emu_16_bytes *)to = value;
}

uint32_t emu_load_4(const void *from)
{
    return *(const uint32_t *)from;
}

void emu_store_4(void *to, uint32_t value)
{
    *(uint32_t *)to = value;
}

void emu_store_8(void *to, uint64_t value)
{
    *(uint64_t *)to = value;
}
