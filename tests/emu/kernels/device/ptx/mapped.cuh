/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_MAPPED_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_MAPPED_CUH

#include "tests/emu/emu.h"

static inline uint4 rt_load_mapped_16(const void *from)
{
    return *(const uint4 *)from;
}

static inline int32_t rt_load_mapped_4(const void *from)
{
    return *(const int32_t *)from;
}

/* The stores behind it do what it is for. */
static inline void rt_fence_mapped(void)
{
}

static inline void rt_store_mapped_8(void *to, uint64_t value)
{
    __atomic_store_n((uint64_t *)to, value, __ATOMIC_RELEASE);
}

#endif
