/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_RELAXED_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_RELAXED_CUH

#include "tests/emu/emu.h"

static inline void rt_load_relaxed(uint32_t &v, const void *from)
{
    emu_load_relaxed(&v, 1, from);
}

static inline void rt_load_relaxed(uint2 &v, const void *from)
{
    emu_load_relaxed(&v.x, 2, from);
}

static inline void rt_load_relaxed(uint4 &v, const void *from)
{
    emu_load_relaxed(&v.x, 4, from);
}

static inline void rt_store_relaxed(void *to, uint32_t v)
{
    emu_store_relaxed(to, &v, 1);
}

static inline void rt_store_relaxed(void *to, const uint2 &v)
{
    emu_store_relaxed(to, &v.x, 2);
}

static inline void rt_store_relaxed(void *to, const uint4 &v)
{
    emu_store_relaxed(to, &v.x, 4);
}

#endif
