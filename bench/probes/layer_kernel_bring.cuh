/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_PROBES_LAYER_KERNEL_BRING_CUH
#define RT_BENCH_PROBES_LAYER_KERNEL_BRING_CUH

/*
 * The warps of a block that do not multiply. Two ask for stages, one product after the other from
 * the kernel's first moment to its last, every other row each: weights and old keys are nobody's
 * output. The keeper writes the new token, and blanks the other exchange.
 *
 *   barrier    arrives               waits         means
 *   full[s]    the bringers, bytes   the workers   stage s is there
 *   empty[s]   the workers           the bringers  nobody reads it any more
 *   norms      bringer 0, bytes      the workers   the norms' weights are there
 *   turned     the keeper            the workers   cosines and sines are there
 *   opened     bringer 0             the keeper    the new token's stage is free
 *   appended   the keeper            the workers   the new token is in its stage
 */
#include "bench/probes/layer_kernel_shape.cuh"
#include "kernels/device/bf16.cuh"
#include "kernels/device/ptx/bulk.cuh"
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/relaxed.cuh"
#include "kernels/device/ptx/sync.cuh"

#define RT_PROBE_FULL_WARP 0xffffffffu

/* Where in the ring, and in which turn. */
struct layer_turn {
    uint32_t stage, parity;

