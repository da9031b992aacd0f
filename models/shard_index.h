/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_SHARD_INDEX_H
#define RT_MODELS_SHARD_INDEX_H

/*
 * model.safetensors.index.json, which says what is in which of a checkpoint's files:
 *
 *   {"metadata": {...}, "weight_map": {"TENSOR": "model-00001-of-00004.safetensors", ...}}
 */
#include "models/fail.h"

struct rt_index_line {
    const char *tensor, *file;
};

/* Memory of its own. */
struct rt_shard_index {
    struct rt_index_line *lines; /* by file, then by tensor */
    size_t count;
    char *words;
};

/* RT_ERR_FILE: not JSON or not such an index, a file that is not beside the index, a tensor that
 * stands twice, none at all. RT_ERR_NOMEM. On failure *out is empty. */
enum rt_status rt_shard_index_read(const void *text, size_t bytes, const char *label,
                                   struct rt_shard_index *out, struct rt_error *err);
void rt_shard_index_free(struct rt_shard_index *index);

#endif
