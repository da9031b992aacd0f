/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/stages.h"

#include "kernels/mla.h"

#include <stddef.h>
#include <stdio.h>

struct builder {
    const struct rt_stage_source *s;
    struct rt_program *p;
    uint32_t batch, query_len;
    const struct rt_attend_choice *choice;
    struct rt_stage_binding *bindings;
    uint32_t bindings_used;
    struct rt_error *err;
};

static void *at(const struct builder *b, enum rt_buffer_id id, uint32_t layer)
{
    return (void *)(uintptr_t)rt_arena_addr(b->s->arena, id, layer);
}

/* A stamp's address, by number: a plan's arena starts at 0, where no member may be named. */
static uint64_t *ctrl_stamp(const struct builder *b, size_t offset)
{
    return (uint64_t *)(uintptr_t)(rt_arena_addr(b->s->arena, RT_BUF_CTRL, 0) + offset);
}

static enum rt_status add(struct builder *b, const char *name, uint32_t layer,
                          const struct rt_launch *launch)
{
    char label[RT_STAGE_LABEL_BYTES];
    if (layer == RT_NO_LAYER)
        snprintf(label, sizeof(label), "%s", name);
    else
        snprintf(label, sizeof(label), "%s.%u", name, layer);
    return rt_program_add_launch(b->p, label, layer, launch, b->err);
}

/* ---- the caller's stages ------------------------------------------------------------------- */

static const char *const point_names[RT_STAGE_POINT_COUNT] = {
    [RT_STAGE_STEP_BEGIN] = "user_step_begin",
    [RT_STAGE_BEFORE_ATTENTION] = "user_before_attention",
    [RT_STAGE_AFTER_ATTENTION] = "user_after_attention",
    [RT_STAGE_STEP_END] = "user_step_end",
};

static int run_binding(void *user, rt_dstream stream)
{
    const struct rt_stage_binding *binding = user;
    struct rt_stage_context context = binding->context;
    context.stream = stream;
    return binding->fn(binding->user, &context);
}

static enum rt_status add_user_stage(struct builder *b, enum rt_stage_point point, uint32_t layer)
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
                    .batch = b->batch,
                    .query_len = b->query_len,
                    .host = b->s->blueprint->caps.kind == RT_DEVICE_KIND_HOST,
                    .runtime = b->s->runtime},
    };
    char label[RT_STAGE_LABEL_BYTES];
    if (layer == RT_NO_LAYER)
        snprintf(label, sizeof(label), "%s", point_names[point]);
    else
        snprintf(label, sizeof(label), "%s.%u", point_names[point], layer);
    struct rt_stage_call call = {.fn = run_binding, .user = binding};
    return rt_program_add_call(b->p, label, layer, call, b->err);
}

uint32_t rt_stage_binding_count(const struct rt_stage_source *s)
{
    return 2 * s->blueprint->config.geometry.layers + 2;
}

/* ---- ours ---------------------------------------------------------------------------------- */

static enum rt_status add_step_begin(struct builder *b)
{
    const struct rt_layout *l = &b->s->blueprint->layout;
    struct rt_step_begin_params p = {
        .ring = at(b, RT_BUF_RECORDS, 0),
        .ctrl = at(b, RT_BUF_CTRL, 0),
        .slot_length = at(b, RT_BUF_SLOT_LENGTH, 0),
        .slot_token = at(b, RT_BUF_SLOT_TOKEN, 0),
        .block_table = at(b, RT_BUF_BLOCK_TABLE, 0),
        .row_slot = at(b, RT_BUF_ROW_SLOT, 0),
        .row_position = at(b, RT_BUF_ROW_POSITION, 0),
        .row_length = at(b, RT_BUF_ROW_LENGTH, 0),
        .tokens = at(b, RT_BUF_TOKENS, 0),
        .accepted = at(b, RT_BUF_ACCEPTED, 0),
        .sampled = at(b, RT_BUF_SAMPLED, 0),
        .copies = at(b, RT_BUF_PAGE_COPIES, 0),
        .ring_depth = l->shape.ring_depth,
        .record_bytes = l->record.record_bytes,
        .rows_offset = l->record.rows_offset,
        .tokens_offset = l->record.tokens_offset,
        .ops_offset = l->record.ops_offset,
        .bucket = b->batch,
        .query_len = b->query_len,
        .slots = l->shape.slots,
        .max_blocks = l->max_blocks,
        .pages = (uint32_t)l->shape.pages,
        .page_size = l->shape.page_size,
        .max_length = l->shape.max_length,
        .max_rows = l->shape.rows,
    };
    struct rt_launch launch;
    RT_TRY(rt_step_begin_launch(b->s->kernels, &p, &launch, b->err));
    return add(b, "step_begin", RT_NO_LAYER, &launch);
}

