/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_STMATRIX_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_STMATRIX_CUH

#include "tests/emu/emu.h"

/* Row i % 8 of matrix i / 8 is stored by lane i, from what the lanes hold. */
template <int COUNT, bool TRANSPOSED>
static inline void rt_emu_stmatrix(void *row, const uint32_t (&r)[COUNT])
{
    uint32_t words[COUNT];
    for (int i = 0; i < COUNT; i++)
        words[i] = r[i];
    const emu_words *all = emu_exchange(EMU_STMATRIX, words, COUNT);
    const int matrix = emu_lane() / 8, mine = emu_lane() % 8;
    if (matrix >= COUNT)
        return;
    uint32_t line[4];
    for (int i = 0; i < 4; i++)
        line[i] = TRANSPOSED ? (all[i * 8 + mine / 2][matrix] >> mine % 2 * 16 & 0xffffu) |
                                   all[i * 8 + 4 + mine / 2][matrix] >> mine % 2 * 16 << 16
                             : all[mine * 4 + i][matrix];
    emu_store_row(row, line);
}

static inline void rt_stmatrix_x4(void *row, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const uint32_t r[4] = {a, b, c, d};
    rt_emu_stmatrix<4, false>(row, r);
}

static inline void rt_stmatrix_x4_trans(void *row, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const uint32_t r[4] = {a, b, c, d};
    rt_emu_stmatrix<4, true>(row, r);
}

static inline void rt_stmatrix_x2_trans(void *row, uint32_t a, uint32_t b)
{
    const uint32_t r[2] = {a, b};
    rt_emu_stmatrix<2, true>(row, r);
}

#endif
