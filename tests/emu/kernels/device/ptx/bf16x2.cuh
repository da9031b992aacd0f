/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_BF16X2_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_BF16X2_CUH

#include "tests/emu/emu.h"

/* A product of two bf16 is a float, so each is rounded once. */
static inline uint32_t rt_multiply_bf16x2(uint32_t a, uint32_t b)
{
    return emu_bf16(emu_float(a << 16) * emu_float(b << 16)) |
           (uint32_t)emu_bf16(emu_float(a & 0xffff0000u) * emu_float(b & 0xffff0000u)) << 16;
}

/* Of one half, which is where emu_float has it. */
static inline uint32_t emu_max_bf16(uint32_t a, uint32_t b)
{
    return __float_as_uint(emu_max(emu_float(a), emu_float(b)));
}

static inline uint32_t rt_max_bf16x2(uint32_t a, uint32_t b)
{
    return emu_max_bf16(a << 16, b << 16) >> 16 |
           (emu_max_bf16(a & 0xffff0000u, b & 0xffff0000u) & 0xffff0000u);
}

#endif
