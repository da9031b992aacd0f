/* SPDX-License-Identifier: Apache-2.0 */
/* rt_kv_gather of replayrt/prefill_ops.h: arguments -> one checked launch. */
#include "common/struct_size.h"
#include "kernels/abi/quant.h"
#include "kernels/op.h"
#include "kernels/quant_view.h"
#include "replayrt/prefill_ops.h"
#include "runtime/model_work.h"
#include "runtime/operands.h"
#include "runtime/ops_check.h"
#include "runtime/ops_handle.h"
#include "runtime/ops_memory.h"

#define MOST_WIDTH (RT_KV_GATHER_MOST_BYTES / sizeof(uint16_t))

static const char op[] = "rt_kv_gather";

static enum rt_status check_args(const struct rt_kv_gather_args *args, struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {
        {"kv", args->kv, RT_ALIGN_VECTOR},
        {"block_table", args->max_blocks > 0 ? args->block_table : args->first, RT_ALIGN_INT32},
        {"slots", args->slots ? args->slots : args->first, RT_ALIGN_INT32},
        {"first", args->first, RT_ALIGN_INT32},
        {"positions", args->positions ? args->positions : args->first, RT_ALIGN_INT32},
        {"out", args->out, RT_ALIGN_VECTOR}};
    RT_TRY(rt_ops_check_count(op, "rows", args->rows, 1, RT_PREFILL_MOST_ROWS, err));
    RT_TRY(rt_ops_check_count(op, "count", args->count, 1, RT_PREFILL_MOST_TOKENS, err));
    RT_TRY(rt_ops_check_count(op, "begin", args->begin, 0, INT32_MAX - args->count, err));
    RT_REQUIRE(args->width >= 8 && args->width <= MOST_WIDTH && args->width % 8 == 0, err,
               RT_ERR_INVALID, "%s: width %u is not a multiple of 8 from 8 to %zu", op, args->width,
               MOST_WIDTH);
    RT_TRY(rt_ops_check_count(op, "page_size", args->page_size, 1, RT_MAX_LENGTH, err));
    RT_TRY(rt_ops_check_count(op, "max_blocks", args->max_blocks, 0, RT_MAX_LENGTH, err));
    RT_TRY(rt_ops_check_count(op, "pages", args->pages, 1, INT32_MAX, err));
    return RT_CHECK_POINTERS(op, pointers, err);
}

/* A cache of any width, which no layout's name stands for. */
static enum rt_status plain_view(const struct rt_kv_gather_args *args, struct rt_kv_view *out,
                                 struct rt_error *err)
{
    const int64_t width = args->width, element_bytes = sizeof(uint16_t);
    int64_t page = 0, token = 0;
    RT_REQUIRE(args->d_v == 0 && args->kv_scale == 0.0f, err, RT_ERR_INVALID,
               "%s: d_v %u and kv_scale %g of a cache of bf16 are not 0", op, args->d_v,
               (double)args->kv_scale);
    RT_TRY(RT_STRIDE(op, args, kv_page_stride, args->page_size * width, 8, &page, err));
    RT_TRY(RT_STRIDE(op, args, kv_token_stride, width, 8, &token, err));
    *out = (struct rt_kv_view){.base = rt_ops_pointer(args->kv),
                               .table = rt_ops_pointer(args->block_table),
                               .page_stride_bytes = page * element_bytes,
                               .token_stride_bytes = token * element_bytes,
                               .page_size = args->page_size,
                               .max_blocks = args->max_blocks,
                               .pages = args->pages,
                               .token_bytes = args->width * sizeof(uint16_t)};
    return RT_OK;
}

