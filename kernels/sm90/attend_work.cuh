/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_WORK_CUH
#define RT_KERNELS_SM90_ATTEND_WORK_CUH

/*
 * What the two workers do, whatever the shape of their products: MATH has the products, the
 * softmax, the order of the two and the output; this file has what surrounds them.
 *
 * Blocks come in pairs: worker 0 owns the first, a, worker 1 the second, b. A segment with an odd
 * number of blocks ends with an a alone. s are a block's scores and softmax, by its owner; v adds a
 * block's values to a worker's half of the output, which both do.
 */
#include "kernels/device/attend_walk.cuh"
#include "kernels/device/bf16.cuh"
#include "kernels/device/piece.cuh"
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/device/ptx/f16x2.cuh"
#include "kernels/device/ptx/wgmma.cuh"
#include "kernels/sm90/attend_desk.cuh"
#include "kernels/sm90/attend_query_units.cuh"

/* Where a query row of the tile is in the partials. */
template <class SHAPE>
static __device__ __forceinline__ int64_t rt_sm90_partial_row(const struct rt_attend_params &p,
                                                              const struct rt_sm90_segment &segment,
                                                              int row)
{
    return (int64_t)segment.slot * p.rows.q_len * p.heads + rt_sm90_first_query<SHAPE>() + row;
}

/* lse of a query row from maximum and sum: for a whole batch row as the caller wants it, base 2 for
 * a piece. No key seen: sum 0. */
template <class SHAPE>
static __device__ __forceinline__ void
rt_sm90_store_lse(const typename SHAPE::params &all, const rt_sm90_room<SHAPE> &room,
                  const struct rt_sm90_segment &segment, int row, const float2 &state)
{
    typedef typename SHAPE::keys KEYS;
    const struct rt_attend_params &p = KEYS::attend(all);
    const bool empty = state.y == 0.0f;
    const float lse = rt_log2(state.y) + state.x;
    if (segment.slot >= 0)
        p.partials.lse[rt_sm90_partial_row<SHAPE>(p, segment, row)] =
            empty ? -RT_SM90_INFINITY : lse;
    else
        ((float *)p.lse.base)[KEYS::row_at(all, p.lse, segment.row) + room.desk.lse_at[row]] =
            empty ? RT_SM90_INFINITY : lse * (p.lse_base2 ? 1.0f : RT_SM90_LN_2);
}

/*
 * What a query row's sums are multiplied by; 0 where no key was seen. The sink is in the divisor
 * of a whole batch row; of a piece reduce puts it there. It weighs what a key with its score would,
 * against the same maximum.
 */
static __device__ __forceinline__ float rt_sm90_inverse(const struct rt_attend_params &p,
                                                        const struct rt_sm90_segment &segment,
                                                        int query, const float2 &state)
{
    float sum = state.y;
    if (sum == 0.0f)
        return 0.0f;
    if (p.sink && segment.slot < 0)
        sum += rt_exp2(p.sink[query % (int)p.heads] * RT_SM90_LOG2_E - state.x);
    return rt_reciprocal(sum);
}

/* Maximum and sum of a query row where keys are on the wide side, all sums in one order. Behind a
 * barrier of both. The maximum is the one that the last block's owner has left, and anything where
 * there was no block. */
template <class SHAPE>
static __device__ __forceinline__ float2 rt_sm90_leaf_state(const rt_sm90_room<SHAPE> &room,
                                                            const struct rt_sm90_segment &segment,
                                                            int row)
{
    float all = 0.0f;
#pragma unroll
    for (int w = 0; w < RT_SM90_WORKERS * RT_SM90_WORKER_WARPS; w++)
        all += room.desk.sum[w][row];
    return make_float2(room.desk.top[(segment.blocks & 1) ^ 1][row], all);
}

