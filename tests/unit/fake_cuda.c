/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fake_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BLOCKS 64

struct block {
    CUdeviceptr base;
    size_t bytes;
    int opened; /* by handles */
};
static struct block blocks[MAX_BLOCKS];

struct fake_state fake = {.kernels = {
                              {"rt_test_mad", 1, {0}, {16}},
                              {"rt_test_two", 2, {0, 8}, {8, 4}},
                              {"rt_test_wide", 1, {0}, {512}},
                          }};

bool fake_fails(const char *name)
{
    const char *chosen = getenv("FAKE_CUDA_FAILS");
    return chosen && strcmp(chosen, name) == 0;
}

static bool is_listed(const char *variable, CUdevice device)
{
    const char *digits = getenv(variable);
    return digits && strchr(digits, '0' + device);
}

/* ---- errors, devices, fake.contexts ---- */

static CUresult fake_GetErrorName(CUresult e, const char **out)
{
    static const struct {
        CUresult e;
        const char *name;
    } names[] = {
        {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
        {CUDA_ERROR_DEVICE_UNAVAILABLE, "CUDA_ERROR_DEVICE_UNAVAILABLE"},
        {CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"},
        {CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
        {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN"}};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].e == e) {
            *out = names[i].name;
            return CUDA_SUCCESS;
        }
    }
    *out = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

static CUresult fake_GetErrorString(CUresult e, const char **out)
{
    *out = e == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : NULL;
    return *out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult fake_Init(unsigned flags)
{
    const char *code = getenv("FAKE_CUDA_INIT");
    NEED(flags == 0, CUDA_ERROR_INVALID_VALUE);
    return code ? (CUresult)strtol(code, NULL, 10) : CUDA_SUCCESS;
}

static CUresult fake_DeviceGetCount(int *out)
{
    const char *n = getenv("FAKE_CUDA_DEVICES");
    *out = n ? (int)strtol(n, NULL, 10) : 2;
    return CUDA_SUCCESS;
}

static CUresult fake_DeviceGet(CUdevice *out, int ordinal)
{
    *out = ordinal;
    return CUDA_SUCCESS;
}

static CUresult fake_DeviceGetName(char *name, int len, CUdevice device)
{
    snprintf(name, (size_t)len, "fake %d", device);
    return CUDA_SUCCESS;
}

static CUresult fake_DeviceTotalMem(size_t *out, CUdevice device)
{
    (void)device;
    *out = (size_t)1 << 32;
    return CUDA_SUCCESS;
}

static CUresult fake_DeviceGetAttribute(int *out, CUdevice_attribute a, CUdevice device)
{
    switch (a) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        *out = is_listed("FAKE_CUDA_OLD", device) ? 7 : 9;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        *out = 0;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
        *out = FAKE_SM_COUNT;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
        *out = 232448;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
        *out = 62914560;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID:
        *out = 0;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
        *out = 0x3b + device;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID:
        *out = 0;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

static CUresult fake_DevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    NEED(!is_listed("FAKE_CUDA_BUSY", device), CUDA_ERROR_DEVICE_UNAVAILABLE);
    NEED(!is_listed("FAKE_CUDA_FULL", device), CUDA_ERROR_OUT_OF_MEMORY);
    fake.retained++;
    *out = &fake.primary;
    return CUDA_SUCCESS;
}

static CUresult fake_DevicePrimaryCtxRelease(CUdevice device)
{
    (void)device;
    NEED(fake.retained > 0, CUDA_ERROR_INVALID_CONTEXT);
    fake.retained--;
    return CUDA_SUCCESS;
}

static CUresult fake_CtxPushCurrent(CUcontext c)
{
    NEED(c == &fake.primary && fake.retained > 0, CUDA_ERROR_INVALID_CONTEXT);
    fake.contexts++;
    return CUDA_SUCCESS;
}

static CUresult fake_CtxPopCurrent(CUcontext *out)
{
    NEED_CONTEXT();
    fake.contexts--;
    *out = &fake.primary;
    return CUDA_SUCCESS;
}

/* ---- memory ---- */

static struct block *find(CUdeviceptr p, size_t bytes)
{
    for (int i = 0; i < MAX_BLOCKS; i++) {
        struct block *b = &blocks[i];
        if (b->bytes && p >= b->base && p - b->base < b->bytes && bytes <= b->bytes - (p - b->base))
            return b;
    }
    return NULL;
}

bool fake_owns(CUdeviceptr p, size_t bytes)
{
    return find(p, bytes) != NULL;
}

static CUresult fake_MemAlloc(CUdeviceptr *out, size_t bytes)
{
    NEED_CONTEXT();
    NEED(bytes > 0, CUDA_ERROR_INVALID_VALUE);
    NEED(bytes < (size_t)1 << 32, CUDA_ERROR_OUT_OF_MEMORY);
    for (int i = 0; i < MAX_BLOCKS; i++) {
        if (blocks[i].bytes)
            continue;
        blocks[i] = (struct block){.base = (uintptr_t)malloc(bytes), .bytes = bytes};
        *out = blocks[i].base;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult fake_MemFree(CUdeviceptr p)
{
    NEED_CONTEXT();
    struct block *b = find(p, 1);
    NEED(b && b->base == p, CUDA_ERROR_INVALID_VALUE);
    free((void *)(uintptr_t)p);
    *b = (struct block){0};
    return CUDA_SUCCESS;
}

static CUresult fake_MemHostAlloc(void **out, size_t bytes, unsigned flags)
{
    CUdeviceptr p;
    NEED(flags == (CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP), CUDA_ERROR_INVALID_VALUE);
    const CUresult rc = fake_MemAlloc(&p, bytes);
    if (rc == CUDA_SUCCESS)
        *out = (void *)(uintptr_t)p;
    return rc;
}

static CUresult fake_MemHostGetDevicePointer(CUdeviceptr *out, void *p, unsigned flags)
{
    (void)flags;
    NEED(!fake_fails("cuMemHostGetDevicePointer"), CUDA_ERROR_UNKNOWN);
    *out = (uintptr_t)p;
    return CUDA_SUCCESS;
}

static CUresult fake_MemFreeHost(void *p)
{
    return fake_MemFree((uintptr_t)p);
}

/* Another process's memory, as far as this one can tell: a driver opens none of its own. */
static CUresult fake_IpcGetMemHandle(CUipcMemHandle *out, CUdeviceptr p)
{
    NEED_CONTEXT();
    NEED(!fake_fails("cuIpcGetMemHandle"), CUDA_ERROR_UNKNOWN);
    const struct block *b = find(p, 1);
    NEED(b && b->base == p, CUDA_ERROR_INVALID_VALUE);
    memset(out, 0, sizeof(*out));
    memcpy(out, &p, sizeof(p));
    return CUDA_SUCCESS;
}

static CUresult fake_IpcOpenMemHandle(CUdeviceptr *out, CUipcMemHandle handle, unsigned flags)
{
    CUdeviceptr p;
    NEED_CONTEXT();
    NEED(!fake_fails("cuIpcOpenMemHandle"), CUDA_ERROR_UNKNOWN);
    NEED(flags == CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS, CUDA_ERROR_INVALID_VALUE);
    memcpy(&p, &handle, sizeof(p));
    struct block *b = find(p, 1);
    NEED(b && b->base == p, CUDA_ERROR_INVALID_VALUE);
    b->opened++;
    *out = p;
    return CUDA_SUCCESS;
}

static CUresult fake_IpcCloseMemHandle(CUdeviceptr p)
{
    NEED_CONTEXT();
    struct block *b = find(p, 1);
    NEED(b && b->base == p && b->opened > 0, CUDA_ERROR_INVALID_VALUE);
    b->opened--;
    return CUDA_SUCCESS;
}

static CUresult fake_MemGetInfo(size_t *available, size_t *total)
{
    NEED_CONTEXT();
    *available = (size_t)3 << 30;
    *total = (size_t)1 << 32;
    return CUDA_SUCCESS;
}

static CUresult fake_PointerGetAttributes(unsigned n, CUpointer_attribute *a, void **out,
                                          CUdeviceptr p)
{
    NEED(n == 3 && a[0] == CU_POINTER_ATTRIBUTE_RANGE_START_ADDR &&
             a[1] == CU_POINTER_ATTRIBUTE_RANGE_SIZE &&
             a[2] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL && p != 0 && p != UINT64_MAX,
         CUDA_ERROR_INVALID_VALUE);
    const struct block *b = find(p, 1);
    const CUdeviceptr base = b ? b->base : 0;
    const size_t bytes = b ? b->bytes : 0;
    memcpy(out[0], &base, sizeof(base));
    memcpy(out[1], &bytes, sizeof(bytes));
    memset(out[2], 0, sizeof(int));
    return CUDA_SUCCESS;
}

/* ---- kernels ---- */

static CUresult fake_LibraryLoadData(CUlibrary *out, const void *code, CUjit_option *jit,
                                     void **jit_values, unsigned jit_count, CUlibraryOption *o,
                                     void **o_values, unsigned o_count)
{
    NEED(code && !jit && !jit_values && !jit_count && !o && !o_values && !o_count,
         CUDA_ERROR_INVALID_VALUE);
    *out = calloc(1, sizeof(**out));
    return CUDA_SUCCESS;
}

static CUresult fake_LibraryUnload(CUlibrary lib)
{
    free(lib);
    return CUDA_SUCCESS;
}

static CUresult fake_LibraryGetKernel(CUkernel *out, CUlibrary lib, const char *name)
{
    NEED(lib && name, CUDA_ERROR_INVALID_VALUE);
    for (size_t i = 0; i < sizeof(fake.kernels) / sizeof(fake.kernels[0]); i++) {
        if (strcmp(fake.kernels[i].name, name) == 0) {
            *out = &fake.kernels[i];
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_NOT_FOUND;
}

static CUresult fake_KernelGetFunction(CUfunction *out, CUkernel k)
{
    NEED_CONTEXT();
    *out = (CUfunction)k;
    return CUDA_SUCCESS;
}

static CUresult fake_FuncLoad(CUfunction f)
{
    return f ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult fake_KernelSetAttribute(CUfunction_attribute a, int value, CUkernel k, CUdevice d)
{
    (void)d;
    const bool bytes = a == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && value <= 232448;
    const bool share = a == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT && value <= 100;
    NEED(k && (bytes || share), CUDA_ERROR_INVALID_VALUE);
    return CUDA_SUCCESS;
}

static CUresult fake_KernelGetParamInfo(CUkernel k, size_t i, size_t *offset, size_t *size)
{
    NEED(i < k->param_count, CUDA_ERROR_INVALID_VALUE);
    NEED(!fake_fails("cuKernelGetParamInfo"), CUDA_ERROR_NOT_SUPPORTED);
    *offset = k->offset[i];
    *size = k->size[i];
    return CUDA_SUCCESS;
}

static CUresult fake_OccupancyMaxActiveBlocksPerMultiprocessor(int *out, CUfunction f, int threads,
                                                               size_t smem_bytes)
{
    NEED(!fake_fails("cuOccupancyMaxActiveBlocksPerMultiprocessor"), CUDA_ERROR_UNKNOWN);
    NEED_CONTEXT();
    NEED(f && threads > 0, CUDA_ERROR_INVALID_VALUE);
    *out = threads <= 1024 && smem_bytes <= 232448 ? 1 : 0;
    return CUDA_SUCCESS;
}

static CUresult fake_FuncGetParamInfo(CUfunction f, size_t i, size_t *offset, size_t *size)
{
    return fake_KernelGetParamInfo((CUkernel)f, i, offset, size);
}

static CUresult fake_KernelGetName(const char **out, CUkernel k)
{
    *out = k->name;
    return CUDA_SUCCESS;
}

static CUresult fake_FuncGetName(const char **out, CUfunction f)
{
    return fake_KernelGetName(out, (CUkernel)f);
}

static CUresult fake_TensorMapEncodeTiled(CUtensorMap *out, CUtensorMapDataType type,
                                          cuuint32_t rank, void *address, const cuuint64_t *size,
                                          const cuuint64_t *stride, const cuuint32_t *box,
                                          const cuuint32_t *step, CUtensorMapInterleave interleave,
                                          CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2,
                                          CUtensorMapFloatOOBfill fill)
{
    NEED_CONTEXT();
    NEED(!fake_fails("cuTensorMapEncodeTiled"), CUDA_ERROR_UNKNOWN);
    NEED((uintptr_t)out % _Alignof(CUtensorMap) == 0 && rank >= 1 && rank <= 4,
         CUDA_ERROR_INVALID_VALUE);
    memset(out, 0, sizeof(*out));
    out->opaque[0] = (uintptr_t)address;
    out->opaque[1] = (cuuint64_t)type | (cuuint64_t)rank << 8 | (cuuint64_t)interleave << 16 |
                     (cuuint64_t)swizzle << 24 | (cuuint64_t)l2 << 32 | (cuuint64_t)fill << 40;
    for (cuuint32_t i = 0; i < rank; i++) {
        out->opaque[2 + i] = size[i];
        if (i + 1 < rank)
            out->opaque[6 + i] = stride[i];
        out->opaque[9 + i] = box[i] | (cuuint64_t)step[i] << 32;
    }
    return CUDA_SUCCESS;
}

/* ---- the door ---- */

static const struct rt_cuda_api fake_api = {
    .CtxPopCurrent = fake_CtxPopCurrent,
    .CtxPushCurrent = fake_CtxPushCurrent,
    .DeviceGet = fake_DeviceGet,
    .DeviceGetAttribute = fake_DeviceGetAttribute,
    .DeviceGetCount = fake_DeviceGetCount,
    .DeviceGetName = fake_DeviceGetName,
    .DevicePrimaryCtxRelease = fake_DevicePrimaryCtxRelease,
    .DevicePrimaryCtxRetain = fake_DevicePrimaryCtxRetain,
    .DeviceTotalMem = fake_DeviceTotalMem,
    .FuncGetName = fake_FuncGetName,
    .FuncGetParamInfo = fake_FuncGetParamInfo,
    .FuncLoad = fake_FuncLoad,
    .GetErrorName = fake_GetErrorName,
    .GetErrorString = fake_GetErrorString,
    .Init = fake_Init,
    .IpcCloseMemHandle = fake_IpcCloseMemHandle,
    .IpcGetMemHandle = fake_IpcGetMemHandle,
    .IpcOpenMemHandle = fake_IpcOpenMemHandle,
    .KernelGetFunction = fake_KernelGetFunction,
    .KernelGetName = fake_KernelGetName,
    .KernelGetParamInfo = fake_KernelGetParamInfo,
    .KernelSetAttribute = fake_KernelSetAttribute,
    .LibraryGetKernel = fake_LibraryGetKernel,
    .LibraryLoadData = fake_LibraryLoadData,
    .LibraryUnload = fake_LibraryUnload,
    .MemAlloc = fake_MemAlloc,
    .MemFree = fake_MemFree,
    .MemFreeHost = fake_MemFreeHost,
    .MemGetInfo = fake_MemGetInfo,
    .MemHostAlloc = fake_MemHostAlloc,
    .MemHostGetDevicePointer = fake_MemHostGetDevicePointer,
    .OccupancyMaxActiveBlocksPerMultiprocessor = fake_OccupancyMaxActiveBlocksPerMultiprocessor,
    .PointerGetAttributes = fake_PointerGetAttributes,
    .TensorMapEncodeTiled = fake_TensorMapEncodeTiled,
};

CUresult cuDriverGetVersion(int *driverVersion)
{
    *driverVersion = 12020;
    return CUDA_SUCCESS;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *symbolStatus)
{
    (void)symbolStatus;
    NEED(flags == CU_GET_PROC_ADDRESS_LEGACY_STREAM, CUDA_ERROR_INVALID_VALUE);
    const char *lacks = getenv("FAKE_CUDA_LACKS");
    *pfn = NULL;
    NEED(!lacks || strcmp(lacks, symbol) != 0, CUDA_ERROR_NOT_FOUND);
#define RT_CUDA_SYMBOL(name, version)                                                              \
    if (strcmp(symbol, "cu" #name) == 0 && cudaVersion == (version)) {                             \
        const PFN_cu##name##_v##version function =                                                 \
            fake_api.name ? fake_api.name : fake_graph_api.name;                                   \
        memcpy(pfn, &function, sizeof(function));                                                  \
        return CUDA_SUCCESS;                                                                       \
    }
#include "driver/cuda/cuda_symbols.inc"
#undef RT_CUDA_SYMBOL
    return CUDA_ERROR_NOT_FOUND;
}
