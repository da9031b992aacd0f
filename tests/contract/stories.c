/* SPDX-License-Identifier: Apache-2.0 */
/* A public call that fails leaves its own code and sentence behind, never an older one. */
#include "replayrt/ranks.h"
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct rt_error older = {.status = RT_ERR_INTERNAL, .message = "an older story"};

static void tells(rt_runtime *rt, enum rt_status status, const char *words)
{
    const struct rt_error *error = rt_last_error(rt);
    assert_int_not_equal(status, RT_OK);
    assert_int_equal(error->status, status);
    if (!strstr(error->message, words))
        fail_msg("\"%s\" does not say \"%s\"", error->message, words);
    rt->error = older;
}

static void of_sequences_and_steps(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    const struct rt_seq_params none = {.struct_size = 1};
    uint32_t word;
    rt_seq seq = 0;
    uint64_t ticket;
    int32_t page = 0;
    rt->error = older;
    tells(rt, rt_seq_open(rt, NULL, NULL), "out is null");
    tells(rt, rt_seq_open(rt, &none, &seq), "struct_size is 1");
    tells(rt, rt_seq_close(rt, 9), "0x9 is not an open sequence");
    tells(rt, rt_seq_fork(rt, 9, &seq), "0x9");
    tells(rt, rt_seq_fork(rt, 9, NULL), "out is null");
    tells(rt, rt_seq_fork_onto(rt, 9, -1, &seq), "0x9");
    tells(rt, rt_seq_fork_onto(rt, 9, -1, NULL), "out is null");
    tells(rt, rt_pages_retain(rt, NULL, 1), "rt_pages_retain: pages is null");
    tells(rt, rt_pages_retain(rt, &page, 1), "page 0 at index 0 is not in use");
    tells(rt, rt_pages_release(rt, NULL, 1), "rt_pages_release: pages is null");
    tells(rt, rt_pages_release(rt, &page, 1), "page 0 at index 0 is not in use");
    tells(rt, rt_seq_rewind(rt, 9, 0), "0x9");
    tells(rt, rt_seq_length(rt, 9, &word), "0x9");
    tells(rt, rt_seq_length(rt, 9, NULL), "out is null");
    tells(rt, rt_seq_bind_pages(rt, 9, 0, &page, 1), "0x9");
    tells(rt, rt_seq_bind_pages(rt, 9, 0, NULL, 1), "pages is null");
    tells(rt, rt_seq_pages(rt, 9, &page, 1, &word), "0x9");
    tells(rt, rt_seq_pages(rt, 9, &page, 1, NULL), "is null");
    tells(rt, rt_step(rt, NULL, &ticket), "params is null");
    tells(rt, fixture_step(rt, &seq, 1, 1, &ticket), "0x0");
    tells(rt, rt_wait(rt, 5, 0), "ticket 5");
    tells(rt, rt_result(rt, 5, NULL, 0, &word), "ticket 5");
    tells(rt, rt_result(rt, 5, NULL, 0, NULL), "is null");
    tells(rt, rt_prefill(rt, NULL, &ticket), "params is null");
    rt_destroy(&rt);
}

static void of_tensors_and_queries(void **state)
{
    (void)state;
    rt_runtime *rt = fixture_create(NULL);
    struct rt_tensor tensor = {.struct_size = 2};
    struct rt_stats stats = {.struct_size = 3};
    struct rt_bucket_stats bucket = {.struct_size = 70000};
    struct rt_info info = {.struct_size = 0};
    size_t needed;
    uint32_t word = 0;
    rt->error = older;
    tells(rt, rt_tensor(rt, "q", 0, &tensor), "struct_size is 2");
    tells(rt, rt_tensor_write(rt, "r", 0, 0, &word, 4), "\"r\"");
    tells(rt, rt_tensor_read(rt, "q", 2, 0, &word, 4), "layer 2 of 2");
    tells(rt, rt_get_stats(rt, &stats), "struct_size is 3");
    tells(rt, rt_get_bucket_stats(rt, 0, &bucket), "struct_size is 70000");
    bucket.struct_size = sizeof(bucket);
    tells(rt, rt_get_bucket_stats(rt, 6, &bucket), "graph 6 of 6");
    tells(rt, rt_get_info(rt, &info), "struct_size is 0");
    tells(rt, rt_get_info(rt, NULL), "out is null");
    tells(rt, rt_dot(rt, 3, 1, NULL, 0, &needed), "no graph for batch 3");
    tells(rt, rt_dot(rt, 1, 1, NULL, 0, NULL), "needed is null");
    tells(rt, rt_dot(rt, 1, 1, NULL, 9, &needed), "text is null");
    tells(rt, rt_graph_dot(rt, 6, NULL, 0, &needed), "rt_graph_dot: graph 6 of 6");
    tells(rt, rt_graph_dot(rt, 0, NULL, 0, NULL), "rt_graph_dot: needed is null");
    tells(rt, rt_graph_dot(rt, 0, NULL, 9, &needed), "rt_graph_dot: text is null");
    rt_destroy(&rt);
    assert_string_equal(rt_last_error(NULL)->message, "runtime is null");
}