/* Of two rows side by side. */
template <class SHAPE>
static __device__ __forceinline__ void rt_sm90_leaf_states(const rt_sm90_room<SHAPE> &room,
                                                           const struct rt_sm90_segment &segment,
                                                           int row, float2 (&state)[2])
{
    const float2 top = *(const float2 *)&room.desk.top[(segment.blocks & 1) ^ 1][row];
    float2 all = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int w = 0; w < RT_SM90_WORKERS * RT_SM90_WORKER_WARPS; w++) {
        const float2 sum = *(const float2 *)&room.desk.sum[w][row];
        all = make_float2(all.x + sum.x, all.y + sum.y);
    }
    state[0] = make_float2(top.x, all.x);
    state[1] = make_float2(top.y, all.y);
}

/* Whether a column of the worker's becomes NaN for a query row. */
template <class SHAPE>
static __device__ __forceinline__ bool rt_sm90_is_spoilt(const rt_sm90_room<SHAPE> &room,
                                                         int worker, int row, int column)
{
    const uint32_t mark = room.desk.spoilt[worker][column / 8] >> column % 8 * 4 & 15;
    return room.desk.lag[row] < (int)mark;
}

/* By 0: no key was seen or the sink is all, and what the sums hold may be anything. */
static __device__ __forceinline__ float4 rt_sm90_scaled(const float4 &x, float by)
{
    return by == 0.0f ? make_float4(0, 0, 0, 0)
                      : make_float4(x.x * by, x.y * by, x.z * by, x.w * by);
}

/* A pair of blocks; of the segment's last one b may be missing. */
struct rt_sm90_pair {
    const struct rt_sm90_segment &segment;
    uint32_t first;                /* number of a in the whole part */
    int key;                       /* a's first key */
    bool has_b, is_first, is_last; /* of the segment; the last one for which q is needed */
    bool ends;                     /* the segment's last */
};

