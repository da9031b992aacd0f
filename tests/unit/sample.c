/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling: its arithmetic against what it stands for, its choice against a sorted list in double,
 * its distribution, and what is judged of drafts and stop ids. */
#include "kernels/abi/sample_number.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VOCAB 300u
#define COLUMNS 4u

static uint64_t chance(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static float unit(uint64_t *state)
{
    return (float)(chance(state) >> 40) * 0x1p-24f;
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

/* The generator itself is known: a block of zeros is the first vector of Random123's list. */
static void test_generator(void **state)
{
    (void)state;
    assert_true(rt_sample_random(0, 0) == UINT64_C(0xe169c58d6627e8d5));
    const uint64_t a = rt_sample_random(7, 1);
    assert_true(a != rt_sample_random(7, 2));
    assert_true(a != rt_sample_random(UINT64_C(1) << 32 | 7, 1));
}

static void test_weight_is_a_power(void **state)
{
    (void)state;
    uint64_t random = 5, last = UINT64_MAX;
    for (uint32_t i = 0; i < 200000; i++) {
        const uint32_t distance = (uint32_t)((chance(&random) >> 32) * (40ull << 26) >> 32);
        const double truth = exp2(40.0 - (double)distance * 0x1p-26);
        const double off = fabs((double)rt_sample_weight(distance) - truth);
        if (off > truth * 0x1p-28 + 1.0)
            fail_msg("seed 5, %u: distance %u weighs %llu, not %.3f", i, distance,
                     (unsigned long long)rt_sample_weight(distance), truth);
    }
    for (uint32_t halvings = 0; halvings < 40; halvings++) {
        const uint64_t weight = rt_sample_weight(halvings << 26);
        assert_true(weight >= 1 && weight < last);
        last = weight;
    }
    assert_true(rt_sample_weight((40u << 26) - 1) >= 1);
    assert_true(rt_sample_weight(UINT32_MAX) == 0);
}

static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(rt_sample_distance(-1.0f, 2.0f, 0.5f), 3u << 25);
    assert_int_equal(rt_sample_distance(INFINITY, INFINITY, 1.0f), 0);
    assert_int_equal(rt_sample_distance(-INFINITY, -INFINITY, 0.0f), 0);
    assert_int_equal(rt_sample_distance(3.0f, INFINITY, 1.0f), UINT32_MAX);
    assert_int_equal(rt_sample_distance(NAN, 1.0f, 1.0f), UINT32_MAX);
    assert_int_equal(rt_sample_distance(-INFINITY, 1.0f, 0.0f), UINT32_MAX); /* inf times 0 */
    assert_int_equal(rt_sample_distance(-39.999f, 0.0f, 1.0f) >> RT_SAMPLE_BIN_SHIFT, 639);
    assert_int_equal(rt_sample_distance(-40.0f, 0.0f, 1.0f), UINT32_MAX);
}

static void test_keys_are_in_order(void **state)
{
    (void)state;
    static const float falling[] = {INFINITY, 3e38f, 2.0f, 1e-45f, 0.0f, -1e-45f, -7.0f, -INFINITY};
    for (uint32_t i = 0; i < 8; i++) {
        assert_true(rt_sample_x(rt_sample_key(falling[i], 5)) == falling[i]);
        assert_int_equal(rt_sample_id(rt_sample_key(falling[i], 5)), 5);
        assert_true(rt_sample_key(falling[i], 5) > rt_sample_key(falling[i], 6));
        if (i > 0)
            assert_true(rt_sample_key(falling[i - 1], RT_SAMPLE_MOST_VOCAB - 1) >
                        rt_sample_key(falling[i], 0));
    }
    assert_true(rt_sample_key(-0.0f, 1) == rt_sample_key(0.0f, 1));
    assert_true(rt_sample_key(NAN, 0) < rt_sample_key(-INFINITY, RT_SAMPLE_MOST_VOCAB - 1));
    assert_true(rt_sample_key(-NAN, 0) > rt_sample_key(NAN, 1));
    assert_true(isnan(rt_sample_x(rt_sample_key(NAN, 3))));
}

static void test_products(void **state)
{
    (void)state;
    assert_true(rt_sample_high64(UINT64_MAX, UINT64_MAX) == UINT64_MAX - 1);
    assert_true(rt_sample_high64(UINT64_C(1) << 63, 2) == 1);
    assert_true(rt_sample_high64(UINT64_C(0xffffffff), UINT64_C(0xffffffff)) == 0);
    assert_true(rt_sample_high64(UINT64_C(0x123456789abcdef0), UINT64_C(0xfedcba9876543210)) ==
                UINT64_C(0x121fa00ad77d7422));
    assert_true(rt_sample_need(0.5f, 9) == 5);
    assert_true(rt_sample_need(0.0f, 9) == 1);
    assert_true(rt_sample_need(-1.0f, 9) == 1);
    assert_true(rt_sample_need(0.25f, UINT64_C(1) << 58) == UINT64_C(1) << 56);
    assert_true(rt_sample_need(0.99999994f, 1000) == 1000);
}

/* ---- the choice ------------------------------------------------------------------------------ */

struct one {
    float logits[COLUMNS * VOCAB];
    struct rt_sample_line line;
    int32_t length, position, accept, tokens[COLUMNS], accepted, sampled;
};

static void run(struct one *one, uint32_t columns)
{
    const struct rt_sample_params p = {
        .logits = one->logits,
        .row_stride = COLUMNS * VOCAB,
        .token_stride = VOCAB,
        .rows = {.length = &one->length, .position = &one->position, .count = 1, .q_len = columns},
        .accept = &one->accept,
        .tokens = one->tokens,
        .accepted = &one->accepted,
        .sampled = &one->sampled,
        .lines = &one->line,
        .scale = 1.0f,
        .vocab = VOCAB};
    one->accepted = one->sampled = -77;
    rt_ref_sample(&p);
}

static void set_up(struct one *one, uint64_t *random)
{
    *one = (struct one){.length = 1, .accept = RT_ACCEPT_BY_DEVICE};
    for (uint32_t i = 0; i < COLUMNS * VOCAB; i++)
        one->logits[i] = roundf(40 * unit(random)) / 4; /* with ties */
    for (uint32_t i = 0; i < RT_SAMPLE_STOPS; i++)
        one->line.stop[i] = -1;
    one->line.temperature = 1.0f;
    one->line.top_p = 1.0f;
}

static const float *sorting;

static int before(const void *a, const void *b)
{
    const uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    if (sorting[i] != sorting[j])
        return sorting[i] > sorting[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

/* The ids that stay, by sorting, in double: `certain` are those that no rounding can change. */
static void keep(const struct one *one, bool kept[VOCAB], double probability[VOCAB], bool *certain)
{
    const struct rt_sample_line *s = &one->line;
    uint32_t ids[VOCAB];
    double sum = 0, some = 0;
    for (uint32_t i = 0; i < VOCAB; i++)
        ids[i] = i;
    sorting = one->logits;
    qsort(ids, VOCAB, sizeof(ids[0]), before);
    uint32_t count = s->top_k > 0 && (uint32_t)s->top_k < VOCAB ? (uint32_t)s->top_k : VOCAB;
    for (uint32_t i = 0; i < VOCAB; i++)
        probability[i] =
            exp(((double)one->logits[i] - (double)one->logits[ids[0]]) / (double)s->temperature);
    for (uint32_t i = 0; i < count; i++)
        sum += probability[ids[i]];
    uint32_t stay = 0;
    *certain = true;
    while (stay < count && (stay == 0 || some < (double)s->top_p * sum)) {
        some += probability[ids[stay++]];
        *certain = *certain && fabs(some / sum - (double)s->top_p) > 1e-6;
    }
    *certain = *certain || s->top_p >= 1.0f;
    memset(kept, 0, VOCAB * sizeof(*kept));
    for (uint32_t i = 0; i < stay; i++)
        kept[ids[i]] = true;
}

static void test_choice_by_sorting(void **state)
{
    (void)state;
    static const float temperatures[] = {1.0f, 0.5f, 2.0f, 5.0f},
                       top_ps[] = {1.0f, 0.9f, 0.3f, 0.0f};
    uint64_t random = 11;
    uint32_t compared = 0;
    struct one *one = malloc(sizeof(*one));
    for (uint32_t i = 0; i < 1500; i++) {
        bool kept[VOCAB], certain;
        double probability[VOCAB], sum = 0, some = 0;
        set_up(one, &random);
        one->line.temperature = temperatures[i % 4];
        one->line.top_p = top_ps[i / 4 % 4];
        one->line.top_k = i % 3 ? (int32_t)(chance(&random) >> 32) % 40 : 0;
        one->line.seed = chance(&random);
        one->position = (int32_t)i;
        run(one, 1);
        assert_in_range(one->sampled, 0, VOCAB - 1);
        keep(one, kept, probability, &certain);
        if (!certain)
            continue;
        for (uint32_t id = 0; id < VOCAB; id++)
            sum += kept[id] ? probability[id] : 0;
        const double target = (double)rt_sample_random(one->line.seed, i) * 0x1p-64 * sum;
        uint32_t id = 0;
        while (id < VOCAB && (some += kept[id] ? probability[id] : 0) <= target)
            id++;
        if (fabs(some - target) < 1e-6 * sum)
            continue; /* a rounding's breadth from the next */
        if ((uint32_t)one->sampled != id)
            fail_msg("seed 11, %u: %d, expected %u", i, one->sampled, id);
        compared++;
    }
    free(one);
    assert_true(compared > 1300);
}

/* Chi squared over 20000 positions of a row. */
static void test_distribution(void **state)
{
    (void)state;
    uint64_t random = 13;
    struct one *one = malloc(sizeof(*one));
    set_up(one, &random);
    for (uint32_t id = 0; id < VOCAB; id++)
        one->logits[id] = id < 10 ? (float)id * 0.3f : -INFINITY;
    uint32_t seen[10] = {0};
    double sum = 0, chi = 0;
    for (int i = 0; i < 20000; i++) {
        one->position = i;
        run(one, 1);
        assert_in_range(one->sampled, 0, 9);
        seen[one->sampled]++;
    }
    for (int i = 0; i < 10; i++)
        sum += exp(i * 0.3);
    for (int i = 0; i < 10; i++) {
        const double expected = 20000 * exp(i * 0.3) / sum;
        chi += (seen[i] - expected) * (seen[i] - expected) / expected;
    }
    free(one);
    assert_true(chi < 27.9); /* nine degrees of freedom: one in a thousand */
}

static void test_greedy(void **state)
{
    (void)state;
    static const float temperatures[] = {0.0f, -1.0f, NAN};
    uint64_t random = 17;
    struct one *one = malloc(sizeof(*one));
    set_up(one, &random);
    one->logits[41] = one->logits[200] = 50.0f;
    one->logits[7] = NAN;
    for (int i = 0; i < 3; i++) {
        one->line.temperature = temperatures[i];
        run(one, 1);
        assert_int_equal(one->sampled, 41);
        assert_int_equal(one->accepted, 1);
    }
    for (uint32_t id = 0; id < VOCAB; id++)
        one->logits[id] = NAN;
    for (int i = 0; i < 2; i++) {
        one->line.temperature = (float)i;
        run(one, 1);
        assert_int_equal(one->sampled, 0);
    }
    one->length = 0;
    run(one, 1);
    assert_int_equal(one->sampled, -77);
    assert_int_equal(one->accepted, -77);
    free(one);
}

/* ---- drafts and stop ids --------------------------------------------------------------------- */

/* Greedy; column t's best is 100 + t. */
static struct one *judged(void)
{
    uint64_t random = 19;
    struct one *one = malloc(sizeof(*one));
    set_up(one, &random);
    one->line.temperature = 0.0f;
    for (uint32_t t = 0; t < COLUMNS; t++)
        one->logits[t * VOCAB + 100 + t] = 99.0f;
    one->tokens[0] = 5;
    return one;
}

static void expect(struct one *one, int32_t accepted, int32_t sampled)
{
    run(one, COLUMNS);
    assert_int_equal(one->accepted, accepted);
    assert_int_equal(one->sampled, sampled);
}

static void test_drafts(void **state)
{
    (void)state;
    static const int32_t drafts[][3] = {
        {7, 101, 102}, {100, 7, 102}, {100, 101, -1}, {100, 101, 102}};
    struct one *one = judged();
    for (int32_t good = 0; good < 4; good++) {
        memcpy(one->tokens + 1, drafts[good], sizeof(drafts[good]));
        expect(one, good + 1, 100 + good);
    }
    one->accept = 3; /* the host's word: nothing is judged, and nothing stops */
    one->line.stop[0] = 5;
    expect(one, -77, 102);
    free(one);
}

static void test_stops(void **state)
{
    (void)state;
    static const int32_t good[3] = {100, 101, 102};
    struct one *one = judged();
    memcpy(one->tokens + 1, good, sizeof(good));
    one->line.stop[7] = 101; /* sampled in column 1 */
    expect(one, 2, 101);
    one->tokens[0] = 101; /* and so fed back */
    expect(one, 0, 101);
    one->line.stop[7] = -1;
    one->tokens[0] = -1; /* no token is no stop id */
    expect(one, 4, 103);
    free(one);
}

/* Neither place nor company changes a row's token, nor does its slot's number. */
static void test_rows_are_their_own(void **state)
{
    (void)state;
    uint64_t random = 23;
    static float logits[3 * VOCAB];
    struct rt_sample_line lines[9] = {0};
    struct one *alone = malloc(sizeof(*alone));
    set_up(alone, &random);
    alone->line.seed = 9;
    alone->position = 77;
    run(alone, 1);
    for (uint32_t place = 0; place < 3; place++) {
        int32_t length[3] = {1, 1, 1}, position[3] = {3, 4, 5}, slot[3] = {1, 2, 3};
        int32_t tokens[5], accepted[5], sampled[5] = {0};
        const struct rt_ctrl ctrl = {.row_base = 2};
        for (uint32_t i = 0; i < 3 * VOCAB; i++)
            logits[i] = unit(&random);
        memcpy(logits + place * VOCAB, alone->logits, VOCAB * sizeof(float));
        position[place] = 77;
        slot[place] = 8;
        lines[8] = alone->line;
        const struct rt_sample_params p = {.logits = logits,
                                           .row_stride = VOCAB,
                                           .rows = {.length = length,
                                                    .count = 3,
                                                    .q_len = 1,
                                                    .slot = slot,
                                                    .position = position,
                                                    .ctrl = &ctrl},
                                           .tokens = tokens,
                                           .accepted = accepted,
                                           .sampled = sampled,
                                           .lines = lines,
                                           .scale = 1.0f,
                                           .vocab = VOCAB};
        rt_ref_sample(&p);
        assert_int_equal(sampled[2 + place], alone->sampled);
    }
    free(alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generator),
        cmocka_unit_test(test_weight_is_a_power),
        cmocka_unit_test(test_distance),
        cmocka_unit_test(test_keys_are_in_order),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_choice_by_sorting),
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_stops),
        cmocka_unit_test(test_rows_are_their_own),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
