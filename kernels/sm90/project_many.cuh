/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_PROJECT_MANY_CUH
#define RT_KERNELS_SM90_PROJECT_MANY_CUH

/*
 * project for Hopper, up to 64 vectors: kernels/abi/project.h has the formula,
 * kernels/abi/project_many.h how it is cut.
 *
 *   d [64 vectors, ROWS] += x [64, 128] w [ROWS, 128]^T     for each chunk of 128 numbers of k
 *
 * Grid: a block for each tile, or as many as there are SMs, of which each takes every so many-th
 * tile, of all z one after the other. The tensor cores take x for the 64 rows that they have and
 * weights for their columns, so that a tile may have few rows.
 *
 *   warp W, of weights   stage ▸ stage ▸ stage …            weights are nobody's output
 *   warp X, of x         wait for the kernel before ▸ stage ▸ stage …
 *   the others           stage of both ▸ stage of both … ▸ y
 *
 * All tiles of a z want all of its x, which L2 gives to one block after the other. Each tile begins
 * at another chunk, for blocks that went through k alike would ask the same few banks at a time. Of
 * fewer than 64 vectors no more are brought: what lies behind them is any number, and no vector's
 * sums depend on another.
 *
 *   shared memory   bytes
 *   desk            1024
 *   weights         stages[0] ROWS 256     across: 128 lines of 64 rows each
 *   x               stages[1] 64 256
 *
 *   barrier    arrives                     waits            means
 *   full[r]    warp W or X, bytes          who multiplies   a stage of ring r is there
 *   empty[r]   each warp's elected lane    warp W or X      nobody reads it any more
 */
#include "kernels/abi/project_many.h"
#include "kernels/device/bf16.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/sync.cuh"
#include "kernels/device/ptx/wgmma.cuh"
#include "kernels/sm90/quad_columns.cuh"
#include "kernels/sm90/stream.cuh"

enum rt_many_ring { RT_MANY_W, RT_MANY_X, RT_MANY_RINGS };

struct alignas(16) rt_many_desk {
    uint64_t full[RT_MANY_RINGS][RT_PROJECT_MANY_MOST_STAGES];
    uint64_t empty[RT_MANY_RINGS][RT_PROJECT_MANY_MOST_STAGES];
};
static_assert(sizeof(struct rt_many_desk) <= RT_PROJECT_MANY_DESK_BYTES, "desk's formula");

/* Rows of one weight of one z. */
struct rt_many_tile {
    uint32_t z, weight, row;
};

template <int ROWS> struct rt_many_room {
    static constexpr uint32_t W_BYTES = RT_PROJECT_MANY_W_BYTES(ROWS);
    const struct rt_project_many_params &p;
    struct rt_many_desk &desk;
    unsigned char *const w, *const x;
    const uint32_t chunks;
    const uint32_t of_z, tiles; /* of one z, of all */

    __device__ __forceinline__ rt_many_room(const struct rt_project_many_params &p_,
                                            unsigned char *shared)
        : p(p_), desk(*(struct rt_many_desk *)shared), w(shared + RT_PROJECT_MANY_DESK_BYTES),
          x(w + p.stages[RT_MANY_W] * W_BYTES),
          chunks(rt_ceil_div_u32(p.project.k, RT_PROJECT_MANY_CHUNK)),
          of_z(p.tiles[0] + p.tiles[1]), tiles(of_z * p.project.batch)
    {
    }

    __device__ __forceinline__ struct rt_many_tile tile(uint32_t number) const
    {
        const uint32_t z = number / of_z, in_z = number - z * of_z;
        const uint32_t weight = in_z >= p.tiles[0];
        return {z, weight, (in_z - (weight ? p.tiles[0] : 0)) * ROWS};
    }

    /* By one thread, and then a barrier tells the others. */
    __device__ __forceinline__ void init(void) const
    {
        for (int ring = 0; ring < RT_MANY_RINGS; ring++)
            for (uint32_t i = 0; i < p.stages[ring]; i++) {
                rt_mbarrier_init(&desk.full[ring][i], 1);
                rt_mbarrier_init(&desk.empty[ring][i], RT_PROJECT_MANY_WORKERS);
            }
        rt_mbarrier_init_fence();
    }
};

