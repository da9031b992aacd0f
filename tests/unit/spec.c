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
    assert_refused(&fine, 0, "0 graphs, valid are 1 to 3344");
    assert_refused(&fine, 3345, "3345 graphs, valid are 1 to 3344");
    assert_refused(NULL, 1, "1 graphs, valid are 1 to 3344");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_fill_the_list),
        cmocka_unit_test(test_take_is_the_smallest_graph_that_fits),
        cmocka_unit_test(test_any_list_serves),
        cmocka_unit_test(test_replays_and_capacity_match_a_walk),
        cmocka_unit_test(test_largest_counts_do_not_overflow),
        cmocka_unit_test(test_bad_lists_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
