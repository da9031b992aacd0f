/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_CP_ASYNC_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_CP_ASYNC_CUH

#include "tests/emu/emu.h"

static inline void rt_cp_async_16(void *shared, const void *global, bool valid)
{
    emu_copy_async(shared, global, valid);
}

static inline void rt_cp_async_4(void *shared, const void *global)
{
    emu_copy_async_4(shared, global);
}

static inline void rt_cp_async_arrive(uint64_t *barrier)
{
    emu_copy_arrive(barrier);
}

static inline void rt_cp_async_commit(void)
{
    emu_copy_commit();
}

template <int PENDING> static inline void rt_cp_async_wait(void)
{
    emu_copy_wait(PENDING);
}

#endif
