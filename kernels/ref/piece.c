/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/piece.h"

#include "kernels/abi/piece.h"

#include <math.h>
#include <string.h>

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

struct words {
    uint16_t *halves, *rests;
};

static struct words words_of(const struct rt_ref_pieces *p, int64_t slot, uint32_t query)
{
    const uint64_t numbers = (uint64_t)p->query_rows * p->d_v;
    uint16_t *halves = (uint16_t *)(void *)(p->partials.out + slot * (int64_t)numbers);
    halves += (uint64_t)query * p->d_v;
    return (struct words){halves, halves + numbers};
}

static float *numbers_of(const struct rt_ref_pieces *p, int64_t slot, uint32_t query)
{
    return p->partials.out + (slot * p->query_rows + query) * p->d_v;
}

/* Exponents are 15 and 127 more than they say; the least is of 2^-24, and the largest of none. */
static float of_f16(uint32_t half)
{
    const uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    if (magnitude < 0x400u)
        return of_bits(sign | bits_of((float)magnitude * 0x1p-24f));
    return of_bits(sign |
                   ((magnitude << 13) + (magnitude < RT_PIECE_LIMIT ? 112u << 23 : 224u << 23)));
}

/* Without its last eight bits, to the nearest; NaN has none in those alone. */
static uint32_t shortened(float value)
{
    const uint32_t bits = bits_of(value);
    return isnan(value) ? bits | 0x400000u : bits + 0x7fu + (bits >> 8 & 1u);
}

void rt_ref_piece_store(const struct rt_ref_pieces *to, int64_t slot, uint32_t query,
                        const float *x)
{
    if (to->is_f32) {
        memcpy(numbers_of(to, slot, query), x, to->d_v * sizeof(*x));
        return;
    }
    const struct words words = words_of(to, slot, query);
    for (uint32_t d = 0; d < to->d_v; d += 2) {
        const uint32_t at = RT_PIECE_AT(d), a = shortened(x[d]), b = shortened(x[d + 1]);
        words.halves[at] = RT_PIECE_MARK;
        words.halves[at + 1] = (uint16_t)((a >> 8 & 0xffu) | (b & 0xff00u));
        words.rests[at] = (uint16_t)(a >> 16);
        words.rests[at + 1] = (uint16_t)(b >> 16);
    }
}

void rt_ref_piece_load(const struct rt_ref_pieces *from, int64_t slot, uint32_t query, float *x)
{
    if (from->is_f32) {
        memcpy(x, numbers_of(from, slot, query), from->d_v * sizeof(*x));
        return;
    }
    const struct words words = words_of(from, slot, query);
    for (uint32_t d = 0; d < from->d_v; d += 2) {
        const uint32_t at = RT_PIECE_AT(d);
        const uint32_t low = words.halves[at], high = words.halves[at + 1];
        if (low == RT_PIECE_MARK) {
            x[d] = of_bits((uint32_t)words.rests[at] << 16 | (high & 0xffu) << 8);
            x[d + 1] = of_bits((uint32_t)words.rests[at + 1] << 16 | (high & 0xff00u));
        } else {
            x[d] = of_f16(low);
            x[d + 1] = of_f16(high);
        }
    }
}
