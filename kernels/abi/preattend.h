/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_PREATTEND_H
#define RT_KERNELS_ABI_PREATTEND_H

#include "kernels/abi/norm.h"

/*
 * Blocks of RT_PREATTEND_WARPS warps. q_a has a block for each token; behind those come warps, one
 * for each token of kv_a, and then one for every RT_PREATTEND_WARP_HEADS heads of q's tokens.
 */
#define RT_PREATTEND_WARPS 8u
#define RT_PREATTEND_WARP_HEADS 8u
/* q_a's, held in registers by the threads of a block. */
#define RT_PREATTEND_MOST_WIDTH 4096u

/* Cosine and sine of every position, and what q is multiplied by: made on the host (common/rope.h).
 */
struct rt_rope_view {
    const float *table;       /* [capacity, rope_dim / 2, 2]: cos, sin; null: nothing is turned.
                               * 16-byte aligned, constant like the next */
    const float *query_scale; /* [capacity], or null: 1 everywhere */
    uint32_t capacity;        /* positions, where there is either */
    uint32_t half_order;      /* 0: pairs (2i, 2i + 1); 1: pairs (i, i + rope_dim / 2) */
};
#define RT_ROPE_ADDRESSES(type, member)                                                            \
    (RT_ADDRESS(type, member.table) | RT_ADDRESS(type, member.query_scale))

/*
 * preattend: what lies between the products in front of attention, as one node. Three parts, each
 * done where its view has a base; token t of row r stands at position rows.position[r] + t:
 *
 *   q_a  norm of q's low-rank vector, in place: q_a = norm(q_a; q_a_norm)
 *   kv_a norm of the latent, RoPE of the key, paged append (as append has it):
 *        kv[position] = [norm(kv_a[0..L); kv_a_norm) | rope(kv_a[L..L + R))]
 *   q    RoPE of q and the concatenation, and the position's factor s on both parts:
 *        q_out[h][L..L + R) = s * rope(q_in[h][P..P + R)); q_in[h][0..P) *= s in place, which is
 *        left alone where there are no factors. q_out[h][0..L) is another product's.
 *
 * rope turns a pair (a, b) into (a cos - b sin, a sin + b cos) and leaves every number in its
 * place: the cache has the order of the model. A number is rounded once, where it is stored.
 *
 * A row whose slot or position is negative (padding), and a token whose position is rope.capacity
 * and more where a table or factors are given: nothing goes into the cache; q_a, q_out's R and
 * q_in's P numbers become 0. A token that the block table has no page for is as any other, and its
 * key goes nowhere.
 *
 * place: where in the cache a token's key goes, in place of its position, which RoPE goes by all
 * the same; nowhere where it is negative. So a rank has the tokens that are its own.
 */
struct rt_preattend_params {
    struct rt_rows_view rows;
    struct rt_kv_view kv;          /* of this layer, written */
    struct rt_tokens_view q_a;     /* [row_base + rows, q_len, q_a_norm.width], or base null */
    struct rt_tokens_view kv_a;    /* [row_base + rows, q_len, L + R], or base null */
    struct rt_heads_view q_in;     /* [row_base + rows, q_len, heads, P + R], or base null */
    struct rt_heads_view q_out;    /* [row_base + rows, q_len, heads, L + R] */
    struct rt_norm_view q_a_norm;  /* width: of q_a */
    struct rt_norm_view kv_a_norm; /* width: L */
    struct rt_rope_view rope;
    const int32_t *place;                           /* [rows, q_len], or null: its position */
    uint32_t heads, nope_dim, latent_dim, rope_dim; /* P, L, R; R may be 0 */
    uint32_t is_f32; /* host device alone: q_a, kv_a, q_in, q_out and the cache are f32 */
    /* 1: slots, positions, places, row_base and the block table were complete before the launch in
     * front of this one began, so they may be read before the wait. */
    uint32_t early;
};
#define RT_PREATTEND_PARAMS_ADDRESSES(type, at)                                                    \
    (RT_ROWS_ADDRESSES(type, at rows) | RT_KV_ADDRESSES(type, at kv) |                             \
     RT_ADDRESS(type, at q_a.base) | RT_ADDRESS(type, at kv_a.base) |                              \
     RT_ADDRESS(type, at q_in.base) | RT_ADDRESS(type, at q_out.base) |                            \
     RT_NORM_ADDRESSES(type, at q_a_norm) | RT_NORM_ADDRESSES(type, at kv_a_norm) |                \
     RT_ROPE_ADDRESSES(type, at rope) | RT_ADDRESS(type, at place))
RT_STATIC_ASSERT(sizeof(struct rt_preattend_params) == 304, "preattend ABI");

/* Blocks that have q_a's norm to do. */
static RT_HD inline uint32_t rt_preattend_norm_blocks(const struct rt_preattend_params *p)
{
    return p->q_a.base ? p->rows.count * p->rows.q_len : 0;
}

/* Blocks, of so many warps each, that have all of it to do. */
static RT_HD inline uint32_t rt_preattend_blocks(const struct rt_preattend_params *p,
                                                 uint32_t warps)
{
    const uint32_t tokens = p->rows.count * p->rows.q_len;
    const uint32_t groups = rt_ceil_div_u32(p->heads, RT_PREATTEND_WARP_HEADS);
    const uint32_t work = (p->kv_a.base ? tokens : 0) + (p->q_in.base ? tokens * groups : 0);
    return rt_preattend_norm_blocks(p) + rt_ceil_div_u32(work, warps);
}

#endif
