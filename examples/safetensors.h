/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_SAFETENSORS_H
#define RT_EXAMPLES_SAFETENSORS_H

/*
 * Reads safetensors files, the format in which checkpoints are published:
 *
 *   | 8 bytes | header_bytes       | the tensors' bytes, one after another, no gaps |
 *     N, LE     JSON, N bytes        data_offsets count from here
 *
 *   {"name": {"dtype": "BF16", "shape": [256, 64], "data_offsets": [begin, end]}, ...}
 *
 * The header must be UTF-8 without a NUL, and no key may stand twice in an object of it. The file
 * is mapped, not read: opening costs as much as its header. Everything the header says is checked
 * at open, so a tensor that was found can be read without further care. A file that another process
 * shortens while it is mapped ends the program with SIGBUS; don't do that to checkpoints.
 */
#include "replayrt/status.h"

#include <stddef.h>
#include <stdint.h>

#define SAFETENSORS_MAX_RANK 8
#define SAFETENSORS_MAX_HEADER_BYTES 100000000u /* as the format's own library has it */

enum safetensors_dtype {
    SAFETENSORS_OTHER = 0, /* a dtype of the format that nothing here reads, or an unknown one */
    SAFETENSORS_BF16,
    SAFETENSORS_F32,
    SAFETENSORS_I32
};

struct safetensors_tensor {
    const char *name;       /* owned by the file, as are the next and `data` */
    const char *dtype_name; /* as the file spells it */
    enum safetensors_dtype dtype;
    uint32_t rank;
    uint64_t shape[SAFETENSORS_MAX_RANK]; /* outermost first */
    uint64_t elements;
    uint64_t bytes;
    const unsigned char *data; /* little endian, not necessarily aligned */
};

struct safetensors;

/*
 * Maps the file and checks its header. Blocks. *out is owned by the caller until safetensors_close;
 * null on failure. Returns RT_ERR_FILE (missing, or not as the format demands; the message says
 * which tensor and which values) or RT_ERR_NOMEM.
 */
enum rt_status safetensors_open(const char *path, struct safetensors **out, struct rt_error *error);

/* The same on memory that the caller keeps until safetensors_close; `label` names it in messages.
 */
enum rt_status safetensors_parse(const void *data, size_t bytes, const char *label,
                                 struct safetensors **out, struct rt_error *error);

/* Accepts a null file and writes null. Tensors and their names are gone with it. */
void safetensors_close(struct safetensors **file);

/* Tensors in order of their names. */
size_t safetensors_count(const struct safetensors *file);
const struct safetensors_tensor *safetensors_at(const struct safetensors *file, size_t index);

/* RT_ERR_FILE: no tensor of that name, or its dtype is not one that can be read here. */
enum rt_status safetensors_find(const struct safetensors *file, const char *name,
                                const struct safetensors_tensor **out, struct rt_error *error);

/* The same, and it must have exactly this shape. */
enum rt_status safetensors_find_shaped(const struct safetensors *file, const char *name,
                                       uint32_t rank, const uint64_t *shape,
                                       const struct safetensors_tensor **out,
                                       struct rt_error *error);

/* Elements [first, first + count) of a BF16 or F32 tensor; RT_ERR_FILE otherwise, or out of range.
 */
enum rt_status safetensors_read_floats(const struct safetensors_tensor *tensor, uint64_t first,
                                       uint64_t count, float *out, struct rt_error *error);

/* Likewise of an I32 tensor. */
enum rt_status safetensors_read_ints(const struct safetensors_tensor *tensor, uint64_t first,
                                     uint64_t count, int32_t *out, struct rt_error *error);

#endif
