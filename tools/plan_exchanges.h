/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_PLAN_EXCHANGES_H
#define RT_TOOLS_PLAN_EXCHANGES_H

/* What ranks exchange in a planned graph. */
#include "replayrt/ranks.h"

#include <stdint.h>

/* Exchanges of one name: of a layer's kind one in each layer. */
struct plan_exchange {
    char name[64];    /* "o_proj_sum" */
    const char *kind; /* "all_reduce", of the plan */
    uint64_t bytes;   /* of each */
    uint32_t count;   /* in a replay */
};

#define PLAN_MOST_EXCHANGES (RT_MAX_STAGE_EXCHANGES + 2) /* and o_proj_sum and out_exchange */

/* Those of a graph of so many stages, in their order; returns how many names there are. */
uint32_t plan_exchanges_find(const rt_plan *plan, uint32_t graph, uint32_t stages,
                             struct plan_exchange out[PLAN_MOST_EXCHANGES]);

/* A plan of `ranks` ranks, or where that is 0 of a runtime without; of a model's folder or
 * config.json also what its decoder exchanges. RT_OK, or a story. */
enum rt_status plan_for_ranks(const struct rt_config *config, const char *assume, uint64_t ranks,
                              const char *checkpoint, rt_plan **out, struct rt_error *error);

#endif
