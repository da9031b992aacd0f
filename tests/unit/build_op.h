/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_BUILD_OP_H
#define RT_TESTS_UNIT_BUILD_OP_H

/* Plain operators' launches, made for no device; and in what words they are refused. */
#include "kernels/ops/op_build.h"
#include "tests/unit/expect.h"

static inline enum rt_status build(enum rt_op_id op, const void *params, size_t bytes,
                                   struct rt_launch *out, struct rt_error *err)
{
    static const struct rt_kernels no_device;
    const struct rt_device_caps caps = {.kind = RT_DEVICE_KIND_HOST};
    const struct rt_op_request request = {.caps = &caps};
    struct rt_variant variant;
    struct rt_work work;
    RT_TRY(rt_op_resolve(op, &request, &variant, err));
    RT_TRY(rt_op_build(&no_device, &variant, params, bytes, &work, err));
    *out = work.launch;
    return RT_OK;
}

static inline void refuse(enum rt_op_id op, const void *params, size_t bytes, const char *words)
{
    struct rt_launch l;
    struct rt_error err = {0};
    assert_int_not_equal(build(op, params, bytes, &l, &err), RT_OK);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

#endif
