/* SPDX-License-Identifier: Apache-2.0 */
/* Random weights: all that are needed, each in memory of its own, of the size they should be. */
#include "tools/random_weights.h"

#include "common/bf16.h"
#include "runtime/weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct rt_config config_of(uint32_t q_lora_rank)
{
    struct rt_config c;
    rt_config_default(&c);
    c.geometry = (struct rt_geometry){
        .heads = 4, .kv_lora_rank = 512, .qk_rope_head_dim = 64, .layers = 3, .softmax_scale = 0.1};
    (void)strcpy(c.device, "host");
    c.layer = 1;
    c.input_norm = 1;
    c.block.hidden_size = 1024;
    c.block.q_lora_rank = q_lora_rank;
    c.block.qk_nope_head_dim = 128;
    c.block.v_head_dim = 128;
    c.block.norm_eps = c.block.input_norm_eps = 1e-6;
    c.block.q_a_scale = c.block.kv_a_scale = c.block.residual_scale = 1;
    c.block.rope.theta = 10000;
    return c;
}

static const uint16_t *numbers(const struct rt_bound_weight *b)
{
    return (const uint16_t *)(uintptr_t)b->address;
}

/* Mean and deviation, which an even distribution within middle +- spread has. */
static void expect_spread(const struct rt_bound_weight *b, const char *name, double middle,
                          double spread)
{
    const uint64_t count = b->rows * b->columns;
    double sum = 0, squares = 0;
    for (uint64_t i = 0; i < count; i++) {
        const double value = (double)rt_bf16_to_float(numbers(b)[i]);
        if (!(fabs(value - middle) <= spread * 1.01))
            fail_msg("%s: element %llu is %g", name, (unsigned long long)i, value);
        sum += value;
        squares += (value - middle) * (value - middle);
    }
    const double mean = sum / (double)count, deviation = sqrt(squares / (double)count);
    const double slack = 6 / sqrt((double)count) + 0.01; /* bf16 is cut, not rounded */
    if (!(fabs(mean - middle) <= spread * slack) ||
        !(fabs(deviation * sqrt(3) / spread - 1) <= 2 * slack))
        fail_msg("%s: mean %g, deviation %g", name, mean, deviation);
}

static int by_address(const void *a, const void *b)
{
    const uint64_t x = ((const struct rt_bound_weight *)a)->address;
    const uint64_t y = ((const struct rt_bound_weight *)b)->address;
    return (x > y) - (x < y);
}

/* No byte is in two of them, and what there is lies in what was counted. */
static void expect_apart(const struct random_weights *w, uint64_t count)
{
    struct rt_bound_weight *all = calloc(count, sizeof(*all));
    uint64_t used = 0, bytes = 0;
    assert_non_null(all);
    for (uint64_t i = 0; i < count; i++)
        if (w->table->bound[i].address)
            all[used++] = w->table->bound[i];
    qsort(all, used, sizeof(*all), by_address);
    for (uint64_t i = 0; i < used; i++) {
        const uint64_t end = all[i].address + rt_bound_weight_bytes(&all[i]);
        assert_true(end <= (i + 1 < used ? all[i + 1].address : all[0].address + w->bytes));
        bytes += rt_bound_weight_bytes(&all[i]);
    }
    assert_true(bytes <= w->bytes && w->bytes < bytes + used * 256);
    free(all);
}

