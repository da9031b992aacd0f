/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/ops_work.h"

#include "kernels/abi/append.h"
#include "kernels/abi/reduce.h"
#include "kernels/quant_view.h"
#include "runtime/ops_check.h"
#include "runtime/ops_memory.h"

#include <inttypes.h>
#include <math.h>

static enum rt_status check_shape(const struct rt_mla_shape *shape, struct rt_error *err)
{
    /* It lies inside of other structs, where it cannot grow. */
    RT_REQUIRE(shape->struct_size == sizeof(*shape), err, RT_ERR_INVALID,
               "shape.struct_size is %u, not %zu", shape->struct_size, sizeof(*shape));
    RT_REQUIRE(shape->batch >= 1 && shape->batch <= RT_MAX_BATCH, err, RT_ERR_INVALID,
               "batch %u is not 1..%d", shape->batch, RT_MAX_BATCH);
    RT_REQUIRE(shape->query_len >= 1 && shape->query_len <= RT_MAX_QUERY_LEN, err, RT_ERR_INVALID,
               "query_len %u is not 1..%d", shape->query_len, RT_MAX_QUERY_LEN);
    RT_REQUIRE(shape->heads >= 1 && shape->heads <= RT_MAX_HEADS, err, RT_ERR_INVALID,
               "heads %u is not 1..%d", shape->heads, RT_MAX_HEADS);
    RT_REQUIRE(rt_page_size_served(shape->page_size), err, RT_ERR_INVALID,
               "page_size %u is not 1, 8, 16, 32, 64 or 128", shape->page_size);
    const uint32_t most_blocks = RT_MAX_LENGTH / rt_min_u32(shape->page_size, 16);
    RT_REQUIRE(shape->max_blocks <= most_blocks, err, RT_ERR_INVALID, "max_blocks %u is not 0..%u",
               shape->max_blocks, most_blocks);
    RT_REQUIRE(shape->pages >= 1 && shape->pages <= INT32_MAX, err, RT_ERR_INVALID,
               "pages %u is not 1..%d", shape->pages, INT32_MAX);
    RT_REQUIRE(shape->causal <= 1, err, RT_ERR_INVALID, "causal %u is not 0 or 1", shape->causal);
    return RT_OK;
}

enum rt_status rt_ops_format(enum rt_kv_layout layout, uint32_t d_qk, uint32_t d_v,
                             struct rt_kv_format *out, struct rt_error *err)
{
    const char *name = rt_kv_layout_name(layout);
    RT_REQUIRE(name, err, RT_ERR_INVALID, "kv_layout %d is not known", (int)layout);
    RT_REQUIRE(rt_kv_format_make(layout, RT_PRECISION_BF16, d_qk, d_v, out), err, RT_ERR_GEOMETRY,
               "kv_layout %s has no d_qk/d_v %u/%u", name, d_qk, d_v);
    return RT_OK;
}

/* blocks 0: any number. */
static enum rt_status choose(const struct rt_device_caps *caps, const struct rt_mla_shape *s,
                             uint32_t invariant, uint64_t blocks, struct rt_ops_choice *out,
                             struct rt_error *err)
{
    RT_TRY(check_shape(s, err));
    RT_REQUIRE(invariant <= 1, err, RT_ERR_INVALID, "invariant %u is not 0 or 1", invariant);
    RT_TRY(rt_ops_format(s->kv_layout, s->d_qk, s->d_v, &out->kv, err));
    struct rt_op_request request = {
        .caps = caps,
        .kv = &out->kv,
        .heads = s->heads,
        .q_len = s->query_len,
        .page_size = s->page_size,
        .backend = s->backend,
        .invariant = invariant,
    };
    const enum rt_op_id attend = rt_kv_is_quantised(&out->kv) ? RT_OP_ATTEND_QUANT : RT_OP_ATTEND;
    const struct rt_small_tile_limits small = rt_small_tiles_of(attend, &request);
    const uint32_t tile = rt_small_tiles_find(&small, s->batch, blocks);
    request.small_tile_rows = blocks && tile < small.count ? small.tiles[tile].tile_rows : 0;
    RT_TRY(rt_op_resolve(attend, &request, &out->attend, err));
    RT_TRY(rt_op_resolve(RT_OP_SCHEDULE, &request, &out->schedule, err));
    RT_TRY(rt_op_resolve(RT_OP_APPEND, &request, &out->append, err));
    RT_TRY(rt_op_resolve(RT_OP_APPEND_GENERAL, &request, &out->append_general, err));
    RT_TRY(rt_op_resolve(RT_OP_APPEND_QUANT, &request, &out->append_quant, err));
    RT_TRY(rt_op_resolve(RT_OP_PREATTEND, &request, &out->preattend, err));
    RT_TRY(rt_op_resolve(RT_OP_PREATTEND_QUANT, &request, &out->preattend_quant, err));
    return rt_op_resolve(RT_OP_REDUCE, &request, &out->reduce, err);
}

