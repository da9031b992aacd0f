/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replayrt/block_ops.h, but for products and the input's norm: RoPE's table and the node in front
 * of attention, against their formulas in double; and what is refused, by name. The same program
 * runs with the CUDA kernels, emulated.
 */
#include "replayrt/block_ops.h"
#include "runtime/ops_handle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/values.h"

#define BATCH 3
#define QUERY_LEN 2
#define TOKENS (BATCH * QUERY_LEN)
#define HEADS 3
#define L 256
#define R 32
#define P 24
#define Q_RANK 48
#define PAGE 16
#define PAGES 6
#define COLUMNS 2
#define CAPACITY 21
#define GAP 8 /* numbers between tokens, and between heads */
#define POISON 0x7fc1u

#define HEAD_WIDTH (P + R + GAP)
#define TOKEN_WIDTH (HEADS * HEAD_WIDTH + GAP)
#define Q_WIDTH (HEADS * (L + R))

struct rig {
    rt_ops *ops;
    _Alignas(256) uint16_t q_a[TOKENS * (Q_RANK + GAP)];
    _Alignas(256) uint16_t kv_a[TOKENS * (L + R + GAP)];
    _Alignas(256) uint16_t kv[PAGES * PAGE * (L + R)];
    _Alignas(256) uint16_t q[TOKENS * TOKEN_WIDTH];
    _Alignas(256) uint16_t q_out[TOKENS * Q_WIDTH];
    _Alignas(256) uint16_t q_a_weight[Q_RANK], kv_a_weight[L];
    _Alignas(256) float table[CAPACITY * R], scale[CAPACITY];
    _Alignas(256) int32_t positions[BATCH + 1], block_table[BATCH * COLUMNS + 1];
    struct rt_rope rope;
};

static void poison(uint16_t *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = POISON;
}

/* One request in the middle of its pages, one of padding, one whose second token is behind the
 * table's last position. */
static void refill(struct rig *r)
{
    uint64_t random = 7;
    const int32_t positions[BATCH + 1] = {0, 15, -1, CAPACITY - 1};
    fill(&random, r->q_a, sizeof(r->q_a) / 2);
    fill(&random, r->kv_a, sizeof(r->kv_a) / 2);
    fill(&random, r->q, sizeof(r->q) / 2);
    fill(&random, r->q_a_weight, Q_RANK);
    fill(&random, r->kv_a_weight, L);
    poison(r->kv, sizeof(r->kv) / 2);
    poison(r->q_out, sizeof(r->q_out) / 2);
    memcpy(r->positions, positions, sizeof(positions));
    for (int32_t i = 0; i <= BATCH * COLUMNS; i++)
        r->block_table[i] = (i * 5 + 2) % PAGES;
}

static int set_up(void **state)
{
    struct rig *r = op_rig_new(sizeof(*r));
    struct rt_config defaults;
    struct rt_error err = {.status = RT_OK};
    rt_config_default(&defaults);
    r->rope = defaults.block.rope;
    r->rope.original_max_length = 8;
    r->rope.query_scale_beta = 0.1;
    r->rope.attention_factor = 1.25;
    for (uint32_t first = 0; first < CAPACITY; first += 8) {
        const uint32_t count = CAPACITY - first < 8 ? CAPACITY - first : 8;
        if (rt_rope_fill(&r->rope, R, CAPACITY, first, count, r->table + first * R,
                         r->scale + first, &err) != RT_OK)
            fail_msg("%s", err.message);
    }
    refill(r);
    *state = r;
    return 0;
}

/* ---- RoPE ---- */

static double angle(uint32_t position, uint32_t pair)
{
    return position * pow(10000, -2.0 * pair / R);
}

static double factor(uint32_t position)
{
    return 1 + 0.1 * log1p(floor(position / 8.0));
}

