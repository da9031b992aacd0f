/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/models/decoder_truth.h"

#include "common/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- arithmetic ------------------------------------------------------------------------------ */

static double *numbers(uint64_t count)
{
    double *p = calloc(count + 1, sizeof(*p));
    if (!p)
        abort();
    return p;
}

/* out[rows] = weight[rows, columns] · x, each sum in the order of its columns. Four sums at once do
 * not wait for each other; where fewer rows are left, the last is taken again. */
static void multiply(const float *weight, uint64_t rows, uint64_t columns, const double *x,
                     double *out)
{
    for (uint64_t r = 0; r < rows; r += 4) {
        const float *w[4];
        double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (uint64_t k = 0; k < 4; k++)
            w[k] = weight + (r + k < rows ? r + k : rows - 1) * columns;
        const float *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];
        for (uint64_t i = 0; i < columns; i++) {
            const double one = x[i];
            s0 += (double)w0[i] * one;
            s1 += (double)w1[i] * one;
            s2 += (double)w2[i] * one;
            s3 += (double)w3[i] * one;
        }
        const double sums[4] = {s0, s1, s2, s3};
        for (uint64_t k = 0; k < 4 && r + k < rows; k++)
            out[r + k] = sums[k];
    }
}

static void normalise(const float *weight, uint32_t count, double eps, const double *x, double *out)
{
    double squares = 0;
    for (uint32_t i = 0; i < count; i++)
        squares += x[i] * x[i];
    const double scale = 1 / sqrt(squares / count + eps);
    for (uint32_t i = 0; i < count; i++)
        out[i] = x[i] * scale * (double)weight[i];
}

static void add(double *x, const double *y, double scale, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        x[i] += scale * y[i];
}

/* ---- attention ------------------------------------------------------------------------------- */

static void rotate(const struct truth *t, uint32_t position, double *x)
{
    const struct rt_rope *rope = &t->model.block.rope;
    const uint32_t pairs = t->model.geometry.qk_rope_head_dim / 2;
    const double factor = rope->attention_factor == 0 ? 1 : rope->attention_factor;
    for (uint32_t i = 0; i < pairs; i++) {
        double *a = rope->order == RT_ROPE_HALF ? x + i : x + 2 * i;
        double *b = rope->order == RT_ROPE_HALF ? x + i + pairs : x + 2 * i + 1;
        const double c = factor * cos(position * t->speeds[i]);
        const double s = factor * sin(position * t->speeds[i]);
        const double first = *a * c - *b * s;
        *b = *a * s + *b * c;
        *a = first;
    }
}

/* [heads, P + R], position in it. */
static void make_query(const struct truth *t, const struct truth_layer *l, uint32_t position,
                       const double *x, double *out)
{
    const struct rt_block *b = &t->model.block;
    const struct rt_geometry *g = &t->model.geometry;
    const uint32_t width = b->qk_nope_head_dim + g->qk_rope_head_dim;
    const double scale = rt_rope_query_scale(&b->rope, position);
    if (b->q_lora_rank) {
        double *low = numbers(b->q_lora_rank);
        multiply(l->q_a, b->q_lora_rank, b->hidden_size, x, low);
        normalise(l->q_a_norm, b->q_lora_rank, b->norm_eps, low, low);
        multiply(l->q_b, (uint64_t)g->heads * width, b->q_lora_rank, low, out);
        free(low);
    } else {
        multiply(l->q, (uint64_t)g->heads * width, b->hidden_size, x, out);
    }
    for (uint32_t h = 0; h < g->heads; h++)
        rotate(t, position, out + (uint64_t)h * width + b->qk_nope_head_dim);
    for (uint64_t i = 0; i < (uint64_t)g->heads * width; i++)
        out[i] *= scale;
}

/* Keys and values of all heads at this position. */
static void store(const struct truth *t, const struct truth_layer *l, uint32_t position,
                  const double *x)
{
    const struct rt_block *b = &t->model.block;
    const struct rt_geometry *g = &t->model.geometry;
    const uint32_t rank = g->kv_lora_rank, rope = g->qk_rope_head_dim, nope = b->qk_nope_head_dim;
    const uint32_t each = nope + b->v_head_dim;
    double *low = numbers(rank + rope), *both = numbers((uint64_t)g->heads * each);
    multiply(l->kv_a, rank + rope, b->hidden_size, x, low);
    normalise(l->kv_a_norm, rank, b->norm_eps, low, low);
    rotate(t, position, low + rank);
    multiply(l->kv_b, (uint64_t)g->heads * each, rank, low, both);
    for (uint32_t h = 0; h < g->heads; h++) {
        const uint64_t at = (uint64_t)position * g->heads + h;
        const double *from = both + (uint64_t)h * each;
        memcpy(l->keys + at * (nope + rope), from, nope * sizeof(double));
        memcpy(l->keys + at * (nope + rope) + nope, low + rank, rope * sizeof(double));
        memcpy(l->values + at * b->v_head_dim, from + nope, b->v_head_dim * sizeof(double));
    }
    free(low);
    free(both);
}

