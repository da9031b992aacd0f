/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_PROBES_LAYER_KERNEL_WORK_CUH
#define RT_BENCH_PROBES_LAYER_KERNEL_WORK_CUH

/*
 * The sixteen warps of a block that multiply, for up to 8 rows.
 *
 * Of a stage's 512 numbers of k warp w has 32 w ..: a lane 8 of them, of two rows of the weight and
 * of one vector, whose numbers are in registers before the stages come. A lane's rows are 0, 4, 1,
 * 5 .. so that lanes which read together meet no bank twice. RMSNorm's factor comes behind the
 * product, since a vector has one: nobody waits for the sum of its squares.
 */
#include "bench/probes/layer_kernel_bring.cuh"
#include "kernels/device/ptx/ldmatrix.cuh"
#include "kernels/device/ptx/mma.cuh"
#include "kernels/device/ptx/timer.cuh"

#include <cuda_bf16.h>

enum { BAR_WORKERS = 1 };

/* Two numbers of each warp's, `step` floats from warp to warp, in one order. A call, so that all
 * products run the same code. */
static __device__ __noinline__ float2 add_slots(const float *from, uint32_t step)
{
    float2 sum = {0, 0};
#pragma unroll
    for (int i = 0; i < WORKERS; i++) {
        const float2 v = *(const float2 *)(from + i * step);
        sum.x += v.x;
        sum.y += v.y;
    }
    return sum;
}

static __device__ __forceinline__ uint32_t times(uint32_t a, uint32_t b)
{
    const __nv_bfloat162 product =
        __hmul2(*(const __nv_bfloat162 *)&a, *(const __nv_bfloat162 *)&b);
    return *(const uint32_t *)&product;
}

