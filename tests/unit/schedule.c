/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include "tests/checkkern/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_ROWS 4096
#define MAX_PARTS 1000
#define GUARD 0x5a5a5a5a

struct plan {
    int32_t lengths[MAX_ROWS];
    struct rt_part tiles[MAX_PARTS + 1];
    int32_t num_splits[MAX_ROWS + 2];
    int32_t pieces[MAX_ROWS];
    struct rt_schedule_params p;
};

static int64_t blocks(const struct plan *plan, int32_t row)
{
    int64_t length = plan->lengths[row];
    return length > 0 ? (length + RT_BLOCK_TOKENS - 1) / RT_BLOCK_TOKENS : 0;
}

/* What a failing property prints before it fails, so that the case can be made again. */
static void require(const struct plan *plan, bool holds, const char *what, int32_t where)
{
    if (holds)
        return;
    print_error("schedule of %u rows, %u parts, overhead %u, min %u: %s at %d\n",
                plan->p.rows.count, plan->p.schedule.part_count, plan->p.overhead_blocks,
                plan->p.min_blocks, what, where);
    for (uint32_t r = 0; r < plan->p.rows.count && r < 64; r++)
        print_error("%d ", plan->lengths[r]);
    print_error("\n");
    fail();
}

static void run_rule(struct plan *plan, uint32_t rows, uint32_t parts, uint32_t overhead,
                     uint32_t min, uint32_t invariant)
{
    memset(plan->tiles, 0x5a, sizeof(plan->tiles));
    memset(plan->num_splits, 0x5a, sizeof(plan->num_splits));
    plan->p = (struct rt_schedule_params){.rows.length = plan->lengths,
                                          .schedule.parts = plan->tiles,
                                          .schedule.num_splits = plan->num_splits,
                                          .rows.count = rows,
                                          .schedule.part_count = parts,
                                          .schedule.invariant = invariant,
                                          .overhead_blocks = overhead,
                                          .min_blocks = min};
    rt_ref_schedule(&plan->p);
}

static void run(struct plan *plan, uint32_t rows, uint32_t parts, uint32_t overhead, uint32_t min)
{
    run_rule(plan, rows, parts, overhead, min, 0);
}

struct place {
    int32_t row;
    int64_t block;
};

static struct place skip_empty(const struct plan *plan, int32_t row)
{
    while (row < (int32_t)plan->p.rows.count && blocks(plan, row) == 0)
        row++;
    return (struct place){.row = row, .block = 0};
}

/* One part's pieces, from `at`: returns where it ends and adds to *work what it costs. */
static struct place walk_part(struct plan *plan, uint32_t part, struct place at, int64_t *work)
{
    const struct rt_part *tile = &plan->tiles[part];
    require(plan, tile->begin_row == at.row && tile->begin_block == at.block,
            "a part does not begin where the one before ended", (int32_t)part);
    require(plan,
            tile->end_row > tile->begin_row ||
                (tile->end_row == tile->begin_row && tile->end_block > tile->begin_block),
            "a part with work has none", (int32_t)part);
    while (at.row < tile->end_row || (at.row == tile->end_row && tile->end_block > 0)) {
        require(plan, at.row < (int32_t)plan->p.rows.count, "a part ends behind the rows",
                (int32_t)part);
        int64_t end = at.row == tile->end_row ? tile->end_block : blocks(plan, at.row);
        bool split = at.block > 0 || end < blocks(plan, at.row);
        require(plan, end <= blocks(plan, at.row), "a piece reaches behind its row", at.row);
        require(plan, !split || end - at.block >= plan->p.min_blocks, "a piece is too small",
                at.row);
        int32_t index = at.row == tile->begin_row ? tile->begin_split : 0;
        require(plan, index == plan->pieces[at.row], "a piece has the wrong index", at.row);
        plan->pieces[at.row]++;
        *work += end - at.block + plan->p.overhead_blocks;
        if (end < blocks(plan, at.row))
            return (struct place){.row = at.row, .block = end};
        at = skip_empty(plan, at.row + 1);
    }
    require(plan, tile->end_row == at.row, "a part's end is not a row with work", (int32_t)part);
    return at;
}

