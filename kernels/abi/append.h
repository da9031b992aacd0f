/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_APPEND_H
#define RT_KERNELS_ABI_APPEND_H

#include "kernels/abi/schedule.h"

/* Grids: append ceil(rows.count * q_len / RT_APPEND_WARPS) blocks, a warp per token;
 * schedule_append one block that schedules, and blocks of RT_SCHEDULE_THREADS that append. */
#define RT_APPEND_WARPS 8

/*
 * append: token t of row r goes to position rows.position[r] + t: page = table[slot][position /
 * page_size], row position % page_size, copied bit for bit. Nothing is written for rows whose slot
 * or position is negative (padding), and none of a token's row where its column is >= max_blocks or
 * its page outside 0..pages-1.
 */
struct rt_append_params {
    struct rt_tokens_view latent; /* [row_base + rows, q_len] tokens */
    struct rt_kv_view kv;         /* of this layer, written */
    struct rt_rows_view rows;     /* slot, position */
};
#define RT_APPEND_PARAMS_ADDRESSES(type, at)                                                       \
    (RT_ADDRESS(type, at latent.base) | RT_KV_ADDRESSES(type, at kv) |                             \
     RT_ROWS_ADDRESSES(type, at rows))
RT_STATIC_ASSERT(sizeof(struct rt_append_params) == 112, "append ABI, and two lines");

/* schedule_append: schedule and one layer's append, over the same rows, as one launch. */
struct rt_schedule_append_params {
    struct rt_schedule_params schedule;
    struct rt_append_params append;
};
#define RT_SCHEDULE_APPEND_PARAMS_ADDRESSES(type, at)                                              \
    (RT_SCHEDULE_PARAMS_ADDRESSES(type, at schedule.) |                                            \
     RT_APPEND_PARAMS_ADDRESSES(type, at append.))
RT_STATIC_ASSERT(sizeof(struct rt_schedule_append_params) == 184, "schedule_append ABI");

#endif
