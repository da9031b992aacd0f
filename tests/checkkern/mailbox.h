/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_MAILBOX_H
#define RT_TESTS_CHECKKERN_MAILBOX_H

/* A rank's mailbox, `blocks` of which count; of any kind, whose slots are of `slot_bytes`. */
#include "kernels/abi/all_reduce.h"
#include "tests/checkkern/compare.h"

/* What two exchanges before have left is of their epochs, the last one's `epoch`; at first all is
 * zeros. */
static inline void ck_mailbox_fill(struct ck_random *random, uint32_t ranks, uint32_t blocks,
                                   uint32_t slot_bytes, uint32_t epoch, struct ck_buffer *b)
{
    uint32_t *const epochs = ck_at(b, CK_REF);
    uint64_t *const words = ck_at(b, CK_REF);
    const uint64_t slots = RT_ALL_REDUCE_EPOCH_BYTES / 8;
    const uint64_t of_parity = (uint64_t)ranks * slot_bytes / 8;
    for (uint32_t i = 0; i < blocks; i++)
        epochs[i] = epoch;
    for (uint64_t i = slots; i < b->bytes / 8 && epoch; i++) {
        const uint32_t parity = (i - slots) / of_parity % 2;
        const uint32_t left = epoch % 2 == parity ? epoch : epoch - 1;
        words[i] = (uint64_t)left << 32 | ck_random_below(random, UINT32_MAX);
    }
}

/* Its rank has made one more exchange. */
static inline void ck_mailbox_count(uint32_t blocks, struct ck_buffer *b)
{
    uint32_t *const epochs = ck_at(b, CK_REF);
    for (uint32_t i = 0; i < blocks; i++)
        epochs[i]++;
}

#endif
