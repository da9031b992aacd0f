/* SPDX-License-Identifier: Apache-2.0 */
/* Work that is no launch: what it spans, its twin on the host device, its nodes and their audit. */
#include "common/work.h"
#include "common/bf16.h"
#include "graphs/audit.h"

#include "tests/unit/host_bench.h"

#define FLOATS 4096u

/* The host device, with memory for operands. */
struct twin_bench {
    struct host_bench bench;
    rt_addr at;
};

static void open_twins(struct twin_bench *t)
{
    host_bench_open(&t->bench);
    assert_int_equal(t->bench.d.mem_alloc(&t->bench.d, FLOATS * sizeof(float), &t->at), 0);
    memset((void *)(uintptr_t)t->at, 0, FLOATS * sizeof(float));
}

static void close_twins(struct twin_bench *t)
{
    assert_int_equal(t->bench.d.mem_free(&t->bench.d, t->at), 0);
    host_bench_close(&t->bench);
}

static float *floats(const struct twin_bench *t)
{
    return (float *)(uintptr_t)t->at;
}

/* Two products of [2, 3] by [4, 3] in float: a at 0, b at 100, bias at 200, d at 300. */
static struct rt_matmul small_matmul(const struct twin_bench *t, bool across)
{
    return (struct rt_matmul){.a = t->at,
                              .b = t->at + 100 * sizeof(float),
                              .bias = t->at + 200 * sizeof(float),
                              .d = t->at + 300 * sizeof(float),
                              .input_dtype = RT_DTYPE_F32,
                              .weight_dtype = RT_DTYPE_F32,
                              .output_dtype = RT_DTYPE_F32,
                              .batch = 2,
                              .m = 2,
                              .n = 4,
                              .k = 3,
                              .a_batch_stride = 20,
                              .a_row_stride = 5,
                              .b_batch_stride = 30,
                              .b_row_stride = across ? 1 : 3,
                              .b_column_stride = across ? 4 : 1,
                              .d_batch_stride = 16,
                              .d_row_stride = 6};
}

static void fill_matmul(const struct twin_bench *t)
{
    for (int i = 0; i < 100; i++) {
        floats(t)[i] = (float)(i % 7) - 3;
        floats(t)[100 + i] = (float)(i % 5) - 2;
        floats(t)[200 + i] = (float)(10 * i);
        floats(t)[300 + i] = -1;
    }
}

static void expect_matmul(const struct twin_bench *t, const struct rt_matmul *m)
{
    for (uint32_t z = 0; z < 2; z++)
        for (uint32_t i = 0; i < 2; i++) {
            for (uint32_t j = 0; j < 4; j++) {
                float want = (float)(10 * j);
                for (uint32_t l = 0; l < 3; l++)
                    want += floats(t)[z * 20 + i * 5 + l] *
                            floats(t)[100 + z * 30 + j * (uint32_t)m->b_row_stride +
                                      l * (uint32_t)m->b_column_stride];
                assert_true(floats(t)[300 + z * 16 + i * 6 + j] == want);
            }
            assert_true(floats(t)[300 + z * 16 + i * 6 + 4] == -1); /* the gap */
        }
}

static void test_matmul_both_ways_round(void **state)
{
    (void)state;
    struct twin_bench t;
    open_twins(&t);
    struct rt_driver *d = &t.bench.d;
    for (int across = 0; across < 2; across++) {
        const struct rt_matmul m = small_matmul(&t, across);
        fill_matmul(&t);
        assert_int_equal(d->matmul(d, &m, NULL), 0);
        expect_matmul(&t, &m);
    }
    close_twins(&t);
}

/* Sums are kept exactly and rounded once. */
static void test_matmul_in_bf16(void **state)
{
    (void)state;
    struct twin_bench t;
    open_twins(&t);
    struct rt_driver *d = &t.bench.d;
    uint16_t *x = (uint16_t *)(uintptr_t)t.at;
    const float a[] = {256, 1, -256, 0.5f};
    for (int l = 0; l < 4; l++) {
        x[l] = rt_float_to_bf16(a[l]);
        x[16 + l] = rt_float_to_bf16(1);
    }
    const struct rt_matmul m = {.a = t.at,
                                .b = t.at + 32,
                                .d = t.at + 64,
                                .input_dtype = RT_DTYPE_BF16,
                                .weight_dtype = RT_DTYPE_BF16,
                                .output_dtype = RT_DTYPE_BF16,
                                .batch = 1,
                                .m = 1,
                                .n = 1,
                                .k = 4,
                                .b_column_stride = 1};
    assert_int_equal(d->matmul(d, &m, NULL), 0);
    assert_int_equal(x[32], rt_float_to_bf16(1.5f));
    close_twins(&t);
}

