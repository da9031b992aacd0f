/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_DRIVER_COMM_COMM_NCCL_H
#define RT_DRIVER_COMM_COMM_NCCL_H

/*
 * Inside of exchanges by NCCL. Its header need not be there where this is built: what is used of
 * the library has been the same in every version since RT_NCCL_OLDEST, and is declared here.
 *
 *   comm_nccl_load.c   the library and its functions
 *   comm_nccl_job.c    calls that may not return, in threads of their own
 *   comm_nccl_make.c   a communicator of our own and its first exchanges, within the limit
 *   comm_nccl.c        exchanges, health, end
 */
#include "driver/comm/comm.h"

#include <pthread.h>

#define RT_NCCL_OLDEST_VERSION 21200 /* RT_NCCL_OLDEST as the library counts */

typedef int rt_nccl_result;                  /* ncclResult_t */
typedef struct rt_nccl_opaque *rt_nccl_comm; /* ncclComm_t */
struct rt_nccl_id {                          /* ncclUniqueId, which goes by value */
    char bytes[RT_BOARD_ID_BYTES];
};

enum { RT_NCCL_SUCCESS = 0, RT_NCCL_IN_PROGRESS = 7 };
enum { RT_NCCL_SUM = 0 };
enum { RT_NCCL_U8 = 1, RT_NCCL_I32 = 2, RT_NCCL_F32 = 7, RT_NCCL_BF16 = 9 };

struct rt_nccl_api {
#define RT_NCCL_SYMBOL(name, result, arguments) result(*name) arguments;
#include "driver/comm/comm_nccl_symbols.inc"
#undef RT_NCCL_SYMBOL
};

struct rt_nccl_job;
struct rt_nccl {
    struct rt_nccl_api api;
    void *library; /* of dlopen */
    rt_nccl_comm comm;
    bool given;                 /* the caller's: not ours to destroy */
    bool abandoned;             /* it is being aborted, or has been */
    struct rt_nccl_job *ending; /* which does so; null: none does */
};

/* The story of a call that failed. */
enum rt_status rt_nccl_failed(const struct rt_nccl *n, const char *call, rt_nccl_result rc,
                              struct rt_error *err);
/* Of one that has to do with other ranks: where one of them is not there any more, that is the
 * story, with the library's words behind it. RT_ERR_RANKS then. Waits for it, where there are other
 * ranks: for 2 s, or the group's limit where that is less. */
enum rt_status rt_nccl_fallen(const struct rt_nccl *n, const struct rt_comm *c, const char *call,
                              rt_nccl_result rc, struct rt_error *err);
#define RT_NCCL(n, err, name, args)                                                                \
    do {                                                                                           \
        const rt_nccl_result rc_ = (n)->api.name args;                                             \
        if (rc_ != RT_NCCL_SUCCESS)                                                                \
            return rt_nccl_failed((n), "nccl" #name, rc_, (err));                                  \
    } while (0)

/*
 * A call of the library that waits for what may never come. Started on a copy; ended by who started
 * it: what has not returned by then is left behind, is undone once it does, and frees the copy.
 *
 *   start ─┬─ is_done? ─ is_done? ─ … ─ end ── joined, or left behind
 *          └─ run ─────────────────────────── done, or else undo
 */
struct rt_nccl_job {
    _Atomic int state;
    pthread_t thread;
    void (*run)(struct rt_nccl_job *job);
    void (*undo)(struct rt_nccl_job *job); /* null: nothing to undo */
    struct rt_nccl_api api; /* good for ever: the library stays when its handle is closed */
    rt_nccl_comm comm;
    rt_nccl_result rc;
    /* Of one that makes a communicator, or connects it: in the device's context. */
    struct rt_driver *d; /* whose owner may be gone once has_entered */
    int entered;         /* what ctx_enter said; the context goes with the thread */
    _Atomic bool has_entered;
    struct rt_nccl_id id;
    int rank, ranks; /* the first of an exchange too */
    struct rt_collective exchange;
    rt_dstream stream;
};
/* Null: no memory, or no thread. */
struct rt_nccl_job *rt_nccl_job_start(const struct rt_nccl_job *what);
bool rt_nccl_job_is_done(const struct rt_nccl_job *job);
/* `keep`: what it has done stays. False: it was left behind. */
bool rt_nccl_job_end(struct rt_nccl_job *job, bool keep);
/* For `run`: enters the context. The driver's table is the job's until then. */
bool rt_nccl_job_enter(struct rt_nccl_job *job);
/* Waits for a job that enters the context. RT_ERR_DRIVER: it could not; RT_ERR_RANKS: another rank
 * is gone, or `call` takes longer than the group's limit. */
enum rt_status rt_nccl_job_watch(const struct rt_nccl_job *job, const struct rt_comm *c,
                                 const char *call, struct rt_error *err);

/* n->comm, among the ranks of c. RT_ERR_DRIVER; RT_ERR_RANKS: one of them does not come to it, or
 * the library takes longer than the group's limit. */
enum rt_status rt_nccl_make(struct rt_nccl *n, struct rt_comm *c, struct rt_driver *d,
                            struct rt_error *err);

/* c->connect. */
enum rt_status rt_nccl_connect(struct rt_comm *c, struct rt_driver *d,
                               const struct rt_collective *x, struct rt_error *err);

/* The call by which this rank puts the exchange on the stream, and its name. x->comm is not looked
 * at: it may be gone by then. */
rt_nccl_result rt_nccl_put(const struct rt_nccl_api *api, rt_nccl_comm comm, uint32_t rank,
                           const struct rt_collective *x, rt_dstream s);
const char *rt_nccl_call_name(enum rt_collective_kind kind);

/* RT_ERR_UNSUPPORTED; then nothing is held. */
enum rt_status rt_nccl_load(struct rt_nccl *n, struct rt_error *err);
/* Accepts a zeroed one. */
void rt_nccl_unload(struct rt_nccl *n);

#endif
