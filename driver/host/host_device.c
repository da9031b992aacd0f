/* SPDX-License-Identifier: Apache-2.0 */
/* The host device: opening it, its context and its errors. */
#include "driver/host/host_parts.h"

#include "common/math.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SM_COUNT 8 /* enough for splits and parts to happen */

static int ctx_enter(struct rt_driver *d)
{
    if (rt_probe_enter(d, RT_DOP_ctx_enter))
        return RT_DRIVER_INJECTED;
    rt_host_of(d)->contexts++;
    return 0;
}

static int ctx_leave(struct rt_driver *d)
{
    const bool injected = rt_probe_enter(d, RT_DOP_ctx_leave);
    struct rt_host *h = rt_host_of(d);
    if (h->contexts == 0)
        return RT_HOST_NO_CONTEXT;
    h->contexts--;
    return injected ? RT_DRIVER_INJECTED : 0;
}

/* False where the system does not say. */
static bool pages_to_bytes(int pages_name, uint64_t *out)
{
    const long pages = sysconf(pages_name);
    const long page_bytes = sysconf(_SC_PAGESIZE);
    return pages >= 0 && page_bytes > 0 && rt_mul_u64((uint64_t)pages, (uint64_t)page_bytes, out);
}

static int mem_info(struct rt_driver *d, uint64_t *free_bytes, uint64_t *total_bytes)
{
    if (rt_probe_enter(d, RT_DOP_mem_info))
        return RT_DRIVER_INJECTED;
    uint64_t available, total;
    if (!pages_to_bytes(_SC_AVPHYS_PAGES, &available) || !pages_to_bytes(_SC_PHYS_PAGES, &total))
        return RT_HOST_UNSUPPORTED;
    *free_bytes = available;
    *total_bytes = total;
    return 0;
}

/* ---- the table ---- */

static const char *error_text(struct rt_driver *d, int code)
{
    switch (code) {
#define HOST_ERROR_CASE(name, number, text)                                                        \
    case name:                                                                                     \
        return #name " (" #number "): " text;
        RT_HOST_ERRORS(HOST_ERROR_CASE)
#undef HOST_ERROR_CASE
    default:
        break;
    }
    struct rt_host *h = rt_host_of(d);
    if (rt_driver_is_call_failure(code))
        snprintf(h->text, sizeof(h->text), RT_CALL_FAILED_TEXT, code - RT_DRIVER_CALL_FAILED);
    else
        snprintf(h->text, sizeof(h->text), "unknown error %d", code);
    return h->text;
}

static bool is_out_of_memory(struct rt_driver *d, int code)
{
    (void)d;
    return code == RT_HOST_NO_MEMORY;
}

static void close_host(struct rt_driver *d)
{
    struct rt_host *h = rt_host_of(d);
    rt_host_drain(h, &h->own_stream);
    rt_host_forget_adopted(h);
    free(h);
}

/* There is no shared memory to run out of; l2_bytes stays 0: unknown. */
static struct rt_device_caps host_caps(void)
{
    uint64_t memory_bytes;
    if (!pages_to_bytes(_SC_PHYS_PAGES, &memory_bytes))
        memory_bytes = 0;
    return (struct rt_device_caps){.kind = RT_DEVICE_KIND_HOST,
                                   .name = "host (C reference kernels)",
                                   .sm_count = SM_COUNT,
                                   .smem_optin_bytes = UINT32_MAX,
                                   .memory_bytes = memory_bytes,
                                   .has_blas = true};
}

enum rt_status rt_driver_open_host(struct rt_driver *out, struct rt_error *err)
{
    memset(out, 0, sizeof(*out));
    struct rt_host *h = calloc(1, sizeof(*h));
    RT_REQUIRE(h, err, RT_ERR_NOMEM, "out of host memory: %zu bytes for the host device",
               sizeof(*h));
    *out = (struct rt_driver){.caps = host_caps(),
                              .impl = h,
                              .ctx_enter = ctx_enter,
                              .ctx_leave = ctx_leave,
                              .mem_info = mem_info,
                              .error_text = error_text,
                              .is_out_of_memory = is_out_of_memory,
                              .close = close_host};
    h->table = out;
    rt_host_bind_memory(out);
    rt_host_bind_kernels(out);
    rt_host_bind_streams(out);
    rt_host_bind_graphs(out);
    rt_host_bind_twins(out);
    return RT_OK;
}
