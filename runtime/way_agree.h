/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_WAY_AGREE_H
#define RT_RUNTIME_WAY_AGREE_H

/* One way to do a product on all ranks: what each does for itself must come to the same bits. */
#include "driver/comm/comm.h"
#include "runtime/fastest.h"

/*
 * `mine` is what came of timing this rank's ways, with its story in err: plan and timed have them
 * where that is RT_OK, and are not looked at else. Every rank comes here for the same products in
 * the same order.
 *
 * Selects on all of them the way that all have, by its identity, and whose slowest rank is the
 * fastest, for all wait for that one. RT_ERR_UNSUPPORTED, on all of them, where there is none; err
 * names the first rank that lacks what those before it share. RT_ERR_RANKS, where a rank has failed
 * in another way; that rank gets `mine`. RT_ERR_DRIVER.
 */
enum rt_status rt_way_agree(struct rt_comm *comm, struct rt_driver *d, struct rt_matmul_plan *plan,
                            const struct rt_timed_ways *timed, enum rt_status mine,
                            struct rt_error *err);

#endif
