/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/operands.h"

#include <assert.h>

void rt_operands_reads(struct rt_operands *o, struct rt_strided one)
{
    if (!one.address || !one.bytes)
        return;
    assert(o->count < RT_STRIDED_MOST);
    o->all[o->count++] = one;
}

/* The first of those that are only read makes room. */
void rt_operands_writes(struct rt_operands *o, struct rt_strided one)
{
    if (!one.address || !one.bytes)
        return;
    assert(o->count < RT_STRIDED_MOST);
    o->all[o->count++] = o->all[o->written];
    o->all[o->written++] = one;
}

static enum rt_status check_vectors(const char *op, const struct rt_operands *o, uint32_t count,
                                    struct rt_error *err)
{
    for (uint32_t i = 0; i < count; i++)
        RT_TRY(rt_strided_check(op, &o->all[i], err));
    return RT_OK;
}

enum rt_status rt_operands_check_written(const char *op, const struct rt_operands *o,
                                         struct rt_error *err)
{
    RT_TRY(check_vectors(op, o, o->written, err));
    return rt_strided_check_written(op, o->all, o->written, o->count, err);
}

enum rt_status rt_operands_check(const char *op, const struct rt_operands *o, struct rt_error *err)
{
    RT_TRY(check_vectors(op, o, o->count, err));
    return rt_strided_check_written(op, o->all, o->written, o->count, err);
}
