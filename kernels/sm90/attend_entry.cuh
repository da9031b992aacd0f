/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_ENTRY_CUH
#define RT_KERNELS_SM90_ATTEND_ENTRY_CUH

/*
 * The sm_90 attend kernels: 384 threads, one warp group that loads and two that compute, of 64
 * query rows over e4m3 512 and two that load; one block on an SM. docs/mla_attend_sm90.md draws
 * them.
 */
#include "kernels/device/params_line.cuh"
#include "kernels/sm90/attend_apart.cuh"
#include "kernels/sm90/attend_converter.cuh"
#include "kernels/sm90/attend_even.cuh"
#include "kernels/sm90/attend_fold.cuh"
#include "kernels/sm90/attend_gather.cuh"
#include "kernels/sm90/attend_load.cuh"
#include "kernels/sm90/attend_narrow.cuh"
#include "kernels/sm90/attend_queries.cuh"
#include "kernels/sm90/attend_through.cuh"
#include "kernels/sm90/attend_whole.cuh"
#include "kernels/sm90/attend_wide.cuh"

/* 128 * 56 + 256 * 224 = 128 * 72 + 256 * 216 = 128 * 40 + 256 * 232 = 64512 registers, as at the
 * launch: 384 * 168. Who gathers or converts, or cuts rows into leaves, has more to remember; who
 * shares boxes asks for half as many. Of eight loading warps 256 * 64 + 256 * 192 = 65536 = 512 *
 * 128: what is spilled has little room in L1 beside so much shared memory, and with fewer those
 * warps wait for L2 most of the time. */
template <class SHAPE> struct rt_sm90_registers {
    static constexpr bool EIGHT = SHAPE::LOADING_WARPS == 8;
    static constexpr bool REMEMBERS = SHAPE::BY != RT_SM90_BY_BOXES || SHAPE::FOLDS;
    static constexpr int LOADER = EIGHT ? 64 : REMEMBERS ? 72 : SHAPE::SHARED ? 40 : 56;
    static constexpr int WORKER = EIGHT           ? 192
                                  : SHAPE::APART  ? 144
                                  : REMEMBERS     ? 216
                                  : SHAPE::SHARED ? 232
                                                  : 224;
};

/* What is the same for every batch row: where a query row's output goes, and the keys at the row's
 * end that it does not see; rows behind the last see none. */
template <class SHAPE>
static __device__ __forceinline__ void rt_sm90_fill_desk(const struct rt_attend_params &p,
                                                         typename SHAPE::desk &desk)
{
    const int row = (int)threadIdx.x;
    if (row < SHAPE::TILE_ROWS) {
        const int query = rt_sm90_first_query<SHAPE>() + row;
        const int token = query / (int)p.heads, head = query % (int)p.heads;
        desk.out_at[row] = token * p.out.token_stride + head * p.out.head_stride;
        desk.lse_at[row] = token * p.lse.token_stride + head * p.lse.head_stride;
        desk.lag[row] = token >= (int)p.rows.q_len ? 0x3fffffff
                        : p.causal                 ? (int)p.rows.q_len - 1 - token
                                                   : 0;
    }
}

/*
 * A block without work leaves without waiting, and makes room for blocks that have some: a grid is
 * over when all its blocks are, and its first block always waits.
 */
static __device__ __forceinline__ bool rt_sm90_leaves(const struct rt_attend_params &p)
{
    return p.early && blockIdx.y > 0 && p.schedule.parts[blockIdx.y].begin_row >= (int)p.rows.count;
}

/* With many query rows the tensor cores set the pace, and what is asked for late they wait for. */
template <class SHAPE>
static __device__ __forceinline__ void rt_sm90_load_boxes(const typename SHAPE::params &p,
                                                          const rt_sm90_room<SHAPE> &room)
{
    const int warp = __shfl_sync(RT_ATTEND_FULL_WARP, (int)threadIdx.x / 32, 0);
    if (warp == 1)
        rt_sm90_queries<SHAPE>(p, room).run();
    else if (!SHAPE::PARTED && warp == 0)
        rt_sm90_loader<SHAPE>(p, room, RT_SM90_BRINGS_ALL).run();
    else if (SHAPE::PARTED)
        rt_sm90_loader<SHAPE>(p, room,
                              warp == 0   ? RT_SM90_BRINGS_HALF_0
                              : warp == 2 ? RT_SM90_BRINGS_HALF_1
                                          : RT_SM90_BRINGS_REST)
            .run();
}

