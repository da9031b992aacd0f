/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_DRIVER_DRIVER_H
#define RT_DRIVER_DRIVER_H

/*
 * The driver is a table. Everything above it is the same code on a GPU and on the host device.
 *
 *   CUDA  (cuda/)  function pointers taken at run time from the driver's own library
 *   host  (host/)  memory in RAM, kernels are C functions, a graph is a recorded list
 *
 * Every operation returns 0 or the back end's own error number; RT_DRV turns that into
 * RT_ERR_DRIVER (RT_ERR_DEVICE_MEMORY where memory ran out, RT_ERR_CALLBACK where a call node
 * failed) with the operation, the back end's text and the place; of a failed exchange the story is
 * its communicator's. An operation that fails has changed nothing and has written no output.
 *
 * Threads: a table may be used by one thread at a time, as the runtime that owns it. On CUDA every
 * operation but ctx_enter and graph_launch wants the device's context current on that thread.
 */
#include "common/check.h"
#include "common/work.h"

#include <stddef.h>
#include <stdint.h>

typedef struct rt_devent_opaque *rt_devent;     /* CUevent */
typedef struct rt_dlibrary_opaque *rt_dlibrary; /* CUlibrary */
typedef struct rt_dgraph_opaque *rt_dgraph;     /* CUgraph */
typedef struct rt_dnode_opaque *rt_dnode;       /* CUgraphNode */
typedef struct rt_dexec_opaque *rt_dexec;       /* CUgraphExec */

enum rt_device_kind { RT_DEVICE_KIND_HOST, RT_DEVICE_KIND_CUDA };

/* What a resolver may ask of a device. Plain data, so that a plan can be made for an absent one. */
struct rt_device_caps {
    enum rt_device_kind kind;
    char name[64];
    char bus_id[20];   /* of PCI, "00000000:3b:00.0"; empty on the host and where it is assumed */
    uint32_t ordinal;  /* cuda:N */
    uint32_t cc;       /* compute capability, 10 * major + minor; 0 on a host that emulates none */
    uint32_t sm_count; /* multiprocessors; 8 on the host device, so that splits happen there */
    uint32_t smem_optin_bytes; /* most dynamic shared memory of one block */
    uint64_t l2_bytes;
    uint64_t memory_bytes; /* total device memory */
    bool has_blas;         /* products by a library: on CUDA from rt_driver_open_blas on */
};

/* A kernel of the host device: `params` is the struct that the CUDA kernel would take by value. */
struct rt_host_kernel {
    const char *entry;
    void (*run)(const void *params);
    uint32_t param_bytes;
};

/* A loadable image: a fat binary for CUDA, a table of C functions for the host device. */
struct rt_image {
    const void *fatbin; /* null: no device code in this build */
    size_t fatbin_bytes;
    const struct rt_host_kernel *host_kernels;
    uint32_t host_kernel_count;
};

/* An edge into a node that is being added. */
struct rt_dedge {
    rt_dnode from;
    bool programmatic;
    /* Of a programmatic one: open as soon as all blocks of `from` have begun, whether or not they
     * let others begin. For kernels that do not wait themselves: what they are behind is over. */
    bool begun;
};

enum rt_node_type {
    RT_NODE_KERNEL,
    RT_NODE_MATMUL, /* host device only, as are the next two: work as it was added */
    RT_NODE_COLLECTIVE,
    RT_NODE_CALL,
    RT_NODE_MEMCPY,
    RT_NODE_MEMSET,
    RT_NODE_HOST,
    RT_NODE_MEM_ALLOC,
    RT_NODE_MEM_FREE,
    RT_NODE_EMPTY,
    RT_NODE_EVENT, /* records one, or waits for one */
    RT_NODE_OTHER
};

#define RT_NODE_MAX_WORDS 512
struct rt_node_info {
    enum rt_node_type type;
    char name[128]; /* kernel name where known */
    uint32_t grid[3], block[3];
    uint32_t smem_bytes;
    bool cooperative;
    bool is_opaque; /* a kernel whose parameters the driver does not tell: no words */
    /* Kernel parameters as 8-byte words, in order, tails zero-padded; for the audit. */
    uint32_t word_count;
    uint64_t words[RT_NODE_MAX_WORDS];
    struct rt_matmul matmul;         /* of a MATMUL node */
    struct rt_collective collective; /* of a COLLECTIVE node */
};

