/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/cuda/cuda_device.h"

#include "common/math.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- edges ---- */

struct edge_list {
    CUgraphNode *from;
    CUgraphEdgeData *data;
};

static void edges_free(struct edge_list *list)
{
    free(list->from);
    free(list->data);
}

/* Both arrays stay null where there are no edges. */
static CUresult edges_make(const struct rt_dedge *edges, uint32_t count, struct edge_list *out)
{
    *out = (struct edge_list){0};
    if (count == 0)
        return CUDA_SUCCESS;
    out->from = calloc(count, sizeof(CUgraphNode));
    out->data = calloc(count, sizeof(CUgraphEdgeData));
    if (!out->from || !out->data) {
        edges_free(out);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    for (uint32_t i = 0; i < count; i++) {
        out->from[i] = (CUgraphNode)edges[i].from;
        if (edges[i].programmatic) {
            out->data[i].from_port = edges[i].begun ? CU_GRAPH_KERNEL_NODE_PORT_LAUNCH_ORDER
                                                    : CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC;
            out->data[i].type = CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC;
        }
    }
    return CUDA_SUCCESS;
}

/* ---- recording ---- */

static int graph_create(struct rt_driver *d, rt_dgraph *out)
{
    if (rt_probe_enter(d, RT_DOP_graph_create))
        return RT_DRIVER_INJECTED;
    CUgraph g;
    const CUresult rc = rt_cuda_of(d)->api.GraphCreate(&g, 0);
    if (rc == CUDA_SUCCESS)
        *out = (rt_dgraph)g;
    return rt_cuda_created(d, rc);
}

static int graph_destroy(struct rt_driver *d, rt_dgraph g)
{
    const bool injected = rt_probe_enter(d, RT_DOP_graph_destroy);
    if (!g)
        return CUDA_ERROR_INVALID_HANDLE;
    return rt_cuda_released(d, injected, rt_cuda_of(d)->api.GraphDestroy((CUgraph)g));
}

static CUresult set_cluster(const struct rt_cuda *c, CUgraphNode node, uint32_t cluster_x)
{
    CUkernelNodeAttrValue value;
    memset(&value, 0, sizeof(value));
    value.clusterDim.x = cluster_x;
    value.clusterDim.y = 1;
    value.clusterDim.z = 1;
    return c->api.GraphKernelNodeSetAttribute(node, CU_KERNEL_NODE_ATTRIBUTE_CLUSTER_DIMENSION,
                                              &value);
}

static CUresult set_cooperative(const struct rt_cuda *c, CUgraphNode node)
{
    CUkernelNodeAttrValue value;
    memset(&value, 0, sizeof(value));
    value.cooperative = 1;
    return c->api.GraphKernelNodeSetAttribute(node, CU_KERNEL_NODE_ATTRIBUTE_COOPERATIVE, &value);
}

static CUresult add_kernel(const struct rt_cuda *c, CUgraph g, const struct rt_launch *l,
                           const struct edge_list *edges, uint32_t edge_count, CUgraphNode *out)
{
    /* The driver copies the parameters; its prototype does not say that it only reads them. */
    void *params[] = {(void *)(uintptr_t)l->params};
    CUgraphNodeParams p = {.type = CU_GRAPH_NODE_TYPE_KERNEL};
    p.kernel.kern = (CUkernel)l->kernel;
    p.kernel.ctx = c->context;
    p.kernel.gridDimX = l->grid[0];
    p.kernel.gridDimY = l->grid[1];
    p.kernel.gridDimZ = l->grid[2];
    p.kernel.blockDimX = l->block[0];
    p.kernel.blockDimY = l->block[1];
    p.kernel.blockDimZ = l->block[2];
    p.kernel.sharedMemBytes = l->smem_bytes;
    p.kernel.kernelParams = params;
    CUgraphNode node;
    CUresult rc = c->api.GraphAddNode(&node, g, edges->from, edges->data, edge_count, &p);
    if (rc != CUDA_SUCCESS)
        return rc;
    if (l->cluster_x > 1 && !l->own_cluster)
        rc = set_cluster(c, node, l->cluster_x);
    if (rc == CUDA_SUCCESS && l->cooperative)
        rc = set_cooperative(c, node);
    if (rc != CUDA_SUCCESS) {
        c->api.GraphDestroyNode(node);
        return rc;
    }
    *out = node;
    return CUDA_SUCCESS;
}

static int graph_add_kernel(struct rt_driver *d, rt_dgraph g, const struct rt_launch *l,
                            const struct rt_dedge *edges, uint32_t edge_count, rt_dnode *out)
{
    if (rt_probe_enter(d, RT_DOP_graph_add_kernel))
        return RT_DRIVER_INJECTED;
    struct edge_list list;
    CUresult rc = edges_make(edges, edge_count, &list);
    if (rc != CUDA_SUCCESS)
        return (int)rc;
    CUgraphNode node;
    rc = add_kernel(rt_cuda_of(d), (CUgraph)g, l, &list, edge_count, &node);
    edges_free(&list);
    if (rc == CUDA_SUCCESS)
        *out = (rt_dnode)node;
    return (int)rc;
}

static int graph_add_work(struct rt_driver *d, rt_dgraph g, const struct rt_work *work,
                          const struct rt_dedge *edges, uint32_t edge_count, rt_dnode *out)
{
    (void)g;
    (void)work;
    (void)edges;
    (void)edge_count;
    (void)out;
    if (rt_probe_enter(d, RT_DOP_graph_add_work))
        return RT_DRIVER_INJECTED;
    return CUDA_ERROR_NOT_SUPPORTED;
}

/* ---- capture ---- */

/* Thread-local mode: what this thread may not do while it captures fails, other threads are free.
 */
static int graph_capture_begin(struct rt_driver *d, rt_dgraph g, rt_dstream s,
                               const struct rt_dedge *edges, uint32_t edge_count)
{
    if (rt_probe_enter(d, RT_DOP_graph_capture_begin))
        return RT_DRIVER_INJECTED;
    struct edge_list list;
    CUresult rc = edges_make(edges, edge_count, &list);
    if (rc != CUDA_SUCCESS)
        return (int)rc;
    rc = rt_cuda_of(d)->api.StreamBeginCaptureToGraph((CUstream)s, (CUgraph)g, list.from, list.data,
                                                      edge_count,
                                                      CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    edges_free(&list);
    return rt_cuda_created(d, rc);
}

/* Nodes that later work must follow. The kind of the edges is dropped: following a node's end
 * instead of an earlier point of it is always right. */
static CUresult capture_tails(const struct rt_cuda *c, CUstream s, rt_dnode *tails,
                              uint32_t capacity, uint32_t *count)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_ACTIVE;
    const CUgraphNode *nodes = NULL;
    const CUgraphEdgeData *data = NULL;
    size_t node_count = 0;
    const CUresult rc =
        c->api.StreamGetCaptureInfo(s, &status, NULL, NULL, &nodes, &data, &node_count);
    if (rc != CUDA_SUCCESS)
        return rc;
    if (status == CU_STREAM_CAPTURE_STATUS_NONE)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (node_count > UINT32_MAX)
        return CUDA_ERROR_NOT_SUPPORTED;
    for (size_t i = 0; i < node_count && i < capacity; i++)
        tails[i] = (rt_dnode)nodes[i];
    *count = (uint32_t)node_count;
    return CUDA_SUCCESS;
}

/* The driver shows the tails only before the end of the capture, so they are written before it is
 * known to succeed; *count says whether they count. */
static int graph_capture_end(struct rt_driver *d, rt_dgraph g, rt_dstream s, rt_dnode *tails,
                             uint32_t capacity, uint32_t *count)
{
    const bool injected = rt_probe_enter(d, RT_DOP_graph_capture_end);
    const struct rt_cuda *c = rt_cuda_of(d);
    uint32_t tail_count = 0;
    const CUresult tails_rc = capture_tails(c, (CUstream)s, tails, capacity, &tail_count);
    if (tails_rc == CUDA_ERROR_ILLEGAL_STATE)
        return (int)tails_rc; /* nothing is being captured, so nothing ends */
    CUgraph captured = NULL;
    CUresult rc = c->api.StreamEndCapture((CUstream)s, &captured);
    if (rc == CUDA_SUCCESS)
        rc = tails_rc;
    if (rc == CUDA_SUCCESS && captured != (CUgraph)g)
        rc = CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    if (rc == CUDA_SUCCESS && !injected)
        *count = tail_count;
    return rt_cuda_released(d, injected, rc);
}

/* ---- reading back ---- */

/* The driver lists nodes in the order of their creation, though it does not promise to. */
static int graph_nodes(struct rt_driver *d, rt_dgraph g, rt_dnode *nodes, uint32_t *count)
{
    if (rt_probe_enter(d, RT_DOP_graph_nodes))
        return RT_DRIVER_INJECTED;
    size_t n = nodes ? *count : 0;
    const CUresult rc =
        rt_cuda_of(d)->api.GraphGetNodes((CUgraph)g, (CUgraphNode *)(void *)nodes, &n);
    if (rc != CUDA_SUCCESS)
        return (int)rc;
    if (n > UINT32_MAX)
        return CUDA_ERROR_NOT_SUPPORTED;
    *count = (uint32_t)n;
    return 0;
}

static enum rt_node_type node_type(CUgraphNodeType type)
{
    switch (type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        return RT_NODE_KERNEL;
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        return RT_NODE_MEMCPY;
    case CU_GRAPH_NODE_TYPE_MEMSET:
        return RT_NODE_MEMSET;
    case CU_GRAPH_NODE_TYPE_HOST:
        return RT_NODE_HOST;
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        return RT_NODE_MEM_ALLOC;
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        return RT_NODE_MEM_FREE;
    case CU_GRAPH_NODE_TYPE_EMPTY:
        return RT_NODE_EMPTY;
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        return RT_NODE_EVENT;
    default:
        return RT_NODE_OTHER;
    }
}

/* The parameter block of a kernel that was launched with one buffer instead of pointers. */
struct param_buffer {
    const unsigned char *bytes;
    size_t size;
};

static struct param_buffer find_buffer(void **extra)
{
    struct param_buffer buffer = {0};
    for (size_t i = 0; extra && extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
        if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER)
            buffer.bytes = extra[i + 1];
        else if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE)
            buffer.size = *(const size_t *)extra[i + 1];
    }
    return buffer;
}

