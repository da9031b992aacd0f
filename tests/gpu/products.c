/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products as a layer has them, in every way that the device's library offers: near the host
 * device's, the same bits from a graph as from a stream, and a graph that the audit passes.
 *
 * The bound of an element. Sums are made in float, in any order and with truncation: each of k
 * additions is off by at most 2^-23 of sum |a b| <= |a_i| |b_j|. What is compared with is in
 * float, and rounding to d's dtype is off by 2^-8 (bf16) or 2^-23 (f32) of the result.
 */
#include "common/bf16.h"
#include "common/math.h"
#include "graphs/audit.h"
#include "tests/gpu/suite.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POISON 0xc3
#define ALIGN 256u
#define WORKSPACE_BYTES (UINT64_C(32) << 20)
#define MOST_WAYS 8u
#define MANY_ROWS 64u /* left out of quick runs */

#define BF16                                                                                       \
    .input_dtype = RT_DTYPE_BF16, .weight_dtype = RT_DTYPE_BF16, .output_dtype = RT_DTYPE_BF16
#define F32 .input_dtype = RT_DTYPE_F32, .weight_dtype = RT_DTYPE_F32, .output_dtype = RT_DTYPE_F32
#define PACKED(rows, columns, sum)                                                                 \
    .batch = 1, .m = (rows), .n = (columns), .k = (sum), .a_row_stride = (sum),                    \
    .b_row_stride = (sum), .b_column_stride = 1, .d_row_stride = (columns)
/* b as k rows of n. */
#define ACROSS(rows, columns, sum)                                                                 \
    .batch = 1, .m = (rows), .n = (columns), .k = (sum), .a_row_stride = (sum), .b_row_stride = 1, \
    .b_column_stride = (columns), .d_row_stride = (columns)
/* 16 heads of 128 + 64 into heads of 512 + 64, by the upper half of kv_b as it lies. */
#define W_UK(rows)                                                                                 \
    .batch = 16, .m = (rows), .n = 512, .k = 128, .a_batch_stride = 192, .a_row_stride = 16 * 192, \
    .b_batch_stride = 256 * 512, .b_row_stride = 1, .b_column_stride = 512, .d_batch_stride = 576, \
    .d_row_stride = 16 * 576
/* 16 heads of 512 into heads of 128, by its lower half. */
#define W_UV(rows)                                                                                 \
    .batch = 16, .m = (rows), .n = 128, .k = 512, .a_batch_stride = 512, .a_row_stride = 16 * 512, \
    .b_batch_stride = 256 * 512, .b_row_stride = 512, .b_column_stride = 1, .d_batch_stride = 128, \
    .d_row_stride = 16 * 128
#define BIASED .bias = 1 /* gets its address with the others */

static const struct product {
    const char *name;
    struct rt_matmul shape;
} products[] = {
    {"q_a of 1 row", {BF16, PACKED(1, 1536, 4096)}},
    {"kv_a of 7 rows, with a bias", {BF16, PACKED(7, 576, 2048), BIASED}},
    {"q_b of 64 rows, 5 heads of 192", {BF16, PACKED(MANY_ROWS, 5 * 192, 768)}},
    {"q_b of 7 rows, 5 heads of 192, with a bias", {BF16, PACKED(7, 5 * 192, 1536), BIASED}},
    {"o of 7 rows by a weight across", {BF16, ACROSS(7, 1280, 1024)}},
    {"W_UK of 1 row", {BF16, W_UK(1)}},
    {"W_UK of 7 rows", {BF16, W_UK(7)}},
    {"W_UK of 64 rows", {BF16, W_UK(MANY_ROWS)}},
    {"W_UV of 1 row", {BF16, W_UV(1)}},
    {"W_UV of 7 rows", {BF16, W_UV(7)}},
    {"bf16 to f32 of 1 row",
     {PACKED(1, 256, 2048), .input_dtype = RT_DTYPE_BF16, .weight_dtype = RT_DTYPE_BF16,
      .output_dtype = RT_DTYPE_F32}},
    {"f32 of 7 rows", {F32, PACKED(7, 96, 512)}},
    {"f32 of 64 rows by a weight across, with a bias", {F32, ACROSS(MANY_ROWS, 64, 256), BIASED}},
};

struct bench {
    struct rt_driver *d;
    rt_dstream s;
    rt_addr workspace;

    /* Of one product: on the device, and on the host device with a result in float. */
    struct rt_driver host;
    struct rt_matmul m, twin;
    rt_addr block, copy, wide;
    uint64_t bytes, d_bytes;
    unsigned char *eager, *replay; /* d as it came out */
    double *a_norms, *b_norms;     /* of the rows of [batch, m, k] and [batch, n, k] */
    double worst;                  /* error / bound */
};

