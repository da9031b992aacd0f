/* SPDX-License-Identifier: Apache-2.0 */
/* The plan: what create would do, from the same blueprint and the same stage list, with no device.
 */
#include "graphs/dump.h"
#include "kernels/counted_view.h"
#include "runtime/open.h"
#include "runtime/ranks_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rt_plan {
    struct rt_blueprint blueprint;
    struct rt_info info;
    struct rt_weights weights;   /* of blocks: none are bound, but shaped */
    struct rt_program *programs; /* [info.graphs] */
    struct rt_comm comm;         /* of ranks that nobody meets; `ranks` 0: it is of one alone */
    struct rt_stage_exchanges exchanges;
    rt_stage_fn stages[RT_STAGE_POINT_COUNT]; /* in front of exchanges; called by nobody */
    struct rt_stage_binding *bindings;        /* of these, every graph's */
    struct rt_error *error; /* &last_error: a plan that is only asked stays const */
    struct rt_error last_error;
};

/* Capabilities and free memory of the configured device, or of the assumed one when it is empty. */
static enum rt_status look_at_device(const struct rt_config *config, const char *assume,
                                     struct rt_device_caps *caps, uint64_t *free_bytes,
                                     struct rt_info *info, struct rt_error *err)
{
    if (assume) {
        RT_TRY(rt_device_caps_assume(assume, caps, err));
        *free_bytes = caps->memory_bytes;
        snprintf(info->device_reason, sizeof(info->device_reason), "assumed");
        return RT_OK;
    }
    struct rt_driver d;
    uint64_t total;
    char why_not[240];
    RT_TRY(rt_open_for(config, &d, info->device_reason, sizeof(info->device_reason), why_not,
                       sizeof(why_not), err));
    enum rt_status status = RT_DRV(&d, err, ctx_enter, (&d));
    if (status == RT_OK) {
        status = RT_DRV(&d, err, mem_info, (&d, free_bytes, &total));
        (void)d.ctx_leave(&d);
    }
    *caps = d.caps;
    rt_driver_close(&d);
    return status;
}

static enum rt_status build_programs(struct rt_plan *plan, struct rt_error *err)
{
    const struct rt_arena arena = {.placement = &plan->blueprint.placement};
    const struct rt_kernels kernels = {.cc = plan->blueprint.caps.cc};
    const struct rt_recipe_source source = {.blueprint = &plan->blueprint,
                                            .arena = &arena,
                                            .kernels = &kernels,
                                            .stages = plan->stages,
                                            .weights = &plan->weights,
                                            .comm = plan->comm.ranks ? &plan->comm : NULL,
                                            .exchanges = &plan->exchanges};
    const uint32_t bindings = rt_recipe_binding_count(&source);
    if (plan->blueprint.config.layer)
        RT_TRY(rt_weights_assume(&plan->blueprint.config, &plan->weights, err));
    plan->programs = calloc(plan->info.graphs, sizeof(*plan->programs));
    RT_REQUIRE(plan->programs, err, RT_ERR_NOMEM, "out of host memory for %u graphs",
               plan->info.graphs);
    plan->bindings = calloc((size_t)plan->info.graphs * bindings, sizeof(*plan->bindings));
    RT_REQUIRE(plan->bindings, err, RT_ERR_NOMEM, "out of host memory for %u graphs' stages",
               plan->info.graphs);
    for (uint32_t i = 0; i < plan->info.graphs; i++)
        RT_TRY(rt_recipe_make(&source, &plan->blueprint.specs[i],
                              plan->bindings + (size_t)i * bindings, &plan->programs[i], err));
    return RT_OK;
}

static int never_called(void *user, const struct rt_stage_context *context)
{
    (void)user;
    (void)context;
    return -1;
}

/* A stage in front of every exchange, as rt_create wants one. */
static enum rt_status take_ranks(const struct rt_plan_ranks *ranks, struct rt_config *config,
                                 struct rt_plan *plan, struct rt_error *err)
{
    struct rt_create_params p = {
        .config = config, .exchanges = ranks->exchanges, .exchange_count = ranks->exchange_count};
    RT_REQUIRE(ranks->ranks >= 1 && ranks->ranks <= RT_MAX_RANKS, err, RT_ERR_INVALID,
               "rt_plan_create_ranks: %u ranks, must be 1 to %d", ranks->ranks, RT_MAX_RANKS);
    for (uint32_t i = 0; ranks->exchanges && i < ranks->exchange_count; i++)
        if ((uint32_t)ranks->exchanges[i].point < RT_STAGE_POINT_COUNT)
            plan->stages[ranks->exchanges[i].point] = never_called;
    memcpy(p.stages, plan->stages, sizeof(p.stages));
    RT_TRY(rt_ranks_cut_heads(ranks->ranks, config, err));
    plan->comm.ranks = ranks->ranks;
    return rt_stage_exchanges_take(&p, &plan->exchanges, err);
}

