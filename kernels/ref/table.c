/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/experts_many.h"
#include "kernels/abi/experts_sm90.h"
#include "kernels/abi/gate.h"
#include "kernels/abi/mla_block.h"
#include "kernels/abi/moe_block.h"
#include "kernels/abi/preattend_absorb_sm90.h"
#include "kernels/abi/prefill_sm90.h"
#include "kernels/abi/project_many.h"
#include "kernels/abi/project_sm90.h"
#include "kernels/abi/quant_sm90.h"
#include "kernels/abi/sparse_sm90.h"
#include "kernels/ref/ref.h"

const struct rt_host_kernel rt_ref_kernels[] = {
#define RT_KERNEL(entry_, image_, params_, addresses_, smem_, waits_, ref_)                        \
    {.entry = #entry_, .run = ref_, .param_bytes = sizeof(params_)},
#include "kernels/kernels.inc"
};

const uint32_t rt_ref_kernel_count = sizeof(rt_ref_kernels) / sizeof(rt_ref_kernels[0]);