static CUresult param_info(const struct rt_cuda *c, const CUDA_KERNEL_NODE_PARAMS *p, size_t index,
                           size_t *offset, size_t *size)
{
    return p->func ? c->api.FuncGetParamInfo(p->func, index, offset, size)
                   : c->api.KernelGetParamInfo(p->kern, index, offset, size);
}

/* Each parameter starts a new word, so an address is never split and two integers never look like
 * one. */
static CUresult read_words(const struct rt_cuda *c, const CUDA_KERNEL_NODE_PARAMS *p,
                           struct rt_node_info *out)
{
    const struct param_buffer buffer = find_buffer(p->extra);
    for (size_t i = 0;; i++) {
        size_t offset = 0, size = 0;
        const CUresult rc = param_info(c, p, i, &offset, &size);
        if (rc == CUDA_ERROR_INVALID_VALUE)
            return CUDA_SUCCESS; /* i is the number of parameters */
        if (rc != CUDA_SUCCESS)
            return rc;
        const uint64_t words = rt_ceil_div_u64(size, sizeof(out->words[0]));
        if (words > RT_NODE_MAX_WORDS - out->word_count)
            return CUDA_ERROR_NOT_SUPPORTED;
        const void *from = NULL;
        if (p->kernelParams)
            from = p->kernelParams[i];
        else if (buffer.bytes && offset <= buffer.size && size <= buffer.size - offset)
            from = buffer.bytes + offset;
        if (!from)
            return CUDA_ERROR_NOT_SUPPORTED;
        memcpy(&out->words[out->word_count], from, size);
        out->word_count += (uint32_t)words;
    }
}

