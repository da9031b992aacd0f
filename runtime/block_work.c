/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/block_work.h"

#include "kernels/abi/input_norm.h"
#include "kernels/abi/quant.h"
#include "kernels/quant_view.h"
#include "runtime/model_work.h"
#include "runtime/ops_check.h"
#include "runtime/ops_memory.h"

#include <inttypes.h>
#include <math.h>

/* ---- norms ----------------------------------------------------------------------------------- */

/* Written so that NaN fails too. */
static enum rt_status check_factor(const char *op, const char *name, const char *field, float value,
                                   bool negative, struct rt_error *err)
{
    RT_REQUIRE(isfinite(value) && (negative || value >= 0), err, RT_ERR_INVALID,
               "%s: %s.%s %g is not a finite number%s", op, name, field, (double)value,
               negative ? "" : ", 0 or above");
    return RT_OK;
}

enum rt_status rt_ops_norm_view(const char *op, const char *name, const struct rt_rms_norm *norm,
                                struct rt_norm_view *out, struct rt_error *err)
{
    RT_REQUIRE(norm->weight % RT_ALIGN_VECTOR == 0, err, RT_ERR_INVALID,
               "%s: %s.weight = 0x%" PRIx64 " is not %u-byte aligned", op, name, norm->weight,
               RT_ALIGN_VECTOR);
    RT_TRY(check_factor(op, name, "eps", norm->eps, false, err));
    RT_TRY(check_factor(op, name, "offset", norm->offset, true, err));
    RT_TRY(check_factor(op, name, "scale", norm->scale, true, err));
    *out = (struct rt_norm_view){.weight = rt_ops_pointer(norm->weight),
                                 .eps = norm->eps,
                                 .offset = norm->offset,
                                 .scale = norm->scale == 0.0f ? 1.0f : norm->scale,
                                 .width = norm->width};
    return RT_OK;
}

/* Before a stride is made of it. */
static enum rt_status check_width(const char *op, const char *name, uint32_t width, uint32_t most,
                                  struct rt_error *err)
{
    RT_REQUIRE(width >= 8 && width <= most && width % 8 == 0, err, RT_ERR_INVALID,
               "%s: %s.width %u is not a multiple of 8 from 8 to %u", op, name, width, most);
    return RT_OK;
}

/* ---- input_norm ------------------------------------------------------------------------------ */

static struct rt_strided tokens(const char *name, uint64_t address,
                                const struct rt_input_norm_params *p)
{
    const uint64_t number = p->is_f32 ? sizeof(float) : sizeof(uint16_t);
    return rt_strided_vectors(name, address, p->tokens, p->norm.width, p->stride, number, "stride");
}

/* With `first` the residual may be hidden, which is written then, or nowhere. */
void rt_ops_input_norm_operands(const struct rt_mla_input_norm_args *args,
                                const struct rt_input_norm_params *p, struct rt_operands *o)
{
    const bool same = args->first && args->residual == args->hidden;
    rt_operands_writes(o, tokens("normed", args->normed, p));
    rt_operands_writes(o, tokens("residual", args->residual, p));
    if (!same)
        rt_operands_reads(o, tokens("hidden", args->hidden, p));
    rt_operands_reads(
        o, rt_strided_flat("norm.weight", args->norm.weight, p->norm.width * sizeof(uint16_t)));
}

