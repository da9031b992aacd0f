/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replayrt/model_ops.h, but for rt_sample: embedding, routing and experts against their formulas in
 * double, in bf16 and, on the host device, in f32. The same program runs with the CUDA kernels,
 * emulated.
 */
#include "replayrt/model_ops.h"
#include "common/bf16.h"
#include "runtime/ops_handle.h"
#include "tests/support/fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/op_rig.h"

#define ROWS 3
#define QUERY_LEN 2
#define TOKENS (ROWS * QUERY_LEN)
#define VOCAB 11
#define HIDDEN 40
#define WIDTH 24
#define GAP 8
#define EXPERTS 12
#define CHOSEN 3
#define SHARED 2
#define PLACES (CHOSEN + SHARED)
#define POISON 0xa5

/* Tensors of bf16 have room for f32. */
struct rig {
    rt_ops *ops;
    _Alignas(256) float table[VOCAB * (HIDDEN + GAP)];
    _Alignas(256) float hidden[TOKENS * (HIDDEN + GAP)];
    _Alignas(256) float x[TOKENS * (HIDDEN + GAP)];
    _Alignas(256) float h[TOKENS * PLACES * (WIDTH + GAP) + GAP];
    _Alignas(256) float out[TOKENS * (HIDDEN + GAP)];
    _Alignas(256) uint16_t gate[2][EXPERTS * WIDTH * HIDDEN], up[2][EXPERTS * WIDTH * HIDDEN];
    _Alignas(256) uint16_t down[2][EXPERTS * WIDTH * HIDDEN];
    _Alignas(256) int32_t lengths[ROWS + 1], slots[ROWS + 1], row_base[4];
    _Alignas(256) int32_t tokens[2 * TOKENS];
    _Alignas(256) float logits[TOKENS * (EXPERTS + 1) + 1], bias[EXPERTS + 1];
    _Alignas(256) int32_t choices[TOKENS * CHOSEN + 1], offsets[EXPERTS + 2];
    _Alignas(256) int32_t pairs[TOKENS * CHOSEN + 1], active[4 * EXPERTS], active_count[2];
    _Alignas(256) float weights[TOKENS * CHOSEN + 1];
    uint64_t random;
};

static double chance(struct rig *r)
{
    return (double)(int32_t)fixture_random(&r->random) / 2147483648.0;
}

static double get(const void *base, size_t i, bool f32)
{
    return f32 ? (double)((const float *)base)[i]
               : (double)rt_bf16_to_float(((const uint16_t *)base)[i]);
}

static void put(void *base, size_t i, bool f32, double value)
{
    if (f32)
        ((float *)base)[i] = (float)value;
    else
        ((uint16_t *)base)[i] = rt_float_to_bf16((float)value);
}

static void fill(struct rig *r, void *base, size_t count, bool f32, double by)
{
    for (size_t i = 0; i < count; i++)
        put(base, i, f32, by * chance(r));
}

/* Row 1 is padding by its length, row 2 lies in slot 4. */
static void refill(struct rig *r, bool f32)
{
    const int32_t lengths[] = {-1, 5, 0, 9}, slots[] = {-1, 0, 3, 4};
    rt_ops *const ops = r->ops;
    memset(r, POISON, sizeof(*r));
    r->ops = ops;
    r->random = 11;
    memcpy(r->lengths, lengths, sizeof(lengths));
    memcpy(r->slots, slots, sizeof(slots));
    fill(r, r->table, VOCAB * (HIDDEN + GAP), false, 1);
    fill(r, r->x, TOKENS * (HIDDEN + GAP), f32, 1);
    for (int i = 0; i < 2; i++) {
        fill(r, r->gate[i], EXPERTS * WIDTH * HIDDEN, false, 1);
        fill(r, r->up[i], EXPERTS * WIDTH * HIDDEN, false, 1);
        fill(r, r->down[i], EXPERTS * WIDTH * HIDDEN, false, 1);
    }
    fill(r, r->logits, TOKENS * (EXPERTS + 1) + 1, true, 3);
    fill(r, r->bias, EXPERTS + 1, true, 0.4);
}

