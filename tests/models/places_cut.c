/* SPDX-License-Identifier: Apache-2.0 */
/* What of every weight a rank has: heads, parts of widths and of the vocabulary. */
#include "tests/models/place_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *read_place(const rt_places *p, const rt_checkpoint *c, uint32_t index,
                        struct rt_place *place)
{
    struct rt_error err = {.status = RT_OK};
    *place = (struct rt_place){.struct_size = sizeof(*place)};
    assert_int_equal(rt_places_at(p, index, place, &err), RT_OK);
    uint16_t *const out = malloc(place->rows * place->columns * sizeof(*out));
    assert_non_null(out);
    if (rt_places_copy(p, c, index, 0, place->rows, RT_DTYPE_BF16, out, &err) != RT_OK)
        fail_msg("%s", err.message);
    return out;
}

/* Number k of a part that begins at a row and column of the whole: zero behind its end. */
static uint16_t number_of(const uint16_t *a, const struct rt_place *whole, uint64_t row,
                          uint64_t column)
{
    return row < whole->rows && column < whole->columns ? a[row * whole->columns + column] : 0;
}

/* Every number of a part is where the whole has it, and each rank's begins where the one before
 * has ended; `cut` counts places that are smaller, `numbers` those that the model has. */
static void expect_part(const rt_places *all, const rt_places *first, const rt_places *part,
                        const rt_checkpoint *c, uint32_t rank, uint32_t *cut, uint64_t *numbers)
{
    for (uint32_t i = 0; i < rt_places_count(all); i++) {
        struct rt_place whole, mine, of_first;
        if (rt_place_of(all, i, &whole), !whole.needed)
            continue;
        uint16_t *const a = read_place(all, c, i, &whole), *const b = read_place(part, c, i, &mine);
        rt_place_of(first, i, &of_first);
        const uint64_t row = whole.rows == of_first.rows ? 0 : rank * of_first.rows;
        const uint64_t column = whole.columns == of_first.columns ? 0 : rank * of_first.columns;
        const bool is_cut = whole.rows != mine.rows || whole.columns != mine.columns;
        *cut += is_cut;
        for (uint64_t k = 0; k < mine.rows * mine.columns; k++) {
            const uint64_t at_row = row + k / mine.columns, at_column = column + k % mine.columns;
            *numbers += is_cut && at_row < whole.rows && at_column < whole.columns;
            if (b[k] != number_of(a, &whole, at_row, at_column))
                fail_msg("%s, rank %u: element %llu is another", mine.name, rank,
                         (unsigned long long)k);
        }
        free(a);
        free(b);
    }
}

/* Numbers of attention's weights that have heads, of MLPs of any kind and of the LM head. */
static uint64_t numbers_of_cut(const rt_places *all, const rt_places *part)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < rt_places_count(all); i++) {
        struct rt_place whole, mine;
        rt_place_of(all, i, &whole);
        rt_place_of(part, i, &mine);
        if (whole.needed && (whole.rows != mine.rows || whole.columns != mine.columns))
            count += whole.rows * whole.columns;
    }
    return count;
}

/* Ranks that share a context have the rows of all their heads, and of o_proj their own columns. */
static void expect_context(const rt_places *all, rt_places *part, const rt_checkpoint *c)
{
    struct rt_error err = {.status = RT_OK};
    struct rt_place mine = {.struct_size = sizeof(mine)}, whole = mine;
    assert_int_equal(rt_places_cut(part, 3, 4, 2, &err), RT_OK);
    for (uint32_t i = 0; i < rt_places_count(part); i++) {
        assert_int_equal(rt_places_at(all, i, &whole, &err), RT_OK);
        assert_int_equal(rt_places_at(part, i, &mine, &err), RT_OK);
        if (!whole.needed || whole.kind != RT_PLACE_ATTENTION ||
            (mine.rows == whole.rows && mine.columns == whole.columns))
            continue;
        const bool is_o = mine.columns != whole.columns;
        assert_int_equal(mine.rows, is_o ? whole.rows : whole.rows / 2);
        assert_int_equal(mine.columns, is_o ? whole.columns / 4 : whole.columns);
        uint16_t *const a = read_place(all, c, i, &whole), *const b = read_place(part, c, i, &mine);
        const uint64_t first = is_o ? 3 * mine.columns : mine.rows * whole.columns;
        assert_memory_equal(b, a + first, mine.columns * sizeof(*b));
        free(a);
        free(b);
    }
}

/* q_b_proj or q_proj, kv_b_proj and o_proj of a layer, its MLPs, and the LM head. */
static uint32_t places_that_are_cut(const struct rt_model *m)
{
    uint32_t count = 1;
    for (uint32_t layer = 0; layer < m->layers; layer++)
        count += m->moe_layers[layer] ? 3 + 3 * m->moe.experts + 3 : 3 + 3;
    return count;
}

