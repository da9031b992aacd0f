/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/bucket.h"

#include "replayrt/rt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
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

static void test_take_is_the_smallest_size_that_fits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT(LADDERS); i++) {
        const struct ladder *l = &LADDERS[i];
        struct rt_buckets b;
        assert_int_equal(rt_buckets_init(&b, l->sizes, l->count, NULL), RT_OK);
        const uint32_t largest = l->sizes[l->count - 1];
        for (uint32_t rows = 0; rows <= 3 * largest + 1; rows++) {
            uint32_t index = UINT32_MAX;
            const uint32_t take = rt_bucket_take(&b, rows, &index);
            assert_int_equal(take, rows < largest ? rows : largest);
            assert_int_equal(index, naive_index(l->sizes, l->count, take));
        }
        uint32_t index = UINT32_MAX;
        assert_int_equal(rt_bucket_take(&b, UINT32_MAX, &index), largest);
        assert_int_equal(index, l->count - 1);
        rt_buckets_free(&b);
    }
}

static void test_replays_and_capacity_match_a_walk(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT(LADDERS); i++) {
        const struct ladder *l = &LADDERS[i];
        struct rt_buckets b;
        assert_int_equal(rt_buckets_init(&b, l->sizes, l->count, NULL), RT_OK);
        const uint32_t largest = l->sizes[l->count - 1];
        uint64_t reach = largest;
        for (uint32_t rows = 0; rows <= 3 * largest + 1; rows++) {
            assert_int_equal(rt_bucket_replays(&b, rows), naive_walk(l, rows, &reach));
            assert_int_equal(rt_bucket_capacity(l->sizes, l->count, rows), reach);
        }
        rt_buckets_free(&b);
    }
}

static void test_largest_counts_do_not_overflow(void **state)
{
    (void)state;
    const uint32_t sizes[] = {1, 4096};
    struct rt_buckets b;
    assert_int_equal(rt_buckets_init(&b, sizes, 2, NULL), RT_OK);
    assert_int_equal(rt_bucket_replays(&b, UINT32_MAX), 1048576);
    assert_true(rt_bucket_capacity(sizes, 2, UINT32_MAX) == UINT64_C(4294967296));
    rt_buckets_free(&b);
}

static void assert_refused(const uint32_t *sizes, uint32_t count, const char *text)
{
    const struct rt_buckets zero = {0};
    struct rt_buckets b;
    memset(&b, 0xA5, sizeof(b));
    struct rt_error err = {0};
    assert_int_equal(rt_buckets_init(&b, sizes, count, &err), RT_ERR_INVALID);
    assert_int_equal(err.status, RT_ERR_INVALID);
    assert_string_equal(err.message, text);
    assert_memory_equal(&b, &zero, sizeof(b));
    rt_buckets_free(&b);
}

static void test_bad_sizes_are_refused(void **state)
{
    (void)state;
    const uint32_t fine[] = {1};
    assert_refused(fine, 0, "0 batch sizes, valid are 1 to 256");
    assert_refused(fine, 257, "257 batch sizes, valid are 1 to 256");
    assert_refused(NULL, 1, "1 batch sizes, valid are 1 to 256");
    assert_refused((const uint32_t[]){0}, 1, "batch size 0 at place 0 must be greater than 0");
    assert_refused((const uint32_t[]){4, 4}, 2, "batch size 4 at place 1 must be greater than 4");
    assert_refused((const uint32_t[]){4, 8, 2}, 3,
                   "batch size 2 at place 2 must be greater than 8");
    assert_refused((const uint32_t[]){1, 4097}, 2, "batch size 4097 is above 4096");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_is_the_smallest_size_that_fits),
        cmocka_unit_test(test_replays_and_capacity_match_a_walk),
        cmocka_unit_test(test_largest_counts_do_not_overflow),
        cmocka_unit_test(test_bad_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
