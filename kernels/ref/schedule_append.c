/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

void rt_ref_schedule_append(const void *params)
{
    const struct rt_schedule_params schedule = rt_schedule_half(params);
    const struct rt_mla_append_params append = rt_append_half(params);
    rt_ref_schedule(&schedule);
    rt_ref_mla_append(&append);
}