template <int B, bool SHORT, bool WAITS> struct layer_worker {
    static constexpr uint32_t VECTOR_PITCH = B == 1 ? 0 : 20; /* floats of sums */
    static constexpr uint32_t SLOT = B == 1 ? 16 : 8 * VECTOR_PITCH;

    const layer_params &p;
    unsigned char *const ring;
    layer_desk &desk;
    const uint32_t warp, lane, g, t, lane_row;
    const uint32_t mine; /* first number of a chunk */
    layer_turn turn;

    __device__ __forceinline__ layer_worker(const layer_params &p_, unsigned char *ring_,
                                            layer_desk &desk_, uint32_t warp_)
        : p(p_), ring(ring_), desk(desk_), warp(warp_), lane(threadIdx.x % 32), g(lane / 4),
          t(lane % 4), lane_row(g / 2 + g % 2 * 4), mine(32 * warp_ + 8 * t), turn{0, 0}
    {
    }

    __device__ __forceinline__ void stamp(moment m) const
    {
        if (p.stamps && threadIdx.x == 0)
            p.stamps[blockIdx.x * MOMENTS + m] = rt_globaltimer_ns();
    }

    static __device__ __forceinline__ void meet(void)
    {
        rt_bar_sync(BAR_WORKERS, 32 * WORKERS);
    }

    __device__ __forceinline__ unsigned char *at(uint32_t offset) const
    {
        return p.exchange + offset;
    }

    /* The next stage, once it is there. */
    __device__ __forceinline__ uint32_t await(void)
    {
        const uint32_t stage = turn.stage;
        rt_mbarrier_wait(&desk.full[stage], turn.parity);
        turn.advance();
        return stage;
    }

    __device__ __forceinline__ void release(uint32_t stage)
    {
        __syncwarp();
        if (rt_elected())
            rt_mbarrier_arrive(&desk.empty[stage]);
    }

    /* This lane's part of the next T stages. */
    template <int T> __device__ __forceinline__ void take(uint4 (&w)[T][2])
    {
        uint32_t stage[T];
#pragma unroll
        for (int i = 0; i < T; i++) {
            stage[i] = await();
            const unsigned char *from = ring + stage[i] * STAGE + lane_row * ROW_PITCH + 2 * mine;
            w[i][0] = *(const uint4 *)from;
            w[i][1] = *(const uint4 *)(from + 8 * ROW_PITCH);
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < T; i++)
            if (rt_elected())
                rt_mbarrier_arrive(&desk.empty[stage[i]]);
    }

    static __device__ __forceinline__ void multiply(float (&d)[4], const uint4 (&w)[2],
                                                    const uint4 &x)
    {
        const uint32_t first[4] = {w[0].x, w[1].x, w[0].y, w[1].y};
        const uint32_t second[4] = {w[0].z, w[1].z, w[0].w, w[1].w};
        rt_mma_bf16_16x8x16(d, first, x.x, x.y);
        rt_mma_bf16_16x8x16(d, second, x.z, x.w);
    }

    /* One chunk of k of all tiles. */
    template <int T>
    __device__ __forceinline__ void multiply_stages(float (&d)[T][4], const uint4 &x)
    {
        uint4 w[T][2];
        take(w);
#pragma unroll
        for (int i = 0; i < T; i++)
            multiply(d[i], w[i], x);
    }

    /* All chunks, of which x has the numbers. The loop is short code: a block runs it once a layer,
     * and fetches it cold. */
    template <int T, int N>
    __device__ __forceinline__ void multiply_chunks(float (&d)[T][4], uint4 (&x)[N])
    {
#pragma unroll 1
        for (int chunk = 0; chunk < N; chunk++) {
            multiply_stages(d, x[0]);
#pragma unroll
            for (int i = 1; i < N; i++)
                x[i - 1] = x[i];
        }
    }

    /* Sums of 16 rows, of which this lane has `row` and the eighth behind it. */
    static __device__ __forceinline__ void put(float *sums, uint32_t slot, uint32_t row, uint32_t t,
                                               const float (&d)[4])
    {
        float *to = sums + slot * SLOT + 2 * t * VECTOR_PITCH + row;
        if (B == 1 && t > 0)
            return;
        to[0] = d[0];
        to[8] = d[2];
        if (B > 1) {
            to[VECTOR_PITCH] = d[1];
            to[VECTOR_PITCH + 8] = d[3];
        }
    }

    /* Two neighbours of what the warps' slots, `step` apart, hold of a vector. */
    static __device__ __forceinline__ float2 add(const float *sums, uint32_t step, uint32_t slot,
                                                 uint32_t vector, uint32_t pair)
    {
        return add_slots(sums + slot * SLOT + vector * VECTOR_PITCH + 2 * pair, step * SLOT);
    }

    /* x times the norm's weight: the product of two bf16, rounded once. */
    __device__ __forceinline__ void scale(uint4 &x, const uint16_t *weight)
    {
        const uint4 w = *(const uint4 *)(weight + mine);
        x = make_uint4(times(x.x, w.x), times(x.y, w.y), times(x.z, w.z), times(x.w, w.w));
    }

    /* This warp's part of the sum of a vector's squares, of which a lane has `sum`. */
    __device__ __forceinline__ void put_squares(float sum, float (*squares)[8])
    {
        sum += __shfl_xor_sync(RT_PROBE_FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(RT_PROBE_FULL_WARP, sum, 2);
        if (t == 0)
            squares[warp][g] = sum;
    }

    __device__ __forceinline__ float inverse(const float (*squares)[8], uint32_t vector,
                                             uint32_t k) const
    {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < WORKERS; i++)
            sum += squares[i][vector];
        return rt_inverse_root(sum * (1.0f / k) + p.eps);
    }

    static __device__ __forceinline__ uint32_t scaled(const float2 &v, float by)
    {
        return rt_pack_bf16x2(v.x * by, v.y * by);
    }

    __device__ __forceinline__ uint4 hidden(int chunk) const
    {
        return g < B ? *(const uint4 *)(p.hidden + g * HIDDEN + chunk * CHUNK + mine) : uint4{};
    }

    /* q_a and kv_a of hidden: 16 rows a block. */
    __device__ __forceinline__ void down(void)
    {
        constexpr int WINDOW = 4; /* chunks of hidden in registers */
        uint4 x[WINDOW];
        float d[1][4] = {}, squares = 0;
        rt_pdl_wait();
        stamp(WAITED);
#pragma unroll
        for (int i = 0; i < WINDOW; i++)
            x[i] = hidden(i);
        rt_mbarrier_wait(&desk.norms, 0);
        stamp(DOWN_HERE);
#pragma unroll 1
        for (int first = 0; first < DOWN_STAGES; first += WINDOW) {
#pragma unroll
            for (int i = 0; i < WINDOW; i++) {
                const int chunk = first + i;
                if (chunk >= DOWN_STAGES)
                    break;
                squares = add_squares(squares, x[i]);
                scale(x[i], (const uint16_t *)desk.sums + chunk * CHUNK);
                multiply_stages(d, x[i]);
                if (chunk + WINDOW < DOWN_STAGES)
                    x[i] = hidden(chunk + WINDOW);
            }
        }
        put_squares(squares, desk.squares[0]);
        stamp(DOWN_DONE);
        /* All warps have read the norm that lay here: else their stages would not have been free
         * for the last of this product. */
        put(desk.sums, warp, lane_row, t, d[0]);
        meet();
        const uint32_t vector = threadIdx.x / 8, pair = threadIdx.x % 8;
        if (vector < B) {
            const float2 sum = add(desk.sums, 1, 0, vector, pair);
            rt_store_relaxed(
                at(exchange<B, SHORT>::DOWN_AT + (vector * DOWN + blockIdx.x * 16 + 2 * pair) * 2),
                scaled(sum, inverse(desk.squares[0], vector, HIDDEN)));
        }
        stamp(DOWN_STORED);
    }

    /* q_b: of a head 32 rows, all with RoPE or all without. */
    __device__ __forceinline__ void up(void)
    {
        const uint32_t head = blockIdx.x / OF_QUERY, row = blockIdx.x % OF_QUERY * UP_ROWS;
        uint4 x[Q_CHUNKS];
        const unsigned char *from = at(exchange<B, SHORT>::DOWN_AT + (g * DOWN + mine) * 2);
        gather<WAITS>(x, [&](int i) { return g < B ? from + 2 * CHUNK * i : nullptr; });
        stamp(UP_HERE);
        float d[2][4] = {}, squares = 0;
#pragma unroll
        for (int i = 0; i < Q_CHUNKS; i++) {
            squares = add_squares(squares, x[i]);
            scale(x[i], desk.q_norm + i * CHUNK);
        }
        put_squares(squares, desk.squares[1]);
        multiply_chunks(d, x);
        stamp(UP_DONE);
        meet(); /* sums have been read */
        put(desk.sums, 2 * warp, lane_row, t, d[0]);
        put(desk.sums, 2 * warp + 1, lane_row, t, d[1]);
        meet();
        const uint32_t vector = threadIdx.x / 16, pair = threadIdx.x % 16;
        if (vector < B) {
            float2 q = add(desk.sums, 2, pair / 8, vector, pair % 8);
            uint32_t to =
                exchange<B, SHORT>::NOPE_AT + ((vector * HEADS + head) * NOPE + row + 2 * pair) * 2;
            if (row >= NOPE) {
                rt_mbarrier_wait(&desk.turned, 0);
                const float2 turned = desk.turn[vector][pair];
                q = make_float2(q.x * turned.x - q.y * turned.y, q.x * turned.y + q.y * turned.x);
                to = exchange<B, SHORT>::Q_AT +
                     ((vector * HEADS + head) * TOKEN + KV_LORA + row - NOPE + 2 * pair) * 2;
            }
            rt_store_relaxed(at(to), scaled(q, inverse(desk.squares[1], vector, Q_LORA)));
        }
        stamp(UP_STORED);
    }

    /* To the bringers: no block waits for weights before this one. */
    __device__ __forceinline__ void free_memory(void)
    {
        if (threadIdx.x == 0)
            *(volatile uint32_t *)&desk.is_free = 1;
    }

    /* W_UK: 64 columns of a head; a warp 16 of them and 32 rows. */
    __device__ __forceinline__ void absorb(uint32_t head, uint32_t part)
    {
        const uint32_t column = warp % 4, quarter = warp / 4;
        const unsigned char *from = at(exchange<B, SHORT>::NOPE_AT +
                                       ((g * HEADS + head) * NOPE + 32 * quarter + 4 * t) * 2);
        uint2 x[2];
        gather<WAITS>(x, [&](int i) { return g < B ? from + 32 * i : nullptr; });
        free_memory();
        stamp(ABSORB_HERE);
        const uint32_t stage = await();
        const uint32_t i = lane % 8, matrix = lane / 8;
        const unsigned char *rows =
            ring + stage * STAGE +
            (32 * quarter + i / 2 * 4 + i % 2 + matrix / 2 * 2) * HEAD_PITCH +
            (column * 16 + matrix % 2 * 8) * 2;
        float d[4] = {};
#pragma unroll
        for (int step = 0; step < 2; step++) {
            uint32_t a[4];
            rt_ldmatrix_x4_trans(a, rows + step * 16 * HEAD_PITCH);
            rt_mma_bf16_16x8x16(d, a, x[step].x, x[step].y);
        }
        release(stage);
        meet();
        put(desk.sums, warp, g, t, d);
        meet();
        const uint32_t vector = threadIdx.x / 32, pair = threadIdx.x % 32;
        if (vector < B) {
            const float *sums = desk.sums + pair / 8 * SLOT + vector * VECTOR_PITCH + pair % 8 * 2;
            float2 sum = {0, 0};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sum.x += sums[i * 4 * SLOT];
                sum.y += sums[i * 4 * SLOT + 1];
            }
            rt_store_relaxed(at(exchange<B, SHORT>::Q_AT +
                                ((vector * HEADS + head) * TOKEN + part * 64 + 2 * pair) * 2),
                             scaled(sum, 1.0f));
        }
        stamp(ABSORB_STORED);
    }

    /* What the values of a head take of each piece, by one warp: asked for by all, the pieces' sums
     * would be in the way of those that write. */
    __device__ __forceinline__ void weigh_pieces(uint32_t head)
    {
        constexpr int HELD = SHARERS / 32, OF_ROW = B < 4 ? HELD / B : 1; /* a lane's, of a row */
        constexpr uint32_t SPAN = SHARERS / B < 32 ? SHARERS / B : 32;    /* lanes of a row */
        uint2 ml[HELD];
        const unsigned char *from = at(exchange<B, SHORT>::ML_AT + (head * SHARERS + lane) * 8);
        gather<WAITS>(ml, [&](int i) { return from + i * 32 * 8; });
#pragma unroll
        for (int first = 0; first < HELD; first += OF_ROW) {
            float most = -INFINITY, sum = 0, weight[OF_ROW];
#pragma unroll
            for (int i = 0; i < OF_ROW; i++)
                most = fmaxf(most, __uint_as_float(ml[first + i].x));
#pragma unroll
            for (uint32_t i = SPAN / 2; i > 0; i /= 2)
                most = fmaxf(most, __shfl_xor_sync(RT_PROBE_FULL_WARP, most, i));
#pragma unroll
            for (int i = 0; i < OF_ROW; i++) { /* a piece without tokens: of -inf nothing */
                weight[i] = rt_exp2(__uint_as_float(ml[first + i].x) - most);
                sum += __uint_as_float(ml[first + i].y) * weight[i];
            }
#pragma unroll
            for (uint32_t i = SPAN / 2; i > 0; i /= 2)
                sum += __shfl_xor_sync(RT_PROBE_FULL_WARP, sum, i);
#pragma unroll
            for (int i = 0; i < OF_ROW; i++)
                desk.piece[(first + i) * 32 + lane] = weight[i] * rt_reciprocal(sum);
        }
    }

    static __device__ __forceinline__ void add_piece(float (&o)[4], const uint4 &v, float by)
    {
        o[0] = fmaf(by, __uint_as_float(v.x), o[0]);
        o[1] = fmaf(by, __uint_as_float(v.y), o[1]);
        o[2] = fmaf(by, __uint_as_float(v.z), o[2]);
        o[3] = fmaf(by, __uint_as_float(v.w), o[3]);
    }

    static __device__ __forceinline__ void add_piece(float (&o)[8], const uint4 &v, float by)
    {
        const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            o[2 * i] = fmaf(by, rt_bf16_low(pairs[i]), o[2 * i]);
            o[2 * i + 1] = fmaf(by, rt_bf16_high(pairs[i]), o[2 * i + 1]);
        }
    }

    /* 64 columns of a head's values: the sums over all pieces of each row, eight pieces a warp. */
    __device__ __forceinline__ void combine(uint32_t head, uint32_t part)
    {
        constexpr uint32_t OF_ROW = WORKERS / B; /* warps of a row */
        constexpr uint32_t SIZE = exchange<B, SHORT>::PART;
        constexpr uint32_t LANES = 64 * SIZE / 16; /* of a piece */
        constexpr uint32_t EACH = 16 / SIZE;       /* numbers a lane */
        constexpr int LOADS = 8 * LANES / 32;
        const uint32_t piece = 8 * warp + lane / LANES, column = lane % LANES * EACH;
        uint4 v[LOADS];
        const unsigned char *from =
            at(exchange<B, SHORT>::PART_AT +
               ((piece * HEADS + head) * KV_LORA + part * 64 + column) * SIZE);
        const auto of = [&](int i) { return from + i * (32 / LANES) * HEADS * KV_LORA * SIZE; };
        if (warp == 0)
            weigh_pieces(head);
        if (p.eager) {
            gather<WAITS>(v, of);
            meet();
        } else {
            meet();
            gather<WAITS>(v, of);
        }
        stamp(COMBINE_HERE);
        float o[EACH] = {};
#pragma unroll
        for (int i = 0; i < LOADS; i++)
            add_piece(o, v[i], desk.piece[piece + i * (32 / LANES)]);
#pragma unroll
        for (uint32_t e = 0; e < EACH; e++) {
            o[e] += __shfl_xor_sync(RT_PROBE_FULL_WARP, o[e], 16);
            if (LANES < 16)
                o[e] += __shfl_xor_sync(RT_PROBE_FULL_WARP, o[e], 8);
            if (lane < LANES)
                desk.sums[warp * 64 + column + e] = o[e];
        }
        meet();
        const uint32_t row = threadIdx.x / 32, pair = threadIdx.x % 32;
        if (row < B) {
            float2 all = {0, 0};
#pragma unroll
            for (uint32_t i = 0; i < OF_ROW; i++) {
                const float2 one =
                    *(const float2 *)(desk.sums + (row * OF_ROW + i) * 64 + 2 * pair);
                all.x += one.x;
                all.y += one.y;
            }
            rt_store_relaxed(at(exchange<B, SHORT>::O_AT +
                                ((row * HEADS + head) * KV_LORA + part * 64 + 2 * pair) * 2),
                             scaled(all, 1.0f));
        }
        stamp(COMBINE_STORED);
    }

    /* W_UV: 16 values of a head. */
    __device__ __forceinline__ void value(uint32_t head, uint32_t part)
    {
        uint4 x[1];
        const unsigned char *from =
            at(exchange<B, SHORT>::O_AT + ((g * HEADS + head) * KV_LORA + mine) * 2);
        gather<WAITS>(x, [&](int) { return g < B ? from : nullptr; });
        stamp(VALUE_HERE);
        float d[1][4] = {};
        multiply_stages(d, x[0]);
        meet();
        put(desk.sums, warp, lane_row, t, d[0]);
        meet();
        const uint32_t vector = threadIdx.x / 8, pair = threadIdx.x % 8;
        if (vector < B)
            rt_store_relaxed(at(exchange<B, SHORT>::V_AT +
                                (vector * OUT + head * VALUE + part * 16 + 2 * pair) * 2),
                             scaled(add(desk.sums, 1, 0, vector, pair), 1.0f));
        stamp(VALUE_STORED);
    }

    /* o_proj, and hidden once more: up to four tiles of rows. */
    __device__ __forceinline__ void out(void)
    {
        const bool shares = blockIdx.x < SHARERS;
        const uint32_t rows = shares ? OUT_ROWS : OUT_ROWS_REST;
        const uint32_t first = shares ? blockIdx.x * OUT_ROWS
                                      : SHARERS * OUT_ROWS + (blockIdx.x - SHARERS) * OUT_ROWS_REST;
        const uint32_t vector = threadIdx.x / 32, pair = threadIdx.x % 32;
        const bool has_out = vector < B && 2 * pair < rows;
        const uint32_t to = vector * HIDDEN + first + 2 * pair;
        const uint32_t before = has_out ? *(const uint32_t *)(p.hidden + to) : 0;
        uint4 x[OUT / CHUNK];
        const unsigned char *from = at(exchange<B, SHORT>::V_AT + (g * OUT + mine) * 2);
        gather<WAITS>(x, [&](int i) { return g < B ? from + 2 * CHUNK * i : nullptr; });
        free_memory();
        stamp(O_HERE);
        float d[4][4] = {};
        multiply_chunks(d, x);
        stamp(O_DONE);
        meet(); /* the ring has been read, and nothing more comes */
#pragma unroll
        for (int tile = 0; tile < 4; tile++)
            put((float *)ring, 4 * warp + tile, lane_row, t, d[tile]);
        meet();
        if (has_out) {
            const float2 sum = add((const float *)ring, 4, pair / 8, vector, pair % 8);
            *(uint32_t *)(p.out + to) =
                rt_pack_bf16x2(rt_bf16_low(before) + sum.x, rt_bf16_high(before) + sum.y);
        }
        stamp(LEFT);
    }
};

#endif
