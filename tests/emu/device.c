/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host device with the emulated CUDA kernels in place of the C references, and of compute
 * capability 9.0. Linked ahead of the library, whose own table is then left out, with
 * rt_driver_open and rt_host_run_kernel wrapped: whatever runs on the host device, checkkern above
 * all, runs them, with the grid, block and shared memory of its launch.
 */
#include "tests/emu/device.h"

#include "driver/driver.h"
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/experts_many.h"
#include "kernels/abi/experts_sm90.h"
#include "kernels/abi/mla_block.h"
#include "kernels/abi/moe_block.h"
#include "kernels/abi/preattend_absorb_sm90.h"
#include "kernels/abi/prefill_sm90.h"
#include "kernels/abi/project_many.h"
#include "kernels/abi/project_sm90.h"
#include "kernels/abi/quant_sm90.h"
#include "kernels/abi/sparse_sm90.h"
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "kernels/registry.h"
#include "tests/emu/chain.h"
#include "tests/emu/entries.h"
#include "tests/emu/run.h"
#include "tests/emu/tma.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct rt_launch *now; /* the launch that runs */

void __real_rt_host_run_kernel(const struct rt_launch *l);
void __wrap_rt_host_run_kernel(const struct rt_launch *l);

void __wrap_rt_host_run_kernel(const struct rt_launch *l)
{
    now = l;
    __real_rt_host_run_kernel(l);
}

/* As it was launched, but for reduce and preattend: for them any number of blocks is right, so it
 * is not always the same, and a few are quicker. */
static void run(void (*thread)(const void *params), const void *params)
{
    const bool any_grid = strncmp(now->entry, "rt_reduce", strlen("rt_reduce")) == 0 ||
                          strcmp(now->entry, "rt_preattend") == 0;
    const uint32_t blocks = any_grid ? 1 + now->grid[0] % 29 : now->grid[0];
    emu_run(&(struct emu_launch){.grid_x = blocks,
                                 .grid_y = now->grid[1],
                                 .threads = now->block[0],
                                 .shared_bytes = now->smem_bytes,
                                 .cooperative = now->cooperative,
                                 .cluster = now->cluster_x,
                                 .asynchronous = now->cooperative || strstr(now->entry, "sm90"),
                                 .seed = now->grid[0] + now->grid[1],
                                 .thread = thread,
                                 .params = params});
}

#define RT_KERNEL(entry_, image_, params_, addresses_, smem_, waits_, ref_)                        \
    static void thread_##entry_(const void *params)                                                \
    {                                                                                              \
        entry_(*(const params_ *)params);                                                          \
    }                                                                                              \
    static void run_##entry_(const void *params)                                                   \
    {                                                                                              \
        run(thread_##entry_, params);                                                              \
    }
#include "kernels/kernels.inc"

const struct rt_host_kernel rt_ref_kernels[] = {
#define RT_KERNEL(entry_, image_, params_, addresses_, smem_, waits_, ref_)                        \
    {.entry = #entry_, .run = run_##entry_, .param_bytes = sizeof(params_)},
#include "kernels/kernels.inc"
};

const uint32_t rt_ref_kernel_count = sizeof(rt_ref_kernels) / sizeof(rt_ref_kernels[0]);

static struct rt_driver host; /* its operations, as they are without the emulator */

static int mem_alloc(struct rt_driver *d, uint64_t bytes, rt_addr *out)
{
    const int rc = host.mem_alloc(d, bytes, out);
    if (rc == 0)
        emu_chain_add((void *)(uintptr_t)*out, (size_t)bytes);
    return rc;
}

static int mem_free(struct rt_driver *d, rt_addr at)
{
    emu_chain_remove((void *)(uintptr_t)at);
    return host.mem_free(d, at);
}

static int graph_launch(struct rt_driver *d, rt_dexec x, rt_dstream s)
{
    emu_chain_begin();
    const int rc = host.graph_launch(d, x, s);
    emu_chain_end();
    return rc;
}

static int tensor_map(struct rt_driver *d, const struct rt_tensor_map_spec *spec,
                      struct rt_tensor_map *out)
{
    const int rc = host.tensor_map(d, spec, out); /* checks it */
    if (rc != 0)
        return rc;
    uint64_t *w = out->words;
    w[EMU_MAP_MARK] = EMU_MAP_IS_ONE;
    w[EMU_MAP_ADDRESS] = spec->address;
    w[EMU_MAP_DIMS] = spec->dims;
    w[EMU_MAP_BOX] = 0;
    for (uint32_t i = 0; i < RT_TENSOR_MAP_DIMS; i++) {
        w[EMU_MAP_SIZE + i] = spec->size[i];
        w[EMU_MAP_STRIDE + i] = spec->stride_bytes[i];
        w[EMU_MAP_BOX] |= (uint64_t)spec->box[i] << EMU_MAP_BOX_BITS * i;
    }
    return 0;
}

enum rt_status __real_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);
enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);

enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err)
{
    const char *seed = getenv("RT_EMU_SEED");
    if (seed)
        emu_seed = strtoull(seed, NULL, 10);
    const enum rt_status status = __real_rt_driver_open(device, out, why, why_bytes, err);
    if (status != RT_OK || out->caps.kind != RT_DEVICE_KIND_HOST)
        return status;
    (void)snprintf(out->caps.name, sizeof(out->caps.name), "host (emulated CUDA kernels)");
    out->caps.cc = 90;
    host = *out;
    out->mem_alloc = mem_alloc;
    out->mem_free = mem_free;
    out->graph_launch = graph_launch;
    out->tensor_map = tensor_map;
    return RT_OK;
}

/* ---- attend alone ---- */

static void must(bool holds, const char *what, const struct rt_error *err)
{
    if (holds)
        return;
    fprintf(stderr, "emulated device: %s: %s\n", what, err->message);
    exit(1);
}

static struct rt_kernels *kernels_of_device(void)
{
    static struct rt_driver driver;
    static struct rt_kernels kernels;
    struct rt_error err = {0};
    if (!kernels.driver) {
        must(rt_driver_open("host", &driver, NULL, 0, &err) == RT_OK, "open", &err);
        must(rt_kernels_load(&driver, &kernels, &err) == RT_OK, "load", &err);
    }
    return &kernels;
}

void emu_attend(const struct emu_attend_kernel *kernel, const struct rt_attend_params *p)
{
    const uint32_t hq = p->heads * p->rows.q_len;
    const struct rt_variant choice = {
        .op = RT_OP_ATTEND,
        .backend = kernel->sm90 ? RT_BACKEND_SM90 : RT_BACKEND_GENERIC,
        .entry = kernel->entry,
        .tile_rows = kernel->tile_rows,
        .m_tiles = (hq + kernel->tile_rows - 1) / kernel->tile_rows,
        .parts = p->schedule.part_count,
        .threads = kernel->sm90 ? RT_ATTEND_SM90_THREADS : RT_ATTEND_GENERIC_THREADS,
        .many_entry = kernel->sharers > 1 ? kernel->entry : NULL,
        .many_threads = RT_ATTEND_SM90_THREADS,
        .many_cluster = kernel->sharers,
        .invariant = p->schedule.invariant,
    };
    struct rt_kernels *k = kernels_of_device();
    struct rt_work work;
    struct rt_error err = {0};
    must(rt_op_build(k, &choice, p, sizeof(*p), &work, &err) == RT_OK, kernel->entry, &err);
    must(k->driver->launch(k->driver, &work.launch, false, NULL) == 0, "launch", &err);
}
