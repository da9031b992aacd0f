/* SPDX-License-Identifier: Apache-2.0 */
/* Two ways to the same numbers: the GPU's runtime against the host device's, and the operators
 * against the runtime. */
#include "kernels/ref/ref.h"
#include "replayrt/ops.h"
#include "runtime/runtime.h"
#include "tests/gpu/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* bf16 outputs of two correct kernels differ by their roundings: FlashMLA's bound, for inputs like
 * FlashMLA's, a few tenths at most. */
static bool close_enough(uint16_t a, uint16_t b)
{
    float x = rt_bf16_to_float(a), y = rt_bf16_to_float(b), d = fabsf(x - y);
    return d <= 8e-4f || d <= fabsf(y) * 2.01f / 128;
}

static uint16_t draw_bf16(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    x *= 0x2545F4914F6CDD1Dull;
    return (uint16_t)((x >> 3 & 0x8000) | (115 + (x >> 20) % 8) << 7 | (x >> 40 & 0x7f));
}

struct pair {
    rt_runtime *rts[2]; /* the device, the host */
    rt_seq seqs[2][8];
};

static bool same_input(struct pair *p, const char *name, uint64_t bytes, uint64_t *state)
{
    uint16_t *data = malloc(bytes);
    if (!data)
        return false;
    for (uint64_t i = 0; i < bytes / 2; i++)
        data[i] = draw_bf16(state);
    bool ok = true;
    for (int k = 0; k < 2; k++)
        ok &= rt_tensor_write(p->rts[k], name, 0, 0, data, bytes) == RT_OK;
    free(data);
    return ok;
}

static enum gpu_outcome same_output(struct pair *p, uint64_t count, uint32_t step)
{
    uint16_t *out[2] = {malloc(count * 2), malloc(count * 2)};
    enum gpu_outcome outcome = out[0] && out[1] ? GPU_PASSED : GPU_FAILED;
    for (int k = 0; k < 2 && outcome == GPU_PASSED; k++)
        if (rt_tensor_read(p->rts[k], "out", 0, 0, out[k], count * 2) != RT_OK)
            outcome = gpu_fail("%s", rt_last_error(p->rts[k])->message);
    for (uint64_t i = 0; i < count && outcome == GPU_PASSED; i++)
        if (!close_enough(out[0][i], out[1][i]))
            outcome =
                gpu_fail("step %u, element %llu: device %g, host %g", step, (unsigned long long)i,
                         (double)rt_bf16_to_float(out[0][i]), (double)rt_bf16_to_float(out[1][i]));
    free(out[0]);
    free(out[1]);
    return outcome;
}

enum gpu_outcome gpu_host_agrees(const struct gpu_suite *suite)
{
    struct rt_config config;
    struct pair p = {0};
    for (int k = 0; k < 2; k++) {
        gpu_config(suite, &config);
        if (k)
            strcpy(config.device, "host");
        const struct rt_create_params params = {.struct_size = sizeof(params), .config = &config};
        struct rt_error error = {0};
        if (rt_create(&params, &p.rts[k], &error) != RT_OK)
            return gpu_fail("%s", error.message);
        for (int s = 0; s < 8; s++)
            rt_seq_open(p.rts[k], NULL, &p.seqs[k][s]);
    }
    uint64_t state = 99;
    enum gpu_outcome outcome = GPU_PASSED;
    for (uint32_t step = 0; step < (suite->quick ? 10u : 120u) && outcome == GPU_PASSED; step++) {
        uint32_t rows = 1 + step % 8, q = 1 + step % 2;
        if (!same_input(&p, "q", (uint64_t)rows * q * 16 * 576 * 2, &state) ||
            !same_input(&p, "latent", (uint64_t)rows * q * 576 * 2, &state))
            outcome = gpu_fail("input");
        for (int k = 0; k < 2; k++) {
            const struct rt_step_params s = {
                .struct_size = sizeof(s), .rows = rows, .query_len = q, .seqs = p.seqs[k]};
            uint64_t ticket;
            if (rt_step(p.rts[k], &s, &ticket) != RT_OK ||
                rt_wait(p.rts[k], ticket, UINT64_MAX) != RT_OK)
                outcome = gpu_fail("%s", rt_last_error(p.rts[k])->message);
        }
        if (outcome == GPU_PASSED)
            outcome = same_output(&p, (uint64_t)rows * q * 16 * 512, step);
    }
    rt_destroy(&p.rts[0]);
    rt_destroy(&p.rts[1]);
    return outcome;
}

