/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_LDMATRIX_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_LDMATRIX_CUH

#include "tests/emu/emu.h"

static inline void rt_ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    uint32_t words[4];
    emu_load_row(words, row);
    const emu_words *all = emu_exchange(EMU_LDMATRIX, words, 4);
    for (int i = 0; i < 4; i++)
        r[i] = all[i * 8 + emu_lane() / 4][emu_lane() % 4];
}

static inline void rt_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    uint32_t words[4];
    emu_load_row(words, row);
    const emu_words *all = emu_exchange(EMU_LDMATRIX, words, 4);
    const int column = emu_lane() / 4;
    for (int i = 0; i < 4; i++) {
        const uint32_t low = all[i * 8 + emu_lane() % 4 * 2][column / 2] >> column % 2 * 16;
        const uint32_t high = all[i * 8 + emu_lane() % 4 * 2 + 1][column / 2] >> column % 2 * 16;
        r[i] = (low & 0xffffu) | high << 16;
    }
}

static inline void rt_ldmatrix_x2(uint32_t (&r)[2], const void *row)
{
    uint32_t words[4];
    emu_load_row(words, row);
    const emu_words *all = emu_exchange(EMU_LDMATRIX, words, 4);
    for (int i = 0; i < 2; i++)
        r[i] = all[i * 8 + emu_lane() / 4][emu_lane() % 4];
}

#endif
