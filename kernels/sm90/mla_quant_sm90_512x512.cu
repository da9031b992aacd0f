/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sm90/attend_entry.cuh"

RT_SM90_QUANT_GEOMETRY(512, 512)
