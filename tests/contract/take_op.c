/* SPDX-License-Identifier: Apache-2.0 */
/* rt_take_rows: which rows come, and what it refuses, by name. The same program runs with the CUDA
 * kernel, emulated. */
#include "replayrt/model_ops.h"
#include "runtime/ops_handle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/values.h"

#define ROWS 7
#define X_ROWS 5
#define WIDTH 24
#define GAP 8 /* numbers between rows of out */
#define POISON 0x7fc1u

static const int32_t numbers[ROWS] = {4, 0, -1, 4, X_ROWS, INT32_MIN, 2};

/* Elements have room for f32. */
struct rig {
    rt_ops *ops;
    _Alignas(256) uint16_t x[2 * X_ROWS * WIDTH];
    _Alignas(256) uint16_t out[2 * ROWS * (WIDTH + GAP)];
    _Alignas(256) int32_t index[ROWS];
};

static int set_up(void **state)
{
    struct rig *r = op_rig_new(sizeof(*r));
    for (uint32_t i = 0; i < sizeof(r->x) / 2; i++)
        r->x[i] = (uint16_t)(i * 2654435761u >> 13);
    for (uint32_t i = 0; i < sizeof(r->out) / 2; i++)
        r->out[i] = POISON;
    memcpy(r->index, numbers, sizeof(numbers));
    *state = r;
    return 0;
}

static struct rt_take_rows_args good(const struct rig *r)
{
    return (struct rt_take_rows_args){.struct_size = sizeof(struct rt_take_rows_args),
                                      .rows = ROWS,
                                      .x_rows = X_ROWS,
                                      .width = WIDTH,
                                      .x = at(r->x),
                                      .index = at(r->index),
                                      .out = at(r->out),
                                      .out_stride = WIDTH + GAP};
}

/* `by`: 16-bit halves of an element. */
static void expect_rows(const struct rig *r, uint32_t by)
{
    for (uint32_t i = 0; i < ROWS; i++)
        for (uint32_t d = 0; d < (WIDTH + GAP) * by; d++) {
            const bool inside = d < WIDTH * by;
            const bool found = inside && numbers[i] >= 0 && numbers[i] < X_ROWS;
            const uint16_t taken = found ? r->x[(uint32_t)numbers[i] * WIDTH * by + d] : 0;
            const uint16_t want = inside ? taken : POISON;
            const uint16_t got = r->out[i * (WIDTH + GAP) * by + d];
            if (got != want)
                fail_msg("row %u, half %u: 0x%04x, not 0x%04x", i, d, got, want);
        }
}

static void takes(void **state)
{
    struct rig *r = *state;
    const struct rt_take_rows_args args = good(r);
    assert_int_equal(rt_take_rows(r->ops, &args, NULL), RT_OK);
    expect_rows(r, 1);
}

static void takes_f32_on_the_host(void **state)
{
    struct rig *r = *state;
    struct rt_take_rows_args args = good(r);
    if (r->ops->driver.caps.cc != 0)
        skip(); /* emulated kernels of a GPU, which have bf16 alone */
    args.precision = RT_PRECISION_F32;
    assert_int_equal(rt_take_rows(r->ops, &args, NULL), RT_OK);
    expect_rows(r, 2);
    r->ops->driver.caps.kind = RT_DEVICE_KIND_CUDA;
    assert_int_equal(rt_take_rows(r->ops, &args, NULL), RT_ERR_UNSUPPORTED);
    r->ops->driver.caps.kind = RT_DEVICE_KIND_HOST;
    assert_non_null(
        strstr(rt_ops_last_error(r->ops)->message, "rt_take_rows: precision RT_PRECISION_F32"));
}

static enum rt_status run(rt_ops *ops, const void *args)
{
    return rt_take_rows(ops, args, NULL);
}

static void refuses(void **state)
{
    struct rig *r = *state;
#define BAD(member, value, words) MISTAKE(rt_take_rows_args, member, value, words)
    const struct mistake bad[] = {
        BAD(struct_size, 3, "rt_take_rows: args->struct_size is 3"),
        BAD(reserved, 5, "rt_take_rows: reserved is 5, not 0"),
        BAD(precision, 2, "rt_take_rows: precision 2 is not RT_PRECISION_BF16, 0"),
        BAD(rows, 0, "rt_take_rows: rows 0 is not 1..16777216"),
        BAD(rows, RT_TAKE_MAX_ROWS + 1, "rows 16777217 is not"),
        BAD(x_rows, 0, "x_rows 0 is not 1..2147483647"),
        BAD(x_rows, UINT32_MAX, "x_rows 4294967295 is not"),
        BAD(width, 0, "rt_take_rows: width 0 is not a multiple of 8"),
        BAD(width, 12, "width 12 is not a multiple of 8"),
        BAD(x, 0, "x is null"),
        BAD(x, at(r->x) + 8, "x = 0x"),
        BAD(index, 0, "index is null"),
        BAD(index, at(r->index) + 2, "index = 0x"),
        BAD(out, 0, "out is null"),
        BAD(out, at(r->out) + 2, "out = 0x"),
        BAD(x_stride, 12, "x_stride = 12 is not a non-negative multiple of 8"),
        BAD(x_stride, -8, "x_stride = -8 is not"),
        BAD(out_stride, INT64_C(1) << 39, "out_stride = 549755813888 is not below 2^39"),
        BAD(out_stride, 16, "out_stride of out leads 32 bytes on, of which 48 are taken"),
        BAD(x_stride, 16, "x_stride of x leads 32 bytes on, of which 48 are taken"),
        BAD(x, at(r->out + 8), "out = 0x"),
        BAD(x, at(r->out + WIDTH), "and x = 0x"), /* a gap is too small for it */
        BAD(index, at(r->out + WIDTH - 2), "and index = 0x"),
    };
#undef BAD
    const struct rt_take_rows_args args = good(r);
    REFUSE_ALL(r->ops, run, args, bad);
    for (size_t i = 0; i < sizeof(r->out) / 2; i++)
        assert_int_equal(r->out[i], POISON);
}

int main(void)
{
    const struct CMUnitTest tests[] = {OP_TEST(takes), OP_TEST(takes_f32_on_the_host),
                                       OP_TEST(refuses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
