/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_WGMMA_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_WGMMA_CUH

#include "tests/emu/wgmma.h"

#define RT_WGMMA_GROUP_BYTES 1024u

/* As kernels/device/ptx/wgmma.cuh draws it. */
static inline uint64_t rt_wgmma_spaced_operand(uint32_t shared_address, uint32_t tile_bytes,
                                               uint32_t group_bytes)
{
    return 1ull << 62 | (uint64_t)((group_bytes >> 4) & 0x3fff) << 32 |
           (uint64_t)((tile_bytes >> 4) & 0x3fff) << 16 | ((shared_address >> 4) & 0x3fff);
}

static inline uint64_t rt_wgmma_operand(uint32_t shared_address, uint32_t tile_bytes)
{
    return rt_wgmma_spaced_operand(shared_address, tile_bytes, RT_WGMMA_GROUP_BYTES);
}

static inline uint64_t rt_wgmma_further(uint64_t operand, uint32_t bytes)
{
    return operand + (bytes >> 4);
}

static inline void rt_wgmma_begin(void)
{
    emu_product_fence();
}

static inline void rt_wgmma_commit(void)
{
    emu_product_commit();
}

template <int PENDING> static inline void rt_wgmma_wait(void)
{
    emu_product_wait(PENDING);
}

template <int COUNT> static inline void rt_wgmma_settle(float (&)[COUNT])
{
}

enum rt_wgmma_type { RT_WGMMA_BF16, RT_WGMMA_F16 };

template <int N> struct rt_wgmma {
    template <int A_ACROSS, int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static inline void shared(float (&d)[N / 2], uint64_t a, uint64_t b, int keep = 1)
    {
        const struct emu_product p = {
            d, N, a, b, nullptr, A_ACROSS != 0, B_ACROSS != 0, keep != 0, TYPE == RT_WGMMA_F16};
        emu_product_issue(&p);
    }

    template <int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static inline void registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,
                                 int keep = 1)
    {
        const struct emu_product p = {
            d, N, 0, b, a, false, B_ACROSS != 0, keep != 0, TYPE == RT_WGMMA_F16};
        emu_product_issue(&p);
    }
};

#endif
