/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of replayrt/block_ops.h on the device, by our kernels and by the library: near the host
 * device's, the same bits from a captured graph as from a stream, and kernels alone in it.
 *
 * Numbers of x and weights are even within -1 and 1, so a sum of k products has the deviation
 * sqrt(k) / 3. Sums in float are off by far less than a 2^-10th of it, a norm's ties included; what
 * is rounded to bf16, on both sides, by a 2^-7th of the result.
 */
#include "replayrt/block_ops.h"
#include "common/bf16.h"
#include "common/math.h"
#include "runtime/ops_handle.h"
#include "tests/gpu/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_NODES 16u
#define POISON 0xa5

enum operand { X, W0, W1, BIAS0, BIAS1, NORM, Y, WORKSPACE, OPERANDS };

static const struct rt_product_shape shapes[] = {
    {.batch = 1, .vectors = 1, .k = 1536, .weights = {{.rows = 512}, {.rows = 576}}, .normed = 1},
    {.batch = 1, .vectors = 16, .k = 2048, .weights = {{.rows = 1000}}, .output = RT_DTYPE_F32},
    {.batch = 1,
     .vectors = 24,
     .k = 1536,
     .weights = {{.rows = 768, .biased = 1}, {.rows = 72, .biased = 1}},
     .normed = 1},
    {.batch = 16,
     .vectors = 4,
     .k = 128,
     .weights = {{.rows = 512, .row_stride = 1, .column_stride = 512}},
     .x_batch_stride = 192,
     .x_row_stride = 16 * 192,
     .y_batch_stride = 576,
     .y_row_stride = 16 * 576},
    {.batch = 1,
     .vectors = 8,
     .k = 256,
     .weights = {{.rows = 64, .row_stride = 1, .column_stride = 64}},
     .normed = 1},
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

struct bench {
    rt_ops *ops, *host;
    rt_dstream stream;
    struct rt_product_shape shape;
    uint64_t at[OPERANDS], y_bytes, bytes; /* where in one allocation they lie */
    unsigned char *truth, *eager, *replay; /* [bytes]; the first has the inputs too */
    rt_addr block;
};

/* Strides are zero or make the operands longer than batch times rows. */
static uint64_t extent(uint32_t batch, int64_t batch_stride, uint32_t rows, int64_t row_stride,
                       uint64_t width)
{
    const uint64_t row = row_stride ? (uint64_t)row_stride : width;
    return batch_stride ? (batch - 1) * (uint64_t)batch_stride + (rows - 1) * row + width
                        : batch * rows * row;
}

static void place(struct bench *b)
{
    const struct rt_product_shape *s = &b->shape;
    const uint64_t rows = (uint64_t)s->weights[0].rows + s->weights[1].rows;
    b->y_bytes = extent(s->batch, s->y_batch_stride, s->vectors, s->y_row_stride, rows) *
                 (s->output == RT_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t));
    const uint64_t bytes[OPERANDS] = {
        [X] = 2 * extent(s->batch, s->x_batch_stride, s->vectors, s->x_row_stride, s->k),
        [W0] = 2 * (uint64_t)s->batch * s->weights[0].rows * s->k,
        [W1] = 2 * (uint64_t)s->batch * s->weights[1].rows * s->k,
        [BIAS0] = 2 * (uint64_t)s->weights[0].rows,
        [BIAS1] = 2 * (uint64_t)s->weights[1].rows,
        [NORM] = 2 * (uint64_t)s->k,
        [Y] = b->y_bytes,
        [WORKSPACE] = UINT64_C(40) << 20};
    b->bytes = 0;
    for (int i = 0; i < OPERANDS; i++) {
        b->at[i] = b->bytes;
        b->bytes = rt_align_up_u64(b->bytes + bytes[i], RT_WORKSPACE_ALIGN);
    }
}

static struct rt_product_args args_at(const struct bench *b, uint64_t base)
{
    return (struct rt_product_args){.struct_size = sizeof(struct rt_product_args),
                                    .x = base + b->at[X],
                                    .y = base + b->at[Y],
                                    .weights = {base + b->at[W0], base + b->at[W1]},
                                    .biases = {base + b->at[BIAS0], base + b->at[BIAS1]},
                                    .norm_weight = base + b->at[NORM],
                                    .workspace = base + b->at[WORKSPACE]};
}

/* The inputs, and what the host device makes of them. */
static enum rt_status make_truth(struct bench *b)
{
    struct rt_product_shape s = b->shape;
    const struct rt_product_args args = args_at(b, (uintptr_t)b->truth);
    uint16_t *numbers = (uint16_t *)(void *)b->truth;
    uint64_t state = 9;
    rt_product *p = NULL;
    for (uint64_t i = 0; i < b->at[Y] / 2; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        numbers[i] = rt_float_to_bf16((float)(int32_t)(state >> 32) / 2147483648.0F);
    }
    memset(b->truth + b->at[Y], POISON, b->y_bytes);
    s.projections = RT_PROJECTIONS_OWN;
    RT_TRY(rt_product_create(b->host, &s, &p));
    const enum rt_status status = rt_product_run(p, &args, NULL);
    rt_product_destroy(&p);
    return status;
}

