/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_MMA_H
#define RT_TESTS_EMU_MMA_H

#include "tests/emu/core.h"

/* d += a b for a warp at once: of each lane its four words of d, four of a and two of b; its d
 * comes back in their place. */
void emu_multiply_warp(emu_words *lanes);

#endif
