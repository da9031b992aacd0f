/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/recipe.h"

#include "kernels/abi/append.h"
#include "kernels/abi/attend.h"
#include "kernels/abi/reduce.h"
#include "kernels/abi/step.h"
#include "kernels/quant_view.h"
#include "runtime/recipe_parts.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum rt_status rt_recipe_add(struct recipe *b, const char *name, uint32_t layer,
                             const struct rt_work *work)
{
    char label[RT_LABEL_BYTES];
    if (layer == RT_NO_LAYER)
        snprintf(label, sizeof(label), "%s", name);
    else
        snprintf(label, sizeof(label), "%s.%u", name, layer);
    return rt_program_add(b->p, label, layer, work, b->err);
}

enum rt_status rt_recipe_add_op(struct recipe *b, enum rt_op_id op, uint32_t layer,
                                const void *params, size_t param_bytes)
{
    struct rt_work work;
    RT_TRY(rt_op_build(b->s->kernels, &b->variants[op], params, param_bytes, &work, b->err));
    return rt_recipe_add(b, rt_op_name(op), layer, &work);
}

/* ---- views of the arena and the pool --------------------------------------------------------- */

/* A stamp's address, by number: a plan's arena starts at 0, where no member may be named. */
static uint64_t *ctrl_stamp(const struct recipe *b, size_t offset)
{
    return (uint64_t *)(uintptr_t)(rt_arena_addr(b->s->arena, RT_TENSOR_CTRL, 0) + offset);
}

void *rt_recipe_at_span(const struct recipe *b, enum rt_tensor_id id, uint32_t layer,
                        uint64_t width)
{
    const struct rt_placed *t = &b->s->blueprint->placement.tensors[id];
    return (char *)rt_recipe_at(b, id, layer) + b->span.first * width * rt_dtype_bytes(t->dtype);
}

/* Blocks leave everything at the replay's own rows, for a library's products know no row_base. */
struct rt_rows_view rt_recipe_rows_view(const struct recipe *b)
{
    const bool by_token = b->span.by_token;
    if (b->span.beside)
        return (struct rt_rows_view){.slot = rt_recipe_at(b, RT_TENSOR_BESIDE_SLOT, 0),
                                     .position = rt_recipe_at(b, RT_TENSOR_BESIDE_POSITION, 0),
                                     .length = rt_recipe_at(b, RT_TENSOR_BESIDE_REACH, 0),
                                     .count = b->span.rows,
                                     .q_len = b->query_len};
    const enum rt_tensor_id slot = by_token ? RT_TENSOR_TOKEN_SLOT : RT_TENSOR_ROW_SLOT;
    const enum rt_tensor_id position = by_token ? RT_TENSOR_TOKEN_POSITION : RT_TENSOR_ROW_POSITION;
    const enum rt_tensor_id length = rt_recipe_has_context(b) ? RT_TENSOR_OWN_LENGTH
                                     : by_token               ? RT_TENSOR_TOKEN_LENGTH
                                                              : RT_TENSOR_ROW_LENGTH;
    const bool no_base = b->s->blueprint->config.layer || by_token;
    return (struct rt_rows_view){
        .slot = rt_recipe_at_span(b, slot, 0, 1),
        .position = rt_recipe_at_span(b, position, 0, 1),
        .length = rt_recipe_at_span(b, length, 0, 1),
        .ctrl = no_base ? NULL : rt_recipe_at(b, RT_TENSOR_CTRL, 0),
        .count = b->span.rows,
        .q_len = b->query_len,
    };
}

/* Likewise, to attend: columns that a row has no token for count as if they were there. */
static struct rt_rows_view attending_rows(const struct recipe *b)
{
    struct rt_rows_view rows = rt_recipe_rows_view(b);
    if (b->query_len > 1 && !b->span.beside)
        rows.length = rt_recipe_at_span(b, RT_TENSOR_ROW_REACH, 0, 1);
    return rows;
}

