/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/recipe.h"

#include "kernels/abi/append.h"
#include "kernels/abi/attend.h"
#include "kernels/abi/reduce.h"
#include "kernels/abi/step.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct recipe {
    const struct rt_recipe_source *s;
    const struct rt_graph_spec *spec;
    const struct rt_variant *variants; /* [RT_OP_COUNT] */
    uint32_t query_len;
    struct rt_stage_binding *bindings;
    uint32_t bindings_used;
    struct rt_program *p;
    struct rt_error *err;
};

static enum rt_status add_work(struct recipe *b, const char *name, uint32_t layer,
                               const struct rt_work *work)
{
    char label[RT_LABEL_BYTES];
    if (layer == RT_NO_LAYER)
        snprintf(label, sizeof(label), "%s", name);
    else
        snprintf(label, sizeof(label), "%s.%u", name, layer);
    return rt_program_add(b->p, label, layer, work, b->err);
}

/* One call of an operator: `params` is its struct of kernels/abi. */
static enum rt_status add_op(struct recipe *b, enum rt_op_id op, uint32_t layer, const void *params,
                             size_t param_bytes)
{
    struct rt_work work;
    RT_TRY(rt_op_build(b->s->kernels, &b->variants[op], params, param_bytes, &work, b->err));
    return add_work(b, rt_op_name(op), layer, &work);
}

/* ---- views of the arena and the pool --------------------------------------------------------- */

static void *at(const struct recipe *b, enum rt_tensor_id id, uint32_t layer)
{
    return (void *)(uintptr_t)rt_arena_addr(b->s->arena, id, layer);
}

/* A stamp's address, by number: a plan's arena starts at 0, where no member may be named. */
static uint64_t *ctrl_stamp(const struct recipe *b, size_t offset)
{
    return (uint64_t *)(uintptr_t)(rt_arena_addr(b->s->arena, RT_TENSOR_CTRL, 0) + offset);
}

static struct rt_rows_view rows_view(const struct recipe *b)
{
    return (struct rt_rows_view){
        .slot = at(b, RT_TENSOR_ROW_SLOT, 0),
        .position = at(b, RT_TENSOR_ROW_POSITION, 0),
        .length = at(b, RT_TENSOR_ROW_LENGTH, 0),
        .ctrl = at(b, RT_TENSOR_CTRL, 0),
        .count = b->spec->rows,
        .q_len = b->query_len,
    };
}

static struct rt_kv_view kv_view(const struct recipe *b, uint32_t layer)
{
    const struct rt_placement *l = &b->s->blueprint->placement;
    return (struct rt_kv_view){
        .base = at(b, RT_TENSOR_KV, layer),
        .table = at(b, RT_TENSOR_BLOCK_TABLE, 0),
        .page_stride_bytes = (int64_t)rt_kv_page_bytes(&l->dims.kv, l->dims.page_size),
        .token_stride_bytes = l->dims.kv.token_bytes,
        .page_size = l->dims.page_size,
        .max_blocks = l->max_blocks,
        .pages = (uint32_t)l->dims.pages,
        .token_bytes = l->dims.kv.token_bytes,
    };
}

/* Packed for the step's query length: [rows, q_len, width]. */
static struct rt_tokens_view tokens_view(const struct recipe *b, enum rt_tensor_id id,
                                         uint32_t layer, uint32_t width)
{
    return (struct rt_tokens_view){
        .base = at(b, id, layer),
        .row_stride = (int64_t)b->query_len * width,
        .token_stride = width,
    };
}

/* Likewise: [rows, q_len, heads, width]. */
static struct rt_heads_view heads_view(const struct recipe *b, enum rt_tensor_id id, uint32_t layer,
                                       uint32_t width)
{
    const int64_t heads = b->s->blueprint->placement.dims.heads;
    return (struct rt_heads_view){
        .base = at(b, id, layer),
        .row_stride = b->query_len * heads * width,
        .token_stride = heads * width,
        .head_stride = width,
    };
}

