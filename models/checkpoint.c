/* SPDX-License-Identifier: Apache-2.0 */
#include "models/checkpoint_table.h"

#include "models/shard_index.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening --------------------------------------------------------------------------------- */

static enum rt_status open_shard(const char *path, struct rt_shard *out, struct rt_error *err)
{
    const size_t bytes = strlen(path) + 1;
    rt_path_label(path, out->label);
    out->path = malloc(bytes);
    RT_MODELS_REQUIRE(out->path, err, RT_ERR_NOMEM, "%s: no memory for its path", out->label);
    memcpy(out->path, path, bytes);
    RT_MODELS_TRY(rt_mapped_file_open(path, &out->map, err));
    RT_MODELS_TRY(
        rt_safetensors_read(out->map.data, out->map.bytes, out->label, &out->header, err));
    for (size_t i = 0; i < out->header.count; i++)
        out->header.entries[i].file = out->path;
    return RT_OK;
}

static enum rt_status make_shards(rt_checkpoint *c, size_t shards, struct rt_error *err)
{
    c->shards = calloc(shards + 1, sizeof(*c->shards));
    RT_MODELS_REQUIRE(c->shards, err, RT_ERR_NOMEM, "%s: no memory for %zu files", c->label,
                      shards);
    c->shard_count = shards;
    return RT_OK;
}

static enum rt_status make_entries(rt_checkpoint *c, size_t entries, struct rt_error *err)
{
    c->entries = calloc(entries + 1, sizeof(*c->entries));
    RT_MODELS_REQUIRE(c->entries, err, RT_ERR_NOMEM, "%s: no memory for %zu tensors", c->label,
                      entries);
    return RT_OK;
}

static enum rt_status open_single(const char *path, rt_checkpoint *c, struct rt_error *err)
{
    RT_MODELS_TRY(make_shards(c, 1, err));
    RT_MODELS_TRY(open_shard(path, c->shards, err));
    const struct rt_safetensors *header = &c->shards->header;
    RT_MODELS_TRY(make_entries(c, header->count, err));
    memcpy(c->entries, header->entries, header->count * sizeof(*c->entries));
    c->count = header->count;
    return RT_OK;
}

/* Lines come by file: each is opened where its first one is met. */
static enum rt_status open_listed(const char *folder, const struct rt_shard_index *index,
                                  rt_checkpoint *c, struct rt_error *err)
{
    char path[RT_PATH_BYTES];
    struct rt_shard *shard = NULL;
    size_t files = 0;
    for (size_t i = 0; i < index->count; i++)
        files += i == 0 || strcmp(index->lines[i - 1].file, index->lines[i].file) != 0;
    RT_MODELS_TRY(make_shards(c, files, err));
    RT_MODELS_TRY(make_entries(c, index->count, err));
    for (size_t i = 0; i < index->count; i++) {
        const struct rt_index_line *line = &index->lines[i];
        if (i == 0 || strcmp(index->lines[i - 1].file, line->file) != 0) {
            shard = shard ? shard + 1 : c->shards;
            RT_MODELS_TRY(rt_path_join(folder, line->file, path, err));
            RT_MODELS_TRY(open_shard(path, shard, err));
        }
        const struct rt_stored_entry *t =
            rt_stored_find(shard->header.entries, shard->header.count, line->tensor);
        RT_MODELS_REQUIRE(t, err, RT_ERR_FILE,
                          "%s: has no tensor %.96s among its %zu, which the index says it has",
                          shard->label, line->tensor, shard->header.count);
        c->entries[c->count++] = *t;
    }
    rt_stored_sort(c->entries, c->count);
    return RT_OK;
}

static enum rt_status open_folder(const char *folder, rt_checkpoint *c, struct rt_error *err)
{
    char path[RT_PATH_BYTES], label[RT_PATH_LABEL_BYTES];
    struct rt_mapped_file text;
    struct rt_shard_index index;
    RT_MODELS_TRY(rt_path_join(folder, "model.safetensors", path, err));
    if (rt_path_exists(path))
        return open_single(path, c, err);
    RT_MODELS_TRY(rt_path_join(folder, "model.safetensors.index.json", path, err));
    RT_MODELS_REQUIRE(rt_path_exists(path), err, RT_ERR_FILE,
                      "%s: has neither model.safetensors nor model.safetensors.index.json",
                      c->label);
    rt_path_label(path, label);
    RT_MODELS_TRY(rt_mapped_file_open(path, &text, err));
    enum rt_status status = rt_shard_index_read(text.data, text.bytes, label, &index, err);
    rt_mapped_file_close(&text);
    if (status != RT_OK)
        return status;
    status = open_listed(folder, &index, c, err);
    rt_shard_index_free(&index);
    return status;
}

enum rt_status rt_checkpoint_open(const char *path, rt_checkpoint **out, struct rt_error *error)
{
    RT_MODELS_REQUIRE(out, error, RT_ERR_INVALID, "rt_checkpoint_open: out is null");
    *out = NULL;
    RT_MODELS_REQUIRE(path, error, RT_ERR_INVALID, "rt_checkpoint_open: path is null");
    rt_checkpoint *c = calloc(1, sizeof(*c));
    RT_MODELS_REQUIRE(c, error, RT_ERR_NOMEM, "out of host memory for a checkpoint");
    rt_path_label(path, c->label);
    const enum rt_status status =
        rt_path_is_folder(path) ? open_folder(path, c, error) : open_single(path, c, error);
    if (status != RT_OK)
        rt_checkpoint_close(&c);
    *out = c;
    return status;
}

