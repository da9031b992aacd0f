/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_CLUSTER_CUH
#define RT_KERNELS_DEVICE_PTX_CLUSTER_CUH

/*
 * Blocks of a cluster, which reach into each other's shared memory: PTX ISA, "shared::cluster". A
 * block may not leave while another copies into it, or arrives at its barriers.
 * volatile, memory: accesses on either side stay there.
 */
#include "kernels/device/ptx/tma.cuh"

/* Of a cluster along x: PTX ISA, "%cluster_ctarank". */
static __device__ __forceinline__ uint32_t rt_cluster_rank(void)
{
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* All threads of all blocks are here: PTX ISA, "barrier.cluster". Barriers that were initialised
 * and fenced (mbarrier.cuh) are seen by all; else nobody is told what others have stored. */
static __device__ __forceinline__ void rt_cluster_meet(void)
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\n"
                 "barrier.cluster.wait.aligned;" ::
                     : "memory");
}

/* Likewise, and all that they have done before is done: a MEMBAR. */
static __device__ __forceinline__ void rt_cluster_part(void)
{
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

/* At that barrier of the block of that rank, of what this thread has read: PTX ISA, "mapa",
 * "mbarrier.arrive". What it has stored that block is not told: that would be a release of the
 * cluster's scope, a MEMBAR. */
static __device__ __forceinline__ void rt_cluster_arrive_at(uint64_t *barrier, uint32_t rank)
{
    asm volatile(
        "{\n.reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(rt_shared_address(barrier)),
        "r"(rank)
        : "memory");
}

/* A place of this block's shared memory in that of the block of that rank: PTX ISA, "mapa". */
static __device__ __forceinline__ uint32_t rt_cluster_place(const void *shared, uint32_t rank)
{
    uint32_t place;
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(place)
        : "r"(rt_shared_address(shared)), "r"(rank));
    return place;
}

/* Two numbers to such a place, which count as 8 bytes copied in at that block's barrier, behind
 * which it sees them: PTX ISA, "st.async". */
static __device__ __forceinline__ void rt_cluster_send(uint32_t place, uint32_t barrier, float low,
                                                       float high)
{
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%2, "
                 "%3}, [%1];" ::"r"(place),
                 "r"(barrier), "f"(low), "f"(high)
                 : "memory");
}

/* Bytes, multiples of 16, of this block's memory to such a place of another block; else likewise.
 * They are read some time: this block may not leave before the other one has them. PTX ISA,
 * "cp.async.bulk"; to a block itself compute-sanitizer takes it for an invalid write. */
static __device__ __forceinline__ void rt_cluster_send_bytes(uint32_t place, uint32_t barrier,
                                                             const void *shared, uint32_t bytes)
{
    asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], "
                 "[%2], %3, [%1];" ::"r"(place),
                 "r"(barrier), "r"(rt_shared_address(shared)), "r"(bytes)
                 : "memory");
}

/* Boxes for several blocks of a cluster, bit r of `ranks` for that of rank r: each gets it at the
 * same place of its shared memory, and counts it at its own barrier. */
static __device__ __forceinline__ void rt_tma_share_3(void *shared, const void *map,
                                                      uint64_t *barrier, int x, int y, int z,
                                                      uint16_t ranks, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6, %7;" ::"r"(
                     rt_shared_address(shared)),
                 "l"(map), "r"(rt_shared_address(barrier)), "r"(x), "r"(y), "r"(z), "h"(ranks),
                 "l"(policy)
                 : "memory");
}

static __device__ __forceinline__ void rt_tma_share_5(void *shared, const void *map,
                                                      uint64_t *barrier, int x, int y, int z, int w,
                                                      int v, uint16_t ranks, uint64_t policy)
{
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8, %9;" ::"r"(
            rt_shared_address(shared)),
        "l"(map), "r"(rt_shared_address(barrier)), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v),
        "h"(ranks), "l"(policy)
        : "memory");
}

#endif
