/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that are one kernel each, cut over ranks: the same as one rank's, with the sum behind
 * every block; all ranks have that kernel or none has; and every way to fall out. The host device
 * is taken for one of compute capability 9.0 here, with C references.
 */
#include "runtime/ranks_impl.h"
#include "tests/support/rank_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* What a bf16 part of a sum, and pieces rounded once more, may differ by from one rank's. */
#define BOUND 8e-3

/* ---- the device ------------------------------------------------------------------------------ */

/* Of this thread's rank: the device does not say how many blocks it holds. */
static _Thread_local bool is_mute;

enum rt_status __real_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);
enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);

static int hold_all(struct rt_driver *d, rt_dkernel k, uint32_t threads, uint32_t smem_bytes,
                    uint32_t *out)
{
    (void)k;
    (void)threads;
    (void)smem_bytes;
    *out = d->caps.sm_count;
    return is_mute ? RT_DRIVER_INJECTED : 0;
}

enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err)
{
    const enum rt_status status = __real_rt_driver_open(device, out, why, why_bytes, err);
    if (status == RT_OK) {
        out->caps.cc = 90;
        out->kernel_resident_blocks = hold_all;
    }
    return status;
}

/* ---- benches --------------------------------------------------------------------------------- */

/* DeepSeek's heads, of a small model: 8 of each of two ranks. */
static void open_bench(struct rank_bench *b, uint32_t ranks, uint32_t heads)
{
    struct rt_config c;
    block_config(&c);
    c.geometry = (struct rt_geometry){.heads = heads,
                                      .kv_lora_rank = 512,
                                      .qk_rope_head_dim = 64,
                                      .layers = RANKS_LAYERS,
                                      .softmax_scale = 0.07};
    c.block.hidden_size = RANKS_WIDEST;
    c.block.q_lora_rank = 128;
    c.block.qk_nope_head_dim = 128;
    c.block.v_head_dim = 128;
    c.input_norm = 1;
    c.query_len_count = 1;
    rank_bench_open_as(b, ranks, &c);
}

/* Whether all graphs of the rank's, or none, have one kernel for each block and what is asked for
 * in their form; the sums of more than one rank they have. */
static enum rt_status look(struct rank_seat *seat, bool whole, const char *form)
{
    for (uint32_t i = 0; i < seat->rt->captured_count; i++) {
        const struct rt_program *const p = &seat->rt->captured[i].program;
        uint32_t blocks = 0, sums = 0;
        for (uint32_t s = 0; s < p->count; s++) {
            blocks += strncmp(p->stages[s].label, "mla_block.", 10) == 0;
            sums += strncmp(p->stages[s].label, "o_proj_sum.", 11) == 0;
        }
        if (blocks != (whole ? RANKS_LAYERS : 0) || sums != (seat->ranks ? RANKS_LAYERS : 0) ||
            !strstr(p->form, form))
            return rt_fail(&seat->error, RT_ERR_INTERNAL, "graph %u: %u blocks, %u sums, %s", i,
                           blocks, sums, p->form);
    }
    return RT_OK;
}

static enum rt_status steps(struct rank_seat *seat, uint32_t count, uint32_t flags)
{
    for (uint32_t i = 0; i < count; i++)
        RT_TRY(rank_step(seat, RANKS_ROWS - i % 2, flags));
    return RT_OK;
}

static enum rt_status replay_whole(struct rank_seat *seat)
{
    RT_TRY(look(seat, true, "a block is one kernel: sm90"));
    return steps(seat, RANKS_STEPS, 0);
}

static enum rt_status eager_whole(struct rank_seat *seat)
{
    return steps(seat, RANKS_STEPS, RT_STEP_EAGER);
}

/* ---- the same numbers ------------------------------------------------------------------------ */

static void compare_with_one(uint32_t ranks, uint32_t heads)
{
    static struct rank_bench b;
    static struct rank_seat alone;
    static rank_outputs replayed;
    open_bench(&b, ranks, heads);
    rank_bench_alone(&b, replay_whole, &alone);
    rank_bench_run(&b, replay_whole);
    rank_bench_all_well(&b);
    for (uint32_t r = 0; r < ranks; r++) {
        const double d = rank_distance(&b.seats[r], &alone);
        if (!(d <= BOUND))
            fail_msg("rank %u of %u is %g from one rank, bound %g", r, ranks, d, BOUND);
        assert_memory_equal(b.seats[r].out, b.seats[0].out, sizeof(rank_outputs));
    }
    memcpy(replayed, b.seats[0].out, sizeof(rank_outputs));
    rank_bench_run(&b, eager_whole);
    rank_bench_all_well(&b);
    for (uint32_t r = 0; r < ranks; r++)
        assert_memory_equal(b.seats[r].out, replayed, sizeof(rank_outputs));
    rank_bench_close(&b);
}

