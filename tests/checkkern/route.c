/* SPDX-License-Identifier: Apache-2.0 */
/*
 * route: choices and groups are the reference's, bit for bit; weights are within a bound of it.
 * Where experts are compared by scores, logits are drawn until none of the comparisons hangs on how
 * a score is rounded.
 */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/route_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of two experts' values, and of two groups'; of those with a bias, which are around 1, absolutely,
 * else relatively. */
#define LEAST_GAP 1e-6
#define LEAST_GROUP_GAP 2e-6
#define MOST_DRAWS 4000

enum trouble { PLAIN, TIES, EQUAL, NANS, ALL_NAN, INFINITE, HUGE_LOGITS, TROUBLES };
static const char *const trouble_names[TROUBLES] = {
    "", ", ties", ", all equal", ", NaN", ", nothing but NaN", ", infinity", ", huge"};

struct route_case {
    uint32_t rows, q_len, gap;
    struct ck_choosing choose;
    bool padding, without_rows;
    enum trouble trouble;
};

struct route_rig {
    struct ck_route_rig route;
    struct ck_buffer length;
};

static struct rt_route_params params_of(const struct route_case *c, const struct route_rig *r,
                                        enum ck_side side)
{
    struct rt_route_params p =
        ck_route_params(&c->choose, &r->route, c->rows, c->q_len, c->choose.experts + c->gap, side);
    if (c->without_rows)
        p.rows.slot = NULL;
    else
        p.rows.length = ck_at(&r->length, side);
    return p;
}

/* ---- inputs ---- */

/* Elsewhere experts are equal in earnest, or differ by more than rounding. */
static bool must_be_apart(const struct route_case *c)
{
    return c->trouble == PLAIN || c->trouble == HUGE_LOGITS;
}

/* Scores of huge logits are 0 and 1: there is nothing to choose by. */
static void draw(struct ck_random *random, const struct route_case *c, bool by_score, float *logits)
{
    for (uint32_t e = 0; e < c->choose.experts; e++) {
        const double x = ck_random_normal(random);
        logits[e] = (float)(c->trouble == HUGE_LOGITS && !by_score ? 3000 * x
                            : c->trouble == TIES  ? (double)ck_random_below(random, 4)
                            : c->trouble == EQUAL ? 1.25
                                                  : 2 * x);
    }
    const uint32_t many = c->trouble == ALL_NAN ? c->choose.experts : 1 + c->choose.experts / 8;
    for (uint32_t i = 0; i < many && c->trouble >= NANS && c->trouble <= INFINITE; i++) {
        const uint32_t e =
            many == c->choose.experts ? i : ck_random_below(random, c->choose.experts);
        logits[e] = c->trouble != INFINITE       ? NAN
                    : ck_random_below(random, 2) ? INFINITY
                                                 : -INFINITY;
    }
}

