/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

void rt_ref_schedule_append(const void *params)
{
    const struct rt_schedule_append_params *p = params;
    rt_ref_schedule(&p->schedule);
    rt_ref_append(&p->append);
}