/* A warp that brings the stages of a ring. */
template <int ROWS, int ACROSS> struct rt_many_bringer {
    const struct rt_many_room<ROWS> &room;
    const struct rt_project_many_params &p;
    struct rt_stream_turn turn;
    uint32_t asked; /* stages, in all */
    uint32_t chunk; /* the next one */

    explicit __device__ __forceinline__ rt_many_bringer(const struct rt_many_room<ROWS> &room_)
        : room(room_), p(room_.p), turn{0, 1}, asked(0), chunk(0)
    {
    }

    __device__ __forceinline__ void begin(uint32_t number)
    {
        chunk = number % room.chunks;
    }

    /* Returns when the next stage is free, and, while the ring first fills, no more than `early`
     * are on their way. */
    __device__ __forceinline__ void take(int ring, uint32_t early)
    {
        if (asked >= p.stages[ring])
            rt_mbarrier_wait(&room.desk.empty[ring][turn.stage], turn.parity);
        else if (asked >= early)
            rt_mbarrier_wait(&room.desk.full[ring][asked - early], 0);
    }

    __device__ __forceinline__ void next(int ring)
    {
        turn.advance(p.stages[ring]);
        asked++;
        chunk = chunk + 1 == room.chunks ? 0 : chunk + 1;
    }

    /* A box's first number of k. */
    __device__ __forceinline__ int k_of(uint32_t box) const
    {
        return (int)(chunk * RT_PROJECT_MANY_CHUNK + box * RT_PROJECT_MANY_BOX);
    }

    __device__ __forceinline__ void bring_weights(const struct rt_many_tile &tile, uint64_t policy)
    {
        const int row = (int)tile.row, z = (int)tile.z;
        uint64_t *full = &room.desk.full[RT_MANY_W][turn.stage];
        unsigned char *to = room.w + turn.stage * room.W_BYTES;
        take(RT_MANY_W, p.early);
        if (rt_elect_one()) {
            rt_mbarrier_arrive_expect(full, room.W_BYTES);
#pragma unroll
            for (uint32_t i = 0; i < RT_PROJECT_MANY_BOXES; i++)
                rt_tma_load_3(to + i * (room.W_BYTES / RT_PROJECT_MANY_BOXES),
                              &p.w_map[tile.weight], full, ACROSS ? row : k_of(i),
                              ACROSS ? k_of(i) : row, z, policy);
        }
        __syncwarp();
        next(RT_MANY_W);
    }

    __device__ __forceinline__ void bring_x(uint32_t z, uint64_t policy)
    {
        uint64_t *full = &room.desk.full[RT_MANY_X][turn.stage];
        unsigned char *to = room.x + turn.stage * RT_PROJECT_MANY_X_BYTES;
        take(RT_MANY_X, p.stages[RT_MANY_X]);
        if (rt_elect_one()) {
            rt_mbarrier_arrive_expect(full, RT_PROJECT_MANY_W_BYTES(p.project.m));
#pragma unroll
            for (uint32_t i = 0; i < RT_PROJECT_MANY_BOXES; i++)
                rt_tma_load_3(to + i * (RT_PROJECT_MANY_X_BYTES / RT_PROJECT_MANY_BOXES), &p.x_map,
                              full, k_of(i), 0, (int)z, policy);
        }
        __syncwarp();
        next(RT_MANY_X);
    }

    __device__ __forceinline__ void run_weights(void)
    {
        const uint64_t policy = rt_tma_evict_first();
        for (uint32_t number = blockIdx.x; number < room.tiles; number += gridDim.x) {
            const struct rt_many_tile tile = room.tile(number);
            begin(number);
            for (uint32_t i = 0; i < room.chunks; i++)
                bring_weights(tile, policy);
        }
    }

    __device__ __forceinline__ void run_x(void)
    {
        const uint64_t policy = rt_tma_evict_normal();
        rt_tma_prefetch_map(&p.x_map);
        rt_pdl_wait();
        for (uint32_t number = blockIdx.x; number < room.tiles; number += gridDim.x) {
            const uint32_t z = room.tile(number).z;
            begin(number);
            for (uint32_t i = 0; i < room.chunks; i++)
                bring_x(z, policy);
        }
    }
};