/* Numbers in float by weights and bias as a checkpoint has them. */
static void test_matmul_of_two_dtypes(void **state)
{
    (void)state;
    struct twin_bench t;
    open_twins(&t);
    struct rt_driver *d = &t.bench.d;
    float *const x = floats(&t);
    uint16_t *const w = (uint16_t *)(uintptr_t)(t.at + 64);
    x[0] = 1.0000001f;
    x[1] = -1;
    w[0] = w[1] = rt_float_to_bf16(2);
    w[8] = rt_float_to_bf16(0.25f);
    const struct rt_matmul m = {.a = t.at,
                                .b = t.at + 64,
                                .bias = t.at + 64 + 16,
                                .d = t.at + 128,
                                .input_dtype = RT_DTYPE_F32,
                                .weight_dtype = RT_DTYPE_BF16,
                                .output_dtype = RT_DTYPE_F32,
                                .batch = 1,
                                .m = 1,
                                .n = 1,
                                .k = 2,
                                .b_column_stride = 1};
    assert_int_equal(d->matmul(d, &m, NULL), 0);
    assert_true(x[32] == (float)(0.25 + 2.0 * (double)x[0] - 2.0));
    close_twins(&t);
}

static void test_refused_operands(void **state)
{
    (void)state;
    struct twin_bench t;
    open_twins(&t);
    struct rt_driver *d = &t.bench.d;
    const struct rt_matmul good = small_matmul(&t, false);
    struct rt_matmul m = good;
    m.input_dtype = RT_DTYPE_I32;
    assert_int_equal(d->matmul(d, &m, NULL), 1);
    m = good;
    m.weight_dtype = RT_DTYPE_I32;
    assert_int_equal(d->matmul(d, &m, NULL), 1);
    m = good;
    m.output_dtype = RT_DTYPE_U8;
    assert_int_equal(d->matmul(d, &m, NULL), 1);
    m = good;
    m.b_row_stride = m.b_column_stride = 2;
    assert_int_equal(d->matmul(d, &m, NULL), 1);
    m = good;
    m.d = t.at + FLOATS * sizeof(float) - 4; /* its last element lies outside */
    assert_int_equal(d->matmul(d, &m, NULL), 4);
    m = good;
    m.a_batch_stride = INT64_MAX; /* beyond 64 bits */
    assert_int_equal(d->matmul(d, &m, NULL), 4);
    m = good;
    m.a_row_stride = -1;
    assert_int_equal(d->matmul(d, &m, NULL), 4);
    assert_int_equal(d->matmul(d, NULL, NULL), 1);

    struct rt_collective c = {
        .dtype = RT_DTYPE_F32, .from = t.at, .to = t.at, .count = 1, .ranks = 2};
    assert_int_equal(d->collective(d, &c, NULL), 1); /* a group needs a communicator */
    c.ranks = 1;
    c.count = FLOATS + 1;
    assert_int_equal(d->collective(d, &c, NULL), 4);
    c.dtype = (enum rt_dtype)99;
    assert_int_equal(d->collective(d, &c, NULL), 1);
    assert_int_equal(d->collective(d, NULL, NULL), 1);
    close_twins(&t);
}

