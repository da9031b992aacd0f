/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/keys.h"
#include "kernels/ref/ref.h"

#include <string.h>

float rt_bf16_to_float(uint16_t bits)
{
    return rt_ref_widen(bits);
}

uint16_t rt_float_to_bf16(float value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof(word));
    /* A NaN whose payload is all in the low half would round to infinity: set the quiet bit. */
    if ((word & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(word >> 16 | 0x0040u);
    uint32_t half = 0x7fffu + (word >> 16 & 1u);
    return (uint16_t)((word + half) >> 16);
}
