/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_FAKE_NCCL_H
#define RT_TESTS_UNIT_FAKE_NCCL_H

/* A stand-in for NCCL, in front of the loader: does nothing, and tells what it was asked for. */
#include "driver/comm/comm_nccl.h"

#define FAKE_NCCL_FAILURE 3 /* ncclInternalError */

struct fake_nccl {
    const char *found; /* the one library that is there; null: none */
    const char *lacks; /* a function that it has not */
    int version;
    uint64_t calls, fail_at; /* of functions that may fail; 0: none does */
    rt_nccl_result async;    /* what a communicator's kernels have met */
    int given_count, given_rank;
    _Atomic int graphs;         /* that have exchanges: ncclCommAbort waits until there are none */
    _Atomic int stuck;          /* ncclCommInitRank does not return while it is 1 */
    _Atomic int stuck_abort;    /* nor does ncclCommAbort */
    _Atomic int stuck_exchange; /* nor does an exchange, until its communicator is aborted */
    void (*touch)(const void *from, void *to, void *stream); /* by an exchange; null: nothing */
    _Atomic int exchanges;                                   /* that have returned */
    _Atomic int inside;       /* calls of it that have not returned */
    int loaded;               /* and not unloaded */
    _Atomic int made, aborts; /* communicators that are there; aborted ones are not */
    char tried[64];
    struct rt_nccl_id ids[4]; /* that each rank came with */
    /* Of the last exchange. */
    char call[16];
    const void *from;
    void *to, *stream;
    size_t count;
    int dtype, sum;
    /* Of groups of sends and receives: how many are begun and not ended, and the last group's. */
    int groups, sends, receives;
    int peers[2][4];        /* of both, in order */
    uintptr_t places[2][4]; /* likewise */
};
extern struct fake_nccl fake_nccl;

void fake_nccl_reset(void);
/* Its functions, as a communicator has them. */
const struct rt_nccl_api *fake_nccl_api(void);

#endif
