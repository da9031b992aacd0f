/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_DRIVER_COMM_COMM_H
#define RT_DRIVER_COMM_COMM_H

/*
 * The communicator is a table, as the driver is. What a step of several ranks exchanges goes
 * through it on both devices, and what they must agree on goes over the board that both have.
 *
 *   host  (comm_host.c)  slots of the board, summed by every rank in the order of ranks
 *   NCCL  (comm_nccl.c)  its library's functions, taken at run time
 *
 * Kernels of ours may exchange beside it, in memory that all ranks have mapped (comm_peers.c).
 *
 * The first failure is the group's: it is kept, told again by whatever is called next, and the
 * other ranks learn of it. A group that has failed is of no use any more.
 *
 * Threads: as a driver's table, with the driver's context current on CUDA.
 */
#include "driver/comm/board.h"
#include "driver/driver.h"

#define RT_COMM_OPS(X) X(open) X(post) X(look) X(barrier) X(gather) X(connect) X(exchange)

enum rt_comm_op {
#define RT_COMM_OP_ENUM(name) RT_COMM_OP_##name,
    RT_COMM_OPS(RT_COMM_OP_ENUM)
#undef RT_COMM_OP_ENUM
        RT_COMM_OP_COUNT
};

/* The test seam: the fail_at-th call of all, counted from 1, fails; 0: none. */
struct rt_comm_probe {
    uint64_t calls, fail_at;
    uint64_t per_op[RT_COMM_OP_COUNT];
};

/* Memory of every rank that all have mapped: comm_peers.c. */
#define RT_PEERS_MOST 8u
#define RT_PEERS_WHY_BYTES 160u
struct rt_peers {
    struct rt_driver *driver;      /* of this rank's memory; null: nothing was asked for */
    rt_addr memory[RT_PEERS_MOST]; /* by rank, this one's own among them */
    uint64_t bytes;                /* of each */
    int32_t *stop;                 /* see rt_comm_map */
    rt_addr stop_addr;
    bool mapped;
    char why[RT_PEERS_WHY_BYTES]; /* not mapped: the first reason of a rank's */
};

struct rt_comm {
    uint32_t rank, ranks;
    struct rt_comm_probe probe;
    struct rt_board board;
    struct rt_error story; /* of the failure; RT_OK: none yet */
    void *impl;            /* the back end's own state; null: not open */
    bool lingers;          /* see rt_comm_close */
    struct rt_peers peers;

    /* Puts the exchange on the stream (CUDA), or does it. */
    enum rt_status (*exchange)(struct rt_comm *c, const struct rt_collective *x, rt_dstream s,
                               struct rt_error *err);
    /* An exchange of this kind, dtype and size waits for the other ranks on the host the first
     * time: here, within the group's limit, with numbers and a stream of its own. Done on return.
     * Null: it does not. */
    enum rt_status (*connect)(struct rt_comm *c, struct rt_driver *d, const struct rt_collective *x,
                              struct rt_error *err);
    /* What was put on a stream has failed since; null: nothing can have. */
    enum rt_status (*health)(struct rt_comm *c, struct rt_error *err);
    /* Work that waits for others ends, right or wrong; null: there is none. */
    void (*abandon)(struct rt_comm *c);
    void (*close)(struct rt_comm *c); /* null: nothing to close */
};

/* Meets the others over the file: see rt_board_open. *out is zeroed on failure. */
enum rt_status rt_comm_meet(const char *path, uint32_t rank, uint32_t ranks, uint64_t limit_ns,
                            struct rt_comm *out, struct rt_error *err);
/* Accepts a zeroed table. No work of it is on a stream any more. True: a call of a library has not
 * returned and was left behind in a thread, so that the device's context must stay for good, and
 * the process is to end without exit handlers, the library's among them. */
bool rt_comm_close(struct rt_comm *c);

/*
 * Makes exchanges possible on this device, of which every rank has its own; once more does nothing.
 * Blocks until all ranks do it, at most for the group's limit. The device's context stays until
 * rt_comm_close, which wants it current.
 *
 * nccl: an ncclComm_t of the caller's, which stays its; null: one of our own. RT_ERR_UNSUPPORTED:
 * NCCL is not found, cannot be loaded, is older than RT_NCCL_OLDEST, lacks a function, or was given
 * on the host device; RT_ERR_RANKS, RT_ERR_DRIVER.
 */
#define RT_NCCL_OLDEST "2.12"
enum rt_status rt_comm_open(struct rt_comm *c, struct rt_driver *d, void *nccl,
                            struct rt_error *err);

/* rt_board_post and rt_board_look, the latter with the back end's health. RT_ERR_RANKS. */
enum rt_status rt_comm_post(struct rt_comm *c, const uint32_t fields[RT_BOARD_FIELD_COUNT],
                            struct rt_error *err);
enum rt_status rt_comm_look(struct rt_comm *c, struct rt_error *err);
/* Every rank is here, or it is RT_ERR_RANKS: blocks, at most for the group's limit. */
enum rt_status rt_comm_barrier(struct rt_comm *c, struct rt_error *err);
/* Bytes of every rank's for all of them, on the host: all [ranks][bytes], in the order of ranks. At
 * most RT_BOARD_SLOT_BYTES; blocks as a barrier does. */
enum rt_status rt_comm_gather(struct rt_comm *c, const void *mine, void *all, uint32_t bytes,
                              struct rt_error *err);
/*
 * Memory of `bytes` on every rank's device, zeros at first, mapped by all: c->peers. Where a rank
 * cannot give or map it, no rank has it, and peers.why says which and for what reason. Made once:
 * `d`, whose context is current and which outlives the communicator, frees it with rt_comm_close.
 *
 * *peers.stop, of mapped memory of the host, is 0 until the group fails, and 1 then: for kernels
 * that wait for another rank's.
 *
 * Blocks until all ranks do it. RT_ERR_RANKS.
 */
enum rt_status rt_comm_map(struct rt_comm *c, struct rt_driver *d, uint64_t bytes,
                           struct rt_error *err);
/* For rt_comm_close. Waits a while for ranks that have ours open; where they do not close it, it
 * stays until the process ends. */
void rt_comm_unmap(struct rt_comm *c);
/* An exchange for the first time, outside of any capture, with which a library connects. All ranks
 * have posted the same, or it is not begun; done on return. RT_ERR_RANKS, RT_ERR_DRIVER. */
enum rt_status rt_comm_try(struct rt_comm *c, struct rt_driver *d, const struct rt_collective *x,
                           rt_dstream s, struct rt_error *err);
/*
 * What was put on the stream is done, and no rank that it waits for is waited for in vain. `whole`:
 * it is no more than exchanges that all ranks have begun, so that it fails as well where it takes
 * longer than the group's limit.
 */
enum rt_status rt_comm_await(struct rt_comm *c, struct rt_driver *d, rt_dstream s, bool whole,
                             struct rt_error *err);
/* The group has failed for what `why` tells, if it has not before: returns its status, and *why is
 * the story that is kept. */
enum rt_status rt_comm_fail(struct rt_comm *c, struct rt_error *why);

/*
 * A driver's `collective`: 0 or RT_DRIVER_COMM_FAILED, with d->failed_comm. A group of one without
 * a communicator is not its business.
 */
int rt_comm_exchange(struct rt_driver *d, const struct rt_collective *x, rt_dstream s);

/* The back ends' doors, for rt_comm_open. */
enum rt_status rt_comm_open_host(struct rt_comm *c, struct rt_error *err);
enum rt_status rt_comm_open_nccl(struct rt_comm *c, struct rt_driver *d, void *given,
                                 struct rt_error *err);

#endif
