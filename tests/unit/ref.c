/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include "tests/checkkern/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROWS 4
#define Q_LEN 2
#define HEADS 3
#define HQ (Q_LEN * HEADS)
#define D_QK 288
#define D_V 256
#define PAGE 16
#define PAGES 40
#define COLUMNS 10
#define PARTS 7
#define BF16_NAN 0x7fc0
#define MOST_VALUE 0.5 /* of keys; pieces are off by 2^-16 of theirs */

static uint16_t bits_of(double value)
{
    return rt_float_to_bf16((float)value);
}

static void test_bf16(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits <= UINT16_MAX; bits++) {
        float value = rt_bf16_to_float((uint16_t)bits);
        uint16_t back = rt_float_to_bf16(value);
        if (isnan(value))
            assert_true(isnan(rt_bf16_to_float(back)));
        else
            assert_int_equal(back, bits);
    }
    assert_int_equal(bits_of(1.0), 0x3f80);
    assert_int_equal(bits_of(1.0 + 0x1p-8), 0x3f80);           /* tie, to even: down */
    assert_int_equal(bits_of(1.0 + 0x1p-7 + 0x1p-8), 0x3f82);  /* tie, to even: up */
    assert_int_equal(bits_of(1.0 + 0x1p-8 + 0x1p-20), 0x3f81); /* above the tie */
    assert_int_equal(bits_of(3.4e38), 0x7f80);                 /* behind the largest: infinity */
    assert_int_equal(bits_of(-INFINITY), 0xff80);
    uint32_t word = 0x7f800001u; /* a NaN whose payload is all in the half that goes */
    float nan_value;
    memcpy(&nan_value, &word, sizeof(word));
    assert_true(isnan(rt_bf16_to_float(rt_float_to_bf16(nan_value))));
}

/* Rows of a pool whose unused parts are NaN and whose unused table entries lead nowhere. */
struct rig {
    uint16_t q[ROWS * HQ * D_QK], kv[PAGES * PAGE * D_QK], out[ROWS * HQ * D_V];
    float lse[ROWS * HQ];
    int32_t table[ROWS * COLUMNS], length[ROWS], num_splits[ROWS + 1];
    struct rt_part tiles[PARTS];
    float partial_out[2 * PARTS * HQ * D_V], partial_lse[2 * PARTS * HQ];
    double true_out[ROWS * HQ * D_V], true_lse[ROWS * HQ];
    struct rt_attend_params p;
};

static uint16_t *key_of(struct rig *rig, uint32_t row, int32_t position)
{
    int32_t page = rig->table[row * COLUMNS + position / PAGE];
    return rig->kv + (page * PAGE + position % PAGE) * D_QK;
}

static void set_lengths(struct rig *rig, const int32_t *lengths, uint64_t seed)
{
    struct ck_random random = {.state = seed};
    int32_t next_page = PAGES - 1;
    memcpy(rig->length, lengths, sizeof(rig->length));
    for (size_t i = 0; i < sizeof(rig->kv) / sizeof(rig->kv[0]); i++)
        rig->kv[i] = BF16_NAN;
    for (uint32_t r = 0; r < ROWS; r++) {
        for (int32_t c = 0; c < COLUMNS; c++)
            rig->table[r * COLUMNS + c] = c * PAGE < lengths[r] ? next_page-- : 2147480000;
        for (int32_t position = 0; position < lengths[r]; position++)
            for (uint32_t d = 0; d < D_QK; d++)
                key_of(rig, r, position)[d] = bits_of(ck_random_normal(&random) / 10);
    }
    for (size_t i = 0; i < sizeof(rig->q) / sizeof(rig->q[0]); i++)
        rig->q[i] = bits_of(ck_random_normal(&random));
}

