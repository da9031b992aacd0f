/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_DIVISOR_CUH
#define RT_KERNELS_DEVICE_DIVISOR_CUH

/*
 * Exact division by a number that is known early and used late: the slow part, one real division,
 * is done when the divisor is made, and a quotient is then two multiplications and a comparison.
 *
 * With m = floor((2^32 - 1) / d): m * d >= 2^32 - d, so n / d - n * m / 2^32 <= n / 2^32 < 1, and
 * the high half of n * m is the quotient or one less, for every 32-bit n and d >= 1.
 */
#include <stdint.h>

template <typename Word> struct rt_divisor;

template <> struct rt_divisor<uint32_t> {
    uint32_t by, inverse;

    __device__ __forceinline__ explicit rt_divisor(uint32_t d) : by(d), inverse(0xffffffffu / d)
    {
    }

    __device__ __forceinline__ uint32_t quotient(uint32_t n) const
    {
        const uint32_t q = __umulhi(n, inverse);
        return n - q * by >= by ? q + 1 : q;
    }
};

template <> struct rt_divisor<uint64_t> {
    uint64_t by;

    __device__ __forceinline__ explicit rt_divisor(uint64_t d) : by(d)
    {
    }

    __device__ __forceinline__ uint64_t quotient(uint64_t n) const
    {
        return n / by;
    }
};

#endif
