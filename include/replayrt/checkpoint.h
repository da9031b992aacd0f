/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_CHECKPOINT_H
#define REPLAYRT_CHECKPOINT_H

/*
 * Checkpoints in the Hugging Face layout: a folder with model.safetensors, or with several files
 * and model.safetensors.index.json, which says what is in which. Files are mapped, not read:
 * opening costs as much as their headers, and everything that a header says is checked then, so
 * that a tensor which was found can be read without further care. A file that is shortened while
 * it is mapped ends the program with SIGBUS; don't do that to checkpoints. Numbers in the files
 * are little endian, and so must be the machine. The laws of rt.h hold here too; a checkpoint that
 * is open may be read by several threads at once.
 */
#include "replayrt/rt.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rt_checkpoint rt_checkpoint;

#define RT_TENSOR_MAX_RANK 8

/* What a tensor's elements are in its file. */
enum rt_stored {
    RT_STORED_OTHER = 0, /* another dtype of the format, known by its name only */
    RT_STORED_BF16,
    RT_STORED_F16,
    RT_STORED_F32,
    RT_STORED_I32
};

struct rt_stored_tensor {
    uint32_t struct_size;
    enum rt_stored stored;
    const char *name;  /* owned by the checkpoint, as all pointers here */
    const char *dtype; /* as the file spells it: "BF16" */
    const char *file;  /* its path; "" for one that has no file */
    const void *data;  /* mapped, not necessarily aligned; null for one that has no file */
    uint64_t bytes;    /* in the file */
    uint64_t rows;     /* of all dimensions but the last; 1 for a vector or a single number */
    uint64_t columns;  /* of the last dimension; 1 for a single number */
    uint32_t rank;
    uint32_t reserved;
    uint64_t shape[RT_TENSOR_MAX_RANK]; /* outermost first */
};

/*
 * Opens a folder, or a single safetensors file. Where a folder has model.safetensors, that is all;
 * the index is for those that have not. Blocks.
 * RT_ERR_FILE: a file that is missing, truncated, or not as the format demands; an index that
 * names a file or a tensor that is not there. The message has file, tensor and values.
 */
RT_API enum rt_status rt_checkpoint_open(const char *path, rt_checkpoint **out,
                                         struct rt_error *error);

/*
 * A checkpoint without files: all weights of the model that a config.json describes
 * (replayrt/models.h), with random values that are made when they are copied, the same ones for the
 * same seed, name and place. Norms are 1; all others are spread evenly around 0 with a deviation
 * of columns^-0.5, so that activations keep their size. For speed and for tests without weights.
 * Errors are rt_model_read's.
 */
RT_API enum rt_status rt_checkpoint_random(const char *config_json, uint64_t seed,
                                           rt_checkpoint **out, struct rt_error *error);
RT_API void rt_checkpoint_close(rt_checkpoint **checkpoint);

/* Tensors in the order of their names; with an index, those that it lists. 0 for null. */
RT_API uint64_t rt_checkpoint_count(const rt_checkpoint *checkpoint);
/* RT_ERR_INVALID past the last. */
RT_API enum rt_status rt_checkpoint_at(const rt_checkpoint *checkpoint, uint64_t index,
                                       struct rt_stored_tensor *out, struct rt_error *error);

/* By name; shape: what it must have exactly, null for any. RT_ERR_FILE: none, or another shape. */
RT_API enum rt_status rt_checkpoint_find(const rt_checkpoint *checkpoint, const char *name,
                                         uint32_t rank, const uint64_t *shape,
                                         struct rt_stored_tensor *out, struct rt_error *error);

/*
 * Copies rows [first, first + count) of a tensor, packed, as RT_DTYPE_BF16 or RT_DTYPE_F32 of one
 * stored as bf16, f16 or f32, rounded to nearest even, or as RT_DTYPE_I32 of one stored so. `out`
 * has its elements' alignment. RT_ERR_FILE: no such tensor, or stored as another dtype;
 * RT_ERR_INVALID: rows that it has not, another dtype asked for.
 */
RT_API enum rt_status rt_checkpoint_copy(const rt_checkpoint *checkpoint, const char *name,
                                         uint64_t first, uint64_t count, enum rt_dtype dtype,
                                         void *out, struct rt_error *error);

#ifdef __cplusplus
}
#endif
#endif