enum rt_status rt_ops_input_norm_params(const char *op, const struct rt_device_caps *caps,
                                        const struct rt_mla_input_norm_args *args,
                                        struct rt_input_norm_params *out, struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {
        {"hidden", args->hidden, RT_ALIGN_VECTOR},
        {"normed", args->normed, RT_ALIGN_VECTOR},
        {"residual", args->residual ? args->residual : args->hidden, RT_ALIGN_VECTOR}};
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved, err));
    RT_REQUIRE(args->first <= 1, err, RT_ERR_INVALID, "%s: first %u is not 0 or 1", op,
               args->first);
    RT_REQUIRE(args->residual || args->first, err, RT_ERR_INVALID,
               "%s: residual is null, which is for first = 1", op);
    RT_TRY(RT_CHECK_POINTERS(op, pointers, err));
    RT_TRY(check_factor(op, "args", "hidden_scale", args->hidden_scale, true, err));
    *out = (struct rt_input_norm_params){
        .hidden = rt_ops_pointer(args->hidden),
        .residual = rt_ops_pointer(args->residual),
        .normed = rt_ops_pointer(args->normed),
        .tokens = args->tokens,
        .first = args->first,
        .hidden_scale = args->hidden_scale == 0.0f ? 1.0f : args->hidden_scale,
    };
    RT_TRY(rt_ops_precision(op, args->precision, caps, &out->is_f32, err));
    RT_TRY(check_width(op, "norm", args->norm.width, RT_INPUT_NORM_MOST_WIDTH, err));
    RT_TRY(RT_STRIDE(op, args, stride, args->norm.width, 8, &out->stride, err));
    return rt_ops_norm_view(op, "norm", &args->norm, &out->norm, err);
}

enum rt_status rt_ops_input_norm_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                      const struct rt_mla_input_norm_args *args,
                                      struct rt_work *out, struct rt_error *err)
{
    static const char op[] = "rt_mla_input_norm";
    const struct rt_op_request request = {.caps = caps};
    struct rt_variant variant;
    struct rt_input_norm_params p;
    RT_TRY(rt_ops_input_norm_params(op, caps, args, &p, err));
    RT_TRY(rt_op_resolve(RT_OP_INPUT_NORM, &request, &variant, err));
    RT_TRY(rt_ops_named(op, rt_op_build(k, &variant, &p, sizeof(p), out, err), err));
    struct rt_operands o = {.count = 0};
    rt_ops_input_norm_operands(args, &p, &o);
    return rt_operands_check(op, &o, err);
}

/* ---- preattend ------------------------------------------------------------------------------- */

static const char preattend[] = "rt_mla_preattend";

static enum rt_status take_q_a(const struct rt_mla_preattend_args *args,
                               struct rt_preattend_params *p, struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {{"q_a", args->q_a, RT_ALIGN_VECTOR}};
    const int64_t width = args->q_a_norm.width;
    RT_TRY(RT_CHECK_POINTERS(preattend, pointers, err));
    RT_TRY(check_width(preattend, "q_a_norm", args->q_a_norm.width, RT_PREATTEND_MOST_WIDTH, err));
    p->q_a.base = rt_ops_pointer(args->q_a);
    RT_TRY(RT_STRIDE(preattend, args, q_a_row_stride, args->shape.query_len * width, 8,
                     &p->q_a.row_stride, err));
    RT_TRY(RT_STRIDE(preattend, args, q_a_token_stride, width, 8, &p->q_a.token_stride, err));
    return rt_ops_norm_view(preattend, "q_a_norm", &args->q_a_norm, &p->q_a_norm, err);
}

static enum rt_status take_kv_a(const struct rt_mla_preattend_args *args,
                                const struct rt_kv_format *format,
                                struct rt_preattend_quant_params *both, struct rt_error *err)
{
    const struct rt_mla_shape *s = &args->shape;
    struct rt_preattend_params *p = &both->preattend;
    const struct rt_named_pointer pointers[] = {{"kv_a", args->kv_a, RT_ALIGN_VECTOR},
                                                {"kv", args->kv, RT_ALIGN_VECTOR}};
    RT_TRY(RT_CHECK_POINTERS(preattend, pointers, err));
    RT_TRY(rt_ops_check_table(preattend, s, args->block_table, err));
    RT_REQUIRE(args->kv_a_norm.width == s->d_v, err, RT_ERR_INVALID,
               "%s: kv_a_norm.width %u is not d_v, %u", preattend, args->kv_a_norm.width, s->d_v);
    p->kv_a.base = rt_ops_pointer(args->kv_a);
    RT_TRY(RT_STRIDE(preattend, args, kv_a_row_stride, (int64_t)s->query_len * s->d_qk, 8,
                     &p->kv_a.row_stride, err));
    RT_TRY(RT_STRIDE(preattend, args, kv_a_token_stride, s->d_qk, 8, &p->kv_a.token_stride, err));
    RT_TRY(rt_ops_norm_view(preattend, "kv_a_norm", &args->kv_a_norm, &p->kv_a_norm, err));
    RT_TRY(rt_ops_check_kv_scale(preattend, format, args->kv_scale, err));
    RT_TRY(rt_ops_kv_view(preattend, s, format, args->kv, args->block_table, args->kv_page_stride,
                          args->kv_token_stride, &p->kv, err));
    if (rt_kv_is_quantised(format))
        both->quant = rt_quant_view_make(format, &p->kv, args->kv_scale);
    return RT_OK;
}

