/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MLA_BLOCK_WORK_CUH
#define RT_KERNELS_SM90_MLA_BLOCK_WORK_CUH

/*
 * mla_block: the sixteen warps of a block that multiply, for up to S::SLOTS vectors: what their
 * products have in common, and those in front of attention.
 *
 * Of a stage's 512 numbers of k warp w has 32 w ..: a lane 8 of them, of two rows of the weight and
 * of one vector. A lane's rows are 0, 4, 1, 5 .. so that lanes which read together meet no bank
 * twice. Sums of the warps lie in shared memory and are added in the order of the warps. A norm's
 * factor comes behind the product, since a vector has one: nobody waits for the sum of squares.
 */
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/device/ptx/ldmatrix.cuh"
#include "kernels/sm90/mla_block_keep.cuh"

enum { RT_BLOCK_BAR_WORKERS = 1 };

/* Two neighbours of what each warp has, `step` floats from warp to warp. A call, so that all
 * products run the same code: a block runs it once each, and fetches it cold. */
static __device__ __noinline__ float2 rt_block_add_slots(const float *from, uint32_t step)
{
    float2 sum = make_float2(0, 0);
#pragma unroll
    for (int i = 0; i < RT_BLOCK_WORKERS; i++) {
        const float2 v = *(const float2 *)(from + i * step);
        sum.x += v.x;
        sum.y += v.y;
    }
    return sum;
}

