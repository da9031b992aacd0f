/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/host/host_device.h"

#include "common/math.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALLOC_ALIGN 256 /* what device allocations promise */
#define ALLOC_POISON 0xC3
#define SM_COUNT 8 /* enough for splits and parts to happen */

/* Limits of CUDA, so that a launch refused on a GPU is refused here too. */
#define MAX_BLOCK_THREADS 1024
#define MAX_GRID_X INT32_MAX
#define MAX_GRID_YZ 65535

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

/* ---- allocations ---- */

void *rt_host_alloc_aligned(uint64_t bytes)
{
    void *p = NULL;
    if (bytes > SIZE_MAX || posix_memalign(&p, _Alignof(struct rt_launch), (size_t)bytes) != 0)
        return NULL;
    memset(p, 0, (size_t)bytes);
    return p;
}

/* Room on the device for `bytes` more: an operating system that promises more memory than there is
 * would kill the process while it is being filled. */
static bool has_room(const struct rt_driver *d, uint64_t bytes)
{
    uint64_t used = bytes;
    for (const struct rt_host_block *b = ((const struct rt_host *)d->impl)->blocks; b;
         b = b->next) {
        if (!rt_add_u64(used, b->bytes, &used))
            return false;
    }
    return used <= (d->caps.memory_bytes ? d->caps.memory_bytes : PTRDIFF_MAX);
}

/* posix_memalign, not aligned_alloc: it allocates exactly `bytes`, so a sanitizer sees the first
 * byte behind them. */
static int block_add(struct rt_driver *d, uint64_t bytes, bool pinned, void **out)
{
    if (bytes == 0)
        return RT_HOST_INVALID;
    if (!has_room(d, bytes))
        return RT_HOST_NO_MEMORY;
    struct rt_host *h = rt_host_of(d);
    void *memory = NULL;
    struct rt_host_block *b = calloc(1, sizeof(*b));
    if (!b || posix_memalign(&memory, ALLOC_ALIGN, (size_t)bytes) != 0) {
        free(b);
        return RT_HOST_NO_MEMORY;
    }
    memset(memory, ALLOC_POISON, (size_t)bytes);
    *b = (struct rt_host_block){
        .next = h->blocks, .base = (uintptr_t)memory, .bytes = bytes, .pinned = pinned};
    h->blocks = b;
    *out = memory;
    return 0;
}

static int block_remove(struct rt_host *h, void *memory, bool pinned)
{
    for (struct rt_host_block **link = &h->blocks; *link; link = &(*link)->next) {
        struct rt_host_block *b = *link;
        if (b->base != (uintptr_t)memory || b->pinned != pinned)
            continue;
        *link = b->next;
        free(b);
        free(memory);
        return 0;
    }
    return RT_HOST_NOT_FOUND;
}

static const struct rt_host_block *block_find(const struct rt_host *h, rt_addr addr)
{
    const struct rt_host_block *b = h->blocks;
    while (b && (addr < b->base || addr - b->base >= b->bytes))
        b = b->next;
    return b;
}

int rt_host_check_range(const struct rt_host *h, rt_addr addr, uint64_t bytes)
{
    if (bytes == 0)
        return 0;
    const struct rt_host_block *b = block_find(h, addr);
    return b && bytes <= b->bytes - (addr - b->base) ? 0 : RT_HOST_RANGE;
}

static int mem_alloc(struct rt_driver *d, uint64_t bytes, rt_addr *out)
{
    if (rt_probe_enter(d, RT_DOP_mem_alloc))
        return RT_DRIVER_INJECTED;
    void *memory;
    const int rc = block_add(d, bytes, false, &memory);
    if (rc != 0)
        return rc;
    d->probe.live++;
    *out = (uintptr_t)memory;
    return 0;
}

static int mem_free(struct rt_driver *d, rt_addr addr)
{
    const bool injected = rt_probe_enter(d, RT_DOP_mem_free);
    const int rc = block_remove(rt_host_of(d), (void *)(uintptr_t)addr, false);
    if (rc != 0)
        return rc;
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : 0;
}

static int host_alloc(struct rt_driver *d, uint64_t bytes, void **out_host, rt_addr *out_addr)
{
    if (rt_probe_enter(d, RT_DOP_host_alloc))
        return RT_DRIVER_INJECTED;
    void *memory;
    const int rc = block_add(d, bytes, true, &memory);
    if (rc != 0)
        return rc;
    d->probe.live++;
    *out_host = memory;
    *out_addr = (uintptr_t)memory;
    return 0;
}

static int host_free(struct rt_driver *d, void *host)
{
    const bool injected = rt_probe_enter(d, RT_DOP_host_free);
    const int rc = block_remove(rt_host_of(d), host, true);
    if (rc != 0)
        return rc;
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : 0;
}

static int address_range(struct rt_driver *d, rt_addr addr, struct rt_address_range *out)
{
    if (rt_probe_enter(d, RT_DOP_address_range))
        return RT_DRIVER_INJECTED;
    const struct rt_host_block *b = block_find(rt_host_of(d), addr);
    *out = (struct rt_address_range){.base = b ? b->base : 0, .bytes = b ? b->bytes : 0};
    return 0;
}

/* ---- kernels ---- */

static const struct rt_host_kernel *kernel_of(rt_dkernel k)
{
    return (const struct rt_host_kernel *)k;
}

static int check_kernel(const struct rt_host *h, rt_dkernel k)
{
    const uintptr_t at = (uintptr_t)k;
    for (const struct rt_dlibrary_opaque *lib = h->libraries; lib; lib = lib->next) {
        const uintptr_t first = (uintptr_t)lib->kernels;
        const uintptr_t end = (uintptr_t)(lib->kernels + lib->kernel_count);
        if (at >= first && at < end && (at - first) % sizeof(struct rt_host_kernel) == 0)
            return 0;
    }
    return RT_HOST_NOT_FOUND;
}

