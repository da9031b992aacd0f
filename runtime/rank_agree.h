/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_RANK_AGREE_H
#define RT_RUNTIME_RANK_AGREE_H

/* What a rank alone cannot decide: who takes a way that another has not takes none. */
#include "driver/comm/comm.h"

/*
 * `mine` is what this rank has come to, with its story in err: RT_OK, that it can. Every rank comes
 * here for the same questions in the same order; blocks as rt_comm_gather does.
 *
 * RT_OK on all ranks, where all can. RT_ERR_UNSUPPORTED on all of them, where a rank has come to
 * that: err names the first and tells its story. RT_ERR_RANKS, where a rank has failed in another
 * way; that rank gets `mine`.
 */
enum rt_status rt_rank_agree(struct rt_comm *comm, enum rt_status mine, struct rt_error *err);

#endif
