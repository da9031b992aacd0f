/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_MLA_BLOCK_CUT_H
#define RT_KERNELS_ABI_MLA_BLOCK_CUT_H

/*
 * Who does what of mla_block: pure functions of shapes and the number of blocks. Every product is
 * units of fixed size, so a number is summed in the same order whatever the number of blocks is;
 * unit u is block u mod blocks's.
 *
 *   product       units                                       of
 *   a             q_rank / 16, or without q_rank 6 heads      16 rows of q; 32 rows of a head
 *   a             36 more                                     16 rows of kv_a
 *   q_b           6 heads; none without q_rank                32 rows of a head, a sixth of it
 *   W_UK          8 heads                                     64 columns of a head
 *   attention     128                                         a part of a token's keys, up to 16
 *                                                             heads: a group
 *   combine       8 heads                                     64 numbers of a head's latent sum
 *   W_UV          8 heads                                     16 values of a head
 *   o_proj        rows, cut by rt_mla_block_out_first
 *
 * A vector is one token of one row: vector row * q_len + token.
 */
#include "common/math.h"

#include <stdint.h>

#define RT_MLA_BLOCK_NOPE 128u
#define RT_MLA_BLOCK_ROPE 64u
#define RT_MLA_BLOCK_LATENT 512u
#define RT_MLA_BLOCK_VALUE 128u
#define RT_MLA_BLOCK_TOKEN (RT_MLA_BLOCK_LATENT + RT_MLA_BLOCK_ROPE)
#define RT_MLA_BLOCK_QUERY (RT_MLA_BLOCK_NOPE + RT_MLA_BLOCK_ROPE) /* rows of a head in q_b */

#define RT_MLA_BLOCK_MOST_VECTORS 8u
#define RT_MLA_BLOCK_MOST_HEADS 32u /* 8, 16 or 32 */
#define RT_MLA_BLOCK_GROUP 16u      /* heads that attend together, at most */
#define RT_MLA_BLOCK_MOST_RANK 1536u
#define RT_MLA_BLOCK_MOST_HIDDEN 7168u
/* Hidden sizes and q ranks are multiples of it. */
#define RT_MLA_BLOCK_EVEN 128u

#define RT_MLA_BLOCK_TILE_ROWS 16u  /* rows of a weight in a stage of the ring */
#define RT_MLA_BLOCK_QUERY_ROWS 32u /* of a unit of q_b */
#define RT_MLA_BLOCK_QUERY_UNITS (RT_MLA_BLOCK_QUERY / RT_MLA_BLOCK_QUERY_ROWS) /* of a head */
#define RT_MLA_BLOCK_PLAIN_UNITS (RT_MLA_BLOCK_NOPE / RT_MLA_BLOCK_QUERY_ROWS)  /* not turned */
#define RT_MLA_BLOCK_LATENT_UNITS (RT_MLA_BLOCK_TOKEN / RT_MLA_BLOCK_TILE_ROWS)
#define RT_MLA_BLOCK_HEAD_UNITS 8u /* of a head in W_UK, combine and W_UV */
#define RT_MLA_BLOCK_UNITS 128u    /* of attention: a multiple of slots by groups */
#define RT_MLA_BLOCK_OUT_ROWS 64u  /* of o_proj that are summed at once */

struct rt_mla_block_cut {
    uint32_t blocks;
    uint32_t query_units; /* of a, in front of kv_a's */
    uint32_t out_rows;    /* of o_proj, of a block that has units; even */
    uint32_t out_rest;    /* of one that has none, where there are more blocks than units */
};

/* Vectors that a kernel has room for: 1, 2, 4 or 8. */
static RT_HD inline uint32_t rt_mla_block_slots(uint32_t vectors)
{
    uint32_t slots = 1;
    while (slots < vectors)
        slots *= 2;
    return slots;
}

static RT_HD inline uint32_t rt_mla_block_groups(uint32_t heads)
{
    return rt_ceil_div_u32(heads, RT_MLA_BLOCK_GROUP);
}

/* The first of the 16 rows of all heads' q that tile 0 or 1 of a unit has. In half order the two
 * tiles of a turned unit have numbers that are turned together. */
static RT_HD inline uint32_t rt_mla_block_query_tile(uint32_t unit, uint32_t tile,
                                                     uint32_t half_order)
{
    const uint32_t part = unit % RT_MLA_BLOCK_QUERY_UNITS;
    if (!half_order || part < RT_MLA_BLOCK_PLAIN_UNITS)
        return unit * RT_MLA_BLOCK_QUERY_ROWS + tile * RT_MLA_BLOCK_TILE_ROWS;
    return unit / RT_MLA_BLOCK_QUERY_UNITS * RT_MLA_BLOCK_QUERY + RT_MLA_BLOCK_NOPE +
           (part - RT_MLA_BLOCK_PLAIN_UNITS) * RT_MLA_BLOCK_TILE_ROWS +
           tile * (RT_MLA_BLOCK_ROPE / 2u);
}

/* Hidden size, q rank and heads as the kernel takes them, blocks at least 1. Blocks without units
 * wait for others most of the time: they take whole tiles of o_proj and leave the others less. */
static RT_HD inline struct rt_mla_block_cut rt_mla_block_cut(uint32_t hidden_size, uint32_t q_rank,
                                                             uint32_t heads, uint32_t blocks)
{
    const uint32_t even = 2u * rt_ceil_div_u32(hidden_size, 2u * blocks);
    struct rt_mla_block_cut cut;
    cut.blocks = blocks;
    cut.query_units = q_rank ? q_rank / RT_MLA_BLOCK_TILE_ROWS : heads * RT_MLA_BLOCK_QUERY_UNITS;
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

/* A vector's keys are read in tiles of 16, and cut into as many parts as units have room for. */
static RT_HD inline uint32_t rt_mla_block_parts(uint32_t slots, uint32_t groups)
{
    return RT_MLA_BLOCK_UNITS / (slots * groups);
}

/* The tiles in front of a part. */
static RT_HD inline uint32_t rt_mla_block_first_tile(uint32_t tiles, uint32_t part, uint32_t parts)
{
    return tiles * part / parts; /* below 2^25 tiles, of 2^29 tokens */
}

#endif
