/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_PDL_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_PDL_CUH

#include "tests/emu/emu.h"

static inline void rt_pdl_wait(void)
{
    emu_grid_wait();
}

static inline void rt_pdl_launch_dependents(void)
{
    emu_grid_trigger();
}

#endif
