/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/gate_case.h"

#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TIE 1e-6 /* values of experts that are as good, of scores around 1 */

struct rt_gate_params ck_gate_params(const struct ck_gate_case *c, const struct ck_gate_rig *r,
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

struct ck_gate_rig ck_gate_make(struct ck *ck, const struct ck_gate_case *c)
{
    const uint64_t tokens = (uint64_t)c->rows * c->q_len, experts = c->choose.experts;
    const uint64_t stride = c->width + c->gap;
    struct ck_gate_rig r = {.route = ck_route_rig_make(ck, &c->choose, c->rows, c->q_len),
                            .hidden = ck_alloc_later(ck, "hidden", 2 * tokens * stride, 0xff),
                            .residual = ck_alloc_later(ck, "residual", 2 * tokens * stride, 0xff),
                            .normed = ck_alloc(ck, "normed", 2 * tokens * stride, 0xff),
                            .weight = ck_alloc_later(ck, "weight", 2 * (uint64_t)c->width, 0xff),
                            .router = ck_alloc_later(ck, "router", 2 * experts * stride, 0xff),
                            .arrivals = ck_alloc(ck, "arrivals", 4, 0)};
    r.route.logits = ck_alloc(ck, "logits", 4 * tokens * experts, 0xff);
    return r;
}

void ck_gate_free(struct ck *ck, struct ck_gate_rig *r)
{
    struct ck_buffer *all[] = {&r->hidden, &r->residual, &r->normed,
                               &r->weight, &r->router,   &r->arrivals};
    ck_route_rig_free(ck, &r->route);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

static void fill_rows(struct ck *ck, struct ck_random *random, const struct ck_buffer *b,
                      uint64_t rows, const struct ck_gate_case *c, double scale)
{
    uint16_t *to = ck_at(b, CK_REF);
    for (uint64_t row = 0; row < rows; row++)
        for (uint32_t i = 0; i < c->width; i++)
            to[row * (c->width + c->gap) + i] =
                rt_float_to_bf16((float)(ck_random_normal(random) * scale));
    ck_upload(ck, b);
}

void ck_gate_fill(struct ck *ck, struct ck_random *random, const struct ck_gate_case *c,
                  struct ck_gate_rig *r)
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

/* Within a rounding of the reference's, and nothing else is written. */
void ck_gate_compare_normed(struct ck *ck, const struct ck_gate_case *c,
                            const struct ck_gate_rig *r, uint16_t *found)
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

void ck_gate_compare_logits(struct ck *ck, const struct ck_gate_case *c,
                            const struct ck_gate_rig *r, const uint16_t *normed, const float *found)
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

static double score(const struct ck_gate_case *c, const float *logits, uint32_t e)
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
static void compare_choices(struct ck *ck, const struct ck_gate_case *c, uint32_t t,
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

static void compare_weights(struct ck *ck, const struct ck_gate_case *c, uint32_t t,
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

void ck_gate_compare_choices(struct ck *ck, const struct ck_gate_case *c,
                             const struct ck_gate_rig *r, const float *logits)
{
    const struct rt_gate_params ref = ck_gate_params(c, r, CK_REF);
    const int32_t *expected = ck_at(&r->route.choices, CK_REF);
    int32_t *found = ck_fetch(ck, &r->route.choices);
    float *weights = ck_fetch(ck, &r->route.weights);
    memcpy(ck_at(&r->route.logits, CK_REF), logits, r->route.logits.bytes);
    rt_ref_route(&ref.route);
    for (uint32_t t = 0; t < c->rows * c->q_len; t++) {
        const float *of_token = logits + (uint64_t)t * c->choose.experts;
        compare_choices(ck, c, t, of_token, ck_at(&r->route.bias, CK_REF),
                        found + t * c->choose.chosen, expected + t * c->choose.chosen);
        compare_weights(ck, c, t, of_token, found + t * c->choose.chosen,
                        weights + t * c->choose.chosen);
    }
    memcpy(ck_at(&r->route.choices, CK_REF), found, r->route.choices.bytes);
    memcpy(ck_at(&r->route.weights, CK_REF), weights, r->route.weights.bytes);
    free(found);
    free(weights);
}
