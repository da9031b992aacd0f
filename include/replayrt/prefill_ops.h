/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_PREFILL_OPS_H
#define REPLAYRT_PREFILL_OPS_H

/*
 * Attention of fresh tokens, as an operator: prompts, or chunks of them, in the form of MLA that is
 * not absorbed, where every head has keys and values of its own; and what chunks of a context need
 * beside it. They are like those of replayrt/ops.h, of the same handle and with its laws: the
 * caller's pointers and stream, nothing allocated, nothing waited for, one kernel node in a
 * capture.
 *
 * Addresses of q, q_rope, k, k_rope, v, kv, in and out are multiples of 16 bytes, and their strides
 * multiples of 8 elements; everything else has the alignment of its elements. Strides are in
 * elements, 0: packed; none is negative, none as large as 2^39. What is written shares no byte with
 * itself or anything else of the call (RT_ERR_INVALID). Nor do vectors of one tensor with each
 * other, of rt_kv_gather and rt_mla_merge.
 */
#include "replayrt/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RT_PREFILL_MAX_ROWS 512
#define RT_PREFILL_MAX_TOKENS 16777216

/* A head's numbers: nope_dim + rope_dim of a query and of a key, v_dim of a value. It lies inside
 * of other structs, where it cannot grow. */
struct rt_prefill_shape {
    uint32_t rows;               /* 1..RT_PREFILL_MAX_ROWS, those without a query included */
    uint32_t tokens, keys;       /* 1..RT_PREFILL_MAX_TOKENS, what the tensors have room for */
    uint32_t heads;              /* 1..128 */
    uint32_t nope_dim, rope_dim; /* multiples of 8, together up to 256; rope_dim may be 0 */
    uint32_t v_dim;              /* a multiple of 8 up to 256 */
    uint32_t causal;             /* 1: see below; 0: a row's queries see all its keys */
    enum rt_backend backend;
    uint32_t reserved;
};

/*
 * Row r has the queries q_first[r] .. q_first[r + 1] - 1 and the keys k_first[r] ..
 * k_first[r + 1] - 1. Causal: the last query of a row sees all its keys, each before it one less,
 * so keys that are more than the queries are context in front of them. The offsets are read on the
 * device and do not fall; what lies outside of the tensors is taken as their edge. A row without a
 * query is padding. Tokens from q_first[rows] on are padding too: their out is 0, their lse +inf,
 * as those of a query that sees no key. Tokens in front of q_first[0] are left alone. Keys that are
 * no row's may hold anything.
 *
 * NaN in q stays with its query and head. NaN or an infinity in a key or value reaches the queries
 * that see it, and may reach other queries of its row and head; nothing else.
 */
struct rt_mla_prefill_args {
    uint32_t struct_size;
    float softmax_scale; /* mandatory, > 0: (nope_dim + rope_dim)^-0.5, times YaRN's factor */
    struct rt_prefill_shape shape;
    uint64_t q_first; /* int32 [rows + 1] */
    uint64_t k_first; /* int32 [rows + 1], or 0: as q_first */
    uint64_t q;       /* bf16 [tokens, heads, nope_dim + rope_dim], of nope_dim with a q_rope */
    uint64_t q_rope;  /* bf16 [tokens, heads, rope_dim], or 0: q has all */
    uint64_t k;       /* bf16 [keys, heads, nope_dim + rope_dim], of nope_dim with a k_rope */
    uint64_t k_rope;  /* bf16 [keys, rope_dim], the same for all heads; or 0: k has all */
    uint64_t v;       /* bf16 [keys, heads, v_dim] */
    uint64_t out;     /* bf16 [tokens, heads, v_dim], written */
    uint64_t lse;     /* f32 [tokens, heads], written, as lse_base says */
    /* uint32 [1]: 0 before the first call, and every call leaves it so. Calls that may run at the
     * same time have one each. */
    uint64_t turn;
    int64_t q_token_stride, q_head_stride;
    int64_t q_rope_token_stride, q_rope_head_stride;
    int64_t k_token_stride, k_head_stride;
    int64_t k_rope_token_stride;
    int64_t v_token_stride, v_head_stride;
    int64_t out_token_stride, out_head_stride;
    int64_t lse_token_stride, lse_head_stride;
    enum rt_lse_base lse_base;
    uint32_t reserved;
    /* f32 [heads], as rt_mla_decode has it; or 0. Of outputs that are to be merged none has it:
     * rt_mla_merge adds it, once. */
    uint64_t sink;
};
RT_API enum rt_status rt_mla_prefill(rt_ops *ops, const struct rt_mla_prefill_args *args,
                                     void *stream);

/* Which kernel serves a shape. */
struct rt_prefill_info {
    uint32_t struct_size;
    uint32_t reserved;
    const char *kernel; /* entry point, static storage */
    char reason[160];   /* why this one, in one sentence */
};
RT_API enum rt_status rt_mla_prefill_get_info(rt_ops *ops, const struct rt_prefill_shape *shape,
                                              struct rt_prefill_info *out);

/* ---- a cached context ------------------------------------------------------------------------ */

