/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that may allocate, load or ask: decided here once, so that rt_step need not. */
#include "common/kv_format.h"
#include "runtime/block_tables.h"
#include "runtime/open.h"
#include "runtime/ranks_impl.h"
#include "runtime/runtime.h"
#include "runtime/whole_block.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(const struct rt_create_params *p, enum rt_log_level level, const char *fmt, ...)
    RT_PRINTF(3, 4);

static void say(const struct rt_create_params *p, enum rt_log_level level, const char *fmt, ...)
{
    if (!p->log)
        return;
    char text[320];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    p->log(p->log_user, level, text);
}

static enum rt_status check_params(const struct rt_create_params *p, struct rt_error *err)
{
    const uint32_t all_stages = (1u << RT_STAGE_POINT_COUNT) - 1;
    RT_REQUIRE(p->config, err, RT_ERR_INVALID, "rt_create: params->config is null");
    const uint32_t flags = RT_CREATE_NO_EMPTY_STAGES | RT_CREATE_NEEDS_TOKENS;
    RT_REQUIRE(!(p->flags & ~flags), err, RT_ERR_INVALID, "rt_create: unknown flags 0x%x",
               p->flags & ~flags);
    RT_REQUIRE(!(p->foreign_stages & ~all_stages), err, RT_ERR_INVALID,
               "rt_create: foreign_stages 0x%x has bits that are no stage point",
               p->foreign_stages);
    RT_REQUIRE(!(p->host_function_stages & ~p->foreign_stages), err, RT_ERR_INVALID,
               "rt_create: host_function_stages 0x%x are not all among foreign_stages 0x%x",
               p->host_function_stages, p->foreign_stages);
    RT_REQUIRE(!(p->overlapped_stages & ~all_stages), err, RT_ERR_INVALID,
               "rt_create: overlapped_stages 0x%x has bits that are no stage point",
               p->overlapped_stages);
    RT_REQUIRE(p->arena_address || !p->arena_bytes, err, RT_ERR_INVALID,
               "rt_create: an arena of %" PRIu64 " bytes but its address is null", p->arena_bytes);
    RT_REQUIRE(p->pool_address || !p->pool_bytes, err, RT_ERR_INVALID,
               "rt_create: a pool of %" PRIu64 " bytes but its address is null", p->pool_bytes);
    RT_REQUIRE(p->reserved == 0, err, RT_ERR_INVALID, "rt_create: reserved is %u, must be 0",
               p->reserved);
    RT_REQUIRE(p->regions || !p->region_count, err, RT_ERR_INVALID,
               "rt_create: %u regions but params->regions is null", p->region_count);
    for (uint32_t i = 0; i < p->region_count; i++)
        RT_REQUIRE(p->regions[i].bytes <= UINT64_MAX - p->regions[i].address, err, RT_ERR_INVALID,
                   "rt_create: region %u at 0x%" PRIx64 " with %" PRIu64 " bytes wraps around", i,
                   p->regions[i].address, p->regions[i].bytes);
    return RT_OK;
}

/* ---- host state ------------------------------------------------------------------------------ */

static enum rt_status alloc_host(struct rt_runtime *rt, const struct rt_create_params *p,
                                 struct rt_error *err)
{
    const struct rt_config *c = &rt->blueprint.config;
    const struct rt_placement *l = &rt->blueprint.placement;
    rt->slots = calloc(c->max_sequences, sizeof(*rt->slots));
    rt->slot_rests = calloc(c->max_sequences, sizeof(*rt->slot_rests));
    rt->free_slots = calloc(c->max_sequences, sizeof(*rt->free_slots));
    rt->table = calloc((size_t)c->max_sequences * l->max_blocks, sizeof(*rt->table));
    rt->ops = calloc(1, l->record.ops_capacity);
    rt->flights = calloc(c->ring_depth, sizeof(*rt->flights));
    rt->captured_count = rt->blueprint.spec_count;
    rt->captured = calloc(rt->captured_count, sizeof(*rt->captured));
    rt->regions =
        calloc(3 + RT_RANKS_REGIONS + (size_t)p->region_count + rt_weights_slots(&rt->weights),
               sizeof(*rt->regions));
    RT_REQUIRE(rt->slots && rt->slot_rests && rt->free_slots && rt->table && rt->ops &&
                   rt->flights && rt->captured && rt->regions,
               err, RT_ERR_NOMEM, "out of host memory for %u sequences of %u pages",
               c->max_sequences, l->max_blocks);
    for (uint32_t i = 0; i < c->max_sequences; i++) {
        rt->slot_rests[i].generation = 1;
        rt->free_slots[i] = i;
    }
    rt->free_slot_count = c->max_sequences;
    RT_TRY(rt_pages_init(&rt->pages, l->dims.pages, err));
    return rt_spec_index_init(&rt->spec_index, rt->blueprint.specs, rt->blueprint.spec_count, err);
}