template <class SHAPE> struct rt_sm90_worker_base {
    /* Registers are for who loads: of 512 threads those of 64 query rows. */
    static constexpr bool SPARES = SHAPE::LOADING_WARPS == 8;
    const typename SHAPE::params &all;
    const struct rt_attend_params &p;
    const rt_sm90_room<SHAPE> &room;
    const int worker, warp, lane;
    const float scale; /* to exponents of 2 */
    int length;        /* of the segment's batch row */
    bool spoilt;       /* columns of the segment are noted */
    static constexpr int VECTORS = SHAPE::VECTORS;
    static constexpr bool WIDE = SHAPE::TILE_ROWS == 64;

    __device__ __forceinline__ rt_sm90_worker_base(const typename SHAPE::params &all_,
                                                   const rt_sm90_room<SHAPE> &room_, int worker_)
        : all(all_), p(SHAPE::keys::attend(all_)), room(room_), worker(worker_),
          warp((int)(threadIdx.x / 32 % 4)), lane((int)(threadIdx.x % 32)),
          scale(p.scale * RT_SM90_LOG2_E), length(0), spoilt(false)
    {
    }

    /* A score's exponent of 2, rounded the same for a maximum and for what is weighed against it:
     * a product fused with the difference leaves the rounding of a huge maximum as an exponent.
     * Where keys have units scores are exponents when they come. */
    __device__ __forceinline__ float exponent(float score) const
    {
        return SHAPE::F16 ? score : __fmul_rn(score, scale);
    }

    /* Of a block on the wide side, the key of this thread's first score; the second is 8 further.
     */
    __device__ __forceinline__ int own_key(void) const
    {
        return warp * 16 + lane / 4;
    }

    static __device__ __forceinline__ uint32_t stage_of(uint32_t j)
    {
        return j % SHAPE::STAGES;
    }

    /* What threads have brought products see once this one has fenced. */
    __device__ __forceinline__ void wait_for_half(uint32_t j, int half) const
    {
        rt_mbarrier_wait(&room.desk.kv_full[stage_of(j)][half], j / SHAPE::STAGES & 1);
        if (SHAPE::BY != RT_SM90_BY_BOXES)
            rt_fence_async();
    }

    /* No product of this warp reads this worker's half of block j any more. */
    __device__ __forceinline__ void release(uint32_t j) const
    {
        uint64_t *empty = &room.desk.kv_empty[stage_of(j)][worker];
        if (SHAPE::SHARED && lane < (int)SHAPE::SHARERS)
            rt_cluster_arrive_at(empty, (uint32_t)lane);
        else if (!SHAPE::SHARED && rt_elected())
            rt_mbarrier_arrive(empty);
    }

    /* Likewise of its first keys, where they come by themselves; rank 0 brings all of those. */
    __device__ __forceinline__ void release_early(uint32_t j) const
    {
        if constexpr (SHAPE::IN_PIECES) {
            uint64_t *early = &room.desk.kv_early[stage_of(j)][worker];
            if (SHAPE::SHARED && rt_elected())
                rt_cluster_arrive_at(early, 0);
            else if (!SHAPE::SHARED && rt_elected())
                rt_mbarrier_arrive(early);
        }
    }

    __device__ __forceinline__ void release_q(void) const
    {
        if (rt_elected())
            rt_mbarrier_arrive(&room.desk.q_empty);
    }

    /* ---- scores: keys on the narrow side of 64 query rows, on the wide side of fewer ---- */

    typedef float score_registers[SHAPE::TILE_ROWS / 2];

    /* Keys' elements `k` by those of q's tile. */
    template <enum rt_wgmma_type TYPE>
    __device__ __forceinline__ void score_tile(uint64_t k, int tile, int steps, int keep,
                                               score_registers &score) const
    {
        const uint64_t q =
            rt_wgmma_operand(rt_shared_address(room.q + tile * SHAPE::Q_TILE_BYTES), 0);
#pragma unroll
        for (int step = 0; step < steps; step++)
            rt_wgmma<SHAPE::TILE_ROWS>::template shared<0, 0, TYPE>(
                score, rt_wgmma_further(WIDE ? q : k, step * 32),
                rt_wgmma_further(WIDE ? k : q, step * 32), keep || step > 0);
    }

    __device__ __forceinline__ void score_half(uint32_t stage, int half, int keep,
                                               score_registers &score) const
    {
#pragma unroll
        for (int t = 0; t < SHAPE::HALF_TILES; t++)
            score_tile<SHAPE::TYPE>(room.values(stage, half, t), half * SHAPE::HALF_TILES + t, 4,
                                    keep + t, score);
    }

    /* Of what is no value. */
    template <enum rt_wgmma_type TYPE>
    __device__ __forceinline__ void score_rest(uint32_t stage, score_registers &score) const
    {
        score_tile<TYPE>(rt_wgmma_operand(rt_shared_address(room.tile(stage, SHAPE::V_TILES)), 0),
                         SHAPE::V_TILES, SHAPE::LAST_STEPS, 1, score);
    }

    static __device__ __forceinline__ void finish_products(score_registers &score)
    {
        rt_wgmma_commit();
        rt_wgmma_wait<0>();
        rt_wgmma_settle(score);
    }

    /* Of an own block, its halves as they were asked for. */
    __device__ __forceinline__ void find_scores(uint32_t j, score_registers &score) const
    {
        const uint32_t stage = stage_of(j);
        wait_for_half(j, 0);
        rt_wgmma_begin();
        score_half(stage, 0, 0, score);
        wait_for_half(j, 1);
        rt_wgmma_begin();
        score_half(stage, 1, 1, score);
        if constexpr (SHAPE::F16) {
            finish_units(stage, score);
        } else {
            if (SHAPE::TILES > SHAPE::V_TILES)
                score_rest<RT_WGMMA_BF16>(stage, score);
            finish_products(score);
        }
    }

    /* ---- where keys have units (kernels/sm90/attend_units.cuh) ---- */

    __device__ __forceinline__ bool rest_is_bf16(void) const
    {
        return SHAPE::TILES > SHAPE::V_TILES &&
               rt_sm90_rest_is_bf16<typename SHAPE::keys>(all.quant, SHAPE::D_QK);
    }

    /* Scores so far are of f16. What is bf16 is added when they have the units of q and k. */
    __device__ __forceinline__ void finish_units(uint32_t stage, score_registers &score) const
    {
        if (SHAPE::TILES > SHAPE::V_TILES && !rest_is_bf16()) {
            rt_wgmma_begin();
            score_rest<RT_WGMMA_F16>(stage, score);
        }
        finish_products(score);
        scale_scores(stage, score);
        if (rest_is_bf16()) {
            rt_wgmma_begin();
            score_rest<RT_WGMMA_BF16>(stage, score);
            finish_products(score);
        }
        lift_scores(stage, score);
    }

    /* A thread has, of the wide side, `across` and that + 8; of each eight of the narrow two. */
    __device__ __forceinline__ void scale_scores(uint32_t stage, score_registers &score) const
    {
        const float *keys = room.desk.unit[stage], *queries = room.desk.query_unit;
        const float *wide = (WIDE ? queries : keys) + warp * 16 + lane / 4;
        const float across[2] = {wide[0], wide[8]};
#pragma unroll
        for (int i = 0; i < SHAPE::TILE_ROWS / 2; i += 4) {
            const float2 along = *(const float2 *)&(WIDE ? keys : queries)[i * 2 + lane % 4 * 2];
            score[i] *= across[0] * along.x;
            score[i + 1] *= across[0] * along.y;
            score[i + 2] *= across[1] * along.x;
            score[i + 3] *= across[1] * along.y;
        }
    }

    /* To y. */
    __device__ __forceinline__ void lift_scores(uint32_t stage, score_registers &score) const
    {
        const float *lift = room.desk.lift[stage] + (WIDE ? lane % 4 * 2 : warp * 16 + lane / 4);
#pragma unroll
        for (int i = 0; i < SHAPE::TILE_ROWS / 2; i++)
            score[i] = __fmul_rn(score[i], scale) + lift[WIDE ? i / 4 * 8 + i % 2 : i / 2 % 2 * 8];
    }

    /* Of q what is multiplied in f16 becomes that, in place and in units of its query row. */
    __device__ __forceinline__ void convert_queries(void) const
    {
        rt_sm90_convert_queries<SHAPE>(room, worker * RT_SM90_WORKER_WARPS + warp,
                                       rest_is_bf16() ? SHAPE::D_V : SHAPE::D_QK);
        rt_fence_async();
        sync_both();
    }

    __device__ __forceinline__ void sync_worker(void) const
    {
        rt_bar_sync(RT_SM90_BAR_WORKER + worker, RT_SM90_WORKER_THREADS);
    }

    __device__ __forceinline__ void sync_both(void) const
    {
        rt_bar_sync(RT_SM90_BAR_BOTH, SHAPE::WORKERS * RT_SM90_WORKER_THREADS);
    }

    /* Tells the other worker; what this thread has put into shared memory is seen by its products.
     */
    static __device__ __forceinline__ void tell(uint32_t barrier)
    {
        rt_fence_async();
        rt_bar_arrive(barrier, 2 * RT_SM90_WORKER_THREADS);
    }

    static __device__ __forceinline__ void hear(uint32_t barrier)
    {
        rt_bar_sync(barrier, 2 * RT_SM90_WORKER_THREADS);
    }

    /* ---- keys that a product of values must not meet: 0 times NaN is NaN ---- */

    /* Eight columns of a key of block j, of this worker's half. */
    __device__ __forceinline__ uint4 *vector_of(uint32_t j, int key, int vector) const
    {
        return (uint4 *)room.vector(stage_of(j), worker, key, vector);
    }

    /* Keys from `valid` on are behind the row's end, and whatever the page held: zeros instead. */
    __device__ __forceinline__ void clear_tail(uint32_t j, int valid) const
    {
        const int thread = (int)(threadIdx.x % RT_SM90_WORKER_THREADS);
#pragma unroll 1
        for (int i = thread; i < (64 - valid) * VECTORS; i += (int)RT_SM90_WORKER_THREADS)
            *vector_of(j, valid + i / VECTORS, i % VECTORS) = make_uint4(0, 0, 0, 0);
        rt_fence_async();
        sync_worker();
    }

    /* Of two bf16 or f16 the signs, where they are NaN or infinite: exponents carry into them. */
    static __device__ __forceinline__ uint32_t not_finite(uint32_t pair)
    {
        constexpr uint32_t LEAST_BITS = SHAPE::F16 ? 0x04000400u : 0x00800080u;
        return ((pair & 0x7fff7fffu) + LEAST_BITS) & 0x80008000u;
    }

    static __device__ __forceinline__ bool not_finite(const uint4 &x)
    {
        return (not_finite(x.x) | not_finite(x.y) | not_finite(x.z) | not_finite(x.w)) != 0;
    }

    /* Keys of the block from `from` up to `end`, which not all query rows of the tile see: whether
     * one is not finite in this worker's half. Each warp looks for itself, and none waits. */
    __device__ __forceinline__ bool find_spoilt(uint32_t j, int from, int end) const
    {
        bool found = false;
#pragma unroll 1
        for (int key = from; key < end; key++)
            found |= not_finite(*vector_of(j, key, lane % VECTORS));
        rt_fence_async(); /* the copy engine may write there once the stage is free */
        return __any_sync(RT_ATTEND_FULL_WARP, found);
    }

    /* Which of eight columns are not finite: four bits each, `mark` or 0. */
    static __device__ __forceinline__ uint32_t marks(const uint4 &x, uint32_t mark)
    {
        const uint32_t pair[4] = {x.x, x.y, x.z, x.w};
        uint32_t all = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            all |= (not_finite(pair[i]) & 0x8000u ? mark : 0) << i * 8;
            all |= (not_finite(pair[i]) & 0x80000000u ? mark : 0) << (i * 8 + 4);
        }
        return all;
    }

    /* By one warp, a vector a lane. Of the keys that spoil a column the first counts: fewer query
     * rows see the others. */
    __device__ __forceinline__ void clear_spoilt(uint32_t j, int start, int from, int end) const
    {
        uint32_t word = spoilt ? room.desk.spoilt[worker][lane] : 0;
#pragma unroll 1
        for (int key = from; key < end; key++) {
            uint4 *at = vector_of(j, key, lane);
            const uint4 x = *at;
            if (!not_finite(x))
                continue;
            const uint32_t taken = ((word | word >> 1 | word >> 2) & 0x11111111u) * 15;
            word |= marks(x, (uint32_t)(length - start - key)) & ~taken;
            *at = make_uint4(0, 0, 0, 0);
        }
        room.desk.spoilt[worker][lane] = word;
    }

    /*
     * The tile's first query row does not see the batch row's last keys, those of the block from
     * `from` on; the later a query row, the more it sees. A value that is not finite makes its
     * key's score NaN or infinite, and the weight NaN or 0: either way a query row that sees the
     * key has a NaN in that column, and the others must not. So the product is spared such values,
     * and the columns are noted; their NaN comes at the segment's end. Where all is finite, which
     * each warp finds out for itself, this costs a load a key and a vote.
     */
    template <class SELF>
    __device__ __forceinline__ void part_drafts(const SELF &self, uint32_t j, int start, int end)
    {
        const int from = max(length - room.desk.lag[0] - start, 0);
        if (!self.find_spoilt(j, from, end))
            return;
        sync_worker(); /* all have looked */
        if (warp == 0 && lane < VECTORS)
            self.clear_spoilt(j, start, from, end);
        spoilt = true;
        rt_fence_async();
        sync_worker();
    }

    /* Behind the scores of block j: its values in this worker's half become fit for the product.
     * Of listed keys they are: all query rows see them all, and what is no key is zeros. SELF knows
     * what a stage's values are. */
    template <class SELF>
    __device__ __forceinline__ void part_keys_of(const SELF &self, uint32_t j, int start)
    {
        if (SHAPE::LISTED || all_seen(start))
            return;
        if (p.rows.q_len > 1)
            part_drafts(self, j, start, min(length - start, 64));
        if (length - start < 64)
            self.clear_tail(j, length - start);
    }

    __device__ __forceinline__ void part_keys(uint32_t j, int start)
    {
        part_keys_of(*this, j, start);
    }

    /* Whether a column of this worker's becomes NaN for a query row. */
    __device__ __forceinline__ bool is_spoilt(int row, int column) const
    {
        return rt_sm90_is_spoilt(room, worker, row, column);
    }

    /* Whether all query rows of the tile see the whole block. */
    __device__ __forceinline__ bool all_seen(int start) const
    {
        return start + 64 <= length - (p.causal ? (int)p.rows.q_len - 1 : 0);
    }
};