static bool is_idle(const struct plan *plan, const struct rt_part *tile)
{
    struct rt_part idle = {.begin_row = (int32_t)plan->p.rows.count};
    return memcmp(tile, &idle, sizeof(idle)) == 0;
}

static int64_t payload(const struct plan *plan)
{
    int64_t total = 0;
    for (int32_t r = 0; r < (int32_t)plan->p.rows.count; r++)
        total += blocks(plan, r) ? blocks(plan, r) + plan->p.overhead_blocks : 0;
    int64_t share = (total + plan->p.schedule.part_count - 1) / plan->p.schedule.part_count;
    int64_t least = (int64_t)plan->p.min_blocks + plan->p.overhead_blocks;
    return share > least ? share : least;
}

static void check_splits(struct plan *plan)
{
    int64_t slots = 0;
    for (int32_t r = 0; r < (int32_t)plan->p.rows.count; r++) {
        require(plan, (plan->pieces[r] > 0) == (blocks(plan, r) > 0), "a row is not covered", r);
        require(plan, plan->num_splits[r] == slots, "num_splits is not the sum before it", r);
        slots += plan->pieces[r] > 1 ? plan->pieces[r] : 0;
    }
    require(plan, plan->num_splits[plan->p.rows.count] == slots, "num_splits ends wrong", -1);
    require(plan, slots <= 2 * ((int64_t)plan->p.schedule.part_count - 1), "too many partial slots",
            -1);
    require(plan, plan->num_splits[plan->p.rows.count + 1] == GUARD, "num_splits overrun", -1);
}

/* Every property at once, on the plan of the lengths already there. */
static void check(struct plan *plan, uint32_t rows, uint32_t parts, uint32_t overhead, uint32_t min)
{
    run(plan, rows, parts, overhead, min);
    memset(plan->pieces, 0, sizeof(plan->pieces));
    const int64_t share = payload(plan);
    int64_t limit = share + 2 * (int64_t)min + overhead;
    if (limit < share + share / RT_SCHEDULE_IDLE_SHARE)
        limit = share + share / RT_SCHEDULE_IDLE_SHARE;
    struct place at = skip_empty(plan, 0);
    for (uint32_t part = 0; part < parts; part++) {
        if (is_idle(plan, &plan->tiles[part]))
            continue;
        int64_t work = 0;
        int32_t first = at.row;
        at = walk_part(plan, part, at, &work);
        /* Whole rows pay their overhead in the plan; the first piece of a part pays it again. */
        require(plan, work <= limit, "a part has more than its share", first);
        for (int i = 0; i < 3; i++)
            require(plan, plan->tiles[part].reserved[i] == 0, "reserved is not 0", (int32_t)part);
    }
    require(plan, at.row == (int32_t)rows, "the plan ends before the work does", at.row);
    require(plan, plan->tiles[parts].begin_row == GUARD, "tiles overrun", -1);
    check_splits(plan);
}

static void expect(struct plan *plan, const int32_t *lengths, uint32_t rows, uint32_t parts,
                   const int32_t *num_splits)
{
    memcpy(plan->lengths, lengths, rows * sizeof(*lengths));
    check(plan, rows, parts, 2, 2);
    assert_memory_equal(plan->num_splits, num_splits, (rows + 1) * sizeof(*num_splits));
}

