/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REF_HOST_H
#define RT_KERNELS_REF_HOST_H

/* What a GPU gives its kernels and C must be given: a clock, and a store that others may poll. */
#include <stdint.h>

/* Nanoseconds of a clock that never goes back; stands for globaltimer. */
uint64_t rt_ref_now_ns(void);

/* Everything stored before is visible to whoever sees `value`. */
void rt_ref_publish(uint64_t *word, uint64_t value);

#endif