static int set_up(void **state)
{
    struct rig *r = op_rig_new(sizeof(*r));
    refill(r, false);
    *state = r;
    return 0;
}

/* Kernels of a GPU have bf16 alone, also where they are emulated. */
static int precisions(const struct rig *r)
{
    return r->ops->driver.caps.cc == 0 ? 2 : 1;
}

static enum rt_precision precision_of(bool f32)
{
    return f32 ? RT_PRECISION_F32 : RT_PRECISION_BF16;
}

static void must(const struct rig *r, enum rt_status status)
{
    if (status != RT_OK)
        fail_msg("%s", rt_ops_last_error(r->ops)->message);
}

/* `off`: what sums may be wrong by; besides, one rounding to bf16. */
static void near(const char *what, size_t i, double got, double want, double off, bool f32)
{
    const double bound = off + fabs(want) * (f32 ? 0x1p-22 : 0x1p-8) + 1e-30;
    if (!(fabs(got - want) <= bound))
        fail_msg("%s, number %zu: %.9g, not %.9g, by %.3g", what, i, got, want, bound);
}

static void untouched(const char *what, const void *base, size_t from, size_t end, bool f32)
{
    const size_t bytes = f32 ? 4 : 2;
    for (size_t i = from * bytes; i < end * bytes; i++)
        if (((const unsigned char *)base)[i] != POISON)
            fail_msg("%s: byte %zu was written", what, i);
}

static bool is_live(uint32_t token)
{
    return token / QUERY_LEN != 1;
}

/* As slices, behind an element. */
static struct rt_token_rows rows_of(const struct rig *r)
{
    return (struct rt_token_rows){.rows = ROWS,
                                  .query_len = QUERY_LEN,
                                  .lengths = at(r->lengths + 1),
                                  .slots = at(r->slots + 1)};
}

/* ---- embed ----------------------------------------------------------------------------------- */

static void embed_once(struct rig *r, bool f32, uint32_t base, float scale)
{
    static const int32_t ids[TOKENS] = {0, VOCAB - 1, 3, 4, -1, VOCAB};
    const struct rt_embed_args args = {.struct_size = sizeof(args),
                                       .precision = precision_of(f32),
                                       .rows = rows_of(r),
                                       .table = at(r->table),
                                       .tokens = at(r->tokens),
                                       .hidden = at(r->hidden),
                                       .table_stride = HIDDEN + GAP,
                                       .hidden_stride = HIDDEN + GAP,
                                       .vocab = VOCAB,
                                       .width = HIDDEN,
                                       .scale = scale};
    struct rt_embed_args mine = args;
    refill(r, f32);
    memcpy(r->tokens + base * QUERY_LEN, ids, sizeof(ids));
    /* An int32 that no block of the runtime's stands around. */
    r->row_base[base] = (int32_t)base;
    mine.rows.row_base = base ? at(&r->row_base[base]) : 0;
    must(r, rt_embed(r->ops, &mine, NULL));
    for (uint32_t t = 0; t < TOKENS; t++) {
        const bool found = is_live(t) && ids[t] >= 0 && ids[t] < VOCAB;
        for (uint32_t i = 0; i < HIDDEN; i++) {
            const float x =
                found ? (float)get(r->table, (uint32_t)ids[t] * (HIDDEN + GAP) + i, 0) : 0.0f;
            const float want = x * (scale == 0.0f ? 1.0f : scale);
            const size_t place = t * (HIDDEN + GAP) + i;
            const double rounded =
                f32 ? (double)want : (double)rt_bf16_to_float(rt_float_to_bf16(want));
            if (get(r->hidden, place, f32) != rounded)
                fail_msg("token %u, number %u: %g, not %g", t, i, get(r->hidden, place, f32),
                         rounded);
        }
        untouched("hidden", r->hidden, t * (HIDDEN + GAP) + HIDDEN, (t + 1) * (HIDDEN + GAP), f32);
    }
}

