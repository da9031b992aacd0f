/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_PREATTEND_CUH
#define RT_KERNELS_GENERIC_PREATTEND_CUH

/*
 * preattend: norms, RoPE, append and q's second half, by the rule of kernels/abi/preattend.h.
 *
 *   q_a   [row_base + rows, q_len, width]         -> itself
 *   kv_a  [row_base + rows, q_len, L + R]         -> kv [pages, page_size, L + R]
 *   q_in  [row_base + rows, q_len, heads, P + R]  -> q_out [.., heads, L + R], from element L on
 *
 * Three kinds of work, which share nothing, so that few tokens find many warps:
 *
 *   a block: q_a of a token. A thread holds its vectors of 8 numbers between load and store.
 *     weights │ wait │ place │ x │ sum of squares │ A │ sum over the warps, y
 *   a warp: kv_a of a token, the latent two vectors a lane, no barrier.
 *     weights │ wait │ place │ latent, key, cos and sin, page │ sum of squares │ latent, key
 *   a warp: q of a token and RT_PREATTEND_WARP_HEADS heads, four lanes a head.
 *     wait │ place │ rope part, cos and sin, factor; nope part │ nope part, rope part
 *
 * Where the launch says so (early), the place and what it leads to stand in front of the wait.
 *
 *   shared memory   bytes
 *   sums               64   of the warps of a block, in turn one of two
 *
 *   barrier   makes visible   and frees
 *   A         sums            the other sums, of the item before
 *
 * Of the R numbers a lane has eight pairs, whose cosines and sines are 64 bytes of the table in
 * either order of the numbers, and whose numbers are two vectors:
 *
 *   unit u   pairs 8 u .. 8 u + 7   (2i, 2i + 1): vectors 2 u, 2 u + 1
 *                                   (i, i + R/2): vectors u, u + R/16
 */
#include "kernels/abi/preattend.h"
#include "kernels/device/norm.cuh"
#include "kernels/generic/append.cuh"

#define RT_PREATTEND_HEAD_LANES (RT_WARP_LANES / RT_PREATTEND_WARP_HEADS)
#define RT_PREATTEND_UNIT 16u /* numbers */

/* A token's place. What is not live is as padding is. */
struct rt_preattend_token {
    int64_t data_row;
    uint32_t token;
    uint32_t slot, position; /* of a live one */
    bool live;
};

/* Eight pairs, and their cosines and sines. */
struct rt_preattend_unit {
    uint4 first, second;
};
struct rt_preattend_turn {
    float4 at[4]; /* cos, sin, cos, sin */
};

/* Waits for the grid before where the place may not be looked at earlier. */
static __device__ __forceinline__ struct rt_preattend_token
rt_preattend_find(const struct rt_preattend_params &p, uint32_t index)
{
    const uint32_t row = index / p.rows.q_len;
    const int32_t *slot_at = p.rows.slot ? p.rows.slot + row : nullptr;
    const int32_t *position_at = p.rows.position + row;
    const int32_t *length_at = p.rows.q_len > 1 && p.rows.length ? p.rows.length + row : nullptr;
    const uint32_t *row_base_at = p.rows.ctrl ? &p.rows.ctrl->row_base : nullptr;
    rt_settle(slot_at);
    rt_settle(position_at);
    rt_settle(length_at);
    rt_settle(row_base_at);
    if (!p.early)
        rt_pdl_wait();
    const int32_t slot = slot_at ? *slot_at : (int32_t)row;
    const int32_t position = *position_at;
    const int64_t length = length_at ? *length_at : INT64_MAX;
    struct rt_preattend_token found = {};
    found.data_row = (int64_t)(row_base_at ? *row_base_at : 0) + row;
    found.token = index - row * p.rows.q_len;
    found.slot = (uint32_t)slot;
    found.position = (uint32_t)position + found.token;
    const bool bounded = p.rope.table || p.rope.query_scale;
    found.live = slot >= 0 && position >= 0 && (!bounded || found.position < p.rope.capacity) &&
                 (int64_t)position + found.token < length;
    return found;
}

