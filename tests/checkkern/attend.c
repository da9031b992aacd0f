/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/attend_case.h"

#include <string.h>

static const struct {
    uint32_t d_qk, d_v;
} geometries[] = {{576, 512}, {320, 256}, {288, 256}, {512, 512}};
#define GEOMETRIES 4u

static const uint32_t page_sizes[] = {64, 16, 128, 32, 1, 8};
#define PAGE_SIZES 6u
static const uint32_t query_lens[] = {1, 2, 4, 8, 3, 5, 6, 7};
#define QUERY_LENS 8u

/* (heads of models over 1 to 8 GPUs, and their neighbours) */
static const uint32_t head_counts[] = {1, 3, 5, 9, 10, 16, 20, 24, 40, 48, 63, 64, 96, 126, 128};
#define HEAD_COUNTS 15u

/* Pairs of a query row and a key that a case may have: where the kernels are the C references, a
 * pair costs half a microsecond. */
static uint32_t pair_budget(const struct ck *ck)
{
    return (ck_is_cuda(ck) ? 8u : 1u) * (ck->full ? 4u : 1u) * (ck->quick ? 8000u : 30000u);
}

static int32_t edge_length(struct ck_random *random, uint32_t step)
{
    int32_t near = (int32_t)ck_random_below(random, 3) - 1;
    return (int32_t)(ck_random_below(random, 4) * step) + near;
}

/* Lengths of one kind until `tokens` are used up: 12 rows at most. */
static void fill_lengths(struct ck_attend *c, struct ck_random *random, uint32_t kind,
                         uint32_t tokens)
{
    uint32_t used = 0;
    for (c->rows = 0; c->rows < 12 && (used < tokens || c->rows == 0); c->rows++) {
        uint32_t left = tokens - used;
        int32_t length;
        if (kind == 0)
            length = edge_length(random, c->page_size);
        else if (kind == 1)
            length = edge_length(random, RT_BLOCK_TOKENS);
        else if (kind == 2) /* short: fewer keys than query tokens */
            length = (int32_t)ck_random_below(random, c->q_len + 2);
        else if (kind == 3) /* long, then whatever is left */
            length = 1 + (int32_t)ck_random_below(random, left);
        else
            length = (int32_t)ck_random_below(random, 200);
        if (length > (int32_t)left)
            length = (int32_t)left;
        c->lengths[c->rows] = length;
        used += length > 0 ? (uint32_t)length : 0;
    }
}

/* Everything that is not geometry, heads or query length turns with `n`, each at its own pace. */
struct ck_attend ck_attend_turn(const struct ck *ck, uint32_t geometry, uint32_t heads,
                                uint32_t q_len, uint32_t n)
{
    struct ck_attend c = {.d_qk = geometries[geometry].d_qk,
                          .d_v = geometries[geometry].d_v,
                          .heads = heads,
                          .q_len = q_len,
                          .page_size = page_sizes[(n + n / 8 + n / 32) % PAGE_SIZES],
                          .causal = n % 3 != 2,
                          .strided = n % 5 == 1,
                          .slots = n % 2 == 1,
                          .lse_base2 = n % 11 < 5,
                          .sink = n % 13 < 5,
                          .row_base = n % 7 < 3 ? 1 + n % 7 : 0,
                          .scale = n % 4 ? 0.1352338f : 0.072f,
                          .seed = ck->seed * 1000003u + n};
    struct ck_random random = {.state = c.seed ^ 0x5eedu};
    uint32_t tokens = pair_budget(ck) / (heads * q_len);
    fill_lengths(&c, &random, n % 5, tokens < 100 ? 100 : tokens > 4000 ? 4000 : tokens);
    c.padded = n % 4 == 3 ? ck_random_below(&random, c.rows) : 0;
    if (n % 6 == 5) { /* a schedule of small pieces */
        c.parts = 1 + ck_random_below(&random, 40);
        c.min_blocks = 1;
    }
    return c;
}

