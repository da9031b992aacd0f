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
    RT_BLOCK_OUT_TILES = RT_MLA_BLOCK_OUT_ROWS / RT_BLOCK_TILE,
    RT_BLOCK_OF_HEAD = RT_MLA_BLOCK_HEAD_UNITS,

    RT_BLOCK_SUMS = 2 * RT_BLOCK_WORKERS * 160, /* floats: two tiles of eight vectors */
    RT_BLOCK_SCORE_PITCH = 36,                  /* floats from head to head */
    RT_BLOCK_SCORE_GROUP = RT_MLA_BLOCK_GROUP * RT_BLOCK_SCORE_PITCH,

    /* Tiles with new tokens: the last two of a vector, for each group. */
    RT_BLOCK_FRESH = 2 * RT_MLA_BLOCK_MOST_HEADS / RT_MLA_BLOCK_GROUP * RT_MLA_BLOCK_MOST_VECTORS,
};

/* What a kernel is compiled for. A general one has the token of a vector, halves of RoPE, biases
 * and factors of queries to ask for, the others 16 heads and rows of one token. */
template <int SLOTS_, int HEADS_, bool GENERAL_> struct rt_block_shape {
    static constexpr int SLOTS = SLOTS_, HEADS = HEADS_;
    static constexpr bool GENERAL = GENERAL_;
    static constexpr int GROUP = HEADS < (int)RT_MLA_BLOCK_GROUP ? HEADS : RT_MLA_BLOCK_GROUP;
    static constexpr int GROUPS = HEADS / GROUP;
    static constexpr int PIECES = RT_MLA_BLOCK_UNITS / GROUPS; /* of a head, of all vectors */
    static constexpr uint32_t QUERY_UNITS = HEADS * RT_MLA_BLOCK_QUERY_UNITS;
    static constexpr uint32_t HEAD_UNITS = HEADS * RT_BLOCK_OF_HEAD;
    static constexpr uint32_t OUT_WIDTH = HEADS * RT_MLA_BLOCK_VALUE; /* k of o_proj */
    static constexpr int OUT_CHUNKS = OUT_WIDTH / RT_BLOCK_CHUNK;
    /* Tiles with new tokens, the last of each vector and in general the one before. */
    static constexpr uint32_t FRESH = (GENERAL ? 2 : 1) * GROUPS * RT_MLA_BLOCK_MOST_VECTORS;

    static __device__ __forceinline__ uint32_t vectors_of(const struct rt_mla_block_params &p)
    {
        return GENERAL ? rt_mla_block_vectors(&p) : p.rows.count;
    }

    static __device__ __forceinline__ uint32_t row_of(const struct rt_mla_block_params &p,
                                                      uint32_t vector)
    {
        return GENERAL ? vector / p.rows.q_len : vector;
    }

    /* Keys that a vector sees, its own counted; 0 where it is padding. */
    static __device__ __forceinline__ uint32_t length_of(const struct rt_mla_block_params &p,
                                                         uint32_t vector)
    {
        const uint32_t row = row_of(p, vector);
        if (row >= p.rows.count || (p.rows.slot && p.rows.slot[row] < 0))
            return 0;
        int32_t length = p.rows.length[row];
        if (GENERAL && p.rows.q_len > 1) {
            const int32_t first = p.rows.position[row], token = (int32_t)(vector % p.rows.q_len);
            length = first >= 0 && first < length - token ? first + token + 1 : 0;
        }
        const bool is_bounded = p.rope.table || (GENERAL && p.rope.query_scale);
        const bool is_beyond = is_bounded && length > 0 && (uint32_t)length > p.rope.capacity;
        return length > 0 && !is_beyond ? (uint32_t)length : 0;
    }
};

#define RT_BLOCK_FULL_WARP 0xffffffffu

