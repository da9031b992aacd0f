/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/counted.h"

#include "kernels/abi/schedule.h"
#include "kernels/ref/ref.h"

void rt_ref_plan_counted(const struct rt_counted_view *counted, struct rt_schedule_view *schedule,
                         struct rt_rows_view *rows, struct rt_ref_counted *plan)
{
    for (uint32_t t = 0; t < rows->count; t++)
        plan->length[t] = (int32_t)rt_counted_length(counted, rt_row_base(rows), t);
    rows->length = plan->length;
    schedule->parts = plan->parts;
    schedule->num_splits = plan->num_splits;
    const struct rt_schedule_params p = {.schedule = *schedule,
                                         .overhead_blocks = counted->overhead_blocks,
                                         .min_blocks = counted->min_blocks,
                                         .rows = *rows};
    rt_ref_schedule(&p);
}
