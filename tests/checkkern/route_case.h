/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_ROUTE_CASE_H
#define RT_TESTS_CHECKKERN_ROUTE_CASE_H

/* How experts are chosen, and the buffers of it: what route and gate have in common. */
#include "kernels/abi/route.h"
#include "tests/checkkern/harness.h"

#define CK_ROUTE_POISON 0xa5
#define CK_ROUTE_WEIGHT_BOUND 1e-5

struct ck_choosing {
    uint32_t experts, chosen, groups, kept;
    enum rt_route_scoring scoring;
    enum rt_route_group_value group_value;
    bool bias, normalise;
    float scale;
};

/* DeepSeek-V2-Lite's, V2's and V3's. */
#define CK_CHOOSE_V2_LITE                                                                          \
    {                                                                                              \
        .experts = 64, .chosen = 6, .groups = 1, .kept = 1, .scale = 1.0f                          \
    }
#define CK_CHOOSE_V2                                                                               \
    {                                                                                              \
        .experts = 160, .chosen = 6, .groups = 8, .kept = 3, .scale = 16.0f                        \
    }
#define CK_CHOOSE_V3                                                                               \
    {                                                                                              \
        .experts = 256, .chosen = 8, .groups = 8, .kept = 4, .scoring = RT_ROUTE_SIGMOID,          \
        .group_value = RT_ROUTE_GROUP_TOP2, .bias = true, .normalise = true, .scale = 2.5f         \
    }

struct ck_route_rig {
    struct ck_buffer logits, bias, choices, weights, offsets, pairs, active, count, slot;
};

/* But for logits, which are the caller's to allocate: an input of one, an output of the other. */
struct ck_route_rig ck_route_rig_make(struct ck *ck, const struct ck_choosing *c, uint32_t rows,
                                      uint32_t q_len);
void ck_route_rig_free(struct ck *ck, struct ck_route_rig *r);

/* With the rows' slots, and no lengths. */
struct rt_route_params ck_route_params(const struct ck_choosing *c, const struct ck_route_rig *r,
                                       uint32_t rows, uint32_t q_len, uint32_t logit_stride,
                                       enum ck_side side);

/* In words, for a case's name. */
#define CK_CHOOSING_BYTES 128
const char *ck_choosing_words(const struct ck_choosing *c, char words[CK_CHOOSING_BYTES]);

#endif
