/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_MEASURE_PAGES_H
#define RT_BENCH_MEASURE_PAGES_H

/* Pages of a quantised cache, made of noise. */
#include "common/kv_format.h"

/* Bytes between places in noise where a piece or a token may begin. */
#define RT_MEASURE_PLACE_BYTES 256u

/* The i-th of varying places: below `slots`, at least 1. */
static inline uint64_t rt_measure_place(uint64_t i, uint64_t slots)
{
    return (i * UINT64_C(0x9e3779b97f4a7c15) >> 32) % slots;
}

/*
 * Fills `pages` pages of `page_size` tokens, one behind the other at `to`, with what append would
 * have written of bf16 tokens that begin at varying places of `noise`: `noise_bytes`, at least
 * 4096, of finite numbers. Scales in the cache are then powers of two, so that an element is the
 * same number with and without rounding it to bf16, and kernels that do either can be compared. So
 * is `kv_scale` to be, where the format has one of all tokens.
 */
void rt_measure_make_pages(const struct rt_kv_format *format, uint32_t page_size, float kv_scale,
                           const void *noise, uint64_t noise_bytes, uint64_t pages, void *to);

#endif
