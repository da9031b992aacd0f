/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_BUILD_SPY_H
#define RT_TESTS_UNIT_BUILD_SPY_H

/*
 * A device that captures and notes which edges each kernel of ours is added with; programs for it.
 *
 * Includes cmocka.h, so a test includes this last.
 */
#include "graphs/build.h"
#include "tests/unit/capture_bench.h"

#define MAX_ADDED 32

/* What graph_add_kernel was told. */
struct added {
    uint32_t edge_count;
    struct rt_dedge edges[CAPTURE_TAILS];
    rt_dnode node;
};

struct spy {
    struct capture_bench capture;
    struct added added[MAX_ADDED];
    uint32_t added_count;
    uint64_t free_bytes[2]; /* answers of mem_info */
    uint32_t asked;
};

static int spy_add_kernel(struct rt_driver *d, rt_dgraph g, const struct rt_launch *l,
                          const struct rt_dedge *edges, uint32_t edge_count, rt_dnode *out)
{
    struct spy *const s = (struct spy *)(void *)d;
    struct added *const a = &s->added[s->added_count++];
    a->edge_count = edge_count;
    memcpy(a->edges, edges, edge_count * sizeof(*edges));
    const int failed = s->capture.bench.plain.graph_add_kernel(d, g, l, edges, edge_count, out);
    a->node = failed ? NULL : *out;
    return failed;
}

/* A product, which the library of a device that captures puts on the stream as `c` says. */
static inline void add_product(struct rt_program *p, struct capture_call *c, const char *label)
{
    const struct rt_work work = {.kind = RT_WORK_MATMUL, .matmul = {.a = (uintptr_t)c}};
    assert_int_equal(rt_program_add(p, label, 0, &work, NULL), RT_OK);
}

static inline int spy_matmul(struct rt_driver *d, const struct rt_matmul *m, rt_dstream stream)
{
    (void)d;
    return capture_bench_put((void *)(uintptr_t)m->a, stream);
}

static inline void open_capturing(struct spy *s)
{
    memset(s, 0, sizeof(*s));
    capture_bench_open(&s->capture);
    s->capture.bench.d.graph_add_kernel = spy_add_kernel;
    s->capture.bench.d.matmul = spy_matmul;
}

static inline void add_launch(struct rt_program *p, const struct host_bench *b, const char *label,
                              int64_t value, bool waits)
{
    const struct rt_launch l = host_bench_launch(b, value, waits);
    assert_int_equal(bench_add_launch(p, label, RT_NO_LAYER, &l, NULL), RT_OK);
}

static inline void add_capture(struct rt_program *p, struct capture_call *c, const char *label)
{
    const struct rt_call call = {.fn = capture_bench_put, .user = c};
    assert_int_equal(bench_add_call(p, label, 0, call, NULL), RT_OK);
}

static inline void assert_edge(const struct added *a, uint32_t i, rt_dnode from, bool programmatic)
{
    assert_true(i < a->edge_count);
    assert_ptr_equal(a->edges[i].from, from);
    assert_int_equal(a->edges[i].programmatic, programmatic);
}

#endif
