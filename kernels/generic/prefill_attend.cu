/* SPDX-License-Identifier: Apache-2.0 */

/*
 * prefill_attend, for all dimensions and every device: kernels/abi/prefill.h has the formula.
 *
 * Grid: a block a tile of 64 queries of a row and a head, as many as there can be; heads turn
 * fastest, then tiles, longest first in each row. Blocks beyond the last tile have none. Four warps
 * of 16 queries each; keys and values come 32 at a time.
 *
 *   shared memory   bytes
 *   q               64 x 528   vectors of up to 256 numbers, 16 bytes apart
 *   k, v            32 x 528 each
 *
 *   step   A   load k, v   B   scores, softmax, out += p v         a warp's own rows
 *
 *   barrier   makes visible             and frees
 *   A         -                         k, v of the step before, in all warps
 *   B         q, k, v of all threads    -
 */
#include "kernels/device/prefill_padding.cuh"
#include "kernels/device/prefill_softmax.cuh"
#include "kernels/device/ptx/cp_async.cuh"
#include "kernels/device/ptx/ldmatrix.cuh"
#include "kernels/device/ptx/mma.cuh"
#include "kernels/device/ptx/pdl.cuh"

#define RT_PREFILL_QUERIES RT_PREFILL_GENERIC_QUERIES
#define RT_PREFILL_KEYS RT_PREFILL_GENERIC_KEYS
#define RT_PREFILL_STRIDE RT_PREFILL_GENERIC_STRIDE

RT_STATIC_ASSERT(RT_PREFILL_STRIDE * 2 % 32 == 16, "eight rows of one column: eight bank groups");

struct rt_prefill_memory {
    uint16_t q[RT_PREFILL_QUERIES][RT_PREFILL_STRIDE];
    uint16_t k[RT_PREFILL_KEYS][RT_PREFILL_STRIDE], v[RT_PREFILL_KEYS][RT_PREFILL_STRIDE];
};
RT_STATIC_ASSERT(sizeof(struct rt_prefill_memory) == RT_PREFILL_GENERIC_SMEM_BYTES, "formula");

/* What a block works on. */
struct rt_prefill_tile {
    struct rt_prefill_row row;
    uint32_t first, head; /* query of the row */
    bool is_one;
};

/* Tile number `number` of all rows, by a whole warp: 32 rows at a look. */
static __device__ __forceinline__ struct rt_prefill_tile
rt_prefill_find(const struct rt_prefill_attend_params &p)
{
    uint32_t number = blockIdx.x / p.heads;
    struct rt_prefill_tile tile = {};
    tile.head = blockIdx.x % p.heads;
    for (uint32_t first = 0; first < p.rows && !tile.is_one; first += RT_WARP_LANES) {
        const uint32_t r = first + rt_lane();
        const uint32_t mine =
            r < p.rows ? rt_ceil_div_u32(rt_prefill_row(&p, r).queries, RT_PREFILL_QUERIES) : 0;
        const uint32_t up_to = rt_warp_inclusive_sum(mine);
        const unsigned holds = __ballot_sync(RT_FULL_WARP, number < up_to);
        const int at = holds ? __ffs((int)holds) - 1 : (int)RT_WARP_LANES - 1;
        const uint32_t end = __shfl_sync(RT_FULL_WARP, up_to, at);
        if (holds) {
            tile.row = rt_prefill_row(&p, first + (uint32_t)at);
            tile.first = (end - 1 - number) * RT_PREFILL_QUERIES;
            tile.is_one = true;
        } else {
            number -= end;
        }
    }
    return tile;
}

/* ---- loads ---- */

/* Rows of two views, one behind the other in a row of shared memory; zeros where there is no row,
 * and up to the next multiple of 16 numbers. */