static void register_regions(struct rt_runtime *rt, const struct rt_create_params *p)
{
    const struct rt_placement *l = &rt->blueprint.placement;
    rt->regions[rt->region_count++] =
        (struct rt_audit_region){.base = rt->arena.arena, .bytes = l->arena_bytes, .name = "arena"};
    rt->regions[rt->region_count++] =
        (struct rt_audit_region){.base = rt->arena.pool, .bytes = l->pool_bytes, .name = "KV pool"};
    rt->regions[rt->region_count++] = (struct rt_audit_region){
        .base = rt->arena.mapped_addr, .bytes = l->mapped_bytes, .name = "mapped ring"};
    for (uint32_t i = 0; i < p->region_count; i++)
        rt->regions[rt->region_count++] = (struct rt_audit_region){
            .base = p->regions[i].address, .bytes = p->regions[i].bytes, .name = "caller"};
    for (uint64_t i = 0; i < rt_weights_slots(&rt->weights); i++)
        if (rt->weights.bound[i].address)
            rt->regions[rt->region_count++] =
                (struct rt_audit_region){.base = rt->weights.bound[i].address,
                                         .bytes = rt_bound_weight_bytes(&rt->weights.bound[i]),
                                         .name = "weight"};
}

/* ---- graphs ------------------------------------------------------------------------------------
 */

static enum rt_status finish_graph(struct rt_runtime *rt, struct rt_captured *g,
                                   struct rt_error *err)
{
    RT_TRY(rt_graph_build(&g->program, &rt->driver, rt->stream, &g->graph, err));
    RT_TRY(rt_graph_audit(&g->graph, &g->program, &rt->driver, rt->regions, rt->region_count, err));
    return rt_graph_instantiate(&g->graph, &rt->driver, rt->stream, err);
}

/* A stage whose work went to another stream leaves no node, and every step without it. The same
 * stages do so in all graphs, so the first one's are told. */
static enum rt_status look_for_empty_stages(const struct rt_captured *g, bool tell,
                                            const struct rt_create_params *p, struct rt_error *err)
{
    uint32_t empty = 0, first = 0;
    for (uint32_t i = g->program.count; i-- > 0;) {
        if (!rt_graph_stage_is_empty(&g->graph, i))
            continue;
        empty++;
        first = i;
    }
    if (!empty)
        return RT_OK;
    struct rt_error story = {0};
    (void)rt_fail(&story, RT_ERR_CALLBACK,
                  "the stage's function captured nothing (as do %u others of this graph): what it "
                  "launched went to another stream than context->stream",
                  empty - 1);
    (void)rt_program_stage_failed(&g->program, first, RT_ERR_CALLBACK, &story);
    RT_REQUIRE(!(p->flags & RT_CREATE_NO_EMPTY_STAGES), err, RT_ERR_CALLBACK, "%s", story.message);
    if (tell)
        say(p, RT_LOG_WARNING, "%s", story.message);
    return RT_OK;
}

static void say_foreign(const struct rt_create_params *p)
{
    for (uint32_t i = 0; i < RT_STAGE_POINT_COUNT; i++)
        if (p->stages[i] && p->foreign_stages >> i & 1)
            say(p, RT_LOG_INFO, "stage %s is foreign: the audit proves nothing of it%s",
                rt_stage_point_name((enum rt_stage_point)i),
                p->host_function_stages >> i & 1 ? ", and it may call host functions" : "");
}

static void say_refusals(const struct rt_runtime *rt, const struct rt_create_params *p)
{
    for (uint32_t i = 0; i < rt->products.refusals.count; i++) {
        const struct rt_refusal *r = &rt->products.refusals.items[i];
        say(p, RT_LOG_WARNING,
            "kernels of our own multiply %u vectors of %u by %u rows, %u times: %s", r->product.m,
            r->product.k, r->product.n, r->product.batch, r->why);
    }
}

