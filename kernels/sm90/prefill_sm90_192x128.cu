/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sm90/prefill_entry.cuh"

RT_PREFILL_SM90_ENTRY(192, 128)