enum rt_status rt_ops_choose(const char *op, const struct rt_device_caps *caps,
                             const struct rt_mla_shape *s, uint32_t invariant,
                             struct rt_ops_choice *out, struct rt_error *err)
{
    return rt_ops_named(op, choose(caps, s, invariant, 0, out, err), err);
}

enum rt_status rt_ops_choose_for_blocks(const char *op, const struct rt_device_caps *caps,
                                        const struct rt_mla_shape *s, uint32_t invariant,
                                        uint64_t blocks, struct rt_ops_choice *out,
                                        struct rt_error *err)
{
    return rt_ops_named(op, choose(caps, s, invariant, blocks, out, err), err);
}

void rt_ops_workspace(const struct rt_mla_shape *shape, const struct rt_ops_choice *choice,
                      struct rt_mla_workspace *out)
{
    const struct rt_variant *attend = &choice->attend;
    uint32_t query_rows = shape->query_len * shape->heads;
    uint64_t rows = rt_max_split_slots(attend, shape->batch, UINT32_MAX) * query_rows;
    out->parts = attend->parts;
    out->part_bytes = attend->parts * sizeof(struct rt_part);
    out->num_splits_bytes = ((uint64_t)shape->batch + 1) * sizeof(int32_t);
    out->partial_out_bytes = rows * shape->d_v * sizeof(float);
    out->partial_lse_bytes = rows * sizeof(float);
    out->kernel = rt_attend_entry(attend, shape->batch);
}

enum rt_status rt_ops_check_table(const char *op, const struct rt_mla_shape *s, uint64_t table,
                                  struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {{"block_table", table, RT_ALIGN_INT32}};
    return s->max_blocks == 0 ? RT_OK : RT_CHECK_POINTERS(op, pointers, err);
}

/* The second of two tensors, which holds what d_v leaves of d_qk; or none, and no strides. */
static enum rt_status check_second(const char *op, const char *name, uint64_t address,
                                   const int64_t strides[3], const struct rt_mla_shape *s,
                                   struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {{name, address, RT_ALIGN_VECTOR}};
    if (!address) {
        RT_REQUIRE(!strides[0] && !strides[1] && !strides[2], err, RT_ERR_INVALID,
                   "%s: %s is null, its strides are %" PRId64 ", %" PRId64 " and %" PRId64, op,
                   name, strides[0], strides[1], strides[2]);
        return RT_OK;
    }
    RT_REQUIRE(s->d_qk > s->d_v, err, RT_ERR_INVALID,
               "%s: %s = 0x%" PRIx64 ", but d_v has all %u elements", op, name, address, s->d_v);
    return RT_CHECK_POINTERS(op, pointers, err);
}

/* ---- views of the caller's memory ------------------------------------------------------------ */

static struct rt_rows_view rows_view(const struct rt_mla_shape *s)
{
    return (struct rt_rows_view){.count = s->batch, .q_len = s->query_len};
}

