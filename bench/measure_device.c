/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/measure_device.h"

#include "bench/measure_pages.h"
#include "common/math.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN RT_MEASURE_PLACE_BYTES
#define NOISE_LEAST_BYTES 4096u
#define NOISE_MOST_BYTES (UINT64_C(1) << 30)
/* Of the free memory that the pool may take, in percent: the rest is for everything else. */
#define POOL_PERCENT 85u
/* Noise of bf16 is in pages of every size. */
#define ANY_PAGE 1u

/* ---- the handle ------------------------------------------------------------------------------ */

static enum rt_status open_inside(struct rt_measure *m, const struct rt_measure_params *p,
                                  struct rt_error *err)
{
    struct rt_driver *d = &m->driver;
    rt_addr unused;
    RT_TRY(rt_kernels_load(d, &m->kernels, err));
    RT_TRY(RT_DRV(d, err, stream_create, (d, &m->stream)));
    for (uint32_t i = 0; i < 2 * RT_MEASURE_MAX_REPLAYS; i++)
        RT_TRY(RT_DRV(d, err, event_create, (d, &m->events[i])));
    RT_TRY(RT_DRV(d, err, host_alloc, (d, p->noise_bytes, &m->noise, &unused)));
    memcpy(m->noise, p->noise, p->noise_bytes);
    m->noise_bytes = p->noise_bytes;
    return RT_OK;
}

enum rt_status rt_measure_create(const struct rt_measure_params *params, rt_measure **out,
                                 struct rt_error *error)
{
    RT_REQUIRE(out, error, RT_ERR_INVALID, "rt_measure_create: out is null");
    *out = NULL;
    RT_REQUIRE(params && params->device && params->noise, error, RT_ERR_INVALID,
               "rt_measure_create: params, device or noise is null");
    RT_REQUIRE(params->noise_bytes >= NOISE_LEAST_BYTES && params->noise_bytes % ALIGN == 0 &&
                   params->noise_bytes <= NOISE_MOST_BYTES,
               error, RT_ERR_INVALID,
               "rt_measure_create: noise_bytes = %llu is not a multiple of 256 from 4096 to 2^30",
               (unsigned long long)params->noise_bytes);
    struct rt_measure *m = calloc(1, sizeof(*m));
    RT_REQUIRE(m, error, RT_ERR_NOMEM, "out of host memory for a measurement");
    struct rt_driver *d = &m->driver;
    enum rt_status status;
    RT_TRY_GOTO(
        rt_driver_open(params->device, d, m->device_reason, sizeof(m->device_reason), error));
    RT_TRY_GOTO(RT_DRV(d, error, ctx_enter, (d)));
    status = open_inside(m, params, error);
    (void)d->ctx_leave(d);
    if (status != RT_OK)
        goto fail;
    *out = m;
    return RT_OK;
fail:
    rt_measure_destroy(&m);
    return status;
}

void rt_measure_destroy(rt_measure **measure)
{
    if (!measure || !*measure)
        return;
    struct rt_measure *m = *measure;
    struct rt_driver *d = &m->driver;
    if (d->ctx_enter) {
        bool entered = d->ctx_enter(d) == 0; /* what was not entered is not ours to leave */
        rt_energy_close(&m->energy);
        if (m->pool)
            (void)d->mem_free(d, m->pool);
        if (m->noise)
            (void)d->host_free(d, m->noise);
        for (uint32_t i = 0; i < 2 * RT_MEASURE_MAX_REPLAYS; i++)
            if (m->events[i])
                (void)d->event_destroy(d, m->events[i]);
        if (m->stream)
            (void)d->stream_destroy(d, m->stream);
        rt_kernels_unload(&m->kernels);
        if (entered)
            (void)d->ctx_leave(d);
        rt_driver_close(d);
    }
    free(m);
    *measure = NULL;
}

const struct rt_error *rt_measure_last_error(const rt_measure *m)
{
    static const struct rt_error none = {.status = RT_ERR_INVALID, .message = "measure is null"};
    return m ? &m->error : &none;
}

enum rt_status rt_measure_get_info(const rt_measure *m, struct rt_measure_info *out)
{
    RT_REQUIRE(m && out, NULL, RT_ERR_INVALID, "rt_measure_get_info: an argument is null");
    const struct rt_device_caps *caps = &m->driver.caps;
    *out = (struct rt_measure_info){.host = caps->kind == RT_DEVICE_KIND_HOST,
                                    .sm_count = caps->sm_count,
                                    .l2_bytes = caps->l2_bytes};
    (void)snprintf(out->device, sizeof(out->device), "%s", caps->name);
    (void)snprintf(out->device_reason, sizeof(out->device_reason), "%s", m->device_reason);
    if (out->host)
        (void)snprintf(out->opens, sizeof(out->opens), "host");
    else
        (void)snprintf(out->opens, sizeof(out->opens), "cuda:%u", caps->ordinal);
    return RT_OK;
}

/* ---- the pool -------------------------------------------------------------------------------- */

/* What device memory is filled with: whole units, of which a piece may begin with any of the first
 * half. */
struct source {
    const char *bytes;
    uint64_t units, unit_bytes;
};

static enum rt_status fill_from(struct rt_measure *m, const struct source *from, rt_addr to,
                                uint64_t bytes)
{
    struct rt_driver *d = &m->driver;
    const uint64_t slots = from->units / 2 + from->units % 2;
    enum rt_status status = RT_OK;
    uint64_t at = 0;
    for (uint64_t i = 0; at < bytes && status == RT_OK; i++) {
        const uint64_t place = rt_measure_place(i, slots);
        uint64_t piece = (from->units - place) * from->unit_bytes;
        piece = piece < bytes - at ? piece : bytes - at;
        status = RT_DRV(d, &m->error, copy_in,
                        (d, to + at, from->bytes + place * from->unit_bytes, piece, m->stream));
        at += piece;
    }
    RT_TRY(status);
    return RT_DRV(d, &m->error, stream_sync, (d, m->stream));
}

