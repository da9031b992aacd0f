/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_MODEL_OPS_H
#define REPLAYRT_MODEL_OPS_H

/*
 * What a decoder has besides attention's blocks, as operators: embedding, routing, experts and
 * dense MLPs, the next token. They are like those of replayrt/ops.h, of the same handle and with
 * its laws: the caller's pointers and stream, nothing allocated, nothing waited for, kernel nodes
 * alone in a capture. Norms and products with weights are in replayrt/block_ops.h.
 *
 *   tokens ─ rt_embed ─ hidden … hidden ─ norm ┬ router ─ rt_route ┐
 *                                              └───────────────────┴ rt_experts_up ─ _down ─ hidden
 *                              or ─ rt_gate, all of these, of a few tokens ┘
 *                              or ─ rt_moe_block, norm to hidden, of a few tokens
 *   hidden ─ norm (─ rt_take_rows) ─ LM head ─ rt_sample ─ sampled, accepted
 *
 * Addresses are multiples of 16 bytes, but for those of int32 and float elements, which have those
 * of their elements. Strides are in elements, multiples of 8 where nothing else is said, 0: packed;
 * none is negative, none as large as 2^39. Vectors of a tensor lie apart, and what is written
 * shares no byte with anything else of the call (RT_ERR_INVALID, with both ranges); it may lie
 * between the others' vectors. What row_base or slots point into is taken to be as long as is known
 * without them. `precision` is as in a configuration: with RT_PRECISION_F32, on the host device
 * alone, what is bf16 and not a weight is f32.
 */
#include "replayrt/block_ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The rows of one replay and their tokens, as a runtime's tensors of these names have them. Row r's
 * tokens are r * query_len.. of all that is said to be [tokens]. It lies inside of other structs,
 * where it cannot grow.
 */
struct rt_token_rows {
    uint32_t rows;      /* 1..RT_MAX_TOKENS / query_len */
    uint32_t query_len; /* 1..RT_MAX_QUERY_LEN */
    uint64_t lengths;   /* i32 [rows], 0 and less: padding; or 0: none is */
    uint64_t slots;     /* i32 [rows], negative: padding; or 0: row r has slot r */
    uint64_t positions; /* i32 [rows]: read by rt_sample alone, others may leave it 0 */
    uint64_t row_base;  /* i32 [1]: where a step's own tensors begin for this replay; 0: at 0 */
};

/* ---- embedding ------------------------------------------------------------------------------- */

/* hidden[t] = scale * table[tokens[row_base * query_len + t]], rounded once to float and once to
 * bf16. Padding, and ids that are no row of the table, give zeros. */
struct rt_embed_args {
    uint32_t struct_size;
    enum rt_precision precision;
    struct rt_token_rows rows;
    uint64_t table;  /* bf16 [vocab, width] */
    uint64_t tokens; /* i32 [step's tokens] */
    uint64_t hidden; /* bf16 [tokens, width], written */
    int64_t table_stride, hidden_stride;
    uint32_t vocab, width; /* width: a multiple of 8 */
    float scale;           /* 0: 1 */
    uint32_t reserved;
};
RT_API enum rt_status rt_embed(rt_ops *ops, const struct rt_embed_args *args, void *stream);

/* ---- rows by their numbers ------------------------------------------------------------------- */

#define RT_TAKE_MAX_ROWS 16777216

/* out[i] = x[index[i]], bit for bit, as of a matrix of prompts' tokens the last of every prompt.
 * A number that is no row of x gives zeros. out lies apart from x. */
struct rt_take_rows_args {
    uint32_t struct_size;
    enum rt_precision precision;
    uint32_t rows;   /* 1..RT_TAKE_MAX_ROWS */
    uint32_t x_rows; /* 1..INT32_MAX */
    uint32_t width;  /* a multiple of 8 */
    uint32_t reserved;
    uint64_t x;     /* bf16 [x_rows, width] */
    uint64_t index; /* i32 [rows] */
    uint64_t out;   /* bf16 [rows, width], written */
    int64_t x_stride, out_stride;
};
RT_API enum rt_status rt_take_rows(rt_ops *ops, const struct rt_take_rows_args *args, void *stream);

/* ---- mixtures of experts --------------------------------------------------------------------- */

enum rt_scoring {
    RT_SCORING_SOFTMAX = 0, /* over all experts */
    RT_SCORING_SIGMOID      /* of each by itself */
};