/* `ranks` may be null: of one alone. */
static enum rt_status make_plan(const struct rt_config *config, const struct rt_plan_ranks *ranks,
                                const char *assume, struct rt_plan *plan, struct rt_error *err)
{
    struct rt_config whole;
    struct rt_device_caps caps;
    uint64_t free_bytes = 0;
    RT_TRY(rt_config_take(config, &whole, err));
    plan->error = &plan->last_error;
    if (ranks)
        RT_TRY(take_ranks(ranks, &whole, plan, err));
    RT_TRY(look_at_device(&whole, assume, &caps, &free_bytes, &plan->info, err));
    RT_TRY(rt_blueprint_make(&whole, &caps, free_bytes, &plan->blueprint, err));
    plan->info.struct_size = sizeof(plan->info);
    rt_blueprint_info(&plan->blueprint, &plan->info);
    return build_programs(plan, err);
}

static enum rt_status create_plan(const struct rt_config *config, const struct rt_plan_ranks *ranks,
                                  const char *assume, rt_plan **out, struct rt_error *err)
{
    struct rt_plan *plan = calloc(1, sizeof(*plan));
    RT_REQUIRE(plan, err, RT_ERR_NOMEM, "out of host memory for a plan");
    const enum rt_status status = make_plan(config, ranks, assume, plan, err);
    if (status == RT_OK)
        *out = plan;
    else
        rt_plan_destroy(&plan);
    return status;
}

enum rt_status rt_plan_create(const struct rt_config *config, const char *assume, rt_plan **out,
                              struct rt_error *error)
{
    RT_REQUIRE(out, error, RT_ERR_INVALID, "rt_plan_create: out is null");
    *out = NULL;
    return create_plan(config, NULL, assume, out, error);
}

enum rt_status rt_plan_create_ranks(const struct rt_config *config,
                                    const struct rt_plan_ranks *ranks, const char *assume,
                                    rt_plan **out, struct rt_error *error)
{
    struct rt_plan_ranks mine;
    RT_REQUIRE(out, error, RT_ERR_INVALID, "rt_plan_create_ranks: out is null");
    *out = NULL;
    RT_TAKE_STRUCT(ranks, mine, error);
    RT_REQUIRE(ranks->reserved == 0, error, RT_ERR_INVALID,
               "rt_plan_create_ranks: reserved is %u, must be 0", ranks->reserved);
    return create_plan(config, ranks, assume, out, error);
}

void rt_plan_destroy(rt_plan **plan)
{
    if (!plan || !*plan)
        return;
    for (uint32_t i = 0; (*plan)->programs && i < (*plan)->info.graphs; i++)
        rt_program_free(&(*plan)->programs[i]);
    free((*plan)->programs);
    free((*plan)->bindings);
    rt_weights_free(&(*plan)->weights);
    free(*plan);
    *plan = NULL;
}

const struct rt_error *rt_plan_last_error(const rt_plan *plan)
{
    static const struct rt_error none = {.status = RT_ERR_INVALID, .message = "plan is null"};
    return plan ? plan->error : &none;
}

const struct rt_info *rt_plan_info(const rt_plan *plan)
{
    return plan ? &plan->info : NULL;
}

/* The index-th tensor that this configuration has; RT_TENSOR_COUNT: there are fewer. */
static uint32_t tensor_at(const rt_plan *plan, uint32_t index)
{
    uint32_t id = 0;
    for (; id < RT_TENSOR_COUNT; id++)
        if (plan->blueprint.placement.tensors[id].bytes > 0 && index-- == 0)
            break;
    return id;
}

uint32_t rt_plan_buffer_count(const rt_plan *plan)
{
    uint32_t count = 0;
    while (plan && tensor_at(plan, count) < RT_TENSOR_COUNT)
        count++;
    return count;
}

