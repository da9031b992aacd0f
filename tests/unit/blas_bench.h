/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_BLAS_BENCH_H
#define RT_TESTS_UNIT_BLAS_BENCH_H

/*
 * A CUDA device of the stand-in, with memory for operands and cuBLASLt's stand-in beside it.
 *
 * Includes cmocka.h, so a test includes this last.
 */
#include "tests/unit/fake_cuda_blas.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MEM_BYTES 16384u
#define B_AT 4096u
#define BIAS_AT 8192u
#define D_AT 9216u
#define WORKSPACE_AT 12288u

struct blas_bench {
    struct rt_driver d;
    rt_addr block, mem; /* mem: MEM_BYTES in block, on 256 */
    rt_dstream s;
    rt_dlibrary library;
};

/* The context is entered; the library is not open. */
static inline void blas_bench_open_closed(struct blas_bench *b)
{
    const struct rt_image image = {.fatbin = "fake", .fatbin_bytes = 5};
    rt_dkernel kernel;
    memset(b, 0, sizeof(*b));
    fake_blas_reset();
    assert_int_equal(rt_driver_open_cuda(0, &b->d, NULL), RT_OK);
    struct rt_driver *const d = &b->d;
    assert_int_equal(d->ctx_enter(d), 0);
    assert_int_equal(d->mem_alloc(d, MEM_BYTES + 256, &b->block), 0);
    b->mem = (b->block + 255) / 256 * 256;
    for (uint32_t i = 0; i < MEM_BYTES / 2; i++) /* bf16: +-0.5 to 2 */
        ((uint16_t *)(uintptr_t)b->mem)[i] =
            (uint16_t)(0x3f00 + i * 37 % 251 + (i * 11 % 3 ? 0 : 0x8000));
    assert_int_equal(d->stream_create(d, &b->s), 0);
    assert_int_equal(d->library_load(d, &image, &b->library), 0);
    assert_int_equal(d->kernel_get(d, b->library, "rt_test_mad", &kernel), 0);
    fake_blas.cuda = rt_cuda_of(d);
    fake_blas.kernel = (CUfunction)kernel;
}

static inline void blas_bench_open(struct blas_bench *b)
{
    blas_bench_open_closed(b);
    assert_int_equal(rt_driver_open_blas(&b->d, NULL), RT_OK);
}

/* Nothing is left, of the library neither. */
static inline void blas_bench_close(struct blas_bench *b)
{
    struct rt_driver *const d = &b->d;
    assert_int_equal(d->library_unload(d, b->library), 0);
    assert_int_equal(d->stream_destroy(d, b->s), 0);
    assert_int_equal(d->mem_free(d, b->block), 0);
    assert_int_equal(d->ctx_leave(d), 0);
    assert_int_equal(d->probe.live, 0);
    rt_driver_close(d);
    assert_int_equal(fake_blas.objects, 0);
    assert_int_equal(fake_blas.handles, 0);
    assert_int_equal(fake_blas.loaded, 0);
}

/* In bf16, packed: a at 0, b at B_AT, d at D_AT. */
static inline struct rt_matmul blas_bench_product(const struct blas_bench *b, uint32_t m,
                                                  uint32_t n, uint32_t k)
{
    return (struct rt_matmul){.a = b->mem,
                              .b = b->mem + B_AT,
                              .d = b->mem + D_AT,
                              .input_dtype = RT_DTYPE_BF16,
                              .weight_dtype = RT_DTYPE_BF16,
                              .output_dtype = RT_DTYPE_BF16,
                              .batch = 1,
                              .m = m,
                              .n = n,
                              .k = k,
                              .a_row_stride = k,
                              .b_row_stride = k,
                              .b_column_stride = 1,
                              .d_row_stride = n};
}

static inline struct rt_matmul_plan *blas_bench_prepare(struct blas_bench *b,
                                                        const struct rt_matmul *m, uint32_t most)
{
    struct rt_matmul_plan *plan = NULL;
    assert_int_equal(b->d.matmul_prepare(&b->d, m, most, &plan), 0);
    return plan;
}

#define BLAS_BENCH_SHAPES 6
static inline struct rt_matmul blas_bench_shape(const struct blas_bench *b, int which)
{
    struct rt_matmul m = blas_bench_product(b, 4, 6, 8);
    switch (which) {
    case 0: /* rows apart, to f32 */
        m.a_row_stride = 24;
        m.b_row_stride = 11;
        m.d_row_stride = 9;
        m.output_dtype = RT_DTYPE_F32;
        break;
    case 1: /* across, with a bias */
        m.b_row_stride = 1;
        m.b_column_stride = 7;
        m.bias = b->mem + BIAS_AT;
        break;
    case 2: /* heads side by side, across */
        m.batch = 3;
        m.a_batch_stride = 8;
        m.a_row_stride = 24;
        m.b_batch_stride = 48;
        m.b_row_stride = 1;
        m.b_column_stride = 6;
        m.d_batch_stride = 6;
        m.d_row_stride = 18;
        break;
    case 3: /* one row, one weight for all of the batch, a bias */
        m.batch = 2;
        m.m = 1;
        m.a_row_stride = m.d_row_stride = 0;
        m.a_batch_stride = 8;
        m.d_batch_stride = 6;
        m.bias = b->mem + BIAS_AT;
        break;
    case 4: /* f32 throughout */
        m.input_dtype = m.weight_dtype = m.output_dtype = RT_DTYPE_F32;
        m.bias = b->mem + BIAS_AT;
        break;
    default: /* one column */
        m.n = 1;
        m.b_row_stride = 1;
        m.b_column_stride = 3;
        m.d_row_stride = 2;
    }
    return m;
}

/* d, and what lies around it, is what the host device makes of the same memory. */
static inline void blas_bench_assert_twin(const struct blas_bench *b, const struct rt_matmul *m,
                                          int which)
{
    struct rt_driver host;
    rt_addr copy;
    assert_int_equal(rt_driver_open_host(&host, NULL), RT_OK);
    assert_int_equal(host.mem_alloc(&host, MEM_BYTES, &copy), 0);
    memcpy((void *)(uintptr_t)copy, (const void *)(uintptr_t)b->mem, MEM_BYTES);
    struct rt_matmul twin = *m;
    twin.a += copy - b->mem;
    twin.b += copy - b->mem;
    twin.d += copy - b->mem;
    twin.bias += m->bias ? copy - b->mem : 0;
    assert_int_equal(host.matmul(&host, &twin, NULL), 0);
    if (memcmp((const void *)(uintptr_t)copy, (const void *)(uintptr_t)b->mem, MEM_BYTES) != 0)
        fail_msg("shape %d is not the twin's", which);
    assert_int_equal(host.mem_free(&host, copy), 0);
    rt_driver_close(&host);
}

#endif
