/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_FAKE_CUDA_H
#define RT_TESTS_UNIT_FAKE_CUDA_H

/*
 * A libcuda.so.1 for machines without one: memory is RAM, streams run at once, and its kernels are
 * known by name. It is strict where the real driver is: operations want a current context,
 * handles and addresses must be its own. It takes the CUDA back end through its paths; it proves
 * nothing about a GPU.
 *
 * A tensor map of its own making says what it was made from:
 *
 *   word 0       address
 *   word 1       bytes, lowest first: type, rank, interleave, swizzle, L2 promotion, fill
 *   words 2..5   size of dimension i
 *   words 6..8   stride of dimension i + 1
 *   words 9..12  box of dimension i, and in the high half the step between its elements
 *
 * What is launched with programmatic stream serialization behind one kernel is captured with a
 * programmatic edge.
 *
 * A multiprocessor holds one block of a kernel. A cooperative grid of more blocks than there are
 * multiprocessors is refused when it is launched, and when its graph is instantiated.
 *
 *   FAKE_CUDA_DEVICES=n   how many devices there are (2)
 *   FAKE_CUDA_LACKS=name  a function that this driver does not have
 *   FAKE_CUDA_FAILS=name  a function that fails: those that ask fake_fails()
 *   FAKE_CUDA_BUFFER=n    nodes tell their parameters as a buffer of n bytes
 *   FAKE_CUDA_INIT=code   what cuInit returns (0)
 *   FAKE_CUDA_OLD=digits  devices of compute capability 7.0, as "02" (none; the others have 9.0)
 *   FAKE_CUDA_BUSY=digits devices that another process holds for itself: no context (none)
 *   FAKE_CUDA_FULL=digits devices without memory for a context (none)
 */
#include "driver/cuda/cuda_device.h"

#include <stdbool.h>
#include <stdint.h>

#define MAX_NODES 64
#define MAX_EDGES 8
#define MAX_PARAM_BYTES 512

struct CUkern_st {
    const char *name;
    size_t param_count;
    size_t offset[2], size[2];
};
struct CUgraphNode_st {
    CUgraphNodeType type;
    CUkernel kernel;
    CUDA_KERNEL_NODE_PARAMS params;
    unsigned char bytes[MAX_PARAM_BYTES];
    void *pointers[2];
    void *extra[5];
    size_t buffer_bytes;
    unsigned cluster_x;
    bool cooperative;
    CUgraphNode from[MAX_EDGES];
    int early[MAX_EDGES]; /* that edge's port: 1 and 2 are programmatic */
    size_t from_count;
    bool serialized; /* launched with programmatic stream serialization */
    CUdeviceptr dst;
    unsigned char value;
    size_t count;
    CUgraph graph;
};
struct CUgraph_st {
    CUgraphNode nodes[MAX_NODES];
    size_t count;
};
struct CUgraphExec_st {
    struct CUgraphNode_st nodes[MAX_NODES];
    size_t count;
};
struct CUstream_st {
    CUgraph capturing;
    CUgraphNode tails[MAX_EDGES];
    size_t tail_count;
};
struct CUevent_st {
    bool recorded;
};
struct CUlib_st {
    int unused;
};
struct CUctx_st {
    int unused;
};

#define FAKE_SM_COUNT 132

/* The one context; how often it is current and retained. */
struct fake_state {
    struct CUctx_st primary;
    int contexts, retained;
    struct CUkern_st kernels[3];
};
extern struct fake_state fake;

/* The functions of fake_cuda_graph.c; those of fake_cuda.c are null here. */
extern const struct rt_cuda_api fake_graph_api;

/* For tests that see no cuda.h: the port that the i-th edge into a node of a graph leaves. */
int fake_edge_early(const void *node, size_t i);

bool fake_fails(const char *name);
/* One live allocation holds [p, p + bytes). */
bool fake_owns(CUdeviceptr p, size_t bytes);

#define NEED(cond, code)                                                                           \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return code;                                                                           \
    } while (0)
#define NEED_CONTEXT() NEED(fake.contexts > 0, CUDA_ERROR_INVALID_CONTEXT)

#endif