static void run(struct rig *rig)
{
    struct rt_schedule_params schedule = {.rows.length = rig->length,
                                          .schedule.parts = rig->tiles,
                                          .schedule.num_splits = rig->num_splits,
                                          .rows.count = ROWS,
                                          .schedule.part_count = PARTS,
                                          .overhead_blocks = 0,
                                          .min_blocks = 1};
    struct rt_reduce_params reduce = {.partials.out = rig->partial_out,
                                      .partials.lse = rig->partial_lse,
                                      .schedule.num_splits = rig->num_splits,
                                      .rows.length = rig->length,
                                      .out.base = rig->out,
                                      .lse.base = rig->lse,
                                      .out.row_stride = HQ * D_V,
                                      .out.token_stride = HEADS * D_V,
                                      .out.head_stride = D_V,
                                      .lse.row_stride = HQ,
                                      .lse.token_stride = HEADS,
                                      .lse.head_stride = 1,
                                      .rows.count = ROWS,
                                      .rows.q_len = Q_LEN,
                                      .heads = HEADS,
                                      .d_v = D_V,
                                      .lse_base2 = rig->p.lse_base2,
                                      .sink = rig->p.sink};
    memset(rig->out, 0xff, sizeof(rig->out)); /* NaN: every element must be written */
    memset(rig->lse, 0xff, sizeof(rig->lse));
    memset(rig->partial_out, 0xff, sizeof(rig->partial_out));
    memset(rig->partial_lse, 0xff, sizeof(rig->partial_lse));
    rt_ref_schedule(&schedule);
    rt_ref_attend(&rig->p);
    rt_ref_reduce(&reduce);
    rt_ref_mla_attention(&rig->p, rig->true_out, rig->true_lse);
}

static void expect_near(double found, double truth, double bound, size_t where)
{
    if (isnan(truth) ? isnan(found) : found == truth || fabs(found - truth) <= bound)
        return;
    fail_msg("element %zu is %.9g, the truth %.9g", where, found, truth);
}

static void expect_truth(const struct rig *rig)
{
    for (size_t i = 0; i < ROWS * HQ * D_V; i++)
        expect_near((double)rt_bf16_to_float(rig->out[i]), rig->true_out[i],
                    fabs(rig->true_out[i]) / 256 + MOST_VALUE / 65536, i);
    for (size_t i = 0; i < ROWS * HQ; i++)
        expect_near((double)rig->lse[i], rig->true_lse[i], 1e-6, i);
}

