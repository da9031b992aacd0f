/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps whose blocks are one kernel each: they come to what the chain of kernels comes to, in
 * graphs of different sizes in turn, for even and odd numbers of layers, and after steps that
 * failed in each layer; who takes the chain, and why. The host device is taken for one of compute
 * capability 9.0 here, with C references; in the emulator it has the kernels.
 *
 * usage: mla_block BOUND    of an element's difference, relative to the largest
 */
#include "common/bf16.h"
#include "runtime/whole_block.h"
#include "tests/support/block_fixture.h"
#include "tests/support/fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEED 5
#define ROWS 3
#define BLANK UINT32_MAX

static double bound;

/* ---- the device ------------------------------------------------------------------------------ */

#ifndef RT_TEST_EMULATED
static uint32_t most_resident = UINT32_MAX; /* blocks that the device says it holds */
static uint64_t fail_at;                    /* number of the driver's call that fails; 0: none */
static uint64_t calls, live, asked_resident;

enum rt_status __real_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);
enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);

void __real_rt_driver_close(struct rt_driver *d);
void __wrap_rt_driver_close(struct rt_driver *d);

void __wrap_rt_driver_close(struct rt_driver *d)
{
    calls = d->probe.calls;
    live = d->probe.live;
    asked_resident = d->probe.per_op[RT_DOP_kernel_resident_blocks];
    __real_rt_driver_close(d);
}

static int few_resident(struct rt_driver *d, rt_dkernel k, uint32_t threads, uint32_t smem_bytes,
                        uint32_t *out)
{
    (void)k;
    (void)threads;
    (void)smem_bytes;
    if (rt_probe_enter(d, RT_DOP_kernel_resident_blocks))
        return RT_DRIVER_INJECTED;
    *out = most_resident < d->caps.sm_count ? most_resident : d->caps.sm_count;
    return 0;
}

enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err)
{
    const enum rt_status status = __real_rt_driver_open(device, out, why, why_bytes, err);
    if (status == RT_OK) {
        out->caps.cc = 90;
        out->kernel_resident_blocks = few_resident;
        out->probe.fail_at = fail_at;
    }
    return status;
}
#endif

/* ---- runtimes -------------------------------------------------------------------------------- */

/* DeepSeek-V3's heads, of a small model. */
static void v3_config(struct rt_config *c, uint32_t layers)
{
    block_config(c);
    c->geometry = (struct rt_geometry){.heads = 16,
                                       .kv_lora_rank = 512,
                                       .qk_rope_head_dim = 64,
                                       .layers = layers,
                                       .softmax_scale = 0.07};
    c->block.hidden_size = 128;
    c->block.q_lora_rank = 128;
    c->block.qk_nope_head_dim = 128;
    c->block.v_head_dim = 128;
    c->input_norm = 1;
    c->query_lens[0] = 1;
    c->query_len_count = 1;
}

struct failure {
    bool armed;
    uint32_t layer;
};

static int fail_in_layer(void *user, const struct rt_stage_context *context)
{
    const struct failure *f = user;
    return f->armed && context->layer == f->layer ? 17 : 0;
}

static rt_runtime *open_with(const struct block_fixture *b, uint32_t split, struct failure *failure)
{
    struct rt_config config = b->config;
    struct rt_create_params p = {
        .struct_size = sizeof(p), .config = &config, .weights = b->weights, .stage_user = failure};
    struct rt_error err = {.status = RT_OK};
    rt_runtime *rt = NULL;
    config.split_blocks = split;
    if (failure)
        p.stages[RT_STAGE_AFTER_ATTENTION] = fail_in_layer;
    if (rt_create(&p, &rt, &err) != RT_OK)
        fail_msg("%s", err.message);
    return rt;
}

static uint32_t cooperative_stages(const struct rt_program *p)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->count; i++)
        count += p->stages[i].work->kind == RT_WORK_LAUNCH && p->stages[i].work->launch.cooperative;
    return count;
}

/* Words of a graph's exchange that are not blank. */
static uint32_t written_words(const struct rt_captured *g, uint32_t exchange, uint32_t count)
{
    const uint64_t words = g->exchange_bytes / count / sizeof(uint32_t);
    const uint32_t *at = (const uint32_t *)(uintptr_t)g->exchange + exchange * words;
    uint32_t written = 0;
    for (uint64_t i = 0; i < words; i++)
        written += at[i] != BLANK;
    return written;
}

