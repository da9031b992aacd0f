/* SPDX-License-Identifier: Apache-2.0 */
/* Exchanges of ranks by mailboxes. */
#include "kernels/ops/op_build.h"

#include "common/math.h"

enum rt_status rt_check_mailboxes(void *const mailbox[], uint32_t rank, uint32_t ranks,
                                  struct rt_error *err)
{
    RT_REQUIRE(ranks >= 2 && ranks <= RT_ALL_REDUCE_MOST_RANKS, err, RT_ERR_INVALID,
               "%u ranks, not 2 to %u", ranks, RT_ALL_REDUCE_MOST_RANKS);
    RT_REQUIRE(rank < ranks, err, RT_ERR_INVALID, "rank %u of %u", rank, ranks);
    for (uint32_t r = 0; r < RT_ALL_REDUCE_MOST_RANKS; r++) {
        RT_TRY(rt_check_pointer("mailbox", mailbox[r], err));
        RT_REQUIRE(r < ranks || !mailbox[r], err, RT_ERR_INVALID,
                   "mailbox %u of %u ranks is at %p, must be null", r, ranks, mailbox[r]);
    }
    return RT_OK;
}

static enum rt_status check(const struct rt_all_reduce_params *p, struct rt_error *err)
{
    RT_TRY(rt_check_mailboxes(p->mailbox, p->rank, p->ranks, err));
    RT_REQUIRE(p->bytes >= RT_ALL_REDUCE_VECTOR_BYTES && p->bytes <= RT_ALL_REDUCE_MOST_BYTES &&
                   p->bytes % RT_ALL_REDUCE_VECTOR_BYTES == 0,
               err, RT_ERR_INVALID, "%u bytes, not a multiple of %u up to %u", p->bytes,
               RT_ALL_REDUCE_VECTOR_BYTES, RT_ALL_REDUCE_MOST_BYTES);
    RT_TRY(rt_check_pointer("from", p->from, err));
    return rt_check_pointer("to", p->to, err);
}

static enum rt_status launch(const struct rt_kernels *k, const struct rt_variant *variant,
                             const struct rt_all_reduce_params *p, struct rt_launch *out,
                             struct rt_error *err)
{
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          rt_ceil_div_u32(p->bytes, RT_ALL_REDUCE_BLOCK_BYTES), 1,
                          RT_ALL_REDUCE_THREADS, out, err);
}

enum rt_status rt_all_reduce_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                   const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_all_reduce_params *const p = params;
    RT_TRY(check(p, err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    return launch(k, variant, p, out, err);
}

/* What lies there is moved as it is: what numbers it is nobody asks. */
enum rt_status rt_all_gather_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                   const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_all_reduce_params *const p = params;
    const uintptr_t from = (uintptr_t)p->from, to = (uintptr_t)p->to;
    RT_TRY(check(p, err));
    RT_REQUIRE(from + p->bytes <= to || to + (uint64_t)p->ranks * p->bytes <= from, err,
               RT_ERR_INVALID, "%u bytes at %p overlap what %u ranks' are gathered in, at %p",
               p->bytes, p->from, p->ranks, p->to);
    return launch(k, variant, p, out, err);
}

/* Tokens that lie behind each other, and each in slots of its own. */
static enum rt_status check_tokens(const struct rt_all_reduce_norm_params *p, struct rt_error *err)
{
    const struct rt_input_norm_params *const n = &p->norm;
    const uint64_t bytes = (uint64_t)n->tokens * n->norm.width * sizeof(uint16_t);
    const uint64_t slots = (uint64_t)n->tokens * RT_ALL_REDUCE_NORM_SLOTS(n->norm.width);
    RT_REQUIRE(n->stride == n->norm.width && p->sum.bytes == bytes, err, RT_ERR_INVALID,
               "a sum of %u bytes, of %u tokens of %u numbers that are %lld apart", p->sum.bytes,
               n->tokens, n->norm.width, (long long)n->stride);
    RT_REQUIRE(slots <= RT_ALL_REDUCE_MOST_BLOCKS, err, RT_ERR_INVALID,
               "%u tokens of %u numbers need %llu slots, there are %u", n->tokens, n->norm.width,
               (unsigned long long)slots, RT_ALL_REDUCE_MOST_BLOCKS);
    RT_REQUIRE(p->sum.from == n->hidden && p->sum.to == n->hidden, err, RT_ERR_INVALID,
               "summed from %p to %p, hidden is at %p", p->sum.from, p->sum.to,
               (const void *)n->hidden);
    RT_REQUIRE(!n->first && !p->sum.is_f32, err, RT_ERR_INVALID,
               "first is %u and is_f32 %u, must be 0", n->first, p->sum.is_f32);
    return RT_OK;
}

enum rt_status rt_all_reduce_norm_build(const struct rt_kernels *k,
                                        const struct rt_variant *variant, const void *params,
                                        struct rt_launch *out, struct rt_error *err)
{
    const struct rt_all_reduce_norm_params *const p = params;
    RT_TRY(rt_check_input_norm(&p->norm, err));
    RT_TRY(check(&p->sum, err));
    RT_TRY(check_tokens(p, err));
    RT_TRY(rt_check_f32(k, variant, p->norm.is_f32, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), p->norm.tokens, 1,
                          RT_INPUT_NORM_WARPS * RT_WARP_THREADS, out, err);
}