static void embed(void **state)
{
    struct rig *r = *state;
    for (int f32 = 0; f32 < precisions(r); f32++)
        for (uint32_t base = 0; base < 3; base++) {
            embed_once(r, f32, base, 0);
            embed_once(r, f32, base, 6.2449980f);
        }
}

/* ---- route ----------------------------------------------------------------------------------- */

struct choice {
    uint32_t expert;
    double weight;
};

static uint32_t best_of(const double *value, const bool *left, uint32_t count)
{
    uint32_t best = count;
    for (uint32_t i = 0; i < count; i++)
        if (left[i] && (best == count || value[i] > value[best]))
            best = i;
    return best;
}

/* What groups are worth; the experts of those that are not chosen leave. */
static void drop_groups(const struct rt_route_args *a, const double *value, bool *left)
{
    const uint32_t each = a->experts / a->groups;
    double worth[EXPERTS];
    bool open[EXPERTS], kept[EXPERTS] = {false};
    for (uint32_t g = 0; g < a->groups; g++) {
        bool mine[EXPERTS] = {false};
        memset(mine + g * each, true, each);
        const uint32_t first = best_of(value, mine, a->experts);
        mine[first] = false;
        const uint32_t second = best_of(value, mine, a->experts);
        worth[g] = value[first];
        if (a->group_score == RT_GROUP_SCORE_TOP2 && second < a->experts)
            worth[g] += value[second];
        open[g] = true;
    }
    for (uint32_t i = 0; i < a->groups_per_token; i++) {
        const uint32_t g = best_of(worth, open, a->groups);
        open[g] = false;
        kept[g] = true;
    }
    for (uint32_t e = 0; e < a->experts; e++)
        left[e] = kept[e / each];
}

static void choose(const struct rt_route_args *a, const float *logits, const float *bias,
                   struct choice *out)
{
    double score[EXPERTS] = {0}, value[EXPERTS], sum = 0, all = 0;
    bool left[EXPERTS];
    for (uint32_t e = 0; e < a->experts; e++)
        sum += exp((double)logits[e]);
    for (uint32_t e = 0; e < a->experts; e++) {
        score[e] = a->scoring == RT_SCORING_SIGMOID ? 1 / (1 + exp(-(double)logits[e]))
                                                    : exp((double)logits[e]) / sum;
        value[e] = score[e] + (bias ? (double)bias[e] : 0);
        left[e] = true;
    }
    if (a->groups > 1)
        drop_groups(a, value, left);
    for (uint32_t i = 0; i < a->experts_per_token; i++) {
        out[i].expert = best_of(value, left, a->experts);
        out[i].weight = score[out[i].expert];
        left[out[i].expert] = false;
        all += out[i].weight;
    }
    for (uint32_t i = 0; i < a->experts_per_token; i++)
        out[i].weight *= (a->normalise ? 1 / all : 1) * (a->scale == 0.0f ? 1 : (double)a->scale);
}

static struct rt_routing routing_of(const struct rig *r)
{
    return (struct rt_routing){.choices = at(r->choices + 1),
                               .weights = at(r->weights + 1),
                               .offsets = at(r->offsets + 1),
                               .pairs = at(r->pairs + 1),
                               .active = at(r->active),
                               .active_count = at(r->active_count + 1)};
}

static struct rt_route_args route_args(const struct rig *r)
{
    return (struct rt_route_args){.struct_size = sizeof(struct rt_route_args),
                                  .experts = EXPERTS,
                                  .experts_per_token = CHOSEN,
                                  .rows = rows_of(r),
                                  .logits = at(r->logits + 1),
                                  .logit_stride = EXPERTS + 1,
                                  .routing = routing_of(r)};
}

