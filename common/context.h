/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_CONTEXT_H
#define RT_COMMON_CONTEXT_H

#include "common/math.h"

/*
 * Context parallel: the tokens of a sequence lie on `ranks` ranks, page by page in turn. A page id
 * of the block table stands for ranks * page_size tokens, of which every rank has page_size.
 *
 *   page_size 4, 3 ranks   position 0 1 2 3 | 4 5 6 7 | 8 9 10 11 | 12 13 14 15 | 16 ...
 *                          rank     0       | 1       | 2         | 0           | 1
 *                          place    0 1 2 3 | 0 1 2 3 | 0 1  2  3 |  4  5  6  7 |  4 ...
 *                          page     first of the table            | second
 *
 * A rank's own tokens have no holes between them: to the kernels they are a sequence as any other.
 */

/* Of the tokens in front of `length`, how many the rank has. */
static RT_HD inline int32_t rt_context_length(int32_t length, uint32_t page_size, uint32_t ranks,
                                              uint32_t rank)
{
    const uint32_t tokens = length > 0 ? (uint32_t)length : 0, round = page_size * ranks;
    const uint32_t rest = tokens % round, first = rank * page_size;
    const uint32_t mine = rest > first ? rest - first : 0;
    return (int32_t)(tokens / round * page_size + (mine < page_size ? mine : page_size));
}

/* Where among them the token of a position is, which is not negative; -1: another rank has it. */
static RT_HD inline int32_t rt_context_place(int32_t position, uint32_t page_size, uint32_t ranks,
                                             uint32_t rank)
{
    const uint32_t page = (uint32_t)position / page_size;
    if (page % ranks != rank)
        return -1;
    return (int32_t)(page / ranks * page_size + (uint32_t)position % page_size);
}

/* Bytes of what a rank has of one head for another: vectors of `width` elements of all tokens, and
 * behind them their lse in f32. A multiple of 8 elements of either size. */
static inline uint64_t rt_context_head_bytes(uint32_t tokens, uint32_t width,
                                             uint32_t element_bytes)
{
    return (uint64_t)tokens * width * element_bytes +
           rt_align_up_u64((uint64_t)tokens * sizeof(float), 32);
}

#endif
