/* SPDX-License-Identifier: Apache-2.0 */
/* Stages of the caller: what they may not do while they run, and how their failures are told. */
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* One call of the library, as a stage might try it; whatever it does, it says what came of it. */
typedef enum rt_status (*try_fn)(rt_runtime *rt, rt_seq seq);

static enum rt_status try_step(rt_runtime *rt, rt_seq seq)
{
    return fixture_step(rt, &seq, 1, 1, NULL);
}
static enum rt_status try_wait(rt_runtime *rt, rt_seq seq)
{
    (void)seq;
    return rt_wait(rt, 1, 0);
}
static enum rt_status try_synchronize(rt_runtime *rt, rt_seq seq)
{
    (void)seq;
    return rt_synchronize(rt);
}
static enum rt_status try_result(rt_runtime *rt, rt_seq seq)
{
    uint32_t count;
    (void)seq;
    return rt_result(rt, 1, NULL, 0, &count);
}
static enum rt_status try_prefill(rt_runtime *rt, rt_seq seq)
{
    static const int32_t token = 1;
    const struct rt_prompt prompt = {.seq = seq, .tokens = &token, .count = 1};
    const struct rt_prefill_params p = {
        .struct_size = sizeof(p), .prompts = &prompt, .prompt_count = 1};
    return rt_prefill(rt, &p, NULL);
}
static enum rt_status try_open(rt_runtime *rt, rt_seq seq)
{
    return rt_seq_open(rt, NULL, &seq);
}
static enum rt_status try_close(rt_runtime *rt, rt_seq seq)
{
    return rt_seq_close(rt, seq);
}
static enum rt_status try_fork(rt_runtime *rt, rt_seq seq)
{
    rt_seq out;
    return rt_seq_fork(rt, seq, &out);
}
static enum rt_status try_fork_onto(rt_runtime *rt, rt_seq seq)
{
    rt_seq out;
    return rt_seq_fork_onto(rt, seq, -1, &out);
}

static enum rt_status try_retain(rt_runtime *rt, rt_seq seq)
{
    (void)seq;
    return rt_pages_retain(rt, NULL, 0);
}

static enum rt_status try_release(rt_runtime *rt, rt_seq seq)
{
    (void)seq;
    return rt_pages_release(rt, NULL, 0);
}

static enum rt_status try_rewind(rt_runtime *rt, rt_seq seq)
{
    return rt_seq_rewind(rt, seq, 0);
}
static enum rt_status try_length(rt_runtime *rt, rt_seq seq)
{
    uint32_t length;
    return rt_seq_length(rt, seq, &length);
}
static enum rt_status try_slot(rt_runtime *rt, rt_seq seq)
{
    uint32_t slot;
    return rt_seq_slot(rt, seq, &slot);
}
static enum rt_status try_quiet(rt_runtime *rt, rt_seq seq)
{
    uint64_t ticket;
    return rt_seq_quiet(rt, seq, &ticket);
}
static enum rt_status try_bind(rt_runtime *rt, rt_seq seq)
{
    const int32_t page = 0;
    return rt_seq_bind_pages(rt, seq, 0, &page, 1);
}
static enum rt_status try_pages(rt_runtime *rt, rt_seq seq)
{
    uint32_t count;
    return rt_seq_pages(rt, seq, NULL, 0, &count);
}
static enum rt_status try_write(rt_runtime *rt, rt_seq seq)
{
    const int32_t zero = 0;
    (void)seq;
    return rt_tensor_write(rt, "sampled", 0, 0, &zero, sizeof(zero));
}
static enum rt_status try_read(rt_runtime *rt, rt_seq seq)
{
    int32_t word;
    (void)seq;
    return rt_tensor_read(rt, "sampled", 0, 0, &word, sizeof(word));
}
static enum rt_status try_stats(rt_runtime *rt, rt_seq seq)
{
    struct rt_stats stats = {.struct_size = sizeof(stats)};
    (void)seq;
    return rt_get_stats(rt, &stats);
}
static enum rt_status try_audit(rt_runtime *rt, rt_seq seq)
{
    (void)seq;
    return rt_audit(rt);
}
static enum rt_status try_hold(rt_runtime *rt, rt_seq seq)
{
    (void)seq;
    return rt_host_hold(rt, 1);
}
static enum rt_status try_destroy(rt_runtime *rt, rt_seq seq)
{
    (void)seq;
    rt_destroy(&rt);
    return rt ? rt_last_error(rt)->status : RT_OK;
}

