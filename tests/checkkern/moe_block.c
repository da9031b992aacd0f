/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe_block, part by part, each from what the kernel itself has left for it: residual, normed,
 * logits, choices and weights as gate's (gate_case.h); h of what was normed and chosen, and out of
 * that h, as experts' (experts_case.h). Launches behind each other, and other numbers of blocks,
 * leave the same bits.
 */
#include "kernels/abi/moe_block.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/experts_case.h"
#include "tests/checkkern/gate_case.h"

#include <stdlib.h>
#include <string.h>

struct moe_case {
    struct ck_gate_case gate; /* of a dense MLP one expert, whom nobody asks */
    uint32_t width, shared, live_rows;
    bool dense;
    bool in_place; /* out is hidden */
};

struct moe_rig {
    struct ck_gate_rig gate;
    struct ck_experts_rig experts;
    struct ck_buffer exchange;
};

/* The same case as experts have it. */
static struct ck_experts experts_case(const struct moe_case *c, uint64_t seed)
{
    return (struct ck_experts){.rows = c->gate.rows,
                               .q_len = c->gate.q_len,
                               .hidden = c->gate.width,
                               .width = c->width,
                               .experts = c->dense ? 0 : c->gate.choose.experts,
                               .chosen = c->dense ? 0 : c->gate.choose.chosen,
                               .shared = c->shared,
                               .live_rows = c->live_rows,
                               .gaps = c->gate.gap > 0,
                               .seed = seed};
}

static struct rt_moe_block_params params_of(const struct moe_case *c, const struct moe_rig *r,
                                            const struct ck_experts *e)
{
    const struct rt_experts_up_params up = ck_experts_up_params(e, &r->experts, CK_DEVICE);
    const struct rt_experts_down_params down = ck_experts_down_params(e, &r->experts, CK_DEVICE);
    struct rt_moe_block_params p = {.gate = ck_gate_params(&c->gate, &r->gate, CK_DEVICE),
                                    .h = up.h,
                                    .expert = {up.gate[0], up.gate[1]},
                                    .expert_up = {up.up[0], up.up[1]},
                                    .expert_down = {down.down[0], down.down[1]},
                                    .out = down.out,
                                    .out_stride = down.out_stride,
                                    .exchange = ck_at(&r->exchange, CK_DEVICE),
                                    .shared = c->shared,
                                    .width = c->width};
    p.gate.arrivals = NULL;
    if (c->dense)
        p.gate.route.experts = p.gate.route.chosen = 0;
    if (c->in_place)
        p.out = ck_at(&r->gate.hidden, CK_DEVICE);
    return p;
}

static struct moe_rig make_rig(struct ck *ck, struct ck_random *random, const struct moe_case *c,
                               const struct ck_experts *e)
{
    struct moe_rig r = {
        .gate = ck_gate_make(ck, &c->gate),
        .experts = ck_experts_make(ck, e),
        .exchange =
            ck_alloc(ck, "exchange",
                     rt_moe_block_exchange_bytes(c->gate.rows * c->gate.q_len, e->experts), 0)};
    int32_t *slot = ck_at(&r.gate.route.slot, CK_REF);
    ck_gate_fill(ck, random, &c->gate, &r.gate);
    for (uint32_t i = 0; i < c->gate.rows; i++)
        slot[i] = i < c->live_rows ? (int32_t)i : -1;
    ck_upload(ck, &r.gate.route.slot);
    return r;
}

static void free_rig(struct ck *ck, struct moe_rig *r)
{
    ck_gate_free(ck, &r->gate);
    ck_experts_free(ck, &r->experts);
    ck_free(ck, &r->exchange);
}

/* ---- what has come of it ---- */

