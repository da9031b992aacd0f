/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/layer_stages.h"

#include "bench/measure_time.h"
#include "runtime/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BF16_BYTES 2u

uint32_t layer_graph_of_step(rt_runtime *rt, uint32_t batch, uint32_t query_len, uint32_t length)
{
    const struct rt_graph_spec *const specs = rt->blueprint.specs;
    const uint32_t count = rt->captured_count;
    const uint64_t blocks = (uint64_t)batch * rt_blocks_of(length);
    for (uint32_t i = 0; i < count; i++) {
        if (rt_spec_is_chunk(&specs[i]) || specs[i].rows != batch ||
            rt_spec_query_len(&specs[i]) != query_len)
            continue;
        uint32_t best = i, small = rt_spec_find_small(specs, count, i);
        while (small < count && blocks <= specs[small].most_blocks) {
            best = small;
            small = rt_spec_find_small(specs, count, best);
        }
        return best;
    }
    return UINT32_MAX;
}

uint32_t layer_graph_of_chunk(rt_runtime *rt, uint32_t chunk, uint32_t decode_rows)
{
    for (uint32_t i = 0; i < rt->captured_count; i++) {
        const struct rt_graph_spec *spec = &rt->captured[i].program.spec;
        if (rt_spec_chunk(spec) == chunk && spec->decode_rows == decode_rows && spec->pieces == 0)
            return i;
    }
    return UINT32_MAX;
}

/* The library's or ours; a caller's stage has no time of its own here. */
static bool is_of_layer(const struct rt_stage *s, uint32_t layer)
{
    return s->layer == layer && s->work->kind != RT_WORK_CALL;
}

/* The layer's stage number `index`, counted from 0; null: it has fewer. */
static const struct rt_stage *stage_at(const struct rt_program *p, uint32_t layer, uint32_t index)
{
    for (uint32_t i = 0; i < p->count; i++)
        if (is_of_layer(&p->stages[i], layer) && index-- == 0)
            return &p->stages[i];
    return NULL;
}

/* ---- what it is ------------------------------------------------------------------------------ */

/* Bytes of the weight that a stage of this name multiplies by; 0: it is no product. */
static uint64_t weight_bytes(const struct rt_config *c, const char *name)
{
    const struct rt_block *b = &c->block;
    const uint64_t heads = c->geometry.heads, latent = c->geometry.kv_lora_rank;
    const uint64_t rope = c->geometry.qk_rope_head_dim, q = heads * (b->qk_nope_head_dim + rope);
    const uint64_t q_a = b->q_lora_rank ? b->q_lora_rank : q;
    const struct {
        const char *name;
        uint64_t numbers;
    } products[] = {
        {"mla_block", b->hidden_size * (q_a + latent + rope) + b->q_lora_rank * q +
                          heads * (b->qk_nope_head_dim + b->v_head_dim) * latent +
                          b->hidden_size * heads * b->v_head_dim},
        {"qkv_a", b->hidden_size * (q_a + latent + rope)},
        {"q_b", b->q_lora_rank * q},
        {"w_uk", heads * b->qk_nope_head_dim * latent},
        {"preattend_absorb", heads * b->qk_nope_head_dim * latent},
        {"w_uv", heads * b->v_head_dim * latent},
        {"o_proj", b->hidden_size * heads * b->v_head_dim},
    };
    for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++)
        if (strcmp(products[i].name, name) == 0)
            return products[i].numbers * BF16_BYTES;
    return 0;
}

static void name_stage(const struct rt_program *p, const struct rt_stage *s,
                       struct layer_stage *out)
{
    const int stem = (int)strcspn(s->label, ".");
    uint32_t number = 1;
    for (const struct rt_stage *other = p->stages; other < s; other++)
        number += is_of_layer(other, s->layer) && strcmp(other->label, s->label) == 0;
    if (number > 1)
        (void)snprintf(out->name, sizeof(out->name), "%.*s %u", stem, s->label, number);
    else
        (void)snprintf(out->name, sizeof(out->name), "%.*s", stem, s->label);
}