/* ---- operators on a runtime's memory must write what the runtime wrote -------------------- */

static uint64_t address(rt_runtime *rt, const char *name)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    return rt_tensor(rt, name, 0, &t) == RT_OK ? t.address : 0;
}

static enum gpu_outcome decode_again(rt_runtime *rt, rt_ops *ops, uint32_t rows)
{
    const struct rt_placement *l = &rt->blueprint.placement;
    const struct rt_mla_shape shape = {.struct_size = sizeof(shape),
                                       .batch = rows,
                                       .query_len = 1,
                                       .heads = 16,
                                       .d_qk = 576,
                                       .d_v = 512,
                                       .page_size = 64,
                                       .max_blocks = l->max_blocks,
                                       .pages = (uint32_t)l->dims.pages,
                                       .causal = 1};
    const struct rt_mla_schedule_buffers shared = {address(rt, "parts"), address(rt, "num_splits")};
    const struct rt_mla_schedule_args schedule = {.struct_size = sizeof(schedule),
                                                  .shape = shape,
                                                  .lengths = address(rt, "lengths"),
                                                  .schedule = shared};
    const struct rt_mla_decode_args decode = {.struct_size = sizeof(decode),
                                              .softmax_scale = 0.1352337788608801f,
                                              .shape = shape,
                                              .q = address(rt, "q"),
                                              .kv = address(rt, "kv"),
                                              .block_table = address(rt, "block_table"),
                                              .lengths = address(rt, "lengths"),
                                              .schedule = shared,
                                              .partial_out = address(rt, "partial_out"),
                                              .partial_lse = address(rt, "partial_lse"),
                                              .out = address(rt, "out"),
                                              .lse = address(rt, "lse")};
    void *stream = rt->driver.caps.kind == RT_DEVICE_KIND_HOST ? NULL : rt->stream;
    if (rt_mla_schedule(ops, &schedule, stream) != RT_OK ||
        rt_mla_decode(ops, &decode, stream) != RT_OK)
        return gpu_fail("%s", rt_ops_last_error(ops)->message);
    return GPU_PASSED;
}

enum gpu_outcome gpu_operators(const struct gpu_suite *suite)
{
    enum { ROWS = 4, BYTES = ROWS * 16 * 512 * 2 };
    struct rt_config config;
    gpu_config(suite, &config);
    config.geometry.layers = 1;
    const struct rt_create_params params = {.struct_size = sizeof(params), .config = &config};
    struct rt_error error = {0};
    struct pair p = {0};
    rt_ops *ops = NULL;
    if (rt_create(&params, &p.rts[0], &error) != RT_OK ||
        rt_ops_create(suite->device, &ops, &error) != RT_OK)
        return gpu_fail("%s", error.message);
    rt_runtime *rt = p.rts[1] = p.rts[0];
    for (int s = 0; s < ROWS; s++) /* slots 0..3 are table lines 0..3 */
        rt_seq_open(rt, NULL, &p.seqs[0][s]);
    uint64_t state = 5, ticket = 0;
    enum gpu_outcome outcome = GPU_PASSED;
    for (int step = 0; step < 70 && outcome == GPU_PASSED; step++) {
        const struct rt_step_params s = {.struct_size = sizeof(s), .rows = ROWS, .seqs = p.seqs[0]};
        if (!same_input(&p, "q", ROWS * 16 * 576 * 2, &state) ||
            !same_input(&p, "latent", ROWS * 576 * 2, &state) ||
            rt_step(rt, &s, &ticket) != RT_OK || rt_wait(rt, ticket, UINT64_MAX) != RT_OK)
            outcome = gpu_fail("%s", rt_last_error(rt)->message);
    }
    unsigned char *first = malloc(BYTES), *second = malloc(BYTES);
    if (outcome == GPU_PASSED && first && second) {
        memset(second, 0xff, BYTES);
        rt_tensor_read(rt, "out", 0, 0, first, BYTES);
        rt_tensor_write(rt, "out", 0, 0, second, BYTES);
        outcome = decode_again(rt, ops, ROWS);
        rt_tensor_read(rt, "out", 0, 0, second, BYTES);
        if (outcome == GPU_PASSED && memcmp(first, second, BYTES) != 0)
            outcome = gpu_fail("the operators' output differs from the runtime's");
    }
    free(first);
    free(second);
    rt_ops_destroy(&ops);
    rt_destroy(&p.rts[0]);
    return outcome;
}
