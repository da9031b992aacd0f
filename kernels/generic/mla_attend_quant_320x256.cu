/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/generic/mla_attend_entry.cuh"

RT_ATTEND_QUANT_ENTRY(320, 256, 16)
RT_ATTEND_QUANT_ENTRY(320, 256, 32)
RT_ATTEND_QUANT_ENTRY(320, 256, 64)
