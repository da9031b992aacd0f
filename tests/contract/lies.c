/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole blocks whose weights lie column by column, one after the other and all at once: every step
 * comes to what it comes to with weights that lie row by row. The C references add up in one order,
 * so there it does bit for bit; kernels that read a weight in another order are another sum.
 *
 * usage: lies BOUND    of an element's difference, relative to the largest
 */
#include "common/bf16.h"
#include "tests/support/block_fixture.h"
#include "tests/support/fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEED 11
#define STEPS 3
#define ROWS 4
#define MOST 4096 /* numbers of all steps' hidden */

static double bound;

struct outcome {
    uint16_t hidden[MOST];
    uint32_t count;
    char dot[1 << 16];
};

/* Rows and query lengths of all graphs, with new numbers in hidden before each. */
static void run(const struct block_fixture *b, struct outcome *out)
{
    static const uint32_t rows[STEPS] = {1, 2, ROWS}, query_lens[STEPS] = {1, 3, 3};
    const struct rt_create_params p = {
        .struct_size = sizeof(p), .config = &b->config, .weights = b->weights};
    struct rt_error err = {.status = RT_OK};
    rt_runtime *rt = NULL;
    rt_seq seqs[ROWS];
    uint64_t random = SEED;
    size_t needed;
    if (rt_create(&p, &rt, &err) != RT_OK)
        fail_msg("%s", err.message);
    for (uint32_t i = 0; i < ROWS; i++)
        seqs[i] = fixture_open(rt);
    out->count = 0;
    for (uint32_t step = 0; step < STEPS; step++) {
        const uint32_t count = rows[step] * query_lens[step] * b->config.block.hidden_size;
        const uint64_t bytes = count * sizeof(uint16_t);
        uint16_t *const hidden = out->hidden + out->count;
        assert_true(out->count + count <= MOST);
        for (uint32_t i = 0; i < count; i++)
            hidden[i] = rt_float_to_bf16((float)(int32_t)fixture_random(&random) / 2147483648.0f);
        assert_int_equal(rt_tensor_write(rt, "hidden", 0, 0, hidden, bytes), RT_OK);
        fixture_step_ok(rt, seqs, rows[step], query_lens[step]);
        assert_int_equal(rt_tensor_read(rt, "hidden", 0, 0, hidden, bytes), RT_OK);
        out->count += count;
    }
    assert_int_equal(rt_dot(rt, 1, 1, out->dot, sizeof(out->dot), &needed), RT_OK);
    rt_destroy(&rt);
}

static double number(const struct outcome *o, uint32_t i)
{
    return (double)rt_bf16_to_float(o->hidden[i]);
}

static void compare(const struct outcome *found, const struct outcome *truth, uint32_t which)
{
    double largest = 0, worst = 0;
    assert_int_equal(found->count, truth->count);
    for (uint32_t i = 0; i < truth->count; i++)
        largest = fmax(largest, fabs(number(truth, i)));
    assert_true(largest > 0.01);
    for (uint32_t i = 0; i < truth->count; i++) {
        const double off = fabs(number(found, i) - number(truth, i)) / largest;
        worst = fmax(worst, off);
        if (!(off <= bound))
            fail_msg("weight %d across: number %u is %g, row by row %g", (int)which, i,
                     number(found, i), number(truth, i));
    }
    print_message("weight %d across: worst %g\n", (int)which, worst);
}

static void check(const struct rt_config *config)
{
    struct outcome *const all = calloc(2, sizeof(*all));
    struct block_fixture b = {.weights = NULL};
    const char *name;
    uint64_t rows, columns;
    uint32_t laid = 0;
    assert_non_null(all);
    block_open(&b, config, SEED);
    run(&b, &all[0]);
    block_close(&b);
    for (uint32_t i = 0; block_weight(config, i, &name, &rows, &columns); i++) {
        block_open(&b, config, SEED);
        if (block_lay_across(&b, i)) {
            run(&b, &all[1]);
            compare(&all[1], &all[0], i);
            laid++;
        }
        block_close(&b);
    }
    assert_int_equal(laid, config->block.q_lora_rank ? 5 : 4);
    block_open(&b, config, SEED);
    assert_true(block_lay_across(&b, BLOCK_ALL));
    run(&b, &all[1]);
    compare(&all[1], &all[0], BLOCK_ALL);
    block_close(&b);
    /* Where Hopper kernels multiply at all, all three kinds have. */
    if (strstr(all[0].dot, "rt_project_sm90")) {
        assert_non_null(strstr(all[0].dot, "rt_project_sm90_along"));
        assert_non_null(strstr(all[1].dot, "rt_project_sm90_across"));
        assert_non_null(strstr(all[1].dot, "rt_project\\n"));
    }
    free(all);
}

static void test_low_rank_q(void **state)
{
    (void)state;
    struct rt_config config;
    block_config(&config);
    config.input_norm = 1;
    check(&config);
}

static void test_whole_q(void **state)
{
    (void)state;
    struct rt_config config;
    block_config(&config);
    config.block.q_lora_rank = 0;
    check(&config);
}

/* The host device's twin of the library takes any weight as it lies. */
static void test_library(void **state)
{
    (void)state;
    struct rt_config config;
    block_config(&config);
    config.projections = RT_PROJECTIONS_CUBLASLT;
    check(&config);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_low_rank_q),
        cmocka_unit_test(test_whole_q),
        cmocka_unit_test(test_library),
    };
    if (argc != 2)
        return 2;
    bound = strtod(argv[1], NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
