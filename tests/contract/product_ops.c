/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of replayrt/block_ops.h: every shape against its sums in double, by our kernels and by
 * the library, whoever was asked for; who is taken and why; and what is refused, by name. The same
 * program runs with the CUDA kernels, emulated.
 */
#include "replayrt/block_ops.h"
#include "runtime/ops_handle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/values.h"

#define NUMBERS (1u << 18) /* of each tensor, at most */
#define POISON 0xa5u
#define EPS 1e-5

struct rig {
    rt_ops *ops;
    uint64_t random;
    uint16_t *x, *w[2], *bias[2], *norm;
    unsigned char *y, *workspace;
};

static void *numbers(struct rig *r, bool random)
{
    uint16_t *to = aligned_alloc(256, NUMBERS * sizeof(uint32_t));
    assert_non_null(to);
    memset(to, POISON, NUMBERS * sizeof(uint32_t));
    for (size_t i = 0; random && i < NUMBERS; i++)
        to[i] = rt_float_to_bf16((float)(int32_t)fixture_random(&r->random) / 2147483648.0f);
    return to;
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    r->random = 5;
    assert_int_equal(rt_ops_create("host", &r->ops, NULL), RT_OK);
    r->x = numbers(r, true);
    r->norm = numbers(r, true);
    r->y = numbers(r, false);
    r->workspace = numbers(r, false);
    for (int i = 0; i < 2; i++) {
        r->w[i] = numbers(r, true);
        r->bias[i] = numbers(r, true);
    }
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    rt_ops_destroy(&r->ops);
    void *const all[] = {r->x,    r->norm, r->y,       r->workspace,
                         r->w[0], r->w[1], r->bias[0], r->bias[1]};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
    free(r);
    return 0;
}

/* ---- values ---- */

struct product_case {
    uint32_t batch, vectors, k, rows[2];
    bool across, biased, normed, f32;
    bool inside;        /* batches lie inside of a vector's row, with gaps */
    const char *kernel; /* of ours, where Hopper's serve: how its name ends */
};

static struct rt_product_shape shape_of(const struct product_case *c)
{
    struct rt_product_shape s = {.struct_size = sizeof(s),
                                 .batch = c->batch,
                                 .vectors = c->vectors,
                                 .k = c->k,
                                 .normed = c->normed,
                                 .norm_eps = (float)EPS,
                                 .norm_offset = 1,
                                 .norm_scale = c->normed ? 0.5f : 0,
                                 .output = c->f32 ? RT_DTYPE_F32 : 0};
    for (int i = 0; i < 2; i++) {
        s.weights[i].rows = c->rows[i];
        s.weights[i].biased = c->biased;
        if (c->across) {
            s.weights[i].row_stride = 1;
            s.weights[i].column_stride = (c->rows[i] + 7) / 8 * 8 + 8;
        }
    }
    if (c->inside) {
        s.x_batch_stride = c->k + 8;
        s.x_row_stride = (int64_t)c->batch * (c->k + 8);
        s.y_batch_stride = c->rows[0] + c->rows[1] + 3;
        s.y_row_stride = (int64_t)c->batch * s.y_batch_stride;
    }
    return s;
}

/* Strides of 0 as they are meant. */
static int64_t or_packed(int64_t given, int64_t packed)
{
    return given ? given : packed;
}

static double x_number(const struct rig *r, const struct rt_product_shape *s, uint32_t z,
                       uint32_t i, uint32_t l)
{
    const int64_t row = or_packed(s->x_row_stride, s->k);
    const int64_t place = z * or_packed(s->x_batch_stride, s->vectors * row) + i * row + l;
    float full;
    memcpy(&full, (const unsigned char *)r->x + 4 * place, sizeof(full));
    return s->precision == RT_PRECISION_F32 ? (double)full : number(r->x[place]);
}

static double norm_factor(const struct rig *r, const struct rt_product_shape *s, uint32_t z,
                          uint32_t i)
{
    double squares = 0;
    for (uint32_t l = 0; l < s->k; l++)
        squares += x_number(r, s, z, i, l) * x_number(r, s, z, i, l);
    return 1 / sqrt(squares / s->k + EPS);
}

struct sum {
    double value, bound;
};