/* Each expert's pairs rise, and all of them are the choices. */
static void expect_groups(const struct rig *r, uint32_t experts, uint32_t chosen)
{
    int32_t count = 0, active = 0;
    for (uint32_t e = 0; e < experts; e++) {
        assert_int_equal(r->offsets[1 + e], count);
        const int32_t first = count;
        for (uint32_t pair = 0; pair < TOKENS * chosen; pair++)
            if (r->choices[1 + pair] == (int32_t)e)
                assert_int_equal(r->pairs[1 + count++], pair);
        if (count == first)
            continue;
        const int32_t *group = r->active + 4 * active++;
        assert_int_equal(group[0], e);
        assert_int_equal(group[1], first);
        assert_int_equal(group[2], count - first);
        assert_int_equal(group[3], 0);
    }
    assert_int_equal(r->offsets[1 + experts], count);
    assert_int_equal(r->active_count[1], active);
}

static void route_once(struct rig *r, const struct rt_route_args *args)
{
    const uint32_t chosen = args->experts_per_token;
    const int64_t stride = args->logit_stride ? args->logit_stride : args->experts;
    must(r, rt_route(r->ops, args, NULL));
    for (uint32_t t = 0; t < TOKENS; t++) {
        struct choice want[EXPERTS];
        choose(args, r->logits + 1 + t * stride, args->bias ? r->bias + 1 : NULL, want);
        for (uint32_t i = 0; i < chosen; i++) {
            const size_t place = 1 + t * chosen + i;
            if (!is_live(t)) {
                assert_int_equal(r->choices[place], -1);
                assert_true(r->weights[place] == 0.0f);
                continue;
            }
            if (r->choices[place] != (int32_t)want[i].expert)
                fail_msg("token %u, place %u: expert %d, not %u", t, i, r->choices[place],
                         want[i].expert);
            near("weight", place, (double)r->weights[place], want[i].weight,
                 fabs(want[i].weight) * 4e-6, true);
        }
    }
    expect_groups(r, args->experts, chosen);
}

static void routes(void **state)
{
    struct rig *r = *state;
    for (uint32_t way = 0; way < 2 * 2 * 2 * 5; way++) {
        static const uint32_t groups[][2] = {{0, 0}, {1, 1}, {4, 2}, {6, 2}, {EXPERTS, 5}};
        refill(r, false);
        struct rt_route_args args = route_args(r);
        args.scoring = way % 2 ? RT_SCORING_SIGMOID : RT_SCORING_SOFTMAX;
        args.group_score = way / 2 % 2 ? RT_GROUP_SCORE_TOP2 : RT_GROUP_SCORE_MAX;
        args.normalise = way / 4 % 2;
        args.bias = way % 3 ? at(r->bias + 1) : 0;
        args.scale = way % 3 == 1 ? 2.5f : 0;
        args.groups = groups[way / 8][0];
        args.groups_per_token = groups[way / 8][1];
        if (way % 4 == 3)
            args.logit_stride = 0;
        route_once(r, &args);
    }
}

/* Of equal scores the lower index is the larger; every row is live without lengths and slots. */
static void routes_of_equals(void **state)
{
    struct rig *r = *state;
    struct rt_route_args args = route_args(r);
    args.rows.lengths = args.rows.slots = 0;
    args.normalise = 1;
    for (size_t i = 0; i < sizeof(r->logits) / 4; i++)
        r->logits[i] = 2;
    must(r, rt_route(r->ops, &args, NULL));
    for (uint32_t pair = 0; pair < TOKENS * CHOSEN; pair++) {
        assert_int_equal(r->choices[1 + pair], pair % CHOSEN);
        near("weight", pair, (double)r->weights[1 + pair], 1.0 / CHOSEN, 1e-6, true);
    }
    expect_groups(r, EXPERTS, CHOSEN);
}

/* ---- experts --------------------------------------------------------------------------------- */

struct experts_case {
    uint32_t experts, shared;
    bool f32, gaps, wide; /* wide: the shared ones' columns of down lie side by side */
    enum rt_backend backend;
};

