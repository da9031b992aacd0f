/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_SAMPLE_CUH
#define RT_KERNELS_GENERIC_SAMPLE_CUH

/*
 * The choice in one column, by a block, from what sample_best and sample_tally have left.
 *
 * A cut is the last key, in order, that the sum of all before it and itself needs to reach a limit.
 * The bins say between which two distances it lies; of the keys there, mostly a few dozen, all are
 * brought to the desk. Five bits of it are found at a time: warp w asks whether what begins with
 * digit w still reaches the limit, and how many warps say yes is the digit. Pieces whose best is
 * behind the cut are not read. Where more keys lie in the bin than the desk holds (thousands within
 * a sixteenth of a halving) each warp reads the logits themselves: correct, and slow.
 *
 *   shared memory   bytes
 *   keys            32768   of one bin
 *   weights          5120   of the bins up to each, summed
 *   counts           5120   likewise
 *   pieces           1024   what has stayed in the pieces up to each
 *   totals            256   of warps
 *   count, id           8
 *
 *   barrier   makes visible                        and frees
 *   S         totals of the warps                  -
 *   T         -                                    totals
 *   C         bins or pieces, summed               keys and count of the bin before
 *   G         count 0                              -
 *   K         keys, count                          -
 *   D         (counts what warps have answered)    -
 *   P         the pieces' own sums                 -
 *   I         id                                   everything
 */
#include "kernels/abi/sample_number.h"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/scan.cuh"

#define RT_SAMPLE_WARPS (RT_SAMPLE_THREADS / RT_WARP_LANES)
#define RT_SAMPLE_KEYS 4096u
#define RT_SAMPLE_DIGIT_BITS 5
#define RT_SAMPLE_ROUND 4u /* pieces whose logits are asked for at a time */
#define RT_SAMPLE_MOST_PIECES (RT_SAMPLE_MOST_VOCAB / RT_SAMPLE_PIECE)
RT_STATIC_ASSERT(RT_SAMPLE_WARPS == 1u << RT_SAMPLE_DIGIT_BITS, "a warp for each digit");
RT_STATIC_ASSERT(RT_SAMPLE_KEY_BITS % RT_SAMPLE_DIGIT_BITS == 0, "whole digits");
RT_STATIC_ASSERT(RT_SAMPLE_BINS <= RT_SAMPLE_THREADS, "a thread for each bin");
RT_STATIC_ASSERT(RT_SAMPLE_PIECE == 2 * RT_SAMPLE_THREADS, "two ids of a piece for each thread");

struct rt_sample_desk {
    uint64_t keys[RT_SAMPLE_KEYS];
    uint64_t weights[RT_SAMPLE_BINS], counts[RT_SAMPLE_BINS];
    uint64_t pieces[RT_SAMPLE_MOST_PIECES];
    uint64_t totals[RT_SAMPLE_WARPS];
    uint32_t count;
    int32_t id;
};
RT_STATIC_ASSERT(sizeof(struct rt_sample_desk) <= 48 * 1024, "static shared memory");

/* A column and how it is weighed: the same in every thread. */
struct rt_sample_column {
    const float *logits;
    const uint64_t *best; /* of the pieces */
    float scale, top, factor;
    uint32_t vocab, pieces;
};

static __device__ __forceinline__ uint64_t rt_sample_warp_max(uint64_t value)
{
#pragma unroll
    for (uint32_t distance = 1; distance < RT_WARP_LANES; distance *= 2)
        value = max(value, __shfl_xor_sync(RT_FULL_WARP, value, distance));
    return value;
}

static __device__ __forceinline__ const float *rt_sample_logits(const struct rt_sample_params &p,
                                                                uint32_t row, uint32_t column)
{
    return p.logits + row * p.row_stride + column * p.token_stride;
}

/* The best key of a row and column; every warp for itself. */
static __device__ __forceinline__ uint64_t rt_sample_best_of(const struct rt_sample_params &p,
                                                             uint32_t rc)
{
    const uint32_t pieces = rt_sample_pieces(p.vocab);
    uint64_t best = 0;
    for (uint32_t i = rt_lane(); i < pieces; i += RT_WARP_LANES)
        best = max(best, p.best[(uint64_t)rc * pieces + i]);
    return rt_sample_warp_max(best);
}