template <class MATH> struct rt_sm90_worker : MATH {
    using shape = typename MATH::shape;

    __device__ __forceinline__ rt_sm90_worker(const typename shape::params &all,
                                              const rt_sm90_room<shape> &room, int worker)
        : MATH(all, room, worker)
    {
    }

    /* The row's first segment and its last are the only one, but where leaves are segments. */
    static __device__ __forceinline__ bool is_marked(const struct rt_sm90_segment &segment,
                                                     int mark)
    {
        return !shape::OWN || (segment.marks & mark) != 0;
    }

    /* rows: whose q has come before. */
    __device__ __forceinline__ void run_pairs(const struct rt_sm90_segment &segment, uint32_t rows,
                                              uint32_t begin)
    {
        const bool is_last = is_marked(segment, RT_SM90_SEGMENT_LAST);
        struct rt_sm90_pair pair = {segment, begin, segment.key, true, true, false, false};
        this->length = segment.length;
        this->spoilt = false;
        constexpr bool CONVERTS_Q = shape::F16 && !shape::BYTES;
        if (!CONVERTS_Q)
            this->begin_segment();
        if constexpr (shape::BYTES) {
            this->bring_queries(segment.row);
        } else {
            if (is_marked(segment, RT_SM90_SEGMENT_Q))
                rt_mbarrier_wait(&this->room.desk.q_full, rows & 1);
            if constexpr (shape::F16)
                if (segment.blocks > 0)
                    this->convert_queries();
            if (CONVERTS_Q)
                this->begin_segment(); /* sums have registers that q wants first */
            if (segment.blocks == 0 && is_last)
                this->release_q();
        }
        for (int left = segment.blocks; left > 0; left -= 2) {
            pair.has_b = left > 1;
            pair.ends = left <= 2;
            pair.is_last = pair.ends && is_last;
            this->run_pair(pair);
            pair.is_first = false;
            pair.first += 2;
            pair.key += 128;
        }
    }

    __device__ __forceinline__ void run_segment(const struct rt_sm90_segment &segment,
                                                uint32_t rows, uint32_t begin)
    {
        run_pairs(segment, rows, begin);
        this->end_segment(segment);
    }

    /* Where registers are short: what is not wanted by pairs is read again behind them. */
    __device__ __forceinline__ void run_sparing(void)
    {
        typename shape::desk &desk = this->room.desk;
        uint32_t block = 0;
        for (uint32_t n = 0;; n++) {
            rt_sm90_wait_for_segment(desk, n);
            struct rt_sm90_segment segment = rt_sm90_read_segment(desk, n);
            if (segment.row == RT_ATTEND_NONE)
                break;
            run_pairs(segment, n, block);
            segment = rt_sm90_read_segment(desk, n);
            block += (uint32_t)segment.blocks;
            this->end_segment(segment);
            rt_sm90_leave_segment(desk, n);
        }
    }

    __device__ __forceinline__ void run(void)
    {
        if constexpr (MATH::SPARES) {
            run_sparing();
            return;
        }
        uint32_t block = 0, rows = 0;
        for (uint32_t n = 0;; n++) {
            const struct rt_sm90_segment segment = rt_sm90_take_segment(this->room.desk, n);
            if (segment.row == RT_ATTEND_NONE)
                break;
            run_segment(segment, rows, block);
            rows += is_marked(segment, RT_SM90_SEGMENT_LAST) ? 1 : 0;
            block += (uint32_t)segment.blocks;
        }
    }
};

#endif
