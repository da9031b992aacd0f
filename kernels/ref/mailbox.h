/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REF_MAILBOX_H
#define RT_KERNELS_REF_MAILBOX_H

/* Words of a mailbox, each 4 bytes of numbers and their epoch: kernels/abi/all_reduce.h. */
#include "kernels/abi/all_reduce.h"

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

/* Of the vector that a block's thread has in a slot: word 0..3. */
static inline uint64_t *rt_ref_mailbox_word(unsigned char *slot, uint32_t thread, uint32_t word)
{
    return (uint64_t *)(void *)(slot + rt_all_reduce_pair(thread, word / 2)) + word % 2;
}

static inline void rt_ref_mailbox_put(uint64_t *word, uint32_t epoch, uint32_t number)
{
    __atomic_store_n(word, (uint64_t)epoch << 32 | number, __ATOMIC_RELAXED);
}

/* Waits for it. False: nobody comes any more. */
static inline bool rt_ref_mailbox_take(const uint64_t *word, uint32_t epoch, const int32_t *stop,
                                       uint32_t *number)
{
    for (;;) {
        const uint64_t found = __atomic_load_n(word, __ATOMIC_RELAXED);
        *number = (uint32_t)found;
        if (found >> 32 == epoch)
            return true;
        if (__atomic_load_n(stop, __ATOMIC_RELAXED))
            return false;
        (void)sched_yield();
    }
}

#endif
