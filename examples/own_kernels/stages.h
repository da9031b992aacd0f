/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_OWN_KERNELS_STAGES_H
#define RT_EXAMPLES_OWN_KERNELS_STAGES_H

/* The stages that put the model of model.h around the runtime's attention, for both devices. */
#include "examples/own_kernels/model.h"

#include <replayrt/rt.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Our own tensors, allocated once: the captured graphs hold their addresses. */
struct own_memory {
    uint32_t host; /* 1: from malloc */
    uint32_t rows;
    uint64_t address;
    uint64_t bytes;
};

/* The rt_stage_fn of all four points; user is a struct own_memory. */
int own_stage(void *user, const struct rt_stage_context *context);

/* The model's own tensors within the allocation. */
void own_memory_tensors(const struct own_memory *memory, struct own_tensors *out);
/* Bytes of the allocation that own_memory_tensors divides. */
uint64_t own_memory_bytes(uint32_t rows);

/* Host twin of one stage, for rows [0, live_rows). */
void own_host_stage(enum rt_stage_point point, const struct own_tensors *t);

/* ---- stages.cu, or no_cuda.c where there is no nvcc: 0, or an error number ---------------- */

/* Puts the stage's kernel on the stream, for `batch` rows of which live_rows have work. */
int own_cuda_stage(enum rt_stage_point point, const struct own_tensors *t, uint32_t batch,
                   void *stream);
/* Makes the device current and loads the kernels, so that nothing is left to do while capturing. */
int own_cuda_prepare(int ordinal);
int own_cuda_device_count(void); /* 0 without a driver */
int own_cuda_allocate(uint64_t bytes, uint64_t *address);
void own_cuda_free(uint64_t address);
int own_cuda_write(uint64_t address, const void *data, uint64_t bytes);
int own_cuda_read(uint64_t address, void *data, uint64_t bytes);
const char *own_cuda_text(int error);

#ifdef __cplusplus
}
#endif

#endif