/* Worked out by hand from the rule, overhead 2 and at least 2 blocks. */
static void test_by_hand(void **state)
{
    struct plan *plan = *state;
    expect(plan, (int32_t[]){4096}, 1, 8, (int32_t[]){0, 8});
    /* T 66, payload 9: cuts at blocks 7, 16, …, 61 */
    assert_int_equal(plan->tiles[0].end_block, 7);
    assert_int_equal(plan->tiles[7].begin_block, 61);
    assert_int_equal(plan->tiles[7].begin_split, 7);
    assert_int_equal(plan->tiles[7].end_row, 1);
    assert_int_equal(plan->tiles[7].end_block, 0);

    /* Cost 3 each, payload 4: x = 4 and 8 are within min_blocks of their rows' starts. */
    expect(plan, (int32_t[]){1, 64, 33}, 3, 4, (int32_t[]){0, 0, 0, 0});
    assert_int_equal(plan->tiles[0].end_row, 1);
    assert_int_equal(plan->tiles[1].end_row, 2);
    assert_int_equal(plan->tiles[2].end_row, 3);
    assert_int_equal(plan->tiles[3].begin_row, 3);
    assert_int_equal(plan->tiles[3].end_row, 0);

    /* 8 blocks then 1: T 13, payload 7: one cut at block 5 of row 0. */
    expect(plan, (int32_t[]){512, 0, -7, 1}, 4, 2, (int32_t[]){0, 2, 2, 2, 2});
    assert_int_equal(plan->tiles[0].end_block, 5);
    assert_int_equal(plan->tiles[1].begin_split, 1);

    /* Nothing to do. */
    expect(plan, (int32_t[]){0, -1, INT32_MIN}, 3, 3, (int32_t[]){0, 0, 0, 0});
    assert_int_equal(plan->tiles[0].begin_row, 3);
}

/* Rows alike: whether a part takes whole ones follows from what that idles, and then none is split
 * and parts have that many rows each, the last of them what is left. */
static void check_alike(struct plan *plan, uint32_t rows, uint32_t parts, uint32_t overhead)
{
    check(plan, rows, parts, overhead, 1);
    int64_t most = 0, live = 0;
    for (uint32_t r = 0; r < rows; r++) {
        const int64_t n = blocks(plan, (int32_t)r);
        most = n + overhead > most && n > 0 ? n + overhead : most;
        live += n > 0;
    }
    const int64_t each = (live + parts - 1) / parts;
    const bool is_whole = live > 0 && 25 * (each * most - payload(plan)) <= payload(plan);
    if (!is_whole)
        return;
    require(plan, plan->num_splits[rows] == 0, "a row is split where whole ones idle little", -1);
    for (uint32_t part = 0; part < parts; part++) {
        const struct rt_part *tile = &plan->tiles[part];
        require(plan, is_idle(plan, tile) == ((int64_t)part * each >= live),
                "a part idles, or works, that should not", (int32_t)part);
        int64_t taken = 0;
        for (int32_t r = tile->begin_row; r < tile->end_row; r++)
            taken += blocks(plan, r) > 0;
        const int64_t left = live - (int64_t)part * each;
        require(plan, is_idle(plan, tile) || taken == (left < each ? left : each),
                "a part has another number of rows", (int32_t)part);
    }
}

static void test_alike(void **state)
{
    struct plan *plan = *state;
    struct ck_random random = {.state = 5};
    for (uint32_t rows = 1; rows <= 300; rows++)
        for (uint32_t i = 0; i < 12; i++) {
            const uint32_t parts = (uint32_t[]){132, 66, 33, 264}[i % 4];
            const uint32_t middle = 64 << ck_random_below(&random, 9), spread = middle >> i % 5 * 2;
            for (uint32_t r = 0; r < rows; r++)
                plan->lengths[r] =
                    ck_random_below(&random, 20) || i < 4
                        ? (int32_t)(middle + ck_random_below(&random, i < 8 ? 1 : spread + 1))
                        : -(int32_t)ck_random_below(&random, 3);
            check_alike(plan, rows, parts, i % 3);
        }
}

