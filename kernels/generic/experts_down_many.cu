/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts_down of many tokens, for every device: kernels/abi/experts.h has the formula.
 *
 *   h [tokens, chosen + shared, width], down [experts, hidden, width] -> out [tokens, hidden]
 *
 * Grid: a block RT_EXPERTS_MANY_ROWS rows of down for a group of tokens, rows turning fastest. It
 * goes through all experts, the shared ones first, and adds up what each gives its tokens in shared
 * memory: so a token's sum has one order whoever else is there, and needs neither scratch nor a
 * second kernel. The price: weights are read once a group, h once for 64 rows. Blocks that run
 * together are at about the same expert, so both come from L2.
 *
 *   shared memory   bytes
 *   stages          3 x 16384        of kernels/device/expert_tile.cuh
 *   sums            group x 256      floats, of token t at `column ^ t % 8 * 8`
 *   table           experts x 12     what the group has of each active expert
 *
 *   step   A   stage s has landed      B   load stage s + 2, multiply stage s, at a tile's end add
 *
 *   barrier   makes visible                     and frees
 *   A         table, zeros; stage s; sums of    stage s + 2, which is s - 1's place; the tokens of
 *             the tile before                   the tile before, in all warps
 */
#include "common/math.h"
#include "kernels/device/expert_tile.cuh"
#include "kernels/device/experts.cuh"
#include "kernels/device/ptx/pdl.cuh"

using rt_experts_down_tile = rt_expert_tile<1, 1>;

RT_STATIC_ASSERT(rt_experts_down_tile::VECTORS == RT_EXPERTS_MANY_DOWN_PAIRS, "a tile's pairs");
RT_STATIC_ASSERT(rt_experts_down_tile::STAGE_BYTES *RT_EXPERTS_MANY_STAGES ==
                     RT_EXPERTS_MANY_DOWN_STAGES_BYTES,
                 "formula");

/* An expert's pairs of the group's tokens. */
struct rt_experts_down_share {
    uint32_t expert, first, count;
};
RT_STATIC_ASSERT(sizeof(struct rt_experts_down_share) == RT_EXPERTS_MANY_DOWN_TABLE_BYTES(1),
                 "the table");

/* What a block works on, and its memory. */
struct rt_experts_down_block {
    const struct rt_experts_down_params &p;
    unsigned char *stages;
    float *sums;
    struct rt_experts_down_share *table;
    uint32_t token, tokens; /* of the group */
    uint32_t row;
    uint32_t jobs, steps; /* experts with work, and stages of a tile */

    __device__ __forceinline__ rt_experts_down_block(const struct rt_experts_down_many_params &all,
                                                     unsigned char *shared)
        : p(all.down), stages(shared), sums((float *)(shared + RT_EXPERTS_MANY_DOWN_STAGES_BYTES)),
          table((struct rt_experts_down_share *)(shared + RT_EXPERTS_MANY_DOWN_STAGES_BYTES +
                                                 RT_EXPERTS_MANY_DOWN_SUMS_BYTES(all.group)))
    {
        const uint32_t across = rt_ceil_div_u32(p.hidden, RT_EXPERTS_MANY_ROWS);
        token = blockIdx.x / across * all.group;
        tokens = min(p.work.tokens - token, all.group);
        row = blockIdx.x % across * RT_EXPERTS_MANY_ROWS;
        jobs = p.work.shared + rt_expert_active(p.work);
        steps = rt_ceil_div_u32(p.width, RT_EXPERTS_MANY_K);
    }

    /* The first of a job's pairs that is no less than `pair`; they rise. */
    __device__ __forceinline__ uint32_t seek(const struct rt_expert_job &job, uint32_t pair) const
    {
        uint32_t low = job.first, high = job.first + job.count;
        while (low < high) {
            const uint32_t middle = (low + high) / 2;
            if ((uint32_t)p.work.groups.pairs[middle] < pair)
                low = middle + 1;
            else
                high = middle;
        }
        return low;
    }

    __device__ __forceinline__ void begin(void)
    {
        for (uint32_t i = threadIdx.x; i < jobs - p.work.shared; i += RT_EXPERTS_MANY_THREADS) {
            const struct rt_expert_job all = rt_expert_job_routed(p.work, i);
            const uint32_t first = seek(all, token * p.work.chosen);
            table[i] = {all.expert, first, seek(all, (token + tokens) * p.work.chosen) - first};
        }
        for (uint32_t i = threadIdx.x; i < tokens * RT_EXPERTS_MANY_ROWS;
             i += RT_EXPERTS_MANY_THREADS)
            sums[i] = 0.0f;
        __syncthreads();
    }

    __device__ __forceinline__ struct rt_expert_job job(uint32_t index) const
    {
        if (index < p.work.shared)
            return {1, index, token, tokens};
        const struct rt_experts_down_share &share = table[index - p.work.shared];
        return {0, share.expert, share.first, share.count};
    }

    __device__ __forceinline__ uint32_t count(uint32_t index) const
    {
        return index < p.work.shared ? tokens : table[index - p.work.shared].count;
    }

    __device__ __forceinline__ float *sum(uint32_t of, uint32_t column) const
    {
        return sums + of * RT_EXPERTS_MANY_ROWS + (column ^ of % 8 * 8);
    }