/* ---- operands ---- */

static double at(rt_addr base, int64_t i, enum rt_dtype dtype)
{
    return dtype == RT_DTYPE_F32 ? (double)((const float *)(uintptr_t)base)[i]
                                 : (double)rt_bf16_to_float(((const uint16_t *)(uintptr_t)base)[i]);
}

/* Numbers in [-1, 1), also between the rows. */
static void draw(rt_addr base, uint64_t bytes, enum rt_dtype dtype, uint64_t *state)
{
    for (uint64_t i = 0; i < bytes / rt_dtype_bytes(dtype); i++) {
        *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        const float value = (float)(int32_t)(*state >> 32) / 2147483648.0F;
        if (dtype == RT_DTYPE_F32)
            ((float *)(uintptr_t)base)[i] = value;
        else
            ((uint16_t *)(uintptr_t)base)[i] = rt_float_to_bf16(value);
    }
}

static double *norms(rt_addr base, enum rt_dtype dtype, const uint32_t sizes[3],
                     const int64_t strides[3])
{
    double *const out = calloc((size_t)sizes[0] * sizes[1], sizeof(*out));
    for (uint32_t z = 0; out && z < sizes[0]; z++)
        for (uint32_t i = 0; i < sizes[1]; i++) {
            double sum = 0;
            for (uint32_t l = 0; l < sizes[2]; l++) {
                const double x = at(base, z * strides[0] + i * strides[1] + l * strides[2], dtype);
                sum += x * x;
            }
            out[z * sizes[1] + i] = sqrt(sum);
        }
    return out;
}

/* Addresses from 0 on, as the operands' spans are long. */
static void place(struct bench *b, const struct rt_matmul *shape)
{
    struct rt_span spans[RT_MAX_SPANS];
    b->m = *shape;
    rt_addr *const addresses[] = {&b->m.a, &b->m.b, &b->m.d, &b->m.bias};
    const uint32_t count = rt_matmul_spans(shape, spans);
    b->bytes = 0;
    b->d_bytes = spans[2].bytes;
    for (uint32_t i = 0; i < count; i++) {
        *addresses[i] = b->bytes;
        b->bytes = rt_align_up_u64(b->bytes + spans[i].bytes, ALIGN);
    }
    b->twin = b->m;
    b->twin.output_dtype = RT_DTYPE_F32;
}

static void move(struct rt_matmul *m, rt_addr base, bool has_bias)
{
    m->a += base;
    m->b += base;
    m->d += base;
    m->bias = has_bias ? m->bias + base : 0;
}

static bool has_memory(struct bench *b)
{
    struct rt_span spans[RT_MAX_SPANS];
    (void)rt_matmul_spans(&b->twin, spans);
    b->eager = malloc(b->d_bytes);
    b->replay = malloc(b->d_bytes);
    return b->eager && b->replay && rt_driver_open_host(&b->host, NULL) == RT_OK &&
           b->host.mem_alloc(&b->host, b->bytes, &b->copy) == 0 &&
           b->host.mem_alloc(&b->host, spans[2].bytes, &b->wide) == 0 &&
           b->d->mem_alloc(b->d, b->bytes, &b->block) == 0;
}

/* The operands on both, and what the twin makes of them. */
static bool set_up(struct bench *b, const struct rt_matmul *shape)
{
    struct rt_span spans[RT_MAX_SPANS];
    uint64_t state = 7;
    place(b, shape);
    if (!has_memory(b))
        return false;
    move(&b->m, b->block, shape->bias != 0);
    move(&b->twin, b->copy, shape->bias != 0);
    const struct rt_matmul *const t = &b->twin;
    (void)rt_matmul_spans(t, spans);
    draw(t->a, spans[0].bytes, t->input_dtype, &state);
    draw(t->b, spans[1].bytes, t->weight_dtype, &state);
    if (t->bias)
        draw(t->bias, spans[3].bytes, t->weight_dtype, &state);
    b->a_norms = norms(t->a, t->input_dtype, (const uint32_t[]){t->batch, t->m, t->k},
                       (const int64_t[]){t->a_batch_stride, t->a_row_stride, 1});
    b->b_norms = norms(t->b, t->weight_dtype, (const uint32_t[]){t->batch, t->n, t->k},
                       (const int64_t[]){t->b_batch_stride, t->b_row_stride, t->b_column_stride});
    b->twin.d = b->wide;
    return b->a_norms && b->b_norms && b->host.matmul(&b->host, t, NULL) == 0 &&
           b->d->copy_in(b->d, b->block, (const void *)(uintptr_t)b->copy, b->bytes, b->s) == 0 &&
           b->d->stream_sync(b->d, b->s) == 0;
}

