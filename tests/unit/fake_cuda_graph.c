/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fake_cuda.h"

#include <stdlib.h>
#include <string.h>

/* ---- graphs ---- */

static CUresult fake_GraphCreate(CUgraph *out, unsigned flags)
{
    (void)flags;
    *out = calloc(1, sizeof(**out));
    return CUDA_SUCCESS;
}

static CUresult fake_GraphDestroyNode(CUgraphNode n)
{
    NEED(n->graph->nodes[n->graph->count - 1] == n, CUDA_ERROR_INVALID_VALUE);
    n->graph->count--;
    free(n);
    return CUDA_SUCCESS;
}

static CUresult fake_GraphDestroy(CUgraph g)
{
    while (g->count)
        fake_GraphDestroyNode(g->nodes[g->count - 1]);
    free(g);
    return CUDA_SUCCESS;
}

static CUgraphNode append(CUgraph g, CUgraphNodeType type, const CUgraphNode *from, size_t count)
{
    if (g->count == MAX_NODES || count > MAX_EDGES)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        if (!from[i] || from[i]->graph != g)
            return NULL;
    }
    CUgraphNode n = calloc(1, sizeof(*n));
    n->type = type;
    n->graph = g;
    n->from_count = count;
    if (count)
        memcpy(n->from, from, count * sizeof(CUgraphNode));
    g->nodes[g->count++] = n;
    return n;
}

int fake_edge_early(const void *node, size_t i)
{
    const struct CUgraphNode_st *const n = node;
    return i < n->from_count ? n->early[i] : 0;
}

static void set_params(CUgraphNode n, CUkernel k, void **params)
{
    n->kernel = k;
    n->params.kern = k;
    for (size_t i = 0; i < k->param_count; i++) {
        n->pointers[i] = n->bytes + k->offset[i];
        memcpy(n->pointers[i], params[i], k->size[i]);
    }
    n->params.kernelParams = n->pointers;
}

static bool edges_valid(const CUgraphNode *from, const CUgraphEdgeData *data, size_t count)
{
    for (size_t i = 0; data && i < count; i++) {
        const bool programmatic = data[i].type == CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC;
        const bool early_port = data[i].from_port == CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC ||
                                data[i].from_port == CU_GRAPH_KERNEL_NODE_PORT_LAUNCH_ORDER;
        if ((programmatic ? !early_port : data[i].from_port != 0) || data[i].to_port != 0 ||
            !from[i] || (programmatic && from[i]->type != CU_GRAPH_NODE_TYPE_KERNEL))
            return false;
    }
    return true;
}

static CUresult fake_GraphAddNode(CUgraphNode *out, CUgraph g, const CUgraphNode *from,
                                  const CUgraphEdgeData *data, size_t count, CUgraphNodeParams *p)
{
    NEED(p->type == CU_GRAPH_NODE_TYPE_KERNEL && p->kernel.kern && !p->kernel.func &&
             p->kernel.ctx == &fake.primary && p->kernel.gridDimX && edges_valid(from, data, count),
         CUDA_ERROR_INVALID_VALUE);
    CUgraphNode n = append(g, p->type, from, count);
    NEED(n, CUDA_ERROR_INVALID_VALUE);
    n->params.gridDimX = p->kernel.gridDimX;
    n->params.gridDimY = p->kernel.gridDimY;
    n->params.gridDimZ = p->kernel.gridDimZ;
    n->params.blockDimX = p->kernel.blockDimX;
    n->params.blockDimY = p->kernel.blockDimY;
    n->params.blockDimZ = p->kernel.blockDimZ;
    n->params.sharedMemBytes = p->kernel.sharedMemBytes;
    for (size_t i = 0; data && i < count; i++)
        n->early[i] = data[i].from_port; /* with a type that goes with it */
    set_params(n, p->kernel.kern, p->kernel.kernelParams);
    *out = n;
    return CUDA_SUCCESS;
}

static CUresult fake_GraphKernelNodeSetAttribute(CUgraphNode n, CUkernelNodeAttrID id,
                                                 const CUkernelNodeAttrValue *value)
{
    NEED(!fake_fails("cuGraphKernelNodeSetAttribute"), CUDA_ERROR_UNKNOWN);
    if (id == CU_KERNEL_NODE_ATTRIBUTE_COOPERATIVE) {
        n->cooperative = value->cooperative != 0;
        return CUDA_SUCCESS;
    }
    NEED(id == CU_KERNEL_NODE_ATTRIBUTE_CLUSTER_DIMENSION && value->clusterDim.y == 1 &&
             value->clusterDim.z == 1 && n->params.gridDimX % value->clusterDim.x == 0,
         CUDA_ERROR_INVALID_VALUE);
    n->cluster_x = value->clusterDim.x;
    return CUDA_SUCCESS;
}

