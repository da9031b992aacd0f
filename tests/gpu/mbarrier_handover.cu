/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why scripts/gpu_suite.sh leaves the sm_90 attention kernels out of racecheck: this producer and
 * consumer share nothing but what two mbarriers order, and racecheck reports them nevertheless.
 * Where it no longer does, those kernels belong back into it.
 *   nvcc -std=c++17 -arch=sm_90a -I. -o handover tests/gpu/mbarrier_handover.cu
 *   ./handover && compute-sanitizer --tool racecheck ./handover
 */
#include "kernels/device/ptx/mbarrier.cuh"

#include <cstdio>

#define ROUNDS 8u

/* Warp 0 fills a buffer of 32 words for warp 1, again and again. */
static __global__ void handover(unsigned *out)
{
    __shared__ uint64_t full, empty;
    __shared__ unsigned data[32];
    const unsigned lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        rt_mbarrier_init(&full, 32);
        rt_mbarrier_init(&empty, 32);
    }
    __syncthreads();
    for (unsigned n = 0; n < ROUNDS; n++) {
        if (threadIdx.x < 32) {
            rt_mbarrier_wait(&empty, (n & 1) ^ 1);
            data[lane] = n * 32 + lane;
            rt_mbarrier_arrive(&full);
        } else {
            rt_mbarrier_wait(&full, n & 1);
            out[n * 32 + lane] = data[31 - lane];
            rt_mbarrier_arrive(&empty);
        }
    }
}

int main(void)
{
    unsigned *out = nullptr, host[ROUNDS * 32], wrong = 0;
    if (cudaMalloc(&out, sizeof(host)) != cudaSuccess)
        return 77;
    handover<<<1, 64>>>(out);
    if (cudaMemcpy(host, out, sizeof(host), cudaMemcpyDeviceToHost) != cudaSuccess)
        return 1;
    for (unsigned i = 0; i < ROUNDS * 32; i++)
        wrong += host[i] != i / 32 * 32 + 31 - i % 32;
    printf("%u of %u words are wrong\n", wrong, ROUNDS * 32);
    cudaFree(out);
    return wrong != 0;
}