static void attend_head(const struct truth *t, const struct truth_layer *l, uint32_t h,
                        uint32_t position, const double *q, double *out)
{
    const struct rt_geometry *g = &t->model.geometry;
    const uint32_t width = t->model.block.qk_nope_head_dim + g->qk_rope_head_dim;
    const uint32_t v = t->model.block.v_head_dim;
    double score[TRUTH_MAX_LENGTH], most = -INFINITY, sum = 0;
    for (uint32_t p = 0; p <= position; p++) {
        const double *key = l->keys + ((uint64_t)p * g->heads + h) * width;
        score[p] = 0;
        for (uint32_t i = 0; i < width; i++)
            score[p] += q[i] * key[i];
        score[p] *= g->softmax_scale;
        most = fmax(most, score[p]);
    }
    memset(out, 0, v * sizeof(*out));
    for (uint32_t p = 0; p <= position; p++) {
        const double weight = exp(score[p] - most);
        sum += weight;
        add(out, l->values + ((uint64_t)p * g->heads + h) * v, weight, v);
    }
    for (uint32_t i = 0; i < v; i++)
        out[i] /= sum;
}

static void attention(const struct truth *t, const struct truth_layer *l, uint32_t position,
                      const double *x, double *out)
{
    const struct rt_block *b = &t->model.block;
    const uint32_t heads = t->model.geometry.heads;
    const uint32_t width = b->qk_nope_head_dim + t->model.geometry.qk_rope_head_dim;
    double *q = numbers((uint64_t)heads * width), *all = numbers((uint64_t)heads * b->v_head_dim);
    make_query(t, l, position, x, q);
    store(t, l, position, x);
    for (uint32_t h = 0; h < heads; h++)
        attend_head(t, l, h, position, q + (uint64_t)h * width, all + (uint64_t)h * b->v_head_dim);
    multiply(l->o, b->hidden_size, (uint64_t)heads * b->v_head_dim, all, out);
    free(q);
    free(all);
}

/* ---- MLP ------------------------------------------------------------------------------------- */

static void mlp(float *const *w, uint32_t width, uint32_t hidden, const double *x, double *out)
{
    double *gate = numbers(width), *up = numbers(width);
    multiply(w[TRUTH_GATE], width, hidden, x, gate);
    multiply(w[TRUTH_UP], width, hidden, x, up);
    for (uint32_t i = 0; i < width; i++)
        up[i] *= gate[i] / (1 + exp(-gate[i]));
    multiply(w[TRUTH_DOWN], hidden, width, up, out);
    free(gate);
    free(up);
}

/* The best of those not below -infinity; of equal ones the first. */
static uint32_t best(const double *score, uint32_t count)
{
    uint32_t found = 0;
    for (uint32_t i = 1; i < count; i++)
        if (score[i] > score[found])
            found = i;
    return found;
}

static double group_score(const struct rt_moe *moe, const double *c, uint32_t count)
{
    double first = -INFINITY, second = -INFINITY;
    for (uint32_t i = 0; i < count; i++) {
        if (c[i] > first) {
            second = first;
            first = c[i];
        } else if (c[i] > second) {
            second = c[i];
        }
    }
    return moe->group_score == RT_GROUP_SCORE_TOP2 && count > 1 ? first + second : first;
}

/* Takes the experts of all groups but the best ones out of the choice. */
static void keep_groups(const struct rt_moe *moe, double *c)
{
    const uint32_t each = moe->experts / moe->groups;
    double *score = numbers(moe->groups);
    for (uint32_t g = 0; g < moe->groups; g++)
        score[g] = group_score(moe, c + (uint64_t)g * each, each);
    for (uint32_t i = 0; i < moe->groups_per_token; i++)
        score[best(score, moe->groups)] = -INFINITY;
    for (uint32_t g = 0; g < moe->groups; g++)
        for (uint32_t i = 0; i < each && score[g] != -INFINITY; i++)
            c[(uint64_t)g * each + i] = -INFINITY;
    free(score);
}