static CUresult read_kernel(const struct rt_cuda *c, CUgraphNode n, struct rt_node_info *out)
{
    CUDA_KERNEL_NODE_PARAMS p = {0};
    CUresult rc = c->api.GraphKernelNodeGetParams(n, &p);
    if (rc != CUDA_SUCCESS)
        return rc;
    out->grid[0] = p.gridDimX;
    out->grid[1] = p.gridDimY;
    out->grid[2] = p.gridDimZ;
    out->block[0] = p.blockDimX;
    out->block[1] = p.blockDimY;
    out->block[2] = p.blockDimZ;
    out->smem_bytes = p.sharedMemBytes;
    CUkernelNodeAttrValue value;
    memset(&value, 0, sizeof(value));
    rc = c->api.GraphKernelNodeGetAttribute(n, CU_KERNEL_NODE_ATTRIBUTE_COOPERATIVE, &value);
    if (rc != CUDA_SUCCESS)
        return rc;
    out->cooperative = value.cooperative != 0;
    const char *name = NULL;
    const CUresult name_rc =
        p.func ? c->api.FuncGetName(&name, p.func) : c->api.KernelGetName(&name, p.kern);
    if (name_rc == CUDA_SUCCESS && name)
        snprintf(out->name, sizeof(out->name), "%s", name);
    return read_words(c, &p, out);
}