static __device__ __forceinline__ uint16_t *
rt_preattend_tokens_at(const struct rt_tokens_view &view, const struct rt_preattend_token &of)
{
    return const_cast<uint16_t *>(view.base) + of.data_row * view.row_stride +
           of.token * view.token_stride;
}

static __device__ __forceinline__ uint16_t *
rt_preattend_head_at(const struct rt_heads_view &view, const struct rt_preattend_token &of,
                     uint32_t head)
{
    return static_cast<uint16_t *>(view.base) + of.data_row * view.row_stride +
           of.token * view.token_stride + head * view.head_stride;
}

static __device__ __forceinline__ int64_t rt_preattend_index(const struct rt_tokens_view &view,
                                                             const struct rt_preattend_token &of)
{
    return of.data_row * view.row_stride + (int64_t)of.token * view.token_stride;
}

/* Where q_a and kv_a come from: eight numbers of a token, from `number` on. Here as they lie;
 * templates below take another such type for what has to be made first. */
struct rt_preattend_as_it_lies {
    static __device__ __forceinline__ uint4 read(const struct rt_tokens_view &view,
                                                 const struct rt_preattend_token &of,
                                                 uint32_t number)
    {
        return *reinterpret_cast<const uint4 *>(view.base + rt_preattend_index(view, of) + number);
    }
    __device__ __forceinline__ uint4 q_a(const struct rt_preattend_params &p,
                                         const struct rt_preattend_token &of, uint32_t number) const
    {
        return read(p.q_a, of, number);
    }
    __device__ __forceinline__ uint4 kv_a(const struct rt_preattend_params &p,
                                          const struct rt_preattend_token &of,
                                          uint32_t number) const
    {
        return read(p.kv_a, of, number);
    }
};

/* ---- RoPE ---- */

static __device__ __forceinline__ bool rt_preattend_has_unit(const struct rt_preattend_params &p,
                                                             uint32_t unit)
{
    return unit < p.rope_dim / RT_PREATTEND_UNIT;
}

/* Of the token's position: constant. */
static __device__ __forceinline__ struct rt_preattend_turn
rt_preattend_load_turn(const struct rt_preattend_params &p, const struct rt_preattend_token &of,
                       uint32_t unit)
{
    struct rt_preattend_turn turn = {};
    if (!p.rope.table || !of.live || !rt_preattend_has_unit(p, unit))
        return turn;
    const float4 *at = reinterpret_cast<const float4 *>(
        p.rope.table + (uint64_t)of.position * p.rope_dim + unit * RT_PREATTEND_UNIT);
#pragma unroll
    for (int i = 0; i < 4; i++)
        turn.at[i] = at[i];
    return turn;
}

/* The unit's second vector lies so many numbers behind its first. */
static __device__ __forceinline__ uint32_t rt_preattend_apart(const struct rt_preattend_params &p)
{
    return p.rope.half_order ? p.rope_dim / 2 : RT_VECTOR_ELEMENTS;
}

static __device__ __forceinline__ uint32_t rt_preattend_unit_at(const struct rt_preattend_params &p,
                                                                uint32_t unit)
{
    return unit * (p.rope.half_order ? RT_VECTOR_ELEMENTS : RT_PREATTEND_UNIT);
}

/* `from` and `to` are where the token's R numbers begin. */
static __device__ __forceinline__ struct rt_preattend_unit
rt_preattend_load_unit(const struct rt_preattend_params &p, const uint16_t *from, uint32_t unit)
{
    const uint16_t *first = from + rt_preattend_unit_at(p, unit);
    return {*reinterpret_cast<const uint4 *>(first),
            *reinterpret_cast<const uint4 *>(first + rt_preattend_apart(p))};
}

static __device__ __forceinline__ void rt_preattend_store_unit(const struct rt_preattend_params &p,
                                                               uint16_t *to, uint32_t unit,
                                                               const struct rt_preattend_unit &x)
{
    uint16_t *first = to + rt_preattend_unit_at(p, unit);
    *reinterpret_cast<uint4 *>(first) = x.first;
    *reinterpret_cast<uint4 *>(first + rt_preattend_apart(p)) = x.second;
}