/* Between two steps all are blank but for the last layer's, which the next first layer blanks. */
static void check_exchanges(rt_runtime *rt, bool all)
{
    const uint32_t layers = rt->blueprint.config.geometry.layers, count = 2 + layers % 2;
    for (uint32_t i = 0; i < rt->captured_count; i++)
        for (uint32_t e = 0; e < count; e++)
            if (all || e != rt_exchange_of(layers - 1, layers))
                assert_int_equal(written_words(&rt->captured[i], e, count), 0);
}

#define QUERY_LEN 2 /* at most */
#define NUMBERS (ROWS * QUERY_LEN * 128)

struct numbers {
    uint16_t hidden[NUMBERS];
};

static void write_hidden(rt_runtime *rt, uint32_t tokens, uint64_t seed)
{
    struct numbers n;
    for (uint32_t i = 0; i < NUMBERS; i++)
        n.hidden[i] = rt_float_to_bf16((float)(int32_t)fixture_random(&seed) / 2147483648.0f);
    assert_int_equal(rt_tensor_write(rt, "hidden", 0, 0, n.hidden, tokens * 128 * sizeof(uint16_t)),
                     RT_OK);
}

static void read_hidden(rt_runtime *rt, uint32_t tokens, struct numbers *out)
{
    memset(out, 0, sizeof(*out));
    assert_int_equal(
        rt_tensor_read(rt, "hidden", 0, 0, out->hidden, tokens * 128 * sizeof(uint16_t)), RT_OK);
}

static void step_of(rt_runtime *rt, const rt_seq *seqs, uint32_t rows, uint32_t query_len,
                    uint64_t seed, uint32_t flags, struct numbers *out)
{
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .rows = rows,
                                     .query_len = query_len,
                                     .seqs = seqs,
                                     .flags = flags};
    uint64_t ticket;
    write_hidden(rt, rows * query_len, seed);
    if (rt_step(rt, &p, &ticket) != RT_OK || rt_wait(rt, ticket, UINT64_MAX) != RT_OK)
        fail_msg("a step of %u rows: %s", rows, rt_last_error(rt)->message);
    read_hidden(rt, rows * query_len, out);
}

static void compare(const struct numbers *found, const struct numbers *truth, const char *what)
{
    float largest = 0;
    for (uint32_t i = 0; i < NUMBERS; i++)
        largest = fmaxf(largest, fabsf(rt_bf16_to_float(truth->hidden[i])));
    assert_true(largest > 0.01f);
    for (uint32_t i = 0; i < NUMBERS; i++) {
        const float a = rt_bf16_to_float(found->hidden[i]), b = rt_bf16_to_float(truth->hidden[i]);
        if (!(fabsf(a - b) <= bound * largest))
            fail_msg("%s: number %u of hidden is %g, the chain has %g", what, i, (double)a,
                     (double)b);
    }
}

/* ---- tests ----------------------------------------------------------------------------------- */

/* Graphs in turn, of 1, 2 and 4 rows, some of them more than once; replays and eager steps. */
#ifdef RT_TEST_EMULATED
static const uint32_t rows[] = {2, 1, 2};
#else
static const uint32_t rows[] = {1, 3, 1, 2, 3};
#endif

/* All of a layer; of the small memory of the fixture a bias is what it is. */
static void bind_biases(struct block_fixture *b)
{
    const struct rt_block *block = &b->config.block;
    const uint32_t q = b->config.geometry.heads * (block->qk_nope_head_dim + 64);
    const struct {
        const char *name;
        uint32_t rows;
    } all[] = {{"q_a_proj.bias", block->q_lora_rank},
               {"q_b_proj.bias", q},
               {"kv_a_proj_with_mqa.bias", 576},
               {"o_proj.bias", block->hidden_size}};
    for (uint32_t layer = 0; layer < b->config.geometry.layers; layer++)
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
            struct rt_error err;
            const struct rt_weight bias = {.struct_size = sizeof(bias),
                                           .address = (uintptr_t)(b->numbers + 64 * i),
                                           .dtype = RT_DTYPE_BF16,
                                           .rows = 1,
                                           .columns = all[i].rows};
            if (rt_weights_bind(b->weights, layer, all[i].name, &bias, &err) != RT_OK)
                fail_msg("%s", err.message);
        }
}

