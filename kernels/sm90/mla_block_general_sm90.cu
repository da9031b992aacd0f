/* SPDX-License-Identifier: Apache-2.0 */
/* mla_block of 8, 16 or 32 heads, rows of several tokens, RoPE of halves, biases and factors of
 * queries: whatever kernels/abi/mla_block.h has. */
#include "kernels/sm90/mla_block_kernel.cuh"

/* Device entry points: their names are their registry lines, mla_block_general_<heads>_<slots>. */
#define RT_MLA_BLOCK_ENTRY(heads, slots)                                                           \
    extern "C" __global__ void __launch_bounds__(RT_MLA_BLOCK_THREADS, 1)                          \
        rt_mla_block_general_##heads##_##slots(                                                    \
            const __grid_constant__ struct rt_mla_block_sm90_params p)                             \
    {                                                                                              \
        rt_mla_block<rt_block_shape<slots, heads, true>>(p);                                       \
    }
#define RT_MLA_BLOCK_ENTRIES(heads)                                                                \
    RT_MLA_BLOCK_ENTRY(heads, 1)                                                                   \
    RT_MLA_BLOCK_ENTRY(heads, 2)                                                                   \
    RT_MLA_BLOCK_ENTRY(heads, 4)                                                                   \
    RT_MLA_BLOCK_ENTRY(heads, 8)

RT_MLA_BLOCK_ENTRIES(8)
RT_MLA_BLOCK_ENTRIES(16)
RT_MLA_BLOCK_ENTRIES(32)
