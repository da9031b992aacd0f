/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fake_cuda_blas.h"

#include "common/bf16.h"
#include "tests/unit/fake_loader.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake_blas fake_blas;

#define NEED(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return CUBLAS_STATUS_INVALID_VALUE;                                                    \
    } while (0)

/* Opens every function that may fail. */
#define CALL()                                                                                     \
    do {                                                                                           \
        if (++fake_blas.calls == fake_blas.fail_at)                                                \
            return fake_blas.failure;                                                              \
    } while (0)

void fake_blas_reset(void)
{
    fake_blas = (struct fake_blas){.found = "libcublasLt.so.13",
                                   .version = 130100,
                                   .failure = CUBLAS_STATUS_INTERNAL_ERROR,
                                   .ways = {{.number = 66}},
                                   .way_count = 1};
}

/* ---- handle and errors ---- */

static int handle_object;

static bool is_handle(cublasLtHandle_t h)
{
    return fake_blas.handles > 0 && (void *)h == &handle_object;
}

static bool in_context(void)
{
    size_t available, total;
    return fake_blas.cuda->api.MemGetInfo(&available, &total) == CUDA_SUCCESS;
}

static cublasStatus_t fake_Create(cublasLtHandle_t *out)
{
    CALL();
    if (!in_context())
        return CUBLAS_STATUS_NOT_INITIALIZED;
    fake_blas.handles++;
    *out = (cublasLtHandle_t)(void *)&handle_object;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t fake_Destroy(cublasLtHandle_t h)
{
    NEED(is_handle(h) && in_context());
    fake_blas.handles--;
    CALL();
    return CUBLAS_STATUS_SUCCESS;
}

static const char *fake_GetStatusName(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_ALLOC_FAILED    ? "CUBLAS_STATUS_ALLOC_FAILED"
           : status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
                                                   : "CUBLAS_STATUS_INTERNAL_ERROR";
}

static const char *fake_GetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_ALLOC_FAILED ? "no room" : "something else";
}

static size_t fake_GetVersion(void)
{
    return fake_blas.version;
}

/* ---- objects ---- */

static void *object(const void *contents, size_t bytes)
{
    void *const p = malloc(bytes);
    memcpy(p, contents, bytes);
    fake_blas.objects++;
    return p;
}

static cublasStatus_t release(void *p)
{
    NEED(p);
    free(p);
    fake_blas.objects--;
    CALL();
    return CUBLAS_STATUS_SUCCESS;
}

/* The attribute's place, and the size of its type. */
#define FIELD(attribute, field)                                                                    \
    case attribute:                                                                                \
        NEED(bytes == sizeof(field));                                                              \
        memcpy(&(field), value, bytes);                                                            \
        return CUBLAS_STATUS_SUCCESS

