/* SPDX-License-Identifier: Apache-2.0 */
/* What ranks exchange behind stages: sums of hidden and of the caller's memory, what is gathered,
 * the parts that stages go on in, and what is refused. */
#include "tests/support/rank_fixture.h"

#include "common/bf16.h"
#include "common/check.h"
#include "runtime/ranks_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define WIDTH 5u    /* of what is gathered: no vector of it is on 16 bytes but the first */
#define VECTORS 32u /* room for the largest graph's */
#define STEPS 2u

/* Of each rank, and what its stages have seen. */
static struct memory {
    _Alignas(16) int32_t mine[VECTORS * WIDTH];
    _Alignas(16) int32_t all[RANKS_MOST * VECTORS * WIDTH];
    _Alignas(16) float sum[VECTORS];
    uint32_t calls; /* of parts behind exchanges */
    char wrong[160];
} memories[RANKS_MOST];

static struct memory *memory_of(const struct rank_seat *seat)
{
    return &memories[seat->rank];
}

static uint32_t ranks_of(const struct rank_seat *seat)
{
    return seat->bench->ranks;
}

/* Of 1, 2, ... to their number. */
static float sum_of(uint32_t ranks)
{
    uint32_t sum = 0;
    for (uint32_t r = 1; r <= ranks; r++)
        sum += r;
    return (float)sum;
}

/* ---- stages ---------------------------------------------------------------------------------- */

/* Exact in bf16, as are the sums of up to four of them. */
static float part_of_hidden(uint32_t rank, uint32_t layer, uint32_t i)
{
    return (float)((rank + 1) * (1 + layer + i % 8));
}

static uint16_t *hidden_of(const struct rt_stage_context *context)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    return rt_tensor(context->runtime, "hidden", 0, &t) == RT_OK ? (uint16_t *)(uintptr_t)t.address
                                                                 : NULL;
}

static int after(void *user, const struct rt_stage_context *context)
{
    const struct rank_seat *const seat = user;
    struct memory *const m = memory_of(seat);
    uint16_t *const hidden = hidden_of(context);
    const uint32_t ranks = ranks_of(seat);
    if (!hidden)
        return 1;
    m->calls += context->part;
    for (uint32_t i = 0; i < context->tokens * RANKS_HIDDEN; i++) {
        const float mine = part_of_hidden(seat->rank, context->layer, i);
        const float sum = part_of_hidden(0, context->layer, i) * sum_of(ranks);
        if (context->part == 0)
            hidden[i] = rt_float_to_bf16(mine);
        else if (rt_bf16_to_float(hidden[i]) != sum)
            (void)snprintf(m->wrong, sizeof(m->wrong), "layer %u, hidden %u is %g, not %g",
                           context->layer, i, (double)rt_bf16_to_float(hidden[i]), (double)sum);
    }
    return 0;
}

static int32_t gathered(uint32_t rank, uint32_t vector, uint32_t i)
{
    return (int32_t)(1000 * rank + 10 * vector + i);
}

static void look_at_all(struct memory *m, uint32_t ranks, uint32_t vectors)
{
    for (uint32_t r = 0; r < ranks; r++)
        for (uint32_t at = 0; at < vectors * WIDTH; at++) {
            const int32_t *const from = ranks > 1 ? m->all : m->mine;
            const int32_t has = from[r * vectors * WIDTH + at];
            const int32_t wanted = gathered(r, at / WIDTH, at % WIDTH);
            if (has != wanted)
                (void)snprintf(m->wrong, sizeof(m->wrong), "rank %u, number %u is %d, not %d", r,
                               at, has, wanted);
        }
}

/* Three parts: what is gathered, then a sum of its own memory, both seen by the last. */
static int end(void *user, const struct rt_stage_context *context)
{
    const struct rank_seat *const seat = user;
    struct memory *const m = memory_of(seat);
    const uint32_t vectors = context->batch * context->query_len;
    m->calls += context->part > 0;
    for (uint32_t v = 0; v < vectors; v++) {
        const float sum = sum_of(ranks_of(seat)) * (float)(1 + v);
        for (uint32_t i = 0; context->part == 0 && i < WIDTH; i++)
            m->mine[v * WIDTH + i] = gathered(seat->rank, v, i);
        if (context->part == 1)
            m->sum[v] = (float)((seat->rank + 1) * (1 + v));
        else if (context->part == 2 && m->sum[v] != sum)
            (void)snprintf(m->wrong, sizeof(m->wrong), "sum %u is %g, not %g", v, (double)m->sum[v],
                           (double)sum);
    }
    if (context->part == 2)
        look_at_all(m, ranks_of(seat), vectors);
    return 0;
}

