/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_PROJECT_ACROSS_CUH
#define RT_KERNELS_SM90_PROJECT_ACROSS_CUH

/*
 * project for Hopper, weights that lie across k, up to 8 or 16 vectors: element (j, l) stands at
 * l * column_stride + j, as keys' rows do in kv_b_proj.
 *
 * Grid: as many blocks as SMs, or as shall share them. 64 rows of one z are a tile, and tiles are
 * shared out evenly. In a round the eight warps take 128 numbers of k, 16 each. There are no
 * barriers in front of the products: weights go into registers, two rounds of them ahead, and
 * the first two before the kernel waits for the one before it.
 *
 * A lane loads 8 rows, 16 bytes, of each of 4 numbers of k; a warp so four times 128 bytes:
 *
 *   rows     0..7   8..15   …   56..63         a product of 16 rows v, of four, has as its rows
 *   l  4 t   g = 0    1     …     7            g and g + 8   rows 8 g + 2 v and the next of the
 *      …                                       tile
 *   4 t + 3
 *
 * so that two loads of a lane, words v, make pairs of neighbours along k by exchanging halves.
 *
 *   shared memory   bytes
 *   sums            32 m 68   [warp][vector][row of the tile, in the products' order]
 *
 *   __syncthreads   each warp's sums are there; sums of the tile before are read
 */
#include "kernels/sm90/project_desk.cuh"

#define RT_PROJECT_ROUND (16u * RT_PROJECT_SM90_WARPS) /* numbers of k */
#define RT_PROJECT_AHEAD 2                             /* rounds in registers */

/* A tile's round: which one this lane has reached. */
struct rt_project_cursor {
    uint32_t z, row, k;

    __device__ __forceinline__ void advance(const struct rt_project_params &p)
    {
        k += RT_PROJECT_ROUND;
        if (k < p.k)
            return;
        k = 0;
        row += RT_PROJECT_SM90_ACROSS_ROWS;
        if (row < p.w[0].rows)
            return;
        row = 0;
        z++;
    }
};

