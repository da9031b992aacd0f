/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_GATE_RIG_H
#define RT_TESTS_SUPPORT_GATE_RIG_H

/* Tokens on their way to experts, for the operators that begin with a norm and a router: what they
 * read, what they write, and their arguments. The second token is padding. */
#include "replayrt/model_ops.h"
#include "tests/support/values.h"

#define TOKENS 4
#define HIDDEN 192
#define EXPERTS 12
#define CHOSEN 5
#define PAIRS (TOKENS * CHOSEN)

struct gate_read {
    _Alignas(256) uint16_t hidden[TOKENS * HIDDEN];
    uint16_t residual[TOKENS * HIDDEN]; /* as it is at first */
    uint16_t weight[HIDDEN], router[EXPERTS * HIDDEN];
    int32_t slots[TOKENS], arrivals;
};

struct gate_written {
    _Alignas(256) uint16_t residual[TOKENS * HIDDEN];
    uint16_t normed[TOKENS * HIDDEN];
    float logits[TOKENS * EXPERTS];
    int32_t choices[PAIRS];
    float weights[PAIRS];
    int32_t offsets[EXPERTS + 1], active_count, reserved[2];
    int32_t pairs[PAIRS];
    _Alignas(16) int32_t active[4 * EXPERTS];
};

static inline void gate_fill(uint64_t *random, struct gate_read *in)
{
    fill(random, in->hidden, TOKENS * HIDDEN);
    fill(random, in->residual, TOKENS * HIDDEN);
    fill(random, in->weight, HIDDEN);
    fill(random, in->router, EXPERTS * HIDDEN);
    in->slots[1] = -1;
}

static inline struct rt_gate_args gate_args_of(const struct gate_read *in,
                                               const struct gate_written *out)
{
    return (struct rt_gate_args){
        .struct_size = sizeof(struct rt_gate_args),
        .norm = {.struct_size = sizeof(struct rt_mla_input_norm_args),
                 .tokens = TOKENS,
                 .hidden = at(in->hidden),
                 .residual = at(out->residual),
                 .normed = at(out->normed),
                 .norm = {.weight = at(in->weight), .width = HIDDEN, .eps = 1e-6f}},
        .route = {.struct_size = sizeof(struct rt_route_args),
                  .experts = EXPERTS,
                  .experts_per_token = CHOSEN,
                  .rows = {.rows = TOKENS, .query_len = 1, .slots = at(in->slots)},
                  .logits = at(out->logits),
                  .routing = {.choices = at(out->choices),
                              .weights = at(out->weights),
                              .offsets = at(out->offsets),
                              .pairs = at(out->pairs),
                              .active = at(out->active),
                              .active_count = at(&out->active_count)}},
        .router = at(in->router),
        .arrivals = at(&in->arrivals)};
}

#endif