/* The allocation that an address lies in; bytes = 0 where the driver knows none. */
struct rt_address_range {
    rt_addr base;
    uint64_t bytes;
    uint32_t ordinal; /* of the device whose memory it is, or by whose context it was pinned */
};

/* A name of an allocation, for other processes of this machine: bytes to be handed to them. */
struct rt_peer_handle {
    unsigned char bytes[64];
};

/* One entry per operation: the names are the call log's and the fault injector's vocabulary. */
/* clang-format off */
#define RT_DRIVER_OPS(X)                                                                           \
    X(ctx_enter) X(ctx_leave) X(mem_info)                                                          \
    X(mem_alloc) X(mem_free) X(host_alloc) X(host_free)                                            \
    X(stream_create) X(stream_destroy) X(stream_sync) X(stream_query)                              \
    X(event_create) X(event_destroy) X(event_record) X(event_sync) X(event_elapsed)                \
    X(copy_in) X(copy_out) X(fill)                                                                 \
    X(library_load) X(library_unload) X(kernel_get) X(kernel_set_smem) X(kernel_param_bytes)       \
    X(kernel_resident_blocks) X(tensor_map) X(launch) X(matmul) X(collective)                      \
    X(open_blas) X(matmul_prepare) X(matmul_select) X(matmul_release)                              \
    X(graph_create) X(graph_destroy) X(graph_add_kernel) X(graph_add_work)                         \
    X(graph_capture_begin) X(graph_capture_end) X(graph_nodes) X(graph_node_info)                  \
    X(graph_instantiate) X(exec_destroy) X(graph_launch) X(address_range)                          \
    X(peer_export) X(peer_open) X(peer_close)
/* clang-format on */

enum rt_driver_op {
#define RT_DRIVER_OP_ENUM(name) RT_DOP_##name,
    RT_DRIVER_OPS(RT_DRIVER_OP_ENUM)
#undef RT_DRIVER_OP_ENUM
        RT_DOP_COUNT
};

/*
 * The test seam. Every operation passes through it first: it counts, logs the last calls, and
 * fails the one that a test chose. The releasing operations (ctx_leave, mem_free, host_free,
 * *_destroy, library_unload, matmul_release, peer_close, graph_capture_end) are counted in the same
 * sequence; when chosen they report failure after having released, as a driver does that reports an
 * earlier asynchronous error there.
 */
#define RT_PROBE_LOG 64
struct rt_driver_probe {
    uint64_t calls;                /* all operations so far */
    uint64_t per_op[RT_DOP_COUNT]; /* by operation */
    uint64_t fail_at;              /* 1-based number of the call that fails; 0: none */
    uint64_t live;             /* objects, allocations and captures begun and not yet released */
    uint8_t log[RT_PROBE_LOG]; /* enum rt_driver_op; newest at (calls-1) % 64 */
};

/* What an injected failure returns; RT_DRV prints it as "injected failure". */
#define RT_DRIVER_INJECTED 100000

/* What a replay returns whose call node returned v != 0: RT_DRIVER_CALL_FAILED + v, with v clamped
 * to +-RT_DRIVER_CALL_RANGE. rt_driver_fail makes RT_ERR_CALLBACK of it. */
#define RT_DRIVER_CALL_FAILED 1000000
#define RT_DRIVER_CALL_RANGE 500000
/* What an exchange returns, alone or in a replay, whose communicator has the story. */
#define RT_DRIVER_COMM_FAILED 3000000
/* Of either runner: a call is the function of a stage of the caller. */
#define RT_CALL_FAILED_TEXT "the stage's function returned %d"
static inline bool rt_driver_is_call_failure(int code)
{
    return code >= RT_DRIVER_CALL_FAILED - RT_DRIVER_CALL_RANGE &&
           code <= RT_DRIVER_CALL_FAILED + RT_DRIVER_CALL_RANGE;
}

struct rt_comm;
struct rt_driver {
    struct rt_device_caps caps;
    struct rt_driver_probe probe;
    void *impl; /* the back end's own state */
    /* The last call node that failed a replay: of which graph, and its number by creation. */
    rt_dexec failed_exec;
    uint32_t failed_node;
    struct rt_comm *failed_comm; /* of the last RT_DRIVER_COMM_FAILED */

    /* Make the device's context current on this thread, and restore what was. */
    int (*ctx_enter)(struct rt_driver *d);
    int (*ctx_leave)(struct rt_driver *d);
    int (*mem_info)(struct rt_driver *d, uint64_t *free_bytes, uint64_t *total_bytes);