static struct rt_experts_shape shape_of(const struct experts_case *c)
{
    return (struct rt_experts_shape){.tokens = TOKENS,
                                     .hidden = HIDDEN,
                                     .width = WIDTH,
                                     .experts = c->experts,
                                     .experts_per_token = c->experts ? CHOSEN : 0,
                                     .shared = c->shared,
                                     .backend = c->backend,
                                     .precision = precision_of(c->f32)};
}

static uint32_t places_of(const struct experts_case *c)
{
    return (c->experts ? CHOSEN : 0) + c->shared;
}

static size_t h_place(const struct experts_case *c, uint32_t token, uint32_t place)
{
    const size_t apart = WIDTH + (c->gaps ? GAP : 0);
    return (token * places_of(c) + place) * apart;
}

static struct rt_experts_up_args up_args(const struct rig *r, const struct experts_case *c)
{
    struct rt_experts_up_args a = {.struct_size = sizeof(a),
                                   .shape = shape_of(c),
                                   .x = at(r->x),
                                   .h = at(r->h),
                                   .x_stride = HIDDEN + GAP};
    if (c->gaps)
        a.h_place_stride = WIDTH + GAP;
    if (c->experts)
        a.routing = routing_of(r);
    for (int i = 0; i < 2; i++) {
        const bool there = i ? c->shared : c->experts;
        a.gate[i].address = there ? at(r->gate[i]) : 0;
        a.up[i].address = there ? at(r->up[i]) : 0;
    }
    return a;
}

static struct rt_experts_down_args down_args(const struct rig *r, const struct experts_case *c)
{
    struct rt_experts_down_args a = {.struct_size = sizeof(a),
                                     .shape = shape_of(c),
                                     .rows = rows_of(r),
                                     .h = at(r->h),
                                     .out = at(r->out),
                                     .out_stride = HIDDEN + GAP};
    if (c->gaps)
        a.h_place_stride = WIDTH + GAP;
    if (c->experts)
        a.routing = routing_of(r);
    for (int i = 0; i < 2; i++)
        a.down[i].address = (i ? c->shared : c->experts) ? at(r->down[i]) : 0;
    if (c->wide)
        a.down[1] = (struct rt_expert_weights){at(r->down[1]), WIDTH, (int64_t)c->shared * WIDTH};
    return a;
}

/* A sum of products, and what float may be wrong by. */
struct sum {
    double value, off;
};

static struct sum dot(const void *x, size_t first, const uint16_t *w, uint32_t count, bool f32)
{
    struct sum s = {0, 0};
    for (uint32_t i = 0; i < count; i++) {
        const double product = get(x, first + i, f32) * get(w, i, false);
        s.value += product;
        s.off += fabs(product) * 0x1p-21;
    }
    return s;
}

/* The expert at a place of a token; -1: none. */
static int32_t expert_at(const struct rig *r, const struct experts_case *c, uint32_t token,
                         uint32_t place)
{
    const uint32_t chosen = c->experts ? CHOSEN : 0;
    return place < chosen ? r->choices[1 + token * chosen + place] : (int32_t)(place - chosen);
}

static void expect_up(const struct rig *r, const struct experts_case *c)
{
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t s = 0; s < places_of(c); s++) {
            const int which = s >= places_of(c) - c->shared;
            const int32_t expert = expert_at(r, c, t, s);
            const size_t place = h_place(c, t, s);
            if (expert < 0) {
                untouched("h of nobody", r->h, place, place + WIDTH, c->f32);
                continue;
            }
            for (uint32_t j = 0; j < WIDTH; j++) {
                const size_t row = ((uint32_t)expert * WIDTH + j) * HIDDEN;
                const struct sum a =
                    dot(r->x, t * (HIDDEN + GAP), r->gate[which] + row, HIDDEN, c->f32);
                const struct sum b =
                    dot(r->x, t * (HIDDEN + GAP), r->up[which] + row, HIDDEN, c->f32);
                const double silu = a.value / (1 + exp(-a.value));
                near("h", place + j, get(r->h, place + j, c->f32), silu * b.value,
                     1.1 * a.off * fabs(b.value) + fabs(silu) * b.off +
                         fabs(silu * b.value) * 0x1p-20,
                     c->f32);
            }
        }
}

