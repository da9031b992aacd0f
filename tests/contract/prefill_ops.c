/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replayrt/prefill_ops.h: what comes out, against the formula in double, however the tensors lie;
 * and what is refused, by name. The same program runs with the CUDA kernels, emulated.
 */
#include "replayrt/prefill_ops.h"
#include "common/bf16.h"
#include "tests/support/fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/op_rig.h"

#define ROWS 3
#define TOKENS 90 /* of which the last are padding */
#define KEYS 130
#define HEADS 3
#define P 64
#define R 32
#define V 64
#define GAP 8
#define POISON 0x7fc1u
#define SCALE 0.1f

static const int32_t q_first[ROWS + 1] = {0, 70, 70, 83};
static const int32_t k_first[ROWS + 1] = {0, 110, 111, 124};

struct rig {
    rt_ops *ops;
    _Alignas(256) uint16_t q[TOKENS * HEADS * (P + R)];
    _Alignas(256) uint16_t k[KEYS * HEADS * (P + R)];
    _Alignas(256) uint16_t v[KEYS * HEADS * V];
    /* The same once more, as projections leave it: queries in two tensors, keys with values. */
    _Alignas(256) uint16_t q_nope[TOKENS * HEADS * (P + GAP)], q_rope[TOKENS * HEADS * R];
    _Alignas(256) uint16_t kv[KEYS * HEADS * (P + V)], k_rope[KEYS * R];
    _Alignas(256) uint16_t out[TOKENS * HEADS * V];
    _Alignas(256) float lse[TOKENS * HEADS];
    _Alignas(256) int32_t q_first[ROWS + 1], k_first[ROWS + 1];
    float sink[HEADS]; /* -inf: none */
    uint32_t turn;
};

static double number(uint16_t bits)
{
    return (double)rt_bf16_to_float(bits);
}

/* Some number, the same every time. */
static uint16_t make(uint32_t seed)
{
    return rt_float_to_bf16((float)((int)(seed * 2654435761u >> 20 & 255) - 128) / 100.0f);
}

static void fill(struct rig *r)
{
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t h = 0; h < HEADS; h++)
            for (uint32_t d = 0; d < P + R; d++) {
                const uint32_t i = t * HEADS + h;
                const uint16_t x = make(7919 * i + d + 1);
                r->q[i * (P + R) + d] = x;
                *(d < P ? &r->q_nope[i * (P + GAP) + d] : &r->q_rope[i * R + d - P]) = x;
            }
    for (uint32_t t = 0; t < KEYS; t++)
        for (uint32_t h = 0; h < HEADS; h++) {
            const uint32_t i = t * HEADS + h;
            for (uint32_t d = 0; d < P + R; d++) {
                const uint16_t x = d < P ? make(104729 * i + d) : make(1299709 * t + d);
                r->k[i * (P + R) + d] = x;
                *(d < P ? &r->kv[i * (P + V) + d] : &r->k_rope[t * R + d - P]) = x;
            }
            for (uint32_t d = 0; d < V; d++)
                r->v[i * V + d] = r->kv[i * (P + V) + P + d] = make(15485863 * i + d);
        }
}

static int set_up(void **state)
{
    struct rig *r = op_rig_new(sizeof(*r));
    fill(r);
    memcpy(r->q_first, q_first, sizeof(q_first));
    memcpy(r->k_first, k_first, sizeof(k_first));
    for (uint32_t h = 0; h < HEADS; h++)
        r->sink[h] = -INFINITY;
    *state = r;
    return 0;
}

static struct rt_mla_prefill_args packed(const struct rig *r)
{
    return (struct rt_mla_prefill_args){.struct_size = sizeof(struct rt_mla_prefill_args),
                                        .softmax_scale = SCALE,
                                        .shape = {.rows = ROWS,
                                                  .tokens = TOKENS,
                                                  .keys = KEYS,
                                                  .heads = HEADS,
                                                  .nope_dim = P,
                                                  .rope_dim = R,
                                                  .v_dim = V,
                                                  .causal = 1},
                                        .q_first = at(r->q_first),
                                        .k_first = at(r->k_first),
                                        .q = at(r->q),
                                        .k = at(r->k),
                                        .v = at(r->v),
                                        .out = at(r->out),
                                        .lse = at(r->lse),
                                        .turn = at(&r->turn)};
}

