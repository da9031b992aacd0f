/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_AUDIT_BENCH_H
#define RT_TESTS_UNIT_AUDIT_BENCH_H

/*
 * A graph to be audited, on the host device dressed as one that captures.
 *
 * Includes cmocka.h, so a test includes this last.
 */
#include "graphs/audit.h"

#include "tests/unit/capture_bench.h"

#include <inttypes.h>
#include <stdio.h>

/* A built graph of four stages: two launches, a callback's two kernels, a launch. */
struct audit_bench {
    struct capture_bench capture;
    struct capture_call call;
    struct rt_program program;
    struct rt_graph graph;
    struct rt_audit_region regions[2];
    uint32_t region_count;
    enum rt_node_type fake_type; /* of node fake_node */
    uint32_t fake_node, asked;
};

static inline void add_launch(struct audit_bench *a, const char *label, rt_addr second)
{
    struct host_bench *const b = &a->capture.bench;
    struct rt_launch l = host_bench_launch(b, 1, true);
    const struct bench_params params = {
        .log = b->log, .second = second, .value = -1, .scalar = UINT64_MAX};
    memcpy(l.params, &params, sizeof(params));
    assert_int_equal(bench_add_launch(&a->program, label, 0, &l, NULL), RT_OK);
}

/* `ours` and `theirs` are the second pointers of stage "append.3" and of the callback's kernels. */
static inline void open_bench(struct audit_bench *a, rt_addr ours, rt_addr theirs)
{
    memset(a, 0, sizeof(*a));
    capture_bench_open(&a->capture);
    a->call =
        (struct capture_call){.capture = &a->capture, .branches = 2, .value = -7, .second = theirs};
    a->program = (struct rt_program){.spec = bench_spec(8, 1)};
    add_launch(a, "step_begin", 0);
    add_launch(a, "append.3", ours);
    const struct rt_call call = {.fn = capture_bench_put, .user = &a->call};
    assert_int_equal(bench_add_call(&a->program, "after.3", 3, call, NULL), RT_OK);
    add_launch(a, "step_end", 0);
    a->regions[0] = (struct rt_audit_region){
        .base = a->capture.bench.memory, .bytes = BENCH_LOG_BYTES, .name = "arena"};
    a->region_count = 1;
}

static inline void build(struct audit_bench *a)
{
    assert_int_equal(rt_graph_build(&a->program, &a->capture.bench.d, NULL, &a->graph, NULL),
                     RT_OK);
}

static inline enum rt_status audit(struct audit_bench *a, struct rt_error *err)
{
    a->asked = 0;
    return rt_graph_audit(&a->graph, &a->program, &a->capture.bench.d, a->regions, a->region_count,
                          err);
}

static inline void close_bench(struct audit_bench *a)
{
    rt_graph_free(&a->graph, &a->capture.bench.d);
    rt_program_free(&a->program);
    capture_bench_close(&a->capture);
}

static inline void assert_passes(struct audit_bench *a)
{
    struct rt_error err = {0};
    if (audit(a, &err) != RT_OK)
        fail_msg("%s", err.message);
}

static inline void assert_fails(struct audit_bench *a, const char *text)
{
    struct rt_error err = {0};
    assert_int_equal(audit(a, &err), RT_ERR_AUDIT);
    assert_int_equal(err.status, RT_ERR_AUDIT);
    assert_string_equal(err.message, text);
    assert_int_equal(audit(a, NULL), RT_ERR_AUDIT);
}

static inline void stray_text(char text[512], const char *stage, uint32_t word, uint64_t value)
{
    (void)snprintf(text, 512,
                   "graph (batch 8, query length 1), stage \"%s\", kernel bench_put: parameter "
                   "word %u = 0x%" PRIx64 " lies in no registered allocation",
                   stage, word, value);
}

/* The one allocation that knows_one knows. */
static rt_addr taken_for_an_address;

static inline int knows_one(struct rt_driver *d, rt_addr addr, struct rt_address_range *out)
{
    (void)d;
    *out = (struct rt_address_range){.base = addr, .bytes = addr == taken_for_an_address ? 1 : 0};
    return 0;
}

#endif
