/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_F16X2_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_F16X2_CUH

#include "tests/emu/emu.h"

static inline uint32_t rt_pack_f16x2(float low, float high)
{
    return emu_f16(low) | (uint32_t)emu_f16(high) << 16;
}

static inline float rt_f16_float(uint16_t half)
{
    return emu_of_f16(half);
}

/* A product of two f16 is a float, so each is rounded once. */
static inline uint32_t rt_multiply_f16x2(uint32_t a, uint32_t b)
{
    return rt_pack_f16x2(emu_of_f16((uint16_t)a) * emu_of_f16((uint16_t)b),
                         emu_of_f16((uint16_t)(a >> 16)) * emu_of_f16((uint16_t)(b >> 16)));
}

static inline uint32_t emu_max_f16(uint32_t a, uint32_t b)
{
    return emu_f16(emu_max(emu_of_f16((uint16_t)a), emu_of_f16((uint16_t)b)));
}

static inline uint32_t rt_max_f16x2(uint32_t a, uint32_t b)
{
    return emu_max_f16(a, b) | emu_max_f16(a >> 16, b >> 16) << 16;
}

static inline uint32_t rt_max_magnitude_f16x2(uint32_t a, uint32_t b)
{
    return rt_max_f16x2(a & 0x7fff7fffu, b & 0x7fff7fffu) | ((a ^ b) & 0x80008000u);
}

#endif
