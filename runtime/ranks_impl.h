/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_RANKS_IMPL_H
#define RT_RUNTIME_RANKS_IMPL_H

/* What a runtime does as one rank of several. All take a runtime without ranks too. */
#include "driver/comm/comm.h"
#include "runtime/context_exchange.h"
#include "runtime/runtime.h"

struct rt_ranks {
    struct rt_comm comm;
    void *nccl;                       /* of the caller's, or null */
    const struct rt_runtime *runtime; /* that it serves now */
    enum rt_device_kind kind;         /* of the device that it was opened for, as is */
    uint32_t ordinal;
    struct rt_driver device; /* keeps the context of a CUDA device until the group's end */
};

/* Leaves in a configuration the heads of one of `count` ranks: see rt_ranks_cut. */
enum rt_status rt_ranks_cut_heads(uint32_t count, struct rt_config *config, struct rt_error *err);

/* What blocks have in place of their sum: of so many tokens of hidden, in place. */
static inline struct rt_collective rt_ranks_sum(const struct rt_config *c, struct rt_comm *comm,
                                                rt_addr hidden, uint32_t tokens)
{
    return (struct rt_collective){.kind = RT_ALL_REDUCE,
                                  .dtype = c->precision == RT_PRECISION_F32 ? RT_DTYPE_F32
                                                                            : RT_DTYPE_BF16,
                                  .from = hidden,
                                  .to = hidden,
                                  .count = (uint64_t)tokens * c->block.hidden_size,
                                  .ranks = comm->ranks,
                                  .comm = comm};
}

/* With the device's context current, as all of these. The group is the runtime's from here on. */
enum rt_status rt_ranks_take(struct rt_runtime *rt, rt_ranks *ranks, struct rt_error *err);
/* Which part of a context that ranks share is this runtime's, whose blueprint is made. */
enum rt_status rt_ranks_share(struct rt_runtime *rt, struct rt_error *err);
/* Ranks whose configurations are of other models, or of contexts that do not fit, learn of the key
 * before any of them exchanges a number. */
enum rt_status rt_ranks_alike(struct rt_runtime *rt, struct rt_error *err);
/* What exchanges of ours read and write: RT_RANKS_REGIONS at most. */
#define RT_RANKS_REGIONS (RT_PEERS_MOST + 1u)
void rt_ranks_register(struct rt_runtime *rt);
/* Each graph's exchange once, outside of it: connections are made before anything is captured, what
 * does it is chosen, and ranks whose graphs are others learn of it. */
enum rt_status rt_ranks_try(struct rt_runtime *rt, struct rt_error *err);
/* All ranks have captured their graphs, and none has launched one. */
enum rt_status rt_ranks_ready(struct rt_runtime *rt, struct rt_error *err);
/* A runtime that cannot be made leaves the others waiting: they learn of it. `why` may be null. */
void rt_ranks_give_up(struct rt_runtime *rt, enum rt_status status, const struct rt_error *why);
/* The group is nobody's again, once no replay in flight waits for other ranks. */
void rt_ranks_release(struct rt_runtime *rt);

/* The record that is about to be launched by this graph is held against those of the others. With
 * ranks alone, as the next. */
enum rt_status rt_ranks_post(struct rt_runtime *rt, const struct rt_captured *g);
/* A replay that was posted and has failed leaves the others waiting: they learn of it. Returns
 * `status`, whose story is the runtime's. */
enum rt_status rt_ranks_outcome(struct rt_runtime *rt, enum rt_status status);
/* For who waits. */
enum rt_status rt_ranks_look(struct rt_runtime *rt);
/* In front of a driver's wait without a limit. */
enum rt_status rt_ranks_settle(struct rt_runtime *rt);

#endif
