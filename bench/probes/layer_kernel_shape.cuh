/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_PROBES_LAYER_KERNEL_SHAPE_CUH
#define RT_BENCH_PROBES_LAYER_KERNEL_SHAPE_CUH

/*
 * A DeepSeek-V3 block with 16 heads on 132 SMs as one kernel: sizes, who has what, where it lies.
 *
 * Blocks hand results to each other through words that are blank, 0xffffffff, until they are
 * written: no rounding gives that pattern, so a reader tries again until no word is blank, and
 * there is no flag, no fence and no barrier over the grid. Layers use two such exchanges in turn;
 * each blanks the one that the layer before has read and the layer behind will write.
 */
#include <stdint.h>

enum {
    HIDDEN = 7168,
    Q_LORA = 1536,
    KV_LORA = 512,
    ROPE = 64,
    HEADS = 16,
    NOPE = 128,
    VALUE = 128,
    TOKEN = KV_LORA + ROPE,
    DOWN = Q_LORA + TOKEN, /* rows of q_a and kv_a together */
    OUT = HEADS * VALUE,
    PAGE = 64,

    BLOCKS = 132,
    SHARERS = 128, /* blocks that have a part of a head: eight a head */
    OF_HEAD = SHARERS / HEADS,
    ASKERS = Q_LORA / 16, /* blocks that make q_a, and then q: six a head, two of them RoPE's */
    OF_QUERY = ASKERS / HEADS,
    UP_ROWS = (NOPE + ROPE) / OF_QUERY,
    OUT_ROWS = 54, /* of o_proj, a sharer's; the other blocks have 64 */
    OUT_ROWS_REST = 64,

    WORKERS = 16, /* warps that multiply */
    BRINGERS = 2, /* warps that ask for stages */
    THREADS = 32 * (WORKERS + BRINGERS + 1),

    CHUNK = 512, /* numbers of k to a stage of 16 rows */
    ROW_PITCH =
        1040, /* bytes from row to row of a stage: rows 0 and 4 meet no bank of each other */
    KEY_PITCH = 1168, /* likewise tokens */
    HEAD_PITCH = 144, /* likewise rows of W_UK, 64 numbers each */
    TILE = 16,        /* tokens to a stage */
    STAGE = 16 * KEY_PITCH,
    STAGES = 11,
    DOWN_STAGES = HIDDEN / CHUNK,
    Q_CHUNKS = Q_LORA / CHUNK,
    UP_STAGES = UP_ROWS / 16 * Q_CHUNKS,

    SCORE_PITCH = 36, /* floats from head to head */
    SCORE_GROUP = HEADS * SCORE_PITCH,
};
static_assert(SHARERS * OUT_ROWS + (BLOCKS - SHARERS) * OUT_ROWS_REST == HIDDEN, "rows of o_proj");

#define RT_PROBE_BLANK 0xffffffffu

/* bf16 all, row by row; what a step reads is constant but for hidden. */
struct layer_params {
    const uint16_t *down; /* [DOWN][HIDDEN] */
    const uint16_t *up;   /* [HEADS][NOPE + ROPE][Q_LORA] */
    const uint16_t *kv_b; /* [HEADS][NOPE + VALUE][KV_LORA] */
    const uint16_t *o;    /* [HIDDEN][OUT] */
    const uint16_t *hidden_norm, *q_norm, *kv_norm;
    const uint16_t *hidden;          /* [B][HIDDEN] */
    uint16_t *out;                   /* [B][HIDDEN]: hidden + the block */
    uint16_t *cache;                 /* [pages][PAGE][TOKEN] */
    const uint32_t *pages;           /* [B][pages_per_row] */
    const uint32_t *lengths;         /* [B], the new token counted */
    const float2 *rope;              /* [positions][ROPE / 2] cosine, sine */
    unsigned char *exchange, *other; /* of this layer; to be blanked */
    unsigned long long *stamps;      /* [BLOCKS][MOMENTS] ns, or null */
    uint32_t pages_per_row;
    uint32_t flight;  /* stages of a block on their way at a time */
    uint32_t slow;    /* likewise while other blocks have what all wait for */
    uint32_t eager;   /* whether pieces are asked for before their sums are known */
    uint32_t touch;   /* whether what comes later is touched at once: pages found, no more */
    uint32_t ahead;   /* the last of these chunks of o_proj come to L2 early */
    float scale_log2; /* of scores, times log2 e */
    float eps;
};

