/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_CHECKPOINT_TABLE_H
#define RT_MODELS_CHECKPOINT_TABLE_H

/* A checkpoint's inside: one table of tensors, whatever they come from. */
#include "models/mapped_file.h"
#include "models/safetensors.h"

struct rt_shard {
    char *path;
    char label[RT_PATH_LABEL_BYTES];
    struct rt_mapped_file map;
    struct rt_safetensors header;
};

struct rt_checkpoint {
    char label[RT_PATH_LABEL_BYTES]; /* for messages: what was opened */
    struct rt_stored_entry *entries; /* by name */
    size_t count;
    struct rt_shard *shards;
    size_t shard_count;
    /* Without files: the names are here, and the values come from the seed. */
    char *names;
    uint64_t seed;
};

/* RT_ERR_FILE: none. */
enum rt_status rt_checkpoint_entry(const rt_checkpoint *c, const char *name,
                                   const struct rt_stored_entry **out, struct rt_error *err);
uint64_t rt_stored_columns(const struct rt_stored_entry *t);
uint64_t rt_stored_rows(const struct rt_stored_entry *t);

/* "[6, 16, 64]". */
#define RT_SHAPE_TEXT_BYTES 200
void rt_shape_text(uint32_t rank, const uint64_t *shape, char out[RT_SHAPE_TEXT_BYTES]);

/* Elements [from, from + count) of a tensor, which rt_checkpoint_copy would copy as `dtype`. */
void rt_stored_copy(const rt_checkpoint *c, const struct rt_stored_entry *t, uint64_t from,
                    uint64_t count, enum rt_dtype dtype, void *out);
/* Elements [first, first + count) of a tensor without a file. */
void rt_random_values(const struct rt_stored_entry *t, uint64_t seed, uint64_t first,
                      uint64_t count, uint16_t *out);

#endif
