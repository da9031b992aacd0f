/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MLA_BLOCK_KEEP_CUH
#define RT_KERNELS_SM90_MLA_BLOCK_KEEP_CUH

/*
 * mla_block: the warp of a block that finds cosines and sines, puts the new token into the cache
 * and into its stage, and blanks the exchange that nobody reads any more.
 */
#include "kernels/sm90/mla_block_desk.cuh"
#include "kernels/sm90/mla_block_words.cuh"

template <class S> struct rt_block_keeper {
    const struct rt_mla_block_params &p;
    const struct rt_mla_block_cut &cut;
    unsigned char *const ring;
    struct rt_block_desk &desk;
    const uint32_t lane;

    __device__ __forceinline__ rt_block_keeper(const struct rt_mla_block_sm90_params &p_,
                                               unsigned char *ring_, struct rt_block_desk &desk_)
        : p(p_.block), cut(p_.cut), ring(ring_), desk(desk_), lane(threadIdx.x % 32)
    {
    }

    /* Of a pair of the token at length - 1. */
    static __device__ __forceinline__ float2 turn_of(const struct rt_mla_block_params &p,
                                                     uint32_t length, uint32_t pair)
    {
        if (!p.rope.table || length == 0)
            return make_float2(1, 0);
        const float *at = p.rope.table + (uint64_t)(length - 1) * RT_MLA_BLOCK_ROPE + 2 * pair;
        return *(const float2 *)at;
    }

    /* Of a turned unit the pairs are the same in either order. */
    __device__ __forceinline__ void find_turns(void)
    {
        constexpr uint32_t PAIRS = RT_MLA_BLOCK_QUERY_ROWS / 2;
        constexpr uint32_t PLAIN = RT_MLA_BLOCK_PLAIN_UNITS;
        const uint32_t part = blockIdx.x % RT_MLA_BLOCK_QUERY_UNITS;
        for (uint32_t i = lane; i < S::SLOTS * PAIRS && part >= PLAIN; i += 32)
            desk.turn[i / PAIRS][i % PAIRS] =
                turn_of(p, S::length_of(p, i / PAIRS), (part - PLAIN) * PAIRS + i % PAIRS);
        __syncwarp();
        if (rt_elected())
            rt_mbarrier_arrive(&desk.turned);
    }

    __device__ __forceinline__ void blank_stale(void)
    {
        const uint32_t words = rt_mla_block_exchange(S::SLOTS, p.q_rank, S::HEADS).bytes / 16;
        uint4 blank;
        rt_set_blank(blank);
#pragma unroll 2
        for (uint32_t i = blockIdx.x * 32 + lane; i < words; i += cut.blocks * 32)
            ((uint4 *)p.stale)[i] = blank;
    }

    /* Stages of a block in front of its keys. */
    __device__ __forceinline__ uint32_t stages_before(void) const
    {
        const uint32_t chunks = rt_block_chunks(p.hidden_size);
        uint32_t n = 0;
        for (uint32_t v = blockIdx.x; v < rt_block_a_units(cut); v += cut.blocks)
            n += v < cut.query_units && p.q_rank == 0 ? 2 * chunks : chunks;
        for (uint32_t v = blockIdx.x; v < S::QUERY_UNITS; v += cut.blocks)
            n += 2 * rt_block_chunks(p.q_rank);
        for (uint32_t v = blockIdx.x; v < S::HEAD_UNITS; v += cut.blocks)
            n++;
        return n;
    }

    __device__ __forceinline__ void put(unsigned char *to, const uint4 (&c)[2], uint32_t r) const
    {
        *(uint4 *)(to + 16 * lane) = c[0];
        *(uint4 *)(to + 512 + 16 * lane) = c[1];
        *(uint32_t *)(to + 2 * RT_MLA_BLOCK_LATENT + 4 * lane) = r;
    }

    /* Behind a vector's own token zeros, for there are perhaps the bits of no number. */
    __device__ __forceinline__ void clear_behind(unsigned char *stage, uint32_t token) const
    {
        const uint4 zeros[2] = {};
#pragma unroll 1
        for (uint32_t i = token % RT_BLOCK_TILE + 1; i < RT_BLOCK_TILE; i++)
            put(stage + i * RT_BLOCK_KEY_PITCH, zeros, 0);
    }

    /* Of a lane two neighbours of the rotary part. In half order each is turned with the lane's
     * that has the numbers 32 away. */
    __device__ __forceinline__ uint32_t turned(uint32_t pair, float2 one, float2 two) const
    {
        const float a = rt_bf16_low(pair), b = rt_bf16_high(pair);
        if (!S::GENERAL || !p.rope.half_order)
            return rt_pack_bf16x2(a * one.x - b * one.y, a * one.y + b * one.x);
        const float c = __shfl_xor_sync(RT_BLOCK_FULL_WARP, a, 16);
        const float d = __shfl_xor_sync(RT_BLOCK_FULL_WARP, b, 16);
        return lane < 16 ? rt_pack_bf16x2(a * one.x - c * one.y, b * two.x - d * two.y)
                         : rt_pack_bf16x2(c * one.y + a * one.x, d * two.y + b * two.x);
    }

    /* Latent and rotary part of a vector's own token, normed and turned. Of padding, length 0, the
     * words are waited for all the same: who has seen all values knows by that that everyone has
     * read hidden. */
    __device__ __forceinline__ void make_key(uint32_t vector, uint32_t length, uint4 (&c)[2],
                                             uint32_t (&r)[1]) const
    {
        const uint32_t width = p.q_rank + RT_MLA_BLOCK_TOKEN;
        const unsigned char *from = p.exchange + 2 * (vector * width + p.q_rank);
        const uint4 *weight = (const uint4 *)p.kv_a_norm.weight;
        const uint4 norm[2] = {weight[lane], weight[32 + lane]};
        const bool by_halves = S::GENERAL && p.rope.half_order;
        const float2 one = turn_of(p, length, by_halves ? 2 * lane % 32 : lane);
        const float2 two = by_halves ? turn_of(p, length, 2 * lane % 32 + 1) : one;
        rt_block_gather(c, [&](int i) { return from + 512 * i + 16 * lane; });
        rt_block_gather(r, [&](int) { return from + 2 * RT_MLA_BLOCK_LATENT + 4 * lane; });
        float squares = rt_add_squares(rt_add_squares(0, c[0]), c[1]);
#pragma unroll
        for (int i = 16; i > 0; i /= 2)
            squares += __shfl_xor_sync(RT_BLOCK_FULL_WARP, squares, i);
        const float factor =
            rt_inverse_root(squares * (1.0f / RT_MLA_BLOCK_LATENT) + p.kv_a_norm.eps) *
            p.kv_a_norm.scale;
        c[0] = rt_scale_pairs(c[0], norm[0], factor);
        c[1] = rt_scale_pairs(c[1], norm[1], factor);
        r[0] = turned(r[0], one, two);
    }

    /* A token of the unit's row into its stage; a vector's own into the cache too. */
    __device__ __forceinline__ void append(const rt_block_share<S> &share, uint32_t token,
                                           unsigned char *stage) const
    {
        const bool is_own = token + 1 == share.length;
        int page = -1;
        if (share.length > 0)
            page = share.page_of(p.kv, token / p.kv.page_size);
        uint4 c[2];
        uint32_t r[1];
        make_key(share.vector - (share.length - 1 - token), token + 1, c, r);
        if (share.length == 0)
            return;
        if (page < 0) {
            c[0] = c[1] = make_uint4(0, 0, 0, 0);
            r[0] = 0;
        } else if (is_own && share.group == 0) {
            put(rt_block_token(p.kv, page, token % p.kv.page_size), c, r[0]);
        }
        rt_mbarrier_wait(&desk.opened[share.fresh_of(token / RT_BLOCK_TILE)], 0);
        put(stage + token % RT_BLOCK_TILE * RT_BLOCK_KEY_PITCH, c, r[0]);
        if (is_own)
            clear_behind(stage, token);
    }

    /* New tokens of a tile of the unit, its stage the block's `n`-th. Of padding the token at -1:
     * nothing but its words. */
    __device__ __forceinline__ void fill(const rt_block_share<S> &share, uint32_t tile, uint32_t n)
    {
        unsigned char *const stage = ring + n % RT_BLOCK_STAGES * RT_BLOCK_STAGE_BYTES;
        const uint32_t end = min((tile + 1) * RT_BLOCK_TILE, share.length);
        uint32_t token = max(tile * RT_BLOCK_TILE, share.first_new);
#pragma unroll 1
        do {
            append(share, token, stage);
        } while (S::GENERAL && ++token < end);
        __syncwarp();
        if (rt_elected())
            rt_mbarrier_arrive(&desk.appended[share.fresh_of(tile)]);
    }

    /* A unit of attention, whose first stage is the block's `n`-th. */
    __device__ __forceinline__ void keep(const rt_block_share<S> &share, uint32_t n)
    {
        if (!S::GENERAL && share.is_last)
            fill(share, share.tiles - 1, n + share.end - share.first - 1);
        if (!S::GENERAL || (share.length == 0 && !share.is_last))
            return;
        const uint32_t end = share.length > 0 ? share.end : 1;
#pragma unroll 1
        for (uint32_t tile = max(share.first, share.first_fresh()); tile < end; tile++)
            fill(share, tile, n + tile - share.first);
    }

    __device__ __forceinline__ void run(void)
    {
        if (!p.early)
            rt_pdl_wait();
        find_turns();
        rt_pdl_wait();
        uint32_t n = stages_before();
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < RT_MLA_BLOCK_UNITS; v += cut.blocks) {
            const rt_block_share<S> share(p, v);
            keep(share, n);
            n += share.end - share.first;
        }
        blank_stale();
    }
};

#endif
