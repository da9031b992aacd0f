/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_copy: the pages that a fork may not share -> pages of their own, in every layer. The rule is
 * in kernels/abi/step.h. Block (l, i): copy i in layer l, a warp per token; blocks behind the
 * record's last copy leave at once. The pages written by one record are apart from those read, so
 * no block waits for another.
 */
#include "kernels/abi/step.h"
#include "kernels/device/copy.cuh"
#include "kernels/device/ptx/pdl.cuh"

#define WARPS (RT_PAGE_COPY_THREADS / RT_WARP_LANES)
#define ROWS_IN_FLIGHT 4u /* a warp's rows between load and store: two trips for a page of 64 */

/* What is behind the page's rows. */
static __device__ __forceinline__ void copy_tail(const struct rt_page_copy_params &p,
                                                 const unsigned char *from, unsigned char *to)
{
    const int64_t tail = p.kv.page_size * p.kv.token_stride_bytes;
    for (uint32_t i = threadIdx.x; i < p.tail_bytes / sizeof(uint4); i += RT_PAGE_COPY_THREADS)
        reinterpret_cast<uint4 *>(to + tail)[i] = reinterpret_cast<const uint4 *>(from + tail)[i];
}

extern "C" __global__ void __launch_bounds__(RT_PAGE_COPY_THREADS)
    rt_page_copy(const __grid_constant__ struct rt_page_copy_params p)
{
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (blockIdx.y >= p.ctrl->copy_count)
        return;
    const struct rt_page_copy copy = p.copies[blockIdx.y];
    unsigned char *layer = p.kv.base + blockIdx.x * p.layer_stride_bytes;
    const unsigned char *from = layer + copy.from * p.kv.page_stride_bytes;
    unsigned char *to = layer + copy.to * p.kv.page_stride_bytes;
    const uint32_t rows = (uint32_t)max(copy.rows, 0);
    const uint32_t vectors = p.kv.token_bytes / sizeof(uint4);
    for (uint32_t first = threadIdx.x / RT_WARP_LANES; first < rows;
         first += ROWS_IN_FLIGHT * WARPS) {
        struct rt_row_piece pieces[ROWS_IN_FLIGHT];
#pragma unroll
        for (uint32_t i = 0; i < ROWS_IN_FLIGHT; i++) {
            const uint32_t row = first + i * WARPS;
            pieces[i] =
                rt_load_row(reinterpret_cast<const uint4 *>(from + row * p.kv.token_stride_bytes),
                            row < rows ? vectors : 0);
        }
#pragma unroll
        for (uint32_t i = 0; i < ROWS_IN_FLIGHT; i++) {
            const uint32_t row = first + i * WARPS;
            rt_store_row(reinterpret_cast<uint4 *>(to + row * p.kv.token_stride_bytes),
                         reinterpret_cast<const uint4 *>(from + row * p.kv.token_stride_bytes),
                         row < rows ? vectors : 0, pieces[i]);
        }
    }
    copy_tail(p, from, to);
}
