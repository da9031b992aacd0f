/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over the keys of ranks that share a context, by mailboxes. */
#include "kernels/ops/op_build.h"

#include "common/math.h"

static enum rt_status check_shape(const struct rt_context_merge_params *p, struct rt_error *err)
{
    const uint64_t piece = (uint64_t)p->tokens * p->heads * p->v_dim * 2;
    const uint64_t head = (uint64_t)p->tokens * (p->v_dim * 2 + sizeof(float));
    RT_REQUIRE(p->v_dim % RT_CONTEXT_MERGE_DIM_UNIT == 0 && p->v_dim <= RT_MERGE_MOST_DIM, err,
               RT_ERR_INVALID, "v_dim = %u is not a multiple of %u up to %u", p->v_dim,
               RT_CONTEXT_MERGE_DIM_UNIT, RT_MERGE_MOST_DIM);
    RT_REQUIRE(piece > 0 && piece <= RT_ALL_REDUCE_MOST_BYTES, err, RT_ERR_INVALID,
               "%u tokens of %u heads and v_dim %u, not 1 to %u bytes", p->tokens, p->heads,
               p->v_dim, RT_ALL_REDUCE_MOST_BYTES);
    RT_REQUIRE(p->head_bytes % 16 == 0 && p->head_bytes >= head, err, RT_ERR_INVALID,
               "a head of %u bytes, not a multiple of 16 from %llu on", p->head_bytes,
               (unsigned long long)head);
    return RT_OK;
}

static enum rt_status check_written(const struct rt_context_merge_params *p, const char *name,
                                    const void *written, uint64_t bytes, struct rt_error *err)
{
    const uint64_t given_bytes = (uint64_t)p->ranks * p->heads * p->head_bytes;
    const uintptr_t from = (uintptr_t)p->given, to = (uintptr_t)written;
    RT_TRY(rt_check_pointer(name, written, err));
    RT_REQUIRE(from + given_bytes <= to || to + bytes <= from, err, RT_ERR_INVALID,
               "%s, %llu bytes at %p, overlaps what is given, %llu bytes at %p", name,
               (unsigned long long)bytes, written, (unsigned long long)given_bytes, p->given);
    return RT_OK;
}

enum rt_status rt_context_merge_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                      const void *params, struct rt_launch *out,
                                      struct rt_error *err)
{
    const struct rt_context_merge_params *const p = params;
    const uint64_t items = (uint64_t)p->tokens * p->heads;
    RT_TRY(rt_check_mailboxes(p->mailbox, p->rank, p->ranks, err));
    RT_TRY(check_shape(p, err));
    RT_TRY(rt_check_pointer("given", p->given, err));
    RT_TRY(check_written(p, "out", p->out, items * p->v_dim * 2, err));
    RT_TRY(check_written(p, "out_lse", p->out_lse, items * sizeof(float), err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          rt_ceil_div_u32(rt_context_merge_vectors(p), RT_ALL_REDUCE_THREADS), 1,
                          RT_ALL_REDUCE_THREADS, out, err);
}
