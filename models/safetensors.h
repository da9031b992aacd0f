/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_SAFETENSORS_H
#define RT_MODELS_SAFETENSORS_H

/*
 * The header of a safetensors file, the format in which checkpoints are published:
 *
 *   | 8 bytes | header_bytes       | the tensors' bytes, one after another, no gaps |
 *     N, LE     JSON, N bytes        data_offsets count from here
 *
 *   {"name": {"dtype": "BF16", "shape": [256, 64], "data_offsets": [begin, end]}, ...}
 *
 * Stricter than most readers where two of them may differ: no key stands twice where it matters,
 * and text is as jsonscan.h has it.
 */
#include "models/fail.h"
#include "replayrt/checkpoint.h"

#define RT_SAFETENSORS_MAX_HEADER_BYTES 100000000u /* as the format's own library has it */

struct rt_stored_entry {
    const char *name;
    const char *dtype;
    const char *file;
    const unsigned char *data;
    uint64_t elements, bytes;
    enum rt_stored stored;
    uint32_t rank;
    uint64_t shape[RT_TENSOR_MAX_RANK];
};

/* Memory of its own: entries and their words; `file` of them and `data` are borrowed. */
struct rt_safetensors {
    struct rt_stored_entry *entries; /* by name */
    size_t count;
    char *words;
};

/*
 * Reads the header at the beginning of the file's bytes and checks every entry against them: each
 * tensor lies in the data, has as many bytes as its shape and dtype say, and all of them together
 * are the data. RT_ERR_FILE names label, tensor and values; RT_ERR_NOMEM. On failure *out is empty.
 */
enum rt_status rt_safetensors_read(const void *bytes, size_t count, const char *label,
                                   struct rt_safetensors *out, struct rt_error *err);
void rt_safetensors_free(struct rt_safetensors *file);

/* By binary search; null: none. */
const struct rt_stored_entry *rt_stored_find(const struct rt_stored_entry *entries, size_t count,
                                             const char *name);
void rt_stored_sort(struct rt_stored_entry *entries, size_t count);

#endif