static struct rt_schedule_view schedule_view(const struct rt_mla_schedule_buffers *b,
                                             const struct rt_ops_choice *choice)
{
    return (struct rt_schedule_view){.parts = rt_ops_pointer(b->parts),
                                     .num_splits = rt_ops_pointer(b->num_splits),
                                     .part_count = choice->attend.parts,
                                     .invariant = choice->attend.invariant};
}

enum rt_status rt_ops_kv_view(const char *op, const struct rt_mla_shape *s,
                              const struct rt_kv_format *format, uint64_t kv, uint64_t table,
                              int64_t kv_page_stride, int64_t kv_token_stride,
                              struct rt_kv_view *out, struct rt_error *err)
{
    const bool quantised = rt_kv_is_quantised(format);
    const int64_t unit = quantised ? 1 : format->element_bytes, multiple = quantised ? 16 : 8;
    const int64_t packed_page = (int64_t)rt_kv_page_bytes(format, s->page_size) / unit;
    int64_t page = 0, token = 0;
    RT_TRY(rt_ops_stride(op, "kv_page_stride", kv_page_stride, packed_page, multiple, &page, err));
    RT_TRY(rt_ops_stride(op, "kv_token_stride", kv_token_stride, format->row_bytes / unit, multiple,
                         &token, err));
    *out = (struct rt_kv_view){
        .base = rt_ops_pointer(kv),
        .table = rt_ops_pointer(table),
        .page_stride_bytes = page * unit,
        .token_stride_bytes = token * unit,
        .page_size = s->page_size,
        .max_blocks = s->max_blocks,
        .pages = s->pages,
        .token_bytes = format->row_bytes,
    };
    return RT_OK;
}

enum rt_status rt_ops_check_kv_scale(const char *op, const struct rt_kv_format *format,
                                     float kv_scale, struct rt_error *err)
{
    /* Written so that NaN fails too. */
    if (format->scale == RT_KV_SCALE_TENSOR)
        RT_REQUIRE(isfinite(kv_scale) && kv_scale > 0, err, RT_ERR_INVALID,
                   "%s: kv_scale %g is not a finite number above 0, which %s needs", op,
                   (double)kv_scale, format->name);
    else
        RT_REQUIRE(kv_scale == 0, err, RT_ERR_INVALID,
                   "%s: kv_scale %g with layout %s, which has none: must be 0", op,
                   (double)kv_scale, format->name);
    return RT_OK;
}

/* ---- the operators --------------------------------------------------------------------------- */

enum rt_status rt_ops_schedule_work(const struct rt_kernels *k, const struct rt_ops_choice *choice,
                                    const struct rt_mla_schedule_args *args, struct rt_work *out,
                                    struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {
        {"lengths", args->lengths, RT_ALIGN_INT32},
        {"schedule.parts", args->schedule.parts, RT_ALIGN_VECTOR},
        {"schedule.num_splits", args->schedule.num_splits, RT_ALIGN_INT32}};
    RT_TRY(RT_CHECK_POINTERS("rt_mla_schedule", pointers, err));
    RT_TRY(rt_ops_schedule_memory(args, choice, err));
    struct rt_schedule_params p = {
        .rows = rows_view(&args->shape),
        .schedule = schedule_view(&args->schedule, choice),
        .overhead_blocks = choice->attend.overhead_blocks,
        .min_blocks = choice->attend.min_blocks,
    };
    p.rows.length = rt_ops_pointer(args->lengths);
    return rt_ops_named("rt_mla_schedule",
                        rt_op_build(k, &choice->schedule, &p, sizeof(p), out, err), err);
}

static const char append[] = "rt_mla_append", decode[] = "rt_mla_decode";

