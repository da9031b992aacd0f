/* SPDX-License-Identifier: Apache-2.0 */
#include "models/places.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NORMS 2u /* of a layer */
#define MLP 3u   /* gate, up, down */

/* ---- making the table ------------------------------------------------------------------------ */

static uint32_t mlp_count(const struct rt_model *m, uint32_t layer)
{
    const uint32_t shared = m->moe.shared_intermediate_size ? MLP : 0;
    return m->moe_layers[layer] ? 1 + m->moe.bias + MLP * m->moe.experts + shared : MLP;
}

/* A table of one layer's weights knows their names and shapes; nothing is bound to it. */
static enum rt_status open_attention(struct rt_places *p, struct rt_error *err)
{
    struct rt_config config;
    rt_config_default(&config);
    (void)snprintf(config.device, sizeof(config.device), "host");
    config.geometry = p->model.geometry;
    config.geometry.layers = 1;
    config.block = p->model.block;
    config.layer = 1;
    RT_MODELS_TRY(rt_weights_create(&config, &p->attention, err));
    p->attention_count = rt_weights_count(p->attention);
    return RT_OK;
}

static enum rt_status init(struct rt_places *p, struct rt_error *err)
{
    const struct rt_model *m = &p->model;
    RT_MODELS_TRY(rt_places_check_model(m, err));
    RT_MODELS_TRY(open_attention(p, err));
    p->ranks = p->context = 1;
    p->starts[0] = 1;
    for (uint32_t layer = 0; layer < m->layers; layer++)
        p->starts[layer + 1] = p->starts[layer] + NORMS + p->attention_count + mlp_count(m, layer);
    p->count = p->starts[m->layers] + 1 + !m->tied;
    return RT_OK;
}

enum rt_status rt_places_create(const struct rt_model *model, rt_places **out,
                                struct rt_error *error)
{
    RT_MODELS_REQUIRE(out, error, RT_ERR_INVALID, "rt_places_create: out is null");
    *out = NULL;
    struct rt_error story = {.status = RT_OK};
    rt_places *p = calloc(1, sizeof(*p));
    RT_MODELS_REQUIRE(p, error, RT_ERR_NOMEM, "out of host memory for a model's places");
    enum rt_status status = rt_models_take_struct(model, &p->model, sizeof(p->model),
                                                  "rt_places_create", "model", error);
    if (status == RT_OK)
        status = init(p, &story);
    if (story.status != RT_OK)
        (void)rt_models_fail(error, status, "rt_places_create: %s", story.message);
    if (status != RT_OK)
        rt_places_destroy(&p);
    *out = p;
    return status;
}

enum rt_status rt_places_cut(rt_places *places, uint32_t rank, uint32_t ranks, uint32_t context,
                             struct rt_error *error)
{
    RT_MODELS_REQUIRE(places, error, RT_ERR_INVALID, "rt_places_cut: places is null");
    RT_MODELS_REQUIRE(rank < ranks, error, RT_ERR_INVALID,
                      "rt_places_cut: rank %" PRIu32 " of %" PRIu32, rank, ranks);
    RT_MODELS_REQUIRE(context > 0 && ranks % context == 0, error, RT_ERR_INVALID,
                      "rt_places_cut: a context of %" PRIu32 " of %" PRIu32 " ranks", context,
                      ranks);
    const uint32_t heads = places->model.geometry.heads;
    RT_MODELS_REQUIRE(heads % ranks == 0, error, RT_ERR_GEOMETRY,
                      "rt_places_cut: %" PRIu32 " heads are no multiple of %" PRIu32 " ranks",
                      heads, ranks);
    places->rank = rank;
    places->ranks = ranks;
    places->context = context;
    return RT_OK;
}

void rt_places_destroy(rt_places **places)
{
    if (!places || !*places)
        return;
    rt_weights_destroy(&(*places)->attention);
    free(*places);
    *places = NULL;
}

/* ---- one place ------------------------------------------------------------------------------- */

/* Of an MLP of any kind: gate, up and down follow each other, in the enum as here. */
static void set_mlp(struct rt_place *out, enum rt_place_kind gate, uint32_t which, uint32_t width,
                    uint32_t hidden, const char *part)
{
    static const char *const words[MLP] = {"gate", "up", "down"};
    out->kind = (enum rt_place_kind)(gate + which);
    out->rows = which == 2 ? hidden : width;
    out->columns = which == 2 ? width : hidden;
    (void)snprintf(out->name, sizeof(out->name), "model.layers.%" PRIu32 ".mlp.%s%s_proj.weight",
                   out->layer, part, words[which]);
}

static void set(struct rt_place *out, enum rt_place_kind kind, uint64_t rows, uint64_t columns,
                const char *name)
{
    out->kind = kind;
    out->rows = rows;
    out->columns = columns;
    (void)snprintf(out->name, sizeof(out->name), "%s", name);
}

static void set_of_layer(struct rt_place *out, enum rt_place_kind kind, uint64_t rows,
                         uint64_t columns, const char *name)
{
    set(out, kind, rows, columns, "");
    (void)snprintf(out->name, sizeof(out->name), "model.layers.%" PRIu32 ".%.64s", out->layer,
                   name);
}

