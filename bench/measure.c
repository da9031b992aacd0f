/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/measure.h"

#include "bench/measure_check.h"
#include "bench/measure_lists.h"
#include "bench/measure_time.h"
#include "kernels/counted_view.h"

#include <math.h>
#include <stdio.h>

#define DEFAULT_REPLAYS 15u
/* Stages in a chain of schedules or appends: the cost of launching a graph is a part this small. */
#define CHAIN 64u

/* What a chain is made of: `count` links, each an append, an attend with its reduction, or both;
 * over lists with their schedule between where there is one, as in every layer of a step. */
enum link { LINK_ATTEND, LINK_APPEND_ATTEND, LINK_SCHEDULE, LINK_APPEND };

static enum rt_status add_link(const struct rt_rig *rig, enum link link, uint32_t layer,
                               struct rt_program *p)
{
    const bool of_layer = link == LINK_APPEND_ATTEND;
    if (link == LINK_SCHEDULE)
        return rt_rig_add_schedule(rig, RT_RIG_TIMED, p);
    if (link == LINK_APPEND || of_layer)
        RT_TRY(rt_rig_add_append(rig, layer, p));
    if (of_layer && rig->params->topk && rt_lists_have_schedule(rig, RT_RIG_TIMED))
        RT_TRY(rt_rig_add_schedule(rig, RT_RIG_TIMED, p));
    return link == LINK_APPEND ? RT_OK : rt_rig_add_attend(rig, RT_RIG_TIMED, layer, p);
}

/* Layers from the last to the first: what the first leaves can be held against a launch alone. */
static enum rt_status time_chain(const struct rt_rig *rig, enum link link, uint32_t count,
                                 double *link_ns)
{
    const struct rt_stopwatch stopwatch = rt_measure_stopwatch(rig->m);
    struct rt_program p = {.spec = rt_rig_spec(rig)};
    uint32_t replays = rig->params->replays ? rig->params->replays : DEFAULT_REPLAYS;
    double ns = 0;
    enum rt_status status = RT_OK;
    for (uint32_t i = count; i-- > 0 && status == RT_OK;)
        status = add_link(rig, link, i % rig->layers, &p);
    if (status == RT_OK)
        status = rt_stopwatch_replays(&stopwatch, &p, replays, &ns);
    rt_program_free(&p);
    *link_ns = ns / count;
    return status;
}

/* The first time one is wanted; none is a fact and no failure. */
static void open_energy(struct rt_measure *m, struct rt_measure_attention_result *r)
{
    struct rt_error why = {0};
    if (!m->energy && rt_energy_open(&m->driver.caps, &m->energy, &why) != RT_OK)
        (void)snprintf(r->why_no_energy, sizeof(r->why_no_energy), "%.190s", why.message);
}

static enum rt_status time_sustained(const struct rt_rig *rig,
                                     struct rt_measure_attention_result *r)
{
    const struct rt_stopwatch stopwatch = rt_measure_stopwatch(rig->m);
    struct rt_program p = {.spec = rt_rig_spec(rig)};
    struct rt_sustained sustained = {0};
    const double step_ns = RT_MEASURE_SUSTAIN_LAYERS * (r->layer_ns > 0 ? r->layer_ns : 1);
    const uint64_t replays = 1 + (uint64_t)(rig->params->sustain_ms * 1e6 / 2 / step_ns);
    enum rt_status status = RT_OK;
    open_energy(rig->m, r);
    for (uint32_t i = RT_MEASURE_SUSTAIN_LAYERS; i-- > 0 && status == RT_OK;)
        status = add_link(rig, LINK_ATTEND, i % rig->layers, &p);
    if (status == RT_OK)
        status = rt_stopwatch_sustain(&stopwatch, &p, replays, rig->m->energy, &sustained);
    rt_program_free(&p);
    r->sustained_ns = sustained.replay_ns / RT_MEASURE_SUSTAIN_LAYERS;
    r->sustained_step_mj = sustained.replay_mj;
    return status;
}

