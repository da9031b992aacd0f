/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PREFILL_PADDING_CUH
#define RT_KERNELS_DEVICE_PREFILL_PADDING_CUH

#include "kernels/abi/prefill.h"

static __device__ __forceinline__ uint16_t *rt_prefill_at(const struct rt_prefill_view &view,
                                                          uint32_t token, uint32_t head)
{
    return (uint16_t *)view.base + token * view.token_stride + head * view.head_stride;
}

static __device__ __forceinline__ float *rt_prefill_lse_at(const struct rt_prefill_attend_params &p,
                                                           uint32_t token, uint32_t head)
{
    return (float *)p.lse.base + token * p.lse.token_stride + head * p.lse.head_stride;
}

/* Tokens behind the last row: the grid's blocks share their heads out, `threads` of each block
 * write 16 bytes at a time; `thread` is this one's number among them. */
static __device__ __forceinline__ void rt_prefill_pad(const struct rt_prefill_attend_params &p,
                                                      uint32_t thread, uint32_t threads)
{
    const uint32_t first = rt_prefill_clamp(p.q_first[p.rows], 0, p.tokens);
    for (uint64_t i = blockIdx.x; i < (uint64_t)(p.tokens - first) * p.heads; i += gridDim.x) {
        const uint32_t token = first + (uint32_t)(i / p.heads), head = (uint32_t)(i % p.heads);
        uint4 *to = (uint4 *)rt_prefill_at(p.out, token, head);
        for (uint32_t d = thread; d < p.v_dim / 8; d += threads)
            to[d] = make_uint4(0, 0, 0, 0);
        if (thread == 0)
            *rt_prefill_lse_at(p, token, head) = __builtin_huge_valf();
    }
}

#endif
