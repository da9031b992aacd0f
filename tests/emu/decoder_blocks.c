/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole decoders whose MLPs are one kernel each, rt_moe_block: replay against eager, bit for bit;
 * and steps that fail at each driver call of a stage in turn, in front of, at and behind such a
 * launch, with a good step behind each.
 */
#include "models/decoder_impl.h"
#include "runtime/ops_handle.h"
#include "tests/unit/expect.h"

#include <stdlib.h>

#define GOLDEN RT_TEST_DATA "/golden/tiny_deepseek_v2"
#define ROWS 3u
#define VOCAB 256u

/* A decoder, its sequences, and what the last step has left. */
struct side {
    rt_decoder *d;
    rt_seq seqs[ROWS];
    uint32_t flags;
    float logits[ROWS][VOCAB];
};

static void open_side(struct side *s, uint32_t flags)
{
    struct rt_config config;
    struct rt_error error = {0};
    struct rt_model model = {.struct_size = sizeof(model)};
    rt_checkpoint *checkpoint = NULL;
    rt_config_default(&config);
    (void)snprintf(config.device, sizeof(config.device), "host");
    config.batch_sizes[0] = ROWS;
    config.batch_size_count = 1;
    config.max_sequences = ROWS;
    config.max_length = 256;
    assert_int_equal(rt_model_read(GOLDEN, &model, NULL), RT_OK);
    assert_int_equal(model.vocab_size, VOCAB);
    assert_int_equal(rt_checkpoint_open(GOLDEN, &checkpoint, NULL), RT_OK);
    const struct rt_decoder_params params = {.struct_size = sizeof(params),
                                             .config = &config,
                                             .model = &model,
                                             .checkpoint = checkpoint};
    *s = (struct side){.flags = flags};
    if (rt_decoder_create(&params, &s->d, &error) != RT_OK)
        fail_msg("%s", error.message);
    rt_checkpoint_close(&checkpoint);
    /* The mixture and the dense MLP; else this is about something else. */
    assert_true(s->d->block_tokens[0] >= ROWS && s->d->block_tokens[1] >= ROWS);
    for (uint32_t r = 0; r < ROWS; r++)
        assert_int_equal(rt_seq_open(rt_decoder_runtime(s->d), NULL, &s->seqs[r]), RT_OK);
}

static enum rt_status step(struct side *s, uint32_t rows, uint32_t number)
{
    rt_runtime *rt = rt_decoder_runtime(s->d);
    int32_t tokens[ROWS];
    uint64_t ticket;
    for (uint32_t r = 0; r < rows; r++)
        tokens[r] = (int32_t)((number * 37 + r * 101 + 5) % VOCAB);
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .flags = s->flags,
                                     .rows = rows,
                                     .seqs = s->seqs,
                                     .tokens = tokens};
    RT_TRY(rt_step(rt, &p, &ticket));
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    for (uint32_t r = 0; r < rows; r++)
        assert_int_equal(rt_decoder_read_logits(s->d, r, 1, 0, s->logits[r]), RT_OK);
    return RT_OK;
}

static void expect_same(const struct side *a, const struct side *b, uint32_t rows)
{
    for (uint32_t r = 0; r < rows; r++)
        assert_memory_equal(a->logits[r], b->logits[r], sizeof(a->logits[r]));
}

static void replay_is_eager(void **state)
{
    static const uint32_t rows[] = {1, 3, 2, 3};
    struct side replay, eager;
    (void)state;
    open_side(&replay, 0);
    open_side(&eager, RT_STEP_EAGER);
    for (uint32_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(step(&replay, rows[i], i), RT_OK);
        assert_int_equal(step(&eager, rows[i], i), RT_OK);
        expect_same(&replay, &eager, rows[i]);
    }
    rt_decoder_destroy(&replay.d);
    rt_decoder_destroy(&eager.d);
}

/* The same step over and over, taken back each time: whatever has failed in front of it, it gives
 * what it gave at first. Stages put their work through the decoder's own handle, whose driver table
 * is reached here. */
static void a_failed_step_leaves_nothing(void **state)
{
    struct side first, side;
    uint32_t failed = 0;
    bool reached = true;
    (void)state;
    open_side(&side, RT_STEP_EAGER);
    assert_int_equal(step(&side, ROWS, 0), RT_OK);
    assert_int_equal(step(&side, ROWS, 1), RT_OK);
    first = side;
    struct rt_driver_probe *const probe = &side.d->ops->driver.probe;
    for (uint32_t n = 1; reached; n++) {
        for (uint32_t r = 0; r < ROWS; r++)
            assert_int_equal(rt_seq_rewind(rt_decoder_runtime(side.d), side.seqs[r], 1), RT_OK);
        probe->fail_at = probe->calls + n;
        memset(side.logits, 0xff, sizeof(side.logits));
        const enum rt_status status = step(&side, ROWS, 1);
        reached = probe->calls >= probe->fail_at;
        probe->fail_at = 0;
        assert_true(status == RT_OK || (reached && status == RT_ERR_CALLBACK));
        if (status != RT_OK) {
            failed++;
            assert_int_equal(step(&side, ROWS, 1), RT_OK);
        }
        expect_same(&side, &first, ROWS);
    }
    assert_true(failed >= 2 * side.d->model.layers); /* of each stage at least its launch */
    rt_decoder_destroy(&side.d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replay_is_eager),
        cmocka_unit_test(a_failed_step_leaves_nothing),
    };
    return cmocka_run_group_tests_name("decoder_blocks", tests, NULL, NULL);
}
