/* SPDX-License-Identifier: Apache-2.0 */
/* rt_mla_input_norm against its formula in double, and what it refuses, by name. The same program
 * runs with the CUDA kernels, emulated. */
#include "replayrt/block_ops.h"
#include "runtime/ops_handle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/values.h"

#define TOKENS 6
#define WIDTH 192
#define GAP 8 /* numbers between tokens */
#define TOKEN_WIDTH (WIDTH + GAP)
#define POISON 0x7fc1u

/* Residual has room for three tensors side by side. */
struct rig {
    rt_ops *ops;
    _Alignas(256) uint16_t hidden[(TOKENS + 1) * TOKEN_WIDTH];
    _Alignas(256) uint16_t residual[3 * TOKENS * TOKEN_WIDTH];
    _Alignas(256) uint16_t normed[TOKENS * TOKEN_WIDTH];
    _Alignas(256) uint16_t weight[WIDTH];
};

static void refill(struct rig *r)
{
    uint64_t random = 7;
    fill(&random, r->hidden, sizeof(r->hidden) / 2);
    fill(&random, r->weight, WIDTH);
    for (size_t i = 0; i < sizeof(r->normed) / 2; i++)
        r->normed[i] = POISON;
}

static int set_up(void **state)
{
    struct rig *r = op_rig_new(sizeof(*r));
    refill(r);
    *state = r;
    return 0;
}

static struct rt_mla_input_norm_args input_norm_args(const struct rig *r)
{
    return (struct rt_mla_input_norm_args){
        .struct_size = sizeof(struct rt_mla_input_norm_args),
        .tokens = TOKENS,
        .hidden = at(r->hidden),
        .residual = at(r->residual),
        .normed = at(r->normed),
        .stride = TOKEN_WIDTH,
        .norm = {.weight = at(r->weight), .width = WIDTH, .eps = 1e-6f},
    };
}

/* As it is and with a factor; set instead of added to; kept nowhere. */
static void input_norm(void **state)
{
    struct rig *r = *state;
    const float scales[] = {0, 0.25f, 1, 1};
    for (int way = 0; way < 4; way++) {
        struct rt_mla_input_norm_args args = input_norm_args(r);
        const bool first = way >= 2, kept = way < 3;
        const double by = scales[way] == 0 ? 1 : (double)scales[way];
        uint64_t random = 3;
        refill(r);
        fill(&random, r->residual, TOKENS * TOKEN_WIDTH);
        uint16_t old[TOKENS * TOKEN_WIDTH];
        memcpy(old, r->residual, sizeof(old));
        args.hidden_scale = scales[way];
        args.first = first;
        args.residual = kept ? args.residual : 0;
        if (rt_mla_input_norm(r->ops, &args, NULL) != RT_OK)
            fail_msg("%s", rt_ops_last_error(r->ops)->message);
        for (uint32_t t = 0; t < TOKENS; t++) {
            const uint32_t from = t * TOKEN_WIDTH;
            uint16_t sum[WIDTH];
            for (uint32_t i = 0; i < WIDTH; i++) {
                const double hidden = number(r->hidden[from + i]), had = number(old[from + i]);
                sum[i] = rt_float_to_bf16((float)(first ? hidden : had + by * hidden));
                assert_int_equal(r->residual[from + i], kept ? sum[i] : old[from + i]);
            }
            const double factor_of = inverse(sum, WIDTH, 1e-6);
            for (uint32_t i = 0; i < WIDTH; i++)
                near("normed", i, r->normed[from + i],
                     number(sum[i]) * factor_of * number(r->weight[i]));
            for (uint32_t i = WIDTH; i < TOKEN_WIDTH && t + 1 < TOKENS; i++)
                assert_int_equal(r->normed[from + i], POISON);
        }
    }
}

