/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_ATTEND_H
#define RT_KERNELS_ABI_ATTEND_H

#include "kernels/abi/views.h"

/* A sink that weighs 2 to this and more times the largest score leaves nothing to the keys: it is
 * what overflows a float. */
#define RT_SINK_ALL_LOG2 128

/*
 * attend: out = softmax(scale * q k^T, masked) v with v = the first d_v elements of k, over the
 * blocks that the tile records give. Query token t of a row sees keys [0, len - (q_len - 1 - t)) if
 * causal, [0, len) if not.
 * A row that is not split writes out (bf16) and lse (ln(sum) + max, or with lse_base2 that times
 * log2(e)). A piece of a split row writes normalised numbers to partials.out, as piece.h has them,
 * and, in any case, base-2 partials.lse [slot, hq].
 * A sink is a score without a value: in the sum that a whole row's out is divided by it is one term
 * more, and no part of lse; pieces leave it to reduce. -inf weighs nothing, +inf, or what weighs
 * 2^128 times as much as the largest score, makes out 0, NaN makes it NaN; where no key is seen out
 * is 0 whatever the sink.
 * No key seen: piece -> partial 0 and -inf; whole row -> out 0, lse +inf. Rows of length 0 are not
 * touched here (reduce writes them); negative lengths count as 0.
 * A score of -inf has weight 0; where all are, no key counts as seen. A score of +inf is as NaN.
 * NaN in q stays in its query row; NaN or an infinity in a key reaches the query rows that see the
 * key, and no other.
 * Keys behind the row's length, unused pages and unused table entries are never read into the
 * result. A seen key whose column is >= max_blocks, whose page is outside 0..pages-1 or whose row
 * has a negative slot is never followed: it reads as zeros.
 */
struct rt_attend_params {
    struct rt_heads_view q;           /* [row_base + rows, q_len, heads, d_qk or d_v] bf16 */
    struct rt_heads_view out;         /* [row_base + rows, q_len, heads, d_v] bf16 */
    struct rt_heads_view lse;         /* [row_base + rows, q_len, heads] f32 */
    struct rt_kv_view kv;             /* of this layer */
    struct rt_rows_view rows;         /* slot, length */
    struct rt_schedule_view schedule; /* read */
    struct rt_partials_view partials;
    uint64_t *stamp_first; /* or null: block (0, 0) writes globaltimer after its wait */
    float scale;           /* softmax scale, > 0 */
    uint32_t heads, d_qk, d_v, causal;
    /* 1: the schedule, the lengths, the block table, and all keys but a row's last q_len, were
     * complete before the launch in front of this one began, so they may be read before the wait.
     */
    uint32_t early;
    uint32_t lse_base2; /* 1: lse is of base 2; 0: natural */
    uint32_t is_f32;    /* host device alone: q, out and the cache are f32 */
    /* [row_base + rows, q_len, heads, d_qk - d_v] bf16: the elements of a query from d_v on, and q
     * then has those before; or null: q has all. */
    struct rt_heads_view q_rope;
    const float *sink; /* [heads] natural, of the scores times scale; or null: none */
};
#define RT_ATTEND_PARAMS_ADDRESSES(type, at)                                                       \
    (RT_ADDRESS(type, at q.base) | RT_ADDRESS(type, at out.base) | RT_ADDRESS(type, at lse.base) | \
     RT_KV_ADDRESSES(type, at kv) | RT_ROWS_ADDRESSES(type, at rows) |                             \
     RT_SCHEDULE_ADDRESSES(type, at schedule) | RT_PARTIALS_ADDRESSES(type, at partials) |         \
     RT_ADDRESS(type, at stamp_first) | RT_ADDRESS(type, at q_rope.base) |                         \
     RT_ADDRESS(type, at sink))
RT_STATIC_ASSERT(sizeof(struct rt_attend_params) == 304, "attend ABI");

#endif
