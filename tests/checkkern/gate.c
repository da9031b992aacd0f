/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gate: the residual is the reference's, bit for bit, and what is normed within a rounding of it;
 * logits are those of what was normed, within float's sums; of these logits the choices are the
 * reference's, but where two experts are as good, and the groups are those of the choices.
 */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"
#include "tests/checkkern/route_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIE 1e-6 /* values of experts that are as good, of scores around 1 */

struct gate_case {
    uint32_t rows, q_len, width, gap;
    struct ck_choosing choose;
    bool padding, first;
    float hidden_scale;
};

struct gate_rig {
    struct ck_route_rig route;
    struct ck_buffer hidden, residual, normed, weight, router, arrivals;
};

static struct rt_gate_params params_of(const struct gate_case *c, const struct gate_rig *r,
                                       enum ck_side side)
{
    const uint32_t stride = c->width + c->gap;
    return (struct rt_gate_params){
        .norm = {.hidden = ck_at(&r->hidden, side),
                 .residual = ck_at(&r->residual, side),
                 .normed = ck_at(&r->normed, side),
                 .stride = stride,
                 .norm = {.weight = ck_at(&r->weight, side),
                          .eps = 1e-6f,
                          .scale = 1.0f,
                          .width = c->width},
                 .tokens = c->rows * c->q_len,
                 .first = c->first,
                 .hidden_scale = c->hidden_scale},
        .route = ck_route_params(&c->choose, &r->route, c->rows, c->q_len, c->choose.experts, side),
        .router = ck_at(&r->router, side),
        .router_stride = stride,
        .arrivals = ck_at(&r->arrivals, side)};
}

static struct gate_rig make_rig(struct ck *ck, const struct gate_case *c)
{
    const uint64_t tokens = (uint64_t)c->rows * c->q_len, experts = c->choose.experts;
    const uint64_t stride = c->width + c->gap;
    struct gate_rig r = {.route = ck_route_rig_make(ck, &c->choose, c->rows, c->q_len),
                         .hidden = ck_alloc_later(ck, "hidden", 2 * tokens * stride, 0xff),
                         .residual = ck_alloc_later(ck, "residual", 2 * tokens * stride, 0xff),
                         .normed = ck_alloc(ck, "normed", 2 * tokens * stride, 0xff),
                         .weight = ck_alloc_later(ck, "weight", 2 * (uint64_t)c->width, 0xff),
                         .router = ck_alloc_later(ck, "router", 2 * experts * stride, 0xff),
                         .arrivals = ck_alloc(ck, "arrivals", 4, 0)};
    r.route.logits = ck_alloc(ck, "logits", 4 * tokens * experts, 0xff);
    return r;
}