template <bool HALF_ORDER>
static __device__ __forceinline__ void rt_preattend_turn_pairs(struct rt_floats8 (&x)[2],
                                                               const struct rt_preattend_turn &turn)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float &a = HALF_ORDER ? x[0].at[i] : x[i / 4].at[i % 4 * 2];
        float &b = HALF_ORDER ? x[1].at[i] : x[i / 4].at[i % 4 * 2 + 1];
        const float c = i % 2 ? turn.at[i / 2].z : turn.at[i / 2].x;
        const float s = i % 2 ? turn.at[i / 2].w : turn.at[i / 2].y;
        const float turned = a * c - b * s;
        b = a * s + b * c;
        a = turned;
    }
}

static __device__ __forceinline__ struct rt_floats8 rt_preattend_scaled(struct rt_floats8 x,
                                                                        float factor)
{
#pragma unroll
    for (int i = 0; i < 8; i++)
        x.at[i] *= factor;
    return x;
}

static __device__ __forceinline__ struct rt_preattend_unit
rt_preattend_turned(const struct rt_preattend_params &p, const struct rt_preattend_unit &unit,
                    const struct rt_preattend_turn &turn, float factor)
{
    struct rt_floats8 x[2] = {rt_unpack_bf16x8(unit.first), rt_unpack_bf16x8(unit.second)};
    if (p.rope.table) {
        if (p.rope.half_order)
            rt_preattend_turn_pairs<true>(x, turn);
        else
            rt_preattend_turn_pairs<false>(x, turn);
    }
    return {rt_pack_bf16x8(rt_preattend_scaled(x[0], factor)),
            rt_pack_bf16x8(rt_preattend_scaled(x[1], factor))};
}

/* ---- q_a: a block ---- */

/* True where the sums were used: every thread of the block has the same answer. */
template <uint32_t WARPS, class SOURCE>
static __device__ __forceinline__ bool rt_preattend_q_a(const struct rt_preattend_params &p,
                                                        uint32_t index, float (&sums)[WARPS],
                                                        const SOURCE &source)
{
    constexpr uint32_t THREADS = WARPS * RT_WARP_LANES;
    constexpr uint32_t MOST = RT_PREATTEND_MOST_WIDTH / RT_VECTOR_ELEMENTS;
    constexpr uint32_t VECTORS = (MOST + THREADS - 1) / THREADS; /* of a thread */
    const struct rt_norm_view &norm = p.q_a_norm;
    const uint32_t vectors = norm.width / RT_VECTOR_ELEMENTS;
    uint4 x[VECTORS], weight[VECTORS];
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++)
        weight[i] = rt_norm_weight(norm, i * THREADS + threadIdx.x);
    const struct rt_preattend_token token = rt_preattend_find(p, index);
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const bool is_normed = token.live && norm.weight;
    if (token.live && !norm.weight)
        return false;

    uint4 *at = reinterpret_cast<uint4 *>(rt_preattend_tokens_at(p.q_a, token));
    float factor = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        const uint32_t vector = i * THREADS + threadIdx.x;
        x[i] = is_normed && vector < vectors ? source.q_a(p, token, vector * RT_VECTOR_ELEMENTS)
                                             : make_uint4(0, 0, 0, 0);
    }
    if (is_normed) {
        float squares = 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < VECTORS; i++)
            squares += rt_squares(x[i]);
        factor = rt_norm_factor(norm, rt_block_sum<WARPS>(squares, sums)); /* A */
    }
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        const uint32_t vector = i * THREADS + threadIdx.x;
        if (vector < vectors)
            at[vector] = is_normed ? rt_normed(norm, x[i], weight[i], factor) : x[i];
    }
    return is_normed;
}

/* ---- kv_a: a warp ---- */

#define RT_PREATTEND_LATENT_VECTORS 2u /* of a lane: L up to 512 */

/* Where a warp of kv_a puts a key that is done: in a cache of bf16 as it is. Templates below take
 * another such type for another cache. */
