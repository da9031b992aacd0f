/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_MATH_H
#define RT_COMMON_MATH_H

/* Small arithmetic, valid in C11 and in CUDA C. Sizes are 64-bit everywhere. */
#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define RT_HD __host__ __device__
#else
#define RT_HD
#endif

static RT_HD inline uint32_t rt_ceil_div_u32(uint32_t a, uint32_t b)
{
    return a / b + (a % b != 0);
}

static RT_HD inline uint64_t rt_ceil_div_u64(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* align must be a power of two; the caller has bounded value (see rt_add_u64). */
static RT_HD inline uint64_t rt_align_up_u64(uint64_t value, uint64_t align)
{
    return (value + align - 1) & ~(align - 1);
}

static RT_HD inline uint32_t rt_min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static RT_HD inline uint64_t rt_min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static RT_HD inline uint32_t rt_max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static RT_HD inline uint64_t rt_max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#ifndef __CUDACC__
/* Checked size arithmetic: false, and *out untouched, where the true result does not fit. */
static inline bool rt_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline bool rt_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}
#endif

#endif