enum rt_status rt_measure_fill(struct rt_measure *m, rt_addr to, uint64_t bytes)
{
    const struct source noise = {m->noise, m->noise_bytes / ALIGN, ALIGN};
    return fill_from(m, &noise, to, bytes);
}

/* The pool as pages of the shape's, one behind the other. */
static enum rt_status fill_pages(struct rt_measure *m, const struct rt_mla_shape *shape)
{
    struct rt_kv_format format;
    (void)rt_kv_format_make(shape->kv_layout, RT_PRECISION_BF16, shape->d_qk, shape->d_v, &format);
    const uint64_t page_bytes = rt_kv_page_bytes(&format, shape->page_size);
    const uint64_t pages = m->noise_bytes > page_bytes ? m->noise_bytes / page_bytes : 1;
    char *made = malloc(pages * page_bytes);
    RT_REQUIRE(made, &m->error, RT_ERR_NOMEM, "out of host memory for %llu bytes of noise",
               (unsigned long long)(pages * page_bytes));
    rt_measure_make_pages(&format, shape->page_size, RT_MEASURE_KV_SCALE, m->noise, m->noise_bytes,
                          pages, made);
    const struct source source = {made, pages, page_bytes};
    const enum rt_status status = fill_from(m, &source, m->pool, m->pool_bytes);
    free(made);
    return status;
}

/* What the pool could be if it were made anew. */
static enum rt_status find_room(struct rt_measure *m, uint64_t wanted, uint64_t *bytes)
{
    struct rt_driver *d = &m->driver;
    uint64_t free_bytes, total;
    RT_TRY(RT_DRV(d, &m->error, mem_info, (d, &free_bytes, &total)));
    uint64_t room = (free_bytes + m->pool_bytes) / 100 * POOL_PERCENT;
    *bytes = rt_align_up_u64(wanted, ALIGN);
    if (*bytes > room)
        *bytes = room / ALIGN * ALIGN;
    RT_REQUIRE(*bytes, &m->error, RT_ERR_DEVICE_MEMORY,
               "no device memory for KV: %llu bytes are free", (unsigned long long)free_bytes);
    return RT_OK;
}

static enum rt_status grow_pool(struct rt_measure *m, uint64_t wanted)
{
    struct rt_driver *d = &m->driver;
    struct rt_error *err = &m->error;
    uint64_t bytes = 0;
    rt_addr old = m->pool, pool;
    RT_TRY(find_room(m, wanted, &bytes));
    /* Memory that is full is not filled again for a little more, shape after shape. */
    if (bytes < wanted && bytes <= m->pool_bytes + m->pool_bytes / 16)
        return RT_OK;
    m->pool = 0;
    m->pool_bytes = 0;
    if (old)
        RT_TRY(RT_DRV(d, err, mem_free, (d, old)));
    RT_TRY(rt_driver_wanted(RT_DRV(d, err, mem_alloc, (d, bytes, &pool)), "the pool", bytes, err));
    enum rt_status status = rt_measure_fill(m, pool, bytes);
    if (status != RT_OK) {
        (void)d->mem_free(d, pool);
        return status;
    }
    m->pool = pool;
    m->pool_bytes = bytes;
    m->pool_shape = (struct rt_mla_shape){.kv_layout = RT_KV_BF16, .page_size = ANY_PAGE};
    return RT_OK;
}

enum rt_status rt_measure_renew(struct rt_measure *m, const struct rt_mla_shape *shape)
{
    struct rt_driver *d = &m->driver;
    const struct rt_mla_shape *was = &m->pool_shape;
    const bool same = was->page_size && shape->kv_layout == was->kv_layout &&
                      shape->d_qk == was->d_qk && shape->d_v == was->d_v &&
                      shape->page_size == was->page_size;
    const bool plain = shape->kv_layout == RT_KV_BF16;
    if (same || (plain && was->page_size && was->kv_layout == RT_KV_BF16))
        return RT_OK;
    m->pool_shape = (struct rt_mla_shape){0}; /* of none, where a copy fails */
    RT_TRY(RT_DRV(d, &m->error, ctx_enter, (d)));
    const enum rt_status status =
        plain ? rt_measure_fill(m, m->pool, m->pool_bytes) : fill_pages(m, shape);
    (void)d->ctx_leave(d);
    RT_TRY(status);
    m->pool_shape = *shape;
    return RT_OK;
}

enum rt_status rt_measure_pool(rt_measure *m, uint64_t bytes, struct rt_memory_region *out)
{
    RT_REQUIRE(m, NULL, RT_ERR_INVALID, "rt_measure_pool: measure is null");
    RT_REQUIRE(out && bytes && bytes <= INT64_MAX, &m->error, RT_ERR_INVALID,
               "rt_measure_pool: out is null, or %llu bytes are not 1..2^63-1",
               (unsigned long long)bytes);
    struct rt_driver *d = &m->driver;
    if (bytes > m->pool_bytes) {
        RT_TRY(RT_DRV(d, &m->error, ctx_enter, (d)));
        enum rt_status status = grow_pool(m, bytes);
        (void)d->ctx_leave(d);
        RT_TRY(status);
    }
    *out = (struct rt_memory_region){.address = m->pool, .bytes = m->pool_bytes};
    return RT_OK;
}
