/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/ops_memory.h"

#include "runtime/operands.h"

static void add_flat(struct rt_operands *t, const char *name, uint64_t address, uint64_t bytes)
{
    rt_operands_reads(t, rt_strided_flat(name, address, bytes));
}

static void add_tokens(struct rt_operands *t, const char *name, const struct rt_rows_view *rows,
                       const struct rt_tokens_view *view, uint64_t bytes)
{
    rt_operands_reads(
        t, (struct rt_strided){.name = name,
                               .address = (uintptr_t)view->base,
                               .bytes = bytes,
                               .count = {rows->count, rows->q_len},
                               .stride = {(uint64_t)view->row_stride * sizeof(uint16_t),
                                          (uint64_t)view->token_stride * sizeof(uint16_t)}});
}

/* names: of the tensor, and of its strides. */
static void add_heads(struct rt_operands *t, const char *const names[4], uint32_t heads,
                      const struct rt_rows_view *rows, const struct rt_heads_view *view,
                      uint64_t number, uint64_t count)
{
    rt_operands_reads(t, (struct rt_strided){.name = names[0],
                                             .address = (uintptr_t)view->base,
                                             .bytes = number * count,
                                             .count = {rows->count, rows->q_len, heads},
                                             .stride = {(uint64_t)view->row_stride * number,
                                                        (uint64_t)view->token_stride * number,
                                                        (uint64_t)view->head_stride * number},
                                             .stride_name = {names[1], names[2], names[3]}});
}

static void add_cache(struct rt_operands *t, const struct rt_kv_view *kv)
{
    rt_operands_reads(t, (struct rt_strided){.name = "kv",
                                             .address = (uintptr_t)kv->base,
                                             .bytes = kv->token_bytes,
                                             .count = {kv->pages, kv->page_size},
                                             .stride = {(uint64_t)kv->page_stride_bytes,
                                                        (uint64_t)kv->token_stride_bytes},
                                             .stride_name = {"kv_page_stride", "kv_token_stride"}});
}

bool rt_ops_scales_of(const struct rt_kv_view *kv, const struct rt_quant_view *quant,
                      struct rt_strided *out)
{
    if (quant->scale_kind == RT_QUANT_SCALE_TENSOR ||
        quant->scale_stride_bytes == kv->token_stride_bytes)
        return false;
    *out = (struct rt_strided){.name = "scales of kv",
                               .address = (uintptr_t)kv->base + (uint64_t)quant->scale_offset_bytes,
                               .bytes = (uint64_t)kv->page_size * quant->scale_bytes,
                               .count = {kv->pages},
                               .stride = {(uint64_t)kv->page_stride_bytes},
                               .stride_name = {"kv_page_stride"}};
    return true;
}

static void add_scales(struct rt_operands *t, const struct rt_kv_view *kv,
                       const struct rt_quant_view *quant)
{
    struct rt_strided scales;
    if (rt_ops_scales_of(kv, quant, &scales))
        rt_operands_reads(t, scales);
}

static void add_table(struct rt_operands *t, const struct rt_mla_shape *s, uint64_t table)
{
    add_flat(t, "block_table", table, (uint64_t)s->batch * s->max_blocks * sizeof(int32_t));
}

/* The first `written` are those that are. */
static enum rt_status check(const char *op, struct rt_operands *t, uint32_t written,
                            struct rt_error *err)
{
    t->written = written;
    return rt_operands_check_written(op, t, err);
}

enum rt_status rt_ops_schedule_memory(const struct rt_mla_schedule_args *args,
                                      const struct rt_ops_choice *choice, struct rt_error *err)
{
    struct rt_operands t = {.count = 0};
    struct rt_mla_workspace size = {.struct_size = sizeof(size)};
    rt_ops_workspace(&args->shape, choice, &size);
    add_flat(&t, "schedule.parts", args->schedule.parts, size.part_bytes);
    add_flat(&t, "schedule.num_splits", args->schedule.num_splits, size.num_splits_bytes);
    add_flat(&t, "lengths", args->lengths, args->shape.batch * sizeof(int32_t));
    return check("rt_mla_schedule", &t, 2, err);
}

enum rt_status rt_ops_append_memory(const struct rt_mla_append_args *args,
                                    const struct rt_append_quant_params *params,
                                    struct rt_error *err)
{
    const struct rt_append_general_params *p = &params->general;
    const struct rt_mla_shape *s = &args->shape;
    const uint64_t width = args->rope ? s->d_v : s->d_qk, rest = s->d_qk - s->d_v;
    struct rt_operands t = {.count = 0};
    add_cache(&t, &p->append.kv);
    if (s->kv_layout != RT_KV_BF16)
        add_scales(&t, &p->append.kv, &params->quant);
    const uint32_t written = t.count;
    add_tokens(&t, "latent", &p->append.rows, &p->append.latent, width * sizeof(uint16_t));
    add_tokens(&t, "rope", &p->append.rows, &p->rope, rest * sizeof(uint16_t));
    add_table(&t, s, args->block_table);
    add_flat(&t, "positions", args->positions, s->batch * sizeof(int32_t));
    add_flat(&t, "slot_mapping", args->slot_mapping,
             (uint64_t)s->batch * s->query_len * sizeof(int64_t));
    return check("rt_mla_append", &t, written, err);
}

enum rt_status rt_ops_decode_memory(const struct rt_mla_decode_args *args,
                                    const struct rt_ops_choice *choice,
                                    const struct rt_attend_quant_params *params,
                                    struct rt_error *err)
{
    const struct rt_attend_params *p = &params->attend;
    static const char *const q[4] = {"q"}, *const q_rope[4] = {"q_rope"};
    static const char *const out[4] = {"out", "out_row_stride", "out_token_stride",
                                       "out_head_stride"};
    static const char *const lse[4] = {"lse", "lse_row_stride", "lse_token_stride",
                                       "lse_head_stride"};
    const struct rt_mla_shape *s = &args->shape;
    const uint32_t width = args->q_rope ? s->d_v : s->d_qk;
    struct rt_operands t = {.count = 0};
    struct rt_mla_workspace size = {.struct_size = sizeof(size)};
    rt_ops_workspace(s, choice, &size);
    add_heads(&t, out, s->heads, &p->rows, &p->out, sizeof(uint16_t), s->d_v);
    add_heads(&t, lse, s->heads, &p->rows, &p->lse, sizeof(float), 1);
    add_flat(&t, "partial_out", args->partial_out, size.partial_out_bytes);
    add_flat(&t, "partial_lse", args->partial_lse, size.partial_lse_bytes);
    const uint32_t written = t.count;
    add_heads(&t, q, s->heads, &p->rows, &p->q, sizeof(uint16_t), width);
    add_heads(&t, q_rope, s->heads, &p->rows, &p->q_rope, sizeof(uint16_t), s->d_qk - s->d_v);
    add_cache(&t, &p->kv);
    if (s->kv_layout != RT_KV_BF16)
        add_scales(&t, &p->kv, &params->quant);
    add_table(&t, s, args->block_table);
    add_flat(&t, "lengths", args->lengths, s->batch * sizeof(int32_t));
    add_flat(&t, "schedule.parts", args->schedule.parts, size.part_bytes);
    add_flat(&t, "schedule.num_splits", args->schedule.num_splits, size.num_splits_bytes);
    add_flat(&t, "sink", args->sink, s->heads * sizeof(float));
    return check("rt_mla_decode", &t, written, err);
}
