/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_ENTRY_CUH
#define RT_KERNELS_SM90_ATTEND_ENTRY_CUH

/*
 * The sm_90 attend kernels: 384 threads, one warp group that loads and two that compute, one block
 * on an SM. docs/mla_attend_sm90.md draws them.
 */
#include "kernels/sm90/attend_load.cuh"
#include "kernels/sm90/attend_narrow.cuh"
#include "kernels/sm90/attend_wide.cuh"

/* 128 * 56 + 256 * 224 = 64512 registers, as at the launch: 384 * 168. */
#define RT_SM90_LOADER_REGISTERS 56
#define RT_SM90_WORKER_REGISTERS 224

/* Keys at the row's end that a query row does not see; rows behind the last see none. */
template <class SHAPE>
static __device__ __forceinline__ void rt_sm90_fill_lags(const struct rt_mla_attend_params &p,
                                                         typename SHAPE::desk &desk)
{
    for (int row = (int)threadIdx.x; row < SHAPE::TILE_ROWS; row += (int)blockDim.x) {
        const int query = (int)blockIdx.x * SHAPE::TILE_ROWS + row;
        const int token = query / (int)p.heads;
        desk.lag[row] = token >= (int)p.q_len ? 0x7fffffff
                        : p.causal            ? (int)p.q_len - 1 - token
                                              : 0;
    }
}

/*
 * A block without work leaves without waiting, and makes room for blocks that have some: a grid is
 * over when all its blocks are, and its first block always waits.
 */
static __device__ __forceinline__ bool rt_sm90_is_idle(const struct rt_mla_attend_params &p)
{
    return p.early && blockIdx.y > 0 && p.tiles[blockIdx.y].begin_row >= (int)p.rows;
}

template <class SHAPE, template <class, int> class MATH>
static __device__ __forceinline__ void rt_sm90_attend(const struct rt_attend_sm90_params &p)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    if (rt_sm90_is_idle(p.attend))
        return;
    const rt_sm90_room<SHAPE> room(rt_sm90_shared);
    if (threadIdx.x == 0) {
        rt_tma_prefetch_map(&p.kv_map);
        rt_tma_prefetch_map(&p.q_map);
        rt_sm90_init_barriers<SHAPE>(room.desk);
    }
    rt_sm90_fill_lags<SHAPE>(p.attend, room.desk);
    __syncthreads();
    if (SHAPE::CLUSTER > 1) {
        rt_cluster_arrive();
        rt_cluster_wait();
    }
    /* A shuffle tells the compiler that a warp takes one branch. */
    const int group = __shfl_sync(RT_ATTEND_FULL_WARP, (int)threadIdx.x / 128, 0);
    if (group == 0) {
        rt_registers_down<RT_SM90_LOADER_REGISTERS>();
        rt_sm90_loader<SHAPE> loader(p, room);
        if (threadIdx.x < 32)
            loader.run_keys();
        else if (threadIdx.x < 64)
            loader.run_queries();
    } else if (group == 1) {
        rt_registers_up<RT_SM90_WORKER_REGISTERS>();
        rt_sm90_worker<MATH<SHAPE, 0>> worker(p.attend, room);
        worker.run();
    } else {
        rt_registers_up<RT_SM90_WORKER_REGISTERS>();
        rt_sm90_worker<MATH<SHAPE, 1>> worker(p.attend, room);
        worker.run();
    }
    if (SHAPE::CLUSTER > 1) { /* nobody leaves while others write to its shared memory */
        __syncwarp();
        rt_cluster_arrive();
        rt_cluster_wait();
    }
}

#define RT_SM90_ENTRY(name, math, d_qk, d_v, tile_rows, cluster)                                   \
    extern "C" __global__ void __launch_bounds__(RT_ATTEND_SM90_THREADS, 1)                        \
        name(const __grid_constant__ struct rt_attend_sm90_params p)                               \
    {                                                                                              \
        using shape = rt_sm90_shape<d_qk, d_v, tile_rows, cluster>;                                \
        rt_sm90_attend<shape, math>(p);                                                            \
    }

/* One device entry point each: its name is its registry line. */
#define RT_SM90_NARROW(d_qk, d_v, tile_rows)                                                       \
    RT_SM90_ENTRY(rt_mla_sm90_##d_qk##x##d_v##_n##tile_rows, rt_sm90_narrow, d_qk, d_v, tile_rows, \
                  1)
#define RT_SM90_WIDE(d_qk, d_v, cluster)                                                           \
    RT_SM90_ENTRY(rt_mla_sm90_##d_qk##x##d_v##_m64_c##cluster, rt_sm90_wide, d_qk, d_v, 64, cluster)

#define RT_SM90_GEOMETRY(d_qk, d_v)                                                                \
    RT_SM90_NARROW(d_qk, d_v, 8)                                                                   \
    RT_SM90_NARROW(d_qk, d_v, 16)                                                                  \
    RT_SM90_NARROW(d_qk, d_v, 32)                                                                  \
    RT_SM90_WIDE(d_qk, d_v, 1)                                                                     \
    RT_SM90_WIDE(d_qk, d_v, 2)

#endif
