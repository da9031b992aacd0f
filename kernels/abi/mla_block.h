/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_MLA_BLOCK_H
#define RT_KERNELS_ABI_MLA_BLOCK_H

/*
 * mla_block: an MLA block of 16 heads, hidden to hidden, for up to 8 rows of one token each, as one
 * launch whose blocks are all resident at the same time. It takes the place of input_norm, qkv_a,
 * q_b, preattend, w_uk, append, attend, reduce, w_uv and o_proj. Read by gcc and by nvcc.
 *
 * P, R, L, V: numbers of a head's key without RoPE and with it, of the latent, of a head's value.
 *
 *   sum      = first: hidden; else residual + hidden_scale * hidden, rounded to bf16;
 *              without a residual hidden. It is stored as the residual where there is one
 *   x        = sum * input_norm.weight, rounded, and f its factor scale * (mean(sum^2) + eps)^-1/2;
 *              without that norm x = sum, f = 1
 *   a        = f * [q; kv_a] x                         rounded; q alone where q_rank > 0
 *   q        = f' * q_b (a_q * q_a_norm.weight)        likewise: the norm's factor behind the sums;
 *              without q_rank f * q x
 *   q[P..)   turned by the token's cosines and sines, then all of q is rounded
 *   kv       the row's last token becomes [norm(a[0..L)) | turned a[L..L + R)], rounded
 *   q'[h]    = [W_UK[h]^T q[h][0..P) | q[h][P..)]      rounded
 *   o[h]     = softmax(scale * q'[h] kv^T) kv[.., 0..L), its pieces rounded to bf16, then it
 *   v[h]     = W_UV[h] o[h]                            rounded
 *   hidden   = o_proj v                                rounded
 *
 * A row that is padding (length 0 and less, a negative slot, a position of rope.capacity and more
 * where there is a table) leaves kv alone; its hidden becomes 0, and its residual is as any
 * other's. A key that the table has no page for is read nowhere and counts as 0; the new token
 * goes nowhere.
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
};

struct rt_mla_block_params {
    struct rt_rows_view rows; /* count 1..8, q_len 1, ctrl null. The new token is the row's last:
                               * position is not read */
    struct rt_kv_view kv;     /* bf16 tokens of L + R, of this layer: read, the new token written */
    uint16_t *hidden;         /* [rows, hidden_size] bf16, packed: read, and written at the end */
    uint16_t *residual;       /* likewise, or null; none without input_norm */
    struct rt_mla_block_weight q;    /* [q_rank, hidden_size], or without q_rank [16 (P + R), ..] */
    struct rt_mla_block_weight kv_a; /* [L + R, hidden_size] */
    struct rt_mla_block_weight q_b;  /* [16 (P + R), q_rank], base null without q_rank */
    struct rt_mla_block_weight kv_b; /* [16 (P + V), L]: of each head W_UK, then W_UV */
    struct rt_mla_block_weight o;    /* [hidden_size, 16 V] */
    struct rt_norm_view input_norm;  /* width hidden_size; weight null: no norm. Offsets are 0 */
    struct rt_norm_view q_a_norm;    /* width q_rank; weight null without q_rank */
    struct rt_norm_view kv_a_norm;   /* width L */
    struct rt_rope_view rope;        /* pairs (2i, 2i + 1), no factors of queries; table or null */
    /* rt_mla_block_exchange_bytes of 0xff at the launch, 128-byte aligned: this launch's. */
    unsigned char *exchange;
    /* Of as many bytes: becomes 0xff. What read it was complete before this launch's wait ends. */
    unsigned char *stale;
    uint32_t hidden_size, q_rank;
    float scale;        /* of scores */
    float hidden_scale; /* of hidden, in the sum with the residual */
    uint32_t first;     /* 1: the residual is hidden alone */
    /* 1: lengths, slots, block table and all keys but the new ones were complete before the launch
     * in front of this one began, so they may be read before the wait. */
    uint32_t early;
};
#define RT_MLA_BLOCK_PARAMS_ADDRESSES(type, at)                                                    \
    (RT_ROWS_ADDRESSES(type, at rows) | RT_KV_ADDRESSES(type, at kv) |                             \
     RT_ADDRESS(type, at hidden) | RT_ADDRESS(type, at residual) | RT_ADDRESS(type, at q.base) |   \
     RT_ADDRESS(type, at kv_a.base) | RT_ADDRESS(type, at q_b.base) |                              \
     RT_ADDRESS(type, at kv_b.base) | RT_ADDRESS(type, at o.base) |                                \
     RT_NORM_ADDRESSES(type, at input_norm) | RT_NORM_ADDRESSES(type, at q_a_norm) |               \
     RT_NORM_ADDRESSES(type, at kv_a_norm) | RT_ROPE_ADDRESSES(type, at rope) |                    \
     RT_ADDRESS(type, at exchange) | RT_ADDRESS(type, at stale))
RT_STATIC_ASSERT(sizeof(struct rt_mla_block_params) == 320, "mla_block ABI");

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
 * rounding gives. Byte offsets, for `slots` rows; all tensors packed.
 */
#define RT_MLA_BLOCK_BLANK 0xffffffffu

struct rt_mla_block_exchange {
    uint32_t a;       /* bf16 [slots, q_rank + L + R] */
    uint32_t nope;    /* bf16 [slots, 16, P]: q without RoPE */
    uint32_t q;       /* bf16 [slots, 16, L + R]: what attends */
    uint32_t o;       /* bf16 [slots, 16, L] */
    uint32_t v;       /* bf16 [slots, 16, V] */
    uint32_t weights; /* f32 [16, RT_MLA_BLOCK_UNITS, 2]: of each piece maximum and sum, base 2 */
    uint32_t pieces;  /* bf16 [RT_MLA_BLOCK_UNITS, 16, L]: sums of weights times latents */
    uint32_t bytes;   /* of all, a multiple of 128 */
};

static RT_HD inline struct rt_mla_block_exchange rt_mla_block_exchange(uint32_t slots,
                                                                       uint32_t q_rank)
{
    const uint32_t heads = slots * RT_MLA_BLOCK_HEADS;
    struct rt_mla_block_exchange e;
    e.a = 0;
    e.nope = e.a + slots * (q_rank + RT_MLA_BLOCK_TOKEN) * 2u;
    e.q = e.nope + heads * RT_MLA_BLOCK_NOPE * 2u;
    e.o = e.q + heads * RT_MLA_BLOCK_TOKEN * 2u;
    e.v = e.o + heads * RT_MLA_BLOCK_LATENT * 2u;
    e.weights = e.v + heads * RT_MLA_BLOCK_VALUE * 2u;
    e.pieces = e.weights + RT_MLA_BLOCK_HEADS * RT_MLA_BLOCK_UNITS * 8u;
    e.bytes = e.pieces + RT_MLA_BLOCK_UNITS * RT_MLA_BLOCK_HEADS * RT_MLA_BLOCK_LATENT * 2u;
    return e;
}

/* Bytes of an exchange of a graph of so many rows. */
static RT_HD inline uint32_t rt_mla_block_exchange_bytes(uint32_t rows, uint32_t q_rank)
{
    return rt_mla_block_exchange(rt_mla_block_slots(rows), q_rank).bytes;
}

#endif
