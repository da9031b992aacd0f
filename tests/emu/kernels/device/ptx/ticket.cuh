/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_TICKET_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_TICKET_CUH

#include "tests/emu/emu.h"

/* Blocks run one after the other. */
static inline uint32_t rt_ticket_draw(uint32_t *counter)
{
    return __atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL);
}

#endif