int rt_host_check_launch(const struct rt_host *h, const struct rt_launch *l)
{
    const int rc = check_kernel(h, l->kernel);
    if (rc != 0)
        return rc;
    if (l->param_bytes != kernel_of(l->kernel)->param_bytes)
        return RT_HOST_PARAMS;
    uint64_t threads = 1;
    for (int i = 0; i < 3; i++) {
        if (l->block[i] == 0 || l->block[i] > MAX_BLOCK_THREADS || l->grid[i] == 0 ||
            l->grid[i] > (i == 0 ? (uint32_t)MAX_GRID_X : MAX_GRID_YZ))
            return RT_HOST_INVALID;
        threads *= l->block[i];
    }
    if (threads > MAX_BLOCK_THREADS || (l->cluster_x > 1 && l->grid[0] % l->cluster_x != 0))
        return RT_HOST_INVALID;
    return 0;
}

/* The kernel gets a copy of its own, as on a GPU: what it does to it nobody sees. */
void rt_host_run_kernel(const struct rt_launch *l)
{
    _Alignas(64) unsigned char params[RT_LAUNCH_PARAM_BYTES];
    memcpy(params, l->params, l->param_bytes);
    kernel_of(l->kernel)->run(params);
}

static bool image_usable(const struct rt_image *image)
{
    if (!image || !image->host_kernels)
        return false;
    for (uint32_t i = 0; i < image->host_kernel_count; i++) {
        const struct rt_host_kernel *k = &image->host_kernels[i];
        if (!k->entry || !k->run || k->param_bytes > RT_LAUNCH_PARAM_BYTES)
            return false;
    }
    return true;
}

static int library_load(struct rt_driver *d, const struct rt_image *image, rt_dlibrary *out)
{
    if (rt_probe_enter(d, RT_DOP_library_load))
        return RT_DRIVER_INJECTED;
    if (!image_usable(image))
        return RT_HOST_INVALID;
    struct rt_host *h = rt_host_of(d);
    struct rt_dlibrary_opaque *lib = calloc(1, sizeof(*lib));
    if (!lib)
        return RT_HOST_NO_MEMORY;
    *lib = (struct rt_dlibrary_opaque){.next = h->libraries,
                                       .kernels = image->host_kernels,
                                       .kernel_count = image->host_kernel_count};
    h->libraries = lib;
    d->probe.live++;
    *out = lib;
    return 0;
}

static int library_unload(struct rt_driver *d, rt_dlibrary lib)
{
    const bool injected = rt_probe_enter(d, RT_DOP_library_unload);
    struct rt_dlibrary_opaque **link = &rt_host_of(d)->libraries;
    while (*link && *link != lib)
        link = &(*link)->next;
    if (!*link)
        return RT_HOST_NOT_FOUND;
    *link = lib->next;
    free(lib);
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : 0;
}

static int kernel_get(struct rt_driver *d, rt_dlibrary lib, const char *entry, rt_dkernel *out)
{
    if (rt_probe_enter(d, RT_DOP_kernel_get))
        return RT_DRIVER_INJECTED;
    if (!lib || !entry)
        return RT_HOST_INVALID;
    for (uint32_t i = 0; i < lib->kernel_count; i++) {
        if (strcmp(lib->kernels[i].entry, entry) == 0) {
            *out = (rt_dkernel)(uintptr_t)&lib->kernels[i];
            return 0;
        }
    }
    return RT_HOST_NOT_FOUND;
}

static int kernel_set_smem(struct rt_driver *d, rt_dkernel k, uint32_t dynamic_bytes)
{
    if (rt_probe_enter(d, RT_DOP_kernel_set_smem))
        return RT_DRIVER_INJECTED;
    if (dynamic_bytes > d->caps.smem_optin_bytes)
        return RT_HOST_INVALID;
    return check_kernel(rt_host_of(d), k);
}

static int kernel_param_bytes(struct rt_driver *d, rt_dkernel k, uint32_t *out)
{
    if (rt_probe_enter(d, RT_DOP_kernel_param_bytes))
        return RT_DRIVER_INJECTED;
    const int rc = check_kernel(rt_host_of(d), k);
    if (rc != 0)
        return rc;
    *out = kernel_of(k)->param_bytes;
    return 0;
}

static int tensor_map(struct rt_driver *d, const struct rt_tensor_map_spec *spec,
                      struct rt_tensor_map *out)
{
    if (rt_probe_enter(d, RT_DOP_tensor_map))
        return RT_DRIVER_INJECTED;
    if (!rt_tensor_map_spec_valid(spec))
        return RT_HOST_INVALID;
    *out = (struct rt_tensor_map){.words = {spec->address}};
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
        snprintf(h->text, sizeof(h->text), "a call node returned %d", code - RT_DRIVER_CALL_FAILED);
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
                                   .memory_bytes = memory_bytes};
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
                              .mem_alloc = mem_alloc,
                              .mem_free = mem_free,
                              .host_alloc = host_alloc,
                              .host_free = host_free,
                              .address_range = address_range,
                              .library_load = library_load,
                              .library_unload = library_unload,
                              .kernel_get = kernel_get,
                              .kernel_set_smem = kernel_set_smem,
                              .kernel_param_bytes = kernel_param_bytes,
                              .tensor_map = tensor_map,
                              .error_text = error_text,
                              .is_out_of_memory = is_out_of_memory,
                              .close = close_host};
    h->table = out;
    rt_host_bind_streams(out);
    rt_host_bind_graphs(out);
    return RT_OK;
}
