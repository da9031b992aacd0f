/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_COUNTED_VIEW_H
#define RT_KERNELS_COUNTED_VIEW_H

#include "kernels/abi/sparse.h"
#include "kernels/op.h"

/* Whether sparse attention of so many query tokens, and reduce behind it, may make their plan of
 * counts by themselves (kernels/abi/counted.h), without a schedule in front. Pure. */
bool rt_attend_counts(const struct rt_variant *attend, uint32_t tokens);

/* Whether it then leaves nothing to reduce, which is no node; `topk`: entries of both lists. Pure.
 */
bool rt_attend_is_whole(const struct rt_variant *attend, uint32_t tokens, uint32_t topk);
/* Sparse attention's kernel of so many query tokens. Pure. */
const char *rt_sparse_attend_entry(const struct rt_variant *attend, uint32_t tokens, uint32_t topk);

/* What both are told then. `row_length` may be null. Pure. */
struct rt_counted_view rt_counted_view_make(const struct rt_variant *attend,
                                            const struct rt_sparse_view *keys,
                                            const struct rt_sparse_view *extra,
                                            const int32_t *row_length, uint32_t q_len);

#endif
