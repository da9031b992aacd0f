/* SPDX-License-Identifier: Apache-2.0 */
/* gate: as gate_case.h says, the residual bit for bit, and the groups are those of the choices. */
#include "kernels/ref/ref.h"
#include "tests/checkkern/gate_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The groups that these choices make, on the reference's side. */
static void group(const struct ck_gate_case *c, const struct ck_gate_rig *r, const int32_t *choices)
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

static void compare_routing(struct ck *ck, const struct ck_gate_case *c,
                            const struct ck_gate_rig *r, const float *logits)
{
    const struct ck_buffer *const groups[] = {&r->route.offsets, &r->route.pairs, &r->route.active,
                                              &r->route.count};
    ck_gate_compare_choices(ck, c, r, logits);
    group(c, r, ck_at(&r->route.choices, CK_REF));
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        ck_expect_same(ck, groups[i]);
}

static void check(struct ck *ck, struct ck_random *random, const struct ck_gate_case *c)
{
    char words[CK_CHOOSING_BYTES];
    ck_case(ck, "%u rows of %u tokens%s of %u, %u apart%s, %s, hidden times %g", c->rows, c->q_len,
            c->padding ? " with padding" : "", c->width, c->gap, c->first ? ", first" : "",
            ck_choosing_words(&c->choose, words), (double)c->hidden_scale);
    struct ck_gate_rig rig = ck_gate_make(ck, c);
    struct rt_launch launch;
    struct rt_error err = {0};
    ck_gate_fill(ck, random, c, &rig);
    const struct rt_gate_params ref = ck_gate_params(c, &rig, CK_REF);
    const struct rt_gate_params device = ck_gate_params(c, &rig, CK_DEVICE);
    const struct ck_buffer *const same[] = {&rig.hidden,  &rig.residual,   &rig.weight,
                                            &rig.router,  &rig.route.bias, &rig.route.slot,
                                            &rig.arrivals};
    rt_ref_gate(&ref);
    const enum rt_status status = ck_build(ck, RT_OP_GATE, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        ck_expect_same(ck, same[i]);
    uint16_t *normed = ck_fetch(ck, &rig.normed);
    float *logits = ck_fetch(ck, &rig.route.logits);
    ck_gate_compare_normed(ck, c, &rig, normed);
    ck_gate_compare_logits(ck, c, &rig, normed, logits);
    compare_routing(ck, c, &rig, logits);
    free(normed);
    free(logits);
    ck_gate_free(ck, &rig);
}

/* How models choose. */
static const struct ck_gate_case models[] = {
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
        struct ck_gate_case c = models[i % MODELS];
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
        struct ck_gate_case c = models[i < 4 ? 0 : 2];
        c.rows = tokens[i % 4];
        c.q_len = 1;
        c.hidden_scale = 1.0f;
        if (c.rows > rt_gate_most_tokens(c.width, c.choose.experts, c.choose.chosen))
            continue;
        struct ck_gate_rig rig = ck_gate_make(ck, &c);
        struct rt_launch launches[BENCH_LAUNCHES];
        struct rt_error err = {0};
        ck_gate_fill(ck, &random, &c, &rig);
        const struct rt_gate_params p = ck_gate_params(&c, &rig, CK_DEVICE);
        for (int l = 0; l < BENCH_LAUNCHES; l++)
            ck_must(ck, ck_build(ck, RT_OP_GATE, &p, sizeof(p), &launches[l], &err), &err);
        printf("gate       %3u of %3u experts, %2u tokens of %u: %8.2f us\n", c.choose.chosen,
               c.choose.experts, c.rows, c.width, ck_time_ns(ck, launches, BENCH_LAUNCHES) / 1e3);
        ck_gate_free(ck, &rig);
    }
}
