/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample: the next token of every row, by the rule of kernels/abi/sample.h.
 *
 *   logits [rows, q, vocab] -> sampled [rows], accepted [rows]
 *
 * Grids: sample_best and sample_tally a block for each 2048 logits of each row and column, sample a
 * block a row. Integers are added, so neither their order nor the grid shows in any sum.
 *
 *   sample_best    wait │ logits │ key of each, the greatest │ A │ best; bins are cleared
 *   sample_tally   wait │ best │ logits │ weights │ bins on the desk │ B │ sum, bins to memory
 *   sample         wait │ best │ greedy: done │ bins │ top_k's bin, its keys │ top_p's, its keys │
 *                  │ sums of what has stayed │ the piece │ the id
 *
 *   shared memory   bytes   of sample_tally
 *   weights          5120   low and high 20 bits apart: 32-bit additions, which a piece cannot
 *                           overflow
 *   counts           2560
 *   (of sample: kernels/generic/sample.cuh)
 *
 *   barrier   makes visible
 *   A, B      what the warps have found; B: cleared bins before, the bins behind
 */
#include "kernels/generic/sample.cuh"

#define PIECE_THREADS RT_SAMPLE_PIECE_THREADS
#define PIECE_WARPS (PIECE_THREADS / RT_WARP_LANES)
#define THREAD_IDS (RT_SAMPLE_PIECE / PIECE_THREADS)
#define HALF_BITS 20
#define HALF_MASK ((1u << HALF_BITS) - 1)
RT_STATIC_ASSERT((uint64_t)RT_SAMPLE_PIECE << HALF_BITS < UINT64_C(1) << 32,
                 "half sums in 32 bits");

/* The thread's logits of its block's piece; asks for all before the first is used. */
struct piece {
    float x[THREAD_IDS];
    uint32_t first; /* id of x[0]; x[i] is PIECE_THREADS * i further */
};

static __device__ __forceinline__ struct piece load_piece(const struct rt_sample_params &p,
                                                          const float *logits)
{
    struct piece piece;
    piece.first = blockIdx.x * RT_SAMPLE_PIECE + threadIdx.x;
#pragma unroll
    for (uint32_t i = 0; i < THREAD_IDS; i++) {
        const uint32_t id = piece.first + i * PIECE_THREADS;
        piece.x[i] = id < p.vocab ? logits[id] : 0.0f;
    }
    return piece;
}

static __device__ __forceinline__ void clear_bins(const struct rt_sample_params &p)
{
    for (uint32_t i = blockIdx.x * PIECE_THREADS + threadIdx.x; i < RT_SAMPLE_BINS;
         i += gridDim.x * PIECE_THREADS) {
        p.bin_weights[(uint64_t)blockIdx.y * RT_SAMPLE_BINS + i] = 0;
        p.bin_counts[(uint64_t)blockIdx.y * RT_SAMPLE_BINS + i] = 0;
    }
}

extern "C" __global__ void __launch_bounds__(PIECE_THREADS)
    rt_sample_best(const __grid_constant__ struct rt_sample_params p)
{
    __shared__ uint64_t bests[PIECE_WARPS];
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const uint32_t row = blockIdx.y / p.rows.q_len, column = blockIdx.y % p.rows.q_len;
    if (!rt_sample_wants(&p, row, column))
        return;
    const struct piece piece = load_piece(p, rt_sample_logits(p, row, column));
    const struct rt_sample_line *s = rt_sample_line(&p, row);
    if (rt_sample_draws(s) && rt_sample_cuts(s))
        clear_bins(p);
    uint64_t best = 0;
#pragma unroll
    for (uint32_t i = 0; i < THREAD_IDS; i++) {
        const uint32_t id = piece.first + i * PIECE_THREADS;
        if (id < p.vocab)
            best = max(best, rt_sample_key(rt_sample_scaled(piece.x[i], p.scale), id));
    }
    best = rt_sample_warp_max(best);
    if (rt_lane() == 0)
        bests[threadIdx.x / RT_WARP_LANES] = best;
    __syncthreads(); /* A */
    if (threadIdx.x > 0)
        return;
#pragma unroll
    for (uint32_t w = 0; w < PIECE_WARPS; w++)
        best = max(best, bests[w]);
    p.best[(uint64_t)blockIdx.y * gridDim.x + blockIdx.x] = best;
}

struct tally_desk {
    uint32_t low[RT_SAMPLE_BINS], high[RT_SAMPLE_BINS], counts[RT_SAMPLE_BINS];
    uint64_t sums[PIECE_WARPS];
};

