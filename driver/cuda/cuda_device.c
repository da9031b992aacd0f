/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/cuda/cuda_device.h"

#include "driver/comm/comm.h"

#include <string.h>

/* ---- context and memory ---- */

static int ctx_enter(struct rt_driver *d)
{
    if (rt_probe_enter(d, RT_DOP_ctx_enter))
        return RT_DRIVER_INJECTED;
    const struct rt_cuda *c = rt_cuda_of(d);
    return (int)c->api.CtxPushCurrent(c->context);
}

static int ctx_leave(struct rt_driver *d)
{
    const bool injected = rt_probe_enter(d, RT_DOP_ctx_leave);
    CUcontext left;
    const CUresult rc = rt_cuda_of(d)->api.CtxPopCurrent(&left);
    return injected ? RT_DRIVER_INJECTED : (int)rc;
}

static int mem_info(struct rt_driver *d, uint64_t *free_bytes, uint64_t *total_bytes)
{
    if (rt_probe_enter(d, RT_DOP_mem_info))
        return RT_DRIVER_INJECTED;
    size_t available, total;
    const CUresult rc = rt_cuda_of(d)->api.MemGetInfo(&available, &total);
    if (rc != CUDA_SUCCESS)
        return (int)rc;
    *free_bytes = available;
    *total_bytes = total;
    return 0;
}

static int mem_alloc(struct rt_driver *d, uint64_t bytes, rt_addr *out)
{
    if (rt_probe_enter(d, RT_DOP_mem_alloc))
        return RT_DRIVER_INJECTED;
    CUdeviceptr memory;
    const CUresult rc = rt_cuda_of(d)->api.MemAlloc(&memory, bytes);
    if (rc == CUDA_SUCCESS)
        *out = memory;
    return rt_cuda_created(d, rc);
}

static int mem_free(struct rt_driver *d, rt_addr addr)
{
    const bool injected = rt_probe_enter(d, RT_DOP_mem_free);
    if (addr == 0)
        return CUDA_ERROR_INVALID_VALUE;
    return rt_cuda_released(d, injected, rt_cuda_of(d)->api.MemFree(addr));
}

static int host_alloc(struct rt_driver *d, uint64_t bytes, void **out_host, rt_addr *out_addr)
{
    if (rt_probe_enter(d, RT_DOP_host_alloc))
        return RT_DRIVER_INJECTED;
    const struct rt_cuda *c = rt_cuda_of(d);
    void *host;
    CUresult rc =
        c->api.MemHostAlloc(&host, bytes, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP);
    if (rc != CUDA_SUCCESS)
        return (int)rc;
    CUdeviceptr mapped;
    rc = c->api.MemHostGetDevicePointer(&mapped, host, 0);
    if (rc != CUDA_SUCCESS) {
        c->api.MemFreeHost(host);
        return (int)rc;
    }
    *out_host = host;
    *out_addr = mapped;
    return rt_cuda_created(d, rc);
}

static int host_free(struct rt_driver *d, void *host)
{
    const bool injected = rt_probe_enter(d, RT_DOP_host_free);
    if (!host)
        return CUDA_ERROR_INVALID_VALUE;
    return rt_cuda_released(d, injected, rt_cuda_of(d)->api.MemFreeHost(host));
}

/* The driver answers for device, mapped host and managed memory alike. A word that is no address at
 * all may be an invalid value to it: then it knows no allocation there either. */
