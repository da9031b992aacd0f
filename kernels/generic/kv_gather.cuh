/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_KV_GATHER_CUH
#define RT_KERNELS_GENERIC_KV_GATHER_CUH

/*
 * kv_gather: tokens of a paged cache, one behind the other, by the rule of kernels/abi/gather.h.
 *
 *   kv [pages, page_size], table [lines, max_blocks], first [rows + 1] -> out [count] tokens
 *
 * A block has 1024 neighbouring vectors of 16 bytes of out, wherever tokens begin in them: a thread
 * four, all asked for before the first is stored. So writes are whole lines, and 8192 tokens of
 * 1152 bytes are 576 blocks, on 132 multiprocessors all at once. Which row a token is of and where
 * it lies is found once a token, by a thread of its own.
 *
 *   shared memory   bytes
 *   at              8 or 16 a token of the block, which has a vector at least
 *   first           2052   as it is in memory
 *
 *   barrier   makes visible   and frees
 *   A         first           -
 *   B         at              -
 *
 *   wait │ first │ A │ row │ slot, position │ table │ B │ vectors │ out
 *
 * What a token is of the cache's, and what vector of out becomes of it, a SOURCE says:
 *
 *   place              where a token lies: plain data, in shared memory
 *   TOKENS             of a block, at most
 *   vectors()          of out a token
 *   locate(at)         the place of a token that is there, or of none
 *   load(place, v)     vector v of the token; zeros of none
 */
#include "kernels/abi/gather.h"
#include "kernels/device/page_row.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/settle.cuh"

template <class SOURCE> struct rt_kv_gather_desk {
    typename SOURCE::place at[SOURCE::TOKENS];
    int32_t first[RT_PREFILL_MOST_ROWS + 1];
};

/* The block's part of out. */
struct rt_kv_gather_part {
    uint64_t vector; /* of out, its first */
    uint32_t token;  /* of out, which that is of */
    uint32_t skip;   /* vectors of that token in front of the part */
};

/* Tokens of the part, counted from part.token, that are some row's: low .. high - 1. */
struct rt_kv_gather_range {
    uint32_t low, high;
};

static __device__ __forceinline__ struct rt_kv_gather_part rt_kv_gather_part_of(uint32_t vectors)
{
    struct rt_kv_gather_part part;
    part.vector = (uint64_t)blockIdx.x * RT_KV_GATHER_VECTORS;
    part.token = (uint32_t)(part.vector / vectors);
    part.skip = (uint32_t)(part.vector - (uint64_t)part.token * vectors);
    return part;
}

static __device__ __forceinline__ uint32_t rt_kv_gather_clamp(int64_t at, uint32_t low,
                                                              uint32_t high)
{
    return at < low ? low : at > high ? high : (uint32_t)at;
}

static __device__ __forceinline__ struct rt_kv_gather_range
rt_kv_gather_range_of(const struct rt_kv_gather_params &p, const struct rt_kv_gather_part &part,
                      const rt_divisor<uint32_t> &vectors, const int32_t *first)
{
    const uint32_t touched = vectors.quotient(part.skip + RT_KV_GATHER_VECTORS - 1) + 1;
    const uint32_t tokens = min(touched, p.count - part.token);
    const int64_t token = (int64_t)p.begin + part.token;
    struct rt_kv_gather_range range;
    range.low = rt_kv_gather_clamp(first[0] - token, 0, tokens);
    range.high = rt_kv_gather_clamp(first[p.rows] - token, range.low, tokens);
    return range;
}

/* Where a token lies that is some row's. */
static __device__ __forceinline__ struct rt_page_row
rt_kv_gather_find(const struct rt_kv_gather_params &p, const rt_divisor<uint32_t> &page_size,
                  const int32_t *first, int64_t token)
{
    const uint32_t row = rt_kv_gather_row(first, p.rows, token);
    const int32_t slot = p.slot ? p.slot[row] : (int32_t)row;
    const int64_t position = (p.position ? p.position[row] : 0) + token - first[row];
    if (slot < 0 || position < 0 || position > INT32_MAX)
        return {};
    return find_page_row(p.kv, page_size, (uint32_t)slot, (uint32_t)position);
}

template <class SOURCE>
static __device__ __forceinline__ void
rt_kv_gather_copy(const SOURCE &source, const struct rt_kv_gather_params &p,
                  const struct rt_kv_gather_part &part, const struct rt_kv_gather_range &range,
                  const rt_divisor<uint32_t> &vectors, const typename SOURCE::place *at)
{
    uint4 *out = static_cast<uint4 *>(p.out) + part.vector;
    uint4 x[RT_KV_GATHER_DEPTH];
    bool mine[RT_KV_GATHER_DEPTH];
#pragma unroll
    for (uint32_t i = 0; i < RT_KV_GATHER_DEPTH; i++) {
        const uint32_t vector = part.skip + i * RT_KV_GATHER_THREADS + threadIdx.x;
        const uint32_t token = vectors.quotient(vector);
        mine[i] = token >= range.low && token < range.high;
        x[i] =
            mine[i] ? source.load(at[token], vector - token * vectors.by) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (uint32_t i = 0; i < RT_KV_GATHER_DEPTH; i++)
        if (mine[i])
            out[i * RT_KV_GATHER_THREADS + threadIdx.x] = x[i];
}

/* All that a block does. */
template <class SOURCE>
static __device__ __forceinline__ void rt_kv_gather_run(const SOURCE &source,
                                                        const struct rt_kv_gather_params &p)
{
    __shared__ struct rt_kv_gather_desk<SOURCE> desk;
    const rt_divisor<uint32_t> vectors(source.vectors());
    const rt_divisor<uint32_t> page_size(p.kv.page_size);
    const struct rt_kv_gather_part part = rt_kv_gather_part_of(vectors.by);
    rt_settle(vectors.inverse);
    rt_settle(page_size.inverse);
    rt_settle(part.token + 1);
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    for (uint32_t r = threadIdx.x; r <= p.rows; r += RT_KV_GATHER_THREADS)
        desk.first[r] = p.first[r];
    __syncthreads(); /* A */
    const struct rt_kv_gather_range range = rt_kv_gather_range_of(p, part, vectors, desk.first);
    for (uint32_t t = range.low + threadIdx.x; t < range.high; t += RT_KV_GATHER_THREADS)
        desk.at[t] = source.locate(
            rt_kv_gather_find(p, page_size, desk.first, (int64_t)p.begin + part.token + t));
    __syncthreads(); /* B */
    rt_kv_gather_copy(source, p, part, range, vectors, desk.at);
}

#endif