struct rt_preattend_bf16_cache {
    __device__ __forceinline__ void put(const struct rt_preattend_params &p,
                                        const struct rt_page_row &at,
                                        const uint4 (&latent)[RT_PREATTEND_LATENT_VECTORS],
                                        bool has_unit, const struct rt_preattend_unit &key) const
    {
        uint4 *to = row_address(p.kv, at);
#pragma unroll
        for (uint32_t i = 0; i < RT_PREATTEND_LATENT_VECTORS; i++) {
            const uint32_t vector = i * RT_WARP_LANES + rt_lane();
            if (vector < p.latent_dim / RT_VECTOR_ELEMENTS)
                to[vector] = latent[i];
        }
        if (has_unit)
            rt_preattend_store_unit(p, reinterpret_cast<uint16_t *>(to) + p.latent_dim, rt_lane(),
                                    key);
    }
};

template <class CACHE, class SOURCE>
static __device__ __forceinline__ void rt_preattend_kv_a(const struct rt_preattend_params &p,
                                                         uint32_t index, const CACHE &cache,
                                                         const SOURCE &source)
{
    const struct rt_norm_view &norm = p.kv_a_norm;
    const uint32_t vectors = p.latent_dim / RT_VECTOR_ELEMENTS;
    const rt_divisor<uint32_t> page_size(p.kv.page_size);
    uint4 x[RT_PREATTEND_LATENT_VECTORS], weight[RT_PREATTEND_LATENT_VECTORS];
#pragma unroll
    for (uint32_t i = 0; i < RT_PREATTEND_LATENT_VECTORS; i++)
        weight[i] = rt_norm_weight(norm, i * RT_WARP_LANES + rt_lane());
    rt_settle(page_size.inverse);
    const struct rt_preattend_token token = rt_preattend_find(p, index);
    const struct rt_preattend_turn turn = rt_preattend_load_turn(p, token, rt_lane());
    const int32_t place = p.place ? p.place[index] : (int32_t)token.position;
    struct rt_page_row at = {};
    if (token.live && place >= 0)
        at = find_page_row(p.kv, page_size, token.slot, (uint32_t)place);
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (!at.page)
        return;

    const bool has_unit = rt_preattend_has_unit(p, rt_lane());
    struct rt_preattend_unit key = {};
    float squares = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < RT_PREATTEND_LATENT_VECTORS; i++) {
        const uint32_t vector = i * RT_WARP_LANES + rt_lane();
        x[i] = vector < vectors ? source.kv_a(p, token, vector * RT_VECTOR_ELEMENTS)
                                : make_uint4(0, 0, 0, 0);
    }
    if (has_unit) {
        const uint32_t first = p.latent_dim + rt_preattend_unit_at(p, rt_lane());
        key = {source.kv_a(p, token, first), source.kv_a(p, token, first + rt_preattend_apart(p))};
    }
#pragma unroll
    for (uint32_t i = 0; i < RT_PREATTEND_LATENT_VECTORS; i++)
        squares += rt_squares(x[i]);
    const float factor = rt_norm_factor(norm, rt_warp_sum(squares));
#pragma unroll
    for (uint32_t i = 0; i < RT_PREATTEND_LATENT_VECTORS; i++)
        if (norm.weight)
            x[i] = rt_normed(norm, x[i], weight[i], factor);
    cache.put(p, at, x, has_unit, rt_preattend_turned(p, key, turn, 1.0f));
}

/* ---- q: a warp ---- */

#define RT_PREATTEND_NOPE_DEPTH 4u /* vectors of a lane in flight: P up to 128 in one trip */

