/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_PREATTEND_ABSORB_SM90_H
#define RT_KERNELS_ABI_PREATTEND_ABSORB_SM90_H

#include "kernels/abi/preattend_absorb.h"
#include "kernels/abi/project_sm90.h"

/* Of a weight that lies across alone, as keys' rows do in kv_b_proj. */
struct rt_preattend_absorb_sm90_params {
    struct rt_project_sm90_params absorb;
    struct rt_preattend_params preattend;
};
#define RT_PREATTEND_ABSORB_SM90_ADDRESSES(type)                                                   \
    (RT_PROJECT_PARAMS_ADDRESSES(type, absorb.project.) |                                          \
     RT_PREATTEND_PARAMS_ADDRESSES(type, preattend.))
RT_STATIC_ASSERT(sizeof(struct rt_preattend_absorb_sm90_params) == 528,
                 "sm90 preattend_absorb ABI");
RT_STATIC_ASSERT(offsetof(struct rt_preattend_absorb_sm90_params, preattend.heads) <= 512,
                 "a mask knows addresses of 64 words");
RT_STATIC_ASSERT(RT_PROJECT_SM90_ACROSS_THREADS == 32u * RT_PREATTEND_WARPS, "blocks of one size");

#endif
