/* SPDX-License-Identifier: Apache-2.0 */
/* rt_mla_merge: attention over halves of the keys, merged, is attention over all of them; and what
 * it refuses, by name. The same program runs with the CUDA kernel, emulated. */
#include "replayrt/prefill_ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/values.h"

#define PIECES 3
#define TOKENS 5
#define HEADS 2
#define WIDTH 16
#define KEYS 12 /* that the pieces share */
#define POISON 0x7fc1u

struct rig {
    rt_ops *ops;
    double scores[TOKENS * HEADS][KEYS], values[KEYS][WIDTH];
    _Alignas(256) uint16_t in[PIECES * TOKENS * HEADS * WIDTH];
    _Alignas(256) float in_lse[PIECES * TOKENS * HEADS];
    _Alignas(256) uint16_t out[TOKENS * HEADS * WIDTH];
    _Alignas(256) float out_lse[TOKENS * HEADS];
    float sink[HEADS]; /* -inf: none */
    int32_t live;
};

/* Softmax of a query's keys first..end - 1. */
static double attend(const struct rig *r, uint32_t query, uint32_t first, uint32_t end, double *out)
{
    double sum = 0;
    memset(out, 0, WIDTH * sizeof(*out));
    for (uint32_t k = first; k < end; k++) {
        const double weight = exp(r->scores[query][k]);
        sum += weight;
        for (uint32_t d = 0; d < WIDTH; d++)
            out[d] += weight * r->values[k][d];
    }
    for (uint32_t d = 0; d < WIDTH && sum > 0; d++)
        out[d] /= sum;
    return sum > 0 ? log(sum) : (double)INFINITY;
}

/* Piece 0 has half of the keys, piece 2 the others, piece 1 none: NaN. */
static void attend_pieces(struct rig *r)
{
    static const uint32_t first[PIECES + 1] = {0, KEYS / 2, KEYS / 2, KEYS};
    for (uint32_t i = 0; i < PIECES * TOKENS * HEADS; i++) {
        const uint32_t piece = i / (TOKENS * HEADS), query = i % (TOKENS * HEADS);
        double out[WIDTH];
        r->in_lse[i] = (float)attend(r, query, first[piece], first[piece + 1], out);
        for (uint32_t d = 0; d < WIDTH; d++)
            r->in[i * WIDTH + d] = piece == 1 ? POISON : rt_float_to_bf16((float)out[d]);
    }
}

static int set_up(void **state)
{
    struct rig *r = op_rig_new(sizeof(*r));
    uint64_t random = 5;
    for (uint32_t i = 0; i < TOKENS * HEADS * KEYS; i++)
        r->scores[i / KEYS][i % KEYS] = (double)(int32_t)fixture_random(&random) / 500000000.0;
    for (uint32_t i = 0; i < KEYS * WIDTH; i++)
        r->values[i / WIDTH][i % WIDTH] = (double)(int32_t)fixture_random(&random) / 2147483648.0;
    attend_pieces(r);
    for (size_t i = 0; i < sizeof(r->out) / 2; i++)
        r->out[i] = POISON;
    for (uint32_t h = 0; h < HEADS; h++)
        r->sink[h] = -INFINITY;
    r->live = TOKENS;
    *state = r;
    return 0;
}

static struct rt_mla_merge_args good(const struct rig *r)
{
    return (struct rt_mla_merge_args){.struct_size = sizeof(struct rt_mla_merge_args),
                                      .pieces = PIECES,
                                      .tokens = TOKENS,
                                      .heads = HEADS,
                                      .v_dim = WIDTH,
                                      .in = at(r->in),
                                      .in_lse = at(r->in_lse),
                                      .out = at(r->out),
                                      .out_lse = at(r->out_lse)};
}

