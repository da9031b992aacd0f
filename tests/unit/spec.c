/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) ((uint32_t)(sizeof(a) / sizeof((a)[0])))

struct ladder {
    uint32_t sizes[16];
    uint32_t count;
};

static const struct ladder LADDERS[] = {
    {{1}, 1},
    {{7}, 1},
    {{1, 2, 3}, 3},
    {{1, 2, 4, 8, 16, 32, 64}, 7},
    {{3, 5, 200, 512}, 4},
    {{4096}, 1},
    {{1, 4096}, 2},
};

static uint32_t naive_index(const uint32_t *sizes, uint32_t count, uint32_t rows)
{
    for (uint32_t i = 0; i < count; i++)
        if (sizes[i] >= rows)
            return i;
    return count - 1;
}

/* Walks the replays of `rows` as a step does; returns how many, and the highest row touched. */
static uint32_t naive_walk(const struct ladder *l, uint32_t rows, uint64_t *reach)
{
    uint32_t replays = 0, base = 0;
    const uint32_t largest = l->sizes[l->count - 1];
    while (base < rows) {
        const uint32_t left = rows - base;
        const uint32_t take = left < largest ? left : largest;
        const uint64_t end = (uint64_t)base + l->sizes[naive_index(l->sizes, l->count, take)];
        if (end > *reach)
            *reach = end;
        base += take;
        replays++;
    }
    return replays;
}

/* The ladder's graphs of query lengths 1 and 3. */
static uint32_t graphs_of(const struct ladder *l, struct rt_graph_spec *specs)
{
    static const uint32_t query_lens[] = {1, 3};
    return rt_specs_of_buckets(l->sizes, l->count, query_lens, 2, specs);
}

static void test_buckets_fill_the_list(void **state)
{
    (void)state;
    const struct ladder l = {{2, 8}, 2};
    struct rt_graph_spec specs[RT_MAX_SPECS];
    assert_int_equal(graphs_of(&l, specs), 4);
    static const uint32_t expected[4][2] = {{2, 2}, {2, 6}, {8, 8}, {8, 24}};
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(specs[i].phase, RT_PHASE_DECODE);
        assert_int_equal(specs[i].rows, expected[i][0]);
        assert_int_equal(specs[i].tokens, expected[i][1]);
        assert_int_equal(specs[i].decode_rows, expected[i][0]);
        assert_int_equal(rt_spec_query_len(&specs[i]), i % 2 ? 3 : 1);
    }
    assert_int_equal(rt_spec_query_len(&(struct rt_graph_spec){.phase = RT_PHASE_CONTROL}), 1);
}

static void test_take_is_the_smallest_graph_that_fits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT(LADDERS); i++) {
        const struct ladder *l = &LADDERS[i];
        struct rt_graph_spec specs[RT_MAX_SPECS];
        struct rt_spec_index index;
        assert_int_equal(rt_spec_index_init(&index, specs, graphs_of(l, specs), NULL), RT_OK);
        const uint32_t largest = l->sizes[l->count - 1];
        for (uint32_t rows = 0; rows <= 3 * largest + 1; rows++)
            for (uint32_t q = 1; q <= 3; q += 2) {
                uint32_t spec = UINT32_MAX;
                const uint32_t take = rt_spec_take(&index, q, rows, &spec);
                assert_int_equal(take, rows < largest ? rows : largest);
                assert_int_equal(specs[spec].rows, l->sizes[naive_index(l->sizes, l->count, take)]);
                assert_int_equal(rt_spec_query_len(&specs[spec]), q);
            }
        for (uint32_t q = 0; q <= RT_MAX_QUERY_LEN + 2; q++)
            assert_int_equal(rt_spec_captured(&index, q), q == 1 || q == 3);
        uint32_t spec = UINT32_MAX;
        assert_int_equal(rt_spec_take(&index, 1, UINT32_MAX, &spec), largest);
        rt_spec_index_free(&index);
    }
}