static enum rt_status quantised_view(const struct rt_kv_gather_args *args, struct rt_kv_view *out,
                                     struct rt_quant_view *quant, struct rt_error *err)
{
    const struct rt_mla_shape shape = {
        .page_size = args->page_size, .max_blocks = args->max_blocks, .pages = args->pages};
    struct rt_kv_format format;
    RT_TRY(rt_ops_named(op, rt_ops_format(args->kv_layout, args->width, args->d_v, &format, err),
                        err));
    RT_TRY(rt_ops_check_kv_scale(op, &format, args->kv_scale, err));
    RT_TRY(rt_ops_kv_view(op, &shape, &format, args->kv, args->block_table, args->kv_page_stride,
                          args->kv_token_stride, out, err));
    *quant = rt_quant_view_make(&format, out, args->kv_scale);
    return RT_OK;
}

static bool is_quantised(const struct rt_kv_gather_args *args)
{
    return args->kv_layout != RT_KV_BF16;
}

static enum rt_status make_params(const struct rt_kv_gather_args *args,
                                  struct rt_kv_gather_quant_params *p, struct rt_error *err)
{
    RT_TRY(check_args(args, err));
    *p = (struct rt_kv_gather_quant_params){.gather = {.slot = rt_ops_pointer(args->slots),
                                                       .first = rt_ops_pointer(args->first),
                                                       .position = rt_ops_pointer(args->positions),
                                                       .out = rt_ops_pointer(args->out),
                                                       .rows = args->rows,
                                                       .begin = args->begin,
                                                       .count = args->count},
                                            .d_qk = args->width};
    return is_quantised(args) ? quantised_view(args, &p->gather.kv, &p->quant, err)
                              : plain_view(args, &p->gather.kv, err);
}

/* Which lines of the table there are, the device reads in `slots`: where they are given, one is
 * known of. */
static enum rt_status check_memory(const struct rt_kv_gather_args *args,
                                   const struct rt_kv_gather_quant_params *all,
                                   struct rt_error *err)
{
    const struct rt_kv_gather_params *p = &all->gather;
    struct rt_operands o = {.count = 0};
    struct rt_strided scales;
    const uint64_t words = p->rows * sizeof(int32_t);
    const uint64_t lines = args->slots ? 1 : p->rows;
    rt_operands_writes(
        &o, rt_strided_flat("out", args->out, (uint64_t)p->count * args->width * sizeof(uint16_t)));
    rt_operands_reads(&o,
                      (struct rt_strided){.name = "kv",
                                          .address = args->kv,
                                          .bytes = p->kv.token_bytes,
                                          .count = {p->kv.pages, p->kv.page_size},
                                          .stride = {(uint64_t)p->kv.page_stride_bytes,
                                                     (uint64_t)p->kv.token_stride_bytes},
                                          .stride_name = {"kv_page_stride", "kv_token_stride"}});
    if (is_quantised(args) && rt_ops_scales_of(&p->kv, &all->quant, &scales))
        rt_operands_reads(&o, scales);
    rt_operands_reads(&o, rt_strided_flat("block_table", args->block_table,
                                          lines * args->max_blocks * sizeof(int32_t)));
    rt_operands_reads(&o, rt_strided_flat("slots", args->slots, words));
    rt_operands_reads(&o, rt_strided_flat("first", args->first, words + sizeof(int32_t)));
    rt_operands_reads(&o, rt_strided_flat("positions", args->positions, words));
    return rt_operands_check(op, &o, err);
}

enum rt_status rt_kv_gather(rt_ops *ops, const struct rt_kv_gather_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "%s: ops is null", op);
    struct rt_error *err = &ops->error;
    struct rt_kv_gather_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    const struct rt_op_request request = {.caps = &ops->driver.caps};
    const bool quantised = is_quantised(args);
    struct rt_variant variant;
    struct rt_kv_gather_quant_params p;
    struct rt_work work;
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved, err));
    RT_TRY(make_params(args, &p, err));
    RT_TRY(check_memory(args, &p, err));
    RT_TRY(rt_op_resolve(quantised ? RT_OP_KV_GATHER_QUANT : RT_OP_KV_GATHER, &request, &variant,
                         err));
    RT_TRY(rt_op_build(&ops->kernels, &variant, &p, quantised ? sizeof(p) : sizeof(p.gather), &work,
                       err));
    return rt_ops_launch(ops, &work, stream);
}