/* What the score of a group of experts is. */
enum rt_group_score {
    RT_GROUP_SCORE_MAX = 0, /* its best expert's */
    RT_GROUP_SCORE_TOP2     /* the sum of its two best ones', of its only one if it has no second */
};

/*
 * Who goes where, which rt_route writes and experts read. A pair is a token and a place of its
 * choices, number token * experts_per_token + place. It lies inside of other structs, where it
 * cannot grow.
 */
struct rt_routing {
    uint64_t choices;      /* i32 [tokens, experts_per_token]; -1: padding */
    uint64_t weights;      /* f32 [tokens, experts_per_token] */
    uint64_t offsets;      /* i32 [experts + 1]: expert e has pairs[offsets[e]..offsets[e + 1]) */
    uint64_t pairs;        /* i32 [tokens * experts_per_token], of each expert rising */
    uint64_t active;       /* i32 [experts, 4], 16-byte aligned: expert, first pair, count, 0 */
    uint64_t active_count; /* i32 [1] */
};

/*
 * Chooses experts_per_token experts for every token by its logits, as struct rt_moe of
 * replayrt/models.h says it, and groups the tokens by expert. Of equal scores the lower index is
 * the larger. A token of padding has no expert.
 */
struct rt_route_args {
    uint32_t struct_size;
    uint32_t experts;           /* 1..1024 */
    uint32_t experts_per_token; /* 1..32, at most those of the groups chosen */
    uint32_t groups;            /* 0 and 1: none; 2..32, divides experts */
    uint32_t groups_per_token;  /* 1..groups */
    enum rt_scoring scoring;
    enum rt_group_score group_score;
    uint32_t normalise; /* 1: weights are divided by their sum */
    float scale;        /* multiplies weights; 0: 1 */
    uint32_t reserved;
    struct rt_token_rows rows;
    uint64_t logits;           /* f32 [tokens, experts] */
    int64_t logit_stride;      /* any; 0: packed */
    uint64_t bias;             /* f32 [experts], or 0 */
    struct rt_routing routing; /* written */
};
RT_API enum rt_status rt_route(rt_ops *ops, const struct rt_route_args *args, void *stream);

/*
 * A few tokens' way to their experts in one launch: what rt_mla_input_norm does, the product of its
 * normed tokens with the router, whose logits are written too, and what rt_route does with them.
 * norm.tokens are route.rows' rows * query_len.
 */
struct rt_gate_args {
    uint32_t struct_size;
    uint32_t reserved;
    struct rt_mla_input_norm_args norm; /* struct_size as it is in this header, exactly */
    struct rt_route_args route;         /* likewise */
    uint64_t router;                    /* bf16 [experts, norm.norm.width] */
    int64_t router_stride;
    uint64_t arrivals; /* i32 [1]: 0 before the first launch, and again behind each */
};
/* RT_ERR_UNSUPPORTED: more tokens than rt_gate_tokens. */
RT_API enum rt_status rt_gate(rt_ops *ops, const struct rt_gate_args *args, void *stream);
/* Up to how many tokens of so many numbers rt_gate takes, each to experts_per_token of so many
 * experts; 0: none. */
RT_API uint32_t rt_gate_tokens(uint32_t width, uint32_t experts, uint32_t experts_per_token);

/* Weights of all experts of one kind: bf16 [experts, rows, columns], columns packed. It lies inside
 * of other structs, where it cannot grow. */
struct rt_expert_weights {
    uint64_t address;
    int64_t expert_stride, row_stride; /* 0: packed */
};

/*
 * A mixture, or a dense MLP, which is one shared expert and no others: two launches, one behind the
 * other, or three where rt_experts_down has scratch. A shared expert of n times the width of the
 * others is n of them.
 *
 *   rt_experts_up     h[t, s] = silu(x[t] · gate_e) * (x[t] · up_e)        silu(a) = a / (1 + e^-a)
 *   rt_experts_down   out[t]  = sum over places s of weight[t, s] * (h[t, s] · down_e)
 *
 * with e the expert at place s of token t; shared ones stand behind the chosen, with weight 1.
 * Sums are float and rounded once; in which order depends on the token's choices, the shapes, the
 * device and, for many tokens, on whether there is scratch, alone. Padding's out is 0.
 */
