/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_LOAD_L2_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_LOAD_L2_CUH

#include "tests/emu/emu.h"

static inline uint4 rt_load_l2_16(const void *from)
{
    return *(const uint4 *)from;
}

static inline uint32_t rt_load_l2_4(const void *from)
{
    return *(const uint32_t *)from;
}

/* Changes nothing that can be seen. */
static inline void rt_prefetch_l2(const void *)
{
}

#endif
