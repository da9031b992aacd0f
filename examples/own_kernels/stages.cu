/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One kernel for each stage. Grids are as large as the graph's padded batch; a block of a padded
 * row reads live_rows and leaves, so a captured launch serves every live count.
 *
 *   block (x, y): row x, part y of the row's elements; one thread makes one element
 */
#include "examples/own_kernels/stages.h"

#include <cuda_runtime_api.h>

namespace
{

constexpr unsigned block_threads = 128;
constexpr unsigned q_elements = OWN_HEADS * OWN_WIDTH;
constexpr unsigned projected = q_elements + OWN_WIDTH;

__device__ bool padded(const own_tensors &t)
{
    return blockIdx.x >= (unsigned)*t.live_rows;
}

__device__ unsigned row_of(const own_tensors &t)
{
    return (unsigned)*t.row_base + blockIdx.x;
}

__global__ void own_embed(own_tensors t)
{
    if (padded(t))
        return;
    const unsigned row = row_of(t), i = threadIdx.x;
    const int32_t token = t.tokens[row], position = t.positions[blockIdx.x];
    if (i == 0)
        t.history[row * OWN_MAX_STEPS + position] = token;
    if (i < OWN_HIDDEN)
        t.hidden[row * OWN_HIDDEN + i] = own_embedding(token, position, i);
}

__global__ void own_project_in(own_tensors t)
{
    const unsigned e = blockIdx.y * block_threads + threadIdx.x;
    if (padded(t) || e >= projected)
        return;
    const unsigned row = row_of(t);
    const float *hidden = t.hidden + row * OWN_HIDDEN;
    if (e < q_elements)
        t.q[(size_t)row * q_elements + e] = own_q(t.layer, e, hidden);
    else
        t.latent[(size_t)row * OWN_WIDTH + e - q_elements] =
            own_latent(t.layer, e - q_elements, hidden);
}

/* One block makes the whole row: no thread may overwrite what another one still reads. */
__global__ void own_project_out(own_tensors t)
{
    if (padded(t))
        return;
    const unsigned row = row_of(t), i = threadIdx.x;
    float *hidden = t.hidden + row * OWN_HIDDEN;
    float next = 0.0f;
    if (i < OWN_HIDDEN)
        next = own_next_hidden(t.layer, i, hidden, t.out + (size_t)row * OWN_HEADS * OWN_RANK);
    __syncthreads();
    if (i < OWN_HIDDEN)
        hidden[i] = next;
}

__global__ void own_pick(own_tensors t)
{
    if (padded(t) || threadIdx.x != 0)
        return;
    const unsigned row = row_of(t);
    t.sampled[row] = own_sample(t.hidden + row * OWN_HIDDEN, &t.margin[row]);
}

} // namespace

int own_cuda_stage(enum rt_stage_point point, const struct own_tensors *t, uint32_t batch,
                   void *stream)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    switch (point) {
    case RT_STAGE_STEP_BEGIN:
        own_embed<<<batch, block_threads, 0, s>>>(*t);
        break;
    case RT_STAGE_BEFORE_ATTENTION: {
        const dim3 grid(batch, (projected + block_threads - 1) / block_threads);
        own_project_in<<<grid, block_threads, 0, s>>>(*t);
        break;
    }
    case RT_STAGE_AFTER_ATTENTION:
        own_project_out<<<batch, block_threads, 0, s>>>(*t);
        break;
    default:
        own_pick<<<batch, block_threads, 0, s>>>(*t);
        break;
    }
    return cudaGetLastError();
}

int own_cuda_prepare(int ordinal)
{
    const void *const kernels[] = {(const void *)own_embed, (const void *)own_project_in,
                                   (const void *)own_project_out, (const void *)own_pick};
    cudaError_t error = cudaSetDevice(ordinal);
    for (const void *kernel : kernels) {
        cudaFuncAttributes attributes;
        if (error == cudaSuccess)
            error = cudaFuncGetAttributes(&attributes, kernel);
    }
    return error;
}

int own_cuda_device_count(void)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess)
        return count;
    (void)cudaGetLastError();
    return 0;
}

int own_cuda_allocate(uint64_t bytes, uint64_t *address)
{
    void *memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, bytes);
    *address = reinterpret_cast<uint64_t>(memory);
    return error;
}

void own_cuda_free(uint64_t address)
{
    (void)cudaFree(reinterpret_cast<void *>(address));
}

int own_cuda_write(uint64_t address, const void *data, uint64_t bytes)
{
    return cudaMemcpy(reinterpret_cast<void *>(address), data, bytes, cudaMemcpyHostToDevice);
}

int own_cuda_read(uint64_t address, void *data, uint64_t bytes)
{
    return cudaMemcpy(data, reinterpret_cast<void *>(address), bytes, cudaMemcpyDeviceToHost);
}

const char *own_cuda_text(int error)
{
    return cudaGetErrorString(static_cast<cudaError_t>(error));
}