static void tear_down(struct bench *b)
{
    if (b->block)
        (void)b->d->mem_free(b->d, b->block);
    if (b->wide)
        (void)b->host.mem_free(&b->host, b->wide);
    if (b->copy)
        (void)b->host.mem_free(&b->host, b->copy);
    rt_driver_close(&b->host);
    free(b->eager);
    free(b->replay);
    free(b->a_norms);
    free(b->b_norms);
    *b = (struct bench){.d = b->d, .s = b->s, .workspace = b->workspace};
}

/* ---- results ---- */

static double bound(const struct bench *b, uint32_t z, uint32_t i, uint32_t j, double want)
{
    const struct rt_matmul *const t = &b->twin;
    const double size = b->a_norms[z * t->m + i] * b->b_norms[z * t->n + j] +
                        (t->bias ? fabs(at(t->bias, j, t->weight_dtype)) : 0);
    const double rounding = b->m.output_dtype == RT_DTYPE_BF16 ? 1.0 / 256 : FLT_EPSILON;
    return (t->k + 1) * (double)FLT_EPSILON * size + rounding * fabs(want);
}

static enum gpu_outcome check_element(struct bench *b, uint32_t z, uint32_t i, uint32_t j)
{
    const int64_t where = z * b->m.d_batch_stride + i * b->m.d_row_stride + j;
    const double want = at(b->wide, where, RT_DTYPE_F32);
    const double is = at((uintptr_t)b->eager, where, b->m.output_dtype);
    const double error = fabs(is - want) / bound(b, z, i, j, want);
    if (!(error <= 1))
        return gpu_fail("d[%u, %u, %u] is %g, the twin's %g, which is %.1f times the bound", z, i,
                        j, is, want, error);
    b->worst = error > b->worst ? error : b->worst;
    memset(b->eager + (uint64_t)where * rt_dtype_bytes(b->m.output_dtype), POISON,
           rt_dtype_bytes(b->m.output_dtype));
    return GPU_PASSED;
}

/* Uses b->eager up: an element that was looked at is poison again, as is all around them. */
static enum gpu_outcome check_result(struct bench *b)
{
    for (uint32_t z = 0; z < b->m.batch; z++)
        for (uint32_t i = 0; i < b->m.m; i++)
            for (uint32_t j = 0; j < b->m.n; j++)
                if (check_element(b, z, i, j) != GPU_PASSED)
                    return GPU_FAILED;
    for (uint64_t i = 0; i < b->d_bytes; i++)
        if (b->eager[i] != POISON)
            return gpu_fail("byte %llu between d's rows was written", (unsigned long long)i);
    return GPU_PASSED;
}

/* ---- one way ---- */

static bool poison(struct bench *b)
{
    return b->d->fill(b->d, b->m.d, POISON, b->d_bytes, b->s) == 0;
}

static bool read_back(struct bench *b, unsigned char *to)
{
    return b->d->copy_out(b->d, to, b->m.d, b->d_bytes, b->s) == 0 &&
           b->d->stream_sync(b->d, b->s) == 0;
}

static enum rt_status run_eager(struct bench *b, struct rt_error *err)
{
    RT_REQUIRE(poison(b), err, RT_ERR_DRIVER, "the result cannot be poisoned");
    RT_TRY(RT_DRV(b->d, err, matmul, (b->d, &b->m, b->s)));
    RT_REQUIRE(read_back(b, b->eager), err, RT_ERR_DRIVER, "the result cannot be read");
    return RT_OK;
}

static enum rt_status run_graph(struct bench *b, struct rt_error *err)
{
    const struct rt_work work = {.kind = RT_WORK_MATMUL, .matmul = b->m};
    const struct rt_audit_region regions[] = {
        {.base = b->block, .bytes = b->bytes, .name = "operands"},
        {.base = b->workspace, .bytes = WORKSPACE_BYTES, .name = "workspace"}};
    struct rt_program p = {
        .spec = {
            .phase = RT_PHASE_DECODE, .rows = b->m.m, .tokens = b->m.m, .decode_rows = b->m.m}};
    struct rt_graph g = {.exec = NULL};
    enum rt_status status;
    RT_TRY_GOTO(rt_program_add(&p, "product", RT_NO_LAYER, &work, err));
    RT_TRY_GOTO(rt_graph_build(&p, b->d, b->s, &g, err));
    RT_TRY_GOTO(rt_graph_audit(&g, &p, b->d, regions, 2, err));
    RT_TRY_GOTO(rt_graph_instantiate(&g, b->d, b->s, err));
    if (!poison(b))
        status = rt_fail(err, RT_ERR_DRIVER, "the result cannot be poisoned");
    else
        status = RT_DRV(b->d, err, graph_launch, (b->d, g.exec, b->s));
    if (status == RT_OK && !read_back(b, b->replay))
        status = rt_fail(err, RT_ERR_DRIVER, "the result cannot be read");
fail:
    rt_graph_free(&g, b->d);
    rt_program_free(&p);
    return status;
}

