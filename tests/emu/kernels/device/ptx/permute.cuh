/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_KERNELS_DEVICE_PTX_PERMUTE_CUH
#define RT_TESTS_EMU_KERNELS_DEVICE_PTX_PERMUTE_CUH

#include <stdint.h>

static inline uint32_t rt_permute_bytes(uint32_t low, uint32_t high, uint32_t which)
{
    const uint64_t all = (uint64_t)high << 32 | low;
    uint32_t bytes = 0;
    for (int i = 0; i < 4; i++)
        bytes |= (uint32_t)(all >> (which >> i * 4 & 7) * 8 & 255) << i * 8;
    return bytes;
}

#endif
