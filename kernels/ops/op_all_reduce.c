/* SPDX-License-Identifier: Apache-2.0 */
/* The sum over ranks by mailboxes. */
#include "kernels/ops/op_build.h"

#include "common/math.h"

static enum rt_status check_mailboxes(const struct rt_all_reduce_params *p, struct rt_error *err)
{
    for (uint32_t r = 0; r < RT_ALL_REDUCE_MOST_RANKS; r++) {
        RT_TRY(rt_check_pointer("mailbox", p->mailbox[r], err));
        RT_REQUIRE(r < p->ranks || !p->mailbox[r], err, RT_ERR_INVALID,
                   "mailbox %u of %u ranks is at %p, must be null", r, p->ranks, p->mailbox[r]);
    }
    return RT_OK;
}

enum rt_status rt_all_reduce_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                   const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_all_reduce_params *const p = params;
    RT_REQUIRE(p->ranks >= 2 && p->ranks <= RT_ALL_REDUCE_MOST_RANKS, err, RT_ERR_INVALID,
               "%u ranks, not 2 to %u", p->ranks, RT_ALL_REDUCE_MOST_RANKS);
    RT_REQUIRE(p->rank < p->ranks, err, RT_ERR_INVALID, "rank %u of %u", p->rank, p->ranks);
    RT_REQUIRE(p->bytes >= RT_ALL_REDUCE_VECTOR_BYTES && p->bytes <= RT_ALL_REDUCE_MOST_BYTES &&
                   p->bytes % RT_ALL_REDUCE_VECTOR_BYTES == 0,
               err, RT_ERR_INVALID, "%u bytes, not a multiple of %u up to %u", p->bytes,
               RT_ALL_REDUCE_VECTOR_BYTES, RT_ALL_REDUCE_MOST_BYTES);
    RT_TRY(rt_check_pointer("from", p->from, err));
    RT_TRY(rt_check_pointer("to", p->to, err));
    RT_TRY(check_mailboxes(p, err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          rt_ceil_div_u32(p->bytes, RT_ALL_REDUCE_BLOCK_BYTES), 1,
                          RT_ALL_REDUCE_THREADS, out, err);
}
