/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_OWN_KERNELS_MODEL_H
#define RT_EXAMPLES_OWN_KERNELS_MODEL_H

/*
 * A model small enough to read: its weights are a hash, and each function computes one element of
 * one of its tensors. The CUDA kernels and their host twin both call these functions, so there is
 * one truth. Sums are in double and in one order, so both round to the same bf16, but for what the
 * attention between them rounds differently.
 *
 *   step begin         hidden[i]  = embedding(token, i) + embedding of the position
 *   before attention   q[h, e]    = Wq(layer) hidden        latent[e] = Wk(layer) hidden
 *   after attention    hidden[i]  = hidden[i] / 2 + Wo(layer) out
 *   step end           sampled    = argmax over v of U(v) hidden
 */
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define OWN_FN static __host__ __device__ inline
#else
#define OWN_FN static inline
#endif

enum {
    OWN_HIDDEN = 32,
    OWN_VOCAB = 32,
    OWN_LAYERS = 2,
    OWN_HEADS = 4,
    OWN_RANK = 512,
    OWN_ROPE = 64,
    OWN_WIDTH = OWN_RANK + OWN_ROPE,
    OWN_MAX_STEPS = 32
};

/* The tensors of one stage: addresses on the device, or host pointers on the host device. */
struct own_tensors {
    /* the runtime's; rows as replayrt/rt.h has them */
    const int32_t *live_rows; /* [1] */
    const int32_t *row_base;  /* [1] */
    const int32_t *positions; /* [bucket] */
    const int32_t *tokens;    /* [rows] */
    uint16_t *q;              /* bf16 [rows, OWN_HEADS, OWN_WIDTH] */
    uint16_t *latent;         /* bf16 [rows, OWN_WIDTH] */
    const uint16_t *out;      /* bf16 [rows, OWN_HEADS, OWN_RANK] */
    int32_t *sampled;         /* [rows] */
    /* our own */
    float *hidden;    /* [rows, OWN_HIDDEN] */
    float *margin;    /* [rows]: smallest lead so far of a sampled token over the second best */
    int32_t *history; /* [rows, OWN_MAX_STEPS]: the token at each position */
    uint32_t layer;
};

OWN_FN float own_bf16_to_float(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* To the nearest, ties to even; the model makes no NaN. */
OWN_FN uint16_t own_bf16_from_float(float value)
{
    uint32_t wide;
    memcpy(&wide, &value, sizeof wide);
    return (uint16_t)((wide + 0x7fffu + (wide >> 16 & 1u)) >> 16);
}

/* The matrices, and one choice of all their weights: with this one, every token that is sampled
 * leads the second best by more than the two devices' rounding can make up. */
enum {
    OWN_EMBEDDING = 1,
    OWN_POSITION = 2,
    OWN_UNEMBEDDING = 3,
    OWN_WQ = 16,
    OWN_WK = 32,
    OWN_WO = 48,
    OWN_SEED = 264
};

/* A weight in [-1, 1): matrix, row, column through an integer hash. */
OWN_FN float own_weight(uint32_t matrix, uint32_t row, uint32_t column)
{
    uint32_t x = (matrix + OWN_SEED) * 0x9e3779b9u ^ row * 0x85ebca6bu ^ column * 0xc2b2ae35u;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    x ^= x >> 16;
    return (float)(x >> 8) * (1.0f / 8388608.0f) - 1.0f;
}

OWN_FN float own_embedding(int32_t token, int32_t position, uint32_t i)
{
    return own_weight(OWN_EMBEDDING, (uint32_t)token, i) +
           own_weight(OWN_POSITION, (uint32_t)position, i);
}

/* One row of a weight matrix times hidden [OWN_HIDDEN]. */
OWN_FN double own_project(uint32_t matrix, uint32_t row, const float *hidden)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < OWN_HIDDEN; i++)
        sum += (double)own_weight(matrix, row, i) * (double)hidden[i];
    return sum;
}

OWN_FN uint16_t own_q(uint32_t layer, uint32_t element, const float *hidden)
{
    return own_bf16_from_float((float)own_project(OWN_WQ + layer, element, hidden));
}

OWN_FN uint16_t own_latent(uint32_t layer, uint32_t element, const float *hidden)
{
    return own_bf16_from_float((float)own_project(OWN_WK + layer, element, hidden));
}

/* out [OWN_HEADS, OWN_RANK] */
OWN_FN float own_next_hidden(uint32_t layer, uint32_t i, const float *hidden, const uint16_t *out)
{
    double sum = 0.0;
    for (uint32_t e = 0; e < OWN_HEADS * OWN_RANK; e++)
        sum += (double)own_weight(OWN_WO + layer, i, e) * (double)own_bf16_to_float(out[e]);
    return (float)((double)hidden[i] / 2.0 + sum / 64.0);
}

/* The token with the highest score; *margin is lowered to its lead where that is smaller. */
OWN_FN int32_t own_sample(const float *hidden, float *margin)
{
    double best = own_project(OWN_UNEMBEDDING, 0, hidden), second = -1e30;
    int32_t token = 0;
    for (int32_t v = 1; v < OWN_VOCAB; v++) {
        const double score = own_project(OWN_UNEMBEDDING, (uint32_t)v, hidden);
        if (score > best) {
            second = best;
            best = score;
            token = v;
        } else if (score > second) {
            second = score;
        }
    }
    if (best - second < (double)*margin)
        *margin = (float)(best - second);
    return token;
}

#endif
