/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/emu.h"

#include "kernels/sm90/mla_block_general_sm90.cu"