enum rt_status rt_plan_buffer(const rt_plan *plan, uint32_t index, struct rt_plan_buffer *out)
{
    RT_REQUIRE(plan, NULL, RT_ERR_INVALID, "rt_plan_buffer: plan is null");
    const uint32_t id = tensor_at(plan, index);
    RT_REQUIRE(id < RT_TENSOR_COUNT, plan->error, RT_ERR_INVALID, "rt_plan_buffer: buffer %u of %u",
               index, rt_plan_buffer_count(plan));
    RT_CHECK_STRUCT(out, plan->error);
    const struct rt_placed *t = &plan->blueprint.placement.tensors[id];
    struct rt_plan_buffer mine = {.region = t->region,
                                  .name = t->name,
                                  .dtype = t->dtype,
                                  .rank = t->rank,
                                  .offset = t->offset,
                                  .bytes = t->bytes};
    memcpy(mine.shape, t->shape, sizeof(mine.shape));
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

uint32_t rt_plan_graph_count(const rt_plan *plan)
{
    return plan ? plan->info.graphs : 0;
}

static enum rt_status check_graph(const rt_plan *plan, uint32_t index, const char *who)
{
    RT_REQUIRE(plan, NULL, RT_ERR_INVALID, "%s: plan is null", who);
    RT_REQUIRE(index < plan->info.graphs, plan->error, RT_ERR_INVALID, "%s: graph %u of %u", who,
               index, plan->info.graphs);
    return RT_OK;
}

static const char *attend_entry(const struct rt_blueprint *b, const struct rt_graph_spec *spec,
                                const struct rt_variant *attend)
{
    const uint32_t rows = rt_blueprint_attend_rows(b, spec), topk = b->config.topk;
    return topk ? rt_sparse_attend_entry(attend, rows, topk) : rt_attend_entry(attend, rows);
}

enum rt_status rt_plan_graph(const rt_plan *plan, uint32_t index, struct rt_plan_graph *out)
{
    RT_TRY(check_graph(plan, index, __func__));
    RT_CHECK_STRUCT(out, plan->error);
    const struct rt_program *p = &plan->programs[index];
    const struct rt_blueprint *b = &plan->blueprint;
    const bool is_chunk = rt_spec_is_chunk(&p->spec);
    const struct rt_variant *attend = rt_attend_variant(
        b, is_chunk ? rt_blueprint_beside(b, &p->spec) : rt_blueprint_variants(b, &p->spec));
    const struct rt_plan_graph mine = {.batch = p->spec.rows,
                                       .query_len = rt_spec_query_len(&p->spec),
                                       .stages = p->count,
                                       .backend = rt_backend_name(attend->backend),
                                       .attend = attend_entry(b, &p->spec, attend),
                                       .reason = attend->reason,
                                       .parts = attend->parts,
                                       .chunk = rt_spec_chunk(&p->spec),
                                       .decode_rows = is_chunk ? p->spec.decode_rows : 0,
                                       .context_tokens = rt_blueprint_context(b, &p->spec),
                                       .form =
                                           is_chunk ? rt_blueprint_reason(b, &p->spec) : p->form,
                                       .most_blocks = p->spec.most_blocks};
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

enum rt_status rt_plan_stage(const rt_plan *plan, uint32_t graph, uint32_t stage,
                             struct rt_plan_stage *out)
{
    RT_TRY(check_graph(plan, graph, __func__));
    RT_CHECK_STRUCT(out, plan->error);
    const struct rt_program *p = &plan->programs[graph];
    RT_REQUIRE(stage < p->count, plan->error, RT_ERR_INVALID, "rt_plan_stage: stage %u of %u",
               stage, p->count);
    const struct rt_stage *s = &p->stages[stage];
    struct rt_plan_stage mine = {.layer = s->layer == RT_NO_LAYER ? 0 : s->layer,
                                 .label = s->label,
                                 .entry = rt_work_name(s->work),
                                 .programmatic = rt_program_edge_programmatic(p, stage),
                                 .reason = s->reason,
                                 .branch = s->branch};
    if (s->work->kind == RT_WORK_LAUNCH) {
        const struct rt_launch *l = &s->work->launch;
        memcpy(mine.grid, l->grid, sizeof(mine.grid));
        memcpy(mine.block, l->block, sizeof(mine.block));
        mine.smem_bytes = l->smem_bytes;
    } else if (s->work->kind == RT_WORK_COLLECTIVE) {
        mine.exchange_bytes = s->work->collective.count * rt_dtype_bytes(s->work->collective.dtype);
    }
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

enum rt_status rt_plan_dot(const rt_plan *plan, uint32_t graph, char *text, size_t capacity,
                           size_t *needed)
{
    RT_TRY(check_graph(plan, graph, __func__));
    RT_REQUIRE(needed, plan->error, RT_ERR_INVALID, "rt_plan_dot: needed is null");
    RT_REQUIRE(text || !capacity, plan->error, RT_ERR_INVALID, "rt_plan_dot: text is null");
    *needed = rt_program_dot(&plan->programs[graph], text, capacity);
    return RT_OK;
}
