/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/emu.h"

#include "kernels/generic/preattend_absorb.cu"
#include "kernels/generic/project.cu"
