/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_RANDOM_H
#define RT_TESTS_CHECKKERN_RANDOM_H

/* Random numbers that a seed brings back, on every machine alike. */
#include <math.h>
#include <stdint.h>

struct ck_random {
    uint64_t state;
};

static inline uint64_t ck_random_u64(struct ck_random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* 0..n-1; n > 0. */
static inline uint32_t ck_random_below(struct ck_random *r, uint32_t n)
{
    return (uint32_t)((ck_random_u64(r) >> 32) * n >> 32);
}

/* 0 <= x < 1. */
static inline double ck_random_unit(struct ck_random *r)
{
    return (double)(ck_random_u64(r) >> 11) * 0x1p-53;
}

/* Near enough to a normal distribution, mean 0 and deviation 1, within +-6. */
static inline double ck_random_normal(struct ck_random *r)
{
    double sum = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t z = ck_random_u64(r);
        sum += (double)(z & 0xffff) + (double)(z >> 16 & 0xffff) + (double)(z >> 32 & 0xffff) +
               (double)(z >> 48);
    }
    return sum / 65536.0 - 6.0;
}

/* Heads' sinks, beside an lse about `lse`: most about as heavy, others far from it (2e4), infinite,
 * and NaN. */
static inline void ck_random_sinks(struct ck_random *r, float lse, float *sink, uint32_t heads)
{
    const float kinds[] = {-INFINITY, INFINITY, NAN, 2e4f, -2e4f};
    for (uint32_t h = 0; h < heads; h++) {
        const uint32_t kind = ck_random_below(r, 10);
        sink[h] = kind < 5 ? kinds[kind] : lse + 3 * (float)ck_random_normal(r);
    }
}

#endif
