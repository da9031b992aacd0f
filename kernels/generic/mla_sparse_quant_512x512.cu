/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/generic/mla_attend_entry.cuh"

RT_SPARSE_QUANT_ENTRY(512, 512, 16)
RT_SPARSE_QUANT_ENTRY(512, 512, 32)
RT_SPARSE_QUANT_ENTRY(512, 512, 64)
