/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MLA_BLOCK_BRING_CUH
#define RT_KERNELS_SM90_MLA_BLOCK_BRING_CUH

/*
 * mla_block: the two warps of a block that ask for stages, one product after the other from the
 * kernel's first moment to its last, every other row each. Weights and old keys are nobody's
 * output, so they wait for no word.
 */
#include "kernels/sm90/mla_block_desk.cuh"

/* Stages of a block on their way at a time: as many as memory needs to be busy, for what is asked
 * later stands in line behind them. Fewer of the keys that the ring holds before anyone attends, so
 * that words of q come through. And of o_proj the last chunks that come into L2 early. */
enum { RT_BLOCK_FLIGHT = 4, RT_BLOCK_EARLY_KEYS = 2, RT_BLOCK_AHEAD = 1 };

template <class S> struct rt_block_bringer {
    const struct rt_mla_block_params &p;
    const struct rt_mla_block_cut &cut;
    unsigned char *const ring;
    struct rt_block_desk &desk;
    const uint32_t which, lane;
    const uint32_t row; /* of a stage, that this lane asks for, if there is one */
    const uint64_t policy;
    struct rt_stream_turn turn, behind; /* the next to ask for; the oldest on its way */
    uint32_t asked, landed;             /* stages */
    uint32_t flight;                    /* at most so many on their way */

    __device__ __forceinline__ rt_block_bringer(const struct rt_mla_block_sm90_params &p_,
                                                unsigned char *ring_, struct rt_block_desk &desk_,
                                                uint32_t which_)
        : p(p_.block), cut(p_.cut), ring(ring_), desk(desk_), which(which_), lane(threadIdx.x % 32),
          row(which_ + RT_BLOCK_BRINGERS * (threadIdx.x % 32)),
          policy(rt_tma_evict_first()), turn{0, 1}, behind{0, 0}, asked(0), landed(0),
          flight(RT_BLOCK_FLIGHT)
    {
    }

    /* The next stage is free, and few enough are on their way. */
    __device__ __forceinline__ void find_room(void)
    {
        for (; asked - landed >= flight; landed++) {
            rt_mbarrier_wait(&desk.full[behind.stage], behind.parity);
            behind.advance(RT_BLOCK_STAGES);
        }
        asked++;
        rt_mbarrier_wait(&desk.empty[turn.stage], turn.parity);
    }

    /* The next stage, and that so many bytes are expected there. */
    __device__ __forceinline__ uint64_t *open(uint32_t bytes)
    {
        uint64_t *full = &desk.full[turn.stage];
        find_room();
        rt_fence_async(); /* what read or wrote the stage did so by ordinary accesses */
        if (rt_elected())
            rt_mbarrier_arrive_expect(full, bytes);
        __syncwarp();
        return full;
    }

    /* This warp's part of `rows` rows, at most 16, `stride` bytes apart: every other one, by one
     * thread and addresses of the whole warp. */
    __device__ __forceinline__ void bring(const void *first, int64_t stride, uint32_t rows,
                                          uint32_t bytes, uint32_t pitch)
    {
        uint64_t *full = open((rows + RT_BLOCK_BRINGERS - 1 - which) / RT_BLOCK_BRINGERS * bytes);
        const unsigned char *from = (const unsigned char *)first + which * stride;
        unsigned char *to = ring + turn.stage * RT_BLOCK_STAGE_BYTES + which * pitch;
        if (rt_elect_one()) {
#pragma unroll
            for (uint32_t i = 0; i < RT_BLOCK_TILE; i += RT_BLOCK_BRINGERS)
                if (which + i < rows)
                    rt_bulk_load(to + i * pitch, from + i * stride, bytes, full, policy);
        }
        __syncwarp();
        turn.advance(RT_BLOCK_STAGES);
    }

    /* What the block needs of them: their room has another use where nobody waits for them. */
    __device__ __forceinline__ void bring_norms(void) const
    {
        const bool has_a = blockIdx.x < rt_block_a_units(cut) && p.input_norm.weight;
        const bool has_q = blockIdx.x < S::QUERY_UNITS && p.q_rank > 0;
        const uint32_t a = has_a ? 2 * p.hidden_size : 0, q = has_q ? 2 * p.q_rank : 0;
        if (which > 0 || !rt_elected() || a + q == 0)
            return;
        rt_mbarrier_arrive_expect(&desk.norms, a + q);
        if (has_a)
            rt_bulk_load(desk.sums, p.input_norm.weight, a, &desk.norms, policy);
        if (has_q)
            rt_bulk_load(desk.q_norm, p.q_a_norm.weight, q, &desk.norms, policy);
    }

    /* While memory has nothing else to do: the ring is full, and others wait for each other. */
    __device__ __forceinline__ void bring_closer(const struct rt_mla_block_weight &w, uint32_t k,
                                                 uint32_t first, uint32_t rows, uint32_t ahead)
    {
        const uint32_t from = k - ahead * RT_BLOCK_CHUNK;
        for (uint32_t i = row; i < rows && ahead > 0; i += 32 * RT_BLOCK_BRINGERS)
            rt_bulk_prefetch(w.base + (int64_t)(first + i) * w.row_stride + from, 2 * (k - from));
    }

    /* Rows of a weight, chunk by chunk, the tiles of a chunk one behind the other, `apart` rows
     * from one to the next. */
    __device__ __forceinline__ void bring_rows(const struct rt_mla_block_weight &w, uint32_t k,
                                               uint32_t first, uint32_t rows, uint32_t ahead,
                                               uint32_t apart = RT_BLOCK_TILE)
    {
        const uint16_t *from = w.base + (int64_t)first * w.row_stride;
#pragma unroll 1
        for (uint32_t at = 0; at < k; at += RT_BLOCK_CHUNK) {
            if (at == RT_BLOCK_CHUNK)
                bring_closer(w, k, first, rows, ahead);
            const uint32_t bytes = 2 * min(k - at, (uint32_t)RT_BLOCK_CHUNK);
            uint32_t to = 0;
#pragma unroll 1
            for (uint32_t tile = 0; tile < rows; tile += RT_BLOCK_TILE, to += apart)
                bring(from + (int64_t)to * w.row_stride + at, 2 * w.row_stride,
                      min(rows - tile, (uint32_t)RT_BLOCK_TILE), bytes, RT_BLOCK_ROW_PITCH);
        }
    }

    __device__ __forceinline__ uint32_t query_tile(uint32_t unit, uint32_t tile) const
    {
        return rt_mla_block_query_tile(unit, tile, S::GENERAL ? p.rope.half_order : 0);
    }

    /* Of a unit of q: rows from its first tile to its second. */
    __device__ __forceinline__ uint32_t apart_of(uint32_t unit) const
    {
        return S::GENERAL ? query_tile(unit, 1) - query_tile(unit, 0) : (uint32_t)RT_BLOCK_TILE;
    }

    __device__ __forceinline__ void bring_a(void)
    {
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < rt_block_a_units(cut); v += cut.blocks) {
            const bool is_q = v < cut.query_units, is_pair = is_q && p.q_rank == 0;
            const uint32_t single = (is_q ? v : v - cut.query_units) * RT_BLOCK_TILE;
            bring_rows(is_q ? p.q : p.kv_a, p.hidden_size, is_pair ? query_tile(v, 0) : single,
                       is_pair ? RT_MLA_BLOCK_QUERY_ROWS : (uint32_t)RT_BLOCK_TILE, 0, apart_of(v));
        }
    }

    __device__ __forceinline__ void bring_q_b(void)
    {
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < S::QUERY_UNITS && p.q_rank > 0; v += cut.blocks)
            bring_rows(p.q_b, p.q_rank, query_tile(v, 0), RT_MLA_BLOCK_QUERY_ROWS, 0, apart_of(v));
    }

    /* 64 columns of all rows of a head's W_UK. */
    __device__ __forceinline__ void bring_w_uk(uint32_t unit)
    {
        const uint32_t first = unit / RT_BLOCK_OF_HEAD * (RT_MLA_BLOCK_NOPE + RT_MLA_BLOCK_VALUE);
        const uint16_t *from = p.kv_b.base + unit % RT_BLOCK_OF_HEAD * 64;
        uint64_t *full = open(RT_MLA_BLOCK_NOPE / RT_BLOCK_BRINGERS * 128);
        if (rt_elect_one()) {
#pragma unroll 8
            for (uint32_t i = which; i < RT_MLA_BLOCK_NOPE; i += RT_BLOCK_BRINGERS)
                rt_bulk_load(ring + turn.stage * RT_BLOCK_STAGE_BYTES + i * RT_BLOCK_HEAD_PITCH,
                             from + (int64_t)(first + i) * p.kv_b.row_stride, 128, full, policy);
        }
        __syncwarp();
        turn.advance(RT_BLOCK_STAGES);
    }

    /* 16 values of a head. */
    __device__ __forceinline__ void bring_w_uv(uint32_t unit)
    {
        const uint32_t first =
            unit / RT_BLOCK_OF_HEAD * (RT_MLA_BLOCK_NOPE + RT_MLA_BLOCK_VALUE) + RT_MLA_BLOCK_NOPE;
        bring_rows(p.kv_b, RT_MLA_BLOCK_LATENT, first + unit % RT_BLOCK_OF_HEAD * RT_BLOCK_TILE,
                   RT_BLOCK_TILE, 0);
    }

    /* Keys that no page has are zeros. Others ask for nothing of the stage. */
    __device__ __forceinline__ void put_zeros(uint32_t rows)
    {
        uint64_t *full = &desk.full[turn.stage];
        find_room();
        if (row < rows) {
            unsigned char *to = ring + turn.stage * RT_BLOCK_STAGE_BYTES + row * RT_BLOCK_KEY_PITCH;
#pragma unroll 1
            for (uint32_t i = 0; i < 2 * RT_MLA_BLOCK_TOKEN; i += 16)
                *(uint4 *)(to + i) = make_uint4(0, 0, 0, 0);
        }
        __syncwarp();
        if (rt_elected())
            rt_mbarrier_arrive(full);
        turn.advance(RT_BLOCK_STAGES);
    }

    /* To the keeper: the next stage is free. */
    __device__ __forceinline__ void announce(uint32_t fresh)
    {
        rt_mbarrier_wait(&desk.empty[turn.stage], turn.parity);
        if (which == 0 && rt_elected())
            rt_mbarrier_arrive(&desk.opened[fresh]);
        __syncwarp();
    }

    /* New tokens are not there yet: the keeper puts them into their tiles. */
    __device__ __forceinline__ void bring_keys(uint32_t unit)
    {
        const rt_block_share<S> share(p, unit);
        const uint32_t of_page = p.kv.page_size / RT_BLOCK_TILE; /* tiles */
        int pages = -1;
#pragma unroll 1
        for (uint32_t tile = share.first; tile < share.end; tile++) {
            const uint32_t i = (tile - share.first) % 32;
            if (i == 0)
                pages = tile + lane < share.end ? share.page_of(p.kv, (tile + lane) / of_page) : -1;
            const int page = __shfl_sync(RT_BLOCK_FULL_WARP, pages, (int)i);
            const uint32_t old = share.old_of(tile);
            flight = tile - share.first < RT_BLOCK_STAGES ? RT_BLOCK_EARLY_KEYS : RT_BLOCK_FLIGHT;
            if (share.is_fresh(tile))
                announce(share.fresh_of(tile));
            if (page >= 0)
                bring(rt_block_token(p.kv, page, tile % of_page * RT_BLOCK_TILE),
                      p.kv.token_stride_bytes, old, 2 * RT_MLA_BLOCK_TOKEN, RT_BLOCK_KEY_PITCH);
            else
                put_zeros(old);
        }
    }

    __device__ __forceinline__ void bring_o(void)
    {
        const uint32_t end = rt_mla_block_out_first(&cut, p.hidden_size, blockIdx.x + 1);
#pragma unroll 1
        for (uint32_t first = rt_mla_block_out_first(&cut, p.hidden_size, blockIdx.x); first < end;
             first += RT_MLA_BLOCK_OUT_ROWS)
            bring_rows(p.o, S::OUT_WIDTH, first, min(end - first, RT_MLA_BLOCK_OUT_ROWS),
                       RT_BLOCK_AHEAD);
    }

    __device__ __forceinline__ void run(void)
    {
        bring_norms();
        bring_a();
        bring_q_b();
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < S::HEAD_UNITS; v += cut.blocks)
            bring_w_uk(v);
        if (!p.early)
            rt_pdl_wait();
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < RT_MLA_BLOCK_UNITS; v += cut.blocks)
            bring_keys(v);
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < S::HEAD_UNITS; v += cut.blocks)
            bring_w_uv(v);
        flight = RT_BLOCK_FLIGHT;
        bring_o();
    }
};

#endif
