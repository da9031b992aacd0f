/* SPDX-License-Identifier: Apache-2.0 */
#include "buffers/arena.h"

#include "common/math.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

static enum rt_status check_given(const char *what, rt_addr base, uint64_t bytes, uint64_t needed,
                                  struct rt_error *err)
{
    if (base == 0)
        return RT_OK;
    uint64_t end;
    RT_REQUIRE(base % RT_TENSOR_ALIGN == 0, err, RT_ERR_INVALID,
               "%s address 0x%" PRIx64 " is not aligned to %u bytes", what, base, RT_TENSOR_ALIGN);
    RT_REQUIRE(bytes >= needed, err, RT_ERR_INVALID,
               "%s of %" PRIu64 " bytes is too small, %" PRIu64 " are needed", what, bytes, needed);
    RT_REQUIRE(rt_add_u64(base, bytes, &end), err, RT_ERR_INVALID,
               "%s of %" PRIu64 " bytes at 0x%" PRIx64 " ends beyond the address space", what,
               bytes, base);
    return RT_OK;
}

static enum rt_status check_all_given(const struct rt_placement *l, const struct rt_arena_given *g,
                                      struct rt_error *err)
{
    RT_TRY(check_given("arena", g->arena, g->arena_bytes, l->arena_bytes, err));
    RT_TRY(check_given("pool", g->pool, g->pool_bytes, l->pool_bytes, err));
    const bool apart = g->arena + l->arena_bytes <= g->pool || g->pool + l->pool_bytes <= g->arena;
    RT_REQUIRE(!g->arena || !g->pool || apart, err, RT_ERR_INVALID,
               "arena (%" PRIu64 " bytes at 0x%" PRIx64 ") and pool (%" PRIu64
               " bytes at 0x%" PRIx64 ") overlap",
               l->arena_bytes, g->arena, l->pool_bytes, g->pool);
    return RT_OK;
}

static enum rt_status take_device(struct rt_driver *d, const char *what, rt_addr given,
                                  uint64_t bytes, rt_addr *out, bool *owned, struct rt_error *err)
{
    *out = given;
    if (given)
        return RT_OK;
    RT_TRY(rt_driver_wanted(RT_DRV(d, err, mem_alloc, (d, bytes, out)), what, bytes, err));
    *owned = true;
    return RT_OK;
}

enum rt_status rt_arena_init(struct rt_arena *out, struct rt_driver *d,
                             const struct rt_placement *placement,
                             const struct rt_arena_given *given, rt_dstream stream,
                             struct rt_error *err)
{
    enum rt_status status;
    *out = (struct rt_arena){.driver = d, .placement = placement};
    RT_TRY_GOTO(check_all_given(placement, given, err));
    RT_TRY_GOTO(rt_driver_wanted(
        RT_DRV(d, err, host_alloc, (d, placement->mapped_bytes, &out->mapped, &out->mapped_addr)),
        "the pinned host memory", placement->mapped_bytes, err));
    memset(out->mapped, 0, (size_t)placement->mapped_bytes);
    RT_TRY_GOTO(take_device(d, "the arena", given->arena, placement->arena_bytes, &out->arena,
                            &out->owns_arena, err));
    RT_TRY_GOTO(take_device(d, "the KV pool", given->pool, placement->pool_bytes, &out->pool,
                            &out->owns_pool, err));
    RT_TRY_GOTO(RT_DRV(d, err, fill, (d, out->arena, 0, placement->arena_bytes, stream)));
    RT_TRY_GOTO(RT_DRV(d, err, stream_sync, (d, stream)));
    return RT_OK;
fail:
    rt_arena_free(out);
    return status;
}

/* A release that reports an earlier failure has released all the same. */
void rt_arena_free(struct rt_arena *a)
{
    if (a->owns_pool)
        (void)a->driver->mem_free(a->driver, a->pool);
    if (a->owns_arena)
        (void)a->driver->mem_free(a->driver, a->arena);
    if (a->mapped)
        (void)a->driver->host_free(a->driver, a->mapped);
    *a = (struct rt_arena){0};
}

static rt_addr region_base(const struct rt_arena *a, enum rt_plan_region region)
{
    switch (region) {
    case RT_REGION_ARENA:
        return a->arena;
    case RT_REGION_MAPPED:
        return a->mapped_addr;
    case RT_REGION_POOL:
        return a->pool;
    }
    return 0;
}

rt_addr rt_arena_addr(const struct rt_arena *a, enum rt_tensor_id id, uint32_t layer)
{
    const struct rt_placed *const b = &a->placement->tensors[id];
    assert(b->layer_stride == 0 || layer < a->placement->dims.layers);
    return region_base(a, b->region) + b->offset + layer * b->layer_stride;
}

void *rt_arena_host(const struct rt_arena *a, enum rt_tensor_id id)
{
    const struct rt_placed *const b = &a->placement->tensors[id];
    assert(b->region == RT_REGION_MAPPED);
    return (unsigned char *)a->mapped + b->offset;
}