static void rope_table(void **state)
{
    const struct rig *r = *state;
    struct rt_rope_bytes bytes = {.struct_size = sizeof(bytes)};
    struct rt_rope rope = r->rope;
    assert_int_equal(rt_rope_size(&rope, R, CAPACITY, &bytes, NULL), RT_OK);
    assert_int_equal(bytes.table, sizeof(r->table));
    assert_int_equal(bytes.query_scale, sizeof(r->scale));
    for (uint32_t p = 0; p < CAPACITY; p++) {
        assert_true(fabs((double)r->scale[p] - factor(p)) < 1e-7);
        for (uint32_t i = 0; i < R / 2; i++) {
            const float *pair = r->table + p * R + 2 * i;
            assert_true(fabs((double)pair[0] - 1.25 * cos(angle(p, i))) < 1e-6);
            assert_true(fabs((double)pair[1] - 1.25 * sin(angle(p, i))) < 1e-6);
        }
    }
    rope.query_scale_beta = 0;
    rope.type = RT_ROPE_NONE;
    assert_int_equal(rt_rope_size(&rope, R, CAPACITY, &bytes, NULL), RT_OK);
    assert_true(bytes.table == 0 && bytes.query_scale == 0);
    assert_int_equal(rt_rope_fill(&rope, R, CAPACITY, 0, CAPACITY, NULL, NULL, NULL), RT_OK);
    rope.type = RT_ROPE_DEFAULT;
    assert_int_equal(rt_rope_size(&rope, 0, CAPACITY, &bytes, NULL), RT_OK);
    assert_true(bytes.table == 0);
    assert_int_equal(rt_rope_size(&rope, 64, RT_MAX_LENGTH, &bytes, NULL), RT_OK);
    assert_true(bytes.table == (uint64_t)RT_MAX_LENGTH * 256);
}

