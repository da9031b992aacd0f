/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_MLA_BLOCK_CUT_H
#define RT_KERNELS_ABI_MLA_BLOCK_CUT_H

/*
 * Who does what of mla_block: pure functions of shapes and the number of blocks. Every product is
 * units of fixed size, so a number is summed in the same order whatever the number of blocks is;
 * unit u is block u mod blocks's.
 *
 *   product       units                                     of
 *   a             q_rank / 16, or without q_rank 96         16 rows of q; 32, a third of two heads'
 *   a             36 more                                   16 rows of kv_a
 *   q_b           96; none without q_rank                   32 rows of a head, a sixth of it
 *   W_UK          128                                       64 columns of a head
 *   attention     128                                       a part of a row's tokens, all heads
 *   combine       128                                       64 numbers of a head's latent sum
 *   W_UV          128                                       16 values of a head
 *   o_proj        rows, cut by rt_mla_block_out_rows
 */
#include "common/math.h"

#include <stdint.h>

#define RT_MLA_BLOCK_HEADS 16u
#define RT_MLA_BLOCK_NOPE 128u
#define RT_MLA_BLOCK_ROPE 64u
#define RT_MLA_BLOCK_LATENT 512u
#define RT_MLA_BLOCK_VALUE 128u
#define RT_MLA_BLOCK_TOKEN (RT_MLA_BLOCK_LATENT + RT_MLA_BLOCK_ROPE)
#define RT_MLA_BLOCK_QUERY (RT_MLA_BLOCK_NOPE + RT_MLA_BLOCK_ROPE) /* rows of a head in q_b */

#define RT_MLA_BLOCK_MOST_ROWS 8u
#define RT_MLA_BLOCK_MOST_RANK 1536u
#define RT_MLA_BLOCK_MOST_HIDDEN 7168u
/* Hidden sizes and q ranks are multiples of it. */
#define RT_MLA_BLOCK_EVEN 128u

#define RT_MLA_BLOCK_TILE_ROWS 16u  /* rows of a weight in a stage of the ring */
#define RT_MLA_BLOCK_QUERY_ROWS 32u /* of a unit of q_b */
#define RT_MLA_BLOCK_QUERY_UNITS (RT_MLA_BLOCK_HEADS * RT_MLA_BLOCK_QUERY / RT_MLA_BLOCK_QUERY_ROWS)
#define RT_MLA_BLOCK_LATENT_UNITS (RT_MLA_BLOCK_TOKEN / RT_MLA_BLOCK_TILE_ROWS)
#define RT_MLA_BLOCK_UNITS 128u   /* eight a head, or a multiple of every number of slots */
#define RT_MLA_BLOCK_OUT_ROWS 64u /* of o_proj that are summed at once */

struct rt_mla_block_cut {
    uint32_t blocks;
    uint32_t query_units; /* of a, in front of kv_a's */
    uint32_t out_rows;    /* of o_proj, of a block that has units; even */
    uint32_t out_rest;    /* of one that has none, where there are more blocks than units */
};

/* Rows that a kernel has room for: 1, 2, 4 or 8. */
static RT_HD inline uint32_t rt_mla_block_slots(uint32_t rows)
{
    uint32_t slots = 1;
    while (slots < rows)
        slots *= 2;
    return slots;
}

/* Hidden size and q rank as the kernel takes them, blocks at least 1. Blocks without units wait for
 * others most of the time, so they take whole tiles of o_proj and leave the others less. */
static RT_HD inline struct rt_mla_block_cut rt_mla_block_cut(uint32_t hidden_size, uint32_t q_rank,
                                                             uint32_t blocks)
{
    const uint32_t even = 2u * rt_ceil_div_u32(hidden_size, 2u * blocks);
    struct rt_mla_block_cut cut;
    cut.blocks = blocks;
    cut.query_units = q_rank ? q_rank / RT_MLA_BLOCK_TILE_ROWS : RT_MLA_BLOCK_QUERY_UNITS;
    cut.out_rows = even;
    cut.out_rest = 0;
    if (blocks > RT_MLA_BLOCK_UNITS) {
        cut.out_rest = RT_MLA_BLOCK_TILE_ROWS * rt_ceil_div_u32(even, RT_MLA_BLOCK_TILE_ROWS);
        const uint32_t rest = (blocks - RT_MLA_BLOCK_UNITS) * cut.out_rest;
        const uint32_t shared = hidden_size > rest ? hidden_size - rest : 0;
        cut.out_rows = 2u * rt_ceil_div_u32(shared, 2u * RT_MLA_BLOCK_UNITS);
    }
    return cut;
}

/* Rows of o_proj that blocks in front of this one have, at most hidden_size: a block's rows end
 * where the next one's begin. */
static RT_HD inline uint32_t rt_mla_block_out_first(const struct rt_mla_block_cut *cut,
                                                    uint32_t hidden_size, uint32_t block)
{
    const uint32_t units = rt_min_u32(block, RT_MLA_BLOCK_UNITS);
    return rt_min_u32(units * cut->out_rows + (block - units) * cut->out_rest, hidden_size);
}

/* A row's tokens are read in tiles of 16, and cut into as many parts as units have room for. */
static RT_HD inline uint32_t rt_mla_block_parts(uint32_t slots)
{
    return RT_MLA_BLOCK_UNITS / slots;
}

/* The tiles in front of a part. */
static RT_HD inline uint32_t rt_mla_block_first_tile(uint32_t tiles, uint32_t part, uint32_t parts)
{
    return tiles * part / parts; /* below 2^25 tiles, of 2^29 tokens */
}

#endif
