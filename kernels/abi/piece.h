/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_PIECE_H
#define RT_KERNELS_ABI_PIECE_H

/*
 * What a piece's numbers are in partials.out, but of batch-invariant attention and of the host
 * device's f32, where they are f32 [slot][query row][d_v]. A slot has as many bytes either way:
 * first halves of numbers, then their rests. A word of each is an even column and the next:
 *
 *   slot    halves u16 [query row][d_v]  rests u16 [query row][d_v]
 *
 *              halves                           rests
 *   as f16     a            b                   anything
 *   wide       MARK         a 15..8, b 15..8    a 31..16   b 31..16      bits of a float
 *
 * Words lie as the four lanes have them that share a query row of a product, of 32 columns: lane c
 * has columns 2 c and the next of each eight, so that it stores 16 bytes and exchanges nothing.
 *
 *   word       0      1      2      3      4      ...    15
 *   columns    0, 1   8, 9   16, 17 24, 25 2, 3   ...    30, 31
 *
 * Who writes looks at a query row's numbers that it has: as f16 where the largest magnitude is
 * between 2^-14 and 65504 or all are 0, so that none is off by more than 2^-11 of that; else wide,
 * each off by less than 2^-15 of itself, NaN and infinities as they are. NaN in halves is
 * RT_PIECE_NAN and not the mark. So who reads halves alone has a NaN in an even column where a word
 * is wide, and need not look for the mark before.
 */
#define RT_PIECE_MARK 0xfe00u
#define RT_PIECE_NAN 0x7fffu
#define RT_PIECE_LEAST 0x0400u /* 2^-14 */
#define RT_PIECE_LIMIT 0x7c00u /* infinity, and what is rounded to it */
#define RT_PIECE_NAN_REST 0x7fffu

/* Where a column is, of either. */
#define RT_PIECE_AT(column)                                                                        \
    ((column) / 32 * 32 + (column) % 8 / 2 * 8 + (column) % 32 / 8 * 2 + (column) % 2)
/* Which column is where; of a word's first half the next is the next. */
#define RT_PIECE_COLUMN(at) ((at) / 32 * 32 + (at) % 8 / 2 * 8 + (at) % 32 / 8 * 2 + (at) % 2)

#endif
