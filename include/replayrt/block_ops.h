/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_BLOCK_OPS_H
#define REPLAYRT_BLOCK_OPS_H

/*
 * What stands around attention in an MLA block, as operators: the norm of its input, products with
 * weights, the node in front of attention. They are like those of replayrt/ops.h, of the same
 * handle and with its laws: the caller's pointers and stream, nothing allocated, nothing waited
 * for, kernel nodes alone in a capture.
 *
 *   hidden ─ rt_mla_input_norm ─ q_a, kv_a ─ rt_mla_preattend ─ attention ─ products ─ hidden
 *                                 products    and q_b, W_UK
 *
 * A decode step of one layer, with products a (hidden to q_a and kv_a, two weights in one), b (q_a
 * to q), uk and uv (head by head, batch: heads), o, made by rt_product_create beforehand, and rows
 * [q_a | kv_a] of product a's y:
 *
 *   rt_mla_input_norm   hidden, residual -> normed
 *   rt_product_run a    normed -> y
 *   rt_mla_preattend    q_a: y, kv_a: y + q_lora_rank numbers, both with y's strides; q: 0
 *   rt_product_run b    y -> q                    [tokens, heads, P + R], x's row stride that of y
 *   rt_mla_preattend    q -> q_rope, which is number L of each head of q' [tokens, heads, L + R]
 *   rt_product_run uk   q -> q'                   per head [tokens, P] by W_UK to its first L
 *   rt_mla_schedule     once a step, any time when lengths are final
 *   rt_mla_decode       q' -> out                 [tokens, heads, L]
 *   rt_product_run uv   out -> values             per head [tokens, L] by W_UV to [tokens, V]
 *   rt_product_run o    values -> hidden
 *
 * With norm_eps and `normed` product b norms q_a itself, and one rt_mla_preattend does kv_a and q.
 *
 * Addresses are multiples of 16 bytes, but for positions and block_table, which have those of their
 * elements. Strides are in elements, multiples of 8 where nothing else is said, 0: packed; none is
 * negative, none as large as 2^39. Vectors of a tensor lie apart, and what is written lies apart
 * from all else of the call, weights and positions too, interleaved or not, but where it says that
 * it may not (RT_ERR_INVALID, with both ranges). Where there is a `precision` it is as in a
 * configuration: with RT_PRECISION_F32, on the host device alone, what is bf16 and not a weight is
 * f32.
 */
#include "replayrt/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * RMSNorm of a vector x: y = x * (mean(x^2) + eps)^-1/2 * (weight + offset) * scale, in float,
 * rounded once. It lies inside of other structs, where it cannot grow.
 */
struct rt_rms_norm {
    uint64_t weight; /* bf16 [width], constant; 0: y = x */
    uint32_t width;  /* numbers of x, weight or not: a multiple of 8 from 8 on */
    float eps;       /* >= 0 */
    float offset;    /* 1 where a model's weights are zero-centred */
    float scale;     /* 0: 1 */
};

/* ---- the norm of a block's input ------------------------------------------------------------- */

/*
 * residual += hidden_scale * hidden, rounded once; normed = norm(residual as stored). No two of the
 * three overlap; with `first`, residual may be hidden itself.
 */
struct rt_mla_input_norm_args {
    uint32_t struct_size;
    uint32_t tokens;         /* 1..RT_MAX_BATCH * RT_MAX_QUERY_LEN */
    uint64_t hidden;         /* bf16 [tokens, norm.width] */
    uint64_t residual;       /* likewise; with `first` it may be 0: kept nowhere */
    uint64_t normed;         /* likewise, written */
    int64_t stride;          /* from token to token, of all three */
    struct rt_rms_norm norm; /* width up to 16384 */
    uint32_t first;          /* 1: residual = hidden, whatever is there */
    float hidden_scale;      /* 0: 1 */
    enum rt_precision precision;
    uint32_t reserved;
};
RT_API enum rt_status rt_mla_input_norm(rt_ops *ops, const struct rt_mla_input_norm_args *args,
                                        void *stream);

/* ---- RoPE ------------------------------------------------------------------------------------ */

