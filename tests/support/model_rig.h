/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_MODEL_RIG_H
#define RT_TESTS_SUPPORT_MODEL_RIG_H

/* Good arguments of every operator of replayrt/model_ops.h, over memory of which what is written is
 * seen. For programs with cmocka. */
#include "replayrt/model_ops.h"
#include "tests/support/op_rig.h"

#define BYTES (1u << 16) /* of each tensor */
#define POISON 0xa5

/* What operators write lies in `out`, of which each gets a part; the rest is read. */
struct rig {
    rt_ops *ops;
    unsigned char *in, *out;
};

static inline uint64_t in(const struct rig *r, uint32_t part)
{
    return (uintptr_t)r->in + part * 4096;
}

static inline uint64_t out(const struct rig *r, uint32_t part)
{
    return (uintptr_t)r->out + part * 4096;
}

static inline int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    r->in = aligned_alloc(4096, BYTES);
    r->out = aligned_alloc(4096, BYTES);
    assert_non_null(r->in);
    assert_non_null(r->out);
    memset(r->in, 0, BYTES);
    memset(r->out, POISON, BYTES);
    assert_int_equal(rt_ops_create("host", &r->ops, NULL), RT_OK);
    *state = r;
    return 0;
}

static inline int tear_down(void **state)
{
    struct rig *r = *state;
    rt_ops_destroy(&r->ops);
    free(r->in);
    free(r->out);
    free(r);
    return 0;
}

/* `because`: what should have kept it so. */
static inline void untouched(const struct rig *r, const char *because)
{
    for (size_t i = 0; i < BYTES; i++)
        if (r->out[i] != POISON)
            fail_msg("%s: byte %zu was written", because, i);
}

static inline struct rt_token_rows rows_of(const struct rig *r)
{
    return (struct rt_token_rows){.rows = 3,
                                  .query_len = 2,
                                  .lengths = in(r, 0),
                                  .slots = in(r, 0),
                                  .positions = in(r, 0),
                                  .row_base = in(r, 0)};
}
static inline struct rt_embed_args embed_args(const struct rig *r)
{
    return (struct rt_embed_args){.struct_size = sizeof(struct rt_embed_args),
                                  .rows = rows_of(r),
                                  .table = in(r, 1),
                                  .tokens = in(r, 2),
                                  .hidden = out(r, 0),
                                  .vocab = 4,
                                  .width = 16};
}

static inline struct rt_routing routing_of(const struct rig *r)
{
    return (struct rt_routing){.choices = out(r, 1),
                               .weights = out(r, 2),
                               .offsets = out(r, 3),
                               .pairs = out(r, 4),
                               .active = out(r, 5),
                               .active_count = out(r, 6)};
}
static inline struct rt_route_args route_args(const struct rig *r)
{
    return (struct rt_route_args){.struct_size = sizeof(struct rt_route_args),
                                  .experts = 12,
                                  .experts_per_token = 5,
                                  .groups = 4,
                                  .groups_per_token = 2,
                                  .group_score = RT_GROUP_SCORE_TOP2,
                                  .rows = rows_of(r),
                                  .logits = in(r, 1),
                                  .bias = in(r, 1),
                                  .routing = routing_of(r)};
}

static inline struct rt_experts_shape shape_of(void)
{
    return (struct rt_experts_shape){.tokens = 6,
                                     .hidden = 16,
                                     .width = 8,
                                     .experts = 4,
                                     .experts_per_token = 2,
                                     .shared = 1,
                                     .backend = RT_BACKEND_GENERIC};
}
static inline struct rt_expert_weights weights_of(const struct rig *r)
{
    return (struct rt_expert_weights){.address = in(r, 3)};
}

static inline struct rt_experts_up_args up_args(const struct rig *r)
{
    const struct rt_expert_weights w = weights_of(r);
    return (struct rt_experts_up_args){.struct_size = sizeof(struct rt_experts_up_args),
                                       .shape = shape_of(),
                                       .routing = routing_of(r),
                                       .x = in(r, 2),
                                       .h = out(r, 7),
                                       .gate = {w, w},
                                       .up = {w, w}};
}

static inline struct rt_experts_down_args down_args(const struct rig *r)
{
    const struct rt_expert_weights w = weights_of(r);
    return (struct rt_experts_down_args){.struct_size = sizeof(struct rt_experts_down_args),
                                         .shape = shape_of(),
                                         .rows = rows_of(r),
                                         .routing = routing_of(r),
                                         .h = in(r, 2),
                                         .out = out(r, 8),
                                         .down = {w, w}};
}

static inline struct rt_sample_args sample_args(const struct rig *r)
{
    return (struct rt_sample_args){.struct_size = sizeof(struct rt_sample_args),
                                   .vocab = 5,
                                   .rows = rows_of(r),
                                   .logits = in(r, 1),
                                   .accept = in(r, 0),
                                   .tokens = in(r, 2),
                                   .accepted = out(r, 0),
                                   .sampled = out(r, 1),
                                   .lines = in(r, 3),
                                   .workspace = in(r, 4)};
}

#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