/*
 * Tokens of a paged cache, rows' one behind the other and bit for bit, as the projections to keys
 * and values of a context want them. They are counted through all rows: row r has those from
 * first[r] up to but not including first[r + 1], the first of which is at positions[r] of its
 * pages. The `count` tokens from `begin` on become out:
 *
 *   out[j] = cache of row r at positions[r] + begin + j - first[r]
 *
 * Zeros where the row's slot is negative, or its position has no column of the table or no page of
 * the pool. What is in front of first[0] or from first[rows] on is left alone, so one launch of a
 * large count serves all that fits. The offsets are read on the device and do not fall; whatever
 * they are, nothing outside of the tensors is touched.
 *
 * Of other types than bf16, width is a token's bytes / 2. Of a cache of another kv_layout tokens
 * come as bf16, what attention reads of them; their width is d_qk.
 */
struct rt_kv_gather_args {
    uint32_t struct_size;
    uint32_t rows;         /* 1..RT_PREFILL_MAX_ROWS */
    uint32_t begin, count; /* count is 1..RT_PREFILL_MAX_TOKENS, both together up to INT32_MAX */
    uint32_t width;        /* a multiple of 8 up to 32768 */
    uint32_t page_size;    /* tokens, 1..RT_MAX_LENGTH */
    uint32_t max_blocks;   /* columns of the block table, up to RT_MAX_LENGTH; 0: there is none, and
                              its address is not looked at */
    uint32_t pages;        /* 1..INT32_MAX; ids outside 0..pages-1 are never followed */
    uint64_t kv;           /* bf16 [pages, page_size, width] of a layer, or of the layout; 16-byte
                              aligned like out */
    uint64_t block_table;  /* int32 [lines, max_blocks] */
    uint64_t slots;        /* int32 [rows], lines of the table; or 0: row r has line r */
    uint64_t first;        /* int32 [rows + 1] */
    uint64_t positions;    /* int32 [rows]; or 0: all are 0 */
    uint64_t out;          /* bf16 [count, width], packed, written */
    int64_t kv_page_stride, kv_token_stride; /* multiples of 8; of another layout than bf16 bytes,
                                                multiples of 16 */
    enum rt_kv_layout kv_layout;             /* RT_KV_BF16: any width, d_v and kv_scale 0 */
    uint32_t d_v;                            /* with width as d_qk: 576/512, 320/256, 288/256 or
                                                512/512, of those that the layout has */
    float kv_scale;                          /* as rt_mla_append_args has it */
    uint32_t reserved;                       /* 0 */
};
RT_API enum rt_status rt_kv_gather(rt_ops *ops, const struct rt_kv_gather_args *args, void *stream);

/* ---- pieces ---------------------------------------------------------------------------------- */

#define RT_MERGE_MAX_PIECES 64

/*
 * Attention over disjoint sets of keys becomes attention over all of them, by the LSE: of chunks of
 * a context by rt_mla_prefill, or of what several devices have of it by rt_mla_decode.
 *
 *   m = max in_lse_i   w_i = exp(in_lse_i - m)   out = sum w_i in_i / sum w_i   m + log(sum w_i)
 *
 * A piece whose lse is infinite has seen no key: its vector may hold anything, NaN too. Where all
 * are so, out is 0 and out_lse +inf. An lse of NaN makes its token's and head's out and out_lse
 * NaN; NaN or an infinity in a vector that counts makes that number of out not finite. Tokens from
 * *live on are padding, whose pieces may hold anything: out 0, out_lse +inf.
 *
 * out may be piece 0 of in, with its token and head strides, and out_lse that of in_lse; else what
 * is written lies apart from what is read.
 */
struct rt_mla_merge_args {
    uint32_t struct_size;
    uint32_t pieces;           /* 1..RT_MERGE_MAX_PIECES */
    uint32_t tokens;           /* 1..RT_PREFILL_MAX_TOKENS */
    uint32_t heads;            /* 1..128 */
    uint32_t v_dim;            /* a multiple of 8 up to 512 */
    enum rt_lse_base lse_base; /* of in_lse and out_lse alike */
    uint64_t in;               /* bf16 [pieces, tokens, heads, v_dim], 16-byte aligned like out */
    uint64_t in_lse;           /* f32 [pieces, tokens, heads] */
    uint64_t live;             /* int32 [1], read on the device; or 0: no token is padding */
    uint64_t out;              /* bf16 [tokens, heads, v_dim], written */
    uint64_t out_lse;          /* f32 [tokens, heads], written; or 0: not wanted */
    int64_t in_piece_stride, in_token_stride, in_head_stride;
    int64_t in_lse_piece_stride, in_lse_token_stride, in_lse_head_stride;
    int64_t out_token_stride, out_head_stride;
    int64_t out_lse_token_stride, out_lse_head_stride;
    /* f32 [heads], as rt_mla_decode has it, natural whatever lse_base is; or 0: there are none. It
     * is in the denominator of all pieces together, and none of them has it. */
    uint64_t sink;
};
RT_API enum rt_status rt_mla_merge(rt_ops *ops, const struct rt_mla_merge_args *args, void *stream);

#ifdef __cplusplus
}
#endif
#endif
