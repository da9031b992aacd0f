/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime on the device: cost, failure, order, threads. */
#include "runtime/runtime.h"
#include "tests/gpu/suite.h"
#include "tests/support/fail_driver.h"
#include "tools/verify.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rt_runtime *create(const struct rt_config *config)
{
    const struct rt_create_params params = {.struct_size = sizeof(params), .config = config};
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    if (rt_create(&params, &rt, &error) != RT_OK)
        gpu_fail("rt_create: %s: %s", rt_status_string(error.status), error.message);
    return rt;
}

static bool open_many(rt_runtime *rt, rt_seq *seqs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (rt_seq_open(rt, NULL, &seqs[i]) != RT_OK)
            return false;
    return true;
}

static enum rt_status step(rt_runtime *rt, const rt_seq *seqs, uint32_t rows, uint64_t *ticket)
{
    const struct rt_step_params p = {.struct_size = sizeof(p), .rows = rows, .seqs = seqs};
    return rt_step(rt, &p, ticket);
}

enum gpu_outcome gpu_one_launch(const struct gpu_suite *suite)
{
    struct rt_config config;
    gpu_config(suite, &config);
    rt_runtime *rt = create(&config);
    rt_seq seqs[16];
    if (!rt || !open_many(rt, seqs, 16))
        return GPU_FAILED;
    enum gpu_outcome outcome = GPU_PASSED;
    /* compute-sanitizer's racecheck keeps every launch: a hundred steps take it 128 GiB */
    for (uint32_t i = 0; i < (suite->quick ? 16u : 100u); i++) {
        uint64_t ticket, before = rt->driver.probe.calls;
        uint64_t launches = rt->driver.probe.per_op[RT_DOP_graph_launch];
        if (step(rt, seqs, 1 + i % 16, &ticket) != RT_OK)
            outcome = gpu_fail("step %u: %s", i, rt_last_error(rt)->message);
        if (rt->driver.probe.calls - before != 1 ||
            rt->driver.probe.per_op[RT_DOP_graph_launch] - launches != 1)
            outcome = gpu_fail("step %u made %" PRIu64 " driver calls", i,
                               rt->driver.probe.calls - before);
        if (rt_wait(rt, ticket, UINT64_MAX) != RT_OK)
            outcome = gpu_fail("wait %u: %s", i, rt_last_error(rt)->message);
    }
    rt_destroy(&rt);
    return outcome;
}

/* Far more steps than the ring is deep, never waited for but when it is full. */
enum gpu_outcome gpu_run_ahead(const struct gpu_suite *suite)
{
    struct rt_config config;
    gpu_config(suite, &config);
    rt_runtime *rt = create(&config);
    rt_seq seqs[16];
    if (!rt || !open_many(rt, seqs, 16))
        return GPU_FAILED;
    uint64_t ticket = 0, busy = 0;
    enum gpu_outcome outcome = GPU_PASSED;
    const uint32_t steps = suite->quick ? 30 : 500;
    for (uint32_t i = 0; i < steps && outcome == GPU_PASSED;) {
        enum rt_status status = step(rt, seqs, 1 + (i * 7) % 16, &ticket);
        if (status == RT_ERR_BUSY)
            busy++;
        else if (status == RT_OK)
            i++;
        else
            outcome = gpu_fail("step %u: %s", i, rt_last_error(rt)->message);
    }
    if (outcome == GPU_PASSED && rt_wait(rt, ticket, 10000000000u) != RT_OK)
        outcome = gpu_fail("wait: %s", rt_last_error(rt)->message);
    for (uint32_t s = 0; s < 16 && outcome == GPU_PASSED; s++) {
        uint32_t host_length = 0;
        int32_t device_length = 0;
        rt_seq_length(rt, seqs[s], &host_length);
        rt_tensor_read(rt, "slot_lengths", 0, (uint32_t)seqs[s] * sizeof(int32_t), &device_length,
                       sizeof(device_length));
        if ((int32_t)host_length != device_length)
            outcome = gpu_fail("sequence %u: host %u, device %d", s, host_length, device_length);
    }
    if (outcome == GPU_PASSED)
        printf("    %u steps, ring full %" PRIu64 " times\n", steps, busy);
    rt_destroy(&rt);
    return outcome;
}

/* A step from a thread that never made the device's context current. */
struct other_thread {
    rt_runtime *rt;
    const rt_seq *seqs;
    enum rt_status status;
};

