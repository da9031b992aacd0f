/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_NOISE_H
#define RT_BENCH_NOISE_H

#include <stddef.h>
#include <stdint.h>

/* bf16 values normally distributed with deviation 0.1, within +-1, the same in every run. The
 * caller's to free; null when out of memory. */
uint16_t *noise_make(size_t count);

/* Bytes that are sane as what a quantised cache holds, whatever it is that begins at a multiple of
 * 4 (an f32 scale from 2^-15 to 2^-4), of 2 (a bf16 as small) or anywhere (an e4m3 below 4, and no
 * NaN). The caller's to free; null when out of memory. */
unsigned char *noise_make_quantised(size_t bytes);

#endif
