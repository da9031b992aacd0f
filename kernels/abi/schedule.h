/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_SCHEDULE_H
#define RT_KERNELS_ABI_SCHEDULE_H

#include "kernels/abi/invariant.h"
#include "kernels/abi/views.h"

#define RT_SCHEDULE_THREADS 1024

/* Whole rows are taken where no part then has more than this share of its payload above it: 4 %. */
#define RT_SCHEDULE_IDLE_SHARE 25

/*
 * schedule: one block, once per step for all layers.
 *   nb[r] = ceil(rows.length[r] / RT_BLOCK_TOKENS); cost c[r] = nb ? nb + overhead : 0
 *   S = exclusive prefix sum of c, T its total
 *   payload = max(ceil(T / part_count), min_blocks + overhead)
 *   n rows have blocks; each = ceil(n / part_count)
 *   Where each * max c <= payload + payload / RT_SCHEDULE_IDLE_SHARE, parts take whole rows: cut(p)
 *     is before the row in front of which p * each others have blocks, or (rows, 0). Else rows are
 *     cut:
 *   cut(p): x = p * payload. x >= T: (rows, 0). Else the row with S[r] <= x < S[r] + c[r], and
 *     k = max(x - S[r] - overhead, 0): k < min_blocks -> (r, 0); nb - k < min_blocks -> the next
 *     row with blocks, block 0, or (rows, 0); else (r, k).
 *   part p works from cut(p) to cut(p + 1), its begin and its end; no work where they are equal.
 *   A cut (r, k) with k > 0 is strictly inside r; no two of those are equal (payload > overhead).
 *   pieces of r = 1 + cuts strictly inside r
 *   begin_split of a part that begins strictly inside r = cuts strictly inside r up to its begin,
 *     that one included
 *   num_splits = exclusive prefix sum of (pieces > 1 ? pieces : 0), [rows + 1]: the partial slot of
 *     a piece is num_splits[r] + its index; a row that is not split takes none.
 * At most 2 * (part_count - 1) slots are used; a piece of a split row has at least min_blocks.
 * With schedule.invariant a row is always cut, by its own length alone, as kernels/abi/invariant.h
 * has it:
 *   unit[r] = rt_invariant_unit(nb[r], payload); min_blocks is 1, overhead_blocks 0
 *   cut(p) at k blocks of row r: k rounded to the nearest multiple of unit[r], halves up: 0 ->
 *     (r, 0); nb or more -> the next row with blocks, block 0, or (rows, 0)
 *   pieces of r = ceil(nb[r] / unit[r]), whatever parts have them
 *   begin_split = begin_block / unit
 * At most rt_invariant_slots(part_count, rows) slots are used then.
 * Sums and cuts are 64-bit: any int32 length is served. Padded and empty rows cost nothing.
 */
struct rt_schedule_params {
    struct rt_schedule_view schedule; /* written */
    uint32_t overhead_blocks;
    uint32_t min_blocks;      /* >= 1 */
    struct rt_rows_view rows; /* length; negative counts as 0 */
};
#define RT_SCHEDULE_PARAMS_ADDRESSES(type, at)                                                     \
    (RT_ROWS_ADDRESSES(type, at rows) | RT_SCHEDULE_ADDRESSES(type, at schedule))
RT_STATIC_ASSERT(sizeof(struct rt_schedule_params) == 72, "schedule ABI");
RT_STATIC_ASSERT(offsetof(struct rt_schedule_params, rows.slot) == 48, "schedule reads one line");

#endif
