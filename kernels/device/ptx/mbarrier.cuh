/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_MBARRIER_CUH
#define RT_KERNELS_DEVICE_PTX_MBARRIER_CUH

/*
 * Barriers in shared memory: PTX ISA, "mbarrier". A phase ends when `count` threads have arrived
 * and as many bytes as were announced have been copied in. Waiting names the phase by its parity:
 * a fresh barrier is in phase 0, and phase -1, parity 1, counts as over.
 * volatile, memory: what a barrier guards must not move across it.
 */
#include <stdint.h>

static __device__ __forceinline__ uint32_t rt_shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

static __device__ __forceinline__ void rt_mbarrier_init(uint64_t *barrier, uint32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(rt_shared_address(barrier)),
                 "r"(count)
                 : "memory");
}

/* Inits by this thread are seen by the copy engine and by the cluster, once a barrier has told. */
static __device__ __forceinline__ void rt_mbarrier_init_fence(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

static __device__ __forceinline__ void rt_mbarrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(rt_shared_address(barrier))
                 : "memory");
}

/* Arrives, and makes the phase wait for so many bytes more. */
static __device__ __forceinline__ void rt_mbarrier_arrive_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(rt_shared_address(barrier)),
        "r"(bytes)
        : "memory");
}

/* True once the phase of that parity is over; may suspend the thread for a while. */
static __device__ __forceinline__ bool rt_mbarrier_try(uint64_t *barrier, uint32_t parity)
{
    uint32_t over;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(over)
                 : "r"(rt_shared_address(barrier)), "r"(parity)
                 : "memory");
    return over != 0;
}

/* A look, without waiting. By a whole warp, whose lanes may see different things. */
static __device__ __forceinline__ bool rt_mbarrier_test(uint64_t *barrier, uint32_t parity)
{
    uint32_t over;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(over)
                 : "r"(rt_shared_address(barrier)), "r"(parity)
                 : "memory");
    return over != 0;
}

static __device__ __forceinline__ void rt_mbarrier_wait(uint64_t *barrier, uint32_t parity)
{
    while (!rt_mbarrier_try(barrier, parity)) {
    }
}

#endif
