/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_EXPERTS_CUH
#define RT_KERNELS_DEVICE_EXPERTS_CUH

/* Who has what to do, of kernels/abi/experts.h, as the kernels ask for it. */
#include "kernels/abi/experts.h"
#include "kernels/device/bf16.cuh"
#include "kernels/device/ptx/exp2.cuh"

#define RT_EXPERTS_LOG2_E 1.44269504f

/* An expert and its vectors. `shared`: which of the two weights it belongs to. */
struct rt_expert_job {
    uint32_t shared, expert;
    uint32_t first, count; /* of pairs; of a shared expert of tokens */
};

/* A pair, taken apart. */
struct rt_expert_pair {
    uint32_t token, place;
};

static __device__ __forceinline__ struct rt_expert_job
rt_expert_job_shared(const struct rt_experts_view &work, uint32_t expert)
{
    return {1, expert, 0, work.tokens};
}

/* The index-th of the active ones: one access to memory. */
static __device__ __forceinline__ struct rt_expert_job
rt_expert_job_routed(const struct rt_experts_view &work, uint32_t index)
{
    const int4 group = *reinterpret_cast<const int4 *>(work.groups.active + index);
    return {0, (uint32_t)group.x, (uint32_t)group.y, (uint32_t)group.z};
}

static __device__ __forceinline__ uint32_t rt_expert_active(const struct rt_experts_view &work)
{
    return work.experts > 0 ? (uint32_t)*work.groups.active_count : 0;
}

/* The index-th vector of a job. */
static __device__ __forceinline__ struct rt_expert_pair
rt_expert_pair_of(const struct rt_experts_view &work, const struct rt_expert_job &job,
                  uint32_t index)
{
    if (job.shared)
        return {job.first + index, work.chosen + job.expert};
    const uint32_t pair = (uint32_t)work.groups.pairs[job.first + index];
    const uint32_t token = pair / work.chosen;
    return {token, pair - token * work.chosen};
}

static __device__ __forceinline__ uint16_t *rt_expert_h(const struct rt_pairs_view &h,
                                                        const struct rt_expert_pair &pair)
{
    return (uint16_t *)h.base + pair.token * h.token_stride + pair.place * h.place_stride;
}

static __device__ __forceinline__ const uint16_t *
rt_expert_row(const struct rt_expert_weight_view &weight, uint32_t expert, uint32_t row)
{
    return weight.base + expert * weight.expert_stride + row * weight.row_stride;
}

/* silu(gate) * up. */
static __device__ __forceinline__ float rt_expert_gated(float gate, float up)
{
    return gate * rt_reciprocal(1.0f + rt_exp2(-gate * RT_EXPERTS_LOG2_E)) * up;
}

#endif