struct rt_experts_shape {
    uint32_t tokens; /* rows * query_len of the rows, 1..RT_MAX_BATCH * RT_MAX_QUERY_LEN */
    uint32_t hidden; /* of x and out */
    uint32_t width;  /* of an expert */
    uint32_t experts, experts_per_token; /* both 0: only shared ones, `routing` is not looked at */
    uint32_t shared;
    enum rt_backend backend;
    enum rt_precision precision;
};

struct rt_experts_up_args {
    uint32_t struct_size;
    uint32_t reserved;
    struct rt_experts_shape shape;
    struct rt_routing routing;
    uint64_t x; /* bf16 [tokens, hidden] */
    /* bf16 [tokens, experts_per_token + shared, width], written where there are pairs */
    uint64_t h;
    int64_t x_stride, h_token_stride, h_place_stride;
    /* [width, hidden] each: [0] of experts, [1] of shared ones. */
    struct rt_expert_weights gate[2], up[2];
};
RT_API enum rt_status rt_experts_up(rt_ops *ops, const struct rt_experts_up_args *args,
                                    void *stream);

/*
 * Bytes of scratch that rt_experts_down has a use for: of many tokens (33 and more, above 128 on
 * Hopper) it multiplies tiles of the pairs that an expert has and adds a token's products up in a
 * second launch, f32 [tokens, experts_per_token + (shared > 0), hidden] lying between them. 0 for a
 * shape that no device serves so. RT_ERR_INVALID: of what is no shape of experts.
 */
RT_API enum rt_status rt_experts_down_scratch(const struct rt_experts_shape *shape, uint64_t *bytes,
                                              struct rt_error *error);

struct rt_experts_down_args {
    uint32_t struct_size;
    uint32_t reserved;
    struct rt_experts_shape shape;
    struct rt_token_rows rows;
    struct rt_routing routing;
    uint64_t h;   /* as rt_experts_up left it */
    uint64_t out; /* bf16 [tokens, hidden], written */
    int64_t h_token_stride, h_place_stride, out_stride;
    /* [hidden, width] each: [0] of experts, [1] of shared ones, whose columns lie side by side
     * where row_stride is n times the width and expert_stride the width. */
    struct rt_expert_weights down[2];
    /* 1: rt_experts_up of the same routing is what the stream has directly in front of this, and
     * in front of that nothing was put that writes the routing but with rt_route. */
    uint32_t behind_up;
    uint32_t reserved_too;
    /* rt_experts_down_scratch's bytes, written; free for others behind it. 0: none, and a block
     * that adds as it multiplies serves many tokens, in about twice the time. */
    uint64_t scratch;
};
RT_API enum rt_status rt_experts_down(rt_ops *ops, const struct rt_experts_down_args *args,
                                      void *stream);

/* Which kernel serves a shape, for both. */
struct rt_experts_info {
    uint32_t struct_size;
    uint32_t reserved;
    const char *up, *down; /* entry points, static storage */
    char reason[160];      /* why this one, in one sentence, of rt_experts_up's */
    /* What rt_experts_down has in the place of `down` where it is given scratch, in front of
     * rt_experts_down_sum; null: scratch is not used. */
    const char *down_with_scratch;
};
RT_API enum rt_status rt_experts_get_info(rt_ops *ops, const struct rt_experts_shape *shape,
                                          struct rt_experts_info *out);

/*
 * An MLP of a few tokens, norm to hidden, in one launch: what rt_gate does, rt_experts_up with its
 * normed tokens and choices, and rt_experts_down; of a dense MLP what rt_mla_input_norm does, up
 * and down. Weights stream from the first product to the last, also while it is not known who is
 * chosen. All that the three write is written, but for routing.offsets, .pairs, .active and
 * .active_count, which may be 0; sums may differ by their order. `out` may be norm.hidden.
 *
 * Its blocks, one a multiprocessor, are on the device at the same time, so nothing else of a graph
 * may run beside it. It serves Hopper, bf16, up to 4 tokens of up to 2048 numbers, 2 of 4096, 1 of
 * 8192, whose h is 72 KiB at most, with 64 choices together of up to 512 experts;
 * rt_moe_block_get_info tells of a shape.
 */
