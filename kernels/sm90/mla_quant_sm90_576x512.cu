/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sm90/attend_entry.cuh"

RT_SM90_ENTRY(quant_sm90, rt_sm90_quant_row_keys, 576, 512, m64, rt_sm90_math, 64)