static struct rt_mla_prefill_args of_projections(const struct rig *r)
{
    struct rt_mla_prefill_args a = packed(r);
    a.q = at(r->q_nope);
    a.q_head_stride = P + GAP;
    a.q_token_stride = (int64_t)HEADS * (P + GAP);
    a.q_rope = at(r->q_rope);
    a.k = at(r->kv);
    a.v = at(r->kv + P);
    a.k_head_stride = a.v_head_stride = P + V;
    a.k_token_stride = a.v_token_stride = (int64_t)HEADS * (P + V);
    a.k_rope = at(r->k_rope);
    return a;
}

/* ---- what comes out ---- */

static double score(const struct rig *r, uint32_t token, uint32_t key, uint32_t head)
{
    const uint16_t *q = r->q + (token * HEADS + head) * (P + R);
    const uint16_t *k = r->k + (key * HEADS + head) * (P + R);
    double sum = 0;
    for (uint32_t d = 0; d < P + R; d++)
        sum += number(q[d]) * number(k[d]);
    return sum * (double)SCALE;
}

/* A query that sees the keys first..first + seen - 1. */
static void expect_query(const struct rig *r, uint32_t token, uint32_t head, uint32_t first,
                         int seen, double lse_factor)
{
    const uint32_t i = token * HEADS + head;
    double out[V] = {0}, sum = 0;
    for (uint32_t key = first; (int)(key - first) < seen; key++) {
        const double weight = exp(score(r, token, key, head));
        sum += weight;
        for (uint32_t d = 0; d < V; d++)
            out[d] += weight * number(r->v[(key * HEADS + head) * V + d]);
    }
    if (seen <= 0)
        assert_true(isinf(r->lse[i]) && r->lse[i] > 0);
    else
        assert_true(fabs((double)r->lse[i] - log(sum) * lse_factor) < 1e-5);
    const double divisor = sum + exp((double)r->sink[head]);
    for (uint32_t d = 0; d < V; d++) {
        const double expected = seen > 0 ? out[d] / divisor : 0, found = number(r->out[i * V + d]);
        if (!(fabs(found - expected) < 6e-3))
            fail_msg("token %u, head %u, number %u: %g, not %g", token, head, d, found, expected);
    }
}

static void expect_all(const struct rig *r, bool causal, double lse_factor)
{
    for (uint32_t head = 0; head < HEADS; head++) {
        for (uint32_t row = 0; row < ROWS; row++)
            for (int32_t i = q_first[row]; i < q_first[row + 1]; i++) {
                const int seen =
                    k_first[row + 1] - k_first[row] - (causal ? q_first[row + 1] - 1 - i : 0);
                expect_query(r, (uint32_t)i, head, (uint32_t)k_first[row], seen, lse_factor);
            }
        for (uint32_t t = (uint32_t)q_first[ROWS]; t < TOKENS; t++)
            expect_query(r, t, head, 0, 0, lse_factor);
    }
    assert_int_equal(r->turn, 0);
}

static void run(struct rig *r, const struct rt_mla_prefill_args *args)
{
    for (size_t i = 0; i < sizeof(r->out) / 2; i++)
        r->out[i] = POISON;
    memset(r->lse, 0x77, sizeof(r->lse));
    if (rt_mla_prefill(r->ops, args, NULL) != RT_OK)
        fail_msg("%s", rt_ops_last_error(r->ops)->message);
}

static void attends(void **state)
{
    struct rig *r = *state;
    struct rt_mla_prefill_args a = packed(r);
    run(r, &a);
    expect_all(r, true, 1);
    a = of_projections(r);
    a.lse_base = RT_LSE_BASE2;
    run(r, &a);
    expect_all(r, true, 1 / log(2));
    a.shape.causal = 0;
    a.lse_base = RT_LSE_NATURAL;
    run(r, &a);
    expect_all(r, false, 1);
}

/* A head's is as heavy as a few keys, one's is nothing, one's is all. */
static void sinks(void **state)
{
    struct rig *r = *state;
    struct rt_mla_prefill_args a = of_projections(r);
    r->sink[0] = 3;
    r->sink[2] = INFINITY;
    a.sink = at(r->sink);
    run(r, &a);
    expect_all(r, true, 1);
}

/* Keys that are the queries' own need no offsets of their own; an older caller's struct is
 * shorter. */
static void own_keys(void **state)
{
    struct rig *r = *state;
    struct rt_mla_prefill_args a = packed(r);
    a.k_first = 0;
    a.struct_size = offsetof(struct rt_mla_prefill_args, lse_base);
    run(r, &a);
    for (uint32_t head = 0; head < HEADS; head++)
        for (uint32_t row = 0; row < ROWS; row++)
            for (int32_t i = q_first[row]; i < q_first[row + 1]; i++)
                expect_query(r, (uint32_t)i, head, (uint32_t)q_first[row], i - q_first[row] + 1, 1);
}

