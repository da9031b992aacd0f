/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_PREATTEND_H
#define RT_KERNELS_ABI_PREATTEND_H

#include "kernels/abi/norm.h"

/* Cosine and sine of every position, and what q is multiplied by: made on the host (common/rope.h).
 */
struct rt_rope_view {
    const float *table;       /* [capacity, rope_dim / 2, 2]: cos, sin; null: nothing is turned */
    const float *query_scale; /* [capacity], or null: 1 everywhere */
    uint32_t capacity;        /* positions */
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
 * A row that is padding, and a token whose position is negative or rope.capacity and more where a
 * table is given: nothing goes into the cache; q_a, q_out's R and q_in's P numbers become 0.
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
    uint32_t heads, nope_dim, latent_dim, rope_dim; /* P, L, R; R may be 0 */
    uint32_t is_f32; /* host device alone: q_a, kv_a, q_in, q_out and the cache are f32 */
    uint32_t reserved;
};
#define RT_PREATTEND_PARAMS_ADDRESSES(type, at)                                                    \
    (RT_ROWS_ADDRESSES(type, at rows) | RT_KV_ADDRESSES(type, at kv) |                             \
     RT_ADDRESS(type, at q_a.base) | RT_ADDRESS(type, at kv_a.base) |                              \
     RT_ADDRESS(type, at q_in.base) | RT_ADDRESS(type, at q_out.base) |                            \
     RT_NORM_ADDRESSES(type, at q_a_norm) | RT_NORM_ADDRESSES(type, at kv_a_norm) |                \
     RT_ROPE_ADDRESSES(type, at rope))
RT_STATIC_ASSERT(sizeof(struct rt_preattend_params) == 296, "preattend ABI");

#endif
