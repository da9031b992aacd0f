/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_SAMPLE_NUMBER_H
#define RT_KERNELS_ABI_SAMPLE_NUMBER_H

/*
 * The arithmetic of sample, the same bits in C and in CUDA: integers, and floats that are rounded
 * once by IEEE's rules, with no product that an addition follows. tests/unit/sample.c holds it to
 * the functions that it stands for.
 */
#include "kernels/abi/sample.h"

#include <string.h>

#define RT_SAMPLE_KEY_BITS 50
#define RT_SAMPLE_ID_BITS 18
#define RT_SAMPLE_ID_MASK ((1u << RT_SAMPLE_ID_BITS) - 1)
RT_STATIC_ASSERT(RT_SAMPLE_MOST_VOCAB == 1u << RT_SAMPLE_ID_BITS, "an id's bits in a key");

#define RT_SAMPLE_OCTAVES 40u
#define RT_SAMPLE_FRACTION_BITS 26 /* of a distance, which is 6.26 bits */
#define RT_SAMPLE_BIN_SHIFT 22
RT_STATIC_ASSERT(RT_SAMPLE_BINS == RT_SAMPLE_OCTAVES
                                       << (RT_SAMPLE_FRACTION_BITS - RT_SAMPLE_BIN_SHIFT),
                 "every distance with a weight has its bin");

/* Rounded for itself: what follows must not be fused with it. */
static RT_HD inline float rt_sample_scaled(float logit, float scale)
{
#ifdef __CUDA_ARCH__
    return __fmul_rn(logit, scale);
#else
    return logit * scale;
#endif
}

/*
 * Greater for what comes first in order, never the same for two ids; 0x3ffff - id in the low bits.
 * A float's bits rise with it once those of negative ones are turned round; NaN is made the least.
 */
static RT_HD inline uint64_t rt_sample_key(float x, uint32_t id)
{
    uint32_t bits;
    x += 0.0f; /* -0 is 0 */
    memcpy(&bits, &x, sizeof(bits));
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    const uint32_t order = x == x ? bits : 0;
    return (uint64_t)order << RT_SAMPLE_ID_BITS | (RT_SAMPLE_ID_MASK - id);
}

static RT_HD inline uint32_t rt_sample_id(uint64_t key)
{
    return RT_SAMPLE_ID_MASK - ((uint32_t)key & RT_SAMPLE_ID_MASK);
}

