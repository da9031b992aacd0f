/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_PERMUTE_CUH
#define RT_KERNELS_DEVICE_PTX_PERMUTE_CUH

#include <stdint.h>

/* Any four bytes of eight, those of `high` are 4 to 7: byte i of the result is that which hex digit
 * i of `which` names. PTX ISA, "prmt". */
static __device__ __forceinline__ uint32_t rt_permute_bytes(uint32_t low, uint32_t high,
                                                            uint32_t which)
{
    uint32_t bytes;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(which));
    return bytes;
}

#endif
