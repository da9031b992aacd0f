/* SPDX-License-Identifier: Apache-2.0 */
/* Products and exchanges in plain C: what on CUDA are cuBLASLt and NCCL. Sums in double. */
#include "common/bf16.h"
#include "driver/comm/comm.h"
#include "driver/host/host_parts.h"
#include "driver/matmul_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_float(enum rt_dtype dtype)
{
    return dtype == RT_DTYPE_BF16 || dtype == RT_DTYPE_F32;
}

static int check_spans(const struct rt_host *h, const struct rt_span *spans, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const int rc = rt_host_check_range(h, spans[i].address, spans[i].bytes);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int rt_host_check_matmul(const struct rt_host *h, const struct rt_matmul *m)
{
    struct rt_span spans[RT_MAX_SPANS];
    if (!is_float(m->input_dtype) || !is_float(m->weight_dtype) || !is_float(m->output_dtype) ||
        (m->b_row_stride != 1 && m->b_column_stride != 1))
        return RT_HOST_INVALID;
    const uint32_t count = rt_matmul_spans(m, spans);
    return h->trusting ? 0 : check_spans(h, spans, count);
}

/* Sums are of floats, and groups divide the ranks. */
static bool is_possible(const struct rt_collective *c)
{
    switch (c->kind) {
    case RT_ALL_REDUCE:
    case RT_REDUCE_SCATTER:
        return is_float(c->dtype);
    case RT_ALL_GATHER:
        break;
    case RT_ALL_TO_ALL:
        return c->group > 0 && c->ranks % c->group == 0;
    }
    return true;
}

/* A group of one needs no communicator. */
int rt_host_check_collective(const struct rt_host *h, const struct rt_collective *c)
{
    struct rt_span spans[RT_MAX_SPANS];
    if (rt_dtype_bytes(c->dtype) == 0 || !is_possible(c) ||
        c->ranks != (c->comm ? c->comm->ranks : 1) || (c->comm && !c->comm->exchange))
        return RT_HOST_INVALID;
    return check_spans(h, spans, rt_collective_spans(c, spans));
}

static double load(rt_addr base, int64_t element, enum rt_dtype dtype)
{
    if (dtype == RT_DTYPE_F32)
        return (double)((const float *)(uintptr_t)base)[element];
    return (double)rt_bf16_to_float(((const uint16_t *)(uintptr_t)base)[element]);
}

static void store(rt_addr base, int64_t element, enum rt_dtype dtype, double value)
{
    if (dtype == RT_DTYPE_F32)
        ((float *)(uintptr_t)base)[element] = (float)value;
    else
        ((uint16_t *)(uintptr_t)base)[element] = rt_float_to_bf16((float)value);
}

static double product(const struct rt_matmul *m, uint32_t z, uint32_t i, uint32_t j)
{
    const int64_t a = z * m->a_batch_stride + i * m->a_row_stride;
    const int64_t b = z * m->b_batch_stride + j * m->b_row_stride;
    double sum = m->bias ? load(m->bias, j, m->weight_dtype) : 0;
    for (uint32_t l = 0; l < m->k; l++)
        sum += load(m->a, a + l, m->input_dtype) *
               load(m->b, b + l * m->b_column_stride, m->weight_dtype);
    return sum;
}

void rt_host_run_matmul(const struct rt_matmul *m)
{
    for (uint32_t z = 0; z < m->batch; z++)
        for (uint32_t i = 0; i < m->m; i++)
            for (uint32_t j = 0; j < m->n; j++)
                store(m->d, z * m->d_batch_stride + i * m->d_row_stride + j, m->output_dtype,
                      product(m, z, i, j));
}

int rt_host_run_collective(struct rt_host *h, const struct rt_collective *c)
{
    if (c->comm)
        return rt_comm_exchange(h->table, c, NULL);
    if (c->count == 0) /* and no buffers, which memmove must not be given */
        return 0;
    memmove((void *)(uintptr_t)c->to, (const void *)(uintptr_t)c->from,
            (size_t)(c->count * rt_dtype_bytes(c->dtype)));
    return 0;
}

/* ---- plans ---- */

/* There is one way to do it; a plan is needed by nobody here and held to its rules all the same. */
struct host_plan {
    struct rt_matmul_plan plan; /* first: what others see of it */
    struct rt_matmul product;   /* that it was made of */
};

int rt_host_check_plan(const struct rt_matmul *m)
{
    const struct host_plan *const p = (const struct host_plan *)(const void *)m->plan;
    return !p || rt_matmul_plan_serves(&p->product, m) ? 0 : RT_HOST_INVALID;
}

static enum rt_status open_blas(struct rt_driver *d, struct rt_error *err)
{
    (void)d;
    (void)err;
    return RT_OK;
}

static int matmul_prepare(struct rt_driver *d, const struct rt_matmul *m, uint32_t most,
                          struct rt_matmul_plan **out)
{
    if (rt_probe_enter(d, RT_DOP_matmul_prepare))
        return RT_DRIVER_INJECTED;
    if (!m || most == 0 || !rt_matmul_plannable(m))
        return RT_HOST_INVALID;
    struct host_plan *const p = calloc(1, sizeof(*p));
    if (!p)
        return RT_HOST_NO_MEMORY;
    *p = (struct host_plan){.plan.candidates = 1, .product = *m};
    snprintf(p->plan.text, sizeof(p->plan.text), "plain C");
    d->probe.live++;
    *out = &p->plan;
    return 0;
}

static int matmul_select(struct rt_driver *d, struct rt_matmul_plan *plan, uint32_t i)
{
    if (rt_probe_enter(d, RT_DOP_matmul_select))
        return RT_DRIVER_INJECTED;
    return plan && i < plan->candidates ? 0 : RT_HOST_INVALID;
}

static int matmul_release(struct rt_driver *d, struct rt_matmul_plan *plan)
{
    const bool injected = rt_probe_enter(d, RT_DOP_matmul_release);
    if (!plan)
        return RT_HOST_INVALID;
    free(plan);
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : 0;
}

void rt_driver_host_trust(struct rt_driver *d)
{
    rt_host_of(d)->trusting = true;
}

void rt_host_bind_twins(struct rt_driver *d)
{
    d->open_blas = open_blas;
    d->matmul_prepare = matmul_prepare;
    d->matmul_select = matmul_select;
    d->matmul_release = matmul_release;
}