static void test_spans(void **state)
{
    (void)state;
    struct rt_span s[RT_MAX_SPANS];
    const struct rt_matmul m = {.a = 1000,
                                .b = 2000,
                                .bias = 3000,
                                .d = 4000,
                                .input_dtype = RT_DTYPE_F32,
                                .weight_dtype = RT_DTYPE_BF16,
                                .output_dtype = RT_DTYPE_F32,
                                .batch = 2,
                                .m = 3,
                                .n = 5,
                                .k = 7,
                                .a_batch_stride = 100,
                                .a_row_stride = 10,
                                .b_batch_stride = 1000,
                                .b_row_stride = 1,
                                .b_column_stride = 8,
                                .d_batch_stride = 50,
                                .d_row_stride = 6};
    assert_int_equal(rt_matmul_spans(&m, s), 4);
    assert_true(s[0].address == 1000 && s[0].bytes == 4 * (100 + 20 + 6 + 1));
    assert_true(s[1].address == 2000 && s[1].bytes == 2 * (1000 + 4 + 48 + 1));
    assert_true(s[2].address == 4000 && s[2].bytes == 4 * (50 + 12 + 4 + 1));
    assert_true(s[3].address == 3000 && s[3].bytes == 2 * 5);
    const struct rt_matmul none = {.input_dtype = RT_DTYPE_F32,
                                   .weight_dtype = RT_DTYPE_F32,
                                   .output_dtype = RT_DTYPE_F32,
                                   .n = 5,
                                   .k = 7};
    assert_int_equal(rt_matmul_spans(&none, s), 3);
    assert_true(s[0].bytes + s[1].bytes + s[2].bytes == 0);

    static const uint64_t bytes[][2] = {[RT_ALL_REDUCE] = {40, 40},
                                        [RT_ALL_GATHER] = {40, 160},
                                        [RT_REDUCE_SCATTER] = {160, 40},
                                        [RT_ALL_TO_ALL] = {80, 80}};
    for (int kind = RT_ALL_REDUCE; kind <= RT_ALL_TO_ALL; kind++) {
        const struct rt_collective c = {.kind = (enum rt_collective_kind)kind,
                                        .dtype = RT_DTYPE_F32,
                                        .count = 10,
                                        .ranks = 4,
                                        .group = 2};
        assert_int_equal(rt_collective_spans(&c, s), 2);
        assert_true(s[0].bytes == bytes[kind][0] && s[1].bytes == bytes[kind][1]);
    }
    const struct rt_collective huge = {.dtype = RT_DTYPE_F32, .count = UINT64_MAX / 2, .ranks = 1};
    (void)rt_collective_spans(&huge, s);
    assert_true(s[0].bytes == UINT64_MAX);
}

static void test_descriptions(void **state)
{
    (void)state;
    char text[128];
    const struct rt_matmul_plan plan = {.candidates = 1, .text = "plain C"};
    struct rt_work w = {.kind = RT_WORK_MATMUL,
                        .matmul = {.input_dtype = RT_DTYPE_F32,
                                   .weight_dtype = RT_DTYPE_BF16,
                                   .output_dtype = RT_DTYPE_F32,
                                   .batch = 1,
                                   .m = 2,
                                   .n = 3,
                                   .k = 4}};
    rt_work_describe(&w, text, sizeof(text));
    assert_string_equal(text, "1 x [2, 4] by [3, 4], f32 by bf16 to f32");
    w.matmul.weight_dtype = RT_DTYPE_F32;
    w.matmul.plan = &plan;
    rt_work_describe(&w, text, sizeof(text));
    assert_string_equal(text, "1 x [2, 4] by [3, 4], f32 to f32\nplain C");
    rt_work_describe(&w, text, 8);
    assert_string_equal(text, "1 x [2,");
}

static void test_held_twins_wait(void **state)
{
    (void)state;
    struct twin_bench t;
    open_twins(&t);
    struct rt_driver *d = &t.bench.d;
    struct rt_matmul m = small_matmul(&t, false);
    struct rt_collective c = {.dtype = RT_DTYPE_F32,
                              .from = t.at + 300 * sizeof(float),
                              .to = t.at + 500 * sizeof(float),
                              .count = 4,
                              .ranks = 1};
    fill_matmul(&t);
    rt_driver_host_hold(d, NULL, true);
    assert_int_equal(d->matmul(d, &m, NULL), 0);
    assert_int_equal(d->collective(d, &c, NULL), 0);
    m.m = c.count = 0; /* what is queued is a copy */
    assert_true(floats(&t)[300] == -1);
    assert_int_equal(rt_driver_host_release(d, NULL, 1), 1);
    const struct rt_matmul again = small_matmul(&t, false);
    expect_matmul(&t, &again);
    assert_true(floats(&t)[500] == 0);
    rt_driver_host_hold(d, NULL, false);
    assert_memory_equal(&floats(&t)[500], &floats(&t)[300], 4 * sizeof(float));
    close_twins(&t);
}

