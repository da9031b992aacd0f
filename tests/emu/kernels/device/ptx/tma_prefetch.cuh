/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_TMA_PREFETCH_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_TMA_PREFETCH_CUH

static inline void rt_tma_prefetch_3(const void *, int, int, int)
{
}

static inline void rt_tma_prefetch_5(const void *, int, int, int, int, int)
{
}

#endif
