/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_SHARED_H
#define RT_TESTS_EMU_SHARED_H

/* In front of kernels whose shared memory is declared in a function: one for all threads, as blocks
 * run one after the other. What it holds when a block starts is what the block before left. */
#include "tests/emu/emu.h"

#undef __shared__
#define __shared__ static

#endif
