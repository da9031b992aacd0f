/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of the host device with the generic CUDA kernels in place of the C references where
 * they can be emulated. Linked ahead of the library, whose own table is then left out: whatever
 * runs on the host device, checkkern above all, runs them.
 */
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/ref/ref.h"
#include "tests/emu/run.h"

#define RT_KERNEL(entry_, image_, params_, pointers_, smem_, waits_, ref_)
#define RT_ATTEND_GENERIC(d_qk, d_v, tile_rows)                                                    \
    void rt_mla_attend_##d_qk##x##d_v##_r##tile_rows(struct rt_mla_attend_params p);               \
    static void thread_##d_qk##x##d_v##_r##tile_rows(const void *params)                           \
    {                                                                                              \
        rt_mla_attend_##d_qk##x##d_v##_r##tile_rows(*(const struct rt_mla_attend_params *)params); \
    }                                                                                              \
    static void grid_##d_qk##x##d_v##_r##tile_rows(const void *params)                             \
    {                                                                                              \
        const struct rt_mla_attend_params *p = params;                                             \
        emu_run(                                                                                   \
            &(struct emu_launch){.grid_x = (p->heads * p->q_len + tile_rows - 1) / tile_rows,      \
                                 .grid_y = p->parts,                                               \
                                 .threads = RT_ATTEND_GENERIC_THREADS,                             \
                                 .shared_bytes = RT_ATTEND_GENERIC_SMEM_BYTES(tile_rows, d_qk),    \
                                 .seed = p->rows + p->heads,                                       \
                                 .thread = thread_##d_qk##x##d_v##_r##tile_rows,                   \
                                 .params = p});                                                    \
    }
#include "kernels/kernels.inc"

void rt_mla_reduce(struct rt_mla_reduce_params p);

static void thread_reduce(const void *params)
{
    rt_mla_reduce(*(const struct rt_mla_reduce_params *)params);
}

/* Any number of blocks is right, so it is not always the same: a few, or enough for all items of a
 * row or two, which with a single row are then as narrow as they get. */
static void grid_reduce(const void *params)
{
    const struct rt_mla_reduce_params *p = params;
    uint32_t items = p->heads * p->q_len * p->d_v / RT_MLA_REDUCE_LEAST_COLUMNS;
    uint32_t blocks = items < 128 ? items : 128;
    emu_run(&(struct emu_launch){.grid_x = p->heads % 3 == 0 ? 1 + p->rows % 7 : blocks,
                                 .grid_y = 1,
                                 .threads = RT_MLA_REDUCE_THREADS,
                                 .seed = p->rows + p->heads,
                                 .thread = thread_reduce,
                                 .params = p});
}

#define rt_ref_mla_reduce grid_reduce
const struct rt_host_kernel rt_ref_kernels[] = {
#define RT_KERNEL(entry_, image_, params_, pointers_, smem_, waits_, ref_)                         \
    {.entry = #entry_, .run = ref_, .param_bytes = sizeof(params_)},
#define RT_ATTEND_GENERIC(d_qk, d_v, tile_rows)                                                    \
    {.entry = "rt_mla_attend_" #d_qk "x" #d_v "_r" #tile_rows,                                     \
     .run = grid_##d_qk##x##d_v##_r##tile_rows,                                                    \
     .param_bytes = sizeof(struct rt_mla_attend_params)},
#include "kernels/kernels.inc"
};

const uint32_t rt_ref_kernel_count = sizeof(rt_ref_kernels) / sizeof(rt_ref_kernels[0]);