static int address_range(struct rt_driver *d, rt_addr addr, struct rt_address_range *out)
{
    if (rt_probe_enter(d, RT_DOP_address_range))
        return RT_DRIVER_INJECTED;
    CUdeviceptr base = 0;
    size_t bytes = 0;
    int ordinal = 0;
    CUpointer_attribute attributes[] = {CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
                                        CU_POINTER_ATTRIBUTE_RANGE_SIZE,
                                        CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
    void *values[] = {&base, &bytes, &ordinal};
    if (addr != 0) {
        const CUresult rc = rt_cuda_of(d)->api.PointerGetAttributes(3, attributes, values, addr);
        if (rc != CUDA_SUCCESS && rc != CUDA_ERROR_INVALID_VALUE)
            return (int)rc;
        if (rc == CUDA_ERROR_INVALID_VALUE || base == 0)
            base = bytes = 0;
    }
    *out = (struct rt_address_range){
        .base = base, .bytes = bytes, .ordinal = ordinal > 0 ? (uint32_t)ordinal : 0};
    return 0;
}

/* ---- other devices' memory ---- */

static int peer_export(struct rt_driver *d, rt_addr addr, struct rt_peer_handle *out)
{
    if (rt_probe_enter(d, RT_DOP_peer_export))
        return RT_DRIVER_INJECTED;
    CUipcMemHandle handle;
    _Static_assert(sizeof(handle) == sizeof(*out), "a handle is a CUipcMemHandle");
    const CUresult rc = rt_cuda_of(d)->api.IpcGetMemHandle(&handle, addr);
    if (rc == CUDA_SUCCESS)
        memcpy(out, &handle, sizeof(*out));
    return (int)rc;
}

static int peer_open(struct rt_driver *d, const struct rt_peer_handle *handle, rt_addr *out)
{
    if (rt_probe_enter(d, RT_DOP_peer_open))
        return RT_DRIVER_INJECTED;
    CUipcMemHandle theirs;
    CUdeviceptr memory;
    memcpy(&theirs, handle, sizeof(theirs));
    const CUresult rc =
        rt_cuda_of(d)->api.IpcOpenMemHandle(&memory, theirs, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    if (rc == CUDA_SUCCESS)
        *out = memory;
    return rt_cuda_created(d, rc);
}

static int peer_close(struct rt_driver *d, rt_addr addr)
{
    const bool injected = rt_probe_enter(d, RT_DOP_peer_close);
    if (addr == 0)
        return CUDA_ERROR_INVALID_VALUE;
    return rt_cuda_released(d, injected, rt_cuda_of(d)->api.IpcCloseMemHandle(addr));
}

/* ---- streams and events ---- */

static int stream_create(struct rt_driver *d, rt_dstream *out)
{
    if (rt_probe_enter(d, RT_DOP_stream_create))
        return RT_DRIVER_INJECTED;
    CUstream s;
    const CUresult rc = rt_cuda_of(d)->api.StreamCreate(&s, CU_STREAM_NON_BLOCKING);
    if (rc == CUDA_SUCCESS)
        *out = (rt_dstream)s;
    return rt_cuda_created(d, rc);
}

static int stream_destroy(struct rt_driver *d, rt_dstream s)
{
    const bool injected = rt_probe_enter(d, RT_DOP_stream_destroy);
    if (!s)
        return CUDA_ERROR_INVALID_HANDLE;
    return rt_cuda_released(d, injected, rt_cuda_of(d)->api.StreamDestroy((CUstream)s));
}

static int stream_sync(struct rt_driver *d, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_stream_sync))
        return RT_DRIVER_INJECTED;
    return (int)rt_cuda_of(d)->api.StreamSynchronize((CUstream)s);
}

static int stream_query(struct rt_driver *d, rt_dstream s, bool *out_idle)
{
    if (rt_probe_enter(d, RT_DOP_stream_query))
        return RT_DRIVER_INJECTED;
    const CUresult rc = rt_cuda_of(d)->api.StreamQuery((CUstream)s);
    if (rc != CUDA_SUCCESS && rc != CUDA_ERROR_NOT_READY)
        return (int)rc;
    *out_idle = rc == CUDA_SUCCESS;
    return 0;
}

static int event_create(struct rt_driver *d, rt_devent *out)
{
    if (rt_probe_enter(d, RT_DOP_event_create))
        return RT_DRIVER_INJECTED;
    CUevent e;
    const CUresult rc = rt_cuda_of(d)->api.EventCreate(&e, CU_EVENT_DEFAULT);
    if (rc == CUDA_SUCCESS)
        *out = (rt_devent)e;
    return rt_cuda_created(d, rc);
}

static int event_destroy(struct rt_driver *d, rt_devent e)
{
    const bool injected = rt_probe_enter(d, RT_DOP_event_destroy);
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    return rt_cuda_released(d, injected, rt_cuda_of(d)->api.EventDestroy((CUevent)e));
}

static int event_record(struct rt_driver *d, rt_devent e, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_event_record))
        return RT_DRIVER_INJECTED;
    return (int)rt_cuda_of(d)->api.EventRecord((CUevent)e, (CUstream)s);
}

static int event_sync(struct rt_driver *d, rt_devent e)
{
    if (rt_probe_enter(d, RT_DOP_event_sync))
        return RT_DRIVER_INJECTED;
    return (int)rt_cuda_of(d)->api.EventSynchronize((CUevent)e);
}

static int event_elapsed(struct rt_driver *d, rt_devent from, rt_devent to, float *out_ms)
{
    if (rt_probe_enter(d, RT_DOP_event_elapsed))
        return RT_DRIVER_INJECTED;
    float ms;
    const CUresult rc = rt_cuda_of(d)->api.EventElapsedTime(&ms, (CUevent)from, (CUevent)to);
    if (rc == CUDA_SUCCESS)
        *out_ms = ms;
    return (int)rc;
}

/* ---- copies ---- */

