/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MOE_BLOCK_BRING_CUH
#define RT_KERNELS_SM90_MOE_BLOCK_BRING_CUH

/*
 * moe_block: the four warps of a block that ask for stages, one product behind the other from the
 * kernel's first moment to its last. Weights are nobody's output: but for who is chosen, they wait
 * for nothing.
 */
#include "kernels/sm90/experts_up_stream.cuh"
#include "kernels/sm90/moe_block_desk.cuh"

/* Stages of a block on their way at a time: as many as memory needs to be busy, for what is asked
 * later stands in line behind them. Fewer while logits and choices are found, each of which is
 * waited for; more where nobody is chosen. */
enum { RT_MOE_FLIGHT = 4, RT_MOE_EARLY_FLIGHT = 2, RT_MOE_DENSE_FLIGHT = 8 };

template <int TILES> struct rt_moe_bringer {
    static constexpr uint32_t COUNT = RT_EXPERTS_SM90_FEW_BRINGERS;
    static constexpr uint32_t ROWS = RT_MOE_BLOCK_TILE_ROWS;

    const struct rt_moe_block_params &p;
    const struct rt_experts_room &room;
    struct rt_moe_desk &desk;
    const uint32_t which;
    const uint64_t policy;
    struct rt_stream_turn turn, behind; /* the next to ask for; the oldest on its way */
    uint32_t flight, most;              /* stages on their way, and how many may be */

    __device__ __forceinline__ rt_moe_bringer(const struct rt_moe_block_params &p_,
                                              const struct rt_experts_room &room_,
                                              struct rt_moe_desk &desk_, uint32_t which_)
        : p(p_), room(room_), desk(desk_), which(which_),
          policy(rt_tma_evict_first()), turn{0, 1}, behind{0, 0}, flight(0),
          most(p_.gate.route.experts > 0 ? RT_MOE_EARLY_FLIGHT : RT_MOE_DENSE_FLIGHT)
    {
    }

    /* The next stage, once it is free and few enough are on their way, and that so many bytes are
     * expected there. */
    __device__ __forceinline__ uint64_t *open(uint32_t bytes)
    {
        uint64_t *const full = &room.ring.full[turn.stage];
        if (flight == most) {
            rt_mbarrier_wait(&room.ring.full[behind.stage], behind.parity);
            behind.advance(room.ring.stages);
            flight--;
        }
        flight++;
        rt_mbarrier_wait(&room.ring.empty[turn.stage], turn.parity);
        rt_fence_async(); /* what read the stage did so by ordinary loads */
        if (rt_elected())
            rt_mbarrier_arrive_expect(full, bytes);
        __syncwarp();
        return full;
    }

    /* This warp's part of `rows` rows: every COUNT-th. at(row): its numbers. */
    template <class AT> __device__ __forceinline__ void bring(uint32_t rows, uint32_t bytes, AT at)
    {
        uint64_t *const full = open((rows + COUNT - 1 - which) / COUNT * bytes);
        unsigned char *const to =
            room.ring.memory + turn.stage * room.ring.stage_bytes + which * room.ring.row_bytes;
        if (rt_elect_one()) {
#pragma unroll
            for (uint32_t i = 0; i < ROWS; i += COUNT)
                if (which + i < rows)
                    rt_bulk_load(to + i * room.ring.row_bytes, at(which + i), bytes, full, policy);
        }
        __syncwarp();
        turn.advance(room.ring.stages);
    }

    /* Rows of a weight along k, chunk by chunk, the tiles of a chunk one behind the other. */
    __device__ __forceinline__ void bring_rows(const uint16_t *from, int64_t stride, uint32_t rows,
                                               uint32_t k)
    {
#pragma unroll 1
        for (uint32_t at = 0; at < k; at += RT_STREAM_CHUNK) {
            const uint32_t bytes = 2 * min(k - at, RT_STREAM_CHUNK);
#pragma unroll 1
            for (uint32_t tile = 0; tile < rows; tile += ROWS)
                bring(min(rows - tile, ROWS), bytes,
                      [&](uint32_t row) { return from + (tile + row) * stride + at; });
        }
    }

    /* Tiles of rows of gate, and behind them as many of up. */
    __device__ __forceinline__ void bring_pass(const struct rt_experts_pass &pass)
    {
        const uint32_t shared = pass.job.shared, hidden = p.gate.norm.norm.width;
        const uint16_t *const gate = rt_expert_row(p.expert[shared], pass.job.expert, pass.row);
        const uint16_t *const up = rt_expert_row(p.expert_up[shared], pass.job.expert, pass.row);
        const int64_t gate_stride = p.expert[shared].row_stride;
        const int64_t up_stride = p.expert_up[shared].row_stride;
#pragma unroll 1
        for (uint32_t at = 0; at < hidden; at += RT_STREAM_CHUNK) {
            const uint32_t bytes = 2 * min(hidden - at, RT_STREAM_CHUNK);
#pragma unroll 1
            for (uint32_t tile = 0; tile < pass.rows; tile += RT_EXPERTS_SM90_UP_ROWS) {
                const uint32_t rows = min(pass.rows - tile, RT_EXPERTS_SM90_UP_ROWS);
                bring(2 * rows, bytes, [&](uint32_t row) {
                    return row < rows ? gate + (tile + row) * gate_stride + at
                                      : up + (tile + row - rows) * up_stride + at;
                });
            }
        }
    }

    __device__ __forceinline__ void bring_up(const struct rt_experts_view &work, bool shared)
    {
        struct rt_experts_up_line<RT_EXPERTS_SM90_FEW_TOKENS> line(work, p.width, shared);
        struct rt_experts_pass pass;
#pragma unroll 1
        while (line.take(pass))
            bring_pass(pass);
    }

    __device__ __forceinline__ void bring_down(uint32_t shared, uint32_t expert, uint32_t row,
                                               uint32_t rows)
    {
        const struct rt_expert_weight_view &w = p.expert_down[shared];
        bring_rows(rt_expert_row(w, expert, row), w.row_stride, rows, p.width);
    }

    __device__ __forceinline__ void run(const struct rt_experts_view &work)
    {
        const uint32_t hidden = p.gate.norm.norm.width;
        const uint32_t end = rt_stream_share(hidden, blockIdx.x + 1);
        bring_up(work, true);
        if (work.experts > 0) {
            rt_mbarrier_wait(&desk.chosen, 0);
            most = RT_MOE_FLIGHT;
            bring_up(work, false);
        }
#pragma unroll 1
        for (uint32_t row = rt_stream_share(hidden, blockIdx.x); row < end; row += TILES * ROWS) {
            const uint32_t rows = min(end - row, TILES * ROWS);
#pragma unroll 1
            for (uint32_t i = 0; i < work.shared; i++)
                bring_down(1, i, row, rows);
            const uint32_t active = rt_expert_active(work);
#pragma unroll 1
            for (uint32_t i = 0; i < active; i++)
                bring_down(0, (uint32_t)work.groups.active[i].expert, row, rows);
        }
    }
};

#endif