static struct sum sum_of(const struct rig *r, const struct rt_product_shape *s, uint32_t z,
                         uint32_t i, uint32_t row)
{
    const int n = row >= s->weights[0].rows;
    const struct rt_product_weight *w = &s->weights[n];
    const uint32_t j = n ? row - s->weights[0].rows : row;
    const int64_t row_stride = or_packed(w->row_stride, s->k);
    const int64_t column_stride = or_packed(w->column_stride, 1);
    const int64_t batch_stride = column_stride == 1 ? w->rows * row_stride : s->k * column_stride;
    const double by = s->normed ? 0.5 * norm_factor(r, s, z, i) : 1;
    const bool rounded = s->normed && s->precision != RT_PRECISION_F32;
    struct sum sum = {.value = w->biased ? number(r->bias[n][j]) : 0};
    double sizes = fabs(sum.value);
    for (uint32_t l = 0; l < s->k; l++) {
        double x = x_number(r, s, z, i, l) * by;
        if (s->normed)
            x *= 1 + number(r->norm[l]);
        if (rounded)
            x = number(rt_float_to_bf16((float)x));
        x *= number(r->w[n][z * batch_stride + j * row_stride + l * column_stride]);
        sum.value += x;
        sizes += fabs(x);
    }
    /* Float sums; with a norm, factors that a tie in them moves by a bf16. */
    sum.bound = sizes * (rounded ? 0x1p-10 : 0x1p-18) + 1e-6;
    return sum;
}

static void check_y(const struct rig *r, const struct rt_product_shape *s)
{
    const uint32_t rows = s->weights[0].rows + s->weights[1].rows;
    const bool f32 = s->output == RT_DTYPE_F32 || s->precision == RT_PRECISION_F32;
    const int64_t row_stride = or_packed(s->y_row_stride, rows);
    const int64_t batch_stride = or_packed(s->y_batch_stride, s->vectors * row_stride);
    const size_t each = f32 ? sizeof(float) : sizeof(uint16_t);
    for (uint32_t z = 0; z < s->batch; z++)
        for (uint32_t i = 0; i < s->vectors; i++)
            for (uint32_t row = 0; row < rows; row++) {
                unsigned char *y = r->y + each * (size_t)(z * batch_stride + i * row_stride + row);
                const struct sum want = sum_of(r, s, z, i, row);
                float full;
                uint16_t half;
                memcpy(&full, y, f32 ? sizeof(full) : 0);
                memcpy(&half, y, sizeof(half));
                const double got = f32 ? (double)full : number(half);
                const double bound = want.bound + (f32 ? 0 : fabs(want.value) * 0x1p-8);
                if (!(fabs(got - want.value) <= bound))
                    fail_msg("[%u, %u, %u] is %.9g, not %.9g", z, i, row, got, want.value);
                memset(y, POISON, each);
            }
    for (size_t i = 0; i < NUMBERS * sizeof(uint32_t); i++)
        assert_int_equal(r->y[i], POISON); /* nothing else was written */
}

static struct rt_product_args args_of(const struct rig *r)
{
    return (struct rt_product_args){.struct_size = sizeof(struct rt_product_args),
                                    .x = at(r->x),
                                    .y = at(r->y),
                                    .weights = {at(r->w[0]), at(r->w[1])},
                                    .biases = {at(r->bias[0]), at(r->bias[1])},
                                    .norm_weight = at(r->norm),
                                    .workspace = at(r->workspace)};
}

static rt_product *make(const struct rig *r, const struct rt_product_shape *s,
                        struct rt_product_info *info)
{
    rt_product *p = NULL;
    if (rt_product_create(r->ops, s, &p) != RT_OK)
        fail_msg("%s", rt_ops_last_error(r->ops)->message);
    *info = (struct rt_product_info){.struct_size = sizeof(*info)};
    assert_int_equal(rt_product_get_info(p, info), RT_OK);
    assert_true(info->kernel[0] && info->reason[0]);
    return p;
}