/* ---- what is refused ---- */

static void refuse(struct rig *r, struct rt_mla_prefill_args args, enum rt_status status,
                   const char *words)
{
    memset(r->out, 0x33, sizeof(r->out));
    assert_int_equal(rt_mla_prefill(r->ops, &args, NULL), status);
    const char *message = rt_ops_last_error(r->ops)->message;
    if (!strstr(message, words))
        fail_msg("\"%s\" does not say \"%s\"", message, words);
    for (size_t i = 0; i < sizeof(r->out) / 2; i++)
        assert_int_equal(r->out[i], 0x3333);
}

#define REFUSE(change, status, words)                                                              \
    do {                                                                                           \
        struct rt_mla_prefill_args a = of_projections(r);                                          \
        change;                                                                                    \
        refuse(r, a, (status), (words));                                                           \
    } while (0)
#define INVALID(change, words) REFUSE(change, RT_ERR_INVALID, words)

static void shapes_refused(void **state)
{
    struct rig *r = *state;
    INVALID(a.shape.rows = 0, "0 rows, not 1 to 512");
    INVALID(a.shape.rows = 513, "513 rows, not 1 to 512");
    INVALID(a.shape.tokens = 0, "0 tokens and 130 keys");
    INVALID(a.shape.keys = RT_PREFILL_MAX_TOKENS + 1, "16777217 keys, not 1 to 16777216");
    INVALID(a.shape.heads = 0, "0 heads, not 1 to 128");
    INVALID(a.shape.heads = 129, "129 heads, not 1 to 128");
    INVALID(a.shape.nope_dim = 0, "nope_dim = 0 is not a multiple of 8 from 8 to 256");
    INVALID(a.shape.nope_dim = 60, "nope_dim = 60 is not a multiple of 8 from 8 to 256");
    INVALID(a.shape.rope_dim = 36, "rope_dim = 36 is not a multiple of 8 from 0 to 192");
    INVALID(a.shape.rope_dim = 0, "rope_dim is 0, but q_rope is");
    INVALID(a.shape.v_dim = 0, "v_dim = 0 is not a multiple of 8 from 8 to 256");
    INVALID(a.shape.v_dim = 20, "v_dim = 20 is not a multiple of 8 from 8 to 256");
    INVALID(a.shape.causal = 2, "causal 2 is not 0 or 1");
    INVALID(a.shape.reserved = 5, "shape.reserved is 5, not 0");
    REFUSE(a.shape.nope_dim = 232, RT_ERR_GEOMETRY, "not 232 + 32 and 64");
    REFUSE(a.shape.v_dim = 264, RT_ERR_GEOMETRY, "not 64 + 32 and 264");
    REFUSE(a.shape.backend = (enum rt_backend)9, RT_ERR_UNSUPPORTED, "backend 9 is not known");
}

static void arguments_refused(void **state)
{
    struct rig *r = *state;
    INVALID(a.softmax_scale = 0, "softmax_scale 0 is not a positive number");
    INVALID(a.softmax_scale = -1, "softmax_scale -1 is not a positive number");
    INVALID(a.softmax_scale = NAN, "is not a positive number");
    INVALID(a.softmax_scale = INFINITY, "softmax_scale inf is not a positive number");
    INVALID(a.lse_base = (enum rt_lse_base)2, "lse_base 2 is not RT_LSE_NATURAL, 0");
    INVALID(a.q_first = 0, "q_first is null");
    INVALID(a.q_first += 2, "is not 4-byte aligned");
    INVALID(a.k_first += 1, "is not 4-byte aligned");
    INVALID(a.q = 0, "q is null");
    INVALID(a.k += 2, "is not 16-byte aligned");
    INVALID(a.v = 0, "v is null");
    INVALID(a.q_rope += 8, "q_rope = 0x");
    INVALID(a.k_rope += 8, "k_rope = 0x");
    INVALID(a.out = 0, "out is null");
    INVALID(a.lse += 2, "is not 4-byte aligned");
    INVALID(a.turn = 0, "turn is null");
    INVALID(a.sink = at(r->sink) + 2, "sink = 0x");
    INVALID(a.q_head_stride = -8, "q_head_stride = -8 is not a non-negative multiple of 8");
    INVALID(a.v_token_stride = 12, "v_token_stride = 12 is not a non-negative multiple of 8");
    INVALID(a.out_token_stride = INT64_C(1) << 39, "is not below 2^39 elements");
    INVALID(a.k_rope = 0; a.k_rope_token_stride = 40, "k_rope is null, its stride is 40");
    INVALID(a.q_rope = 0; a.q_rope_head_stride = 8, "q_rope is null, its strides are 0 and 8");
    INVALID(a.struct_size = 3, "struct_size is 3");
    INVALID(a.reserved = 5, "rt_mla_prefill: reserved is 5, not 0");
}