static int falling(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static bool are_apart(double *values, uint32_t count, double gap, bool relative)
{
    qsort(values, count, sizeof(*values), falling);
    for (uint32_t i = 1; i < count; i++)
        if (values[i - 1] - values[i] < gap * (relative ? values[i - 1] : 1))
            return false;
    return true;
}

/* Whether float's roundings of scores could not change a choice. */
static bool is_decided(const struct route_case *c, const float *logits, const float *bias)
{
    double value[RT_ROUTE_MOST_EXPERTS] = {0}, group[RT_ROUTE_MOST_GROUPS] = {0}, sum = 0;
    for (uint32_t e = 0; e < c->choose.experts; e++)
        sum += exp((double)logits[e]);
    for (uint32_t e = 0; e < c->choose.experts; e++)
        value[e] = (c->choose.scoring == RT_ROUTE_SIGMOID ? 1 / (1 + exp(-(double)logits[e]))
                                                          : exp((double)logits[e]) / sum) +
                   (c->choose.bias ? (double)bias[e] : 0);
    const uint32_t each = c->choose.experts / c->choose.groups;
    for (uint32_t g = 0; g < c->choose.groups; g++) {
        double *of_group = value + (size_t)g * each;
        if (!are_apart(of_group, each, LEAST_GAP, !c->choose.bias))
            return false;
        group[g] = of_group[0] + (c->choose.group_value == RT_ROUTE_GROUP_TOP2 ? of_group[1] : 0);
    }
    return are_apart(value, c->choose.experts, LEAST_GAP, !c->choose.bias) &&
           (c->choose.groups == 1 ||
            are_apart(group, c->choose.groups, LEAST_GROUP_GAP, !c->choose.bias));
}

static void fill_token(struct ck *ck, struct ck_random *random, const struct route_case *c,
                       const struct rt_route_params *p, uint32_t token)
{
    float *logits = (float *)(uintptr_t)p->logits + token * p->logit_stride;
    const bool by_score = rt_route_by_score(p);
    draw(random, c, by_score, logits);
    if (!must_be_apart(c) || !by_score)
        return;
    for (int i = 0; i < MOST_DRAWS; i++) {
        if (is_decided(c, logits, p->bias))
            return;
        draw(random, c, by_score, logits);
    }
    ck_failed(ck, "no logits of token %u whose experts are apart", token);
}

static void fill(struct ck *ck, struct ck_random *random, const struct route_case *c,
                 struct route_rig *r)
{
    const struct rt_route_params p = params_of(c, r, CK_REF);
    float *bias = ck_at(&r->route.bias, CK_REF);
    int32_t *slot = ck_at(&r->route.slot, CK_REF), *length = ck_at(&r->length, CK_REF);
    for (uint32_t e = 0; e < c->choose.experts; e++)
        bias[e] = must_be_apart(c) ? (float)ck_random_normal(random) : 0.25f;
    for (uint32_t i = 0; i < c->rows; i++) {
        const uint32_t kind = c->padding ? ck_random_below(random, 4) : 0;
        slot[i] = kind == 1 ? -1 : (int32_t)i;
        length[i] = kind == 2 ? 0 : 5;
        /* Of padding nothing is read: its logits stay as they are. */
        for (uint32_t t = 0; t < c->q_len && (c->without_rows || kind == 0 || kind == 3); t++)
            fill_token(ck, random, c, &p, i * c->q_len + t);
    }
}

static struct route_rig make_rig(struct ck *ck, const struct route_case *c)
{
    const uint64_t tokens = (uint64_t)c->rows * c->q_len, stride = c->choose.experts + c->gap;
    struct route_rig r = {.route = ck_route_rig_make(ck, &c->choose, c->rows, c->q_len),
                          .length =
                              ck_alloc_later(ck, "length", 4 * (uint64_t)c->rows, CK_ROUTE_POISON)};
    r.route.logits = ck_alloc_later(ck, "logits", 4 * tokens * stride, 0xff);
    return r;
}

static void free_rig(struct ck *ck, struct route_rig *r)
{
    ck_route_rig_free(ck, &r->route);
    ck_free(ck, &r->length);
}

/* ---- a case ---- */

static void compare_weights(struct ck *ck, const struct ck_buffer *weights)
{
    float *found = ck_new(ck, weights->bytes + CK_GUARD_BYTES);
    float *expected = ck_at(weights, CK_REF);
    double worst = 0;
    ck_download(ck, weights, found);
    for (uint64_t i = 0; i < weights->bytes / 4; i++) {
        const double off = fabs((double)found[i] - (double)expected[i]);
        const double bound = CK_ROUTE_WEIGHT_BOUND * fabs((double)expected[i]) + 1e-30;
        const bool same = isnan(expected[i]) ? isnan(found[i]) : off <= bound;
        worst = fmax(worst, isnan(expected[i]) ? 0 : off / bound);
        if (!same) {
            ck_failed(ck, "weight %llu is %.9g, not %.9g", (unsigned long long)i, (double)found[i],
                      (double)expected[i]);
            break;
        }
    }
    ck_note_worst(ck, "weights", worst, 0, 0);
    memcpy(found, expected, weights->bytes);
    ck_expect_bytes(ck, "what surrounds weights", found, expected, weights->bytes + CK_GUARD_BYTES);
    free(found);
}

static void check(struct ck *ck, struct ck_random *random, const struct route_case *c)
{
    char words[CK_CHOOSING_BYTES];
    ck_case(ck, "%u rows of %u tokens%s, %s%s", c->rows, c->q_len,
            c->padding ? " with padding" : "", ck_choosing_words(&c->choose, words),
            trouble_names[c->trouble]);
    struct route_rig rig = make_rig(ck, c);
    struct ck_buffer *const inputs[] = {&rig.route.logits, &rig.route.bias, &rig.route.slot,
                                        &rig.length};
    struct ck_buffer *const outputs[] = {&rig.route.choices, &rig.route.offsets, &rig.route.pairs,
                                         &rig.route.active, &rig.route.count};
    struct rt_launch launch;
    struct rt_error err = {0};
    fill(ck, random, c, &rig);
    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++)
        ck_upload(ck, inputs[i]);
    const struct rt_route_params ref = params_of(c, &rig, CK_REF);
    const struct rt_route_params device = params_of(c, &rig, CK_DEVICE);
    rt_ref_route(&ref);
    const enum rt_status status = ck_build(ck, RT_OP_ROUTE, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);
    for (size_t i = 0; i < sizeof(outputs) / sizeof(outputs[0]); i++)
        ck_expect_same(ck, outputs[i]);
    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++)
        ck_expect_same(ck, inputs[i]);
    compare_weights(ck, &rig.route.weights);
    free_rig(ck, &rig);
}

