/* SPDX-License-Identifier: Apache-2.0 */
#include "replayrt/memory.h"

#include "driver/driver.h"

#include <inttypes.h>
#include <stdlib.h>

struct rt_memory {
    struct rt_driver driver;
    rt_dstream stream;
    rt_addr address;
    uint64_t bytes;
};

static enum rt_status allocate(struct rt_memory *m, struct rt_error *err)
{
    struct rt_driver *d = &m->driver;
    RT_TRY(RT_DRV(d, err, stream_create, (d, &m->stream)));
    return rt_driver_wanted(RT_DRV(d, err, mem_alloc, (d, m->bytes, &m->address)),
                            "the caller's memory", m->bytes, err);
}

enum rt_status rt_memory_create(const char *device, uint64_t bytes, rt_memory **out,
                                uint64_t *address, struct rt_error *error)
{
    RT_REQUIRE(out, error, RT_ERR_INVALID, "rt_memory_create: out is null");
    *out = NULL;
    RT_REQUIRE(device && address && bytes, error, RT_ERR_INVALID,
               "rt_memory_create: device %s, address %p, %" PRIu64 " bytes: must all be given",
               device ? device : "null", (void *)address, bytes);
    struct rt_memory *m = calloc(1, sizeof(*m));
    RT_REQUIRE(m, error, RT_ERR_NOMEM, "out of host memory for a memory");
    struct rt_driver *d = &m->driver;
    char why[160];
    enum rt_status status;
    m->bytes = bytes;
    RT_TRY_GOTO(rt_driver_open(device, d, why, sizeof(why), error));
    RT_TRY_GOTO(RT_DRV(d, error, ctx_enter, (d)));
    status = allocate(m, error);
    (void)d->ctx_leave(d);
    if (status != RT_OK)
        goto fail;
    *address = m->address;
    *out = m;
    return RT_OK;
fail:
    rt_memory_destroy(&m);
    return status;
}

/* A release that reports an earlier failure has released all the same. */
void rt_memory_destroy(rt_memory **memory)
{
    if (!memory || !*memory)
        return;
    struct rt_memory *m = *memory;
    struct rt_driver *d = &m->driver;
    if (d->ctx_enter) {
        const bool entered = d->ctx_enter(d) == 0; /* what was not entered is not ours to leave */
        if (m->address)
            (void)d->mem_free(d, m->address);
        if (m->stream)
            (void)d->stream_destroy(d, m->stream);
        if (entered)
            (void)d->ctx_leave(d);
        rt_driver_close(d);
    }
    free(m);
    *memory = NULL;
}

static enum rt_status check(const rt_memory *m, const char *who, uint64_t offset, const void *data,
                            uint64_t bytes, struct rt_error *err)
{
    RT_REQUIRE(m, err, RT_ERR_INVALID, "%s: memory is null", who);
    RT_REQUIRE(data || !bytes, err, RT_ERR_INVALID, "%s: data is null", who);
    RT_REQUIRE(offset <= m->bytes && bytes <= m->bytes - offset, err, RT_ERR_INVALID,
               "%s: %" PRIu64 " bytes at offset %" PRIu64 " end behind the %" PRIu64
               " that there are",
               who, bytes, offset, m->bytes);
    return RT_OK;
}

/* Inside of the device's context. */
static enum rt_status copy(rt_memory *m, uint64_t offset, const void *from, void *to,
                           uint64_t bytes, struct rt_error *err)
{
    struct rt_driver *d = &m->driver;
    if (from)
        RT_TRY(RT_DRV(d, err, copy_in, (d, m->address + offset, from, bytes, m->stream)));
    else
        RT_TRY(RT_DRV(d, err, copy_out, (d, to, m->address + offset, bytes, m->stream)));
    return RT_DRV(d, err, stream_sync, (d, m->stream));
}

static enum rt_status copy_within(rt_memory *m, uint64_t offset, const void *from, void *to,
                                  uint64_t bytes, struct rt_error *err)
{
    struct rt_driver *d = &m->driver;
    if (!bytes)
        return RT_OK;
    RT_TRY(RT_DRV(d, err, ctx_enter, (d)));
    const enum rt_status status = copy(m, offset, from, to, bytes, err);
    (void)d->ctx_leave(d);
    return status;
}

enum rt_status rt_memory_write(rt_memory *memory, uint64_t offset_bytes, const void *data,
                               uint64_t bytes, struct rt_error *error)
{
    RT_TRY(check(memory, __func__, offset_bytes, data, bytes, error));
    return copy_within(memory, offset_bytes, data, NULL, bytes, error);
}

enum rt_status rt_memory_read(rt_memory *memory, uint64_t offset_bytes, void *data, uint64_t bytes,
                              struct rt_error *error)
{
    RT_TRY(check(memory, __func__, offset_bytes, data, bytes, error));
    return copy_within(memory, offset_bytes, NULL, data, bytes, error);
}
