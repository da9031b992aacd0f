/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_FAMILY_H
#define RT_MODELS_FAMILY_H

/*
 * A family of models: how its config.json is read. One file a family, which has what is its own;
 * what several have in common is in family_common.c, family_attention.c and family_moe.c.
 * Attention itself is not here: its geometry and block are rt_config_model's.
 */
#include "models/fields.h"
#include "replayrt/models.h"

/* Writes all of *m but family, geometry, block; it is zeroed before. */
typedef enum rt_status rt_family_read(const struct rt_fields *f, struct rt_model *m,
                                      struct rt_error *err);

rt_family_read rt_family_deepseek_v2;
rt_family_read rt_family_deepseek_v3;
rt_family_read rt_family_glm4_moe_lite;
rt_family_read rt_family_minicpm3;
rt_family_read rt_family_mistral4;
rt_family_read rt_family_youtu;

/* A config.json without its attention, from memory; label names it in messages. *out is written on
 * success only. Errors as rt_model_read. */
enum rt_status rt_family_parse(const char *label, const void *text, size_t bytes,
                               struct rt_model *out, struct rt_error *err);

/* ---- what several have in common ------------------------------------------------------------- */

/* Sizes, epsilon, tokens, and that the activation is SiLU without biases. `tied` is what a file
 * means that does not say. */
enum rt_status rt_family_common(const struct rt_fields *f, bool tied, struct rt_model *m,
                                struct rt_error *err);
/* Dimensions of attention that are read elsewhere, held to what its weights' tables and the runtime
 * take, with their lines; and whether it has biases. */
enum rt_status rt_family_attention(const struct rt_fields *f, struct rt_model *m,
                                   struct rt_error *err);
/* The dense MLP's size, where a layer is dense; behind what says which layers are. */
enum rt_status rt_family_dense(const struct rt_fields *f, struct rt_model *m, struct rt_error *err);

/* n_routed_experts, num_experts_per_tok, their size, the shared ones, routed_scaling_factor. */
enum rt_status rt_family_experts(const struct rt_fields *f, struct rt_moe *moe,
                                 struct rt_error *err);
/* n_group and topk_group, which must be given, and fit the experts. */
enum rt_status rt_family_groups(const struct rt_fields *f, struct rt_moe *moe,
                                struct rt_error *err);
/* All of a mixture as DeepSeek-V3 has it: experts, groups, sigmoids, a bias. */
enum rt_status rt_family_noaux(const struct rt_fields *f, struct rt_moe *moe, struct rt_error *err);
/* Layers from first_k_dense_replace on, every moe_layer_freq-th; `first` where the file does not
 * say, null: it must. */
enum rt_status rt_family_layers(const struct rt_fields *f, const uint32_t *first,
                                struct rt_model *m, struct rt_error *err);
/* A key of words that must, where it is given, be this one. */
enum rt_status rt_family_only(const struct rt_fields *f, const char *key, const char *word,
                              struct rt_error *err);

#define RT_FAMILY_MAX_WIDTH (1u << 20) /* of an MLP */
#define RT_FAMILY_MAX_VOCAB (1u << 24)
#define RT_FAMILY_MAX_SHARED (1u << 30) /* width of all shared experts together */
/* Experts of all layers: eight times those of the largest model that there is. Each is three names
 * in a table. */
#define RT_FAMILY_MAX_ALL_EXPERTS (1u << 18)

#endif
