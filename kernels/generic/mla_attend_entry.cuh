/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_MLA_ATTEND_ENTRY_CUH
#define RT_KERNELS_GENERIC_MLA_ATTEND_ENTRY_CUH

/* The generic attend kernels' entry points: a macro each for keys in rows, quantised or not, for
 * listed ones, and for batch-invariant attention. */
#include "kernels/generic/mla_attend.cuh"

template <int D_QK, int D_V, int TILE_ROWS, class SOURCE, bool FOLD = false>
static __device__ __forceinline__ void rt_attend_entry(const typename SOURCE::params &all)
{
    extern __shared__ __align__(16) unsigned char rt_attend_shared[];
    using block = rt_attend_block<D_QK, D_V, TILE_ROWS, SOURCE, FOLD>;
    const struct rt_attend_params &p = SOURCE::attend(all);
    void *shared = rt_settle_shared(rt_attend_shared);
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (p.stamp_first && threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0)
        *p.stamp_first = rt_globaltimer_ns();
    block(all, *(typename block::smem *)shared).run();
}

/* One device entry point: its name is its registry line. */
#define RT_ATTEND_GENERIC_ENTRY(d_qk, d_v, tile_rows)                                              \
    extern "C" __global__ void __launch_bounds__(RT_ATTEND_GENERIC_THREADS,                        \
                                                 RT_ATTEND_GENERIC_BLOCKS_PER_SM(tile_rows, d_qk)) \
        rt_mla_attend_##d_qk##x##d_v##_r##tile_rows(                                               \
            const __grid_constant__ struct rt_attend_params p)                                     \
    {                                                                                              \
        rt_attend_entry<d_qk, d_v, tile_rows, rt_attend_row_keys>(p);                              \
    }

/* Likewise of keys in e4m3. */
#define RT_ATTEND_QUANT_ENTRY(d_qk, d_v, tile_rows)                                                \
    extern "C" __global__ void __launch_bounds__(RT_ATTEND_GENERIC_THREADS,                        \
                                                 RT_ATTEND_QUANT_BLOCKS_PER_SM(tile_rows, d_qk))   \
        rt_mla_attend_quant_##d_qk##x##d_v##_r##tile_rows(                                         \
            const __grid_constant__ struct rt_attend_quant_params p)                               \
    {                                                                                              \
        rt_attend_entry<d_qk, d_v, tile_rows, rt_attend_quant_keys>(p);                            \
    }

/* Likewise batch-invariant. */
#define RT_ATTEND_FOLD_ENTRY(d_qk, d_v, tile_rows)                                                 \
    extern "C" __global__ void __launch_bounds__(RT_ATTEND_GENERIC_THREADS,                        \
                                                 RT_ATTEND_FOLD_BLOCKS_PER_SM(tile_rows, d_qk))    \
        rt_mla_attend_##d_qk##x##d_v##_f##tile_rows(                                               \
            const __grid_constant__ struct rt_attend_params p)                                     \
    {                                                                                              \
        rt_attend_entry<d_qk, d_v, tile_rows, rt_attend_row_keys, true>(p);                        \
    }

/* Likewise over listed keys. */
#define RT_SPARSE_GENERIC_ENTRY(d_qk, d_v, tile_rows)                                              \
    extern "C" __global__ void __launch_bounds__(RT_ATTEND_GENERIC_THREADS,                        \
                                                 RT_ATTEND_GENERIC_BLOCKS_PER_SM(tile_rows, d_qk)) \
        rt_mla_sparse_##d_qk##x##d_v##_r##tile_rows(                                               \
            const __grid_constant__ struct rt_sparse_attend_params p)                              \
    {                                                                                              \
        rt_attend_entry<d_qk, d_v, tile_rows, rt_attend_listed_keys>(p);                           \
    }

/* Likewise over listed keys in e4m3. */
#define RT_SPARSE_QUANT_ENTRY(d_qk, d_v, tile_rows)                                                \
    extern "C" __global__ void __launch_bounds__(RT_ATTEND_GENERIC_THREADS,                        \
                                                 RT_ATTEND_QUANT_BLOCKS_PER_SM(tile_rows, d_qk))   \
        rt_mla_sparse_quant_##d_qk##x##d_v##_r##tile_rows(                                         \
            const __grid_constant__ struct rt_sparse_attend_quant_params p)                        \
    {                                                                                              \
        rt_attend_entry<d_qk, d_v, tile_rows, rt_attend_quant_listed_keys>(p);                     \
    }

#endif
