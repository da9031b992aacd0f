/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library's matrices are column by column, ours row by row, so it is asked for the transposed
 * product, in its words A is the weight, B the input, D the output:
 *
 *   D [n, m] = op(A) [n, k] * B [k, m]     D, B: our rows are its columns, with the row stride
 *
 *   rows of k in b:  A [k, n], transposed     rows of n in b:  A [n, k], as it is
 */
#include "driver/cuda/cuda_blas.h"
#include "driver/matmul_plan.h"

#include <stdlib.h>

struct cuda_plan {
    struct rt_matmul_plan plan; /* first: what others see of it */
    struct rt_matmul product;   /* that it was made of */
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t weight, input, output;
    cublasLtMatmulHeuristicResult_t ways[]; /* plan.candidates of them */
};

#define TRY(call)                                                                                  \
    do {                                                                                           \
        const cublasStatus_t try_status = (call);                                                  \
        if (try_status != CUBLAS_STATUS_SUCCESS)                                                   \
            return try_status;                                                                     \
    } while (0)

/* A number as the attribute's own type says. */
#define SET(set, object, attribute, type, value)                                                   \
    TRY(set(object, attribute, &(const type){value}, sizeof(type)))

static cudaDataType_t data_type(enum rt_dtype dtype)
{
    return dtype == RT_DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* The library has kernels for no other. */
static bool serves_dtypes(const struct rt_matmul *m)
{
    return m->input_dtype == m->weight_dtype &&
           (m->weight_dtype == RT_DTYPE_BF16 || m->output_dtype == RT_DTYPE_F32) &&
           (!m->bias || m->output_dtype == m->weight_dtype);
}

/* ---- what the product is ---- */

static cublasStatus_t set_bias(const struct rt_cuda_blas *blas, const struct cuda_plan *p,
                               rt_addr bias)
{
    const void *const pointer = (const void *)(uintptr_t)bias;
    return blas->api.MatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                            &pointer, sizeof(pointer));
}