static enum rt_status add_step_end(struct builder *b)
{
    const struct rt_layout *l = &b->s->blueprint->layout;
    struct rt_step_end_params p = {
        .ctrl = at(b, RT_BUF_CTRL, 0),
        .slot_length = at(b, RT_BUF_SLOT_LENGTH, 0),
        .slot_token = at(b, RT_BUF_SLOT_TOKEN, 0),
        .row_slot = at(b, RT_BUF_ROW_SLOT, 0),
        .row_position = at(b, RT_BUF_ROW_POSITION, 0),
        .row_length = at(b, RT_BUF_ROW_LENGTH, 0),
        .tokens = at(b, RT_BUF_TOKENS, 0),
        .accepted = at(b, RT_BUF_ACCEPTED, 0),
        .sampled = at(b, RT_BUF_SAMPLED, 0),
        .completions = at(b, RT_BUF_COMPLETIONS, 0),
        .completed = at(b, RT_BUF_COMPLETED, 0),
        .ring_depth = l->shape.ring_depth,
        .completion_bytes = l->record.completion_bytes,
        .bucket = b->batch,
        .query_len = b->query_len,
    };
    struct rt_launch launch;
    RT_TRY(rt_step_end_launch(b->s->kernels, &p, &launch, b->err));
    return add(b, "step_end", RT_NO_LAYER, &launch);
}

static enum rt_status add_page_copy(struct builder *b)
{
    const struct rt_layout *l = &b->s->blueprint->layout;
    struct rt_page_copy_params p = {
        .ctrl = at(b, RT_BUF_CTRL, 0),
        .copies = at(b, RT_BUF_PAGE_COPIES, 0),
        .kv = at(b, RT_BUF_KV, 0),
        .layer_stride = (int64_t)(l->buffers[RT_BUF_KV].layer_stride / sizeof(uint16_t)),
        .page_stride = (int64_t)l->shape.page_size * l->shape.d_qk,
        .token_stride = l->shape.d_qk,
        .layers = l->shape.layers,
        .d_qk = l->shape.d_qk,
    };
    struct rt_launch launch;
    RT_TRY(rt_page_copy_launch(b->s->kernels, &p, &launch, b->err));
    return add(b, "page_copy", RT_NO_LAYER, &launch);
}

/* The first layer's append shares a node with the schedule: attention waits for both anyway. */
static enum rt_status add_schedule_append(struct builder *b)
{
    const struct rt_layout *l = &b->s->blueprint->layout;
    struct rt_schedule_append_params p = {
        .row_length = at(b, RT_BUF_ROW_LENGTH, 0),
        .tiles = at(b, RT_BUF_TILES, 0),
        .num_splits = at(b, RT_BUF_NUM_SPLITS, 0),
        .latent = at(b, RT_BUF_LATENT, 0),
        .kv = at(b, RT_BUF_KV, 0),
        .block_table = at(b, RT_BUF_BLOCK_TABLE, 0),
        .row_slot = at(b, RT_BUF_ROW_SLOT, 0),
        .row_position = at(b, RT_BUF_ROW_POSITION, 0),
        .ctrl = at(b, RT_BUF_CTRL, 0),
        .latent_row_stride = (int64_t)b->query_len * l->shape.d_qk,
        .latent_token_stride = l->shape.d_qk,
        .kv_page_stride = (int64_t)l->shape.page_size * l->shape.d_qk,
        .kv_token_stride = l->shape.d_qk,
        .rows = b->batch,
        .parts = b->choice->parts,
        .overhead_blocks = b->choice->overhead_blocks,
        .min_blocks = b->choice->min_blocks,
        .q_len = b->query_len,
        .d_qk = l->shape.d_qk,
        .page_size = l->shape.page_size,
        .max_blocks = l->max_blocks,
        .pages = (uint32_t)l->shape.pages,
    };
    struct rt_launch launch;
    RT_TRY(rt_schedule_append_launch(b->s->kernels, &p, &launch, b->err));
    return add(b, "schedule_append", 0, &launch);
}