static struct rt_schedule_view schedule_view(const struct recipe *b)
{
    return (struct rt_schedule_view){
        .parts = at(b, RT_TENSOR_PARTS, 0),
        .num_splits = at(b, RT_TENSOR_NUM_SPLITS, 0),
        .part_count = b->variants[RT_OP_ATTEND].parts,
    };
}

static struct rt_partials_view partials_view(const struct recipe *b)
{
    return (struct rt_partials_view){
        .out = at(b, RT_TENSOR_PARTIAL_OUT, 0),
        .lse = at(b, RT_TENSOR_PARTIAL_LSE, 0),
    };
}

/* ---- the caller's stages ------------------------------------------------------------------- */

static const char *const point_names[RT_STAGE_POINT_COUNT] = {
    [RT_STAGE_STEP_BEGIN] = "user_step_begin",
    [RT_STAGE_BEFORE_ATTENTION] = "user_before_attention",
    [RT_STAGE_AFTER_ATTENTION] = "user_after_attention",
    [RT_STAGE_STEP_END] = "user_step_end",
};

const char *rt_stage_point_name(enum rt_stage_point point)
{
    return point_names[point] + strlen("user_");
}

static int run_binding(void *user, rt_dstream stream)
{
    const struct rt_stage_binding *binding = user;
    struct rt_stage_context context = binding->context;
    context.stream = stream;
    *binding->running = &context;
    const int result = binding->fn(binding->user, &context);
    *binding->running = NULL;
    return result;
}

/* What the audit may expect of the stage. */
static enum rt_stage_trust trust_of(const struct rt_recipe_source *s, enum rt_stage_point point)
{
    if (!(s->foreign >> point & 1))
        return RT_STAGE_AUDITED;
    return s->host_nodes >> point & 1 ? RT_STAGE_FOREIGN_HOST : RT_STAGE_FOREIGN;
}

static enum rt_status add_user_stage(struct recipe *b, enum rt_stage_point point, uint32_t layer)
{
    if (!b->s->stages[point])
        return RT_OK;
    struct rt_stage_binding *binding = &b->bindings[b->bindings_used++];
    *binding = (struct rt_stage_binding){
        .fn = b->s->stages[point],
        .user = b->s->stage_user,
        .context = {.struct_size = sizeof(struct rt_stage_context),
                    .point = point,
                    .layer = layer == RT_NO_LAYER ? 0 : layer,
                    .batch = b->spec->rows,
                    .query_len = b->query_len,
                    .host = b->s->blueprint->caps.kind == RT_DEVICE_KIND_HOST,
                    .runtime = b->s->runtime},
        .running = b->s->running,
    };
    const struct rt_work work = {.kind = RT_WORK_CALL,
                                 .call = {.fn = run_binding, .user = binding}};
    RT_TRY(add_work(b, point_names[point], layer, &work));
    b->p->stages[b->p->count - 1].trust = trust_of(b->s, point);
    return RT_OK;
}

uint32_t rt_recipe_binding_count(const struct rt_recipe_source *s)
{
    return 2 * s->blueprint->config.geometry.layers + 2;
}

/* ---- ours ------------------------------------------------------------------------------------ */