/* What the rule is for, and both sides of its edge. */
static void test_whole_rows(void **state)
{
    static const struct {
        uint32_t rows, blocks, parts, idle;
        bool is_whole;
    } known[] = {
        {128, 128, 132, 4, true}, {128, 128, 66, 2, true}, {512, 16, 132, 4, true},
        {512, 16, 66, 2, true},   {32, 8, 33, 1, true},    {126, 128, 132, 0, false},
        {32, 64, 132, 4, false},  {26, 26, 27, 1, true},   {24, 25, 26, 1, false},
        {132, 7, 132, 0, true},
    };
    struct plan *plan = *state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        for (uint32_t r = 0; r < known[i].rows; r++)
            plan->lengths[r] = (int32_t)known[i].blocks * RT_BLOCK_TOKENS - (int32_t)(r % 5);
        check(plan, known[i].rows, known[i].parts, 0, 1);
        uint32_t idle = 0;
        for (uint32_t part = 0; part < known[i].parts; part++)
            idle += is_idle(plan, &plan->tiles[part]);
        require(plan, (plan->num_splits[known[i].rows] == 0) == known[i].is_whole,
                "rows are cut or not, the other way", (int32_t)i);
        require(plan, idle == known[i].idle, "another number of parts idles", (int32_t)idle);
    }
    /* A single row that is longer than the others, by as much as is allowed and by one more. */
    for (uint32_t r = 0; r < 100; r++)
        plan->lengths[r] = 100 * RT_BLOCK_TOKENS;
    plan->lengths[50] = 105 * RT_BLOCK_TOKENS;
    check(plan, 100, 100, 0, 1); /* payload 101, and 4 */
    assert_int_equal(plan->num_splits[100], 0);
    plan->lengths[50]++;
    check(plan, 100, 100, 0, 1);
    assert_int_not_equal(plan->num_splits[100], 0);
}

/* Of a schedule whose rows are cut by their own length: all of walk's properties, and every piece
 * is a leaf or a group, of a row one or the other. */
static void check_invariant(struct plan *plan, uint32_t way, uint32_t rows, uint32_t parts)
{
    run_rule(plan, rows, parts, 0, 1, way);
    memset(plan->pieces, 0, sizeof(plan->pieces));
    struct place at = skip_empty(plan, 0);
    for (uint32_t part = 0; part < parts; part++) {
        const struct rt_part *tile = &plan->tiles[part];
        if (is_idle(plan, tile))
            continue;
        require(plan, tile->begin_row == at.row && tile->begin_block == at.block,
                "a part does not begin where the last one ended", (int32_t)part);
        const int32_t ends[][2] = {{tile->begin_row, tile->begin_block},
                                   {tile->end_row, tile->end_block}};
        for (int i = 0; i < 2; i++) {
            const int32_t row = ends[i][0], block = ends[i][1];
            if (block == 0)
                continue;
            const uint32_t unit =
                rt_invariant_unit_of(way, (uint32_t)blocks(plan, row),
                                     plan->num_splits[row + 1] - plan->num_splits[row]);
            require(plan, block % (int32_t)unit == 0 && block < blocks(plan, row),
                    "a cut that is none of the row's own", row);
            require(plan, i == 1 || tile->begin_split == block / (int32_t)unit,
                    "begin_split is another", (int32_t)part);
        }
        require(plan, tile->begin_block > 0 || tile->begin_split == 0, "begin_split is not 0",
                (int32_t)part);
        at = tile->end_block > 0 ? (struct place){tile->end_row, tile->end_block}
                                 : skip_empty(plan, tile->end_row);
        require(plan, tile->end_block > 0 || at.row == tile->end_row, "a part ends at an empty row",
                tile->end_row);
    }
    require(plan, at.row == (int32_t)rows && at.block == 0, "the plan ends before the work does",
            at.row);
    uint32_t longest = 0;
    for (uint32_t r = 0; r < rows; r++) {
        const uint32_t n = (uint32_t)blocks(plan, (int32_t)r), leaf = rt_invariant_leaf(way, n);
        const int32_t pieces = plan->num_splits[r + 1] - plan->num_splits[r];
        const uint32_t leaves = n ? (n + leaf - 1) / leaf : 0, groups = (leaves + 7) / 8;
        const uint32_t most = RT_INVARIANT_FOLDS(way) ? groups : leaves;
        longest = n > longest ? n : longest;
        require(plan,
                n == 0 || (pieces == (int32_t)leaves && (pieces > 1 || most < leaves)) ||
                    pieces == (most > 1 ? (int32_t)most : 0),
                "pieces that are neither leaves nor groups", (int32_t)r);
        require(plan, groups <= RT_INVARIANT_GROUPS, "too many groups", (int32_t)r);
    }
    require(plan, (uint64_t)plan->num_splits[rows] <= rt_invariant_slots(way, parts, rows, longest),
            "too many partial slots", -1);
}

