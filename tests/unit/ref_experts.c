/* SPDX-License-Identifier: Apache-2.0 */
/* The references of routing and of experts, by hand; and which calls of them are refused. */
#include "kernels/abi/experts_sm90.h"
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"

#include "tests/unit/expect.h"

#include <math.h>
#include <string.h>

#define EXPERTS 4
#define CHOSEN 2
#define TOKENS 3

struct rig {
    float logits[TOKENS][EXPERTS], bias[EXPERTS], weights[TOKENS][CHOSEN];
    int32_t choices[TOKENS][CHOSEN], offsets[EXPERTS + 1], pairs[TOKENS * CHOSEN], count;
    int32_t slot[TOKENS];
    _Alignas(16) struct rt_expert_group active[EXPERTS];
    struct rt_route_params p;
};

static void make_rig(struct rig *r)
{
    *r = (struct rig){.logits = {{0, 2, 1, 1}, {9, 9, 9, 9}, {-1, NAN, 3, -INFINITY}},
                      .bias = {5, 0, 0, 0},
                      .slot = {0, -1, 7}};
    memset(r->pairs, 0x77, sizeof(r->pairs));
    r->p = (struct rt_route_params){.rows = {.count = TOKENS, .q_len = 1, .slot = r->slot},
                                    .logits = r->logits[0],
                                    .choices = r->choices[0],
                                    .weights = r->weights[0],
                                    .groups_of = {r->offsets, r->pairs, r->active, &r->count},
                                    .logit_stride = EXPERTS,
                                    .experts = EXPERTS,
                                    .chosen = CHOSEN,
                                    .scoring = RT_ROUTE_SIGMOID,
                                    .scale = 2.0f};
}

static void near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-6 * fabs(expected)))
        fail_msg("%.9g is not %.9g", found, expected);
}

/* Ties to the lower expert, NaN behind the least number, padding nobody's, pairs in order. */
static void test_route(void **state)
{
    (void)state;
    struct rig r;
    make_rig(&r);
    rt_ref_route(&r.p);
    const int32_t choices[] = {1, 2, -1, -1, 2, 0}, offsets[] = {0, 1, 2, 4, 4};
    const int32_t pairs[] = {5, 0, 1, 4, 0x77777777, 0x77777777};
    assert_memory_equal(r.choices, choices, sizeof(choices));
    assert_memory_equal(r.offsets, offsets, sizeof(offsets));
    assert_memory_equal(r.pairs, pairs, sizeof(pairs));
    assert_int_equal(r.count, 3);
    const struct rt_expert_group last = {.expert = 2, .first = 2, .count = 2};
    assert_memory_equal(&r.active[2], &last, sizeof(last));
    near((double)r.weights[0][0], 2 / (1 + exp(-2.0)));
    near((double)r.weights[0][1], 2 / (1 + exp(-1.0)));
    assert_true(r.weights[1][0] == 0.0f);

    r.p.normalise = 1;
    r.p.scoring = RT_ROUTE_SOFTMAX;
    rt_ref_route(&r.p);
    near((double)r.weights[0][0], 2 * exp(2.0) / (exp(2.0) + exp(1.0)));
    assert_true(isnan(r.weights[2][0]));
}

/* A bias chooses and does not count; groups are kept by their largest, or by two. */
static void test_route_groups(void **state)
{
    (void)state;
    struct rig r;
    make_rig(&r);
    r.p.bias = r.bias;
    rt_ref_route(&r.p);
    assert_int_equal(r.choices[0][0], 0);
    near((double)r.weights[0][0], 1);
    r.p.bias = NULL;
    r.p.groups = 2;
    r.p.groups_kept = 1;
    rt_ref_route(&r.p); /* 2 is the largest: its group is 0, 1 */
    assert_int_equal(r.choices[0][0], 1);
    assert_int_equal(r.choices[0][1], 0);
    r.p.group_value = RT_ROUTE_GROUP_TOP2; /* two of .73 are more than .5 and .88 */
    rt_ref_route(&r.p);
    assert_int_equal(r.choices[0][0], 2);
    assert_int_equal(r.choices[0][1], 3);
}