static void expect_whole(const struct rig *r, const uint16_t *out, const float *lse, uint32_t live,
                         double lse_factor)
{
    for (uint32_t query = 0; query < TOKENS * HEADS; query++) {
        double want[WIDTH];
        const double total = attend(r, query, 0, query < live * HEADS ? KEYS : 0, want);
        const double share = 1 / (1 + exp((double)r->sink[query % HEADS] - total));
        for (uint32_t d = 0; d < WIDTH; d++)
            want[d] *= share;
        for (uint32_t d = 0; d < WIDTH; d++)
            if (!(fabs(number(out[query * WIDTH + d]) - want[d]) <= 0.01))
                fail_msg("query %u, number %u: %g, not %g", query, d,
                         number(out[query * WIDTH + d]), want[d]);
        if (lse && isinf(total))
            assert_true(isinf(lse[query]) && lse[query] > 0);
        else if (lse)
            assert_true(fabs((double)lse[query] - total * lse_factor) < 1e-5);
    }
}

static void merges(void **state)
{
    struct rig *r = *state;
    struct rt_mla_merge_args args = good(r);
    assert_int_equal(rt_mla_merge(r->ops, &args, NULL), RT_OK);
    expect_whole(r, r->out, r->out_lse, TOKENS, 1);
    for (uint32_t i = 0; i < PIECES * TOKENS * HEADS; i++)
        r->in_lse[i] *= 1.44269504f;
    args.lse_base = RT_LSE_BASE2;
    args.live = at(&r->live);
    args.struct_size = offsetof(struct rt_mla_merge_args, out_lse_token_stride);
    r->live = 3;
    memset(r->in + 3 * HEADS * WIDTH, 0xff, 2 * HEADS * WIDTH * sizeof(uint16_t));
    assert_int_equal(rt_mla_merge(r->ops, &args, NULL), RT_OK);
    expect_whole(r, r->out, r->out_lse, 3, 1 / log(2));
}

/* Into the memory of piece 0, output and lse; and without an lse. */
static void merges_in_place(void **state)
{
    struct rig *r = *state;
    struct rt_mla_merge_args args = good(r);
    args.out_lse = 0;
    assert_int_equal(rt_mla_merge(r->ops, &args, NULL), RT_OK);
    expect_whole(r, r->out, NULL, TOKENS, 1);
    for (uint32_t i = 0; i < TOKENS * HEADS; i++)
        assert_true(r->out_lse[i] == 0);
    args.out = args.in;
    args.out_lse = args.in_lse;
    assert_int_equal(rt_mla_merge(r->ops, &args, NULL), RT_OK);
    expect_whole(r, r->in, r->in_lse, TOKENS, 1);
}

/* Once, however many pieces there are; natural beside an lse of any base. */
static void sinks_count_once(void **state)
{
    struct rig *r = *state;
    struct rt_mla_merge_args args = good(r);
    r->sink[0] = (float)log(KEYS);
    r->sink[1] = 1;
    args.sink = at(r->sink);
    assert_int_equal(rt_mla_merge(r->ops, &args, NULL), RT_OK);
    expect_whole(r, r->out, r->out_lse, TOKENS, 1);
    for (uint32_t i = 0; i < PIECES * TOKENS * HEADS; i++)
        r->in_lse[i] *= 1.44269504f;
    args.lse_base = RT_LSE_BASE2;
    assert_int_equal(rt_mla_merge(r->ops, &args, NULL), RT_OK);
    expect_whole(r, r->out, r->out_lse, TOKENS, 1 / log(2));
}

static enum rt_status run(rt_ops *ops, const void *args)
{
    return rt_mla_merge(ops, args, NULL);
}

