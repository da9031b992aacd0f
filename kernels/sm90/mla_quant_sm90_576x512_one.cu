/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sm90/attend_entry.cuh"

RT_SM90_SCALES_GEOMETRY(576, 512, one)
RT_SM90_APART_ENTRY(576, 512, 8, one, one)
RT_SM90_APART_ENTRY(576, 512, 16, one, one)