static uint64_t power(uint64_t base, uint32_t exponent)
{
    uint64_t all = 1;
    while (exponent-- > 0)
        all *= base;
    return all;
}

static void test_invariant_leaf(void **state)
{
    (void)state;
    for (uint32_t root = 2; root <= 4; root++)
        for (uint32_t share = 0; share < 7; share++)
            for (uint32_t n = 1; n < 9000; n++) {
                const uint32_t leaf = rt_invariant_leaf(RT_INVARIANT_PIECES(root, share), n);
                const uint32_t half = leaf / 2;
                assert_int_equal(leaf & (leaf - 1), 0);
                assert_true(power(leaf, root) << share >= n && leaf * RT_INVARIANT_LEAVES >= n);
                assert_true(power(half, root) << share < n || half * RT_INVARIANT_LEAVES < n);
                assert_int_equal(rt_invariant_leaf(RT_INVARIANT_FOLDED(root, share), n), leaf);
            }
}

static void test_invariant(void **state)
{
    struct plan *plan = *state;
    static const uint32_t ways[] = {RT_INVARIANT_FOLDED(4, 3), RT_INVARIANT_PIECES(2, 1),
                                    RT_INVARIANT_FOLDED(2, 5), RT_INVARIANT_PIECES(3, 4)};
    struct ck_random random = {.state = 77};
    for (uint32_t i = 0; i < 3000; i++) {
        const uint32_t rows = 1 + ck_random_below(&random, i % 50 ? 40 : 600);
        const uint32_t parts = 1 + ck_random_below(&random, i % 3 ? 150 : MAX_PARTS);
        const uint32_t longest = i % 4 == 0   ? 300
                                 : i % 4 == 1 ? 3000
                                 : i % 4 == 2 ? 20000
                                              : 1048576;
        for (uint32_t r = 0; r < rows; r++)
            plan->lengths[r] = (int32_t)ck_random_below(&random, longest) -
                               (ck_random_below(&random, 9) == 0 ? 500 : 0);
        check_invariant(plan, ways[i / 4 % 4], rows, parts);
    }
    plan->lengths[0] = INT32_MAX;
    for (uint32_t i = 0; i < 2; i++) {
        check_invariant(plan, ways[i], 1, 1);
        check_invariant(plan, ways[i], 1, MAX_PARTS);
    }
}

/* A batch alike in length, as large as shows what is said of balance: no part has more than a unit
 * above its share. */
static void test_invariant_share(void **state)
{
    struct plan *plan = *state;
    for (uint32_t rows = 1; rows <= 256; rows++) {
        for (uint32_t r = 0; r < rows; r++)
            plan->lengths[r] = 8192;
        const uint32_t way = rows % 2 ? RT_INVARIANT_FOLDED(4, 3) : RT_INVARIANT_PIECES(2, 1);
        check_invariant(plan, way, rows, 132);
        const int64_t share = (int64_t)(rows * 128 + 131) / 132;
        const int64_t unit = rt_invariant_unit(way, 128, (uint64_t)share);
        for (uint32_t part = 0; part < 132; part++) {
            const struct rt_part *t = &plan->tiles[part];
            const int64_t work = is_idle(plan, t) ? 0
                                                  : (t->end_row - t->begin_row) * 128 +
                                                        t->end_block - t->begin_block;
            require(plan, work < share + unit, "a part has a unit more than its share",
                    (int32_t)part);
        }
    }
}

static void test_extremes(void **state)
{
    struct plan *plan = *state;
    for (uint32_t r = 0; r < MAX_ROWS; r++)
        plan->lengths[r] = 1048576;
    check(plan, MAX_ROWS, MAX_PARTS, 2, 2);
    check(plan, MAX_ROWS, 1, 2, 2);
    check(plan, 1, MAX_PARTS, 0, 1);
    for (uint32_t r = 0; r < MAX_ROWS; r++)
        plan->lengths[r] = INT32_MAX;
    check(plan, MAX_ROWS, 132, 5, 4);
    for (uint32_t r = 0; r < MAX_ROWS; r++)
        plan->lengths[r] = r % 2 ? 1 : 0;
    check(plan, MAX_ROWS, 264, 2, 2);
    check(plan, MAX_ROWS, 1, 0, 1);
    check(plan, 1, 1, 100000, 100000);
}

