/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_BF16_H
#define RT_EXAMPLES_BF16_H

/* bfloat16 is the upper half of a binary32: the same exponent, 8 bits of precision. */
#include <stdint.h>
#include <string.h>

static inline float bf16_to_float(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* To the nearest, ties to even; NaN stays NaN. */
static inline uint16_t bf16_from_float(float value)
{
    uint32_t wide;
    memcpy(&wide, &value, sizeof wide);
    if (value != value)
        return (uint16_t)(wide >> 16 | 0x40u);
    return (uint16_t)((wide + 0x7fffu + (wide >> 16 & 1u)) >> 16);
}

#endif
