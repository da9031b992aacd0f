/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_PROBES_LAYER_KERNEL_TRUTH_CUH
#define RT_BENCH_PROBES_LAYER_KERNEL_TRUTH_CUH

/*
 * The block step by step, naively and in double, each step from what the kernel itself left for it:
 * the first step that differs is the wrong one.
 */
#include "bench/probes/layer_kernel_shape.cuh"
#include "kernels/device/bf16.cuh"

/* y[vector][z][row] = sum over k of x'[vector][z][k] w[z][row][k]; x' is x or its RMSNorm. */
struct product_truth {
    const uint16_t *x, *w, *norm;
    uint32_t x_pitch, x_of_z;
    uint64_t w_of_z, w_of_row, w_of_k;
    uint32_t k;
    float eps;
    float *y;
};

static __device__ double block_sum(double v)
{
    __shared__ double all[128];
    all[threadIdx.x] = v;
    __syncthreads();
    for (int i = 64; i > 0; i /= 2) {
        if (threadIdx.x < i)
            all[threadIdx.x] += all[threadIdx.x + i];
        __syncthreads();
    }
    const double sum = all[0];
    __syncthreads();
    return sum;
}

/* Grid: rows, vectors, z; 128 threads. */
static __global__ void product_is(const product_truth p)
{
    const uint16_t *x = p.x + blockIdx.y * p.x_pitch + blockIdx.z * p.x_of_z;
    const uint16_t *w = p.w + blockIdx.z * p.w_of_z + blockIdx.x * p.w_of_row;
    double sum = 0, squares = 0;
    for (uint32_t i = threadIdx.x; i < p.k; i += 128) {
        const double v = rt_bf16_float(x[i]);
        squares += v * v;
        sum += v * rt_bf16_float(w[i * p.w_of_k]) * (p.norm ? rt_bf16_float(p.norm[i]) : 1.0);
    }
    sum = block_sum(sum);
    squares = block_sum(squares);
    if (threadIdx.x == 0)
        p.y[(blockIdx.y * gridDim.z + blockIdx.z) * gridDim.x + blockIdx.x] =
            (float)(p.norm ? sum / sqrt(squares / p.k + p.eps) : sum);
}

/* RoPE of pairs: v [vectors][heads][of_head], the last ROPE of each. Grid: heads, vectors. */
static __global__ void turn_is(const layer_params p, float *v, uint32_t of_head)
{
    float *pair =
        v + (blockIdx.y * gridDim.x + blockIdx.x) * of_head + of_head - ROPE + 2 * threadIdx.x;
    const float2 r = p.rope[(p.lengths[blockIdx.y] - 1) * (ROPE / 2) + threadIdx.x];
    const float a = pair[0], b = pair[1];
    pair[0] = a * r.x - b * r.y;
    pair[1] = a * r.y + b * r.x;
}

/* The new token, y [vectors][TOKEN], before its rotary part is turned; `down` as the kernel left
 * it. Grid: vectors. */
static __global__ void token_is(const layer_params p, const uint16_t *down, float *y)
{
    const uint16_t *x = down + blockIdx.x * DOWN + Q_LORA;
    double squares = 0;
    for (uint32_t i = threadIdx.x; i < KV_LORA; i += 128)
        squares += (double)rt_bf16_float(x[i]) * rt_bf16_float(x[i]);
    squares = block_sum(squares);
    for (uint32_t i = threadIdx.x; i < TOKEN; i += 128)
        y[blockIdx.x * TOKEN + i] =
            rt_bf16_float(x[i]) *
            (i < KV_LORA ? rt_bf16_float(p.kv_norm[i]) / sqrt(squares / KV_LORA + p.eps) : 1.0);
}

static __device__ uint16_t *token_of(const layer_params &p, uint32_t row, uint32_t token)
{
    const uint32_t page = p.pages[row * p.pages_per_row + token / PAGE];
    return p.cache + ((uint64_t)page * PAGE + token % PAGE) * TOKEN;
}

/* Of each row its last token in the cache. Grid: vectors. */
static __global__ void read_token(const layer_params p, float *y)
{
    for (uint32_t i = threadIdx.x; i < TOKEN; i += 128)
        y[blockIdx.x * TOKEN + i] =
            rt_bf16_float(token_of(p, blockIdx.x, p.lengths[blockIdx.x] - 1)[i]);
}

/* o [vectors][HEADS][KV_LORA] of q and the cache. Grid: heads, vectors; scores: floats of them. */
static __global__ void attend_is(const layer_params p, const uint16_t *q, float *o)
{
    extern __shared__ float scores[];
    const uint32_t length = p.lengths[blockIdx.y];
    const uint16_t *mine = q + (blockIdx.y * HEADS + blockIdx.x) * TOKEN;
    double sum = 0;
    for (uint32_t i = threadIdx.x; i < length; i += 128) {
        const uint16_t *token = token_of(p, blockIdx.y, i);
        double s = 0;
        for (uint32_t j = 0; j < TOKEN; j++)
            s += (double)rt_bf16_float(mine[j]) * rt_bf16_float(token[j]);
        scores[i] = (float)exp2(s * p.scale_log2); /* of random numbers: no maximum is needed */
        sum += scores[i];
    }
    sum = block_sum(sum);
    for (uint32_t j = threadIdx.x; j < KV_LORA; j += 128) {
        double v = 0;
        for (uint32_t i = 0; i < length; i++)
            v += (double)scores[i] * rt_bf16_float(token_of(p, blockIdx.y, i)[j]);
        o[(blockIdx.y * HEADS + blockIdx.x) * KV_LORA + j] = (float)(v / sum);
    }
}

#endif