/* Skipped: one that the audit refuses, as it does a way that fills memory first; the runtime does
 * not choose it (runtime/fastest.c). */
static enum gpu_outcome check_way(struct bench *b)
{
    struct rt_error err = {.status = RT_OK};
    if (run_eager(b, &err) != RT_OK)
        return gpu_fail("%s", err.message);
    const enum rt_status status = run_graph(b, &err);
    if (status == RT_ERR_AUDIT)
        return check_result(b) == GPU_PASSED ? GPU_SKIPPED : GPU_FAILED;
    if (status != RT_OK)
        return gpu_fail("%s", err.message);
    if (memcmp(b->eager, b->replay, b->d_bytes) != 0)
        return gpu_fail("the graph's result is not the stream's");
    return check_result(b);
}

static enum gpu_outcome check_ways(struct bench *b, const char *name)
{
    struct rt_error err = {.status = RT_OK};
    struct rt_matmul_plan *plan = NULL;
    char first[RT_MATMUL_PLAN_TEXT];
    b->m.workspace = b->workspace;
    b->m.workspace_bytes = WORKSPACE_BYTES;
    if (RT_DRV(b->d, &err, matmul_prepare, (b->d, &b->m, MOST_WAYS, &plan)) != RT_OK)
        return gpu_fail("%s: %s", name, err.message);
    memcpy(first, plan->text, sizeof(first));
    b->m.plan = plan;
    enum gpu_outcome outcome = GPU_PASSED;
    uint32_t refused = 0;
    for (uint32_t i = 0; i < plan->candidates && outcome != GPU_FAILED; i++) {
        if (b->d->matmul_select(b->d, plan, i) != 0)
            outcome = gpu_fail("way %u cannot be selected", i);
        else
            outcome = check_way(b);
        refused += outcome == GPU_SKIPPED;
        if (outcome == GPU_FAILED)
            (void)gpu_fail("%s: way %u of %u: %s", name, i, plan->candidates, plan->text);
    }
    if (outcome != GPU_FAILED && refused == plan->candidates)
        outcome = gpu_fail("%s: the audit refuses all %u ways", name, refused);
    if (outcome != GPU_FAILED) {
        outcome = GPU_PASSED;
        printf(
            "    %s: %u ways, %u refused by the audit, the first %s; at most %.3f of the bound\n",
            name, plan->candidates, refused, first, b->worst);
    }
    return b->d->matmul_release(b->d, plan) == 0 ? outcome : GPU_FAILED;
}

/* All are tried, whatever one says. */
static enum gpu_outcome check_products(struct bench *b, bool quick)
{
    enum gpu_outcome outcome = GPU_PASSED;
    for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++) {
        const struct product *const p = &products[i];
        if (quick && p->shape.m == MANY_ROWS)
            continue;
        enum gpu_outcome one = GPU_FAILED;
        if (set_up(b, &p->shape))
            one = check_ways(b, p->name);
        else
            (void)gpu_fail("%s: no memory for its operands", p->name);
        tear_down(b);
        outcome = one == GPU_PASSED ? outcome : GPU_FAILED;
    }
    return outcome;
}

enum gpu_outcome gpu_products(const struct gpu_suite *suite)
{
    struct rt_driver d;
    struct bench b = {.d = &d};
    struct rt_error err = {.status = RT_OK};
    if (rt_driver_open(suite->device, &d, NULL, 0, &err) != RT_OK)
        return gpu_fail("%s", err.message);
    enum gpu_outcome outcome = GPU_FAILED;
    const enum rt_status opened = rt_driver_open_blas(&d, &err);
    if (opened != RT_OK) {
        (void)gpu_fail("%s", err.message);
        outcome = opened == RT_ERR_UNSUPPORTED ? GPU_SKIPPED : GPU_FAILED;
    } else if (d.ctx_enter(&d) == 0) {
        if (d.stream_create(&d, &b.s) == 0 && d.mem_alloc(&d, WORKSPACE_BYTES, &b.workspace) == 0)
            outcome = check_products(&b, suite->quick);
        if (b.workspace)
            (void)d.mem_free(&d, b.workspace);
        if (b.s)
            (void)d.stream_destroy(&d, b.s);
        (void)d.ctx_leave(&d);
        if (d.probe.live != 0)
            outcome = gpu_fail("%llu objects are left", (unsigned long long)d.probe.live);
    }
    rt_driver_close(&d);
    return outcome;
}
