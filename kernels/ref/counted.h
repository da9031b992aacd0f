/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REF_COUNTED_H
#define RT_KERNELS_REF_COUNTED_H

#include "kernels/abi/counted.h"

/* What sparse_schedule would have written. */
struct rt_ref_counted {
    int32_t length[RT_COUNTED_ROWS], num_splits[RT_COUNTED_ROWS + 1];
    struct rt_part parts[RT_COUNTED_PARTS];
};

/* Makes the plan of counted rows, and lets the two views show it. */
void rt_ref_plan_counted(const struct rt_counted_view *counted, struct rt_schedule_view *schedule,
                         struct rt_rows_view *rows, struct rt_ref_counted *plan);

#endif
