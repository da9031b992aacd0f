/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_gather of a cache of e4m3, to tokens of bf16; the body is in kv_gather.cuh. A vector of out is
 * eight numbers, which share a scale: its neighbours of a tile ask for the same one.
 */
#include "kernels/device/dequantise.cuh"
#include "kernels/generic/kv_gather.cuh"

struct rt_kv_gather_quantised {
    const struct rt_kv_gather_quant_params &p;

    typedef struct rt_page_row place;
    /* Whole ones, and a part of one at either end. */
    static constexpr uint32_t TOKENS =
        RT_KV_GATHER_VECTORS / (RT_KV_GATHER_QUANT_LEAST / RT_QUANT_VECTOR) + 2;

    __device__ __forceinline__ uint32_t vectors(void) const
    {
        return p.d_qk / RT_QUANT_VECTOR;
    }

    static __device__ __forceinline__ place locate(const struct rt_page_row &at)
    {
        return at;
    }

    __device__ __forceinline__ uint4 load(const place &at, uint32_t vector) const
    {
        if (!at.page)
            return make_uint4(0, 0, 0, 0);
        return rt_dequant_vector(p.quant, rt_quant_row_at(p.gather.kv, p.quant, at), vector);
    }
};

extern "C" __global__ void __launch_bounds__(RT_KV_GATHER_THREADS)
    rt_kv_gather_quant(const __grid_constant__ struct rt_kv_gather_quant_params p)
{
    const struct rt_kv_gather_quantised source = {p};
    rt_kv_gather_run(source, p.gather);
}
