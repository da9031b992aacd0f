/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sm90/attend_entry.cuh"

RT_SM90_GEOMETRY(576, 512)
RT_SM90_SHARED_ENTRY(576, 512, c64, RT_SM90_EVEN)
RT_SM90_SHARED_ENTRY(576, 512, c64p, RT_SM90_OWN)