static const struct {
    const char *name;
    try_fn fn;
} tries[] = {
    {"rt_step", try_step},
    {"rt_wait", try_wait},
    {"rt_synchronize", try_synchronize},
    {"rt_result", try_result},
    {"rt_prefill", try_prefill},
    {"rt_seq_open", try_open},
    {"rt_seq_close", try_close},
    {"rt_seq_fork", try_fork},
    {"rt_seq_fork_onto", try_fork_onto},
    {"rt_pages_retain", try_retain},
    {"rt_pages_release", try_release},
    {"rt_seq_rewind", try_rewind},
    {"rt_seq_length", try_length},
    {"rt_seq_slot", try_slot},
    {"rt_seq_quiet", try_quiet},
    {"rt_seq_bind_pages", try_bind},
    {"rt_seq_pages", try_pages},
    {"rt_tensor_write", try_write},
    {"rt_tensor_read", try_read},
    {"rt_get_stats", try_stats},
    {"rt_audit", try_audit},
    {"rt_host_hold", try_hold},
    {"rt_destroy", try_destroy},
};
#define TRY_COUNT (sizeof(tries) / sizeof(tries[0]))

struct visitor {
    rt_seq seq;
    int result;          /* of the stage */
    uint32_t fail_layer; /* where it has that result */
    bool visits;         /* tries everything */
    uint32_t visited;
    char sentence[TRY_COUNT][sizeof(((struct rt_error *)0)->message)];
    enum rt_status status[TRY_COUNT];
};

static int visit(void *user, const struct rt_stage_context *context)
{
    struct visitor *v = user;
    struct rt_tensor t = {.struct_size = sizeof(t)};
    assert_int_equal(rt_tensor(context->runtime, "q", context->layer, &t), RT_OK);
    for (size_t i = 0; v->visits && i < TRY_COUNT; i++) {
        v->status[i] = tries[i].fn(context->runtime, v->seq);
        (void)snprintf(v->sentence[i], sizeof(v->sentence[i]), "%s",
                       rt_last_error(context->runtime)->message);
        v->visited++;
    }
    v->visits = false;
    return context->layer == v->fail_layer ? v->result : 0;
}

static rt_runtime *create_with(struct visitor *v, enum rt_stage_point point)
{
    struct rt_config config;
    rt_runtime *rt;
    struct rt_error error = {0};
    fixture_config(&config);
    struct rt_create_params params = {
        .struct_size = sizeof(params), .config = &config, .stage_user = v};
    params.stages[point] = visit;
    if (rt_create(&params, &rt, &error) != RT_OK)
        fail_msg("%s", error.message);
    v->seq = fixture_open(rt);
    return rt;
}

static void a_stage_calls_nothing_back(void **state)
{
    (void)state;
    struct visitor v = {.fail_layer = UINT32_MAX};
    rt_runtime *rt = create_with(&v, RT_STAGE_AFTER_ATTENTION);
    uint32_t length = 0;
    fixture_step_ok(rt, &v.seq, 1, 1);
    v.visits = true;
    fixture_step_ok(rt, &v.seq, 1, 1);
    assert_int_equal(v.visited, TRY_COUNT);
    for (size_t i = 0; i < TRY_COUNT; i++) {
        char words[120];
        (void)snprintf(words, sizeof(words),
                       "%s: called by a stage of this runtime (after_attention, layer 0, batch 1)",
                       tries[i].name);
        if (v.status[i] != RT_ERR_INVALID || !strstr(v.sentence[i], words))
            fail_msg("%s gave %s: \"%s\"", tries[i].name, rt_status_string(v.status[i]),
                     v.sentence[i]);
    }
    /* Nothing has changed, on either side. */
    assert_int_equal(rt_seq_length(rt, v.seq, &length), RT_OK);
    assert_int_equal(length, 2);
    int32_t on_device = 0;
    assert_int_equal(rt_tensor_read(rt, "slot_lengths", 0, 4 * (uint64_t)(uint32_t)v.seq,
                                    &on_device, sizeof(on_device)),
                     RT_OK);
    assert_int_equal(on_device, 2);
    fixture_step_ok(rt, &v.seq, 1, 1);
    rt_destroy(&rt);
}

static void failed(rt_runtime *rt, enum rt_status status, const char *words)
{
    assert_int_equal(status, RT_ERR_CALLBACK);
    if (!strstr(rt_last_error(rt)->message, words))
        fail_msg("\"%s\" does not say \"%s\"", rt_last_error(rt)->message, words);
}

static void a_failed_stage_is_named(void **state)
{
    (void)state;
    struct visitor v = {.result = 7, .fail_layer = 1};
    rt_runtime *rt = create_with(&v, RT_STAGE_BEFORE_ATTENTION);
    const char *words = "graph (batch 1, query length 1), stage \"user_before_attention.1\": "
                        "the stage's function returned 7";
    failed(rt, fixture_step(rt, &v.seq, 1, 1, NULL), words);
    failed(rt, fixture_step(rt, &v.seq, 1, 3, NULL), "graph (batch 1, query length 3), stage");
    /* Eager says the same. */
    const struct rt_step_params eager = {
        .struct_size = sizeof(eager), .flags = RT_STEP_EAGER, .rows = 1, .seqs = &v.seq};
    failed(rt, rt_step(rt, &eager, NULL), words);

    /* Held work fails where it is waited for. */
    uint64_t ticket = 0;
    assert_int_equal(rt_host_hold(rt, 1), RT_OK);
    assert_int_equal(fixture_step(rt, &v.seq, 1, 1, &ticket), RT_OK);
    assert_int_equal(rt_host_hold(rt, 0), RT_OK);
    failed(rt, rt_wait(rt, ticket, UINT64_MAX), words);
    rt_destroy(&rt);
}