static enum rt_status add_append(struct builder *b, uint32_t layer)
{
    const struct rt_layout *l = &b->s->blueprint->layout;
    struct rt_mla_append_params p = {
        .latent = at(b, RT_BUF_LATENT, layer),
        .kv = at(b, RT_BUF_KV, layer),
        .block_table = at(b, RT_BUF_BLOCK_TABLE, 0),
        .row_slot = at(b, RT_BUF_ROW_SLOT, 0),
        .row_position = at(b, RT_BUF_ROW_POSITION, 0),
        .ctrl = at(b, RT_BUF_CTRL, 0),
        .latent_row_stride = (int64_t)b->query_len * l->shape.d_qk,
        .latent_token_stride = l->shape.d_qk,
        .kv_page_stride = (int64_t)l->shape.page_size * l->shape.d_qk,
        .kv_token_stride = l->shape.d_qk,
        .rows = b->batch,
        .q_len = b->query_len,
        .d_qk = l->shape.d_qk,
        .page_size = l->shape.page_size,
        .max_blocks = l->max_blocks,
        .pages = (uint32_t)l->shape.pages,
    };
    struct rt_launch launch;
    RT_TRY(rt_mla_append_launch(b->s->kernels, &p, &launch, b->err));
    return add(b, "append", layer, &launch);
}

static enum rt_status add_attend(struct builder *b, uint32_t layer)
{
    const struct rt_layout *l = &b->s->blueprint->layout;
    int64_t heads = l->shape.heads;
    struct rt_mla_attend_params p = {
        .q = at(b, RT_BUF_Q, layer),
        .kv = at(b, RT_BUF_KV, layer),
        .block_table = at(b, RT_BUF_BLOCK_TABLE, 0),
        .row_slot = at(b, RT_BUF_ROW_SLOT, 0),
        .row_length = at(b, RT_BUF_ROW_LENGTH, 0),
        .tiles = at(b, RT_BUF_TILES, 0),
        .num_splits = at(b, RT_BUF_NUM_SPLITS, 0),
        .out = at(b, RT_BUF_OUT, layer),
        .lse = at(b, RT_BUF_LSE, layer),
        .partial_out = at(b, RT_BUF_PARTIAL_OUT, 0),
        .partial_lse = at(b, RT_BUF_PARTIAL_LSE, 0),
        .ctrl = at(b, RT_BUF_CTRL, 0),
        .stamp_first = layer == 0 ? ctrl_stamp(b, offsetof(struct rt_ctrl, t_attend_first)) : NULL,
        .q_row_stride = b->query_len * heads * l->shape.d_qk,
        .q_token_stride = heads * l->shape.d_qk,
        .q_head_stride = l->shape.d_qk,
        .out_row_stride = b->query_len * heads * l->shape.d_v,
        .out_token_stride = heads * l->shape.d_v,
        .out_head_stride = l->shape.d_v,
        .lse_row_stride = b->query_len * heads,
        .lse_token_stride = heads,
        .lse_head_stride = 1,
        .kv_page_stride = (int64_t)l->shape.page_size * l->shape.d_qk,
        .kv_token_stride = l->shape.d_qk,
        .scale = (float)b->s->blueprint->config.geometry.softmax_scale,
        .rows = b->batch,
        .q_len = b->query_len,
        .heads = l->shape.heads,
        .d_qk = l->shape.d_qk,
        .d_v = l->shape.d_v,
        .page_size = l->shape.page_size,
        .max_blocks = l->max_blocks,
        .parts = b->choice->parts,
        .causal = 1,
        .pages = (uint32_t)l->shape.pages,
        /* The first layer's plan is written by the launch in front of it. */
        .early = layer > 0,
    };
    struct rt_launch launch;
    RT_TRY(rt_mla_attend_launch(b->s->kernels, b->choice, &p, &launch, b->err));
    return add(b, "attend", layer, &launch);
}