/* Where the graph's blocks are one kernel each. */
static void note_exchanges(const struct rt_runtime *rt, const struct rt_graph_spec *spec,
                           struct rt_captured *g)
{
    bool is_whole = false;
    for (uint32_t i = 0; i < g->program.count; i++) {
        const struct rt_work *work = g->program.stages[i].work;
        is_whole = is_whole || (work->kind == RT_WORK_LAUNCH && work->launch.cooperative);
    }
    if (!is_whole)
        return;
    const struct rt_exchanges e = rt_exchanges_of(&rt->blueprint, spec);
    g->exchange = rt_arena_addr(&rt->arena, RT_TENSOR_EXCHANGES, 0) + e.offset;
    g->exchange_bytes = e.bytes * e.count;
}

/* Graphs alike are told once. */
static void say_form(const struct rt_runtime *rt, uint32_t i, const struct rt_create_params *p)
{
    const struct rt_program *program = &rt->captured[i].program;
    if (program->form[0] &&
        (i == 0 || strcmp(program->form, rt->captured[i - 1].program.form) != 0))
        say(p, RT_LOG_INFO, "graph (%s): %s", rt_spec_name(&program->spec).text, program->form);
}

static enum rt_status capture_all(struct rt_runtime *rt, const struct rt_create_params *p,
                                  struct rt_error *err)
{
    const struct rt_recipe_source source = {
        .blueprint = &rt->blueprint,
        .arena = &rt->arena,
        .kernels = &rt->kernels,
        .runtime = rt,
        .running = &rt->in_stage,
        .stages = p->stages,
        .stage_user = p->stage_user,
        .foreign = p->foreign_stages,
        .host_nodes = p->host_function_stages,
        .overlapped = p->overlapped_stages,
        .kv_scales = rt->kv_scales,
        .weights = &rt->weights,
        .refusals = &rt->products.refusals,
        .comm = rt->ranks ? &rt->ranks->comm : NULL,
        .sums = &rt->sums,
        .exchanges = &rt->exchanges,
    };
    RT_TRY(rt_recipe_make(&source, &rt->blueprint.control, NULL, &rt->control.program, err));
    RT_TRY(finish_graph(rt, &rt->control, err));
    for (uint32_t i = 0; i < rt->captured_count; i++) {
        struct rt_captured *g = &rt->captured[i];
        g->bindings = calloc(rt_recipe_binding_count(&source), sizeof(*g->bindings));
        RT_REQUIRE(g->bindings, err, RT_ERR_NOMEM, "out of host memory for stage bindings");
        const uint32_t small = rt_spec_find_small(rt->blueprint.specs, rt->blueprint.spec_count, i);
        g->small = small < rt->captured_count ? &rt->captured[small] : NULL;
        RT_TRY(rt_products_make(&rt->products, &source, &rt->blueprint.specs[i], g->bindings,
                                &rt->driver, rt->stream, &g->program, err));
        note_exchanges(rt, &rt->blueprint.specs[i], g);
        say_form(rt, i, p);
        RT_TRY(finish_graph(rt, g, err));
        RT_TRY(look_for_empty_stages(g, i == 0, p, err));
        if (p->progress)
            p->progress(p->log_user, i + 1, rt->captured_count);
    }
    say_refusals(rt, p);
    for (uint32_t i = 0; i < rt->sums.choice_count; i++)
        say(p, RT_LOG_INFO, "%s of %" PRIu64 " numbers over ranks: %s",
            rt_sum_choice_name(&rt->sums.choices[i]), rt->sums.choices[i].count,
            rt->sums.choices[i].reason);
    return RT_OK;
}

static void free_captured(struct rt_runtime *rt, struct rt_captured *g)
{
    rt_graph_free(&g->graph, &rt->driver);
    rt_program_free(&g->program);
    free(g->bindings);
    *g = (struct rt_captured){0};
}

/* ---- the device --------------------------------------------------------------------------------
 */

static enum rt_status open_device(struct rt_runtime *rt, const struct rt_create_params *p,
                                  struct rt_error *err)
{
    char why_not[240];
    RT_TRY(rt_open_for(p->config, &rt->driver, rt->device_reason, sizeof(rt->device_reason),
                       why_not, sizeof(why_not), err));
    if (why_not[0])
        say(p, RT_LOG_WARNING, "kernels of our own multiply, for %s", why_not);
    const struct rt_device_caps *caps = &rt->driver.caps;
    const bool is_second = caps->kind == RT_DEVICE_KIND_HOST || caps->ordinal > 0;
    say(p, rt->device_reason[0] && is_second ? RT_LOG_WARNING : RT_LOG_INFO, "device %s%s%s",
        rt->driver.caps.name, rt->device_reason[0] ? ": " : "", rt->device_reason);
    return RT_OK;
}