/* The first part, and then the experts' rig has what it has made. */
static void check_gate(struct ck *ck, const struct moe_case *c, struct moe_rig *r)
{
    struct ck_gate_rig *g = &r->gate;
    const struct rt_gate_params ref = ck_gate_params(&c->gate, g, CK_REF);
    const struct ck_buffer *const same[] = {&g->residual,    &g->weight,       &g->router,
                                            &g->route.bias,  &g->route.slot,   &g->route.offsets,
                                            &g->route.pairs, &g->route.active, &g->route.count};
    rt_ref_input_norm(&ref.norm);
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        ck_expect_same(ck, same[i]);
    uint16_t *normed = ck_fetch(ck, &g->normed);
    float *logits = ck_fetch(ck, &g->route.logits);
    ck_gate_compare_normed(ck, &c->gate, g, normed);
    memcpy(ck_at(&r->experts.x, CK_REF), normed, r->experts.x.bytes);
    if (!c->dense) {
        /* The reference's groups go elsewhere: the kernel has none to be compared with. */
        ck_gate_compare_logits(ck, &c->gate, g, normed, logits);
        ck_gate_compare_choices(ck, &c->gate, g, logits);
        memcpy(ck_at(&r->experts.choices, CK_REF), ck_at(&g->route.choices, CK_REF),
               g->route.choices.bytes);
        memcpy(ck_at(&r->experts.weights, CK_REF), ck_at(&g->route.weights, CK_REF),
               g->route.weights.bytes);
    }
    free(normed);
    free(logits);
}

static void check_experts(struct ck *ck, const struct moe_case *c, const struct ck_experts *e,
                          struct moe_rig *r)
{
    struct ck_experts_truth up = ck_experts_truth_up(ck, e, &r->experts);
    ck_experts_compare_up(ck, e, &r->experts, &up);
    ck_download(ck, &r->experts.h, r->experts.h.ref);
    struct ck_experts_truth down = ck_experts_truth_down(ck, e, &r->experts);
    if (c->in_place) {
        ck_download(ck, &r->gate.hidden, r->experts.out.ref);
        ck_upload(ck, &r->experts.out);
    } else {
        ck_expect_same(ck, &r->gate.hidden);
    }
    ck_experts_compare_down(ck, e, &r->experts, &down);
    ck_experts_forget(&up);
    ck_experts_forget(&down);
}

/* ---- who serves it ---- */

static bool resolve(struct ck *ck, const struct rt_moe_block_params *p, struct rt_variant *out)
{
    struct rt_device_caps caps = ck->driver.caps;
    struct rt_error err = {0};
    if (!ck_is_cuda(ck)) /* the references, or the kernels' source, are there all the same */
        caps.cc = 90;
    const struct rt_op_request request = {.caps = &caps, .moe_block = p};
    const enum rt_status status = rt_op_resolve(RT_OP_MOE_BLOCK, &request, out, &err);
    if (status == RT_ERR_UNSUPPORTED)
        return false;
    ck_must(ck, status, &err);
    return true;
}

/* Three behind each other in a graph, with `parts` blocks, leave what one has left. */
static void check_again(struct ck *ck, const struct moe_rig *r, const struct rt_variant *v,
                        const struct rt_moe_block_params *p, uint32_t parts)
{
    const struct ck_buffer *const made[] = {&r->gate.residual, &r->gate.normed, &r->experts.h,
                                            &r->experts.out};
    struct rt_variant other = *v;
    struct rt_launch launches[3];
    struct rt_error err = {0};
    other.parts = parts;
    memset(r->exchange.ref, 0, r->exchange.bytes); /* another number of blocks begins anew */
    ck_upload(ck, &r->exchange);
    for (int i = 0; i < 3; i++)
        ck_must(ck, ck_build_variant(ck, &other, p, sizeof(*p), &launches[i], &err), &err);
    for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++)
        ck_download(ck, made[i], made[i]->ref);
    ck_launch_chain(ck, launches, 3);
    for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++)
        ck_expect_same(ck, made[i]);
}