static enum rt_status measure(const struct rt_rig *rig, struct rt_measure_check *check,
                              struct rt_measure_attention_result *r)
{
    RT_TRY(rt_measure_check_layer(rig, check, r));
    RT_TRY(time_chain(rig, LINK_ATTEND, rig->layers, &r->layer_ns));
    if (rig->params->sustain_ms)
        RT_TRY(time_sustained(rig, r));
    RT_TRY(rt_measure_check_again(rig, check, r));
    RT_TRY(time_chain(rig, LINK_APPEND_ATTEND, rig->layers, &r->append_attend_ns));
    RT_TRY(time_chain(rig, LINK_SCHEDULE, CHAIN, &r->schedule_ns));
    return time_chain(rig, LINK_APPEND, CHAIN, &r->append_ns);
}

static void name_kernels(struct rt_rig *rig, struct rt_measure_attention_result *r)
{
    const struct rt_variant *attend = rt_rig_attend(rig, RT_RIG_TIMED);
    const uint32_t rows = rig->shape.batch, tokens = rows * rig->shape.query_len;
    const uint32_t topk = rig->params->topk;
    const bool whole = topk && rt_attend_is_whole(attend, tokens, topk);
    r->backend = attend->backend;
    r->kernel = topk ? rt_sparse_attend_entry(attend, tokens, topk) : rt_attend_entry(attend, rows);
    r->reduction = whole ? NULL : rig->choices[RT_RIG_TIMED].reduce.entry;
    r->parts = attend->parts;
}

static enum rt_status measure_shape(struct rt_measure *m,
                                    const struct rt_measure_attention_params *params,
                                    struct rt_measure_attention_result *out)
{
    struct rt_rig rig;
    RT_TRY(rt_rig_make(m, params, &rig));
    struct rt_measure_attention_result result = {.layers = rig.layers,
                                                 .layer_bytes = rig.layer_bytes};
    name_kernels(&rig, &result);
    struct rt_measure_check check = {0};
    enum rt_status status = measure(&rig, &check, &result);
    if (status == RT_OK)
        *out = result;
    rt_measure_check_free(&check);
    rt_rig_free(&rig);
    return status;
}

enum rt_status rt_measure_attention(rt_measure *m, const struct rt_measure_attention_params *params,
                                    struct rt_measure_attention_result *out)
{
    RT_REQUIRE(m, NULL, RT_ERR_INVALID, "rt_measure_attention: measure is null");
    struct rt_error *err = &m->error;
    RT_REQUIRE(params && out, err, RT_ERR_INVALID, "rt_measure_attention: params or out is null");
    RT_REQUIRE(params->lengths, err, RT_ERR_INVALID, "rt_measure_attention: lengths is null");
    RT_REQUIRE(isfinite(params->softmax_scale) && params->softmax_scale > 0, err, RT_ERR_INVALID,
               "rt_measure_attention: softmax_scale %g is not a positive number",
               (double)params->softmax_scale);
    RT_REQUIRE(params->replays <= RT_MEASURE_MAX_REPLAYS, err, RT_ERR_INVALID,
               "rt_measure_attention: replays %u is not 0..%d", params->replays,
               RT_MEASURE_MAX_REPLAYS);
    RT_REQUIRE(params->sustain_ms <= RT_MEASURE_MOST_SUSTAIN_MS, err, RT_ERR_INVALID,
               "rt_measure_attention: sustain_ms %u is not 0..%d", params->sustain_ms,
               RT_MEASURE_MOST_SUSTAIN_MS);
    struct rt_driver *d = &m->driver;
    RT_TRY(RT_DRV(d, err, ctx_enter, (d)));
    enum rt_status status = measure_shape(m, params, out);
    (void)d->ctx_leave(d);
    return status;
}
