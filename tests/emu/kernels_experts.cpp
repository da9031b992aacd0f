/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/emu.h"

#include "kernels/generic/experts_down.cu"
#include "kernels/generic/experts_up.cu"
#include "kernels/generic/gate.cu"
#include "kernels/generic/route.cu"