struct rt_moe_block_args {
    uint32_t struct_size;
    uint32_t reserved;
    struct rt_experts_shape shape;
    struct rt_mla_input_norm_args norm; /* struct_size as it is in this header, exactly */
    struct rt_route_args route;         /* likewise; of a dense MLP its rows alone are looked at */
    uint64_t router;                    /* bf16 [experts, hidden]; of a dense MLP 0 */
    int64_t router_stride;
    uint64_t h;   /* bf16 [tokens, experts_per_token + shared, width], written */
    uint64_t out; /* bf16 [tokens, hidden], written */
    int64_t h_token_stride, h_place_stride, out_stride;
    struct rt_expert_weights gate[2], up[2], down[2]; /* as rt_experts_up and _down have them */
    /* What blocks hand to each other, of rt_moe_block_get_info's bytes: 0 before the first launch,
     * and each leaves what the next one needs, of this shape or another that needs no more.
     * Launches that may run at the same time have their own. */
    uint64_t exchange;
};
/* RT_ERR_UNSUPPORTED: a shape or a device that it does not serve. */
RT_API enum rt_status rt_moe_block(rt_ops *ops, const struct rt_moe_block_args *args, void *stream);

struct rt_moe_block_info {
    uint32_t struct_size;
    uint32_t reserved;
    const char *kernel; /* entry point, static storage */
    uint64_t exchange_bytes;
    char reason[160]; /* why this one, in one sentence */
};
/* RT_ERR_INVALID: it is no shape of experts. RT_ERR_UNSUPPORTED: nothing serves it, or the device
 * does not hold all of the blocks at the same time; the message says why. */
RT_API enum rt_status rt_moe_block_get_info(rt_ops *ops, const struct rt_experts_shape *shape,
                                            struct rt_moe_block_info *out);

/* ---- the next token -------------------------------------------------------------------------- */

#define RT_SAMPLING_STOPS 8

/*
 * How a slot's next token is chosen, in device memory, read at every step: 64 bytes. All zeros:
 * greedy, stopping at id 0; unused stops are -1.
 */
struct rt_sampling {
    float temperature; /* 0 and less, NaN: the first in order, greedy */
    float top_p;       /* 1 and more, NaN: all */
    int32_t top_k;     /* 0 and less: all */
    int32_t reserved;
    uint64_t seed;
    int32_t stops[RT_SAMPLING_STOPS]; /* ids that end a row; negative: none */
    int32_t reserved_too[2];
};

/* Bytes of scratch that rt_sample needs, 256-byte aligned; reusable behind it. RT_ERR_INVALID. */
RT_API enum rt_status rt_sample_workspace(uint32_t rows, uint32_t query_len, uint32_t vocab,
                                          uint64_t *bytes, struct rt_error *error);

/*
 * The choice in a column: x = logit * scale, in order of x falling, of id rising where equal, NaN
 * last. With a temperature weights are exp((x - max) / temperature); top_k keeps the first so many
 * in order, top_p of these the shortest beginning whose weights come to top_p of the sum, and one
 * is drawn by Philox 4x32-10 with key seed and counter (position of the column's token, 0, 0, 0).
 * All of it is integers and single roundings: the same token on every device, eager and replayed,
 * in every batch and at every place in it. If all are NaN: id 0.
 *
 * Row r, of length > 0 and a slot (others are left alone); n = accept[r], and query_len where that
 * is none of these
 *   n in 1..query_len  sampled = choice in column n - 1
 *   -1                 is column 0's token one of the slot's stops, then the row has stopped:
 *                      sampled = that token, accepted = 0. Else the choice in column 0, and as long
 *                      as that is no stop and is the next column's token, the one in that: sampled
 *                      is the last of them, accepted the number of columns.
 */
struct rt_sample_args {
    uint32_t struct_size;
    uint32_t vocab;                   /* 1..2^18 */
    struct rt_token_rows rows;        /* lengths and positions are needed */
    uint64_t logits;                  /* f32 [rows, query_len, vocab] */
    int64_t row_stride, token_stride; /* any; 0: packed */
    float scale;                      /* 0: 1 */
    uint32_t reserved;
    uint64_t accept;    /* i32 [rows], as tensor `accept`; or 0: query_len of every row */
    uint64_t tokens;    /* i32 [step's tokens] */
    uint64_t accepted;  /* i32 [step's rows], written */
    uint64_t sampled;   /* likewise */
    uint64_t lines;     /* struct rt_sampling by slot */
    uint64_t workspace; /* rt_sample_workspace's bytes */
};
RT_API enum rt_status rt_sample(rt_ops *ops, const struct rt_sample_args *args, void *stream);

#ifdef __cplusplus
}
#endif
#endif
