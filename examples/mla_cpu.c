/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/mla_cpu.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>

/* The pair, of R / 2, that turns `turns` times over the original context; pairs in between too. */
static double yarn_pair(const struct mla_config *config, double turns)
{
    const double two_pi = 6.283185307179586;
    const struct mla_rope *rope = &config->rotation;
    return config->rope * log(rope->original / (turns * two_pi)) / (2.0 * log(rope->theta));
}

void mla_inverse_frequencies(const struct mla_config *config, double *out)
{
    const struct mla_rope *rope = &config->rotation;
    double low = 0.0, high = 0.0;
    if (rope->yarn) {
        low = yarn_pair(config, rope->beta_fast);
        high = yarn_pair(config, rope->beta_slow);
        if (rope->truncate) {
            low = floor(low);
            high = ceil(high);
        }
        low = fmax(low, 0.0);
        high = fmin(high, config->rope - 1.0);
        if (low == high)
            high += 0.001;
    }
    for (uint32_t pair = 0; pair < config->rope / 2; pair++) {
        out[pair] = pow(rope->theta, -2.0 * pair / config->rope);
        if (rope->yarn) {
            const double stretched = fmin(fmax((pair - low) / (high - low), 0.0), 1.0);
            out[pair] *= stretched / rope->factor + (1.0 - stretched);
        }
    }
}

size_t mla_scratch_count(const struct mla_config *config)
{
    const size_t query = (size_t)config->heads * (config->nope + config->rope);
    const size_t value = (size_t)config->heads * config->value;
    const size_t most = query > value ? query : value;
    return (most > config->hidden ? most : config->hidden) + config->q_rank;
}

/* y[rows] = W[rows, columns] · x[columns] */
static void multiply(const float *matrix, size_t rows, size_t columns, const double *x, double *y)
{
    for (size_t row = 0; row < rows; row++) {
        double sum = 0.0;
        for (size_t column = 0; column < columns; column++)
            sum += matrix[row * columns + column] * x[column];
        y[row] = sum;
    }
}

static void normalise(const float *weight, size_t count, double epsilon, double *x)
{
    double squares = 0.0;
    for (size_t i = 0; i < count; i++)
        squares += x[i] * x[i];
    const double scale = 1.0 / sqrt(squares / (double)count + epsilon);
    for (size_t i = 0; i < count; i++)
        x[i] *= scale * weight[i];
}

/*
 * Turns the pairs of x [R] by the position, in place: pairs stay where the checkpoint has them.
 * Queries and keys must only agree in the order, their products do not see it.
 */
static void rotate(const struct mla_model *model, uint32_t position, double *x)
{
    const struct mla_rope *rope = &model->config.rotation;
    const uint32_t pairs = model->config.rope / 2;
    for (uint32_t pair = 0; pair < pairs; pair++) {
        const double angle = position * model->inverse_frequency[pair];
        const double c = cos(angle) * rope->attention_factor;
        const double s = sin(angle) * rope->attention_factor;
        double *first = rope->interleave ? &x[2 * pair] : &x[pair];
        double *second = rope->interleave ? &x[2 * pair + 1] : &x[pair + pairs];
        const double a = *first, b = *second;
        *first = a * c - b * s;
        *second = b * c + a * s;
    }
}

enum rt_status mla_attention_input(const struct mla_model *model, int32_t token, double *x,
                                   struct rt_error *error)
{
    const struct mla_config *c = &model->config;
    if (token < 0 || (uint32_t)token >= c->vocab)
        return rt_error_set(error, RT_ERR_FILE, "token %d is not in the vocabulary of %u", token,
                            c->vocab);
    float *row = malloc(c->hidden * sizeof *row);
    if (row == NULL)
        return rt_error_set(error, RT_ERR_NOMEM, "no memory for a row of %u elements", c->hidden);
    const enum rt_status status = rt_checkpoint_copy(model->file, MLA_MODEL_EMBEDDING,
                                                     (uint64_t)token, 1, RT_DTYPE_F32, row, error);
    for (uint32_t i = 0; status == RT_OK && i < c->hidden; i++)
        x[i] = row[i];
    free(row);
    if (status != RT_OK)
        return status;
    normalise(model->weights.input_norm, c->hidden, c->norm_epsilon, x);
    return RT_OK;
}