struct alignas(128) rt_block_desk {
    /* Sums of the warps, scores, q. At first input_norm's weight, and behind it sums. */
    float sums[RT_BLOCK_SUMS];
    uint16_t
        q_norm[RT_MLA_BLOCK_MOST_RANK]; /* later weights of a round's tokens, 80 bytes a head */
    /* Cosine and sine of each vector, of the pairs of the block's first unit of q. */
    float2 turn[RT_MLA_BLOCK_MOST_VECTORS][RT_MLA_BLOCK_QUERY_ROWS / 2];
    float squares[2][RT_BLOCK_WORKERS][RT_MLA_BLOCK_MOST_VECTORS];
    float alpha[RT_MLA_BLOCK_GROUP];
    float piece[RT_MLA_BLOCK_UNITS]; /* what a head's sum takes of each piece */
    uint64_t full[RT_BLOCK_STAGES], empty[RT_BLOCK_STAGES];
    uint64_t norms, turned;
    uint64_t opened[RT_BLOCK_FRESH], appended[RT_BLOCK_FRESH];
};

#define RT_BLOCK_SHARED_BYTES                                                                      \
    (RT_BLOCK_STAGES * RT_BLOCK_STAGE_BYTES + (uint32_t)sizeof(struct rt_block_desk))
static_assert(RT_BLOCK_SHARED_BYTES <= RT_MLA_BLOCK_SMEM_BYTES, "an SM's shared memory");
static_assert(sizeof(rt_block_desk::sums) >= RT_MLA_BLOCK_MOST_HIDDEN * 2, "input_norm's weight");
static_assert(sizeof(rt_block_desk::sums) >= 8 * RT_BLOCK_SCORE_GROUP * 4, "scores");
static_assert(sizeof(rt_block_desk::sums) >= RT_MLA_BLOCK_GROUP * RT_BLOCK_KEY_PITCH, "q");
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

/* A unit of attention: some tiles of one vector's keys, for a group of heads. */
template <class S> struct rt_block_share {
    uint32_t group, vector, part, slot;
    uint32_t length;            /* 0: padding */
    uint32_t first_new;         /* the row's first token that this launch adds; padding: -1 */
    uint32_t tiles, first, end; /* of the vector; this unit's */
    bool is_last;               /* of the vector's: its own token is here */

    __device__ __forceinline__ rt_block_share(const struct rt_mla_block_params &p, uint32_t unit)
    {
        const uint32_t parts = rt_mla_block_parts(S::SLOTS, S::GROUPS);
        const uint32_t of_group = S::GROUPS > 1 ? unit % S::PIECES : unit;
        group = S::GROUPS > 1 ? unit / S::PIECES : 0;
        vector = of_group / parts;
        part = of_group % parts;
        is_last = part + 1 == parts;
        length = S::length_of(p, vector);
        const uint32_t row = S::row_of(p, vector);
        slot = p.rows.slot && length > 0 ? (uint32_t)p.rows.slot[row] : row;
        first_new = length - 1 - (S::GENERAL && length > 0 ? vector % p.rows.q_len : 0);
        tiles = (length + RT_BLOCK_TILE - 1) / RT_BLOCK_TILE;
        first = rt_mla_block_first_tile(tiles, part, parts);
        end = rt_mla_block_first_tile(tiles, part + 1, parts);
    }

    /* Tokens of a tile of the unit that were there before this launch. */
    __device__ __forceinline__ uint32_t old_of(uint32_t tile) const
    {
        const uint32_t at = tile * RT_BLOCK_TILE;
        if (S::GENERAL && first_new <= at)
            return 0;
        return min(first_new - at, (uint32_t)RT_BLOCK_TILE);
    }

    /* Whether a tile has others too: of q_len up to 8 tokens no more than two have. */
    __device__ __forceinline__ bool is_fresh(uint32_t tile) const
    {
        return S::GENERAL ? (tile + 1) * RT_BLOCK_TILE > first_new : tile + 1 == tiles;
    }

    /* The first of them; padding has one all the same, to wait for. */
    __device__ __forceinline__ uint32_t first_fresh(void) const
    {
        return length > 0 ? first_new / RT_BLOCK_TILE : 0;
    }

    /* Its barriers. */
    __device__ __forceinline__ uint32_t fresh_of(uint32_t tile) const
    {
        const uint32_t back = S::GENERAL && length > 0 ? tiles - 1 - tile : 0;
        return (back * S::GROUPS + group) * RT_MLA_BLOCK_MOST_VECTORS + vector;
    }

    /* Barrier of the unit that has the vector's own token; of padding too. */
    __device__ __forceinline__ uint32_t own_fresh(void) const
    {
        return group * RT_MLA_BLOCK_MOST_VECTORS + vector;
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
