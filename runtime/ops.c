/* SPDX-License-Identifier: Apache-2.0 */
/* The operators: the same kernels on the caller's pointers, stream and graphs. */
#include "replayrt/ops.h"

#include "common/struct_size.h"
#include "graphs/program.h"
#include "runtime/ops_handle.h"
#include "runtime/ops_work.h"

#include <stdlib.h>

enum rt_status rt_ops_create(const char *device, rt_ops **out, struct rt_error *error)
{
    RT_REQUIRE(out, error, RT_ERR_INVALID, "rt_ops_create: out is null");
    *out = NULL;
    struct rt_ops *ops = calloc(1, sizeof(*ops));
    RT_REQUIRE(ops, error, RT_ERR_NOMEM, "out of host memory for the operators");
    struct rt_driver *d = &ops->driver;
    char why[160];
    enum rt_status status;
    RT_TRY_GOTO(rt_driver_open(device, d, why, sizeof(why), error));
    /* The caller's pointers are of one kind or the other; a quiet change would follow the wrong. */
    if (why[0] && d->caps.kind == RT_DEVICE_KIND_HOST) {
        status = rt_fail(error, RT_ERR_NO_DEVICE, "%s; name \"host\" for host pointers", why);
        goto fail;
    }
    if (d->caps.kind == RT_DEVICE_KIND_HOST)
        rt_driver_host_trust(d);
    RT_TRY_GOTO(RT_DRV(d, error, ctx_enter, (d)));
    status = rt_kernels_load(d, &ops->kernels, error);
    (void)d->ctx_leave(d);
    if (status != RT_OK)
        goto fail;
    *out = ops;
    return RT_OK;
fail:
    rt_ops_destroy(&ops);
    return status;
}

void rt_ops_destroy(rt_ops **ops)
{
    if (!ops || !*ops)
        return;
    struct rt_driver *d = &(*ops)->driver;
    if (d->ctx_enter) {
        bool entered = d->ctx_enter(d) == 0; /* what was not entered is not ours to leave */
        rt_kernels_unload(&(*ops)->kernels);
        if (entered)
            (void)d->ctx_leave(d);
        rt_driver_close(d);
    }
    free(*ops);
    *ops = NULL;
}

const struct rt_error *rt_ops_last_error(const rt_ops *ops)
{
    static const struct rt_error none = {.status = RT_ERR_INVALID, .message = "ops is null"};
    return ops ? &ops->error : &none;
}

enum rt_status rt_ops_overlap(rt_ops *ops, uint32_t overlap)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_ops_overlap: ops is null");
    RT_REQUIRE(overlap <= 1, &ops->error, RT_ERR_INVALID,
               "rt_ops_overlap: overlap %u is not 0 or 1", overlap);
    ops->overlap = overlap == 1;
    return RT_OK;
}

static enum rt_status workspace_size(const char *op, rt_ops *ops, const struct rt_mla_shape *shape,
                                     uint32_t invariant, struct rt_mla_workspace *out)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "%s: ops is null", op);
    RT_REQUIRE(shape, &ops->error, RT_ERR_INVALID, "%s: shape is null", op);
    RT_TRY(rt_struct_check(out, sizeof(*out), op, "out", &ops->error));
    struct rt_ops_choice choice;
    struct rt_mla_workspace mine = {0};
    RT_TRY(rt_ops_choose(op, &ops->driver.caps, shape, invariant, &choice, &ops->error));
    rt_ops_workspace(shape, &choice, &mine);
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

enum rt_status rt_mla_workspace_size(rt_ops *ops, const struct rt_mla_shape *shape,
                                     struct rt_mla_workspace *out)
{
    return workspace_size(__func__, ops, shape, 0, out);
}

enum rt_status rt_mla_invariant_workspace_size(rt_ops *ops, const struct rt_mla_shape *shape,
                                               struct rt_mla_workspace *out)
{
    return workspace_size(__func__, ops, shape, 1, out);
}

enum rt_status rt_ops_put(struct rt_ops *ops, const struct rt_work *work, void *stream)
{
    struct rt_driver *d = &ops->driver;
    RT_REQUIRE(d->caps.kind != RT_DEVICE_KIND_HOST || !stream, &ops->error, RT_ERR_INVALID,
               "%s: the host device has no streams, stream is %p", rt_work_name(work), stream);
    const bool early = ops->overlap && work->kind == RT_WORK_LAUNCH && work->launch.waits;
    return rt_work_put(work, d, early, stream, &ops->error);
}

enum rt_status rt_ops_launch_all(struct rt_ops *ops, const struct rt_work *works, uint32_t count,
                                 void *stream)
{
    struct rt_driver *d = &ops->driver;
    RT_TRY(RT_DRV(d, &ops->error, ctx_enter, (d)));
    enum rt_status status = RT_OK;
    for (uint32_t i = 0; i < count && status == RT_OK; i++)
        status = rt_ops_put(ops, &works[i], stream);
    (void)d->ctx_leave(d);
    return status;
}

enum rt_status rt_ops_launch(struct rt_ops *ops, const struct rt_work *work, void *stream)
{
    return rt_ops_launch_all(ops, work, 1, stream);
}

enum rt_status rt_mla_schedule(rt_ops *ops, const struct rt_mla_schedule_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_mla_schedule: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_mla_schedule_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_ops_choice choice;
    struct rt_work work;
    RT_TRY(rt_ops_choose(__func__, &ops->driver.caps, &args->shape, args->invariant, &choice, err));
    RT_TRY(rt_ops_schedule_work(&ops->kernels, &choice, args, &work, err));
    return rt_ops_launch(ops, &work, stream);
}

enum rt_status rt_mla_append(rt_ops *ops, const struct rt_mla_append_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_mla_append: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_mla_append_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_ops_choice choice;
    struct rt_work work;
    RT_TRY(rt_ops_choose(__func__, &ops->driver.caps, &args->shape, 0, &choice, err));
    RT_TRY(rt_ops_append_work(&ops->kernels, &choice, args, &work, err));
    return rt_ops_launch(ops, &work, stream);
}

/* Tensor maps are made where the context is: launches are built inside of it. */
static enum rt_status decode(struct rt_ops *ops, const struct rt_ops_choice *choice,
                             const struct rt_attend_quant_params *attend, void *stream)
{
    struct rt_decode_work work;
    RT_TRY(rt_ops_decode_work(&ops->kernels, choice, attend, &work, &ops->error));
    RT_TRY(rt_ops_put(ops, &work.attend, stream));
    return rt_ops_put(ops, &work.reduce, stream);
}

enum rt_status rt_mla_decode(rt_ops *ops, const struct rt_mla_decode_args *args, void *stream)
{
    RT_REQUIRE(ops, NULL, RT_ERR_INVALID, "rt_mla_decode: ops is null");
    struct rt_error *err = &ops->error;
    struct rt_driver *d = &ops->driver;
    struct rt_mla_decode_args mine;
    RT_TAKE_STRUCT(args, mine, err);
    struct rt_ops_choice choice;
    struct rt_attend_quant_params attend;
    RT_TRY(rt_ops_choose(__func__, &ops->driver.caps, &args->shape, args->invariant, &choice, err));
    RT_TRY(rt_ops_attend_params(args, &choice, &attend, err));
    RT_TRY(RT_DRV(d, err, ctx_enter, (d)));
    enum rt_status status = decode(ops, &choice, &attend, stream);
    (void)d->ctx_leave(d);
    return status;
}
