/* SPDX-License-Identifier: Apache-2.0 */
#include "buffers/ring.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DEPTH 4u
#define BUCKET 3u
#define QUERY_LEN 2u

/* A ring over plain memory, and the device's half of the protocol. */
struct bench {
    struct rt_placement layout;
    struct rt_arena arena;
    struct rt_ring ring;
    uint64_t device_step;
};

static int set_up(void **state)
{
    const struct rt_dims shape = {.heads = 1,
                                  .kv = {.d_qk = 288, .d_v = 256, .token_bytes = 576},
                                  .layers = 1,
                                  .slots = 5,
                                  .max_length = 1000,
                                  .page_size = 16,
                                  .context = 1,
                                  .pages = 7,
                                  .bucket_max = BUCKET,
                                  .rows = BUCKET,
                                  .q_max = QUERY_LEN,
                                  .parts_max = 1,
                                  .partial_rows = 1,
                                  .ring_depth = DEPTH};
    struct bench *const b = calloc(1, sizeof(*b));
    if (!b || rt_placement_make(&shape, &b->layout, NULL) != RT_OK)
        return -1;
    b->arena.placement = &b->layout;
    b->arena.mapped = aligned_alloc(RT_TENSOR_ALIGN, (size_t)b->layout.mapped_bytes);
    if (!b->arena.mapped)
        return -1;
    memset(b->arena.mapped, 0, (size_t)b->layout.mapped_bytes);
    rt_ring_init(&b->ring, &b->arena);
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *const b = *state;
    free(b->arena.mapped);
    free(b);
    return 0;
}

/* As step_begin and step_end do: the next record in, its completion out, the word last. False where
 * the record is not the expected one. */
static bool device_runs_one(struct bench *b)
{
    const struct rt_record_format *f = &b->layout.record;
    const uint64_t step = b->device_step + 1;
    unsigned char *const records = rt_arena_host(&b->arena, RT_TENSOR_RECORDS);
    unsigned char *const completions = rt_arena_host(&b->arena, RT_TENSOR_COMPLETIONS);
    unsigned char *const record = records + step % DEPTH * f->record_bytes;
    struct rt_record header;
    struct rt_record_row rows[BUCKET];
    memcpy(&header, record, sizeof(header));
    memcpy(rows, record + f->rows_offset, sizeof(rows));
    struct rt_completion done = {.step = step, .live_rows = header.live_rows};
    struct rt_row_outcome outcomes[BUCKET];
    for (uint32_t i = 0; i < BUCKET; i++)
        outcomes[i] = (struct rt_row_outcome){.accepted = rows[i].accept,
                                              .sampled = (int32_t)(100 * step + i)};
    unsigned char *const completion = completions + step % DEPTH * f->completion_bytes;
    memcpy(completion + sizeof(done), outcomes, sizeof(outcomes));
    memcpy(completion, &done, sizeof(done));
    _Atomic uint64_t *const word = rt_arena_host(&b->arena, RT_TENSOR_COMPLETED);
    atomic_store_explicit(word, step, memory_order_release);
    b->device_step = step;
    return header.step == step;
}

static uint64_t host_launches_one(struct rt_ring *r, uint32_t live_rows)
{
    struct rt_record *const record = rt_ring_record(r);
    *record = (struct rt_record){.step = r->next_step, .live_rows = live_rows};
    struct rt_record_row *const rows = rt_ring_rows(r, record);
    for (uint32_t i = 0; i < BUCKET; i++)
        rows[i] = (struct rt_record_row){.slot = i, .accept = (int32_t)(live_rows + i)};
    return rt_ring_advance(r);
}

static void test_starts_empty(void **state)
{
    const struct bench *b = *state;
    assert_true(rt_ring_completed(&b->ring) == 0);
    assert_true(b->ring.next_step == 1);
    assert_int_equal(rt_ring_room(&b->ring, 0), DEPTH);
}

static void test_room_counts_down_and_comes_back(void **state)
{
    struct bench *const b = *state;
    for (uint32_t i = 0; i < DEPTH; i++) {
        assert_int_equal(rt_ring_room(&b->ring, rt_ring_completed(&b->ring)), DEPTH - i);
        assert_true(host_launches_one(&b->ring, 1) == i + 1);
    }
    assert_int_equal(rt_ring_room(&b->ring, rt_ring_completed(&b->ring)), 0);
    for (uint32_t i = 0; i < DEPTH; i++) {
        assert_true(device_runs_one(b));
        assert_true(rt_ring_completed(&b->ring) == i + 1);
        assert_int_equal(rt_ring_room(&b->ring, rt_ring_completed(&b->ring)), i + 1);
    }
}

/* A completion that the caller has not read yet keeps its place, though the device is done. */
static void test_room_waits_for_the_reader(void **state)
{
    struct bench *const b = *state;
    for (uint32_t i = 0; i < DEPTH; i++) {
        (void)host_launches_one(&b->ring, 1);
        assert_true(device_runs_one(b));
    }
    assert_true(rt_ring_completed(&b->ring) == DEPTH);
    assert_int_equal(rt_ring_room(&b->ring, 0), 0);
    assert_int_equal(rt_ring_room(&b->ring, 1), 1);
    assert_int_equal(rt_ring_room(&b->ring, DEPTH), DEPTH);
}

static void test_impossible_done_leaves_no_room(void **state)
{
    struct bench *const b = *state;
    assert_int_equal(rt_ring_room(&b->ring, 1), 0);
    assert_int_equal(rt_ring_room(&b->ring, UINT64_MAX), 0);
    b->ring.next_step = 10;
    assert_int_equal(rt_ring_room(&b->ring, 4), 0); /* five kept, of four places */
    assert_int_equal(rt_ring_room(&b->ring, 10), 0);
}

