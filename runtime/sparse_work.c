/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/sparse_work.h"

#include "common/math.h"
#include "kernels/abi/reduce.h"
#include "kernels/counted_view.h"
#include "kernels/quant_view.h"
#include "runtime/model_work.h"
#include "runtime/ops_check.h"
#include "runtime/ops_work.h"

#include <inttypes.h>
#include <math.h>

static const char schedule_op[] = "rt_mla_sparse_schedule", decode_op[] = "rt_mla_sparse_decode";

/* ---- the shape ------------------------------------------------------------------------------- */

static enum rt_status choose(const char *op, const struct rt_device_caps *caps,
                             const struct rt_mla_sparse_shape *s, struct rt_sparse_choice *out,
                             struct rt_error *err)
{
    RT_TRY(rt_ops_named(op, rt_ops_format(s->kv_layout, s->d_qk, s->d_v, &out->kv, err), err));
    const enum rt_op_id attend =
        rt_kv_is_quantised(&out->kv) ? RT_OP_SPARSE_ATTEND_QUANT : RT_OP_SPARSE_ATTEND;
    const struct rt_op_request request = {.caps = caps,
                                          .kv = &out->kv,
                                          .heads = s->heads,
                                          .q_len = s->query_len,
                                          .backend = s->backend};
    RT_TRY(rt_ops_named(op, rt_op_resolve(attend, &request, &out->attend, err), err));
    RT_TRY(
        rt_ops_named(op, rt_op_resolve(RT_OP_SPARSE_SCHEDULE, &request, &out->schedule, err), err));
    return rt_ops_named(op, rt_op_resolve(RT_OP_REDUCE, &request, &out->reduce, err), err);
}

enum rt_status rt_sparse_choose(const char *op, const struct rt_device_caps *caps,
                                const struct rt_mla_sparse_shape *s, struct rt_sparse_choice *out,
                                struct rt_error *err)
{
    RT_REQUIRE(s->struct_size == sizeof(*s), err, RT_ERR_INVALID,
               "%s: shape.struct_size is %u, not %zu", op, s->struct_size, sizeof(*s));
    RT_TRY(rt_ops_check_count(op, "query_len", s->query_len, 1, RT_MAX_QUERY_LEN, err));
    RT_REQUIRE(s->batch >= 1 && s->batch <= RT_MAX_BATCH / s->query_len, err, RT_ERR_INVALID,
               "%s: batch %u of query_len %u is not 1..%u", op, s->batch, s->query_len,
               RT_MAX_BATCH / s->query_len);
    RT_TRY(rt_ops_check_count(op, "heads", s->heads, 1, RT_MAX_HEADS, err));
    return choose(op, caps, s, out, err);
}

static uint32_t tokens_of(const struct rt_mla_sparse_shape *s)
{
    return s->batch * s->query_len;
}

void rt_sparse_workspace(const struct rt_mla_sparse_shape *s, const struct rt_sparse_choice *choice,
                         struct rt_mla_sparse_workspace *out)
{
    const uint32_t parts = choice->attend.parts;
    const uint64_t rows = rt_max_split_slots(&choice->attend, tokens_of(s), UINT32_MAX) * s->heads;
    out->parts = parts;
    out->part_bytes = parts * sizeof(struct rt_part);
    out->num_splits_bytes = (tokens_of(s) + UINT64_C(1)) * sizeof(int32_t);
    out->lengths_bytes = tokens_of(s) * sizeof(int32_t);
    out->partial_out_bytes = rows * s->d_v * sizeof(float);
    out->partial_lse_bytes = rows * sizeof(float);
    out->kernel = choice->attend.entry;
    out->own_plan = rt_attend_counts(&choice->attend, tokens_of(s));
}

/* ---- the two lists --------------------------------------------------------------------------- */

/* What messages call a list, and all of it that is looked at by a check that others have, too. */
struct list_names {
    const char *list, *indices, *counts, *block_table, *kv;
    const char *kv_page_stride, *kv_token_stride, *indices_token_stride;
};
#define LIST_NAMES(list)                                                                           \
    {                                                                                              \
        list, list ".indices", list ".counts", list ".block_table", list ".kv",                    \
            list ".kv_page_stride", list ".kv_token_stride", list ".indices_token_stride"          \
    }
