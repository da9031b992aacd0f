/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_EXPERTS_STREAM_CUH
#define RT_KERNELS_SM90_EXPERTS_STREAM_CUH

/*
 * What the two sm_90 kernels of experts share: the desk, and the eight warps that multiply a slice
 * of up to 8 or 16 vectors of one expert by some of its rows, TILES tiles of 16 rows of a stage.
 */
#include "kernels/abi/experts_sm90.h"
#include "kernels/device/experts.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/sm90/stream.cuh"

/* Named barriers; 0 is __syncthreads. */
enum { RT_EXPERTS_BAR_SUMS = 1, RT_EXPERTS_BAR_ADDED = 2, RT_EXPERTS_BAR_FEW = 3 };

/* Of a slice's vectors. */
struct rt_experts_slice {
    struct rt_expert_pair pair[RT_PROJECT_SM90_MOST_VECTORS];
    float weight[RT_PROJECT_SM90_MOST_VECTORS];
};

/* A slice is written in front of its products and read behind them; the next is written when
 * everybody has done with the one before that. */
struct alignas(16) rt_experts_desk {
    uint64_t full[RT_PROJECT_SM90_MOST_STAGES], empty[RT_PROJECT_SM90_MOST_STAGES];
    struct rt_experts_slice slice[2];
};
static_assert(sizeof(struct rt_experts_desk) <= RT_PROJECT_SM90_DESK_BYTES, "desk's formula");

struct rt_experts_room {
    struct rt_experts_desk &desk;
    float *table; /* [warp][vector][row] */
    float *sums;  /* of down in slices; of few tokens it is rt_experts_few that lies there */
    const struct rt_stream_ring ring;

    __device__ __forceinline__ rt_experts_room(const struct rt_experts_ring &p,
                                               unsigned char *shared, uint32_t stage_rows)
        : desk(*(struct rt_experts_desk *)shared),
          table((float *)(shared + RT_PROJECT_SM90_DESK_BYTES)),
          sums((float *)(shared + p.sums_at)), ring{desk.full,
                                                    desk.empty,
                                                    shared + p.ring_at,
                                                    p.stages,
                                                    stage_rows * p.row_bytes,
                                                    p.row_bytes}
    {
    }
};

/* Some rows of one expert, and a slice of its vectors. */
struct rt_experts_pass {
    struct rt_expert_job job;
    uint32_t first; /* of the slice */
    uint32_t row, rows;
};

/* Warps 0..7, for slices of 8 * COLUMNS vectors. PAIRED: a tile's rows are the first 8 of the
 * tensor cores' 16, and as many others the second. STEP: as of rt_stream_take. */
template <int COLUMNS, int TILES, bool PAIRED, uint32_t STEP = RT_STREAM_STEP>
struct rt_experts_worker {
    static constexpr int WINDOW = COLUMNS == 1 ? 4 : 2; /* chunks of x in registers */
    static constexpr uint32_t VECTORS = 8 * COLUMNS, STRIDE = RT_PROJECT_SM90_SUMS_STRIDE(TILES);
    typedef uint4 chunk[RT_STREAM_PIECES][COLUMNS];

    const struct rt_experts_room &room;
    const uint32_t tile_rows, k;
    const uint32_t warp, g, t;
    const uint32_t mine; /* this lane's first number of a chunk */
    struct rt_stream_turn turn;
    uint32_t rows, count;       /* of the pass; of the slice */
    const uint16_t *x[COLUMNS]; /* this lane's vectors, from its first number on, or null */
    float sum[TILES][COLUMNS][4];

    __device__ __forceinline__ rt_experts_worker(const struct rt_experts_room &room_,
                                                 uint32_t tile_rows_, uint32_t k_, uint32_t warp_)
        : room(room_), tile_rows(tile_rows_), k(k_), warp(warp_), g(threadIdx.x % 32 / 4),
          t(threadIdx.x % 4), mine((STEP == 32 ? 64 : 32) * warp + 8 * t), turn{0, 0}
    {
    }

