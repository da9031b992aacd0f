/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_SPARSE_OPS_H
#define REPLAYRT_SPARSE_OPS_H

/*
 * Sparse absorbed decode, as operators: every query token attends to the keys that a list of its
 * own names, as an indexer, a window or a compressor chose them, and to no other. They are like
 * those of replayrt/ops.h, of the same handle and with its laws; a schedule and a decode are a
 * kernel node, and two, in a capture.
 *
 * Order within a step: rt_mla_sparse_schedule once the counts are final, but where decode makes a
 * plan of its own (own_plan of the workspace); rt_mla_sparse_decode after it, and after the keys
 * are written, for every layer whose counts those are. Lists may differ from layer to layer with
 * one schedule, counts not.
 *
 * Addresses of q, q_rope, kv, out, schedule.parts and partial_out are multiples of 16 bytes, and
 * their strides multiples of 8 elements; everything else has the alignment of its elements. Strides
 * are in elements, 0: packed; none is negative, none as large as 2^39. What is written shares no
 * byte with itself or anything else of the call (RT_ERR_INVALID).
 */
#include "replayrt/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* It lies inside of other structs, where it cannot grow. */
struct rt_mla_sparse_shape {
    uint32_t struct_size;        /* sizeof(struct rt_mla_sparse_shape), exactly */
    uint32_t batch, query_len;   /* requests, and tokens of each, 1..8: together 1..RT_MAX_BATCH */
    uint32_t heads;              /* 1..128 */
    uint32_t d_qk, d_v;          /* 576/512 or 512/512 */
    enum rt_backend backend;     /* auto, sm90, generic */
    enum rt_kv_layout kv_layout; /* of both caches; not bf16: their strides are in bytes */
};

/* What the entries of a list are. Never guessed: 0 is refused. */
enum rt_sparse_entries {
    RT_SPARSE_SLOTS = 1, /* page * page_size + the token's place in it, of the whole pool */
    RT_SPARSE_POSITIONS  /* positions of the request, whose pages the block table has */
};

/*
 * A cache, and for every query token a list of keys in it. Of a list the first entries hold, as
 * many as its count says, topk at most; what is behind those is not looked at. An entry that is
 * negative (-1 is customary), or leads to no column of the table or no page of the pool, is no key.
 * A key that a list has twice counts twice. Which keys a token may see is the list's to say: there
 * is no causal mask.
 */
struct rt_mla_sparse_keys {
    uint32_t struct_size; /* sizeof(struct rt_mla_sparse_keys), exactly */
    uint32_t topk;        /* entries of a list, 1..RT_MAX_LENGTH; 0, of `extra`: there is none */
    enum rt_sparse_entries entries;
    uint32_t page_size;         /* tokens, 1..RT_MAX_LENGTH */
    uint32_t pages;             /* 1..INT32_MAX; slots are below pages * page_size */
    uint32_t max_blocks;        /* columns of the block table; of slots 0 */
    uint32_t counts_by_request; /* 1: counts are int32 [batch]; 0: int32 [batch, query_len] */
    uint32_t reserved;
    uint64_t kv;          /* bf16 [pages, page_size, d_qk] of this layer, or of the layout */
    uint64_t indices;     /* int32 [batch, query_len, topk] */
    uint64_t counts;      /* int32, or 0: all entries hold */
    uint64_t block_table; /* int32 [batch, max_blocks]; of slots 0 */
    int64_t kv_page_stride, kv_token_stride;
    int64_t indices_token_stride; /* from list to list, those of a request one behind the other */
};

/* What to allocate, once, for a shape: all 256-byte aligned, reusable step after step. */
struct rt_mla_sparse_workspace {
    uint32_t struct_size;
    uint32_t parts;            /* that the schedule shares keys out to */
    uint64_t part_bytes;       /* int32 [parts, 8] */
    uint64_t num_splits_bytes; /* int32 [batch * query_len + 1] */
    uint64_t lengths_bytes;    /* int32 [batch * query_len] */
    uint64_t partial_out_bytes, partial_lse_bytes;
    const char *kernel; /* entry point that will attend, static storage */
    /* 1: the decode makes the plan by itself where schedule and lengths are 0, and needs neither
     * them nor rt_mla_sparse_schedule: sm90, bf16, at most 32 query tokens and heads. The bits are
     * the same. */
    uint32_t own_plan;
    uint32_t reserved;
};
RT_API enum rt_status rt_mla_sparse_workspace_size(rt_ops *ops,
                                                   const struct rt_mla_sparse_shape *shape,
                                                   struct rt_mla_sparse_workspace *out);

/*
 * Of both operators. The softmax is over the keys of `keys` and those of `extra` as if they were
 * one list: a model's window and what it has compressed. Where a token has no key, out is 0 and lse
 * +inf. NaN or an infinity in a key reaches the tokens whose lists have it, and no other.
 */
struct rt_mla_sparse_args {
    uint32_t struct_size;
    float softmax_scale; /* mandatory, > 0 */
    struct rt_mla_sparse_shape shape;
    struct rt_mla_sparse_keys keys;
    struct rt_mla_sparse_keys extra;         /* all zero: there is none */
    struct rt_mla_schedule_buffers schedule; /* written by the schedule, read by the decode; zeros
                                                where the workspace has own_plan and counts are what
                                                decode shall go by */
    uint64_t lengths;                        /* likewise: the keys of every query token */
    uint64_t partial_out, partial_lse;       /* scratch of the decode */
    uint64_t q;      /* bf16 [batch, query_len, heads, d_qk], of d_v where q_rope is given */
    uint64_t q_rope; /* bf16 [batch, query_len, heads, d_qk - d_v], or 0: q has all of d_qk */
    uint64_t out;    /* bf16 [batch, query_len, heads, d_v], written */
    uint64_t lse;  /* f32 [batch, query_len, heads], written, as lse_base says; without the sink */
    uint64_t sink; /* f32 [heads], as rt_mla_decode has it; or 0 */
    int64_t q_row_stride, q_token_stride, q_head_stride;
    int64_t q_rope_row_stride, q_rope_token_stride, q_rope_head_stride;
    int64_t out_row_stride, out_token_stride, out_head_stride;
    int64_t lse_row_stride, lse_token_stride, lse_head_stride;
    enum rt_lse_base lse_base;
    float kv_scale; /* of both caches, as rt_mla_append_args has it */
};

/* Counts become the keys of every query token, and those equal parts of work. Reads the shape, the
 * two lists' dimensions and counts; writes schedule and lengths. */
RT_API enum rt_status rt_mla_sparse_schedule(rt_ops *ops, const struct rt_mla_sparse_args *args,
                                             void *stream);
RT_API enum rt_status rt_mla_sparse_decode(rt_ops *ops, const struct rt_mla_sparse_args *args,
                                           void *stream);

#ifdef __cplusplus
}
#endif
#endif