static void *step_and_wait(void *arg)
{
    struct other_thread *t = arg;
    uint64_t ticket;
    t->status = step(t->rt, t->seqs, 3, &ticket);
    if (t->status == RT_OK)
        t->status = rt_wait(t->rt, ticket, 5000000000u);
    return NULL;
}

enum gpu_outcome gpu_other_thread(const struct gpu_suite *suite)
{
    struct rt_config config;
    gpu_config(suite, &config);
    rt_runtime *rt = create(&config);
    rt_seq seqs[3];
    pthread_t thread;
    if (!rt || !open_many(rt, seqs, 3))
        return GPU_FAILED;
    struct other_thread t = {.rt = rt, .seqs = seqs};
    enum gpu_outcome outcome = GPU_PASSED;
    if (pthread_create(&thread, NULL, step_and_wait, &t) != 0)
        outcome = gpu_fail("pthread_create failed");
    else
        pthread_join(thread, NULL);
    if (outcome == GPU_PASSED && t.status != RT_OK)
        outcome = gpu_fail("%s", rt_last_error(rt)->message);
    rt_destroy(&rt);
    return outcome;
}

enum gpu_outcome gpu_two_runtimes(const struct gpu_suite *suite)
{
    struct rt_config config;
    gpu_config(suite, &config);
    rt_runtime *rts[2] = {create(&config), create(&config)};
    rt_seq seqs[2][4];
    if (!rts[0] || !rts[1] || !open_many(rts[0], seqs[0], 4) || !open_many(rts[1], seqs[1], 4))
        return GPU_FAILED;
    enum gpu_outcome outcome = GPU_PASSED;
    uint64_t tickets[2] = {0};
    for (uint32_t i = 0; i < (suite->quick ? 8u : 200u) && outcome == GPU_PASSED; i++)
        for (int k = 0; k < 2; k++) {
            if (tickets[k] && rt_wait(rts[k], tickets[k], UINT64_MAX) != RT_OK)
                outcome = gpu_fail("runtime %d: %s", k, rt_last_error(rts[k])->message);
            if (step(rts[k], seqs[k], 1 + (i + (uint32_t)k) % 4, &tickets[k]) != RT_OK)
                outcome = gpu_fail("runtime %d: %s", k, rt_last_error(rts[k])->message);
        }
    rt_destroy(&rts[0]);
    if (outcome == GPU_PASSED && (rt_wait(rts[1], tickets[1], UINT64_MAX) != RT_OK ||
                                  step(rts[1], seqs[1], 4, NULL) != RT_OK))
        outcome = gpu_fail("after the other is gone: %s", rt_last_error(rts[1])->message);
    rt_destroy(&rts[1]);
    return outcome;
}

/* An address that is nobody's, baked into a node, must be found. */
enum gpu_outcome gpu_audit(const struct gpu_suite *suite)
{
    struct rt_config config;
    gpu_config(suite, &config);
    rt_runtime *rt = create(&config);
    if (!rt)
        return GPU_FAILED;
    enum gpu_outcome outcome = GPU_PASSED;
    if (rt_audit(rt) != RT_OK)
        outcome = gpu_fail("%s", rt_last_error(rt)->message);
    uint64_t bytes = rt->regions[1].bytes;
    rt->regions[1].bytes = 64; /* as if the pool had moved */
    if (rt_audit(rt) != RT_ERR_AUDIT)
        outcome = gpu_fail("a pool that is not registered went unnoticed");
    else
        printf("    %s\n", rt_last_error(rt)->message);
    rt->regions[1].bytes = bytes;
    rt_destroy(&rt);
    return outcome;
}

enum gpu_outcome gpu_nothing_leaks(const struct gpu_suite *suite)
{
    struct rt_config config;
    gpu_config(suite, &config);
    uint64_t before = 0, after = 0, total;
    rt_runtime *rt = create(&config); /* the first one pays for the context */
    rt_destroy(&rt);
    struct rt_driver d;
    char why[160];
    if (rt_driver_open(suite->device, &d, why, sizeof(why), NULL) != RT_OK || d.ctx_enter(&d) != 0)
        return gpu_fail("cannot open %s", suite->device);
    (void)d.mem_info(&d, &before, &total);
    for (int i = 0; i < 5; i++) {
        rt = create(&config);
        rt_destroy(&rt);
    }
    (void)d.mem_info(&d, &after, &total);
    (void)d.ctx_leave(&d);
    rt_driver_close(&d);
    printf("    free before %" PRIu64 ", after five runtimes %" PRIu64 "\n", before, after);
    /* The host device's free memory is the machine's: others use it too. */
    bool leaked = strcmp(suite->device, "host") != 0 && after + (4u << 20) < before;
    return leaked ? gpu_fail("%" PRIu64 " bytes are gone", before - after) : GPU_PASSED;
}