static int copy_in(struct rt_driver *d, rt_addr to, const void *from, uint64_t bytes, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_copy_in))
        return RT_DRIVER_INJECTED;
    return (int)rt_cuda_of(d)->api.MemcpyHtoDAsync(to, from, bytes, (CUstream)s);
}

static int copy_out(struct rt_driver *d, void *to, rt_addr from, uint64_t bytes, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_copy_out))
        return RT_DRIVER_INJECTED;
    return (int)rt_cuda_of(d)->api.MemcpyDtoHAsync(to, from, bytes, (CUstream)s);
}

static int fill(struct rt_driver *d, rt_addr to, uint8_t value, uint64_t bytes, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_fill))
        return RT_DRIVER_INJECTED;
    return (int)rt_cuda_of(d)->api.MemsetD8Async(to, value, bytes, (CUstream)s);
}

/* ---- kernels ---- */

static int library_load(struct rt_driver *d, const struct rt_image *image, rt_dlibrary *out)
{
    if (rt_probe_enter(d, RT_DOP_library_load))
        return RT_DRIVER_INJECTED;
    if (!image || !image->fatbin)
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    CUlibrary lib;
    const CUresult rc =
        rt_cuda_of(d)->api.LibraryLoadData(&lib, image->fatbin, NULL, NULL, 0, NULL, NULL, 0);
    if (rc == CUDA_SUCCESS)
        *out = (rt_dlibrary)lib;
    return rt_cuda_created(d, rc);
}

static int library_unload(struct rt_driver *d, rt_dlibrary lib)
{
    const bool injected = rt_probe_enter(d, RT_DOP_library_unload);
    if (!lib)
        return CUDA_ERROR_INVALID_HANDLE;
    return rt_cuda_released(d, injected, rt_cuda_of(d)->api.LibraryUnload((CUlibrary)lib));
}

/* Libraries load lazily by default; a first launch inside a capture must not find code to load. */
static int kernel_get(struct rt_driver *d, rt_dlibrary lib, const char *entry, rt_dkernel *out)
{
    if (rt_probe_enter(d, RT_DOP_kernel_get))
        return RT_DRIVER_INJECTED;
    const struct rt_cuda *c = rt_cuda_of(d);
    CUkernel kernel;
    CUfunction function;
    CUresult rc = c->api.LibraryGetKernel(&kernel, (CUlibrary)lib, entry);
    if (rc == CUDA_SUCCESS)
        rc = c->api.KernelGetFunction(&function, kernel);
    if (rc == CUDA_SUCCESS)
        rc = c->api.FuncLoad(function);
    if (rc == CUDA_SUCCESS)
        *out = (rt_dkernel)kernel;
    return (int)rc;
}

static int kernel_set_smem(struct rt_driver *d, rt_dkernel k, uint32_t dynamic_bytes)
{
    if (rt_probe_enter(d, RT_DOP_kernel_set_smem))
        return RT_DRIVER_INJECTED;
    if (dynamic_bytes > INT32_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    const struct rt_cuda *c = rt_cuda_of(d);
    const CUresult rc = c->api.KernelSetAttribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                                  (int)dynamic_bytes, (CUkernel)k, c->device);
    /* Blocks of the next kernel find room beside this one's: an SM that gave the rest to its L1
     * would have to run empty first. */
    return rc ? (int)rc
              : (int)c->api.KernelSetAttribute(CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
                                               CU_SHAREDMEM_CARVEOUT_MAX_SHARED, (CUkernel)k,
                                               c->device);
}

/* A second parameter would be one that no ABI struct describes. */
static int kernel_param_bytes(struct rt_driver *d, rt_dkernel k, uint32_t *out)
{
    if (rt_probe_enter(d, RT_DOP_kernel_param_bytes))
        return RT_DRIVER_INJECTED;
    const struct rt_cuda *c = rt_cuda_of(d);
    size_t offset, bytes, ignored;
    const CUresult rc = c->api.KernelGetParamInfo((CUkernel)k, 0, &offset, &bytes);
    if (rc != CUDA_SUCCESS)
        return (int)rc;
    if (c->api.KernelGetParamInfo((CUkernel)k, 1, &offset, &ignored) == CUDA_SUCCESS ||
        bytes > UINT32_MAX)
        return CUDA_ERROR_NOT_SUPPORTED;
    *out = (uint32_t)bytes;
    return 0;
}

/* The driver takes a CUkernel in a function's place. Its count of multiprocessors is that of the
 * device as this process has it, a partition's where it is partitioned. */