static void test_against_truth(void **state)
{
    static const int32_t lengths[][ROWS] = {
        {150, 0, 1, 65},   {64, 16, 17, 63}, {128, 129, 127, 2},
        {160, -5, 15, 33}, {0, 0, 0, 0},     {1, 2, 1, 2},
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        for (uint32_t causal = 0; causal < 2; causal++) {
            set_lengths(rig, lengths[i], i + 1);
            rig->p.causal = causal;
            run(rig);
            expect_truth(rig);
        }
}

/* One key: out is its value, lse its score. Causal token 0 of a row of length 1 sees none. */
static void test_by_hand(void **state)
{
    struct rig *rig = *state;
    set_lengths(rig, (int32_t[]){1, 0, 3, 3}, 5);
    rig->p.causal = 1;
    memset(rig->q, 0, sizeof(rig->q));
    rig->q[(0 * Q_LEN + 1) * HEADS * D_QK + 7] = bits_of(2.0);
    key_of(rig, 0, 0)[7] = bits_of(3.0);
    /* Row 2: equal scores, so the mean of 3 keys; token 0 sees 2 of them. */
    for (int32_t i = 0; i < 3; i++)
        key_of(rig, 2, i)[0] = bits_of(i);
    run(rig);
    expect_near(rig->true_lse[HEADS], 6.0 * (double)rig->p.scale, 1e-9, 0);
    expect_near(rig->true_out[HEADS * D_V + 7], 3.0, 1e-9, 0);
    assert_true(rig->true_lse[0] == INFINITY);
    assert_true(rig->true_out[0] == 0);
    expect_near(rig->true_out[2 * HQ * D_V], 0.5, 1e-9, 0);
    expect_near(rig->true_lse[2 * HQ], log(2.0), 1e-9, 0);
    expect_near(rig->true_out[(2 * HQ + HEADS) * D_V], 1.0, 1e-9, 0);
    expect_near(rig->true_lse[2 * HQ + HEADS], log(3.0), 1e-9, 0);
    expect_truth(rig);
}

/* In base 2 lse is another number for split rows, whole ones and the truth, and nothing else is. */
static void test_base_of_lse(void **state)
{
    struct rig *rig = *state;
    set_lengths(rig, (int32_t[]){200, 1, 0, 70}, 11);
    rig->p.causal = 1;
    run(rig);
    struct rig natural = *rig;
    rig->p.lse_base2 = 1;
    run(rig);
    assert_true(rig->num_splits[ROWS] > 0 && rig->num_splits[1] == rig->num_splits[2]);
    for (size_t i = 0; i < ROWS * HQ; i++) {
        expect_near(rig->true_lse[i], natural.true_lse[i] / log(2.0), 1e-12, i);
        expect_near((double)rig->lse[i], (double)natural.lse[i] / log(2.0), 1e-6, i);
    }
    assert_true(rig->lse[HQ] == INFINITY && rig->lse[2 * HQ] == INFINITY);
    assert_memory_equal(rig->out, natural.out, sizeof(natural.out));
    assert_memory_equal(rig->partial_lse, natural.partial_lse, sizeof(natural.partial_lse));
    expect_truth(rig);
}

/* A sink takes its share of what is without it, once, in split rows as in whole ones. */
static void test_sinks(void **state)
{
    const float sinks[HEADS] = {1.25f, -INFINITY, INFINITY}, nan_for_all[HEADS] = {NAN, NAN, NAN};
    struct rig *rig = *state;
    set_lengths(rig, (int32_t[]){200, 1, 0, 70}, 12);
    rig->p.causal = 1;
    run(rig);
    struct rig none = *rig;
    rig->p.sink = sinks;
    run(rig);
    assert_true(rig->num_splits[ROWS] > 0 && rig->num_splits[1] == rig->num_splits[2]);
    assert_memory_equal(rig->lse, none.lse, sizeof(none.lse));
    assert_memory_equal(rig->partial_out, none.partial_out, sizeof(none.partial_out));
    for (size_t i = 0; i < ROWS * HQ * D_V; i++) {
        const size_t query = i / D_V;
        const double lse = none.true_lse[query], sink = (double)sinks[query % HEADS];
        const double share = lse == INFINITY ? 1 : 1 / (1 + exp(sink - lse));
        expect_near(rig->true_out[i], none.true_out[i] * share, 1e-12, i);
    }
    expect_truth(rig);
    rig->p.sink = nan_for_all;
    run(rig);
    for (size_t i = 0; i < ROWS * HQ; i++)
        assert_int_equal(isnan(rig->true_out[i * D_V + 3]) != 0, none.true_lse[i] != INFINITY);
    expect_truth(rig);
}

static void test_infinite_scores(void **state)
{
    struct rig *rig = *state;
    set_lengths(rig, (int32_t[]){130, 130, 2, 70}, 6);
    for (size_t i = 0; i < ROWS * HQ; i++)
        rig->q[i * D_QK + D_QK - 1] = bits_of(1.0);
    for (int32_t i = 0; i < 130; i += 2)
        key_of(rig, 0, i)[D_QK - 1] = bits_of(-INFINITY);
    for (int32_t i = 0; i < 130; i++)
        key_of(rig, 1, i)[D_QK - 1] = bits_of(-INFINITY);
    key_of(rig, 2, 1)[D_QK - 1] = bits_of(INFINITY);
    run(rig);
    assert_true(isfinite(rig->true_lse[0]));
    assert_true(rig->true_lse[HQ] == INFINITY && rig->true_out[HQ * D_V] == 0);
    assert_true(isnan(rig->true_lse[2 * HQ]) && isnan(rig->true_out[2 * HQ * D_V + 9]));
    expect_truth(rig);
}

static void test_nan_stays_in_its_row(void **state)
{
    struct rig *rig = *state;
    set_lengths(rig, (int32_t[]){130, 20, 20, 20}, 7);
    rig->q[4 * D_QK + 100] = BF16_NAN;
    key_of(rig, 2, 3)[5] = BF16_NAN;
    run(rig);
    for (size_t i = 0; i < ROWS * HQ; i++) {
        bool poisoned = i == 4 || i / HQ == 2;
        assert_int_equal(isnan(rig->true_lse[i]) != 0, poisoned);
        assert_int_equal(isnan(rig->true_out[i * D_V + 30]) != 0, poisoned);
    }
    expect_truth(rig);
}

/* Table entries that lead nowhere, for keys that are seen: read as zeros, never followed. */
static void test_bad_pages(void **state)
{
    struct rig *rig = *state;
    set_lengths(rig, (int32_t[]){40, 40, 0, 0}, 8);
    rig->table[0] = -1;
    rig->table[COLUMNS + 1] = PAGES;
    rig->length[2] = COLUMNS * PAGE + 64;
    memset(rig->table + 2 * COLUMNS, 0xff, COLUMNS * sizeof(int32_t));
    run(rig);
    expect_near(rig->true_lse[2 * HQ + HEADS], log((double)rig->length[2]), 1e-9, 0);
    expect_truth(rig);
}

static void test_huge_scores(void **state)
{
    struct rig *rig = *state;
    set_lengths(rig, (int32_t[]){150, 90, 10, 70}, 9);
    rig->p.scale = 1e4f;
    run(rig);
    for (size_t i = 0; i < ROWS * HQ; i++)
        assert_true(isfinite(rig->true_lse[i]) && fabs(rig->true_lse[i]) > 100);
    for (size_t i = 0; i < ROWS * HQ * D_V; i++)
        expect_near((double)rt_bf16_to_float(rig->out[i]), rig->true_out[i],
                    fabs(rig->true_out[i]) / 256 + MOST_VALUE / 65536, i);
}

static void test_append_guards(void **state)
{
    struct rig *rig = *state;
    uint16_t latent[ROWS * Q_LEN * D_QK];
    int32_t position[ROWS] = {PAGE - 1, COLUMNS * PAGE - 1, -1, 5};
    int32_t slot[ROWS] = {3, 2, 1, -1};
    memset(latent, 0x11, sizeof(latent));
    memset(rig->kv, 0x22, sizeof(rig->kv));
    for (int32_t i = 0; i < ROWS * COLUMNS; i++)
        rig->table[i] = 2147480000;
    rig->table[3 * COLUMNS] = 4;
    rig->table[3 * COLUMNS + 1] = -7; /* token 1 of row 0 has nowhere to go */
    rig->table[2 * COLUMNS + COLUMNS - 1] = PAGES - 1;
    struct rt_append_params p = {.latent.base = latent,
                                 .kv.base = (unsigned char *)rig->kv,
                                 .kv.table = rig->table,
                                 .rows.slot = slot,
                                 .rows.position = position,
                                 .latent.row_stride = Q_LEN * D_QK,
                                 .latent.token_stride = D_QK,
                                 .kv.page_stride_bytes = 2 * PAGE * D_QK,
                                 .kv.token_stride_bytes = 2 * D_QK,
                                 .rows.count = ROWS,
                                 .rows.q_len = Q_LEN,
                                 .kv.token_bytes = 2 * D_QK,
                                 .kv.page_size = PAGE,
                                 .kv.max_blocks = COLUMNS,
                                 .kv.pages = PAGES};
    rt_ref_append(&p);
    for (size_t token = 0; token < PAGES * PAGE; token++) {
        bool written = token == 4 * PAGE + PAGE - 1 || token == PAGES * PAGE - 1;
        for (uint32_t d = 0; d < D_QK; d++)
            assert_int_equal(rig->kv[token * D_QK + d], written ? 0x1111 : 0x2222);
    }
}

static void test_page_copy(void **state)
{
    struct rig *rig = *state;
    const size_t page = PAGE * D_QK;
    struct rt_ctrl ctrl = {.copy_count = 2};
    struct rt_page_copy copies[3] = {{0, 5, 3, 0}, {1, 6, PAGE, 0}, {2, 7, PAGE, 0}};
    for (size_t i = 0; i < PAGES * page; i++)
        rig->kv[i] = (uint16_t)(i / page);
    struct rt_page_copy_params p = {.ctrl = &ctrl,
                                    .copies = copies,
                                    .kv.base = (unsigned char *)rig->kv,
                                    .layer_stride_bytes = 20 * (int64_t)page,
                                    .kv.page_stride_bytes = 2 * (int64_t)page,
                                    .kv.token_stride_bytes = 2 * D_QK,
                                    .kv.token_bytes = 2 * D_QK,
                                    .layers = 2};
    rt_ref_page_copy(&p);
    for (uint16_t layer = 0; layer < 2; layer++) {
        const uint16_t *kv = rig->kv + layer * 10 * page;
        uint16_t first = (uint16_t)(layer * 10);
        assert_int_equal(kv[5 * page + 3 * D_QK - 1], first);
        assert_int_equal(kv[5 * page + 3 * D_QK], first + 5);
        assert_int_equal(kv[6 * page], first + 1);
        assert_int_equal(kv[7 * page - 1], first + 1);
        assert_int_equal(kv[7 * page], first + 7);
    }
}

static int make_rig(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    if (!rig)
        return -1;
    rig->p = (struct rt_attend_params){.q.base = rig->q,
                                       .kv.base = (unsigned char *)rig->kv,
                                       .kv.table = rig->table,
                                       .rows.length = rig->length,
                                       .schedule.parts = rig->tiles,
                                       .schedule.num_splits = rig->num_splits,
                                       .out.base = rig->out,
                                       .lse.base = rig->lse,
                                       .partials.out = rig->partial_out,
                                       .partials.lse = rig->partial_lse,
                                       .q.row_stride = HQ * D_QK,
                                       .q.token_stride = HEADS * D_QK,
                                       .q.head_stride = D_QK,
                                       .out.row_stride = HQ * D_V,
                                       .out.token_stride = HEADS * D_V,
                                       .out.head_stride = D_V,
                                       .lse.row_stride = HQ,
                                       .lse.token_stride = HEADS,
                                       .lse.head_stride = 1,
                                       .kv.page_stride_bytes = 2 * PAGE * D_QK,
                                       .kv.token_stride_bytes = 2 * D_QK,
                                       .scale = 0.1f,
                                       .rows.count = ROWS,
                                       .rows.q_len = Q_LEN,
                                       .heads = HEADS,
                                       .d_qk = D_QK,
                                       .d_v = D_V,
                                       .kv.page_size = PAGE,
                                       .kv.max_blocks = COLUMNS,
                                       .schedule.part_count = PARTS,
                                       .kv.pages = PAGES};
    *state = rig;
    return 0;
}

static int free_rig(void **state)
{
    free(*state);
    return 0;
}

#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, make_rig, free_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16),
        RIG_TEST(test_against_truth),
        RIG_TEST(test_by_hand),
        RIG_TEST(test_base_of_lse),
        RIG_TEST(test_sinks),
        RIG_TEST(test_infinite_scores),
        RIG_TEST(test_nan_stays_in_its_row),
        RIG_TEST(test_bad_pages),
        RIG_TEST(test_huge_scores),
        RIG_TEST(test_append_guards),
        RIG_TEST(test_page_copy),
    };
    return cmocka_run_group_tests_name("ref", tests, NULL, NULL);
}