    __device__ __forceinline__ void advance(void)
    {
        stage++;
        if (stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

static __device__ __forceinline__ bool is_blank(uint32_t v)
{
    return v == RT_PROBE_BLANK;
}

static __device__ __forceinline__ bool is_blank(const uint2 &v)
{
    return is_blank(v.x) | is_blank(v.y);
}

static __device__ __forceinline__ bool is_blank(const uint4 &v)
{
    return is_blank(v.x) | is_blank(v.y) | is_blank(v.z) | is_blank(v.w);
}

static __device__ __forceinline__ void set_blank(uint32_t &v)
{
    v = RT_PROBE_BLANK;
}

static __device__ __forceinline__ void set_blank(uint2 &v)
{
    v = make_uint2(RT_PROBE_BLANK, RT_PROBE_BLANK);
}

static __device__ __forceinline__ void set_blank(uint4 &v)
{
    v = make_uint4(RT_PROBE_BLANK, RT_PROBE_BLANK, RT_PROBE_BLANK, RT_PROBE_BLANK);
}

/* N words or vectors that other blocks write, asked for together, and again what was not there;
 * zero where `at` gives none. A wrong program must end: hence the limit. */
template <bool WAITS, int N, class V, class At>
static __device__ __forceinline__ void gather(V (&v)[N], At at)
{
    bool is_missing;
    uint32_t tries = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = V{};
        if (at(i))
            set_blank(v[i]);
    }
#pragma unroll 1
    do {
        is_missing = false;
#pragma unroll
        for (int i = 0; i < N; i++)
            if (is_blank(v[i]))
                rt_load_relaxed(v[i], at(i));
#pragma unroll
        for (int i = 0; i < N; i++)
            is_missing |= is_blank(v[i]);
        if (++tries > 1u << 21)
            __trap();
    } while (WAITS && is_missing);
}

static __device__ __forceinline__ float add_squares(float sum, const uint4 &v)
{
    const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sum = fmaf(rt_bf16_low(pairs[i]), rt_bf16_low(pairs[i]), sum);
        sum = fmaf(rt_bf16_high(pairs[i]), rt_bf16_high(pairs[i]), sum);
    }
    return sum;
}

static __device__ __forceinline__ uint32_t scale_pair(uint32_t pair, uint32_t weight, float by)
{
    return rt_pack_bf16x2(rt_bf16_low(pair) * rt_bf16_low(weight) * by,
                          rt_bf16_high(pair) * rt_bf16_high(weight) * by);
}

static __device__ __forceinline__ uint4 scale_pairs(const uint4 &v, const uint4 &weight, float by)
{
    return make_uint4(scale_pair(v.x, weight.x, by), scale_pair(v.y, weight.y, by),
                      scale_pair(v.z, weight.z, by), scale_pair(v.w, weight.w, by));
}

template <int B> struct layer_bringer {
    const layer_params &p;
    unsigned char *const ring;
    layer_desk &desk;
    const uint32_t which, lane, row;
    const uint64_t policy;
    layer_turn turn, behind; /* the next to ask for; the oldest on its way, once enough are */
    uint32_t asked, landed;

    __device__ __forceinline__ layer_bringer(const layer_params &p_, unsigned char *ring_,
                                             layer_desk &desk_, uint32_t which_)
        : p(p_), ring(ring_), desk(desk_), which(which_), lane(threadIdx.x % 32),
          row(which_ + BRINGERS * (threadIdx.x % 32)),
          policy(rt_tma_evict_first()), turn{0, 1}, behind{0, 0}, asked(0), landed(0)
    {
    }

    /* The stage's next bytes are expected; it is free. No more are on their way than memory needs
     * to be busy: what others ask for would stand in line behind them. */
    __device__ __forceinline__ uint64_t *open(uint32_t bytes)
    {
        uint64_t *full = &desk.full[turn.stage];
        const bool is_wanted = blockIdx.x < ASKERS && asked < DOWN_STAGES + UP_STAGES;
        const uint32_t is_free =
            __shfl_sync(RT_PROBE_FULL_WARP, *(const volatile uint32_t *)&desk.is_free, 0);
        const uint32_t limit = is_wanted || is_free ? p.flight : p.slow;
        for (; asked - landed >= limit; landed++) {
            rt_mbarrier_wait(&desk.full[behind.stage], behind.parity);
            behind.advance();
        }
        asked++;
        rt_mbarrier_wait(&desk.empty[turn.stage], turn.parity);
        rt_fence_async(); /* what read or wrote the stage did so by ordinary accesses */
        if (rt_elected())
            rt_mbarrier_arrive_expect(full, bytes);
        __syncwarp();
        return full;
    }

    /* This warp's part of `rows` rows, at most 16: `from` is this lane's. */
    __device__ __forceinline__ void bring(const uint16_t *from, uint32_t rows, uint32_t bytes,
                                          uint32_t pitch)
    {
        uint64_t *full = open((rows + BRINGERS - 1 - which) / BRINGERS * bytes);
        if (row < rows)
            rt_bulk_load(ring + turn.stage * STAGE + row * pitch, from, bytes, full, policy);
        turn.advance();
    }

    /* To the keeper: the next stage is free. */
    __device__ __forceinline__ void announce(void)
    {
        rt_mbarrier_wait(&desk.empty[turn.stage], turn.parity);
        if (which == 0 && rt_elected())
            rt_mbarrier_arrive(&desk.opened);
        __syncwarp();
    }

    __device__ __forceinline__ void bring_norms(void)
    {
        if (which > 0 || !rt_elected())
            return;
        rt_mbarrier_arrive_expect(&desk.norms, (HIDDEN + Q_LORA) * 2);
        rt_bulk_load(desk.sums, p.hidden_norm, HIDDEN * 2, &desk.norms, policy);
        rt_bulk_load(desk.q_norm, p.q_norm, Q_LORA * 2, &desk.norms, policy);
    }

    __device__ __forceinline__ void bring_up(void)
    {
        const uint16_t *from = p.up + (uint64_t)(blockIdx.x * UP_ROWS + row) * Q_LORA;
#pragma unroll 1
        for (uint32_t k = 0; k < Q_LORA; k += CHUNK)
#pragma unroll 1
            for (uint32_t tile = 0; tile < UP_ROWS; tile += 16)
                bring(from + tile * Q_LORA + k, 16, 2 * CHUNK, ROW_PITCH);
    }

    /* 64 columns of all rows of a head's W_UK. */
    __device__ __forceinline__ void bring_absorb(uint32_t head, uint32_t part)
    {
        uint64_t *full = open(NOPE / BRINGERS * 128);
        for (uint32_t i = row; i < NOPE; i += 32 * BRINGERS)
            rt_bulk_load(ring + turn.stage * STAGE + i * HEAD_PITCH,
                         p.kv_b + (uint64_t)(head * (NOPE + VALUE) + i) * KV_LORA + part * 64, 128,
                         full, policy);
        turn.advance();
    }

    __device__ __forceinline__ void bring_keys(const layer_share &share)
    {
        uint32_t pages = 0;
#pragma unroll 1
        for (uint32_t tile = share.first; tile < share.end; tile++) {
            const uint32_t i = (tile - share.first) % 32;
            if (i == 0) {
                const uint32_t mine = (tile + lane) * TILE / PAGE;
                pages = tile + lane < share.end ? p.pages[share.row * p.pages_per_row + mine] : 0;
            }
            const uint32_t page = __shfl_sync(RT_PROBE_FULL_WARP, pages, i);
            const uint32_t old = min(share.length - 1 - tile * TILE, (uint32_t)TILE);
            if (tile + 1 == share.tiles)
                announce();
            bring(p.cache + share.token_at(p, page, tile * TILE + row), old, TOKEN * 2, KEY_PITCH);
        }
    }

    /* While memory has nothing else to do: the ring is full, and others wait for each other. */
    __device__ __forceinline__ void bring_closer(const uint16_t *weight, uint32_t k, uint32_t from,
                                                 uint32_t rows)
    {
        for (uint32_t i = row; i < rows && from < k; i += 32 * BRINGERS)
            rt_bulk_prefetch(weight + (uint64_t)i * k + from, 2 * (k - from));
    }

    __device__ __forceinline__ void bring_rows(const uint16_t *weight, uint32_t k, uint32_t rows,
                                               uint32_t ahead)
    {
#pragma unroll 1
        for (uint32_t at = 0; at < k; at += CHUNK) {
            if (at == CHUNK)
                bring_closer(weight, k, k - ahead * CHUNK, rows);
#pragma unroll 1
            for (uint32_t tile = 0; tile * 16 < rows; tile++)
                bring(weight + (uint64_t)(tile * 16 + row) * k + at, min(rows - tile * 16, 16u),
                      2 * CHUNK, ROW_PITCH);
        }
    }

    __device__ __forceinline__ void run(void)
    {
        const uint32_t block = blockIdx.x, head = block / OF_HEAD, part = block % OF_HEAD;
        bring_norms();
        bring_rows(p.down + (uint64_t)block * 16 * HIDDEN, HIDDEN, 16, 0);
        if (block >= SHARERS) {
            const uint64_t first = SHARERS * OUT_ROWS + (block - SHARERS) * OUT_ROWS_REST;
            bring_rows(p.o + first * OUT, OUT, OUT_ROWS_REST, p.ahead);
            return;
        }
        const layer_share share = layer_share::of<B>(p);
        const uint64_t value = head * (NOPE + VALUE) + NOPE + part * 16;
        if (block < ASKERS)
            bring_up();
        bring_absorb(head, part);
        bring_keys(share);
        bring_rows(p.kv_b + value * KV_LORA, KV_LORA, 16, 0);
        bring_rows(p.o + (uint64_t)block * OUT_ROWS * OUT, OUT, OUT_ROWS, p.ahead);
    }
};

template <int B, bool SHORT, bool WAITS> struct layer_keeper {
    const layer_params &p;
    unsigned char *const ring;
    layer_desk &desk;
    const uint32_t lane;

    __device__ __forceinline__ layer_keeper(const layer_params &p_, unsigned char *ring_,
                                            layer_desk &desk_)
        : p(p_), ring(ring_), desk(desk_), lane(threadIdx.x % 32)
    {
    }

    /* 16 bytes of each weight, where this block's part of it lies. */
    __device__ __forceinline__ void touch(void) const
    {
        const uint32_t head = blockIdx.x / OF_HEAD;
        const uint16_t *const at[3] = {p.up + (uint64_t)head * (NOPE + ROPE) * Q_LORA,
                                       p.kv_b + (uint64_t)head * (NOPE + VALUE) * KV_LORA,
                                       p.o + (uint64_t)blockIdx.x * OUT_ROWS * OUT};
#pragma unroll
        for (int i = 0; i < 3; i++)
            if (rt_elected())
                rt_bulk_prefetch(at[i], 16);
    }

    __device__ __forceinline__ void bring_turns(void)
    {
        constexpr uint32_t NOPE_PARTS = NOPE / UP_ROWS, PAIRS = UP_ROWS / 2;
        const uint32_t part = blockIdx.x % OF_QUERY;
        for (uint32_t i = lane; i < B * PAIRS && part >= NOPE_PARTS; i += 32) {
            const uint32_t at = (part - NOPE_PARTS) * PAIRS + i % PAIRS;
            desk.turn[i / PAIRS][i % PAIRS] =
                p.rope[(uint64_t)(p.lengths[i / PAIRS] - 1) * (ROPE / 2) + at];
        }
        __syncwarp();
        if (rt_elected())
            rt_mbarrier_arrive(&desk.turned);
    }

    __device__ __forceinline__ void blank_other(void)
    {
        uint4 *to = (uint4 *)p.other;
        const uint4 blank = {RT_PROBE_BLANK, RT_PROBE_BLANK, RT_PROBE_BLANK, RT_PROBE_BLANK};
#pragma unroll 2
        for (uint32_t i = blockIdx.x * 32 + lane; i < exchange<B, SHORT>::BYTES / 16;
             i += BLOCKS * 32)
            to[i] = blank;
    }

    /* Latent and rotary part of the new token, normed and turned, into its stage and the cache. */
    __device__ __forceinline__ void append(const layer_share &share, const uint4 (&norm)[2],
                                           float2 turn, uint32_t page)
    {
        const unsigned char *from =
            p.exchange + exchange<B, SHORT>::DOWN_AT + (share.row * DOWN + Q_LORA) * 2;
        uint4 c[2];
        uint32_t r[1];
        gather<WAITS>(c, [&](int i) { return from + 512 * i + 16 * lane; });
        gather<WAITS>(r, [&](int) { return from + 2 * KV_LORA + 4 * lane; });
        float squares = add_squares(add_squares(0, c[0]), c[1]);
#pragma unroll
        for (int i = 16; i > 0; i /= 2)
            squares += __shfl_xor_sync(RT_PROBE_FULL_WARP, squares, i);
        const float inverse = rt_inverse_root(squares / KV_LORA + p.eps);
        c[0] = scale_pairs(c[0], norm[0], inverse);
        c[1] = scale_pairs(c[1], norm[1], inverse);
        const float a = rt_bf16_low(r[0]), b = rt_bf16_high(r[0]);
        r[0] = rt_pack_bf16x2(a * turn.x - b * turn.y, a * turn.y + b * turn.x);

        const uint32_t token = share.length - 1;
        const uint32_t before = DOWN_STAGES + (blockIdx.x < ASKERS ? UP_STAGES : 0) + 1;
        const uint32_t n = before + share.tiles - 1 - share.first;
        unsigned char *stage = ring + n % STAGES * STAGE;
        put((unsigned char *)(p.cache + share.token_at(p, page, token)), c, r[0]);
        rt_mbarrier_wait(&desk.opened, 0);
        put(stage + token % TILE * KEY_PITCH, c, r[0]);
        c[0] = c[1] = make_uint4(0, 0, 0, 0);
#pragma unroll 1
        for (uint32_t i = token % TILE + 1; i < TILE; i++) /* else perhaps bits of no number */
            put(stage + i * KEY_PITCH, c, 0);
        __syncwarp();
        if (rt_elected())
            rt_mbarrier_arrive(&desk.appended);
    }

    __device__ __forceinline__ void put(unsigned char *to, const uint4 (&c)[2], uint32_t r)
    {
        *(uint4 *)(to + 16 * lane) = c[0];
        *(uint4 *)(to + 512 + 16 * lane) = c[1];
        *(uint32_t *)(to + 2 * KV_LORA + 4 * lane) = r;
    }

    __device__ __forceinline__ void run(void)
    {
        if (blockIdx.x >= SHARERS) {
            rt_pdl_wait();
            blank_other();
            return;
        }
        if (p.touch)
            touch();
        bring_turns();
        const layer_share share = layer_share::of<B>(p);
        const uint32_t token = share.length - 1;
        const uint4 norm[2] = {((const uint4 *)p.kv_norm)[lane],
                               ((const uint4 *)p.kv_norm)[32 + lane]};
        const float2 turn = p.rope[(uint64_t)token * (ROPE / 2) + lane];
        const uint32_t page = p.pages[share.row * p.pages_per_row + token / PAGE];
        rt_pdl_wait();
        if (share.has_new())
            append(share, norm, turn, page);
        blank_other();
    }
};

#endif
