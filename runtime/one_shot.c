/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/one_shot.h"

#include "kernels/abi/context_merge.h"
#include "kernels/op.h"

#include <inttypes.h>
#include <stdio.h>

_Static_assert(RT_PEERS_MOST == RT_ALL_REDUCE_MOST_RANKS, "a mailbox for every rank that maps");

/* A rank's memory: | mailbox of sums and gathers | mailbox of rt_context_merge | */
static uint64_t context_mailbox_at(const struct rt_comm *c)
{
    return rt_all_reduce_mailbox_bytes(c->ranks, RT_ALL_REDUCE_MOST_BLOCKS);
}

rt_addr rt_one_shot_context_mailbox(const struct rt_comm *c, uint32_t rank)
{
    return c->peers.memory[rank] + context_mailbox_at(c);
}

enum rt_status rt_one_shot_map(struct rt_comm *c, struct rt_driver *d, struct rt_error *err)
{
    const uint64_t bytes =
        context_mailbox_at(c) + rt_context_merge_mailbox_bytes(c->ranks, RT_ALL_REDUCE_MOST_BLOCKS);
    return rt_comm_map(c, d, bytes, err);
}

bool rt_one_shot_reaches(const struct rt_comm *c, char *why, size_t bytes)
{
    why[0] = '\0';
    if (!c->peers.driver)
        (void)snprintf(why, bytes, "no memory of the ranks is mapped");
    else if (!c->peers.mapped)
        (void)snprintf(why, bytes, "%s", c->peers.why);
    return why[0] == '\0';
}

static uint64_t bytes_of(const struct rt_collective *x)
{
    return x->count * rt_dtype_bytes(x->dtype);
}

bool rt_one_shot_serves(const struct rt_comm *c, const struct rt_collective *x, char *why,
                        size_t bytes)
{
    const uint64_t size = bytes_of(x);
    if (!rt_one_shot_reaches(c, why, bytes))
        return false;
    if (x->kind == RT_ALL_REDUCE && x->dtype != RT_DTYPE_BF16)
        (void)snprintf(why, bytes, "it sums bf16 alone");
    else if (x->kind != RT_ALL_REDUCE && x->kind != RT_ALL_GATHER)
        (void)snprintf(why, bytes, "it sums and gathers alone");
    else if (size > RT_ALL_REDUCE_MOST_BYTES || size % RT_ALL_REDUCE_VECTOR_BYTES || !size)
        (void)snprintf(why, bytes, "%" PRIu64 " bytes, not a multiple of %u up to %u", size,
                       RT_ALL_REDUCE_VECTOR_BYTES, RT_ALL_REDUCE_MOST_BYTES);
    return why[0] == '\0';
}

struct rt_all_reduce_params rt_one_shot_params(const struct rt_collective *x)
{
    const struct rt_peers *const peers = &x->comm->peers;
    struct rt_all_reduce_params p = {.from = (const void *)(uintptr_t)x->from,
                                     .to = (void *)(uintptr_t)x->to,
                                     .stop = (const int32_t *)(uintptr_t)peers->stop_addr,
                                     .rank = x->comm->rank,
                                     .ranks = x->ranks,
                                     .bytes = (uint32_t)bytes_of(x)};
    for (uint32_t r = 0; r < x->ranks; r++)
        p.mailbox[r] = (void *)(uintptr_t)peers->memory[r];
    return p;
}

enum rt_status rt_one_shot_work(const struct rt_kernels *k, const struct rt_collective *x,
                                struct rt_work *out, struct rt_error *err)
{
    const struct rt_all_reduce_params p = rt_one_shot_params(x);
    const struct rt_op_request request = {.caps = &k->driver->caps};
    struct rt_variant variant;
    RT_TRY(rt_op_resolve(x->kind == RT_ALL_GATHER ? RT_OP_ALL_GATHER : RT_OP_ALL_REDUCE, &request,
                         &variant, err));
    return rt_op_build(k, &variant, &p, sizeof(p), out, err);
}