static void say_attend(const struct rt_runtime *rt, const struct rt_create_params *p,
                       uint32_t query_len, const struct rt_variant *variants)
{
    const struct rt_variant *attend = rt_attend_variant(&rt->blueprint, variants);
    say(p, RT_LOG_INFO, "query length %u: %s, %u parts: %s", query_len, attend->entry,
        attend->parts, attend->reason);
}

static void say_choices(const struct rt_runtime *rt, const struct rt_create_params *p)
{
    const struct rt_config *c = &rt->blueprint.config;
    for (uint32_t i = 0; i < c->query_len_count; i++) {
        const uint32_t q = c->query_lens[i];
        say_attend(rt, p, q, rt->blueprint.variants[q]);
        for (uint32_t k = rt->blueprint.small_tiles[q].count; k-- > 0;)
            say_attend(rt, p, q, rt->blueprint.small_variants[q][k]);
    }
    const struct rt_placement *l = &rt->blueprint.placement;
    say(p, RT_LOG_INFO,
        "%" PRIu64 " pages of %u tokens in %u layers: pool %" PRIu64 " bytes, arena %" PRIu64,
        l->dims.pages, l->dims.page_size, l->dims.layers, l->pool_bytes, l->arena_bytes);
}

/* What a caller made for a GPU means nothing on the host device, which `auto` may have chosen. */
static enum rt_status check_given(const struct rt_runtime *rt, const struct rt_create_params *p,
                                  struct rt_error *err)
{
    const bool given = p->stream || p->arena_address || p->pool_address;
    RT_REQUIRE(rt->driver.caps.kind != RT_DEVICE_KIND_HOST || !given, err, RT_ERR_UNSUPPORTED,
               "the host device takes no stream (%p), arena (0x%" PRIx64 ") or pool (0x%" PRIx64
               ") of the caller%s%s",
               p->stream, p->arena_address, p->pool_address,
               rt->device_reason[0] ? "; it was chosen because " : "", rt->device_reason);
    return RT_OK;
}

/* Free memory, and what the caller has allocated of it for this runtime. */
static uint64_t memory_budget(uint64_t free_bytes, const struct rt_create_params *p)
{
    const uint64_t given[] = {p->arena_address ? p->arena_bytes : 0,
                              p->pool_address ? p->pool_bytes : 0};
    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++)
        free_bytes = given[i] < UINT64_MAX - free_bytes ? free_bytes + given[i] : UINT64_MAX;
    return free_bytes;
}

static enum rt_status take_weights(struct rt_runtime *rt, const struct rt_create_params *p,
                                   struct rt_error *err)
{
    RT_REQUIRE(p->config->layer || !p->weights, err, RT_ERR_INVALID,
               "rt_create: params->weights are given without layer: true, must go with it");
    if (!p->config->layer)
        return RT_OK;
    RT_TRY(rt_weights_take(p->weights, p->config, &rt->weights, err));
    return rt_weights_on_device(&rt->weights, &rt->driver, err);
}

static enum rt_status check_indexer(const struct rt_create_params *p, struct rt_error *err)
{
    RT_REQUIRE(!p->stages[RT_STAGE_INDEXER] || p->config->topk, err, RT_ERR_INVALID,
               "rt_create: stages[RT_STAGE_INDEXER] is given without attention.topk, whose lists "
               "it writes");
    return RT_OK;
}

/* Those of the configuration are checked with it. */
static enum rt_status take_scales(struct rt_runtime *rt, const struct rt_create_params *p,
                                  struct rt_error *err)
{
    const struct rt_config *c = p->config;
    for (uint32_t layer = 0; layer < c->geometry.layers; layer++)
        rt->kv_scales[layer] = c->kv_layout == RT_KV_FP8_TENSOR ? (float)c->kv_scale : 0;
    if (!p->kv_scales)
        return RT_OK;
    RT_REQUIRE(c->kv_layout == RT_KV_FP8_TENSOR, err, RT_ERR_INVALID,
               "rt_create: params->kv_scales are given with layout %s, must go with fp8_tensor",
               rt_kv_layout_name(c->kv_layout));
    for (uint32_t layer = 0; layer < c->geometry.layers; layer++)
        RT_REQUIRE(isfinite(p->kv_scales[layer]) && p->kv_scales[layer] >= FLT_MIN, err,
                   RT_ERR_INVALID,
                   "rt_create: params->kv_scales[%u] is %g, must be finite and above 0", layer,
                   (double)p->kv_scales[layer]);
    memcpy(rt->kv_scales, p->kv_scales, c->geometry.layers * sizeof(rt->kv_scales[0]));
    return RT_OK;
}

