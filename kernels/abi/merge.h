/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_MERGE_H
#define RT_KERNELS_ABI_MERGE_H

#include "kernels/abi/prefill.h"

#define RT_MERGE_MOST_PIECES 64u
#define RT_MERGE_MOST_DIM 512u
#define RT_MERGE_THREADS 256u

/* Of every piece a vector for every token and head, or a value: [pieces][tokens, heads(, v_dim)],
 * bf16, lse f32. Strides in elements. */
struct rt_merge_view {
    void *base;
    int64_t piece_stride, token_stride, head_stride;
};

/*
 * merge: attention over disjoint sets of keys, the pieces, becomes attention over all of them. For
 * every token and head
 *
 *   m   = max lse_i     w_i = exp(lse_i - m)     over the pieces that have seen a key
 *   out = sum w_i in_i / sum w_i                 out_lse = m + log(sum w_i)
 *
 * or with lse_base2 the same to base 2, of in_lse and out_lse alike.
 *
 * An infinite lse, +inf as attention leaves it or -inf, says that the piece has seen no key: its
 * weight is 0, and what is in its vector, NaN too, is not read into the result. All pieces so: out
 * 0, out_lse +inf. An lse of NaN makes out and out_lse of its token and head NaN. NaN or an
 * infinity in a vector that counts makes that number of out NaN or an infinity, and no other.
 *
 * A sink is one term more of what out is divided by and no part of out_lse: pieces are without it,
 * so it counts once. Else by the rule of kernels/abi/attend.h: out is 0 where it outweighs all
 * pieces or none has seen a key.
 *
 * live: tokens from *live on are padding: out 0, out_lse +inf, and nothing of the pieces is read
 * into them. It is taken as the nearest of 0..tokens.
 *
 * out may be piece 0 of in, and out_lse that of in_lse, with its strides; else what is written lies
 * apart from what is read. The order of the sums is the pieces', so two runs agree bitwise.
 *
 * Bound, of the CUDA kernels against the truth: out half a unit of bf16 from the exact value, and
 * 2^-18 of the largest number that is summed; out_lse 2^-20 (1 + |m|).
 */
struct rt_merge_params {
    struct rt_merge_view in, in_lse;
    struct rt_prefill_view out,
        out_lse;         /* [tokens, heads(, v_dim)], written; out_lse may be null */
    const int32_t *live; /* [1], or null: all tokens are */
    const float *sink;   /* [heads] natural, whatever the base of lse; or null: none */
    uint32_t pieces, tokens, heads;
    uint32_t v_dim; /* a multiple of 8 */
    uint32_t lse_base2;
    uint32_t is_f32; /* host device alone: in and out are f32 */
};
#define RT_MERGE_PARAMS_ADDRESSES(type, at)                                                        \
    (RT_ADDRESS(type, at in.base) | RT_ADDRESS(type, at in_lse.base) |                             \
     RT_ADDRESS(type, at out.base) | RT_ADDRESS(type, at out_lse.base) |                           \
     RT_ADDRESS(type, at live) | RT_ADDRESS(type, at sink))
RT_STATIC_ASSERT(sizeof(struct rt_merge_params) == 152, "merge ABI");

/* Tokens that are no padding. */
static RT_HD inline uint32_t rt_merge_live(const struct rt_merge_params *p)
{
    return p->live ? rt_prefill_clamp(*p->live, 0, p->tokens) : p->tokens;
}

/* Lanes of a warp that share a token and head, 8 numbers each at a time: a power of two. */
static RT_HD inline uint32_t rt_merge_lanes(uint32_t v_dim)
{
    uint32_t lanes = 1;
    while (lanes < 32u && lanes * 8u < v_dim)
        lanes *= 2;
    return lanes;
}

#endif