static double number(const struct bench *b, const unsigned char *y, uint64_t i)
{
    float value;
    uint16_t half;
    if (b->shape.output == RT_DTYPE_F32) {
        memcpy(&value, y + 4 * i, sizeof(value));
        return (double)value;
    }
    memcpy(&half, y + 2 * i, sizeof(half));
    return (double)rt_bf16_to_float(half);
}

/* What lies between rows is poison on both sides, and near itself. */
static enum gpu_outcome compare(const struct bench *b)
{
    const bool f32 = b->shape.output == RT_DTYPE_F32;
    const double deviation = sqrt(b->shape.k) / 3;
    for (uint64_t i = 0; i < b->y_bytes / (f32 ? 4 : 2); i++) {
        const double want = number(b, b->truth + b->at[Y], i), is = number(b, b->eager, i);
        if (!(fabs(is - want) <= deviation * 0x1p-10 + (f32 ? 0 : fabs(want) * 0x1p-7)))
            return gpu_fail("number %llu of y is %g, the host device's %g", (unsigned long long)i,
                            is, want);
    }
    return GPU_PASSED;
}

/* ---- on the device ---- */

static enum rt_status run_eager(struct bench *b, rt_product *p, const struct rt_product_args *args)
{
    struct rt_driver *d = &b->ops->driver;
    struct rt_error *err = &b->ops->error;
    RT_TRY(RT_DRV(d, err, copy_in, (d, b->block, b->truth, b->at[Y], b->stream)));
    RT_TRY(RT_DRV(d, err, fill, (d, args->y, POISON, b->y_bytes, b->stream)));
    RT_TRY(rt_product_run(p, args, b->stream));
    RT_TRY(RT_DRV(d, err, copy_out, (d, b->eager, args->y, b->y_bytes, b->stream)));
    return RT_DRV(d, err, stream_sync, (d, b->stream));
}

static enum rt_status expect_kernels(struct rt_driver *d, rt_dgraph graph, struct rt_error *err)
{
    rt_dnode nodes[MOST_NODES];
    uint32_t count = MOST_NODES;
    RT_TRY(RT_DRV(d, err, graph_nodes, (d, graph, nodes, &count)));
    RT_REQUIRE(count > 0 && count < MOST_NODES, err, RT_ERR_AUDIT, "%u nodes", count);
    for (uint32_t i = 0; i < count; i++) {
        struct rt_node_info info;
        RT_TRY(RT_DRV(d, err, graph_node_info, (d, nodes[i], &info)));
        RT_REQUIRE(info.type == RT_NODE_KERNEL, err, RT_ERR_AUDIT, "node %u is no kernel", i);
        RT_REQUIRE(!info.is_opaque, err, RT_ERR_AUDIT, "node %u does not tell its parameters", i);
    }
    return RT_OK;
}

static enum rt_status capture(struct bench *b, rt_product *p, const struct rt_product_args *args,
                              rt_dgraph graph)
{
    struct rt_driver *d = &b->ops->driver;
    struct rt_error *err = &b->ops->error;
    rt_dnode tails[4];
    uint32_t count = 0;
    RT_TRY(RT_DRV(d, err, graph_capture_begin, (d, graph, b->stream, NULL, 0)));
    const enum rt_status put = rt_product_run(p, args, b->stream);
    const int ended = d->graph_capture_end(d, graph, b->stream, tails, 4, &count);
    RT_TRY(put);
    RT_REQUIRE(ended == 0, err, RT_ERR_DRIVER, "the capture does not end well");
    return expect_kernels(d, graph, err);
}

static enum rt_status replay(struct bench *b, rt_dgraph graph, const struct rt_product_args *args)
{
    struct rt_driver *d = &b->ops->driver;
    struct rt_error *err = &b->ops->error;
    rt_dexec exec;
    RT_TRY(RT_DRV(d, err, graph_instantiate, (d, graph, b->stream, &exec)));
    enum rt_status status = RT_DRV(d, err, fill, (d, args->y, POISON, b->y_bytes, b->stream));
    if (status == RT_OK)
        status = RT_DRV(d, err, graph_launch, (d, exec, b->stream));
    if (status == RT_OK)
        status = RT_DRV(d, err, copy_out, (d, b->replay, args->y, b->y_bytes, b->stream));
    if (status == RT_OK)
        status = RT_DRV(d, err, stream_sync, (d, b->stream));
    (void)d->exec_destroy(d, exec);
    return status;
}

