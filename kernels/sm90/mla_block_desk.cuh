/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_MLA_BLOCK_DESK_CUH
#define RT_KERNELS_SM90_MLA_BLOCK_DESK_CUH

/*
 * mla_block for Hopper: what a block keeps in shared memory, and which tokens are its own.
 *
 *   shared memory   bytes
 *   ring            11 x 18688   stages: 16 rows of 512 numbers, 16 tokens, or 128 rows of 64
 *   desk            26 to 27 K
 */
#include "kernels/abi/mla_block.h"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/sm90/stream.cuh"

enum {
    RT_BLOCK_WORKERS = RT_MLA_BLOCK_WORKERS,
    RT_BLOCK_BRINGERS = RT_MLA_BLOCK_BRINGERS,
    RT_BLOCK_CHUNK = 512, /* numbers of k to a stage: 32 a warp */
    RT_BLOCK_TILE = 16,   /* rows of a weight to a stage, or tokens */
    /* Bytes from row to row of a stage: rows 0 and 4, and so on, meet no bank of each other. */
    RT_BLOCK_ROW_PITCH = 2 * RT_BLOCK_CHUNK + 16,
    RT_BLOCK_KEY_PITCH = 2 * RT_MLA_BLOCK_TOKEN + 16,
    RT_BLOCK_HEAD_PITCH = 2 * 64 + 16, /* of W_UK, 64 numbers a row */
    RT_BLOCK_STAGE_BYTES = RT_BLOCK_TILE * RT_BLOCK_KEY_PITCH,
    RT_BLOCK_STAGES = 11,

    RT_BLOCK_RANK_CHUNKS = RT_MLA_BLOCK_MOST_RANK / RT_BLOCK_CHUNK,
    RT_BLOCK_OUT_WIDTH = RT_MLA_BLOCK_HEADS * RT_MLA_BLOCK_VALUE, /* k of o_proj */
    RT_BLOCK_OUT_CHUNKS = RT_BLOCK_OUT_WIDTH / RT_BLOCK_CHUNK,
    RT_BLOCK_OUT_TILES = RT_MLA_BLOCK_OUT_ROWS / RT_BLOCK_TILE,
    RT_BLOCK_OF_HEAD = RT_MLA_BLOCK_UNITS / RT_MLA_BLOCK_HEADS, /* units of a head: 8 */

    RT_BLOCK_SUMS = 2 * RT_BLOCK_WORKERS * 160, /* floats: two tiles of eight vectors */
    RT_BLOCK_SCORE_PITCH = 36,                  /* floats from head to head */
    RT_BLOCK_SCORE_GROUP = RT_MLA_BLOCK_HEADS * RT_BLOCK_SCORE_PITCH,
};

#define RT_BLOCK_FULL_WARP 0xffffffffu

struct alignas(128) rt_block_desk {
    /* Sums of the warps, scores, q. At first input_norm's weight, and behind it sums. */
    float sums[RT_BLOCK_SUMS];
    uint16_t
        q_norm[RT_MLA_BLOCK_MOST_RANK]; /* later weights of a round's tokens, 80 bytes a head */
    /* Cosine and sine of each row, of the pairs of the block's first unit of q. */
    float2 turn[RT_MLA_BLOCK_MOST_ROWS][RT_MLA_BLOCK_QUERY_ROWS / 2];
    float squares[2][RT_BLOCK_WORKERS][RT_MLA_BLOCK_MOST_ROWS];
    float alpha[RT_MLA_BLOCK_HEADS];
    float piece[RT_MLA_BLOCK_UNITS]; /* what a head's sum takes of each piece */
    uint64_t full[RT_BLOCK_STAGES], empty[RT_BLOCK_STAGES];
    uint64_t norms, turned;
    uint64_t opened[RT_MLA_BLOCK_MOST_ROWS], appended[RT_MLA_BLOCK_MOST_ROWS];
};

#define RT_BLOCK_SHARED_BYTES                                                                      \
    (RT_BLOCK_STAGES * RT_BLOCK_STAGE_BYTES + (uint32_t)sizeof(struct rt_block_desk))
static_assert(RT_BLOCK_SHARED_BYTES <= RT_MLA_BLOCK_SMEM_BYTES, "an SM's shared memory");
static_assert(sizeof(rt_block_desk::sums) >= RT_MLA_BLOCK_MOST_HIDDEN * 2, "input_norm's weight");
static_assert(sizeof(rt_block_desk::sums) >= 8 * RT_BLOCK_SCORE_GROUP * 4, "scores");
static_assert(sizeof(rt_block_desk::sums) >= RT_MLA_BLOCK_HEADS * RT_BLOCK_KEY_PITCH, "q");
static_assert(RT_BLOCK_TILE * RT_BLOCK_ROW_PITCH <= RT_BLOCK_STAGE_BYTES, "rows of a weight");
static_assert(RT_MLA_BLOCK_NOPE * RT_BLOCK_HEAD_PITCH <= RT_BLOCK_STAGE_BYTES, "rows of W_UK");

static __device__ __forceinline__ uint32_t rt_block_chunks(uint32_t k)
{
    return (k + RT_BLOCK_CHUNK - 1) / RT_BLOCK_CHUNK;
}

/* Units of a: q's, then kv_a's. */
static __device__ __forceinline__ uint32_t rt_block_a_units(const struct rt_mla_block_cut &cut)
{
    return cut.query_units + RT_MLA_BLOCK_LATENT_UNITS;
}

/* A unit of attention: some tiles of one row. */
struct rt_block_share {
    uint32_t row, part, slot;
    uint32_t length;            /* 0: padding */
    uint32_t tiles, first, end; /* of the row; this unit's */
    bool is_last;               /* of the row's: the new token is its */

    __device__ __forceinline__ rt_block_share(const struct rt_mla_block_params &p, uint32_t slots,
                                              uint32_t unit)
    {
        const uint32_t parts = rt_mla_block_parts(slots);
        row = unit / parts;
        part = unit % parts;
        is_last = part + 1 == parts;
        length = length_of(p, row);
        slot = p.rows.slot && length > 0 ? (uint32_t)p.rows.slot[row] : row;
        tiles = (length + RT_BLOCK_TILE - 1) / RT_BLOCK_TILE;
        first = rt_mla_block_first_tile(tiles, part, parts);
        end = rt_mla_block_first_tile(tiles, part + 1, parts);
    }

    /* Tokens of a row, the new one counted; 0 where it is padding. */
    static __device__ __forceinline__ uint32_t length_of(const struct rt_mla_block_params &p,
                                                         uint32_t row)
    {
        if (row >= p.rows.count || (p.rows.slot && p.rows.slot[row] < 0))
            return 0;
        const int32_t length = p.rows.length[row];
        const bool is_beyond = p.rope.table && length > 0 && (uint32_t)length > p.rope.capacity;
        return length > 0 && !is_beyond ? (uint32_t)length : 0;
    }

    /* -1 where the table has none. */
    __device__ __forceinline__ int page_of(const struct rt_kv_view &kv, uint32_t column) const
    {
        if (column >= kv.max_blocks)
            return -1;
        const int32_t page = kv.table[(uint64_t)slot * kv.max_blocks + column];
        return page >= 0 && (uint32_t)page < kv.pages ? page : -1;
    }
};

static __device__ __forceinline__ unsigned char *rt_block_token(const struct rt_kv_view &kv,
                                                                int page, uint32_t row)
{
    return kv.base + page * kv.page_stride_bytes + row * kv.token_stride_bytes;
}

#endif