enum gpu_outcome gpu_every_call_fails_once(const struct gpu_suite *suite)
{
    struct rt_config config;
    gpu_config(suite, &config);
    config.geometry.layers = 1;
    config.batch_size_count = suite->quick ? 1 : 2;
    uint64_t calls = 0;
    for (uint64_t n = 1 + suite->part;; n += suite->parts) {
        const struct rt_create_params params = {.struct_size = sizeof(params), .config = &config};
        struct rt_error error = {0};
        rt_runtime *rt = NULL;
        fail_driver_arm(n);
        enum rt_status status = rt_create(&params, &rt, &error);
        fail_driver_arm(0);
        if (status == RT_OK) {
            calls = rt->driver.probe.calls;
            rt->driver.probe.fail_at = 0;
            rt_destroy(&rt);
            if (fail_driver_live())
                return gpu_fail("%" PRIu64 " objects leaked", fail_driver_live());
            if (calls >= n)
                return gpu_fail("call %" PRIu64 " failed but rt_create said ok", n);
            break;
        }
        if (rt || fail_driver_live() || !strstr(error.message, "injected failure"))
            return gpu_fail("call %" PRIu64 ": %" PRIu64 " objects leaked; \"%s\"", n,
                            fail_driver_live(), error.message);
    }
    printf("    of %" PRIu64 " driver calls one in %u failed once\n", calls, suite->parts);
    return GPU_PASSED;
}

struct shape {
    struct rt_geometry geometry;
    uint32_t page_size, steps;
    uint32_t batches[4], batch_count, queries[3], query_count;
};

static enum gpu_outcome replay_shape(const struct gpu_suite *suite, const struct shape *s)
{
    struct rt_config config;
    gpu_config(suite, &config);
    config.geometry = s->geometry;
    config.page_size = s->page_size;
    memcpy(config.batch_sizes, s->batches, sizeof(s->batches));
    config.batch_size_count = s->batch_count;
    memcpy(config.query_lens, s->queries, sizeof(s->queries));
    config.query_len_count = s->query_count;
    config.max_sequences = s->batches[s->batch_count - 1] + 5;
    const struct verify_options options = {.steps = suite->quick ? 4 : s->steps, .seed = 7};
    struct verify_report report;
    struct rt_error error = {0};
    if (verify_replay(&config, &options, &report, &error) != RT_OK)
        return gpu_fail("%u heads %u+%u: %s: %s", s->geometry.heads, s->geometry.kv_lora_rank,
                        s->geometry.qk_rope_head_dim, rt_status_string(error.status),
                        error.message);
    printf("    %3u heads %u+%u page %3u: %" PRIu64 " graphs, %" PRIu64 " steps, %" PRIu64
           " live, %" PRIu64 " padded rows, %" PRIu64 " forks, %" PRIu64 " rewinds\n",
           s->geometry.heads, s->geometry.kv_lora_rank, s->geometry.qk_rope_head_dim, s->page_size,
           report.graphs, report.steps, report.rows, report.padded_rows, report.forks,
           report.rewinds);
    return GPU_PASSED;
}

enum gpu_outcome gpu_replay(const struct gpu_suite *suite)
{
    static const struct shape shapes[] = {
        {{16, 512, 64, 2, 0.1352}, 64, 1000, {1, 2, 4, 8}, 4, {1, 2, 4}, 3},
        {{5, 256, 64, 2, 0.07}, 16, 250, {1, 3, 32}, 3, {1, 3}, 2},
        {{40, 256, 32, 1, 0.1}, 32, 250, {2, 7}, 2, {1, 8}, 2},
        {{128, 512, 0, 1, 0.06}, 128, 100, {3}, 1, {1, 2}, 2},
        {{1, 512, 64, 61, 0.1352}, 64, 100, {64}, 1, {1}, 1},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        if (replay_shape(suite, &shapes[i]) != GPU_PASSED)
            return GPU_FAILED;
    return GPU_PASSED;
}
