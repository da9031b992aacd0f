/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_STREAM_CUH
#define RT_KERNELS_SM90_STREAM_CUH

/*
 * Weights that lie along k, through a ring in shared memory onto the tensor cores: what the kernels
 * that multiply by them share.
 *
 * A stage of the ring is a few rows of RT_STREAM_CHUNK numbers, each a copy of 1 KB, asked for by
 * two warps, which wait until the others have read what was there. Of a chunk warp w of eight has
 * the numbers 32 w .. and 256 + 32 w ..: a lane 8 of them, of two rows of the weight and of one
 * vector of x, for two products.
 *
 *   barrier    arrives               waits            means
 *   full[s]    the bringers, bytes   the eight warps  stage s is there
 *   empty[s]   the eight warps       the bringers     nobody reads it any more
 */
#include "kernels/abi/project_sm90.h"
#include "kernels/device/ptx/bulk.cuh"
#include "kernels/device/ptx/mma.cuh"
#include "kernels/device/ptx/sync.cuh"

#define RT_STREAM_CHUNK RT_PROJECT_SM90_CHUNK
#define RT_STREAM_ROW_BYTES RT_PROJECT_SM90_ROW_BYTES
#define RT_STREAM_WORKERS (32u * RT_PROJECT_SM90_WARPS)
#define RT_STREAM_STEP RT_STREAM_WORKERS /* from one piece of a warp to its next */
#define RT_STREAM_PIECES ((int)(RT_STREAM_CHUNK / RT_STREAM_STEP))

/* `blocks` blocks share `count` things evenly; a block's begin with this one. */
static __device__ __forceinline__ uint32_t rt_stream_share_of(uint32_t count, uint32_t block,
                                                              uint32_t blocks)
{
    return (uint32_t)((uint64_t)count * block / blocks);
}

/* Likewise all blocks of the grid. */
static __device__ __forceinline__ uint32_t rt_stream_share(uint32_t count, uint32_t block)
{
    return rt_stream_share_of(count, block, gridDim.x);
}

/* Where in the ring, and in which turn. */
struct rt_stream_turn {
    uint32_t stage, parity;