static void expect_down(const struct rig *r, const struct experts_case *c)
{
    const uint32_t chosen = c->experts ? CHOSEN : 0;
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t j = 0; j < HIDDEN; j++) {
            struct sum want = {0, 0};
            for (uint32_t s = 0; s < places_of(c) && is_live(t); s++) {
                const uint32_t e = (uint32_t)expert_at(r, c, t, s);
                const size_t row = s >= chosen && c->wide
                                       ? (size_t)j * c->shared * WIDTH + e * WIDTH
                                       : (size_t)(e * HIDDEN + j) * WIDTH;
                const struct sum one =
                    dot(r->h, h_place(c, t, s), r->down[s >= chosen] + row, WIDTH, c->f32);
                const double by = s < chosen ? (double)r->weights[1 + t * chosen + s] : 1;
                want.value += by * one.value;
                want.off += 2 * by * one.off + fabs(by * one.value) * 0x1p-20;
            }
            const size_t place = t * (HIDDEN + GAP) + j;
            near("out", place, get(r->out, place, c->f32), want.value, want.off, c->f32);
        }
    for (uint32_t t = 0; t < TOKENS; t++)
        untouched("out", r->out, t * (HIDDEN + GAP) + HIDDEN, (t + 1) * (HIDDEN + GAP), c->f32);
}

static void experts_once(struct rig *r, const struct experts_case *c)
{
    float behind[TOKENS * (HIDDEN + GAP)];
    refill(r, c->f32);
    if (c->experts) {
        struct rt_route_args route = route_args(r);
        route.normalise = 1;
        must(r, rt_route(r->ops, &route, NULL));
    }
    const struct rt_experts_up_args up = up_args(r, c);
    struct rt_experts_down_args down = down_args(r, c);
    must(r, rt_experts_up(r->ops, &up, NULL));
    expect_up(r, c);
    must(r, rt_experts_down(r->ops, &down, NULL));
    expect_down(r, c);
    memcpy(behind, r->out, sizeof(behind));
    memset(r->out, POISON, sizeof(r->out));
    down.behind_up = 1;
    must(r, rt_experts_up(r->ops, &up, NULL));
    must(r, rt_experts_down(r->ops, &down, NULL));
    assert_memory_equal(behind, r->out, sizeof(behind));
}

static void experts(void **state)
{
    struct rig *r = *state;
    for (uint32_t n = 0; n < 3 * 2 * 2 * 2; n++) {
        const uint32_t kind = n % 3;
        struct experts_case c = {.experts = kind < 2 ? EXPERTS : 0,
                                 .shared = kind == 0 ? 0 : SHARED,
                                 .gaps = n / 3 % 2,
                                 .wide = n / 6 % 2 && kind > 0,
                                 .backend = n / 12 ? RT_BACKEND_GENERIC : RT_BACKEND_AUTO};
        for (int f32 = 0; f32 < precisions(r); f32++) {
            c.f32 = f32;
            experts_once(r, &c);
        }
    }
}

/* One shared expert and no others, whose routing nobody looks at. */
static void dense(void **state)
{
    struct rig *r = *state;
    const struct experts_case c = {.shared = 1};
    experts_once(r, &c);
    struct rt_experts_info info = {.struct_size = sizeof(info)};
    const struct rt_experts_shape shape = shape_of(&c);
    must(r, rt_experts_get_info(r->ops, &shape, &info));
    const bool hopper = r->ops->driver.caps.cc == 90;
    assert_non_null(strstr(info.up, hopper ? "rt_experts_sm90_up" : "rt_experts_up"));
    assert_non_null(strstr(info.down, hopper ? "rt_experts_sm90_down" : "rt_experts_down"));
    assert_non_null(strstr(info.reason, hopper ? "sm90" : "this is the host device"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OP_TEST(embed),   OP_TEST(routes), OP_TEST(routes_of_equals),
        OP_TEST(experts), OP_TEST(dense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
