/* SPDX-License-Identifier: Apache-2.0 */
/* replayrt/block_ops.h, but for products. */
#include "replayrt/block_ops.h"

#include "common/struct_size.h"
#include "runtime/block_work.h"
#include "runtime/ops_handle.h"

enum rt_status rt_mla_input_norm(rt_ops *ops, const struct rt_mla_input_norm_args *args,
                                 void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_mla_input_norm: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_mla_input_norm_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_work work;
    RT_TRY(rt_ops_input_norm_work(&ops->kernels, &ops->driver.caps, args, &work, err));
    return rt_ops_launch(ops, &work, stream);
}

enum rt_status rt_mla_preattend(rt_ops *ops, const struct rt_mla_preattend_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_mla_preattend: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_mla_preattend_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_ops_choice choice;
    struct rt_work work;
    RT_TRY(rt_ops_choose(__func__, &ops->driver.caps, &args->shape, 0, &choice, err));
    RT_TRY(rt_ops_preattend_work(&ops->kernels, &choice, args, &work, err));
    return rt_ops_launch(ops, &work, stream);
}