/*
 * What RoPE looks up, made on the host, to be uploaded once: cosine and sine of every pair at every
 * position, and what queries are multiplied by. Positions are 0..capacity - 1; as a runtime's
 * max_length does, the capacity decides between longrope's two lists for all of them. `rope` is as
 * in a configuration (rt_config_default has the defaults), rope_dim is R.
 */
struct rt_rope_bytes {
    uint32_t struct_size;
    uint32_t reserved;
    uint64_t table;       /* f32 [capacity, rope_dim / 2, 2]: cosine, sine; 0: nothing turns */
    uint64_t query_scale; /* f32 [capacity]; 0: all are 1 */
};
/* RT_ERR_INVALID: a field of rope, by its name in a configuration, rope_dim or capacity. */
RT_API enum rt_status rt_rope_size(const struct rt_rope *rope, uint32_t rope_dim, uint32_t capacity,
                                   struct rt_rope_bytes *out, struct rt_error *error);
/* Positions first..first + count - 1, into host memory that begins with position `first`. What has
 * 0 bytes may be null. */
RT_API enum rt_status rt_rope_fill(const struct rt_rope *rope, uint32_t rope_dim, uint32_t capacity,
                                   uint32_t first, uint32_t count, float *table, float *query_scale,
                                   struct rt_error *error);

/* ---- in front of attention ------------------------------------------------------------------- */

/*
 * Three parts in one node, each done where its first address is given. Token t of request r stands
 * at position positions[r] + t; L is shape.d_v, R is shape.d_qk - shape.d_v, P is nope_dim.
 *
 *   q_a   q_a = norm(q_a), in place
 *   kv_a  kv[position] = [norm(kv_a[0..L)) | rope(kv_a[L..L + R))], as rt_mla_append places it by
 *         block_table and positions; with max_blocks 0 nowhere
 *   q     q_rope[head] = s * rope(q[head][P..P + R)) and, where there is a query_scale,
 *         q[head][0..P) *= s in place, with s the position's factor, else 1
 *
 * Into a quantised cache goes what rt_mla_append would make of the key, rounded to bf16 before.
 * Pairs keep their places: the cache and q have the model's order. A request whose position is
 * negative, and a token at a position of rope_capacity or more where there is a table or factors:
 * nothing goes into the cache; q_a, q_rope's numbers and q's P numbers become 0.
 */
struct rt_mla_preattend_args {
    uint32_t struct_size;
    uint32_t nope_dim; /* P, a multiple of 8 */
    struct rt_mla_shape shape;
    uint64_t positions; /* int32 [batch] */

    uint64_t q_a;                /* bf16 [batch, query_len, q_a_norm.width], or 0 */
    struct rt_rms_norm q_a_norm; /* width up to 4096 */
    int64_t q_a_row_stride, q_a_token_stride;

    uint64_t kv_a;                /* bf16 [batch, query_len, L + R], or 0 */
    struct rt_rms_norm kv_a_norm; /* width: L */
    int64_t kv_a_row_stride, kv_a_token_stride;
    uint64_t kv;          /* bf16 [pages, page_size, L + R] of this layer, or of shape.kv_layout */
    uint64_t block_table; /* int32 [batch, max_blocks] */
    int64_t kv_page_stride, kv_token_stride; /* as rt_mla_append_args has them */

    uint64_t q; /* bf16 [batch, query_len, heads, P + R], or 0 */
    int64_t q_row_stride, q_token_stride, q_head_stride;
    /* bf16 [batch, query_len, heads, R]. Of a q that decode gets as one tensor it is the address of
     * the first head's number L, with that tensor's strides. */
    uint64_t q_rope;
    int64_t q_rope_row_stride, q_rope_token_stride, q_rope_head_stride;

    /* Device copies of what rt_rope_fill made; 0: nothing turns, and all factors are 1. */
    uint64_t rope_table, query_scale;
    uint32_t rope_capacity; /* positions of both */
    enum rt_rope_order rope_order;
    float kv_scale; /* as rt_mla_append_args has it; without kv_a 0 */
    uint32_t reserved;
};
RT_API enum rt_status rt_mla_preattend(rt_ops *ops, const struct rt_mla_preattend_args *args,
                                       void *stream);