static void describe(const struct rt_runtime *rt, const struct rt_program *p,
                     const struct rt_stage *s, struct layer_stage *out)
{
    const struct rt_work *work = s->work;
    const bool library = work->kind == RT_WORK_MATMUL;
    const char *how = library && work->matmul.plan ? work->matmul.plan->text : "";
    char stem[RT_LABEL_BYTES];
    (void)snprintf(stem, sizeof(stem), "%.*s", (int)strcspn(s->label, "."), s->label);
    name_stage(p, s, out);
    (void)snprintf(out->by, sizeof(out->by), "%s%s%s", rt_work_name(work), *how ? ": " : "", how);
    out->weight_bytes = library ? (uint64_t)work->matmul.batch * work->matmul.n * work->matmul.k *
                                      rt_dtype_bytes(work->matmul.weight_dtype)
                                : weight_bytes(&rt->blueprint.config, stem);
}

/* ---- chains ---------------------------------------------------------------------------------- */

static enum rt_status make_chain(struct rt_runtime *rt, const struct rt_program *p, uint32_t index,
                                 struct rt_program *chain)
{
    const uint32_t layers = rt->blueprint.config.geometry.layers;
    for (uint32_t layer = 0; layer < layers; layer++) {
        const struct rt_stage *s = stage_at(p, layer, index);
        RT_REQUIRE(s, &rt->error, RT_ERR_INTERNAL, "layer %u has fewer stages than layer 0", layer);
        RT_TRY(rt_program_add(chain, s->label, layer, s->work, &rt->error));
    }
    return RT_OK;
}

static enum rt_status measure_stage(struct rt_runtime *rt, const struct rt_program *p,
                                    const struct rt_stopwatch *w, uint32_t index, uint32_t replays,
                                    struct layer_stage *out)
{
    struct rt_program chain = {.spec = p->spec};
    enum rt_status status = make_chain(rt, p, index, &chain);
    describe(rt, p, stage_at(p, 0, index), out);
    if (status == RT_OK)
        status = rt_stopwatch_replays(w, &chain, replays, &out->ns);
    out->ns /= rt->blueprint.config.geometry.layers;
    rt_program_free(&chain);
    return status;
}

static enum rt_status measure_all(struct rt_runtime *rt, const struct rt_program *p,
                                  const struct rt_stopwatch *w, uint32_t replays,
                                  struct layer_stages *out)
{
    for (uint32_t i = 0; i < 2 * replays; i++)
        RT_TRY(RT_DRV(w->driver, w->error, event_create, (w->driver, &w->events[i])));
    for (; stage_at(p, 0, out->count); out->count++) {
        RT_REQUIRE(out->count < LAYER_STAGES_MOST, &rt->error, RT_ERR_INTERNAL,
                   "a layer has more than %d stages", LAYER_STAGES_MOST);
        RT_TRY(measure_stage(rt, p, w, out->count, replays, &out->stages[out->count]));
    }
    return RT_OK;
}

enum rt_status layer_stages_measure(rt_runtime *rt, uint32_t graph, uint32_t replays,
                                    struct layer_stages *out)
{
    struct rt_driver *d = &rt->driver;
    rt_devent events[2 * RT_MEASURE_MAX_REPLAYS] = {NULL};
    const struct rt_stopwatch w = {
        .driver = d, .stream = rt->stream, .events = events, .error = &rt->error};
    *out = (struct layer_stages){.count = 0};
    RT_REQUIRE(graph < rt->captured_count && replays > 0 && replays <= RT_MEASURE_MAX_REPLAYS,
               &rt->error, RT_ERR_INVALID, "graph %u of %u, or %u replays are not 1..%d", graph,
               rt->captured_count, replays, RT_MEASURE_MAX_REPLAYS);
    RT_TRY(RT_DRV(d, &rt->error, ctx_enter, (d)));
    const enum rt_status status = measure_all(rt, &rt->captured[graph].program, &w, replays, out);
    for (uint32_t i = 0; i < 2 * replays; i++)
        if (events[i])
            (void)d->event_destroy(d, events[i]);
    (void)d->ctx_leave(d);
    return status;
}
