/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_TENSOR_FILE_H
#define RT_TOOLS_TENSOR_FILE_H

/*
 * A safetensors file that is written piece by piece, and is there under its name when all of it is:
 * until then it is another file beside it. What is never written is zero.
 */
#include "replayrt/rt.h"

#include <stdbool.h>

#define TENSOR_FILE_MOST 4
#define TENSOR_FILE_MAX_RANK 4

struct tensor_file_entry {
    const char *name; /* nothing that JSON would escape */
    enum rt_dtype dtype;
    uint32_t rank;
    uint64_t shape[TENSOR_FILE_MAX_RANK]; /* outermost first */
};

struct tensor_file {
    char *path, *beside; /* owned */
    int fd;
    uint32_t count;
    uint64_t begins[TENSOR_FILE_MOST]; /* where in the file */
};

/* count <= TENSOR_FILE_MOST. On failure *file is zeroed and *error told (RT_ERR_FILE: the path and
 * why); on success the file is to be finished or abandoned. */
enum rt_status tensor_file_create(const char *path, const struct tensor_file_entry *entries,
                                  uint32_t count, struct tensor_file *file, struct rt_error *error);
/* Bytes of tensor `index` from its byte `offset` on. */
enum rt_status tensor_file_write(struct tensor_file *file, uint32_t index, uint64_t offset,
                                 const void *data, uint64_t bytes, struct rt_error *error);
/* Gives it its name, in the place of a file that has it. The file is zeroed, failed or not. */
enum rt_status tensor_file_finish(struct tensor_file *file, struct rt_error *error);
/* Accepts a zeroed one and leaves one: nothing stays. */
void tensor_file_abandon(struct tensor_file *file);

#endif