template <class SHAPE>
static __device__ __forceinline__ void rt_sm90_load(const typename SHAPE::params &p,
                                                    const rt_sm90_room<SHAPE> &room)
{
    if constexpr (SHAPE::LOADING_WARPS == 8)
        rt_sm90_through<SHAPE>(p, room).run();
    else if constexpr (SHAPE::BY == RT_SM90_BY_CONVERSION)
        rt_sm90_converter<SHAPE>(p, room).run();
    else if constexpr (SHAPE::BY == RT_SM90_BY_COPIES)
        rt_sm90_gatherer<SHAPE>(p, room).run();
    else
        rt_sm90_load_boxes<SHAPE>(p, room);
}

/* By pairs of blocks, or each worker by itself. */
template <class MATH, bool APART> struct rt_sm90_worker_of {
    typedef rt_sm90_worker<MATH> type;
};
template <class MATH> struct rt_sm90_worker_of<MATH, true> {
    typedef MATH type;
};

/* With 64 query rows, or 32 and two accumulators, registers move from those that load to those that
 * work. Both workers run the same code: what runs once or twice is the rule for short rows, and
 * then less code is quicker. */
template <class SHAPE, template <class> class MATH>
static __device__ __forceinline__ void rt_sm90_divide(const typename SHAPE::params &p,
                                                      const rt_sm90_room<SHAPE> &room)
{
    typedef typename rt_sm90_worker_of<MATH<SHAPE>, SHAPE::APART>::type worker;
    /* A shuffle tells the compiler that a warp takes one branch. */
    const int group = __shfl_sync(RT_ATTEND_FULL_WARP, (int)threadIdx.x / 128, 0);
    constexpr int LOADING = SHAPE::LOADING_WARPS / 4;
    if (group < LOADING) {
        if (SHAPE::MOVES_REGISTERS)
            rt_registers_down<rt_sm90_registers<SHAPE>::LOADER>();
        rt_sm90_load<SHAPE>(p, room);
    } else {
        if (SHAPE::MOVES_REGISTERS)
            rt_registers_up<rt_sm90_registers<SHAPE>::WORKER>();
        worker(p, room, group - LOADING).run();
    }
}

/* By warps that will ask for boxes, or have nothing else to do. */
template <class SHAPE>
static __device__ __forceinline__ void rt_sm90_prefetch_maps(const typename SHAPE::params &all)
{
    constexpr bool HAS_REST = SHAPE::TILES > SHAPE::V_TILES;
    if constexpr (SHAPE::BY == RT_SM90_BY_BOXES || SHAPE::BOXED) {
        if (threadIdx.x == 64)
            rt_tma_prefetch_map(&all.kv_map);
        if (HAS_REST && threadIdx.x == 96)
            rt_tma_prefetch_map(&all.kv_rest_map);
    }
    if (threadIdx.x == 32)
        rt_tma_prefetch_map(&all.q_map);
    if (HAS_REST && threadIdx.x == 32)
        rt_tma_prefetch_map(&all.q_rest_map);
}

template <class SHAPE, template <class> class MATH>
static __device__ __forceinline__ void rt_sm90_attend(const typename SHAPE::params &all)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    const struct rt_attend_params &p = SHAPE::keys::attend(all);
    const bool leaves = rt_sm90_leaves(p); /* a trip to memory, beside what needs none */
    constexpr bool ASKS = (SHAPE::BYTES || SHAPE::LISTED) && SHAPE::TILE_ROWS < 64;
    const uint32_t line = ASKS ? rt_ask_for_params_line(all) : 0;
    const rt_sm90_room<SHAPE> room(rt_sm90_shared);
    rt_sm90_prefetch_maps<SHAPE>(all);
    if (threadIdx.x == 0)
        rt_sm90_init_barriers<SHAPE>(room.desk);
    rt_sm90_fill_desk<SHAPE>(p, room.desk);
    if (ASKS)
        rt_settle_any(line);
    if (leaves)
        return;
    __syncthreads();
    if (SHAPE::SHARED || SHAPE::WHOLE)
        rt_cluster_meet(); /* nobody copies to a block, or arrives there, whose barriers are none */
    rt_sm90_divide<SHAPE, MATH>(all, room);
    if (SHAPE::SHARED) {
        __syncwarp();
        rt_cluster_part(); /* likewise one that has left */
    }
    if constexpr (SHAPE::WHOLE) {
        __syncwarp();
        rt_cluster_meet(); /* nor copies from it: all have what was sent */
        rt_sm90_stamp_last(all);
    }
}