static enum rt_status run_graph(struct bench *b, rt_product *p, const struct rt_product_args *args)
{
    struct rt_driver *d = &b->ops->driver;
    rt_dgraph graph;
    if (d->caps.kind == RT_DEVICE_KIND_HOST) { /* captures nothing */
        memcpy(b->replay, b->eager, b->y_bytes);
        return RT_OK;
    }
    RT_TRY(RT_DRV(d, &b->ops->error, graph_create, (d, &graph)));
    enum rt_status status = capture(b, p, args, graph);
    if (status == RT_OK)
        status = replay(b, graph, args);
    (void)d->graph_destroy(d, graph);
    return status;
}

static enum gpu_outcome check_product(struct bench *b, rt_product *p)
{
    const struct rt_product_args args = args_at(b, b->block);
    struct rt_product_info info = {.struct_size = sizeof(info)};
    if (rt_product_get_info(p, &info) != RT_OK ||
        info.workspace_bytes > b->bytes - b->at[WORKSPACE])
        return gpu_fail("%llu bytes of workspace", (unsigned long long)info.workspace_bytes);
    if (run_eager(b, p, &args) != RT_OK || run_graph(b, p, &args) != RT_OK)
        return gpu_fail("%s: %s", info.kernel, rt_ops_last_error(b->ops)->message);
    if (memcmp(b->eager, b->replay, b->y_bytes) != 0)
        return gpu_fail("%s: the graph's result is not the stream's", info.kernel);
    if (compare(b) != GPU_PASSED)
        return gpu_fail("%s", info.kernel);
    printf("    %u x %u vectors of %u by %u + %u rows: %s; %s\n", b->shape.batch, b->shape.vectors,
           b->shape.k, b->shape.weights[0].rows, b->shape.weights[1].rows, info.kernel,
           info.reason);
    return GPU_PASSED;
}

/* By whoever is asked for. */
static enum gpu_outcome check_shape(struct bench *b)
{
    enum gpu_outcome outcome = GPU_PASSED;
    for (int who = RT_PROJECTIONS_AUTO; who <= RT_PROJECTIONS_OWN; who++) {
        rt_product *p = NULL;
        b->shape.projections = (enum rt_projections)who;
        const enum rt_status status = rt_product_create(b->ops, &b->shape, &p);
        if (status == RT_ERR_UNSUPPORTED && who == RT_PROJECTIONS_CUBLASLT)
            printf("    %s\n", rt_ops_last_error(b->ops)->message);
        else if (status != RT_OK)
            outcome = gpu_fail("%s", rt_ops_last_error(b->ops)->message);
        else if (check_product(b, p) != GPU_PASSED)
            outcome = GPU_FAILED;
        rt_product_destroy(&p);
    }
    return outcome;
}

static enum gpu_outcome check_all(struct bench *b)
{
    struct rt_driver *d = &b->ops->driver;
    enum gpu_outcome outcome = GPU_PASSED;
    for (size_t i = 0; i < SHAPES; i++) {
        b->shape = shapes[i];
        b->shape.struct_size = sizeof(b->shape);
        b->shape.norm_eps = 1e-6F;
        place(b);
        b->truth = aligned_alloc(RT_WORKSPACE_ALIGN, b->bytes);
        b->eager = malloc(b->y_bytes);
        b->replay = malloc(b->y_bytes);
        if (!b->truth || !b->eager || !b->replay || d->mem_alloc(d, b->bytes, &b->block) != 0)
            outcome = gpu_fail("no memory for operands");
        else if (make_truth(b) != RT_OK)
            outcome = gpu_fail("%s", rt_ops_last_error(b->host)->message);
        else if (check_shape(b) != GPU_PASSED)
            outcome = GPU_FAILED;
        if (b->block)
            (void)d->mem_free(d, b->block);
        b->block = 0;
        free(b->truth);
        free(b->eager);
        free(b->replay);
    }
    return outcome;
}

enum gpu_outcome gpu_block_ops(const struct gpu_suite *suite)
{
    struct bench b = {.ops = NULL};
    struct rt_error err = {.status = RT_OK};
    enum gpu_outcome outcome = GPU_FAILED;
    if (rt_ops_create("host", &b.host, &err) != RT_OK ||
        rt_ops_create(suite->device, &b.ops, &err) != RT_OK) {
        rt_ops_destroy(&b.host);
        return gpu_fail("%s", err.message);
    }
    struct rt_driver *d = &b.ops->driver;
    const bool host = d->caps.kind == RT_DEVICE_KIND_HOST; /* has no streams of its own */
    const uint64_t live = d->probe.live;
    if (d->ctx_enter(d) == 0) {
        if (host || d->stream_create(d, &b.stream) == 0)
            outcome = check_all(&b);
        if (b.stream)
            (void)d->stream_destroy(d, b.stream);
        (void)d->ctx_leave(d);
    }
    if (d->probe.live != live)
        outcome = gpu_fail("%llu objects are left", (unsigned long long)(d->probe.live - live));
    rt_ops_destroy(&b.ops);
    rt_ops_destroy(&b.host);
    return outcome;
}
