/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_MMA_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_MMA_CUH

#include "tests/emu/emu.h"

/* Fragments as the PTX ISA lays them out; products exact, summed in double, rounded once. */
static inline void rt_mma_bf16_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                       uint32_t b1)
{
    const uint32_t words[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const emu_words *all = emu_exchange(EMU_MMA, words, 6);
    const int g = emu_lane() / 4, c = emu_lane() % 4 * 2;
    for (int i = 0; i < 4; i++) {
        const int row = g + i / 2 * 8, column = c + i % 2;
        double sum = d[i];
        for (int k = 0; k < 16; k++) {
            const uint32_t left = all[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
            const uint32_t right = all[column * 4 + k % 8 / 2][4 + k / 8];
            sum += (double)emu_float(left >> k % 2 * 16 << 16) *
                   (double)emu_float(right >> k % 2 * 16 << 16);
        }
        d[i] = (float)sum;
    }
}

#endif
