/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_MBARRIER_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_MBARRIER_CUH

#include "tests/emu/barrier.h"

static inline uint32_t rt_shared_address(const void *shared)
{
    return (uint32_t)((const unsigned char *)shared - rt_attend_shared);
}

static inline void rt_mbarrier_init(uint64_t *barrier, uint32_t count)
{
    emu_mbarrier_init(barrier, count);
}

static inline void rt_mbarrier_init_fence(void)
{
}

static inline void rt_mbarrier_arrive(uint64_t *barrier)
{
    emu_mbarrier_arrive(barrier, 0);
}

static inline void rt_mbarrier_arrive_expect(uint64_t *barrier, uint32_t bytes)
{
    emu_mbarrier_arrive(barrier, bytes);
}

static inline void rt_mbarrier_wait(uint64_t *barrier, uint32_t parity)
{
    emu_mbarrier_wait(barrier, parity);
}

static inline bool rt_mbarrier_test(uint64_t *barrier, uint32_t parity)
{
    return emu_mbarrier_test(barrier, parity);
}

#endif