/* One way to say where tokens go, and not two. */
static enum rt_status check_places(const struct rt_mla_append_args *args, struct rt_error *err)
{
    RT_REQUIRE(!args->slot_mapping || (!args->block_table && !args->positions), err, RT_ERR_INVALID,
               "rt_mla_append: slot_mapping = 0x%" PRIx64 " beside block_table = 0x%" PRIx64
               " and positions = 0x%" PRIx64 ": either the one or the other two",
               args->slot_mapping, args->block_table, args->positions);
    if (args->slot_mapping) {
        const struct rt_named_pointer slots[] = {
            {"slot_mapping", args->slot_mapping, sizeof(int64_t)}};
        return RT_CHECK_POINTERS(append, slots, err);
    }
    const struct rt_named_pointer positions[] = {{"positions", args->positions, RT_ALIGN_INT32}};
    RT_REQUIRE(args->block_table || args->positions, err, RT_ERR_INVALID,
               "rt_mla_append: slot_mapping, block_table and positions are null: either the first "
               "or the other two");
    RT_TRY(rt_ops_check_table(append, &args->shape, args->block_table, err));
    return RT_CHECK_POINTERS(append, positions, err);
}

static enum rt_status check_append(const struct rt_mla_append_args *args, struct rt_error *err)
{
    RT_TRY(RT_CHECK_RESERVED("rt_mla_append", args, reserved, err));
    RT_TRY(RT_CHECK_RESERVED("rt_mla_append", args, reserved_too, err));
    const struct rt_named_pointer rows[] = {{"latent", args->latent, RT_ALIGN_VECTOR},
                                            {"kv", args->kv, RT_ALIGN_VECTOR}};
    RT_TRY(RT_CHECK_POINTERS(append, rows, err));
    RT_TRY(check_places(args, err));
    const int64_t strides[] = {args->rope_row_stride, args->rope_token_stride, 0};
    return check_second(append, "rope", args->rope, strides, &args->shape, err);
}

/* Rows and places as the step's own append has them: the general one begins likewise. */
static enum rt_status append_params(const struct rt_ops_choice *choice,
                                    const struct rt_mla_append_args *args,
                                    struct rt_append_params *p, struct rt_error *err)
{
    const struct rt_mla_shape *s = &args->shape;
    const int64_t width = args->rope ? s->d_v : s->d_qk, q_len = s->query_len;
    *p = (struct rt_append_params){.latent.base = rt_ops_pointer(args->latent),
                                   .rows = rows_view(s)};
    p->rows.position = rt_ops_pointer(args->positions);
    RT_TRY(
        RT_STRIDE(append, args, latent_row_stride, q_len * width, 8, &p->latent.row_stride, err));
    RT_TRY(RT_STRIDE(append, args, latent_token_stride, width, 8, &p->latent.token_stride, err));
    return rt_ops_kv_view(append, s, &choice->kv, args->kv, args->block_table, args->kv_page_stride,
                          args->kv_token_stride, &p->kv, err);
}

enum rt_status rt_ops_append_work(const struct rt_kernels *k, const struct rt_ops_choice *choice,
                                  const struct rt_mla_append_args *args, struct rt_work *out,
                                  struct rt_error *err)
{
    const struct rt_mla_shape *s = &args->shape;
    const int64_t width = s->d_qk - s->d_v, q_len = s->query_len;
    struct rt_append_general_params p = {.slots = rt_ops_pointer(args->slot_mapping),
                                         .rope.base = rt_ops_pointer(args->rope)};
    RT_TRY(check_append(args, err));
    RT_TRY(append_params(choice, args, &p.append, err));
    if (args->rope) {
        p.rope_bytes = (uint32_t)(sizeof(uint16_t) * (size_t)width);
        RT_TRY(RT_STRIDE(append, args, rope_row_stride, q_len * width, 8, &p.rope.row_stride, err));
        RT_TRY(RT_STRIDE(append, args, rope_token_stride, width, 8, &p.rope.token_stride, err));
    }
    const struct rt_append_quant_params quantised = {
        .general = p,
        .quant = rt_quant_view_make(&choice->kv, &p.append.kv, args->kv_scale),
        .d_qk = s->d_qk,
    };
    RT_TRY(rt_ops_check_kv_scale(append, &choice->kv, args->kv_scale, err));
    RT_TRY(rt_ops_append_memory(args, &quantised, err));
    if (rt_kv_is_quantised(&choice->kv))
        return rt_ops_named(
            append, rt_op_build(k, &choice->append_quant, &quantised, sizeof(quantised), out, err),
            err);
    if (!args->rope && !args->slot_mapping)
        return rt_ops_named(
            append, rt_op_build(k, &choice->append, &p.append, sizeof(p.append), out, err), err);
    return rt_ops_named(append, rt_op_build(k, &choice->append_general, &p, sizeof(p), out, err),
                        err);
}