static void check_grid(struct ck *ck)
{
    uint32_t n = 0;
    for (uint32_t g = 0; g < GEOMETRIES; g++)
        for (uint32_t h = 0; h < HEAD_COUNTS; h++)
            for (uint32_t q = 0; q < QUERY_LENS; q++) {
                /* Thinned: every head count with one query length, another in each geometry. */
                if (!ck->full && q != (g + h) % QUERY_LENS)
                    continue;
                if (ck_is_brief(ck) && (g + h) % 2) /* in two of the four */
                    continue;
                struct ck_attend c = ck_attend_turn(ck, g, head_counts[h], query_lens[q], n);
                ck_attend_check(ck, &c);
                if (ck->full) {
                    c.causal = !c.causal;
                    c.strided = !c.strided;
                    ck_attend_check(ck, &c);
                }
                n++;
            }
}

/* Query rows at the edges of tiles of every size, and one beside them. */
static void check_edges(struct ck *ck)
{
    static const struct {
        uint32_t heads, q_len;
    } edges[] = {{7, 1},  {8, 1},  {3, 3},  {5, 3},  {4, 4},   {17, 1},  {23, 1},
                 {8, 3},  {5, 5},  {31, 1}, {16, 2}, {11, 3},  {47, 1},  {8, 6},
                 {7, 7},  {9, 7},  {32, 2}, {13, 5}, {127, 1}, {64, 2},  {43, 3},
                 {51, 5}, {64, 4}, {37, 7}, {73, 7}, {128, 4}, {127, 8}, {128, 8}};
    for (uint32_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++)
        for (uint32_t g = 0; g < GEOMETRIES; g++) {
            /* Thinned: each in one geometry, and on the host every second of them. */
            if (!ck->full && (g != i % GEOMETRIES || (!ck_is_cuda(ck) && i / 4 % 2)))
                continue;
            struct ck_attend c = ck_attend_turn(ck, g, edges[i].heads, edges[i].q_len, 5 * i + g);
            ck_attend_check(ck, &c);
        }
}

static void check_flavours(struct ck *ck)
{
    static const uint32_t heads[] = {3, 16, 33};
    uint32_t n = 0;
    for (uint32_t flavour = CK_HUGE; flavour < CK_SCALES; flavour++)
        for (uint32_t g = 0; g < GEOMETRIES; g++)
            for (uint32_t h = 0; h < 3; h++, n++) {
                if (!ck->full && h != (flavour + g) % 3)
                    continue;
                if (ck_is_brief(ck) && (flavour + g) % 2)
                    continue;
                struct ck_attend c = ck_attend_turn(ck, g, heads[h], 1 + n % 2, n);
                c.flavour = (enum ck_flavour)flavour;
                /* Scores come from the last element, which without a rope part is a value, too. */
                if (c.d_qk == c.d_v && (flavour == CK_MINUS_INF || flavour == CK_PLUS_INF))
                    continue;
                if (c.flavour == CK_HUGE)
                    c.scale = 40000;
                /* Seen by every token of the row, as the promise about NaN keys wants it. */
                c.causal = c.causal && flavour != CK_NAN_KEY && flavour != CK_PLUS_INF;
                ck_attend_check(ck, &c);
            }
}

/*
 * Drafts that are not finite reach the tokens that see them, and those alone: in tiles of every
 * kind and geometry, with the drafts in a block of their own, over a block's edge, in a piece of
 * their own, and more of them than there are keys.
 */