/* Bins that something lies in, to memory. */
static __device__ __forceinline__ void flush_bins(const struct rt_sample_params &p,
                                                  const struct tally_desk &desk)
{
    for (uint32_t i = threadIdx.x; i < RT_SAMPLE_BINS; i += PIECE_THREADS) {
        if (desk.counts[i] == 0)
            continue;
        const uint64_t at = (uint64_t)blockIdx.y * RT_SAMPLE_BINS + i;
        const uint64_t weight = desk.low[i] + ((uint64_t)desk.high[i] << HALF_BITS);
        atomicAdd(reinterpret_cast<unsigned long long *>(p.bin_weights + at),
                  (unsigned long long)weight);
        atomicAdd(p.bin_counts + at, desk.counts[i]);
    }
}

extern "C" __global__ void __launch_bounds__(PIECE_THREADS)
    rt_sample_tally(const __grid_constant__ struct rt_sample_params p)
{
    __shared__ struct tally_desk desk;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const uint32_t row = blockIdx.y / p.rows.q_len, column = blockIdx.y % p.rows.q_len;
    if (!rt_sample_wants(&p, row, column))
        return;
    const struct rt_sample_line *s = rt_sample_line(&p, row);
    if (!rt_sample_draws(s))
        return;
    const bool cuts = rt_sample_cuts(s);
    const struct piece piece = load_piece(p, rt_sample_logits(p, row, column));
    const float top = rt_sample_x(rt_sample_best_of(p, blockIdx.y));
    const float factor = rt_sample_factor(s->temperature);
    for (uint32_t i = threadIdx.x; i < RT_SAMPLE_BINS && cuts; i += PIECE_THREADS)
        desk.low[i] = desk.high[i] = desk.counts[i] = 0;
    __syncthreads(); /* B */
    uint64_t sum = 0;
#pragma unroll
    for (uint32_t i = 0; i < THREAD_IDS; i++) {
        const bool have = piece.first + i * PIECE_THREADS < p.vocab;
        const uint32_t distance =
            have ? rt_sample_distance(rt_sample_scaled(piece.x[i], p.scale), top, factor)
                 : UINT32_MAX;
        const uint64_t weight = rt_sample_weight(distance);
        sum += weight;
        if (!cuts || weight == 0)
            continue;
        atomicAdd(&desk.low[distance >> RT_SAMPLE_BIN_SHIFT], (uint32_t)weight & HALF_MASK);
        atomicAdd(&desk.high[distance >> RT_SAMPLE_BIN_SHIFT], (uint32_t)(weight >> HALF_BITS));
        atomicAdd(&desk.counts[distance >> RT_SAMPLE_BIN_SHIFT], 1u);
    }
    sum = rt_warp_sum(sum);
    if (rt_lane() == 0)
        desk.sums[threadIdx.x / RT_WARP_LANES] = sum;
    __syncthreads(); /* B */
    if (cuts)
        flush_bins(p, desk);
    if (threadIdx.x > 0)
        return;
    sum = 0;
#pragma unroll
    for (uint32_t w = 0; w < PIECE_WARPS; w++)
        sum += desk.sums[w];
    p.sums[(uint64_t)blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(RT_SAMPLE_THREADS)
    rt_sample(const __grid_constant__ struct rt_sample_params p)
{
    __shared__ struct rt_sample_desk desk;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const uint32_t row = blockIdx.x;
    if (!rt_sample_is_live(&p, row))
        return;
    const struct rt_sample_line &s = *rt_sample_line(&p, row);
    const uint64_t data_row = rt_row_base(&p.rows) + (uint64_t)row;
    const int32_t *tokens = p.tokens + data_row * p.rows.q_len;
    const int32_t accept = rt_sample_accept(&p, row);
    const bool by_device = accept == RT_ACCEPT_BY_DEVICE;
    uint32_t column = by_device ? 0 : (uint32_t)accept - 1;
    int32_t sampled = by_device ? tokens[0] : -1;
    const bool stopped = by_device && rt_sample_stops(&s, sampled);
    if (!stopped)
        sampled = rt_sample_choose(p, s, row, column, desk);
    while (by_device && !stopped && column + 1 < p.rows.q_len && tokens[column + 1] == sampled &&
           !rt_sample_stops(&s, sampled))
        sampled = rt_sample_choose(p, s, row, ++column, desk);
    if (threadIdx.x > 0)
        return;
    p.sampled[data_row] = sampled;
    if (by_device)
        p.accepted[data_row] = stopped ? 0 : (int32_t)column + 1;
}
