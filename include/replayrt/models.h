/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_MODELS_H
#define REPLAYRT_MODELS_H

/*
 * What a decoder must know of a model, from its config.json, and the places of all its weights.
 * docs/models.md lists the families and has the formulas. The laws of rt.h hold here too.
 */
#include "replayrt/checkpoint.h"
#include "replayrt/model_ops.h"
#include "replayrt/ranks.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RT_MODEL_MAX_EOS 8
#define RT_MODEL_MAX_EXPERTS 4096

/*
 * A mixture of experts. With x what the MLP gets and W_r the router's weight:
 *
 *   s      = scoring(x · W_r)                          in f32
 *   c      = s + bias                                  with bias; by c it is only chosen
 *   of the groups, of experts / groups experts each, the groups_per_token best ones by group_score
 *   of c; of their experts the experts_per_token best ones by c
 *   w      = s of the chosen, divided by (their sum + 1e-20) with normalise, then times scale
 *   mlp(x) = sum of w_e · expert_e(x), + shared(x)
 *
 * An expert, and all shared ones together as one, are down(silu(gate(x)) * up(x)).
 */
struct rt_moe {
    uint32_t experts;           /* 0: the model has no mixture, and all else here is 0 */
    uint32_t experts_per_token; /* 1..experts of the groups chosen */
    uint32_t groups;            /* >= 1, divides experts */
    uint32_t groups_per_token;  /* 1..groups */
    enum rt_scoring scoring;
    enum rt_group_score group_score;
    uint32_t bias; /* 1: the router has one, e_score_correction_bias */
    uint32_t normalise;
    double scale;                      /* routed_scaling_factor */
    uint32_t intermediate_size;        /* of an expert */
    uint32_t shared_intermediate_size; /* of the shared ones together; 0: there are none */
};

/*
 *   x      = embedding[token] * embedding_scale
 *   x     += attention(norm(x)) * residual_scale       every layer, then
 *   x     += mlp(norm(x)) * residual_scale             dense, or a mixture where moe_layers is 1
 *   logits = (norm(x) · W_lm_head) * logits_scale      W_lm_head is the embedding where tied
 */
struct rt_model {
    uint32_t struct_size;
    char family[28]; /* "deepseek_v3" */
    uint32_t vocab_size, hidden_size, layers;
    uint32_t intermediate_size; /* of a dense layer's MLP; 0: no layer is dense */
    uint32_t max_positions;     /* max_position_embeddings; 0: the model does not say */
    uint32_t tied;              /* 1: no lm_head, the embedding is it */
    double norm_eps;
    double embedding_scale, residual_scale, logits_scale; /* 1 where the family has none */
    int32_t bos;                                          /* -1: none */
    uint32_t eos_count;
    int32_t eos[RT_MODEL_MAX_EOS]; /* below vocab_size, as bos and zero_token */
    /* 1: the embedding of zero_token, which is for padding, is zero whatever the checkpoint has. */
    uint32_t has_zero_token;
    int32_t zero_token;
    struct rt_moe moe;
    uint8_t moe_layers[RT_MAX_LAYERS]; /* 1: the layer's MLP is a mixture */
    struct rt_geometry geometry;       /* attention, as rt_config_model gives it: all heads */
    struct rt_block block;
    /* 1: q_a_proj, kv_a_proj_with_mqa and o_proj have biases, which a checkpoint then must have. */
    uint32_t attention_bias;
    uint32_t reserved;
};

/*
 * Reads a config.json, or that of a folder; of a model of several kinds of input its text model's
 * part, text_config or language_config. Blocks. *out is written on success only.
 * RT_ERR_FILE; RT_ERR_CONFIG: a family that is not here, a key that is missing, has a value that
 * it must not have, or asks for what the family's description does not cover; RT_ERR_GEOMETRY.
 */
RT_API enum rt_status rt_model_read(const char *path, struct rt_model *out, struct rt_error *error);

/* ---- weights --------------------------------------------------------------------------------- */

typedef struct rt_places rt_places;

enum rt_place_kind {
    RT_PLACE_EMBEDDING = 0, /* [vocab, hidden] */
    RT_PLACE_FINAL_NORM,    /* [hidden], as the norms of a layer */
    RT_PLACE_LM_HEAD,       /* [vocab, hidden]; none where tied */
    RT_PLACE_INPUT_NORM,    /* in front of attention: rt_weights_bind takes it with input_norm */
    RT_PLACE_ATTENTION,     /* what rt_weights_bind takes: see replayrt/layer.h */
    RT_PLACE_MLP_NORM,      /* in front of the MLP */
    RT_PLACE_GATE,          /* of a dense layer: gate and up [intermediate, hidden], ... */
    RT_PLACE_UP,
    RT_PLACE_DOWN,   /* ... down [hidden, intermediate] */
    RT_PLACE_ROUTER, /* [experts, hidden] */
    RT_PLACE_ROUTER_BIAS,
    RT_PLACE_EXPERT_GATE, /* of one expert, shaped as a dense layer's */
    RT_PLACE_EXPERT_UP,
    RT_PLACE_EXPERT_DOWN,
    RT_PLACE_SHARED_GATE, /* of all shared experts together */
    RT_PLACE_SHARED_UP,
    RT_PLACE_SHARED_DOWN
};

