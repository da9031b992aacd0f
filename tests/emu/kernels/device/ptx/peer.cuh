/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_PEER_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_PEER_CUH

#include "tests/emu/emu.h"

struct rt_peer_pair {
    uint64_t at[2];
};

/* The second word goes first, and threads of the block may run in between. */
static inline void rt_peer_store(void *to, const struct rt_peer_pair &v)
{
    __atomic_store_n((uint64_t *)to + 1, v.at[1], __ATOMIC_RELAXED);
    emu_yield();
    __atomic_store_n((uint64_t *)to, v.at[0], __ATOMIC_RELAXED);
}

/* Other threads run, and so do the ranks of other processes, between two tries. */
static inline struct rt_peer_pair rt_peer_load(const void *from)
{
    emu_yield();
    return {{__atomic_load_n((const uint64_t *)from, __ATOMIC_RELAXED),
             __atomic_load_n((const uint64_t *)from + 1, __ATOMIC_RELAXED)}};
}

#endif