/* The kernel writes behind the L numbers of a head that are another product's; the caller says
 * where, so they may be in front of any memory of its. */
static enum rt_status take_q(const struct rt_mla_preattend_args *args,
                             struct rt_preattend_params *p, struct rt_error *err)
{
    const struct rt_mla_shape *s = &args->shape;
    const int64_t rope = s->d_qk - s->d_v, width = args->nope_dim + rope;
    const int64_t heads = s->heads, q_len = s->query_len;
    const struct rt_named_pointer pointers[] = {{"q", args->q, RT_ALIGN_VECTOR},
                                                {"q_rope", args->q_rope, RT_ALIGN_VECTOR}};
    RT_TRY(rt_ops_check_pointers(preattend, pointers, rope > 0 ? 2 : 1, err));
    RT_REQUIRE(rope > 0 || !args->q_rope, err, RT_ERR_INVALID,
               "%s: q_rope = 0x%" PRIx64 ", but d_v has all %u elements", preattend, args->q_rope,
               s->d_v);
    p->q_in.base = rt_ops_pointer(args->q);
    RT_TRY(RT_STRIDE(preattend, args, q_row_stride, q_len * heads * width, 8, &p->q_in.row_stride,
                     err));
    RT_TRY(
        RT_STRIDE(preattend, args, q_token_stride, heads * width, 8, &p->q_in.token_stride, err));
    RT_TRY(RT_STRIDE(preattend, args, q_head_stride, width, 8, &p->q_in.head_stride, err));
    if (rope == 0)
        return RT_OK;
    struct rt_heads_view *out = &p->q_out;
    out->base = rt_ops_pointer(args->q_rope - s->d_v * sizeof(uint16_t));
    RT_TRY(RT_STRIDE(preattend, args, q_rope_row_stride, q_len * heads * rope, 8, &out->row_stride,
                     err));
    RT_TRY(
        RT_STRIDE(preattend, args, q_rope_token_stride, heads * rope, 8, &out->token_stride, err));
    return RT_STRIDE(preattend, args, q_rope_head_stride, rope, 8, &out->head_stride, err);
}

static enum rt_status take_rope(const struct rt_mla_preattend_args *args,
                                struct rt_preattend_params *p, struct rt_error *err)
{
    const bool bounded = args->rope_table || args->query_scale;
    const struct rt_named_pointer pointers[] = {
        {"rope_table", args->rope_table, RT_ALIGN_VECTOR},
        {"query_scale", args->query_scale, RT_ALIGN_VECTOR}};
    for (int i = 0; i < 2; i++)
        if (pointers[i].address)
            RT_TRY(rt_ops_check_pointers(preattend, &pointers[i], 1, err));
    RT_REQUIRE(args->rope_order == RT_ROPE_INTERLEAVED || args->rope_order == RT_ROPE_HALF, err,
               RT_ERR_INVALID,
               "%s: rope_order %d is not RT_ROPE_INTERLEAVED, %d, or RT_ROPE_HALF, %d", preattend,
               (int)args->rope_order, RT_ROPE_INTERLEAVED, RT_ROPE_HALF);
    RT_REQUIRE(bounded ? args->rope_capacity >= 1 && args->rope_capacity <= RT_MAX_LENGTH
                       : args->rope_capacity == 0,
               err, RT_ERR_INVALID,
               "%s: rope_capacity %u is not 1..%d, or 0 where rope_table and query_scale are null",
               preattend, args->rope_capacity, RT_MAX_LENGTH);
    p->rope = (struct rt_rope_view){.table = rt_ops_pointer(args->rope_table),
                                    .query_scale = rt_ops_pointer(args->query_scale),
                                    .capacity = args->rope_capacity,
                                    .half_order = args->rope_order == RT_ROPE_HALF};
    return RT_OK;
}