/* full [N, P + R]: the query before absorption, position not yet in it. */
static void project_query(const struct mla_model *model, const double *x, double *full,
                          double *compressed)
{
    const struct mla_config *c = &model->config;
    const struct mla_weights *w = &model->weights;
    const size_t rows = (size_t)c->heads * (c->nope + c->rope);
    if (c->q_rank == 0) {
        multiply(w->q, rows, c->hidden, x, full);
        return;
    }
    multiply(w->q_a, c->q_rank, c->hidden, x, compressed);
    normalise(w->q_a_norm, c->q_rank, c->norm_epsilon, compressed);
    multiply(w->q_b, rows, c->q_rank, compressed, full);
}

void mla_query(const struct mla_model *model, const double *x, uint32_t position, double *q,
               double *scratch)
{
    const struct mla_config *c = &model->config;
    const struct mla_rope *rope = &c->rotation;
    const size_t full_width = (size_t)c->nope + c->rope, width = (size_t)c->kv_rank + c->rope;
    double *full = scratch, *compressed = scratch + c->heads * full_width;
    project_query(model, x, full, compressed);

    const double scale = rope->query_beta == 0.0
                             ? 1.0
                             : 1.0 + rope->query_beta * log(1.0 + floor(position / rope->original));
    for (size_t i = 0; i < c->heads * full_width; i++)
        full[i] *= scale;
    for (size_t head = 0; head < c->heads; head++) {
        const double *nope = full + head * full_width;
        const float *keys = model->weights.kv_b + head * (c->nope + c->value) * c->kv_rank;
        double *absorbed = q + head * width;
        for (size_t l = 0; l < c->kv_rank; l++)
            absorbed[l] = 0.0;
        for (size_t p = 0; p < c->nope; p++) {
            for (size_t l = 0; l < c->kv_rank; l++)
                absorbed[l] += nope[p] * keys[p * c->kv_rank + l];
        }
        for (size_t r = 0; r < c->rope; r++)
            absorbed[c->kv_rank + r] = nope[c->nope + r];
        rotate(model, position, absorbed + c->kv_rank);
    }
}

void mla_latent(const struct mla_model *model, const double *x, uint32_t position, double *latent)
{
    const struct mla_config *c = &model->config;
    multiply(model->weights.kv_a, (size_t)c->kv_rank + c->rope, c->hidden, x, latent);
    normalise(model->weights.kv_a_norm, c->kv_rank, c->norm_epsilon, latent);
    rotate(model, position, latent + c->kv_rank);
}

/*
 * One head: the mean, under its softmax, of each score's sum of squared terms. A score is a sum of
 * products whose factors are rounded one by one, so that sum, times the variance of a rounding, is
 * the score's variance.
 */
static double score_spread(const double *q, const double *keys, size_t count, size_t width,
                           double softmax_scale)
{
    double highest = -INFINITY, weights = 0.0, spread = 0.0;
    for (size_t key = 0; key < count; key++) {
        double score = 0.0, squares = 0.0;
        for (size_t i = 0; i < width; i++) {
            const double term = softmax_scale * q[i] * keys[key * width + i];
            score += term;
            squares += term * term;
        }
        if (score > highest) {
            const double shrink = exp(highest - score);
            weights *= shrink;
            spread *= shrink;
            highest = score;
        }
        const double weight = exp(score - highest);
        weights += weight;
        spread += weight * squares;
    }
    return spread / weights;
}

double mla_expected_error(const struct mla_config *config, const double *q, const double *keys,
                          size_t count, double softmax_scale)
{
    const double unit = 1.0 / 512.0; /* bf16: the most that rounding changes a number, relatively */
    const size_t width = (size_t)config->kv_rank + config->rope;
    double spread = 0.0;
    for (size_t head = 0; head < config->heads; head++)
        spread = fmax(spread, score_spread(q + head * width, keys, count, width, softmax_scale));
    return unit * sqrt((3.0 + 2.0 * spread) / 3.0);
}

void mla_output(const struct mla_model *model, const double *out, double *y, double *scratch)
{
    const struct mla_config *c = &model->config;
    for (size_t head = 0; head < c->heads; head++) {
        const float *values =
            model->weights.kv_b + (head * (c->nope + c->value) + c->nope) * c->kv_rank;
        multiply(values, c->value, c->kv_rank, out + head * c->kv_rank, scratch + head * c->value);
    }
    multiply(model->weights.out, c->hidden, (size_t)c->heads * c->value, scratch, y);
}
