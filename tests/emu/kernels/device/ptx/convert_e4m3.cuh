/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_CONVERT_E4M3_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_CONVERT_E4M3_CUH

#include "tests/emu/emu.h"

#define RT_HAS_CONVERT_E4M3 1

/* By the format: bits of f16 are sign, 5 of exponent, bias 15, 10 of mantissa. */
static inline uint32_t emu_e4m3_f16(uint32_t code)
{
    const uint32_t sign = (code & 0x80u) << 8, exponent = code >> 3 & 15u;
    uint32_t mantissa = code & 7u, leading = 8 + exponent;
    if ((code & 0x7fu) == 0x7fu)
        return 0x7fffu;
    if (exponent > 0)
        return sign | leading << 10 | mantissa << 7;
    if (mantissa == 0)
        return sign;
    for (leading = 9; mantissa < 8; leading--) /* subnormal: mantissa * 2^-9 */
        mantissa <<= 1;
    return sign | leading << 10 | (mantissa & 7u) << 7;
}

template <int HIGH> static inline uint32_t rt_e4m3x2_f16x2(uint32_t four)
{
    return emu_e4m3_f16(four >> HIGH * 16 & 0xffu) | emu_e4m3_f16(four >> (HIGH * 16 + 8) & 0xffu)
                                                         << 16;
}

/* By the format too: eighths of the binade's power of two, 2^-6 at least; ties go to even ones, and
 * eight of them carry into the exponent. */
static inline uint32_t emu_float_e4m3(float value)
{
    const uint32_t sign = __float_as_uint(value) >> 31 << 7;
    const float magnitude = std::fabs(value);
    int exponent;
    if (std::isnan(value))
        return 0x7fu;
    if (magnitude >= 448.0f)
        return sign | 0x7eu;
    (void)std::frexp(magnitude, &exponent);
    const int binade = magnitude == 0.0f ? -6 : max(exponent - 1, -6);
    const float eighths = std::nearbyint(std::ldexp(magnitude, 3 - binade));
    return sign | ((uint32_t)(binade + 6) * 8u + (uint32_t)eighths);
}

static inline uint32_t rt_pack_e4m3x2(float low, float high)
{
    return emu_float_e4m3(low) | emu_float_e4m3(high) << 8;
}

static inline uint32_t rt_f16x2_e4m3x2(uint32_t pair)
{
    return rt_pack_e4m3x2(emu_of_f16((uint16_t)pair), emu_of_f16((uint16_t)(pair >> 16)));
}

#endif
