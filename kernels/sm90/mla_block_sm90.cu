/* SPDX-License-Identifier: Apache-2.0 */
/* mla_block of 16 heads, rows of one token, pairs (2i, 2i + 1) and no biases: what most models ask
 * for, with nothing else to ask about. */
#include "kernels/sm90/mla_block_kernel.cuh"

/* Device entry points: their names are their registry lines, mla_block_<slots>. */
#define RT_MLA_BLOCK_ENTRY(slots)                                                                  \
    extern "C" __global__ void __launch_bounds__(RT_MLA_BLOCK_THREADS, 1)                          \
        rt_mla_block_##slots(const __grid_constant__ struct rt_mla_block_sm90_params p)            \
    {                                                                                              \
        rt_mla_block<rt_block_shape<slots, 16, false>>(p);                                         \
    }

RT_MLA_BLOCK_ENTRY(1)
RT_MLA_BLOCK_ENTRY(2)
RT_MLA_BLOCK_ENTRY(4)
RT_MLA_BLOCK_ENTRY(8)