/* All ranks' parts together are the whole. */
static void expect_parts(const struct rt_model *m, const rt_checkpoint *c, uint32_t ranks)
{
    struct rt_error err = {.status = RT_OK};
    rt_places *all = make_places(m), *first = make_places(m), *part = make_places(m);
    uint64_t numbers = 0;
    assert_int_equal(rt_places_cut(first, 0, ranks, 1, &err), RT_OK);
    for (uint32_t rank = 0; rank < ranks; rank++) {
        uint32_t cut = 0;
        assert_int_equal(rt_places_cut(part, rank, ranks, 1, &err), RT_OK);
        assert_int_equal(rt_places_check(part, c, &err), RT_OK);
        expect_part(all, first, part, c, rank, &cut, &numbers);
        assert_int_equal(cut, places_that_are_cut(m));
    }
    assert_int_equal(numbers, numbers_of_cut(all, first));
    rt_places_destroy(&all);
    rt_places_destroy(&first);
    rt_places_destroy(&part);
}

/* Of files, one with all experts in one tensor, and of random weights; glm4_moe_lite over 5 ranks,
 * of which the last has no part of an MLP, and less of the vocabulary than the others. */
static void test_cut(void **state)
{
    static const struct {
        const char *name;
        uint32_t ranks;
        bool random;
    } cases[] = {{"deepseek_v2", 4, false},
                 {"deepseek_v3", 4, true},
                 {"glm4_moe_lite", 5, false},
                 {"mistral4", 2, false}};
    struct rt_error err = {.status = RT_OK};
    (void)state;
    for (int n = 0; n < 4; n++) {
        char path[512];
        (void)snprintf(path, sizeof(path), GOLDEN "%s", cases[n].name);
        const struct rt_model m = read_model(path);
        rt_checkpoint *c = NULL;
        if (cases[n].random)
            assert_int_equal(rt_checkpoint_random(path, 7, &c, &err), RT_OK);
        else
            c = open_good(path);
        expect_parts(&m, c, cases[n].ranks);
        rt_checkpoint_close(&c);
    }
}

static void test_share_of_the_last(void **state)
{
    const struct rt_model m = read_model(GOLDEN "glm4_moe_lite");
    rt_places *part = make_places(&m);
    struct rt_place place = {.struct_size = sizeof(place)};
    struct rt_error err = {.status = RT_OK};
    (void)state;
    assert_int_equal(rt_places_cut(part, 4, 5, 1, &err), RT_OK);
    for (uint32_t i = 0; rt_places_at(part, i, &place, &err) == RT_OK; i++) {
        if (place.kind == RT_PLACE_GATE || place.kind == RT_PLACE_UP)
            assert_int_equal(place.rows, 32); /* of 128, 16 units: 4 each of 4 ranks, then zeros */
        else if (place.kind == RT_PLACE_EXPERT_DOWN || place.kind == RT_PLACE_SHARED_DOWN)
            assert_int_equal(place.columns, 8); /* of 32 likewise */
        else if (place.kind == RT_PLACE_LM_HEAD)
            assert_int_equal(place.rows, 32); /* of 256, 32 units: 7 each of 4 ranks */
        else if (place.kind == RT_PLACE_EMBEDDING)
            assert_int_equal(place.rows, 256);
    }
    rt_places_destroy(&part);
}

/* Two shared experts as wide as two others: a rank has two of the width that it has of others. */
static void test_share_of_several_shared(void **state)
{
    struct rt_model m = read_model(GOLDEN "deepseek_v3");
    struct rt_place place = {.struct_size = sizeof(place)};
    struct rt_error err = {.status = RT_OK};
    (void)state;
    m.moe.intermediate_size = 40;
    m.moe.shared_intermediate_size = 80;
    rt_places *part = make_places(&m);
    assert_int_equal(rt_places_cut(part, 1, 4, 1, &err), RT_OK);
    for (uint32_t i = 0; rt_places_at(part, i, &place, &err) == RT_OK; i++) {
        if (place.kind == RT_PLACE_EXPERT_UP)
            assert_int_equal(place.rows, 16);
        else if (place.kind == RT_PLACE_SHARED_UP)
            assert_int_equal(place.rows, 32);
    }
    rt_places_destroy(&part);
}

static void test_cut_refused(void **state)
{
    const struct rt_model m = read_model(GOLDEN "deepseek_v2");
    rt_places *all = make_places(&m), *part = make_places(&m);
    rt_checkpoint *c = open_good(GOLDEN "deepseek_v2");
    struct rt_error err = {.status = RT_OK};
    (void)state;
    expect_context(all, part, c);
    assert_int_equal(rt_places_cut(part, 0, 3, 1, &err), RT_ERR_GEOMETRY);
    assert_string_equal(err.message, "rt_places_cut: 4 heads are no multiple of 3 ranks");
    assert_int_equal(rt_places_cut(part, 2, 2, 1, &err), RT_ERR_INVALID);
    assert_string_equal(err.message, "rt_places_cut: rank 2 of 2");
    assert_int_equal(rt_places_cut(part, 1, 4, 3, &err), RT_ERR_INVALID);
    assert_string_equal(err.message, "rt_places_cut: a context of 3 of 4 ranks");
    assert_int_equal(rt_places_cut(part, 1, 4, 0, &err), RT_ERR_INVALID);
    assert_int_equal(rt_places_cut(NULL, 0, 2, 1, &err), RT_ERR_INVALID);
    rt_checkpoint_close(&c);
    rt_places_destroy(&all);
    rt_places_destroy(&part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_share_of_the_last),
        cmocka_unit_test(test_share_of_several_shared),
        cmocka_unit_test(test_cut_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
