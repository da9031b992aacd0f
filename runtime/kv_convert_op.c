/* SPDX-License-Identifier: Apache-2.0 */
/* rt_kv_convert of replayrt/kv_ops.h: arguments -> one checked launch. */
#include "runtime/kv_convert_work.h"

#include "common/struct_size.h"
#include "kernels/quant_view.h"
#include "runtime/model_work.h"
#include "runtime/operands.h"
#include "runtime/ops_check.h"
#include "runtime/ops_handle.h"
#include "runtime/ops_memory.h"

#include <stdio.h>

static const char op[] = "rt_kv_convert";

/* One of the two caches, and the words that its faults begin with. */
struct side {
    const struct rt_kv_pages *pages;
    char name[32];
    struct rt_kv_format format;
    struct rt_kv_view view;
    struct rt_quant_view quant;
};

static enum rt_status take_side(const struct rt_kv_convert_args *args, const char *name,
                                const struct rt_kv_pages *pages, struct side *s,
                                struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {
        {"kv", pages->kv, RT_ALIGN_VECTOR}, {"block_table", pages->block_table, RT_ALIGN_INT32}};
    const struct rt_mla_shape shape = {
        .page_size = pages->page_size, .max_blocks = pages->max_blocks, .pages = pages->pages};
    s->pages = pages;
    (void)snprintf(s->name, sizeof(s->name), "%s: %s", op, name);
    RT_TRY(RT_CHECK_RESERVED(s->name, pages, reserved, err));
    RT_TRY(rt_ops_named(s->name,
                        rt_ops_format(pages->layout, args->d_qk, args->d_v, &s->format, err), err));
    RT_TRY(rt_ops_check_kv_scale(s->name, &s->format, pages->kv_scale, err));
    RT_TRY(rt_ops_check_count(s->name, "page_size", pages->page_size, 1, RT_MAX_LENGTH, err));
    RT_TRY(rt_ops_check_count(s->name, "max_blocks", pages->max_blocks, 1, RT_MAX_LENGTH, err));
    RT_TRY(rt_ops_check_count(s->name, "pages", pages->pages, 1, INT32_MAX, err));
    RT_TRY(RT_CHECK_POINTERS(s->name, pointers, err));
    RT_TRY(rt_ops_kv_view(s->name, &shape, &s->format, pages->kv, pages->block_table,
                          pages->kv_page_stride, pages->kv_token_stride, &s->view, err));
    s->quant = rt_quant_view_of_any(&s->format, &s->view, pages->kv_scale);
    return RT_OK;
}

static void add_side(const struct rt_kv_convert_args *args, const struct side *s, bool written,
                     const char *const names[3], struct rt_operands *o)
{
    void (*const add)(struct rt_operands *, struct rt_strided) =
        written ? rt_operands_writes : rt_operands_reads;
    struct rt_strided scales;
    add(o, (struct rt_strided){.name = names[0],
                               .address = s->pages->kv,
                               .bytes = s->view.token_bytes,
                               .count = {s->view.pages, s->view.page_size},
                               .stride = {(uint64_t)s->view.page_stride_bytes,
                                          (uint64_t)s->view.token_stride_bytes},
                               .stride_name = {"kv_page_stride", "kv_token_stride"}});
    if (rt_ops_scales_of(&s->view, &s->quant, &scales)) {
        scales.name = names[1];
        add(o, scales);
    }
    rt_operands_reads(o,
                      rt_strided_flat(names[2], s->pages->block_table,
                                      (uint64_t)args->rows * s->view.max_blocks * sizeof(int32_t)));
}

static enum rt_status check_memory(const struct rt_kv_convert_args *args, const struct side *from,
                                   const struct side *to, struct rt_error *err)
{
    static const char *const of_from[] = {"from.kv", "scales of from.kv", "from.block_table"};
    static const char *const of_to[] = {"to.kv", "scales of to.kv", "to.block_table"};
    struct rt_operands o = {.count = 0};
    add_side(args, to, true, of_to, &o);
    add_side(args, from, false, of_from, &o);
    rt_operands_reads(&o, rt_strided_flat("lengths", args->lengths, args->rows * sizeof(int32_t)));
    return rt_operands_check(op, &o, err);
}

/* Every bit of a token says the same in both. */
static bool are_alike(const struct side *from, const struct side *to)
{
    return from->format.layout == to->format.layout && from->pages->kv_scale == to->pages->kv_scale;
}

enum rt_status rt_kv_convert_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                  const struct rt_kv_convert_args *args, struct rt_work *out,
                                  struct rt_error *err)
{
    const struct rt_op_request request = {.caps = caps};
    const struct rt_named_pointer lengths[] = {{"lengths", args->lengths, RT_ALIGN_INT32}};
    struct side from, to;
    struct rt_variant variant;
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved, err));
    RT_TRY(rt_ops_check_count(op, "rows", args->rows, 1, RT_MAX_BATCH, err));
    RT_TRY(rt_ops_check_count(op, "max_length", args->max_length, 1, RT_MAX_LENGTH, err));
    RT_TRY(RT_CHECK_POINTERS(op, lengths, err));
    RT_TRY(take_side(args, "from", &args->from, &from, err));
    RT_TRY(take_side(args, "to", &args->to, &to, err));
    RT_TRY(check_memory(args, &from, &to, err));
    const struct rt_kv_convert_params p = {.from = from.view,
                                           .to = to.view,
                                           .from_quant = from.quant,
                                           .to_quant = to.quant,
                                           .length = rt_ops_pointer(args->lengths),
                                           .rows = args->rows,
                                           .max_length = args->max_length,
                                           .d_qk = args->d_qk,
                                           .copies = are_alike(&from, &to)};
    RT_TRY(rt_op_resolve(RT_OP_KV_CONVERT, &request, &variant, err));
    return rt_ops_named(op, rt_op_build(k, &variant, &p, sizeof(p), out, err), err);
}

enum rt_status rt_kv_convert(rt_ops *ops, const struct rt_kv_convert_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "%s: ops is null", op);
    struct rt_error *err = &ops->error;
    struct rt_kv_convert_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_work work;
    RT_TRY(rt_kv_convert_work(&ops->kernels, &ops->driver.caps, args, &work, err));
    return rt_ops_launch(ops, &work, stream);
}
