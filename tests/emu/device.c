/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host device with the emulated CUDA kernels in place of the C references, and of compute
 * capability 9.0. Linked ahead of the library, whose own table is then left out, and with
 * rt_driver_open wrapped: whatever runs on the host device, checkkern above all, runs them.
 */
#include "tests/emu/device.h"

#include "common/driver.h"
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/kernels.h"
#include "kernels/mla.h"
#include "kernels/ref/ref.h"
#include "tests/emu/chain.h"
#include "tests/emu/run.h"
#include "tests/emu/tma.h"

#include <stdio.h>
#include <stdlib.h>

#define RT_KERNEL(entry_, image_, params_, pointers_, smem_, waits_, ref_)
#define GRID(entry_, params_, attend_, tile_rows_, threads_, shared_bytes_)                        \
    void entry_(params_ p);                                                                        \
    static void thread_##entry_(const void *params)                                                \
    {                                                                                              \
        entry_(*(const params_ *)params);                                                          \
    }                                                                                              \
    static void grid_##entry_(const void *params)                                                  \
    {                                                                                              \
        const struct rt_mla_attend_params *p = &((const params_ *)params)->attend_;                \
        emu_run(                                                                                   \
            &(struct emu_launch){.grid_x = (p->heads * p->q_len + (tile_rows_)-1) / (tile_rows_),  \
                                 .grid_y = p->parts,                                               \
                                 .threads = (threads_),                                            \
                                 .shared_bytes = (shared_bytes_),                                  \
                                 .seed = p->rows + p->heads,                                       \
                                 .thread = thread_##entry_,                                        \
                                 .params = params});                                               \
    }
struct generic_params {
    struct rt_mla_attend_params attend;
};
#define RT_ATTEND_GENERIC(d_qk, d_v, tile_rows)                                                    \
    GRID(rt_mla_attend_##d_qk##x##d_v##_r##tile_rows, struct generic_params, attend, tile_rows,    \
         RT_ATTEND_GENERIC_THREADS, RT_ATTEND_GENERIC_SMEM_BYTES(tile_rows, d_qk))
#define RT_ATTEND_SM90(d_qk, d_v, kind, tile_rows)                                                 \
    GRID(rt_mla_sm90_##d_qk##x##d_v##_##kind, struct rt_attend_sm90_params, attend, tile_rows,     \
         RT_ATTEND_SM90_THREADS, RT_ATTEND_SM90_SMEM_BYTES(tile_rows, d_qk, d_v))
#include "kernels/kernels.inc"

/* The others: grids as kernels/mla.c makes them. */
#define PLAIN(name, threads_, grid_x_, grid_y_)                                                    \
    void rt_##name(struct rt_##name##_params p);                                                   \
    static void thread_##name(const void *params)                                                  \
    {                                                                                              \
        rt_##name(*(const struct rt_##name##_params *)params);                                     \
    }                                                                                              \
    static void grid_##name(const void *params)                                                    \
    {                                                                                              \
        const struct rt_##name##_params *p = params;                                               \
        (void)p;                                                                                   \
        emu_run(&(struct emu_launch){.grid_x = (grid_x_),                                          \
                                     .grid_y = (grid_y_),                                          \
                                     .threads = (threads_),                                        \
                                     .seed = (grid_x_),                                            \
                                     .thread = thread_##name,                                      \
                                     .params = params});                                           \
    }

#define WARP_THREADS 32u

/* Any number of blocks is right for reduce, so it is not always the same: a few, or enough for all
 * items of a row or two, which with a single row are then as narrow as they get. */
static uint32_t reduce_blocks(const struct rt_mla_reduce_params *p)
{
    const uint32_t items = p->heads * p->q_len * p->d_v / RT_MLA_REDUCE_LEAST_COLUMNS;
    return p->heads % 3 == 0 ? 1 + p->rows % 7 : rt_min_u32(items, 128);
}

PLAIN(step_begin, RT_STEP_BEGIN_THREADS, 1, 1)
PLAIN(step_end, RT_STEP_END_THREADS, 1, 1)
PLAIN(page_copy, RT_PAGE_COPY_THREADS, p->layers, RT_MAX_PAGE_COPIES)
PLAIN(schedule, RT_SCHEDULE_THREADS, 1, 1)
PLAIN(mla_append, RT_APPEND_WARPS *WARP_THREADS,
      rt_ceil_div_u32(p->rows * p->q_len, RT_APPEND_WARPS), 1)
PLAIN(schedule_append, RT_SCHEDULE_THREADS,
      1 + rt_ceil_div_u32(p->rows * p->q_len, RT_SCHEDULE_THREADS / WARP_THREADS), 1)
PLAIN(mla_reduce, RT_MLA_REDUCE_THREADS, reduce_blocks(p), 1)

#define rt_ref_step_begin grid_step_begin
#define rt_ref_step_end grid_step_end
#define rt_ref_page_copy grid_page_copy
#define rt_ref_schedule grid_schedule
#define rt_ref_mla_append grid_mla_append
#define rt_ref_schedule_append grid_schedule_append
#define rt_ref_mla_reduce grid_mla_reduce
const struct rt_host_kernel rt_ref_kernels[] = {
#define RT_KERNEL(entry_, image_, params_, pointers_, smem_, waits_, ref_)                         \
    {.entry = #entry_, .run = ref_, .param_bytes = sizeof(params_)},
#define EMULATED(entry_, params_)                                                                  \
    {.entry = #entry_, .run = grid_##entry_, .param_bytes = sizeof(params_)},
#define RT_ATTEND_GENERIC(d_qk, d_v, tile_rows)                                                    \
    EMULATED(rt_mla_attend_##d_qk##x##d_v##_r##tile_rows, struct rt_mla_attend_params)
#define RT_ATTEND_SM90(d_qk, d_v, kind, tile_rows)                                                 \
    EMULATED(rt_mla_sm90_##d_qk##x##d_v##_##kind, struct rt_attend_sm90_params)
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
    for (uint32_t i = 0; i < RT_TENSOR_MAP_DIMS; i++) {
        w[EMU_MAP_SIZE + i] = spec->size[i];
        w[EMU_MAP_STRIDE + i] = spec->stride_bytes[i];
        w[EMU_MAP_BOX + i] = spec->box[i];
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
    emu_seed = seed ? strtoull(seed, NULL, 10) : 0;
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

void emu_attend(const struct emu_attend_kernel *kernel, const struct rt_mla_attend_params *p)
{
    const uint32_t hq = p->heads * p->q_len;
    const struct rt_attend_choice choice = {
        .backend = kernel->sm90 ? RT_BACKEND_SM90 : RT_BACKEND_GENERIC,
        .entry = kernel->entry,
        .tile_rows = kernel->tile_rows,
        .m_tiles = (hq + kernel->tile_rows - 1) / kernel->tile_rows,
        .parts = p->parts,
        .threads = kernel->sm90 ? RT_ATTEND_SM90_THREADS : RT_ATTEND_GENERIC_THREADS,
    };
    const uint64_t seed = emu_seed;
    struct rt_kernels *k = kernels_of_device();
    emu_seed = seed; /* opening has taken another */
    struct rt_launch launch;
    struct rt_error err = {0};
    must(rt_mla_attend_launch(k, &choice, p, &launch, &err) == RT_OK, kernel->entry, &err);
    must(k->driver->launch(k->driver, &launch, false, NULL) == 0, "launch", &err);
}
