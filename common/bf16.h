/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_BF16_H
#define RT_COMMON_BF16_H

/* bf16 <-> float: exact one way, round to nearest even the other (NaN stays NaN). */
#include <stdint.h>
#include <string.h>

static inline float rt_bf16_to_float(uint16_t bits)
{
    const uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof(value));
    return value;
}

static inline uint16_t rt_float_to_bf16(float value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof(word));
    /* A NaN whose payload is all in the low half would round to infinity: set the quiet bit. */
    if ((word & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(word >> 16 | 0x0040u);
    const uint32_t half = 0x7fffu + (word >> 16 & 1u);
    return (uint16_t)((word + half) >> 16);
}

#endif