template <class S> struct rt_block_worker {
    static constexpr uint32_t VECTOR_PITCH = S::SLOTS == 1 ? 0 : 20; /* floats of sums */
    static constexpr uint32_t SLOT = S::SLOTS == 1 ? 16 : S::SLOTS * VECTOR_PITCH;
    static constexpr uint32_t TILE_SUMS = RT_BLOCK_WORKERS * SLOT;
    static constexpr int WINDOW = 4; /* chunks of hidden in registers */

    const struct rt_mla_block_params &p;
    const struct rt_mla_block_cut &cut;
    const struct rt_mla_block_exchange at; /* byte offsets */
    unsigned char *const ring;
    struct rt_block_desk &desk;
    const uint32_t warp, lane, g, t, lane_row;
    const uint32_t mine; /* first number of a chunk */
    struct rt_stream_turn turn;

    __device__ __forceinline__ rt_block_worker(const struct rt_mla_block_sm90_params &p_,
                                               unsigned char *ring_, struct rt_block_desk &desk_,
                                               uint32_t warp_)
        : p(p_.block), cut(p_.cut), at(rt_mla_block_exchange(S::SLOTS, p_.block.q_rank, S::HEADS)),
          ring(ring_), desk(desk_), warp(warp_), lane(threadIdx.x % 32), g(lane / 4), t(lane % 4),
          lane_row(g / 2 + g % 2 * 4), mine(32 * warp_ + 8 * t), turn{0, 0}
    {
    }

    static __device__ __forceinline__ void meet(void)
    {
        rt_bar_sync(RT_BLOCK_BAR_WORKERS, 32 * RT_BLOCK_WORKERS);
    }

    /* There is room for this lane's vector. */
    __device__ __forceinline__ bool has_row(void) const
    {
        return S::SLOTS == 8 ? true : g < S::SLOTS;
    }

    /* The warp has numbers of a chunk: a last one may be shorter. */
    __device__ __forceinline__ bool has_part(uint32_t chunk, uint32_t k) const
    {
        return chunk * RT_BLOCK_CHUNK + 32 * warp < k;
    }

    /* ---- stages ---- */

    /* The next stage, once it is there. */
    __device__ __forceinline__ uint32_t await(void)
    {
        const uint32_t stage = turn.stage;
        rt_mbarrier_wait(&desk.full[stage], turn.parity);
        turn.advance(RT_BLOCK_STAGES);
        return stage;
    }

    __device__ __forceinline__ void release(uint32_t stage)
    {
        __syncwarp();
        if (rt_elected())
            rt_mbarrier_arrive(&desk.empty[stage]);
    }

    /* This lane's part of the next `tiles` stages, at most T. */
    template <int T> __device__ __forceinline__ void take(uint4 (&w)[T][2], uint32_t tiles)
    {
        uint32_t stage[T];
#pragma unroll
        for (int i = 0; i < T; i++) {
            if ((uint32_t)i >= tiles)
                continue;
            stage[i] = await();
            const unsigned char *from =
                ring + stage[i] * RT_BLOCK_STAGE_BYTES + lane_row * RT_BLOCK_ROW_PITCH + 2 * mine;
            w[i][0] = *(const uint4 *)from;
            w[i][1] = *(const uint4 *)(from + 8 * RT_BLOCK_ROW_PITCH);
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < T; i++)
            if ((uint32_t)i < tiles && rt_elected())
                rt_mbarrier_arrive(&desk.empty[stage[i]]);
    }

    template <int T>
    static __device__ __forceinline__ void multiply(float (&d)[T][4], const uint4 (&w)[T][2],
                                                    const uint4 &x, uint32_t tiles)
    {
#pragma unroll
        for (int i = 0; i < T; i++)
            if ((uint32_t)i < tiles)
                rt_stream_multiply(d[i], w[i], x);
    }

    /* One chunk of k of all tiles. */
    template <int T>
    __device__ __forceinline__ void multiply_stages(float (&d)[T][4], const uint4 &x, bool has_part)
    {
        uint4 w[T][2];
        take(w, T);
        if (has_part)
            multiply(d, w, x, T);
    }

    /* ---- sums ---- */

    /* Of 16 rows, of which this lane has `row` and the eighth behind it. */
    __device__ __forceinline__ void put(float *sums, uint32_t slot, uint32_t row,
                                        const float (&d)[4]) const
    {
        float *to = sums + slot * SLOT + 2 * t * VECTOR_PITCH + row;
        if (2 * t >= S::SLOTS)
            return;
        to[0] = d[0];
        to[8] = d[2];
        if (S::SLOTS > 1) {
            to[VECTOR_PITCH] = d[1];
            to[VECTOR_PITCH + 8] = d[3];
        }
    }

    /* Two neighbours of what the warps' slots, `step` apart, hold of a vector. */
    static __device__ __forceinline__ float2 add(const float *sums, uint32_t step, uint32_t slot,
                                                 uint32_t vector, uint32_t pair)
    {
        return rt_block_add_slots(sums + slot * SLOT + vector * VECTOR_PITCH + 2 * pair,
                                  step * SLOT);
    }

    static __device__ __forceinline__ uint32_t scaled(const float2 &v, float by)
    {
        return rt_pack_bf16x2(v.x * by, v.y * by);
    }

    /* Rows `row` and the next of a product, their biases where there are some. */
    static __device__ __forceinline__ float2 plus(const float2 &v, const uint16_t *bias,
                                                  uint32_t row)
    {
        const uint32_t pair = bias ? *(const uint32_t *)(bias + row) : 0;
        return make_float2(v.x + rt_bf16_low(pair), v.y + rt_bf16_high(pair));
    }

    /* This warp's part of the sum of a vector's squares, of which a lane has `sum`. */
    __device__ __forceinline__ void put_squares(float sum,
                                                float (*squares)[RT_MLA_BLOCK_MOST_VECTORS]) const
    {
        sum += __shfl_xor_sync(RT_BLOCK_FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(RT_BLOCK_FULL_WARP, sum, 2);
        if (t == 0)
            squares[warp][g] = sum;
    }

    static __device__ __forceinline__ float
    factor(const struct rt_norm_view &norm, const float (*squares)[RT_MLA_BLOCK_MOST_VECTORS],
           uint32_t vector)
    {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < RT_BLOCK_WORKERS; i++)
            sum += squares[i][vector];
        return norm.scale * rt_inverse_root(sum * rt_reciprocal((float)norm.width) + norm.eps);
    }

    /* ---- q_a and kv_a, or q and kv_a, of hidden ---- */

    /* What is done with hidden in front of its product. */
    enum front { PLAIN, NORM, SUM_AND_NORM };

    struct piece {
        uint4 hidden, residual;
    };

    /* Eight numbers of hidden and of what they are added to; zeros from chunk `end` on. */
    template <front FRONT>
    __device__ __forceinline__ void ask(uint64_t first, uint32_t chunk, uint32_t end,
                                        piece &x) const
    {
        const uint64_t from = first + chunk * RT_BLOCK_CHUNK;
        x.hidden = chunk < end ? *(const uint4 *)(p.hidden + from) : uint4{};
        if (FRONT == SUM_AND_NORM)
            x.residual = chunk < end ? *(const uint4 *)(p.residual + from) : uint4{};
    }

    template <front FRONT>
    __device__ __forceinline__ uint4 begin(const piece &x, uint32_t chunk, float &squares) const
    {
        uint4 v = x.hidden;
        if (FRONT == SUM_AND_NORM)
            v = rt_add_scaled_pairs(x.residual, v, p.hidden_scale);
        if (FRONT == PLAIN)
            return v;
        squares = rt_add_squares(squares, v);
        return rt_multiply_pairs(
            v, *(const uint4 *)((const uint16_t *)desk.sums + chunk * RT_BLOCK_CHUNK + mine));
    }

    /* All of k. The squares of this lane's numbers. The loop is what a block does most often, so it
     * has no choice to make. */
    template <int T, front FRONT> __device__ __forceinline__ float multiply_all(float (&d)[T][4])
    {
        const uint32_t chunks = rt_block_chunks(p.hidden_size);
        /* That the warp has a part of: the last may be short. */
        const uint32_t parts = (p.hidden_size + RT_BLOCK_CHUNK - 1 - 32 * warp) / RT_BLOCK_CHUNK;
        const uint32_t end = g < S::vectors_of(p) ? parts : 0;
        const uint64_t from = (uint64_t)g * p.hidden_size + mine;
        piece x[WINDOW];
        float squares = 0;
#pragma unroll
        for (int i = 0; i < WINDOW; i++)
            ask<FRONT>(from, i, end, x[i]);
        if (FRONT != PLAIN)
            rt_mbarrier_wait(&desk.norms, 0);
#pragma unroll 1
        for (uint32_t first = 0; first < chunks; first += WINDOW) {
#pragma unroll
            for (int i = 0; i < WINDOW; i++) {
                const uint32_t chunk = first + i;
                if (chunk >= chunks)
                    break;
                multiply_stages(d, begin<FRONT>(x[i], chunk, squares), chunk < parts);
                ask<FRONT>(from, chunk + WINDOW, end, x[i]);
            }
        }
        return squares;
    }

    template <int T> __device__ __forceinline__ float multiply_hidden(float (&d)[T][4])
    {
        if (!p.input_norm.weight)
            return multiply_all<T, PLAIN>(d);
        if (!p.residual || p.first)
            return multiply_all<T, NORM>(d);
        return multiply_all<T, SUM_AND_NORM>(d);
    }

    /* A vector's cosine and sine of a pair; the block's first unit has its own at hand. */
    __device__ __forceinline__ float2 turn_at(uint32_t vector, uint32_t pair, bool is_first) const
    {
        return is_first ? desk.turn[vector][pair % (RT_MLA_BLOCK_QUERY_ROWS / 2)]
                        : rt_block_keeper<S>::turn_of(p, S::length_of(p, vector), pair);
    }

    /* Where two neighbours of q go, `row` of all heads' rows. */
    __device__ __forceinline__ unsigned char *place_of_query(uint32_t vector, uint32_t row) const
    {
        const uint32_t head = row / RT_MLA_BLOCK_QUERY, of_head = row % RT_MLA_BLOCK_QUERY;
        const uint32_t all = vector * S::HEADS + head;
        const uint32_t to = of_head < RT_MLA_BLOCK_NOPE
                                ? at.nope + (all * RT_MLA_BLOCK_NOPE + of_head) * 2
                                : at.q + (all * RT_MLA_BLOCK_TOKEN + RT_MLA_BLOCK_LATENT + of_head -
                                          RT_MLA_BLOCK_NOPE) *
                                             2;
        return p.exchange + to;
    }

    /* Of q two neighbours in front of their factor, `row` of all heads' rows. */
    __device__ __forceinline__ void store_query(uint32_t vector, uint32_t row, float2 q, float by,
                                                bool is_first)
    {
        const uint32_t head = row / RT_MLA_BLOCK_QUERY, of_head = row % RT_MLA_BLOCK_QUERY;
        uint32_t to = at.nope + ((vector * S::HEADS + head) * RT_MLA_BLOCK_NOPE + of_head) * 2;
        if (of_head >= RT_MLA_BLOCK_NOPE) {
            const uint32_t pair = (of_head - RT_MLA_BLOCK_NOPE) / 2;
            const float2 turn = turn_at(vector, pair, is_first);
            q = make_float2(q.x * turn.x - q.y * turn.y, q.x * turn.y + q.y * turn.x);
            to = at.q + ((vector * S::HEADS + head) * RT_MLA_BLOCK_TOKEN + RT_MLA_BLOCK_LATENT +
                         2 * pair) *
                            2;
        }
        rt_store_relaxed(p.exchange + to, scaled(q, by));
    }

    /* Of both tiles of unit v the neighbours at 2 * pair, with all that a model may do to them. */
    __device__ __forceinline__ void store_general(uint32_t v, uint32_t vector, uint32_t pair,
                                                  float2 low, float2 high, float by)
    {
        constexpr uint32_t PLAIN = RT_MLA_BLOCK_PLAIN_UNITS;
        const uint32_t half = p.rope.half_order, part = v % RT_MLA_BLOCK_QUERY_UNITS;
        const uint32_t row = rt_mla_block_query_tile(v, 0, half) + 2 * pair;
        const uint32_t next = rt_mla_block_query_tile(v, 1, half) + 2 * pair;
        const uint16_t *const bias = p.q_rank > 0 ? p.q_b.bias : p.q.bias;
        const uint32_t length = S::length_of(p, vector);
        const float scale =
            p.rope.query_scale && length > 0 ? p.rope.query_scale[length - 1] : 1.0f;
        low = plus(make_float2(low.x * by, low.y * by), bias, row);
        high = plus(make_float2(high.x * by, high.y * by), bias, next);
        if (part >= PLAIN) {
            const uint32_t first = (part - PLAIN) * (RT_MLA_BLOCK_QUERY_ROWS / 2);
            const bool is_first = v == blockIdx.x;
            const float2 one = turn_at(vector, first + (half ? 2 * pair : pair), is_first);
            const float2 two = turn_at(vector, first + (half ? 2 * pair + 1 : pair + 8), is_first);
            if (half)
                turn_halves(low, high, one, two);
            else
                turn_pairs(low, high, one, two);
        }
        rt_store_relaxed(place_of_query(vector, row), scaled(low, scale));
        rt_store_relaxed(place_of_query(vector, next), scaled(high, scale));
    }

    /* Numbers of `low` with those below them. */
    static __device__ __forceinline__ void turn_halves(float2 &low, float2 &high, float2 one,
                                                       float2 two)
    {
        const float2 a = low, b = high;
        low = make_float2(a.x * one.x - b.x * one.y, a.y * two.x - b.y * two.y);
        high = make_float2(a.x * one.y + b.x * one.x, a.y * two.y + b.y * two.x);
    }

    /* The two of each with each other. */
    static __device__ __forceinline__ void turn_pairs(float2 &low, float2 &high, float2 one,
                                                      float2 two)
    {
        low = make_float2(low.x * one.x - low.y * one.y, low.x * one.y + low.y * one.x);
        high = make_float2(high.x * two.x - high.y * two.y, high.x * two.y + high.y * two.x);
    }

    __device__ __forceinline__ float hidden_factor(uint32_t vector) const
    {
        return p.input_norm.weight ? factor(p.input_norm, desk.squares[0], vector) : 1.0f;
    }

    /* Two neighbours of tile `tile` of unit v; of general kernels not of both tiles of q. */
    __device__ __forceinline__ void store_a(uint32_t v, uint32_t tile, uint32_t vector,
                                            uint32_t pair, const float2 &sum)
    {
        const bool is_q = v < cut.query_units;
        const float by = hidden_factor(vector);
        if (is_q && p.q_rank == 0) {
            store_query(vector, v * RT_MLA_BLOCK_QUERY_ROWS + tile * RT_BLOCK_TILE + 2 * pair, sum,
                        by, v == blockIdx.x);
            return;
        }
        const uint32_t row = (is_q ? v : v - cut.query_units) * RT_BLOCK_TILE + 2 * pair;
        const uint32_t width = p.q_rank + RT_MLA_BLOCK_TOKEN;
        const uint32_t to = vector * width + (is_q ? 0 : p.q_rank) + row;
        uint32_t rounded = scaled(sum, by);
        if (S::GENERAL)
            rounded = scaled(
                plus(make_float2(sum.x * by, sum.y * by), is_q ? p.q.bias : p.kv_a.bias, row),
                1.0f);
        rt_store_relaxed(p.exchange + at.a + to * 2, rounded);
    }

    /*
     * A unit. Sums come behind the norm's weight, which other warps may still read, and stays for
     * the block's next unit; where there is no room they come into its place, when all have read
     * it: the ring is deep enough for a warp to be ten chunks behind another.
     */
    template <int T> __device__ __forceinline__ void run_unit(uint32_t v)
    {
        float d[T][4] = {};
        const float squares = multiply_hidden(d);
        const uint32_t kept = p.input_norm.weight ? p.hidden_size / 2 : 0;
        const bool has_room = kept + TILE_SUMS <= RT_BLOCK_SUMS;
        float *sums = desk.sums + (has_room ? kept : 0);
        if (v != blockIdx.x || (!has_room && kept > 0))
            meet();
        put_squares(squares, desk.squares[0]);
        if (T > 1) /* q */
            rt_mbarrier_wait(&desk.turned, 0);
        constexpr bool BOTH = S::GENERAL && T > 1;
        const uint32_t vector = threadIdx.x / 8, pair = threadIdx.x % 8;
        float2 sum[T];
#pragma unroll
        for (int tile = 0; tile < T; tile++) {
            if (tile > 0)
                meet(); /* sums have been read */
            put(sums, warp, lane_row, d[tile]);
            meet();
            if (vector >= S::SLOTS)
                continue;
            sum[tile] = add(sums, 1, 0, vector, pair);
            if (!BOTH)
                store_a(v, tile, vector, pair, sum[tile]);
        }
        if (BOTH && vector < S::SLOTS)
            store_general(v, vector, pair, sum[0], sum[T - 1], hidden_factor(vector));
    }

    __device__ __forceinline__ void run_a(void)
    {
        rt_pdl_wait();
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < rt_block_a_units(cut); v += cut.blocks) {
            if (v < cut.query_units && p.q_rank == 0)
                run_unit<2>(v);
            else
                run_unit<1>(v);
        }
    }

    /* ---- q_b ---- */

    __device__ __forceinline__ void run_query(uint32_t v)
    {
        constexpr int N = RT_BLOCK_RANK_CHUNKS;
        const uint32_t width = p.q_rank + RT_MLA_BLOCK_TOKEN, chunks = rt_block_chunks(p.q_rank);
        const unsigned char *from = p.exchange + at.a + (g * width + mine) * 2;
        uint4 x[N];
        float d[2][4] = {}, squares = 0;
        meet(); /* sums have been read */
        rt_block_gather(x, [&](int i) {
            return has_row() && has_part(i, p.q_rank) ? from + 2 * RT_BLOCK_CHUNK * i : nullptr;
        });
        rt_mbarrier_wait(&desk.norms, 0);
#pragma unroll
        for (int i = 0; i < N; i++) {
            squares = rt_add_squares(squares, x[i]);
            x[i] =
                rt_multiply_pairs(x[i], *(const uint4 *)(desk.q_norm + i * RT_BLOCK_CHUNK + mine));
        }
#pragma unroll 1
        for (uint32_t chunk = 0; chunk < chunks; chunk++) {
            multiply_stages(d, x[0], has_part(chunk, p.q_rank));
#pragma unroll
            for (int i = 1; i < N; i++)
                x[i - 1] = x[i];
        }
        put_squares(squares, desk.squares[1]);
        rt_mbarrier_wait(&desk.turned, 0);
        put(desk.sums, 2 * warp, lane_row, d[0]);
        put(desk.sums, 2 * warp + 1, lane_row, d[1]);
        meet();
        constexpr int THREADS = S::GENERAL ? 8 : 16; /* of a vector */
        const uint32_t vector = threadIdx.x / THREADS, pair = threadIdx.x % THREADS;
        if (vector >= S::SLOTS)
            return;
        const float by = factor(p.q_a_norm, desk.squares[1], vector);
        if (S::GENERAL)
            store_general(v, vector, pair, add(desk.sums, 2, 0, vector, pair),
                          add(desk.sums, 2, 1, vector, pair), by);
        else
            store_query(vector, v * RT_MLA_BLOCK_QUERY_ROWS + 2 * pair,
                        add(desk.sums, 2, pair / 8, vector, pair % 8), by, v == blockIdx.x);
    }

    __device__ __forceinline__ void run_q_b(void)
    {
#pragma unroll 1
        for (uint32_t v = blockIdx.x; v < S::QUERY_UNITS && p.q_rank > 0; v += cut.blocks)
            run_query(v);
    }

    /* ---- W_UK ---- */

    /* 64 columns of a head; a warp 16 of them and 32 rows, in registers before q is there. */
    __device__ __forceinline__ void run_w_uk(uint32_t v)
    {
        const uint32_t head = v / RT_BLOCK_OF_HEAD, part = v % RT_BLOCK_OF_HEAD;
        const uint32_t column = warp % 4, quarter = warp / 4, i = lane % 8, matrix = lane / 8;
        const uint32_t stage = await();
        const unsigned char *rows =
            ring + stage * RT_BLOCK_STAGE_BYTES +
            (32 * quarter + i / 2 * 4 + i % 2 + matrix / 2 * 2) * RT_BLOCK_HEAD_PITCH +
            (column * 16 + matrix % 2 * 8) * 2;
        uint32_t a[2][4];
        rt_ldmatrix_x4_trans(a[0], rows);
        rt_ldmatrix_x4_trans(a[1], rows + 16 * RT_BLOCK_HEAD_PITCH);
        release(stage);
        const unsigned char *from =
            p.exchange + at.nope +
            ((g * S::HEADS + head) * RT_MLA_BLOCK_NOPE + 32 * quarter + 4 * t) * 2;
        uint2 x[2];
        meet(); /* sums have been read */
        rt_block_gather(x, [&](int j) { return has_row() ? from + 32 * j : nullptr; });
        float d[4] = {};
        rt_mma_bf16_16x8x16(d, a[0], x[0].x, x[0].y);
        rt_mma_bf16_16x8x16(d, a[1], x[1].x, x[1].y);
        put(desk.sums, warp, g, d);
        meet();
        store_w_uk(head, part);
    }

    __device__ __forceinline__ void store_w_uk(uint32_t head, uint32_t part) const
    {
        const uint32_t vector = threadIdx.x / 32, pair = threadIdx.x % 32;
        if (vector >= S::SLOTS)
            return;
        const float *sums = desk.sums + pair / 8 * SLOT + vector * VECTOR_PITCH + pair % 8 * 2;
        float2 sum = make_float2(0, 0);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum.x += sums[i * 4 * SLOT];
            sum.y += sums[i * 4 * SLOT + 1];
        }
        const uint32_t to = (vector * S::HEADS + head) * RT_MLA_BLOCK_TOKEN + part * 64;
        rt_store_relaxed(p.exchange + at.q + (to + 2 * pair) * 2, scaled(sum, 1.0f));
    }
};

#endif
