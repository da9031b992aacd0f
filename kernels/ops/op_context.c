/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"

/* Of a step, or of a chunk, which has more. */
#define MOST_TOKENS (1u << 24)

enum rt_status rt_context_rows_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                     const void *params, struct rt_launch *out,
                                     struct rt_error *err)
{
    const struct rt_context_rows_params *p = params;
    const uint64_t tokens = (uint64_t)p->rows * p->q_len;
    RT_REQUIRE(tokens >= 1 && tokens <= MOST_TOKENS, err, RT_ERR_INVALID,
               "%u rows of %u tokens, not 1 to %u together", p->rows, p->q_len, MOST_TOKENS);
    RT_REQUIRE(rt_page_size_served(p->page_size), err, RT_ERR_INVALID,
               "pages of %u tokens are served by no kernel", p->page_size);
    RT_REQUIRE(p->ranks >= 1 && p->ranks <= RT_MAX_CONTEXT_RANKS && p->rank < p->ranks, err,
               RT_ERR_INVALID, "rank %u of %u, not one of 1 to %u", p->rank, p->ranks,
               RT_MAX_CONTEXT_RANKS);
    RT_REQUIRE(!p->token_slot == !p->token_position && (p->token_slot || p->q_len == 1), err,
               RT_ERR_INVALID,
               "token_slot and token_position are wanted together, and with %u tokens a row",
               p->q_len);
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          rt_ceil_div_u32((uint32_t)tokens, RT_CONTEXT_ROWS_THREADS), 1,
                          RT_CONTEXT_ROWS_THREADS, out, err);
}