/* A list in no order, with other batch sizes for each query length. */
static void test_any_list_serves(void **state)
{
    (void)state;
    const struct rt_graph_spec specs[] = {{RT_PHASE_DECODE, 64, 64, 64},
                                          {RT_PHASE_DECODE, 4, 8, 4},
                                          {RT_PHASE_DECODE, 1, 1, 1},
                                          {RT_PHASE_DECODE, 16, 32, 16},
                                          {RT_PHASE_DECODE, 8, 8, 8}};
    struct rt_spec_index index;
    assert_int_equal(rt_spec_index_init(&index, specs, COUNT(specs), NULL), RT_OK);
    static const struct {
        uint32_t query_len, rows, take, spec;
    } cases[] = {{1, 1, 1, 2}, {1, 2, 2, 4}, {1, 8, 8, 4}, {1, 9, 9, 0},  {1, 99, 64, 0},
                 {2, 1, 1, 1}, {2, 4, 4, 1}, {2, 5, 5, 3}, {2, 17, 16, 3}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint32_t spec = UINT32_MAX;
        assert_int_equal(rt_spec_take(&index, cases[i].query_len, cases[i].rows, &spec),
                         cases[i].take);
        assert_int_equal(spec, cases[i].spec);
    }
    assert_int_equal(rt_spec_replays(&index, 1, 65), 2);
    assert_int_equal(rt_spec_replays(&index, 2, 65), 5);
    /* Query length 2: 4 replays of 16, then one row in the graph of 4. Query length 1: 64 and 1. */
    assert_int_equal(rt_specs_capacity(specs, COUNT(specs), 65), 68);
    rt_spec_index_free(&index);
}

static void test_replays_and_capacity_match_a_walk(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT(LADDERS); i++) {
        const struct ladder *l = &LADDERS[i];
        struct rt_graph_spec specs[RT_MAX_SPECS];
        struct rt_spec_index index;
        const uint32_t count = graphs_of(l, specs);
        assert_int_equal(rt_spec_index_init(&index, specs, count, NULL), RT_OK);
        const uint32_t largest = l->sizes[l->count - 1];
        uint64_t reach = largest;
        for (uint32_t rows = 0; rows <= 3 * largest + 1; rows++) {
            assert_int_equal(rt_spec_replays(&index, 3, rows), naive_walk(l, rows, &reach));
            assert_int_equal(rt_specs_capacity(specs, count, rows), reach);
        }
        rt_spec_index_free(&index);
    }
}

/* Any number of rows may be in front: all of them are tried, and each reach but the largest is
 * less. */
static void test_capacity_behind_a_chunk(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT(LADDERS); i++) {
        const struct ladder *l = &LADDERS[i];
        struct rt_graph_spec specs[RT_MAX_SPECS];
        struct rt_spec_index index;
        const uint32_t count = graphs_of(l, specs), most = 2 * l->sizes[l->count - 1] + 2;
        assert_int_equal(rt_spec_index_init(&index, specs, count, NULL), RT_OK);
        uint64_t reach = 0;
        for (uint32_t base = 1; base < most; base++)
            for (uint32_t row = base, live = 0; row < most; row += live) {
                uint32_t spec = 0;
                live = rt_spec_take(&index, 1, most - row, &spec);
                reach = row + specs[spec].rows > reach ? row + specs[spec].rows : reach;
            }
        assert_int_equal(rt_specs_capacity_behind(specs, count, most), reach);
        rt_spec_index_free(&index);
    }
}

static void test_largest_counts_do_not_overflow(void **state)
{
    (void)state;
    const struct ladder l = {{1, 4096}, 2};
    struct rt_graph_spec specs[RT_MAX_SPECS];
    struct rt_spec_index index;
    const uint32_t count = graphs_of(&l, specs);
    assert_int_equal(rt_spec_index_init(&index, specs, count, NULL), RT_OK);
    assert_int_equal(rt_spec_replays(&index, 1, UINT32_MAX), 1048576);
    assert_true(rt_specs_capacity(specs, count, UINT32_MAX) == UINT64_C(4294967296));
    rt_spec_index_free(&index);
}

static void assert_refused(const struct rt_graph_spec *specs, uint32_t count, const char *text)
{
    const struct rt_spec_index zero = {0};
    struct rt_spec_index index;
    memset(&index, 0xA5, sizeof(index));
    struct rt_error err = {0};
    assert_int_equal(rt_spec_index_init(&index, specs, count, &err), RT_ERR_INVALID);
    assert_string_equal(err.message, text);
    assert_memory_equal(&index, &zero, sizeof(index));
}