static enum rt_status add_step_begin(struct recipe *b)
{
    const struct rt_placement *l = &b->s->blueprint->placement;
    struct rt_step_begin_params p = {
        .ring = at(b, RT_TENSOR_RECORDS, 0),
        .ctrl = at(b, RT_TENSOR_CTRL, 0),
        .slot_length = at(b, RT_TENSOR_SLOT_LENGTH, 0),
        .slot_token = at(b, RT_TENSOR_SLOT_TOKEN, 0),
        .block_table = at(b, RT_TENSOR_BLOCK_TABLE, 0),
        .row_slot = at(b, RT_TENSOR_ROW_SLOT, 0),
        .row_position = at(b, RT_TENSOR_ROW_POSITION, 0),
        .row_length = at(b, RT_TENSOR_ROW_LENGTH, 0),
        .row_accept = at(b, RT_TENSOR_ROW_ACCEPT, 0),
        .tokens = at(b, RT_TENSOR_TOKENS, 0),
        .accepted = at(b, RT_TENSOR_ACCEPTED, 0),
        .sampled = at(b, RT_TENSOR_SAMPLED, 0),
        .copies = at(b, RT_TENSOR_PAGE_COPIES, 0),
        .ring_depth = l->dims.ring_depth,
        .record_bytes = l->record.record_bytes,
        .rows_offset = l->record.rows_offset,
        .tokens_offset = l->record.tokens_offset,
        .ops_offset = l->record.ops_offset,
        .bucket = b->spec->rows,
        .query_len = b->query_len,
        .slots = l->dims.slots,
        .max_blocks = l->max_blocks,
        .pages = (uint32_t)l->dims.pages,
        .page_size = l->dims.page_size,
        .max_length = l->dims.max_length,
        .max_rows = l->dims.rows,
    };
    return add_op(b, RT_OP_STEP_BEGIN, RT_NO_LAYER, &p, sizeof(p));
}

static enum rt_status add_step_end(struct recipe *b)
{
    const struct rt_placement *l = &b->s->blueprint->placement;
    struct rt_step_end_params p = {
        .ctrl = at(b, RT_TENSOR_CTRL, 0),
        .slot_length = at(b, RT_TENSOR_SLOT_LENGTH, 0),
        .slot_token = at(b, RT_TENSOR_SLOT_TOKEN, 0),
        .row_slot = at(b, RT_TENSOR_ROW_SLOT, 0),
        .row_position = at(b, RT_TENSOR_ROW_POSITION, 0),
        .row_accept = at(b, RT_TENSOR_ROW_ACCEPT, 0),
        .tokens = at(b, RT_TENSOR_TOKENS, 0),
        .accepted = at(b, RT_TENSOR_ACCEPTED, 0),
        .sampled = at(b, RT_TENSOR_SAMPLED, 0),
        .completions = at(b, RT_TENSOR_COMPLETIONS, 0),
        .completed = at(b, RT_TENSOR_COMPLETED, 0),
        .ring_depth = l->dims.ring_depth,
        .completion_bytes = l->record.completion_bytes,
        .bucket = b->spec->rows,
        .query_len = b->query_len,
    };
    return add_op(b, RT_OP_STEP_END, RT_NO_LAYER, &p, sizeof(p));
}

static enum rt_status add_page_copy(struct recipe *b)
{
    const struct rt_placement *l = &b->s->blueprint->placement;
    const struct rt_page_copy_params p = {
        .ctrl = at(b, RT_TENSOR_CTRL, 0),
        .copies = at(b, RT_TENSOR_PAGE_COPIES, 0),
        .kv = kv_view(b, 0),
        .layer_stride_bytes = (int64_t)l->tensors[RT_TENSOR_KV].layer_stride,
        .layers = l->dims.layers,
    };
    return add_op(b, RT_OP_PAGE_COPY, RT_NO_LAYER, &p, sizeof(p));
}

static struct rt_append_params append_params(const struct recipe *b, uint32_t layer)
{
    const uint32_t d_qk = b->s->blueprint->placement.dims.kv.d_qk;
    return (struct rt_append_params){
        .latent = tokens_view(b, RT_TENSOR_LATENT, layer, d_qk),
        .kv = kv_view(b, layer),
        .rows = rows_view(b),
    };
}