/* The values of the threads up to and including this one. */
static __device__ __forceinline__ uint64_t rt_sample_scan(uint64_t value,
                                                          uint64_t (&totals)[RT_SAMPLE_WARPS])
{
    const uint32_t warp = threadIdx.x / RT_WARP_LANES;
    const uint64_t upto = rt_warp_inclusive_sum(value);
    if (rt_lane() == RT_WARP_LANES - 1)
        totals[warp] = upto;
    __syncthreads(); /* S */
    const uint64_t before = rt_warp_sum(rt_lane() < warp ? totals[rt_lane()] : UINT64_C(0));
    __syncthreads(); /* T */
    return upto + before;
}

static __device__ __forceinline__ uint64_t rt_sample_key_of(const struct rt_sample_column &c,
                                                            uint32_t id)
{
    return rt_sample_key(rt_sample_scaled(c.logits[id], c.scale), id);
}

static __device__ __forceinline__ uint32_t rt_sample_distance_of(const struct rt_sample_column &c,
                                                                 uint64_t key)
{
    return rt_sample_distance(rt_sample_x(key), c.top, c.factor);
}

static __device__ __forceinline__ bool rt_sample_in_bin(const struct rt_sample_column &c,
                                                        uint64_t key, uint32_t bin)
{
    const uint32_t distance = rt_sample_distance_of(c, key);
    return distance != UINT32_MAX && distance >> RT_SAMPLE_BIN_SHIFT == bin;
}

/* The thread's keys of RT_SAMPLE_ROUND pieces from `first` on, all asked for before the first is
 * used; 0, as of a NaN, where there is none or the piece has none in the bin. */
static __device__ __forceinline__ void rt_sample_load_round(const struct rt_sample_column &c,
                                                            uint32_t first, uint32_t bin,
                                                            uint64_t (&keys)[2 * RT_SAMPLE_ROUND])
{
#pragma unroll
    for (uint32_t i = 0; i < 2 * RT_SAMPLE_ROUND; i++) {
        const uint32_t piece = first + i / 2;
        const uint32_t id = piece * RT_SAMPLE_PIECE + i % 2 * RT_SAMPLE_THREADS + threadIdx.x;
        const bool wanted =
            id < c.vocab && rt_sample_distance_of(c, c.best[piece]) >> RT_SAMPLE_BIN_SHIFT <= bin;
        keys[i] = wanted ? rt_sample_key_of(c, id) : 0;
    }
}

/* Brings the bin's keys to the desk, in any order, and counts them. */
static __device__ __forceinline__ void rt_sample_gather(const struct rt_sample_column &c,
                                                        uint32_t bin, struct rt_sample_desk &desk)
{
    if (threadIdx.x == 0)
        desk.count = 0;
    __syncthreads(); /* G */
    for (uint32_t first = 0; first < c.pieces; first += RT_SAMPLE_ROUND) {
        uint64_t keys[2 * RT_SAMPLE_ROUND];
        rt_sample_load_round(c, first, bin, keys);
#pragma unroll
        for (uint32_t i = 0; i < 2 * RT_SAMPLE_ROUND; i++) {
            if (!rt_sample_in_bin(c, keys[i], bin))
                continue;
            const uint32_t at = atomicAdd(&desk.count, 1u);
            if (at < RT_SAMPLE_KEYS)
                desk.keys[at] = keys[i];
        }
    }
    __syncthreads(); /* K */
}

static __device__ __forceinline__ uint64_t rt_sample_share(const struct rt_sample_column &c,
                                                           uint64_t key, bool by_weight)
{
    return by_weight ? rt_sample_weight(rt_sample_distance_of(c, key)) : 1;
}