static void refuses(void **state)
{
    struct rig *r = *state;
#define BAD(member, value, words) MISTAKE(rt_mla_merge_args, member, value, words)
    const struct mistake bad[] = {
        BAD(struct_size, 3, "rt_mla_merge: args->struct_size is 3"),
        BAD(pieces, 0, "rt_mla_merge: pieces 0 is not 1..64"),
        BAD(pieces, 65, "pieces 65 is not 1..64"),
        BAD(tokens, 0, "tokens 0 is not 1..16777216"),
        BAD(tokens, RT_PREFILL_MAX_TOKENS + 1, "tokens 16777217 is not"),
        BAD(heads, 0, "heads 0 is not 1..128"),
        BAD(heads, 129, "heads 129 is not 1..128"),
        BAD(v_dim, 0, "rt_mla_merge: v_dim = 0 is not a multiple of 8 from 8 to 512"),
        BAD(v_dim, 20, "v_dim = 20 is not"),
        BAD(v_dim, 520, "v_dim = 520 is not"),
        BAD(lse_base, 2, "rt_mla_merge: lse_base 2 is not RT_LSE_NATURAL, 0"),
        BAD(in, 0, "in is null"),
        BAD(in, at(r->in) + 8, "in = 0x"),
        BAD(in_lse, 0, "in_lse is null"),
        BAD(in_lse, at(r->in_lse) + 2, "in_lse = 0x"),
        BAD(live, at(&r->live) + 1, "live = 0x"),
        BAD(sink, at(r->sink) + 2, "sink = 0x"),
        BAD(sink, at(r->out_lse), "and sink = 0x"),
        BAD(out, 0, "out is null"),
        BAD(out, at(r->out) + 2, "out = 0x"),
        BAD(out_lse, at(r->out_lse) + 2, "out_lse = 0x"),
        BAD(in_piece_stride, 12, "in_piece_stride = 12 is not a non-negative multiple of 8"),
        BAD(in_token_stride, -8, "in_token_stride = -8 is not"),
        BAD(in_head_stride, 4, "in_head_stride = 4 is not"),
        BAD(in_lse_piece_stride, -1, "in_lse_piece_stride = -1 is not"),
        BAD(in_lse_token_stride, INT64_C(1) << 39, "in_lse_token_stride = 549755813888 is not"),
        BAD(in_lse_head_stride, -1, "in_lse_head_stride = -1 is not"),
        BAD(out_token_stride, 12, "out_token_stride = 12 is not"),
        BAD(out_head_stride, 12, "out_head_stride = 12 is not"),
        BAD(out_lse_token_stride, -1, "out_lse_token_stride = -1 is not"),
        BAD(out_lse_head_stride, -1, "out_lse_head_stride = -1 is not"),
        BAD(in_head_stride, 8, "in_head_stride of in leads 16 bytes on, of which 32 are taken"),
        BAD(in_lse_token_stride, 1, "in_lse_token_stride of in_lse leads 4 bytes on, of which"),
        BAD(out_token_stride, 24, "out_token_stride of out leads 48 bytes on, of which 64"),
        BAD(out_lse_token_stride, 1, "out_lse_token_stride of out_lse leads 4 bytes on"),
        BAD(out, at(r->in + HEADS * WIDTH), "and in = 0x"),
        BAD(out, at(r->in + TOKENS * HEADS * WIDTH), "and in = 0x"), /* piece 1 */
        BAD(out, at(r->in_lse), "and in_lse = 0x"),
        BAD(out_lse, at(r->in_lse + 1), "and in_lse = 0x"),
        BAD(out_lse, at(r->out) + sizeof(r->out) - 4, "and out_lse = 0x"),
        BAD(live, at(r->out), "and live = 0x"),
        BAD(live, at(r->out_lse + 3), "and live = 0x"),
    };
#undef BAD
    struct rt_mla_merge_args args = good(r);
    REFUSE_ALL(r->ops, run, args, bad);
    args = good(r);
    args.out_lse = 0;
    args.out_lse_head_stride = 3;
    refused(r->ops, rt_mla_merge(r->ops, &args, NULL), "out_lse is null, its strides are 0 and 3");
    args = good(r);
    args.out = args.in;
    args.out_head_stride = TOKENS * WIDTH; /* head by head, where piece 0 is token by token */
    args.out_token_stride = WIDTH;
    refused(r->ops, rt_mla_merge(r->ops, &args, NULL), "and in = 0x");
    for (size_t i = 0; i < sizeof(r->out) / 2; i++)
        assert_int_equal(r->out[i], POISON);
}

int main(void)
{
    const struct CMUnitTest tests[] = {OP_TEST(merges), OP_TEST(merges_in_place),
                                       OP_TEST(sinks_count_once), OP_TEST(refuses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
