/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_GATE_CASE_H
#define RT_TESTS_CHECKKERN_GATE_CASE_H

/*
 * A few tokens on their way to their experts, the buffers of it, and what must come of it: what
 * gate and moe_block have in common. What is normed is within a rounding of the reference's; logits
 * are those of what was normed, within float's sums; of these logits the choices are the
 * reference's, but where two experts are as good.
 */
#include "kernels/abi/gate.h"
#include "tests/checkkern/route_case.h"

struct ck_gate_case {
    uint32_t rows, q_len, width, gap;
    struct ck_choosing choose;
    bool padding, first;
    float hidden_scale;
};

struct ck_gate_rig {
    struct ck_route_rig route;
    struct ck_buffer hidden, residual, normed, weight, router, arrivals;
};

/* Every third row may be padding. */
struct ck_gate_rig ck_gate_make(struct ck *ck, const struct ck_gate_case *c);
void ck_gate_free(struct ck *ck, struct ck_gate_rig *r);
void ck_gate_fill(struct ck *ck, struct ck_random *random, const struct ck_gate_case *c,
                  struct ck_gate_rig *r);
struct rt_gate_params ck_gate_params(const struct ck_gate_case *c, const struct ck_gate_rig *r,
                                     enum ck_side side);

/* The reference has made its own; nothing else may be written. */
void ck_gate_compare_normed(struct ck *ck, const struct ck_gate_case *c,
                            const struct ck_gate_rig *r, uint16_t *found);
/* Of what was normed. */
void ck_gate_compare_logits(struct ck *ck, const struct ck_gate_case *c,
                            const struct ck_gate_rig *r, const uint16_t *normed,
                            const float *found);
/* The device's choices and weights for these logits, which the reference's side becomes. */
void ck_gate_compare_choices(struct ck *ck, const struct ck_gate_case *c,
                             const struct ck_gate_rig *r, const float *logits);

#endif
