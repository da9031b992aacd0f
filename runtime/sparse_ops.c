/* SPDX-License-Identifier: Apache-2.0 */
/* The operators of replayrt/sparse_ops.h. */
#include "replayrt/sparse_ops.h"

#include "common/struct_size.h"
#include "runtime/ops_handle.h"
#include "runtime/sparse_work.h"

enum rt_status rt_mla_sparse_workspace_size(rt_ops *ops, const struct rt_mla_sparse_shape *shape,
                                            struct rt_mla_sparse_workspace *out)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_mla_sparse_workspace_size: ops is null");
    RT_REQUIRE(shape, &ops->error, RT_ERR_INVALID, "rt_mla_sparse_workspace_size: shape is null");
    RT_CHECK_STRUCT(out, &ops->error);
    struct rt_sparse_choice choice;
    struct rt_mla_sparse_workspace mine = {0};
    RT_TRY(rt_sparse_choose(__func__, &ops->driver.caps, shape, &choice, &ops->error));
    rt_sparse_workspace(shape, &choice, &mine);
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

enum rt_status rt_mla_sparse_schedule(rt_ops *ops, const struct rt_mla_sparse_args *args,
                                      void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_mla_sparse_schedule: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_mla_sparse_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_sparse_choice choice;
    struct rt_work work;
    RT_TRY(rt_sparse_choose(__func__, &ops->driver.caps, &args->shape, &choice, err));
    RT_TRY(rt_sparse_schedule_work(&ops->kernels, &choice, args, &work, err));
    return rt_ops_launch(ops, &work, stream);
}

enum rt_status rt_mla_sparse_decode(rt_ops *ops, const struct rt_mla_sparse_args *args,
                                    void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_mla_sparse_decode: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_mla_sparse_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_sparse_choice choice;
    struct rt_sparse_decode_work work;
    RT_TRY(rt_sparse_choose(__func__, &ops->driver.caps, &args->shape, &choice, err));
    RT_TRY(rt_sparse_decode_work(&ops->kernels, &choice, args, &work, err));
    RT_TRY(rt_ops_launch(ops, &work.attend, stream));
    if (work.is_whole)
        return RT_OK;
    return rt_ops_launch(ops, &work.reduce, stream);
}
