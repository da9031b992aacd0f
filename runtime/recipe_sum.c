/* SPDX-License-Identifier: Apache-2.0 */
/* The sum over ranks behind a block: by the communicator, or by a kernel of ours. */
#include "runtime/one_shot.h"
#include "runtime/ranks_impl.h"
#include "runtime/recipe_parts.h"

#include <stdio.h>

/* Every rank has the product of its own heads. The audit knows nothing of what a library captures,
 * which may want host functions where ranks cannot reach each other's memory. */
enum rt_status rt_recipe_add_sum(struct recipe *b, uint32_t layer, void *hidden)
{
    const struct rt_collective x =
        rt_ranks_sum(&b->s->blueprint->config, b->s->comm, (uintptr_t)hidden, rt_recipe_tokens(b));
    const struct rt_sum_choice *const choice = rt_sums_find(b->s->sums, x.count);
    struct rt_work work = {.kind = RT_WORK_COLLECTIVE, .collective = x};
    if (choice && choice->one_shot)
        RT_TRY(rt_one_shot_work(b->s->kernels, &x, &work, b->err));
    RT_TRY(rt_recipe_add(b, "o_proj_sum", layer, &work));
    struct rt_stage *const stage = &b->p->stages[b->p->count - 1];
    if (work.kind == RT_WORK_COLLECTIVE)
        stage->trust = RT_STAGE_FOREIGN_HOST;
    if (choice)
        (void)snprintf(stage->reason, sizeof(stage->reason), "%s", choice->reason);
    return RT_OK;
}
