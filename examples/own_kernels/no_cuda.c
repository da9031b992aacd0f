/* SPDX-License-Identifier: Apache-2.0 */
/* In the place of stages.cu where no CUDA compiler was found. */
#include "examples/own_kernels/stages.h"

#include <stddef.h>

enum { NO_CUDA = 1 };

int own_cuda_stage(enum rt_stage_point point, const struct own_tensors *t, uint32_t batch,
                   void *stream)
{
    (void)point;
    (void)t;
    (void)batch;
    (void)stream;
    return NO_CUDA;
}

int own_cuda_prepare(int ordinal)
{
    (void)ordinal;
    return NO_CUDA;
}

int own_cuda_device_count(void)
{
    return 0;
}

int own_cuda_allocate(uint64_t bytes, uint64_t *address)
{
    (void)bytes;
    *address = 0;
    return NO_CUDA;
}

void own_cuda_free(uint64_t address)
{
    (void)address;
}

int own_cuda_write(uint64_t address, const void *data, uint64_t bytes)
{
    (void)address;
    (void)data;
    (void)bytes;
    return NO_CUDA;
}

int own_cuda_read(uint64_t address, void *data, uint64_t bytes)
{
    (void)address;
    (void)data;
    (void)bytes;
    return NO_CUDA;
}

const char *own_cuda_text(int error)
{
    (void)error;
    return "this build has no CUDA kernels of its own: nvcc was not found";
}