void truth_route(const struct rt_moe *moe, const double *s, const float *bias, uint32_t *chosen,
                 double *weights)
{
    double *c = numbers(moe->experts), sum = 1e-20;
    for (uint32_t e = 0; e < moe->experts; e++)
        c[e] = s[e] + (bias ? (double)bias[e] : 0);
    keep_groups(moe, c);
    for (uint32_t k = 0; k < moe->experts_per_token; k++) {
        chosen[k] = best(c, moe->experts);
        c[chosen[k]] = -INFINITY;
        weights[k] = s[chosen[k]];
        sum += weights[k];
    }
    for (uint32_t k = 0; k < moe->experts_per_token; k++)
        weights[k] *= moe->normalise ? moe->scale / sum : moe->scale;
    free(c);
}

static void score(const struct rt_moe *moe, double *s)
{
    double most = -INFINITY, sum = 0;
    for (uint32_t e = 0; e < moe->experts; e++)
        most = fmax(most, s[e]);
    for (uint32_t e = 0; e < moe->experts; e++) {
        s[e] = moe->scoring == RT_SCORING_SIGMOID ? 1 / (1 + exp(-s[e])) : exp(s[e] - most);
        sum += s[e];
    }
    for (uint32_t e = 0; e < moe->experts && moe->scoring == RT_SCORING_SOFTMAX; e++)
        s[e] /= sum;
}

/* The choice again, by scores in which the last of the chosen is less likely by `doubt`; weights
 * are of the scores as they are. */
static void route_otherwise(const struct rt_moe *moe, const double *s, const float *bias,
                            double doubt, uint32_t *chosen, double *weights)
{
    float *moved = calloc(moe->experts, sizeof(*moved));
    if (!moved)
        abort();
    for (uint32_t e = 0; e < moe->experts; e++)
        moved[e] = bias ? bias[e] : 0;
    moved[chosen[moe->experts_per_token - 1]] -= (float)doubt;
    truth_route(moe, s, moved, chosen, weights);
    free(moved);
}

static void mixture(const struct truth *t, const struct truth_layer *l, const double *x,
                    double *out)
{
    const struct rt_moe *moe = &t->model.moe;
    const double doubt = t->doubt[l - t->layers];
    const uint32_t hidden = t->model.hidden_size;
    double *s = numbers(moe->experts), *part = numbers(hidden);
    double *weights = numbers(moe->experts_per_token);
    uint32_t *chosen = calloc(moe->experts_per_token, sizeof(*chosen));
    if (!chosen)
        abort();
    multiply(l->router, moe->experts, hidden, x, s);
    score(moe, s);
    truth_route(moe, s, l->bias, chosen, weights);
    if (doubt > 0)
        route_otherwise(moe, s, l->bias, doubt, chosen, weights);
    memset(out, 0, hidden * sizeof(*out));
    for (uint32_t k = 0; k < moe->experts_per_token; k++) {
        mlp(l->experts[chosen[k]], moe->intermediate_size, hidden, x, part);
        add(out, part, weights[k], hidden);
    }
    if (moe->shared_intermediate_size) {
        mlp(l->shared, moe->shared_intermediate_size, hidden, x, part);
        add(out, part, 1, hidden);
    }
    free(s);
    free(part);
    free(weights);
    free(chosen);
}

/* ---- the model ------------------------------------------------------------------------------- */

void truth_step(struct truth *t, int32_t token, uint32_t position, double *logits)
{
    const struct rt_model *m = &t->model;
    const uint32_t hidden = m->hidden_size;
    double *x = numbers(hidden), *in = numbers(hidden), *out = numbers(hidden);
    for (uint32_t i = 0; i < hidden; i++)
        x[i] = m->embedding_scale * (double)t->embedding[(uint64_t)token * hidden + i];
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        const struct truth_layer *l = &t->layers[layer];
        normalise(l->input_norm, hidden, m->norm_eps, x, in);
        attention(t, l, position, in, out);
        add(x, out, m->residual_scale, hidden);
        normalise(l->mlp_norm, hidden, m->norm_eps, x, in);
        if (m->moe_layers[layer])
            mixture(t, l, in, out);
        else
            mlp(l->mlp, m->intermediate_size, hidden, in, out);
        add(x, out, m->residual_scale, hidden);
    }
    normalise(t->final_norm, hidden, m->norm_eps, x, in);
    multiply(m->tied ? t->embedding : t->lm_head, m->vocab_size, hidden, in, logits);
    for (uint32_t i = 0; i < m->vocab_size; i++)
        logits[i] *= m->logits_scale;
    free(x);
    free(in);
    free(out);
}

/* ---- weights --------------------------------------------------------------------------------- */