    __device__ __forceinline__ void advance(uint32_t stages)
    {
        stage++;
        if (stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

struct rt_stream_ring {
    uint64_t *full, *empty; /* [stages] */
    unsigned char *memory;
    uint32_t stages, stage_bytes;
    uint32_t row_bytes; /* from one row of a stage to the next */
};

/* By one thread, and then a barrier tells the others. */
static __device__ __forceinline__ void rt_stream_init(const struct rt_stream_ring &ring,
                                                      uint32_t bringers = RT_PROJECT_SM90_BRINGERS)
{
    for (uint32_t i = 0; i < ring.stages; i++) {
        rt_mbarrier_init(&ring.full[i], bringers);
        rt_mbarrier_init(&ring.empty[i], RT_PROJECT_SM90_WARPS);
    }
}

/* One of COUNT warps that ask for their rows of stages. While the ring first fills, which is while
 * the kernel before runs, no more than `early` stages are on their way. */
template <uint32_t COUNT = RT_PROJECT_SM90_BRINGERS> struct rt_stream_bringer {
    const struct rt_stream_ring ring;
    const uint32_t early;
    const uint32_t which; /* of the bringers */
    const uint32_t row;   /* of a stage, that this lane asks for, if there is one */
    const uint64_t policy;
    struct rt_stream_turn turn;
    uint32_t asked; /* stages, in all */

    __device__ __forceinline__ rt_stream_bringer(const struct rt_stream_ring &ring_,
                                                 uint32_t early_)
        : ring(ring_), early(early_), which(threadIdx.x / 32 - RT_PROJECT_SM90_WARPS),
          row(which + COUNT * (threadIdx.x % 32)), policy(rt_tma_evict_first()), turn{0, 1},
          asked(0)
    {
    }

    /* `bytes` of `rows` rows, at most 16, each asked for by its lane. */
    __device__ __forceinline__ void bring(const uint16_t *from, uint32_t rows, uint32_t bytes)
    {
        uint64_t *full = &ring.full[turn.stage];
        if (asked >= ring.stages)
            rt_mbarrier_wait(&ring.empty[turn.stage], turn.parity);
        else if (asked >= early)
            rt_mbarrier_wait(&ring.full[asked - early], 0);
        rt_fence_async(); /* what read the stage did so by ordinary loads */
        if (rt_elected())
            rt_mbarrier_arrive_expect(full, (rows + COUNT - 1 - which) / COUNT * bytes);
        __syncwarp();
        unsigned char *to = ring.memory + turn.stage * ring.stage_bytes + row * ring.row_bytes;
        if (row < rows)
            rt_bulk_load(to, from, bytes, full, policy);
        turn.advance(ring.stages);
        asked++;
    }
};

/* A lane's two rows of a stage. Where there is no row, or no number, there is no memory of this
 * stage either. */
struct rt_stream_rows {
    uint32_t at, second; /* bytes from the stage to the first, and from there to the second */
    bool is_first, is_second;
    bool swap; /* reads the second numbers first: eight lanes that read at once have two rows, and
                * where the banks of these are the same, one of them does so */
};

static __device__ __forceinline__ uint4 rt_stream_pick(bool first, const uint4 &a, const uint4 &b)
{
    return make_uint4(first ? a.x : b.x, first ? a.y : b.y, first ? a.z : b.z, first ? a.w : b.w);
}

/* A lane's part of the next stage: numbers from..from+7 of k, and those a step further. */
template <uint32_t STEP = RT_STREAM_STEP>
static __device__ __forceinline__ void
rt_stream_take(const struct rt_stream_ring &ring, struct rt_stream_turn &turn,
               const struct rt_stream_rows &rows, uint32_t from, uint32_t k,
               uint4 (&w)[RT_STREAM_PIECES][2])
{
    const unsigned char *first = ring.memory + turn.stage * ring.stage_bytes + rows.at;
    uint4 read[RT_STREAM_PIECES][2];
    rt_mbarrier_wait(&ring.full[turn.stage], turn.parity);
#pragma unroll
    for (uint32_t i = 0; i < (uint32_t)RT_STREAM_PIECES; i++) {
        const uint32_t piece = i ^ (uint32_t)rows.swap;
        const bool there = from + piece * STEP < k;
        const unsigned char *at = first + piece * 2 * STEP;
        read[i][0] = there && rows.is_first ? *(const uint4 *)at : make_uint4(0, 0, 0, 0);
        read[i][1] =
            there && rows.is_second ? *(const uint4 *)(at + rows.second) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int row = 0; row < 2; row++) {
        w[0][row] = rt_stream_pick(rows.swap, read[1][row], read[0][row]);
        w[1][row] = rt_stream_pick(rows.swap, read[0][row], read[1][row]);
    }
    __syncwarp(); /* all lanes have read it */
    if (rt_elected())
        rt_mbarrier_arrive(&ring.empty[turn.stage]);
    turn.advance(ring.stages);
}

static __device__ __forceinline__ void rt_stream_multiply(float (&d)[4], const uint4 (&w)[2],
                                                          const uint4 &v)
{
    const uint32_t first[4] = {w[0].x, w[1].x, w[0].y, w[1].y};
    const uint32_t second[4] = {w[0].z, w[1].z, w[0].w, w[1].w};
    rt_mma_bf16_16x8x16(d, first, v.x, v.y);
    rt_mma_bf16_16x8x16(d, second, v.z, v.w);
}

/* A tile's chunk. Two chains of products are half as long as one. */
static __device__ __forceinline__ void rt_stream_add(float (&sum)[4],
                                                     const uint4 (&w)[RT_STREAM_PIECES][2],
                                                     const uint4 &v0, const uint4 &v1)
{
    float more[4] = {};
    rt_stream_multiply(sum, w[0], v0);
    rt_stream_multiply(more, w[1], v1);
#pragma unroll
    for (int e = 0; e < 4; e++)
        sum[e] += more[e];
}

/* A warp's sums of a tile of 16 rows for `count` vectors, as the tensor cores have them, into a
 * table [warp][vector][row] whose vectors lie `stride` apart. */
template <int COLUMNS>
static __device__ __forceinline__ void rt_stream_put_sums(float *sums, uint32_t count,
                                                          uint32_t stride, uint32_t thread,
                                                          int tile, const float (&d)[COLUMNS][4])
{
    const uint32_t warp = thread / 32, g = thread % 32 / 4, t = thread % 4;
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t vector = column * 8 + 2 * t + e % 2;
            if (vector < count)
                sums[(warp * count + vector) * stride + tile * 16 + g + e / 2 * 8] = d[column][e];
        }
}

#endif