    /* Zeros behind the last number and for vectors that are not there. */
    __device__ __forceinline__ void load_x(const uint16_t *const (&from)[COLUMNS], uint32_t index,
                                           chunk &to) const
    {
#pragma unroll
        for (int column = 0; column < COLUMNS; column++)
#pragma unroll
            for (int piece = 0; piece < RT_STREAM_PIECES; piece++) {
                const uint32_t at = index * RT_STREAM_CHUNK + piece * STEP;
                to[piece][column] = from[column] && mine + at < k
                                        ? *(const uint4 *)(from[column] + at)
                                        : make_uint4(0, 0, 0, 0);
            }
    }

    __device__ __forceinline__ struct rt_stream_rows rows_of(int tile) const
    {
        const uint32_t n = min(rows - tile * tile_rows, tile_rows);
        const uint32_t second = PAIRED ? n : 8;
        const uint32_t apart = room.ring.row_bytes;
        const bool swap = STEP == 32 && apart % 128 == 0 && g % 2 == 1;
        return {g * apart + 2 * mine, second * apart, g < n, PAIRED ? g < n : g + 8 < n, swap};
    }

    __device__ __forceinline__ void run_chunk(uint32_t index, const chunk &v)
    {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            if (tile * tile_rows >= rows)
                break;
            uint4 w[RT_STREAM_PIECES][2];
            rt_stream_take<STEP>(room.ring, turn, rows_of(tile), mine + index * RT_STREAM_CHUNK, k,
                                 w);
#pragma unroll
            for (int column = 0; column < COLUMNS; column++)
                if (column == 0 || count > 8)
                    rt_stream_add(sum[tile][column], w, v[0][column], v[1][column]);
        }
    }

    __device__ __forceinline__ void clear_sums(void)
    {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
#pragma unroll
            for (int column = 0; column < COLUMNS; column++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    sum[tile][column][e] = 0;
    }

    /* The slice's products, into this warp's sums. */
    __device__ __forceinline__ void multiply(void)
    {
        const uint32_t chunks = rt_ceil_div_u32(k, RT_STREAM_CHUNK);
        chunk window[WINDOW];
#pragma unroll
        for (int i = 0; i < WINDOW; i++)
            load_x(x, i, window[i]);
        clear_sums();
        for (uint32_t first = 0; first < chunks; first += WINDOW) {
#pragma unroll
            for (int i = 0; i < WINDOW; i++) {
                if (first + i >= chunks)
                    break;
                run_chunk(first + i, window[i]);
                if (first + i + WINDOW < chunks)
                    load_x(x, first + i + WINDOW, window[i]);
            }
        }
    }

    /* Behind it the table has all warps' sums of the slice, the n-th of this block. */
    __device__ __forceinline__ void gather(uint32_t n)
    {
        if (n > 0)
            rt_bar_sync(RT_EXPERTS_BAR_ADDED, RT_STREAM_WORKERS);
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
            if (tile * tile_rows < rows)
                rt_stream_put_sums<COLUMNS>(room.table, count, STRIDE, threadIdx.x, tile,
                                            sum[tile]);
        rt_bar_sync(RT_EXPERTS_BAR_SUMS, RT_STREAM_WORKERS);
    }

    /* In one order. `place`: of the row in the pass's tiles of 16. */
    __device__ __forceinline__ float total(uint32_t vector, uint32_t place) const
    {
        float all = 0.0f;
#pragma unroll
        for (uint32_t w = 0; w < RT_PROJECT_SM90_WARPS; w++)
            all += room.table[(w * count + vector) * STRIDE + place];
        return all;
    }
};

/* By the whole block: the ring's barriers, and which warp this is. A shuffle tells the compiler
 * that a warp takes one branch. */
static __device__ __forceinline__ uint32_t rt_experts_begin(const struct rt_experts_room &room,
                                                            uint32_t bringers)
{
    if (threadIdx.x == 0) {
        rt_stream_init(room.ring, bringers);
        rt_mbarrier_init_fence();
    }
    __syncthreads();
    return __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
}

/* The block's two kinds of warps. */
template <class BRINGER, class WORKER, class PARAMS>
static __device__ __forceinline__ void rt_experts_run(const PARAMS &p,
                                                      const struct rt_experts_room &room)
{
    const uint32_t warp = rt_experts_begin(room, RT_PROJECT_SM90_BRINGERS);
    if (warp >= RT_PROJECT_SM90_WARPS)
        BRINGER(p, room).run();
    else
        WORKER(p, room, warp).run();
}

#endif