/* What the key was made of; some NaN for a NaN. */
static RT_HD inline float rt_sample_x(uint64_t key)
{
    const uint32_t order = (uint32_t)(key >> RT_SAMPLE_ID_BITS);
    const uint32_t bits = order >> 31 ? order & 0x7fffffffu : ~order;
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* log2(e) / temperature: distances are counted in halvings. */
static RT_HD inline float rt_sample_factor(float temperature)
{
    return 1.44269504f / temperature;
}

/* How far below the top, in 2^-26 halvings; UINT32_MAX: so far that it has no weight. Rises as x
 * falls, so that of two bins of distances the nearer one is in front in every order of keys. */
static RT_HD inline uint32_t rt_sample_distance(float x, float top, float factor)
{
    if (x == top)
        return 0; /* also of infinities, which have no difference */
    const float halvings = (top - x) * factor;
    if (!(halvings < (float)RT_SAMPLE_OCTAVES))
        return UINT32_MAX;
    return (uint32_t)(halvings * (float)(1u << RT_SAMPLE_FRACTION_BITS));
}

static RT_HD inline uint32_t rt_sample_high(uint32_t a, uint32_t b)
{
    return (uint32_t)((uint64_t)a * b >> 32);
}

/*
 * 2^(40 - distance), within 2^-28 of it before it is cut to an integer; 0 for UINT32_MAX. 2^-f for
 * the fraction is a polynomial through the seven Chebyshev points of 0..1, its coefficients of
 * turning signs times 2^32; no partial sum is negative or overflows.
 */
static RT_HD inline uint64_t rt_sample_weight(uint32_t distance)
{
    if (distance == UINT32_MAX)
        return 0;
    const uint32_t f = distance << (32 - RT_SAMPLE_FRACTION_BITS);
    uint32_t sum = 0x00072a3cu;
    sum = 0x00539803u - rt_sample_high(f, sum);
    sum = 0x0273d361u - rt_sample_high(f, sum);
    sum = 0x0e34a75bu - rt_sample_high(f, sum);
    sum = 0x3d7f577eu - rt_sample_high(f, sum);
    sum = 0xb17215b2u - rt_sample_high(f, sum);
    sum = 0xfffffffau - rt_sample_high(f, sum);
    return ((uint64_t)sum << 8) >> (distance >> RT_SAMPLE_FRACTION_BITS);
}

/* floor(a * b / 2^64) */
static RT_HD inline uint64_t rt_sample_high64(uint64_t a, uint64_t b)
{
    const uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
    const uint64_t low = al * bl, middle = ah * bl + (low >> 32), other = al * bh;
    return ah * bh + (middle >> 32) + (((uint32_t)middle + other) >> 32);
}

/* What weights must come to for top_p below 1, of a sum that is below 2^59. */
static RT_HD inline uint64_t rt_sample_need(float top_p, uint64_t sum)
{
    const uint64_t share = top_p > 0.0f ? (uint64_t)(top_p * 4294967296.0f) : 0;
    const uint64_t low = (uint32_t)sum * share;
    const uint64_t need = (sum >> 32) * share + (low >> 32) + ((uint32_t)low != 0);
    return need > 0 ? need : 1;
}

/*
 * Philox 4x32-10, words 1 and 0 of the block. Its multipliers, and the Weyl sequence of its key,
 * are those of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
 */
static RT_HD inline uint64_t rt_sample_random(uint64_t seed, uint32_t position)
{
    uint32_t c0 = position, c1 = 0, c2 = 0, c3 = 0;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return (uint64_t)c1 << 32 | c0;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static RT_HD inline bool rt_sample_draws(const struct rt_sample_line *s)
{
    return s->temperature > 0.0f;
}

static RT_HD inline bool rt_sample_cuts(const struct rt_sample_line *s)
{
    return s->top_k > 0 || s->top_p < 1.0f;
}

static RT_HD inline const struct rt_sample_line *rt_sample_line(const struct rt_sample_params *p,
                                                                uint32_t row)
{
    return p->lines + (p->rows.slot ? (uint32_t)p->rows.slot[row] : row);
}

/* Others are padding, and left alone. */
static RT_HD inline bool rt_sample_is_live(const struct rt_sample_params *p, uint32_t row)
{
    return p->rows.length[row] > 0 && (!p->rows.slot || p->rows.slot[row] >= 0);
}

/* What is no count of a row's tokens means all of them: no number leads to a column elsewhere. */
static RT_HD inline int32_t rt_sample_accept(const struct rt_sample_params *p, uint32_t row)
{
    const int32_t all = (int32_t)p->rows.q_len, given = p->accept ? p->accept[row] : all;
    return given == RT_ACCEPT_BY_DEVICE || (given >= 1 && given <= all) ? given : all;
}

/* May be chosen in. */
static RT_HD inline bool rt_sample_wants(const struct rt_sample_params *p, uint32_t row,
                                         uint32_t column)
{
    if (!rt_sample_is_live(p, row))
        return false;
    const int32_t accept = rt_sample_accept(p, row);
    return accept == RT_ACCEPT_BY_DEVICE || (int32_t)column == accept - 1;
}

static RT_HD inline bool rt_sample_stops(const struct rt_sample_line *s, int32_t token)
{
    bool stops = false;
    for (uint32_t i = 0; i < RT_SAMPLE_STOPS; i++)
        stops = stops || (token >= 0 && s->stop[i] == token);
    return stops;
}

#endif