/*
 * Few query rows need few registers: 65536 / 512 = 128 a thread leave room on the SM for a block of
 * reduce or append, so that the next attention can start while those wait for this one.
 */
#define RT_SM90_BOUND(tile_rows, f16, has_rest)                                                    \
    ((tile_rows) < ((f16) && (has_rest) ? 32 : 64) ? 512                                           \
     : (f16)                                       ? RT_ATTEND_QUANT_SM90_THREADS(tile_rows)       \
                                                   : RT_ATTEND_SM90_THREADS)

template <class SHAPE, bool BYTES, bool WIDE> struct rt_sm90_math_by {
    typedef rt_sm90_even<SHAPE> type;
};
template <class SHAPE> struct rt_sm90_math_by<SHAPE, false, false> {
    typedef rt_sm90_narrow<SHAPE> type;
};
template <class SHAPE> struct rt_sm90_math_by<SHAPE, false, true> {
    typedef rt_sm90_wide<SHAPE> type;
};
template <class SHAPE>
using rt_sm90_math = typename rt_sm90_math_by<SHAPE, SHAPE::BYTES, SHAPE::TILE_ROWS == 64>::type;

/* One device entry point: its name is its registry line. */
#define RT_SM90_ENTRY(name, keys, d_qk, d_v, kind, math, tile_rows)                                \
    extern "C" __global__ void __launch_bounds__(                                                  \
        RT_SM90_BOUND(tile_rows, keys::F16, (d_qk) > (d_v)), 1)                                    \
        rt_mla_##name##_##d_qk##x##d_v##_##kind(const __grid_constant__ keys::params p)            \
    {                                                                                              \
        using shape = rt_sm90_shape<d_qk, d_v, tile_rows, keys>;                                   \
        rt_sm90_attend<shape, math>(p);                                                            \
    }

/* Likewise batch-invariant. */
#define RT_SM90_FOLD_ENTRY(d_qk, d_v, tile_rows)                                                   \
    extern "C" __global__ void __launch_bounds__(RT_SM90_BOUND((tile_rows)*2, false, true), 1)     \
        rt_mla_sm90_##d_qk##x##d_v##_f##tile_rows(                                                 \
            const __grid_constant__ struct rt_attend_sm90_params p)                                \
    {                                                                                              \
        using shape = rt_sm90_shape<d_qk, d_v, tile_rows, rt_sm90_row_keys, RT_SM90_FOLDS>;        \
        rt_sm90_attend<shape, rt_sm90_fold>(p);                                                    \
    }

/* Likewise of 64 query rows. */
#define RT_SM90_OWN_ENTRY(d_qk, d_v)                                                               \
    extern "C" __global__ void __launch_bounds__(RT_ATTEND_SM90_THREADS, 1)                        \
        rt_mla_sm90_##d_qk##x##d_v##_p64(const __grid_constant__ struct rt_attend_sm90_params p)   \
    {                                                                                              \
        using shape = rt_sm90_shape<d_qk, d_v, 64, rt_sm90_row_keys, RT_SM90_OWN>;                 \
        rt_sm90_attend<shape, rt_sm90_wide>(p);                                                    \
    }

/* Likewise two tiles of 64 query rows that share their keys. */
#define RT_SM90_SHARED_ENTRY(d_qk, d_v, kind, cuts)                                                \
    extern "C" __global__ void __cluster_dims__(2, 1, 1)                                           \
        __launch_bounds__(RT_ATTEND_SM90_THREADS, 1) rt_mla_sm90_##d_qk##x##d_v##_##kind(          \
            const __grid_constant__ struct rt_attend_sm90_params p)                                \
    {                                                                                              \
        using shape = rt_sm90_shape<d_qk, d_v, 64, rt_sm90_row_keys, cuts, true>;                  \
        rt_sm90_attend<shape, rt_sm90_wide>(p);                                                    \
    }

/* Likewise over keys of e4m3 whose scales are of one kind, of three workers each of which has
 * blocks of its own. `code`: the kind that the machine code is for, `any` or the same. */