static enum rt_status check_decode(const struct rt_mla_decode_args *args, struct rt_error *err)
{
    RT_TRY(RT_CHECK_RESERVED(decode, args, reserved, err));
    RT_REQUIRE(isfinite(args->softmax_scale) && args->softmax_scale > 0, err, RT_ERR_INVALID,
               "rt_mla_decode: softmax_scale %g is not a positive number; it is "
               "(qk_nope_head_dim + qk_rope_head_dim)^-0.5, times the model's YaRN factor",
               (double)args->softmax_scale);
    RT_REQUIRE(args->lse_base == RT_LSE_NATURAL || args->lse_base == RT_LSE_BASE2, err,
               RT_ERR_INVALID,
               "rt_mla_decode: lse_base %d is not RT_LSE_NATURAL, %d, or RT_LSE_BASE2, %d",
               (int)args->lse_base, RT_LSE_NATURAL, RT_LSE_BASE2);
    const struct rt_named_pointer pointers[] = {
        {"q", args->q, RT_ALIGN_VECTOR},
        {"kv", args->kv, RT_ALIGN_VECTOR},
        {"lengths", args->lengths, RT_ALIGN_INT32},
        {"schedule.parts", args->schedule.parts, RT_ALIGN_VECTOR},
        {"schedule.num_splits", args->schedule.num_splits, RT_ALIGN_INT32},
        {"partial_out", args->partial_out, RT_ALIGN_VECTOR},
        {"partial_lse", args->partial_lse, RT_ALIGN_FLOAT32},
        {"out", args->out, RT_ALIGN_VECTOR},
        {"lse", args->lse, RT_ALIGN_FLOAT32},
        {"sink", args->sink ? args->sink : args->lse, RT_ALIGN_FLOAT32}};
    const int64_t rope[] = {args->q_rope_row_stride, args->q_rope_token_stride,
                            args->q_rope_head_stride};
    RT_TRY(rt_ops_check_table(decode, &args->shape, args->block_table, err));
    RT_TRY(check_second(decode, "q_rope", args->q_rope, rope, &args->shape, err));
    return RT_CHECK_POINTERS(decode, pointers, err);
}

/* Of one tensor, or of two. */
static enum rt_status q_views(const struct rt_mla_decode_args *args, struct rt_attend_params *p,
                              struct rt_error *err)
{
    const struct rt_mla_shape *s = &args->shape;
    const int64_t heads = s->heads, q_len = s->query_len, rest = s->d_qk - s->d_v;
    const int64_t width = args->q_rope ? s->d_v : s->d_qk;
    p->q.base = rt_ops_pointer(args->q);
    RT_TRY(RT_STRIDE(decode, args, q_row_stride, q_len * heads * width, 8, &p->q.row_stride, err));
    RT_TRY(RT_STRIDE(decode, args, q_token_stride, heads * width, 8, &p->q.token_stride, err));
    RT_TRY(RT_STRIDE(decode, args, q_head_stride, width, 8, &p->q.head_stride, err));
    if (!args->q_rope)
        return RT_OK;
    struct rt_heads_view *rope = &p->q_rope;
    rope->base = rt_ops_pointer(args->q_rope);
    RT_TRY(RT_STRIDE(decode, args, q_rope_row_stride, q_len * heads * rest, 8, &rope->row_stride,
                     err));
    RT_TRY(RT_STRIDE(decode, args, q_rope_token_stride, heads * rest, 8, &rope->token_stride, err));
    return RT_STRIDE(decode, args, q_rope_head_stride, rest, 8, &rope->head_stride, err);
}

