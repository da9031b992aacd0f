/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_DRIVER_CUDA_CUDA_DEVICE_H
#define RT_DRIVER_CUDA_CUDA_DEVICE_H

/*
 * Inside of the CUDA back end. cuda.h is met here and nowhere else; nothing links the driver.
 *
 *   cuda_load.c       the driver's library and its functions, opening and closing a device
 *   cuda_device.c     context, memory, peers, streams, events, copies, kernels, tensor maps
 *   cuda_graph.c      graphs: explicit nodes, capture, reading back, instantiating, launching
 *   cuda_blas*.c      products: cuda_blas.h
 *   cuda_none.c       instead of all of them where the build has no CUDA toolkit
 */
#include "driver/driver.h"

#include <cuda.h>
#include <cudaTypedefs.h>

/* The newest function of cuda_symbols.inc came with CUDA 12.4. */
#define RT_CUDA_OLDEST "12.4"
_Static_assert(CUDA_VERSION >= 12040, "build with the toolkit of CUDA 12.4 or later");

struct rt_cuda_api {
#define RT_CUDA_SYMBOL(name, version) PFN_cu##name##_v##version name;
#include "driver/cuda/cuda_symbols.inc"
#undef RT_CUDA_SYMBOL
};

struct rt_cuda_blas;

struct rt_cuda {
    struct rt_cuda_api api;
    void *library; /* of dlopen */
    CUdevice device;
    CUcontext context;         /* the device's primary one, retained */
    struct rt_cuda_blas *blas; /* null: not open */
    char text[192];            /* of the last error asked for */
};

/* What operations on products return besides the driver's own numbers. */
#define RT_CUDA_BLAS_FAILED 2000000 /* + the library's cublasStatus_t */
#define RT_CUDA_BLAS_NO_MEMORY (RT_CUDA_BLAS_FAILED + 3)
#define RT_CUDA_PRODUCT_DTYPES 2001000 /* there is no such product on CUDA */

static inline struct rt_cuda *rt_cuda_of(struct rt_driver *d)
{
    return d->impl;
}

/* Counts what an operation created: passes rc on. */
static inline int rt_cuda_created(struct rt_driver *d, CUresult rc)
{
    if (rc == CUDA_SUCCESS)
        d->probe.live++;
    return (int)rc;
}

/* The other way. The driver may report an error of earlier work here and has released all the same;
 * only what it does not know at all was never counted. */
static inline int rt_cuda_released(struct rt_driver *d, bool injected, CUresult rc)
{
    if (rc == CUDA_ERROR_INVALID_VALUE || rc == CUDA_ERROR_INVALID_HANDLE)
        return (int)rc;
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : (int)rc;
}

void rt_cuda_bind(struct rt_driver *d);
void rt_cuda_bind_graphs(struct rt_driver *d);

/* dlopen's `reason` says that there is no library of that name. One that is there and cannot be
 * loaded, for it is damaged or lacks a library in turn, is another story. */
bool rt_cuda_library_is_missing(const char *name, const char *reason);

void rt_cuda_bind_blas(struct rt_driver *d);
void rt_cuda_close_blas(struct rt_cuda *c);
/* Writes c->text; false where it is not a product's code. */
bool rt_cuda_blas_error_text(struct rt_cuda *c, int code);

#endif
