/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_DRIVER_HOST_HOST_PARTS_H
#define RT_DRIVER_HOST_HOST_PARTS_H

/*
 * Inside of the host device. The handles of driver.h are these structs themselves.
 *
 *   host_device.c   opening it, its context, its errors
 *   host_graph.c    graphs as recorded lists, their immutable copies
 *   host_stream.c   streams, events, copies, queued work
 *   host_exec.c     a replay
 *   host_kernels.c  libraries of C functions, checked launches, tensor maps
 *   host_twins.c    products and exchanges, which on CUDA are libraries'
 *   host_memory.c   allocations, and what lies in one
 * each calls those below it only.
 *
 * A stream that is not held runs its work at once, in the caller's thread. A held one queues it:
 *
 *   submit -> check -> held? --no--> run
 *                        \--yes-> | work | work | work | --release, sync, destroy--> check -> run
 */
#include "driver/driver.h"

/* Errors of the host device: name, number, text. */
#define RT_HOST_ERRORS(X)                                                                          \
    X(RT_HOST_INVALID, 1, "invalid argument")                                                      \
    X(RT_HOST_NO_MEMORY, 2, "out of memory")                                                       \
    X(RT_HOST_NOT_FOUND, 3, "no such kernel, image or allocation")                                 \
    X(RT_HOST_RANGE, 4, "addresses are not inside one live allocation")                            \
    X(RT_HOST_UNSUPPORTED, 5, "not supported on the host device")                                  \
    X(RT_HOST_PARAMS, 6, "parameter block is not of the kernel's size")                            \
    X(RT_HOST_NO_CONTEXT, 7, "no context was entered")                                             \
    X(RT_HOST_NOT_READY, 8, "event is not recorded yet")                                           \
    X(RT_HOST_TOO_LARGE, 9, "more blocks of a cooperative grid than the device holds at once")

enum rt_host_error {
#define RT_HOST_ERROR_ENUM(name, number, text) name = number,
    RT_HOST_ERRORS(RT_HOST_ERROR_ENUM)
#undef RT_HOST_ERROR_ENUM
};

struct rt_host_block {
    struct rt_host_block *next;
    rt_addr base;
    uint64_t bytes;
    bool pinned;  /* from host_alloc, to be released by host_free */
    bool adopted; /* the caller's */
};

enum rt_host_work_kind {
    RT_HOST_WORK_KERNEL,
    RT_HOST_WORK_MATMUL,
    RT_HOST_WORK_COLLECTIVE,
    RT_HOST_WORK_GRAPH,
    RT_HOST_WORK_COPY_IN,
    RT_HOST_WORK_COPY_OUT,
    RT_HOST_WORK_FILL,
    RT_HOST_WORK_EVENT
};

/* One thing put on a stream. A queued one has its own copy of the launch and holds a reference to
 * its graph or event. */
struct rt_host_work {
    enum rt_host_work_kind kind;
    uint8_t value; /* FILL */
    struct rt_host_work *next;
    const struct rt_launch *launch;  /* KERNEL */
    struct rt_launch *owned_launch;  /* KERNEL, queued */
    struct rt_matmul matmul;         /* MATMUL */
    struct rt_collective collective; /* COLLECTIVE */
    rt_dexec exec;                   /* GRAPH */
    rt_devent event;                 /* EVENT */
    rt_addr device;                  /* COPY_IN, COPY_OUT, FILL */
    const void *from;                /* COPY_IN */
    void *to;                        /* COPY_OUT */
    uint64_t bytes;                  /* COPY_IN, COPY_OUT, FILL */
};

struct rt_dstream_opaque {
    struct rt_host_work *first, *last;
    bool held;
    int error; /* of queued work: nothing runs here any more, as on a device that has failed */
};

struct rt_devent_opaque {
    bool recorded;
    bool destroyed;    /* released by its owner while records of it were still queued */
    uint32_t queued;   /* records of it in queues */
    rt_dstream stream; /* whose queue they are in: one at a time */
    int64_t ns;        /* of the last record that has run */
};

struct rt_dlibrary_opaque {
    struct rt_dlibrary_opaque *next;
    const struct rt_host_kernel *kernels;
    uint32_t kernel_count;
};

struct rt_dnode_opaque {
    struct rt_work work; /* the node has a copy */
    rt_dnode *before;    /* [before_count] */
    uint32_t before_count;
    uint32_t behind_count; /* edges out of it */
    uint32_t number;       /* by creation */
    uint32_t missing;      /* while an order is made: of `before`, those that have no place yet */
};

struct rt_dgraph_opaque {
    rt_dnode *nodes; /* an edge comes from a node that exists already */
    uint32_t count, capacity;
};

struct rt_host_node {
    struct rt_work work;
    uint32_t number;
};

struct rt_dexec_opaque {
    uint32_t users; /* its owner and the queued launches */
    uint32_t count;
    struct rt_host_node *nodes; /* copies, in the order of replays */
};

struct rt_host {
    struct rt_host_block *blocks;
    struct rt_dlibrary_opaque *libraries;
    struct rt_dstream_opaque own_stream; /* the null stream */
    uint32_t contexts;                   /* entered and not left */
    bool trusting;                       /* operands of products may lie anywhere */
    struct rt_driver *table;             /* that this is the inside of */
    char text[64];
};

static inline struct rt_host *rt_host_of(struct rt_driver *d)
{
    return d->impl;
}

/* 0 where [addr, addr + bytes) lies in one live allocation, or is empty; else RT_HOST_RANGE. */
int rt_host_check_range(const struct rt_host *h, rt_addr addr, uint64_t bytes);
/* 0 where the kernel is loaded and the device could run the launch. */
int rt_host_check_launch(const struct rt_host *h, const struct rt_launch *l);
void rt_host_run_kernel(const struct rt_launch *l);
/* Zeroed memory, aligned for struct rt_launch; free() releases it. Null: no memory. */
void *rt_host_alloc_aligned(uint64_t bytes);

/* Runs the work now, or queues a copy of it where the stream is held. */
int rt_host_submit(struct rt_host *h, rt_dstream s, const struct rt_host_work *work);
void rt_host_drain(struct rt_host *h, rt_dstream s);

/* 0 where there is no plan or it serves. Asked once, when work is given: queued work may outlive
 * its plan. */
int rt_host_check_plan(const struct rt_matmul *m);
/* The libraries' twins: 0 where operands keep the struct's rules and lie in live allocations. */
int rt_host_check_matmul(const struct rt_host *h, const struct rt_matmul *m);
int rt_host_check_collective(const struct rt_host *h, const struct rt_collective *c);
void rt_host_run_matmul(const struct rt_matmul *m);
int rt_host_run_collective(struct rt_host *h, const struct rt_collective *c);

/* The first failure; the table then names its node. */
int rt_host_replay(struct rt_host *h, rt_dexec x);
void rt_host_exec_release(rt_dexec x);

void rt_host_bind_memory(struct rt_driver *d);
void rt_host_forget_adopted(struct rt_host *h);
void rt_host_bind_kernels(struct rt_driver *d);
void rt_host_bind_streams(struct rt_driver *d);
void rt_host_bind_graphs(struct rt_driver *d);
void rt_host_bind_twins(struct rt_driver *d);

#endif
