/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sm90/attend_entry.cuh"

RT_SM90_SPARSE_QUANT_GEOMETRY(576, 512)