static cublasStatus_t fake_MatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                            cudaDataType_t scale)
{
    CALL();
    const struct fake_operation o = {
        .compute = (int32_t)compute, .scale = (int32_t)scale, .bias_type = -1, .epilogue = 1};
    *out = object(&o, sizeof(o));
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t fake_MatmulDescDestroy(cublasLtMatmulDesc_t p)
{
    return release(p);
}

static cublasStatus_t fake_MatmulDescSetAttribute(cublasLtMatmulDesc_t p,
                                                  cublasLtMatmulDescAttributes_t attribute,
                                                  const void *value, size_t bytes)
{
    struct fake_operation *const o = (void *)p;
    CALL();
    switch (attribute) {
        FIELD(CUBLASLT_MATMUL_DESC_TRANSA, o->trans_a);
        FIELD(CUBLASLT_MATMUL_DESC_TRANSB, o->trans_b);
        FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE, o->epilogue);
        FIELD(CUBLASLT_MATMUL_DESC_BIAS_POINTER, o->bias);
        FIELD(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, o->bias_type);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

static cublasStatus_t fake_MatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                              uint64_t rows, uint64_t columns, int64_t pitch)
{
    CALL();
    const struct fake_layout l = {
        .type = type, .rows = rows, .columns = columns, .pitch = pitch, .batch = 1};
    *out = object(&l, sizeof(l));
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t fake_MatrixLayoutDestroy(cublasLtMatrixLayout_t p)
{
    return release(p);
}

static cublasStatus_t fake_MatrixLayoutSetAttribute(cublasLtMatrixLayout_t p,
                                                    cublasLtMatrixLayoutAttribute_t attribute,
                                                    const void *value, size_t bytes)
{
    struct fake_layout *const l = (void *)p;
    CALL();
    switch (attribute) {
        FIELD(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, l->batch);
        FIELD(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, l->batch_stride);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

static cublasStatus_t fake_MatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    CALL();
    const struct fake_preference p = {.reductions = CUBLASLT_REDUCTION_SCHEME_MASK};
    *out = object(&p, sizeof(p));
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t fake_MatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    return release(p);
}

static cublasStatus_t
fake_MatmulPreferenceSetAttribute(cublasLtMatmulPreference_t object,
                                  cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                  size_t bytes)
{
    struct fake_preference *const p = (void *)object;
    CALL();
    switch (attribute) {
        FIELD(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, p->workspace_bytes);
        FIELD(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, p->reductions);
        FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p->align_a);
        FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p->align_b);
        FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p->align_c);
        FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p->align_d);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

/* ---- ways ---- */

static struct fake_product product_of(cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                      cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                      cublasLtMatrixLayout_t d)
{
    const struct fake_layout *const layouts[] = {(const void *)a, (const void *)b, (const void *)c,
                                                 (const void *)d};
    return (struct fake_product){.operation =
                                     *(const struct fake_operation *)(const void *)operation,
                                 .a = *layouts[0],
                                 .b = *layouts[1],
                                 .c = *layouts[2],
                                 .d = *layouts[3]};
}

static bool same(const struct fake_layout *l, const struct fake_layout *r)
{
    return l->type == r->type && l->rows == r->rows && l->columns == r->columns &&
           l->pitch == r->pitch && l->batch == r->batch && l->batch_stride == r->batch_stride;
}

static bool fits(const struct fake_product *p)
{
    const bool transposed = p->operation.trans_a == CUBLAS_OP_T;
    const uint64_t n = transposed ? p->a.columns : p->a.rows;
    const uint64_t k = transposed ? p->a.rows : p->a.columns;
    const struct fake_layout *const layouts[] = {&p->a, &p->b, &p->c, &p->d};
    for (int i = 0; i < 4; i++)
        if (layouts[i]->pitch < (int64_t)layouts[i]->rows || layouts[i]->batch != p->d.batch)
            return false;
    return p->operation.trans_b == CUBLAS_OP_N && p->b.rows == k && p->d.rows == n &&
           p->d.columns == p->b.columns && same(&p->c, &p->d);
}

static cublasStatus_t
fake_MatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t operation,
                            cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                            cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                            cublasLtMatmulPreference_t preference, int most,
                            cublasLtMatmulHeuristicResult_t *out, int *count)
{
    CALL();
    NEED(is_handle(h) && most > 0);
    fake_blas.asked = product_of(operation, a, b, c, d);
    fake_blas.preference = *(const struct fake_preference *)(const void *)preference;
    fake_blas.most = most;
    NEED(fits(&fake_blas.asked));
    *count = 0;
    for (int i = 0; i < fake_blas.way_count && *count < most; i++) {
        const struct fake_way *const way = &fake_blas.ways[i];
        if (way->workspace_bytes > fake_blas.preference.workspace_bytes)
            continue;
        out[(*count)++] = (cublasLtMatmulHeuristicResult_t){
            .algo = {{(uint64_t)i}}, .workspaceSize = way->workspace_bytes, .state = way->state};
    }
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t
fake_MatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                  cublasLtMatmulAlgoConfigAttributes_t attribute, void *value,
                                  size_t bytes, size_t *written)
{
    const struct fake_way *const way = &fake_blas.ways[algo->data[0]];
    CALL();
    switch (attribute) {
#define TOLD(name, field)                                                                          \
    case name:                                                                                     \
        NEED(bytes == sizeof(way->field));                                                         \
        memcpy(value, &way->field, *written = bytes);                                              \
        return CUBLAS_STATUS_SUCCESS
        TOLD(CUBLASLT_ALGO_CONFIG_ID, number);
        TOLD(CUBLASLT_ALGO_CONFIG_TILE_ID, tile);
        TOLD(CUBLASLT_ALGO_CONFIG_STAGES_ID, stages);
        TOLD(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, inner_shape);
        TOLD(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, cluster);
        TOLD(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, reduction);
        TOLD(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, split);
        TOLD(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, swizzle);
        TOLD(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, option);
#undef TOLD
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

/* ---- products ---- */

static double load(const void *base, int64_t i, cudaDataType type)
{
    return type == CUDA_R_32F ? (double)((const float *)base)[i]
                              : (double)rt_bf16_to_float(((const uint16_t *)base)[i]);
}

static double element(const struct fake_layout *l, const void *base, int32_t z, uint64_t row,
                      uint64_t column)
{
    return load(base, z * l->batch_stride + (int64_t)row + (int64_t)column * l->pitch, l->type);
}

static double sum(int32_t z, uint64_t row, uint64_t column)
{
    const struct fake_product *const p = &fake_blas.done;
    const bool transposed = p->operation.trans_a == CUBLAS_OP_T;
    double s = p->operation.epilogue == CUBLASLT_EPILOGUE_BIAS
                   ? load(p->operation.bias, (int64_t)row, (cudaDataType)p->operation.bias_type)
                   : 0;
    for (uint64_t l = 0; l < p->b.rows; l++)
        s += element(&p->a, fake_blas.a, z, transposed ? l : row, transposed ? row : l) *
             element(&p->b, fake_blas.b, z, l, column);
    return s;
}

static void multiply(void)
{
    const struct fake_layout *const d = &fake_blas.done.d;
    for (int32_t z = 0; z < d->batch; z++)
        for (uint64_t column = 0; column < d->columns; column++)
            for (uint64_t row = 0; row < d->rows; row++) {
                const int64_t at = z * d->batch_stride + (int64_t)row + (int64_t)column * d->pitch;
                if (d->type == CUDA_R_32F)
                    ((float *)fake_blas.d)[at] = (float)sum(z, row, column);
                else
                    ((uint16_t *)fake_blas.d)[at] = rt_float_to_bf16((float)sum(z, row, column));
            }
}

static bool is_captured(cudaStream_t s)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    const CUgraphNode *nodes;
    const CUgraphEdgeData *data;
    size_t count;
    return s &&
           fake_blas.cuda->api.StreamGetCaptureInfo(s, &status, NULL, NULL, &nodes, &data,
                                                    &count) == CUDA_SUCCESS &&
           status == CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

static cublasStatus_t launch(void)
{
    struct {
        void *address;
        uint64_t value;
    } params = {.address = fake_blas.d};
    void *pointers[] = {&params};
    if (fake_blas.fills && fake_blas.cuda->api.MemsetD8Async((uintptr_t)fake_blas.d, 0, 4,
                                                             fake_blas.stream) != CUDA_SUCCESS)
        return CUBLAS_STATUS_EXECUTION_FAILED;
    const CUlaunchConfig config = {.gridDimX = 1,
                                   .gridDimY = 1,
                                   .gridDimZ = 1,
                                   .blockDimX = 32,
                                   .blockDimY = 1,
                                   .blockDimZ = 1,
                                   .hStream = fake_blas.stream};
    return fake_blas.cuda->api.LaunchKernelEx(&config, fake_blas.kernel, pointers, NULL) ==
                   CUDA_SUCCESS
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_EXECUTION_FAILED;
}

static cublasStatus_t fake_Matmul(cublasLtHandle_t h, cublasLtMatmulDesc_t operation,
                                  const void *alpha, const void *a, cublasLtMatrixLayout_t a_layout,
                                  const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                                  const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                                  cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                                  void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    CALL();
    NEED(is_handle(h) && in_context() && algo);
    struct fake_blas *const f = &fake_blas;
    f->done = product_of(operation, a_layout, b_layout, c_layout, d_layout);
    f->a = a;
    f->b = b;
    f->c = c;
    f->d = d;
    f->workspace = workspace;
    f->workspace_bytes = workspace_bytes;
    f->alpha = *(const float *)alpha;
    f->beta = *(const float *)beta;
    f->way = (int)algo->data[0];
    f->stream = stream;
    NEED(fits(&f->done) && c == d && workspace_bytes >= f->ways[f->way].workspace_bytes);
    if (is_captured(stream))
        return launch();
    multiply();
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the door ---- */

static const struct rt_cuda_blas_api fake_api = {
    .Create = fake_Create,
    .Destroy = fake_Destroy,
    .GetStatusName = fake_GetStatusName,
    .GetStatusString = fake_GetStatusString,
    .GetVersion = fake_GetVersion,
    .Matmul = fake_Matmul,
    .MatmulAlgoConfigGetAttribute = fake_MatmulAlgoConfigGetAttribute,
    .MatmulAlgoGetHeuristic = fake_MatmulAlgoGetHeuristic,
    .MatmulDescCreate = fake_MatmulDescCreate,
    .MatmulDescDestroy = fake_MatmulDescDestroy,
    .MatmulDescSetAttribute = fake_MatmulDescSetAttribute,
    .MatmulPreferenceCreate = fake_MatmulPreferenceCreate,
    .MatmulPreferenceDestroy = fake_MatmulPreferenceDestroy,
    .MatmulPreferenceSetAttribute = fake_MatmulPreferenceSetAttribute,
    .MatrixLayoutCreate = fake_MatrixLayoutCreate,
    .MatrixLayoutDestroy = fake_MatrixLayoutDestroy,
    .MatrixLayoutSetAttribute = fake_MatrixLayoutSetAttribute,
};

/* ---- the loader ---- */

static bool open_it(const char *name, int flags, char *story, size_t bytes)
{
    const size_t used = strlen(fake_blas.tried);
    snprintf(fake_blas.tried + used, sizeof(fake_blas.tried) - used, "%s ", name);
    if (fake_blas.found && strcmp(name, fake_blas.found) == 0 && flags & RTLD_NOW)
        return true;
    const bool damaged = fake_blas.damaged && strcmp(name, fake_blas.damaged) == 0;
    snprintf(story, bytes, "%s: %s", name,
             damaged ? "file too short"
                     : "cannot open shared object file: No such file or directory");
    return false;
}

static void *find_symbol(const char *name)
{
    void *p = NULL;
#define RT_BLAS_SYMBOL(symbol, result, arguments)                                                  \
    if (strcmp(name, "cublasLt" #symbol) == 0)                                                     \
        memcpy(&p, &fake_api.symbol, sizeof(p));
#include "driver/cuda/cuda_blas_symbols.inc"
#undef RT_BLAS_SYMBOL
    return p;
}

const struct fake_library fake_library = {.names = "cublasLt",
                                          .open = open_it,
                                          .find = find_symbol,
                                          .lacks = &fake_blas.lacks,
                                          .loaded = &fake_blas.loaded};
