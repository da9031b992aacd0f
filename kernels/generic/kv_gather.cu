/* SPDX-License-Identifier: Apache-2.0 */
/* kv_gather of tokens as they are; the body is in kv_gather.cuh. */
#include "kernels/generic/kv_gather.cuh"

struct rt_kv_gather_plain {
    const struct rt_kv_gather_params &p;

    typedef const uint4 *place; /* of the row; null: none */
    static constexpr uint32_t TOKENS = RT_KV_GATHER_VECTORS;

    __device__ __forceinline__ uint32_t vectors(void) const
    {
        return p.kv.token_bytes / (uint32_t)sizeof(uint4);
    }

    __device__ __forceinline__ place locate(const struct rt_page_row &at) const
    {
        return row_address(p.kv, at);
    }

    static __device__ __forceinline__ uint4 load(place from, uint32_t vector)
    {
        return from ? from[vector] : make_uint4(0, 0, 0, 0);
    }
};

extern "C" __global__ void __launch_bounds__(RT_KV_GATHER_THREADS)
    rt_kv_gather(const __grid_constant__ struct rt_kv_gather_params p)
{
    const struct rt_kv_gather_plain source = {p};
    rt_kv_gather_run(source, p);
}
