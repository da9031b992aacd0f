/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel serves an MLP as one launch, what none does, and what it is launched with. */
#include "kernels/abi/moe_block.h"
#include "kernels/op.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_caps.h"

#define ANY ((void *)256)

struct shape {
    uint32_t tokens, hidden, width, experts, chosen, shared;
};

static struct rt_moe_block_params params_of(const struct shape *s)
{
    const struct rt_expert_weight_view w = {ANY, (int64_t)s->hidden * s->width, s->hidden};
    const struct rt_expert_weight_view down = {ANY, (int64_t)s->hidden * s->width, s->width};
    const int64_t places = s->chosen + s->shared;
    return (struct rt_moe_block_params){
        .gate = {.norm = {.hidden = ANY,
                          .residual = ANY,
                          .normed = ANY,
                          .stride = s->hidden,
                          .norm = {.weight = ANY, .eps = 1e-6f, .scale = 1, .width = s->hidden},
                          .tokens = s->tokens,
                          .hidden_scale = 1},
                 .route = {.rows = {.count = s->tokens, .q_len = 1},
                           .logits = ANY,
                           .choices = ANY,
                           .weights = ANY,
                           .logit_stride = s->experts,
                           .experts = s->experts,
                           .chosen = s->chosen,
                           .scale = 1},
                 .router = ANY,
                 .router_stride = s->hidden},
        .h = {ANY, places * s->width, s->width},
        .expert = {w, w},
        .expert_up = {w, w},
        .expert_down = {down, down},
        .out = ANY,
        .out_stride = s->hidden,
        .exchange = ANY,
        .shared = s->shared,
        .width = s->width};
}

static enum rt_status resolve(const struct shape *s, const struct rt_device_caps *caps,
                              enum rt_backend backend, struct rt_work *work, struct rt_error *err)
{
    static const struct rt_kernels none = {0};
    const struct rt_moe_block_params p = params_of(s);
    const struct rt_op_request request = {.caps = caps, .backend = backend, .moe_block = &p};
    struct rt_variant v = {0};
    const enum rt_status status = rt_op_resolve(RT_OP_MOE_BLOCK, &request, &v, err);
    return status == RT_OK ? rt_op_build(&none, &v, &p, sizeof(p), work, err) : status;
}

/* What is served lies in shared memory as a whole. */
static void expect(const struct shape *s, const char *entry)
{
    struct rt_work work = {0};
    struct rt_error err = {0};
    if (resolve(s, &h200, RT_BACKEND_AUTO, &work, &err) != RT_OK)
        fail_msg("%s", err.message);
    const struct rt_launch *l = &work.launch;
    struct rt_moe_block_sm90_params p;
    memcpy(&p, l->params, sizeof(p));
    assert_string_equal(l->entry, entry);
    assert_true(l->cooperative);
    assert_int_equal(l->grid[0], h200.sm_count);
    assert_int_equal(l->block[0], RT_MOE_BLOCK_THREADS);
    assert_true(l->smem_bytes <= h200.smem_optin_bytes);
    assert_true(p.ring.stages >= (s->experts > 0 ? 4 : 8)); /* what a block asks for at once */
    const uint32_t x = 4 * s->hidden + s->tokens * RT_MOE_BLOCK_X_BYTES(s->hidden);
    const uint32_t h = 2 * s->tokens * (s->chosen + s->shared) * s->width;
    assert_true(p.x_at % 16 == 0 && p.ring.ring_at % 128 == 0);
    assert_true(p.logits_at + 16 * s->experts <= p.x_at);
    assert_true(p.x_at + (x > h ? x : h) <= p.ring.ring_at);
    assert_int_equal(p.ring.ring_at +
                         p.ring.stages * RT_MOE_BLOCK_TILE_ROWS * RT_PROJECT_SM90_ROW_BYTES,
                     l->smem_bytes);
}

static void served(void **state)
{
    (void)state;
    expect(&(struct shape){1, 2048, 1408, 64, 6, 2}, "rt_moe_block_x1_1");
    expect(&(struct shape){3, 2048, 1408, 64, 6, 2}, "rt_moe_block_x1_4");
    expect(&(struct shape){1, 2048, 10944, 0, 0, 1}, "rt_moe_block_x1_1");
    expect(&(struct shape){3, 2048, 10944, 0, 0, 1}, "rt_moe_block_x1_4");
    expect(&(struct shape){1, 7168, 2048, 256, 8, 1}, "rt_moe_block_x4_4");
    expect(&(struct shape){1, 7168, 18432, 0, 0, 1}, "rt_moe_block_x4_4");
    expect(&(struct shape){4, 64, 8, 512, 16, 0}, "rt_moe_block_x1_4");
    /* The fullest: h of 72 KiB, and tokens of 2048 numbers. */
    expect(&(struct shape){4, 2048, 9216, 0, 0, 1}, "rt_moe_block_x1_4");
    expect(&(struct shape){4, 2048, 1024, 512, 8, 1}, "rt_moe_block_x1_4");
}

static void refuse(const struct shape *s, const struct rt_device_caps *caps,
                   enum rt_backend backend, const char *words)
{
    struct rt_work work;
    struct rt_error err = {0};
    assert_int_equal(resolve(s, caps, backend, &work, &err), RT_ERR_UNSUPPORTED);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void refused(void **state)
{
    (void)state;
    const struct shape good = {1, 2048, 1408, 64, 6, 2};
    refuse(&good, &l40, RT_BACKEND_AUTO, "L40");
    refuse(&good, &host, RT_BACKEND_AUTO, "sm90");
    refuse(&good, &h200, RT_BACKEND_GENERIC, "moe_block has no generic kernel");
    refuse(&(struct shape){4, 2048, 1408, 64, 6, 2}, &h200, RT_BACKEND_AUTO,
           "up to 3 tokens of 2048 numbers, each to 6 of 64 experts and 2 shared ones of 1408, "
           "not 4");
    refuse(&(struct shape){2, 7168, 2048, 256, 8, 1}, &h200, RT_BACKEND_AUTO, "up to 1 tokens");
    refuse(&(struct shape){1, 8200, 2048, 256, 8, 1}, &h200, RT_BACKEND_AUTO, "up to 0 tokens");
    refuse(&(struct shape){1, 2048, 64, 520, 8, 1}, &h200, RT_BACKEND_AUTO, "up to 0 tokens");
    refuse(&(struct shape){4, 64, 8, 512, 17, 0}, &h200, RT_BACKEND_AUTO, "up to 3 tokens");
    refuse(&(struct shape){1, 2052, 1408, 64, 6, 2}, &h200, RT_BACKEND_AUTO, "multiples of 8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(served),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