static void create_refuses(struct rt_create_params params, const char *words)
{
    struct rt_config config;
    rt_runtime *rt = NULL;
    struct rt_error error = {0};
    fixture_config(&config);
    params.struct_size = sizeof(params);
    params.config = &config;
    assert_int_equal(rt_create(&params, &rt, &error), RT_ERR_INVALID);
    assert_null(rt);
    if (!strstr(error.message, words))
        fail_msg("\"%s\" does not say \"%s\"", error.message, words);
}

static void flags_are_checked(void **state)
{
    (void)state;
    create_refuses((struct rt_create_params){.flags = 6}, "unknown flags 0x4");
    create_refuses((struct rt_create_params){.foreign_stages = 0x22},
                   "foreign_stages 0x22 has bits that are no stage point");
    create_refuses((struct rt_create_params){.foreign_stages = 1, .host_function_stages = 3},
                   "host_function_stages 0x3 are not all among foreign_stages 0x1");
    create_refuses((struct rt_create_params){.overlapped_stages = 0x31},
                   "overlapped_stages 0x31 has bits that are no stage point");
}

/* Dashed is an edge that may be programmatic. */
static void foreign_and_overlapped_stages_are_drawn(void **state)
{
    (void)state;
    struct visitor v = {.fail_layer = UINT32_MAX};
    struct rt_config config;
    rt_runtime *rt;
    char dot[8192];
    size_t needed = 0;
    fixture_config(&config);
    const struct rt_create_params params = {
        .struct_size = sizeof(params),
        .config = &config,
        .stage_user = &v,
        .stages = {[RT_STAGE_BEFORE_ATTENTION] = visit, [RT_STAGE_STEP_END] = visit},
        .foreign_stages = 1u << RT_STAGE_STEP_END,
        .overlapped_stages = 1u << RT_STAGE_STEP_END};
    assert_int_equal(rt_create(&params, &rt, NULL), RT_OK);
    assert_int_equal(rt_dot(rt, 1, 1, dot, sizeof(dot), &needed), RT_OK);
    assert_non_null(strstr(dot, "user_step_end\\ncallback\\nforeign: not audited"));
    assert_null(strstr(dot, "user_before_attention.0\\ncallback\\nforeign"));
    /* step_begin, the stage, schedule and append; …, the other stage, step_end */
    assert_non_null(strstr(dot, "s1 -> s2;\n"));
    const char *end = strstr(dot, "[label=\"step_end\\n");
    assert_non_null(end);
    const char *edge = strstr(end, " -> ");
    assert_non_null(edge);
    assert_non_null(strstr(edge, " [style=dashed];\n}\n"));
    rt_destroy(&rt);
}

/* A caller of an older library knows fewer fields; of a newer one more, which it leaves alone. */
static void structs_of_other_sizes(void **state)
{
    (void)state;
    struct rt_config config;
    rt_runtime *rt;
    fixture_config(&config);
    struct {
        struct rt_create_params params;
        uint64_t more;
    } newer = {.params = {.struct_size = sizeof(newer), .config = &config}};
    struct rt_create_params older = {.struct_size = offsetof(struct rt_create_params, log),
                                     .config = &config};
    memset(&older.log, 0x5a, sizeof(older) - offsetof(struct rt_create_params, log));
    assert_int_equal(rt_create(&older, &rt, NULL), RT_OK);
    rt_destroy(&rt);
    assert_int_equal(rt_create(&newer.params, &rt, NULL), RT_OK);
    rt_destroy(&rt);
    newer.more = 1;
    assert_int_equal(rt_create(&newer.params, &rt, NULL), RT_ERR_INVALID);

    /* What a shorter configuration lacks is its default, not zero. */
    config.struct_size = offsetof(struct rt_config, tensors);
    config.tensors = (enum rt_tensor_sharing)99;
    assert_int_equal(
        rt_create(&(struct rt_create_params){.struct_size = sizeof(older), .config = &config}, &rt,
                  NULL),
        RT_OK);
    assert_int_equal(rt->blueprint.config.tensors, RT_TENSORS_SHARED);
    assert_int_equal(rt->blueprint.config.struct_size, sizeof(config));
    struct rt_stats few = {.struct_size = 8, .steps = 12345};
    assert_int_equal(rt_get_stats(rt, &few), RT_OK);
    assert_int_equal(few.struct_size, 8);
    assert_int_equal(few.bucket_count, rt->captured_count);
    assert_int_equal(few.steps, 12345);
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stage_calls_nothing_back),
        cmocka_unit_test(a_failed_stage_is_named),
        cmocka_unit_test(flags_are_checked),
        cmocka_unit_test(foreign_and_overlapped_stages_are_drawn),
        cmocka_unit_test(structs_of_other_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