static const struct list_names keys_names = LIST_NAMES("keys"), extra_names = LIST_NAMES("extra");

/* One of the two, of an operator. */
struct named_keys {
    const char *op;
    const struct list_names *names;
    const struct rt_mla_sparse_keys *keys;
    bool may_be_none;
};

static enum rt_status check_list(const struct named_keys *n, struct rt_error *err)
{
    const struct rt_mla_sparse_keys *k = n->keys;
    const bool by_position = k->entries == RT_SPARSE_POSITIONS;
    RT_REQUIRE(k->struct_size == sizeof(*k), err, RT_ERR_INVALID,
               "%s: %s.struct_size is %u, not %zu", n->op, n->names->list, k->struct_size,
               sizeof(*k));
    RT_REQUIRE(!k->reserved, err, RT_ERR_INVALID, "%s: %s.reserved is %u, not 0", n->op,
               n->names->list, k->reserved);
    RT_REQUIRE(k->topk >= 1 && k->topk <= RT_MAX_LENGTH, err, RT_ERR_INVALID,
               "%s: %s.topk %u is not 1..%d", n->op, n->names->list, k->topk, RT_MAX_LENGTH);
    RT_REQUIRE(by_position || k->entries == RT_SPARSE_SLOTS, err, RT_ERR_INVALID,
               "%s: %s.entries %d is not RT_SPARSE_SLOTS, %d, or RT_SPARSE_POSITIONS, %d", n->op,
               n->names->list, (int)k->entries, RT_SPARSE_SLOTS, RT_SPARSE_POSITIONS);
    RT_REQUIRE(k->page_size >= 1 && k->page_size <= RT_MAX_LENGTH, err, RT_ERR_INVALID,
               "%s: %s.page_size %u is not 1..%d", n->op, n->names->list, k->page_size,
               RT_MAX_LENGTH);
    RT_REQUIRE(k->pages >= 1 && k->pages <= INT32_MAX, err, RT_ERR_INVALID,
               "%s: %s.pages %u is not 1..%d", n->op, n->names->list, k->pages, INT32_MAX);
    RT_REQUIRE(by_position ? k->max_blocks >= 1 && k->max_blocks <= RT_MAX_LENGTH && k->block_table
                           : !k->max_blocks && !k->block_table,
               err, RT_ERR_INVALID,
               "%s: %s.entries are %s, with block_table 0x%" PRIx64 " of %u columns: positions "
               "have one of 1..%d, slots none",
               n->op, n->names->list, by_position ? "positions" : "slots", k->block_table,
               k->max_blocks, RT_MAX_LENGTH);
    RT_REQUIRE(k->counts_by_request <= 1, err, RT_ERR_INVALID,
               "%s: %s.counts_by_request %u is not 0 or 1", n->op, n->names->list,
               k->counts_by_request);
    return RT_OK;
}

static enum rt_status list_view(const struct named_keys *n, uint32_t query_len,
                                struct rt_sparse_view *out, struct rt_error *err)
{
    const struct rt_mla_sparse_keys *k = n->keys;
    if (n->may_be_none && !k->topk) {
        const bool is_zero = !k->kv && !k->indices && !k->counts && !k->block_table;
        RT_REQUIRE(is_zero, err, RT_ERR_INVALID, "%s: %s.topk is 0, with addresses", n->op,
                   n->names->list);
        return RT_OK;
    }
    RT_TRY(check_list(n, err));
    const struct rt_named_pointer pointers[] = {
        {n->names->indices, k->indices, RT_ALIGN_INT32},
        {n->names->counts, k->counts ? k->counts : k->indices, RT_ALIGN_INT32},
        {n->names->block_table, k->block_table ? k->block_table : k->indices, RT_ALIGN_INT32}};
    RT_TRY(RT_CHECK_POINTERS(n->op, pointers, err));
    *out = (struct rt_sparse_view){.index = rt_ops_pointer(k->indices),
                                   .count = rt_ops_pointer(k->counts),
                                   .topk = k->topk,
                                   .count_tokens = k->counts_by_request ? query_len : 1,
                                   .by_position = k->entries == RT_SPARSE_POSITIONS};
    RT_TRY(rt_ops_stride(n->op, n->names->indices_token_stride, k->indices_token_stride, k->topk, 1,
                         &out->token_stride, err));
    RT_REQUIRE(out->token_stride >= k->topk, err, RT_ERR_INVALID,
               "%s: %s %" PRId64 " is below topk %u", n->op, n->names->indices_token_stride,
               out->token_stride, k->topk);
    return RT_OK;
}

