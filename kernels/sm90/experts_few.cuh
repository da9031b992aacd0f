/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_EXPERTS_FEW_CUH
#define RT_KERNELS_SM90_EXPERTS_FEW_CUH

/*
 * What the two sm_90 kernels of experts for up to 8 tokens share.
 *
 * An expert's part of a block is some 40 KB, which memory brings in little more than a microsecond:
 * as long as it takes to ask who its vectors are, and then for them. So nothing is asked for
 * between one expert and the next. Who has chosen what is copied into shared memory at once, and a
 * column of the tensor cores is a token whatever it has chosen: an expert that it has not gets
 * zeros from it, or what comes out is left. The numbers of the next expert's vectors are on their
 * way while this one's are multiplied.
 */
#include "kernels/sm90/experts_stream.cuh"

/* Registers of a thread of either kind, of 80 at first: blocks of two kernels share an SM. Four
 * warps ask: two take 0.59 us for a stage of sixteen rows, which memory has in 0.48. */
#define RT_EXPERTS_FEW_WORKER_REGISTERS 96
#define RT_EXPERTS_FEW_BRINGER_REGISTERS 40

/* A lane's second eight numbers of a chunk are in the same 128 bytes as the first, so that rows may
 * lie at multiples of 128 bytes and lanes meet all banks once all the same; but where there are no
 * registers for it. */
#define RT_EXPERTS_FEW_STEP(tiles, paired) ((paired) || (tiles) == 1 ? 32u : RT_STREAM_STEP)

/* Who has what to do: [pair] by its number, [active expert], as route leaves them. */
struct alignas(16) rt_experts_few {
    struct rt_expert_group active[RT_EXPERTS_SM90_FEW_PAIRS];
    int32_t pairs[RT_EXPERTS_SM90_FEW_PAIRS];   /* of up */
    int32_t choices[RT_EXPERTS_SM90_FEW_PAIRS]; /* of down, and what is below */
    float weights[RT_EXPERTS_SM90_FEW_PAIRS];
    /* [active expert][token]: the expert's place among the token's choices, or -1 */
    int8_t place[RT_EXPERTS_SM90_FEW_PAIRS][RT_EXPERTS_SM90_FEW_TOKENS];
    int32_t active_count;
    uint32_t live[RT_EXPERTS_SM90_FEW_TOKENS]; /* of down: whether the token is no padding */
};
static_assert(sizeof(struct rt_experts_few) <= RT_EXPERTS_SM90_FEW_BYTES, "few tokens' formula");

/* By the `which`-th 64 threads of the workers: up to 64 things, while the others copy others. */
template <class TYPE>
static __device__ __forceinline__ void rt_experts_few_copy(TYPE *to, const TYPE *from,
                                                           uint32_t count, uint32_t which)
{
    const uint32_t i = threadIdx.x - which * RT_EXPERTS_SM90_FEW_PAIRS;
    if (i < count)
        to[i] = from[i];
}

/* The active experts: a barrier of the workers comes behind it. */
static __device__ __forceinline__ void
rt_experts_few_copy_active(const struct rt_experts_view &work, struct rt_experts_few &few)
{
    const uint32_t most = min(work.experts, work.tokens * work.chosen);
    rt_experts_few_copy((int4 *)few.active, (const int4 *)work.groups.active, most, 0);
    rt_experts_few_copy(&few.active_count, (const int32_t *)work.groups.active_count, 1, 3);
}

/* Warps 0..7, whose window of x goes on from one product to the next. */
template <int TILES, bool PAIRED>
struct rt_experts_few_worker
    : rt_experts_worker<1, TILES, PAIRED, RT_EXPERTS_FEW_STEP(TILES, PAIRED)> {
    typedef rt_experts_worker<1, TILES, PAIRED, RT_EXPERTS_FEW_STEP(TILES, PAIRED)> base;
    typedef const uint16_t *vector[1];
    /* Chunks of x in registers, of which those of many sums leave less. */
    static constexpr int WINDOW = PAIRED || TILES == 1 ? 4 : 2;

    struct rt_experts_few &few;
    typename base::chunk window[WINDOW];

    __device__ __forceinline__ rt_experts_few_worker(const struct rt_experts_room &room_,
                                                     uint32_t tile_rows_, uint32_t k_,
                                                     uint32_t tokens, uint32_t warp_)
        : base(room_, tile_rows_, k_, warp_), few(*(struct rt_experts_few *)room_.sums)
    {
        base::count = tokens;
    }

    /* Asks for the first numbers of x. */
    __device__ __forceinline__ void begin(const vector &x)
    {
#pragma unroll
        for (int i = 0; i < WINDOW; i++)
            base::load_x(x, i, window[i]);
    }

    /* The products of x, whose first numbers are in the window; `next` is who comes behind it.
     * `again`: it is x itself, and short, so that the window has all of it. */
    __device__ __forceinline__ void multiply(const vector &x, const vector &next, bool again)
    {
        const uint32_t chunks = rt_ceil_div_u32(base::k, RT_STREAM_CHUNK);
        base::clear_sums();
        for (uint32_t first = 0; first < chunks; first += WINDOW) {
#pragma unroll
            for (int i = 0; i < WINDOW; i++) {
                if (first + i >= chunks)
                    break;
                base::run_chunk(first + i, window[i]);
                if (first + i + WINDOW < chunks)
                    base::load_x(x, first + i + WINDOW, window[i]);
                else if (!again)
                    base::load_x(next, i, window[i]);
            }
        }
    }
};

/* The block's two kinds of warps. */
template <class BRINGER, class WORKER, class PARAMS>
static __device__ __forceinline__ void rt_experts_few_run(const PARAMS &p,
                                                          const struct rt_experts_room &room)
{
    const uint32_t warp = rt_experts_begin(room, RT_EXPERTS_SM90_FEW_BRINGERS);
    if (warp >= RT_PROJECT_SM90_WARPS) {
        rt_registers_down<RT_EXPERTS_FEW_BRINGER_REGISTERS>();
        BRINGER(p, room).run();
    } else {
        rt_registers_up<RT_EXPERTS_FEW_WORKER_REGISTERS>();
        WORKER(p, room, warp).run();
    }
}

#endif
