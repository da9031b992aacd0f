/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts_up and experts_down: each against the truth in double, down for the h that up should have
 * made, in one launch and in two; and route's groups, up and down as a chain, which leaves the bits
 * of one after the other.
 */
#include "common/math.h"
#include "kernels/op.h"
#include "tests/checkkern/experts_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_LAUNCHES 4

/* Who serves the two halves, and whether down is two launches. */
struct chain {
    enum rt_backend up, down;
    bool pairs;
};

static const uint32_t other_parts[] = {1, 2, 7, 9, 132};

static bool resolve(struct ck *ck, enum rt_op_id op, const struct ck_experts *c,
                    struct ck_experts_rig *rig, enum rt_backend backend, struct rt_variant *out)
{
    const struct rt_experts_up_params up = ck_experts_up_params(c, rig, CK_DEVICE);
    const struct rt_experts_down_params down = ck_experts_down_params(c, rig, CK_DEVICE);
    const struct rt_op_request request = {
        .caps = &ck->driver.caps, .backend = backend, .experts_up = &up, .experts_down = &down};
    struct rt_error err = {0};
    const enum rt_status status = rt_op_resolve(op, &request, out, &err);
    if (status == RT_ERR_UNSUPPORTED)
        return false;
    ck_must(ck, status, &err);
    return true;
}

static void name_case(struct ck *ck, const struct ck_experts *c, const struct rt_variant *v)
{
    char text[160];
    ck_experts_describe(c, text, sizeof(text));
    ck_case(ck, "%s, %u blocks: %s", v->entry, v->parts, text);
}

static void check_up(struct ck *ck, const struct ck_experts *c, struct ck_experts_rig *rig,
                     const struct ck_experts_truth *truth, const struct rt_variant *v)
{
    struct rt_launch launch;
    struct rt_error err = {0};
    const struct rt_experts_up_params p = ck_experts_up_params(c, rig, CK_DEVICE);
    name_case(ck, c, v);
    const enum rt_status status = ck_build_variant(ck, v, &p, sizeof(p), &launch, &err);
    memset(rig->h.ref, 0xff, rig->h.bytes);
    ck_upload(ck, &rig->h);
    ck_launch(ck, status, &err, &launch);
    ck_experts_compare_up(ck, c, rig, truth);
    ck_count(ck, rt_backend_name(v->backend), c->rows, c->rows);
}

static void check_down(struct ck *ck, const struct ck_experts *c, struct ck_experts_rig *rig,
                       const struct ck_experts_truth *truth, const struct rt_variant *v)
{
    struct rt_launch launch;
    struct rt_error err = {0};
    const struct rt_experts_down_params p = ck_experts_down_params(c, rig, CK_DEVICE);
    name_case(ck, c, v);
    const enum rt_status status = ck_build_variant(ck, v, &p, sizeof(p), &launch, &err);
    ck_upload(ck, &rig->h);
    ck_upload(ck, &rig->out);
    ck_launch(ck, status, &err, &launch);
    ck_experts_compare_down(ck, c, rig, truth);
    ck_count(ck, rt_backend_name(v->backend), c->rows, c->rows);
}