/* Padding behind the live rows changes nothing but where "no row" is. */
static void test_padding_is_free(void **state)
{
    struct plan *plan = *state;
    struct ck_random random = {.state = 11};
    for (uint32_t r = 0; r < 8; r++)
        plan->lengths[r] = (int32_t)ck_random_below(&random, 100000);
    memset(plan->lengths + 8, 0, 120 * sizeof(plan->lengths[0]));
    check(plan, 8, 132, 2, 2);
    struct rt_part tiles[132];
    memcpy(tiles, plan->tiles, sizeof(tiles));
    check(plan, 128, 132, 2, 2);
    for (uint32_t i = 0; i < 132; i++) {
        if (tiles[i].begin_row == 8)
            tiles[i].begin_row = 128;
        if (tiles[i].end_row == 8)
            tiles[i].end_row = 128;
    }
    assert_memory_equal(tiles, plan->tiles, sizeof(tiles));
}

/* Lengths around every place where a cut could go wrong: all pairs of small rows. */
static void test_small_rows(void **state)
{
    struct plan *plan = *state;
    for (int32_t a = 0; a <= 12; a++)
        for (int32_t b = 0; b <= 12; b++)
            for (uint32_t parts = 1; parts <= 9; parts++)
                for (uint32_t min = 1; min <= 4; min++) {
                    plan->lengths[0] = a * RT_BLOCK_TOKENS;
                    plan->lengths[1] = b * RT_BLOCK_TOKENS - 63;
                    plan->lengths[2] = a * RT_BLOCK_TOKENS + 1;
                    check(plan, 3, parts, min % 3, min);
                }
}

static int32_t random_length(struct ck_random *random, uint32_t kind)
{
    switch (kind) {
    case 0:
        return (int32_t)ck_random_below(random, 1048577);
    case 1:
        return (int32_t)ck_random_below(random, 300);
    case 2:
        return (int32_t)(ck_random_below(random, 64) * RT_BLOCK_TOKENS +
                         ck_random_below(random, 3)) -
               1;
    case 3: /* one giant among dwarfs */
        return ck_random_below(random, 50) ? 1 : 1000000;
    default:
        return ck_random_below(random, 2) ? 0 : -(int32_t)ck_random_below(random, 1000);
    }
}

static void test_random(void **state)
{
    struct plan *plan = *state;
    for (uint64_t seed = 1; seed <= 600; seed++) {
        struct ck_random random = {.state = seed};
        /* Mostly small, because the reference takes rows * parts steps. */
        uint32_t rows = 1 + ck_random_below(&random, seed % 50 ? 100 : MAX_ROWS);
        uint32_t parts = 1 + ck_random_below(&random, seed % 3 ? 300 : MAX_PARTS);
        uint32_t kind = ck_random_below(&random, 6);
        for (uint32_t r = 0; r < rows; r++)
            plan->lengths[r] =
                random_length(&random, kind < 5 ? kind : ck_random_below(&random, 5));
        check(plan, rows, parts, ck_random_below(&random, 7), 1 + ck_random_below(&random, 6));
    }
}

static int make_plan(void **state)
{
    *state = calloc(1, sizeof(struct plan));
    return *state ? 0 : -1;
}

static int free_plan(void **state)
{
    free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),         cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_padding_is_free), cmocka_unit_test(test_small_rows),
        cmocka_unit_test(test_random),          cmocka_unit_test(test_invariant_leaf),
        cmocka_unit_test(test_invariant),       cmocka_unit_test(test_invariant_share),
        cmocka_unit_test(test_alike),           cmocka_unit_test(test_whole_rows),
    };
    return cmocka_run_group_tests_name("schedule", tests, make_plan, free_plan);
}