static enum rt_status add_reduce(struct builder *b, uint32_t layer)
{
    const struct rt_layout *l = &b->s->blueprint->layout;
    bool last = layer + 1 == l->shape.layers;
    int64_t heads = l->shape.heads;
    struct rt_mla_reduce_params p = {
        .partial_out = at(b, RT_BUF_PARTIAL_OUT, 0),
        .partial_lse = at(b, RT_BUF_PARTIAL_LSE, 0),
        .num_splits = at(b, RT_BUF_NUM_SPLITS, 0),
        .row_length = at(b, RT_BUF_ROW_LENGTH, 0),
        .out = at(b, RT_BUF_OUT, layer),
        .lse = at(b, RT_BUF_LSE, layer),
        .ctrl = at(b, RT_BUF_CTRL, 0),
        .stamp_last = last ? ctrl_stamp(b, offsetof(struct rt_ctrl, t_attend_last)) : NULL,
        .out_row_stride = b->query_len * heads * l->shape.d_v,
        .out_token_stride = heads * l->shape.d_v,
        .out_head_stride = l->shape.d_v,
        .lse_row_stride = b->query_len * heads,
        .lse_token_stride = heads,
        .lse_head_stride = 1,
        .rows = b->batch,
        .q_len = b->query_len,
        .heads = l->shape.heads,
        .d_v = l->shape.d_v,
    };
    struct rt_launch launch;
    RT_TRY(rt_mla_reduce_launch(b->s->kernels, b->choice, &p, &launch, b->err));
    return add(b, "reduce", layer, &launch);
}

enum rt_status rt_stages_step(const struct rt_stage_source *s, uint32_t batch, uint32_t query_index,
                              struct rt_stage_binding *bindings, struct rt_program *p,
                              struct rt_error *err)
{
    struct builder b = {
        .s = s,
        .p = p,
        .batch = batch,
        .query_len = s->blueprint->config.query_lens[query_index],
        .choice = &s->blueprint->choices[query_index],
        .bindings = bindings,
        .err = err,
    };
    p->batch = b.batch;
    p->query_len = b.query_len;
    RT_TRY(add_step_begin(&b));
    RT_TRY(add_user_stage(&b, RT_STAGE_STEP_BEGIN, RT_NO_LAYER));
    for (uint32_t layer = 0; layer < s->blueprint->config.geometry.layers; layer++) {
        RT_TRY(add_user_stage(&b, RT_STAGE_BEFORE_ATTENTION, layer));
        RT_TRY(layer ? add_append(&b, layer) : add_schedule_append(&b));
        RT_TRY(add_attend(&b, layer));
        RT_TRY(add_reduce(&b, layer));
        RT_TRY(add_user_stage(&b, RT_STAGE_AFTER_ATTENTION, layer));
    }
    RT_TRY(add_user_stage(&b, RT_STAGE_STEP_END, RT_NO_LAYER));
    return add_step_end(&b);
}

enum rt_status rt_stages_control(const struct rt_stage_source *s, struct rt_program *p,
                                 struct rt_error *err)
{
    struct builder b = {.s = s, .p = p, .batch = 0, .query_len = 1, .err = err};
    p->batch = 0;
    p->query_len = 1;
    RT_TRY(add_step_begin(&b));
    RT_TRY(add_page_copy(&b));
    return add_step_end(&b);
}