#define RT_SM90_APART_ENTRY(d_qk, d_v, tile_rows, scales, code)                                    \
    extern "C" __global__ void __launch_bounds__(RT_ATTEND_APART_SM90_THREADS, 1)                  \
        rt_mla_quant_sm90_##d_qk##x##d_v##_t##tile_rows##_##scales(                                \
            const __grid_constant__ struct rt_attend_quant_sm90_params p)                          \
    {                                                                                              \
        using shape = rt_sm90_shape<d_qk, d_v, tile_rows,                                          \
                                    rt_sm90_quant_row_keys_of<RT_ATTEND_SCALES_##code>,            \
                                    RT_SM90_EVEN, false, RT_ATTEND_APART_SM90_WORKERS>;            \
        rt_sm90_attend<shape, rt_sm90_apart>(p);                                                   \
    }

/* Likewise over listed keys, of few query tokens: a row is a cluster's. */
#define RT_SM90_WHOLE_ENTRY(d_qk, d_v, tile_rows)                                                  \
    extern "C" __global__ void __cluster_dims__(RT_SPARSE_WHOLE_BLOCKS, 1, 1)                      \
        __launch_bounds__(RT_SM90_BOUND(tile_rows, false, true), 1)                                \
            rt_mla_sparse_sm90_##d_qk##x##d_v##_w##tile_rows(                                      \
                const __grid_constant__ struct rt_sparse_sm90_params p)                            \
    {                                                                                              \
        using shape = rt_sm90_shape<d_qk, d_v, tile_rows, rt_sm90_listed_keys, RT_SM90_EVEN,       \
                                    false, RT_SM90_WORKERS, true>;                                 \
        rt_sm90_attend<shape, rt_sm90_whole>(p);                                                   \
    }

/* Those of two workers with fewer than 64 query rows a tile. */
#define RT_SM90_SCALES_GEOMETRY(d_qk, d_v, scales)                                                 \
    RT_SM90_ENTRY(quant_sm90, rt_sm90_quant_row_keys_of<RT_ATTEND_SCALES_##scales>, d_qk, d_v,     \
                  n8_##scales, rt_sm90_math, 8)                                                    \
    RT_SM90_ENTRY(quant_sm90, rt_sm90_quant_row_keys_of<RT_ATTEND_SCALES_##scales>, d_qk, d_v,     \
                  n16_##scales, rt_sm90_math, 16)                                                  \
    RT_SM90_ENTRY(quant_sm90, rt_sm90_quant_row_keys_of<RT_ATTEND_SCALES_##scales>, d_qk, d_v,     \
                  n32_##scales, rt_sm90_math, 32)

#define RT_SM90_TILES(name, keys, d_qk, d_v)                                                       \
    RT_SM90_ENTRY(name, keys, d_qk, d_v, n8, rt_sm90_math, 8)                                      \
    RT_SM90_ENTRY(name, keys, d_qk, d_v, n16, rt_sm90_math, 16)                                    \
    RT_SM90_ENTRY(name, keys, d_qk, d_v, n32, rt_sm90_math, 32)                                    \
    RT_SM90_ENTRY(name, keys, d_qk, d_v, m64, rt_sm90_math, 64)

#define RT_SM90_GEOMETRY(d_qk, d_v)                                                                \
    RT_SM90_TILES(sm90, rt_sm90_row_keys, d_qk, d_v)                                               \
    RT_SM90_FOLD_ENTRY(d_qk, d_v, 8)                                                               \
    RT_SM90_FOLD_ENTRY(d_qk, d_v, 16)                                                              \
    RT_SM90_FOLD_ENTRY(d_qk, d_v, 32)                                                              \
    RT_SM90_OWN_ENTRY(d_qk, d_v)

/* Likewise over listed keys. */
#define RT_SM90_SPARSE_GEOMETRY(d_qk, d_v)                                                         \
    RT_SM90_TILES(sparse_sm90, rt_sm90_listed_keys, d_qk, d_v)                                     \
    RT_SM90_WHOLE_ENTRY(d_qk, d_v, 8)                                                              \
    RT_SM90_WHOLE_ENTRY(d_qk, d_v, 16)

/* Likewise of e4m3. */
#define RT_SM90_QUANT_GEOMETRY(d_qk, d_v)                                                          \
    RT_SM90_TILES(quant_sm90, rt_sm90_quant_row_keys, d_qk, d_v)

#define RT_SM90_SPARSE_QUANT_GEOMETRY(d_qk, d_v)                                                   \
    RT_SM90_TILES(sparse_quant_sm90, rt_sm90_quant_listed_keys, d_qk, d_v)

#endif
