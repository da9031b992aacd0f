/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/piece.h"

#include "kernels/abi/piece.h"
#include "tests/checkkern/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define D_V 64
#define ROWS 3
#define SLOTS 2
#define QUERY 1

static float room[SLOTS * ROWS * D_V];
static const struct rt_partials_view partials = {.out = room};

static struct rt_ref_pieces pieces(void)
{
    return rt_ref_pieces_of(&partials, ROWS, D_V, false);
}

/* The query row's halves in the second slot, and their rests. */
static const uint16_t *halves(void)
{
    return (const uint16_t *)(const void *)(room + ROWS * D_V) + QUERY * D_V;
}

static const uint16_t *rests(void)
{
    return halves() + ROWS * D_V;
}

static void keep(const float *x, float *back)
{
    const struct rt_ref_pieces all = pieces();
    memset(room, 0xa5, sizeof(room));
    rt_ref_piece_store(&all, 1, QUERY, x);
    rt_ref_piece_load(&all, 1, QUERY, back);
}

/* Each is where it belongs, and nothing else is. */
static void test_places(void **state)
{
    (void)state;
    static const uint32_t columns[] = {0, 1, 2, 7, 8, 9, 31, 32, 63};
    static const uint32_t at[] = {0, 1, 8, 25, 2, 3, 31, 32, 63};
    for (uint32_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        float x[D_V] = {0}, back[D_V];
        x[columns[i]] = 1.5f;
        keep(x, back);
        for (uint32_t n = 0; n < D_V; n++)
            assert_int_equal(rests()[n], n == at[i] ? 0x3fc0 : 0);
    }
    for (uint32_t column = 0; column < D_V; column++)
        assert_int_equal(RT_PIECE_COLUMN(RT_PIECE_AT(column)), column);
}

/* Halves that are f16, as kernels leave them. */
static void test_halves(void **state)
{
    (void)state;
    static const struct {
        uint16_t half;
        float x;
    } cases[] = {
        {0x3c00, 1},        {0xfbff, -65504},        {0x0400, 0x1p-14f},
        {0x0001, 0x1p-24f}, {0x83ff, -0x1.ff8p-15f}, {0x3555, 0x1.554p-2f},
        {0x7c00, INFINITY}, {0xfc00, -INFINITY},     {0x0000, 0},
    };
    const struct rt_ref_pieces all = pieces();
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        float back[D_V];
        memset(room, 0, sizeof(room));
        uint16_t *row = (uint16_t *)(void *)(room + ROWS * D_V) + QUERY * D_V;
        row[2] = cases[i].half;
        row[9] = RT_PIECE_NAN;
        rt_ref_piece_load(&all, 1, QUERY, back);
        assert_true(back[8] == cases[i].x && back[9] == 0 && isnan(back[3]));
    }
}

static void test_nan(void **state)
{
    (void)state;
    static const uint32_t payload = 0x7f800001u; /* in bits that go */
    float x[D_V] = {[0] = NAN, [1] = 1, [8] = -INFINITY}, back[D_V];
    memcpy(x + 9, &payload, sizeof(payload));
    keep(x, back);
    assert_true(isnan(back[0]) && back[1] == 1 && back[8] == -INFINITY && isnan(back[9]));
}

/* The bits of a wide word, by hand: 0x71234567 and -0x1.91c4d6p-3, 0xbe48e26b. */
static void test_wide(void **state)
{
    (void)state;
    float x[D_V] = {0}, back[D_V];
    static const uint32_t bits[2] = {0x71234567u, 0xbe48e26bu},
                          kept[2] = {0x71234500u, 0xbe48e200u};
    memcpy(x + 2, bits, sizeof(bits));
    keep(x, back);
    assert_int_equal(halves()[8], RT_PIECE_MARK);
    assert_int_equal(halves()[9], 0xe245);
    assert_int_equal(rests()[8], 0x7123);
    assert_int_equal(rests()[9], 0xbe48);
    assert_memory_equal(back + 2, kept, sizeof(kept));
}

static void test_bound(void **state)
{
    (void)state;
    struct ck_random random = {.state = 7};
    for (uint32_t n = 0; n < 2000; n++) {
        float x[D_V], back[D_V];
        const int exponent = (int)ck_random_below(&random, 210) - 100;
        for (uint32_t d = 0; d < D_V; d++)
            x[d] = ldexpf((float)ck_random_normal(&random), exponent - (int)d % 5 * 3);
        keep(x, back);
        for (uint32_t d = 0; d < D_V; d++)
            assert_true(fabsf(back[d] - x[d]) <= fabsf(x[d]) / 65536);
    }
}

/* Neighbours stay as they were, and what is f32 is as it lies. */
static void test_room(void **state)
{
    (void)state;
    float x[D_V], back[D_V];
    for (uint32_t d = 0; d < D_V; d++)
        x[d] = ldexpf(1 + (float)d, 100);
    keep(x, back);
    const uint16_t *all = (const uint16_t *)(const void *)room;
    for (uint32_t i = 0; i < sizeof(room) / 2; i++) {
        const uint32_t of_slot = i % (2 * ROWS * D_V), row = of_slot % (ROWS * D_V) / D_V;
        if (i < 2 * ROWS * D_V || row != QUERY)
            assert_int_equal(all[i], 0xa5a5);
    }
    const struct rt_ref_pieces plain = rt_ref_pieces_of(&partials, ROWS, D_V, true);
    rt_ref_piece_store(&plain, 1, QUERY, x);
    assert_memory_equal(room + (ROWS + QUERY) * D_V, x, sizeof(x));
    assert_true(rt_ref_pieces_of(&partials, ROWS, 48, false).is_f32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places), cmocka_unit_test(test_halves), cmocka_unit_test(test_nan),
        cmocka_unit_test(test_wide),   cmocka_unit_test(test_bound),  cmocka_unit_test(test_room),
    };
    return cmocka_run_group_tests_name("ref_piece", tests, NULL, NULL);
}
