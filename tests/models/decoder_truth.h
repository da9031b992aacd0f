/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_MODELS_DECODER_TRUTH_H
#define RT_TESTS_MODELS_DECODER_TRUTH_H

/*
 * A whole decoder in plain C and double precision, token by token, made of what replayrt/models.h
 * says of a model and nothing else: the truth that every decoder here is held to. Attention is not
 * absorbed: each head has its keys and values.
 */
#include "replayrt/models.h"

#include <stdbool.h>

#define TRUTH_MAX_LENGTH 192

enum { TRUTH_GATE = 0, TRUTH_UP, TRUTH_DOWN, TRUTH_MLP };

struct truth_layer {
    float *input_norm, *mlp_norm;
    float *q, *q_a, *q_a_norm, *q_b, *kv_a, *kv_a_norm, *kv_b, *o;
    float *mlp[TRUTH_MLP], *shared[TRUTH_MLP];
    float *router, *bias;
    float *(*experts)[TRUTH_MLP];
    double *keys, *values; /* [TRUTH_MAX_LENGTH, heads, P + R] and [.., V] */
};

struct truth {
    struct rt_model model;
    float *embedding, *final_norm, *lm_head;
    struct truth_layer *layers;
    float **all; /* every weight, to be freed */
    uint32_t count;
    double speeds[RT_MAX_ROPE_PAIRS];
    /* Taken off the score of a layer's last chosen expert before it chooses again: 0, or how far
     * off somebody's scores may be, for what he may choose instead. */
    double doubt[RT_MAX_LAYERS];
};

/* Reads all weights as f32. False, with *err told, where one cannot be read. */
bool truth_open(struct truth *t, const struct rt_model *model, const rt_checkpoint *checkpoint,
                struct rt_error *err);
void truth_close(struct truth *t);

/* One token at its position, behind all before it; logits [vocab]. */
void truth_step(struct truth *t, int32_t token, uint32_t position, double *logits);

/* The router alone: s are the scores of all experts, before the bias. */
void truth_route(const struct rt_moe *moe, const double *s, const float *bias, uint32_t *chosen,
                 double *weights);

#endif
