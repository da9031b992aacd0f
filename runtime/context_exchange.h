/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_CONTEXT_EXCHANGE_H
#define RT_RUNTIME_CONTEXT_EXCHANGE_H

/*
 * What ranks that share a context do behind attention: of every head, what one has of it goes to
 * whose it is, which merges what has come. An all-to-all of the communicator and rt_merge, or
 * rt_context_merge in one shot.
 *
 *   given  [heads] of            | out of all tokens | lse of all tokens | to 32 bytes |
 *   taken  [ranks, heads / ranks] likewise
 */
#include "buffers/arena.h"
#include "driver/comm/comm.h"
#include "kernels/abi/merge.h"
#include "kernels/registry.h"
#include "runtime/blueprint.h"

struct rt_context_exchange {
    struct rt_collective swap; /* given -> taken */
    struct rt_merge_params merge;
};

/* Of so many tokens. comm may be null, in a plan. */
struct rt_context_exchange rt_context_exchange_of(const struct rt_blueprint *b,
                                                  const struct rt_arena *arena,
                                                  struct rt_comm *comm, uint32_t tokens);

/* rt_one_shot_serves and rt_one_shot_work of it. */
bool rt_context_one_shot_serves(const struct rt_context_exchange *x, char *why, size_t bytes);
enum rt_status rt_context_one_shot_work(const struct rt_kernels *k,
                                        const struct rt_context_exchange *x, struct rt_work *out,
                                        struct rt_error *err);

#endif
