/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_PREFILL_ENTRY_CUH
#define RT_KERNELS_SM90_PREFILL_ENTRY_CUH

/*
 * The sm_90 prefill kernels: 384 threads, one warp group that serves and two that work, one block
 * on an SM, which takes items until there are none. docs/mla_prefill.md draws them.
 */
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/sm90/prefill_items.cuh"
#include "kernels/sm90/prefill_load.cuh"
#include "kernels/sm90/prefill_work.cuh"

/* 128 * 40 + 256 * 232 = 64512 registers, as at the launch: 384 * 168. */
#define RT_PREFILL_SERVER_REGISTERS 40
#define RT_PREFILL_WORKER_REGISTERS 232

template <class SHAPE>
static __device__ __forceinline__ void rt_prefill_serve(const struct rt_prefill_sm90_params &p,
                                                        const rt_prefill_room<SHAPE> &room)
{
    if (threadIdx.x < 32)
        rt_prefill_loader<SHAPE>(p, room).run();
    else if (threadIdx.x < 64)
        rt_prefill_finder(p, room.desk).run();
}

template <class SHAPE>
static __device__ __forceinline__ void rt_prefill_run(const struct rt_prefill_sm90_params &p)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    const rt_prefill_room<SHAPE> room(rt_sm90_shared);
    if (threadIdx.x == 0) {
        rt_tma_prefetch_map(&p.q_map);
        rt_tma_prefetch_map(&p.k_map);
        rt_tma_prefetch_map(&p.v_map);
        rt_prefill_init_barriers(room.desk);
    }
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    rt_prefill_order_rows(p.attend, room.desk);
    /* A shuffle tells the compiler that a warp takes one branch. */
    const int group = __shfl_sync(RT_FULL_WARP, (int)threadIdx.x / 128, 0);
    if (group == 0) {
        rt_registers_down<RT_PREFILL_SERVER_REGISTERS>();
        rt_prefill_serve<SHAPE>(p, room);
    } else {
        rt_registers_up<RT_PREFILL_WORKER_REGISTERS>();
        rt_prefill_worker<SHAPE>(p.attend, room, group - 1).run();
    }
}

/* One device entry point: its name is its registry line. */
#define RT_PREFILL_SM90_ENTRY(d_qk, d_v)                                                           \
    extern "C" __global__ void __launch_bounds__(RT_PREFILL_SM90_THREADS, 1)                       \
        rt_prefill_sm90_##d_qk##x##d_v(const __grid_constant__ struct rt_prefill_sm90_params p)    \
    {                                                                                              \
        using shape = rt_prefill_dims<d_qk, d_v>;                                                  \
        rt_prefill_run<shape>(p);                                                                  \
    }

#endif
