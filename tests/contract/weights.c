/* SPDX-License-Identifier: Apache-2.0 */
/* Weights: what is refused, by name, and that a table is as it was behind a refusal. */
#include "common/bf16.h"
#include "tests/support/block_fixture.h"
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct rt_error err;

static void refused(enum rt_status status, const char *words)
{
    assert_int_equal(status, RT_ERR_INVALID);
    assert_int_equal(err.status, RT_ERR_INVALID);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" has no \"%s\"", err.message, words);
}

/* The first needed weight: q_a_proj, 24 x 32. */
static struct rt_weight good_weight(void)
{
    return (struct rt_weight){.struct_size = sizeof(struct rt_weight),
                              .dtype = RT_DTYPE_BF16,
                              .address = 0x1000,
                              .rows = 24,
                              .columns = 32};
}

static void test_bind(void **state)
{
    (void)state;
    struct rt_config c;
    rt_weights *w = NULL;
    struct rt_weight x = good_weight();
    const char *name = "model.layers.1.self_attn.q_a_proj.weight";
    block_config(&c);
    assert_int_equal(rt_weights_create(&c, &w, &err), RT_OK);
    assert_int_equal(rt_weights_bind(w, 1, name, &x, &err), RT_OK);
    const struct rt_bound_weight before = *rt_weight_of(w, 1, RT_WEIGHT_Q_A);
    assert_true(before.address == 0x1000 && before.row_stride == 32 && before.column_stride == 1);

    refused(rt_weights_bind(NULL, 0, name, &x, &err), "weights is null");
    refused(rt_weights_bind(w, 0, NULL, &x, &err), "name is null");
    refused(rt_weights_bind(w, 0, name, NULL, &err), "weight is null");
    refused(rt_weights_bind(w, 2, "q_a_proj.weight", &x, &err), "layer 2 of 2");
    refused(rt_weights_bind(w, 0, name, &x, &err),
            "rt_weights_bind: weight model.layers.1.self_attn.q_a_proj.weight is layer 1's by its "
            "name: must be bound to that, not to layer 0");
    refused(rt_weights_bind(w, 1, "layers.10.q_a_proj.weight", &x, &err), "is layer 10's by its");
    refused(rt_weights_bind(w, 1, "a.layers.1.layers.0.q_a_proj.weight", &x, &err), "is layer 0's");
    refused(rt_weights_bind(w, 1, "xq_a_proj.weight", &x, &err),
            "no weight of this configuration is named \"xq_a_proj.weight\": there are q_a_proj");
    refused(rt_weights_bind(w, 1, "q_proj.weight", &x, &err), "is named \"q_proj.weight\"");
    refused(rt_weights_bind(w, 1, "input_layernorm.weight", &x, &err), "is named");
    x.dtype = RT_DTYPE_F32;
    refused(rt_weights_bind(w, 1, name, &x, &err), "has dtype 2: must be bf16 (1)");
    x = good_weight();
    x.address = 0x1008;
    refused(rt_weights_bind(w, 1, name, &x, &err), "lies at 0x1008: must be a multiple of 16");
    x.address = 0;
    refused(rt_weights_bind(w, 1, name, &x, &err), "lies at 0x0");
    x.address = UINT64_MAX - 15;
    refused(rt_weights_bind(w, 1, name, &x, &err), "wraps around");
    x = good_weight();
    x.columns = 48;
    refused(rt_weights_bind(w, 1, name, &x, &err), "is 24 x 48: must be 24 x 32");
    char long_name[400];
    memset(long_name, 'x', sizeof(long_name));
    static const char end[] = ".q_a_proj.weight";
    memcpy(long_name + sizeof(long_name) - sizeof(end), end, sizeof(end));
    refused(rt_weights_bind(w, 1, long_name, &x, &err), "xx.q_a_proj.weight is 24 x 48: must be");
    x = good_weight();
    assert_int_equal(rt_weights_bind(w, 1, long_name, &x, &err), RT_OK);
    const char *const good[] = {"sublayers.0.q_a_proj.weight", "layers.x.q_a_proj.weight",
                                "vision.layers.7.model.layers.1.q_a_proj.weight",
                                "q_a_proj.weight"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_int_equal(rt_weights_bind(w, 1, good[i], &x, &err), RT_OK);
    assert_memory_equal(rt_weight_of(w, 1, RT_WEIGHT_Q_A), &before, sizeof(before));
    rt_weights_destroy(&w);
    assert_null(w);
    rt_weights_destroy(&w);
}

static void test_strides(void **state)
{
    (void)state;
    struct rt_config c;
    rt_weights *w = NULL;
    struct rt_weight x = good_weight();
    block_config(&c);
    assert_int_equal(rt_weights_create(&c, &w, &err), RT_OK);
    static const struct {
        int64_t row, column;
        const char *words; /* null: good */
    } cases[] = {
        {32, 1, NULL},
        {40, 1, NULL},
        {1, 24, NULL},
        {1, 32, NULL},
        {36, 1, "a stride of 36 elements: must be a multiple of 8, at least 32"},
        {24, 1, "a stride of 24 elements"},
        {1, 16, "a stride of 16 elements: must be a multiple of 8, at least 24"},
        {32, 2, "strides 32 and 2: one of them must be 1"},
        {-32, 1, "a stride of -32 elements"},
        {0, 1, "a stride of 0 elements"},
        {INT64_MAX - 7, 1, "a stride of 9223372036854775800 elements"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        x.row_stride = cases[i].row;
        x.column_stride = cases[i].column;
        const enum rt_status status = rt_weights_bind(w, 0, "q_a_proj.weight", &x, &err);
        if (cases[i].words)
            refused(status, cases[i].words);
        else
            assert_int_equal(status, RT_OK);
    }
    static const struct {
        int64_t row, column;
    } vectors[] = {{1, 8}, {1, 0}, {1, 5}, {1, -8}, {-8, 1}};
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        x = (struct rt_weight){.struct_size = sizeof(x), .dtype = RT_DTYPE_BF16, .address = 4096};
        x.rows = 1;
        x.columns = 24;
        x.row_stride = vectors[i].row;
        x.column_stride = vectors[i].column;
        refused(rt_weights_bind(w, 0, "q_a_layernorm.weight", &x, &err),
                "is a vector with strides");
    }
    rt_weights_destroy(&w);
}

/* Every needed weight is missed when it alone is not bound; biases never are. */
static void test_missing(void **state)
{
    (void)state;
    struct rt_config c;
    for (int variant = 0; variant < 4; variant++) {
        const char *name, *missing;
        uint64_t rows, columns;
        block_config(&c);
        c.block.q_lora_rank = variant & 1 ? 0 : 24;
        c.input_norm = (uint32_t)variant >> 1;
        for (uint32_t leave = 0; block_weight(&c, leave, &missing, &rows, &columns); leave++) {
            rt_weights *w = NULL;
            assert_int_equal(rt_weights_create(&c, &w, &err), RT_OK);
            for (uint32_t layer = 0; layer < 2; layer++)
                for (uint32_t i = 0; block_weight(&c, i, &name, &rows, &columns); i++) {
                    struct rt_weight x = good_weight();
                    x.rows = rows;
                    x.columns = columns;
                    if (layer == 0 || i != leave)
                        assert_int_equal(rt_weights_bind(w, layer, name, &x, &err), RT_OK);
                }
            char words[96];
            (void)snprintf(words, sizeof(words), "layer 1 has no %s (and 0 more", missing);
            refused(rt_weights_check(w, &err), words);
            rt_weights_destroy(&w);
        }
    }
    refused(rt_weights_check(NULL, &err), "weights is null");
}

static void test_create(void **state)
{
    (void)state;
    struct rt_config plain;
    struct block_fixture b = {.weights = NULL};
    rt_runtime *rt = NULL;
    rt_weights *w = NULL;
    fixture_config(&plain);
    refused(rt_weights_create(&plain, &w, &err),
            "rt_weights_create: config->layer is 0: must be 1");
    assert_null(w);
    block_open(&b, NULL, 1);
    struct rt_create_params p = {.struct_size = sizeof(p), .config = &plain, .weights = b.weights};
    refused(rt_create(&p, &rt, &err), "weights are given without layer: true");
    p.config = &b.config;
    p.weights = NULL;
    refused(rt_create(&p, &rt, &err), "weights is null: must be given with layer: true");
    assert_int_equal(rt_weights_create(&b.config, &w, &err), RT_OK);
    p.weights = w;
    refused(rt_create(&p, &rt, &err), "layer 0 has no q_a_proj.weight (and 13 more");
    rt_weights_destroy(&w);
    struct rt_config other = b.config;
    other.block.v_head_dim = 24;
    p.config = &other;
    p.weights = b.weights;
    refused(rt_create(&p, &rt, &err), "configuration of other dimensions");
    assert_null(rt);
    block_close(&b);
}

/* The table is copied: it may go before the runtime does. */
static void test_table_goes(void **state)
{
    (void)state;
    struct block_fixture b = {.weights = NULL};
    rt_runtime *rt = NULL;
    block_open(&b, NULL, 2);
    const struct rt_create_params p = {
        .struct_size = sizeof(p), .config = &b.config, .weights = b.weights};
    if (rt_create(&p, &rt, &err) != RT_OK)
        fail_msg("%s", err.message);
    rt_weights_destroy(&b.weights);
    rt_seq seq = fixture_open(rt);
    for (int i = 0; i < 20; i++)
        fixture_step_ok(rt, &seq, 1, 1);
    assert_int_equal(rt_audit(rt), RT_OK);
    rt_destroy(&rt);
    block_close(&b);
}

/* ---- where they lie -------------------------------------------------------------------------- */

static struct rt_address_range answer;

static int answer_range(struct rt_driver *d, rt_addr address, struct rt_address_range *out)
{
    (void)d;
    (void)address;
    *out = answer;
    return 0;
}

/* On CUDA: freed, on another device, cut short. */
static void test_memory(void **state)
{
    (void)state;
    struct block_fixture b = {.weights = NULL};
    struct rt_driver d = {.caps = {.kind = RT_DEVICE_KIND_CUDA, .ordinal = 1},
                          .address_range = answer_range};
    block_open(&b, NULL, 4);
    const rt_addr first = rt_weight_of(b.weights, 0, RT_WEIGHT_Q_A)->address;
    answer = (struct rt_address_range){.base = first, .bytes = UINT64_C(1) << 40, .ordinal = 1};
    assert_int_equal(rt_weights_on_device(b.weights, &d, &err), RT_OK);
    answer.ordinal = 0;
    refused(rt_weights_on_device(b.weights, &d, &err),
            "is memory of cuda:0, the runtime's device is cuda:1");
    answer.ordinal = 1;
    answer.bytes = 24 * 32 * 2;
    refused(rt_weights_on_device(b.weights, &d, &err), "ends behind its allocation of 1536 bytes");
    answer.bytes = 24 * 32 * 2 - 1;
    refused(rt_weights_on_device(b.weights, &d, &err),
            "weight q_a_proj.weight of layer 0, 1536 bytes at 0x");
    answer.bytes = 0;
    refused(rt_weights_on_device(b.weights, &d, &err),
            "is no memory that the driver knows: freed, or the host's");
    block_close(&b);
}

/* Tensors that a block has, and one that it has not. */
static void test_tensors(void **state)
{
    (void)state;
    struct block_fixture b = {.weights = NULL};
    rt_runtime *rt = NULL, *plain = fixture_create(NULL);
    struct rt_tensor t = {.struct_size = sizeof(t)};
    block_open(&b, NULL, 3);
    const struct rt_create_params p = {
        .struct_size = sizeof(p), .config = &b.config, .weights = b.weights};
    assert_int_equal(rt_create(&p, &rt, &err), RT_OK);
    assert_int_equal(rt_tensor(rt, "hidden", 0, &t), RT_OK);
    assert_true(t.rank == 3 && t.shape[0] == 4 && t.shape[1] == 3 && t.shape[2] == 32);
    assert_int_equal(rt_tensor(rt, "q", 0, &t), RT_OK);
    assert_true(t.shape[0] == 4);
    assert_int_equal(rt_tensor(rt, "latent", 0, &t), RT_ERR_INVALID);
    assert_int_equal(rt_tensor(rt, "residual", 0, &t), RT_ERR_INVALID);
    assert_int_equal(rt_tensor(plain, "hidden", 0, &t), RT_ERR_INVALID);
    assert_int_equal(rt_tensor(plain, "latent", 0, &t), RT_OK);
    rt_destroy(&plain);
    rt_destroy(&rt);
    block_close(&b);
}

/* What a layer leaves in hidden, for the next to add. */
static int note_hidden(void *user, const struct rt_stage_context *context)
{
    struct rt_tensor hidden = {.struct_size = sizeof(hidden)};
    if (rt_tensor(context->runtime, "hidden", 0, &hidden) != RT_OK)
        return 1;
    if (context->layer == 0)
        memcpy(user, (const void *)(uintptr_t)hidden.address, 32 * sizeof(uint16_t));
    return 0;
}

static double number(uint16_t bits)
{
    return (double)rt_bf16_to_float(bits);
}

/* The second layer adds a quarter of what the first left; the first sets the residual. */
static void test_residual_scale(void **state)
{
    (void)state;
    uint16_t given[32], left[32], residual[32];
    struct rt_config c;
    struct block_fixture b = {.weights = NULL};
    rt_runtime *rt = NULL;
    block_config(&c);
    c.input_norm = 1;
    c.block.residual_scale = 0.25;
    block_open(&b, &c, 5);
    const struct rt_create_params p = {.struct_size = sizeof(p),
                                       .config = &b.config,
                                       .weights = b.weights,
                                       .stages[RT_STAGE_AFTER_ATTENTION] = note_hidden,
                                       .stage_user = left};
    if (rt_create(&p, &rt, &err) != RT_OK)
        fail_msg("%s", err.message);
    rt_seq seq = fixture_open(rt);
    for (uint32_t i = 0; i < 32; i++)
        given[i] = rt_float_to_bf16((float)i / 8.0f - 2.0f);
    assert_int_equal(rt_tensor_write(rt, "hidden", 0, 0, given, sizeof(given)), RT_OK);
    fixture_step_ok(rt, &seq, 1, 1);
    assert_int_equal(rt_tensor_read(rt, "residual", 0, 0, residual, sizeof(residual)), RT_OK);
    for (uint32_t i = 0; i < 32; i++) {
        const double want = number(given[i]) + 0.25 * number(left[i]);
        assert_true(left[i] != 0);
        assert_int_equal(residual[i], rt_float_to_bf16((float)want));
    }
    rt_destroy(&rt);
    block_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bind),    cmocka_unit_test(test_strides),
        cmocka_unit_test(test_missing), cmocka_unit_test(test_create),
        cmocka_unit_test(test_tensors), cmocka_unit_test(test_table_goes),
        cmocka_unit_test(test_memory),  cmocka_unit_test(test_residual_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
