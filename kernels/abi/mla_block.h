/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_MLA_BLOCK_H
#define RT_KERNELS_ABI_MLA_BLOCK_H

/*
 * mla_block: an MLA block of 8, 16 or 32 heads, hidden to hidden, for up to 8 vectors, tokens of
 * rows, as one launch whose blocks are all resident at the same time. It takes the place of
 * input_norm, qkv_a, q_b, preattend, w_uk, append, attend, reduce, w_uv and o_proj. Read by gcc and
 * by nvcc.
 *
 * P, R, L, V: numbers of a head's key without RoPE and with it, of the latent, of a head's value.
 *
 *   sum      = first: hidden; else residual + hidden_scale * hidden, rounded to bf16;
 *              without a residual hidden. It is stored as the residual where there is one
 *   x        = sum * input_norm.weight, rounded, and f its factor scale * (mean(sum^2) + eps)^-1/2;
 *              without that norm x = sum, f = 1
 *   a        = f * [q; kv_a] x + bias                  rounded; q alone where q_rank > 0
 *   q        = f' * q_b (a_q * q_a_norm.weight) + bias likewise: the norm's factor behind the sums;
 *              without q_rank f * q x + bias
 *   q        = s q, s the factor of the token's position, 1 where there are none
 *   q[P..)   turned by the token's cosines and sines, then all of q is rounded
 *   kv       the token becomes [norm(a[0..L)) | turned a[L..L + R)], rounded
 *   q'[h]    = [W_UK[h]^T q[h][0..P) | q[h][P..)]      rounded
 *   o[h]     = softmax(scale * q'[h] kv^T) kv[.., 0..L), its pieces rounded to bf16, then it: of
 *              the row's keys up to the token's own
 *   v[h]     = W_UV[h] o[h]                            rounded
 *   hidden   = o_proj v + bias                         rounded
 *
 * Token t of a row stands at length - 1 where q_len is 1, else at position + t, and is padding
 * where that is length and more. So is a token of a row of length 0 and less, of a negative slot or
 * position, and one whose position is rope.capacity and more where there are a table or factors. It
 * leaves kv alone; its hidden becomes o's bias, 0 without, and its residual is as any other's. A
 * key that the table has no page for is read nowhere and counts as 0; such a token goes nowhere.
 *
 * Settled: the parameters, that words are blank before they are written, that results do not depend
 * on the number of blocks. Not yet: where things lie in an exchange, and how large it is.
 */
#include "kernels/abi/mla_block_cut.h"
#include "kernels/abi/norm.h"
#include "kernels/abi/preattend.h"

/* bf16 [rows, k], along k; 16-byte aligned, and the stride, in elements, a multiple of 8. */
struct rt_mla_block_weight {
    const uint16_t *base;
    int64_t row_stride;
    const uint16_t *bias; /* bf16 [rows], 16-byte aligned, or null; none of kv_b */
};
#define RT_MLA_BLOCK_WEIGHT_ADDRESSES(type, member)                                                \
    (RT_ADDRESS(type, member.base) | RT_ADDRESS(type, member.bias))

struct rt_mla_block_params {
    struct rt_rows_view rows; /* count * q_len 1..8, ctrl null; position is read where q_len > 1 */
    struct rt_kv_view kv;     /* bf16 tokens of L + R, of this layer: read, new tokens written */
    uint16_t *hidden;         /* [rows, q_len, hidden_size] bf16, packed: read, then written */
    uint16_t *residual;       /* likewise, or null; none without input_norm */
    struct rt_mla_block_weight q;    /* [q_rank, hidden_size]; without q_rank [heads (P + R), ..] */
    struct rt_mla_block_weight kv_a; /* [L + R, hidden_size] */
    struct rt_mla_block_weight q_b;  /* [heads (P + R), q_rank], base null without q_rank */
    struct rt_mla_block_weight kv_b; /* [heads (P + V), L]: of each head W_UK, then W_UV */
    struct rt_mla_block_weight o;    /* [hidden_size, heads V] */
    struct rt_norm_view input_norm;  /* width hidden_size; weight null: no norm. Offsets are 0 */
    struct rt_norm_view q_a_norm;    /* width q_rank; weight null without q_rank */
    struct rt_norm_view kv_a_norm;   /* width L */
    struct rt_rope_view rope;
    /* rt_mla_block_exchange_bytes of 0xff at the launch, 128-byte aligned: this launch's. */
    unsigned char *exchange;
    /* Of as many bytes: becomes 0xff. What read it was complete before this launch's wait ends. */
    unsigned char *stale;
    uint32_t hidden_size, q_rank, heads;
    float scale;        /* of scores */
    float hidden_scale; /* of hidden, in the sum with the residual */
    uint32_t first;     /* 1: the residual is hidden alone */
    /* 1: lengths, slots, block table and all keys but the new ones were complete before the launch
     * in front of this one began, so they may be read before the wait. */
    uint32_t early;
    uint32_t reserved; /* 0 */
};
#define RT_MLA_BLOCK_PARAMS_ADDRESSES(type, at)                                                    \
    (RT_ROWS_ADDRESSES(type, at rows) | RT_KV_ADDRESSES(type, at kv) |                             \
     RT_ADDRESS(type, at hidden) | RT_ADDRESS(type, at residual) |                                 \
     RT_MLA_BLOCK_WEIGHT_ADDRESSES(type, at q) | RT_MLA_BLOCK_WEIGHT_ADDRESSES(type, at kv_a) |    \
     RT_MLA_BLOCK_WEIGHT_ADDRESSES(type, at q_b) | RT_MLA_BLOCK_WEIGHT_ADDRESSES(type, at kv_b) |  \
     RT_MLA_BLOCK_WEIGHT_ADDRESSES(type, at o) | RT_NORM_ADDRESSES(type, at input_norm) |          \
     RT_NORM_ADDRESSES(type, at q_a_norm) | RT_NORM_ADDRESSES(type, at kv_a_norm) |                \
     RT_ROPE_ADDRESSES(type, at rope) | RT_ADDRESS(type, at exchange) |                            \
     RT_ADDRESS(type, at stale))
