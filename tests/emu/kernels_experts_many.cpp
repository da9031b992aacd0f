/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/emu.h"

#include "kernels/generic/experts_down_many.cu"
#include "kernels/generic/experts_down_pairs.cu"
#include "kernels/generic/experts_down_sum.cu"
#include "kernels/generic/experts_up_many.cu"