/* The warp group that multiplies. */
template <int ROWS, int ACROSS> struct rt_many_worker {
    const struct rt_many_room<ROWS> &room;
    const struct rt_project_many_params &p;
    const uint32_t warp, lane;
    struct rt_stream_turn w, x;
    float sum[ROWS / 2];

    __device__ __forceinline__ rt_many_worker(const struct rt_many_room<ROWS> &room_,
                                              uint32_t warp_)
        : room(room_), p(room_.p), warp(warp_), lane(threadIdx.x % 32), w{0, 0}, x{0, 0}
    {
    }

    __device__ __forceinline__ void multiply_stage(int keep)
    {
        rt_mbarrier_wait(&room.desk.full[RT_MANY_W][w.stage], w.parity);
        rt_mbarrier_wait(&room.desk.full[RT_MANY_X][x.stage], x.parity);
        const uint64_t a =
            rt_wgmma_operand(rt_shared_address(room.x + x.stage * RT_PROJECT_MANY_X_BYTES), 0);
        const uint64_t b = rt_wgmma_operand(rt_shared_address(room.w + w.stage * room.W_BYTES), 0);
        rt_wgmma_begin();
#pragma unroll
        for (uint32_t i = 0; i < RT_PROJECT_MANY_CHUNK / 16; i++) {
            const uint32_t box = i / (RT_PROJECT_MANY_BOX / 16), k = i % (RT_PROJECT_MANY_BOX / 16);
            rt_wgmma<ROWS>::template shared<0, ACROSS>(
                sum,
                rt_wgmma_further(a,
                                 box * (RT_PROJECT_MANY_X_BYTES / RT_PROJECT_MANY_BOXES) + 32 * k),
                rt_wgmma_further(b, box * (room.W_BYTES / RT_PROJECT_MANY_BOXES) +
                                        (ACROSS ? 2 * RT_WGMMA_GROUP_BYTES : 32) * k),
                keep | (int)i);
        }
        rt_wgmma_commit();
    }

    /* Its products are done, in this warp. */
    __device__ __forceinline__ void release(const struct rt_stream_turn &w_turn,
                                            const struct rt_stream_turn &x_turn) const
    {
        if (rt_elected()) {
            rt_mbarrier_arrive(&room.desk.empty[RT_MANY_W][w_turn.stage]);
            rt_mbarrier_arrive(&room.desk.empty[RT_MANY_X][x_turn.stage]);
        }
    }

    /* A stage is given back when the next one's products have been asked for. */
    __device__ __forceinline__ void multiply(void)
    {
        struct rt_stream_turn w_before = w, x_before = x;
        for (uint32_t i = 0; i < room.chunks; i++) {
            multiply_stage(i > 0);
            if (i > 0) {
                rt_wgmma_wait<1>();
                release(w_before, x_before);
            }
            w_before = w;
            x_before = x;
            w.advance(p.stages[RT_MANY_W]);
            x.advance(p.stages[RT_MANY_X]);
        }
        rt_wgmma_wait<0>();
        rt_wgmma_settle(sum);
        release(w_before, x_before);
    }

    __device__ __forceinline__ void store_one(int64_t at, float value) const
    {
        if (p.project.y_f32)
            ((float *)p.project.y.base)[at] = value;
        else
            ((uint16_t *)p.project.y.base)[at] = rt_float_bf16(value);
    }

    static __device__ __forceinline__ float bias_of(const struct rt_weight_view &weight, uint32_t j)
    {
        return weight.bias ? rt_bf16_float(weight.bias[j]) : 0.0f;
    }

    /* 8 rows of two vectors as the lane has them, number by number, or, of f32, two by two where
     * they begin at a multiple of 8 bytes. `at`: of the weight's first. */
    __device__ __forceinline__ void store_eight(const struct rt_many_tile &tile, int64_t at,
                                                uint32_t vector, uint32_t i, bool pairs) const
    {
        const struct rt_weight_view &weight = p.project.w[tile.weight];
        const uint32_t j = tile.row + 8 * i + 2 * (lane % 4);
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t v = vector + 8 * half;
            const int64_t to = at + v * p.project.y.row_stride + j;
            const float *of = &sum[4 * i + 2 * half];
            if (v >= p.project.m)
                continue;
            if (pairs && j + 2 <= weight.rows) {
                *(float2 *)((float *)p.project.y.base + to) = make_float2(of[0], of[1]);
                continue;
            }
#pragma unroll
            for (uint32_t e = 0; e < 2; e++)
                if (j + e < weight.rows)
                    store_one(to + e, of[e] + bias_of(weight, j + e));
        }
    }

    /* 32 rows of them, of which each lane of four gets 8 beside each other: all are there, and a
     * vector's begin at a multiple of 16 bytes. */
    __device__ __forceinline__ void store_quads(const struct rt_many_tile &tile, int64_t at,
                                                uint32_t vector, uint32_t i) const
    {
        const uint32_t t = lane % 4;
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t v = vector + 8 * half;
            uint32_t r[4];
#pragma unroll
            for (uint32_t c = 0; c < 4; c++)
                r[c] = rt_pack_bf16x2(sum[4 * (i + c) + 2 * half], sum[4 * (i + c) + 2 * half + 1]);
            rt_quad_columns(r, (int)t);
            uint16_t *y = (uint16_t *)p.project.y.base + at + v * p.project.y.row_stride +
                          tile.row + 8 * (i + t);
            if (v < p.project.m)
                *(uint4 *)y = make_uint4(r[0], r[1], r[2], r[3]);
        }
    }

    __device__ __forceinline__ void store(const struct rt_many_tile &tile) const
    {
        const struct rt_weight_view &weight = p.project.w[tile.weight];
        const struct rt_matrix_view &y = p.project.y;
        const uint32_t vector = 16 * warp + lane / 4;
        const int64_t at = tile.z * y.batch_stride + (tile.weight ? p.project.w[0].rows : 0);
        const bool even = !p.project.y_f32 && !weight.bias && y.row_stride % 8 == 0 &&
                          ((uintptr_t)y.base + 2 * (uint64_t)at) % 16 == 0;
        const bool pairs = p.project.y_f32 && !weight.bias && y.row_stride % 2 == 0 &&
                           ((uintptr_t)y.base + 4 * (uint64_t)at) % 8 == 0;
#pragma unroll
        for (uint32_t i = 0; i < ROWS / 8; i += 4)
            if (ROWS >= 32 && even && tile.row + 8 * i + 32 <= weight.rows)
                store_quads(tile, at, vector, i);
            else
#pragma unroll
                for (uint32_t n = i; n < i + 4 && n < ROWS / 8; n++)
                    store_eight(tile, at, vector, n, pairs);
    }

    __device__ __forceinline__ void run(void)
    {
        for (uint32_t number = blockIdx.x; number < room.tiles; number += gridDim.x) {
            multiply();
            store(room.tile(number));
        }
    }
};

template <int ROWS, int ACROSS>
static __device__ __forceinline__ void rt_project_many(const struct rt_project_many_params &p)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    const struct rt_many_room<ROWS> room(p, rt_sm90_shared);
    rt_pdl_launch_dependents();
    if (threadIdx.x == 0)
        room.init();
    __syncthreads();
    /* A shuffle tells the compiler that a warp takes one branch. */
    const uint32_t warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
    if (warp < RT_PROJECT_MANY_WORKERS)
        rt_many_worker<ROWS, ACROSS>(room, warp).run();
    else if (warp == RT_PROJECT_MANY_WORKERS)
        rt_many_bringer<ROWS, ACROSS>(room).run_weights();
    else
        rt_many_bringer<ROWS, ACROSS>(room).run_x();
}

#endif