enum rt_status rt_ops_attend_params(const struct rt_mla_decode_args *args,
                                    const struct rt_ops_choice *choice,
                                    struct rt_attend_quant_params *out, struct rt_error *err)
{
    struct rt_attend_params *p = &out->attend;
    RT_TRY(check_decode(args, err));
    RT_TRY(rt_ops_check_kv_scale(decode, &choice->kv, args->kv_scale, err));
    const struct rt_mla_shape *s = &args->shape;
    const int64_t heads = s->heads, q_len = s->query_len;
    *out = (struct rt_attend_quant_params){.quant = {0}};
    *p = (struct rt_attend_params){
        .out = {.base = rt_ops_pointer(args->out)},
        .lse = {.base = rt_ops_pointer(args->lse)},
        .rows = rows_view(s),
        .schedule = schedule_view(&args->schedule, choice),
        .partials = {.out = rt_ops_pointer(args->partial_out),
                     .lse = rt_ops_pointer(args->partial_lse)},
        .scale = args->softmax_scale,
        .heads = s->heads,
        .d_qk = s->d_qk,
        .d_v = s->d_v,
        .causal = s->causal,
        .lse_base2 = args->lse_base == RT_LSE_BASE2,
        .sink = rt_ops_pointer(args->sink),
    };
    p->rows.length = rt_ops_pointer(args->lengths);
    RT_TRY(q_views(args, p, err));
    RT_TRY(RT_STRIDE(decode, args, out_row_stride, q_len * heads * s->d_v, 8, &p->out.row_stride,
                     err));
    RT_TRY(RT_STRIDE(decode, args, out_token_stride, heads * s->d_v, 8, &p->out.token_stride, err));
    RT_TRY(RT_STRIDE(decode, args, out_head_stride, s->d_v, 8, &p->out.head_stride, err));
    RT_TRY(RT_STRIDE(decode, args, lse_row_stride, q_len * heads, 1, &p->lse.row_stride, err));
    RT_TRY(RT_STRIDE(decode, args, lse_token_stride, heads, 1, &p->lse.token_stride, err));
    RT_TRY(RT_STRIDE(decode, args, lse_head_stride, 1, 1, &p->lse.head_stride, err));
    RT_TRY(rt_ops_kv_view(decode, s, &choice->kv, args->kv, args->block_table, args->kv_page_stride,
                          args->kv_token_stride, &p->kv, err));
    if (rt_kv_is_quantised(&choice->kv))
        out->quant = rt_quant_view_make(&choice->kv, &p->kv, args->kv_scale);
    return rt_ops_decode_memory(args, choice, out, err);
}

enum rt_status rt_ops_decode_work(const struct rt_kernels *k, const struct rt_ops_choice *choice,
                                  const struct rt_attend_quant_params *p,
                                  struct rt_decode_work *out, struct rt_error *err)
{
    const struct rt_attend_params *attend = &p->attend;
    const struct rt_reduce_params reduce = {
        .partials = attend->partials,
        .schedule = attend->schedule,
        .rows = attend->rows,
        .out = attend->out,
        .lse = attend->lse,
        .heads = attend->heads,
        .d_v = attend->d_v,
        .lse_base2 = attend->lse_base2,
        .sink = attend->sink,
    };
    /* An attend_quant's parameters begin with attend's. */
    const size_t attend_bytes = rt_kv_is_quantised(&choice->kv) ? sizeof(*p) : sizeof(*attend);
    RT_TRY(rt_ops_named(decode, rt_op_build(k, &choice->attend, p, attend_bytes, &out->attend, err),
                        err));
    return rt_ops_named(
        decode, rt_op_build(k, &choice->reduce, &reduce, sizeof(reduce), &out->reduce, err), err);
}