static void test_bad_lists_are_refused(void **state)
{
    (void)state;
    const struct rt_graph_spec fine = {RT_PHASE_DECODE, 4, 8, 4};
    assert_refused(&fine, 0, "0 graphs, valid are 1 to 15504");
    assert_refused(&fine, 15505, "15505 graphs, valid are 1 to 15504");
    assert_refused(NULL, 1, "1 graphs, valid are 1 to 15504");
    struct rt_graph_spec bad = fine;
    bad.rows = bad.decode_rows = 0;
    assert_refused(&bad, 1,
                   "graph 0: phase 1, 0 rows, 0 of them decode; a step's graph decodes "
                   "all of 1 to 4096 rows");
    bad = fine;
    bad.decode_rows = 3;
    assert_refused(&bad, 1,
                   "graph 0: phase 1, 4 rows, 3 of them decode; a step's graph decodes "
                   "all of 1 to 4096 rows");
    bad = fine;
    bad.tokens = 9;
    assert_refused(&bad, 1, "graph 0: 9 tokens in 4 rows are no whole query length from 1 to 8");
    bad.tokens = 36;
    assert_refused(&bad, 1, "graph 0: 36 tokens in 4 rows are no whole query length from 1 to 8");
    const struct rt_graph_spec twice[] = {fine, {RT_PHASE_DECODE, 4, 4, 4}, fine};
    assert_refused(twice, 3, "graphs 0 and 2 both have 4 rows and 8 tokens");
}

/* Of several graphs of a size each is found by the one for the next more blocks, and the first by
 * that for any number; by no step alone. */
static void test_graphs_of_a_size(void **state)
{
    (void)state;
    const struct rt_graph_spec few = {
        .phase = RT_PHASE_DECODE, .rows = 4, .tokens = 8, .decode_rows = 4, .most_blocks = 9};
    struct rt_graph_spec fewer = few, more = few;
    fewer.most_blocks = 3;
    more.most_blocks = 80;
    const struct rt_graph_spec specs[] = {few,
                                          {RT_PHASE_DECODE, 4, 4, 4},
                                          {RT_PHASE_DECODE, 4, 8, 4},
                                          {RT_PHASE_CHUNK, 4, 8, 0},
                                          fewer,
                                          more};
    struct rt_spec_index index;
    uint32_t spec = UINT32_MAX;
    assert_int_equal(rt_spec_index_init(&index, specs, COUNT(specs), NULL), RT_OK);
    for (uint32_t rows = 0; rows <= 4; rows++) {
        assert_int_equal(rt_spec_take(&index, 2, rows, &spec), rows);
        assert_int_equal(spec, 2);
    }
    assert_int_equal(rt_spec_find_small(specs, 4, 2), 0);
    assert_int_equal(rt_spec_find_small(specs, 4, 0), 4);
    assert_int_equal(rt_spec_find_small(specs, COUNT(specs), 2), 5);
    assert_int_equal(rt_spec_find_small(specs, COUNT(specs), 5), 0);
    assert_int_equal(rt_spec_find_small(specs, COUNT(specs), 0), 4);
    assert_int_equal(rt_spec_find_small(specs, COUNT(specs), 4), COUNT(specs));
    assert_int_equal(rt_spec_find_small(specs, COUNT(specs), 1), COUNT(specs));
    assert_int_equal(rt_spec_find_small(specs, COUNT(specs), 3), COUNT(specs));
    assert_string_equal(rt_spec_name(&few).text, "batch 4, query length 2, at most 9 blocks");
    rt_spec_index_free(&index);
    const struct rt_graph_spec twice[] = {few, specs[2], few};
    assert_refused(twice, 3, "graphs 0 and 2 both have 4 rows and 8 tokens");
    const struct rt_graph_spec without[] = {few, fewer};
    assert_refused(without, 2,
                   "graph 0: 4 rows and 8 tokens in at most 9 blocks, and no graph for more");
    assert_refused(specs, 2,
                   "graph 0: 4 rows and 8 tokens in at most 9 blocks, and no graph for more");
}

/* A chunk's list: alone and beside each number of rows of 1 and of 3 tokens, with so many pieces
 * each. */
