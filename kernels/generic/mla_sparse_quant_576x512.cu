/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/generic/mla_attend_entry.cuh"

RT_SPARSE_QUANT_ENTRY(576, 512, 16)
RT_SPARSE_QUANT_ENTRY(576, 512, 32)
RT_SPARSE_QUANT_ENTRY(576, 512, 64)
