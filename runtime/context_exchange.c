/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/context_exchange.h"

#include "common/context.h"
#include "kernels/abi/context_merge.h"
#include "kernels/op.h"
#include "runtime/one_shot.h"

#include <inttypes.h>
#include <stdio.h>

/* Tokens of padding have no key on any rank, and become zeros. */
static struct rt_merge_params merge_of(const struct rt_dims *dims, const struct rt_arena *arena,
                                       uint32_t heads, uint32_t tokens, uint64_t head_bytes)
{
    const uint32_t element = dims->is_f32 ? sizeof(float) : sizeof(uint16_t), d_v = dims->kv.d_v;
    const uint64_t lse_at = (uint64_t)tokens * d_v * element;
    const rt_addr taken = rt_arena_addr(arena, RT_TENSOR_TAKEN, 0);
    const int64_t out_head = (int64_t)(head_bytes / element);
    const int64_t lse_head = (int64_t)(head_bytes / sizeof(float));
    void *const out = (void *)(uintptr_t)rt_arena_addr(arena, RT_TENSOR_OUT, 0);
    void *const lse = (void *)(uintptr_t)rt_arena_addr(arena, RT_TENSOR_LSE, 0);
    return (struct rt_merge_params){
        .in = {(void *)(uintptr_t)taken, heads * out_head, d_v, out_head},
        .in_lse = {(void *)(uintptr_t)(taken + lse_at), heads * lse_head, 1, lse_head},
        .out = {out, (int64_t)heads * d_v, d_v},
        .out_lse = {lse, heads, 1},
        .pieces = dims->context,
        .tokens = tokens,
        .heads = heads,
        .v_dim = d_v,
        .is_f32 = dims->is_f32,
    };
}

struct rt_context_exchange rt_context_exchange_of(const struct rt_blueprint *b,
                                                  const struct rt_arena *arena,
                                                  struct rt_comm *comm, uint32_t tokens)
{
    const struct rt_dims *const dims = &b->placement.dims;
    const uint32_t heads = rt_blueprint_out_heads(b);
    const uint64_t head_bytes = rt_context_head_bytes(
        tokens, dims->kv.d_v, dims->is_f32 ? sizeof(float) : sizeof(uint16_t));
    return (struct rt_context_exchange){
        .swap = {.kind = RT_ALL_TO_ALL,
                 .dtype = RT_DTYPE_U8,
                 .from = rt_arena_addr(arena, RT_TENSOR_GIVEN, 0),
                 .to = rt_arena_addr(arena, RT_TENSOR_TAKEN, 0),
                 .count = heads * head_bytes,
                 .ranks = comm ? comm->ranks : dims->context,
                 .group = dims->context,
                 .comm = comm},
        .merge = merge_of(dims, arena, heads, tokens, head_bytes),
    };
}

/* Of bf16 vectors, what a rank has for another. */
static uint64_t vector_bytes(const struct rt_merge_params *m)
{
    return (uint64_t)m->tokens * m->heads * m->v_dim * sizeof(uint16_t);
}

bool rt_context_one_shot_serves(const struct rt_context_exchange *x, char *why, size_t bytes)
{
    const struct rt_merge_params *const m = &x->merge;
    if (!rt_one_shot_reaches(x->swap.comm, why, bytes))
        return false;
    if (m->is_f32)
        (void)snprintf(why, bytes, "it merges bf16 alone");
    else if (m->v_dim % RT_CONTEXT_MERGE_DIM_UNIT)
        (void)snprintf(why, bytes, "%u numbers a head, not a multiple of %u", m->v_dim,
                       RT_CONTEXT_MERGE_DIM_UNIT);
    else if (vector_bytes(m) > RT_ALL_REDUCE_MOST_BYTES)
        (void)snprintf(why, bytes, "%" PRIu64 " bytes of vectors for a rank, not up to %u",
                       vector_bytes(m), RT_ALL_REDUCE_MOST_BYTES);
    return why[0] == '\0';
}

enum rt_status rt_context_one_shot_work(const struct rt_kernels *k,
                                        const struct rt_context_exchange *x, struct rt_work *out,
                                        struct rt_error *err)
{
    const struct rt_comm *const comm = x->swap.comm;
    const struct rt_merge_params *const m = &x->merge;
    const struct rt_op_request request = {.caps = &k->driver->caps};
    const uint32_t first = comm->rank / x->swap.group * x->swap.group;
    struct rt_variant variant;
    struct rt_context_merge_params p = {.given = (const void *)(uintptr_t)x->swap.from,
                                        .out = m->out.base,
                                        .out_lse = m->out_lse.base,
                                        .stop = (const int32_t *)(uintptr_t)comm->peers.stop_addr,
                                        .rank = comm->rank - first,
                                        .ranks = x->swap.group,
                                        .tokens = m->tokens,
                                        .heads = m->heads,
                                        .v_dim = m->v_dim,
                                        .head_bytes = (uint32_t)(x->swap.count / m->heads)};
    for (uint32_t r = 0; r < p.ranks; r++)
        p.mailbox[r] = (void *)(uintptr_t)rt_one_shot_context_mailbox(comm, first + r);
    RT_TRY(rt_op_resolve(RT_OP_CONTEXT_MERGE, &request, &variant, err));
    return rt_op_build(k, &variant, &p, sizeof(p), out, err);
}
