/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_NOISE_H
#define RT_BENCH_NOISE_H

#include <stddef.h>
#include <stdint.h>

/* bf16 values normally distributed with deviation 0.1, within +-1, the same in every run. The
 * caller's to free; null when out of memory. */
uint16_t *noise_make(size_t count);

#endif
