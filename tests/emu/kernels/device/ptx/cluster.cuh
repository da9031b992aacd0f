/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_CLUSTER_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_CLUSTER_CUH

#include "tests/emu/cluster.h"

#include "kernels/device/ptx/tma.cuh"

static inline uint32_t rt_cluster_rank(void)
{
    return emu_cluster_rank();
}

static inline void rt_cluster_meet(void)
{
    emu_cluster_meet(false);
}

static inline void rt_cluster_part(void)
{
    emu_cluster_meet(true);
}

static inline void rt_cluster_arrive_at(uint64_t *barrier, uint32_t rank)
{
    unsigned char *base;
    emu_mbarrier_arrive((uint64_t *)emu_cluster_at(barrier, rank, &base), 0);
}

static inline uint32_t rt_cluster_place(const void *shared, uint32_t rank)
{
    return rank << EMU_PLACE_BITS | rt_shared_address(shared);
}

static inline void rt_cluster_send(uint32_t place, uint32_t barrier, float low, float high)
{
    emu_cluster_send(place, barrier, low, high);
}

static inline void rt_cluster_send_bytes(uint32_t place, uint32_t barrier, const void *shared,
                                         uint32_t bytes)
{
    emu_cluster_send_bytes(place, barrier, shared, bytes);
}

static inline void rt_tma_share_3(void *shared, const void *map, uint64_t *barrier, int x, int y,
                                  int z, uint16_t ranks, uint64_t)
{
    const int at[3] = {x, y, z};
    emu_tma_share(shared, map, barrier, 3, at, ranks);
}

static inline void rt_tma_share_5(void *shared, const void *map, uint64_t *barrier, int x, int y,
                                  int z, int w, int v, uint16_t ranks, uint64_t)
{
    const int at[5] = {x, y, z, w, v};
    emu_tma_share(shared, map, barrier, 5, at, ranks);
}

#endif