static enum rt_status cache_view(const struct named_keys *n, const struct rt_kv_format *format,
                                 struct rt_kv_view *out, struct rt_error *err)
{
    const struct rt_mla_sparse_keys *k = n->keys;
    const struct rt_named_pointer pointers[] = {{n->names->kv, k->kv, RT_ALIGN_VECTOR}};
    const bool quantised = rt_kv_is_quantised(format);
    const int64_t unit = quantised ? 1 : format->element_bytes, multiple = quantised ? 16 : 8;
    const int64_t packed_page = (int64_t)rt_kv_page_bytes(format, k->page_size) / unit;
    int64_t page = 0, token = 0;
    if (!k->topk)
        return RT_OK;
    RT_TRY(RT_CHECK_POINTERS(n->op, pointers, err));
    RT_TRY(rt_ops_stride(n->op, n->names->kv_page_stride, k->kv_page_stride, packed_page, multiple,
                         &page, err));
    RT_TRY(rt_ops_stride(n->op, n->names->kv_token_stride, k->kv_token_stride,
                         format->row_bytes / unit, multiple, &token, err));
    *out = (struct rt_kv_view){.base = rt_ops_pointer(k->kv),
                               .table = rt_ops_pointer(k->block_table),
                               .page_stride_bytes = page * unit,
                               .token_stride_bytes = token * unit,
                               .page_size = k->page_size,
                               .max_blocks = k->max_blocks,
                               .pages = k->pages,
                               .token_bytes = format->row_bytes};
    return RT_OK;
}

/* ---- the operators --------------------------------------------------------------------------- */

static struct rt_rows_view rows_view(const struct rt_mla_sparse_args *args)
{
    return (struct rt_rows_view){
        .length = rt_ops_pointer(args->lengths), .count = tokens_of(&args->shape), .q_len = 1};
}

static struct rt_schedule_view schedule_view(const struct rt_mla_sparse_args *args,
                                             const struct rt_sparse_choice *choice)
{
    return (struct rt_schedule_view){.parts = rt_ops_pointer(args->schedule.parts),
                                     .num_splits = rt_ops_pointer(args->schedule.num_splits),
                                     .part_count = choice->attend.parts};
}

static enum rt_status check_schedule(const char *op, const struct rt_mla_sparse_args *args,
                                     struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {
        {"schedule.parts", args->schedule.parts, RT_ALIGN_VECTOR},
        {"schedule.num_splits", args->schedule.num_splits, RT_ALIGN_INT32},
        {"lengths", args->lengths, RT_ALIGN_INT32}};
    return RT_CHECK_POINTERS(op, pointers, err);
}

enum rt_status rt_sparse_schedule_work(const struct rt_kernels *k,
                                       const struct rt_sparse_choice *choice,
                                       const struct rt_mla_sparse_args *args, struct rt_work *out,
                                       struct rt_error *err)
{
    const struct named_keys keys = {schedule_op, &keys_names, &args->keys, false};
    const struct named_keys extra = {schedule_op, &extra_names, &args->extra, true};
    const uint32_t query_len = args->shape.query_len;
    struct rt_sparse_schedule_params p = {
        .schedule = {.schedule = schedule_view(args, choice),
                     .overhead_blocks = choice->attend.overhead_blocks,
                     .min_blocks = choice->attend.min_blocks,
                     .rows = rows_view(args)},
        .length = rt_ops_pointer(args->lengths),
        .q_len = query_len,
    };
    RT_TRY(check_schedule(schedule_op, args, err));
    RT_TRY(list_view(&keys, query_len, &p.keys, err));
    RT_TRY(list_view(&extra, query_len, &p.extra, err));
    RT_TRY(rt_sparse_schedule_memory(args, choice, err));
    return rt_ops_named(schedule_op, rt_op_build(k, &choice->schedule, &p, sizeof(p), out, err),
                        err);
}