/* On the host device: no rounding is left to be seen. */
static void input_norm_in_f32(void **state)
{
    struct rig *r = *state;
    struct rt_mla_input_norm_args args = input_norm_args(r);
    float *x = (float *)r->residual, *normed = x + WIDTH;
    if (r->ops->driver.caps.cc != 0)
        skip(); /* emulated kernels of a GPU, which have bf16 alone */
    for (uint32_t i = 0; i < WIDTH; i++)
        x[i] = i % 2 ? 2 + 0x1p-20f : 1;
    args.precision = RT_PRECISION_F32;
    args.tokens = args.first = 1;
    args.hidden = args.residual = at(x);
    args.normed = at(normed);
    assert_int_equal(rt_mla_input_norm(r->ops, &args, NULL), RT_OK);
    for (uint32_t i = 0; i < WIDTH; i++) {
        const double by = number(r->weight[i]) / sqrt((1 + pow(2 + 0x1p-20, 2)) / 2 + 1e-6);
        assert_true(fabs((double)normed[i] - (double)x[i] * by) <= 1e-6 * fabs(by));
    }
    r->ops->driver.caps.kind = RT_DEVICE_KIND_CUDA;
    assert_int_equal(rt_mla_input_norm(r->ops, &args, NULL), RT_ERR_UNSUPPORTED);
    r->ops->driver.caps.kind = RT_DEVICE_KIND_HOST;
}

static enum rt_status run(rt_ops *ops, const void *args)
{
    return rt_mla_input_norm(ops, args, NULL);
}

static void input_norm_refused(void **state)
{
    struct rig *r = *state;
#define BAD(member, value, words) MISTAKE(rt_mla_input_norm_args, member, value, words)
    const struct mistake bad[] = {
        BAD(tokens, 0, "0 tokens, not 1 to 32768"),
        BAD(reserved, 5, "rt_mla_input_norm: reserved is 5, not 0"),
        BAD(tokens, 32769, "32769 tokens"),
        BAD(hidden, 0, "hidden is null"),
        BAD(residual, 0, "residual is null, which is for first = 1"),
        BAD(residual, at(r->residual) + 8, "residual = 0x"),
        BAD(normed, at(r->normed) + 2, "normed = 0x"),
        BAD(stride, 12, "stride = 12 is not"),
        BAD(stride, -8, "stride = -8 is not"),
        BAD(stride, 8, "stride of normed leads 16 bytes on, of which 384 are taken"),
        BAD(normed, at(r->hidden), "hidden = 0x"),
        BAD(norm.weight, at(r->normed + WIDTH - 8), "and norm.weight = 0x"),
        BAD(norm.weight, at(r->residual), "and norm.weight = 0x"),
        BAD(normed, at(r->residual + WIDTH - 8), "overlap: must lie apart"),
        BAD(residual, at(r->hidden) - 2 * (TOKEN_WIDTH - 8), "overlap: must lie apart"),
        BAD(norm.width, 0, "rt_mla_input_norm: norm.width 0 is not a multiple of"),
        BAD(norm.width, 16392, "norm.width 16392 is not a multiple of 8 from 8 to 16384"),
        BAD(first, 2, "first 2 is not 0 or 1"),
        BAD(precision, 9, "precision 9 is not RT_PRECISION_BF16, 0, or RT_PRECISION_F32, 1"),
        BAD(hidden_scale, 0x7f800000, "hidden_scale inf is not a finite number"),
    };
#undef BAD
    struct rt_mla_input_norm_args args = input_norm_args(r);
    REFUSE_ALL(r->ops, run, args, bad);
    args.first = 1;
    args.residual = at(r->hidden + GAP);
    refused(r->ops, rt_mla_input_norm(r->ops, &args, NULL), "and hidden = 0x");
    args.residual = args.hidden;
    assert_int_equal(rt_mla_input_norm(r->ops, &args, NULL), RT_OK);
    args.stride = 3 * WIDTH; /* side by side in one tensor */
    args.first = 0;
    args.hidden = at(r->residual);
    args.residual = at(r->residual + WIDTH);
    args.normed = at(r->residual + 2 * WIDTH);
    assert_int_equal(rt_mla_input_norm(r->ops, &args, NULL), RT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {OP_TEST(input_norm), OP_TEST(input_norm_in_f32),
                                       OP_TEST(input_norm_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
