/* SPDX-License-Identifier: Apache-2.0 */
/* The plan: what create would do, from the same blueprint and the same stage list, with no device.
 */
#include "graphs/dump.h"
#include "runtime/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rt_plan {
    struct rt_blueprint blueprint;
    struct rt_info info;
    struct rt_program *programs; /* [info.graphs] */
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
    RT_TRY(
        rt_driver_open(config->device, &d, info->device_reason, sizeof(info->device_reason), err));
    enum rt_status status = RT_DRV(&d, err, ctx_enter, (&d));
    if (status == RT_OK) {
        status = RT_DRV(&d, err, mem_info, (&d, free_bytes, &total));
        (void)d.ctx_leave(&d);
    }
    *caps = d.caps;
    rt_driver_close(&d);
    return status;
}

static void fill_info(struct rt_plan *plan)
{
    const struct rt_layout *l = &plan->blueprint.layout;
    struct rt_info *info = &plan->info;
    info->struct_size = sizeof(*info);
    info->host = plan->blueprint.caps.kind == RT_DEVICE_KIND_HOST;
    snprintf(info->device, sizeof(info->device), "%s", plan->blueprint.caps.name);
    info->sm_count = plan->blueprint.caps.sm_count;
    info->graphs = plan->blueprint.config.batch_size_count * plan->blueprint.config.query_len_count;
    info->pages = l->shape.pages;
    info->arena_bytes = l->arena_bytes;
    info->pool_bytes = l->pool_bytes;
    info->mapped_bytes = l->mapped_bytes;
}

static enum rt_status build_programs(struct rt_plan *plan, struct rt_error *err)
{
    const struct rt_arena arena = {.layout = &plan->blueprint.layout};
    const struct rt_kernels kernels = {.cc = plan->blueprint.caps.cc};
    const rt_stage_fn no_stages[RT_STAGE_POINT_COUNT] = {0};
    const struct rt_stage_source source = {
        .blueprint = &plan->blueprint, .arena = &arena, .kernels = &kernels, .stages = no_stages};
    plan->programs = calloc(plan->info.graphs, sizeof(*plan->programs));
    RT_REQUIRE(plan->programs, err, RT_ERR_NOMEM, "out of host memory for %u graphs",
               plan->info.graphs);
    uint32_t query_lens = plan->blueprint.config.query_len_count;
    for (uint32_t i = 0; i < plan->info.graphs; i++)
        RT_TRY(rt_stages_step(&source, plan->blueprint.config.batch_sizes[i / query_lens],
                              i % query_lens, NULL, &plan->programs[i], err));
    return RT_OK;
}

enum rt_status rt_plan_create(const struct rt_config *config, const char *assume, rt_plan **out,
                              struct rt_error *error)
{
    RT_REQUIRE(out, error, RT_ERR_INVALID, "rt_plan_create: out is null");
    *out = NULL;
    RT_TRY(rt_config_check(config, error));
    struct rt_plan *plan = calloc(1, sizeof(*plan));
    RT_REQUIRE(plan, error, RT_ERR_NOMEM, "out of host memory for a plan");
    struct rt_device_caps caps;
    uint64_t free_bytes = 0;
    enum rt_status status;
    RT_TRY_GOTO(look_at_device(config, assume, &caps, &free_bytes, &plan->info, error));
    RT_TRY_GOTO(rt_blueprint_make(config, &caps, free_bytes, &plan->blueprint, error));
    fill_info(plan);
    RT_TRY_GOTO(build_programs(plan, error));
    *out = plan;
    return RT_OK;
fail:
    rt_plan_destroy(&plan);
    return status;
}

void rt_plan_destroy(rt_plan **plan)
{
    if (!plan || !*plan)
        return;
    for (uint32_t i = 0; (*plan)->programs && i < (*plan)->info.graphs; i++)
        rt_program_free(&(*plan)->programs[i]);
    free((*plan)->programs);
    free(*plan);
    *plan = NULL;
}

const struct rt_info *rt_plan_info(const rt_plan *plan)
{
    return plan ? &plan->info : NULL;
}

uint32_t rt_plan_buffer_count(const rt_plan *plan)
{
    return plan ? RT_BUF_COUNT : 0;
}

enum rt_status rt_plan_buffer(const rt_plan *plan, uint32_t index, struct rt_plan_buffer *out)
{
    RT_REQUIRE(plan && index < RT_BUF_COUNT, NULL, RT_ERR_INVALID, "no such buffer");
    RT_REQUIRE_STRUCT(out, NULL);
    const struct rt_buffer *b = &plan->blueprint.layout.buffers[index];
    out->region = b->region;
    out->name = b->name;
    out->dtype = b->dtype;
    out->rank = b->rank;
    memcpy(out->shape, b->shape, sizeof(out->shape));
    out->offset = b->offset;
    out->bytes = b->bytes;
    return RT_OK;
}

uint32_t rt_plan_graph_count(const rt_plan *plan)
{
    return plan ? plan->info.graphs : 0;
}

enum rt_status rt_plan_graph(const rt_plan *plan, uint32_t index, struct rt_plan_graph *out)
{
    RT_REQUIRE(plan && index < plan->info.graphs, NULL, RT_ERR_INVALID, "no such graph");
    RT_REQUIRE_STRUCT(out, NULL);
    const struct rt_attend_choice *choice =
        &plan->blueprint.choices[index % plan->blueprint.config.query_len_count];
    out->batch = plan->programs[index].batch;
    out->query_len = plan->programs[index].query_len;
    out->stages = plan->programs[index].count;
    out->backend = rt_backend_name(choice->backend);
    out->attend = choice->entry;
    out->reason = choice->reason;
    out->parts = choice->parts;
    return RT_OK;
}

enum rt_status rt_plan_stage(const rt_plan *plan, uint32_t graph, uint32_t stage,
                             struct rt_plan_stage *out)
{
    RT_REQUIRE(plan && graph < plan->info.graphs && stage < plan->programs[graph].count, NULL,
               RT_ERR_INVALID, "no such stage");
    RT_REQUIRE_STRUCT(out, NULL);
    const struct rt_program *p = &plan->programs[graph];
    const struct rt_stage *s = &p->stages[stage];
    out->layer = s->layer == RT_NO_LAYER ? 0 : s->layer;
    out->label = s->label;
    out->entry = s->launch->entry;
    memcpy(out->grid, s->launch->grid, sizeof(out->grid));
    memcpy(out->block, s->launch->block, sizeof(out->block));
    out->smem_bytes = s->launch->smem_bytes;
    out->programmatic = rt_program_edge_programmatic(p, stage);
    return RT_OK;
}

enum rt_status rt_plan_dot(const rt_plan *plan, uint32_t graph, char *text, size_t capacity,
                           size_t *needed)
{
    RT_REQUIRE(plan && graph < plan->info.graphs && needed && (text || !capacity), NULL,
               RT_ERR_INVALID, "no such graph, or an argument is null");
    *needed = rt_program_dot(&plan->programs[graph], text, capacity);
    return RT_OK;
}
