/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_APPEND_H
#define RT_KERNELS_ABI_APPEND_H

#include "kernels/abi/schedule.h"

/* Grids: append and append_general ceil(rows.count * q_len / RT_APPEND_WARPS) blocks, a warp per
 * token; schedule_append one block that schedules, and blocks of RT_SCHEDULE_THREADS that append.
 */
#define RT_APPEND_WARPS 8

/*
 * append: token t of row r goes to position rows.position[r] + t: page = table[slot][position /
 * page_size], row position % page_size, copied bit for bit. Nothing is written for rows whose slot
 * or position is negative (padding), none of a token's row where its column is >= max_blocks or its
 * page outside 0..pages-1, and of rows of several tokens (q_len) none at rows.length[r] and behind
 * it, where length is given.
 */
struct rt_append_params {
    struct rt_tokens_view latent; /* [row_base + rows, q_len] tokens */
    struct rt_kv_view kv;         /* of this layer, written */
    struct rt_rows_view rows;     /* slot, position, length */
};
#define RT_APPEND_PARAMS_ADDRESSES(type, at)                                                       \
    (RT_ADDRESS(type, at latent.base) | RT_KV_ADDRESSES(type, at kv) |                             \
     RT_ROWS_ADDRESSES(type, at rows))
RT_STATIC_ASSERT(sizeof(struct rt_append_params) == 112, "append ABI, and two lines");

/*
 * append_general: append as engines have it, whose tokens may come in two pieces and go by slots.
 *
 *   rope.base  null: latent holds whole tokens; else it holds their first token_bytes - rope_bytes,
 *              and rope the rest, which lies behind those in the cache
 *   slots      null: places by table and position, as above; else token t of row r goes to
 *              page slots[r * q_len + t] / page_size, row slots[r * q_len + t] % page_size, and
 *              nowhere where that is negative or pages * page_size and more. Neither the table nor
 *              rows.slot and rows.position are read then. Which of two tokens of one slot stays is
 *              not said.
 *
 * An operator of its own, so that a step's append stays at two lines; it begins as that one does.
 */
struct rt_append_general_params {
    struct rt_append_params append;
    const int64_t *slots;       /* [rows, q_len], or null */
    struct rt_tokens_view rope; /* [row_base + rows, q_len] pieces of rope_bytes */
    uint32_t rope_bytes;        /* a multiple of 16, below token_bytes; 0 without rope */
    uint32_t reserved;
};
#define RT_APPEND_GENERAL_PARAMS_ADDRESSES(type, at)                                               \
    (RT_APPEND_PARAMS_ADDRESSES(type, at append.) | RT_ADDRESS(type, at slots) |                   \
     RT_ADDRESS(type, at rope.base))
RT_STATIC_ASSERT(sizeof(struct rt_append_general_params) == 152, "append_general ABI");

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
