/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_WAY_AGREE_H
#define RT_RUNTIME_WAY_AGREE_H

/* One way to do a product on all ranks: what each does for itself must come to the same bits. */
#include "driver/comm/comm.h"

/*
 * `mine` is what came of choosing a way, with its story in err: plan has it where that is RT_OK,
 * and may be null else. Every rank comes here for the same products in the same order. Selects rank
 * 0's way on all of them, which the library's name for it (plan->text) tells. RT_ERR_UNSUPPORTED,
 * on all of them, where one has no way, or not that one; err names it. RT_ERR_RANKS; `mine` where
 * that is another failure.
 */
enum rt_status rt_way_agree(struct rt_comm *comm, struct rt_driver *d, struct rt_matmul_plan *plan,
                            enum rt_status mine, struct rt_error *err);

#endif