static void rope_refused(void **state)
{
    const struct rig *r = *state;
    struct rt_rope_bytes bytes = {.struct_size = sizeof(bytes), .table = 77};
    float table[R], scale[1];
    struct rt_error err = {.status = RT_OK};
    struct rt_rope yarn = r->rope;
    yarn.type = RT_ROPE_YARN;
    const struct {
        const struct rt_rope *rope;
        uint32_t dim, capacity;
        const char *words;
    } bad[] = {
        {NULL, R, 8, "rope is null"},
        {&r->rope, 48, 8, "rope_dim 48 is not 64, 32 or 0"},
        {&r->rope, R, 0, "capacity 0 is not 1.."},
        {&r->rope, R, RT_MAX_LENGTH + 1, "capacity 1048577 is not 1.."},
        {&yarn, R, 8, "block.rope.factor is 0: must be a number above 0, for yarn"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        for (int fill_it = 0; fill_it < 2; fill_it++) {
            const enum rt_status status =
                fill_it ? rt_rope_fill(bad[i].rope, bad[i].dim, bad[i].capacity, 0, 1, table, scale,
                                       &err)
                        : rt_rope_size(bad[i].rope, bad[i].dim, bad[i].capacity, &bytes, &err);
            assert_int_equal(status, RT_ERR_INVALID);
            assert_int_equal(err.status, RT_ERR_INVALID);
            if (!strstr(err.message, bad[i].words))
                fail_msg("\"%s\" does not say \"%s\"", err.message, bad[i].words);
        }
    assert_true(bytes.table == 77);
    assert_int_equal(rt_rope_fill(&r->rope, R, 8, 8, 1, table, scale, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "positions 8..9 are not below the capacity, 8"));
    assert_int_equal(rt_rope_fill(&r->rope, R, 8, 9, UINT32_MAX, table, scale, &err),
                     RT_ERR_INVALID);
    assert_int_equal(rt_rope_fill(&r->rope, R, 8, 0, 1, NULL, scale, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "table is null"));
    assert_int_equal(rt_rope_fill(&r->rope, R, 8, 0, 1, table, NULL, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "query_scale is null"));
}

/* ---- preattend ---- */

static struct rt_mla_preattend_args whole(const struct rig *r)
{
    return (struct rt_mla_preattend_args){
        .struct_size = sizeof(struct rt_mla_preattend_args),
        .nope_dim = P,
        .shape = {.struct_size = sizeof(struct rt_mla_shape),
                  .batch = BATCH,
                  .query_len = QUERY_LEN,
                  .heads = HEADS,
                  .d_qk = L + R,
                  .d_v = L,
                  .page_size = PAGE,
                  .max_blocks = COLUMNS,
                  .pages = PAGES},
        .positions = at(r->positions + 1), /* a slice */
        .q_a = at(r->q_a),
        .q_a_norm = {.weight = at(r->q_a_weight), .width = Q_RANK, .eps = 1e-6f, .scale = 2},
        .q_a_row_stride = QUERY_LEN * (Q_RANK + GAP),
        .q_a_token_stride = Q_RANK + GAP,
        .kv_a = at(r->kv_a),
        .kv_a_norm = {.weight = at(r->kv_a_weight), .width = L, .eps = 1e-5f, .offset = 1},
        .kv_a_row_stride = QUERY_LEN * (L + R + GAP),
        .kv_a_token_stride = L + R + GAP,
        .kv = at(r->kv),
        .block_table = at(r->block_table + 1),
        .q = at(r->q),
        .q_row_stride = QUERY_LEN * TOKEN_WIDTH,
        .q_token_stride = TOKEN_WIDTH,
        .q_head_stride = HEAD_WIDTH,
        .q_rope = at(r->q_out + L),
        .q_rope_row_stride = QUERY_LEN * Q_WIDTH,
        .q_rope_token_stride = Q_WIDTH,
        .q_rope_head_stride = L + R,
        .rope_table = at(r->table),
        .query_scale = at(r->scale),
        .rope_capacity = CAPACITY,
    };
}

/* Where a token stands; -1 where it is none. */
static int32_t position_of(const struct rig *r, uint32_t token)
{
    const int32_t first = r->positions[1 + token / QUERY_LEN];
    const int32_t position = first + (int32_t)(token % QUERY_LEN);
    return first < 0 || position >= CAPACITY ? -1 : position;
}

static void check_q_a(const struct rig *r, const struct rig *before)
{
    for (uint32_t t = 0; t < TOKENS; t++) {
        const uint16_t *x = before->q_a + t * (Q_RANK + GAP), *y = r->q_a + t * (Q_RANK + GAP);
        const double by = 2 * inverse(x, Q_RANK, 1e-6);
        for (uint32_t i = 0; i < Q_RANK; i++)
            near("q_a", i, y[i],
                 position_of(r, t) < 0 ? 0 : number(x[i]) * by * number(r->q_a_weight[i]));
        assert_memory_equal(x + Q_RANK, y + Q_RANK, GAP * 2);
    }
}

/* A rotated number of R that begin at x, as pairs lie. */
static double turned(const uint16_t *x, uint32_t i, uint32_t position, bool half)
{
    const uint32_t pair = half ? i % (R / 2) : i / 2;
    const bool second = half ? i >= R / 2 : i % 2;
    const double a = number(x[half ? pair : 2 * pair]);
    const double b = number(x[half ? pair + R / 2 : 2 * pair + 1]);
    const double c = 1.25 * cos(angle(position, pair)), s = 1.25 * sin(angle(position, pair));
    return second ? a * s + b * c : a * c - b * s;
}

/* Of a difference of two products that are near each other little is left. */
static void near_turned(const char *what, uint32_t i, uint16_t got, double want)
{
    if (!(fabs(number(got) - want) <= fabs(want) * 0x1p-8 + 1e-5))
        fail_msg("%s, number %u: %g, not %g", what, i, number(got), want);
}

static void check_kv(const struct rig *r, bool half)
{
    uint16_t *expected = malloc(sizeof(r->kv));
    assert_non_null(expected);
    poison(expected, sizeof(r->kv) / 2);
    for (uint32_t t = 0; t < TOKENS; t++) {
        const int32_t position = position_of(r, t);
        if (position < 0)
            continue;
        const int32_t page = r->block_table[1 + t / QUERY_LEN * COLUMNS + position / PAGE];
        const uint32_t slot = (uint32_t)(page * PAGE + position % PAGE) * (L + R);
        const uint16_t *x = r->kv_a + t * (L + R + GAP), *y = r->kv + slot;
        const double by = inverse(x, L, 1e-5);
        for (uint32_t i = 0; i < L; i++)
            near("latent", i, y[i], number(x[i]) * by * (1 + number(r->kv_a_weight[i])));
        for (uint32_t i = 0; i < R; i++)
            near_turned("key", i, y[L + i], turned(x + L, i, (uint32_t)position, half));
        memcpy(expected + slot, y, 2 * (L + R));
    }
    assert_memory_equal(expected, r->kv, sizeof(r->kv)); /* and nothing else */
    free(expected);
}

static void check_q(const struct rig *r, const struct rig *before, bool half)
{
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t h = 0; h < HEADS; h++) {
            const uint32_t in = t * TOKEN_WIDTH + h * HEAD_WIDTH, out = t * Q_WIDTH + h * (L + R);
            const uint16_t *x = before->q + in, *y = r->q + in, *z = r->q_out + out;
            const int32_t position = position_of(r, t);
            const double by = position < 0 ? 0 : factor((uint32_t)position);
            for (uint32_t i = 0; i < P; i++)
                near("q's first part", i, y[i], by * number(x[i]));
            assert_memory_equal(x + P, y + P, 2 * (R + GAP));
            for (uint32_t i = 0; i < R; i++)
                near_turned("q's rotated part", i, z[L + i],
                            position < 0 ? 0 : by * turned(x + P, i, (uint32_t)position, half));
            for (uint32_t i = 0; i < L; i++)
                assert_int_equal(z[i], POISON);
        }
}

static void run_preattend(struct rig *r, const struct rt_mla_preattend_args *args)
{
    if (rt_mla_preattend(r->ops, args, NULL) != RT_OK)
        fail_msg("%s", rt_ops_last_error(r->ops)->message);
}

/* All parts at once, and each by itself: the others are as they were. */
static void preattend(void **state)
{
    struct rig *r = *state, *before = aligned_alloc(256, sizeof(*before));
    assert_non_null(before);
    memcpy(before, r, sizeof(*r));
    for (uint32_t parts = 1; parts < 8; parts++)
        for (int half = 0; half < 2; half++) {
            struct rt_mla_preattend_args args = whole(r);
            args.rope_order = half ? RT_ROPE_HALF : RT_ROPE_INTERLEAVED;
            args.q_a = parts & 1 ? args.q_a : 0;
            args.kv_a = parts & 2 ? args.kv_a : 0;
            args.q = parts & 4 ? args.q : 0;
            refill(r);
            run_preattend(r, &args);
            if (parts & 1)
                check_q_a(r, before);
            else
                assert_memory_equal(r->q_a, before->q_a, sizeof(r->q_a));
            if (parts & 2)
                check_kv(r, half);
            else
                assert_memory_equal(r->kv, before->kv, sizeof(r->kv));
            if (parts & 4)
                check_q(r, before, half);
            else
                assert_memory_equal(r->q_out, before->q_out, sizeof(r->q_out));
        }
    free(before);
}

/* Where nothing turns the numbers are copied, and q's first part is left alone but in padding. */
static void without_rope(void **state)
{
    struct rig *r = *state;
    struct rt_mla_preattend_args args = whole(r);
    args.rope_table = args.query_scale = 0;
    args.rope_capacity = 0;
    args.q_rope = at(r->q_out); /* a tensor of its own, packed */
    args.q_rope_row_stride = args.q_rope_token_stride = args.q_rope_head_stride = 0;
    uint16_t *q = malloc(sizeof(r->q));
    assert_non_null(q);
    memcpy(q, r->q, sizeof(r->q));
    for (uint32_t t = QUERY_LEN; t < 2 * QUERY_LEN; t++)
        for (uint32_t h = 0; h < HEADS; h++)
            memset(q + t * TOKEN_WIDTH + h * HEAD_WIDTH, 0, 2 * P);
    run_preattend(r, &args);
    assert_memory_equal(q, r->q, sizeof(r->q));
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t h = 0; h < HEADS; h++)
            for (uint32_t i = 0; i < R; i++)
                assert_int_equal(
                    r->q_out[(t * HEADS + h) * R + i],
                    t / QUERY_LEN == 1 ? 0 : r->q[t * TOKEN_WIDTH + h * HEAD_WIDTH + P + i]);
    free(q);
}