struct rt_kv_view rt_recipe_kv_view(const struct recipe *b, uint32_t layer)
{
    const struct rt_placement *l = &b->s->blueprint->placement;
    return (struct rt_kv_view){
        .base = rt_recipe_at(b, RT_TENSOR_KV, layer),
        .table = rt_recipe_at(b, RT_TENSOR_BLOCK_TABLE, 0),
        .page_stride_bytes = (int64_t)rt_kv_page_bytes(&l->dims.kv, l->dims.page_size),
        .token_stride_bytes = l->dims.kv.row_bytes,
        .page_size = l->dims.page_size,
        .max_blocks = l->max_blocks,
        .pages = (uint32_t)l->dims.pages,
        .token_bytes = l->dims.kv.row_bytes,
    };
}

/* Packed for the step's query length: [rows, q_len, width]. */
static struct rt_tokens_view tokens_view(const struct recipe *b, enum rt_tensor_id id,
                                         uint32_t layer, uint32_t width)
{
    return (struct rt_tokens_view){
        .base = rt_recipe_at_span(b, id, layer, width),
        .row_stride = (int64_t)b->query_len * width,
        .token_stride = width,
    };
}

/* Likewise: [rows, q_len, heads, width]. */
struct rt_heads_view rt_recipe_heads_view(const struct recipe *b, enum rt_tensor_id id,
                                          uint32_t layer, uint32_t width)
{
    const int64_t heads = b->s->blueprint->placement.dims.heads;
    return (struct rt_heads_view){
        .base = rt_recipe_at_span(b, id, layer, (uint64_t)heads * width),
        .row_stride = b->query_len * heads * width,
        .token_stride = heads * width,
        .head_stride = width,
    };
}

struct rt_schedule_view rt_recipe_schedule_view(const struct recipe *b)
{
    const bool chunk = b->span.chunk;
    const struct rt_variant *attend = rt_attend_variant(b->s->blueprint, b->variants);
    return (struct rt_schedule_view){
        .parts = rt_recipe_at(b, chunk ? RT_TENSOR_CHUNK_PARTS : RT_TENSOR_PARTS, 0),
        .num_splits = rt_recipe_at(b, chunk ? RT_TENSOR_CHUNK_SPLITS : RT_TENSOR_NUM_SPLITS, 0),
        .part_count = attend->parts,
        .invariant = attend->invariant,
    };
}

static struct rt_partials_view partials_view(const struct recipe *b)
{
    return (struct rt_partials_view){
        .out = rt_recipe_at(b, RT_TENSOR_PARTIAL_OUT, 0),
        .lse = rt_recipe_at(b, RT_TENSOR_PARTIAL_LSE, 0),
    };
}

/* ---- the caller's stages ------------------------------------------------------------------- */