static void free_rig(struct ck *ck, struct gate_rig *r)
{
    struct ck_buffer *all[] = {&r->hidden, &r->residual, &r->normed,
                               &r->weight, &r->router,   &r->arrivals};
    ck_route_rig_free(ck, &r->route);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

static void fill_rows(struct ck *ck, struct ck_random *random, const struct ck_buffer *b,
                      uint64_t rows, const struct gate_case *c, double scale)
{
    uint16_t *to = ck_at(b, CK_REF);
    for (uint64_t row = 0; row < rows; row++)
        for (uint32_t i = 0; i < c->width; i++)
            to[row * (c->width + c->gap) + i] =
                rt_float_to_bf16((float)(ck_random_normal(random) * scale));
    ck_upload(ck, b);
}

static void fill(struct ck *ck, struct ck_random *random, const struct gate_case *c,
                 struct gate_rig *r)
{
    const uint64_t tokens = (uint64_t)c->rows * c->q_len;
    uint16_t *weight = ck_at(&r->weight, CK_REF);
    float *bias = ck_at(&r->route.bias, CK_REF);
    int32_t *slot = ck_at(&r->route.slot, CK_REF);
    fill_rows(ck, random, &r->hidden, tokens, c, 1);
    fill_rows(ck, random, &r->residual, c->first ? 0 : tokens, c, 3);
    fill_rows(ck, random, &r->router, c->choose.experts, c, 2 / sqrt(c->width));
    for (uint32_t i = 0; i < c->width; i++)
        weight[i] = rt_float_to_bf16((float)(1 + ck_random_normal(random) / 4));
    for (uint32_t e = 0; e < c->choose.experts; e++)
        bias[e] = (float)ck_random_normal(random) / 8;
    for (uint32_t i = 0; i < c->rows; i++)
        slot[i] = c->padding && ck_random_below(random, 3) == 0 ? -1 : (int32_t)i;
    ck_upload(ck, &r->weight);
    ck_upload(ck, &r->route.bias);
    ck_upload(ck, &r->route.slot);
}

/* ---- what has come of it ---- */

static void *fetch(struct ck *ck, const struct ck_buffer *b)
{
    void *found = ck_new(ck, b->bytes + CK_GUARD_BYTES);
    ck_download(ck, b, found);
    return found;
}

/* Within a rounding of the reference's, and nothing else is written. */
static void compare_normed(struct ck *ck, const struct gate_case *c, const struct gate_rig *r,
                           uint16_t *found)
{
    const uint64_t stride = c->width + c->gap;
    const uint16_t *expected = ck_at(&r->normed, CK_REF);
    struct ck_floats f = {.name = "normed", .rel_bound = 0x1p-99};
    for (uint32_t t = 0; t < c->rows * c->q_len; t++)
        for (uint32_t i = 0; i < stride; i++) {
            const double x = (double)rt_bf16_to_float(expected[t * stride + i]);
            f.abs_bound = fabs(x) * 0x1p-7 + 0x1p-133;
            if (i < c->width)
                ck_floats_add(&f, (double)rt_bf16_to_float(found[t * stride + i]), x,
                              (struct ck_place){t, 0, 0, i});
            else if (found[t * stride + i] != 0xffffu)
                ck_failed(ck, "normed, token %u: number %u is written", t, i);
        }
    ck_floats_end(ck, &f, 0);
}

static void compare_logits(struct ck *ck, const struct gate_case *c, const struct gate_rig *r,
                           const uint16_t *normed, const float *found)
{
    const uint64_t stride = c->width + c->gap;
    const uint16_t *router = ck_at(&r->router, CK_REF);
    struct ck_floats f = {.name = "logits", .rel_bound = 0x1p-99};
    for (uint32_t t = 0; t < c->rows * c->q_len; t++)
        for (uint32_t e = 0; e < c->choose.experts; e++) {
            double sum = 0, sizes = 0;
            for (uint32_t i = 0; i < c->width; i++) {
                const double part = (double)rt_bf16_to_float(normed[t * stride + i]) *
                                    (double)rt_bf16_to_float(router[e * stride + i]);
                sum += part;
                sizes += fabs(part);
            }
            f.abs_bound = sizes * 0x1p-19;
            ck_floats_add(&f, (double)found[(uint64_t)t * c->choose.experts + e], sum,
                          (struct ck_place){t, 0, 0, e});
        }
    ck_floats_end(ck, &f, 0);
}

static double score(const struct gate_case *c, const float *logits, uint32_t e)
{
    double most = -INFINITY, sum = 0;
    if (c->choose.scoring == RT_ROUTE_SIGMOID)
        return 1 / (1 + exp(-(double)logits[e]));
    for (uint32_t i = 0; i < c->choose.experts; i++)
        most = fmax(most, (double)logits[i]);
    for (uint32_t i = 0; i < c->choose.experts; i++)
        sum += exp((double)logits[i] - most);
    return exp((double)logits[e] - most) / sum;
}

/* Of a token: `expected` is the reference's of the same logits. Groups may be as good as each other
 * too, so an expert that is in only one of the two is no worse by more than a tie. */
static void compare_choices(struct ck *ck, const struct gate_case *c, uint32_t t,
                            const float *logits, const float *bias, const int32_t *found,
                            const int32_t *expected)
{
    for (uint32_t i = 0; i < c->choose.chosen; i++) {
        if (found[i] == expected[i])
            continue;
        if (found[i] < 0 || expected[i] < 0 || found[i] >= (int32_t)c->choose.experts) {
            ck_failed(ck, "token %u, place %u: expert %d, expected %d", t, i, found[i],
                      expected[i]);
            return;
        }
        const uint32_t a = (uint32_t)found[i], b = (uint32_t)expected[i];
        const double off = score(c, logits, a) + (c->choose.bias ? (double)bias[a] : 0) -
                           score(c, logits, b) - (c->choose.bias ? (double)bias[b] : 0);
        if (!(fabs(off) < TIE))
            ck_failed(ck, "token %u, place %u: expert %u, expected %u, which is better by %g", t, i,
                      a, b, -off);
    }
}

static void compare_weights(struct ck *ck, const struct gate_case *c, uint32_t t,
                            const float *logits, const int32_t *chosen, const float *found)
{
    double sum = (double)RT_ROUTE_LEAST_SUM;
    for (uint32_t i = 0; i < c->choose.chosen; i++)
        sum += chosen[i] >= 0 ? score(c, logits, (uint32_t)chosen[i]) : 0;
    for (uint32_t i = 0; i < c->choose.chosen; i++) {
        const double s = chosen[i] >= 0 ? score(c, logits, (uint32_t)chosen[i]) : 0;
        const double expected = (c->choose.normalise ? s / sum : s) * (double)c->choose.scale;
        if (!(fabs((double)found[i] - expected) <= CK_ROUTE_WEIGHT_BOUND * expected))
            ck_failed(ck, "token %u, place %u: weight %.9g, expected %.9g", t, i, (double)found[i],
                      expected);
    }
}

/* The groups that these choices make, on the reference's side. */
static void group(const struct gate_case *c, const struct gate_rig *r, const int32_t *choices)
{
    int32_t *offsets = ck_at(&r->route.offsets, CK_REF), *pairs = ck_at(&r->route.pairs, CK_REF);
    struct rt_expert_group *active = ck_at(&r->route.active, CK_REF);
    int32_t *count = ck_at(&r->route.count, CK_REF), used = 0;
    memset(pairs, CK_ROUTE_POISON, r->route.pairs.bytes);
    memset(active, CK_ROUTE_POISON, r->route.active.bytes);
    *count = 0;
    for (int32_t e = 0; e < (int32_t)c->choose.experts; e++) {
        const int32_t first = used;
        for (int32_t pair = 0; pair < (int32_t)(c->rows * c->q_len * c->choose.chosen); pair++)
            if (choices[pair] == e)
                pairs[used++] = pair;
        offsets[e] = first;
        if (used > first)
            active[(*count)++] = (struct rt_expert_group){e, first, used - first, 0};
    }
    offsets[c->choose.experts] = used;
}

static void compare_routing(struct ck *ck, const struct gate_case *c, const struct gate_rig *r,
                            const float *logits)
{
    const struct rt_gate_params ref = params_of(c, r, CK_REF);
    const struct ck_buffer *const groups[] = {&r->route.offsets, &r->route.pairs, &r->route.active,
                                              &r->route.count};
    const int32_t *expected = ck_at(&r->route.choices, CK_REF);
    int32_t *found = fetch(ck, &r->route.choices);
    float *weights = fetch(ck, &r->route.weights);
    memcpy(ck_at(&r->route.logits, CK_REF), logits, r->route.logits.bytes);
    rt_ref_route(&ref.route);
    for (uint32_t t = 0; t < c->rows * c->q_len; t++) {
        const float *of_token = logits + (uint64_t)t * c->choose.experts;
        compare_choices(ck, c, t, of_token, ck_at(&r->route.bias, CK_REF),
                        found + t * c->choose.chosen, expected + t * c->choose.chosen);
        compare_weights(ck, c, t, of_token, found + t * c->choose.chosen,
                        weights + t * c->choose.chosen);
    }
    group(c, r, found);
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        ck_expect_same(ck, groups[i]);
    free(found);
    free(weights);
}

static void check(struct ck *ck, struct ck_random *random, const struct gate_case *c)
{
    char words[CK_CHOOSING_BYTES];
    ck_case(ck, "%u rows of %u tokens%s of %u, %u apart%s, %s, hidden times %g", c->rows, c->q_len,
            c->padding ? " with padding" : "", c->width, c->gap, c->first ? ", first" : "",
            ck_choosing_words(&c->choose, words), (double)c->hidden_scale);
    struct gate_rig rig = make_rig(ck, c);
    struct rt_launch launch;
    struct rt_error err = {0};
    fill(ck, random, c, &rig);
    const struct rt_gate_params ref = params_of(c, &rig, CK_REF);
    const struct rt_gate_params device = params_of(c, &rig, CK_DEVICE);
    const struct ck_buffer *const same[] = {&rig.hidden,  &rig.residual,   &rig.weight,
                                            &rig.router,  &rig.route.bias, &rig.route.slot,
                                            &rig.arrivals};
    rt_ref_gate(&ref);
    const enum rt_status status = ck_build(ck, RT_OP_GATE, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        ck_expect_same(ck, same[i]);
    uint16_t *normed = fetch(ck, &rig.normed);
    float *logits = fetch(ck, &rig.route.logits);
    compare_normed(ck, c, &rig, normed);
    compare_logits(ck, c, &rig, normed, logits);
    compare_routing(ck, c, &rig, logits);
    free(normed);
    free(logits);
    free_rig(ck, &rig);
}

/* How models choose. */
static const struct gate_case models[] = {
    {.width = 2048, .choose = CK_CHOOSE_V2_LITE},
    {.width = 5120, .choose = CK_CHOOSE_V2},
    {.width = 7168, .choose = CK_CHOOSE_V3},
    {.width = 64, .choose = {4, 2, 1, 1, .scale = 1.0f}},
    {.width = 1032, .choose = {500, 32, 10, 7, .bias = true, .normalise = true, .scale = 1.0f}},
    {.width = 8, .choose = {1, 1, 1, 1, .scale = 2.0f}},
};
#define MODELS (sizeof(models) / sizeof(models[0]))

void ck_gate_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 300 : ck_is_brief(ck) ? 8 : ck->quick ? 12 : 48;
    for (uint32_t i = 0; i < rounds; i++) {
        struct gate_case c = models[i % MODELS];
        const uint32_t most = rt_gate_most_tokens(c.width, c.choose.experts, c.choose.chosen);
        const uint32_t tokens =
            i < 2 * MODELS ? (i < MODELS ? 1 : most) : 1 + ck_random_below(&random, most);
        c.q_len = tokens % 2 == 0 && ck_random_below(&random, 2) ? 2 : 1;
        c.rows = tokens / c.q_len;
        c.gap = 8 * ck_random_below(&random, 3);
        c.padding = ck_random_below(&random, 2);
        c.first = ck_random_below(&random, 4) == 0;
        c.hidden_scale = ck_random_below(&random, 2) ? 1.0f : 0.25f;
        check(ck, &random, &c);
    }
}

#define BENCH_LAUNCHES 50

void ck_gate_bench(struct ck *ck)
{
    static const uint32_t tokens[] = {1, 4, 8, 16};
    struct ck_random random = {.state = ck->seed};
    for (uint32_t i = 0; i < 8; i++) {
        struct gate_case c = models[i < 4 ? 0 : 2];
        c.rows = tokens[i % 4];
        c.q_len = 1;
        c.hidden_scale = 1.0f;
        if (c.rows > rt_gate_most_tokens(c.width, c.choose.experts, c.choose.chosen))
            continue;
        struct gate_rig rig = make_rig(ck, &c);
        struct rt_launch launches[BENCH_LAUNCHES];
        struct rt_error err = {0};
        fill(ck, &random, &c, &rig);
        const struct rt_gate_params p = params_of(&c, &rig, CK_DEVICE);
        for (int l = 0; l < BENCH_LAUNCHES; l++)
            ck_must(ck, ck_build(ck, RT_OP_GATE, &p, sizeof(p), &launches[l], &err), &err);
        printf("gate       %3u of %3u experts, %2u tokens of %u: %8.2f us\n", c.choose.chosen,
               c.choose.experts, c.rows, c.width, ck_time_ns(ck, launches, BENCH_LAUNCHES) / 1e3);
        free_rig(ck, &rig);
    }
}