static float **attention_slot(struct truth_layer *l, const char *name)
{
    const struct {
        const char *name;
        float **slot;
    } all[] = {{"q_proj.weight", &l->q},
               {"q_a_proj.weight", &l->q_a},
               {"q_a_layernorm.weight", &l->q_a_norm},
               {"q_b_proj.weight", &l->q_b},
               {"kv_a_proj_with_mqa.weight", &l->kv_a},
               {"kv_a_layernorm.weight", &l->kv_a_norm},
               {"kv_b_proj.weight", &l->kv_b},
               {"o_proj.weight", &l->o}};
    const char *last = strstr(name, "self_attn.") + strlen("self_attn.");
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(last, all[i].name) == 0)
            return all[i].slot;
    return NULL; /* a bias, which none of these models has */
}

static float **slot_of(struct truth *t, const struct rt_place *place)
{
    struct truth_layer *l = &t->layers[place->layer];
    switch (place->kind) {
    case RT_PLACE_EMBEDDING:
        return &t->embedding;
    case RT_PLACE_FINAL_NORM:
        return &t->final_norm;
    case RT_PLACE_LM_HEAD:
        return &t->lm_head;
    case RT_PLACE_INPUT_NORM:
        return &l->input_norm;
    case RT_PLACE_ATTENTION:
        return attention_slot(l, place->name);
    case RT_PLACE_MLP_NORM:
        return &l->mlp_norm;
    case RT_PLACE_ROUTER:
        return &l->router;
    case RT_PLACE_ROUTER_BIAS:
        return &l->bias;
    case RT_PLACE_GATE:
    case RT_PLACE_UP:
    case RT_PLACE_DOWN:
        return &l->mlp[place->kind - RT_PLACE_GATE];
    case RT_PLACE_EXPERT_GATE:
    case RT_PLACE_EXPERT_UP:
    case RT_PLACE_EXPERT_DOWN:
        return &l->experts[place->expert][place->kind - RT_PLACE_EXPERT_GATE];
    case RT_PLACE_SHARED_GATE:
    case RT_PLACE_SHARED_UP:
    case RT_PLACE_SHARED_DOWN:
        return &l->shared[place->kind - RT_PLACE_SHARED_GATE];
    }
    return NULL;
}

static bool load(struct truth *t, const rt_places *places, const rt_checkpoint *checkpoint,
                 struct rt_error *err)
{
    if (rt_places_check(places, checkpoint, err) != RT_OK)
        return false;
    for (uint32_t i = 0; i < t->count; i++) {
        struct rt_place place = {.struct_size = sizeof(place)};
        if (rt_places_at(places, i, &place, err) != RT_OK)
            return false;
        float **slot = slot_of(t, &place);
        if (!place.needed)
            continue;
        t->all[i] = malloc(place.rows * place.columns * sizeof(float));
        if (!slot || !t->all[i])
            abort();
        *slot = t->all[i];
        if (rt_places_copy(places, checkpoint, i, 0, place.rows, RT_DTYPE_F32, *slot, err) != RT_OK)
            return false;
    }
    return true;
}

static void make_layers(struct truth *t)
{
    const struct rt_model *m = &t->model;
    const uint64_t heads = (uint64_t)TRUTH_MAX_LENGTH * m->geometry.heads;
    t->layers = calloc(m->layers, sizeof(*t->layers));
    t->all = calloc(t->count, sizeof(*t->all));
    if (!t->layers || !t->all)
        abort();
    for (uint32_t i = 0; i < m->layers; i++) {
        struct truth_layer *l = &t->layers[i];
        l->experts = calloc(m->moe.experts + 1, sizeof(*l->experts));
        l->keys = numbers(heads * (m->block.qk_nope_head_dim + m->geometry.qk_rope_head_dim));
        l->values = numbers(heads * m->block.v_head_dim);
        if (!l->experts)
            abort();
    }
}

bool truth_open(struct truth *t, const struct rt_model *model, const rt_checkpoint *checkpoint,
                struct rt_error *err)
{
    rt_places *places = NULL;
    *t = (struct truth){.model = *model};
    if (rt_places_create(model, &places, err) != RT_OK)
        return false;
    t->count = rt_places_count(places);
    make_layers(t);
    rt_rope_speeds(&model->block.rope, model->geometry.qk_rope_head_dim, TRUTH_MAX_LENGTH,
                   t->speeds);
    const bool good = load(t, places, checkpoint, err);
    rt_places_destroy(&places);
    return good;
}

void truth_close(struct truth *t)
{
    for (uint32_t i = 0; i < t->count; i++)
        free(t->all[i]);
    for (uint32_t i = 0; t->layers && i < t->model.layers; i++) {
        free(t->layers[i].experts);
        free(t->layers[i].keys);
        free(t->layers[i].values);
    }
    free(t->layers);
    free(t->all);
    *t = (struct truth){.count = 0};
}