/* Between other devices, or as another rank, nothing that was measured is the same. */
static enum rt_status take_like(struct rt_runtime *rt, const rt_runtime *like, struct rt_error *err)
{
    if (!like)
        return RT_OK;
    const struct rt_device_caps *const mine = &rt->driver.caps, *const its = &like->driver.caps;
    RT_REQUIRE(its->kind == mine->kind && its->ordinal == mine->ordinal, err, RT_ERR_INVALID,
               "rt_create: params->like is on %s (%u), this runtime on %s (%u): must be one device",
               its->name, its->ordinal, mine->name, mine->ordinal);
    const uint32_t ranks[2] = {like->ranks ? like->ranks->comm.ranks : 1,
                               rt->ranks ? rt->ranks->comm.ranks : 1};
    const uint32_t rank[2] = {like->ranks ? like->ranks->comm.rank : 0,
                              rt->ranks ? rt->ranks->comm.rank : 0};
    RT_REQUIRE(ranks[0] == ranks[1] && rank[0] == rank[1], err, RT_ERR_INVALID,
               "rt_create: params->like is rank %u of %u, this runtime rank %u of %u: must be the "
               "same",
               rank[0], ranks[0], rank[1], ranks[1]);
    rt->sums.like = &like->sums;
    return rt_products_follow(&rt->products, &like->products, err);
}

/* With the device's context current. */
static enum rt_status build_runtime(struct rt_runtime *rt, const struct rt_create_params *p,
                                    struct rt_error *err)
{
    struct rt_driver *d = &rt->driver;
    uint64_t free_bytes, total_bytes;
    RT_TRY(check_given(rt, p, err));
    RT_TRY(check_indexer(p, err));
    RT_TRY(take_scales(rt, p, err));
    RT_TRY(take_weights(rt, p, err));
    RT_TRY(rt_stage_exchanges_take(p, &rt->exchanges, err));
    RT_TRY(rt_ranks_take(rt, p->ranks, err));
    rt->products.may_refuse = p->config->projections == RT_PROJECTIONS_AUTO;
    RT_TRY(take_like(rt, p->like, err));
    RT_TRY(RT_DRV(d, err, mem_info, (d, &free_bytes, &total_bytes)));
    RT_TRY(
        rt_blueprint_make(p->config, &d->caps, memory_budget(free_bytes, p), &rt->blueprint, err));
    RT_TRY(rt_ranks_share(rt, err));
    RT_TRY(rt_ranks_alike(rt, err));
    RT_TRY(rt_stage_exchanges_place(&rt->exchanges, &rt->blueprint,
                                    rt->ranks ? rt->ranks->comm.ranks : 1, p, d, err));
    say_choices(rt, p);
    say_foreign(p);
    if (p->stream) {
        rt->stream = p->stream;
    } else {
        RT_TRY(RT_DRV(d, err, stream_create, (d, &rt->stream)));
        rt->owns_stream = true;
    }
    const struct rt_arena_given given = {
        .arena = p->arena_address,
        .arena_bytes = p->arena_bytes,
        .pool = p->pool_address,
        .pool_bytes = p->pool_bytes,
    };
    RT_TRY(rt_arena_init(&rt->arena, d, &rt->blueprint.placement, &given, rt->stream, err));
    if (p->config->layer)
        RT_TRY(rt_block_tables_fill(p->config, &rt->arena, d, rt->stream, err));
    rt_ring_init(&rt->ring, &rt->arena);
    RT_TRY(rt_kernels_load(d, &rt->kernels, err));
    RT_TRY(alloc_host(rt, p, err));
    register_regions(rt, p);
    rt_ranks_register(rt);
    RT_TRY(rt_ranks_try(rt, err));
    RT_TRY(capture_all(rt, p, err));
    rt->products.like = NULL; /* it may be gone from here on */
    rt->sums.like = NULL;
    return rt_ranks_ready(rt, err);
}

