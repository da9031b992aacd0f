/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/emu.h"

#include "kernels/generic/append.cu"
#include "kernels/generic/append_general.cu"
#include "kernels/generic/append_quant.cu"
#include "kernels/generic/schedule.cu"
#include "kernels/generic/schedule_append.cu"
#include "kernels/generic/sparse_schedule.cu"
