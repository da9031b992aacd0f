/* SPDX-License-Identifier: Apache-2.0 */
/* rt_kv_gather of replayrt/prefill_ops.h: arguments -> one checked launch. */
#include "common/struct_size.h"
#include "kernels/abi/gather.h"
#include "kernels/op.h"
#include "replayrt/prefill_ops.h"
#include "runtime/model_work.h"
#include "runtime/operands.h"
#include "runtime/ops_check.h"
#include "runtime/ops_handle.h"

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

static enum rt_status make_params(const struct rt_kv_gather_args *args,
                                  struct rt_kv_gather_params *p, struct rt_error *err)
{
    const int64_t width = args->width, element_bytes = sizeof(uint16_t);
    int64_t page = 0, token = 0;
    RT_TRY(check_args(args, err));
    RT_TRY(RT_STRIDE(op, args, kv_page_stride, args->page_size * width, 8, &page, err));
    RT_TRY(RT_STRIDE(op, args, kv_token_stride, width, 8, &token, err));
    *p = (struct rt_kv_gather_params){.kv = {.base = rt_ops_pointer(args->kv),
                                             .table = rt_ops_pointer(args->block_table),
                                             .page_stride_bytes = page * element_bytes,
                                             .token_stride_bytes = token * element_bytes,
                                             .page_size = args->page_size,
                                             .max_blocks = args->max_blocks,
                                             .pages = args->pages,
                                             .token_bytes = args->width * sizeof(uint16_t)},
                                      .slot = rt_ops_pointer(args->slots),
                                      .first = rt_ops_pointer(args->first),
                                      .position = rt_ops_pointer(args->positions),
                                      .out = rt_ops_pointer(args->out),
                                      .rows = args->rows,
                                      .begin = args->begin,
                                      .count = args->count};
    return RT_OK;
}

/* Which lines of the table there are, the device reads in `slots`: where they are given, one is
 * known of. */
static enum rt_status check_memory(const struct rt_kv_gather_args *args,
                                   const struct rt_kv_gather_params *p, struct rt_error *err)
{
    struct rt_operands o = {.count = 0};
    const uint64_t words = p->rows * sizeof(int32_t);
    const uint64_t lines = args->slots ? 1 : p->rows;
    rt_operands_writes(&o,
                       rt_strided_flat("out", args->out, (uint64_t)p->count * p->kv.token_bytes));
    rt_operands_reads(&o,
                      (struct rt_strided){.name = "kv",
                                          .address = args->kv,
                                          .bytes = p->kv.token_bytes,
                                          .count = {p->kv.pages, p->kv.page_size},
                                          .stride = {(uint64_t)p->kv.page_stride_bytes,
                                                     (uint64_t)p->kv.token_stride_bytes},
                                          .stride_name = {"kv_page_stride", "kv_token_stride"}});
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
    struct rt_variant variant;
    struct rt_kv_gather_params p;
    struct rt_work work;
    RT_TRY(make_params(args, &p, err));
    RT_TRY(check_memory(args, &p, err));
    RT_TRY(rt_op_resolve(RT_OP_KV_GATHER, &request, &variant, err));
    RT_TRY(rt_op_build(&ops->kernels, &variant, &p, sizeof(p), &work, err));
    return rt_ops_launch(ops, &work, stream);
}
