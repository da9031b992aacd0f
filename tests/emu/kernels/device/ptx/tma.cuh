/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_TMA_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_TMA_CUH

#include "tests/emu/tma.h"

#include "kernels/device/ptx/mbarrier.cuh"

static inline void rt_tma_prefetch_map(const void *)
{
}

static inline uint64_t rt_tma_evict_first(void)
{
    return 0;
}

static inline uint64_t rt_tma_evict_last(void)
{
    return 0;
}

static inline uint64_t rt_tma_evict_normal(void)
{
    return 0;
}

static inline void rt_tma_load_3(void *shared, const void *map, uint64_t *barrier, int x, int y,
                                 int z, uint64_t)
{
    const int at[3] = {x, y, z};
    emu_tma_load(shared, map, barrier, 3, at);
}

static inline void rt_tma_load_4(void *shared, const void *map, uint64_t *barrier, int x, int y,
                                 int z, int w, uint64_t)
{
    const int at[4] = {x, y, z, w};
    emu_tma_load(shared, map, barrier, 4, at);
}

static inline void rt_tma_load_5(void *shared, const void *map, uint64_t *barrier, int x, int y,
                                 int z, int w, int v, uint64_t)
{
    const int at[5] = {x, y, z, w, v};
    emu_tma_load(shared, map, barrier, 5, at);
}

#endif