/* Of the bin's keys that are `least` or in front of it: how many, or their weight. A warp. */
static __device__ __forceinline__ uint64_t rt_sample_reach(const struct rt_sample_column &c,
                                                           uint32_t bin, uint64_t least,
                                                           bool by_weight,
                                                           const struct rt_sample_desk &desk)
{
    uint64_t sum = 0;
    if (desk.count <= RT_SAMPLE_KEYS) {
        for (uint32_t i = rt_lane(); i < desk.count; i += RT_WARP_LANES)
            if (desk.keys[i] >= least)
                sum += rt_sample_share(c, desk.keys[i], by_weight);
    } else {
        for (uint32_t id = rt_lane(); id < c.vocab; id += RT_WARP_LANES) {
            const uint64_t key = rt_sample_key_of(c, id);
            if (key >= least && rt_sample_in_bin(c, key, bin))
                sum += rt_sample_share(c, key, by_weight);
        }
    }
    return rt_warp_sum(sum);
}

/* What has stayed: the last key that has, and the weight of all. */
struct rt_sample_kept {
    uint64_t least, weight;
};

/* The cut at `limit`, which all bins together reach, of `sums` of bins: counts or weights. */
static __device__ __forceinline__ struct rt_sample_kept
rt_sample_cut(const struct rt_sample_column &c, const uint64_t (&sums)[RT_SAMPLE_BINS],
              uint64_t limit, bool by_weight, struct rt_sample_desk &desk)
{
    const bool below = threadIdx.x < RT_SAMPLE_BINS && sums[threadIdx.x] < limit;
    const uint32_t bin = (uint32_t)__syncthreads_count(below); /* D */
    limit -= bin > 0 ? sums[bin - 1] : 0;
    rt_sample_gather(c, bin, desk);
    const uint32_t warp = threadIdx.x / RT_WARP_LANES;
    uint64_t least = 0;
#pragma unroll 1
    for (int shift = RT_SAMPLE_KEY_BITS - RT_SAMPLE_DIGIT_BITS; shift >= 0;
         shift -= RT_SAMPLE_DIGIT_BITS) {
        const uint64_t asked = least | (uint64_t)warp << shift;
        const bool yes = warp == 0 || rt_sample_reach(c, bin, asked, by_weight, desk) >= limit;
        least |= (uint64_t)(__syncthreads_count(yes && rt_lane() == 0) - 1) << shift; /* D */
    }
    const uint64_t before = bin > 0 ? desk.weights[bin - 1] : 0;
    return {least, before + rt_sample_reach(c, bin, least, true, desk)};
}

/* Counts and weights of the bins up to each. */
static __device__ __forceinline__ void rt_sample_sum_bins(const struct rt_sample_params &p,
                                                          uint32_t rc, struct rt_sample_desk &desk)
{
    const uint64_t at = (uint64_t)rc * RT_SAMPLE_BINS + threadIdx.x;
    const bool have = threadIdx.x < RT_SAMPLE_BINS;
    const uint64_t weight = have ? p.bin_weights[at] : 0, count = have ? p.bin_counts[at] : 0;
    const uint64_t weights = rt_sample_scan(weight, desk.totals);
    const uint64_t counts = rt_sample_scan(count, desk.totals);
    if (have) {
        desk.weights[threadIdx.x] = weights;
        desk.counts[threadIdx.x] = counts;
    }
    __syncthreads(); /* C */
}

static __device__ __forceinline__ struct rt_sample_kept
rt_sample_keep(const struct rt_sample_params &p, const struct rt_sample_line &s,
               const struct rt_sample_column &c, uint32_t rc, struct rt_sample_desk &desk)
{
    rt_sample_sum_bins(p, rc, desk);
    const uint64_t count = desk.counts[RT_SAMPLE_BINS - 1];
    struct rt_sample_kept kept = {0, desk.weights[RT_SAMPLE_BINS - 1]};
    if (s.top_k > 0 && (uint64_t)s.top_k < count)
        kept = rt_sample_cut(c, desk.counts, (uint64_t)s.top_k, false, desk);
    __syncthreads(); /* C: the keys are read */
    if (s.top_p < 1.0f)
        kept = rt_sample_cut(c, desk.weights, rt_sample_need(s.top_p, kept.weight), true, desk);
    return kept;
}

