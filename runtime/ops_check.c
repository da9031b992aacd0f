/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/ops_check.h"

#include <inttypes.h>

enum rt_status rt_ops_check_pointers(const char *op, const struct rt_named_pointer *pointers,
                                     uint32_t count, struct rt_error *err)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct rt_named_pointer *p = &pointers[i];
        RT_REQUIRE(p->address, err, RT_ERR_INVALID, "%s: %s is null", op, p->name);
        RT_REQUIRE(p->address % p->align == 0, err, RT_ERR_INVALID,
                   "%s: %s = 0x%" PRIx64 " is not %u-byte aligned", op, p->name, p->address,
                   p->align);
    }
    return RT_OK;
}

enum rt_status rt_ops_check_reserved(const char *op, const char *name, uint32_t value,
                                     struct rt_error *err)
{
    RT_REQUIRE(value == 0, err, RT_ERR_INVALID, "%s: %s is %u, not 0", op, name, value);
    return RT_OK;
}

enum rt_status rt_ops_stride(const char *op, const char *name, int64_t given, int64_t packed,
                             int64_t multiple, int64_t *out, struct rt_error *err)
{
    RT_REQUIRE(given >= 0 && given % multiple == 0, err, RT_ERR_INVALID,
               "%s: %s = %" PRId64 " is not a non-negative multiple of %" PRId64, op, name, given,
               multiple);
    RT_REQUIRE(given < RT_STRIDE_END, err, RT_ERR_INVALID,
               "%s: %s = %" PRId64 " is not below 2^39 elements", op, name, given);
    *out = given ? given : packed;
    return RT_OK;
}

enum rt_status rt_ops_named(const char *op, enum rt_status status, struct rt_error *err)
{
    return status == RT_OK || !err ? status : rt_fail(err, status, "%s: %s", op, err->message);
}
