/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/strided.h"

#include "common/math.h"

#include <assert.h>
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
    RT_REQUIRE(within <= UINT64_MAX - s->address, err, RT_ERR_INVALID,
               "%s: %s = 0x%" PRIx64 ", of %" PRIu64 " bytes, leads out of all memory", op, s->name,
               s->address, within);
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

/* ---- two tensors ----------------------------------------------------------------------------- */

/* Vectors from `address` on, the widest stride first. */
struct lattice {
    uint64_t address, bytes;
    uint32_t dims;
    uint64_t count[RT_STRIDED_DIMS], stride[RT_STRIDED_DIMS];
};

static struct lattice lattice_of(const struct rt_strided *s)
{
    uint32_t order[RT_STRIDED_DIMS];
    struct lattice l = {.address = s->address, .bytes = s->bytes, .dims = sort(s, order)};
    for (uint32_t i = 0; i < l.dims; i++) {
        l.count[i] = s->count[order[i]];
        l.stride[i] = s->stride[order[i]];
    }
    return l;
}

/* Behind the last byte; the end of memory for what leads out of it. */
static uint64_t end_of(const struct lattice *l)
{
    uint64_t end = l->address, steps;
    for (uint32_t i = 0; i < l->dims; i++)
        if (!rt_mul_u64(l->stride[i], l->count[i] - 1, &steps) || !rt_add_u64(end, steps, &end))
            return UINT64_MAX;
    return rt_add_u64(end, l->bytes, &end) ? end : UINT64_MAX;
}

/* Number i of what the widest stride leads to. */
static struct lattice part_of(const struct lattice *l, uint64_t i)
{
    struct lattice part = {
        .address = l->address + i * l->stride[0], .bytes = l->bytes, .dims = l->dims - 1};
    for (uint32_t d = 0; d < part.dims; d++) {
        part.count[d] = l->count[d + 1];
        part.stride[d] = l->stride[d + 1];
    }
    return part;
}

/* Pairs of parts that are looked at; tensors which interlock in more ways are not told apart. */
#define MOST_PAIRS 4096

static bool meet(const struct lattice *a, const struct lattice *b, uint32_t *left);

/* One by one, the parts of a whose ranges reach into that of b. */
static bool each_meets(const struct lattice *a, const struct lattice *b, uint32_t *left)
{
    const struct lattice first = part_of(a, 0);
    const uint64_t stride = a->stride[0], end = end_of(b), first_end = end_of(&first);
    if (stride == 0)
        return meet(&first, b, left);
    const uint64_t in_memory = (UINT64_MAX - a->address) / stride + 1;
    const uint64_t count = a->count[0] < in_memory ? a->count[0] : in_memory;
    uint64_t i = b->address >= first_end ? (b->address - first_end) / stride + 1 : 0;
    for (; i < count && a->address + i * stride < end; i++) {
        const struct lattice part = part_of(a, i);
        if (meet(&part, b, left))
            return true;
    }
    return false;
}

/* Whether a byte is of both. */
static bool meet(const struct lattice *a, const struct lattice *b, uint32_t *left)
{
    if (end_of(a) <= b->address || end_of(b) <= a->address)
        return false;
    if ((!a->dims && !b->dims) || !*left)
        return true;
    --*left;
    /* Parts that are as far from each other: what two have in common, two of the same difference
     * have, of which one is number 0. */
    if (a->dims && b->dims && a->stride[0] == b->stride[0]) {
        const struct lattice first_a = part_of(a, 0), first_b = part_of(b, 0);
        return each_meets(a, &first_b, left) || each_meets(b, &first_a, left);
    }
    const bool wider = !b->dims || (a->dims && a->stride[0] > b->stride[0]);
    return wider ? each_meets(a, b, left) : each_meets(b, a, left);
}

enum rt_status rt_strided_check_written(const char *op, const struct rt_strided *tensors,
                                        uint32_t written, uint32_t count, struct rt_error *err)
{
    struct lattice all[RT_STRIDED_MOST];
    uint64_t end[RT_STRIDED_MOST];
    assert(count <= RT_STRIDED_MOST);
    for (uint32_t i = 0; i < count; i++) {
        all[i] = lattice_of(&tensors[i]);
        end[i] = end_of(&all[i]);
    }
    for (uint32_t i = 0; i < written; i++)
        for (uint32_t k = i + 1; k < count; k++) {
            const struct lattice *const a = &all[i], *const b = &all[k];
            const bool beside = end[i] <= b->address || end[k] <= a->address; /* most are */
            uint32_t left = MOST_PAIRS;
            RT_REQUIRE(beside || !meet(a, b, &left), err, RT_ERR_INVALID,
                       "%s: %s = 0x%" PRIx64 " up to 0x%" PRIx64 " and %s = 0x%" PRIx64
                       " up to 0x%" PRIx64 " overlap: must lie apart",
                       op, tensors[i].name, a->address, end[i], tensors[k].name, b->address,
                       end[k]);
        }
    return RT_OK;
}

enum rt_status rt_strided_check_apart(const char *op, const struct rt_strided *tensors,
                                      uint32_t count, struct rt_error *err)
{
    return rt_strided_check_written(op, tensors, count, count, err);
}
