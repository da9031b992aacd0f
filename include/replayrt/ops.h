/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_OPS_H
#define REPLAYRT_OPS_H

/*
 * The operators, for callers who keep their own graphs and their own KV manager: schedule, append
 * and decode on raw device pointers and the caller's stream. Stream-ordered: they never allocate,
 * never synchronise, read no host memory behind a device pointer, and may be captured, as kernel
 * nodes alone. A null stream is the legacy default stream of the device's primary context, also in
 * a program built for per-thread default streams; it cannot be captured. On the host device
 * pointers are host pointers, the stream is null, and the work is done on return.
 *
 * A cache is of the layout that the shape names (enum rt_kv_layout, docs/kv_formats.md), which is
 * never inferred from a stride. Where it is not bf16, kv is bytes, and its strides are in bytes,
 * multiples of 16; scales that a layout has behind a page's tokens begin at page_size times
 * kv_token_stride bytes of each page, and a page's stride leaves room for them.
 *
 * Rows are moved 16 bytes at a time: the addresses of q, q_rope, latent, rope, kv, out,
 * schedule.parts and partial_out are multiples of 16 bytes, and the strides of the first six
 * multiples of 8 elements.
 * Everything else (lengths, positions, block_table, slot_mapping, lse, …) needs the alignment of
 * its elements alone, so lengths + k is as good as lengths. No stride is negative, none as large as
 * 2^39 elements. What is written shares no byte with itself or anything else of the call, by
 * address, shape and strides (RT_ERR_INVALID, with both ranges); it may lie between the others'
 * vectors, as columns of one tensor do.
 *
 * Order within a step: append (per layer) after the layer's latent is written; schedule once, any
 * time after lengths are final; decode per layer after both. The schedule depends on the lengths,
 * the shape and the device, not on layer, tables or values: one serves all layers of a step. It
 * goes stale with the lengths, so launch it in every step, inside your graph.
 *
 * The laws of rt.h hold here too. One rt_ops is used by one thread at a time.
 */
#include "replayrt/rt.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rt_ops rt_ops;

/*
 * Opens the device ("auto", "host", "cuda:N") and loads the kernels. Blocks. "auto" is the first
 * CUDA device that opens, as in rt.h, and never the host, where pointers mean something else
 * (RT_ERR_NO_DEVICE). The device's primary context must be the one that the caller's pointers and
 * streams belong to.
 */
RT_API enum rt_status rt_ops_create(const char *device, rt_ops **out, struct rt_error *error);
RT_API void rt_ops_destroy(rt_ops **ops);
/* The last failure on this handle; never null. */
RT_API const struct rt_error *rt_ops_last_error(const rt_ops *ops);

/*
 * With `overlap` 1, what is launched from now on may begin before the kernel in front of it on its
 * stream is over (programmatic stream serialization): it asks for weights, and waits before it
 * reads or writes anything else. So nothing may write weights that was put on the stream since, or
 * directly in front of that. A stage of rt_create_params.overlapped_stages wants it. 0, as a handle
 * begins: off.
 * RT_ERR_INVALID: neither.
 */
RT_API enum rt_status rt_ops_overlap(rt_ops *ops, uint32_t overlap);

/* Absorbed MLA decode of `batch` requests with `query_len` tokens each. */
struct rt_mla_shape {
    uint32_t struct_size; /* sizeof(struct rt_mla_shape), exactly: it lies inside of others */
    uint32_t batch;       /* 1..RT_MAX_BATCH */
    uint32_t query_len;   /* 1..8 */
    uint32_t heads;       /* 1..128 */
    uint32_t d_qk, d_v;   /* 576/512, 320/256, 288/256 or 512/512 */
    uint32_t page_size;   /* tokens: 8, 16, 32, 64 or 128; 1 with the generic kernels */
    uint32_t max_blocks;  /* columns of the block table; 0: there is none, and its address is not
                             looked at */
    uint32_t pages;       /* pages in the pool; ids outside 0..pages-1 are never followed */
    uint32_t causal;      /* 1: query t sees keys < length - (query_len - 1 - t); 0: all keys */
    enum rt_backend backend;
    enum rt_kv_layout kv_layout; /* of the cache */
};

/* What to allocate, once, for a shape: all 256-byte aligned, reusable step after step. */
struct rt_mla_workspace {
    uint32_t struct_size;
    uint32_t parts;             /* that the schedule shares keys out to */
    uint64_t part_bytes;        /* int32 [parts, 8] */
    uint64_t num_splits_bytes;  /* int32 [batch + 1] */
    uint64_t partial_out_bytes; /* split rows only; shared by all layers */
    uint64_t partial_lse_bytes;
    const char *kernel; /* entry point that will attend, static storage */
};
RT_API enum rt_status rt_mla_workspace_size(rt_ops *ops, const struct rt_mla_shape *shape,
                                            struct rt_mla_workspace *out);
/* The same of batch-invariant attention, arguments with `invariant` 1: other kernels, more partials
 * and, with the generic kernels, other parts. Of more than 32 query rows a request has 64 partials,
 * which are 16.8 MB at 128 heads of d_v 512. */
RT_API enum rt_status rt_mla_invariant_workspace_size(rt_ops *ops, const struct rt_mla_shape *shape,
                                                      struct rt_mla_workspace *out);

/* How the keys are shared out. Both or none: they travel together. */
struct rt_mla_schedule_buffers {
    uint64_t parts;      /* int32 [parts, 8] */
    uint64_t num_splits; /* int32 [batch + 1] */
};