static struct rt_strided of_tokens(const char *name, const struct rt_preattend_params *p,
                                   const struct rt_tokens_view *v, uint32_t width,
                                   const char *row_stride, const char *token_stride)
{
    return (struct rt_strided){.name = name,
                               .address = (uintptr_t)v->base,
                               .bytes = width * sizeof(uint16_t),
                               .count = {p->rows.count, p->rows.q_len},
                               .stride = {(uint64_t)v->row_stride * sizeof(uint16_t),
                                          (uint64_t)v->token_stride * sizeof(uint16_t)},
                               .stride_name = {row_stride, token_stride}};
}

static struct rt_strided of_heads(const char *name, const struct rt_preattend_params *p,
                                  const struct rt_heads_view *v, uint64_t address, uint32_t width,
                                  const char *const stride_name[RT_STRIDED_DIMS])
{
    return (struct rt_strided){.name = name,
                               .address = address,
                               .bytes = width * sizeof(uint16_t),
                               .count = {p->rows.count, p->rows.q_len, p->heads},
                               .stride = {(uint64_t)v->row_stride * sizeof(uint16_t),
                                          (uint64_t)v->token_stride * sizeof(uint16_t),
                                          (uint64_t)v->head_stride * sizeof(uint16_t)},
                               .stride_name = {stride_name[0], stride_name[1], stride_name[2]}};
}

static struct rt_strided of_cache(const struct rt_kv_view *kv)
{
    return (struct rt_strided){
        .name = "kv",
        .address = (uintptr_t)kv->base,
        .bytes = kv->token_bytes,
        .count = {kv->pages, kv->page_size},
        .stride = {(uint64_t)kv->page_stride_bytes, (uint64_t)kv->token_stride_bytes},
        .stride_name = {"kv_page_stride", "kv_token_stride"}};
}

/* Of the part of q: its factors change what is in front of what is turned. */
static void add_q(const struct rt_mla_preattend_args *args, const struct rt_preattend_params *p,
                  struct rt_operands *o)
{
    static const char *const q_strides[] = {"q_row_stride", "q_token_stride", "q_head_stride"};
    static const char *const q_rope_strides[] = {"q_rope_row_stride", "q_rope_token_stride",
                                                 "q_rope_head_stride"};
    const struct rt_strided q =
        of_heads("q", p, &p->q_in, args->q, p->nope_dim + p->rope_dim, q_strides);
    if (args->query_scale)
        rt_operands_writes(o, q);
    else
        rt_operands_reads(o, q);
    if (p->rope_dim > 0)
        rt_operands_writes(
            o, of_heads("q_rope", p, &p->q_out, args->q_rope, p->rope_dim, q_rope_strides));
}

static void add_kv_a(const struct rt_mla_preattend_args *args,
                     const struct rt_preattend_quant_params *quantised, struct rt_operands *o)
{
    const struct rt_preattend_params *p = &quantised->preattend;
    struct rt_strided scales;
    const uint64_t table_bytes = (uint64_t)p->rows.count * args->shape.max_blocks * sizeof(int32_t);
    rt_operands_writes(o, of_cache(&p->kv));
    if (args->shape.kv_layout != RT_KV_BF16 && rt_ops_scales_of(&p->kv, &quantised->quant, &scales))
        rt_operands_writes(o, scales);
    rt_operands_reads(o, of_tokens("kv_a", p, &p->kv_a, p->latent_dim + p->rope_dim,
                                   "kv_a_row_stride", "kv_a_token_stride"));
    rt_operands_reads(o, rt_strided_flat("block_table", args->block_table, table_bytes));
    rt_operands_reads(o, rt_strided_flat("kv_a_norm.weight", args->kv_a_norm.weight,
                                         p->latent_dim * sizeof(uint16_t)));
}