/* Weight of what has stayed of the piece. A warp. */
static __device__ __forceinline__ uint64_t rt_sample_piece_sum(const struct rt_sample_column &c,
                                                               uint32_t piece, uint64_t least)
{
    uint64_t sum = 0;
    if (c.best[piece] < least)
        return 0;
#pragma unroll 8
    for (uint32_t i = rt_lane(); i < RT_SAMPLE_PIECE; i += RT_WARP_LANES) {
        const uint32_t id = piece * RT_SAMPLE_PIECE + i;
        const uint64_t key = id < c.vocab ? rt_sample_key_of(c, id) : 0;
        if (id < c.vocab && key >= least)
            sum += rt_sample_share(c, key, true);
    }
    return rt_warp_sum(sum);
}

/* The sums of the pieces up to each; `sums`: of the pieces where nothing has been cut, or null. */
static __device__ __forceinline__ void rt_sample_sum_pieces(const struct rt_sample_column &c,
                                                            uint64_t least, const uint64_t *sums,
                                                            struct rt_sample_desk &desk)
{
    const uint32_t warp = threadIdx.x / RT_WARP_LANES;
    for (uint32_t piece = warp; piece < c.pieces; piece += RT_SAMPLE_WARPS) {
        const uint64_t sum = sums ? sums[piece] : rt_sample_piece_sum(c, piece, least);
        if (rt_lane() == 0)
            desk.pieces[piece] = sum;
    }
    __syncthreads(); /* P */
    const uint64_t own = threadIdx.x < c.pieces ? desk.pieces[threadIdx.x] : 0;
    const uint64_t upto = rt_sample_scan(own, desk.totals);
    if (threadIdx.x < c.pieces)
        desk.pieces[threadIdx.x] = upto;
    __syncthreads(); /* C */
}

/* The id at which the sum of what has stayed passes the target. */
static __device__ __forceinline__ int32_t rt_sample_draw(const struct rt_sample_column &c,
                                                         uint64_t least, const uint64_t *sums,
                                                         uint64_t target,
                                                         struct rt_sample_desk &desk)
{
    rt_sample_sum_pieces(c, least, sums, desk);
    const bool before = threadIdx.x < c.pieces && desk.pieces[threadIdx.x] <= target;
    const uint32_t piece = (uint32_t)__syncthreads_count(before); /* D */
    target -= piece > 0 ? desk.pieces[piece - 1] : 0;
    uint64_t weight[2];
    const uint32_t first = piece * RT_SAMPLE_PIECE + 2 * threadIdx.x;
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const bool have = first + i < c.vocab;
        const uint64_t key = have ? rt_sample_key_of(c, first + i) : 0;
        weight[i] = have && key >= least ? rt_sample_share(c, key, true) : 0;
    }
    const uint64_t upto = rt_sample_scan(weight[0] + weight[1], desk.totals);
    const uint64_t behind = upto - weight[0] - weight[1];
    if (behind <= target && target < upto)
        desk.id = (int32_t)(target < behind + weight[0] ? first : first + 1);
    __syncthreads(); /* I */
    return desk.id;
}

static __device__ __forceinline__ int32_t rt_sample_choose(const struct rt_sample_params &p,
                                                           const struct rt_sample_line &s,
                                                           uint32_t row, uint32_t column,
                                                           struct rt_sample_desk &desk)
{
    const uint32_t rc = row * p.rows.q_len + column, pieces = rt_sample_pieces(p.vocab);
    const uint64_t best = rt_sample_best_of(p, rc);
    const float top = rt_sample_x(best);
    if (!rt_sample_draws(&s) || top != top)
        return (int32_t)rt_sample_id(best);
    const struct rt_sample_column c = {rt_sample_logits(p, row, column),
                                       p.best + (uint64_t)rc * pieces,
                                       p.scale,
                                       top,
                                       rt_sample_factor(s.temperature),
                                       p.vocab,
                                       pieces};
    const uint64_t *sums = p.sums + (uint64_t)rc * pieces;
    struct rt_sample_kept kept = {0, 0};
    if (rt_sample_cuts(&s)) {
        kept = rt_sample_keep(p, s, c, rc, desk);
    } else {
        for (uint32_t i = 0; i < pieces; i++)
            kept.weight += sums[i];
    }
    const uint32_t position = (uint32_t)p.rows.position[row] + column;
    const uint64_t target = rt_sample_high64(rt_sample_random(s.seed, position), kept.weight);
    return rt_sample_draw(c, kept.least, kept.least ? nullptr : sums, target, desk);
}

#endif
