/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/cuda/cuda_device.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libcuda.so.1"

struct symbol {
    const char *name;
    int version;
    size_t offset; /* in struct rt_cuda_api */
};

static const struct symbol symbols[] = {
#define RT_CUDA_SYMBOL(name, version) {"cu" #name, version, offsetof(struct rt_cuda_api, name)},
#include "driver/cuda/cuda_symbols.inc"
#undef RT_CUDA_SYMBOL
};
#define SYMBOL_COUNT (sizeof(symbols) / sizeof(symbols[0]))

/* ISO C has no cast from an object pointer to a function pointer; POSIX says they are the same. */
_Static_assert(sizeof(void *) == sizeof(PFN_cuInit_v2000), "function pointers are data pointers");

static const char *error_text(struct rt_driver *d, int code)
{
    struct rt_cuda *c = rt_cuda_of(d);
    const char *name = NULL, *text = NULL;
    if (rt_cuda_blas_error_text(c, code))
        return c->text;
    if (c->api.GetErrorName((CUresult)code, &name) != CUDA_SUCCESS || !name)
        name = "unknown error";
    if (c->api.GetErrorString((CUresult)code, &text) != CUDA_SUCCESS || !text)
        text = "the driver has no text for it";
    snprintf(c->text, sizeof(c->text), "%s (%d): %s", name, code, text);
    return c->text;
}

static bool is_out_of_memory(struct rt_driver *d, int code)
{
    (void)d;
    return code == CUDA_ERROR_OUT_OF_MEMORY || code == RT_CUDA_BLAS_NO_MEMORY;
}

static void close_cuda(struct rt_driver *d)
{
    struct rt_cuda *c = rt_cuda_of(d);
    rt_cuda_close_blas(c);
    if (c->context)
        c->api.DevicePrimaryCtxRelease(c->device);
    if (c->library)
        dlclose(c->library);
    free(c);
}

/* "12.2", or "of unknown version". */
static void version_text(void *library, char *text, size_t text_bytes)
{
    PFN_cuDriverGetVersion_v2020 get_version = NULL;
    void *p = dlsym(library, "cuDriverGetVersion");
    memcpy(&get_version, &p, sizeof(p));
    int version = 0;
    if (get_version && get_version(&version) == CUDA_SUCCESS)
        snprintf(text, text_bytes, "for CUDA %d.%d", version / 1000, version % 1000 / 10);
    else
        snprintf(text, text_bytes, "of unknown version");
}

static enum rt_status lacks(void *library, const char *symbol, struct rt_error *err)
{
    char version[32];
    version_text(library, version, sizeof(version));
    return rt_fail(err, RT_ERR_DRIVER,
                   "the NVIDIA driver (%s) lacks %s; needed is one for CUDA " RT_CUDA_OLDEST
                   " or later",
                   version, symbol);
}

/* "Not found" in dlerror's words, of the library itself. */
bool rt_cuda_library_is_missing(const char *name, const char *reason)
{
    char not_found[128];
    const size_t length = strlen(name);
    const char *const at = strstr(reason, name);
    return strerror_r(ENOENT, not_found, sizeof(not_found)) == 0 && at &&
           strncmp(at + length, ": ", 2) == 0 && strstr(reason, not_found);
}

/* RTLD_NODELETE: the driver has threads and exit handlers of its own that outlive the handle. */
static enum rt_status load(struct rt_cuda *c, struct rt_error *err)
{
    c->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!c->library) {
        const char *reason = dlerror();
        reason = reason ? reason : LIBRARY;
        RT_REQUIRE(!rt_cuda_library_is_missing(LIBRARY, reason), err, RT_ERR_NO_DEVICE,
                   "no NVIDIA driver: %s", reason);
        return rt_fail(err, RT_ERR_DRIVER, "the NVIDIA driver cannot be loaded: %s", reason);
    }
    static const char getter[] = "cuGetProcAddress_v2";
    PFN_cuGetProcAddress_v12000 get_address = NULL;
    void *p = dlsym(c->library, getter);
    memcpy(&get_address, &p, sizeof(p));
    if (!get_address)
        return lacks(c->library, getter, err);
    for (size_t i = 0; i < SYMBOL_COUNT; i++) {
        const struct symbol *s = &symbols[i];
        p = NULL;
        const CUresult rc =
            get_address(s->name, &p, s->version, CU_GET_PROC_ADDRESS_LEGACY_STREAM, NULL);
        if (rc != CUDA_SUCCESS || !p)
            return lacks(c->library, s->name, err);
        memcpy((char *)&c->api + s->offset, &p, sizeof(p));
    }
    return RT_OK;
}

/* where: "" or "cuda:N: ". */
static enum rt_status failed(struct rt_driver *d, const char *where, const char *call, CUresult rc,
                             struct rt_error *err)
{
    enum rt_status status = RT_ERR_DRIVER;
    if (rc == CUDA_ERROR_NO_DEVICE)
        status = RT_ERR_NO_DEVICE;
    else if (is_out_of_memory(d, (int)rc))
        status = RT_ERR_DEVICE_MEMORY;
    /* The driver's own text does not tell why, and the reason is nearly always this one. */
    const char *hint = rc == CUDA_ERROR_NOT_INITIALIZED
                           ? "; a process forked from one that uses CUDA has no driver"
                           : "";
    return rt_fail(err, status, "%s%s failed: %s%s", where, call, error_text(d, (int)rc), hint);
}