static CUresult fake_GraphKernelNodeGetAttribute(CUgraphNode n, CUkernelNodeAttrID id,
                                                 CUkernelNodeAttrValue *value)
{
    NEED(!fake_fails("cuGraphKernelNodeGetAttribute"), CUDA_ERROR_UNKNOWN);
    NEED(n->type == CU_GRAPH_NODE_TYPE_KERNEL && id == CU_KERNEL_NODE_ATTRIBUTE_COOPERATIVE,
         CUDA_ERROR_INVALID_VALUE);
    memset(value, 0, sizeof(*value));
    value->cooperative = n->cooperative;
    return CUDA_SUCCESS;
}

/* As if it had been launched with a buffer, of as much as was worth sending. */
static void give_buffer(CUgraphNode n, CUDA_KERNEL_NODE_PARAMS *out, size_t bytes)
{
    n->buffer_bytes = bytes;
    n->extra[0] = CU_LAUNCH_PARAM_BUFFER_POINTER;
    n->extra[1] = n->bytes;
    n->extra[2] = CU_LAUNCH_PARAM_BUFFER_SIZE;
    n->extra[3] = &n->buffer_bytes;
    n->extra[4] = CU_LAUNCH_PARAM_END;
    out->kernelParams = NULL;
    out->extra = n->extra;
}

static CUresult fake_GraphKernelNodeGetParams(CUgraphNode n, CUDA_KERNEL_NODE_PARAMS *out)
{
    const char *const bytes = getenv("FAKE_CUDA_BUFFER");
    NEED(!fake_fails("cuGraphKernelNodeGetParams"), CUDA_ERROR_NOT_SUPPORTED);
    *out = n->params;
    if (bytes)
        give_buffer(n, out, strtoul(bytes, NULL, 10));
    return CUDA_SUCCESS;
}

static CUresult fake_GraphNodeGetType(CUgraphNode n, CUgraphNodeType *out)
{
    *out = n->type;
    return CUDA_SUCCESS;
}

static CUresult fake_GraphGetNodes(CUgraph g, CUgraphNode *nodes, size_t *count)
{
    if (nodes) {
        for (size_t i = 0; i < *count; i++)
            nodes[i] = i < g->count ? g->nodes[i] : NULL;
    }
    if (!nodes || *count > g->count)
        *count = g->count;
    return CUDA_SUCCESS;
}

/* rt_test_mad: *p = *p * 3 + value. rt_test_wide: *p = the last word + blocks of a cluster. */
static void run(const struct CUgraphNode_st *n)
{
    if (n->type == CU_GRAPH_NODE_TYPE_MEMSET) {
        memset((void *)(uintptr_t)n->dst, n->value, n->count);
        return;
    }
    const bool wide = n->kernel == &fake.kernels[2];
    if (n->kernel != &fake.kernels[0] && !wide)
        return;
    uint64_t address;
    uint32_t value;
    memcpy(&address, n->bytes, sizeof(address));
    memcpy(&value, n->bytes + (wide ? 508 : 8), sizeof(value));
    uint32_t *p = (uint32_t *)(uintptr_t)address;
    *p = wide ? value + (n->cluster_x ? n->cluster_x : 1) : *p * 3 + value;
}

static bool fits(const struct CUgraphNode_st *n)
{
    return !n->cooperative || n->params.gridDimX <= FAKE_SM_COUNT;
}

