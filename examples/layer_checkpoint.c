/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint's attention blocks in one graph, hidden to hidden, on the host device: to copy.
 * The model's other sublayers would be stages too; here hidden goes from block to block.
 *
 *   usage: layer_checkpoint FOLDER      with config.json and safetensors
 */
#include <replayrt/checkpoint.h>
#include <replayrt/layer.h>
#include <replayrt/memory.h>
#include <replayrt/models.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS 3 /* of the one sequence, one a step: ids 1, 2, 3 */

struct loaded {
    struct rt_model model;
    rt_checkpoint *checkpoint;
    rt_places *places;
    rt_weights *weights;
    rt_memory **memories; /* one a place; null: not a block's */
};

/* One weight of the checkpoint, as bf16, in memory of its own, to where its name says. */
static enum rt_status bind(struct loaded *m, uint32_t index, struct rt_error *error)
{
    struct rt_place place = {.struct_size = sizeof(place)};
    struct rt_weight weight = {.struct_size = sizeof(weight), .dtype = RT_DTYPE_BF16};
    enum rt_status status = rt_places_at(m->places, index, &place, error);
    if (status != RT_OK || (place.kind != RT_PLACE_ATTENTION && place.kind != RT_PLACE_INPUT_NORM))
        return status;
    weight.rows = place.rows;
    weight.columns = place.columns;
    status = rt_memory_create("host", weight.rows * weight.columns * 2, &m->memories[index],
                              &weight.address, error);
    if (status != RT_OK)
        return status;
    status = rt_places_copy(m->places, m->checkpoint, index, 0, place.rows, RT_DTYPE_BF16,
                            (void *)(uintptr_t)weight.address, error);
    if (status != RT_OK) /* a bias that is not needed may be missing */
        return place.needed ? status : RT_OK;
    return rt_weights_bind(m->weights, place.layer, place.name, &weight, error);
}

static enum rt_status load(const char *folder, struct loaded *m, struct rt_config *config,
                           struct rt_error *error)
{
    enum rt_status status = rt_model_read(folder, &m->model, error);
    if (status != RT_OK)
        return status;
    rt_config_default(config);
    (void)snprintf(config->device, sizeof(config->device), "host");
    config->geometry = m->model.geometry;
    config->block = m->model.block;
    config->layer = config->input_norm = 1;
    config->max_length = 128;
    config->pages = 4;
    if ((status = rt_checkpoint_open(folder, &m->checkpoint, error)) != RT_OK ||
        (status = rt_places_create(&m->model, &m->places, error)) != RT_OK ||
        (status = rt_places_check(m->places, m->checkpoint, error)) != RT_OK ||
        (status = rt_weights_create(config, &m->weights, error)) != RT_OK)
        return status;
    m->memories = calloc(rt_places_count(m->places), sizeof(rt_memory *));
    if (!m->memories)
        return rt_error_set(error, RT_ERR_NOMEM, "no memory for %u pointers",
                            rt_places_count(m->places));
    for (uint32_t i = 0; i < rt_places_count(m->places) && status == RT_OK; i++)
        status = bind(m, i, error);
    return status;
}

static void unload(struct loaded *m)
{
    for (uint32_t i = 0; m->memories && i < rt_places_count(m->places); i++)
        rt_memory_destroy(&m->memories[i]);
    free(m->memories);
    rt_weights_destroy(&m->weights);
    rt_places_destroy(&m->places);
    rt_checkpoint_close(&m->checkpoint);
}

/* In front of layer 0: the embeddings of the step's tokens, row by row, are hidden. On a GPU a
 * stage puts a kernel for this on its stream instead. Not 0: the step fails. */
static int embed(void *user, const struct rt_stage_context *context)
{
    const struct loaded *m = user;
    struct rt_tensor hidden = {.struct_size = sizeof(hidden)}, tokens = hidden;
    if (context->layer > 0)
        return 0;
    if (rt_tensor(context->runtime, "hidden", 0, &hidden) != RT_OK ||
        rt_tensor(context->runtime, "tokens", 0, &tokens) != RT_OK)
        return 1;
    const int32_t id = *(const int32_t *)(uintptr_t)tokens.address;
    return rt_places_copy(m->places, m->checkpoint, 0, (uint64_t)id, 1, RT_DTYPE_BF16,
                          (void *)(uintptr_t)hidden.address, NULL) != RT_OK;
}

static enum rt_status step(rt_runtime *rt, rt_seq seq, int32_t id, uint32_t width)
{
    const struct rt_step_params params = {
        .struct_size = sizeof(params), .rows = 1, .seqs = &seq, .tokens = &id};
    uint16_t *const hidden = malloc(width * sizeof(*hidden));
    uint64_t ticket;
    double squares = 0;
    enum rt_status status = rt_step(rt, &params, &ticket);
    if (status == RT_OK)
        status = rt_wait(rt, ticket, UINT64_MAX);
    if (status == RT_OK && hidden)
        status = rt_tensor_read(rt, "hidden", 0, 0, hidden, width * sizeof(*hidden));
    for (uint32_t i = 0; status == RT_OK && hidden && i < width; i++) {
        const uint32_t bits = (uint32_t)hidden[i] << 16; /* a bf16 is a float's upper half */
        float value;
        memcpy(&value, &bits, sizeof(value));
        squares += (double)value * (double)value;
    }
    if (status == RT_OK)
        printf("token %d: root mean square %.4g behind the last block\n", id,
               sqrt(squares / width));
    free(hidden);
    return status;
}

static enum rt_status decode(struct loaded *m, const struct rt_config *config,
                             struct rt_error *error)
{
    const struct rt_create_params params = {.struct_size = sizeof(params),
                                            .config = config,
                                            .weights = m->weights,
                                            .stages = {[RT_STAGE_BEFORE_ATTENTION] = embed},
                                            .stage_user = m};
    rt_runtime *rt = NULL;
    rt_seq seq = 0;
    enum rt_status status = rt_create(&params, &rt, error);
    if (status != RT_OK)
        return status;
    status = rt_seq_open(rt, NULL, &seq);
    for (int32_t id = 1; id <= TOKENS && status == RT_OK; id++)
        status = step(rt, seq, id, m->model.hidden_size);
    if (status != RT_OK)
        *error = *rt_last_error(rt);
    rt_destroy(&rt); /* before the weights that it reads */
    return status;
}

int main(int argc, char **argv)
{
    struct loaded m = {.model = {.struct_size = sizeof(m.model)}};
    struct rt_config config;
    struct rt_error error = {.status = RT_OK};
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    enum rt_status status = load(argv[1], &m, &config, &error);
    if (status == RT_OK)
        status = decode(&m, &config, &error);
    if (status != RT_OK)
        fprintf(stderr, "%s: %s\n", rt_status_string(status), error.message);
    unload(&m);
    return status == RT_OK ? 0 : 1;
}