static void *room(size_t bytes)
{
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    assert_non_null(memory);
    return memory;
}

/* A quantised cache gets what rt_mla_append makes of the key that a bf16 one gets. */
static void quantised(void **state)
{
    static const enum rt_kv_layout layouts[] = {RT_KV_FP8_TENSOR, RT_KV_FP8_TOKEN, RT_KV_V32};
    struct rig *r = *state;
    const size_t bytes = sizeof(r->kv); /* more than any of them needs */
    uint16_t *keys = room(TOKENS * (L + R) * 2);
    unsigned char *found = room(bytes), *expected = room(bytes);
    const struct rt_mla_preattend_args plain = whole(r);
    run_preattend(r, &plain);
    memset(keys, 0, TOKENS * (L + R) * 2);
    for (uint32_t t = 0; t < TOKENS; t++) {
        const int32_t position = position_of(r, t);
        if (position < 0)
            continue; /* padding: no slot to read, and append writes none */
        const size_t column = t / QUERY_LEN * COLUMNS + (uint32_t)position / PAGE;
        const size_t slot = (size_t)r->block_table[1 + column] * PAGE + (uint32_t)position % PAGE;
        memcpy(keys + t * (L + R), r->kv + slot * (L + R), 2 * (L + R));
    }
    /* The last row goes beyond RoPE's table, which append knows nothing of: it has no page. */
    r->block_table[1 + 2 * COLUMNS + CAPACITY / PAGE] = -1;
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        struct rt_mla_preattend_args args = whole(r);
        args.shape.kv_layout = layouts[i];
        args.kv_scale = layouts[i] == RT_KV_FP8_TENSOR ? 0.0117f : 0;
        args.kv = at(found);
        const struct rt_mla_append_args append = {.struct_size = sizeof(append),
                                                  .shape = args.shape,
                                                  .latent = at(keys),
                                                  .kv = at(expected),
                                                  .block_table = args.block_table,
                                                  .positions = args.positions,
                                                  .kv_scale = args.kv_scale};
        memset(found, 0x5a, bytes);
        memset(expected, 0x5a, bytes);
        refill(r);
        r->block_table[1 + 2 * COLUMNS + CAPACITY / PAGE] = -1;
        run_preattend(r, &args);
        assert_int_equal(rt_mla_append(r->ops, &append, NULL), RT_OK);
        assert_memory_equal(found, expected, bytes);
        args.kv_scale = layouts[i] == RT_KV_FP8_TENSOR ? -1.0f : 1.0f;
        refused(r->ops, rt_mla_preattend(r->ops, &args, NULL), "rt_mla_preattend: kv_scale ");
    }
    free(keys);
    free(found);
    free(expected);
}