#define RT_PLACE_NAME_BYTES 96

/* One weight of the model: rows x columns, output dimension first; a vector is 1 row. */
struct rt_place {
    uint32_t struct_size;
    enum rt_place_kind kind;
    uint32_t layer;         /* 0 where it is no layer's */
    uint32_t expert;        /* 0 where it is no expert's */
    uint64_t rows, columns; /* rows may be 0, of a rank without a part of the LM head */
    uint32_t needed; /* 0: a bias of attention, without attention_bias: a checkpoint may lack it */
    uint32_t reserved;
    char name[RT_PLACE_NAME_BYTES]; /* the tensor's, where experts are stored one by one */
};

/* All places of a model, in the order of its layers. The caller owns the table. */
RT_API enum rt_status rt_places_create(const struct rt_model *model, rt_places **out,
                                       struct rt_error *error);
/*
 * Leaves one rank's part of the model (replayrt/ranks.h): from here on weights have its rows or
 * columns alone, in their shapes and in what is read and copied. Checkpoints are held to the whole
 * model as before. Rank r of n has
 *
 *   attention           its heads: of q_proj, q_b_proj and kv_b_proj rows, of o_proj columns
 *   MLP, every expert,  of the width, in units of 8 as even as they go, numbers r * w.., w of them:
 *   shared experts      of gate and up rows, of down columns; zeros where the width has no more
 *   LM head             of the vocabulary likewise, but no zeros: the last ranks have fewer rows
 *   all else            the whole: embedding, norms, router; of a tied model the head's rows too
 *
 * Shared experts of n times an expert's width are n of them on every rank. context:
 * rt_config.context_parallel, 1 where every rank has a sequence whole; of its ranks all have the
 * same rows of attention, those of all their heads, and all else is cut over all ranks.
 * RT_ERR_INVALID; RT_ERR_GEOMETRY where ranks do not divide the heads, which alone have to be even.
 */
RT_API enum rt_status rt_places_cut(rt_places *places, uint32_t rank, uint32_t ranks,
                                    uint32_t context, struct rt_error *error);
/*
 * What ranks with such parts exchange behind a decoder's stages, for rt_create_params.exchanges and
 * rt_plan_create_ranks: hidden is summed behind every layer's MLP, and logits, f32, are gathered at
 * the step's end. Returns how many there are; 0 for one rank. `from` and `to` of the gather are the
 * caller's to set.
 */
#define RT_MODEL_EXCHANGES 2
RT_API uint32_t rt_model_exchanges(const struct rt_model *model, uint32_t ranks,
                                   struct rt_stage_exchange out[RT_MODEL_EXCHANGES]);
RT_API void rt_places_destroy(rt_places **places);
RT_API uint32_t rt_places_count(const rt_places *places); /* 0 for null */
/* RT_ERR_INVALID past the last. */
RT_API enum rt_status rt_places_at(const rt_places *places, uint32_t index, struct rt_place *out,
                                   struct rt_error *error);

/*
 * Whether a checkpoint has every weight that is needed, stored as bf16, f16 or f32, in its shape.
 * Experts may also be stored all in one: mlp.experts.gate_up_proj [experts, 2 * intermediate,
 * hidden], gate in front of up, and mlp.experts.down_proj [experts, hidden, intermediate]. Where
 * the text model is one part of several, names may have language_model. in front, or
 * model.language_model. for model.
 * RT_ERR_FILE names the first that is missing or wrong, with the values, and how many are.
 */
RT_API enum rt_status rt_places_check(const rt_places *places, const rt_checkpoint *checkpoint,
                                      struct rt_error *error);

/*
 * Rows [first, first + count) of one place from a checkpoint, wherever it stores them, as
 * rt_checkpoint_copy, and zeros for the embedding of zero_token. An optional place that the
 * checkpoint lacks is RT_ERR_FILE like any other.
 */
RT_API enum rt_status rt_places_copy(const rt_places *places, const rt_checkpoint *checkpoint,
                                     uint32_t index, uint64_t first, uint64_t count,
                                     enum rt_dtype dtype, void *out, struct rt_error *error);

#ifdef __cplusplus
}
#endif
#endif