    /* Device memory; contents undefined (the host device fills it with 0xC3). */
    int (*mem_alloc)(struct rt_driver *d, uint64_t bytes, rt_addr *out);
    int (*mem_free)(struct rt_driver *d, rt_addr addr);
    /* Pinned host memory that the device reads and writes through *out_addr. */
    int (*host_alloc)(struct rt_driver *d, uint64_t bytes, void **out_host, rt_addr *out_addr);
    int (*host_free)(struct rt_driver *d, void *host);

    int (*stream_create)(struct rt_driver *d, rt_dstream *out); /* non-blocking with stream 0 */
    int (*stream_destroy)(struct rt_driver *d, rt_dstream s);
    int (*stream_sync)(struct rt_driver *d, rt_dstream s);
    int (*stream_query)(struct rt_driver *d, rt_dstream s, bool *out_idle);

    int (*event_create)(struct rt_driver *d, rt_devent *out); /* with timing */
    int (*event_destroy)(struct rt_driver *d, rt_devent e);
    int (*event_record)(struct rt_driver *d, rt_devent e, rt_dstream s);
    int (*event_sync)(struct rt_driver *d, rt_devent e);
    int (*event_elapsed)(struct rt_driver *d, rt_devent from, rt_devent to, float *out_ms);

    /* Stream-ordered copies; the host side must stay valid until the stream has passed them. */
    int (*copy_in)(struct rt_driver *d, rt_addr to, const void *from, uint64_t bytes, rt_dstream s);
    int (*copy_out)(struct rt_driver *d, void *to, rt_addr from, uint64_t bytes, rt_dstream s);
    int (*fill)(struct rt_driver *d, rt_addr to, uint8_t value, uint64_t bytes, rt_dstream s);

    int (*library_load)(struct rt_driver *d, const struct rt_image *image, rt_dlibrary *out);
    int (*library_unload)(struct rt_driver *d, rt_dlibrary lib);
    /* Loads the kernel's code eagerly: nothing is left for the first launch. */
    int (*kernel_get)(struct rt_driver *d, rt_dlibrary lib, const char *entry, rt_dkernel *out);
    int (*kernel_set_smem)(struct rt_driver *d, rt_dkernel k, uint32_t dynamic_bytes);
    /* Size of the kernel's one parameter, to hold against sizeof of the ABI struct. */
    int (*kernel_param_bytes)(struct rt_driver *d, rt_dkernel k, uint32_t *out);
    /* Blocks of so many threads and so much dynamic shared memory that the whole device can hold at
     * the same time: a cooperative grid may have no more. Host device: one a multiprocessor. */
    int (*kernel_resident_blocks)(struct rt_driver *d, rt_dkernel k, uint32_t block_threads,
                                  uint32_t smem_bytes, uint32_t *out);

    /* Encodes a map for a kernel's parameters. A spec that breaks its limits is an invalid value
     * before the driver is asked. CUDA: from compute capability 9.0 on. Host device: the map holds
     * the address and zeros, for nobody: its kernels use plain pointers. */
    int (*tensor_map)(struct rt_driver *d, const struct rt_tensor_map_spec *spec,
                      struct rt_tensor_map *out);

    /* Enqueue one kernel; `programmatic` allows it to start before its predecessor's end. A
     * cooperative one whose blocks cannot all be resident is refused, here or when its graph is
     * instantiated (host device: when it is added). */
    int (*launch)(struct rt_driver *d, const struct rt_launch *l, bool programmatic, rt_dstream s);
    /* Enqueue one product, one exchange. Operands that break the struct's rules are an invalid
     * value, as is a product that its plan does not serve. CUDA: fails with its "not supported"
     * where the library is not open, and wants a plan; the library loads a kernel's code at its
     * first use, so a product outside of a capture comes before one inside. An exchange of more
     * than one rank is its communicator's (comm/comm.h), which is open. */
    int (*matmul)(struct rt_driver *d, const struct rt_matmul *m, rt_dstream s);
    int (*collective)(struct rt_driver *d, const struct rt_collective *c, rt_dstream s);