static void expect_good(uint32_t q_lora_rank)
{
    const struct rt_config c = config_of(q_lora_rank);
    struct random_weights w;
    struct rt_error err = {.status = RT_OK};
    if (random_weights_create(&c, 7, 0, &w, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_int_equal(rt_weights_check(w.table, &err), RT_OK);
    for (uint32_t i = 0; i < c.geometry.layers * RT_WEIGHT_COUNT; i++) {
        const struct rt_bound_weight *b = &w.table->bound[i];
        const char *name = rt_weight_name((enum rt_weight_id)(i % RT_WEIGHT_COUNT));
        if (b->address && strstr(name, "norm"))
            expect_spread(b, name, 1, 0.25);
        else if (b->address)
            expect_spread(b, name, 0, sqrt(3.0 / (double)b->columns));
        assert_int_equal(b->address != 0,
                         !strstr(name, "bias") &&
                             (q_lora_rank ? strcmp(name, "q_proj.weight") != 0
                                          : !strstr(name, "q_a_") && !strstr(name, "q_b_")));
    }
    expect_apart(&w, (uint64_t)c.geometry.layers * RT_WEIGHT_COUNT);
    const struct rt_bound_weight *q =
        rt_weight_of(w.table, 1, q_lora_rank ? RT_WEIGHT_Q_A : RT_WEIGHT_Q);
    assert_int_equal(rt_weight_of(w.table, 1, RT_WEIGHT_KV_A)->address,
                     q->address + rt_bound_weight_bytes(q));
    random_weights_destroy(&w);
    assert_null(w.table);
    assert_null(w.memory);
}

static void test_all(void **state)
{
    (void)state;
    expect_good(256);
    expect_good(0);
}

static void test_layers_differ(void **state)
{
    (void)state;
    const struct rt_config c = config_of(256);
    struct random_weights w, again, other;
    assert_int_equal(random_weights_create(&c, 7, 0, &w, NULL), RT_OK);
    assert_int_equal(random_weights_create(&c, 7, 0, &again, NULL), RT_OK);
    assert_int_equal(random_weights_create(&c, 8, 0, &other, NULL), RT_OK);
    const struct rt_bound_weight *b = rt_weight_of(w.table, 0, RT_WEIGHT_O);
    const size_t bytes = rt_bound_weight_bytes(b);
    assert_memory_not_equal(numbers(b), numbers(rt_weight_of(w.table, 1, RT_WEIGHT_O)), bytes);
    assert_memory_equal(numbers(b), numbers(rt_weight_of(again.table, 0, RT_WEIGHT_O)), bytes);
    assert_memory_not_equal(numbers(b), numbers(rt_weight_of(other.table, 0, RT_WEIGHT_O)), bytes);
    random_weights_destroy(&other);
    random_weights_destroy(&again);
    random_weights_destroy(&w);
}

/* Of four ranks whose neighbours share a context: o_proj is every rank's own, the rows of heads are
 * a context's, and all else is the same everywhere. */
static void test_ranks_differ(void **state)
{
    (void)state;
    static const enum rt_weight_id of_context[] = {RT_WEIGHT_Q_B, RT_WEIGHT_KV_B};
    struct rt_config c = config_of(256);
    struct random_weights w[4];
    c.context_parallel = 2;
    for (uint32_t r = 0; r < 4; r++)
        assert_int_equal(random_weights_create(&c, 7, r, &w[r], NULL), RT_OK);
    for (uint32_t id = 0; id < RT_WEIGHT_COUNT; id++) {
        const enum rt_weight_id which = (enum rt_weight_id)id;
        const struct rt_bound_weight *const b = rt_weight_of(w[0].table, 1, which);
        const bool shared = which == of_context[0] || which == of_context[1];
        for (uint32_t r = 1; b->address && r < 4; r++) {
            const bool same = !memcmp(numbers(b), numbers(rt_weight_of(w[r].table, 1, which)),
                                      rt_bound_weight_bytes(b));
            assert_int_equal(same, shared ? r < 2 : which != RT_WEIGHT_O);
        }
    }
    for (uint32_t r = 0; r < 4; r++)
        random_weights_destroy(&w[r]);
}

static void test_one_plus(void **state)
{
    (void)state;
    struct rt_config c = config_of(256);
    struct random_weights w;
    c.block.norm_one_plus = 1;
    assert_int_equal(random_weights_create(&c, 7, 0, &w, NULL), RT_OK);
    expect_spread(rt_weight_of(w.table, 2, RT_WEIGHT_INPUT_NORM), "input_layernorm", 0, 0.25);
    random_weights_destroy(&w);
}

static void test_refused(void **state)
{
    (void)state;
    struct rt_config c = config_of(256);
    struct random_weights w;
    struct rt_error err = {.status = RT_OK};
    c.layer = c.input_norm = 0;
    assert_int_equal(random_weights_create(&c, 7, 0, &w, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "layer: true"));
    assert_null(w.table);
    c = config_of(256);
    (void)strcpy(c.device, "cuda:99");
    assert_int_not_equal(random_weights_create(&c, 7, 0, &w, &err), RT_OK);
    assert_null(w.table);
    assert_null(w.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all),          cmocka_unit_test(test_layers_differ),
        cmocka_unit_test(test_ranks_differ), cmocka_unit_test(test_one_plus),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
