/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preattend into a cache of e4m3: preattend.cuh, whose warp of a kv_a has the key's numbers in
 * registers, rounded to bf16, and quantises them as append_quant does. The latent's vectors lie
 * among the lanes as quantise.cuh wants them; of what is turned a lane has two vectors, which only
 * a scale of all tokens makes e4m3.
 */
#include "kernels/device/quantise.cuh"
#include "kernels/generic/preattend.cuh"

static_assert(RT_PREATTEND_LATENT_VECTORS == RT_QUANT_ROUNDS, "a latent's vectors of a lane");

struct rt_preattend_quant_cache {
    const struct rt_quant_view &quant;

    __device__ __forceinline__ void put(const struct rt_preattend_params &p,
                                        const struct rt_page_row &at,
                                        const uint4 (&latent)[RT_PREATTEND_LATENT_VECTORS],
                                        bool has_unit, const struct rt_preattend_unit &key) const
    {
        const struct rt_quant_row to = rt_quant_row_at(p.kv, quant, at);
        const uint32_t vectors = p.latent_dim / RT_QUANT_VECTOR;
        const struct rt_quant_factors of = rt_quant_find_factors(quant, latent);
#pragma unroll
        for (uint32_t i = 0; i < RT_QUANT_ROUNDS; i++) {
            const uint32_t vector = i * RT_WARP_LANES + rt_lane();
            if (vector < vectors)
                rt_quant_put_vector(quant, to.row, vector, latent[i], of.factor[i]);
        }
        rt_quant_put_scales(quant, to.scales, of);
        if (!has_unit)
            return;
        const uint32_t first = vectors + rt_preattend_unit_at(p, rt_lane()) / RT_QUANT_VECTOR;
        const uint32_t second = first + rt_preattend_apart(p) / RT_QUANT_VECTOR;
        rt_quant_put_vector(quant, to.row, first, key.first, of.factor[0]);
        rt_quant_put_vector(quant, to.row, second, key.second, of.factor[0]);
    }
};

extern "C" __global__ void __launch_bounds__(RT_PREATTEND_WARPS *RT_WARP_LANES)
    rt_preattend_quant(const __grid_constant__ struct rt_preattend_quant_params p)
{
    const struct rt_preattend_quant_cache cache = {p.quant};
    rt_pdl_launch_dependents(); /* as in preattend.cu */
    rt_preattend_block<RT_PREATTEND_WARPS>(p.preattend, blockIdx.x, gridDim.x, cache);
}
