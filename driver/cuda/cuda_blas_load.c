/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/cuda/cuda_blas.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The newest first; the bare name is there where somebody develops. */
static const char *const libraries[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
#define LIBRARY_COUNT (sizeof(libraries) / sizeof(libraries[0]))
#define TRIED "tried libcublasLt.so.13, libcublasLt.so.12, libcublasLt.so"
#define WITHOUT "`projections: own` does without"

static const struct {
    const char *name;
    size_t offset; /* in struct rt_cuda_blas_api */
} symbols[] = {
#define RT_BLAS_SYMBOL(name, result, arguments)                                                    \
    {"cublasLt" #name, offsetof(struct rt_cuda_blas_api, name)},
#include "driver/cuda/cuda_blas_symbols.inc"
#undef RT_BLAS_SYMBOL
};
#define SYMBOL_COUNT (sizeof(symbols) / sizeof(symbols[0]))

/* ---- errors ---- */

static void status_text(const struct rt_cuda_blas *blas, cublasStatus_t status, char *text,
                        size_t bytes)
{
    snprintf(text, bytes, "%s (%d): %s", blas->api.GetStatusName(status), (int)status,
             blas->api.GetStatusString(status));
}

bool rt_cuda_blas_error_text(struct rt_cuda *c, int code)
{
    if (code == RT_CUDA_PRODUCT_DTYPES) {
        snprintf(c->text, sizeof(c->text),
                 "RT_CUDA_PRODUCT_DTYPES (%d): cuBLASLt is given bf16 by bf16 to bf16 or f32, or "
                 "f32 throughout, and a bias where the result has its dtype",
                 code);
        return true;
    }
    if (!c->blas || code < RT_CUDA_BLAS_FAILED || code >= RT_CUDA_PRODUCT_DTYPES)
        return false;
    status_text(c->blas, (cublasStatus_t)(code - RT_CUDA_BLAS_FAILED), c->text, sizeof(c->text));
    return true;
}

/* ---- loading ---- */

/* Null: `reason` is the loader's, of a library that is there and cannot be loaded before that of
 * one that is missing. RTLD_NODELETE: the CUDA runtime inside of it has handlers of its own that
 * outlive the handle. */
static void *find_library(const char **name, char *reason, size_t bytes, bool *missing)
{
    *missing = true;
    for (size_t i = 0; i < LIBRARY_COUNT; i++) {
        *name = libraries[i];
        void *const library = dlopen(*name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (library)
            return library;
        const char *const why = dlerror();
        const bool is_there = why && !rt_cuda_library_is_missing(*name, why);
        if (i == 0 || (*missing && is_there))
            snprintf(reason, bytes, "%s", why ? why : *name);
        *missing = *missing && !is_there;
    }
    return NULL;
}

/* Until 11 the library counted a version 1000 times its major number. */
static void version_text(size_t version, char *text, size_t bytes)
{
    const size_t major = version < 100000 ? 1000 : 10000;
    snprintf(text, bytes, "%zu.%zu", version / major, version % major / 100);
}

static enum rt_status load_symbols(struct rt_cuda_blas *blas, const char *name,
                                   struct rt_error *err)
{
    for (size_t i = 0; i < SYMBOL_COUNT; i++) {
        void *const p = dlsym(blas->library, symbols[i].name);
        RT_REQUIRE(p, err, RT_ERR_UNSUPPORTED,
                   "%s lacks %s; needed is cuBLASLt " RT_BLAS_OLDEST " or later; " WITHOUT, name,
                   symbols[i].name);
        memcpy((char *)&blas->api + symbols[i].offset, &p, sizeof(p));
    }
    return RT_OK;
}

static enum rt_status load(struct rt_cuda_blas *blas, struct rt_error *err)
{
    const char *name = NULL;
    char reason[256], version[32];
    bool missing = true;
    blas->library = find_library(&name, reason, sizeof(reason), &missing);
    RT_REQUIRE(blas->library, err, RT_ERR_UNSUPPORTED,
               "cuBLASLt %s (%s): " TRIED "; LD_LIBRARY_PATH must reach it; " WITHOUT,
               missing ? "is not found" : "cannot be loaded", reason);
    RT_TRY(load_symbols(blas, name, err));
    const size_t found = blas->api.GetVersion();
    version_text(found, version, sizeof(version));
    RT_REQUIRE(found >= RT_BLAS_OLDEST_VERSION, err, RT_ERR_UNSUPPORTED,
               "%s is cuBLASLt %s, needed is " RT_BLAS_OLDEST " or later; " WITHOUT, name, version);
    return RT_OK;
}

/* The library takes the device whose context is current. */
static enum rt_status start(struct rt_driver *d, struct rt_cuda_blas *blas, struct rt_error *err)
{
    const struct rt_cuda *const c = rt_cuda_of(d);
    CUcontext left;
    char text[192];
    const CUresult entered = c->api.CtxPushCurrent(c->context);
    RT_REQUIRE(entered == CUDA_SUCCESS, err, RT_ERR_DRIVER, "cuCtxPushCurrent failed: %s",
               d->error_text(d, (int)entered));
    const cublasStatus_t status = blas->api.Create(&blas->handle);
    (void)c->api.CtxPopCurrent(&left);
    if (status == CUBLAS_STATUS_SUCCESS)
        return RT_OK;
    status_text(blas, status, text, sizeof(text));
    return rt_fail(err, status == CUBLAS_STATUS_ALLOC_FAILED ? RT_ERR_DEVICE_MEMORY : RT_ERR_DRIVER,
                   "cublasLtCreate failed: %s", text);
}

static void unload(struct rt_cuda_blas *blas)
{
    if (blas->library)
        dlclose(blas->library);
    free(blas);
}

enum rt_status rt_cuda_open_blas(struct rt_driver *d, struct rt_error *err)
{
    enum rt_status status;
    if (rt_cuda_of(d)->blas)
        return RT_OK;
    struct rt_cuda_blas *const blas = calloc(1, sizeof(*blas));
    RT_REQUIRE(blas, err, RT_ERR_NOMEM, "out of host memory: %zu bytes for cuBLASLt's table",
               sizeof(*blas));
    RT_TRY_GOTO(load(blas, err));
    RT_TRY_GOTO(start(d, blas, err));
    rt_cuda_of(d)->blas = blas;
    return RT_OK;
fail:
    unload(blas);
    return status;
}

void rt_cuda_close_blas(struct rt_cuda *c)
{
    CUcontext left;
    if (!c->blas)
        return;
    const CUresult entered = c->api.CtxPushCurrent(c->context);
    (void)c->blas->api.Destroy(c->blas->handle);
    if (entered == CUDA_SUCCESS)
        (void)c->api.CtxPopCurrent(&left);
    unload(c->blas);
    c->blas = NULL;
}