struct rt_mla_schedule_args {
    uint32_t struct_size;
    /* 1: the schedule is one for batch-invariant decode: how a request's keys are cut, and in which
     * order its pieces are added up, follows from its own length alone, so that what decode makes
     * of the request depends on its own keys, length and query_len and on the shape's heads, and
     * has the same bits with any batch, neighbours and multiprocessors. 0: what is fastest. */
    uint32_t invariant;
    struct rt_mla_shape shape;
    uint64_t lengths; /* int32 [batch]: each request's KV length, new tokens included */
    struct rt_mla_schedule_buffers schedule; /* written */
};
RT_API enum rt_status rt_mla_schedule(rt_ops *ops, const struct rt_mla_schedule_args *args,
                                      void *stream);

/*
 * Writes the new tokens into the cache, bit for bit, or quantised as the layout has it: scales that
 * are in the cache are the least powers of two for which no number of a tile is beyond 448, 2^-100
 * at least; rounding is to nearest even; what is beyond is 448 with its sign, NaN stays NaN. A
 * token comes whole, or its latent and its
 * rope part from two tensors. Where it goes is said in one of two ways, never both:
 *
 *   block_table, positions   token t of request r to position positions[r] + t of its pages
 *   slot_mapping             token t of request r to slot slot_mapping[r * query_len + t]:
 *                            page slot / page_size, row slot % page_size; -1 skips the token
 *
 * A position or a slot that is negative, a column or a page that there is not: nothing is written.
 * Two tokens of one slot: one of them stays, or some of each.
 */
struct rt_mla_append_args {
    uint32_t struct_size;
    uint32_t reserved;
    struct rt_mla_shape shape;
    uint64_t latent;      /* bf16 [batch, query_len, d_qk], of d_v where rope is given */
    uint64_t kv;          /* bf16 [pages, page_size, d_qk] of this layer, or of the layout */
    uint64_t block_table; /* int32 [batch, max_blocks] */
    uint64_t positions;   /* int32 [batch]: position of the first new token; < 0: skip the row */
    /* in elements; 0: packed */
    int64_t latent_row_stride, latent_token_stride, kv_page_stride, kv_token_stride;
    uint64_t rope; /* bf16 [batch, query_len, d_qk - d_v], or 0: latent has all of d_qk */
    int64_t rope_row_stride, rope_token_stride;
    uint64_t slot_mapping; /* int64 [batch, query_len], packed; or 0 */
    /* RT_KV_FP8_TENSOR alone, else 0: what numbers of this layer's cache are multiplied by when
     * they are read. Above 0 and finite. */
    float kv_scale;
    uint32_t reserved_too;
};
RT_API enum rt_status rt_mla_append(rt_ops *ops, const struct rt_mla_append_args *args,
                                    void *stream);

/* What lse is of the scores s, times softmax_scale, of the keys that a query sees. Where it sees
 * none it is +inf, in either base. */
enum rt_lse_base {
    RT_LSE_NATURAL = 0, /* ln(sum exp(s)) */
    RT_LSE_BASE2        /* log2(sum exp(s)), which is the natural one times log2(e) */
};

struct rt_mla_decode_args {
    uint32_t struct_size;
    float softmax_scale; /* mandatory, > 0 */
    struct rt_mla_shape shape;
    uint64_t q;           /* bf16 [batch, query_len, heads, d_qk], of d_v where q_rope is given */
    uint64_t kv;          /* bf16 [pages, page_size, d_qk] of this layer, or of the layout */
    uint64_t block_table; /* int32 [batch, max_blocks]; behind a request's length: not read */
    uint64_t lengths;     /* int32 [batch], the values that the schedule saw */
    struct rt_mla_schedule_buffers schedule; /* read */
    uint64_t partial_out, partial_lse;       /* scratch, rt_mla_workspace_size */
    uint64_t out;                            /* bf16 [batch, query_len, heads, d_v]; length 0: 0 */
    uint64_t lse; /* f32 [batch, query_len, heads], as lse_base says; length 0: +inf */
    /* in elements; 0: packed */
    int64_t q_row_stride, q_token_stride, q_head_stride;
    int64_t out_row_stride, out_token_stride, out_head_stride;
    int64_t lse_row_stride, lse_token_stride, lse_head_stride;
    int64_t kv_page_stride, kv_token_stride;
    /* bf16 [batch, query_len, heads, d_qk - d_v], or 0: q has all of d_qk. All strides are served.
     * The sm90 kernels fetch q with the copy engine where query_len is 1, or a token's stride is
     * heads times a head's in q and in q_rope; elsewhere by hand. */
    uint64_t q_rope;
    int64_t q_rope_row_stride, q_rope_token_stride, q_rope_head_stride;
    enum rt_lse_base lse_base;
    float kv_scale; /* as rt_mla_append_args has it */
    /* f32 [heads], or 0: there are none. A head's sink is a score, natural and times softmax_scale
     * already, of a key that has no value: it is in the softmax's denominator, so that out is
     * multiplied by 1 / (1 + exp(sink - lse)), and is no part of lse. -inf is as no sink; +inf, or
     * what outweighs every key by 2^128, makes out 0; NaN makes it NaN. No key seen: out is 0
     * whatever the sink. */
    uint64_t sink;
    uint32_t invariant; /* as the schedule's arguments had it; caches of bf16 */
    uint32_t reserved;
};
RT_API enum rt_status rt_mla_decode(rt_ops *ops, const struct rt_mla_decode_args *args,
                                    void *stream);

#ifdef __cplusplus
}
#endif
#endif
