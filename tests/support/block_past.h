/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_BLOCK_PAST_H
#define RT_TESTS_SUPPORT_BLOCK_PAST_H

/* What two runtimes of whole blocks, which were fed the same tokens in different ways, have left.
 * Errors of a bfloat16 are layers deep. */
#include "tests/support/prompts.h"

#include <math.h>

/* In norm: a vector's error, by its length. */
static inline void expect_close(const uint16_t *a, const uint16_t *b, uint32_t count, double bound,
                                const char *what, uint32_t at)
{
    double error = 0.0, length = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        const double x = (double)rt_bf16_to_float(a[i]), y = (double)rt_bf16_to_float(b[i]);
        error += (x - y) * (x - y);
        length += y * y;
    }
    if (!(error <= bound * bound * length))
        fail_msg("%s %u: error %g of %g", what, at, sqrt(error), sqrt(length));
}

/* Of two layers: the first one's cache bit for bit, for no attention is in front of it. */
static inline void expect_same_past(rt_runtime *a, rt_seq of_a, rt_runtime *b, rt_seq of_b)
{
    const struct rt_geometry *g = &a->blueprint.config.geometry;
    const uint32_t width = g->kv_lora_rank + g->qk_rope_head_dim;
    uint32_t length[2] = {0, 0};
    assert_int_equal(rt_seq_length(a, of_a, &length[0]), RT_OK);
    assert_int_equal(rt_seq_length(b, of_b, &length[1]), RT_OK);
    assert_int_equal(length[0], length[1]);
    for (uint32_t i = 0; i < length[0]; i++)
        assert_memory_equal(cached(a, of_a, 0, i), cached(b, of_b, 0, i), width * 2);
    for (uint32_t i = 0; i < length[0]; i++)
        expect_close(cached(a, of_a, 1, i), cached(b, of_b, 1, i), width, 0.02, "token", i);
}

static inline void prefill(rt_runtime *rt, const struct rt_prompt *prompts, uint32_t count,
                           bool eager)
{
    const struct rt_prefill_params p = {.struct_size = sizeof(p),
                                        .flags = eager ? RT_STEP_EAGER : 0,
                                        .prompts = prompts,
                                        .prompt_count = count};
    uint64_t ticket = 0;
    if (rt_prefill(rt, &p, &ticket) != RT_OK)
        fail_msg("%s", rt_last_error(rt)->message);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
}

#endif