/* All of the schedule is left out: decode makes its own. */
static bool has_no_schedule(const struct rt_mla_sparse_args *args)
{
    return !args->schedule.parts && !args->schedule.num_splits && !args->lengths;
}

static enum rt_status check_own_plan(const struct rt_mla_sparse_args *args,
                                     const struct rt_variant *attend, struct rt_error *err)
{
    const uint32_t tokens = tokens_of(&args->shape);
    RT_REQUIRE(rt_attend_counts(attend, tokens), err, RT_ERR_INVALID,
               "%s: without a schedule, which %s of %u query tokens needs: workspace.own_plan is 0",
               decode_op, attend->entry, tokens);
    return RT_OK;
}

static enum rt_status check_decode(const struct rt_mla_sparse_args *args,
                                   const struct rt_sparse_choice *choice, struct rt_error *err)
{
    const struct rt_kv_format *format = &choice->kv;
    RT_TRY(rt_ops_check_kv_scale(decode_op, format, args->kv_scale, err));
    RT_REQUIRE(isfinite(args->softmax_scale) && args->softmax_scale > 0, err, RT_ERR_INVALID,
               "%s: softmax_scale %g is not a positive number; it is "
               "(qk_nope_head_dim + qk_rope_head_dim)^-0.5, times the model's YaRN factor",
               decode_op, (double)args->softmax_scale);
    RT_REQUIRE(args->lse_base == RT_LSE_NATURAL || args->lse_base == RT_LSE_BASE2, err,
               RT_ERR_INVALID, "%s: lse_base %d is not RT_LSE_NATURAL, %d, or RT_LSE_BASE2, %d",
               decode_op, (int)args->lse_base, RT_LSE_NATURAL, RT_LSE_BASE2);
    const struct rt_named_pointer pointers[] = {
        {"q", args->q, RT_ALIGN_VECTOR},
        {"partial_out", args->partial_out, RT_ALIGN_VECTOR},
        {"partial_lse", args->partial_lse, RT_ALIGN_FLOAT32},
        {"out", args->out, RT_ALIGN_VECTOR},
        {"lse", args->lse, RT_ALIGN_FLOAT32},
        {"q_rope", args->q_rope ? args->q_rope : args->q, RT_ALIGN_VECTOR},
        {"sink", args->sink ? args->sink : args->lse, RT_ALIGN_FLOAT32}};
    RT_REQUIRE(!args->q_rope || args->shape.d_qk > args->shape.d_v, err, RT_ERR_INVALID,
               "%s: q_rope = 0x%" PRIx64 ", but d_v has all %u elements", decode_op, args->q_rope,
               args->shape.d_v);
    RT_REQUIRE(args->q_rope || (!args->q_rope_row_stride && !args->q_rope_token_stride &&
                                !args->q_rope_head_stride),
               err, RT_ERR_INVALID,
               "%s: q_rope is null, its strides are %" PRId64 ", %" PRId64 " and %" PRId64,
               decode_op, args->q_rope_row_stride, args->q_rope_token_stride,
               args->q_rope_head_stride);
    RT_TRY(has_no_schedule(args) ? check_own_plan(args, &choice->attend, err)
                                 : check_schedule(decode_op, args, err));
    return RT_CHECK_POINTERS(decode_op, pointers, err);
}

/* A tensor of heads' vectors of `width` elements: its strides of 0 become the packed ones. */
#define HEADS_VIEW(args, name, width, multiple, view, err)                                         \
    do {                                                                                           \
        const int64_t head_ = (width), token_ = (args)->shape.heads * head_;                       \
        (view)->base = rt_ops_pointer((args)->name);                                               \
        RT_TRY(RT_STRIDE(decode_op, (args), name##_row_stride, (args)->shape.query_len *token_,    \
                         (multiple), &(view)->row_stride, (err)));                                 \
        RT_TRY(RT_STRIDE(decode_op, (args), name##_token_stride, token_, (multiple),               \
                         &(view)->token_stride, (err)));                                           \
        RT_TRY(RT_STRIDE(decode_op, (args), name##_head_stride, head_, (multiple),                 \
                         &(view)->head_stride, (err)));                                            \
    } while (0)