/* How models choose. */
static const struct ck_choosing models[] = {
    CK_CHOOSE_V2_LITE,
    CK_CHOOSE_V2,
    CK_CHOOSE_V3,
    {.experts = 64,
     .chosen = 4,
     .groups = 1,
     .kept = 1,
     .scoring = RT_ROUTE_SIGMOID,
     .bias = true,
     .normalise = true,
     .scale = 1.8f},
    {.experts = 384,
     .chosen = 8,
     .groups = 1,
     .kept = 1,
     .scoring = RT_ROUTE_SIGMOID,
     .bias = true,
     .normalise = true,
     .scale = 2.827f},
    {.experts = 768, .chosen = 12, .groups = 1, .kept = 1, .bias = true, .scale = 6.0f},
    {.experts = 8, .chosen = 2, .groups = 2, .kept = 1, .normalise = true, .scale = 1.0f},
};
#define MODELS (sizeof(models) / sizeof(models[0]))

/* Any numbers: groups of any length, all of them kept or one. */
static struct ck_choosing odd_choosing(struct ck_random *random)
{
    static const uint32_t counts[] = {1, 2, 3, 7, 8, 20, 31, 32};
    const uint32_t groups = counts[ck_random_below(random, 8)];
    const uint32_t each = 2 + ck_random_below(random, RT_ROUTE_MOST_EXPERTS / groups / 4 - 1);
    struct ck_choosing c = {.experts = groups * each,
                            .groups = groups,
                            .kept = 1 + ck_random_below(random, groups),
                            .scoring = (enum rt_route_scoring)ck_random_below(random, 2),
                            .group_value = (enum rt_route_group_value)ck_random_below(random, 2),
                            .bias = ck_random_below(random, 2),
                            .normalise = ck_random_below(random, 2),
                            .scale = ck_random_below(random, 2) ? 1.0f : 2.5f};
    const uint32_t most = c.kept * each;
    c.chosen =
        1 + ck_random_below(random, most < RT_ROUTE_MOST_CHOSEN ? most : RT_ROUTE_MOST_CHOSEN);
    return c;
}

void ck_route_run(struct ck *ck)
{
    static const uint32_t rows[] = {1, 2, 5, 32, 33, 64, 127, 128, 129, 300};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 1400 : ck->quick ? 28 : 140;
    for (uint32_t i = 0; i < rounds; i++) {
        struct route_case c = {.choose = i % 2 ? odd_choosing(&random) : models[i / 2 % MODELS]};
        c.rows = rows[ck_random_below(&random, ck->quick ? 4 : i % 5 ? 6 : 10)];
        c.q_len = i % 3 ? 1 : 1 + ck_random_below(&random, 3);
        c.padding = ck_random_below(&random, 2);
        c.without_rows = ck_random_below(&random, 4) == 0;
        c.gap = ck_random_below(&random, 3);
        c.trouble = (enum trouble)(i % 4 ? PLAIN : ck_random_below(&random, TROUBLES));
        check(ck, &random, &c);
    }
    for (uint32_t trouble = 0; trouble < TROUBLES; trouble++)
        for (uint32_t m = 0; m < MODELS; m++) {
            struct route_case c = {.choose = models[m]};
            c.rows = 3;
            c.q_len = 2;
            c.trouble = (enum trouble)trouble;
            check(ck, &random, &c);
        }
    check(ck, &random, &(struct route_case){1, 1, 0, {1, 1, 1, 1, .scale = 1.0f}});
    check(ck, &random,
          &(struct route_case){
              5, 1, 0, {RT_ROUTE_MOST_EXPERTS, RT_ROUTE_MOST_CHOSEN, 32, 9, .scale = 1.0f}});
}

#define BENCH_LAUNCHES 50

void ck_route_bench(struct ck *ck)
{
    static const uint32_t tokens[] = {1, 8, 32, 64};
    struct ck_random random = {.state = ck->seed};
    for (uint32_t i = 0; i < 8; i++) {
        struct route_case c = {.choose = models[i < 4 ? 0 : 2]};
        c.rows = tokens[i % 4];
        c.q_len = 1;
        struct route_rig rig = make_rig(ck, &c);
        struct rt_launch launches[BENCH_LAUNCHES];
        struct rt_error err = {0};
        fill(ck, &random, &c, &rig);
        ck_upload(ck, &rig.route.logits);
        ck_upload(ck, &rig.route.bias);
        ck_upload(ck, &rig.route.slot);
        ck_upload(ck, &rig.length);
        const struct rt_route_params p = params_of(&c, &rig, CK_DEVICE);
        for (int l = 0; l < BENCH_LAUNCHES; l++)
            ck_must(ck, ck_build(ck, RT_OP_ROUTE, &p, sizeof(p), &launches[l], &err), &err);
        printf("route      %3u of %3u experts, %2u tokens: %8.2f us\n", c.choose.chosen,
               c.choose.experts, c.rows, ck_time_ns(ck, launches, BENCH_LAUNCHES) / 1e3);
        free_rig(ck, &rig);
    }
}
