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
    const int lane = emu_lane();
    const emu_words *rows = all + lane / 4 * 4, *columns = all + lane % 4 * 8;
    double sum[4] = {d[0], d[1], d[2], d[3]};
#pragma GCC unroll 16
    for (int k = 0; k < 16; k++) {
        const int i = k % 8 / 2, half = k / 8, shift = k % 2 * 16;
        const auto element = [shift](uint32_t pair) -> double {
            return emu_float(pair >> shift << 16);
        };
        const double upper = element(rows[i][half * 2]), lower = element(rows[i][half * 2 + 1]);
        const double left = element(columns[i][half + 4]);
        const double right = element(columns[i + 4][half + 4]);
        sum[0] += upper * left;
        sum[1] += upper * right;
        sum[2] += lower * left;
        sum[3] += lower * right;
    }
    for (int i = 0; i < 4; i++)
        d[i] = (float)sum[i];
}

#endif