static void expect_chunks(uint32_t pieces, const uint32_t *expected, uint32_t piece_counts)
{
    static const uint32_t mixed[] = {4, 32}, query_lens[] = {1, 3};
    static const uint32_t rows[] = {0, 4, 4, 32, 32}, lengths[] = {1, 1, 3, 1, 3};
    const struct rt_graph_spec chunk = {
        .phase = RT_PHASE_CHUNK, .rows = 8, .tokens = 512, .pieces = pieces};
    const struct rt_spec_beside none = {.row_count = 0}, beside = {mixed, query_lens, 2, 2};
    const struct rt_spec_beside of_three = {mixed, query_lens + 1, 2, 1};
    struct rt_graph_spec specs[5 * RT_MAX_PIECE_COUNTS];
    assert_int_equal(rt_specs_of_chunk(&chunk, &of_three, specs), 5 * piece_counts);
    assert_int_equal(rt_specs_of_chunk(&chunk, &beside, specs), 5 * piece_counts);
    for (uint32_t i = 0; i < 5 * piece_counts; i++) {
        const uint32_t decoding = rows[i / piece_counts], length = lengths[i / piece_counts];
        assert_int_equal(specs[i].phase, RT_PHASE_CHUNK);
        assert_int_equal(specs[i].rows, 8 + decoding);
        assert_int_equal(specs[i].tokens, 512 + decoding * length);
        assert_int_equal(specs[i].decode_rows, decoding);
        assert_int_equal(specs[i].pieces, expected[i % piece_counts]);
        assert_int_equal(rt_spec_chunk(&specs[i]), 512);
        assert_int_equal(rt_spec_prefill_rows(&specs[i]), 8);
        assert_int_equal(rt_spec_query_len(&specs[i]), length);
    }
    assert_int_equal(rt_specs_of_chunk(&chunk, &none, specs), piece_counts);
}

static void test_chunks_fill_the_list(void **state)
{
    (void)state;
    static const uint32_t powers[] = {0, 1, 2, 4, 8, 16, 32}, some[] = {0, 1, 2, 4, 5};
    static const uint32_t most[] = {0, 1, 2, 4, 8, 16, 32, 63};
    expect_chunks(0, powers, 1);
    expect_chunks(1, powers, 2);
    expect_chunks(2, powers, 3);
    expect_chunks(3, (const uint32_t[]){0, 1, 2, 3}, 4);
    expect_chunks(5, some, 5);
    expect_chunks(32, powers, 7);
    expect_chunks(63, most, 8);
    const struct rt_graph_spec decode = {RT_PHASE_DECODE, 4, 8, 4};
    assert_int_equal(rt_spec_chunk(&decode), 0);
    assert_int_equal(rt_spec_prefill_rows(&decode), 0);
}

static void test_names(void **state)
{
    (void)state;
    const struct rt_graph_spec decode = {RT_PHASE_DECODE, 4, 8, 4};
    const struct rt_graph_spec absorbed = {
        .phase = RT_PHASE_CHUNK, .rows = 8, .tokens = 67, .decode_rows = 3, .absorbed = true};
    const struct rt_graph_spec expanded = {
        .phase = RT_PHASE_CHUNK, .rows = 8, .tokens = 512, .pieces = 5};
    const struct rt_graph_spec longest = {.phase = RT_PHASE_CHUNK,
                                          .rows = UINT32_MAX,
                                          .tokens = UINT32_MAX,
                                          .decode_rows = INT32_MAX,
                                          .decode_len = 1,
                                          .pieces = UINT32_MAX};
    const struct rt_graph_spec drafting = {.phase = RT_PHASE_CHUNK,
                                           .rows = 8,
                                           .tokens = 70,
                                           .decode_rows = 3,
                                           .absorbed = true,
                                           .decode_len = 2};
    assert_string_equal(rt_spec_name(&decode).text, "batch 4, query length 2");
    assert_string_equal(rt_spec_name(&absorbed).text, "chunk of 64 tokens, 3 rows beside it");
    assert_string_equal(rt_spec_name(&drafting).text,
                        "chunk of 64 tokens, 3 rows of 2 tokens beside it");
    assert_string_equal(rt_spec_name(&expanded).text,
                        "chunk of 512 tokens, 0 rows beside it, 5 pieces of context");
    assert_string_equal(rt_spec_name(&longest).text,
                        "chunk of 2147483648 tokens, 2147483647 rows beside it, 4294967295 pieces "
                        "of context");
}

