/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_INVARIANT_H
#define RT_KERNELS_ABI_INVARIANT_H

/*
 * Batch-invariant attention: how a row's keys are cut, by nothing but its own length, and in which
 * order what comes of them is added up. Read by gcc and by nvcc. docs/invariant.md says why so.
 *
 *   row    |-------- group 0 --------|-------- group 1 --------|-- group 2 --|
 *   leaf   |0 |1 |2 |3 |4 |5 |6 |7 |8 |9 |10|11|12|13|14|15|16|17|18|19|20|21|
 *
 * A leaf is a run of blocks whose softmax is computed as if it were alone; a group is up to
 * RT_INVARIANT_GROUP leaves, added up in order (kernels/device/fold.cuh); a row is its groups,
 * added up in order likewise. schedule.invariant says which of two ways attention takes, and how
 * long leaves are:
 *
 *   folded   few blocks a leaf. A schedule shares out leaves or groups, and which of the two is all
 *            that it decides: an SM that has a whole group adds its leaves up itself, elsewhere
 *            reduce does, by the same numbers in the same order.
 *   pieces   more blocks a leaf, which is always a piece, and reduce adds all up.
 *
 * A leaf has a power of two of blocks: the smallest whose ROOT-th power, times 2^SHARE, is no less
 * than the row's blocks, and of which a row needs no more than RT_INVARIANT_LEAVES.
 */
#include "kernels/abi/views.h"

#define RT_INVARIANT_GROUP 8u  /* leaves of a group */
#define RT_INVARIANT_GROUPS 8u /* of a row, at most */
#define RT_INVARIANT_LEAVES (RT_INVARIANT_GROUP * RT_INVARIANT_GROUPS)

/* schedule.invariant. */
#define RT_INVARIANT_FOLDED(root, share) ((root) << 8 | (share) << 2 | 3u)
#define RT_INVARIANT_PIECES(root, share) ((root) << 8 | (share) << 2 | 1u)
#define RT_INVARIANT_FOLDS(way) (((way)&2u) != 0)
#define RT_INVARIANT_SHARE(way) ((way) >> 2 & 63u)
#define RT_INVARIANT_ROOT(way) ((way) >> 8)

static RT_HD inline uint32_t rt_invariant_blocks(int32_t length)
{
    return length <= 0 ? 0 : ((uint32_t)length + RT_BLOCK_TOKENS - 1) / RT_BLOCK_TOKENS;
}

/* Blocks of a leaf of a row of `blocks`; the row's last leaf may have fewer. */
static RT_HD inline uint32_t rt_invariant_leaf(uint32_t way, uint32_t blocks)
{
    const uint32_t last = blocks > 0 ? blocks - 1 : 0;
    uint32_t log2 = 0;
    for (uint32_t rest = last >> RT_INVARIANT_SHARE(way); rest > 0; rest >>= RT_INVARIANT_ROOT(way))
        log2++;
    while (last >> log2 >= RT_INVARIANT_LEAVES)
        log2++;
    return 1u << log2;
}

/* Blocks of a piece of the row, where parts have `payload` blocks: of a group, if leaves are folded
 * and a part is not much shorter than one, else of a leaf. */
static RT_HD inline uint32_t rt_invariant_unit(uint32_t way, uint32_t blocks, uint64_t payload)
{
    const uint32_t leaf = rt_invariant_leaf(way, blocks), group = leaf * RT_INVARIANT_GROUP;
    const uint32_t whole = group < blocks ? group : blocks;
    return RT_INVARIANT_FOLDS(way) && (uint64_t)whole * 8 <= payload * 9 ? group : leaf;
}

/* Pieces of `unit` blocks of a row with keys. */
static RT_HD inline uint32_t rt_invariant_pieces(uint32_t blocks, uint32_t unit)
{
    return (blocks + unit - 1) / unit;
}

/* What the schedule has made of a row of `blocks`, seen from the pieces that num_splits gives it:
 * none where it is one. */
static RT_HD inline uint32_t rt_invariant_unit_of(uint32_t way, uint32_t blocks, int32_t pieces)
{
    const uint32_t leaf = rt_invariant_leaf(way, blocks), group = leaf * RT_INVARIANT_GROUP;
    const bool leaves =
        !RT_INVARIANT_FOLDS(way) || pieces > (int32_t)rt_invariant_pieces(blocks, group);
    return leaves ? leaf : group;
}

/* The most leaves that a row of up to so many blocks has: not always those of the longest. */
static inline uint32_t rt_invariant_most_leaves(uint32_t way, uint32_t blocks)
{
    uint32_t most = 0;
    for (uint32_t n = 1; n <= blocks && most < RT_INVARIANT_LEAVES; n++) {
        const uint32_t pieces = rt_invariant_pieces(n, rt_invariant_leaf(way, n));
        most = pieces > most ? pieces : most;
    }
    return most;
}

/* Partial slots that the pieces of so many rows of up to so many blocks, shared out to so many
 * parts, can need. Folded, a row of leaves has less than 8 of them for what a part takes, and
 * others have 8 groups at most. */
static inline uint64_t rt_invariant_slots(uint32_t way, uint32_t parts, uint32_t rows,
                                          uint32_t blocks)
{
    return RT_INVARIANT_FOLDS(way)
               ? (uint64_t)RT_INVARIANT_GROUP * parts + (uint64_t)RT_INVARIANT_GROUPS * rows
               : (uint64_t)rt_invariant_most_leaves(way, blocks) * rows;
}

#endif
