/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_COUNTED_H
#define RT_KERNELS_ABI_COUNTED_H

#include "kernels/abi/views.h"

/*
 * Few query tokens over lists of keys: sparse_attend and reduce make their plan of the counts by
 * themselves, each warp that wants it, a lane a token. The numbers are those that sparse_schedule
 * would have written (kernels/abi/schedule.h), which is then no node of the graph; lengths, parts
 * and num_splits are in no memory. Of bf16, and never batch-invariant.
 */
#define RT_COUNTED_ROWS 32u
#define RT_COUNTED_PARTS 1024u
#define RT_COUNTED_CONSTANT 65535u /* overhead_blocks, min_blocks: sums are of 32 bits */

/* Counts of one list, as struct rt_sparse_view has them. */
struct rt_count_view {
    const int32_t *count; /* [(row_base + rows) * q_len / count_tokens]; or null: topk */
    uint32_t topk;        /* 0: there is no list */
    uint32_t count_tokens;
};

struct rt_counted_view {
    struct rt_count_view keys, extra;
    const int32_t *row_length; /* [rows]: 0 or less is padding, without keys; or null: none is */
    uint32_t q_len;            /* tokens of a row */
    uint32_t min_blocks;       /* of the schedule; 0: the plan is in memory */
    uint32_t overhead_blocks;
    uint32_t reserved;
};
#define RT_COUNTED_ADDRESSES(type, member)                                                         \
    (RT_ADDRESS(type, member.keys.count) | RT_ADDRESS(type, member.extra.count) |                  \
     RT_ADDRESS(type, member.row_length))
RT_STATIC_ASSERT(sizeof(struct rt_counted_view) == 56, "counted ABI");

/* Entries that hold of a list of `topk`. `counts` of all lists or null: they all do; `token` counts
 * from the tensors' beginning, and so many tokens in turn have one list. */
static RT_HD inline uint32_t rt_list_count(const int32_t *counts, uint32_t count_tokens,
                                           uint32_t topk, uint32_t token)
{
    if (!counts)
        return topk;
    const int32_t count = counts[count_tokens > 1 ? token / count_tokens : token];
    return count <= 0 ? 0 : (uint32_t)count < topk ? (uint32_t)count : topk;
}

static RT_HD inline uint32_t rt_count_of(const struct rt_count_view *view, uint32_t token)
{
    return view->topk ? rt_list_count(view->count, view->count_tokens, view->topk, token) : 0;
}

/* Keys of the replay's token `token`, whose row 0 is the tensors' row `row_base`. */
static RT_HD inline uint32_t rt_counted_length(const struct rt_counted_view *view,
                                               uint32_t row_base, uint32_t token)
{
    const uint32_t in_lists = row_base * view->q_len + token;
    const bool padding = view->row_length && view->row_length[token / view->q_len] <= 0;
    const uint32_t count = rt_count_of(&view->keys, in_lists) + rt_count_of(&view->extra, in_lists);
    return padding ? 0 : count;
}

#endif