static void run_beside_chain(const struct rt_config *config, bool biases, uint32_t query_len)
{
    struct block_fixture b = {.weights = NULL};
    const uint32_t layers = config->geometry.layers;
    rt_seq seqs[2][ROWS];
    block_open(&b, config, SEED);
    if (biases)
        bind_biases(&b);
    rt_runtime *whole = open_with(&b, 0, NULL), *chain = open_with(&b, 1, NULL);
    for (uint32_t i = 0; i < whole->captured_count; i++) {
        assert_int_equal(cooperative_stages(&whole->captured[i].program), layers);
        assert_non_null(strstr(whole->captured[i].program.form, "a block is one kernel: sm90"));
        assert_int_equal(cooperative_stages(&chain->captured[i].program), 0);
        assert_int_equal(chain->captured[i].exchange_bytes, 0);
    }
    check_exchanges(whole, true);
    for (uint32_t i = 0; i < ROWS; i++) {
        seqs[0][i] = fixture_open(whole);
        seqs[1][i] = fixture_open(chain);
    }
    for (uint32_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct numbers found, truth;
        const uint32_t flags = i % 3 == 2 ? RT_STEP_EAGER : 0, tokens = i > 0 ? query_len : 1;
        step_of(whole, seqs[0], rows[i], tokens, SEED + i, flags, &found);
        step_of(chain, seqs[1], rows[i], tokens, SEED + i, 0, &truth);
        compare(&found, &truth, "a step");
        check_exchanges(whole, false);
    }
    for (uint32_t is_chain = 0; is_chain < 2; is_chain++) {
        struct rt_stats s = {.struct_size = sizeof(s)};
        assert_int_equal(rt_get_stats(is_chain ? chain : whole, &s), RT_OK);
        assert_int_equal(s.gap_steps, is_chain * (sizeof(rows) / sizeof(rows[0]) - 1));
        assert_true(s.gap_graph_ns > 0);
    }
    rt_destroy(&whole);
    rt_destroy(&chain);
    block_close(&b);
}

#ifndef RT_TEST_EMULATED
static void test_even_number_of_layers(void **state)
{
    (void)state;
    struct rt_config c;
    v3_config(&c, 2);
    run_beside_chain(&c, false, 1);
}
#endif

/* Two runtimes of one process, over the same weights, with a step of each in flight and done in
 * either order: blocks of one wait for each other's words, and for nobody else's. */
#ifndef RT_TEST_EMULATED
#define TURNS (sizeof(rows) / sizeof(rows[0]))

static void open_rows(rt_runtime *rt, rt_seq *seqs)
{
    for (uint32_t i = 0; i < ROWS; i++)
        seqs[i] = fixture_open(rt);
}

static void run_alone(const struct block_fixture *b, uint64_t seed, struct numbers *out)
{
    rt_seq seqs[ROWS];
    rt_runtime *rt = open_with(b, 0, NULL);
    open_rows(rt, seqs);
    for (uint32_t i = 0; i < TURNS; i++)
        step_of(rt, seqs, rows[i], 1, seed + i, 0, &out[i]);
    rt_destroy(&rt);
}

static void launch_held(rt_runtime *rt, const rt_seq *seqs, uint32_t count, uint64_t seed)
{
    const struct rt_step_params p = {.struct_size = sizeof(p), .rows = count, .seqs = seqs};
    write_hidden(rt, count, seed);
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    assert_int_equal(rt_step(rt, &p, NULL), RT_OK);
}

static void test_two_runtimes_at_once(void **state)
{
    (void)state;
    static const uint64_t seeds[2] = {SEED, SEED + 100};
    struct block_fixture b = {.weights = NULL};
    struct rt_config c;
    struct numbers truth[2][TURNS], found;
    rt_runtime *both[2];
    rt_seq seqs[2][ROWS];
    v3_config(&c, 2);
    block_open(&b, &c, SEED);
    for (uint32_t k = 0; k < 2; k++)
        run_alone(&b, seeds[k], truth[k]);
    assert_memory_not_equal(&truth[0][0], &truth[1][0], sizeof(found));
    for (uint32_t k = 0; k < 2; k++) {
        both[k] = open_with(&b, 0, NULL);
        assert_int_equal(cooperative_stages(&both[k]->captured[0].program), 2);
        open_rows(both[k], seqs[k]);
    }
    for (uint32_t i = 0; i < TURNS; i++) {
        for (uint32_t k = 0; k < 2; k++)
            launch_held(both[k], seqs[k], rows[i], seeds[k] + i);
        for (uint32_t k = 0; k < 2; k++)
            assert_int_equal(rt_host_hold(both[(i + k) % 2], 0), RT_OK);
        for (uint32_t k = 0; k < 2; k++) {
            read_hidden(both[k], rows[i], &found);
            assert_memory_equal(&found, &truth[k][i], sizeof(found));
            check_exchanges(both[k], false);
        }
    }
    rt_destroy(&both[0]);
    rt_destroy(&both[1]);
    block_close(&b);
}
#endif