/* Chunks of 64, absorbed, and 512, expanded, behind the graphs of steps. */
static void test_find_takes_the_smallest_chunk(void **state)
{
    (void)state;
    static const uint32_t mixed[] = {4, 32}, buckets[] = {600}, query_lens[] = {1};
    const struct rt_spec_beside beside = {mixed, query_lens, 2, 1};
    const struct rt_graph_spec small = {
        .phase = RT_PHASE_CHUNK, .rows = 8, .tokens = 64, .absorbed = true};
    const struct rt_graph_spec large = {
        .phase = RT_PHASE_CHUNK, .rows = 8, .tokens = 512, .pieces = 5};
    struct rt_graph_spec specs[64];
    uint32_t count = rt_specs_of_buckets(buckets, 1, query_lens, 1, specs);
    count += rt_specs_of_chunk(&large, &beside, specs + count);
    count += rt_specs_of_chunk(&small, &beside, specs + count);
    assert_int_equal(count, 1 + 3 * 5 + 3);
    static const struct {
        uint32_t tokens, decode_rows, pieces, found;
    } cases[] = {
        {1, 0, 0, 16},  {64, 0, 0, 16},  {64, 0, 999, 16}, {64, 1, 0, 17},  {64, 4, 999, 17},
        {64, 5, 0, 18}, {64, 32, 0, 18}, {65, 0, 0, 1},    {65, 0, 1, 2},   {65, 0, 2, 3},
        {65, 0, 3, 4},  {512, 0, 4, 4},  {512, 0, 5, 5},   {512, 0, 6, 19}, {65, 1, 0, 6},
        {65, 4, 3, 9},  {65, 5, 5, 15},  {65, 33, 0, 19},  {64, 33, 0, 19}, {513, 0, 0, 19},
    };
    for (uint32_t i = 0; i < COUNT(cases); i++) {
        const struct rt_chunk_load load = {.tokens = cases[i].tokens,
                                           .decode_rows = cases[i].decode_rows,
                                           .query_len = 1,
                                           .pieces = cases[i].pieces};
        if (rt_spec_find_chunk(specs, count, &load) != cases[i].found)
            fail_msg("%u tokens, %u rows, %u pieces: not graph %u", cases[i].tokens,
                     cases[i].decode_rows, cases[i].pieces, cases[i].found);
    }
    const struct rt_chunk_load one = {.tokens = 1}, nine = {.tokens = 9};
    assert_int_equal(rt_spec_find_chunk(specs, 1, &one), 1);
    assert_int_equal(rt_spec_find_chunk(specs, 0, &one), 0);
    /* Fewer tokens are better than fewer pieces, in any order of the list. */
    const struct rt_graph_spec two[] = {{RT_PHASE_CHUNK, 8, 512, 0, false, 0},
                                        {RT_PHASE_CHUNK, 8, 256, 0, false, 4},
                                        {RT_PHASE_CHUNK, 8, 256, 0, false, 2}};
    assert_int_equal(rt_spec_find_chunk(two, 3, &nine), 2);
    assert_int_equal(rt_spec_find_chunk(two, 2, &nine), 1);
}

/* Rows have a graph of their own query length; where there are none, any length is fine. */
static void test_find_takes_the_query_length(void **state)
{
    (void)state;
    static const uint32_t mixed[] = {4, 8}, query_lens[] = {2, 3};
    const struct rt_spec_beside beside = {mixed, query_lens, 2, 2};
    const struct rt_graph_spec chunk = {
        .phase = RT_PHASE_CHUNK, .rows = 8, .tokens = 64, .absorbed = true};
    struct rt_graph_spec specs[16];
    const uint32_t count = rt_specs_of_chunk(&chunk, &beside, specs);
    static const struct {
        uint32_t rows, query_len, found;
    } cases[] = {{0, 0, 0}, {0, 3, 0}, {1, 1, 1}, {4, 2, 2}, {4, 3, 3},
                 {5, 1, 4}, {8, 2, 5}, {8, 3, 6}, {9, 1, 7}, {1, 4, 7}};
    assert_int_equal(count, 7);
    for (uint32_t i = 0; i < COUNT(cases); i++) {
        const struct rt_chunk_load load = {
            .tokens = 9, .decode_rows = cases[i].rows, .query_len = cases[i].query_len};
        assert_int_equal(rt_spec_find_chunk(specs, count, &load), cases[i].found);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_fill_the_list),
        cmocka_unit_test(test_take_is_the_smallest_graph_that_fits),
        cmocka_unit_test(test_any_list_serves),
        cmocka_unit_test(test_replays_and_capacity_match_a_walk),
        cmocka_unit_test(test_capacity_behind_a_chunk),
        cmocka_unit_test(test_largest_counts_do_not_overflow),
        cmocka_unit_test(test_bad_lists_are_refused),
        cmocka_unit_test(test_graphs_of_a_size),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_chunks_fill_the_list),
        cmocka_unit_test(test_find_takes_the_smallest_chunk),
        cmocka_unit_test(test_find_takes_the_query_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
