/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_MODEL_TEXT_H
#define RT_CONFIG_MODEL_TEXT_H

/* The text model of a config.json, and the two questions about it that differ by family: how many
 * of its layers have MLA, and with which softmax scale. */
#include "config/pick.h"
#include "replayrt/rt_config.h"

/* Which layers have MLA. */
enum rt_model_layers {
    RT_LAYERS_ALL = 0, /* num_hidden_layers */
    RT_LAYERS_TWICE,   /* two attentions in each of num_layers, else of num_hidden_layers */
    RT_LAYERS_FULL,    /* a hybrid: those of a list, the others are linear attention */
    RT_LAYERS_GROUPED  /* a hybrid: the last of every layer_group_size, and what is left over */
};

/* How the layers of such a list are numbered. */
enum rt_model_numbers { RT_NUMBERS_FROM_1 = 0, RT_NUMBERS_FROM_0, RT_NUMBERS_FROM_ANY };

/* Which rope types multiply the softmax scale. */
enum rt_model_mscale {
    RT_MSCALE_ANY = 0, /* all but "default" */
    RT_MSCALE_YARN,    /* "yarn" alone */
    RT_MSCALE_NEVER
};

struct rt_model_family {
    const char *model_type;
    const char *architecture; /* how its class begins, for files without model_type; may be null */
    enum rt_model_layers layers;
    enum rt_model_numbers numbers;
    enum rt_model_mscale mscale;
    bool is_half; /* RoPE turns pairs (i, i + R/2) and not (2i, 2i + 1), if the file says nothing */
    const char *no_block; /* what its block has that ours has not; null: nothing */
    bool scales_depth;    /* what sublayers add is multiplied by scale_depth / sqrt(layers) */
};

enum rt_model_key {
    RT_MODEL_HEADS = 0,
    RT_MODEL_RANK,
    RT_MODEL_NOPE_DIM,
    RT_MODEL_ROPE_DIM,
    RT_MODEL_PANGU_RANK,
    RT_MODEL_PANGU_NOPE_DIM,
    RT_MODEL_PANGU_ROPE_DIM,
    RT_MODEL_HIDDEN_LAYERS,
    RT_MODEL_LAYERS,
    RT_MODEL_LAYER_TYPES,
    RT_MODEL_GROUP_SIZE,
    RT_MODEL_FULL_LAYERS,
    RT_MODEL_LINEAR_TYPE,
    RT_MODEL_LINEAR,
    RT_MODEL_ROPE_PARAMETERS,
    RT_MODEL_ROPE_SCALING,
    RT_MODEL_USE_MLA,
    RT_MODEL_HIDDEN_SIZE,
    RT_MODEL_Q_RANK,
    RT_MODEL_V_DIM,
    RT_MODEL_PANGU_Q_RANK,
    RT_MODEL_PANGU_V_DIM,
    RT_MODEL_NORM_EPS,
    RT_MODEL_ROPE_THETA,
    RT_MODEL_ROPE_INTERLEAVE,
    RT_MODEL_MAX_POSITIONS,
    RT_MODEL_NO_ROPE,
    RT_MODEL_SCALE_Q,
    RT_MODEL_SCALE_KV,
    RT_MODEL_SCALE_BOTH,
    RT_MODEL_SCALE_DEPTH,
    RT_MODEL_WINDOW,
    RT_MODEL_USE_WINDOW,
    RT_MODEL_SOFTCAP,
    RT_MODEL_HEAD_DIM,
    RT_MODEL_QK_NORM,
    RT_MODEL_QK_LAYERNORM,
    RT_MODEL_KEY_COUNT
};

extern const struct rt_pick rt_model_keys[RT_MODEL_KEY_COUNT];

struct rt_model_text {
    const struct rt_source *source;
    const struct rt_model_family *family;
    const char *whole_type; /* model_type at the file's top; "": none */
    const char *prefix;     /* of its keys: "", "text_config." or "language_config." */
    const struct rt_node *given[RT_MODEL_KEY_COUNT];
};

/* The name the family has for a dimension that all others call alike. */
enum rt_model_key rt_model_name_of(const struct rt_model_text *text, enum rt_model_key id);

/* The key is missing, null, or has a value that is not what it must be. */
enum rt_status rt_model_fail(const struct rt_model_text *text, const struct rt_node *node,
                             const char *key, const char *must, struct rt_error *err);
enum rt_status rt_model_need(const struct rt_model_text *text, enum rt_model_key id, uint32_t *out,
                             struct rt_error *err);
const char *rt_model_key_name(enum rt_model_key id);

enum rt_status rt_model_count_layers(const struct rt_model_text *text, uint32_t *out,
                                     struct rt_error *err);

/* RT_ERR_CONFIG where the file asks for what attention, of heads of `head` numbers, or what the
 * block around it does not do here. */
enum rt_status rt_model_check_attention(const struct rt_model_text *text, uint64_t head,
                                        struct rt_error *err);
enum rt_status rt_model_check_block(const struct rt_model_text *text, struct rt_error *err);

/*
 * (nope + rope)^-0.5 * m^2
 *   m = 0.1 * mscale_all_dim * ln(factor) + 1    where mscale_all_dim is given and not 0,
 *                                                factor > 1, apply_yarn_scaling is not false, and
 *                                                the rope type is one that the family scales by
 *   m = 1                                        otherwise
 * `rope_parameters` and `rope_scaling`, its older name, may hold this, or may hold it once for each
 * kind of layer. One that says nothing of it is passed over; those that do must agree.
 */
enum rt_status rt_model_scale(const struct rt_model_text *text, uint32_t nope, uint32_t rope,
                              double *out, struct rt_error *err);

/* What the block has around attention: dimensions, norms, RoPE (modeling_rope_utils of Hugging Face
 * transformers). RT_ERR_CONFIG also where the family's block is not one that the library has. */
enum rt_status rt_model_block(const struct rt_model_text *text, const struct rt_geometry *geometry,
                              struct rt_block *out, struct rt_error *err);
enum rt_status rt_model_rope(const struct rt_model_text *text, uint32_t rope_dim,
                             struct rt_rope *out, struct rt_error *err);

#endif