static void check_drafts(struct ck *ck)
{
    static const int32_t lengths[] = {65, 64, 130, 200, 3, 67, 128, 1, 191, 66, 195, 259};
    static const struct {
        uint32_t heads, q_len;
    } shapes[] = {{2, 3}, {1, 8}, {5, 3}, {2, 8}, {16, 2}, {4, 7}, {20, 3}, {9, 7}, {128, 2}};
    const uint32_t count = sizeof(shapes) / sizeof(shapes[0]);
    for (uint32_t n = 0; n < count * GEOMETRIES; n++) {
        const uint32_t s = n / GEOMETRIES;
        /* Thinned: of two shapes of a tile, either in two geometries, or in one. */
        const uint32_t every = ck_is_brief(ck) ? GEOMETRIES : 2;
        if (!ck->full && (s == count - 1 ? n % GEOMETRIES != 0 : (n + s) % every != 0))
            continue;
        struct ck_attend c =
            ck_attend_turn(ck, n % GEOMETRIES, shapes[s].heads, shapes[s].q_len, n);
        memcpy(c.lengths, lengths, sizeof(lengths));
        c.rows = shapes[s].heads == 128 && !ck_is_cuda(ck) ? 4 : 12;
        c.padded = 0;
        c.causal = true;
        c.flavour = CK_BAD_DRAFT;
        c.parts = n % 3 == 0 ? 40 : 3;
        c.overhead_blocks = 0;
        c.min_blocks = 1;
        ck_attend_check(ck, &c);
    }
}

/* A row's only key has weight 1, whatever its score: also where the rounding of its exponent is
 * larger than the exponents that have a power of 2. */
static void check_single_keys(struct ck *ck)
{
    static const uint32_t heads[] = {3, 16, 20, 64};
    static const float scales[] = {1e7f, 1e10f, 1e13f, 1e30f};
    for (uint32_t n = 0; n < 16; n++) {
        if (!ck->full && n % 4 != n / 4)
            continue;
        struct ck_attend c = ck_attend_turn(ck, n % GEOMETRIES, heads[n / 4], 1, n);
        c.rows = 3;
        c.padded = 0;
        c.scale = scales[(n + n / 4) % 4];
        for (uint32_t r = 0; r < c.rows; r++)
            c.lengths[r] = 1;
        ck_attend_check(ck, &c);
    }
}

/* Pieces of one block, the last with a single key that early tokens do not see. */
static void check_small_pieces(struct ck *ck)
{
    static const int32_t lengths[] = {129, 65, 193, 64, 1, 257};
    for (uint32_t n = 0; n < 8; n++) {
        struct ck_attend c =
            ck_attend_turn(ck, n % GEOMETRIES, n < 4 ? 2 : 16, query_lens[n % 4], n);
        memcpy(c.lengths, lengths, sizeof(lengths));
        c.rows = 6;
        c.padded = 0;
        c.causal = true;
        c.parts = 60;
        c.overhead_blocks = 0;
        c.min_blocks = 1;
        ck_attend_check(ck, &c);
    }
}

/*
 * Long parts over many rows of odd and of even numbers of blocks: whatever a kernel counts over the
 * whole part meets every beginning of a row odd and even.
 */
static void check_long_parts(struct ck *ck)
{
    static const int32_t blocks[] = {3, 4, 5, 1, 2, 6, 1, 7, 4, 3};
    static const uint32_t heads[] = {5, 16, 20, 64};
    for (uint32_t n = 0; n < 16; n++) {
        if (!ck->full && !ck_is_cuda(ck) && n % 4 != n / 4)
            continue;
        struct ck_attend c = ck_attend_turn(ck, n % GEOMETRIES, heads[n / 4], 1, n);
        c.rows = 10;
        c.padded = 0;
        for (uint32_t r = 0; r < c.rows; r++)
            c.lengths[r] = 64 * blocks[r] - (int32_t)(r % 3 ? 7 * r : 0);
        c.parts = 1 + n % 3;
        c.overhead_blocks = 0;
        c.min_blocks = 1;
        ck_attend_check(ck, &c);
    }
}

/*
 * Tiles of 64 query rows that share their keys, two and four, and an odd number of them, which do
 * not, the last of them full and not: rows of odd and even numbers of blocks in long parts, in
 * pieces and one after the other, with what is not finite among their keys, and pages of all sizes.
 */
