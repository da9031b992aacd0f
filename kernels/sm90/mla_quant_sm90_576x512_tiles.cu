/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sm90/attend_entry.cuh"

/* With 16 query rows code of one kind spills, and is 3 % slower where rows are long. */
RT_SM90_SCALES_GEOMETRY(576, 512, tiles)
RT_SM90_APART_ENTRY(576, 512, 8, tiles, tiles)
RT_SM90_APART_ENTRY(576, 512, 16, tiles, any)
