/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/bucket.h"

#include "replayrt/rt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) ((uint32_t)(sizeof(a) / sizeof((a)[0])))

static void test_ladder_steps(void **state)
{
    (void)state;
    static const uint32_t expected[] = {1,   2,   4,   8,   16,  24,  32,  40,  48,  56,  64,
                                        80,  96,  112, 128, 144, 160, 176, 192, 208, 224, 240,
                                        256, 288, 320, 352, 384, 416, 448, 480, 512, 576, 640};
    uint32_t sizes[RT_MAX_BUCKETS];
    assert_int_equal(rt_bucket_ladder(640, sizes), COUNT(expected));
    assert_memory_equal(sizes, expected, sizeof(expected));
    assert_int_equal(rt_bucket_ladder(0, sizes), 0);
}

static void test_ladder_ends_at_max_batch(void **state)
{
    (void)state;
    for (uint32_t max = 1; max <= RT_MAX_BATCH; max++) {
        uint32_t sizes[RT_MAX_BUCKETS];
        const uint32_t count = rt_bucket_ladder(max, sizes);
        assert_in_range(count, 1, RT_MAX_BUCKETS);
        assert_int_equal(sizes[count - 1], max);
        for (uint32_t i = 1; i < count; i++)
            assert_true(sizes[i] > sizes[i - 1]);
    }
    uint32_t sizes[RT_MAX_BUCKETS];
    assert_int_equal(rt_bucket_ladder(UINT32_MAX, sizes), RT_MAX_BUCKETS);
    assert_int_equal(sizes[RT_MAX_BUCKETS - 1], UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ladder_steps),
        cmocka_unit_test(test_ladder_ends_at_max_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
