/* SPDX-License-Identifier: Apache-2.0 */
/* rt_mla_merge of replayrt/prefill_ops.h: arguments -> one checked launch. */
#include "common/struct_size.h"
#include "kernels/abi/merge.h"
#include "kernels/op.h"
#include "replayrt/prefill_ops.h"
#include "runtime/model_work.h"
#include "runtime/operands.h"
#include "runtime/ops_check.h"
#include "runtime/ops_handle.h"

RT_STATIC_ASSERT(RT_MERGE_MAX_PIECES == RT_MERGE_MOST_PIECES, "pieces as the kernel has them");

static const char op[] = "rt_mla_merge";

static enum rt_status check_args(const struct rt_mla_merge_args *args, struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {
        {"in", args->in, RT_ALIGN_VECTOR},
        {"in_lse", args->in_lse, RT_ALIGN_FLOAT32},
        {"live", args->live ? args->live : args->in_lse, RT_ALIGN_INT32},
        {"sink", args->sink ? args->sink : args->in_lse, RT_ALIGN_FLOAT32},
        {"out", args->out, RT_ALIGN_VECTOR},
        {"out_lse", args->out_lse ? args->out_lse : args->in_lse, RT_ALIGN_FLOAT32}};
    RT_TRY(rt_ops_check_count(op, "pieces", args->pieces, 1, RT_MERGE_MOST_PIECES, err));
    RT_TRY(rt_ops_check_count(op, "tokens", args->tokens, 1, RT_PREFILL_MOST_TOKENS, err));
    RT_TRY(rt_ops_check_count(op, "heads", args->heads, 1, RT_MAX_HEADS, err));
    RT_REQUIRE(args->v_dim >= 8 && args->v_dim <= RT_MERGE_MOST_DIM && args->v_dim % 8 == 0, err,
               RT_ERR_INVALID, "%s: v_dim = %u is not a multiple of 8 from 8 to %u", op,
               args->v_dim, RT_MERGE_MOST_DIM);
    RT_REQUIRE(args->lse_base == RT_LSE_NATURAL || args->lse_base == RT_LSE_BASE2, err,
               RT_ERR_INVALID, "%s: lse_base %d is not RT_LSE_NATURAL, %d, or RT_LSE_BASE2, %d", op,
               (int)args->lse_base, RT_LSE_NATURAL, RT_LSE_BASE2);
    RT_REQUIRE(args->out_lse || (!args->out_lse_token_stride && !args->out_lse_head_stride), err,
               RT_ERR_INVALID, "%s: out_lse is null, its strides are %lld and %lld", op,
               (long long)args->out_lse_token_stride, (long long)args->out_lse_head_stride);
    return RT_CHECK_POINTERS(op, pointers, err);
}

static enum rt_status make_params(const struct rt_mla_merge_args *args, struct rt_merge_params *p,
                                  struct rt_error *err)
{
    const int64_t heads = args->heads, token = heads * args->v_dim, tokens = args->tokens;
    RT_TRY(check_args(args, err));
    *p = (struct rt_merge_params){.in.base = rt_ops_pointer(args->in),
                                  .in_lse.base = rt_ops_pointer(args->in_lse),
                                  .out.base = rt_ops_pointer(args->out),
                                  .out_lse.base = rt_ops_pointer(args->out_lse),
                                  .live = rt_ops_pointer(args->live),
                                  .sink = rt_ops_pointer(args->sink),
                                  .pieces = args->pieces,
                                  .tokens = args->tokens,
                                  .heads = args->heads,
                                  .v_dim = args->v_dim,
                                  .lse_base2 = args->lse_base == RT_LSE_BASE2};
    RT_TRY(RT_STRIDE(op, args, in_piece_stride, tokens * token, 8, &p->in.piece_stride, err));
    RT_TRY(RT_STRIDE(op, args, in_token_stride, token, 8, &p->in.token_stride, err));
    RT_TRY(RT_STRIDE(op, args, in_head_stride, args->v_dim, 8, &p->in.head_stride, err));
    RT_TRY(
        RT_STRIDE(op, args, in_lse_piece_stride, tokens * heads, 1, &p->in_lse.piece_stride, err));
    RT_TRY(RT_STRIDE(op, args, in_lse_token_stride, heads, 1, &p->in_lse.token_stride, err));
    RT_TRY(RT_STRIDE(op, args, in_lse_head_stride, 1, 1, &p->in_lse.head_stride, err));
    RT_TRY(RT_STRIDE(op, args, out_token_stride, token, 8, &p->out.token_stride, err));
    RT_TRY(RT_STRIDE(op, args, out_head_stride, args->v_dim, 8, &p->out.head_stride, err));
    RT_TRY(RT_STRIDE(op, args, out_lse_token_stride, heads, 1, &p->out_lse.token_stride, err));
    return RT_STRIDE(op, args, out_lse_head_stride, 1, 1, &p->out_lse.head_stride, err);
}