static void check_shared(struct ck *ck)
{
    static const int32_t lengths[] = {129, 64, 200, 1, 320, 65, 450, 63, 257};
    static const enum ck_flavour flavours[] = {CK_PLAIN, CK_BAD_DRAFT, CK_FAR, CK_BAD_PAGES,
                                               CK_MINUS_INF};
    static const struct {
        uint32_t heads, q_len;
    } shapes[] = {{128, 1}, {70, 1}, {64, 2}, {96, 1}, {127, 2}, {65, 2}, {43, 3}};
    for (uint32_t n = 0; n < 70; n++) {
        const uint32_t s = n % 7, geometry = n % 4 == 3 ? 1 + n / 4 % 3 : 0;
        if (!ck->full && !ck_is_cuda(ck) && n / 7 % (ck->quick ? 7 : 4) != n % 7 / 2)
            continue;
        struct ck_attend c = ck_attend_turn(ck, geometry, shapes[s].heads, shapes[s].q_len, n);
        c.rows = ck_is_cuda(ck) ? 9 : 2 + n % 3;
        c.padded = n % 4 == 3;
        for (uint32_t r = 0; r < c.rows; r++)
            c.lengths[r] = r < c.rows - c.padded ? lengths[(n + r) % 9] : 0;
        c.flavour = flavours[(n + s) % 5];
        if (geometry == 3 && c.flavour == CK_MINUS_INF) /* as in check_flavours */
            c.flavour = CK_PLAIN;
        c.causal = c.causal || c.flavour == CK_BAD_DRAFT;
        c.parts = n % 3 == 0 ? 0 : n % 3 == 1 ? 2 : 11;
        c.is_many = true;
        c.overhead_blocks = 0;
        c.min_blocks = 1;
        ck_attend_check(ck, &c);
    }
}

/* Each tile of the generic kernel with query rows that it would not be chosen for. */
static void check_tiles(struct ck *ck)
{
    static const uint32_t tiles[] = {16, 32, 64}, heads[] = {1, 20, 70};
    for (uint32_t n = 0; n < 36; n++) {
        if (!ck->full && n % 3 != n / 12)
            continue;
        struct ck_attend c = ck_attend_turn(ck, n / 3 % 4, heads[n / 12], 1 + n % 2, n);
        c.tile_rows = tiles[n % 3];
        ck_attend_check(ck, &c);
    }
}

/* A large batch with empty rows between, and one long row that is cut into many pieces. */
static void check_batches(struct ck *ck)
{
    struct ck_attend many = ck_attend_turn(ck, 0, 1, 2, 1);
    struct ck_random random = {.state = ck->seed};
    many.rows = 128;
    for (uint32_t r = 0; r < many.rows; r++)
        many.lengths[r] = r % 5 == 2 ? 0 : (int32_t)ck_random_below(&random, 150);
    ck_attend_check(ck, &many);

    struct ck_attend one = ck_attend_turn(ck, 0, 2, 1, 0);
    one.rows = 1;
    one.padded = 0;
    one.lengths[0] = (int32_t)(pair_budget(ck) / 8);
    one.parts = 132;
    one.overhead_blocks = 2;
    one.min_blocks = 2;
    ck_attend_check(ck, &one);
}

static void check_far(struct ck *ck)
{
    for (uint32_t g = 0; g < 2; g++) {
        struct ck_attend c = ck_attend_turn(ck, g, 16, 1, 4);
        c.rows = 4;
        c.padded = 0;
        c.page_size = 64;
        c.far = true;
        c.strided = false;
        for (int32_t r = 0; r < 4; r++)
            c.lengths[r] = 300 + 321 * r;
        ck_attend_check(ck, &c);
    }
}

static void check_million(struct ck *ck)
{
    struct ck_attend c = ck_attend_turn(ck, 0, 1, 1, 0);
    c.rows = 2;
    c.padded = 0;
    c.lengths[0] = RT_MAX_LENGTH;
    c.lengths[1] = 3;
    ck_attend_check(ck, &c);
}

void ck_attend_run(struct ck *ck)
{
    check_grid(ck);
    check_edges(ck);
    check_flavours(ck);
    check_drafts(ck);
    check_single_keys(ck);
    check_small_pieces(ck);
    check_long_parts(ck);
    check_shared(ck);
    check_tiles(ck);
    check_batches(ck);
    ck_attend_peer_run(ck);
    if (ck_is_cuda(ck))
        check_far(ck);
    if (ck->full && ck_is_cuda(ck))
        check_million(ck);
}