static void test_as_one_rank(void **state)
{
    (void)state;
    compare_with_one(2, 16);
    compare_with_one(4, 32);
}

/* ---- all ranks or none ----------------------------------------------------------------------- */

static void split_one(struct rank_seat *seat, struct rt_create_params *params)
{
    static _Thread_local struct rt_config config;
    config = *params->config;
    config.split_blocks = seat->rank == 1;
    params->config = &config;
}

static void mute_one(struct rank_seat *seat, struct rt_create_params *params)
{
    (void)params;
    is_mute = seat->rank == 1;
}

static enum rt_status replay_chain(struct rank_seat *seat)
{
    RT_TRY(
        look(seat, false, "a block is a chain of kernels: rank 1: split_blocks asks for chains"));
    return steps(seat, RANKS_STEPS, 0);
}

static void test_all_or_none(void **state)
{
    static struct rank_bench b;
    (void)state;
    open_bench(&b, 3, 24);
    b.change = split_one;
    rank_bench_run(&b, replay_chain);
    rank_bench_all_well(&b);
    for (uint32_t r = 1; r < 3; r++)
        assert_memory_equal(b.seats[r].out, b.seats[0].out, sizeof(rank_outputs));
    rank_bench_close(&b);
}

/* A device that fails is no reason to take the chain. */
static void test_a_device_that_fails(void **state)
{
    static struct rank_bench b;
    (void)state;
    open_bench(&b, 2, 16);
    b.change = mute_one;
    rank_bench_run(&b, replay_whole);
    rank_bench_failed(&b, 0, RT_ERR_RANKS, "rank 1: kernel_resident_blocks failed");
    rank_bench_failed(&b, 1, RT_ERR_DRIVER, "kernel_resident_blocks failed: injected failure");
    rank_bench_close(&b);
}

/* ---- falling out ----------------------------------------------------------------------------- */

/* Steps of blocks that are one kernel each are held against each other as those of chains are. */
static enum rt_status another_batch(struct rank_seat *seat)
{
    RT_TRY(look(seat, true, "a block is one kernel: sm90"));
    RT_TRY(steps(seat, 2, 0));
    (void)rank_step(seat, seat->rank == 1 ? 1 : RANKS_ROWS, 0);
    /* Said again by whatever comes next. */
    return rank_step(seat, RANKS_ROWS, 0) == RT_OK ? RT_OK : seat->error.status;
}

static void test_another_batch(void **state)
{
    static struct rank_bench b;
    (void)state;
    open_bench(&b, 2, 16);
    rank_bench_run(&b, another_batch);
    rank_bench_failed(&b, 0, RT_ERR_RANKS, ": rank 1 has batch size 1, rank 0 (this one) has 2");
    rank_bench_failed(&b, 1, RT_ERR_RANKS, ": rank 0 has batch size 2, rank 1 (this one) has 1");
    rank_bench_close(&b);
}

/* A step of rank 1 that fails is known to rank 0 at once. */
static enum rt_status break_down(struct rank_seat *seat)
{
    RT_TRY(steps(seat, 1, 0));
    if (seat->rank == 1)
        seat->rt->driver.probe.fail_at = seat->rt->driver.probe.calls + 1;
    return rank_step(seat, RANKS_ROWS, 0);
}

static void test_a_step_that_fails(void **state)
{
    static struct rank_bench b;
    (void)state;
    open_bench(&b, 2, 16);
    rank_bench_run(&b, break_down);
    rank_bench_failed(&b, 1, RT_ERR_DRIVER, "injected failure");
    rank_bench_failed(&b, 0, RT_ERR_RANKS, "rank 1 has given up at step ");
    rank_bench_close(&b);
}

static void fail_call(struct rank_seat *seat, struct rt_create_params *params)
{
    (void)params;
    rank_fail_call(seat);
}

static enum rt_status two_steps(struct rank_seat *seat)
{
    return steps(seat, 2, 0);
}

/* Each call of rank 1's communicator that rt_create and two steps make, failed once. */
static void test_calls_that_fail(void **state)
{
    static struct rank_bench b;
    (void)state;
    open_bench(&b, 2, 16);
    b.blocks.config.batch_sizes[0] = RANKS_ROWS;
    b.blocks.config.batch_size_count = 1;
    b.change = fail_call;
    assert_true(rank_bench_fail_each(&b, two_steps) >=
                2 * (1 + RANKS_LAYERS) + 1); /* posts, sums, and what create agrees on */
    rank_bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_one_rank),         cmocka_unit_test(test_all_or_none),
        cmocka_unit_test(test_a_device_that_fails), cmocka_unit_test(test_another_batch),
        cmocka_unit_test(test_a_step_that_fails),   cmocka_unit_test(test_calls_that_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