RT_STATIC_ASSERT(sizeof(struct rt_mla_block_params) == 368, "mla_block ABI");

/* Tokens of all rows. */
static RT_HD inline uint32_t rt_mla_block_vectors(const struct rt_mla_block_params *p)
{
    return p->rows.count * p->rows.q_len;
}

/* What only the general kernels do, and 16 heads alone of the others. */
static RT_HD inline int rt_mla_block_is_general(const struct rt_mla_block_params *p)
{
    return p->heads != RT_MLA_BLOCK_GROUP || p->rows.q_len > 1 || p->q.bias || p->kv_a.bias ||
           p->q_b.bias || p->o.bias || p->rope.query_scale || (p->rope.table && p->rope.half_order);
}

/* What the kernel is given: grid cut.blocks, RT_MLA_BLOCK_THREADS threads, cooperative. */
struct rt_mla_block_sm90_params {
    struct rt_mla_block_params block;
    struct rt_mla_block_cut cut;
};

/* Warps that multiply, that bring weights and keys, and one that appends and blanks. */
#define RT_MLA_BLOCK_WORKERS 16u
#define RT_MLA_BLOCK_BRINGERS 2u
#define RT_MLA_BLOCK_THREADS (32u * (RT_MLA_BLOCK_WORKERS + RT_MLA_BLOCK_BRINGERS + 1u))
/* Of an SM's shared memory: so one block stays on each. */
#define RT_MLA_BLOCK_SMEM_BYTES (227u * 1024u)

/*
 * An exchange: words that blocks hand to each other, 0xffffffff until they are written, which no
 * rounding gives. Byte offsets, for `slots` vectors; all tensors packed.
 */
#define RT_MLA_BLOCK_BLANK 0xffffffffu

struct rt_mla_block_exchange {
    uint32_t a;       /* bf16 [slots, q_rank + L + R] */
    uint32_t nope;    /* bf16 [slots, heads, P]: q without RoPE */
    uint32_t q;       /* bf16 [slots, heads, L + R]: what attends */
    uint32_t o;       /* bf16 [slots, heads, L] */
    uint32_t v;       /* bf16 [slots, heads, V] */
    uint32_t weights; /* f32 [heads, units of a group, 2]: of a piece maximum and sum, base 2 */
    uint32_t pieces;  /* bf16 [units, heads of a group, L]: sums of weights times latents */
    uint32_t bytes;   /* of all, a multiple of 128 */
};

static RT_HD inline struct rt_mla_block_exchange
rt_mla_block_exchange(uint32_t slots, uint32_t q_rank, uint32_t heads)
{
    const uint32_t all = slots * heads, groups = rt_mla_block_groups(heads);
    struct rt_mla_block_exchange e;
    e.a = 0;
    e.nope = e.a + slots * (q_rank + RT_MLA_BLOCK_TOKEN) * 2u;
    e.q = e.nope + all * RT_MLA_BLOCK_NOPE * 2u;
    e.o = e.q + all * RT_MLA_BLOCK_TOKEN * 2u;
    e.v = e.o + all * RT_MLA_BLOCK_LATENT * 2u;
    e.weights = e.v + all * RT_MLA_BLOCK_VALUE * 2u;
    e.pieces = e.weights + heads * (RT_MLA_BLOCK_UNITS / groups) * 8u;
    e.bytes = e.pieces + RT_MLA_BLOCK_UNITS * (heads / groups) * RT_MLA_BLOCK_LATENT * 2u;
    return e;
}

/* Bytes of an exchange of a graph of so many vectors. */
static RT_HD inline uint32_t rt_mla_block_exchange_bytes(uint32_t vectors, uint32_t q_rank,
                                                         uint32_t heads)
{
    return rt_mla_block_exchange(rt_mla_block_slots(vectors), q_rank, heads).bytes;
}

#endif
