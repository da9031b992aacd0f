/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_PROBES_LAYER_KERNEL_ATTEND_CUH
#define RT_BENCH_PROBES_LAYER_KERNEL_ATTEND_CUH

/*
 * A block's tokens, two tiles of 16 a round: scores with the 16 heads on the tensor cores' longer
 * side, k split over eight warps a tile; then warp w has head w of the softmax, and then columns
 * 32 w .. of the values of all heads.
 */
#include "bench/probes/layer_kernel_work.cuh"
#include "kernels/device/ptx/ldmatrix.cuh"

template <int B, bool SHORT, bool WAITS> struct layer_attend {
    static constexpr int PIECES = 3; /* of 32 numbers of k a warp, at most; TOKEN has 18 */
    static constexpr uint32_t WEIGHT_PITCH = 40; /* numbers from head to head */
    typedef layer_worker<B, SHORT, WAITS> worker;

    worker &w;
    const layer_share share;
    const uint32_t group, tile; /* of k; of a round */
    uint4 q[PIECES][2];         /* heads g and g + 8 */
    float most, sum;            /* of this lane's tokens, head `warp` */
    float o[4][4];

    __device__ __forceinline__ layer_attend(worker &w_)
        : w(w_), share(layer_share::of<B>(w_.p)), group(w_.warp % 8), tile(w_.warp / 8),
          most(-INFINITY), sum(0), o{}
    {
    }

    __device__ __forceinline__ bool has_piece(int i) const
    {
        return group + 8 * i < TOKEN / 32;
    }

    /* All of a row's q, once a block and in whole lines, through shared memory. */
    __device__ __forceinline__ void find_q(void)
    {
        constexpr uint32_t OF_HEAD = TOKEN / 8, ALL = HEADS * OF_HEAD; /* vectors of 16 bytes */
        uint4 v[3];
        const unsigned char *from =
            w.at(exchange<B, SHORT>::Q_AT + (share.row * ALL + threadIdx.x) * 16);
        gather<WAITS>(v, [&](int i) {
            return threadIdx.x + 32 * WORKERS * i < ALL ? from + 32 * WORKERS * 16 * i : nullptr;
        });
        w.stamp(ATTEND_HERE);
        worker::meet(); /* sums have been read */
        unsigned char *all = (unsigned char *)w.desk.sums;
#pragma unroll
        for (int i = 0; i < 3; i++) {
            const uint32_t at = threadIdx.x + 32 * WORKERS * i;
            if (at < ALL)
                *(uint4 *)(all + at / OF_HEAD * KEY_PITCH + at % OF_HEAD * 16) = v[i];
        }
        worker::meet();
        const unsigned char *mine = all + w.g * KEY_PITCH + 64 * group + 16 * w.t;
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            if (!has_piece(i))
                continue;
            q[i][0] = *(const uint4 *)(mine + 512 * i);
            q[i][1] = *(const uint4 *)(mine + 512 * i + 8 * KEY_PITCH);
        }
        worker::meet(); /* scores come where q was */
    }

    /* Of the tile at `keys`, this warp's part of k. */
    __device__ __forceinline__ void score(const unsigned char *keys)
    {
        float *to = w.desk.sums + group * SCORE_GROUP + w.g * SCORE_PITCH + tile * TILE + w.t;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float d[4] = {};
#pragma unroll
            for (int i = 0; i < PIECES; i++) {
                if (!has_piece(i))
                    continue;
                const uint4 k = *(const uint4 *)(keys + (8 * half + w.lane_row) * KEY_PITCH +
                                                 (group + 8 * i) * 64 + 16 * w.t);
                worker::multiply(d, q[i], k);
            }
            to[8 * half] = d[0];
            to[8 * half + 4] = d[1];
            to[8 * half + 8 * SCORE_PITCH] = d[2];
            to[8 * half + 8 * SCORE_PITCH + 4] = d[3];
        }
    }

    /* Head `warp`, a token a lane. */
    __device__ __forceinline__ void weigh(uint32_t first, uint32_t tokens)
    {
        const float *from = w.desk.sums + w.warp * SCORE_PITCH + w.lane;
        float s = 0;
#pragma unroll
        for (int i = 0; i < 8; i++)
            s += from[i * SCORE_GROUP];
        s = w.lane < tokens && first + w.lane < share.length ? s * w.p.scale_log2 : -INFINITY;
        float now = s;
#pragma unroll
        for (int i = 16; i > 0; i /= 2)
            now = fmaxf(now, __shfl_xor_sync(RT_PROBE_FULL_WARP, now, i));
        now = fmaxf(now, most); /* a round has a token, so it is a number */
        const float alpha = rt_exp2(most - now), weight = rt_exp2(s - now);
        most = now;
        sum = sum * alpha + weight;
        w.desk.q_norm[w.warp * WEIGHT_PITCH + w.lane] = rt_float_bf16(weight);
        if (w.lane == 0)
            w.desk.alpha[w.warp] = alpha;
    }

    __device__ __forceinline__ void add_values(const unsigned char *values, uint32_t step)
    {
        const uint32_t row = w.lane % 16, right = w.lane / 16;
        uint32_t a[4];
        rt_ldmatrix_x4(a, w.desk.q_norm + row * WEIGHT_PITCH + step * TILE + right * 8);
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
            uint32_t b[4];
            rt_ldmatrix_x4_trans(b, values + row * KEY_PITCH +
                                        (32 * w.warp + 16 * pair + 8 * right) * 2);
            rt_mma_bf16_16x8x16(o[2 * pair], a, b[0], b[1]);
            rt_mma_bf16_16x8x16(o[2 * pair + 1], a, b[2], b[3]);
        }
    }

    __device__ __forceinline__ void run_round(uint32_t at)
    {
        const uint32_t tiles = min(share.end - at, 2u);
        uint32_t stage[2];
        stage[0] = w.await();
        stage[1] = tiles > 1 ? w.await() : stage[0];
        if (at + tiles == share.tiles)
            rt_mbarrier_wait(&w.desk.appended, 0);
        if (tile < tiles)
            score(w.ring + (tile > 0 ? stage[1] : stage[0]) * STAGE);
        worker::meet();
        weigh(at * TILE, tiles * TILE);
        worker::meet();
        const float low = w.desk.alpha[w.g], high = w.desk.alpha[w.g + 8];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            o[i][0] *= low;
            o[i][1] *= low;
            o[i][2] *= high;
            o[i][3] *= high;
        }
        add_values(w.ring + stage[0] * STAGE, 0);
        w.release(stage[0]);
        if (tiles > 1) {
            add_values(w.ring + stage[1] * STAGE, 1);
            w.release(stage[1]);
        }
    }

    /* Sums that no maximum has been taken out of, and each head's maximum and sum of weights. */
    __device__ __forceinline__ void store(void)
    {
#pragma unroll
        for (int i = 16; i > 0; i /= 2)
            sum += __shfl_xor_sync(RT_PROBE_FULL_WARP, sum, i);
        /* Neighbours change halves, so that a lane has four columns in a row. */
        const bool is_odd = w.t % 2 > 0;
        constexpr uint32_t SIZE = exchange<B, SHORT>::PART;
        unsigned char *to =
            w.at(exchange<B, SHORT>::PART_AT + ((blockIdx.x * HEADS + w.g) * KV_LORA + 32 * w.warp +
                                                (is_odd ? 8 + 2 * w.t - 2 : 2 * w.t)) *
                                                   SIZE);
#pragma unroll
        for (int i = 0; i < 4; i += 2)
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                const float x = trade(is_odd ? o[i][e] : o[i + 1][e]);
                const float y = trade(is_odd ? o[i][e + 1] : o[i + 1][e + 1]);
                unsigned char *there = to + (8 * i + e / 2 * 8 * KV_LORA) * SIZE;
                if (is_odd)
                    store_four(there, x, y, o[i + 1][e], o[i + 1][e + 1]);
                else
                    store_four(there, o[i][e], o[i][e + 1], x, y);
            }
        if (w.lane == 0)
            rt_store_relaxed(w.at(exchange<B, SHORT>::ML_AT + (w.warp * SHARERS + blockIdx.x) * 8),
                             make_uint2(__float_as_uint(most), __float_as_uint(sum)));
    }

    static __device__ __forceinline__ float trade(float v)
    {
        return __shfl_xor_sync(RT_PROBE_FULL_WARP, v, 1);
    }

    static __device__ __forceinline__ void store_four(unsigned char *to, float a, float b, float c,
                                                      float d)
    {
        if (SHORT)
            rt_store_relaxed(to, make_uint2(rt_pack_bf16x2(a, b), rt_pack_bf16x2(c, d)));
        else
            rt_store_relaxed(to, make_uint4(__float_as_uint(a), __float_as_uint(b),
                                            __float_as_uint(c), __float_as_uint(d)));
    }

    __device__ __forceinline__ void run(void)
    {
        find_q();
#pragma unroll 1
        for (uint32_t at = share.first; at < share.end; at += 2)
            run_round(at);
        w.stamp(ATTEND_DONE);
        store();
        w.stamp(ATTEND_STORED);
    }
};

