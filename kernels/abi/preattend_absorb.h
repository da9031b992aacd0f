/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_PREATTEND_ABSORB_H
#define RT_KERNELS_ABI_PREATTEND_ABSORB_H

#include "kernels/abi/preattend.h"
#include "kernels/abi/project.h"

/*
 * preattend_absorb: preattend and, behind it, the product of q's first P numbers with W_UK, as one
 * launch: the product reads nothing that preattend makes, but for zeros where a token is not live.
 *
 *   preattend  kv_a and q as preattend has them; q_a has no base, for its norm is in front of q
 *   absorb     q_out[h][0..L) = q_in[h][0..P) W_UK[h]: head z, token i of q_in are vector i of z
 *
 * There are no factors of q (rope.query_scale): those would be written where the product reads.
 * Rows are counted from 0 (rows.ctrl null), as a product counts them.
 *
 * Grids: blocks of the product first, whose work is the longer; behind them preattend's.
 */
struct rt_preattend_absorb_params {
    struct rt_preattend_params preattend;
    struct rt_project_params absorb;
};
#define RT_PREATTEND_ABSORB_PARAMS_ADDRESSES(type, at)                                             \
    (RT_PREATTEND_PARAMS_ADDRESSES(type, at preattend.) |                                          \
     RT_PROJECT_PARAMS_ADDRESSES(type, at absorb.))
RT_STATIC_ASSERT(sizeof(struct rt_preattend_absorb_params) == 496, "preattend_absorb ABI");
RT_STATIC_ASSERT(RT_PROJECT_THREADS == 32u * RT_PREATTEND_WARPS, "blocks of one size");

#endif
