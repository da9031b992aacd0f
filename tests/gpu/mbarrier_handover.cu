/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why scripts/gpu_suite.sh leaves the sm_90 attention kernels out of racecheck: a producer and a
 * consumer share nothing but what two mbarriers order. Where each thread arrives for itself,
 * racecheck follows. Where a warp meets in __syncwarp and one lane arrives for all, as those
 * kernels do it, it reports the same accesses. Where it no longer does, they belong back into it.
 *   nvcc -std=c++17 -arch=sm_90a -I. -o handover tests/gpu/mbarrier_handover.cu
 *   compute-sanitizer --tool racecheck ./handover each     # nothing
 *   compute-sanitizer --tool racecheck ./handover one      # errors
 */
#include "kernels/device/ptx/mbarrier.cuh"

#include <cstdio>
#include <cstring>

#define ROUNDS 8u

template <bool ONE> static __device__ void arrive(uint64_t *barrier)
{
    if (ONE)
        __syncwarp();
    if (!ONE || threadIdx.x % 32 == 0)
        rt_mbarrier_arrive(barrier);
}

/* Warp 0 fills a buffer of 32 words for warp 1, again and again. */
template <bool ONE> static __global__ void handover(unsigned *out)
{
    __shared__ uint64_t full, empty;
    __shared__ unsigned data[32];
    const unsigned lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        rt_mbarrier_init(&full, ONE ? 1 : 32);
        rt_mbarrier_init(&empty, ONE ? 1 : 32);
    }
    __syncthreads();
    for (unsigned n = 0; n < ROUNDS; n++) {
        if (threadIdx.x < 32) {
            rt_mbarrier_wait(&empty, (n & 1) ^ 1);
            data[lane] = n * 32 + lane;
            arrive<ONE>(&full);
        } else {
            rt_mbarrier_wait(&full, n & 1);
            out[n * 32 + lane] = data[31 - lane];
            arrive<ONE>(&empty);
        }
    }
}

int main(int argc, char **argv)
{
    unsigned *out = nullptr, host[ROUNDS * 32], wrong = 0;
    if (cudaMalloc(&out, sizeof(host)) != cudaSuccess)
        return 77;
    if (argc > 1 && strcmp(argv[1], "one") == 0)
        handover<true><<<1, 64>>>(out);
    else
        handover<false><<<1, 64>>>(out);
    if (cudaMemcpy(host, out, sizeof(host), cudaMemcpyDeviceToHost) != cudaSuccess)
        return 1;
    for (unsigned i = 0; i < ROUNDS * 32; i++)
        wrong += host[i] != i / 32 * 32 + 31 - i % 32;
    printf("%u of %u words are wrong\n", wrong, ROUNDS * 32);
    cudaFree(out);
    return wrong != 0;
}
