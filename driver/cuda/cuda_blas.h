/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_DRIVER_CUDA_CUDA_BLAS_H
#define RT_DRIVER_CUDA_CUDA_BLAS_H

/*
 * Inside of products on CUDA. cublasLt.h is met here and nowhere else; nothing links the library.
 *
 *   cuda_blas_load.c   the library and its functions, opening, closing, errors
 *   cuda_blas.c        plans and products
 *   cuda_blas_text.c   a plan for people
 *   cuda_blas_none.c   instead of all of them where the toolkit has no cublasLt.h
 */
#include "driver/cuda/cuda_device.h"

#include <cublasLt.h>

/* RT_BLAS_OLDEST as the library counts. */
#define RT_BLAS_OLDEST_VERSION 120000u

struct rt_cuda_blas_api {
#define RT_BLAS_SYMBOL(name, result, arguments) result(*name) arguments;
#include "driver/cuda/cuda_blas_symbols.inc"
#undef RT_BLAS_SYMBOL
};
#define RT_BLAS_SYMBOL(name, result, arguments)                                                    \
    _Static_assert(_Generic(&cublasLt##name, result(*) arguments : 1, default : 0),                \
                   "cublasLt" #name " is as the header declares it");
#include "driver/cuda/cuda_blas_symbols.inc"
#undef RT_BLAS_SYMBOL

struct rt_cuda_blas {
    struct rt_cuda_blas_api api;
    void *library; /* of dlopen */
    cublasLtHandle_t handle;
};

_Static_assert(RT_CUDA_BLAS_NO_MEMORY == RT_CUDA_BLAS_FAILED + CUBLAS_STATUS_ALLOC_FAILED,
               "memory that has run out is known by its number");

static inline int rt_cuda_blas_code(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS ? 0 : RT_CUDA_BLAS_FAILED + (int)status;
}

/* The words of a plan's identity: what the library's version tells of a way. */
enum rt_cuda_blas_word {
    RT_CUDA_BLAS_VERSION,
    RT_CUDA_BLAS_ALGORITHM,
    RT_CUDA_BLAS_TILE,
    RT_CUDA_BLAS_STAGES,
    RT_CUDA_BLAS_INNER_SHAPE,
    RT_CUDA_BLAS_CLUSTER,
    RT_CUDA_BLAS_SPLIT_K,
    RT_CUDA_BLAS_REDUCTION,
    RT_CUDA_BLAS_SWIZZLE,
    RT_CUDA_BLAS_OPTION,
    RT_CUDA_BLAS_WORDS
};
_Static_assert(RT_CUDA_BLAS_WORDS == RT_MATMUL_IDENTITY_WORDS, "an identity is all of them");

/* What the library is too old to tell is 0. */
void rt_cuda_blas_identify(const struct rt_cuda_blas *blas, const cublasLtMatmulAlgo_t *algo,
                           uint32_t identity[RT_CUDA_BLAS_WORDS]);
/* "algo 66, tile 64x64, split-K 5, 1.2 MiB workspace", cut to size. */
void rt_cuda_blas_describe(const uint32_t identity[RT_CUDA_BLAS_WORDS], size_t workspace_bytes,
                           char *text, size_t bytes);

enum rt_status rt_cuda_open_blas(struct rt_driver *d, struct rt_error *err);

#endif