    /* See rt_driver_open_blas, its only caller. */
    enum rt_status (*open_blas)(struct rt_driver *d, struct rt_error *err);
    /* Asks the library for at most `most` ways to do the product in no more than its
     * workspace_bytes, and selects the first. Nothing is run or read: of the addresses the
     * alignment counts, and of the workspace the size. Fails where there is no way. */
    int (*matmul_prepare)(struct rt_driver *d, const struct rt_matmul *m, uint32_t most,
                          struct rt_matmul_plan **out);
    /* Selects plan->candidates' i-th, for products from now on: what was captured stays. */
    int (*matmul_select)(struct rt_driver *d, struct rt_matmul_plan *plan, uint32_t i);
    int (*matmul_release)(struct rt_driver *d, struct rt_matmul_plan *plan);

    int (*graph_create)(struct rt_driver *d, rt_dgraph *out);
    int (*graph_destroy)(struct rt_driver *d, rt_dgraph g);
    int (*graph_add_kernel)(struct rt_driver *d, rt_dgraph g, const struct rt_launch *l,
                            const struct rt_dedge *edges, uint32_t edge_count, rt_dnode *out);
    /* Host device only: a node that does a MATMUL, COLLECTIVE or CALL at every replay; a call that
     * fails stops the replay, is reported by graph_launch and named by failed_node. CUDA, where
     * such work is captured: fails with its "not supported". */
    int (*graph_add_work)(struct rt_driver *d, rt_dgraph g, const struct rt_work *work,
                          const struct rt_dedge *edges, uint32_t edge_count, rt_dnode *out);
    /* Work put on `s` between the two goes into g after the edges' nodes. At the end *count is the
     * number of nodes later work must follow; at most `capacity` are written. Host: unsupported. */
    int (*graph_capture_begin)(struct rt_driver *d, rt_dgraph g, rt_dstream s,
                               const struct rt_dedge *edges, uint32_t edge_count);
    int (*graph_capture_end)(struct rt_driver *d, rt_dgraph g, rt_dstream s, rt_dnode *tails,
                             uint32_t capacity, uint32_t *count);
    /* Nodes in the order of their creation: room for *count of them, *count gets how many were
     * written; null nodes: *count gets how many there are. */
    int (*graph_nodes)(struct rt_driver *d, rt_dgraph g, rt_dnode *nodes, uint32_t *count);
    int (*graph_node_info)(struct rt_driver *d, rt_dnode n, struct rt_node_info *out);
    /* Instantiate and upload on `s`; blocks until the upload is done. */
    int (*graph_instantiate)(struct rt_driver *d, rt_dgraph g, rt_dstream s, rt_dexec *out);
    int (*exec_destroy)(struct rt_driver *d, rt_dexec x);
    int (*graph_launch)(struct rt_driver *d, rt_dexec x, rt_dstream s);

    int (*address_range)(struct rt_driver *d, rt_addr addr, struct rt_address_range *out);

    /* Memory of another rank's device. Exported is what begins at addr, as mem_alloc gave it; who
     * has opened it closes it before its owner frees it. CUDA: opened by another process than the
     * owner's, where the devices reach each other's memory. Host device: by the owner's process. */
    int (*peer_export)(struct rt_driver *d, rt_addr addr, struct rt_peer_handle *out);
    int (*peer_open)(struct rt_driver *d, const struct rt_peer_handle *handle, rt_addr *out);
    int (*peer_close)(struct rt_driver *d, rt_addr addr);

    /* Name, number and text of an error number; never null, valid until the next call. Not an
     * operation. */
    const char *(*error_text)(struct rt_driver *d, int code);
    bool (*is_out_of_memory)(struct rt_driver *d, int code);
    void (*close)(struct rt_driver *d); /* see rt_driver_close */
};

/*
 * Opens a device: "auto", "host" or "cuda:N". *out is zeroed on failure.
 *
 * "auto" is the first CUDA device that opens, one that is too old, in use or failing being passed
 * over; the host where there is no driver or no device. A driver that is there and serves nothing
 * is an error, with the reason of every device. why[0..why_bytes) gets the choice and its reason in
 * words; it is "" where the device was named.
 *
 * RT_ERR_NO_DEVICE: there is no driver, no device at all, or none of that ordinal. A driver that
 * fails or lacks a symbol is RT_ERR_DRIVER (RT_ERR_DEVICE_MEMORY where memory ran out), a device
 * older than RT_OLDEST_CC RT_ERR_UNSUPPORTED.
 */
#define RT_OLDEST_CC 80u
enum rt_status rt_driver_open(const char *device, struct rt_driver *out, char *why,
                              size_t why_bytes, struct rt_error *err);
