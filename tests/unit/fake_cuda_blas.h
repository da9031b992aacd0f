/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_FAKE_CUDA_BLAS_H
#define RT_TESTS_UNIT_FAKE_CUDA_BLAS_H

/*
 * A cuBLASLt for machines without one, on top of fake_cuda.c. It lies in the test's own program,
 * which is linked with -Wl,--wrap of dlopen, dlsym, dlclose and dlerror: so a test says what is
 * found, and sees what was asked. It is strict where the real library is. Products are done in
 * plain loops, column by column as the library's matrices are; in a capture each is a kernel
 * rt_test_mad whose address is that of the result.
 */
#include "driver/cuda/cuda_blas.h"

#define FAKE_BLAS_WAYS 6

/* What the library has of one object each. */
struct fake_operation {
    int32_t compute, scale, trans_a, trans_b, bias_type;
    uint32_t epilogue;
    const void *bias;
};
struct fake_layout {
    cudaDataType type;
    uint64_t rows, columns;
    int64_t pitch, batch_stride;
    int32_t batch;
};
struct fake_preference {
    uint64_t workspace_bytes;
    uint32_t reductions, align_a, align_b, align_c, align_d;
};

/* A way that the heuristics offer; zeros are not told. */
struct fake_way {
    int32_t number, split;
    uint32_t tile, stages, swizzle, option, reduction;
    uint16_t cluster, inner_shape;
    uint64_t workspace_bytes;
    cublasStatus_t state;
};

/* A product as it was asked about or done. */
struct fake_product {
    struct fake_operation operation;
    struct fake_layout a, b, c, d;
};

struct fake_blas {
    const char *found;   /* the name under which it is there; null: nowhere */
    const char *damaged; /* a name that is there and cannot be loaded */
    const char *lacks;   /* a function that it does not have */
    size_t version;
    uint64_t fail_at; /* its n-th call fails, 1-based; 0: none */
    cublasStatus_t failure;
    struct fake_way ways[FAKE_BLAS_WAYS];
    int way_count;
    const struct rt_cuda *cuda; /* whose context must be current, and that products run on */
    CUfunction kernel;          /* rt_test_mad */
    bool fills;                 /* a product that is captured begins with a fill of its result */

    char tried[128]; /* names, in order */
    uint64_t calls;
    int loaded, handles, objects; /* not yet released */
    int most;                     /* of the last heuristics */
    struct fake_product asked;    /* likewise */
    struct fake_preference preference;
    struct fake_product done; /* the last product */
    const void *a, *b, *c;
    void *d, *workspace;
    size_t workspace_bytes;
    float alpha, beta;
    int way;
    cudaStream_t stream;
};
extern struct fake_blas fake_blas;

/* All that a test may have chosen; one way, without a workspace. */
void fake_blas_reset(void);

#endif
