/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MLA_BLOCK_KEEP_CUH
#define RT_KERNELS_SM90_MLA_BLOCK_KEEP_CUH

/*
 * mla_block: the warp of a block that finds cosines and sines, puts the new token into the cache
 * and into its stage, and blanks the exchange that nobody reads any more.
 */
#include "kernels/sm90/mla_block_desk.cuh"
#include "kernels/sm90/mla_block_words.cuh"

template <int B> struct rt_block_keeper {
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

    /* Of a pair of a row's last token. */
    static __device__ __forceinline__ float2 turn_of(const struct rt_mla_block_params &p,
                                                     uint32_t length, uint32_t pair)
    {
        if (!p.rope.table || length == 0)
            return make_float2(1, 0);
        const float *at = p.rope.table + (uint64_t)(length - 1) * RT_MLA_BLOCK_ROPE + 2 * pair;
        return *(const float2 *)at;
    }

    __device__ __forceinline__ void find_turns(void)
    {
        constexpr uint32_t PAIRS = RT_MLA_BLOCK_QUERY_ROWS / 2;
        constexpr uint32_t OF_HEAD = RT_MLA_BLOCK_QUERY / RT_MLA_BLOCK_QUERY_ROWS;
        constexpr uint32_t PLAIN = RT_MLA_BLOCK_NOPE / RT_MLA_BLOCK_QUERY_ROWS;
        const uint32_t part = blockIdx.x % OF_HEAD;
        for (uint32_t i = lane; i < B * PAIRS && part >= PLAIN; i += 32)
            desk.turn[i / PAIRS][i % PAIRS] = turn_of(p, rt_block_share::length_of(p, i / PAIRS),
                                                      (part - PLAIN) * PAIRS + i % PAIRS);
        __syncwarp();
        if (rt_elected())
            rt_mbarrier_arrive(&desk.turned);
    }

    __device__ __forceinline__ void blank_stale(void)
    {
        const uint32_t words = rt_mla_block_exchange(B, p.q_rank).bytes / 16;
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
        for (uint32_t v = blockIdx.x; v < RT_MLA_BLOCK_QUERY_UNITS; v += cut.blocks)
            n += 2 * rt_block_chunks(p.q_rank);
        for (uint32_t v = blockIdx.x; v < RT_MLA_BLOCK_UNITS; v += cut.blocks)
            n++;
        return n;
    }

    __device__ __forceinline__ void put(unsigned char *to, const uint4 (&c)[2], uint32_t r) const
    {
        *(uint4 *)(to + 16 * lane) = c[0];
        *(uint4 *)(to + 512 + 16 * lane) = c[1];
        *(uint32_t *)(to + 2 * RT_MLA_BLOCK_LATENT + 4 * lane) = r;
    }

    /* The stage of a row's last tile gets its new token, and behind it zeros, for there are perhaps
     * the bits of no number. `n`: which of the block's stages that is. */
    __device__ __forceinline__ void fill_stage(uint32_t n, uint32_t token, uint4 (&c)[2],
                                               uint32_t r) const
    {
        unsigned char *stage = ring + n % RT_BLOCK_STAGES * RT_BLOCK_STAGE_BYTES;
        put(stage + token % RT_BLOCK_TILE * RT_BLOCK_KEY_PITCH, c, r);
        c[0] = c[1] = make_uint4(0, 0, 0, 0);
#pragma unroll 1
        for (uint32_t i = token % RT_BLOCK_TILE + 1; i < RT_BLOCK_TILE; i++)
            put(stage + i * RT_BLOCK_KEY_PITCH, c, 0);
    }

    /* Latent and rotary part of a row's new token, normed and turned, into its stage and the cache.
     * Padding waits for the words all the same: who has seen all values knows by that that everyone
     * has read hidden. */
    __device__ __forceinline__ void append(const struct rt_block_share &share, uint32_t n)
    {
        const uint32_t width = p.q_rank + RT_MLA_BLOCK_TOKEN;
        const unsigned char *from = p.exchange + 2 * (share.row * width + p.q_rank);
        const uint4 *weight = (const uint4 *)p.kv_a_norm.weight;
        const uint4 norm[2] = {weight[lane], weight[32 + lane]};
        const float2 turn = turn_of(p, share.length, lane);
        const uint32_t token = share.length - 1;
        int page = -1;
        if (share.length > 0)
            page = share.page_of(p.kv, token / p.kv.page_size);
        uint4 c[2];
        uint32_t r[1];
        rt_block_gather(c, [&](int i) { return from + 512 * i + 16 * lane; });
        rt_block_gather(r, [&](int) { return from + 2 * RT_MLA_BLOCK_LATENT + 4 * lane; });
        if (share.length == 0)
            return;
        float squares = rt_add_squares(rt_add_squares(0, c[0]), c[1]);
#pragma unroll
        for (int i = 16; i > 0; i /= 2)
            squares += __shfl_xor_sync(RT_BLOCK_FULL_WARP, squares, i);
        const float factor =
            rt_inverse_root(squares * (1.0f / RT_MLA_BLOCK_LATENT) + p.kv_a_norm.eps) *
            p.kv_a_norm.scale;
        c[0] = rt_scale_pairs(c[0], norm[0], factor);
        c[1] = rt_scale_pairs(c[1], norm[1], factor);
        const float a = rt_bf16_low(r[0]), b = rt_bf16_high(r[0]);
        r[0] = rt_pack_bf16x2(a * turn.x - b * turn.y, a * turn.y + b * turn.x);
        if (page >= 0)
            put(rt_block_token(p.kv, page, token % p.kv.page_size), c, r[0]);
        else
            c[0] = c[1] = make_uint4(0, 0, 0, 0);
        rt_mbarrier_wait(&desk.opened[share.row], 0);
        fill_stage(n, token, c, page >= 0 ? r[0] : 0);
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
            const struct rt_block_share share(p, B, v);
            n += share.end - share.first;
            if (!share.is_last)
                continue;
            append(share, n - 1);
            __syncwarp();
            if (rt_elected())
                rt_mbarrier_arrive(&desk.appended[share.row]);
        }
        blank_stale();
    }
};

#endif