/* ---- ranks ----------------------------------------------------------------------------------- */

static struct rt_stage_exchange exchanges[RANKS_MOST][3];
static struct rt_memory_region regions[RANKS_MOST];

static void change(struct rank_seat *seat, struct rt_create_params *p)
{
    struct memory *const m = memory_of(seat);
    struct rt_stage_exchange *const x = exchanges[seat->rank];
    *m = (struct memory){.calls = 0};
    x[0] = (struct rt_stage_exchange){.point = RT_STAGE_AFTER_ATTENTION, .resumes = 1};
    x[1] = (struct rt_stage_exchange){.point = RT_STAGE_STEP_END,
                                      .kind = RT_EXCHANGE_GATHER,
                                      .vectors = RT_EXCHANGE_RESULTS,
                                      .dtype = RT_DTYPE_I32,
                                      .width = WIDTH,
                                      .from = (uintptr_t)m->mine,
                                      .to = (uintptr_t)m->all,
                                      .resumes = 1};
    x[2] = (struct rt_stage_exchange){.point = RT_STAGE_STEP_END,
                                      .vectors = RT_EXCHANGE_RESULTS,
                                      .dtype = RT_DTYPE_F32,
                                      .width = 1,
                                      .from = (uintptr_t)m->sum,
                                      .to = (uintptr_t)m->sum,
                                      .resumes = 1};
    regions[seat->rank] = (struct rt_memory_region){(uintptr_t)m, sizeof(*m)};
    p->stages[RT_STAGE_AFTER_ATTENTION] = after;
    p->stages[RT_STAGE_STEP_END] = end;
    p->regions = &regions[seat->rank];
    p->region_count = 1;
    p->exchanges = x;
    p->exchange_count = 3;
}

static void open_bench(struct rank_bench *b, uint32_t ranks)
{
    rank_bench_open(b, ranks, RT_PRECISION_BF16);
    b->change = change;
}

static enum rt_status walk(struct rank_seat *seat)
{
    const bool *const eager = seat->bench->user;
    while (seat->step < STEPS)
        if (rank_step(seat, RANKS_ROWS - seat->step, *eager ? RT_STEP_EAGER : 0) != RT_OK)
            return seat->error.status;
    return RT_OK;
}

/* Steps of two rows and of one, whose graph's vectors are the first of the same memory. */
static void test_what_stages_see(void **state)
{
    static struct rank_bench b;
    (void)state;
    for (uint32_t ranks = 1; ranks <= RANKS_MOST; ranks++)
        for (int eager = 0; eager < 2; eager++) {
            const bool is_eager = eager;
            open_bench(&b, ranks);
            b.user = &is_eager;
            rank_bench_run(&b, walk);
            rank_bench_all_well(&b);
            for (uint32_t r = 0; r < ranks; r++) {
                assert_string_equal(memories[r].wrong, "");
                assert_int_equal(memories[r].calls, STEPS * (RANKS_LAYERS + 2));
            }
            rank_bench_close(&b);
        }
}

/* Nodes of their own, in the order of the list. */
static enum rt_status look_for_stages(struct rank_seat *seat)
{
    static const char *const order[] = {"o_proj_sum.1",          "user_after_attention.1",
                                        "after_attention_sum.1", "user_after_attention_part1.1",
                                        "user_step_end",         "step_end_gather",
                                        "user_step_end_part1",   "step_end_sum",
                                        "user_step_end_part2"};
    static char text[RANKS_MOST][32768];
    size_t needed = 0;
    RT_TRY(rank_told(seat,
                     rt_dot(seat->rt, RANKS_ROWS, 1, text[seat->rank], sizeof(text[0]), &needed)));
    const char *at = text[seat->rank];
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        at = needed <= sizeof(text[0]) ? strstr(at, order[i]) : NULL;
        if (!at)
            return rt_fail(&seat->error, RT_ERR_INTERNAL, "no %s where it should be", order[i]);
    }
    return RT_OK;
}