static int kernel_resident_blocks(struct rt_driver *d, rt_dkernel k, uint32_t block_threads,
                                  uint32_t smem_bytes, uint32_t *out)
{
    if (rt_probe_enter(d, RT_DOP_kernel_resident_blocks))
        return RT_DRIVER_INJECTED;
    if (block_threads > INT32_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    int blocks = 0;
    const CUresult rc = rt_cuda_of(d)->api.OccupancyMaxActiveBlocksPerMultiprocessor(
        &blocks, (CUfunction)k, (int)block_threads, smem_bytes);
    if (rc == CUDA_SUCCESS)
        *out = blocks > 0 ? (uint32_t)blocks * d->caps.sm_count : 0;
    return (int)rc;
}

/* The driver writes into its own type, whose alignment grew to 128 in CUDA 13; the hardware and the
 * driver's function ask for 64. L2 is asked for 128 bytes at a time: a token's 1152 are no multiple
 * of 256, with which a ninth more than the token is read. */
static int tensor_map(struct rt_driver *d, const struct rt_tensor_map_spec *spec,
                      struct rt_tensor_map *out)
{
    if (rt_probe_enter(d, RT_DOP_tensor_map))
        return RT_DRIVER_INJECTED;
    if (!rt_tensor_map_spec_valid(spec))
        return CUDA_ERROR_INVALID_VALUE;
    static const cuuint32_t every_element[RT_TENSOR_MAP_DIMS] = {1, 1, 1, 1, 1};
    CUtensorMap map;
    _Static_assert(sizeof(map) == sizeof(*out), "a tensor map is a CUtensorMap");
    const CUresult rc = rt_cuda_of(d)->api.TensorMapEncodeTiled(
        &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, spec->dims, (void *)(uintptr_t)spec->address,
        spec->size, spec->stride_bytes + 1, spec->box, every_element, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (rc == CUDA_SUCCESS)
        memcpy(out, &map, sizeof(*out));
    return (int)rc;
}

static int launch(struct rt_driver *d, const struct rt_launch *l, bool programmatic, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_launch))
        return RT_DRIVER_INJECTED;
    CUlaunchAttribute attributes[3] = {0};
    unsigned int count = 0;
    if (programmatic) {
        attributes[count].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attributes[count++].value.programmaticStreamSerializationAllowed = 1;
    }
    if (l->cluster_x > 1 && !l->own_cluster) {
        attributes[count].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        attributes[count].value.clusterDim.x = l->cluster_x;
        attributes[count].value.clusterDim.y = 1;
        attributes[count++].value.clusterDim.z = 1;
    }
    if (l->cooperative) {
        attributes[count].id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        attributes[count++].value.cooperative = 1;
    }
    const CUlaunchConfig config = {.gridDimX = l->grid[0],
                                   .gridDimY = l->grid[1],
                                   .gridDimZ = l->grid[2],
                                   .blockDimX = l->block[0],
                                   .blockDimY = l->block[1],
                                   .blockDimZ = l->block[2],
                                   .sharedMemBytes = l->smem_bytes,
                                   .hStream = (CUstream)s,
                                   .attrs = attributes,
                                   .numAttrs = count};
    /* The driver only reads parameters; its prototype does not say so. */
    void *params[] = {(void *)(uintptr_t)l->params};
    return (int)rt_cuda_of(d)->api.LaunchKernelEx(&config, (CUfunction)l->kernel, params, NULL);
}

/* Without a communicator there is nobody to exchange with. */
static int collective(struct rt_driver *d, const struct rt_collective *c, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_collective))
        return RT_DRIVER_INJECTED;
    if (!c || !c->comm || c->ranks != c->comm->ranks || !c->comm->exchange)
        return CUDA_ERROR_NOT_SUPPORTED;
    return rt_comm_exchange(d, c, s);
}

void rt_cuda_bind(struct rt_driver *d)
{
    d->ctx_enter = ctx_enter;
    d->ctx_leave = ctx_leave;
    d->mem_info = mem_info;
    d->mem_alloc = mem_alloc;
    d->mem_free = mem_free;
    d->host_alloc = host_alloc;
    d->host_free = host_free;
    d->address_range = address_range;
    d->peer_export = peer_export;
    d->peer_open = peer_open;
    d->peer_close = peer_close;
    d->stream_create = stream_create;
    d->stream_destroy = stream_destroy;
    d->stream_sync = stream_sync;
    d->stream_query = stream_query;
    d->event_create = event_create;
    d->event_destroy = event_destroy;
    d->event_record = event_record;
    d->event_sync = event_sync;
    d->event_elapsed = event_elapsed;
    d->copy_in = copy_in;
    d->copy_out = copy_out;
    d->fill = fill;
    d->library_load = library_load;
    d->library_unload = library_unload;
    d->kernel_get = kernel_get;
    d->kernel_set_smem = kernel_set_smem;
    d->kernel_param_bytes = kernel_param_bytes;
    d->kernel_resident_blocks = kernel_resident_blocks;
    d->tensor_map = tensor_map;
    d->launch = launch;
    d->collective = collective;
}