static void test_odd_number_of_layers(void **state)
{
    (void)state;
    struct rt_config c;
    v3_config(&c, 3);
    c.block.q_lora_rank = 0;
    run_beside_chain(&c, false, 1);
}

/* What the general kernels have beside: other heads, halves, biases, factors, and rows of several
 * tokens beside rows of one. */
static void test_general(void **state)
{
    (void)state;
    struct rt_config c;
    v3_config(&c, 2);
    c.geometry.heads = 8;
    c.block.rope.order = RT_ROPE_HALF;
    c.block.rope.query_scale_beta = 0.1;
    c.block.rope.original_max_length = 4;
    c.query_lens[1] = QUERY_LEN;
    c.query_len_count = 2;
    run_beside_chain(&c, true, QUERY_LEN);
}

#ifndef RT_TEST_EMULATED /* the host's side alone */
static void step(rt_runtime *rt, const rt_seq *seqs, uint32_t count, uint64_t seed, uint32_t flags,
                 struct numbers *out)
{
    step_of(rt, seqs, count, 1, seed, flags, out);
}

/* An eager step, or on the host device a replay, that fails behind one of its layers. */
static void fail_once(rt_runtime *rt, struct failure *failure, const rt_seq *seqs, uint32_t layer,
                      uint32_t flags)
{
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .rows = 2, .query_len = 1, .seqs = seqs, .flags = flags};
    uint64_t ticket;
    *failure = (struct failure){.armed = true, .layer = layer};
    write_hidden(rt, 2, 99);
    assert_int_equal(rt_step(rt, &p, &ticket), RT_ERR_CALLBACK);
    failure->armed = false;
}

static void test_failed_steps(void **state)
{
    (void)state;
    struct rt_config config;
    struct block_fixture b = {.weights = NULL};
    struct failure failure = {.armed = false};
    rt_seq seqs[2][ROWS];
    v3_config(&config, 3);
    block_open(&b, &config, SEED);
    rt_runtime *rt = open_with(&b, 0, &failure), *truth = open_with(&b, 0, NULL);
    for (uint32_t i = 0; i < ROWS; i++) {
        seqs[0][i] = fixture_open(rt);
        seqs[1][i] = fixture_open(truth);
    }
    for (uint32_t layer = 0; layer < 3; layer++) {
        struct numbers found, want;
        fail_once(rt, &failure, seqs[0], layer, layer % 2 ? 0 : RT_STEP_EAGER);
        check_exchanges(rt, true);
        step(rt, seqs[0], 2, SEED + layer, layer == 1 ? RT_STEP_EAGER : 0, &found);
        step(truth, seqs[1], 2, SEED + layer, 0, &want);
        assert_memory_equal(found.hidden, want.hidden, sizeof(want.hidden));
        check_exchanges(rt, false);
    }
    rt_destroy(&rt);
    rt_destroy(&truth);
    block_close(&b);
}

static int (*plain_fill)(struct rt_driver *d, rt_addr to, uint8_t value, uint64_t bytes,
                         rt_dstream s);
static uint32_t fills_left; /* that fail */

static int failing_fill(struct rt_driver *d, rt_addr to, uint8_t value, uint64_t bytes,
                        rt_dstream s)
{
    if (fills_left == 0)
        return plain_fill(d, to, value, bytes, s);
    fills_left--;
    return RT_DRIVER_INJECTED;
}

/* What cannot be blanked behind the failed step is blanked before the next, or that fails too. */
static void test_failed_filling(void **state)
{
    (void)state;
    struct rt_config config;
    struct block_fixture b = {.weights = NULL};
    struct failure failure = {.armed = false};
    struct numbers found;
    uint64_t ticket;
    v3_config(&config, 2);
    block_open(&b, &config, SEED);
    rt_runtime *rt = open_with(&b, 0, &failure);
    const rt_seq seqs[2] = {fixture_open(rt), fixture_open(rt)};
    plain_fill = rt->driver.fill;
    rt->driver.fill = failing_fill;
    fills_left = 2;
    fail_once(rt, &failure, seqs, 1, RT_STEP_EAGER);
    assert_int_equal(fills_left, 1);
    assert_int_equal(fixture_step(rt, seqs, 2, 1, &ticket), RT_ERR_DRIVER);
    assert_non_null(strstr(rt_last_error(rt)->message, "fill failed"));
    assert_int_equal(fills_left, 0);
    step(rt, seqs, 2, SEED, 0, &found);
    check_exchanges(rt, false);
    rt_destroy(&rt);
    block_close(&b);
}

