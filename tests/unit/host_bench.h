/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_HOST_BENCH_H
#define RT_TESTS_UNIT_HOST_BENCH_H

/*
 * A host device with one kernel on it that writes down that it ran. A test may put its own
 * functions into the driver's table: the table is the first member, so they find the bench by a
 * cast.
 *
 * Includes cmocka.h, so a test includes this last.
 */
#include "graphs/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BENCH_LOG_BYTES 4096u

/* Device memory: values in the order in which they were written. */
struct bench_log {
    uint64_t count;
    int64_t values[(BENCH_LOG_BYTES - 8) / 8];
};

/* As of our own kernels: pointers first. `second` is only there to be audited. */
struct bench_params {
    struct bench_log *log;
    rt_addr second;
    int64_t value;
    uint64_t scalar;
};

struct host_bench {
    struct rt_driver d;
    struct rt_driver plain; /* the table as it was opened */
    rt_dlibrary library;
    rt_dkernel kernel;
    rt_addr memory;
    struct bench_log *log; /* the host's view of memory */
};

static inline void bench_log_put(struct bench_log *log, int64_t value)
{
    log->values[log->count++] = value;
}

static void bench_kernel(const void *params)
{
    const struct bench_params *const p = params;
    bench_log_put(p->log, p->value);
}

static const struct rt_host_kernel BENCH_KERNELS[] = {
    {.entry = "bench_put", .run = bench_kernel, .param_bytes = sizeof(struct bench_params)}};

static inline void host_bench_open(struct host_bench *b)
{
    const struct rt_image image = {.host_kernels = BENCH_KERNELS, .host_kernel_count = 1};
    *b = (struct host_bench){.memory = 0};
    assert_int_equal(rt_driver_open_host(&b->d, NULL), RT_OK);
    assert_int_equal(b->d.ctx_enter(&b->d), 0);
    assert_int_equal(b->d.library_load(&b->d, &image, &b->library), 0);
    assert_int_equal(b->d.kernel_get(&b->d, b->library, "bench_put", &b->kernel), 0);
    assert_int_equal(b->d.mem_alloc(&b->d, BENCH_LOG_BYTES, &b->memory), 0);
    b->log = (struct bench_log *)(uintptr_t)b->memory; /* device memory is host memory here */
    memset(b->log, 0, sizeof(*b->log));
    b->plain = b->d;
}

static inline void host_bench_close(struct host_bench *b)
{
    b->d.probe.fail_at = 0;
    assert_int_equal(b->d.mem_free(&b->d, b->memory), 0);
    assert_int_equal(b->d.library_unload(&b->d, b->library), 0);
    assert_int_equal(b->d.ctx_leave(&b->d), 0);
    assert_int_equal(b->d.probe.live, 0);
    rt_driver_close(&b->d);
}

static inline struct rt_launch host_bench_launch(const struct host_bench *b, int64_t value,
                                                 bool waits)
{
    struct rt_launch l = {.kernel = b->kernel,
                          .entry = "bench_put",
                          .grid = {1, 1, 1},
                          .block = {32, 1, 1},
                          .waits = waits,
                          .param_bytes = sizeof(struct bench_params),
                          .address_mask = 3};
    const struct bench_params params = {.log = b->log, .value = value};
    memcpy(l.params, &params, sizeof(params));
    return l;
}

static inline struct rt_graph_spec bench_spec(uint32_t rows, uint32_t query_len)
{
    return (struct rt_graph_spec){
        .phase = RT_PHASE_DECODE, .rows = rows, .tokens = rows * query_len, .decode_rows = rows};
}

static inline enum rt_status bench_add_launch(struct rt_program *p, const char *label,
                                              uint32_t layer, const struct rt_launch *l,
                                              struct rt_error *err)
{
    const struct rt_work work = {.kind = RT_WORK_LAUNCH, .launch = *l};
    return rt_program_add(p, label, layer, &work, err);
}

static inline enum rt_status bench_add_call(struct rt_program *p, const char *label, uint32_t layer,
                                            struct rt_call call, struct rt_error *err)
{
    const struct rt_work work = {.kind = RT_WORK_CALL, .call = call};
    return rt_program_add(p, label, layer, &work, err);
}

static inline void assert_log(const struct host_bench *b, const int64_t *values, uint64_t count)
{
    assert_int_equal(b->log->count, count);
    assert_memory_equal(b->log->values, values, count * sizeof(*values));
}

#endif
