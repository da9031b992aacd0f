/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/mla_model.h"

#include "examples/mla_cpu.h"
#include "examples/regular_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CONFIG_BYTES 1048576u
#define PATH_BYTES 4096

static enum rt_status join_path(const char *directory, const char *name, char *path,
                                struct rt_error *error)
{
    const int wrote = snprintf(path, PATH_BYTES, "%s/%s", directory, name);
    if (wrote < 0 || wrote >= PATH_BYTES)
        return rt_error_set(error, RT_ERR_FILE, "the path of %s is longer than %d bytes", name,
                            PATH_BYTES - 1);
    return RT_OK;
}

static enum rt_status read_config_file(const char *path, struct mla_config *config,
                                       struct rt_error *error)
{
    int fd;
    size_t bytes = 0;
    enum rt_status status = regular_file_open(path, &fd, &bytes, error);
    if (status != RT_OK)
        return status;
    char *text = NULL;
    if (bytes > MAX_CONFIG_BYTES)
        status =
            rt_error_set(error, RT_ERR_FILE, "%s: longer than %u bytes", path, MAX_CONFIG_BYTES);
    else if ((text = calloc(1, bytes + 1)) == NULL)
        status = rt_error_set(error, RT_ERR_NOMEM, "%s: no memory to read it", path);
    else if (read(fd, text, bytes) != (ssize_t)bytes)
        status = rt_error_set(error, RT_ERR_FILE, "%s: %s", path, strerror(errno));
    else if (memchr(text, '\0', bytes) != NULL)
        status = rt_error_set(error, RT_ERR_FILE, "%s: has a NUL in it", path);
    else
        status = mla_config_parse(text, path, config, error);
    free(text);
    (void)close(fd);
    return status;
}

/* One weight of the layer, checked against its shape; columns 0: a vector. */
static enum rt_status read_weight(const rt_checkpoint *file, const char *name, uint64_t rows,
                                  uint64_t columns, float **out, struct rt_error *error)
{
    char full[96];
    (void)snprintf(full, sizeof full, "model.layers.0.%s.weight", name);
    const uint64_t shape[2] = {rows, columns};
    struct rt_stored_tensor tensor = {.struct_size = sizeof tensor};
    const enum rt_status status =
        rt_checkpoint_find(file, full, columns == 0 ? 1 : 2, shape, &tensor, error);
    if (status != RT_OK)
        return status;
    *out = malloc((size_t)(tensor.rows * tensor.columns) * sizeof **out);
    if (*out == NULL)
        return rt_error_set(error, RT_ERR_NOMEM, "no memory for the %ju elements of %s",
                            (uintmax_t)(tensor.rows * tensor.columns), full);
    return rt_checkpoint_copy(file, full, 0, tensor.rows, RT_DTYPE_F32, *out, error);
}

static enum rt_status read_weights(struct mla_model *model, struct rt_error *error)
{
    const struct mla_config *c = &model->config;
    struct mla_weights *w = &model->weights;
    const uint64_t query = (uint64_t)c->heads * (c->nope + c->rope);
    const uint64_t value = (uint64_t)c->heads * c->value;
    const bool two = c->q_rank != 0;
    const uint64_t latent = (uint64_t)c->kv_rank + c->rope;
    const uint64_t expanded = (uint64_t)c->heads * (c->nope + c->value);
    const struct {
        const char *name; /* null: this model has no such weight */
        uint64_t rows, columns;
        float **out;
    } all[] = {
        {.name = "input_layernorm", .rows = c->hidden, .out = &w->input_norm},
        {.name = two ? NULL : "self_attn.q_proj",
         .rows = query,
         .columns = c->hidden,
         .out = &w->q},
        {.name = two ? "self_attn.q_a_proj" : NULL,
         .rows = c->q_rank,
         .columns = c->hidden,
         .out = &w->q_a},
        {.name = two ? "self_attn.q_a_layernorm" : NULL, .rows = c->q_rank, .out = &w->q_a_norm},
        {.name = two ? "self_attn.q_b_proj" : NULL,
         .rows = query,
         .columns = c->q_rank,
         .out = &w->q_b},
        {.name = "self_attn.kv_a_proj_with_mqa",
         .rows = latent,
         .columns = c->hidden,
         .out = &w->kv_a},
        {.name = "self_attn.kv_a_layernorm", .rows = c->kv_rank, .out = &w->kv_a_norm},
        {.name = "self_attn.kv_b_proj", .rows = expanded, .columns = c->kv_rank, .out = &w->kv_b},
        {.name = "self_attn.o_proj", .rows = c->hidden, .columns = value, .out = &w->out},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i].name == NULL)
            continue;
        const enum rt_status status =
            read_weight(model->file, all[i].name, all[i].rows, all[i].columns, all[i].out, error);
        if (status != RT_OK)
            return status;
    }
    const uint64_t embedding[2] = {c->vocab, c->hidden};
    struct rt_stored_tensor tensor = {.struct_size = sizeof tensor};
    return rt_checkpoint_find(model->file, MLA_MODEL_EMBEDDING, 2, embedding, &tensor, error);
}

enum rt_status mla_model_open(const char *directory, struct mla_model *model,
                              struct rt_error *error)
{
    *model = (struct mla_model){0};
    char path[PATH_BYTES];
    enum rt_status status = join_path(directory, "config.json", path, error);
    if (status == RT_OK)
        status = read_config_file(path, &model->config, error);
    if (status == RT_OK)
        status = rt_checkpoint_open(directory, &model->file, error);
    if (status == RT_OK)
        status = read_weights(model, error);
    if (status != RT_OK)
        goto fail;
    model->inverse_frequency = malloc(model->config.rope / 2 * sizeof(double));
    if (model->inverse_frequency == NULL) {
        status = rt_error_set(error, RT_ERR_NOMEM, "no memory for %u frequencies",
                              model->config.rope / 2);
        goto fail;
    }
    mla_inverse_frequencies(&model->config, model->inverse_frequency);
    return RT_OK;
fail:
    mla_model_close(model);
    return status;
}

void mla_model_close(struct mla_model *model)
{
    struct mla_weights *w = &model->weights;
    free(w->input_norm);
    free(w->q);
    free(w->q_a);
    free(w->q_a_norm);
    free(w->q_b);
    free(w->kv_a);
    free(w->kv_a_norm);
    free(w->kv_b);
    free(w->out);
    free(model->inverse_frequency);
    rt_checkpoint_close(&model->file);
    *model = (struct mla_model){0};
}