/* i counts from the router on. */
static void place_of_mixture(const struct rt_model *m, uint32_t i, struct rt_place *out)
{
    const struct rt_moe *moe = &m->moe;
    char part[32];
    if (i == 0) {
        set_of_layer(out, RT_PLACE_ROUTER, moe->experts, m->hidden_size, "mlp.gate.weight");
        return;
    }
    if (i == 1 && moe->bias) {
        set_of_layer(out, RT_PLACE_ROUTER_BIAS, 1, moe->experts,
                     "mlp.gate.e_score_correction_bias");
        return;
    }
    i -= 1 + moe->bias;
    if (i >= MLP * moe->experts) {
        set_mlp(out, RT_PLACE_SHARED_GATE, i - MLP * moe->experts, moe->shared_intermediate_size,
                m->hidden_size, "shared_experts.");
        return;
    }
    out->expert = i / MLP;
    (void)snprintf(part, sizeof(part), "experts.%" PRIu32 ".", out->expert);
    set_mlp(out, RT_PLACE_EXPERT_GATE, i % MLP, moe->intermediate_size, m->hidden_size, part);
}

static bool has_bias(const struct rt_model *m, const char *name)
{
    return m->attention_bias &&
           (strcmp(name, "q_a_proj.bias") == 0 || strcmp(name, "kv_a_proj_with_mqa.bias") == 0 ||
            strcmp(name, "o_proj.bias") == 0);
}

static void place_of_attention(const struct rt_places *p, uint32_t i, struct rt_place *out)
{
    char name[64];
    struct rt_weight_place w = {.struct_size = sizeof(w)};
    (void)rt_weights_place(p->attention, i, &w, NULL); /* i is below its count */
    (void)snprintf(name, sizeof(name), "self_attn.%s", w.name);
    set_of_layer(out, RT_PLACE_ATTENTION, w.rows, w.columns, name);
    out->needed = w.needed || has_bias(&p->model, w.name);
}

static void place_of_layer(const struct rt_places *p, uint32_t i, struct rt_place *out)
{
    const struct rt_model *m = &p->model;
    const uint32_t mlp_norm = 1 + p->attention_count;
    if (i == 0)
        set_of_layer(out, RT_PLACE_INPUT_NORM, 1, m->hidden_size, "input_layernorm.weight");
    else if (i < mlp_norm)
        place_of_attention(p, i - 1, out);
    else if (i == mlp_norm)
        set_of_layer(out, RT_PLACE_MLP_NORM, 1, m->hidden_size, "post_attention_layernorm.weight");
    else if (m->moe_layers[out->layer])
        place_of_mixture(m, i - mlp_norm - 1, out);
    else
        set_mlp(out, RT_PLACE_GATE, i - mlp_norm - 1, m->intermediate_size, m->hidden_size, "");
}

void rt_place_whole(const struct rt_places *p, uint32_t index, struct rt_place *out)
{
    const struct rt_model *m = &p->model;
    const uint32_t behind = p->starts[m->layers];
    *out = (struct rt_place){.struct_size = sizeof(*out), .needed = 1};
    if (index == 0) {
        set(out, RT_PLACE_EMBEDDING, m->vocab_size, m->hidden_size, "model.embed_tokens.weight");
    } else if (index == behind) {
        set(out, RT_PLACE_FINAL_NORM, 1, m->hidden_size, "model.norm.weight");
    } else if (index > behind) {
        set(out, RT_PLACE_LM_HEAD, m->vocab_size, m->hidden_size, "lm_head.weight");
    } else {
        while (index >= p->starts[out->layer + 1])
            out->layer++;
        place_of_layer(p, index - p->starts[out->layer], out);
    }
}

bool rt_place_is_vector(const struct rt_place *place)
{
    const enum rt_place_kind kind = place->kind;
    return kind == RT_PLACE_FINAL_NORM || kind == RT_PLACE_INPUT_NORM ||
           kind == RT_PLACE_MLP_NORM || kind == RT_PLACE_ROUTER_BIAS ||
           (kind == RT_PLACE_ATTENTION && place->rows == 1);
}

uint32_t rt_places_count(const rt_places *places)
{
    return places ? places->count : 0;
}

enum rt_status rt_places_at(const rt_places *places, uint32_t index, struct rt_place *out,
                            struct rt_error *error)
{
    struct rt_place mine;
    RT_MODELS_REQUIRE(places, error, RT_ERR_INVALID, "rt_places_at: places is null");
    RT_MODELS_REQUIRE(index < places->count, error, RT_ERR_INVALID,
                      "rt_places_at: index %" PRIu32 " of %" PRIu32, index, places->count);
    RT_MODELS_TRY(rt_models_check_struct(out, sizeof(*out), "rt_places_at", "out", error));
    rt_place_of(places, index, &mine);
    rt_models_write_struct(out, &mine, sizeof(mine));
    return RT_OK;
}