static CUresult read_caps(const struct rt_cuda *c, struct rt_device_caps *caps)
{
    int major = 0, minor = 0, sms = 0, smem = 0, l2 = 0, domain = 0, bus = 0, slot = 0;
    const struct {
        CUdevice_attribute attribute;
        int *value;
    } wanted[] = {
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &minor},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &sms},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &smem},
        {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, &l2},
        {CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, &domain},
        {CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, &bus},
        {CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, &slot},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        const CUresult rc =
            c->api.DeviceGetAttribute(wanted[i].value, wanted[i].attribute, c->device);
        if (rc != CUDA_SUCCESS)
            return rc;
    }
    size_t memory_bytes = 0;
    const CUresult rc = c->api.DeviceTotalMem(&memory_bytes, c->device);
    if (rc != CUDA_SUCCESS)
        return rc;
    caps->kind = RT_DEVICE_KIND_CUDA;
    caps->cc = (uint32_t)(10 * major + minor);
    caps->sm_count = (uint32_t)sms;
    caps->smem_optin_bytes = (uint32_t)smem;
    caps->l2_bytes = (uint64_t)l2;
    caps->memory_bytes = memory_bytes;
    (void)snprintf(caps->bus_id, sizeof(caps->bus_id), "%08x:%02x:%02x.0", (unsigned)domain,
                   (unsigned)bus & 0xff, (unsigned)slot & 0xff);
    return c->api.DeviceGetName(caps->name, (int)sizeof(caps->name), c->device);
}

/* Initialises the driver and counts its devices; none is RT_ERR_NO_DEVICE. */
static enum rt_status count_devices(struct rt_driver *d, uint32_t *out, struct rt_error *err)
{
    const struct rt_cuda *c = rt_cuda_of(d);
    int count = 0;
    CUresult rc = c->api.Init(0);
    if (rc != CUDA_SUCCESS)
        return failed(d, "", "cuInit", rc, err);
    rc = c->api.DeviceGetCount(&count);
    if (rc != CUDA_SUCCESS)
        return failed(d, "", "cuDeviceGetCount", rc, err);
    RT_REQUIRE(count > 0, err, RT_ERR_NO_DEVICE, "the NVIDIA driver has no device");
    *out = (uint32_t)count;
    return RT_OK;
}

static enum rt_status open_device(struct rt_driver *d, uint32_t ordinal, struct rt_error *err)
{
    struct rt_cuda *c = rt_cuda_of(d);
    char where[24];
    uint32_t count = 0;
    snprintf(where, sizeof(where), "cuda:%u: ", ordinal);
    RT_TRY(count_devices(d, &count, err));
    RT_REQUIRE(ordinal < count, err, RT_ERR_NO_DEVICE,
               "cuda:%u does not exist: the driver has %u device%s", ordinal, count,
               count == 1 ? "" : "s");
    CUresult rc = c->api.DeviceGet(&c->device, (int)ordinal);
    if (rc != CUDA_SUCCESS)
        return failed(d, where, "cuDeviceGet", rc, err);
    rc = read_caps(c, &d->caps);
    if (rc != CUDA_SUCCESS)
        return failed(d, where, "reading the device's properties", rc, err);
    d->caps.ordinal = ordinal;
    RT_REQUIRE(d->caps.cc >= RT_OLDEST_CC, err, RT_ERR_UNSUPPORTED,
               "%s%s has compute capability %u.%u, needed is %u.%u or later", where, d->caps.name,
               d->caps.cc / 10, d->caps.cc % 10, RT_OLDEST_CC / 10, RT_OLDEST_CC % 10);
    rc = c->api.DevicePrimaryCtxRetain(&c->context, c->device);
    if (rc != CUDA_SUCCESS) {
        c->context = NULL;
        return failed(d, where, "cuDevicePrimaryCtxRetain", rc, err);
    }
    return RT_OK;
}

/* A table with the driver's functions and no device yet. */
static enum rt_status open_driver(struct rt_driver *out, struct rt_error *err)
{
    memset(out, 0, sizeof(*out));
    struct rt_cuda *c = calloc(1, sizeof(*c));
    RT_REQUIRE(c, err, RT_ERR_NOMEM, "out of host memory: %zu bytes for the CUDA driver's table",
               sizeof(*c));
    *out = (struct rt_driver){.impl = c,
                              .error_text = error_text,
                              .is_out_of_memory = is_out_of_memory,
                              .close = close_cuda};
    return load(c, err);
}

enum rt_status rt_driver_open_cuda(uint32_t ordinal, struct rt_driver *out, struct rt_error *err)
{
    enum rt_status status;
    RT_TRY_GOTO(open_driver(out, err));
    RT_TRY_GOTO(open_device(out, ordinal, err));
    rt_cuda_bind(out);
    rt_cuda_bind_graphs(out);
    rt_cuda_bind_blas(out);
    return RT_OK;
fail:
    rt_driver_close(out);
    return status;
}

enum rt_status rt_driver_cuda_count(uint32_t *out, struct rt_error *err)
{
    struct rt_driver d;
    *out = 0;
    enum rt_status status = open_driver(&d, err);
    if (status == RT_OK)
        status = count_devices(&d, out, err);
    rt_driver_close(&d);
    return status;
}