/* A device that fails is no reason to take the chain. */
static void test_every_call_fails_once(void **state)
{
    (void)state;
    struct rt_config config;
    struct block_fixture b = {.weights = NULL};
    struct rt_error err = {.status = RT_OK};
    rt_runtime *rt = NULL;
    v3_config(&config, 2);
    config.batch_size_count = 1;
    block_open(&b, &config, SEED);
    const struct rt_create_params p = {
        .struct_size = sizeof(p), .config = &b.config, .weights = b.weights};
    for (fail_at = 1;; fail_at++) {
        const enum rt_status status = rt_create(&p, &rt, &err);
        if (status == RT_OK)
            break;
        assert_null(rt);
        assert_int_equal(status, RT_ERR_DRIVER);
        assert_non_null(strstr(err.message, "injected failure"));
        assert_int_equal(live, 0);
    }
    assert_int_equal(cooperative_stages(&rt->captured[0].program), 2);
    fail_at = 0;
    rt_destroy(&rt);
    assert_int_equal(live, 0);
    assert_true(calls > 20);
    assert_int_equal(asked_resident, 3); /* once to choose, and for each layer */
    block_close(&b);
}

/* ---- who takes the chain --------------------------------------------------------------------- */

static void expect_chain(const struct block_fixture *b, uint32_t split, const char *why)
{
    rt_runtime *rt = open_with(b, split, NULL);
    for (uint32_t i = 0; i < rt->captured_count; i++) {
        const struct rt_program *p = &rt->captured[i].program;
        assert_int_equal(cooperative_stages(p), 0);
        assert_int_equal(rt->captured[i].exchange_bytes, 0);
        if (!strstr(p->form, "a block is a chain of kernels: ") || !strstr(p->form, why))
            fail_msg("no \"%s\" in: %s", why, p->form);
    }
    rt_destroy(&rt);
}

static void expect_chain_of(const struct rt_config *config, const char *why)
{
    struct block_fixture b = {.weights = NULL};
    block_open(&b, config, SEED);
    expect_chain(&b, 0, why);
    block_close(&b);
}

static void test_reasons_of_configurations(void **state)
{
    (void)state;
    struct rt_config c;
    v3_config(&c, 2);
    c.geometry.heads = 24;
    expect_chain_of(&c, "8, 16 and 32 heads, not 24");
    v3_config(&c, 1);
    expect_chain_of(&c, "1 layer, at least 2");
    v3_config(&c, 2);
    c.block.v_head_dim = 64;
    expect_chain_of(&c, "128 values, not 128 and 64");
    v3_config(&c, 2);
    c.block.hidden_size = 136;
    expect_chain_of(&c, "not 136");
    v3_config(&c, 2);
    c.block.norm_one_plus = 1;
    expect_chain_of(&c, "not by 1");
    v3_config(&c, 2);
    c.invariant = 1;
    expect_chain_of(&c, "no batch-invariant attention");
    v3_config(&c, 2);
    c.projections = RT_PROJECTIONS_CUBLASLT;
    expect_chain_of(&c, "a library multiplies");
    v3_config(&c, 2);
    c.backend = RT_BACKEND_GENERIC;
    expect_chain_of(&c, "no generic kernel");
}

static void test_reasons_of_weights(void **state)
{
    (void)state;
    struct rt_config c;
    struct block_fixture b = {.weights = NULL};
    v3_config(&c, 2);
    block_open(&b, &c, SEED);
    expect_chain(&b, 1, "split_blocks asks for chains");
    block_close(&b);
    block_open(&b, &c, SEED);
    assert_true(block_lay_across(&b, 0));
    expect_chain(&b, 0, "q_a_proj.weight of layer 0 lies at 0x");
    block_close(&b);
}

/* A partition, say. */
static void test_what_is_not_resident_is_a_chain(void **state)
{
    (void)state;
    struct rt_config c;
    v3_config(&c, 2);
    most_resident = 7;
    expect_chain_of(&c, "its 8 blocks wait for each other");
    most_resident = UINT32_MAX;
}
#endif

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_odd_number_of_layers),
        cmocka_unit_test(test_general),
#ifndef RT_TEST_EMULATED
        cmocka_unit_test(test_even_number_of_layers),
        cmocka_unit_test(test_two_runtimes_at_once),
        cmocka_unit_test(test_failed_steps),
        cmocka_unit_test(test_failed_filling),
        cmocka_unit_test(test_every_call_fails_once),
        cmocka_unit_test(test_reasons_of_configurations),
        cmocka_unit_test(test_reasons_of_weights),
        cmocka_unit_test(test_what_is_not_resident_is_a_chain),
#endif
    };
    if (argc != 2)
        return 2;
    bound = strtod(argv[1], NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