void rt_checkpoint_close(rt_checkpoint **checkpoint)
{
    if (!checkpoint || !*checkpoint)
        return;
    rt_checkpoint *c = *checkpoint;
    for (size_t i = 0; i < c->shard_count; i++) {
        rt_safetensors_free(&c->shards[i].header);
        rt_mapped_file_close(&c->shards[i].map);
        free(c->shards[i].path);
    }
    free(c->shards);
    free(c->entries);
    free(c->names);
    free(c);
    *checkpoint = NULL;
}

/* ---- looking --------------------------------------------------------------------------------- */

uint64_t rt_stored_columns(const struct rt_stored_entry *t)
{
    return t->rank ? t->shape[t->rank - 1] : 1;
}

uint64_t rt_stored_rows(const struct rt_stored_entry *t)
{
    uint64_t rows = 1;
    for (uint32_t i = 0; i + 1 < t->rank; i++)
        rows *= t->shape[i];
    return rows;
}

void rt_shape_text(uint32_t rank, const uint64_t *shape, char out[RT_SHAPE_TEXT_BYTES])
{
    size_t used = 1;
    out[0] = '[';
    for (uint32_t i = 0; i < rank; i++)
        used += (size_t)snprintf(out + used, RT_SHAPE_TEXT_BYTES - used, "%s%" PRIu64,
                                 i == 0 ? "" : ", ", shape[i]);
    (void)snprintf(out + used, RT_SHAPE_TEXT_BYTES - used, "]");
}

static void describe(const struct rt_stored_entry *t, struct rt_stored_tensor *out)
{
    struct rt_stored_tensor mine = {.stored = t->stored,
                                    .name = t->name,
                                    .dtype = t->dtype,
                                    .file = t->file,
                                    .data = t->data,
                                    .bytes = t->bytes,
                                    .rows = rt_stored_rows(t),
                                    .columns = rt_stored_columns(t),
                                    .rank = t->rank};
    memcpy(mine.shape, t->shape, sizeof(mine.shape));
    rt_models_write_struct(out, &mine, sizeof(mine));
}

uint64_t rt_checkpoint_count(const rt_checkpoint *checkpoint)
{
    return checkpoint ? checkpoint->count : 0;
}

enum rt_status rt_checkpoint_at(const rt_checkpoint *checkpoint, uint64_t index,
                                struct rt_stored_tensor *out, struct rt_error *error)
{
    RT_MODELS_REQUIRE(checkpoint, error, RT_ERR_INVALID, "rt_checkpoint_at: checkpoint is null");
    RT_MODELS_REQUIRE(index < checkpoint->count, error, RT_ERR_INVALID,
                      "rt_checkpoint_at: index %" PRIu64 " of %zu", index, checkpoint->count);
    RT_MODELS_TRY(rt_models_check_struct(out, sizeof(*out), "rt_checkpoint_at", "out", error));
    describe(&checkpoint->entries[index], out);
    return RT_OK;
}

enum rt_status rt_checkpoint_entry(const rt_checkpoint *c, const char *name,
                                   const struct rt_stored_entry **out, struct rt_error *err)
{
    *out = rt_stored_find(c->entries, c->count, name);
    RT_MODELS_REQUIRE(*out, err, RT_ERR_FILE, "%s: no tensor %.96s among its %zu", c->label, name,
                      c->count);
    return RT_OK;
}

enum rt_status rt_checkpoint_find(const rt_checkpoint *checkpoint, const char *name, uint32_t rank,
                                  const uint64_t *shape, struct rt_stored_tensor *out,
                                  struct rt_error *error)
{
    const struct rt_stored_entry *t = NULL;
    char has[RT_SHAPE_TEXT_BYTES], wants[RT_SHAPE_TEXT_BYTES];
    RT_MODELS_REQUIRE(checkpoint, error, RT_ERR_INVALID, "rt_checkpoint_find: checkpoint is null");
    RT_MODELS_REQUIRE(name, error, RT_ERR_INVALID, "rt_checkpoint_find: name is null");
    RT_MODELS_REQUIRE(rank <= RT_TENSOR_MAX_RANK, error, RT_ERR_INVALID,
                      "rt_checkpoint_find: rank %" PRIu32 ": must be at most %d", rank,
                      RT_TENSOR_MAX_RANK);
    RT_MODELS_TRY(rt_models_check_struct(out, sizeof(*out), "rt_checkpoint_find", "out", error));
    RT_MODELS_TRY(rt_checkpoint_entry(checkpoint, name, &t, error));
    if (shape && (t->rank != rank || memcmp(t->shape, shape, rank * sizeof(*shape)) != 0)) {
        rt_shape_text(t->rank, t->shape, has);
        rt_shape_text(rank, shape, wants);
        return rt_models_fail(error, RT_ERR_FILE, "%s: tensor %.96s has shape %s, expected %s",
                              checkpoint->label, name, has, wants);
    }
    describe(t, out);
    return RT_OK;
}