static enum rt_status data_views(const struct rt_mla_sparse_args *args, struct rt_attend_params *p,
                                 struct rt_error *err)
{
    const struct rt_mla_sparse_shape *s = &args->shape;
    HEADS_VIEW(args, q, args->q_rope ? s->d_v : s->d_qk, 8, &p->q, err);
    HEADS_VIEW(args, out, s->d_v, 8, &p->out, err);
    HEADS_VIEW(args, lse, 1, 1, &p->lse, err);
    if (args->q_rope)
        HEADS_VIEW(args, q_rope, s->d_qk - s->d_v, 8, &p->q_rope, err);
    return RT_OK;
}

static enum rt_status decode_params(const struct rt_mla_sparse_args *args,
                                    const struct rt_sparse_choice *choice,
                                    struct rt_sparse_attend_quant_params *all, struct rt_error *err)
{
    struct rt_sparse_attend_params *p = &all->sparse;
    const struct named_keys keys = {decode_op, &keys_names, &args->keys, false};
    const struct named_keys extra = {decode_op, &extra_names, &args->extra, true};
    const struct rt_mla_sparse_shape *s = &args->shape;
    RT_TRY(check_decode(args, choice, err));
    *p = (struct rt_sparse_attend_params){
        .attend = {.rows = rows_view(args),
                   .schedule = schedule_view(args, choice),
                   .partials = {.out = rt_ops_pointer(args->partial_out),
                                .lse = rt_ops_pointer(args->partial_lse)},
                   .scale = args->softmax_scale,
                   .heads = s->heads,
                   .d_qk = s->d_qk,
                   .d_v = s->d_v,
                   .lse_base2 = args->lse_base == RT_LSE_BASE2,
                   .sink = rt_ops_pointer(args->sink)},
        .q_len = s->query_len,
    };
    RT_TRY(data_views(args, &p->attend, err));
    RT_TRY(list_view(&keys, s->query_len, &p->keys, err));
    RT_TRY(list_view(&extra, s->query_len, &p->extra, err));
    RT_TRY(cache_view(&keys, &choice->kv, &p->attend.kv, err));
    RT_TRY(cache_view(&extra, &choice->kv, &p->extra_kv, err));
    if (has_no_schedule(args))
        p->counted = rt_counted_view_make(&choice->attend, &p->keys, &p->extra, NULL, s->query_len);
    all->quant = rt_quant_view_make(&choice->kv, &p->attend.kv, args->kv_scale);
    all->extra_quant = rt_quant_view_make(&choice->kv, &p->extra_kv, args->kv_scale);
    return rt_sparse_decode_memory(args, choice, p, err);
}

enum rt_status rt_sparse_decode_work(const struct rt_kernels *k,
                                     const struct rt_sparse_choice *choice,
                                     const struct rt_mla_sparse_args *args,
                                     struct rt_sparse_decode_work *out, struct rt_error *err)
{
    struct rt_sparse_attend_quant_params all;
    RT_TRY(decode_params(args, choice, &all, err));
    /* A sparse_attend_quant's parameters begin with sparse_attend's. */
    const struct rt_sparse_attend_params p = all.sparse;
    const size_t attend_bytes = rt_kv_is_quantised(&choice->kv) ? sizeof(all) : sizeof(p);
    const struct rt_reduce_params reduce = {
        .partials = p.attend.partials,
        .schedule = p.attend.schedule,
        .rows = p.attend.rows,
        .out = p.attend.out,
        .lse = p.attend.lse,
        .heads = p.attend.heads,
        .d_v = p.attend.d_v,
        .lse_base2 = p.attend.lse_base2,
        .sink = p.attend.sink,
        .row_tokens = p.q_len,
        .counted = p.counted,
    };
    RT_TRY(rt_ops_named(
        decode_op, rt_op_build(k, &choice->attend, &all, attend_bytes, &out->attend, err), err));
    out->is_whole =
        p.counted.min_blocks > 0 &&
        rt_attend_is_whole(&choice->attend, p.attend.rows.count, p.keys.topk + p.extra.topk);
    if (out->is_whole)
        return RT_OK;
    return rt_ops_named(decode_op,
                        rt_op_build(k, &choice->reduce, &reduce, sizeof(reduce), &out->reduce, err),
                        err);
}
