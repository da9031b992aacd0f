/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt_sample of replayrt/model_ops.h against its rule in double: the order, the cuts, the draw, and
 * what a device decides of drafts and stops. The same program runs with the CUDA kernels, emulated.
 */
#include "replayrt/model_ops.h"
#include "tests/support/fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/op_rig.h"

#define ROWS 4
#define QUERY_LEN 3
#define VOCAB 4500 /* more than two pieces of the kernels */
#define SLOTS 6
#define BASE 2 /* the replay's first row in the step's tensors */
#define NOBODY (-77)
#define LOGITS (ROWS * QUERY_LEN * (VOCAB + 3) + 1)

struct rig {
    rt_ops *ops;
    uint64_t random, bytes;
    float *logits;
    struct rt_sampling *lines;
    void *workspace;
    int32_t lengths[ROWS], positions[ROWS], slots[ROWS], accept[ROWS], base[1];
    int32_t tokens[(BASE + ROWS) * QUERY_LEN];
    int32_t accepted[BASE + ROWS], sampled[BASE + ROWS];
};

static void *take(uint64_t bytes)
{
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    assert_non_null(memory);
    memset(memory, 0xa5, bytes);
    return memory;
}

static void refill(struct rig *r)
{
    static const int32_t slots[] = {4, 0, 5, 2}, lengths[] = {9, 30, 0, 3};
    for (size_t i = 0; i < LOGITS; i++)
        r->logits[i] = 4 * (float)(int32_t)fixture_random(&r->random) / 2147483648.0f;
    for (uint32_t i = 0; i < SLOTS; i++) {
        r->lines[i] = (struct rt_sampling){.temperature = 0, .top_p = 1, .seed = 1000 + i};
        memset(r->lines[i].stops, 0xff, sizeof(r->lines[i].stops));
    }
    for (uint32_t i = 0; i < ROWS; i++) {
        r->slots[i] = slots[i];
        r->lengths[i] = lengths[i];
        r->positions[i] = lengths[i] - QUERY_LEN;
        r->accept[i] = QUERY_LEN;
    }
    for (size_t i = 0; i < sizeof(r->tokens) / 4; i++)
        r->tokens[i] = 0;
    for (size_t i = 0; i < BASE + ROWS; i++)
        r->accepted[i] = r->sampled[i] = NOBODY;
    r->base[0] = BASE;
}

static int set_up(void **state)
{
    struct rig *r = take(sizeof(*r));
    assert_int_equal(rt_ops_create("host", &r->ops, NULL), RT_OK);
    assert_int_equal(rt_sample_workspace(ROWS, QUERY_LEN, VOCAB, &r->bytes, NULL), RT_OK);
    r->random = 17;
    r->logits = take(LOGITS * sizeof(float));
    r->lines = take(SLOTS * sizeof(*r->lines));
    r->workspace = take(r->bytes + 256);
    refill(r);
    *state = r;
    return 0;
}

/* Nobody has written behind the workspace. */
static int tear_down(void **state)
{
    struct rig *r = *state;
    for (uint32_t i = 0; i < 256; i++)
        assert_int_equal(((unsigned char *)r->workspace)[r->bytes + i], 0xa5);
    rt_ops_destroy(&r->ops);
    free(r->logits);
    free(r->lines);
    free(r->workspace);
    free(r);
    return 0;
}

/* Logits begin behind a number, and tokens and rows have gaps. */
static struct rt_sample_args args_of(const struct rig *r)
{
    return (struct rt_sample_args){.struct_size = sizeof(struct rt_sample_args),
                                   .vocab = VOCAB,
                                   .rows = {.rows = ROWS,
                                            .query_len = QUERY_LEN,
                                            .lengths = at(r->lengths),
                                            .slots = at(r->slots),
                                            .positions = at(r->positions),
                                            .row_base = at(r->base)},
                                   .logits = at(r->logits + 1),
                                   .token_stride = VOCAB + 3,
                                   .accept = at(r->accept),
                                   .tokens = at(r->tokens),
                                   .accepted = at(r->accepted),
                                   .sampled = at(r->sampled),
                                   .lines = at(r->lines),
                                   .workspace = at(r->workspace)};
}

static float *column_of(const struct rig *r, uint32_t row, uint32_t column)
{
    return r->logits + 1 + (row * QUERY_LEN + column) * (VOCAB + 3);
}

static void run(struct rig *r, const struct rt_sample_args *args)
{
    if (rt_sample(r->ops, args, NULL) != RT_OK)
        fail_msg("%s", rt_ops_last_error(r->ops)->message);
}

/* ---- the rule -------------------------------------------------------------------------------- */