enum rt_status rt_create(const struct rt_create_params *params, rt_runtime **out,
                         struct rt_error *error)
{
    RT_REQUIRE(out, error, RT_ERR_INVALID, "rt_create: out is null");
    *out = NULL;
    struct rt_create_params mine;
    struct rt_config config;
    RT_TAKE_STRUCT(params, mine, error);
    RT_TRY(check_params(params, error));
    RT_TRY(rt_config_take(params->config, &config, error));
    mine = *params;
    mine.config = &config;
    params = &mine;
    struct rt_runtime *rt = calloc(1, sizeof(*rt));
    RT_REQUIRE(rt, error, RT_ERR_NOMEM, "out of host memory for the runtime");
    enum rt_status status;
    RT_TRY_GOTO(open_device(rt, params, error));
    RT_TRY_GOTO(RT_DRV(&rt->driver, error, ctx_enter, (&rt->driver)));
    status = build_runtime(rt, params, error);
    if (status != RT_OK)
        rt_ranks_give_up(rt, status, error);
    struct rt_error leave_error = {0};
    enum rt_status left = RT_DRV(&rt->driver, &leave_error, ctx_leave, (&rt->driver));
    if (status == RT_OK && left != RT_OK) {
        status = left;
        if (error)
            *error = leave_error;
    }
    if (status != RT_OK)
        goto fail;
    rt->needs_tokens = params->flags & RT_CREATE_NEEDS_TOKENS;
    rt->stats.struct_size = sizeof(rt->stats);
    rt->stats.bucket_count = rt->captured_count;
    *out = rt;
    return RT_OK;
fail:
    rt_destroy(&rt);
    return status;
}

/* A failing release is not reported: there is nobody left to act on it, and the rest must go too.
 */
void rt_destroy(rt_runtime **runtime)
{
    if (!runtime || !*runtime)
        return;
    struct rt_runtime *rt = *runtime;
    struct rt_driver *d = &rt->driver;
    if (rt->in_stage) {
        (void)rt_refuse_in_stage(rt, __func__);
        return;
    }
    if (d->ctx_enter) {
        bool entered = d->ctx_enter(d) == 0; /* what was not entered is not ours to leave */
        rt_ranks_release(rt);
        if (rt->stream || rt->owns_stream)
            (void)d->stream_sync(d, rt->stream);
        free_captured(rt, &rt->control);
        for (uint32_t i = 0; rt->captured && i < rt->captured_count; i++)
            free_captured(rt, &rt->captured[i]);
        rt_products_free(&rt->products, d);
        rt_kernels_unload(&rt->kernels);
        rt_arena_free(&rt->arena);
        if (rt->owns_stream)
            (void)d->stream_destroy(d, rt->stream);
        if (entered)
            (void)d->ctx_leave(d);
        rt_driver_close(d);
    }
    rt_spec_index_free(&rt->spec_index);
    rt_pages_free(&rt->pages);
    rt_weights_free(&rt->weights);
    free(rt->regions);
    free(rt->captured);
    free(rt->flights);
    free(rt->ops);
    free(rt->table);
    free(rt->free_slots);
    free(rt->slot_rests);
    free(rt->slots);
    free(rt);
    *runtime = NULL;
}

enum rt_status rt_sizes(const struct rt_config *config, struct rt_sizes *out,
                        struct rt_error *error)
{
    struct rt_config whole;
    RT_CHECK_STRUCT(out, error);
    RT_TRY(rt_config_take(config, &whole, error));
    config = &whole;
    struct rt_driver d;
    char why[160], why_not[240];
    RT_TRY(rt_open_for(config, &d, why, sizeof(why), why_not, sizeof(why_not), error));
    struct rt_blueprint *blueprint = calloc(1, sizeof(*blueprint));
    uint64_t free_bytes, total_bytes;
    enum rt_status status;
    if (!blueprint) {
        status = rt_fail(error, RT_ERR_NOMEM, "out of host memory for a plan");
        goto fail;
    }
    RT_TRY_GOTO(RT_DRV(&d, error, ctx_enter, (&d)));
    status = RT_DRV(&d, error, mem_info, (&d, &free_bytes, &total_bytes));
    (void)d.ctx_leave(&d);
    if (status == RT_OK)
        status = rt_blueprint_make(config, &d.caps, free_bytes, blueprint, error);
    if (status == RT_OK) {
        const struct rt_placement *l = &blueprint->placement;
        const struct rt_sizes sizes = {.arena_bytes = l->arena_bytes,
                                       .pool_bytes = l->pool_bytes,
                                       .mapped_bytes = l->mapped_bytes,
                                       .pages = l->dims.pages};
        rt_struct_write(out, &sizes, sizeof(sizes));
    }
fail:
    free(blueprint);
    rt_driver_close(&d);
    return status;
}