static enum rt_status op_preattend(rt_ops *ops, const void *args)
{
    return rt_mla_preattend(ops, args, NULL);
}

static void preattend_refused(void **state)
{
    struct rig *r = *state;
    const float nan_number = NAN;
    uint32_t nan_bits;
    memcpy(&nan_bits, &nan_number, sizeof(nan_bits));
#define BAD(member, value, words) MISTAKE(rt_mla_preattend_args, member, value, words)
    const struct mistake bad[] = {
        BAD(struct_size, 3, "struct_size"),
        BAD(shape.struct_size, 1, "shape.struct_size is 1"),
        BAD(shape.heads, 0, "rt_mla_preattend: heads 0 is not 1..128"),
        BAD(nope_dim, 20, "rt_mla_preattend: nope_dim 20 is not a multiple of 8 from 0 to"),
        BAD(nope_dim, UINT32_MAX - 7, "nope_dim 4294967288 is not a"),
        BAD(q_a_token_stride, Q_RANK - 8, "q_a_token_stride of q_a leads 80 bytes on, of which 96"),
        BAD(kv_a_token_stride, L, "kv_a_token_stride of kv_a leads 512 bytes on"),
        BAD(kv_token_stride, L, "kv_token_stride of kv leads 512 bytes on"),
        BAD(kv_page_stride, 8, "kv_page_stride of kv leads 16 bytes on, of which 576"),
        BAD(q_head_stride, P, "q_head_stride of q leads 48 bytes on, of which 112 are taken"),
        BAD(q_rope_head_stride, R - 8, "q_rope_head_stride of q_rope leads 48 bytes on"),
        BAD(q_rope, at(r->q), "q = 0x"),
        BAD(q_rope, at(r->q + P), "overlap: must lie apart"),
        BAD(q_a, at(r->kv + L), "q_a = 0x"),
        BAD(kv_a, at(r->q_a), "and kv_a = 0x"),
        BAD(kv, at(r->q_out), "kv = 0x"),
        BAD(positions, at(r->q + P + 2), "and positions = 0x"),
        BAD(block_table, at(r->kv + 2), "and block_table = 0x"),
        BAD(q_a_norm.weight, at(r->q_a + Q_RANK - 8), "and q_a_norm.weight = 0x"),
        BAD(kv_a_norm.weight, at(r->kv), "and kv_a_norm.weight = 0x"),
        BAD(rope_table, at(r->q_out), "and rope_table = 0x"),
        BAD(query_scale, at(r->q), "and query_scale = 0x"),
        BAD(positions, 0, "positions is null"),
        BAD(positions, at(r->positions) + 2, "is not 4-byte aligned"),
        BAD(q_a, at(r->q_a) + 2, "q_a = 0x"),
        BAD(q_a_norm.width, 44, "q_a_norm.width 44 is not a multiple"),
        BAD(q_a_norm.width, 4104, "q_a_norm.width 4104 is not a multiple of 8 from 8 to 4096"),
        BAD(q_a_norm.weight, at(r->q_a_weight) + 8, "q_a_norm.weight = 0x"),
        BAD(q_a_norm.eps, nan_bits, "q_a_norm.eps nan is not"),
        BAD(q_a_token_stride, -8, "q_a_token_stride = -8 is not"),
        BAD(q_a_row_stride, 4, "q_a_row_stride = 4 is not"),
        BAD(kv_a, at(r->kv_a) + 8, "kv_a = 0x"),
        BAD(kv_a_norm.width, 128, "kv_a_norm.width 128 is not d_v, 256"),
        BAD(kv_a_norm.scale, nan_bits, "kv_a_norm.scale nan is not a finite number"),
        BAD(kv_a_token_stride, INT64_C(1) << 39, "kv_a_token_stride = 549755813888 is not below"),
        BAD(kv, 0, "kv is null"),
        BAD(block_table, 0, "block_table is null"),
        BAD(kv_page_stride, 4, "kv_page_stride = 4 is not"),
        BAD(q, at(r->q) + 4, "q = 0x"),
        BAD(q_head_stride, 12, "q_head_stride = 12 is not"),
        BAD(q_rope, 0, "q_rope is null"),
        BAD(q_rope, at(r->q_out) + 8, "q_rope = 0x"),
        BAD(q_rope_token_stride, 1, "q_rope_token_stride = 1 is not"),
        BAD(rope_table, at(r->table) + 4, "rope_table = 0x"),
        BAD(query_scale, at(r->scale) + 4, "query_scale = 0x"),
        BAD(rope_capacity, 0, "rope_capacity 0 is not 1.."),
        BAD(rope_order, 2, "rope_order 2 is not RT_ROPE_INTERLEAVED, 0, or RT_ROPE_HALF, 1"),
        BAD(kv_scale, nan_bits, "kv_scale nan with layout bf16, which has none: must be 0"),
        BAD(reserved, 1, "reserved"),
    };
#undef BAD
    struct rt_mla_preattend_args args = whole(r);
    REFUSE_ALL(r->ops, op_preattend, args, bad);
    args.q_a = args.kv_a = args.q = 0;
    refused(r->ops, rt_mla_preattend(r->ops, &args, NULL), "q_a, kv_a and q are null");
    args = whole(r);
    args.rope_table = args.query_scale = 0;
    refused(r->ops, rt_mla_preattend(r->ops, &args, NULL), "rope_capacity 21 is not 1..");
    args = whole(r);
    refused(r->ops, rt_mla_preattend(r->ops, &args, (void *)16), "the host device has no streams");
    for (size_t i = 0; i < sizeof(r->kv) / 2; i++)
        assert_int_equal(r->kv[i], POISON);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OP_TEST(rope_table),   OP_TEST(rope_refused), OP_TEST(preattend),
        OP_TEST(without_rope), OP_TEST(quantised),    OP_TEST(preattend_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
