/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

void rt_ref_preattend_absorb(const void *params)
{
    const struct rt_preattend_absorb_params *p = params;
    rt_ref_preattend(&p->preattend);
    rt_ref_project(&p->absorb);
}

/* The same, as the tuned kernel is given it. */
void rt_ref_preattend_absorb_sm90(const void *params)
{
    const struct rt_preattend_absorb_sm90_params *p = params;
    rt_ref_preattend(&p->preattend);
    rt_ref_project(&p->absorb.project);
}
