/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_BYTES_CUH
#define RT_KERNELS_SM90_ATTEND_BYTES_CUH

/*
 * A worker's products where a stage has keys of e4m3: what a thread reads it makes f16 of in its
 * registers, and those are operand a. So no number is written back to shared memory, and each is
 * converted twice, for the scores by its block's owner and for the values by the half's worker.
 *
 * Which element is which of a product's is kernels/sm90/attend_places.cuh's to say.
 *
 * Several scales a token: numbers are multiplied by `factor`, scale / S in f16, which one group of
 * D_V / 4 columns has alike; attend_units.cuh has what is to be said of S.
 */
#include "kernels/device/ptx/convert_e4m3.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/permute.cuh"
#include "kernels/sm90/attend_places.cuh"

/* Bytes b of two words, as two words: {low 0, high 0, low 1, high 1} and those of 2 and 3. */
static __device__ __forceinline__ uint2 rt_sm90_interleave(uint32_t low, uint32_t high)
{
    return make_uint2(rt_permute_bytes(low, high, 0x5140), rt_permute_bytes(low, high, 0x7362));
}

template <class SHAPE> struct rt_sm90_bytes : rt_sm90_places<SHAPE> {
    typedef rt_sm90_places<SHAPE> base;
    typedef typename base::score_registers score_registers;
    typedef rt_wgmma<SHAPE::TILE_ROWS> product;
    static constexpr int HALF_TILES = SHAPE::HALF_TILES, HALF = SHAPE::D_V / 2;
    static constexpr int GROUP = SHAPE::D_V / 4; /* columns with one factor */
    static constexpr int REST = SHAPE::D_QK - SHAPE::D_V;
    static constexpr int COLUMNS = base::COLUMNS;
    /* Query rows of a warp, of either worker; 16 bytes a lane, the last of what is no value. */
    static constexpr int WARPS = SHAPE::WORKERS * RT_SM90_WORKER_WARPS;
    static constexpr int WARP_ROWS = (SHAPE::TILE_ROWS + WARPS - 1) / WARPS;
    static constexpr int OF_LANE = SHAPE::D_V / 256 + 1;
    /* Groups of products on their way, with their operands; of 8 query rows, where machine code is
     * for one kind of scales, a block's all. */
    static constexpr bool OF_KIND = SHAPE::keys::SCALES != RT_ATTEND_SCALES_any;
    static constexpr int FLIGHT = SHAPE::TILE_ROWS == 8 && OF_KIND && !SHAPE::APART ? 8
                                  : SHAPE::TILE_ROWS == 16 && SHAPE::APART          ? 2
                                                                                    : 4;
    using base::all;
    using base::first_column;
    using base::lane;
    using base::own_column;
    using base::own_key;
    using base::p;
    using base::REST_8_KEYS;
    using base::room;
    using base::score_place;
    using base::score_vector;
    using base::VALUE_8_KEYS;
    using base::value_place;
    using base::vector_of;
    using base::warp;
    using base::worker;

    __device__ __forceinline__ rt_sm90_bytes(const typename SHAPE::params &all_,
                                             const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(all_, room_, worker_)
    {
    }

    /* Values have scales of several groups. */
    __device__ __forceinline__ bool has_factors(void) const
    {
        return rt_sm90_has_tiles<typename SHAPE::keys>(all.quant, SHAPE::D_V);
    }

    /* What threads have brought, for threads. */
    __device__ __forceinline__ void wait_for_half(uint32_t j, int half) const
    {
        rt_mbarrier_wait(&room.desk.kv_full[base::stage_of(j)][half], j / SHAPE::STAGES & 1);
    }

    static __device__ __forceinline__ uint32_t times(uint32_t pair, uint32_t factor,
                                                     bool multiplies)
    {
        return multiplies ? rt_multiply_f16x2(pair, factor) : pair;
    }

    /* ---- scores ---- */

    __device__ __forceinline__ uint64_t query_operand(int tile, int step) const
    {
        return rt_wgmma_further(
            rt_wgmma_operand(rt_shared_address(room.q + tile * SHAPE::Q_TILE_BYTES), 0), step * 32);
    }

    /* Two f16 of a row's factor. */
    __device__ __forceinline__ uint32_t row_factor(uint32_t stage, int group, int row) const
    {
        return room.desk.factor[stage][group][warp * 16 + lane / 4 + row * 8] * 0x10001u;
    }

    /* 64 columns of two keys are four products. */
    template <bool FACTORS>
    static __device__ __forceinline__ void
    widen_words(const uint4 (&x)[2], const uint32_t (&factor)[2], uint32_t (&a)[4][4])
    {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const uint32_t word[4] = {x[row].x, x[row].y, x[row].z, x[row].w};
#pragma unroll
            for (int s = 0; s < 4; s++) {
                a[s][row] = times(rt_e4m3x2_f16x2<0>(word[s]), factor[row], FACTORS);
                a[s][row + 2] = times(rt_e4m3x2_f16x2<1>(word[s]), factor[row], FACTORS);
            }
        }
    }

    template <enum rt_wgmma_type TYPE, int STEPS>
    __device__ __forceinline__ void multiply(const uint32_t (&a)[STEPS][4], int tile, int step,
                                             bool keep, score_registers &score) const
    {
        rt_wgmma_begin();
#pragma unroll
        for (int s = 0; s < STEPS; s++)
            product::template registers<0, TYPE>(score, a[s], query_operand(tile, step + s),
                                                 keep || s > 0);
        rt_wgmma_commit();
    }

    /* Of so many halves' values, from `first` on. */
    template <bool FACTORS, int HALVES>
    __device__ __forceinline__ void score_values(uint32_t j, int first,
                                                 score_registers &score) const
    {
        const uint32_t stage = base::stage_of(j);
        const unsigned char *const at[2] = {score_place(stage, 0), score_place(stage, 1)};
        uint4 x[2];
        uint32_t factor[2] = {}, a[2][4][4];
#pragma unroll
        for (int tile = 0; tile < HALVES * HALF_TILES; tile++) {
            if (tile % HALF_TILES == 0)
                wait_for_half(j, first + tile / HALF_TILES);
#pragma unroll
            for (int row = 0; row < 2; row++) {
                x[row] = score_vector(at, first * HALF_TILES + tile, row);
                if (FACTORS)
                    factor[row] = row_factor(stage, first * 2 + tile * 64 / GROUP, row);
            }
            if (tile >= 2)
                rt_wgmma_wait<1>(); /* whose registers these are */
            widen_words<FACTORS>(x, factor, a[tile % 2]);
            multiply<RT_WGMMA_F16>(a[tile % 2], first * HALF_TILES + tile, 0, tile > 0, score);
        }
        rt_wgmma_wait<0>();
        rt_wgmma_settle(score);
    }

    template <int HALVES>
    __device__ __forceinline__ void score_values(uint32_t j, int first,
                                                 score_registers &score) const
    {
        if (has_factors())
            score_values<true, HALVES>(j, first, score);
        else
            score_values<false, HALVES>(j, first, score);
    }

    /* Of 32 columns that are no values: two products' operands. */
    static __device__ __forceinline__ void widen_rest(const unsigned char *at, uint32_t (&a)[2][4])
    {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const uint2 x = *(const uint2 *)(at + row * REST_8_KEYS);
            a[0][row] = rt_e4m3x2_f16x2<0>(x.x);
            a[0][row + 2] = rt_e4m3x2_f16x2<1>(x.x);
            a[1][row] = rt_e4m3x2_f16x2<0>(x.y);
            a[1][row + 2] = rt_e4m3x2_f16x2<1>(x.y);
        }
    }

    static __device__ __forceinline__ void take_rest(const unsigned char *at, uint32_t (&a)[2][4])
    {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const uint4 x = *(const uint4 *)(at + row * REST_8_KEYS);
            a[0][row] = x.x;
            a[0][row + 2] = x.y;
            a[1][row] = x.z;
            a[1][row + 2] = x.w;
        }
    }

    template <enum rt_wgmma_type TYPE>
    __device__ __forceinline__ void score_rest(uint32_t stage, score_registers &score) const
    {
        constexpr int LANE_BYTES = TYPE == RT_WGMMA_F16 ? 8 : 16;
        uint32_t a[REST / 32][2][4];
#pragma unroll
        for (int c = 0; c < REST / 32; c++) {
            if constexpr (TYPE == RT_WGMMA_F16)
                widen_rest(this->template rest_place<LANE_BYTES>(stage, c), a[c]);
            else
                take_rest(this->template rest_place<LANE_BYTES>(stage, c), a[c]);
            multiply<TYPE>(a[c], SHAPE::V_TILES, 2 * c, true, score);
        }
        rt_wgmma_wait<0>();
        rt_wgmma_settle(score);
    }

    /* Of a block, its halves as they were asked for, as y. What is bf16 is added when the others
     * have the units of q and k. Of a shared one each worker has its half's columns, worker 1 also
     * what is no value, and worker 0 gets y. */
    __device__ __forceinline__ void find_scores(uint32_t j, bool shared,
                                                score_registers &score) const
    {
        const uint32_t stage = base::stage_of(j);
        if (shared)
            score_values<1>(j, worker, score);
        else
            score_values<2>(j, 0, score);
        const bool has_rest = !shared || worker == 1, rest_is_bf16 = this->rest_is_bf16();
        if (has_rest && !rest_is_bf16)
            score_rest<RT_WGMMA_F16>(stage, score);
        scale_scores(stage, score);
        if (has_rest && rest_is_bf16)
            score_rest<RT_WGMMA_BF16>(stage, score);
        if (shared)
            join_scores(score);
        if (!shared || worker == 0)
            lift_scores(stage, score);
    }

    /* What worker 1 has of a shared block's is added to what worker 0 has. A barrier of its own:
     * worker 0 may not have heard of the b before. */
    __device__ __forceinline__ void join_scores(score_registers &score) const
    {
        float4 *at = room.scores + threadIdx.x % RT_SM90_WORKER_THREADS;
        if (worker == 0)
            this->hear(RT_SM90_BAR_SCORES);
#pragma unroll
        for (int i = 0; i < SHAPE::TILE_ROWS / 2; i += 4, at += RT_SM90_WORKER_THREADS) {
            if (worker == 1) {
                *at = make_float4(score[i], score[i + 1], score[i + 2], score[i + 3]);
            } else {
                const float4 x = *at;
                score[i] += x.x;
                score[i + 1] += x.y;
                score[i + 2] += x.z;
                score[i + 3] += x.w;
            }
        }
        if (worker == 1)
            rt_bar_arrive(RT_SM90_BAR_SCORES, 2 * RT_SM90_WORKER_THREADS);
    }

    __device__ __forceinline__ void scale_scores(uint32_t stage, score_registers &score) const
    {
        const float *unit = room.desk.unit[stage] + own_key();
        const float of_key[2] = {unit[0], unit[8]};
#pragma unroll
        for (int i = 0; i < SHAPE::TILE_ROWS / 2; i += 4) {
            const float2 of_query = *(const float2 *)&room.desk.query_unit[i * 2 + lane % 4 * 2];
            score[i] *= of_key[0] * of_query.x;
            score[i + 1] *= of_key[0] * of_query.y;
            score[i + 2] *= of_key[1] * of_query.x;
            score[i + 3] *= of_key[1] * of_query.y;
        }
    }

    __device__ __forceinline__ void lift_scores(uint32_t stage, score_registers &score) const
    {
        const float *lift = room.desk.lift[stage] + own_key();
        const float of_key[2] = {lift[0], lift[8]};
#pragma unroll
        for (int i = 0; i < SHAPE::TILE_ROWS / 2; i++)
            score[i] = __fmul_rn(score[i], this->scale) + of_key[i / 2 % 2];
    }

    /* ---- values ---- */

    /* This thread's columns of the product's four keys. */
    static __device__ __forceinline__ void load_values(const unsigned char *const (&place)[2],
                                                       int step, uint32_t (&x)[4][COLUMNS / 4])
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned char *at = place[i % 2] + (step * 2 + i / 2) * VALUE_8_KEYS;
            if constexpr (COLUMNS == 8) {
                const uint2 two = *(const uint2 *)at;
                x[i][0] = two.x;
                x[i][1] = two.y;
            } else if constexpr (COLUMNS == 16) {
                const uint4 four = *(const uint4 *)at;
                x[i][0] = four.x;
                x[i][1] = four.y;
                x[i][2] = four.z;
                x[i][3] = four.w;
            } else {
                x[i][0] = *(const uint32_t *)at;
            }
        }
    }

    /* Word w of the product's keys: operands of two tiles, columns 4 w and that + 1 of one. */
    template <bool FACTORS>
    static __device__ __forceinline__ void widen_word(const uint32_t (&x)[4][COLUMNS / 4], int w,
                                                      const uint32_t (&factor)[2],
                                                      uint32_t (&a)[2][4])
    {
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
            const uint2 both = rt_sm90_interleave(x[2 * pair][w], x[2 * pair + 1][w]);
            a[0][2 * pair] = times(rt_e4m3x2_f16x2<0>(both.x), factor[pair], FACTORS);
            a[0][2 * pair + 1] = times(rt_e4m3x2_f16x2<1>(both.x), factor[pair], FACTORS);
            a[1][2 * pair] = times(rt_e4m3x2_f16x2<0>(both.y), factor[pair], FACTORS);
            a[1][2 * pair + 1] = times(rt_e4m3x2_f16x2<1>(both.y), factor[pair], FACTORS);
        }
    }

    template <bool FACTORS>
    __device__ __forceinline__ void
    add_values(uint32_t stage, float (&out)[SHAPE::OUT_TILES][SHAPE::TILE_ROWS / 2]) const
    {
        constexpr int WORDS = COLUMNS / 4, TURNS = 4 * WORDS;
        const unsigned char *const place[2] = {value_place(stage, 0), value_place(stage, 1)};
        const int group = SHAPE::APART ? warp : worker * 2 + warp / 2;
        const uint16_t *factors = room.desk.factor[stage][group] + lane % 4 * 2;
        const uint64_t pt = rt_wgmma_operand(rt_shared_address(room.weights(stage)), 0);
        uint32_t x[4][WORDS], factor[2] = {}, a[FLIGHT][2][4];
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++) {
            const int step = turn / WORDS, word = turn % WORDS;
            if (word == 0)
                load_values(place, step, x);
            if (FACTORS && word == 0)
#pragma unroll
                for (int pair = 0; pair < 2; pair++)
                    factor[pair] = *(const uint32_t *)&factors[step * 16 + pair * 8];
            if (turn >= FLIGHT)
                rt_wgmma_wait<FLIGHT - 1>(); /* whose registers these are */
            widen_word<FACTORS>(x, word, factor, a[turn % FLIGHT]);
            rt_wgmma_begin();
#pragma unroll
            for (int t = 0; t < 2; t++)
                product::template registers<0, RT_WGMMA_F16>(out[word * 2 + t], a[turn % FLIGHT][t],
                                                             rt_wgmma_further(pt, step * 32));
            rt_wgmma_commit();
        }
        rt_wgmma_wait<0>();
    }

    __device__ __forceinline__ void
    add_values(uint32_t stage, float (&out)[SHAPE::OUT_TILES][SHAPE::TILE_ROWS / 2]) const
    {
        if (has_factors())
            add_values<true>(stage, out);
        else
            add_values<false>(stage, out);
    }

    /* ---- q ---- */

    /* q becomes f16 on its way, and its columns get the order of operand a: a warp of either worker
     * has query rows in registers, one trip to memory for all of them. What is no value stays as it
     * is where keys have it in bf16. The addresses are found before what they lead to is there. */
    __device__ __forceinline__ void bring_queries(int batch_row) const
    {
        const uint16_t *at[WARP_ROWS], *rest_at[WARP_ROWS];
        uint4 x[WARP_ROWS][OF_LANE];
        if (!p.early || SHAPE::LISTED)
            rt_pdl_wait(); /* for who the row is */
#pragma unroll
        for (int i = 0; i < WARP_ROWS; i++)
            find_query(batch_row, warp_row(i), at[i], rest_at[i]);
        rt_pdl_wait();
#pragma unroll
        for (int i = 0; i < WARP_ROWS; i++)
            load_query(at[i], rest_at[i], x[i]);
#pragma unroll
        for (int i = 0; i < WARP_ROWS; i++)
            if (SHAPE::TILE_ROWS % WARPS == 0 || warp_row(i) < SHAPE::TILE_ROWS)
                put_row(warp_row(i), x[i]);
        rt_fence_async();
        this->sync_both();
    }

    __device__ __forceinline__ int warp_row(int i) const
    {
        return (i * SHAPE::WORKERS + worker) * RT_SM90_WORKER_WARPS + warp;
    }

    /* A lane's first vector of a query row, and of what is no value, which may be in a tensor of
     * its own; null: the tile has no such row. */
    __device__ __forceinline__ void find_query(int batch_row, int row, const uint16_t *&at,
                                               const uint16_t *&rest_at) const
    {
        const uint32_t query = (uint32_t)(rt_sm90_first_query<SHAPE>() + row);
        const uint32_t token = query / p.heads, head = query - token * p.heads;
        at = rest_at = nullptr;
        if (query >= p.rows.q_len * p.heads)
            return;
        at = query_at(p.q, batch_row, token, head);
        rest_at = p.q_rope.base ? query_at(p.q_rope, batch_row, token, head) : at + SHAPE::D_V;
    }

    __device__ __forceinline__ const uint16_t *
    query_at(const struct rt_heads_view &view, int batch_row, uint32_t token, uint32_t head) const
    {
        return (const uint16_t *)view.base + SHAPE::keys::row_at(all, view, batch_row) +
               token * view.token_stride + head * view.head_stride + lane * 8;
    }

    __device__ __forceinline__ void load_query(const uint16_t *at, const uint16_t *rest_at,
                                               uint4 (&x)[OF_LANE]) const
    {
#pragma unroll
        for (int i = 0; i < OF_LANE; i++) {
            x[i] = make_uint4(0, 0, 0, 0);
            if (i < OF_LANE - 1 ? at != nullptr : rest_at && lane < REST / 8)
                x[i] = *(const uint4 *)(i < OF_LANE - 1 ? at + i * 256 : rest_at);
        }
    }

    /* Of a vector of values word w is what product 2 (vector % 2) + w / 2 has, of lane t vector / 2
     * of a tile's eight; of the rest, product w / 2 of a half tile's two, and t vector % 4. */
    __device__ __forceinline__ void put_row(int row, const uint4 (&x)[OF_LANE]) const
    {
        const uint32_t of_tile = (uint32_t)lane % 8;
        const bool rest_is_f16 = !this->rest_is_bf16();
        uint32_t most = rest_is_f16 ? rt_sm90_most_bf16(x[OF_LANE - 1]) : 0;
#pragma unroll
        for (int i = 0; i < OF_LANE - 1; i++)
            most = max(most, rt_sm90_most_bf16(x[i]));
        const int log2 = rt_sm90_query_log2(__reduce_max_sync(RT_ATTEND_FULL_WARP, most));
        const float by = rt_sm90_power_of_2(-log2);
#pragma unroll
        for (int i = 0; i < OF_LANE - 1; i++)
            put_query(row, i * 4 + lane / 8, of_tile % 2 * 4, of_tile / 2,
                      rt_sm90_bf16_f16(x[i], by));
        if (lane < REST / 8)
            put_query(row, SHAPE::V_TILES, of_tile / 4 * 4, of_tile % 4,
                      rest_is_f16 ? rt_sm90_bf16_f16(x[OF_LANE - 1], by) : x[OF_LANE - 1]);
        if (lane == 0)
            room.desk.query_unit[row] = rt_sm90_power_of_2(log2);
    }

    /* As word `word` of the tile's vectors from `first` on. */
    __device__ __forceinline__ void put_query(int row, int tile, uint32_t first, uint32_t word,
                                              const uint4 &x) const
    {
        unsigned char *to = room.q + tile * SHAPE::Q_TILE_BYTES + row * 128 + word * 4;
        const uint32_t from[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (uint32_t w = 0; w < 4; w++)
            *(uint32_t *)(to + ((first + w) ^ (uint32_t)row % 8) * 16) = from[w];
    }

    /* ---- keys that a product of values must not meet ---- */

    __device__ __forceinline__ void clear_tail(uint32_t j, int valid) const
    {
        constexpr int VECTORS = base::VECTORS / 2;
        const int thread = (int)(threadIdx.x % RT_SM90_WORKER_THREADS);
#pragma unroll 1
        for (int i = thread; i < (64 - valid) * VECTORS; i += (int)RT_SM90_WORKER_THREADS)
            *vector_of(j, valid + i / VECTORS, i % VECTORS) = make_uint4(0, 0, 0, 0);
        if (SHAPE::BOXED)
            rt_fence_async(); /* the copy engine writes there once the stage is free */
        this->sync_worker();
    }

    /* Of four e4m3 a bit each, where they are NaN. */
    static __device__ __forceinline__ uint32_t is_nan(uint32_t four)
    {
        return ((four & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u;
    }

    __device__ __forceinline__ bool find_spoilt(uint32_t j, int from, int end) const
    {
        bool found = false;
#pragma unroll 1
        for (int key = from; key < end; key++) {
            const uint4 x = *vector_of(j, key, lane % (base::VECTORS / 2));
            found |= (is_nan(x.x) | is_nan(x.y) | is_nan(x.z) | is_nan(x.w)) != 0;
        }
        return __any_sync(RT_ATTEND_FULL_WARP, found);
    }

    /* Eight columns a lane at a time; see worker_base's. Behind a loop that lanes leave by
     * themselves nothing is in uniform registers, so of 8 query rows they leave it together, and
     * there are 10 R2UR instead of 118. Of 16 that is slower by 1 %. */
    __device__ __forceinline__ void clear_spoilt(uint32_t j, int start, int from, int end) const
    {
        constexpr bool TOGETHER = SHAPE::TILE_ROWS == 8 && !SHAPE::APART;
#pragma unroll 1
        for (int turn = TOGETHER ? 0 : lane; turn < base::VECTORS; turn += 32) {
            const int vector = TOGETHER ? turn + lane : turn;
            uint32_t word = this->spoilt ? room.desk.spoilt[worker][vector] : 0;
#pragma unroll 1
            for (int key = from; key < end; key++)
                word |= clear_nan((uint2 *)vector_of(j, key, vector / 2) + vector % 2,
                                  (uint32_t)(this->length - start - key), word);
            room.desk.spoilt[worker][vector] = word;
        }
    }

    /* Where one of the eight is NaN: zeros instead, and marks where there is none yet. */
    static __device__ __forceinline__ uint32_t clear_nan(uint2 *at, uint32_t mark, uint32_t word)
    {
        const uint32_t nan[2] = {is_nan(at->x), is_nan(at->y)};
        if ((nan[0] | nan[1]) == 0)
            return 0;
        const uint32_t taken = ((word | word >> 1 | word >> 2) & 0x11111111u) * 15;
        uint32_t marks = 0;
#pragma unroll
        for (int i = 0; i < 8; i++)
            marks |= (nan[i / 4] >> i % 4 * 8 & 0x80 ? mark : 0) << i * 4;
        *at = make_uint2(0, 0);
        return marks & ~taken;
    }

    __device__ __forceinline__ void part_keys(uint32_t j, int start)
    {
        this->part_keys_of(*this, j, start);
    }
};

#endif