/* One token of two numbers, one expert of one row and a shared one, in f32. */
static void test_experts(void **state)
{
    (void)state;
    enum { ONE = 0x3f80, TWO = 0x4000, HALF = 0x3f00 };
    const uint16_t gate[] = {ONE, TWO}, up[] = {TWO, ONE}, shared[] = {HALF, HALF};
    const uint16_t down[] = {ONE, TWO}, shared_down[] = {TWO, HALF};
    const float x[] = {3, -1}, weights[] = {0.5f};
    int32_t pairs[] = {0}, count = 1, choices[] = {0};
    struct rt_expert_group active[] = {{.expert = 0, .first = 0, .count = 1}};
    float h[2] = {0}, out[2] = {0};
    const struct rt_experts_view work = {.groups = {NULL, pairs, active, &count},
                                         .tokens = 1,
                                         .experts = 1,
                                         .chosen = 1,
                                         .shared = 1};
    const struct rt_experts_up_params u = {.work = work,
                                           .x = (const void *)x,
                                           .h = {h, 2, 1},
                                           .gate = {{gate, 2, 2}, {shared, 2, 2}},
                                           .up = {{up, 2, 2}, {shared, 2, 2}},
                                           .hidden = 2,
                                           .width = 1,
                                           .is_f32 = 1};
    struct rt_experts_down_params d = {.work = work,
                                       .rows = {.count = 1, .q_len = 1},
                                       .choices = choices,
                                       .weights = weights,
                                       .h = {h, 2, 1},
                                       .out = (void *)out,
                                       .down = {{down, 2, 1}, {shared_down, 1, 1}},
                                       .hidden = 2,
                                       .width = 1,
                                       .is_f32 = 1};
    const double first = 1 / (1 + exp(-1.0)) * 5, second = 1 / (1 + exp(-1.0));
    rt_ref_experts_up(&u);
    near((double)h[0], first);
    near((double)h[1], second);
    rt_ref_experts_down(&d);
    near((double)out[0], 0.5 * first * 1 + second * 2);
    near((double)out[1], 0.5 * first * 2 + second * 0.5);
    const int32_t padding = -1;
    d.rows.slot = &padding;
    rt_ref_experts_down(&d);
    assert_true(out[0] == 0.0f && out[1] == 0.0f);
}

/* ---- what is refused ---- */

static enum rt_status build(enum rt_op_id op, const void *params, size_t bytes,
                            struct rt_launch *out, struct rt_error *err)
{
    const struct rt_kernels no_device = {0};
    const struct rt_device_caps host = {.kind = RT_DEVICE_KIND_HOST, .sm_count = 8};
    const struct rt_op_request request = {.caps = &host};
    struct rt_variant variant;
    struct rt_work work;
    RT_TRY(rt_op_resolve(op, &request, &variant, err));
    RT_TRY(rt_op_build(&no_device, &variant, params, bytes, &work, err));
    *out = work.launch;
    return RT_OK;
}