/* Down in two launches: the products, and the sum of those that there should be. */
static void check_pairs(struct ck *ck, const struct ck_experts *c, struct ck_experts_rig *rig,
                        const struct ck_experts_truth *down)
{
    const struct rt_experts_down_pairs_params p = ck_experts_pairs_params(c, rig, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    struct rt_variant v;
    if (!resolve(ck, RT_OP_EXPERTS_DOWN_PAIRS, c, rig, RT_BACKEND_GENERIC, &v))
        return;
    struct ck_experts_truth products = ck_experts_truth_pairs(ck, c, rig);
    name_case(ck, c, &v);
    enum rt_status status = ck_build_variant(ck, &v, &p, sizeof(p), &launch, &err);
    ck_upload(ck, &rig->h);
    ck_launch(ck, status, &err, &launch);
    ck_experts_compare_pairs(ck, c, rig, &products);
    ck_count(ck, rt_backend_name(v.backend), c->rows, c->rows);

    if (!resolve(ck, RT_OP_EXPERTS_DOWN_SUM, c, rig, RT_BACKEND_GENERIC, &v))
        ck_failed(ck, "products of pairs are served, and their sum is not");
    name_case(ck, c, &v);
    status = ck_build_variant(ck, &v, &p, sizeof(p), &launch, &err);
    ck_upload(ck, &rig->products);
    ck_upload(ck, &rig->out);
    ck_launch(ck, status, &err, &launch);
    ck_experts_compare_down(ck, c, rig, down);
    ck_count(ck, rt_backend_name(v.backend), c->rows, c->rows);
    ck_experts_forget(&products);
}

/* A kernel's choice of blocks, and another; one of them where a case takes its time. */
static int turns_of(const struct ck *ck)
{
    return ck_is_brief(ck) ? 1 : 2;
}

/* Of the most, all but a few have nothing to do. */
static void vary(struct ck *ck, struct ck_random *random, struct rt_variant *v)
{
    v->parts = other_parts[ck_random_below(random, ck->quick ? 4 : 5)];
}

static void check(struct ck *ck, struct ck_random *random, const struct ck_experts *c)
{
    static const enum rt_backend backends[] = {RT_BACKEND_GENERIC, RT_BACKEND_SM90};
    struct ck_experts_rig rig = ck_experts_make(ck, c);
    struct ck_experts_truth up = ck_experts_truth_up(ck, c, &rig);
    const int turns = turns_of(ck);
    struct rt_variant v;
    for (int i = 0; i < 2; i++)
        for (int turn = 0; turn < turns && resolve(ck, RT_OP_EXPERTS_UP, c, &rig, backends[i], &v);
             turn++) {
            if (turn || (turns == 1 && ck_random_below(random, 2)))
                vary(ck, random, &v);
            check_up(ck, c, &rig, &up, &v);
        }
    ck_experts_forget(&up);

    up = ck_experts_truth_up(ck, c, &rig); /* fills the reference's h */
    struct ck_experts_truth down = ck_experts_truth_down(ck, c, &rig);
    for (int i = 0; i < 2; i++)
        for (int turn = 0;
             turn < turns && resolve(ck, RT_OP_EXPERTS_DOWN, c, &rig, backends[i], &v); turn++) {
            if (turn || (turns == 1 && ck_random_below(random, 2)))
                vary(ck, random, &v);
            check_down(ck, c, &rig, &down, &v);
        }
    check_pairs(ck, c, &rig, &down);
    ck_experts_forget(&up);
    ck_experts_forget(&down);
    ck_experts_free(ck, &rig);
}

/* Route, up and down, in one launch or in two: what of it is served; how many launches, or 0. */
static uint32_t build_chain(struct ck *ck, const struct ck_experts *c, struct ck_experts_rig *rig,
                            const struct chain *chain, struct rt_launch launches[MOST_LAUNCHES])
{
    const struct rt_experts_up_params up = ck_experts_up_params(c, rig, CK_DEVICE);
    struct rt_experts_down_pairs_params pairs = ck_experts_pairs_params(c, rig, CK_DEVICE);
    const struct rt_route_params route = {.rows = pairs.down.rows,
                                          .logits = ck_at(&rig->logits, CK_DEVICE),
                                          .choices = ck_at(&rig->choices, CK_DEVICE),
                                          .weights = ck_at(&rig->weights, CK_DEVICE),
                                          .groups_of = pairs.down.work.groups,
                                          .logit_stride = c->experts,
                                          .experts = c->experts,
                                          .chosen = c->chosen,
                                          .scale = 1.0f};
    static const enum rt_op_id one[] = {RT_OP_EXPERTS_DOWN};
    static const enum rt_op_id two[] = {RT_OP_EXPERTS_DOWN_PAIRS, RT_OP_EXPERTS_DOWN_SUM};
    const enum rt_op_id *of_down = chain->pairs ? two : one;
    struct rt_variant v;
    struct rt_error err = {0};
    uint32_t count = 2;
    pairs.down.early = 1;
    ck_must(ck, ck_build(ck, RT_OP_ROUTE, &route, sizeof(route), &launches[0], &err), &err);
    if (!resolve(ck, RT_OP_EXPERTS_UP, c, rig, chain->up, &v))
        return 0;
    ck_must(ck, ck_build_variant(ck, &v, &up, sizeof(up), &launches[1], &err), &err);
    for (uint32_t i = 0; i < (chain->pairs ? 2 : 1); i++) {
        if (!resolve(ck, of_down[i], c, rig, chain->down, &v))
            return 0;
        name_case(ck, c, &v);
        ck_must(
            ck,
            chain->pairs
                ? ck_build_variant(ck, &v, &pairs, sizeof(pairs), &launches[count], &err)
                : ck_build_variant(ck, &v, &pairs.down, sizeof(pairs.down), &launches[count], &err),
            &err);
        count++;
    }
    return count;
}

/* As nodes of a graph, where each may begin before the one in front of it has ended. */
static void check_chain(struct ck *ck, const struct ck_experts *c, struct chain chain)
{
    struct ck_experts_rig rig = ck_experts_make(ck, c);
    struct rt_launch launches[MOST_LAUNCHES];
    struct rt_error err = {0};
    ck_upload(ck, &rig.logits);
    const uint32_t count = build_chain(ck, c, &rig, &chain, launches);
    if (count > 0) {
        for (uint32_t i = 0; i < count; i++)
            ck_launch(ck, RT_OK, &err, &launches[i]);
        ck_download(ck, &rig.out, rig.out.ref);
        void *one_by_one = ck_new(ck, rig.out.bytes + CK_GUARD_BYTES);
        memcpy(one_by_one, rig.out.ref, rig.out.bytes + CK_GUARD_BYTES);
        memset(rig.out.ref, 0xff, rig.out.bytes);
        struct ck_buffer *const made[] = {&rig.h,      &rig.choices, &rig.weights, &rig.pairs,
                                          &rig.active, &rig.count,   &rig.out,     &rig.products};
        for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++) {
            memset(made[i]->ref, 0xff, made[i]->bytes);
            ck_upload(ck, made[i]);
        }
        ck_launch_chain(ck, launches, count);
        memcpy(rig.out.ref, one_by_one, rig.out.bytes + CK_GUARD_BYTES);
        ck_expect_same(ck, &rig.out);
        free(one_by_one);
    }
    ck_experts_free(ck, &rig);
}