static void test_nodes(void **state)
{
    static struct rank_bench b;
    (void)state;
    open_bench(&b, 2);
    rank_bench_run(&b, look_for_stages);
    rank_bench_all_well(&b);
    rank_bench_close(&b);
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

/* Each call of rank 1's communicator that a step makes, failed once. */
static enum rt_status fail_at(struct rank_seat *seat)
{
    rank_fail_call(seat);
    return rank_step(seat, RANKS_ROWS, 0) == RT_OK ? RT_OK : seat->error.status;
}

static void test_calls_that_fail(void **state)
{
    static struct rank_bench b;
    (void)state;
    open_bench(&b, 2);
    assert_true(rank_bench_fail_each(&b, fail_at) >=
                1 + 2 * RANKS_LAYERS + 2); /* a post, two sums a layer, two at the end */
    rank_bench_close(&b);
}

static void change_one(struct rank_seat *seat, struct rt_create_params *p)
{
    change(seat, p);
    p->exchange_count -= seat->rank;
}

static enum rt_status nothing(struct rank_seat *seat)
{
    (void)seat;
    return RT_OK;
}

static void test_ranks_that_list_others(void **state)
{
    static struct rank_bench b;
    (void)state;
    open_bench(&b, 2);
    b.change = change_one;
    rank_bench_run(&b, nothing);
    rank_bench_failed(&b, 0, RT_ERR_RANKS,
                      "rank 1 has exchanges behind stages 2, rank 0 (this one) has 3");
    rank_bench_failed(&b, 1, RT_ERR_RANKS,
                      "rank 0 has exchanges behind stages 3, rank 1 (this one) has 2");
    rank_bench_close(&b);
}

static void break_count(struct rt_create_params *p, struct rt_stage_exchange *x)
{
    (void)x;
    p->exchange_count = RT_MAX_STAGE_EXCHANGES + 1;
}

static void break_list(struct rt_create_params *p, struct rt_stage_exchange *x)
{
    (void)x;
    p->exchanges = NULL;
}

static void break_stage(struct rt_create_params *p, struct rt_stage_exchange *x)
{
    (void)x;
    p->stages[RT_STAGE_STEP_END] = NULL;
}

#define BREAK(name, field, value)                                                                  \
    static void name(struct rt_create_params *p, struct rt_stage_exchange *x)                      \
    {                                                                                              \
        (void)p;                                                                                   \
        x->field = (value);                                                                        \
    }
BREAK(break_kind, kind, (enum rt_exchange_kind)7)
BREAK(break_vectors, vectors, (enum rt_exchange_vectors)7)
BREAK(break_resumes, resumes, 2)
BREAK(break_dtype, dtype, (enum rt_dtype)9)
BREAK(break_sum, kind, RT_EXCHANGE_SUM)
BREAK(break_width, width, 0)
BREAK(break_from, from, 0)
BREAK(break_alignment, to, x->to + 4)
BREAK(break_place, to, x->from)
BREAK(break_region, width, 1000)

static void break_hidden(struct rt_create_params *p, struct rt_stage_exchange *x)
{
    (void)p;
    x[-1].width = 3;
}

static const struct broken {
    void (*break_it)(struct rt_create_params *p, struct rt_stage_exchange *x);
    const char *story;
} breaks[] = {{break_count, "9 exchanges behind stages, at most 8"},
              {break_list, "3 exchanges but params->exchanges is null"},
              {break_stage, "exchanges[1].point 3 has no stage"},
              {break_kind, "exchanges[1].kind is 7"},
              {break_vectors, "exchanges[1].vectors is 7"},
              {break_resumes, "exchanges[1].resumes is 2, must be 0 or 1"},
              {break_dtype, "exchanges[1].dtype is 9"},
              {break_sum, "exchanges[1].dtype is 3: sums are of bf16 (1) or f32 (2)"},
              {break_width, "exchanges[1].width is 0, must be 1 to"},
              {break_from, "must both be multiples of 16, or both 0"},
              {break_alignment, "must both be multiples of 16, or both 0"},
              {break_place, "exchanges[1] gathers 0x"},
              {break_region, "in the largest graph, lies in none of the 1 regions"},
              {break_hidden, "exchanges[0] of tensor hidden has kind 0, vectors 0, width 3"}};

static void change_and_break(struct rank_seat *seat, struct rt_create_params *p)
{
    const struct broken *const one = seat->bench->user;
    change(seat, p);
    one->break_it(p, &exchanges[seat->rank][1]);
}

static void test_what_is_refused(void **state)
{
    static struct rank_bench b;
    (void)state;
    for (size_t i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++) {
        open_bench(&b, 1);
        b.change = change_and_break;
        b.user = &breaks[i];
        rank_bench_run(&b, nothing);
        rank_bench_failed(&b, 0, RT_ERR_INVALID, breaks[i].story);
        rank_bench_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_stages_see), cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_calls_that_fail), cmocka_unit_test(test_ranks_that_list_others),
        cmocka_unit_test(test_what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
