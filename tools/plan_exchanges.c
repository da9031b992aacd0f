/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/plan_exchanges.h"

#include "replayrt/models.h"

#include <stdio.h>
#include <string.h>

/* For exchanges that nobody makes: an address that is one. */
#define SOMEWHERE UINT64_C(0x1000)

static void add(const struct rt_plan_stage *s, struct plan_exchange *out, uint32_t *count)
{
    const int stem = (int)strcspn(s->label, ".");
    struct plan_exchange x = {.kind = s->entry, .bytes = s->exchange_bytes, .count = 1};
    (void)snprintf(x.name, sizeof(x.name), "%.*s", stem, s->label);
    for (uint32_t i = 0; i < *count; i++)
        if (strcmp(out[i].name, x.name) == 0 && out[i].bytes == x.bytes) {
            out[i].count++;
            return;
        }
    if (*count < PLAN_MOST_EXCHANGES)
        out[(*count)++] = x;
}

uint32_t plan_exchanges_find(const rt_plan *plan, uint32_t graph, uint32_t stages,
                             struct plan_exchange out[PLAN_MOST_EXCHANGES])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < stages; i++) {
        struct rt_plan_stage s = {.struct_size = sizeof(s)};
        if (rt_plan_stage(plan, graph, i, &s) == RT_OK && s.exchange_bytes)
            add(&s, out, &count);
    }
    return count;
}

enum rt_status plan_for_ranks(const struct rt_config *config, const char *assume, uint64_t ranks,
                              const char *checkpoint, rt_plan **out, struct rt_error *error)
{
    struct rt_model model = {.struct_size = sizeof(model)};
    struct rt_stage_exchange exchanges[RT_MODEL_EXCHANGES];
    struct rt_plan_ranks of = {
        .struct_size = sizeof(of), .ranks = (uint32_t)ranks, .exchanges = exchanges};
    if (!ranks)
        return rt_plan_create(config, assume, out, error);
    if (checkpoint) {
        const enum rt_status status = rt_model_read(checkpoint, &model, error);
        if (status != RT_OK)
            return status;
        of.exchange_count = rt_model_exchanges(&model, of.ranks, exchanges);
        exchanges[1].from = SOMEWHERE;
        exchanges[1].to = 2 * SOMEWHERE;
    }
    return rt_plan_create_ranks(config, &of, assume, out, error);
}
