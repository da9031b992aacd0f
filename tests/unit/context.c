/* SPDX-License-Identifier: Apache-2.0 */
/* Who has which token of a sequence: counted out, token by token. */
#include "common/context.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MOST_RANKS 5
#define TOKENS 700

/* Each token is somebody's, in turns of a page, and a rank's places have no holes. */
static void count_out(uint32_t page_size, uint32_t ranks)
{
    int32_t count[MOST_RANKS] = {0};
    for (int32_t position = 0; position < TOKENS; position++) {
        const uint32_t owner = (uint32_t)position / page_size % ranks;
        for (uint32_t rank = 0; rank < ranks; rank++) {
            const int32_t place = rt_context_place(position, page_size, ranks, rank);
            assert_int_equal(rt_context_length(position, page_size, ranks, rank), count[rank]);
            assert_int_equal(place, rank == owner ? count[rank] : -1);
        }
        /* Its page's column is that of the position, where a page id stands for a round. */
        const uint32_t column = (uint32_t)position / (page_size * ranks);
        assert_int_equal((uint32_t)count[owner] / page_size, column);
        count[owner]++;
    }
}

static void test_every_token_is_somebodys(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= MOST_RANKS; ranks++)
        for (uint32_t page_size = 16; page_size <= 128; page_size *= 2)
            count_out(page_size, ranks);
}

static void test_edges(void **state)
{
    (void)state;
    assert_int_equal(rt_context_length(-3, 16, 2, 0), 0);
    assert_int_equal(rt_context_length(INT32_MAX, 128, 1, 0), INT32_MAX);
    assert_int_equal(rt_context_place(INT32_MAX, 128, 1, 0), INT32_MAX);
    /* 2^31 - 1 tokens are 16777216 pages of 128 but for a token: the last of rank 63's. */
    assert_int_equal(rt_context_length(INT32_MAX, 128, 64, 0), 1 << 25);
    assert_int_equal(rt_context_length(INT32_MAX, 128, 64, 63), (1 << 25) - 1);
    assert_int_equal(rt_context_place(INT32_MAX, 128, 64, 63), (1 << 25) - 1);
    assert_int_equal(rt_context_place(INT32_MAX, 128, 64, 62), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_token_is_somebodys),
        cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
