/* SPDX-License-Identifier: Apache-2.0 */
/* The references of what lies between a layer's products, by hand. */
#include "kernels/ref/ref.h"

#include "tests/unit/expect.h"

#include <math.h>
#include <stdlib.h>

#define L 256
#define R 32
#define P 8
#define HEADS 2
#define WIDTH 16
#define PAGE 4
#define PAGES 3
#define POISON 77.0f

static void near(const char *what, double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-6 * fabs(expected)))
        fail_msg("%s is %.9g, not %.9g", what, found, expected);
}

/* A row of one token in f32, whose cosines and sines of position 5 are 3 and 4 in pair 1, 1 and 0
 * elsewhere. */
struct rig {
    float q_a[WIDTH], kv_a[L + R], q_in[HEADS][P + R], q_out[HEADS * (L + R)];
    float kv[PAGES * PAGE * (L + R)], turns[6][R / 2][2], factors[6];
    uint16_t q_weight[WIDTH], kv_weight[L];
    int32_t table[2][2], position, slot;
    struct rt_preattend_params p;
};

/* Position 5's place: row 1 of page 2. */
static float *key_of(struct rig *rig)
{
    return rig->kv + (2 * PAGE + 1) * (L + R);
}

static float *q_of(struct rig *rig, uint32_t head)
{
    return rig->q_out + (size_t)head * (L + R);
}

static int make_rig(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    if (!rig)
        return -1;
    *state = rig;
    rig->slot = 1;
    rig->position = 5;
    rig->table[1][1] = 2;
    for (uint32_t i = 0; i < WIDTH; i++) {
        rig->q_a[i] = 3.0f;
        rig->q_weight[i] = rt_float_to_bf16((float)i);
    }
    for (uint32_t i = 0; i < L + R; i++)
        rig->kv_a[i] = i < L ? 2.0f : (float)(i - L);
    for (uint32_t h = 0; h < HEADS; h++)
        for (uint32_t i = 0; i < P + R; i++)
            rig->q_in[h][i] = (float)(100 * h + i);
    for (uint32_t i = 0; i < HEADS * (L + R); i++)
        rig->q_out[i] = POISON;
    for (uint32_t i = 0; i < PAGES * PAGE * (L + R); i++)
        rig->kv[i] = POISON;
    for (uint32_t i = 0; i < R / 2; i++)
        rig->turns[5][i][0] = 1.0f;
    rig->turns[5][1][0] = 3.0f;
    rig->turns[5][1][1] = 4.0f;
    rig->factors[5] = 0.5f;
    rig->p = (struct rt_preattend_params){
        .rows = {.count = 1, .q_len = 1, .slot = &rig->slot, .position = &rig->position},
        .kv = {.base = (unsigned char *)rig->kv,
               .table = rig->table[0],
               .page_stride_bytes = PAGE * (L + R) * 4,
               .token_stride_bytes = (L + R) * 4,
               .page_size = PAGE,
               .max_blocks = 2,
               .pages = PAGES,
               .token_bytes = (L + R) * 4},
        .q_a.base = (void *)rig->q_a,
        .kv_a.base = (void *)rig->kv_a,
        .q_in = {.base = rig->q_in, .head_stride = P + R},
        .q_out = {.base = rig->q_out, .head_stride = L + R},
        .q_a_norm = {.weight = rig->q_weight, .eps = 7.0f, .offset = 1, .scale = 8, .width = WIDTH},
        .kv_a_norm = {.eps = 1e-6f, .scale = 1, .width = L},
        .rope = {.table = rig->turns[0][0], .capacity = 6},
        .heads = HEADS,
        .nope_dim = P,
        .latent_dim = L,
        .rope_dim = R,
        .is_f32 = 1};
    return 0;
}

static int free_rig(void **state)
{
    free(*state);
    return 0;
}

static void expect_untouched(const float *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_true(from[i] == POISON);
}

/* 3 / sqrt(9 + 7) * 8 = 6, times weight + 1. No norm of the latent: it is copied. */
static void test_parts(void **state)
{
    struct rig *rig = *state;
    rt_ref_preattend(&rig->p);
    for (uint32_t i = 0; i < WIDTH; i++)
        near("q_a", (double)rig->q_a[i], 6.0 * (i + 1));
    const float *key = key_of(rig);
    for (uint32_t i = 0; i < L; i++)
        assert_true(key[i] == 2.0f);
    for (uint32_t i = 0; i < R; i++)
        if (i != 2 && i != 3)
            assert_true(key[L + i] == (float)i);
    near("a of the key", (double)key[L + 2], 2 * 3 - 3 * 4);
    near("b of the key", (double)key[L + 3], 2 * 4 + 3 * 3);
    expect_untouched(rig->kv, (2 * PAGE + 1) * (L + R));
    expect_untouched(key + L + R, 2 * (L + R));
    for (uint32_t h = 0; h < HEADS; h++) {
        const double a = 100.0 * h + P + 2, b = a + 1;
        expect_untouched(q_of(rig, h), L);
        near("a of q", (double)q_of(rig, h)[L + 2], a * 3 - b * 4);
        near("b of q", (double)q_of(rig, h)[L + 3], a * 4 + b * 3);
        assert_true(q_of(rig, h)[L + 4] == 100.0f * (float)h + P + 4);
        for (uint32_t i = 0; i < P + R; i++)
            assert_true(rig->q_in[h][i] == (float)(100 * h + i));
    }
}