static void refuse_route(struct rt_route_params p, const char *words)
{
    struct rt_launch l = {0};
    struct rt_error err = {0};
    assert_int_equal(build(RT_OP_ROUTE, &p, sizeof(p), &l, &err), RT_ERR_INVALID);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void test_refused_routes(void **state)
{
    (void)state;
    struct rig r;
    struct rt_launch l = {0};
    make_rig(&r);
    assert_int_equal(build(RT_OP_ROUTE, &r.p, sizeof(r.p), &l, NULL), RT_OK);
    assert_int_equal(l.grid[0] * l.grid[1], 1);
    assert_int_equal(l.block[0], RT_ROUTE_THREADS);
    const struct rt_route_params good = r.p;
    struct rt_route_params p = good;
    p.experts = 1025;
    refuse_route(p, "1025 experts");
    p = good;
    p.chosen = 5;
    refuse_route(p, "5 of 4 experts");
    p = good;
    p.scoring = 2;
    refuse_route(p, "scoring 2");
    p = good;
    p.groups = 3;
    refuse_route(p, "4 experts in 3 groups");
    p.groups = 4;
    refuse_route(p, "0 of 4 groups");
    p.groups_kept = 1;
    refuse_route(p, "2 experts chosen of 1 groups of 1");
    p.groups_kept = 4;
    p.group_value = RT_ROUTE_GROUP_TOP2;
    refuse_route(p, "groups of 1 experts");
    p.group_value = 7;
    refuse_route(p, "group value 7");
    p = good;
    p.rows.count = 0;
    refuse_route(p, "0 rows");
}

static void test_refused_experts(void **state)
{
    (void)state;
    struct rt_launch l = {0};
    struct rt_error err = {0};
    struct rt_experts_up_params up = {
        .work = {.tokens = 9, .experts = 64, .chosen = 6, .shared = 2}, .hidden = 64, .width = 65};
    assert_int_equal(build(RT_OP_EXPERTS_UP, &up, sizeof(up), &l, NULL), RT_OK);
    assert_int_equal(l.grid[0], 16); /* as many as run at once */
    up.work.experts = up.work.chosen = 0;
    assert_int_equal(build(RT_OP_EXPERTS_UP, &up, sizeof(up), &l, NULL), RT_OK);
    assert_int_equal(l.grid[0], 4); /* two experts of two tiles */
    up.work.shared = 0;
    assert_int_equal(build(RT_OP_EXPERTS_UP, &up, sizeof(up), &l, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "0 experts and 0 shared"));
    up.work.experts = 64;
    assert_int_equal(build(RT_OP_EXPERTS_UP, &up, sizeof(up), &l, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "0 of 64 experts"));

    struct rt_experts_down_params down = {.work = {.tokens = 9, .shared = 1},
                                          .rows = {.count = 9, .q_len = 1},
                                          .hidden = 65,
                                          .width = 8};
    assert_int_equal(build(RT_OP_EXPERTS_DOWN, &down, sizeof(down), &l, NULL), RT_OK);
    assert_int_equal(l.grid[0], 2 * 9);
    down.rows.q_len = 2;
    assert_int_equal(build(RT_OP_EXPERTS_DOWN, &down, sizeof(down), &l, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "9 rows of 2 tokens are not 9"));
    down.rows.q_len = 1;
    down.hidden = 0;
    assert_int_equal(build(RT_OP_EXPERTS_DOWN, &down, sizeof(down), &l, &err), RT_ERR_INVALID);
}

/* The streaming kernels: a block's tiles alike, and a ring that fits beside the sums. */
static void test_sm90_rings(void **state)
{
    (void)state;
    const struct rt_kernels no_device = {0};
    const struct rt_device_caps h200 = {.kind = RT_DEVICE_KIND_CUDA, .cc = 90, .sm_count = 132};
    struct rt_experts_down_params p = {.work = {.tokens = 128, .shared = 1},
                                       .rows = {.count = 128, .q_len = 1},
                                       .down[1] = {.expert_stride = 8, .row_stride = 2048},
                                       .hidden = 7168,
                                       .width = 2048};
    const struct rt_op_request request = {.caps = &h200, .experts_down = &p};
    struct rt_variant v = {0};
    struct rt_work work = {0};
    struct rt_error err = {0};
    assert_int_equal(rt_op_resolve(RT_OP_EXPERTS_DOWN, &request, &v, &err), RT_OK);
    assert_int_equal(rt_op_build(&no_device, &v, &p, sizeof(p), &work, &err), RT_OK);
    struct rt_experts_down_sm90_params sm90;
    memcpy(&sm90, work.launch.params, sizeof(sm90));
    assert_int_equal(work.launch.grid[0], 132);
    assert_int_equal(sm90.ring.tile_rows, 14);
    assert_true(sm90.ring.stages >= 2 && sm90.ring.early >= 1);
    assert_int_equal(sm90.ring.ring_at - sm90.ring.sums_at, 128 * 64 * 4);
    assert_true(work.launch.smem_bytes <= v.smem_bytes);
    p.down[1].row_stride = 2044;
    assert_int_equal(rt_op_build(&no_device, &v, &p, sizeof(p), &work, &err), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "backend sm90: down row stride in elements is 2044"));
    p.down[1].row_stride = 2048;
    v.smem_bytes = 80 * 1024;
    assert_int_equal(rt_op_build(&no_device, &v, &p, sizeof(p), &work, &err), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no room for 32768 bytes of sums"));
    v.op = RT_OP_EXPERTS_UP; /* a plan for the other half */
    struct rt_experts_up_params up = {.work = p.work, .hidden = 7168, .width = 2048};
    assert_int_equal(rt_op_build(&no_device, &v, &up, sizeof(up), &work, &err), RT_ERR_INTERNAL);
    assert_non_null(strstr(err.message, "experts_up was planned as rt_experts_sm90_down16x4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route),           cmocka_unit_test(test_route_groups),
        cmocka_unit_test(test_experts),         cmocka_unit_test(test_refused_routes),
        cmocka_unit_test(test_refused_experts), cmocka_unit_test(test_sm90_rings),
    };
    return cmocka_run_group_tests_name("ref_experts", tests, NULL, NULL);
}
