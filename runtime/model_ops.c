/* SPDX-License-Identifier: Apache-2.0 */
/* replayrt/model_ops.h. */
#include "replayrt/model_ops.h"

#include "common/struct_size.h"
#include "kernels/abi/gate.h"
#include "kernels/abi/moe_block.h"
#include "runtime/model_work.h"
#include "runtime/ops_handle.h"

#include <stdio.h>

enum rt_status rt_embed(rt_ops *ops, const struct rt_embed_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_embed: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_embed_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_work work;
    RT_TRY(rt_ops_embed_work(&ops->kernels, &ops->driver.caps, args, &work, err));
    return rt_ops_launch(ops, &work, stream);
}

enum rt_status rt_take_rows(rt_ops *ops, const struct rt_take_rows_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_take_rows: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_take_rows_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_work work;
    RT_TRY(rt_ops_take_work(&ops->kernels, &ops->driver.caps, args, &work, err));
    return rt_ops_launch(ops, &work, stream);
}

/* ---- mixtures of experts --------------------------------------------------------------------- */

enum rt_status rt_route(rt_ops *ops, const struct rt_route_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_route: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_route_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_work work;
    RT_TRY(rt_ops_route_work(&ops->kernels, &ops->driver.caps, args, &work, err));
    return rt_ops_launch(ops, &work, stream);
}

uint32_t rt_gate_tokens(uint32_t width, uint32_t experts, uint32_t experts_per_token)
{
    return rt_gate_most_tokens(width, experts, experts_per_token);
}

enum rt_status rt_gate(rt_ops *ops, const struct rt_gate_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_gate: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_gate_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_work work;
    RT_TRY(rt_ops_gate_work(&ops->kernels, &ops->driver.caps, args, &work, err));
    return rt_ops_launch(ops, &work, stream);
}

enum rt_status rt_experts_up(rt_ops *ops, const struct rt_experts_up_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_experts_up: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_experts_up_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_work work;
    RT_TRY(rt_ops_experts_up_work(&ops->kernels, &ops->driver.caps, args, &work, err));
    return rt_ops_launch(ops, &work, stream);
}

enum rt_status rt_experts_down(rt_ops *ops, const struct rt_experts_down_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_experts_down: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_experts_down_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_experts_down_work work;
    RT_TRY(rt_ops_experts_down_work(&ops->kernels, &ops->driver.caps, args, &work, err));
    return rt_ops_launch_all(ops, work.all, work.count, stream);
}

enum rt_status rt_experts_down_scratch(const struct rt_experts_shape *shape, uint64_t *bytes,
                                       struct rt_error *error)
{
    static const char op[] = "rt_experts_down_scratch";
    RT_REQUIRE(shape, error, RT_ERR_INVALID, "%s: shape is null", op);
    RT_REQUIRE(bytes, error, RT_ERR_INVALID, "%s: bytes is null", op);
    return rt_ops_experts_scratch_bytes(shape, bytes, error);
}

enum rt_status rt_experts_get_info(rt_ops *ops, const struct rt_experts_shape *shape,
                                   struct rt_experts_info *out)
{
    static const char op[] = "rt_experts_get_info";
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "%s: ops is null", op);
    struct rt_error *err = &ops->error;
    RT_REQUIRE(shape, err, RT_ERR_INVALID, "%s: shape is null", op);
    RT_CHECK_STRUCT(out, err);
    struct rt_experts_choice choice;
    RT_TRY(rt_ops_choose_experts(&ops->driver.caps, shape, &choice, err));
    struct rt_experts_info mine = {.up = choice.up.entry,
                                   .down = choice.down.entry,
                                   .down_with_scratch =
                                       choice.takes_scratch ? choice.down_pairs.entry : NULL};
    (void)snprintf(mine.reason, sizeof(mine.reason), "%.159s", choice.up.reason);
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

/* Built inside of the context, where it is asked whether the device holds all blocks. */
static enum rt_status put_moe_block(struct rt_ops *ops, const struct rt_moe_block_args *args,
                                    void *stream)
{
    struct rt_work work;
    RT_TRY(rt_ops_moe_block_work(&ops->kernels, &ops->driver.caps, args, &work, &ops->error));
    return rt_ops_put(ops, &work, stream);
}

enum rt_status rt_moe_block(rt_ops *ops, const struct rt_moe_block_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_moe_block: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_driver *d = &ops->driver;
    struct rt_moe_block_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    RT_TRY(RT_DRV(d, err, ctx_enter, (d)));
    const enum rt_status status = put_moe_block(ops, args, stream);
    (void)d->ctx_leave(d);
    return status;
}

enum rt_status rt_moe_block_get_info(rt_ops *ops, const struct rt_experts_shape *shape,
                                     struct rt_moe_block_info *out)
{
    static const char op[] = "rt_moe_block_get_info";
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "%s: ops is null", op);
    struct rt_error *err = &ops->error;
    struct rt_driver *d = &ops->driver;
    RT_REQUIRE(shape, err, RT_ERR_INVALID, "%s: shape is null", op);
    RT_CHECK_STRUCT(out, err);
    struct rt_variant variant;
    RT_TRY(RT_DRV(d, err, ctx_enter, (d)));
    const enum rt_status status =
        rt_ops_choose_moe_block(&ops->kernels, &d->caps, shape, &variant, err);
    (void)d->ctx_leave(d);
    RT_TRY(status);
    struct rt_moe_block_info mine = {
        .kernel = variant.entry,
        .exchange_bytes = rt_moe_block_exchange_bytes(shape->tokens, shape->experts)};
    (void)snprintf(mine.reason, sizeof(mine.reason), "%.159s", variant.reason);
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

/* ---- the next token -------------------------------------------------------------------------- */

enum rt_status rt_sample_workspace(uint32_t rows, uint32_t query_len, uint32_t vocab,
                                   uint64_t *bytes, struct rt_error *error)
{
    RT_REQUIRE(bytes, error, RT_ERR_INVALID, "rt_sample_workspace: bytes is null");
    return rt_ops_sample_bytes(rows, query_len, vocab, bytes, error);
}

enum rt_status rt_sample(rt_ops *ops, const struct rt_sample_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_sample: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_sample_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_sample_work work;
    RT_TRY(rt_ops_sample_work(&ops->kernels, &ops->driver.caps, args, &work, err));
    return rt_ops_launch_all(ops, work.all, 3, stream);
}