template <int COLUMNS> struct rt_project_across_worker {
    const struct rt_project_sm90_params &p;
    const struct rt_project_params &project;
    float *sums;
    const uint32_t warp, g, t;
    const uint32_t mine; /* this lane's first number of a round */
    bool read[COLUMNS];  /* this lane's vectors, where there are any: others count as zeros */
    struct rt_project_cursor at, ahead;
    uint32_t left, unasked; /* rounds */
    uint4 w[RT_PROJECT_AHEAD][4];
    uint2 x[RT_PROJECT_AHEAD][COLUMNS];
    float sum[4][COLUMNS][4];

    /* Block `block` of the `blocks` that share the product. */
    __device__ __forceinline__ rt_project_across_worker(const struct rt_project_sm90_params &p_,
                                                        float *sums_, uint32_t block,
                                                        uint32_t blocks)
        : p(p_), project(p_.project), sums(sums_), warp(threadIdx.x / 32), g(threadIdx.x % 32 / 4),
          t(threadIdx.x % 4), mine(16 * warp + 4 * t)
    {
        const uint32_t of_z = rt_ceil_div_u32(project.w[0].rows, RT_PROJECT_SM90_ACROSS_ROWS);
        const uint32_t first = rt_stream_share_of(project.batch * of_z, block, blocks);
        const uint32_t end = rt_stream_share_of(project.batch * of_z, block + 1, blocks);
        at = {first / of_z, first % of_z * RT_PROJECT_SM90_ACROSS_ROWS, 0};
        ahead = at;
        left = unasked = (end - first) * rt_ceil_div_u32(project.k, RT_PROJECT_ROUND);
#pragma unroll
        for (int column = 0; column < COLUMNS; column++)
            read[column] = vector(column) < project.m;
    }

    __device__ __forceinline__ uint32_t vector(int column) const
    {
        return (uint32_t)column * 8 + g;
    }

    /* Zeros behind the last number; rows behind the last are read with their neighbours or not at
     * all, and go nowhere. */
    __device__ __forceinline__ void load_weights(const struct rt_project_cursor &from,
                                                 uint4 (&to)[4]) const
    {
        const struct rt_weight_view &v = project.w[0];
        const uint32_t row = from.row + 8 * g;
        const bool there = from.k + mine < project.k && row < v.rows;
        const uint16_t *first =
            v.base + from.z * v.batch_stride + (from.k + mine) * v.column_stride + row;
#pragma unroll
        for (int i = 0; i < 4; i++)
            to[i] = there ? *(const uint4 *)(first + i * v.column_stride) : make_uint4(0, 0, 0, 0);
    }

    __device__ __forceinline__ void load_x(const struct rt_project_cursor &from,
                                           uint2 (&to)[COLUMNS]) const
    {
        const struct rt_matrix_view &v = project.x;
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
            const uint16_t *first = (const uint16_t *)v.base + from.z * v.batch_stride +
                                    vector(column) * v.row_stride + from.k + mine;
            to[column] = read[column] && from.k + mine < project.k ? *(const uint2 *)first
                                                                   : make_uint2(0, 0);
        }
    }

    static __device__ __forceinline__ uint32_t word(const uint4 &v, int i)
    {
        return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
    }

    static __device__ __forceinline__ uint32_t low_halves(uint32_t a, uint32_t b)
    {
        return (a & 0xffffu) | b << 16;
    }

    static __device__ __forceinline__ uint32_t high_halves(uint32_t a, uint32_t b)
    {
        return a >> 16 | (b & 0xffff0000u);
    }

    __device__ __forceinline__ void multiply(const uint4 (&of)[4], const uint2 (&by)[COLUMNS])
    {
#pragma unroll
        for (int v = 0; v < 4; v++) {
            const uint32_t l[4] = {word(of[0], v), word(of[1], v), word(of[2], v), word(of[3], v)};
            const uint32_t a[4] = {low_halves(l[0], l[1]), high_halves(l[0], l[1]),
                                   low_halves(l[2], l[3]), high_halves(l[2], l[3])};
#pragma unroll
            for (int column = 0; column < COLUMNS; column++)
                rt_mma_bf16_16x8x16(sum[v][column], a, by[column].x, by[column].y);
        }
    }

    __device__ __forceinline__ void clear(void)
    {
#pragma unroll
        for (int v = 0; v < 4; v++)
#pragma unroll
            for (int column = 0; column < COLUMNS; column++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    sum[v][column][e] = 0;
    }

    __device__ __forceinline__ void finish_tile(void)
    {
        const uint32_t j = threadIdx.x % RT_PROJECT_SM90_ACROSS_ROWS;
        const uint32_t place = j % 8 / 2 * 16 + j % 2 * 8 + j / 8;
        __syncthreads();
#pragma unroll
        for (int v = 0; v < 4; v++)
            rt_stream_put_sums<COLUMNS>(sums, project.m, p.sums_stride, threadIdx.x, v, sum[v]);
        __syncthreads();
        if (at.row + j < project.w[0].rows)
            rt_project_add_sums(p, sums, threadIdx.x, place, at.z, at.row + j,
                                rt_project_weight_row(project, at.row + j).bias());
        clear();
    }

    /* Before the wait. */
    __device__ __forceinline__ void begin(void)
    {
        clear();
        struct rt_project_cursor from = at;
#pragma unroll
        for (uint32_t i = 0; i < RT_PROJECT_AHEAD; i++)
            if (i < left) {
                load_weights(from, w[i]);
                from.advance(project);
            }
    }

    __device__ __forceinline__ void run(void)
    {
#pragma unroll
        for (uint32_t i = 0; i < RT_PROJECT_AHEAD; i++)
            if (unasked > 0) {
                load_x(ahead, x[i]);
                ahead.advance(project);
                unasked--;
            }
        while (left > 0) {
#pragma unroll
            for (int i = 0; i < RT_PROJECT_AHEAD; i++) {
                if (left == 0)
                    break;
                multiply(w[i], x[i]);
                if (unasked > 0) {
                    load_weights(ahead, w[i]);
                    load_x(ahead, x[i]);
                    ahead.advance(project);
                    unasked--;
                }
                if (at.k + RT_PROJECT_ROUND >= project.k)
                    finish_tile();
                at.advance(project);
                left--;
            }
        }
    }
};

template <int COLUMNS>
static __device__ __forceinline__ void rt_project_across(const struct rt_project_sm90_params &p)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    rt_project_trigger(p, RT_PROJECT_TRIGGER_FIRST);
    rt_project_across_worker<COLUMNS> worker(p, (float *)rt_sm90_shared, blockIdx.x, gridDim.x);
    worker.begin();
    rt_project_trigger(p, RT_PROJECT_TRIGGER_ASKED);
    rt_pdl_wait();
    rt_project_trigger(p, RT_PROJECT_TRIGGER_WAITED);
    worker.run();
}

#endif