/* Philox 4x32-10 of counter (position, 0, 0, 0): words 1 and 0. */
static uint64_t philox(uint64_t key, uint32_t position)
{
    uint32_t c[4] = {position, 0, 0, 0}, k[2] = {(uint32_t)key, (uint32_t)(key >> 32)};
    for (int i = 0; i < 10; i++) {
        const uint64_t even = UINT64_C(0xD2511F53) * c[0], odd = UINT64_C(0xCD9E8D57) * c[2];
        const uint32_t next[4] = {(uint32_t)(odd >> 32) ^ c[1] ^ k[0], (uint32_t)odd,
                                  (uint32_t)(even >> 32) ^ c[3] ^ k[1], (uint32_t)even};
        memcpy(c, next, sizeof(c));
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    return (uint64_t)c[1] << 32 | c[0];
}

struct one {
    double x;
    int32_t id;
};

/* x falling, NaN last; ids rising where equal. */
static int in_order(const void *left, const void *right)
{
    const struct one *a = left, *b = right;
    const bool a_nan = isnan(a->x), b_nan = isnan(b->x);
    if (a_nan != b_nan)
        return a_nan - b_nan;
    if (!a_nan && a->x != b->x)
        return a->x > b->x ? -1 : 1;
    return a->id - b->id;
}

/* How many of the first stay. *close: so near to one more or less that double cannot say. */
static uint32_t keep(const struct rt_sampling *s, const struct one *all, const double *weight,
                     bool *close)
{
    uint32_t count = VOCAB;
    double sum = 0, reached = 0;
    if (s->top_k > 0 && (uint32_t)s->top_k < count)
        count = (uint32_t)s->top_k;
    for (uint32_t i = 0; i < count; i++)
        sum += weight[all[i].id];
    if (!(s->top_p < 1.0f))
        return count;
    for (uint32_t i = 0; i < count; i++) {
        reached += weight[all[i].id];
        *close |= fabs(reached - (double)s->top_p * sum) < 1e-6 * sum;
        if (reached >= (double)s->top_p * sum)
            return i + 1;
    }
    return count;
}

static int32_t choice_of(const float *logits, float scale, const struct rt_sampling *s,
                         uint32_t position, bool *close)
{
    static struct one all[VOCAB];
    static double weight[VOCAB], kept[VOCAB];
    for (int32_t i = 0; i < VOCAB; i++)
        all[i] = (struct one){(double)(logits[i] * scale), i};
    qsort(all, VOCAB, sizeof(all[0]), in_order);
    if (!(s->temperature > 0) || isnan(all[0].x))
        return all[0].id;
    for (uint32_t i = 0; i < VOCAB; i++) {
        const double off = all[i].x == all[0].x ? 0 : (all[i].x - all[0].x);
        weight[all[i].id] = exp(off / (double)s->temperature);
        kept[i] = 0;
        if (isnan(weight[all[i].id]))
            weight[all[i].id] = 0;
    }
    const uint32_t count = keep(s, all, weight, close);
    double sum = 0, upto = 0;
    for (uint32_t i = 0; i < count; i++) {
        kept[all[i].id] = weight[all[i].id];
        sum += weight[all[i].id];
    }
    const double target = (double)philox(s->seed, position) * 0x1p-64 * sum;
    for (int32_t i = 0; i < VOCAB; i++) {
        upto += kept[i];
        *close |= kept[i] > 0 && fabs(upto - target) < 1e-6 * sum;
        if (upto > target)
            return i;
    }
    return all[0].id;
}

/* ---- where the host says how many tokens stay ------------------------------------------------ */

static void choices(struct rig *r, const struct rt_sampling *like, float scale, uint32_t *compared)
{
    struct rt_sample_args args = args_of(r);
    args.scale = scale;
    for (uint32_t i = 0; i < SLOTS; i++) {
        const uint64_t seed = r->lines[i].seed;
        r->lines[i] = *like;
        r->lines[i].seed = seed;
    }
    for (uint32_t i = 0; i < ROWS; i++)
        r->accept[i] = 1 + (int32_t)(i % QUERY_LEN);
    run(r, &args);
    for (uint32_t row = 0; row < ROWS; row++) {
        const uint32_t column = (uint32_t)r->accept[row] - 1;
        assert_int_equal(r->accepted[BASE + row], NOBODY); /* the host's to say */
        if (r->lengths[row] <= 0) {
            assert_int_equal(r->sampled[BASE + row], NOBODY);
            continue;
        }
        bool close = false;
        const int32_t want =
            choice_of(column_of(r, row, column), scale == 0.0f ? 1 : scale,
                      &r->lines[r->slots[row]], (uint32_t)r->positions[row] + column, &close);
        *compared += !close;
        if (r->sampled[BASE + row] != want && !close)
            fail_msg("row %u: %d, not %d (temperature %g, top_k %d, top_p %g)", row,
                     r->sampled[BASE + row], want, (double)like->temperature, like->top_k,
                     (double)like->top_p);
    }
    for (uint32_t i = 0; i < BASE; i++)
        assert_int_equal(r->sampled[i], NOBODY);
}

static void by_the_rule(void **state)
{
    struct rig *r = *state;
    static const struct rt_sampling ways[] = {
        {.temperature = 0, .top_p = 1},
        {.temperature = -1, .top_p = 0.5f, .top_k = 3},
        {.temperature = 1, .top_p = 1},
        {.temperature = 0.5f, .top_p = 0.9f},
        {.temperature = 1, .top_p = 1, .top_k = 5},
        {.temperature = 2, .top_p = 0.3f, .top_k = 700},
        {.temperature = 3, .top_p = 1e-9f},
        {.temperature = 1, .top_p = 7, .top_k = 100000},
    };
    uint32_t compared = 0;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        for (int turn = 0; turn < 3; turn++) {
            refill(r);
            choices(r, &ways[i], turn == 1 ? 0.4f : 0, &compared);
        }
    assert_true(compared > 65); /* of 72; those too near to say are few */
}

/* Equal numbers, NaN and infinities; with no accept all columns stay, and with no slots row r has
 * line r. */
static void odd_numbers(void **state)
{
    struct rig *r = *state;
    struct rt_sample_args args = args_of(r);
    args.accept = args.rows.slots = 0;
    for (uint32_t row = 0; row < ROWS; row++)
        for (uint32_t i = 0; i < VOCAB; i++)
            column_of(r, row, QUERY_LEN - 1)[i] = row == 0 ? NAN : -INFINITY;
    column_of(r, 1, QUERY_LEN - 1)[4400] = -5;
    column_of(r, 1, QUERY_LEN - 1)[2100] = -5;
    column_of(r, 1, QUERY_LEN - 1)[3] = NAN;
    r->lines[3].temperature = 1; /* infinities share the draw */
    for (int32_t id = 100; id < 104; id++)
        column_of(r, 3, QUERY_LEN - 1)[id] = INFINITY;
    run(r, &args);
    assert_int_equal(r->sampled[BASE], 0);
    assert_int_equal(r->sampled[BASE + 1], 2100);
    assert_int_equal(r->sampled[BASE + 2], NOBODY);
    const uint64_t random = philox(r->lines[3].seed, 0 + QUERY_LEN - 1);
    assert_int_equal(r->sampled[BASE + 3], 100 + (int32_t)(random >> 62));
}

/* ---- where the device says ------------------------------------------------------------------- */

static void peak(struct rig *r, uint32_t row, uint32_t column, int32_t id)
{
    column_of(r, row, column)[id] = 50;
}

static void drafts_and_stops(void **state)
{
    struct rig *r = *state;
    const struct rt_sample_args args = args_of(r);
    for (uint32_t row = 0; row < ROWS; row++) {
        r->accept[row] = RT_ACCEPT_DEVICE;
        for (uint32_t column = 0; column < QUERY_LEN; column++)
            peak(r, row, column, (int32_t)(10 * row + column));
    }
    int32_t *const tokens = r->tokens + BASE * QUERY_LEN;
    const int32_t fed[ROWS][QUERY_LEN] = {{7, 0, 1}, {7, 10, 99}, {7, 20, 21}, {4, 30, 31}};
    memcpy(tokens, fed, sizeof(fed));
    r->lines[2].stops[RT_SAMPLING_STOPS - 1] = 4; /* row 3's: what it feeds is one */
    run(r, &args);
    assert_int_equal(r->sampled[BASE], 2); /* both drafts were right */
    assert_int_equal(r->accepted[BASE], 3);
    assert_int_equal(r->sampled[BASE + 1], 11); /* the second was not */
    assert_int_equal(r->accepted[BASE + 1], 2);
    assert_int_equal(r->sampled[BASE + 2], NOBODY);
    assert_int_equal(r->accepted[BASE + 2], NOBODY);
    assert_int_equal(r->sampled[BASE + 3], 4); /* has stopped */
    assert_int_equal(r->accepted[BASE + 3], 0);

    r->lines[4].stops[3] = 1; /* a stop in the middle of row 0's drafts ends them */
    r->lines[2].stops[RT_SAMPLING_STOPS - 1] = -1;
    run(r, &args);
    assert_int_equal(r->sampled[BASE], 1);
    assert_int_equal(r->accepted[BASE], 2);
    assert_int_equal(r->sampled[BASE + 3], 32);
    assert_int_equal(r->accepted[BASE + 3], 3);

    /* What the host counts, it counts of a row that has stopped too. */
    r->lines[2].stops[0] = 4;
    r->accept[3] = 1;
    r->accepted[BASE + 3] = NOBODY;
    run(r, &args);
    assert_int_equal(r->sampled[BASE + 3], 30);
    assert_int_equal(r->accepted[BASE + 3], NOBODY);
}

/* What is no count of a row's tokens, and a row without a slot, lead nowhere: neither to a column
 * that is another's nor to a line in front of the first. */
static void numbers_that_are_none(void **state)
{
    struct rig *r = *state;
    static const int32_t none[ROWS] = {0, QUERY_LEN + 1, INT32_MAX, -2};
    const struct rt_sample_args args = args_of(r);
    for (uint32_t row = 0; row < ROWS; row++) {
        r->accept[row] = none[row];
        r->lengths[row] = 9;
        peak(r, row, QUERY_LEN - 1, (int32_t)(40 + row));
    }
    run(r, &args);
    for (uint32_t row = 0; row < ROWS; row++) {
        assert_int_equal(r->sampled[BASE + row], 40 + row);
        assert_int_equal(r->accepted[BASE + row], NOBODY);
    }
    r->slots[1] = -1;
    r->slots[3] = INT32_MIN;
    r->sampled[BASE + 1] = r->sampled[BASE + 3] = NOBODY;
    run(r, &args);
    assert_int_equal(r->sampled[BASE], 40);
    assert_int_equal(r->sampled[BASE + 1], NOBODY);
    assert_int_equal(r->sampled[BASE + 2], 42);
    assert_int_equal(r->sampled[BASE + 3], NOBODY);
}

/* A row's token does not depend on who is beside it, nor on the batch. */
static void alone_and_together(void **state)
{
    struct rig *r = *state;
    int32_t together[BASE + ROWS];
    struct rt_sample_args args = args_of(r);
    for (uint32_t i = 0; i < SLOTS; i++)
        r->lines[i] = (struct rt_sampling){
            .temperature = 1.5f, .top_p = 0.95f, .top_k = 50, .seed = 5 + i, .stops = {-1, -1}};
    run(r, &args);
    memcpy(together, r->sampled, sizeof(together));
    for (uint32_t row = 0; row < ROWS; row++) {
        if (r->lengths[row] <= 0)
            continue;
        args = args_of(r);
        args.rows = (struct rt_token_rows){.rows = 1,
                                           .query_len = 1,
                                           .lengths = at(r->lengths + row),
                                           .slots = at(r->slots + row),
                                           .positions = at(r->positions + row)};
        args.token_stride = 0;
        args.logits = at(column_of(r, row, QUERY_LEN - 1));
        args.accept = 0;
        args.sampled = at(r->sampled);
        r->positions[row] += QUERY_LEN - 1;
        run(r, &args);
        assert_int_equal(r->sampled[0], together[BASE + row]);
    }
}

static void workspaces(void **state)
{
    (void)state;
    uint64_t one = 0, more = 0, bytes = 77;
    struct rt_error err = {0};
    assert_int_equal(rt_sample_workspace(1, 1, 1, &one, NULL), RT_OK);
    assert_int_equal(rt_sample_workspace(2, 8, 1 << 18, &more, &err), RT_OK);
    assert_true(one > 0 && one % 256 == 0 && more % 256 == 0 && more > 16 * (one - 4 * 256));
    const struct {
        uint32_t rows, query_len, vocab;
        const char *words;
    } bad[] = {
        {0, 1, 1, "rows 0 is not 1..4096"},    {4097, 1, 1, "rows 4097 is not 1..4096"},
        {1, 0, 1, "query_len 0 is not 1..8"},  {1, 9, 1, "query_len 9 is not 1..8"},
        {1, 1, 0, "vocab 0 is not 1..262144"}, {1, 1, 262145, "vocab 262145 is not 1..262144"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(
            rt_sample_workspace(bad[i].rows, bad[i].query_len, bad[i].vocab, &bytes, &err),
            RT_ERR_INVALID);
        if (!strstr(err.message, bad[i].words))
            fail_msg("\"%s\" does not say \"%s\"", err.message, bad[i].words);
        assert_true(bytes == 77);
    }
    assert_int_equal(rt_sample_workspace(1, 1, 1, NULL, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "bytes is null"));
}

#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(by_the_rule),           RIG_TEST(odd_numbers),        RIG_TEST(drafts_and_stops),
        RIG_TEST(numbers_that_are_none), RIG_TEST(alone_and_together), cmocka_unit_test(workspaces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