/* ---- products -------------------------------------------------------------------------------- */

/*
 * y[z, i, j] = bias[j] + sum over l of x'[z, i, l] * w[z, j, l], for vectors i of a batch z; x' is
 * x or its norm, sums are float. An object is made once for a shape and run with any addresses:
 * which kernel of this library serves it, or which of cuBLASLt's ways is the fastest, is decided
 * when it is made, and depends on shape, strides and device alone.
 */
typedef struct rt_product rt_product;

/* Lies inside of the shape, where it cannot grow. */
struct rt_product_weight {
    uint32_t rows;   /* of y this weight gives so many numbers; 0: there is no such weight */
    uint32_t biased; /* 1: bias[rows] is added; with batch 1 alone */
    /* Of w[z, j, l], any: one of the last two is 1. Both 0: [batch, rows, k], packed. */
    int64_t batch_stride, row_stride, column_stride;
};

struct rt_product_shape {
    uint32_t struct_size;
    uint32_t batch, vectors, k; /* at least 1 each */
    /* The second's rows stand behind the first's in y. Both lie along, or both across. */
    struct rt_product_weight weights[2];
    /* Any; 0: [batch, vectors, k], and [batch, vectors, rows], packed. */
    int64_t x_batch_stride, x_row_stride, y_batch_stride, y_row_stride;
    uint32_t normed; /* 1: x' is bf16 RMSNorm of x, of width k; the three as in rt_rms_norm */
    float norm_eps, norm_offset, norm_scale;
    /* RT_DTYPE_BF16, which 0 is too, or RT_DTYPE_F32; with precision f32 0 is the latter, and the
     * former is refused. */
    enum rt_dtype output;
    enum rt_projections projections; /* who multiplies, as in a configuration */
    enum rt_backend backend;         /* of our kernels */
    enum rt_precision precision;     /* of f32 x' is not rounded */
    /* A product of all the same fields, on this device, also by other operators: this one is done
     * as that is, so that both give the same bits. Not used when it is made. Null: who multiplies,
     * and how, is decided anew. */
    const struct rt_product *like;
};

struct rt_product_info {
    uint32_t struct_size;
    uint32_t by_library;      /* 1: cuBLASLt multiplies; 0 on the host device, where plain C stands
                                 in for it */
    uint64_t workspace_bytes; /* 0: none is needed */
    const char *kernel;       /* entry point, or the library's way; owned by the product */
    const char *reason;       /* one sentence: why this one; owned by the product */
};

/*
 * Blocks: with projections that may be the library's it is loaded, and its ways are run on memory
 * of this call's own, 256 MiB of weights at most or one set of them. The product must be destroyed
 * before `ops`, and behind the work that was put by it.
 * RT_ERR_INVALID: a field, by name. RT_ERR_UNSUPPORTED: what was asked for by name cannot serve, or
 * `like` is done in a way that there is no more; with auto the other does, which the reason says.
 */
RT_API enum rt_status rt_product_create(rt_ops *ops, const struct rt_product_shape *shape,
                                        rt_product **out);
RT_API void rt_product_destroy(rt_product **product);
RT_API enum rt_status rt_product_get_info(const rt_product *product, struct rt_product_info *out);

struct rt_product_args {
    uint32_t struct_size;
    uint32_t reserved;
    uint64_t x;           /* bf16 or, by the precision, f32 [batch, vectors, k] */
    uint64_t y;           /* [batch, vectors, rows of all], written */
    uint64_t weights[2];  /* bf16, of each that the shape has */
    uint64_t biases[2];   /* bf16 [rows], of each that is biased */
    uint64_t norm_weight; /* bf16 [k], where x is normed */
    uint64_t workspace;   /* info's bytes, a multiple of 256; free for others behind the product */
};
/* Failures are told by the operators' rt_ops_last_error. */
RT_API enum rt_status rt_product_run(rt_product *product, const struct rt_product_args *args,
                                     void *stream);

#ifdef __cplusplus
}
#endif
#endif
