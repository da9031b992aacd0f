/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_ALL_REDUCE_NORM_H
#define RT_KERNELS_ABI_ALL_REDUCE_NORM_H

#include "kernels/abi/all_reduce.h"
#include "kernels/abi/input_norm.h"

/*
 * all_reduce_norm: hidden, summed over ranks in place, and what input_norm does with the sum, in
 * one launch and with the bits of the two.
 *
 *   sum.from = sum.to = norm.hidden [norm.tokens, norm.norm.width], packed, summed
 *
 * A block has a token, and of the mailboxes what RT_ALL_REDUCE_NORM_SLOTS(width) blocks of
 * all_reduce have, with their epochs: its vector v is in its slot v / RT_ALL_REDUCE_THREADS. So
 * both kernels use the same mailboxes in any order. normed may be hidden, which then has what is
 * normed alone.
 *
 * *stop set: of a token of which something has not come `hidden` is left as it is there, but where
 * it is normed, and residual and normed are of no use.
 */
struct rt_all_reduce_norm_params {
    struct rt_all_reduce_params sum;  /* is_f32 is norm's */
    struct rt_input_norm_params norm; /* stride: its width; first: 0 */
};
#define RT_ALL_REDUCE_NORM_PARAMS_ADDRESSES(type, at)                                              \
    (RT_ALL_REDUCE_PARAMS_ADDRESSES(type, at sum.) | RT_INPUT_NORM_PARAMS_ADDRESSES(type, at norm.))
RT_STATIC_ASSERT(sizeof(struct rt_all_reduce_norm_params) == 176, "all_reduce_norm ABI");

/* Of a token so wide. */
#define RT_ALL_REDUCE_NORM_SLOTS(width)                                                            \
    (((width)*2u + RT_ALL_REDUCE_BLOCK_BYTES - 1u) / RT_ALL_REDUCE_BLOCK_BYTES)

#endif