static __device__ __forceinline__ void
rt_prefill_load(uint16_t (*to)[RT_PREFILL_STRIDE], uint32_t to_rows,
                const struct rt_prefill_view &one, uint32_t one_dim,
                const struct rt_prefill_view &two, uint32_t two_dim, uint32_t token, uint32_t rows,
                uint32_t head)
{
    const uint32_t dim = one_dim + two_dim, chunks = rt_ceil_div_u32(dim, 16) * 2;
    for (uint32_t i = threadIdx.x; i < to_rows * chunks; i += RT_PREFILL_GENERIC_THREADS) {
        const uint32_t row = i / chunks, column = i % chunks * 8;
        const bool valid = row < rows && column < dim;
        const uint16_t *from = (const uint16_t *)one.base;
        if (valid)
            from = column < one_dim ? rt_prefill_at(one, token + row, head) + column
                                    : rt_prefill_at(two, token + row, head) + (column - one_dim);
        rt_cp_async_16(&to[row][column], from, valid);
    }
}

static __device__ __forceinline__ void
rt_prefill_load_keys(const struct rt_prefill_attend_params &p, struct rt_prefill_memory &s,
                     const struct rt_prefill_tile &tile, uint32_t key, uint32_t count)
{
    rt_prefill_load(s.k, RT_PREFILL_KEYS, p.k, p.nope_dim, p.k_rope, p.rope_dim, tile.row.key + key,
                    count, tile.head);
    rt_prefill_load(s.v, RT_PREFILL_KEYS, p.v, p.v_dim, p.v, 0, tile.row.key + key, count,
                    tile.head);
    rt_cp_async_commit();
    rt_cp_async_wait<0>();
}

/* ---- a warp's 16 queries ---- */

struct rt_prefill_warp {
    static constexpr int SCORES = RT_PREFILL_KEYS / 2;       /* of a thread */
    static constexpr int COLUMNS = RT_PREFILL_MOST_DIM / 16; /* of out, 16 each */

    const struct rt_prefill_attend_params &p;
    struct rt_prefill_memory &s;
    const struct rt_prefill_tile &tile;
    const int lane, row;
    struct rt_prefill_softmax<SCORES> softmax;
    float out[COLUMNS][8]; /* two products' sums of 8 columns */

    __device__ __forceinline__ rt_prefill_warp(const struct rt_prefill_attend_params &p_,
                                               struct rt_prefill_memory &s_,
                                               const struct rt_prefill_tile &tile_)
        : p(p_), s(s_), tile(tile_), lane((int)(threadIdx.x % 32)),
          row((int)(threadIdx.x / 32 * 16)), softmax(p_.scale)
    {
        softmax.begin();
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
#pragma unroll
            for (int i = 0; i < 8; i++)
                out[c][i] = 0.0f;
    }

    static __device__ __forceinline__ auto half(float *of) -> float (&)[4]
    {
        return *(float(*)[4])of;
    }

    __device__ __forceinline__ void find_scores(float (&score)[SCORES])
    {
        const uint32_t dim = p.nope_dim + p.rope_dim;
#pragma unroll
        for (int i = 0; i < SCORES; i++)
            score[i] = 0.0f;
        for (uint32_t d = 0; d < dim; d += 16) {
            uint32_t a[4], b[4];
            rt_ldmatrix_x4(a, &s.q[row + lane % 16][d + lane / 16 * 8]);
#pragma unroll
            for (int key = 0; key < (int)RT_PREFILL_KEYS; key += 16) {
                rt_ldmatrix_x4(b, &s.k[key + lane / 16 * 8 + lane % 8][d + lane / 8 % 2 * 8]);
                rt_mma_bf16_16x8x16(half(&score[key / 2]), a, b[0], b[1]);
                rt_mma_bf16_16x8x16(half(&score[key / 2 + 4]), a, b[2], b[3]);
            }
        }
    }