/* A head's P numbers, times the factor; zeros where the token is not live. */
static __device__ __forceinline__ void rt_preattend_nope(const struct rt_preattend_params &p,
                                                         uint4 *at, bool live, float factor)
{
    const uint32_t vectors = p.nope_dim / RT_VECTOR_ELEMENTS;
    for (uint32_t first = rt_lane() % RT_PREATTEND_HEAD_LANES; first < vectors;
         first += RT_PREATTEND_NOPE_DEPTH * RT_PREATTEND_HEAD_LANES) {
        uint4 x[RT_PREATTEND_NOPE_DEPTH];
#pragma unroll
        for (uint32_t i = 0; i < RT_PREATTEND_NOPE_DEPTH; i++) {
            const uint32_t vector = first + i * RT_PREATTEND_HEAD_LANES;
            x[i] = live && vector < vectors ? at[vector] : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (uint32_t i = 0; i < RT_PREATTEND_NOPE_DEPTH; i++) {
            const uint32_t vector = first + i * RT_PREATTEND_HEAD_LANES;
            if (vector < vectors)
                at[vector] = rt_pack_bf16x8(rt_preattend_scaled(rt_unpack_bf16x8(x[i]), factor));
        }
    }
}

static __device__ __forceinline__ void rt_preattend_q(const struct rt_preattend_params &p,
                                                      uint32_t index, uint32_t group)
{
    const uint32_t head = group * RT_PREATTEND_WARP_HEADS + rt_lane() / RT_PREATTEND_HEAD_LANES;
    const uint32_t unit = rt_lane() % RT_PREATTEND_HEAD_LANES;
    const struct rt_preattend_token token = rt_preattend_find(p, index);
    const struct rt_preattend_turn turn = rt_preattend_load_turn(p, token, unit);
    const float factor =
        token.live && p.rope.query_scale ? p.rope.query_scale[token.position] : 1.0f;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (head >= p.heads)
        return;

    uint16_t *in = rt_preattend_head_at(p.q_in, token, head);
    const bool has_unit = rt_preattend_has_unit(p, unit);
    struct rt_preattend_unit x = {};
    if (has_unit && token.live)
        x = rt_preattend_load_unit(p, in + p.nope_dim, unit);
    if (!token.live || p.rope.query_scale)
        rt_preattend_nope(p, reinterpret_cast<uint4 *>(in), token.live, factor);
    if (has_unit)
        rt_preattend_store_unit(p, rt_preattend_head_at(p.q_out, token, head) + p.latent_dim, unit,
                                token.live ? rt_preattend_turned(p, x, turn, factor) : x);
}

/* ---- all of it ---- */

/* Warp `index` of those behind q_a's blocks. */
template <class CACHE = rt_preattend_bf16_cache, class SOURCE = rt_preattend_as_it_lies>
static __device__ __forceinline__ void
rt_preattend_warp(const struct rt_preattend_params &p, uint32_t index, const CACHE &cache = CACHE(),
                  const SOURCE &source = SOURCE())
{
    const uint32_t tokens = p.rows.count * p.rows.q_len;
    const uint32_t kv_warps = p.kv_a.base ? tokens : 0;
    const uint32_t groups = rt_ceil_div_u32(p.heads, RT_PREATTEND_WARP_HEADS);
    if (index < kv_warps) {
        rt_preattend_kv_a(p, index, cache, source);
    } else if (p.q_in.base && index - kv_warps < tokens * groups) {
        const uint32_t token = (index - kv_warps) / groups;
        rt_preattend_q(p, token, index - kv_warps - token * groups);
    } else {
        rt_pdl_wait();
        rt_pdl_launch_dependents();
    }
}

/*
 * Block `block` of `blocks`, any number, of WARPS warps: its share of the work, waiting for the
 * grid before included where it has any. Other kernels may give some of their blocks to this.
 */
template <uint32_t WARPS, class CACHE = rt_preattend_bf16_cache,
          class SOURCE = rt_preattend_as_it_lies>
static __device__ __forceinline__ void
rt_preattend_block(const struct rt_preattend_params &p, uint32_t block, uint32_t blocks,
                   const CACHE &cache = CACHE(), const SOURCE &source = SOURCE())
{
    __shared__ float sums[2][WARPS];
    const uint32_t norm_blocks = rt_preattend_norm_blocks(&p);
    const uint32_t all = rt_preattend_blocks(&p, WARPS);
    uint32_t turn = 0;
    for (; block < norm_blocks; block += blocks)
        turn ^= rt_preattend_q_a<WARPS>(p, block, sums[turn], source);
    for (; block < all; block += blocks)
        rt_preattend_warp(p, (block - norm_blocks) * WARPS + threadIdx.x / RT_WARP_LANES, cache,
                          source);
}

#endif
