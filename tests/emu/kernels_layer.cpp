/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/emu.h"

#include "kernels/generic/all_reduce.cu"
#include "kernels/generic/context_rows.cu"
#include "kernels/generic/embed.cu"
#include "kernels/generic/input_norm.cu"
#include "kernels/generic/kv_convert.cu"
#include "kernels/generic/kv_gather.cu"
#include "kernels/generic/kv_gather_quant.cu"
#include "kernels/generic/merge.cu"
#include "kernels/generic/preattend.cu"
#include "kernels/generic/preattend_quant.cu"
#include "kernels/generic/take.cu"
