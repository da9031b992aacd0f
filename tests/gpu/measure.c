/* SPDX-License-Identifier: Apache-2.0 */
/* Measuring attention on the device: whatever serves a shape there agrees with the generic kernel,
 * and a runtime can run on the pool of a measurement. */
#include "bench/measure.h"
#include "tests/gpu/suite.h"

#include <stdio.h>
#include <stdlib.h>

enum { NOISE_BYTES = 1 << 20 };

/* Both signs, a few tenths at most: two kernels that round differently must still agree. */
static uint16_t *make_noise(void)
{
    uint16_t *noise = malloc(NOISE_BYTES);
    uint64_t x = 7;
    for (int i = 0; noise && i < NOISE_BYTES / 2; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        noise[i] = (uint16_t)((x >> 3 & 0x8000) | (117 + (x >> 20) % 8) << 7 | (x >> 40 & 0x7f));
    }
    return noise;
}

static enum gpu_outcome one_shape(rt_measure *m, uint32_t heads, uint32_t query_len, uint32_t d_qk,
                                  uint32_t d_v, uint32_t page_size)
{
    const int32_t lengths[] = {(int32_t)query_len, 64, 65, 1000, 300, 8, 129, 513};
    const struct rt_measure_attention_params p = {.batch = 8,
                                                  .lengths = lengths,
                                                  .query_len = query_len,
                                                  .heads = heads,
                                                  .d_qk = d_qk,
                                                  .d_v = d_v,
                                                  .page_size = page_size,
                                                  .causal = query_len > 1,
                                                  .softmax_scale = 0.1352338f,
                                                  .replays = 1};
    struct rt_measure_attention_result r = {0};
    if (rt_measure_attention(m, &p, &r) != RT_OK)
        return gpu_fail("%s", rt_measure_last_error(m)->message);
    if (r.problem[0])
        return gpu_fail("%u heads, query length %u, %u/%u, page %u, %s: %s", heads, query_len, d_qk,
                        d_v, page_size, r.kernel, r.problem);
    if (!(r.layer_ns > 0 && r.append_attend_ns > 0 && r.schedule_ns > 0 && r.append_ns > 0))
        return gpu_fail("%s: a time is not above 0", r.kernel);
    return GPU_PASSED;
}

static enum gpu_outcome all_shapes(rt_measure *m, bool quick)
{
    static const uint32_t geometries[][2] = {{576, 512}, {320, 256}, {288, 256}, {512, 512}};
    static const struct {
        uint32_t heads, query_len, page_size;
    } shapes[] = {{16, 1, 64}, {128, 1, 64}, {16, 2, 64}, {5, 3, 16}, {128, 2, 128}};
    enum gpu_outcome outcome = GPU_PASSED;
    for (uint32_t g = 0; g < (quick ? 1u : 4u); g++)
        for (uint32_t i = 0; i < (quick ? 1u : 5u) && outcome == GPU_PASSED; i++)
            outcome = one_shape(m, shapes[i].heads, shapes[i].query_len, geometries[g][0],
                                geometries[g][1], shapes[i].page_size);
    return outcome;
}

/* The pool lent: a runtime of the same device steps on it and gives it back unharmed. */
static enum gpu_outcome lend_pool(const struct gpu_suite *suite, rt_measure *m)
{
    struct rt_config config;
    struct rt_sizes sizes = {.struct_size = sizeof(sizes)};
    struct rt_memory_region pool;
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    gpu_config(suite, &config);
    if (rt_sizes(&config, &sizes, &error) != RT_OK)
        return gpu_fail("%s", error.message);
    if (rt_measure_pool(m, sizes.pool_bytes, &pool) != RT_OK)
        return gpu_fail("%s", rt_measure_last_error(m)->message);
    const struct rt_create_params params = {.struct_size = sizeof(params),
                                            .config = &config,
                                            .pool_address = pool.address,
                                            .pool_bytes = pool.bytes};
    if (rt_create(&params, &rt, &error) != RT_OK)
        return gpu_fail("%s", error.message);
    const struct rt_seq_params past = {
        .struct_size = sizeof(past), .length = 200, .last_token = -1};
    rt_seq seq;
    uint64_t ticket;
    enum gpu_outcome outcome = GPU_PASSED;
    const struct rt_step_params step = {.struct_size = sizeof(step), .rows = 1, .seqs = &seq};
    if (rt_seq_open(rt, &past, &seq) != RT_OK || rt_step(rt, &step, &ticket) != RT_OK ||
        rt_wait(rt, ticket, UINT64_MAX) != RT_OK)
        outcome = gpu_fail("%s", rt_last_error(rt)->message);
    rt_destroy(&rt);
    return outcome == GPU_PASSED ? one_shape(m, 16, 1, 576, 512, 64) : outcome;
}

enum gpu_outcome gpu_measure(const struct gpu_suite *suite)
{
    uint16_t *noise = make_noise();
    const struct rt_measure_params params = {
        .device = suite->device, .noise = noise, .noise_bytes = NOISE_BYTES};
    struct rt_measure_info info = {0};
    struct rt_error error = {0};
    rt_measure *m = NULL;
    enum gpu_outcome outcome;
    if (!noise || rt_measure_create(&params, &m, &error) != RT_OK ||
        rt_measure_get_info(m, &info) != RT_OK)
        outcome = gpu_fail("%s", noise ? error.message : "no memory");
    else
        outcome = all_shapes(m, suite->quick);
    if (outcome == GPU_PASSED && !info.host)
        outcome = lend_pool(suite, m);
    rt_measure_destroy(&m);
    free(noise);
    return outcome;
}