static void test_halves_and_factors(void **state)
{
    struct rig *rig = *state;
    rig->p.rope.half_order = 1;
    rig->p.rope.query_scale = rig->factors;
    rt_ref_preattend(&rig->p);
    near("a of the key", (double)key_of(rig)[L + 1], 1 * 3 - 17 * 4);
    near("b of the key", (double)key_of(rig)[L + 17], 1 * 4 + 17 * 3);
    near("a of q", (double)q_of(rig, 1)[L + 1], (109.0 * 3 - 125.0 * 4) / 2);
    near("b of q", (double)q_of(rig, 1)[L + 17], (109.0 * 4 + 125.0 * 3) / 2);
    near("another of q", (double)q_of(rig, 1)[L + 16], 124.0 / 2);
    near("P of q", (double)rig->q_in[1][7], 107.0 / 2);
    assert_true(rig->q_in[1][P] == 108.0f);
}

/* No table: R numbers as they are, at any position, also where the block table ends. */
static void test_nothing_turned(void **state)
{
    struct rig *rig = *state;
    rig->p.rope.table = NULL;
    rig->position = 8;
    rig->kv_a[L + 3] = INFINITY;
    rt_ref_preattend(&rig->p);
    expect_untouched(rig->kv, PAGES * PAGE * (L + R));
    assert_true(q_of(rig, 1)[L + 2] == 110.0f);
    rig->position = 5;
    rt_ref_preattend(&rig->p);
    assert_true(key_of(rig)[L + 2] == 2.0f && isinf(key_of(rig)[L + 3]));
    assert_true(rig->q_in[1][7] == 107.0f);
}

/* Padding, a position that is none, and one that the table does not have. */
static void test_dead_tokens(void **state)
{
    struct rig *rig = *state;
    const struct {
        int32_t slot, position;
    } dead[] = {{-1, 5}, {1, -1}, {1, 6}, {1, INT32_MAX}};
    for (size_t i = 0; i < COUNT(dead); i++) {
        rig->slot = dead[i].slot;
        rig->position = dead[i].position;
        rig->q_a[3] = q_of(rig, 1)[L] = rig->q_in[1][2] = NAN;
        rt_ref_preattend(&rig->p);
        expect_untouched(rig->kv, PAGES * PAGE * (L + R));
        for (uint32_t n = 0; n < WIDTH; n++)
            assert_true(rig->q_a[n] == 0);
        for (uint32_t h = 0; h < HEADS; h++) {
            expect_untouched(q_of(rig, h), L);
            for (uint32_t n = 0; n < R; n++)
                assert_true(q_of(rig, h)[L + n] == 0);
            for (uint32_t n = 0; n < P + R; n++)
                assert_true(rig->q_in[h][n] == (n < P ? 0 : (float)(100 * h + n)));
        }
    }
}

/* Two tokens, 3 apart, of 2 numbers, though no kernel serves so few: 3 and 4, then 5 and 12. */
static void test_input_norm(void **state)
{
    (void)state;
    const uint16_t weight[2] = {rt_float_to_bf16(1.0f), rt_float_to_bf16(3.0f)};
    float hidden[6] = {1, 2, POISON, 5, -4, POISON}, normed[6], residual[6];
    for (int i = 0; i < 6; i++)
        residual[i] = normed[i] = POISON;
    residual[0] = residual[1] = 2;
    residual[3] = 0;
    residual[4] = 16;
    struct rt_input_norm_params p = {
        .hidden = (void *)hidden,
        .residual = (void *)residual,
        .normed = (void *)normed,
        .stride = 3,
        .norm = {.weight = weight, .eps = 3.5f, .offset = -1.0f, .scale = 2.0f, .width = 2},
        .tokens = 2,
        .is_f32 = 1,
        .hidden_scale = 1};
    rt_ref_input_norm(&p);
    assert_true(residual[0] == 3 && residual[1] == 4 && residual[3] == 5 && residual[4] == 12);
    assert_true(normed[0] == 0 && normed[3] == 0); /* 1 - 1 */
    near("of 3 and 4", (double)normed[1], 4 * 2 * 2 / 4.0);
    near("of 5 and 12", (double)normed[4], 12 * 2 * 2 / sqrt(88.0));
    assert_true(hidden[2] == POISON && residual[2] == POISON && normed[2] == POISON &&
                residual[5] == POISON && normed[5] == POISON);
    p.hidden_scale = 0.5f;
    rt_ref_input_norm(&p);
    assert_true(residual[0] == 3.5f && residual[1] == 5 && residual[3] == 7.5f &&
                residual[4] == 10);
    p.first = 1; /* sets, and scales nothing */
    p.norm.weight = NULL;
    rt_ref_input_norm(&p);
    assert_true(residual[0] == 1 && residual[1] == 2 && residual[3] == 5 && residual[4] == -4);
    assert_true(normed[0] == 1 && normed[1] == 2 && normed[3] == 5 && normed[4] == -4);
}

/* In bf16 the norm is of the residual as it is stored: 257 is 256. */
static void test_input_norm_rounds_once(void **state)
{
    (void)state;
    uint16_t hidden = rt_float_to_bf16(1.0f), residual = rt_float_to_bf16(256.0f), normed;
    const struct rt_input_norm_params p = {.hidden = &hidden,
                                           .residual = &residual,
                                           .normed = &normed,
                                           .norm.width = 1,
                                           .tokens = 1,
                                           .hidden_scale = 1};
    rt_ref_input_norm(&p);
    assert_true(rt_bf16_to_float(residual) == 256.0f && rt_bf16_to_float(normed) == 256.0f);
}

#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, make_rig, free_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_parts),
        RIG_TEST(test_halves_and_factors),
        RIG_TEST(test_nothing_turned),
        RIG_TEST(test_dead_tokens),
        cmocka_unit_test(test_input_norm),
        cmocka_unit_test(test_input_norm_rounds_once),
    };
    return cmocka_run_group_tests_name("ref_layer", tests, NULL, NULL);
}