/* A kernel, a product, the exchange of what it gave. */
static void make_program(const struct twin_bench *t, struct rt_program *p)
{
    const struct rt_launch l = host_bench_launch(&t->bench, 5, true);
    const struct rt_work works[] = {{.kind = RT_WORK_MATMUL, .matmul = small_matmul(t, true)},
                                    {.kind = RT_WORK_COLLECTIVE,
                                     .collective = {.kind = RT_ALL_GATHER,
                                                    .dtype = RT_DTYPE_F32,
                                                    .from = t->at + 300 * sizeof(float),
                                                    .to = t->at + 500 * sizeof(float),
                                                    .count = 4,
                                                    .ranks = 1}}};
    *p = (struct rt_program){.spec = bench_spec(2, 1)};
    assert_int_equal(bench_add_launch(p, "put", RT_NO_LAYER, &l, NULL), RT_OK);
    assert_int_equal(rt_program_add(p, "o_proj.0", 0, &works[0], NULL), RT_OK);
    assert_int_equal(rt_program_add(p, "gather.0", 0, &works[1], NULL), RT_OK);
}

static void test_replay_is_eager(void **state)
{
    (void)state;
    struct twin_bench t;
    struct rt_program p;
    struct rt_graph g;
    open_twins(&t);
    struct rt_driver *d = &t.bench.d;
    make_program(&t, &p);
    const struct rt_matmul m = small_matmul(&t, true);
    fill_matmul(&t);
    assert_int_equal(rt_program_run(&p, d, NULL, NULL), RT_OK);
    expect_matmul(&t, &m);
    assert_memory_equal(&floats(&t)[500], &floats(&t)[300], 4 * sizeof(float));

    assert_int_equal(rt_graph_build(&p, d, NULL, &g, NULL), RT_OK);
    assert_int_equal(g.node_count, 3);
    assert_int_equal(rt_graph_instantiate(&g, d, NULL, NULL), RT_OK);
    fill_matmul(&t);
    memset(&floats(&t)[500], 0, 16);
    assert_int_equal(d->graph_launch(d, g.exec, NULL), 0);
    expect_matmul(&t, &m);
    assert_memory_equal(&floats(&t)[500], &floats(&t)[300], 4 * sizeof(float));
    rt_graph_free(&g, d);
    rt_program_free(&p);
    close_twins(&t);
}

/* Of the operands `bytes` are registered, as two regions with `gap` bytes between them. */
static void audit_says(const struct rt_graph *g, const struct rt_program *p, struct twin_bench *t,
                       uint64_t bytes, uint64_t gap, const char *words)
{
    const uint64_t half = 320 * sizeof(float); /* in the midst of d */
    const struct rt_audit_region regions[] = {
        {.base = t->bench.memory, .bytes = BENCH_LOG_BYTES, .name = "log"},
        {.base = t->at + half + gap, .bytes = bytes - half - gap, .name = "more operands"},
        {.base = t->at, .bytes = half, .name = "operands"}};
    struct rt_error err = {0};
    const enum rt_status status = rt_graph_audit(g, p, &t->bench.d, regions, 3, &err);
    assert_int_equal(status, words ? RT_ERR_AUDIT : RT_OK);
    if (words && !strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

/* All that is read and written must be registered, to its last byte. */
static void test_audit_knows_whole_operands(void **state)
{
    (void)state;
    struct twin_bench t;
    struct rt_program p;
    struct rt_graph g;
    open_twins(&t);
    make_program(&t, &p);
    assert_int_equal(rt_graph_build(&p, &t.bench.d, NULL, &g, NULL), RT_OK);
    audit_says(&g, &p, &t, 504 * sizeof(float), 0, NULL);
    audit_says(&g, &p, &t, 504 * sizeof(float) - 1, 0,
               "stage \"gather.0\", all_gather: to, 16 bytes at");
    audit_says(&g, &p, &t, 325 * sizeof(float), 0, "stage \"o_proj.0\", matmul: d, 104 bytes at");
    audit_says(&g, &p, &t, 504 * sizeof(float), 1, "stage \"o_proj.0\", matmul: d, 104 bytes at");
    rt_graph_free(&g, &t.bench.d);
    rt_program_free(&p);
    close_twins(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul_both_ways_round),
        cmocka_unit_test(test_matmul_in_bf16),
        cmocka_unit_test(test_matmul_of_two_dtypes),
        cmocka_unit_test(test_refused_operands),
        cmocka_unit_test(test_spans),
        cmocka_unit_test(test_descriptions),
        cmocka_unit_test(test_held_twins_wait),
        cmocka_unit_test(test_replay_is_eager),
        cmocka_unit_test(test_audit_knows_whole_operands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
