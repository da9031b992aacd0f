/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_BULK_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_BULK_CUH

#include "kernels/device/ptx/tma.cuh"

static inline void rt_bulk_load(void *shared, const void *global, uint32_t bytes, uint64_t *barrier,
                                uint64_t)
{
    emu_bulk_load(shared, global, bytes, barrier);
}

/* Nothing that can be seen comes of it. */
static inline void rt_bulk_prefetch(const void *, uint32_t)
{
}

#endif