static const char *const point_names[RT_STAGE_POINT_COUNT] = {
    [RT_STAGE_STEP_BEGIN] = "user_step_begin",
    [RT_STAGE_BEFORE_ATTENTION] = "user_before_attention",
    [RT_STAGE_AFTER_ATTENTION] = "user_after_attention",
    [RT_STAGE_STEP_END] = "user_step_end",
    [RT_STAGE_INDEXER] = "user_indexer",
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

static enum rt_status add_part(struct recipe *b, enum rt_stage_point point, uint32_t layer,
                               uint32_t part)
{
    char name[RT_LABEL_BYTES];
    struct rt_stage_binding *binding = &b->bindings[b->bindings_used++];
    *binding = (struct rt_stage_binding){
        .fn = b->s->stages[point],
        .user = b->s->stage_user,
        .context = {.struct_size = sizeof(struct rt_stage_context),
                    .point = point,
                    .layer = layer == RT_NO_LAYER ? 0 : layer,
                    .batch = b->spec->rows,
                    .query_len = rt_spec_query_len(b->spec),
                    .tokens = b->spec->tokens,
                    .chunk = rt_spec_chunk(b->spec),
                    .host = b->s->blueprint->caps.kind == RT_DEVICE_KIND_HOST,
                    .runtime = b->s->runtime,
                    .part = part},
        .running = b->s->running,
    };
    const struct rt_work work = {.kind = RT_WORK_CALL,
                                 .call = {.fn = run_binding, .user = binding}};
    (void)snprintf(name, sizeof(name), part ? "%s_part%u" : "%s", point_names[point], part);
    RT_TRY(rt_recipe_add(b, name, layer, &work));
    struct rt_stage *stage = &b->p->stages[b->p->count - 1];
    stage->trust = trust_of(b->s, point);
    stage->overlapped = b->s->overlapped >> point & 1;
    return RT_OK;
}

enum rt_status rt_recipe_add_user_stage(struct recipe *b, enum rt_stage_point point, uint32_t layer)
{
    const struct rt_stage_exchanges *const all = b->s->exchanges;
    uint32_t part = 0;
    if (!b->s->stages[point])
        return RT_OK;
    RT_TRY(add_part(b, point, layer, part));
    for (uint32_t i = 0; all && i < all->count; i++) {
        if (all->items[i].point != point)
            continue;
        RT_TRY(rt_recipe_add_stage_exchange(b, &all->items[i], layer));
        if (all->items[i].resumes)
            RT_TRY(add_part(b, point, layer, ++part));
    }
    return RT_OK;
}

uint32_t rt_recipe_binding_count(const struct rt_recipe_source *s)
{
    const uint32_t points = 3 * s->blueprint->config.geometry.layers + 2;
    return points * (1 + (s->exchanges ? s->exchanges->count : 0));
}

/* ---- ours ------------------------------------------------------------------------------------ */

static enum rt_status add_step_begin(struct recipe *b)
{
    const struct rt_placement *l = &b->s->blueprint->placement;
    struct rt_step_begin_params p = {
        .ring = rt_recipe_at(b, RT_TENSOR_RECORDS, 0),
        .ctrl = rt_recipe_at(b, RT_TENSOR_CTRL, 0),
        .slot_length = rt_recipe_at(b, RT_TENSOR_SLOT_LENGTH, 0),
        .slot_token = rt_recipe_at(b, RT_TENSOR_SLOT_TOKEN, 0),
        .slot_drafts = rt_recipe_at(b, RT_TENSOR_SLOT_DRAFTS, 0),
        .block_table = rt_recipe_at(b, RT_TENSOR_BLOCK_TABLE, 0),
        .row_slot = rt_recipe_at(b, RT_TENSOR_ROW_SLOT, 0),
        .row_position = rt_recipe_at(b, RT_TENSOR_ROW_POSITION, 0),
        .row_length = rt_recipe_at(b, RT_TENSOR_ROW_LENGTH, 0),
        .row_reach = b->query_len > 1 ? rt_recipe_at(b, RT_TENSOR_ROW_REACH, 0) : NULL,
        .row_accept = rt_recipe_at(b, RT_TENSOR_ROW_ACCEPT, 0),
        .tokens = rt_recipe_at(b, RT_TENSOR_TOKENS, 0),
        .accepted = rt_recipe_at(b, RT_TENSOR_ACCEPTED, 0),
        .sampled = rt_recipe_at(b, RT_TENSOR_SAMPLED, 0),
        .drafts = rt_recipe_at(b, RT_TENSOR_DRAFTS, 0),
        .copies = rt_recipe_at(b, RT_TENSOR_PAGE_COPIES, 0),
        .ring_depth = l->dims.ring_depth,
        .record_bytes = l->record.record_bytes,
        .rows_offset = l->record.rows_offset,
        .tokens_offset = l->record.tokens_offset,
        .ops_offset = l->record.ops_offset,
        .bucket = b->spec->rows,
        .query_len = rt_spec_query_len(b->spec),
        .slots = l->dims.slots,
        .max_blocks = l->max_blocks,
        .pages = (uint32_t)l->dims.pages,
        .page_size = l->dims.page_size,
        .max_length = l->dims.max_length,
        .max_rows = l->dims.rows,
        .draft_columns = l->dims.q_max - 1,
    };
    return rt_recipe_add_op(b, RT_OP_STEP_BEGIN, RT_NO_LAYER, &p, sizeof(p));
}

static enum rt_status add_step_end(struct recipe *b)
{
    const struct rt_placement *l = &b->s->blueprint->placement;
    struct rt_step_end_params p = {
        .ctrl = rt_recipe_at(b, RT_TENSOR_CTRL, 0),
        .slot_length = rt_recipe_at(b, RT_TENSOR_SLOT_LENGTH, 0),
        .slot_token = rt_recipe_at(b, RT_TENSOR_SLOT_TOKEN, 0),
        .slot_drafts = rt_recipe_at(b, RT_TENSOR_SLOT_DRAFTS, 0),
        .row_slot = rt_recipe_at(b, RT_TENSOR_ROW_SLOT, 0),
        .row_position = rt_recipe_at(b, RT_TENSOR_ROW_POSITION, 0),
        .row_length = rt_recipe_at(b, RT_TENSOR_ROW_LENGTH, 0),
        .row_accept = rt_recipe_at(b, RT_TENSOR_ROW_ACCEPT, 0),
        .tokens = rt_recipe_at(b, RT_TENSOR_TOKENS, 0),
        .accepted = rt_recipe_at(b, RT_TENSOR_ACCEPTED, 0),
        .sampled = rt_recipe_at(b, RT_TENSOR_SAMPLED, 0),
        .drafts = rt_recipe_at(b, RT_TENSOR_DRAFTS, 0),
        .completions = rt_recipe_at(b, RT_TENSOR_COMPLETIONS, 0),
        .completed = rt_recipe_at(b, RT_TENSOR_COMPLETED, 0),
        .ring_depth = l->dims.ring_depth,
        .completion_bytes = l->record.completion_bytes,
        .bucket = b->spec->rows,
        .query_len = rt_spec_query_len(b->spec),
        .draft_columns = l->dims.q_max - 1,
        .tokens_offset = l->record.outcome_tokens_offset,
    };
    return rt_recipe_add_op(b, RT_OP_STEP_END, RT_NO_LAYER, &p, sizeof(p));
}

static enum rt_status add_page_copy(struct recipe *b)
{
    const struct rt_placement *l = &b->s->blueprint->placement;
    const struct rt_page_copy_params p = {
        .ctrl = rt_recipe_at(b, RT_TENSOR_CTRL, 0),
        .copies = rt_recipe_at(b, RT_TENSOR_PAGE_COPIES, 0),
        .kv = rt_recipe_kv_view(b, 0),
        .layer_stride_bytes = (int64_t)l->tensors[RT_TENSOR_KV].layer_stride,
        .layers = l->dims.layers,
        .tail_bytes = l->dims.page_size * (l->dims.kv.token_bytes - l->dims.kv.row_bytes),
    };
    return rt_recipe_add_op(b, RT_OP_PAGE_COPY, RT_NO_LAYER, &p, sizeof(p));
}

static struct rt_append_params append_params(const struct recipe *b, uint32_t layer)
{
    const uint32_t d_qk = b->s->blueprint->placement.dims.kv.d_qk;
    return (struct rt_append_params){
        .latent = tokens_view(b, RT_TENSOR_LATENT, layer, d_qk),
        .kv = rt_recipe_kv_view(b, layer),
        .rows = rt_recipe_rows_view(b),
    };
}

struct rt_schedule_params rt_recipe_schedule_params(const struct recipe *b)
{
    const struct rt_variant *attend = rt_attend_variant(b->s->blueprint, b->variants);
    return (struct rt_schedule_params){.rows = attending_rows(b),
                                       .schedule = rt_recipe_schedule_view(b),
                                       .overhead_blocks = attend->overhead_blocks,
                                       .min_blocks = attend->min_blocks};
}

enum rt_status rt_recipe_add_schedule(struct recipe *b)
{
    const struct rt_schedule_params p = rt_recipe_schedule_params(b);
    return rt_recipe_add_op(b, RT_OP_SCHEDULE, RT_NO_LAYER, &p, sizeof(p));
}

/* The first layer's append shares a node with the schedule: attention waits for both anyway. */
static enum rt_status add_schedule_append(struct recipe *b)
{
    const struct rt_schedule_append_params p = {
        .schedule = rt_recipe_schedule_params(b),
        .append = append_params(b, 0),
    };
    return rt_recipe_add_op(b, RT_OP_SCHEDULE_APPEND, 0, &p, sizeof(p));
}

bool rt_recipe_is_quantised(const struct recipe *b)
{
    return rt_kv_is_quantised(&b->s->blueprint->placement.dims.kv);
}

struct rt_quant_view rt_recipe_quant_view(const struct recipe *b, uint32_t layer)
{
    const struct rt_kv_view kv = rt_recipe_kv_view(b, layer);
    const float scale =
        b->s->kv_scales ? b->s->kv_scales[layer] : (float)b->s->blueprint->config.kv_scale;
    return rt_quant_view_make(&b->s->blueprint->placement.dims.kv, &kv, scale);
}

static enum rt_status add_append_quant(struct recipe *b, uint32_t layer)
{
    const struct rt_append_quant_params p = {
        .general.append = append_params(b, layer),
        .quant = rt_recipe_quant_view(b, layer),
        .d_qk = b->s->blueprint->placement.dims.kv.d_qk,
    };
    return rt_recipe_add_op(b, RT_OP_APPEND_QUANT, layer, &p, sizeof(p));
}

enum rt_status rt_recipe_add_append(struct recipe *b, uint32_t layer)
{
    if (rt_recipe_is_quantised(b))
        return add_append_quant(b, layer);
    const struct rt_append_params p = append_params(b, layer);
    return rt_recipe_add_op(b, RT_OP_APPEND, layer, &p, sizeof(p));
}

enum rt_status rt_recipe_add_preattend(struct recipe *b, uint32_t layer,
                                       const struct rt_preattend_params *params)
{
    if (!params->kv_a.base || !rt_recipe_is_quantised(b))
        return rt_recipe_add_op(b, RT_OP_PREATTEND, layer, params, sizeof(*params));
    const struct rt_preattend_quant_params p = {.preattend = *params,
                                                .quant = rt_recipe_quant_view(b, layer)};
    return rt_recipe_add_op(b, RT_OP_PREATTEND_QUANT, layer, &p, sizeof(p));
}

const float *rt_recipe_sink(const struct recipe *b, uint32_t layer)
{
    const bool has_sinks = b->s->blueprint->placement.dims.has_sinks;
    return has_sinks ? rt_recipe_at(b, RT_TENSOR_SINK, layer) : NULL;
}

static struct rt_heads_view out_view(const struct recipe *b, uint32_t layer)
{
    if (rt_recipe_has_context(b))
        return rt_recipe_given_out(b);
    return rt_recipe_heads_view(b, RT_TENSOR_OUT, layer, b->s->blueprint->placement.dims.kv.d_v);
}

static struct rt_heads_view lse_view(const struct recipe *b, uint32_t layer)
{
    return rt_recipe_has_context(b) ? rt_recipe_given_lse(b)
                                    : rt_recipe_heads_view(b, RT_TENSOR_LSE, layer, 1);
}

/* Keys that are older than the step are there before append is done. Not of a chunk, whose own
 * append has just written some; nor where tokens are rows of their own and see each other's. */
static bool attends_early(const struct recipe *b, uint32_t layer)
{
    const bool drafts = rt_spec_query_len(b->spec) > 1;
    return layer > 0 && !rt_spec_is_chunk(b->spec) && !(rt_recipe_has_context(b) && drafts);
}

struct rt_attend_params rt_recipe_attend_params(const struct recipe *b, uint32_t layer)
{
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    return (struct rt_attend_params){
        .q = rt_recipe_heads_view(b, RT_TENSOR_Q, layer, dims->kv.d_qk),
        .out = out_view(b, layer),
        .lse = lse_view(b, layer),
        .kv = rt_recipe_kv_view(b, layer),
        .rows = attending_rows(b),
        .schedule = rt_recipe_schedule_view(b),
        .partials = partials_view(b),
        .stamp_first = layer == 0 ? ctrl_stamp(b, offsetof(struct rt_ctrl, t_attend_first)) : NULL,
        .scale = (float)b->s->blueprint->config.geometry.softmax_scale,
        .heads = dims->heads,
        .d_qk = dims->kv.d_qk,
        .d_v = dims->kv.d_v,
        .is_f32 = dims->is_f32,
        .causal = 1,
        /* The first layer's schedule may still be running: it is in the launch in front, or in
         * front of launches of a block that let the next begin before their own waits. */
        .early = attends_early(b, layer),
        .sink = rt_recipe_sink(b, layer),
    };
}

enum rt_status rt_recipe_add_attend(struct recipe *b, uint32_t layer)
{
    struct rt_attend_quant_params p = {.attend = rt_recipe_attend_params(b, layer)};
    if (!rt_recipe_is_quantised(b))
        return rt_recipe_add_op(b, RT_OP_ATTEND, layer, &p.attend, sizeof(p.attend));
    p.quant = rt_recipe_quant_view(b, layer);
    return rt_recipe_add_op(b, RT_OP_ATTEND_QUANT, layer, &p, sizeof(p));
}

struct rt_reduce_params rt_recipe_reduce_params(const struct recipe *b, uint32_t layer)
{
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    const bool last = layer + 1 == dims->layers;
    return (struct rt_reduce_params){
        .partials = partials_view(b),
        .schedule = rt_recipe_schedule_view(b),
        .rows = attending_rows(b),
        .out = out_view(b, layer),
        .lse = lse_view(b, layer),
        .stamp_last = last ? ctrl_stamp(b, offsetof(struct rt_ctrl, t_attend_last)) : NULL,
        .heads = dims->heads,
        .d_v = dims->kv.d_v,
        .is_f32 = dims->is_f32,
        .sink = rt_recipe_sink(b, layer),
    };
}

enum rt_status rt_recipe_add_reduce(struct recipe *b, uint32_t layer)
{
    const struct rt_reduce_params p = rt_recipe_reduce_params(b, layer);
    return rt_recipe_add_op(b, RT_OP_REDUCE, layer, &p, sizeof(p));
}

static enum rt_status add_first_append(struct recipe *b)
{
    if (!rt_recipe_is_quantised(b))
        return add_schedule_append(b);
    RT_TRY(rt_recipe_add_schedule(b));
    return rt_recipe_add_append(b, 0);
}

/* Attention alone, between stages that leave q and latent. */
static enum rt_status add_attention(struct recipe *b, uint32_t layer)
{
    if (rt_recipe_is_listed(b)) {
        RT_TRY(rt_recipe_add_append(b, layer));
        return rt_recipe_add_listed(b, layer);
    }
    RT_TRY(layer ? rt_recipe_add_append(b, layer) : add_first_append(b));
    RT_TRY(rt_recipe_add_attend(b, layer));
    return rt_recipe_add_reduce(b, layer);
}

/* All of a layer that is ours. */
static enum rt_status add_layer(struct recipe *b, uint32_t layer)
{
    if (!b->s->blueprint->config.layer)
        return add_attention(b, layer);
    return b->is_whole ? rt_recipe_add_whole(b, layer) : rt_recipe_add_block(b, layer);
}

static enum rt_status add_layers(struct recipe *b)
{
    const struct rt_config *config = &b->s->blueprint->config;
    if (config->layer)
        RT_TRY(rt_recipe_choose_whole(b));
    RT_TRY(rt_recipe_add_user_stage(b, RT_STAGE_STEP_BEGIN, RT_NO_LAYER));
    if (rt_recipe_has_context(b))
        RT_TRY(rt_recipe_add_context_rows(b));
    if (config->layer && !b->is_whole && !rt_recipe_is_listed(b))
        RT_TRY(rt_recipe_add_schedule(b));
    for (uint32_t layer = 0; layer < config->geometry.layers; layer++) {
        RT_TRY(rt_recipe_add_user_stage(b, RT_STAGE_BEFORE_ATTENTION, layer));
        RT_TRY(add_layer(b, layer));
        RT_TRY(rt_recipe_add_user_stage(b, RT_STAGE_AFTER_ATTENTION, layer));
    }
    return rt_recipe_add_user_stage(b, RT_STAGE_STEP_END, RT_NO_LAYER);
}

enum rt_status rt_recipe_make(const struct rt_recipe_source *s, const struct rt_graph_spec *spec,
                              struct rt_stage_binding *bindings, struct rt_program *p,
                              struct rt_error *err)
{
    struct recipe b = {
        .s = s,
        .spec = spec,
        .variants = rt_blueprint_variants(s->blueprint, spec),
        /* Of a chunk every token is a row, until attention has those that decode. */
        .query_len = rt_spec_is_chunk(spec) ? 1 : rt_spec_query_len(spec),
        .span = {.rows = spec->rows},
        .bindings = bindings,
        .p = p,
        .err = err,
    };
    p->spec = *spec;
    RT_TRY(add_step_begin(&b));
    switch (spec->phase) {
    case RT_PHASE_CONTROL:
        RT_TRY(add_page_copy(&b));
        break;
    case RT_PHASE_DECODE:
        RT_TRY(add_layers(&b));
        break;
    case RT_PHASE_CHUNK:
        RT_TRY(rt_recipe_add_chunk(&b));
        break;
    }
    return add_step_end(&b);
}
