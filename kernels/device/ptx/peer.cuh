/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_PEER_CUH
#define RT_KERNELS_DEVICE_PTX_PEER_CUH

/*
 * Words that devices hand to each other in memory that both have mapped: PTX ISA, "ld.relaxed.sys",
 * "st.relaxed.sys". Each of the two words of a vector is one access, of 8 bytes; nothing is said
 * about the order of any two. They go to the memory's own L2 every time.
 * volatile, memory: a load that is tried again is made again.
 */
#include <stdint.h>

struct rt_peer_pair {
    uint64_t at[2];
};

/* 16 bytes, 16-byte aligned, as below. */
static __device__ __forceinline__ void rt_peer_store(void *to, const struct rt_peer_pair &v)
{
    asm volatile("st.relaxed.sys.global.v2.u64 [%0], {%1, %2};" ::"l"(to), "l"(v.at[0]),
                 "l"(v.at[1])
                 : "memory");
}

static __device__ __forceinline__ struct rt_peer_pair rt_peer_load(const void *from)
{
    struct rt_peer_pair v;
    asm volatile("ld.relaxed.sys.global.v2.u64 {%0, %1}, [%2];"
                 : "=l"(v.at[0]), "=l"(v.at[1])
                 : "l"(from)
                 : "memory");
    return v;
}

#endif
