/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_DRIVER_COMM_COMM_NCCL_H
#define RT_DRIVER_COMM_COMM_NCCL_H

/*
 * Inside of exchanges by NCCL. Its header need not be there where this is built: what is used of
 * the library has been the same in every version since RT_NCCL_OLDEST, and is declared here.
 *
 *   comm_nccl_load.c   the library and its functions
 *   comm_nccl.c        communicators and exchanges
 */
#include "driver/comm/comm.h"

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

struct rt_nccl {
    struct rt_nccl_api api;
    void *library; /* of dlopen */
    rt_nccl_comm comm;
    bool given;     /* the caller's: not ours to destroy */
    bool abandoned; /* it was aborted, and is no more */
};

/* RT_ERR_UNSUPPORTED; then nothing is held. */
enum rt_status rt_nccl_load(struct rt_nccl *n, struct rt_error *err);
/* Accepts a zeroed one. */
void rt_nccl_unload(struct rt_nccl *n);

#endif
