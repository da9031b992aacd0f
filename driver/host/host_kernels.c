/* SPDX-License-Identifier: Apache-2.0 */
/* Libraries of C functions: what a kernel is here, and whether a launch of it could run. */
#include "driver/host/host_parts.h"

#include <stdlib.h>
#include <string.h>

/* Limits of CUDA, so that a launch refused on a GPU is refused here too. */
#define MAX_BLOCK_THREADS 1024
#define MAX_GRID_X INT32_MAX
#define MAX_GRID_YZ 65535

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
    const uint64_t blocks = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2];
    if (l->cooperative && blocks > h->table->caps.sm_count)
        return RT_HOST_TOO_LARGE;
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

static int kernel_resident_blocks(struct rt_driver *d, rt_dkernel k, uint32_t block_threads,
                                  uint32_t smem_bytes, uint32_t *out)
{
    if (rt_probe_enter(d, RT_DOP_kernel_resident_blocks))
        return RT_DRIVER_INJECTED;
    const int rc = check_kernel(rt_host_of(d), k);
    if (rc != 0)
        return rc;
    if (block_threads == 0)
        return RT_HOST_INVALID;
    const bool fits = block_threads <= MAX_BLOCK_THREADS && smem_bytes <= d->caps.smem_optin_bytes;
    *out = fits ? d->caps.sm_count : 0;
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

void rt_host_bind_kernels(struct rt_driver *d)
{
    d->library_load = library_load;
    d->library_unload = library_unload;
    d->kernel_get = kernel_get;
    d->kernel_set_smem = kernel_set_smem;
    d->kernel_param_bytes = kernel_param_bytes;
    d->kernel_resident_blocks = kernel_resident_blocks;
    d->tensor_map = tensor_map;
}
