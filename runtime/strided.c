/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/strided.h"

#include "common/math.h"

#include <inttypes.h>

/* Dimensions that lead somewhere, the widest stride first: how many. */
static uint32_t sort(const struct rt_strided *s, uint32_t order[RT_STRIDED_DIMS])
{
    uint32_t used = 0;
    for (uint32_t d = 0; d < RT_STRIDED_DIMS; d++) {
        if (s->count[d] <= 1)
            continue;
        uint32_t at = used++;
        for (; at > 0 && s->stride[order[at - 1]] < s->stride[d]; at--)
            order[at] = order[at - 1];
        order[at] = d;
    }
    return used;
}

enum rt_status rt_strided_check(const char *op, const struct rt_strided *s, struct rt_error *err)
{
    uint32_t order[RT_STRIDED_DIMS];
    uint64_t within = s->bytes, steps;
    for (uint32_t i = sort(s, order); i-- > 0;) {
        const uint32_t d = order[i];
        RT_REQUIRE(s->stride[d] >= within, err, RT_ERR_INVALID,
                   "%s: %s of %s leads %" PRIu64 " bytes on, of which %" PRIu64
                   " are taken: vectors overlap",
                   op, s->stride_name[d], s->name, s->stride[d], within);
        RT_REQUIRE(rt_mul_u64(s->stride[d], s->count[d] - UINT64_C(1), &steps) &&
                       rt_add_u64(within, steps, &within) && within <= UINT64_MAX - s->address,
                   err, RT_ERR_INVALID,
                   "%s: %u times %s of %s, %" PRIu64 " bytes, lead out of all memory", op,
                   s->count[d], s->stride_name[d], s->name, s->stride[d]);
    }
    return RT_OK;
}

/* Whether one of the vectors has a byte of [at, at + bytes). */
static bool meets(const struct rt_strided *s, uint64_t at, uint64_t bytes)
{
    uint32_t order[RT_STRIDED_DIMS];
    const uint32_t dims = sort(s, order);
    if (at < s->address)
        return s->address - at < bytes;
    uint64_t rest = at - s->address, next = UINT64_MAX; /* to the next vector's begin */
    for (uint32_t i = 0; i < dims; i++) {
        const uint64_t stride = s->stride[order[i]], last = s->count[order[i]] - UINT64_C(1);
        const uint64_t steps = rest / stride < last ? rest / stride : last;
        rest -= steps * stride;
        if (steps < last && stride - rest < next)
            next = stride - rest;
    }
    return rest < s->bytes || next < bytes;
}

enum rt_status rt_strided_check_apart(const char *op, const struct rt_strided *tensors,
                                      uint32_t count, struct rt_error *err)
{
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = i + 1; k < count; k++) {
            const struct rt_strided *a = &tensors[i], *b = &tensors[k];
            RT_REQUIRE(!meets(a, b->address, b->bytes) && !meets(b, a->address, a->bytes), err,
                       RT_ERR_INVALID,
                       "%s: %s = 0x%" PRIx64 " and %s = 0x%" PRIx64 " overlap: must lie apart", op,
                       a->name, a->address, b->name, b->address);
        }
    return RT_OK;
}
