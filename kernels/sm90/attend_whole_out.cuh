/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_WHOLE_OUT_CUH
#define RT_KERNELS_SM90_ATTEND_WHOLE_OUT_CUH

/*
 * How a row leaves the blocks of a cluster that have it together, each some of its keys.
 *
 *   beside the last values   maximum and sum of every query row       to all blocks, by st.async
 *   then                     sums of values, f32, over free keys      | block r gets columns 64 r
 *   sent_full                block r adds, divides and stores its columns; block 0 also the lse
 *
 * A tile of values' columns is one block's, a warp's 16 of them a copy. It lies as it is stored
 * there, [warp][8 query rows][column][query row], so that a warp's store is 256 bytes in a line.
 */
#include "kernels/sm90/attend_narrow_out.cuh"

template <class SHAPE> struct rt_sm90_whole_out {
    static constexpr int ROWS = SHAPE::TILE_ROWS, BLOCKS = SHAPE::ROW_BLOCKS;
    static constexpr int COLUMNS = SHAPE::SENT_COLUMNS;
    static constexpr int THREADS = RT_SM90_WORKERS * RT_SM90_WORKER_THREADS;
    typedef rt_sm90_narrow_out<SHAPE> leaving;
    typedef typename leaving::place place;
    static constexpr int OF_WARP = COLUMNS / RT_SM90_WORKER_WARPS; /* columns */
    static constexpr int CHUNK = ROWS * OF_WARP;                   /* numbers */
    static_assert(COLUMNS == 64 && SHAPE::HALF_TILES * 2 == BLOCKS, "a tile is a block's");
    static_assert(SHAPE::HALF_TILES * RT_SM90_WORKER_WARPS * CHUNK * 4 <= SHAPE::HALF_BYTES,
                  "room");

    const leaving &leaves;
    const rt_sm90_room<SHAPE> &room;
    const struct rt_sm90_segment &segment;

    explicit __device__ __forceinline__ rt_sm90_whole_out(const leaving &leaves_)
        : leaves(leaves_), room(leaves_.room), segment(leaves_.segment)
    {
    }

    /* What a warp of block `from` has sent. */
    __device__ __forceinline__ float *sent(uint32_t from, int warp) const
    {
        return room.staging + ((int)from * RT_SM90_WORKER_WARPS + warp) * CHUNK;
    }

    /* Without a key sums are 0, and the maximum is anything. */
    __device__ __forceinline__ float2 own_state(int row) const
    {
        return segment.blocks > 0 ? rt_sm90_leaf_state(room, segment, row)
                                  : make_float2(-RT_SM90_INFINITY, 0.0f);
    }

    /* Behind a barrier of both workers, where there was a block. */
    __device__ __forceinline__ void send_states(void) const
    {
        const int thread = leaves.worker * (int)RT_SM90_WORKER_THREADS +
                           (int)(rt_opaque(threadIdx.x) % RT_SM90_WORKER_THREADS);
        const int row = thread % ROWS;
        const float2 state = own_state(row);
        const float2 *to = &room.desk.states[rt_cluster_rank()][row];
#pragma unroll 1
        for (int rank = thread / ROWS; rank < BLOCKS; rank += THREADS / ROWS)
            rt_cluster_send(rt_cluster_place(to, (uint32_t)rank),
                            rt_cluster_place(&room.desk.sent_full, (uint32_t)rank), state.x,
                            state.y);
    }

    /* This worker's half of the first stage: once its products are done, nobody reads it. */
    __device__ __forceinline__ float *to_send(int tile, int warp) const
    {
        return (float *)room.half(0, leaves.worker) + (tile * RT_SM90_WORKER_WARPS + warp) * CHUNK;
    }

    __device__ __forceinline__ void send_values(const typename leaving::sums &out) const
    {
        const place at;
        rt_bar_sync(RT_SM90_BAR_WORKER + leaves.worker, RT_SM90_WORKER_THREADS);
#pragma unroll
        for (int t = 0; t < SHAPE::HALF_TILES; t++)
#pragma unroll
            for (int i = 0; i < leaving::MINE; i += 2)
#pragma unroll
                for (int n = 0; n < 2; n++)
                    *(float2 *)(to_send(t, at.warp) + (i / 2 * OF_WARP + n * 8 + at.lane / 4) * 8 +
                                at.lane % 4 * 2) =
                        make_float2(out[t][leaving::at_of(i, n)], out[t][leaving::at_of(i + 1, n)]);
        rt_fence_async();
        __syncwarp();
        const int own = (int)rt_cluster_rank() - leaves.worker * SHAPE::HALF_TILES;
        if (at.lane < SHAPE::HALF_TILES && at.lane != own) {
            const uint32_t rank = (uint32_t)(leaves.worker * SHAPE::HALF_TILES + at.lane);
            rt_cluster_send_bytes(rt_cluster_place(sent(rt_cluster_rank(), at.warp), rank),
                                  rt_cluster_place(&room.desk.sent_full, rank),
                                  to_send(at.lane, at.warp), CHUNK * 4);
        }
        if (own >= 0 && own < SHAPE::HALF_TILES)
            keep_values(at, own);
        __syncwarp();
    }

    /* This block's own tile, which a copy between blocks is not for. It counts as those do. */
    __device__ __forceinline__ void keep_values(const place &at, int tile) const
    {
        const uint32_t rank = rt_cluster_rank();
        const float2 *from = (const float2 *)to_send(tile, at.warp);
        const float2 *to = (const float2 *)sent(rank, at.warp);
#pragma unroll
        for (int i = at.lane; i < CHUNK / 2; i += 32)
            rt_cluster_send(rt_cluster_place(to + i, rank),
                            rt_cluster_place(&room.desk.sent_full, rank), from[i].x, from[i].y);
    }

    /* What a block's sums are multiplied by. Where its sum is 0 it has seen no key. */
    static __device__ __forceinline__ float weight(const float2 &state, float top)
    {
        return state.y == 0.0f ? 0.0f : rt_exp2(state.x - top);
    }

    /* Maximum and sum of the whole row, from all blocks' in order; and what counts of each. */
    __device__ __forceinline__ float2 whole_state(int row, float (&by)[BLOCKS]) const
    {
        float top = -RT_SM90_INFINITY, sum = 0.0f;
#pragma unroll
        for (int from = 0; from < BLOCKS; from++) {
            const float2 state = room.desk.states[from][row];
            top = state.y == 0.0f ? top : fmaxf(top, state.x);
        }
#pragma unroll
        for (int from = 0; from < BLOCKS; from++) {
            const float2 state = room.desk.states[from][row];
            by[from] = weight(state, top);
            sum = state.y == 0.0f ? sum : fmaf(by[from], state.y, sum);
        }
        return make_float2(top, sum);
    }

    /* A column's sum. Of a block that has seen no key it may be anything. */
    __device__ __forceinline__ float add_sent(int row, int column, const float (&by)[BLOCKS]) const
    {
        float sum = 0.0f;
#pragma unroll
        for (int from = 0; from < BLOCKS; from++) {
            const float x =
                sent((uint32_t)from,
                     column / OF_WARP)[(row / 8 * OF_WARP + column % OF_WARP) * 8 + row % 8];
            sum = room.desk.states[from][row].y == 0.0f ? sum : fmaf(by[from], x, sum);
        }
        return sum;
    }

    /* A thread has two columns of every eighth query row; a neighbour's go into the same words. */
    __device__ __forceinline__ void store_row(const place &at, int row) const
    {
        const uint32_t rank = rt_cluster_rank();
        const int first = (leaves.worker * RT_SM90_WORKER_WARPS + at.warp) * 4 + at.lane / 8;
        const bool there = leaves.first_query() + row < leaves.hq();
        float of_block[BLOCKS];
        const float2 state = whole_state(row, of_block);
        const float by = leaves.inverse(row, state);
#pragma unroll
        for (int column = first; column < COLUMNS; column += COLUMNS / 2) {
            const float sum = add_sent(row, column, of_block);
            const float mine = by == 0.0f ? 0.0f : sum * by;
            const float next = __shfl_xor_sync(RT_ATTEND_FULL_WARP, mine, 8);
            if (there && column % 2 == 0)
                *(uint32_t *)(leaves.out_row(row) + (int)rank * COLUMNS + column) =
                    rt_pack_bf16x2(mine, next);
        }
        if (there && rank == 0 && first == 0)
            rt_sm90_store_lse(leaves.all, room, segment, row, state);
    }

    /* Of all query rows, once all blocks have sent what they have. */
    __device__ __forceinline__ void add(void) const
    {
        const place at;
        rt_mbarrier_wait(&room.desk.sent_full, 0);
#pragma unroll 1
        for (int row = at.lane % 8; row < ROWS; row += 8)
            store_row(at, row);
    }
};

#endif
