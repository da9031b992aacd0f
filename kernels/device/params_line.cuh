/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PARAMS_LINE_CUH
#define RT_KERNELS_DEVICE_PARAMS_LINE_CUH

/*
 * A launch's parameters are new to every SM, and come from memory line by line as they are first
 * read: a trip each, one behind the other where code stops for each. So every warp of a block asks
 * for a line of its own while there is nothing else to do, and rt_settle_any waits for what this
 * returns.
 */
#include "kernels/device/ptx/settle_any.cuh"

#include <string.h>

#define RT_PARAMS_LINE_BYTES 64u

template <class PARAMS>
static __device__ __forceinline__ uint32_t rt_ask_for_params_line(const PARAMS &p)
{
    constexpr uint32_t LAST = sizeof(PARAMS) - sizeof(uint32_t);
    const uint32_t at = threadIdx.x / 32 * RT_PARAMS_LINE_BYTES;
    uint32_t value;
    memcpy(&value, (const char *)&p + (at < LAST ? at : LAST), sizeof(value));
    return value;
}

#endif