static void test_parts_of_a_record(void **state)
{
    struct bench *const b = *state;
    const struct rt_record_format *f = &b->layout.record;
    unsigned char *const base = b->arena.mapped;
    for (uint64_t step = 1; step <= 3 * DEPTH; step++) {
        struct rt_record *const record = rt_ring_record(&b->ring);
        unsigned char *const expected =
            base + b->layout.tensors[RT_TENSOR_RECORDS].offset + step % DEPTH * f->record_bytes;
        assert_ptr_equal(record, expected);
        assert_ptr_equal(rt_ring_record_of(&b->ring, step), expected);
        assert_ptr_equal(rt_ring_rows(&b->ring, record), expected + f->rows_offset);
        assert_ptr_equal(rt_ring_tokens(&b->ring, record), expected + f->tokens_offset);
        assert_ptr_equal(rt_ring_ops(&b->ring, record), expected + f->ops_offset);
        assert_ptr_equal(rt_ring_completion(&b->ring, step),
                         base + b->layout.tensors[RT_TENSOR_COMPLETIONS].offset +
                             step % DEPTH * f->completion_bytes);
        const struct rt_completion *const completion = rt_ring_completion(&b->ring, step);
        assert_ptr_equal(rt_ring_outcome_tokens(&b->ring, completion),
                         (const unsigned char *)completion + f->outcome_tokens_offset);
        memset(record, 0xA5, f->record_bytes); /* under a sanitizer: every byte is ours */
        assert_true(rt_ring_advance(&b->ring) == step);
    }
    const uint64_t word = *(const uint64_t *)rt_arena_host(&b->arena, RT_TENSOR_COMPLETED);
    assert_true(word == 0);
}

static void assert_step_readable(const struct rt_ring *r, uint64_t step)
{
    const struct rt_completion *const c = rt_ring_completion(r, step);
    const struct rt_row_outcome *const outcomes = rt_ring_outcomes(c);
    assert_true(c->step == step);
    assert_int_equal(c->live_rows, step % 3);
    for (uint32_t i = 0; i < BUCKET; i++) {
        assert_int_equal(outcomes[i].accepted, step % 3 + i);
        assert_int_equal(outcomes[i].sampled, 100 * step + i);
    }
    assert_true(rt_ring_record_of(r, step)->step == step);
}

/* The host as far ahead as it may be, the device behind it by every lag, over several wraps. */
static void test_last_depth_steps_stay_readable(void **state)
{
    struct bench *const b = *state;
    for (uint64_t step = 1; step <= 50; step++) {
        while (rt_ring_room(&b->ring, rt_ring_completed(&b->ring)) == 0 ||
               b->ring.next_step - b->device_step > 1 + step % DEPTH)
            assert_true(device_runs_one(b));
        assert_true(host_launches_one(&b->ring, (uint32_t)(step % 3)) == step);
        const uint64_t completed = rt_ring_completed(&b->ring);
        for (uint64_t old = completed; old > 0 && old + DEPTH > step; old--)
            assert_step_readable(&b->ring, old);
    }
}

#define RACE_STEPS 5000u

/* The word behind `completed` is free: it stands for the launches. */
static _Atomic uint64_t *launched_word(const struct bench *b)
{
    return (_Atomic uint64_t *)rt_arena_host(&b->arena, RT_TENSOR_COMPLETED) + 1;
}

/* Returns the bench where a record was not the expected one. */
static void *device_thread(void *arg)
{
    struct bench *const b = arg;
    void *wrong = NULL;
    while (b->device_step < RACE_STEPS) {
        if (atomic_load_explicit(launched_word(b), memory_order_acquire) == b->device_step)
            sched_yield();
        else if (!device_runs_one(b))
            wrong = b;
    }
    return wrong;
}

/* Two threads, the launch being the only order between them: a record that is overwritten too early
 * or a completion that is seen too early shows as a wrong value. */
static void test_host_and_device_race(void **state)
{
    struct bench *const b = *state;
    pthread_t device;
    assert_int_equal(pthread_create(&device, NULL, device_thread, b), 0);
    uint64_t done = 0;
    while (done < RACE_STEPS) {
        if (b->ring.next_step <= RACE_STEPS && rt_ring_room(&b->ring, done) > 0) {
            const uint64_t step = host_launches_one(&b->ring, (uint32_t)(b->ring.next_step % 3));
            atomic_store_explicit(launched_word(b), step, memory_order_release);
        }
        if (rt_ring_completed(&b->ring) > done)
            assert_step_readable(&b->ring, ++done);
        else
            sched_yield();
    }
    void *wrong = b;
    assert_int_equal(pthread_join(device, &wrong), 0);
    assert_null(wrong);
}

/* A hint, for numbers that nobody has checked yet: it changes nothing, and does not run through
 * them. */
static void test_warming_changes_nothing(void **state)
{
    struct bench *const b = *state;
    const size_t bytes = (size_t)b->layout.mapped_bytes;
    memset(b->arena.mapped, 0x5a, bytes);
    const uint32_t counts[] = {0, 1, BUCKET, BUCKET + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        rt_ring_warm(&b->ring, counts[i], (uint64_t)counts[i] * QUERY_LEN);
        rt_ring_warm(&b->ring, counts[i], UINT64_MAX);
    }
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(((const unsigned char *)b->arena.mapped)[i], 0x5a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_starts_empty, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_room_counts_down_and_comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_room_waits_for_the_reader, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_impossible_done_leaves_no_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_parts_of_a_record, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_last_depth_steps_stay_readable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_warming_changes_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_host_and_device_race, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