static CUresult fake_StreamSynchronize(CUstream s)
{
    NEED(!fake_fails("cuStreamSynchronize"), CUDA_ERROR_UNKNOWN);
    NEED_CONTEXT();
    NEED(!s || !s->capturing, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    return CUDA_SUCCESS;
}

static CUresult fake_GraphInstantiateWithParams(CUgraphExec *out, CUgraph g,
                                                CUDA_GRAPH_INSTANTIATE_PARAMS *p)
{
    NEED_CONTEXT();
    NEED(p->flags == CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD, CUDA_ERROR_INVALID_VALUE);
    for (size_t i = 0; i < g->count; i++)
        NEED(fits(g->nodes[i]), CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    CUgraphExec x = calloc(1, sizeof(*x));
    for (size_t i = 0; i < g->count; i++)
        x->nodes[i] = *g->nodes[i];
    x->count = g->count;
    *out = x;
    return CUDA_SUCCESS;
}

static CUresult fake_GraphExecDestroy(CUgraphExec x)
{
    free(x);
    return CUDA_SUCCESS;
}

static CUresult fake_GraphLaunch(CUgraphExec x, CUstream s)
{
    NEED(!s || !s->capturing, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    for (size_t i = 0; i < x->count; i++)
        run(&x->nodes[i]);
    return CUDA_SUCCESS;
}

/* ---- streams and events ---- */

static CUresult fake_StreamCreate(CUstream *out, unsigned flags)
{
    NEED_CONTEXT();
    NEED(flags == CU_STREAM_NON_BLOCKING, CUDA_ERROR_INVALID_VALUE);
    *out = calloc(1, sizeof(**out));
    return CUDA_SUCCESS;
}

static CUresult fake_StreamDestroy(CUstream s)
{
    NEED(!s->capturing, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    free(s);
    return CUDA_SUCCESS;
}

static CUresult fake_StreamQuery(CUstream s)
{
    return fake_StreamSynchronize(s);
}

static CUresult fake_StreamBeginCaptureToGraph(CUstream s, CUgraph g, const CUgraphNode *from,
                                               const CUgraphEdgeData *data, size_t count,
                                               CUstreamCaptureMode mode)
{
    NEED(s && !s->capturing && count <= MAX_EDGES && edges_valid(from, data, count) &&
             mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
         CUDA_ERROR_INVALID_VALUE);
    s->capturing = g;
    s->tail_count = count;
    if (count)
        memcpy(s->tails, from, count * sizeof(CUgraphNode));
    return CUDA_SUCCESS;
}

static CUresult fake_StreamGetCaptureInfo(CUstream s, CUstreamCaptureStatus *status, cuuint64_t *id,
                                          CUgraph *g, const CUgraphNode **nodes,
                                          const CUgraphEdgeData **data, size_t *count)
{
    (void)id;
    (void)g;
    NEED(data, CUDA_ERROR_LOSSY_QUERY);
    *status = s->capturing ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
    *nodes = s->tails;
    *data = NULL;
    *count = s->tail_count;
    return CUDA_SUCCESS;
}

static CUresult fake_StreamEndCapture(CUstream s, CUgraph *out)
{
    NEED(s->capturing, CUDA_ERROR_ILLEGAL_STATE);
    *out = s->capturing;
    s->capturing = NULL;
    return fake_fails("cuStreamEndCapture") ? CUDA_ERROR_STREAM_CAPTURE_UNJOINED : CUDA_SUCCESS;
}

/* Runs the node's work, or keeps it as the capture's new tail. */
static CUresult put(CUstream s, const struct CUgraphNode_st *work)
{
    NEED_CONTEXT();
    if (!s || !s->capturing) {
        run(work);
        return CUDA_SUCCESS;
    }
    CUgraphNode n = append(s->capturing, work->type, s->tails, s->tail_count);
    NEED(n, CUDA_ERROR_INVALID_VALUE);
    n->early[0] =
        work->serialized && n->from_count == 1 && n->from[0]->type == CU_GRAPH_NODE_TYPE_KERNEL;
    if (work->kernel) {
        void *params[2] = {work->pointers[0], work->pointers[1]};
        n->params = work->params;
        set_params(n, work->kernel, params);
        n->cluster_x = work->cluster_x;
        n->cooperative = work->cooperative;
    }
    n->dst = work->dst;
    n->value = work->value;
    n->count = work->count;
    s->tails[0] = n;
    s->tail_count = 1;
    return CUDA_SUCCESS;
}

static CUresult fake_MemsetD8Async(CUdeviceptr p, unsigned char value, size_t bytes, CUstream s)
{
    NEED(bytes == 0 || fake_owns(p, bytes), CUDA_ERROR_INVALID_VALUE);
    const struct CUgraphNode_st work = {
        .type = CU_GRAPH_NODE_TYPE_MEMSET, .dst = p, .value = value, .count = bytes};
    return put(s, &work);
}

static CUresult fake_MemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream s)
{
    NEED_CONTEXT();
    NEED(fake_owns(to, bytes) && (!s || !s->capturing), CUDA_ERROR_INVALID_VALUE);
    memcpy((void *)(uintptr_t)to, from, bytes);
    return CUDA_SUCCESS;
}

static CUresult fake_MemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream s)
{
    NEED_CONTEXT();
    NEED(fake_owns(from, bytes) && (!s || !s->capturing), CUDA_ERROR_INVALID_VALUE);
    memcpy(to, (void *)(uintptr_t)from, bytes);
    return CUDA_SUCCESS;
}

static CUresult fake_EventCreate(CUevent *out, unsigned flags)
{
    NEED_CONTEXT();
    NEED(flags == CU_EVENT_DEFAULT, CUDA_ERROR_INVALID_VALUE);
    *out = calloc(1, sizeof(**out));
    return CUDA_SUCCESS;
}

static CUresult fake_EventDestroy(CUevent e)
{
    free(e);
    return CUDA_SUCCESS;
}

static CUresult fake_EventRecord(CUevent e, CUstream s)
{
    (void)s;
    e->recorded = true;
    return CUDA_SUCCESS;
}

static CUresult fake_EventSynchronize(CUevent e)
{
    (void)e;
    return CUDA_SUCCESS;
}

static CUresult fake_EventElapsedTime(float *out, CUevent from, CUevent to)
{
    NEED(from->recorded && to->recorded, CUDA_ERROR_INVALID_HANDLE);
    *out = 0.5F;
    return CUDA_SUCCESS;
}

static CUresult fake_LaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **params,
                                    void **extra)
{
    NEED(f && params && !extra && c->gridDimX && c->blockDimX, CUDA_ERROR_INVALID_VALUE);
    struct CUgraphNode_st work = {.type = CU_GRAPH_NODE_TYPE_KERNEL};
    for (unsigned i = 0; i < c->numAttrs; i++) {
        const CUlaunchAttribute *a = &c->attrs[i];
        NEED(a->id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION ||
                 a->id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE ||
                 (a->id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION &&
                  c->gridDimX % a->value.clusterDim.x == 0),
             CUDA_ERROR_INVALID_VALUE);
        if (a->id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION)
            work.serialized = a->value.programmaticStreamSerializationAllowed != 0;
        if (a->id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
            work.cluster_x = a->value.clusterDim.x;
        if (a->id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
            work.cooperative = a->value.cooperative != 0;
    }
    work.params.gridDimX = c->gridDimX;
    work.params.blockDimX = c->blockDimX;
    NEED(fits(&work), CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    set_params(&work, (CUkernel)f, params);
    return put(c->hStream, &work);
}

const struct rt_cuda_api fake_graph_api = {
    .EventCreate = fake_EventCreate,
    .EventDestroy = fake_EventDestroy,
    .EventElapsedTime = fake_EventElapsedTime,
    .EventRecord = fake_EventRecord,
    .EventSynchronize = fake_EventSynchronize,
    .GraphAddNode = fake_GraphAddNode,
    .GraphCreate = fake_GraphCreate,
    .GraphDestroy = fake_GraphDestroy,
    .GraphDestroyNode = fake_GraphDestroyNode,
    .GraphExecDestroy = fake_GraphExecDestroy,
    .GraphGetNodes = fake_GraphGetNodes,
    .GraphInstantiateWithParams = fake_GraphInstantiateWithParams,
    .GraphKernelNodeGetAttribute = fake_GraphKernelNodeGetAttribute,
    .GraphKernelNodeGetParams = fake_GraphKernelNodeGetParams,
    .GraphKernelNodeSetAttribute = fake_GraphKernelNodeSetAttribute,
    .GraphLaunch = fake_GraphLaunch,
    .GraphNodeGetType = fake_GraphNodeGetType,
    .LaunchKernelEx = fake_LaunchKernelEx,
    .MemcpyDtoHAsync = fake_MemcpyDtoHAsync,
    .MemcpyHtoDAsync = fake_MemcpyHtoDAsync,
    .MemsetD8Async = fake_MemsetD8Async,
    .StreamBeginCaptureToGraph = fake_StreamBeginCaptureToGraph,
    .StreamCreate = fake_StreamCreate,
    .StreamDestroy = fake_StreamDestroy,
    .StreamEndCapture = fake_StreamEndCapture,
    .StreamGetCaptureInfo = fake_StreamGetCaptureInfo,
    .StreamQuery = fake_StreamQuery,
    .StreamSynchronize = fake_StreamSynchronize,
};