    /* Where this thread's loads of the tile come from. */
    __device__ __forceinline__ void aim(uint32_t index, uint32_t first,
                                        rt_experts_down_tile &tile) const
    {
        const struct rt_expert_job of = job(index);
#pragma unroll
        for (int i = 0; i < rt_experts_down_tile::LOADS; i++) {
            const uint32_t at = tile.load_row(i), behind = at - RT_EXPERTS_MANY_DOWN_PAIRS;
            tile.from[i] = nullptr;
            if (tile.is_vector(i)) {
                if (first + at < of.count)
                    tile.from[i] = rt_expert_h(p.h, rt_expert_pair_of(p.work, of, first + at));
            } else if (row + behind < p.hidden) {
                tile.from[i] = rt_expert_row(p.down[of.shared], of.expert, row + behind);
            }
        }
    }

    __device__ __forceinline__ void add(uint32_t index, uint32_t first,
                                        const rt_experts_down_tile &tile) const
    {
        const struct rt_expert_job of = job(index);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint32_t at = first + tile.sum_vector(0, i);
            if (at >= of.count)
                continue;
            const struct rt_expert_pair pair = rt_expert_pair_of(p.work, of, at);
            const float weight =
                of.shared ? 1.0f : p.weights[pair.token * p.work.chosen + pair.place];
#pragma unroll
            for (int n = 0; n < 4; n++) {
                float2 &to = *(float2 *)sum(pair.token - token, tile.sum_row(n));
                to = {fmaf(weight, tile.sum[0][0][n][2 * i], to.x),
                      fmaf(weight, tile.sum[0][0][n][2 * i + 1], to.y)};
            }
        }
    }

    __device__ __forceinline__ void store(void) const
    {
        for (uint32_t i = threadIdx.x; i < tokens * RT_EXPERTS_MANY_ROWS / 2;
             i += RT_EXPERTS_MANY_THREADS) {
            const uint32_t of = i / (RT_EXPERTS_MANY_ROWS / 2);
            const uint32_t column = i % (RT_EXPERTS_MANY_ROWS / 2) * 2;
            const bool live = rt_row_is_live(&p.rows, (token + of) / p.rows.q_len);
            const float *from = sum(of, column);
            rt_expert_store(p.out + (token + of) * p.out_stride, row + column, p.hidden,
                            live ? from[0] : 0.0f, live ? from[1] : 0.0f);
        }
    }
};

/* A block's stages one behind the other, over all its tiles: which one is next. */
struct rt_experts_down_walk {
    const struct rt_experts_down_block &block;
    uint32_t job, first, step; /* a tile is the job's pairs from `first` on */

    __device__
        __forceinline__ explicit rt_experts_down_walk(const struct rt_experts_down_block &block_)
        : block(block_), job(0), first(0), step(0)
    {
        settle();
    }

    /* On to a job that has pairs left. */
    __device__ __forceinline__ void settle(void)
    {
        while (job < block.jobs && first >= block.count(job)) {
            job++;
            first = 0;
        }
    }

    __device__ __forceinline__ bool is_over(void) const
    {
        return job >= block.jobs;
    }

    __device__ __forceinline__ bool is_last_step(void) const
    {
        return step + 1 == block.steps;
    }

    __device__ __forceinline__ void advance(void)
    {
        if (++step < block.steps)
            return;
        step = 0;
        first += RT_EXPERTS_MANY_DOWN_PAIRS;
        settle();
    }
};

static __device__ __forceinline__ void
rt_experts_down_group(const struct rt_experts_down_many_params &p, unsigned char *shared)
{
    constexpr uint32_t AHEAD = RT_EXPERTS_MANY_STAGES - 1;
    constexpr uint32_t BYTES = rt_experts_down_tile::STAGE_BYTES;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    struct rt_experts_down_block block(p, shared);
    block.begin();
    rt_experts_down_tile tile;
    tile.clear();
    struct rt_experts_down_walk loads(block), products(block);
    for (uint32_t s = 0; !products.is_over(); s++) {
        if (s >= AHEAD) {
            rt_cp_async_wait<AHEAD - 1>();
            __syncthreads();
        }
        if (!loads.is_over()) {
            if (loads.step == 0)
                block.aim(loads.job, loads.first, tile);
            tile.load(shared + s % RT_EXPERTS_MANY_STAGES * BYTES, loads.step * RT_EXPERTS_MANY_K,
                      p.down.width);
            loads.advance();
        }
        rt_cp_async_commit();
        if (s < AHEAD)
            continue;
        tile.multiply(shared + (s - AHEAD) % RT_EXPERTS_MANY_STAGES * BYTES,
                      block.count(products.job) - products.first);
        if (products.is_last_step()) {
            block.add(products.job, products.first, tile);
            tile.clear();
        }
        products.advance();
    }
    __syncthreads();
    block.store();
}

/* Device entry points: up to so many tokens a group, which is what shared memory has room for. */
#define RT_EXPERTS_DOWN_MANY(most)                                                                 \
    extern "C" __global__ void __launch_bounds__(RT_EXPERTS_MANY_THREADS)                          \
        rt_experts_down_many##most(const __grid_constant__ struct rt_experts_down_many_params p)   \
    {                                                                                              \
        extern __shared__ __align__(128) unsigned char rt_attend_shared[];                         \
        rt_experts_down_group(p, rt_attend_shared);                                                \
    }

RT_EXPERTS_DOWN_MANY(128)
RT_EXPERTS_DOWN_MANY(512)
