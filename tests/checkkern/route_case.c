/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/route_case.h"

#include <stdio.h>

struct ck_route_rig ck_route_rig_make(struct ck *ck, const struct ck_choosing *c, uint32_t rows,
                                      uint32_t q_len)
{
    const uint64_t pairs = (uint64_t)rows * q_len * c->chosen, experts = c->experts;
    return (struct ck_route_rig){
        .bias = ck_alloc_later(ck, "bias", 4 * experts, 0xff),
        .choices = ck_alloc(ck, "choices", 4 * pairs, CK_ROUTE_POISON),
        .weights = ck_alloc(ck, "weights", 4 * pairs, CK_ROUTE_POISON),
        .offsets = ck_alloc(ck, "offsets", 4 * (experts + 1), CK_ROUTE_POISON),
        .pairs = ck_alloc(ck, "pairs", 4 * pairs, CK_ROUTE_POISON),
        .active = ck_alloc(ck, "active", 16 * experts, CK_ROUTE_POISON),
        .count = ck_alloc(ck, "active_count", 4, CK_ROUTE_POISON),
        .slot = ck_alloc_later(ck, "slot", 4 * (uint64_t)rows, CK_ROUTE_POISON)};
}

void ck_route_rig_free(struct ck *ck, struct ck_route_rig *r)
{
    struct ck_buffer *all[] = {&r->logits, &r->bias,   &r->choices, &r->weights, &r->offsets,
                               &r->pairs,  &r->active, &r->count,   &r->slot};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

struct rt_route_params ck_route_params(const struct ck_choosing *c, const struct ck_route_rig *r,
                                       uint32_t rows, uint32_t q_len, uint32_t logit_stride,
                                       enum ck_side side)
{
    return (struct rt_route_params){
        .rows = {.count = rows, .q_len = q_len, .slot = ck_at(&r->slot, side)},
        .logits = ck_at(&r->logits, side),
        .bias = c->bias ? ck_at(&r->bias, side) : NULL,
        .choices = ck_at(&r->choices, side),
        .weights = ck_at(&r->weights, side),
        .groups_of = {.offsets = ck_at(&r->offsets, side),
                      .pairs = ck_at(&r->pairs, side),
                      .active = ck_at(&r->active, side),
                      .active_count = ck_at(&r->count, side)},
        .logit_stride = logit_stride,
        .experts = c->experts,
        .chosen = c->chosen,
        .groups = c->groups,
        .groups_kept = c->kept,
        .scoring = c->scoring,
        .group_value = c->group_value,
        .normalise = c->normalise,
        .scale = c->scale};
}

const char *ck_choosing_words(const struct ck_choosing *c, char words[CK_CHOOSING_BYTES])
{
    (void)snprintf(words, CK_CHOOSING_BYTES, "%u of %u experts, %u of %u groups by %s, %s%s%s, %g",
                   c->chosen, c->experts, c->kept, c->groups,
                   c->group_value == RT_ROUTE_GROUP_TOP2 ? "two" : "one",
                   c->scoring == RT_ROUTE_SIGMOID ? "sigmoid" : "softmax", c->bias ? ", bias" : "",
                   c->normalise ? ", normalised" : "", (double)c->scale);
    return words;
}
