/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/op.h"

#include "kernels/ops/op_build.h"

struct op {
    const char *name, *entry;
    size_t param_bytes;
    enum rt_status (*resolve)(const struct rt_op_request *request, struct rt_variant *out,
                              struct rt_error *err);
    enum rt_status (*build)(const struct rt_kernels *k, const struct rt_variant *variant,
                            const void *params, struct rt_launch *out, struct rt_error *err);
};

static const struct op ops[RT_OP_COUNT] = {
#define RT_OP(id, name_, params_, resolve_, build_)                                                \
    [RT_OP_##id] = {.name = #name_,                                                                \
                    .entry = "rt_" #name_,                                                         \
                    .param_bytes = sizeof(params_),                                                \
                    .resolve = (resolve_),                                                         \
                    .build = (build_)},
#include "kernels/ops.inc"
};

const char *rt_op_name(enum rt_op_id op)
{
    return ops[op].name;
}

enum rt_status rt_op_resolve(enum rt_op_id op, const struct rt_op_request *request,
                             struct rt_variant *out, struct rt_error *err)
{
    struct rt_variant variant = {.op = op, .backend = RT_BACKEND_GENERIC, .entry = ops[op].entry};
    RT_TRY(ops[op].resolve(request, &variant, err));
    *out = variant;
    return RT_OK;
}

enum rt_status rt_plain_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                struct rt_error *err)
{
    const struct rt_device_caps *caps = request->caps;
    RT_REQUIRE(caps->kind == RT_DEVICE_KIND_HOST || caps->cc >= RT_GENERIC_CC_MIN, err,
               RT_ERR_UNSUPPORTED, "%s needs compute capability 8.0 or later, %s has %u.%u",
               ops[out->op].name, caps->name, caps->cc / 10, caps->cc % 10);
    return RT_OK;
}

enum rt_status rt_op_build(const struct rt_kernels *k, const struct rt_variant *variant,
                           const void *params, size_t param_bytes, struct rt_work *out,
                           struct rt_error *err)
{
    const struct op *op = &ops[variant->op];
    RT_REQUIRE(param_bytes == op->param_bytes, err, RT_ERR_INTERNAL,
               "%s takes %zu bytes of parameters, not %zu", op->name, op->param_bytes, param_bytes);
    out->kind = RT_WORK_LAUNCH;
    RT_TRY(op->build(k, variant, params, &out->launch, err));
    return rt_kernels_check_resident(k, &out->launch, err);
}
