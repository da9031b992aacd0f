/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_TICKET_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_TICKET_CUH

#include "tests/emu/emu.h"

static inline uint32_t rt_ticket_draw(uint32_t *counter)
{
    const uint32_t before = __atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL);
    emu_ticket_drawn(counter);
    return before;
}

static inline uint32_t rt_ticket_draw_round(uint32_t *counter, uint32_t last)
{
    uint32_t before = __atomic_load_n(counter, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(counter, &before, before >= last ? 0u : before + 1u, false,
                                        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
    }
    emu_ticket_drawn(counter);
    return before;
}

static inline uint32_t rt_ticket_look(const uint32_t *counter)
{
    emu_ticket_look(counter);
    return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
}

#endif