template <int B, bool SHORT, bool WAITS>
static __global__ void __launch_bounds__(THREADS, 1)
    layer_kernel(const __grid_constant__ layer_params p)
{
    extern __shared__ __align__(128) unsigned char shared[];
    layer_desk &desk = *(layer_desk *)(shared + STAGES * STAGE);
    rt_pdl_launch_dependents();
    if (p.stamps && threadIdx.x == 0)
        p.stamps[blockIdx.x * MOMENTS + ENTERED] = rt_globaltimer_ns();
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            rt_mbarrier_init(&desk.full[i], BRINGERS);
            rt_mbarrier_init(&desk.empty[i], WORKERS);
        }
        rt_mbarrier_init(&desk.norms, 1);
        rt_mbarrier_init(&desk.turned, 1);
        rt_mbarrier_init(&desk.opened, 1);
        rt_mbarrier_init(&desk.appended, 1);
        desk.is_free = 0;
        rt_mbarrier_init_fence();
    }
    __syncthreads();
    const uint32_t warp = __shfl_sync(RT_PROBE_FULL_WARP, threadIdx.x / 32, 0);
    const uint32_t head = blockIdx.x / OF_HEAD, part = blockIdx.x % OF_HEAD;
    if (warp < WORKERS) {
        layer_worker<B, SHORT, WAITS> worker(p, shared, desk, warp);
        worker.down();
        if (blockIdx.x < SHARERS) {
            if (blockIdx.x < ASKERS)
                worker.up();
            worker.absorb(head, part);
            layer_attend<B, SHORT, WAITS>(worker).run();
            worker.combine(head, part);
            worker.value(head, part);
        }
        worker.out();
    } else if (warp < WORKERS + BRINGERS) {
        layer_bringer<B>(p, shared, desk, warp - WORKERS).run();
    } else {
        layer_keeper<B, SHORT, WAITS>(p, shared, desk).run();
    }
}

#endif