/* The heuristics look at the bias's pointer for its alignment. */
static cublasStatus_t make_operation(const struct rt_cuda_blas *blas, struct cuda_plan *p)
{
    const struct rt_matmul *const m = &p->product;
    const int32_t weight = rt_matmul_b_has_rows_of_k(m) ? CUBLAS_OP_T : CUBLAS_OP_N;
    TRY(blas->api.MatmulDescCreate(&p->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    SET(blas->api.MatmulDescSetAttribute, p->operation, CUBLASLT_MATMUL_DESC_TRANSA, int32_t,
        weight);
    SET(blas->api.MatmulDescSetAttribute, p->operation, CUBLASLT_MATMUL_DESC_TRANSB, int32_t,
        CUBLAS_OP_N);
    if (!m->bias)
        return CUBLAS_STATUS_SUCCESS;
    SET(blas->api.MatmulDescSetAttribute, p->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, uint32_t,
        CUBLASLT_EPILOGUE_BIAS);
    SET(blas->api.MatmulDescSetAttribute, p->operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
        int32_t, data_type(m->output_dtype));
    return set_bias(blas, p, m->bias);
}

/* `rows` of `width`, or as many matrices of them as the product's batch. */
static cublasStatus_t make_layout(const struct rt_cuda_blas *blas, const struct rt_matmul *m,
                                  enum rt_dtype dtype, uint32_t rows, uint32_t width,
                                  int64_t row_stride, int64_t batch_stride,
                                  cublasLtMatrixLayout_t *out)
{
    TRY(blas->api.MatrixLayoutCreate(out, data_type(dtype), width, rows,
                                     rt_matmul_pitch(rows, width, row_stride)));
    if (m->batch == 1)
        return CUBLAS_STATUS_SUCCESS;
    SET(blas->api.MatrixLayoutSetAttribute, *out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, int32_t,
        (int32_t)m->batch);
    SET(blas->api.MatrixLayoutSetAttribute, *out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
        int64_t, batch_stride);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t make_layouts(const struct rt_cuda_blas *blas, struct cuda_plan *p)
{
    const struct rt_matmul *const m = &p->product;
    const bool rows_of_k = rt_matmul_b_has_rows_of_k(m);
    TRY(make_layout(blas, m, m->weight_dtype, rows_of_k ? m->n : m->k, rows_of_k ? m->k : m->n,
                    rows_of_k ? m->b_row_stride : m->b_column_stride, m->b_batch_stride,
                    &p->weight));
    TRY(make_layout(blas, m, m->input_dtype, m->m, m->k, m->a_row_stride, m->a_batch_stride,
                    &p->input));
    return make_layout(blas, m, m->output_dtype, m->m, m->n, m->d_row_stride, m->d_batch_stride,
                       &p->output);
}

/* ---- ways to do it ---- */

/* Partial sums of a split K are added in float: the scheme that adds them where d lies would round
 * them to d's dtype one after the other. */
static cublasStatus_t set_preference(const struct rt_cuda_blas *blas, const struct rt_matmul *m,
                                     cublasLtMatmulPreference_t preference)
{
    const struct rt_matmul_alignment align = rt_matmul_alignment(m);
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        uint32_t value;
    } wanted[] = {
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, align.b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, align.a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, align.d},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align.d},
    };
    SET(blas->api.MatmulPreferenceSetAttribute, preference,
        CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t, m->workspace_bytes);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        SET(blas->api.MatmulPreferenceSetAttribute, preference, wanted[i].attribute, uint32_t,
            wanted[i].value);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t ask(const struct rt_cuda_blas *blas, struct cuda_plan *p, uint32_t most,
                          cublasLtMatmulPreference_t preference)
{
    int count = 0;
    TRY(set_preference(blas, &p->product, preference));
    TRY(blas->api.MatmulAlgoGetHeuristic(blas->handle, p->operation, p->weight, p->input, p->output,
                                         p->output, preference, (int)most, p->ways, &count));
    for (int i = 0; i < count; i++)
        if (p->ways[i].state == CUBLAS_STATUS_SUCCESS)
            p->ways[p->plan.candidates++] = p->ways[i];
    return p->plan.candidates > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

static cublasStatus_t find_ways(const struct rt_cuda_blas *blas, struct cuda_plan *p, uint32_t most)
{
    cublasLtMatmulPreference_t preference;
    TRY(blas->api.MatmulPreferenceCreate(&preference));
    const cublasStatus_t asked = ask(blas, p, most, preference);
    const cublasStatus_t destroyed = blas->api.MatmulPreferenceDestroy(preference);
    return asked != CUBLAS_STATUS_SUCCESS ? asked : destroyed;
}

static void take(const struct rt_cuda_blas *blas, struct cuda_plan *p, uint32_t i)
{
    p->plan.selected = i;
    p->plan.named = 0;
    p->plan.workspace_bytes = p->ways[i].workspaceSize;
    rt_cuda_blas_identify(blas, &p->ways[i].algo, p->plan.identity);
    rt_cuda_blas_describe(p->plan.identity, p->ways[i].workspaceSize, p->plan.text,
                          sizeof(p->plan.text));
}

/* The first failure, after everything there is has been released. */
static cublasStatus_t plan_free(const struct rt_cuda_blas *blas, struct cuda_plan *p)
{
    const struct rt_cuda_blas_api *const api = &blas->api;
    const cublasStatus_t results[] = {
        p->output ? api->MatrixLayoutDestroy(p->output) : CUBLAS_STATUS_SUCCESS,
        p->input ? api->MatrixLayoutDestroy(p->input) : CUBLAS_STATUS_SUCCESS,
        p->weight ? api->MatrixLayoutDestroy(p->weight) : CUBLAS_STATUS_SUCCESS,
        p->operation ? api->MatmulDescDestroy(p->operation) : CUBLAS_STATUS_SUCCESS};
    free(p);
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
        TRY(results[i]);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t plan_make(const struct rt_cuda_blas *blas, struct cuda_plan *p, uint32_t most)
{
    TRY(make_operation(blas, p));
    TRY(make_layouts(blas, p));
    return find_ways(blas, p, most);
}

/* ---- the table ---- */

static int matmul_prepare(struct rt_driver *d, const struct rt_matmul *m, uint32_t most,
                          struct rt_matmul_plan **out)
{
    if (rt_probe_enter(d, RT_DOP_matmul_prepare))
        return RT_DRIVER_INJECTED;
    const struct rt_cuda_blas *const blas = rt_cuda_of(d)->blas;
    if (!blas)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!m || most == 0 || most > INT32_MAX || !rt_matmul_plannable(m))
        return CUDA_ERROR_INVALID_VALUE;
    if (!serves_dtypes(m))
        return RT_CUDA_PRODUCT_DTYPES;
    struct cuda_plan *const p = calloc(1, sizeof(*p) + most * sizeof(p->ways[0]));
    if (!p)
        return CUDA_ERROR_OUT_OF_MEMORY;
    p->product = *m;
    const cublasStatus_t status = plan_make(blas, p, most);
    if (status != CUBLAS_STATUS_SUCCESS) {
        (void)plan_free(blas, p);
        return rt_cuda_blas_code(status);
    }
    take(blas, p, 0);
    d->probe.live++;
    *out = &p->plan;
    return 0;
}

static int matmul_select(struct rt_driver *d, struct rt_matmul_plan *plan, uint32_t i)
{
    if (rt_probe_enter(d, RT_DOP_matmul_select))
        return RT_DRIVER_INJECTED;
    if (!plan || i >= plan->candidates)
        return CUDA_ERROR_INVALID_VALUE;
    take(rt_cuda_of(d)->blas, (struct cuda_plan *)(void *)plan, i);
    return 0;
}

static int matmul_release(struct rt_driver *d, struct rt_matmul_plan *plan)
{
    const bool injected = rt_probe_enter(d, RT_DOP_matmul_release);
    if (!plan)
        return CUDA_ERROR_INVALID_HANDLE;
    const int rc =
        rt_cuda_blas_code(plan_free(rt_cuda_of(d)->blas, (struct cuda_plan *)(void *)plan));
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : rc;
}

/* A plan serves other biases than the one that it was made of. */
static cublasStatus_t run(const struct rt_cuda_blas *blas, const struct cuda_plan *p,
                          const struct rt_matmul *m, cudaStream_t s)
{
    static const float one = 1, zero = 0;
    void *const output = (void *)(uintptr_t)m->d;
    if (m->bias)
        TRY(set_bias(blas, p, m->bias));
    return blas->api.Matmul(blas->handle, p->operation, &one, (const void *)(uintptr_t)m->b,
                            p->weight, (const void *)(uintptr_t)m->a, p->input, &zero, output,
                            p->output, output, p->output, &p->ways[p->plan.selected].algo,
                            (void *)(uintptr_t)m->workspace, m->workspace_bytes, s);
}

static int matmul(struct rt_driver *d, const struct rt_matmul *m, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_matmul))
        return RT_DRIVER_INJECTED;
    const struct rt_cuda_blas *const blas = rt_cuda_of(d)->blas;
    if (!blas)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!m)
        return CUDA_ERROR_INVALID_VALUE;
    const struct cuda_plan *const p = (const struct cuda_plan *)(const void *)m->plan;
    if (!p && (m->batch == 0 || m->m == 0 || m->n == 0))
        return 0;
    if (!p || !rt_matmul_plan_serves(&p->product, m))
        return CUDA_ERROR_INVALID_VALUE;
    return rt_cuda_blas_code(run(blas, p, m, (CUstream)s));
}

void rt_cuda_bind_blas(struct rt_driver *d)
{
    d->open_blas = rt_cuda_open_blas;
    d->matmul_prepare = matmul_prepare;
    d->matmul_select = matmul_select;
    d->matmul_release = matmul_release;
    d->matmul = matmul;
}