/* A library may launch with a buffer that is shorter than its kernel's parameters, as NCCL does, or
 * with a kernel that the driver tells nothing of. Whether that matters is the audit's business. */
static CUresult read_kernel_or_none(const struct rt_cuda *c, CUgraphNode n,
                                    struct rt_node_info *out)
{
    const CUresult rc = read_kernel(c, n, out);
    if (rc != CUDA_ERROR_NOT_SUPPORTED)
        return rc;
    out->is_opaque = true;
    memset(out->words, 0, sizeof(out->words));
    out->word_count = 0;
    return CUDA_SUCCESS;
}

static int graph_node_info(struct rt_driver *d, rt_dnode n, struct rt_node_info *out)
{
    if (rt_probe_enter(d, RT_DOP_graph_node_info))
        return RT_DRIVER_INJECTED;
    const struct rt_cuda *c = rt_cuda_of(d);
    CUgraphNodeType type;
    CUresult rc = c->api.GraphNodeGetType((CUgraphNode)n, &type);
    if (rc != CUDA_SUCCESS)
        return (int)rc;
    struct rt_node_info info = {.type = node_type(type)};
    if (info.type == RT_NODE_KERNEL)
        rc = read_kernel_or_none(c, (CUgraphNode)n, &info);
    if (rc == CUDA_SUCCESS)
        *out = info;
    return (int)rc;
}

/* ---- executable graphs ---- */

static int graph_instantiate(struct rt_driver *d, rt_dgraph g, rt_dstream s, rt_dexec *out)
{
    if (rt_probe_enter(d, RT_DOP_graph_instantiate))
        return RT_DRIVER_INJECTED;
    const struct rt_cuda *c = rt_cuda_of(d);
    CUDA_GRAPH_INSTANTIATE_PARAMS params = {.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD,
                                            .hUploadStream = (CUstream)s};
    CUgraphExec x = NULL;
    CUresult rc = c->api.GraphInstantiateWithParams(&x, (CUgraph)g, &params);
    if (rc != CUDA_SUCCESS)
        return (int)rc;
    rc = c->api.StreamSynchronize((CUstream)s);
    if (rc == CUDA_SUCCESS)
        *out = (rt_dexec)x;
    else
        c->api.GraphExecDestroy(x);
    return rt_cuda_created(d, rc);
}

static int exec_destroy(struct rt_driver *d, rt_dexec x)
{
    const bool injected = rt_probe_enter(d, RT_DOP_exec_destroy);
    if (!x)
        return CUDA_ERROR_INVALID_HANDLE;
    return rt_cuda_released(d, injected, rt_cuda_of(d)->api.GraphExecDestroy((CUgraphExec)x));
}

static int graph_launch(struct rt_driver *d, rt_dexec x, rt_dstream s)
{
    if (rt_probe_enter(d, RT_DOP_graph_launch))
        return RT_DRIVER_INJECTED;
    return (int)rt_cuda_of(d)->api.GraphLaunch((CUgraphExec)x, (CUstream)s);
}

void rt_cuda_bind_graphs(struct rt_driver *d)
{
    d->graph_create = graph_create;
    d->graph_destroy = graph_destroy;
    d->graph_add_kernel = graph_add_kernel;
    d->graph_add_work = graph_add_work;
    d->graph_capture_begin = graph_capture_begin;
    d->graph_capture_end = graph_capture_end;
    d->graph_nodes = graph_nodes;
    d->graph_node_info = graph_node_info;
    d->graph_instantiate = graph_instantiate;
    d->exec_destroy = exec_destroy;
    d->graph_launch = graph_launch;
}