static struct ck_experts random_case(struct ck *ck, struct ck_random *random, uint32_t i)
{
    static const uint32_t hidden[] = {64, 96, 520, 1032, 72, 63, 8, 1000};
    static const uint32_t widths[] = {24, 40, 136, 8, 33, 520};
    static const uint32_t rows[] = {1, 2, 5, 8, 9, 16, 17, 33};
    struct ck_experts c = {.rows = rows[ck_random_below(random, i % 4 ? 5 : 8)],
                           .q_len = 1 + (ck_random_below(random, 4) == 0),
                           .hidden = hidden[ck_random_below(random, 8)],
                           .width = widths[ck_random_below(random, 6)],
                           .experts = i % 5 == 0 ? 0 : 1 + ck_random_below(random, 12),
                           .shared = ck_random_below(random, 3),
                           .choice = (enum ck_experts_choice)ck_random_below(random, 3),
                           .trouble = (enum ck_experts_trouble)(
                               i % 3 ? 0 : ck_random_below(random, CK_EXPERTS_TROUBLES)),
                           .gaps = ck_random_below(random, 2),
                           .together = ck_random_below(random, 2),
                           .seed = ck_random_u64(random) >> 8};
    if (c.experts == 0)
        c.shared += c.shared == 0;
    else
        c.chosen = 1 + ck_random_below(random, c.experts < 8 ? c.experts : 8);
    c.live_rows = ck_random_below(random, 3) ? c.rows : ck_random_below(random, c.rows + 1);
    if (ck_is_cuda(ck)) {
        c.hidden *= 2;
        c.width *= 8;
        c.experts *= 4;
    }
    return c;
}

/* Of tokens that are many: tiles that are full, and the last ones of an expert. Of few numbers, for
 * the truth takes its time. */
static struct ck_experts many_case(struct ck *ck, struct ck_random *random, uint32_t i)
{
    static const uint32_t rows[] = {129, 300, 33, 200, 65, 700};
    static const uint32_t hidden[] = {136, 63, 64, 200, 8, 72};
    static const uint32_t widths[] = {40, 72, 33, 136, 264};
    struct ck_experts c = random_case(ck, random, i + 1);
    c.rows = rows[i % 6];
    c.q_len = i % 4 == 3 ? 2 : 1;
    c.hidden = hidden[ck_random_below(random, 6)];
    c.width = widths[ck_random_below(random, 5)];
    if (i % 2 == 0) { /* a sum of several, and several shared ones, also where a round is all */
        c.experts = rt_max_u32(c.experts, 3);
        c.chosen = 3;
        c.shared = 2;
    }
    c.chosen = rt_min_u32(c.chosen, 3);
    c.live_rows = i % 3 ? c.rows : ck_random_below(random, c.rows + 1);
    if (ck_is_cuda(ck)) {
        c.hidden *= 4;
        c.width *= 4;
    }
    return c;
}

void ck_experts_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 600 : ck->quick ? 4 : ck_is_cuda(ck) ? 60 : 30;
    for (uint32_t i = 0; i < rounds; i++) {
        const struct ck_experts c = random_case(ck, &random, i);
        check(ck, &random, &c);
    }
    for (uint32_t i = 0; i < (rounds + 7) / 8; i++) {
        const struct ck_experts c = many_case(ck, &random, i);
        check(ck, &random, &c);
    }
    struct ck_experts chain = {.rows = 9,
                               .q_len = 1,
                               .hidden = 136,
                               .width = 72,
                               .experts = 12,
                               .chosen = 3,
                               .shared = 1,
                               .live_rows = 8,
                               .seed = ck->seed};
    const struct chain generic = {RT_BACKEND_GENERIC, RT_BACKEND_GENERIC, false};
    const struct chain mixed = {RT_BACKEND_GENERIC, RT_BACKEND_SM90, false};
    check_chain(ck, &chain, generic);
    if (!ck_is_brief(ck)) /* the next one has its kernel, too */
        check_chain(ck, &chain, mixed);
    check_chain(ck, &chain, (struct chain){RT_BACKEND_SM90, RT_BACKEND_SM90, false});
    chain.rows = 5; /* a token a column */
    chain.live_rows = 4;
    check_chain(ck, &chain, (struct chain){RT_BACKEND_SM90, RT_BACKEND_SM90, false});
    chain.rows = 70;
    chain.live_rows = 66;
    check_chain(ck, &chain, generic);
    check_chain(ck, &chain, (struct chain){RT_BACKEND_GENERIC, RT_BACKEND_GENERIC, true});
    if (ck_is_brief(ck)) { /* more than 16 still */
        chain.rows = 20;
        chain.live_rows = 17;
    }
    check_chain(ck, &chain, mixed);
}