static void tells_plan(const rt_plan *plan, enum rt_status status, const char *words)
{
    const struct rt_error *error = rt_plan_last_error(plan);
    assert_int_equal(status, RT_ERR_INVALID);
    assert_int_equal(error->status, status);
    if (!strstr(error->message, words))
        fail_msg("\"%s\" does not say \"%s\"", error->message, words);
}

static void of_plans(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    rt_plan *plan = NULL;
    assert_int_equal(rt_plan_create(&config, "host", &plan, NULL), RT_OK);
    assert_int_equal(rt_plan_last_error(plan)->status, RT_OK);
    struct rt_plan_buffer buffer = {.struct_size = sizeof(buffer)};
    struct rt_plan_graph graph = {.struct_size = sizeof(graph)};
    struct rt_plan_stage stage = {.struct_size = sizeof(stage)};
    size_t needed;
    const uint32_t buffers = rt_plan_buffer_count(plan);
    assert_int_equal(rt_plan_buffer(plan, buffers - 1, &buffer), RT_OK);
    tells_plan(plan, rt_plan_buffer(plan, UINT32_MAX, &buffer), "buffer 4294967295 of ");
    tells_plan(plan, rt_plan_buffer(plan, 0, NULL), "out is null");
    tells_plan(plan, rt_plan_graph(plan, 6, &graph), "graph 6 of 6");
    graph.struct_size = 1;
    tells_plan(plan, rt_plan_graph(plan, 0, &graph), "struct_size is 1");
    tells_plan(plan, rt_plan_stage(plan, 7, 0, &stage), "graph 7 of 6");
    tells_plan(plan, rt_plan_stage(plan, 0, 99, &stage), "stage 99 of ");
    tells_plan(plan, rt_plan_dot(plan, 6, NULL, 0, &needed), "graph 6 of 6");
    tells_plan(plan, rt_plan_dot(plan, 0, NULL, 0, NULL), "needed is null");
    rt_plan_destroy(&plan);
    assert_int_equal(rt_plan_buffer(NULL, 0, &buffer), RT_ERR_INVALID);
    tells_plan(NULL, rt_plan_graph(NULL, 0, &graph), "plan is null");
}

static void refuses_ranks(const struct rt_plan_ranks *ranks, enum rt_status status,
                          const char *words)
{
    struct rt_config config;
    struct rt_error error = {0};
    rt_plan *plan = NULL;
    fixture_config(&config);
    assert_int_equal(rt_plan_create_ranks(&config, ranks, "host", &plan, &error), status);
    assert_null(plan);
    if (!strstr(error.message, words))
        fail_msg("\"%s\" does not say \"%s\"", error.message, words);
}

static void of_plans_for_ranks(void **state)
{
    (void)state;
    struct rt_plan_ranks ranks = {.struct_size = sizeof(ranks), .ranks = 1};
    struct rt_stage_exchange sum = {.point = RT_STAGE_STEP_END, .dtype = RT_DTYPE_F32};
    const struct rt_stage_exchange many[RT_MAX_STAGE_EXCHANGES + 1] = {sum};
    refuses_ranks(NULL, RT_ERR_INVALID, "ranks is null");
    ranks.ranks = 0;
    refuses_ranks(&ranks, RT_ERR_INVALID, "0 ranks, must be 1 to 64");
    ranks.ranks = 65;
    refuses_ranks(&ranks, RT_ERR_INVALID, "65 ranks");
    ranks.ranks = 63;
    refuses_ranks(&ranks, RT_ERR_GEOMETRY, "cut evenly over 63 ranks");
    ranks.ranks = 1;
    ranks.reserved = 3;
    refuses_ranks(&ranks, RT_ERR_INVALID, "reserved is 3");
    ranks.reserved = 0;
    ranks.exchange_count = 1;
    refuses_ranks(&ranks, RT_ERR_INVALID, "1 exchanges but params->exchanges is null");
    ranks.exchanges = &sum;
    refuses_ranks(&ranks, RT_ERR_INVALID, "exchanges[0] names no address");
    sum.point = RT_STAGE_POINT_COUNT;
    refuses_ranks(&ranks, RT_ERR_INVALID, "exchanges[0].point");
    ranks.exchanges = many;
    ranks.exchange_count = RT_MAX_STAGE_EXCHANGES + 1;
    refuses_ranks(&ranks, RT_ERR_INVALID, "9 exchanges behind stages, at most 8");
    ranks.struct_size = 3;
    refuses_ranks(&ranks, RT_ERR_INVALID, "struct_size is 3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_sequences_and_steps),
        cmocka_unit_test(of_tensors_and_queries),
        cmocka_unit_test(of_plans),
        cmocka_unit_test(of_plans_for_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