static void check(struct ck *ck, struct ck_random *random, const struct moe_case *c)
{
    char words[CK_CHOOSING_BYTES];
    const struct ck_experts e = experts_case(c, ck_random_u64(random) >> 8);
    struct moe_rig r = make_rig(ck, random, c, &e);
    const struct rt_moe_block_params p = params_of(c, &r, &e);
    struct rt_variant v;
    struct rt_launch launch;
    struct rt_error err = {0};
    ck_case(ck, "%u of %u rows of %u tokens of %u, %u apart%s, %s + %u of %u%s%s", c->live_rows,
            c->gate.rows, c->gate.q_len, c->gate.width, c->gate.gap, c->gate.first ? ", first" : "",
            c->dense ? "dense" : ck_choosing_words(&c->gate.choose, words), c->shared, c->width,
            c->in_place ? ", in place" : "", p.gate.norm.residual ? "" : ", no residual");
    if (resolve(ck, &p, &v)) {
        const enum rt_status status = ck_build_variant(ck, &v, &p, sizeof(p), &launch, &err);
        ck_launch(ck, status, &err, &launch);
        check_gate(ck, c, &r);
        check_experts(ck, c, &e, &r);
        const bool fewer_fit = c->gate.width <= (v.parts - 1) * RT_MOE_BLOCK_MOST_ROWS;
        if (c->gate.first && !c->in_place)
            check_again(ck, &r, &v, &p, v.parts - (ck_random_below(random, 2) && fewer_fit));
        ck_count(ck, rt_backend_name(v.backend), c->gate.rows, c->gate.rows);
    }
    free_rig(ck, &r);
}

/* ---- cases ---- */

/* How models choose, with fewer numbers where they are many. */
static const struct moe_case models[] = {
    {.gate = {.width = 256, .choose = CK_CHOOSE_V2_LITE}, .width = 136, .shared = 2},
    {.gate = {.width = 520, .choose = CK_CHOOSE_V3}, .width = 40, .shared = 1},
    {.gate = {.width = 96, .choose = {1, 1, 1, 1, .scale = 1.0f}},
     .width = 600,
     .shared = 1,
     .dense = true},
    {.gate = {.width = 72, .choose = {12, 3, 1, 1, .bias = true, .normalise = true, .scale = 2.0f}},
     .width = 24},
    {.gate = {.width = 888, .choose = {5, 5, 1, 1, .scale = 1.0f}}, .width = 8, .shared = 3},
    {.gate = {.width = 64, .choose = {500, 8, 10, 7, .scale = 1.0f}}, .width = 72, .shared = 1},
};
/* As they are, where that takes no time. */
static const struct moe_case large[] = {
    {.gate = {.width = 2048, .choose = CK_CHOOSE_V2_LITE}, .width = 352, .shared = 2},
    {.gate = {.width = 7168, .choose = CK_CHOOSE_V3}, .width = 64, .shared = 1},
    {.gate = {.width = 2048, .choose = {1, 1, 1, 1, .scale = 1.0f}},
     .width = 5472,
     .shared = 1,
     .dense = true},
};
#define MODELS (sizeof(models) / sizeof(models[0]))
#define LARGE (sizeof(large) / sizeof(large[0]))

static struct moe_case random_case(struct ck *ck, struct ck_random *random, uint32_t i)
{
    const bool is_large = ck_is_cuda(ck) && i % 2;
    struct moe_case c = is_large ? large[i / 2 % LARGE] : models[i % MODELS];
    struct ck_gate_case *g = &c.gate;
    const uint32_t most =
        rt_moe_block_most_tokens(g->width, c.dense ? 0 : g->choose.experts,
                                 c.dense ? 0 : g->choose.chosen, c.shared, c.width);
    const uint32_t tokens = i < MODELS ? (i % 2 ? most : 1) : 1 + ck_random_below(random, most);
    g->q_len = tokens % 2 == 0 && ck_random_below(random, 2) ? 2 : 1;
    g->rows = tokens / g->q_len;
    g->gap = ck_random_below(random, 2) ? 24 : 0;
    g->first = ck_random_below(random, 2);
    g->hidden_scale = ck_random_below(random, 2) ? 1.0f : 0.25f;
    c.live_rows = ck_random_below(random, 3) ? g->rows : ck_random_below(random, g->rows + 1);
    c.in_place = ck_random_below(random, 2);
    return c;
}

void ck_moe_block_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 240 : ck_is_brief(ck) ? 6 : ck->quick ? 12 : 24;
    for (uint32_t i = 0; i < rounds; i++) {
        const struct moe_case c = random_case(ck, &random, i);
        check(ck, &random, &c);
    }
}
