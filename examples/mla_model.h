/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_MLA_MODEL_H
#define RT_EXAMPLES_MLA_MODEL_H

/*
 * The attention block of layer 0 of a Hugging Face checkpoint: what config.json says of its shape,
 * and its weights. Written for deepseek_v2, deepseek_v3 and mistral4; docs/main_job.md has the
 * formulas.
 */
#include "replayrt/checkpoint.h"

#include <stdbool.h>
#include <stdint.h>

#define MLA_MODEL_EMBEDDING "model.embed_tokens.weight" /* [vocab, H] */

/* How positions rotate the last `qk_rope_head_dim` elements of a query and a key. */
struct mla_rope {
    double theta;
    bool yarn;
    bool interleave;  /* pairs are elements (2i, 2i+1); otherwise (i, i + R/2) */
    bool truncate;    /* YaRN: the ramp's ends are rounded outwards to whole pairs */
    double factor;    /* YaRN: how many times longer than the original context */
    double original;  /* YaRN: positions of the original context */
    double beta_fast; /* YaRN: pairs that turn more often than this are left as they are */
    double beta_slow; /* YaRN: pairs that turn less often than this are stretched by factor */
    double attention_factor; /* multiplies cos and sin */
    double query_beta; /* scales queries by 1 + beta ln(1 + floor(position / original)); 0: not */
};

struct mla_config {
    uint32_t hidden; /* H */
    uint32_t vocab;
    uint32_t heads;   /* N */
    uint32_t q_rank;  /* Lq; 0: one projection makes the query */
    uint32_t kv_rank; /* L */
    uint32_t nope;    /* P */
    uint32_t rope;    /* R */
    uint32_t value;   /* V */
    double norm_epsilon;
    struct mla_rope rotation;
};

/* Weights as the checkpoint has them, output dimension first. Null where the model has none. */
struct mla_weights {
    float *input_norm; /* [H] */
    float *q;          /* [N * (P + R), H], or null and then: */
    float *q_a;        /* [Lq, H] */
    float *q_a_norm;   /* [Lq] */
    float *q_b;        /* [N * (P + R), Lq] */
    float *kv_a;       /* [L + R, H] */
    float *kv_a_norm;  /* [L] */
    float *kv_b;       /* [N * (P + V), L]: of each head P rows W_UK, then V rows W_UV */
    float *out;        /* [H, N * V] */
};

struct mla_model {
    struct mla_config config;
    struct mla_weights weights;
    double *inverse_frequency; /* [R / 2]: radians by position of each rotated pair */
    rt_checkpoint *file;       /* stays mapped: embedding rows are read one by one */
};

/* Reads directory/config.json and the checkpoint beside it. Blocks. On success *model is to be
 * given to mla_model_close; on failure it is zeroed. Returns RT_ERR_FILE, RT_ERR_CONFIG (a key is
 * missing or out of range), RT_ERR_UNSUPPORTED (a rope type not written here), RT_ERR_NOMEM. */
enum rt_status mla_model_open(const char *directory, struct mla_model *model,
                              struct rt_error *error);

/* Accepts a zeroed model and leaves one. */
void mla_model_close(struct mla_model *model);

/* config.json alone. `text` ends with a NUL; `label` names it in messages. */
enum rt_status mla_config_parse(const char *text, const char *label, struct mla_config *config,
                                struct rt_error *error);

#endif
