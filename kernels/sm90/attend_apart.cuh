/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_APART_CUH
#define RT_KERNELS_SM90_ATTEND_APART_CUH

/*
 * Three workers where keys are operand a in registers (kernels/sm90/attend_bytes.cuh) and rows are
 * long: each has every third block of a segment for itself, scores, softmax and all columns of its
 * values, against a maximum of its own. So none waits for another before the segment ends, and
 * where one waits for what it has asked for the two others stand in.
 *
 *   worker 0   s(0) softmax(0) v(0) │ s(3) softmax(3) v(3) │ ...   │ adds up ▸ output
 *   worker 1     s(1) softmax(1) v(1) │ s(4) softmax(4) v(4) │ ...   ▸ sums, in its last stage
 *   worker 2       s(2) softmax(2) v(2) │ s(5) softmax(5) v(5) │ ...   ▸ likewise
 *
 * Several scales a token: numbers of scores are multiplied as they are, and sums of each D_V / 4
 * columns by their factor, in f32.
 *
 * A stage is its block's worker's, who gives it back; that of a worker's last block when worker 0
 * has taken from it what the worker has left there in f32, [float4][thread].
 */
#include "kernels/sm90/attend_bytes_out.cuh"

template <class SHAPE> struct rt_sm90_apart : rt_sm90_bytes_out<SHAPE> {
    typedef rt_sm90_bytes_out<SHAPE> base;
    static constexpr int ROWS = base::ROWS, MINE = base::MINE, WORKERS = SHAPE::WORKERS;
    static constexpr int OUTS = SHAPE::OUT_TILES * ROWS / 2; /* floats of a thread */
    static_assert(OUTS * 4 * RT_SM90_WORKER_THREADS <= SHAPE::STAGE_BYTES, "a stage has room");
    typedef typename base::score_registers score_registers;
    using base::lane;
    using base::my_row;
    using base::out;
    using base::p;
    using base::room;
    using base::score;
    using base::stage_of;
    using base::warp;
    using base::worker;

    __device__ __forceinline__ rt_sm90_apart(const typename SHAPE::params &all_,
                                             const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(all_, room_, worker_)
    {
    }

    /* ---- scores ---- */

    /* Of all values, the numbers as they are: sums of a group get its factor, in f32, while those
     * of the next group are on their way. */
    __device__ __forceinline__ void score_groups(uint32_t j)
    {
        constexpr int TURNS = 2 * SHAPE::V_TILES, OF_GROUP = base::GROUP / 32; /* of 32 columns */
        const uint32_t stage = stage_of(j);
        const unsigned char *const at[2] = {this->score_place(stage, 0),
                                            this->score_place(stage, 1)};
        const uint16_t *factors = room.desk.factor[stage][0] + warp * 16 + lane / 4;
        score_registers part[2];
        uint4 x[2];
        uint32_t a[2][2][4];
#pragma unroll
        for (int i = 0; i < SHAPE::TILE_ROWS / 2; i++)
            score[i] = 0.0f;
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++) {
            const int before = turn - 2; /* whose registers these are */
            if (turn % (TURNS / 2) == 0)
                this->wait_for_half(j, turn / (TURNS / 2));
            if (turn % 2 == 0)
#pragma unroll
                for (int row = 0; row < 2; row++)
                    x[row] = base::score_vector(at, turn / 2, row);
            if (before >= 0)
                rt_wgmma_wait<1>();
            if (before >= 0 && (before + 1) % OF_GROUP == 0)
                add_group(factors, before / OF_GROUP, part[before / OF_GROUP % 2]);
            widen_half(x, turn % 2, a[turn % 2]);
            this->template multiply<RT_WGMMA_F16>(a[turn % 2], turn / 2, turn % 2 * 2,
                                                  turn % OF_GROUP > 0, part[turn / OF_GROUP % 2]);
        }
        rt_wgmma_wait<0>();
        add_group(factors, 3, part[1]);
    }

    /* Of 64 columns of two keys words 2 half and the next: two products. */
    static __device__ __forceinline__ void widen_half(const uint4 (&x)[2], int half,
                                                      uint32_t (&a)[2][4])
    {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const uint32_t word[2] = {half ? x[row].z : x[row].x, half ? x[row].w : x[row].y};
#pragma unroll
            for (int s = 0; s < 2; s++) {
                a[s][row] = rt_e4m3x2_f16x2<0>(word[s]);
                a[s][row + 2] = rt_e4m3x2_f16x2<1>(word[s]);
            }
        }
    }

    __device__ __forceinline__ void add_group(const uint16_t *factors, int group,
                                              score_registers &part)
    {
        const float by[2] = {rt_f16_float(factors[group * 64]),
                             rt_f16_float(factors[group * 64 + 8])};
        rt_wgmma_settle(part);
#pragma unroll
        for (int i = 0; i < SHAPE::TILE_ROWS / 2; i++)
            score[i] += part[i] * by[i / 2 % 2];
    }

    __device__ __forceinline__ void find_scores(uint32_t j)
    {
        const uint32_t stage = stage_of(j);
        if (this->has_factors())
            score_groups(j);
        else
            this->template score_values<2>(j, 0, score);
        const bool rest_is_bf16 = this->rest_is_bf16();
        if (!rest_is_bf16)
            this->template score_rest<RT_WGMMA_F16>(stage, score);
        this->scale_scores(stage, score);
        if (rest_is_bf16)
            this->template score_rest<RT_WGMMA_BF16>(stage, score);
        this->lift_scores(stage, score);
    }

    /* ---- a block ---- */

    /* No product of this warp reads the stage any more. */
    __device__ __forceinline__ void release_stage(uint32_t stage) const
    {
        if (rt_elected()) {
            rt_mbarrier_arrive(&room.desk.kv_empty[stage][0]);
            rt_mbarrier_arrive(&room.desk.kv_empty[stage][1]);
        }
    }

    /* Block j of the part, all of it. */
    __device__ __forceinline__ void run_block(uint32_t j, int start)
    {
        find_scores(j);
        this->softmax(j, start);
        rt_fence_async();
        this->sync_worker(); /* weights of all four warps, for their products */
        this->rescale();
        this->part_keys(j, start);
        this->add_values(stage_of(j), out);
        this->settle_out();
    }

    /* `begin`: the segment's first block, in the part. */
    __device__ __forceinline__ void run_segment(const struct rt_sm90_segment &segment,
                                                uint32_t begin)
    {
        this->length = segment.length;
        this->spoilt = false;
        this->begin_segment();
        this->bring_queries(segment.row);
#pragma unroll 1
        for (int i = worker; i < segment.blocks; i += WORKERS) {
            run_block(begin + (uint32_t)i, segment.key + i * 64);
            if (i + WORKERS < segment.blocks)
                release_stage(stage_of(begin + (uint32_t)i));
        }
        end_segment(segment, begin);
    }

    /* ---- the end of a segment ---- */

    /* The stage of a worker's last block; only where it has one. */
    static __device__ __forceinline__ uint32_t last_stage(const struct rt_sm90_segment &segment,
                                                          uint32_t begin, int of)
    {
        const int turns = (segment.blocks - 1 - of) / WORKERS;
        return stage_of(begin + (uint32_t)(of + turns * WORKERS));
    }

    __device__ __forceinline__ void end_segment(const struct rt_sm90_segment &segment,
                                                uint32_t begin)
    {
        this->leave_sums();
        this->leave_top();
        leave_marks();
        this->sync_worker(); /* no product of the worker reads its last stage */
        if (worker > 0 && worker < segment.blocks)
            leave_out(last_stage(segment, begin, worker));
        this->sync_both();
        if (worker > 0)
            return; /* what is left is written again behind q's barrier, where worker 0 meets all */
        float by[MINE];
        add_up(segment, begin, by);
        if (p.rows.q_len > 1)
            this->spoil_out(*this);
        this->store(segment, by);
    }

    /* Which columns are not finite, for worker 0. */
    __device__ __forceinline__ void leave_marks(void) const
    {
        if (p.rows.q_len > 1 && !this->spoilt && warp == 0)
#pragma unroll
            for (int vector = lane; vector < SHAPE::VECTORS; vector += 32)
                room.desk.spoilt[worker][vector] = 0;
    }

    __device__ __forceinline__ bool is_spoilt(int row, int column) const
    {
        bool is = false;
#pragma unroll
        for (int w = 0; w < WORKERS; w++)
            is |= rt_sm90_is_spoilt(room, w, row, column);
        return is;
    }

    static __device__ __forceinline__ float4 *left_at(const rt_sm90_room<SHAPE> &room,
                                                      uint32_t stage)
    {
        return (float4 *)room.boxed_row(stage, 0, 0) + threadIdx.x % RT_SM90_WORKER_THREADS;
    }

    __device__ __forceinline__ void leave_out(uint32_t stage) const
    {
        float4 *at = left_at(room, stage);
#pragma unroll
        for (int t = 0; t < SHAPE::OUT_TILES; t++)
#pragma unroll
            for (int i = 0; i < ROWS / 2; i += 4, at += RT_SM90_WORKER_THREADS)
                *at = make_float4(out[t][i], out[t][i + 1], out[t][i + 2], out[t][i + 3]);
        rt_fence_async(); /* the copy engine writes there once the stage is free */
    }

    /* Sums of all workers, in one order, and what this thread's rows are multiplied by. */
    __device__ __forceinline__ void add_up(const struct rt_sm90_segment &segment, uint32_t begin,
                                           float (&by)[MINE])
    {
        float share[WORKERS][MINE];
        find_shares(segment, share, by);
#pragma unroll
        for (int i = 0; i < MINE; i++)
            this->factor[i] = share[0][i];
        this->multiply_out();
#pragma unroll
        for (int w = 1; w < WORKERS; w++)
            if (w < segment.blocks)
                add_left(last_stage(segment, begin, w), share[w]);
        __syncwarp(); /* all lanes have read */
#pragma unroll
        for (int w = 0; w < WORKERS; w++)
            if (w < segment.blocks)
                release_stage(last_stage(segment, begin, w));
    }

    __device__ __forceinline__ void add_left(uint32_t stage, const float (&share)[MINE])
    {
        const float4 *at = left_at(room, stage);
#pragma unroll
        for (int t = 0; t < SHAPE::OUT_TILES; t++)
#pragma unroll
            for (int i = 0; i < ROWS / 2; i += 4, at += RT_SM90_WORKER_THREADS) {
                const float4 x = *at;
                out[t][i] += x.x * share[i / 2];
                out[t][i + 1] += x.y * share[i / 2 + 1];
                out[t][i + 2] += x.z * share[i / 2];
                out[t][i + 3] += x.w * share[i / 2 + 1];
            }
    }

    /* What each worker's sums are multiplied by against the maximum of all. One of each row's
     * threads stores the lse. */
    __device__ __forceinline__ void find_shares(const struct rt_sm90_segment &segment,
                                                float (&share)[WORKERS][MINE],
                                                float (&by)[MINE]) const
    {
        const bool tells = warp == 0 && lane < 4;
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            const int row = my_row(i), query = this->first_query() + row;
            float2 state = make_float2(-RT_SM90_INFINITY, 0.0f);
#pragma unroll
            for (int w = 0; w < WORKERS; w++)
                state.x = fmaxf(state.x, room.desk.top[w][row]);
            const float against = state.x == -RT_SM90_INFINITY ? 0.0f : state.x;
#pragma unroll
            for (int w = 0; w < WORKERS; w++) {
                float sum = 0.0f;
#pragma unroll
                for (int n = 0; n < RT_SM90_WORKER_WARPS; n++)
                    sum += room.desk.sum[w * RT_SM90_WORKER_WARPS + n][row];
                share[w][i] = rt_exp2(room.desk.top[w][row] - against);
                state.y += sum * share[w][i];
            }
            by[i] = rt_sm90_inverse(p, segment, query, state) * (1 / RT_SM90_WEIGHT_UNITS);
            if (tells && query < this->hq())
                rt_sm90_store_lse(this->all, room, segment, row, state);
        }
    }

    /* ---- all segments ---- */

    __device__ __forceinline__ void run(void)
    {
        uint32_t block = 0;
        for (uint32_t n = 0;; n++) {
            const struct rt_sm90_segment segment = rt_sm90_take_segment(room.desk, n);
            if (segment.row == RT_ATTEND_NONE)
                break;
            run_segment(segment, block);
            block += (uint32_t)segment.blocks;
        }
    }
};

#endif