    __device__ __forceinline__ void add_values(const uint32_t (&weight)[SCORES / 8][4])
    {
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            if (c * 16 >= (int)p.v_dim)
                continue;
#pragma unroll
            for (int step = 0; step < SCORES / 8; step++) {
                uint32_t b[4];
                rt_ldmatrix_x4_trans(b, &s.v[step * 16 + lane % 16][c * 16 + lane / 16 * 8]);
                rt_mma_bf16_16x8x16(half(&out[c][0]), weight[step], b[0], b[1]);
                rt_mma_bf16_16x8x16(half(&out[c][4]), weight[step], b[2], b[3]);
            }
        }
    }

    /* Keys of the row that the thread's i-th query sees. */
    __device__ __forceinline__ int seen(int i) const
    {
        const int query = (int)tile.first + row + lane / 4 + 8 * i;
        return min(rt_prefill_seen(&p, &tile.row, (uint32_t)query), (int)tile.row.keys);
    }

    __device__ __forceinline__ void add_keys(int key)
    {
        float score[SCORES];
        uint32_t weight[SCORES / 8][4];
        find_scores(score);
        const int before = key + lane % 4 * 2;
        softmax.mask(score, {seen(0) - before, seen(1) - before});
        softmax.raise(score);
        softmax.weigh(score);
        softmax.pack(score, weight);
        if (softmax.is_raised())
#pragma unroll
            for (int c = 0; c < COLUMNS; c++)
                softmax.rescale(out[c]);
        add_values(weight);
    }

    __device__ __forceinline__ void store(void)
    {
        softmax.finish(p.sink, tile.head);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint32_t query = tile.first + (uint32_t)(row + lane / 4 + 8 * i);
            if (query >= tile.row.queries)
                continue;
            uint16_t *to = rt_prefill_at(p.out, tile.row.query + query, tile.head) + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < 2 * COLUMNS; n++)
                if (n * 8 < (int)p.v_dim)
                    *(uint32_t *)(to + n * 8) =
                        rt_pack_bf16x2(softmax.output(out[n / 2][n % 2 * 4 + i * 2], i),
                                       softmax.output(out[n / 2][n % 2 * 4 + i * 2 + 1], i));
            if (lane % 4 == 0)
                *rt_prefill_lse_at(p, tile.row.query + query, tile.head) =
                    softmax.lse(i, p.lse_base2 != 0);
        }
    }
};

/* Keys that the tile's last query sees. */
static __device__ __forceinline__ uint32_t
rt_prefill_tile_keys(const struct rt_prefill_attend_params &p, const struct rt_prefill_tile &tile)
{
    const uint32_t last = min(tile.first + RT_PREFILL_QUERIES, tile.row.queries) - 1;
    return (uint32_t)max(min(rt_prefill_seen(&p, &tile.row, last), (int)tile.row.keys), 0);
}

extern "C" __global__ void __launch_bounds__(RT_PREFILL_GENERIC_THREADS)
    rt_prefill_attend(const __grid_constant__ struct rt_prefill_attend_params p)
{
    extern __shared__ __align__(16) unsigned char rt_attend_shared[];
    struct rt_prefill_memory &s = *(struct rt_prefill_memory *)rt_attend_shared;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    rt_prefill_pad(p, threadIdx.x, RT_PREFILL_GENERIC_THREADS);
    const struct rt_prefill_tile tile = rt_prefill_find(p);
    if (!tile.is_one)
        return;
    struct rt_prefill_warp warp(p, s, tile);
    rt_prefill_load(s.q, RT_PREFILL_QUERIES, p.q, p.nope_dim, p.q_rope, p.rope_dim,
                    tile.row.query + tile.first, tile.row.queries - tile.first, tile.head);
    const uint32_t keys = rt_prefill_tile_keys(p, tile);
    for (uint32_t key = 0; key < keys; key += RT_PREFILL_KEYS) {
        __syncthreads();
        rt_prefill_load_keys(p, s, tile, key, keys - key);
        __syncthreads();
        warp.add_keys((int)key);
    }
    rt_cp_async_wait<0>(); /* q, where there was no key */
    warp.store();
}