/* The first layer's append shares a node with the schedule: attention waits for both anyway. */
static enum rt_status add_schedule_append(struct recipe *b)
{
    const struct rt_variant *attend = &b->variants[RT_OP_ATTEND];
    const struct rt_schedule_append_params p = {
        .schedule = {.rows = rows_view(b),
                     .schedule = schedule_view(b),
                     .overhead_blocks = attend->overhead_blocks,
                     .min_blocks = attend->min_blocks},
        .append = append_params(b, 0),
    };
    return add_op(b, RT_OP_SCHEDULE_APPEND, 0, &p, sizeof(p));
}

static enum rt_status add_append(struct recipe *b, uint32_t layer)
{
    const struct rt_append_params p = append_params(b, layer);
    return add_op(b, RT_OP_APPEND, layer, &p, sizeof(p));
}

static enum rt_status add_attend(struct recipe *b, uint32_t layer)
{
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    const struct rt_attend_params p = {
        .q = heads_view(b, RT_TENSOR_Q, layer, dims->kv.d_qk),
        .out = heads_view(b, RT_TENSOR_OUT, layer, dims->kv.d_v),
        .lse = heads_view(b, RT_TENSOR_LSE, layer, 1),
        .kv = kv_view(b, layer),
        .rows = rows_view(b),
        .schedule = schedule_view(b),
        .partials = partials_view(b),
        .stamp_first = layer == 0 ? ctrl_stamp(b, offsetof(struct rt_ctrl, t_attend_first)) : NULL,
        .scale = (float)b->s->blueprint->config.geometry.softmax_scale,
        .heads = dims->heads,
        .d_qk = dims->kv.d_qk,
        .d_v = dims->kv.d_v,
        .causal = 1,
        /* The first layer's schedule is written by the launch in front of it. */
        .early = layer > 0,
    };
    return add_op(b, RT_OP_ATTEND, layer, &p, sizeof(p));
}

static enum rt_status add_reduce(struct recipe *b, uint32_t layer)
{
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    const bool last = layer + 1 == dims->layers;
    const struct rt_reduce_params p = {
        .partials = partials_view(b),
        .schedule = schedule_view(b),
        .rows = rows_view(b),
        .out = heads_view(b, RT_TENSOR_OUT, layer, dims->kv.d_v),
        .lse = heads_view(b, RT_TENSOR_LSE, layer, 1),
        .stamp_last = last ? ctrl_stamp(b, offsetof(struct rt_ctrl, t_attend_last)) : NULL,
        .heads = dims->heads,
        .d_v = dims->kv.d_v,
    };
    return add_op(b, RT_OP_REDUCE, layer, &p, sizeof(p));
}

static enum rt_status add_layers(struct recipe *b)
{
    RT_TRY(add_user_stage(b, RT_STAGE_STEP_BEGIN, RT_NO_LAYER));
    for (uint32_t layer = 0; layer < b->s->blueprint->config.geometry.layers; layer++) {
        RT_TRY(add_user_stage(b, RT_STAGE_BEFORE_ATTENTION, layer));
        RT_TRY(layer ? add_append(b, layer) : add_schedule_append(b));
        RT_TRY(add_attend(b, layer));
        RT_TRY(add_reduce(b, layer));
        RT_TRY(add_user_stage(b, RT_STAGE_AFTER_ATTENTION, layer));
    }
    return add_user_stage(b, RT_STAGE_STEP_END, RT_NO_LAYER);
}

enum rt_status rt_recipe_make(const struct rt_recipe_source *s, const struct rt_graph_spec *spec,
                              struct rt_stage_binding *bindings, struct rt_program *p,
                              struct rt_error *err)
{
    struct recipe b = {
        .s = s,
        .spec = spec,
        .variants = rt_blueprint_variants(s->blueprint, spec),
        .query_len = rt_spec_query_len(spec),
        .bindings = bindings,
        .p = p,
        .err = err,
    };
    p->spec = *spec;
    RT_TRY(add_step_begin(&b));
    RT_TRY(spec->phase == RT_PHASE_CONTROL ? add_page_copy(&b) : add_layers(&b));
    return add_step_end(&b);
}