static void run(struct rig *r, const struct rt_product_shape *s, const char *kernel)
{
    struct rt_product_info info;
    rt_product *p = make(r, s, &info);
    const struct rt_product_args args = args_of(r);
    assert_int_equal(info.by_library, 0); /* plain C stands in for it */
    if (kernel && !strstr(info.kernel, kernel))
        fail_msg("%s, not %s: %s", info.kernel, kernel, info.reason);
    for (int again = 0; again < 2; again++) {
        if (rt_product_run(p, &args, NULL) != RT_OK)
            fail_msg("%s", rt_ops_last_error(r->ops)->message);
        check_y(r, s);
    }
    rt_product_destroy(&p);
    assert_null(p);
}

static const struct product_case cases[] = {
    {.batch = 1, .vectors = 5, .k = 64, .rows = {40, 24}, .kernel = "along8x1"},
    {.batch = 1, .vectors = 9, .k = 520, .rows = {33}, .biased = true, .kernel = "along16"},
    {.batch = 1, .vectors = 3, .k = 96, .rows = {70}, .normed = true, .kernel = "along8"},
    {.batch = 1, .vectors = 4, .k = 128, .rows = {50}, .f32 = true, .kernel = "along8"},
    {.batch = 3,
     .vectors = 2,
     .k = 24,
     .rows = {56},
     .across = true,
     .inside = true,
     .kernel = "across8"},
    {.batch = 1,
     .vectors = 2,
     .k = 64,
     .rows = {41},
     .across = true,
     .biased = true,
     .f32 = true,
     .kernel = "across8"},
    {.batch = 3,
     .vectors = 12,
     .k = 64,
     .rows = {16},
     .inside = true,
     .f32 = true,
     .kernel = "along16"},
    {.batch = 1,
     .vectors = 4,
     .k = 48,
     .rows = {24},
     .across = true,
     .normed = true,
     .kernel = "rt_project"},
    {.batch = 1, .vectors = 4, .k = 48, .rows = {24, 8}, .across = true, .kernel = "rt_project"},
    {.batch = 1,
     .vectors = 20,
     .k = 40,
     .rows = {19, 5},
     .biased = true,
     .normed = true,
     .kernel = "rt_project"},
    {.batch = 1, .vectors = 20, .k = 72, .rows = {40, 7}, .biased = true, .kernel = "many64x16"},
    {.batch = 3,
     .vectors = 17,
     .k = 40,
     .rows = {24},
     .across = true,
     .inside = true,
     .f32 = true,
     .kernel = "many64x64_across"},
    {.batch = 2, .vectors = 3, .k = 7, .rows = {9}, .f32 = true, .kernel = "rt_project"},
    {.batch = 1, .vectors = 1, .k = 1, .rows = {1}, .kernel = "rt_project"},
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

static void by_our_kernels(void **state)
{
    struct rig *r = *state;
    const bool hopper = r->ops->driver.caps.cc == 90;
    for (size_t i = 0; i < CASES; i++) {
        struct rt_product_shape s = shape_of(&cases[i]);
        run(r, &s, hopper ? cases[i].kernel : "rt_project");
        s.projections = RT_PROJECTIONS_OWN;
        s.backend = RT_BACKEND_GENERIC;
        run(r, &s, "rt_project");
    }
}

/* On the host device: x and y are f32, a norm is not rounded. The library's twin has no bf16 bias
 * with f32 results, as the library itself. */
static void in_f32(void **state)
{
    struct rig *r = *state;
    if (r->ops->driver.caps.cc != 0)
        skip(); /* emulated kernels of a GPU, which have bf16 alone */
    for (size_t i = 0; i < NUMBERS; i++) {
        const float x = (float)(int32_t)fixture_random(&r->random) / 2147483648.0f;
        memcpy((unsigned char *)r->x + 4 * i, &x, sizeof(x));
    }
    for (size_t i = 0; i < CASES; i++) {
        struct rt_product_shape s = shape_of(&cases[i]);
        s.precision = RT_PRECISION_F32;
        run(r, &s, "rt_project");
        s.projections = RT_PROJECTIONS_CUBLASLT;
        if (!cases[i].biased && !cases[i].normed)
            run(r, &s, NULL);
    }
    struct rt_product_shape s = shape_of(&cases[2]); /* a norm that a node of its own does */
    s.precision = RT_PRECISION_F32;
    s.projections = RT_PROJECTIONS_CUBLASLT;
    run(r, &s, NULL);
    struct rt_product_info info;
    rt_product *p = make(r, &s, &info);
    assert_int_equal(info.workspace_bytes, 3 * 96 * 4); /* the norm's f32 */
    rt_product_destroy(&p);
}

static void by_the_library(void **state)
{
    struct rig *r = *state;
    for (size_t i = 0; i < CASES; i++) {
        struct rt_product_shape s = shape_of(&cases[i]);
        s.projections = RT_PROJECTIONS_CUBLASLT;
        if (cases[i].biased && cases[i].f32)
            continue; /* refused below */
        run(r, &s, "plain C");
    }
}

/* ---- who is taken ---- */

static int no_way(struct rt_driver *d, const struct rt_matmul *m, uint32_t most,
                  struct rt_matmul_plan **out)
{
    (void)d;
    (void)m;
    (void)most;
    (void)out;
    return 5;
}

static int fails(struct rt_driver *d, const struct rt_matmul *m, rt_dstream s)
{
    (void)d;
    (void)m;
    (void)s;
    return 5;
}

static enum rt_status is_missing(struct rt_driver *d, struct rt_error *err)
{
    (void)d;
    return rt_fail(err, RT_ERR_UNSUPPORTED, "no libcublasLt.so is found");
}

static void expect_reason(struct rig *r, const struct rt_product_shape *s, bool library,
                          const char *words)
{
    struct rt_product_info info;
    rt_product *p = make(r, s, &info);
    assert_int_equal(info.by_library, library);
    if (!strstr(info.reason, words))
        fail_msg("\"%s\" does not say \"%s\"", info.reason, words);
    rt_product_destroy(&p);
}

static void not_made(const struct rig *r, const struct rt_product_shape *s, enum rt_status status,
                     const char *words)
{
    rt_product *p = (rt_product *)(uintptr_t)1;
    assert_int_equal(rt_product_create(r->ops, s, &p), status);
    assert_null(p);
    const char *message = rt_ops_last_error(r->ops)->message;
    if (!strstr(message, words))
        fail_msg("\"%s\" does not say \"%s\"", message, words);
}

/* As on a GPU that none of our kernels is tuned for: auto takes the library where it can. */
static void who_multiplies(void **state)
{
    struct rig *r = *state;
    struct rt_driver *d = &r->ops->driver;
    const struct rt_driver whole = *d;
    struct rt_product_shape s = shape_of(&cases[0]);
    struct rt_product_shape normed = shape_of(&cases[2]), biased = shape_of(&cases[5]);
    expect_reason(r, &s, false, "plain C on the host device");
    d->caps.kind = RT_DEVICE_KIND_CUDA;
    d->caps.cc = 80;
    d->matmul_prepare = no_way;
    expect_reason(r, &s, false, "the library has no way: ");
    d->matmul_prepare = whole.matmul_prepare;
    d->matmul = fails;
    expect_reason(r, &s, false, "none of the library's 1 ways");
    normed.k = 16392;
    normed.weights[0].rows = 8;
    expect_reason(r, &normed, false, "a norm that no node in front");
    expect_reason(r, &biased, false, "a bf16 bias with f32 results");
    d->caps.has_blas = false;
    d->open_blas = is_missing;
    expect_reason(r, &s, false, "there is no cuBLASLt: no libcublasLt.so is found; generic");

    s.projections = RT_PROJECTIONS_CUBLASLT;
    not_made(r, &s, RT_ERR_UNSUPPORTED, "projections cublaslt: no libcublasLt.so is found");
    d->open_blas = whole.open_blas;
    not_made(r, &s, RT_ERR_UNSUPPORTED, "none of the library's 1 ways to multiply 5 vectors");
    normed.projections = biased.projections = RT_PROJECTIONS_CUBLASLT;
    not_made(r, &normed, RT_ERR_UNSUPPORTED, "projections cublaslt: a norm that no node");
    not_made(r, &biased, RT_ERR_UNSUPPORTED, "projections cublaslt: a bf16 bias with f32");
    s.projections = RT_PROJECTIONS_OWN;
    s.backend = RT_BACKEND_SM90;
    not_made(r, &s, RT_ERR_UNSUPPORTED, "backend sm90 needs compute capability 9.0");
    *d = whole;
    assert_int_equal(d->probe.live, whole.probe.live);
}

/* ---- what is refused ---- */

static void shapes_refused(void **state)
{
    const struct rig *r = *state;
    static const struct mistake bad[] = {
#define BAD(member, value, words) MISTAKE(rt_product_shape, member, value, words)
        BAD(struct_size, 3, "struct_size"),
        BAD(batch, 0, "batch 0 is not 1..2147483647"),
        BAD(vectors, 0, "vectors 0 is not 1.."),
        BAD(k, 0x80000000u, "k 2147483648 is not 1.."),
        BAD(weights[0].rows, 0, "weights[0].rows 0 is not 1.."),
        BAD(weights[1].rows, 0x7fffffff, "rows of all weights 2147483687 is not 1.."),
        BAD(batch, 0x7fffffff, "2147483647 times 40 + 24 rows are too many"),
        BAD(weights[1].biased, 2, "weights[1].biased 2 is not 0 or 1"),
        BAD(weights[0].row_stride, 63, "weights[0] has row stride 63, column stride 0"),
        BAD(weights[0].row_stride, 1, "weights[0] column stride 0 is less than the 40 numbers"),
        BAD(weights[1].column_stride, 1, "weights[1] row stride 0 is less than the 64 numbers"),
        BAD(weights[0].batch_stride, -8, "weights[0].batch_stride = -8 is not"),
        BAD(x_row_stride, 63, "x row stride 63 is less than the 64 numbers of a row"),
        BAD(x_batch_stride, INT64_C(1) << 39, "x_batch_stride = 549755813888 is not below"),
        BAD(y_row_stride, 63, "y row stride 63 is less than the 64 numbers of a row"),
        BAD(y_row_stride, -64, "y_row_stride = -64 is not"),
        BAD(normed, 2, "normed 2 is not 0 or 1"),
        BAD(output, RT_DTYPE_I32, "output 3 is not RT_DTYPE_BF16, 1, or RT_DTYPE_F32, 2"),
        BAD(projections, 3, "projections 3 is none of enum rt_projections"),
        BAD(precision, 2, "precision 2 is not RT_PRECISION_BF16, 0, or RT_PRECISION_F32, 1"),
#undef BAD
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rt_product_shape s = shape_of(&cases[0]);
        memcpy((char *)&s + bad[i].member, &bad[i].value, bad[i].bytes);
        not_made(r, &s, RT_ERR_INVALID, bad[i].words);
    }
    struct rt_product_shape s = shape_of(&cases[0]);
    s.batch = 2;
    s.weights[0].biased = 1;
    not_made(r, &s, RT_ERR_INVALID, "a bias with batch 2");
    s = shape_of(&cases[0]);
    s.batch = 2;
    s.vectors = INT32_MAX;
    s.x_row_stride = (INT64_C(1) << 39) - 8;
    not_made(r, &s, RT_ERR_INVALID,
             "x_batch_stride of 2147483647 rows 549755813880 apart is not below 2^39 elements");
    s = shape_of(&cases[0]);
    s.batch = 2;
    s.vectors = 2;
    s.y_row_stride = 64;
    s.y_batch_stride = 72;
    not_made(r, &s, RT_ERR_INVALID, "y has 2 batches 72 apart of 2 rows 64 apart: its rows of 64");
    s = shape_of(&cases[2]);
    s.norm_eps = -1;
    not_made(r, &s, RT_ERR_INVALID, "norm.eps -1 is not a finite number, 0 or above");
    s = shape_of(&cases[0]);
    s.weights[1].row_stride = 1;
    s.weights[1].column_stride = 24;
    not_made(r, &s, RT_ERR_INVALID, "and the same one in both weights");
    s = shape_of(&cases[0]);
    s.precision = RT_PRECISION_F32;
    s.output = RT_DTYPE_BF16;
    not_made(r, &s, RT_ERR_INVALID, "output RT_DTYPE_BF16, 1, with precision RT_PRECISION_F32, 1");
    s.output = 0;
    r->ops->driver.caps.kind = RT_DEVICE_KIND_CUDA;
    not_made(r, &s, RT_ERR_UNSUPPORTED, "precision RT_PRECISION_F32 is served on the host device");
    r->ops->driver.caps.kind = RT_DEVICE_KIND_HOST;
    s = shape_of(&cases[0]);
    s.backend = (enum rt_backend)9;
    not_made(r, &s, RT_ERR_INVALID, "backend 9 is none of enum rt_backend");
    s.projections = RT_PROJECTIONS_CUBLASLT;
    not_made(r, &s, RT_ERR_INVALID, "backend 9 is none of enum rt_backend");
    s.backend = RT_BACKEND_AUTO;
    not_made(r, NULL, RT_ERR_INVALID, "shape is null");
    assert_int_equal(rt_product_create(r->ops, &s, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_product_create(NULL, &s, NULL), RT_ERR_INVALID);
}

static void args_refused(void **state)
{
    struct rig *r = *state;
    struct product_case c = cases[9];
    struct rt_product_shape s = shape_of(&c);
    struct rt_product_info info;
    s.projections = RT_PROJECTIONS_CUBLASLT;
    rt_product *p = make(r, &s, &info);
    assert_int_equal(info.workspace_bytes, 20 * 40 * 2);
    static const struct {
        size_t member;
        uint64_t off; /* 0: null */
        const char *words;
    } bad[] = {
        {offsetof(struct rt_product_args, x), 0, "rt_product_run: x is null"},
        {offsetof(struct rt_product_args, y), 8, "y = 0x"},
        {offsetof(struct rt_product_args, weights[0]), 2, "weights[0] = 0x"},
        {offsetof(struct rt_product_args, weights[1]), 0, "weights[1] is null"},
        {offsetof(struct rt_product_args, biases[0]), 0, "biases[0] is null"},
        {offsetof(struct rt_product_args, biases[1]), 4, "biases[1] = 0x"},
        {offsetof(struct rt_product_args, norm_weight), 0, "norm_weight is null"},
        {offsetof(struct rt_product_args, workspace), 16, "is not 256-byte aligned"},
        {offsetof(struct rt_product_args, workspace), 0, "workspace is null"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rt_product_args args = args_of(r);
        uint64_t value;
        memcpy(&value, (char *)&args + bad[i].member, sizeof(value));
        value = bad[i].off ? value + bad[i].off : 0;
        memcpy((char *)&args + bad[i].member, &value, sizeof(value));
        refused(r->ops, rt_product_run(p, &args, NULL), bad[i].words);
    }
    struct rt_product_args asking = args_of(r);
    asking.reserved = 5;
    refused(r->ops, rt_product_run(p, &asking, NULL), "rt_product_run: reserved is 5, not 0");
    static const char *const read_names[] = {"and weights[0] = 0x", "and weights[1] = 0x",
                                             "and biases[0] = 0x", "and biases[1] = 0x",
                                             "and norm_weight = 0x"};
    struct rt_product_args args = args_of(r);
    args.y = args.x;
    refused(r->ops, rt_product_run(p, &args, NULL), "overlap: must lie apart");
    uint64_t *const read[] = {&args.weights[0], &args.weights[1], &args.biases[0], &args.biases[1],
                              &args.norm_weight};
    for (size_t i = 0; i < sizeof(read) / sizeof(read[0]); i++)
        for (int into_y = 0; into_y < 2; into_y++) {
            args = args_of(r);
            *read[i] = (into_y ? args.y : args.workspace) + 16;
            refused(r->ops, rt_product_run(p, &args, NULL), read_names[i]);
        }
    args = args_of(r);
    args.workspace = args.y;
    refused(r->ops, rt_product_run(p, &args, NULL), "workspace = 0x");
    args = args_of(r);
    assert_int_equal(rt_product_run(p, &args, (void *)16), RT_ERR_INVALID);
    assert_int_equal(rt_product_run(p, NULL, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_product_run(NULL, &args, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_product_get_info(NULL, &info), RT_ERR_INVALID);
    assert_int_equal(rt_product_get_info(p, NULL), RT_ERR_INVALID);
    for (size_t i = 0; i < NUMBERS; i++)
        assert_int_equal(r->y[i], POISON);
    rt_product_destroy(&p);
    rt_product_destroy(&p);
    rt_product_destroy(NULL);
}

#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(by_our_kernels), RIG_TEST(in_f32),         RIG_TEST(by_the_library),
        RIG_TEST(who_multiplies), RIG_TEST(shapes_refused), RIG_TEST(args_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