/* What is written, as one piece. */
static struct rt_merge_view one_piece(const struct rt_prefill_view *v)
{
    return (struct rt_merge_view){
        .base = v->base, .token_stride = v->token_stride, .head_stride = v->head_stride};
}

/* Of pieces, or of one. */
static struct rt_strided vectors_of(const char *const names[4], const struct rt_merge_params *p,
                                    const struct rt_merge_view *v, uint32_t pieces, uint64_t width,
                                    uint64_t element_bytes)
{
    return (struct rt_strided){.name = names[0],
                               .address = (uintptr_t)v->base,
                               .bytes = width * element_bytes,
                               .count = {pieces, p->tokens, p->heads},
                               .stride = {(uint64_t)v->piece_stride * element_bytes,
                                          (uint64_t)v->token_stride * element_bytes,
                                          (uint64_t)v->head_stride * element_bytes},
                               .stride_name = {names[1], names[2], names[3]}};
}

static bool is_piece_0(const struct rt_strided *in, const struct rt_strided *out)
{
    bool same = in->address == out->address;
    for (int d = 1; d < RT_STRIDED_DIMS; d++)
        same &= out->count[d] == 1 || in->stride[d] == out->stride[d];
    return same;
}

/* One that is piece 0 of what is read is held to the other pieces. */
static void add_written(struct rt_operands *o, const struct rt_strided *in,
                        const struct rt_strided *out)
{
    struct rt_strided others = *in;
    if (is_piece_0(in, out)) {
        others.address += others.stride[0];
        others.count[0]--;
    }
    rt_operands_writes(o, *out);
    if (others.count[0] > 0)
        rt_operands_reads(o, others);
}

static enum rt_status check_memory(const struct rt_merge_params *p, struct rt_error *err)
{
    static const char *const in[] = {"in", "in_piece_stride", "in_token_stride", "in_head_stride"};
    static const char *const in_lse[] = {"in_lse", "in_lse_piece_stride", "in_lse_token_stride",
                                         "in_lse_head_stride"};
    static const char *const out[] = {"out", NULL, "out_token_stride", "out_head_stride"};
    static const char *const out_lse[] = {"out_lse", NULL, "out_lse_token_stride",
                                          "out_lse_head_stride"};
    const uint64_t bf16 = sizeof(uint16_t), f32 = sizeof(float);
    const struct rt_merge_view out_view = one_piece(&p->out), lse_view = one_piece(&p->out_lse);
    const struct rt_strided pieces = vectors_of(in, p, &p->in, p->pieces, p->v_dim, bf16);
    const struct rt_strided lses = vectors_of(in_lse, p, &p->in_lse, p->pieces, 1, f32);
    const struct rt_strided merged = vectors_of(out, p, &out_view, 1, p->v_dim, bf16);
    const struct rt_strided lse = vectors_of(out_lse, p, &lse_view, 1, 1, f32);
    struct rt_operands o = {.count = 0};
    RT_TRY(rt_strided_check(op, &pieces, err));
    RT_TRY(rt_strided_check(op, &lses, err));
    add_written(&o, &pieces, &merged);
    add_written(&o, &lses, &lse);
    rt_operands_reads(&o, rt_strided_flat("live", (uintptr_t)p->live, sizeof(int32_t)));
    rt_operands_reads(&o, rt_strided_flat("sink", (uintptr_t)p->sink, p->heads * sizeof(float)));
    return rt_operands_check_written(op, &o, err);
}

enum rt_status rt_mla_merge(rt_ops *ops, const struct rt_mla_merge_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "%s: ops is null", op);
    struct rt_error *err = &ops->error;
    struct rt_mla_merge_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    const struct rt_op_request request = {.caps = &ops->driver.caps};
    struct rt_variant variant;
    struct rt_merge_params p;
    struct rt_work work;
    RT_TRY(make_params(args, &p, err));
    RT_TRY(check_memory(&p, err));
    RT_TRY(rt_op_resolve(RT_OP_MERGE, &request, &variant, err));
    RT_TRY(rt_op_build(&ops->kernels, &variant, &p, sizeof(p), &work, err));
    return rt_ops_launch(ops, &work, stream);
}
