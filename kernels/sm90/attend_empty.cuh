/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_EMPTY_CUH
#define RT_KERNELS_SM90_ATTEND_EMPTY_CUH

/*
 * Batch rows without keys, padding included, where no reduce follows: output 0, lse +inf. Each of
 * the grid's blocks looks at every so-many-th row.
 */
#include "kernels/sm90/attend_desk.cuh"

static __device__ __forceinline__ int rt_sm90_first_row(void)
{
    return (int)(blockIdx.y * gridDim.x + blockIdx.x);
}

static __device__ __forceinline__ int rt_sm90_row_step(void)
{
    return (int)(gridDim.x * gridDim.y);
}

/* Whether one of this block's rows is empty. */
static __device__ __forceinline__ bool rt_sm90_has_empty(const struct rt_mla_attend_params &p)
{
    bool found = false;
    for (int row = rt_sm90_first_row(); row < (int)p.rows; row += rt_sm90_row_step())
        found |= p.row_length[row] <= 0;
    return found;
}

/* By `threads` threads, of which this is number `thread`; the predecessor is complete. */
template <class SHAPE>
static __device__ __forceinline__ void rt_sm90_clear_empty(const struct rt_mla_attend_params &p,
                                                           int thread, int threads)
{
    constexpr int VECTORS = SHAPE::D_V / 8;
    const int hq = (int)(p.q_len * p.heads);
    const int64_t base = p.ctrl ? (int64_t)p.ctrl->row_base : 0;
#pragma unroll 1
    for (int row = rt_sm90_first_row(); row < (int)p.rows; row += rt_sm90_row_step()) {
        if (p.row_length[row] > 0)
            continue;
#pragma unroll 1
        for (int i = thread; i < hq * VECTORS; i += threads) {
            const int query = i / VECTORS;
            const int token = query / (int)p.heads, head = query % (int)p.heads;
            uint16_t *to = p.out + (base + row) * p.out_row_stride + token * p.out_token_stride +
                           head * p.out_head_stride + i % VECTORS * 8;
            *(uint4 *)to = make_uint4(0, 0, 0, 0);
            if (i % VECTORS == 0)
                p.lse[(base + row) * p.lse_row_stride + token * p.lse_token_stride +
                      head * p.lse_head_stride] = RT_SM90_INFINITY;
        }
    }
}

#endif