/* Outputs over anything else of the call, or over themselves. */
static void overlaps_refused(void **state)
{
    struct rig *r = *state;
    INVALID(a.out = at(r->q_nope) + sizeof(r->q_nope) - 2 * GAP - 16, "out = 0x");
    INVALID(a.q_rope = at(r->out) + sizeof(r->out) - 16, "and q_rope = 0x");
    INVALID(a.out = at(r->kv), "and k = 0x");
    INVALID(a.out = a.v; a.out_head_stride = a.v_head_stride;
            a.out_token_stride = a.v_token_stride, "and v = 0x");
    INVALID(a.k_rope = at(r->out) + sizeof(r->out) - 16, "and k_rope = 0x");
    INVALID(a.lse = at(r->out) + sizeof(r->out) - 4, "and lse = 0x");
    INVALID(a.q_first = at(r->lse) + 4, "and q_first = 0x");
    INVALID(a.sink = at(r->lse), "and sink = 0x");
    INVALID(a.turn = at(r->k_first), "and k_first = 0x");
    INVALID(a.turn = at(r->lse) + 4, "and turn = 0x");
    INVALID(a.out_head_stride = V - 8, "out_head_stride of out leads 112 bytes on");
    INVALID(a.lse_token_stride = HEADS - 1, "lse_token_stride of lse leads 8 bytes on");
}

/* q's vectors with room for one of out behind each: columns of one tensor. */
static void columns_of_one_tensor(void **state)
{
    struct rig *r = *state;
    struct rt_mla_prefill_args a = packed(r);
    uint16_t *both = calloc((size_t)TOKENS * HEADS, (P + R + V) * sizeof(*both));
    assert_non_null(both);
    for (size_t i = 0; i < (size_t)TOKENS * HEADS; i++)
        memcpy(both + i * (P + R + V), r->q + i * (P + R), (P + R) * sizeof(*both));
    a.q = at(both);
    a.out = at(both + P + R);
    a.q_head_stride = a.out_head_stride = P + R + V;
    a.q_token_stride = a.out_token_stride = (int64_t)HEADS * (P + R + V);
    assert_int_equal(rt_mla_prefill(r->ops, &a, NULL), RT_OK);
    for (size_t i = 0; i < (size_t)TOKENS * HEADS; i++)
        memcpy(r->out + i * V, both + i * (P + R + V) + P + R, V * sizeof(*both));
    expect_all(r, true, 1);
    a.out -= 16;
    assert_int_equal(rt_mla_prefill(r->ops, &a, NULL), RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "and q = 0x"));
    free(both);
}

static void tells_its_kernel(void **state)
{
    struct rig *r = *state;
    struct rt_prefill_info info = {.struct_size = sizeof(info)};
    const struct rt_prefill_shape shape = packed(r).shape;
    struct rt_prefill_shape wrong = shape;
    wrong.v_dim = 12;
    assert_int_equal(rt_mla_prefill_get_info(r->ops, &shape, &info), RT_OK);
    assert_non_null(strstr(info.kernel, "rt_prefill_"));
    assert_true(strlen(info.reason) > 0);
    assert_int_equal(rt_mla_prefill_get_info(r->ops, &wrong, &info), RT_ERR_INVALID);
    assert_int_equal(rt_mla_prefill_get_info(r->ops, NULL, &info), RT_ERR_INVALID);
    assert_int_equal(rt_mla_prefill_get_info(r->ops, &shape, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_mla_prefill_get_info(NULL, &shape, &info), RT_ERR_INVALID);
    assert_int_equal(rt_mla_prefill(NULL, NULL, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_mla_prefill(r->ops, NULL, NULL), RT_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OP_TEST(attends),
        OP_TEST(own_keys),
        OP_TEST(shapes_refused),
        OP_TEST(arguments_refused),
        OP_TEST(overlaps_refused),
        OP_TEST(columns_of_one_tensor),
        OP_TEST(sinks),
        OP_TEST(tells_its_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