/* Accepts a zeroed table. Everything created through it must have been released. */
void rt_driver_close(struct rt_driver *d);

/*
 * Makes products possible: CUDA loads cuBLASLt, which stays until the table is closed; the host
 * device has its own. Needs no current context; once more does nothing.
 *
 * RT_ERR_UNSUPPORTED: no cuBLASLt is found, it cannot be loaded, is older than RT_BLAS_OLDEST or
 * lacks a function. RT_ERR_DRIVER, RT_ERR_DEVICE_MEMORY: it is there and does not start.
 */
#define RT_BLAS_OLDEST "12.0"
enum rt_status rt_driver_open_blas(struct rt_driver *d, struct rt_error *err);

/* Every limit that rt_tensor_map_spec states is kept. One test for both back ends, so that what a
 * GPU refuses is refused on the host device too. */
bool rt_tensor_map_spec_valid(const struct rt_tensor_map_spec *spec);

/* The back ends' own doors, for rt_driver_open and for tests. */
enum rt_status rt_driver_open_host(struct rt_driver *out, struct rt_error *err);
enum rt_status rt_driver_open_cuda(uint32_t ordinal, struct rt_driver *out, struct rt_error *err);
/* How many there are, and at least one: RT_ERR_NO_DEVICE where there is no driver or no device,
 * another code where there is a driver and it fails. *out is 0 then. */
enum rt_status rt_driver_cuda_count(uint32_t *out, struct rt_error *err);

/* Known devices by name ("h200", "h100", "a100", "host"), for plans made elsewhere. */
enum rt_status rt_device_caps_assume(const char *name, struct rt_device_caps *out,
                                     struct rt_error *err);

/*
 * Host device only, for tests: while held, graph launches, kernel launches, copies and event
 * records on the stream queue up; releasing runs `count` of them in order (UINT32_MAX: all) and
 * returns how many ran. stream_query says "not idle" while the queue is not empty; stream_sync, the
 * end of holding and stream_destroy run it dry. The first failure of queued work is kept:
 * stream_query reports it, stream_sync reports and forgets it.
 */
void rt_driver_host_hold(struct rt_driver *d, rt_dstream s, bool hold);
uint32_t rt_driver_host_release(struct rt_driver *d, rt_dstream s, uint32_t count);

/* Host device only: memory of the caller's that products of this device may read; an operand may
 * lie across two ranges where the one behind is given behind the other. Nothing is owned; forgotten
 * when the device is closed. */
int rt_driver_host_adopt(struct rt_driver *d, rt_addr addr, uint64_t bytes);

/* Host device only: all memory is the caller's, and products may read and write any of it, as
 * kernels do: for operators, which get their addresses call by call. */
void rt_driver_host_trust(struct rt_driver *d);

const char *rt_driver_op_name(enum rt_driver_op op);

/* Called first by every operation of both back ends. True: fail this call. */
static inline bool rt_probe_enter(struct rt_driver *d, enum rt_driver_op op)
{
    struct rt_driver_probe *p = &d->probe;
    p->log[p->calls % RT_PROBE_LOG] = (uint8_t)op;
    p->per_op[op]++;
    return RT_UNLIKELY(++p->calls == p->fail_at);
}

/* The story of a failed operation, where memory ran out with what is free; RT_ERR_DEVICE_MEMORY,
 * RT_ERR_CALLBACK, RT_ERR_DRIVER, or what the communicator has kept. */
enum rt_status rt_driver_fail(struct rt_driver *d, struct rt_error *err, enum rt_driver_op op,
                              int code, const char *file, int line);

/* Passes status on; where memory ran out, err says first what did not fit, and how large it is. */
enum rt_status rt_driver_wanted(enum rt_status status, const char *what, uint64_t bytes,
                                struct rt_error *err);

/* RT_DRV(d, err, mem_alloc, (d, bytes, &addr)) as an expression of type enum rt_status. */
#define RT_DRV(d, err, op, args)                                                                   \
    rt_drv_check_((d), (err), RT_DOP_##op, (d)->op args, __FILE__, __LINE__)

static inline enum rt_status rt_drv_check_(struct rt_driver *d, struct rt_error *err,
                                           enum rt_driver_op op, int code, const char *file,
                                           int line)
{
    return RT_LIKELY(code == 0) ? RT_OK : rt_driver_fail(d, err, op, code, file, line);
}

#endif
