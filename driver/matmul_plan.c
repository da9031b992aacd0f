/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/matmul_plan.h"

static bool is_float(enum rt_dtype dtype)
{
    return dtype == RT_DTYPE_BF16 || dtype == RT_DTYPE_F32;
}

static bool is_size(uint32_t size)
{
    return size > 0 && size <= INT32_MAX;
}

static bool lies_well(uint32_t rows, uint32_t width, int64_t row_stride, int64_t batch_stride)
{
    return row_stride >= 0 && batch_stride >= 0 &&
           rt_matmul_pitch(rows, width, row_stride) >= (int64_t)width;
}

bool rt_matmul_plannable(const struct rt_matmul *m)
{
    if (!is_size(m->batch) || !is_size(m->m) || !is_size(m->n) || !is_size(m->k))
        return false;
    if (!is_float(m->input_dtype) || !is_float(m->weight_dtype) || !is_float(m->output_dtype))
        return false;
    if (m->b_column_stride != 1 && m->b_row_stride != 1)
        return false;
    const bool b_lies_well = rt_matmul_b_has_rows_of_k(m)
                                 ? lies_well(m->n, m->k, m->b_row_stride, m->b_batch_stride)
                                 : lies_well(m->k, m->n, m->b_column_stride, m->b_batch_stride);
    return b_lies_well && lies_well(m->m, m->k, m->a_row_stride, m->a_batch_stride) &&
           lies_well(m->m, m->n, m->d_row_stride, m->d_batch_stride);
}

/* Of a stride only the lowest bit counts, so it does not matter where the product wraps. */
static uint32_t alignment(rt_addr address, uint64_t row_stride, uint64_t batch_stride,
                          enum rt_dtype dtype)
{
    const uint64_t bits =
        address | (row_stride | batch_stride) * rt_dtype_bytes(dtype) | RT_MATMUL_MAX_ALIGN;
    return (uint32_t)(bits & (~bits + 1));
}

/* A stride that leads nowhere is no stride. */
static uint64_t step(uint32_t count, int64_t stride)
{
    return count > 1 ? (uint64_t)stride : 0;
}

struct rt_matmul_alignment rt_matmul_alignment(const struct rt_matmul *m)
{
    const uint64_t b_row =
        rt_matmul_b_has_rows_of_k(m) ? step(m->n, m->b_row_stride) : step(m->k, m->b_column_stride);
    return (struct rt_matmul_alignment){
        .a = alignment(m->a, step(m->m, m->a_row_stride), step(m->batch, m->a_batch_stride),
                       m->input_dtype),
        .b = alignment(m->b, b_row, step(m->batch, m->b_batch_stride), m->weight_dtype),
        .bias = alignment(m->bias, 0, 0, m->weight_dtype),
        .d = alignment(m->d, step(m->m, m->d_row_stride), step(m->batch, m->d_batch_stride),
                       m->output_dtype)};
}

uint32_t rt_matmul_named(const struct rt_matmul *m, const uint64_t *words, uint32_t count)
{
    uint32_t named = 0;
    for (uint32_t i = 0; i < count; i++) {
        named |= words[i] == m->a ? RT_OPERAND_A : 0;
        named |= words[i] == m->b ? RT_OPERAND_B : 0;
        named |= words[i] == m->d ? RT_OPERAND_D : 0;
        named |= m->bias && words[i] == m->bias ? RT_OPERAND_BIAS : 0;
    }
    return named;
}

static bool same_product(const struct rt_matmul *p, const struct rt_matmul *m)
{
    return p->input_dtype == m->input_dtype && p->weight_dtype == m->weight_dtype &&
           p->output_dtype == m->output_dtype && p->batch == m->batch && p->m == m->m &&
           p->n == m->n && p->k == m->k && !p->bias == !m->bias;
}

static bool same_strides(const struct rt_matmul *p, const struct rt_matmul *m)
{
    return p->a_batch_stride == m->a_batch_stride && p->a_row_stride == m->a_row_stride &&
           p->b_batch_stride == m->b_batch_stride && p->b_row_stride == m->b_row_stride &&
           p->b_column_stride == m->b_column_stride && p->d_batch_stride == m->d_batch_stride &&
           p->d_row_stride == m->d_row_stride;
}

bool rt_matmul_same_shape(const struct rt_matmul *a, const struct rt_matmul *b)
{
    return same_product(a, b) && same_strides(a, b);
}

bool rt_matmul_alike(const struct rt_matmul *a, const struct rt_matmul *b)
{
    const struct rt_matmul_alignment x = rt_matmul_alignment(a), y = rt_matmul_alignment(b);
    return rt_matmul_same_shape(a, b) && x.a == y.a && x.b == y.b && x.bias == y.bias && x.d == y.d;
}

static bool has_workspace(const struct rt_matmul *m, uint64_t bytes)
{
    return bytes == 0 || (m->workspace != 0 && m->workspace % RT_WORKSPACE_ALIGN == 0 &&
                          m->workspace_bytes >= bytes);
}

bool rt_matmul_plan_serves(const struct rt_matmul *planned, const struct rt_matmul *m)
{
    if (!rt_matmul_same_shape(planned, m))
        return false;
    const struct rt_matmul_alignment want = rt_matmul_alignment(planned);
    const struct rt_matmul_alignment is = rt_matmul_alignment(m);
    return is.a >= want.a && is.b >= want.b && is.bias >= want.bias && is.d >= want.d &&
           has_workspace(m, m->plan->workspace_bytes);
}
