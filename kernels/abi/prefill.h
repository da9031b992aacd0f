/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_PREFILL_H
#define RT_KERNELS_ABI_PREFILL_H

#include "kernels/abi/views.h"

/* Rows of one call. */
#define RT_PREFILL_MOST_ROWS 512u

/* And tokens, keys: items are counted in 32 bits. */
#define RT_PREFILL_MOST_TOKENS (1u << 24)

/* Of queries and keys (their two parts together), and of values. */
#define RT_PREFILL_MOST_DIM 256u

/* A vector for every token and head, or a value: [tokens, heads(, width)], bf16, lse f32. Strides
 * in elements; a head stride of 0 is one vector for all heads. */
struct rt_prefill_view {
    void *base;
    int64_t token_stride, head_stride;
};

/*
 * prefill_attend: attention of fresh tokens with keys and values of every head, not absorbed.
 *
 *   out[i, h] = sum over the keys j that i sees of weight(i, j, h) * v[j, h]
 *   weight    = softmax over these j of scale * (q[i, h] . k[j, h] + q_rope[i, h] . k_rope[j, h])
 *
 * Row r has the queries q_first[r] .. q_first[r + 1] - 1 and the keys k_first[r] ..
 * k_first[r + 1] - 1, which lie one behind the other in tensors of `tokens` and of `keys` vectors.
 * Where it is causal the last query sees all keys of its row, and each before it one less: what
 * there is more of keys than of queries is context. Else all queries of a row see all its keys.
 *
 * Offsets do not fall; what lies outside of 0..tokens and of 0..keys is taken as the nearest of
 * them, and a row that ends in front of its beginning is empty. Tokens from q_first[rows] on are
 * padding: out 0, lse +inf. Those in front of q_first[0] are left alone. Keys that are no row's are
 * not read into any result.
 *
 * out is bf16, lse ln(sum) + max or with lse_base2 that times log2(e). A sink is one term more of
 * what out is divided by and no part of lse, by the rule of kernels/abi/attend.h; outputs that are
 * to be merged have none, for merge adds it. A query that sees no key: out 0, lse +inf. A score of
 * -inf has weight 0, and where all are no key counts as seen; a score of +inf is as NaN. NaN in q
 * stays with its query and head. NaN or an infinity in a key or a value reaches the queries that
 * see it, and may reach other queries of its row and head, as 0 times it; no other row and no other
 * head.
 */
struct rt_prefill_attend_params {
    struct rt_prefill_view q, q_rope; /* [tokens, heads, nope_dim], [tokens, heads, rope_dim] */
    struct rt_prefill_view k, k_rope; /* [keys, heads, nope_dim], [keys, heads, rope_dim] */
    struct rt_prefill_view v;         /* [keys, heads, v_dim] */
    struct rt_prefill_view out;       /* [tokens, heads, v_dim], written */
    struct rt_prefill_view lse;       /* [tokens, heads], written */
    const int32_t *q_first;           /* [rows + 1] */
    const int32_t *k_first;           /* [rows + 1] */
    /* [1], whose turn it is: 0 before the first launch and behind every one. Two launches that may
     * run at the same time have two. The sm_90 kernels alone look at it. */
    uint32_t *turn;
    const float *sink; /* [heads] natural, of the scores times scale; or null: none */
    float scale;       /* softmax scale, > 0 */
    uint32_t rows, tokens, keys, heads;
    uint32_t nope_dim, rope_dim, v_dim; /* multiples of 8; rope_dim 0: no view of it is looked at */
    uint32_t causal, lse_base2;
    uint32_t is_f32; /* host device alone: q, k, v and out are f32 */
    uint32_t reserved;
};
#define RT_PREFILL_ATTEND_PARAMS_ADDRESSES(type, at)                                               \
    (RT_ADDRESS(type, at q.base) | RT_ADDRESS(type, at q_rope.base) |                              \
     RT_ADDRESS(type, at k.base) | RT_ADDRESS(type, at k_rope.base) |                              \
     RT_ADDRESS(type, at v.base) | RT_ADDRESS(type, at out.base) | RT_ADDRESS(type, at lse.base) | \
     RT_ADDRESS(type, at q_first) | RT_ADDRESS(type, at k_first) | RT_ADDRESS(type, at turn) |     \
     RT_ADDRESS(type, at sink))
RT_STATIC_ASSERT(sizeof(struct rt_prefill_attend_params) == 248, "prefill_attend ABI");

/* A row as it is taken. */
struct rt_prefill_row {
    uint32_t query, queries; /* first, count */
    uint32_t key, keys;
};

static RT_HD inline uint32_t rt_prefill_clamp(int32_t offset, uint32_t low, uint32_t high)
{
    const uint32_t at = offset < 0 ? 0 : (uint32_t)offset;
    return at < low ? low : at > high ? high : at;
}

static RT_HD inline struct rt_prefill_row rt_prefill_row(const struct rt_prefill_attend_params *p,
                                                         uint32_t r)
{
    struct rt_prefill_row row;
    row.query = rt_prefill_clamp(p->q_first[r], 0, p->tokens);
    row.queries = rt_prefill_clamp(p->q_first[r + 1], row.query, p->tokens) - row.query;
    row.key = rt_prefill_clamp(p->k_first[r], 0, p->keys);
    row.keys = rt_prefill_clamp(p->k_first[r + 1], row.key, p->keys) - row.key;
    return row;
}

/* Of the keys of its row the i-th query sees so many, from the first on; not above 0: none. */
static RT_HD inline int32_t rt_prefill_seen(const struct rt_prefill_attend_params *p,
                                            const struct rt_prefill_row *row, uint32_t i)
{
    return p->causal ? (int32_t)row->keys - (int32_t)row->queries + (int32_t)i + 1
                     : (int32_t)row->keys;
}

/* Of the generic kernel: queries and keys of a tile, and how a vector lies in shared memory: eight
 * rows of one column in eight groups of banks. */
#define RT_PREFILL_GENERIC_THREADS 128u
#define RT_PREFILL_GENERIC_QUERIES 64u
#define RT_PREFILL_GENERIC_KEYS 32u
#define RT_PREFILL_GENERIC_STRIDE (RT_PREFILL_MOST_DIM + 8u)
#define RT_PREFILL_GENERIC_SMEM_BYTES                                                              \
    (2u * RT_PREFILL_GENERIC_STRIDE * (RT_PREFILL_GENERIC_QUERIES + 2u * RT_PREFILL_GENERIC_KEYS))

#endif