/* Nothing that is written is anything else's, of all parts that are there. */
static enum rt_status check_memory(const struct rt_mla_preattend_args *args,
                                   const struct rt_preattend_quant_params *quantised,
                                   struct rt_error *err)
{
    const struct rt_preattend_params *p = &quantised->preattend;
    const uint64_t capacity = args->rope_capacity, number = sizeof(float);
    struct rt_operands o = {.count = 0};
    if (args->q_a) {
        rt_operands_writes(&o, of_tokens("q_a", p, &p->q_a, p->q_a_norm.width, "q_a_row_stride",
                                         "q_a_token_stride"));
        rt_operands_reads(&o, rt_strided_flat("q_a_norm.weight", args->q_a_norm.weight,
                                              p->q_a_norm.width * sizeof(uint16_t)));
    }
    if (args->kv_a)
        add_kv_a(args, quantised, &o);
    if (args->q)
        add_q(args, p, &o);
    rt_operands_reads(
        &o, rt_strided_flat("positions", args->positions, p->rows.count * sizeof(int32_t)));
    rt_operands_reads(
        &o, rt_strided_flat("rope_table", args->rope_table, capacity * p->rope_dim * number));
    rt_operands_reads(&o, rt_strided_flat("query_scale", args->query_scale, capacity * number));
    return rt_operands_check(preattend, &o, err);
}

/* Of a quantised cache only what writes it is another operator, whose parameters begin alike. */
static enum rt_status build(const struct rt_kernels *k, const struct rt_ops_choice *choice,
                            const struct rt_preattend_quant_params *p, struct rt_work *out,
                            struct rt_error *err)
{
    if (p->preattend.kv_a.base && rt_kv_is_quantised(&choice->kv))
        return rt_op_build(k, &choice->preattend_quant, p, sizeof(*p), out, err);
    return rt_op_build(k, &choice->preattend, &p->preattend, sizeof(p->preattend), out, err);
}

enum rt_status rt_ops_preattend_work(const struct rt_kernels *k, const struct rt_ops_choice *choice,
                                     const struct rt_mla_preattend_args *args, struct rt_work *out,
                                     struct rt_error *err)
{
    const struct rt_mla_shape *s = &args->shape;
    const struct rt_named_pointer pointers[] = {{"positions", args->positions, RT_ALIGN_INT32}};
    struct rt_preattend_quant_params both = {.quant = {0}};
    struct rt_preattend_params *p = &both.preattend;
    *p = (struct rt_preattend_params){
        .rows = {.count = s->batch,
                 .q_len = s->query_len,
                 .position = rt_ops_pointer(args->positions)},
        .heads = s->heads,
        .nope_dim = args->nope_dim,
        .latent_dim = s->d_v,
        .rope_dim = s->d_qk - s->d_v,
    };
    RT_REQUIRE(args->q_a || args->kv_a || args->q, err, RT_ERR_INVALID,
               "%s: q_a, kv_a and q are null: at least one of the parts", preattend);
    RT_REQUIRE(args->nope_dim <= RT_MAX_HIDDEN && args->nope_dim % 8 == 0, err, RT_ERR_INVALID,
               "%s: nope_dim %u is not a multiple of 8 from 0 to %d", preattend, args->nope_dim,
               RT_MAX_HIDDEN);
    RT_TRY(RT_CHECK_POINTERS(preattend, pointers, err));
    RT_TRY(RT_CHECK_RESERVED(preattend, args, reserved, err));
    RT_TRY(take_rope(args, p, err));
    if (args->q_a)
        RT_TRY(take_q_a(args, p, err));
    if (args->kv_a)
        RT_TRY(take_kv_a(args, &choice->kv, &both, err));
    else
        RT_REQUIRE(args->kv_scale == 0, err, RT_ERR_INVALID,
                   "%s: kv_scale %g without kv_a: must be 0", preattend, (double)args->kv_scale);
    if (args->q)
        RT_TRY(take_q(args, p, err));
    RT_TRY(rt_ops_named(preattend, build(k, choice, &both, out, err), err));
    return check_memory(args, &both, err);
}
