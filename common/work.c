/* SPDX-License-Identifier: Apache-2.0 */
#include "common/work.h"

#include "common/math.h"

#include <inttypes.h>
#include <stdio.h>

uint32_t rt_dtype_bytes(enum rt_dtype dtype)
{
    switch (dtype) {
    case RT_DTYPE_U8:
        return 1;
    case RT_DTYPE_BF16:
        return 2;
    case RT_DTYPE_F32:
    case RT_DTYPE_I32:
        return 4;
    }
    return 0;
}

const char *rt_dtype_name(enum rt_dtype dtype)
{
    switch (dtype) {
    case RT_DTYPE_U8:
        return "u8";
    case RT_DTYPE_BF16:
        return "bf16";
    case RT_DTYPE_F32:
        return "f32";
    case RT_DTYPE_I32:
        return "i32";
    }
    return "?";
}

static const char *collective_name(enum rt_collective_kind kind)
{
    switch (kind) {
    case RT_ALL_REDUCE:
        return "all_reduce";
    case RT_ALL_GATHER:
        return "all_gather";
    case RT_REDUCE_SCATTER:
        return "reduce_scatter";
    case RT_ALL_TO_ALL:
        return "all_to_all";
    }
    return "?";
}

const char *rt_work_name(const struct rt_work *work)
{
    switch (work->kind) {
    case RT_WORK_LAUNCH:
        return work->launch.entry;
    case RT_WORK_MATMUL:
        return "matmul";
    case RT_WORK_COLLECTIVE:
        return collective_name(work->collective.kind);
    case RT_WORK_CALL:
        break;
    }
    return "callback";
}

/* What snprintf says is written, within what there was room for. */
static size_t written(int length, size_t room)
{
    return length <= 0 ? 0 : (size_t)length < room ? (size_t)length : room;
}

static void describe_launch(const struct rt_launch *l, char *text, size_t bytes)
{
    size_t used = written(snprintf(text, bytes, "grid %ux%ux%u block %ux%ux%u", l->grid[0],
                                   l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2]),
                          bytes);
    if (l->cluster_x > 1)
        used +=
            written(snprintf(text + used, bytes - used, " cluster %u", l->cluster_x), bytes - used);
    if (l->cooperative)
        used += written(snprintf(text + used, bytes - used, " cooperative"), bytes - used);
    if (l->smem_bytes > 0)
        (void)snprintf(text + used, bytes - used, "\n%u bytes shared", l->smem_bytes);
}

/* "bf16 to f32", or with weights that differ "f32 by bf16 to f32". */
static void describe_matmul(const struct rt_matmul *m, char *text, size_t bytes)
{
    const bool mixed = m->weight_dtype != m->input_dtype;
    (void)snprintf(text, bytes, "%u x [%u, %u] by [%u, %u], %s%s%s to %s%s%s%s", m->batch, m->m,
                   m->k, m->n, m->k, rt_dtype_name(m->input_dtype), mixed ? " by " : "",
                   mixed ? rt_dtype_name(m->weight_dtype) : "", rt_dtype_name(m->output_dtype),
                   m->bias ? ", bias" : "", m->plan ? "\n" : "", m->plan ? m->plan->text : "");
}

void rt_work_describe(const struct rt_work *work, char *text, size_t bytes)
{
    const struct rt_collective *const c = &work->collective;
    if (bytes > 0)
        text[0] = '\0';
    switch (work->kind) {
    case RT_WORK_LAUNCH:
        describe_launch(&work->launch, text, bytes);
        break;
    case RT_WORK_MATMUL:
        describe_matmul(&work->matmul, text, bytes);
        break;
    case RT_WORK_COLLECTIVE:
        (void)snprintf(text, bytes, "%" PRIu64 " %s, %u ranks", c->count, rt_dtype_name(c->dtype),
                       c->kind == RT_ALL_TO_ALL ? c->group : c->ranks);
        break;
    case RT_WORK_CALL:
        break;
    }
}

/* a * b + c; UINT64_MAX where that or a factor is beyond 64 bits. */
static uint64_t far(uint64_t a, int64_t b, uint64_t c)
{
    uint64_t r;
    if (b < 0 || !rt_mul_u64(a, (uint64_t)b, &r) || !rt_add_u64(r, c, &r))
        return UINT64_MAX;
    return r;
}

/* Bytes from the first element of [x, y, z] with these strides to behind its last. */
static uint64_t extent(uint32_t x, int64_t x_stride, uint32_t y, int64_t y_stride, uint32_t z,
                       int64_t z_stride, enum rt_dtype dtype)
{
    if (x == 0 || y == 0 || z == 0)
        return 0;
    const uint64_t last = far(x - 1u, x_stride, far(y - 1u, y_stride, far(z - 1u, z_stride, 0)));
    uint64_t bytes;
    if (last == UINT64_MAX || !rt_mul_u64(last + 1, rt_dtype_bytes(dtype), &bytes))
        return UINT64_MAX;
    return bytes;
}

uint32_t rt_matmul_spans(const struct rt_matmul *m, struct rt_span spans[RT_MAX_SPANS])
{
    uint32_t count = 0;
    spans[count++] = (struct rt_span){
        "a", m->a,
        extent(m->batch, m->a_batch_stride, m->m, m->a_row_stride, m->k, 1, m->input_dtype)};
    spans[count++] = (struct rt_span){"b", m->b,
                                      extent(m->batch, m->b_batch_stride, m->n, m->b_row_stride,
                                             m->k, m->b_column_stride, m->weight_dtype)};
    spans[count++] = (struct rt_span){
        "d", m->d,
        extent(m->batch, m->d_batch_stride, m->m, m->d_row_stride, m->n, 1, m->output_dtype)};
    if (m->bias)
        spans[count++] =
            (struct rt_span){"bias", m->bias, (uint64_t)m->n * rt_dtype_bytes(m->weight_dtype)};
    if (m->workspace_bytes > 0)
        spans[count++] = (struct rt_span){"workspace", m->workspace, m->workspace_bytes};
    return count;
}

uint32_t rt_collective_spans(const struct rt_collective *c, struct rt_span spans[RT_MAX_SPANS])
{
    const bool swaps = c->kind == RT_ALL_TO_ALL;
    uint64_t one, all;
    if (!rt_mul_u64(c->count, rt_dtype_bytes(c->dtype), &one))
        one = UINT64_MAX;
    if (!rt_mul_u64(one, swaps ? c->group : c->ranks, &all))
        all = UINT64_MAX;
    spans[0] = (struct rt_span){"from", c->from, swaps || c->kind == RT_REDUCE_SCATTER ? all : one};
    spans[1] = (struct rt_span){"to", c->to, swaps || c->kind == RT_ALL_GATHER ? all : one};
    return 2;
}
