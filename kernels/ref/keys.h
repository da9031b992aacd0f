/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REF_KEYS_H
#define RT_KERNELS_REF_KEYS_H

/* What the tiled reference and the tile-free truth share: which query and key is where, and who
 * sees it. */
#include "kernels/abi/quant.h"

#include <math.h>
#include <string.h>

#define RT_REF_MAX_D 576
#define RT_REF_LOG2_E 1.4426950408889634074
#define RT_REF_LN_2 0.69314718055994530942

/* What a natural or a base-2 LSE is in the base that the caller wants. */
static inline double rt_ref_lse_of_natural(double lse, uint32_t lse_base2)
{
    return lse_base2 ? lse * RT_REF_LOG2_E : lse;
}

static inline double rt_ref_lse_of_base2(double lse, uint32_t lse_base2)
{
    return lse_base2 ? lse : lse * RT_REF_LN_2;
}

/* What out is divided by, where keys' weights relative to the exponent `max` of 2 have the sum
 * `sum`: with the sink of a head's one term more. 0: out is 0. */
static inline double rt_ref_divisor(const float *sink, uint32_t head, double max, double sum)
{
    if (!sink || sum == 0 || isnan(sum))
        return sum;
    const double weight_log2 = (double)sink[head] * RT_REF_LOG2_E - max;
    return weight_log2 >= RT_SINK_ALL_LOG2 ? 0 : sum + exp2(weight_log2);
}

/* Keys [0, result) are seen by query token `token` of the row; <= 0: none. */
int64_t rt_ref_seen_keys(const struct rt_attend_params *p, uint32_t row, uint32_t token);

/* Key `position` of the row, widened, [d_qk]; zeros where the table leads nowhere. `quant`: what
 * the cache's rows hold; null: plain numbers. */
void rt_ref_load_key(const struct rt_attend_params *p, const struct rt_quant_view *quant,
                     uint32_t row, int64_t position, double *key);

/* Query row `query` = token * heads + head of the row, times scale, [d_qk]. */
void rt_ref_load_query(const struct rt_attend_params *p, uint32_t row, uint32_t query, double scale,
                       double *q);

/* n is a multiple of 8, as every head dimension served is. */
double rt_ref_dot(const double *restrict a, const double *restrict b, size_t n);
void rt_ref_add_scaled(double *restrict sum, const double *restrict a, double scale, size_t n);

#endif