/* Byte offsets in an exchange for B rows. The pieces, of 32 tokens each where there is one row, are
 * f32, or bf16: half the bytes, and errors no larger than those of the sum, which is bf16. */
template <int B, bool SHORT> struct exchange {
    static constexpr uint32_t DOWN_AT = 0;                           /* bf16 [B][DOWN] */
    static constexpr uint32_t NOPE_AT = DOWN_AT + B * DOWN * 2;      /* bf16 [B][HEADS][NOPE] */
    static constexpr uint32_t Q_AT = NOPE_AT + B * HEADS * NOPE * 2; /* bf16 [B][HEADS][TOKEN] */
    static constexpr uint32_t O_AT = Q_AT + B * HEADS * TOKEN * 2;   /* bf16 [B][HEADS][KV_LORA] */
    static constexpr uint32_t V_AT = O_AT + B * HEADS * KV_LORA * 2; /* bf16 [B][OUT] */
    static constexpr uint32_t ML_AT = V_AT + B * OUT * 2;            /* float2 [HEADS][SHARERS] */
    static constexpr uint32_t PART_AT = ML_AT + SHARERS * HEADS * 8; /* [..][..][KV_LORA] */
    static constexpr uint32_t PART = SHORT ? 2 : 4;
    static constexpr uint32_t BYTES = PART_AT + SHARERS * HEADS * KV_LORA * PART;
};

enum moment {
    ENTERED,
    WAITED,
    DOWN_HERE,
    DOWN_DONE,
    DOWN_STORED,
    UP_HERE,
    UP_DONE,
    UP_STORED,
    ABSORB_HERE,
    ABSORB_STORED,
    ATTEND_HERE,
    ATTEND_DONE,
    ATTEND_STORED,
    COMBINE_HERE,
    COMBINE_STORED,
    VALUE_HERE,
    VALUE_STORED,
    O_HERE,
    O_DONE,
    LEFT,
    MOMENTS
};

/* What a block keeps in shared memory besides the ring. */
struct alignas(128) layer_desk {
    float sums[16 * 2 * 160];    /* partial sums, scores; before them, the norm of hidden */
    uint16_t q_norm[Q_LORA];     /* later the weights of a round of tokens, 80 bytes a head */
    float2 turn[8][UP_ROWS / 2]; /* cosine and sine of the block's part of a head, of each row */
    float squares[2][WORKERS][8];
    float alpha[HEADS];
    float piece[SHARERS]; /* what a block's head takes of each block's piece */
    uint64_t full[STAGES], empty[STAGES];
    uint64_t norms, turned, opened, appended;
    uint32_t is_free; /* memory: what others wait for has come */
};

static constexpr uint32_t SHARED_BYTES = STAGES * STAGE + sizeof(layer_desk);
static_assert(SHARED_BYTES <= 232448, "an SM's shared memory");
static_assert(sizeof(layer_desk::sums) >= HIDDEN * 2, "the norm of hidden");
static_assert(sizeof(layer_desk::sums) >= 8 * SCORE_GROUP * 4, "scores");

/* A block's tokens: some tiles of one row. */
struct layer_share {
    uint32_t row, length, tiles, first, end;

    template <int B> static __device__ __forceinline__ layer_share of(const layer_params &p)
    {
        constexpr uint32_t parts = SHARERS / B;
        const uint32_t part = blockIdx.x % parts;
        layer_share s;
        s.row = blockIdx.x / parts;
        s.length = p.lengths[s.row];
        s.tiles = (s.length + TILE - 1) / TILE;
        s.first = s.tiles * part / parts;
        s.end = s.tiles * (part + 1) / parts;
        return s;
    }

    /* The row's new token, its last, is in the block's last tile. */
    __device__ __forceinline__ bool has_new(void) const
    {
        return end == tiles && first < end;
    }

    __device__ __forceinline__ uint64_t token_at(const layer_params &p, uint32_t page,
                                                 uint32_t token) const
    {
        return ((uint64_t)page * PAGE + token % PAGE) * TOKEN;
    }
};

#endif
