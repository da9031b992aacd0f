/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/golden.h"

#include "replayrt/checkpoint.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>

#define MAX_PROMPTS 4096
#define MAX_LENGTH 1048576

/* Reads one tensor of the given shape whole, into *ints or *floats. */
static enum rt_status read_all(const rt_checkpoint *file, const char *name, uint32_t rank,
                               const uint64_t *shape, int32_t **ints, float **floats,
                               struct rt_error *error)
{
    struct rt_stored_tensor tensor = {.struct_size = sizeof tensor};
    const enum rt_status status = rt_checkpoint_find(file, name, rank, shape, &tensor, error);
    if (status != RT_OK)
        return status;
    const uint64_t elements = tensor.rows * tensor.columns;
    void *memory = malloc((size_t)elements * 4);
    if (memory == NULL)
        return rt_error_set(error, RT_ERR_NOMEM, "no memory for the %" PRIu64 " elements of %s",
                            elements, name);
    if (ints != NULL)
        *ints = memory;
    else
        *floats = memory;
    return rt_checkpoint_copy(file, name, 0, tensor.rows,
                              ints != NULL ? RT_DTYPE_I32 : RT_DTYPE_F32, memory, error);
}

/* The sizes that the other tensors are held to, from the two tensors that have them all. */
static enum rt_status read_sizes(const rt_checkpoint *file, struct golden *golden,
                                 struct rt_error *error)
{
    struct rt_stored_tensor prompts = {.struct_size = sizeof prompts}, out = prompts;
    enum rt_status status = rt_checkpoint_find(file, "prompts", 0, NULL, &prompts, error);
    if (status == RT_OK)
        status = rt_checkpoint_find(file, "layers.0.attn_out", 0, NULL, &out, error);
    if (status != RT_OK)
        return status;
    if (prompts.rank != 2 || prompts.shape[0] < 1 || prompts.shape[0] > MAX_PROMPTS ||
        prompts.shape[1] < 1 || prompts.shape[1] > MAX_LENGTH)
        return rt_error_set(error, RT_ERR_FILE, "prompts must be [1..%d, 1..%d]", MAX_PROMPTS,
                            MAX_LENGTH);
    if (out.rank != 3 || out.shape[1] < 1 || out.shape[1] > MAX_LENGTH || out.shape[2] < 1 ||
        out.shape[2] > MAX_LENGTH)
        return rt_error_set(error, RT_ERR_FILE, "layers.0.attn_out must be [P, 1..%d, 1..%d]",
                            MAX_LENGTH, MAX_LENGTH);
    golden->prompts = (uint32_t)prompts.shape[0];
    golden->longest = (uint32_t)prompts.shape[1];
    golden->steps = (uint32_t)out.shape[1];
    golden->hidden = (uint32_t)out.shape[2];
    return RT_OK;
}

static enum rt_status read_tensors(const rt_checkpoint *file, struct golden *g,
                                   struct rt_error *error)
{
    const uint64_t by_step[3] = {g->prompts, g->steps, g->hidden};
    const uint64_t by_position[2] = {g->prompts, g->longest};
    enum rt_status status = read_all(file, "prompt_lens", 1, by_step, &g->lengths, NULL, error);
    if (status == RT_OK)
        status = read_all(file, "prompts", 2, by_position, &g->prompt_tokens, NULL, error);
    if (status == RT_OK)
        status = read_all(file, "greedy_tokens", 2, by_step, &g->greedy, NULL, error);
    if (status == RT_OK)
        status = read_all(file, "layers.0.attn_in", 3, by_step, NULL, &g->attn_in, error);
    if (status == RT_OK)
        status = read_all(file, "layers.0.attn_out", 3, by_step, NULL, &g->attn_out, error);
    for (uint32_t p = 0; status == RT_OK && p < g->prompts; p++) {
        if (g->lengths[p] < 1 || (uint32_t)g->lengths[p] > g->longest)
            status = rt_error_set(error, RT_ERR_FILE,
                                  "prompt %" PRIu32 " has %" PRId32 " tokens, of 1..%" PRIu32, p,
                                  g->lengths[p], g->longest);
    }
    return status;
}

enum rt_status golden_open(const char *path, struct golden *golden, struct rt_error *error)
{
    *golden = (struct golden){0};
    rt_checkpoint *file;
    enum rt_status status = rt_checkpoint_open(path, &file, error);
    if (status != RT_OK)
        return status;
    status = read_sizes(file, golden, error);
    if (status == RT_OK)
        status = read_tensors(file, golden, error);
    rt_checkpoint_close(&file);
    if (status != RT_OK)
        golden_close(golden);
    return status;
}

void golden_close(struct golden *golden)
{
    free(golden->lengths);
    free(golden->prompt_tokens);
    free(golden->greedy);
    free(golden->attn_in);
    free(golden->attn_out);
    *golden = (struct golden){0};
}

uint32_t golden_length(const struct golden *golden, uint32_t p)
{
    return (uint32_t)golden->lengths[p] + golden->steps - 1;
}

int32_t golden_token(const struct golden *golden, uint32_t p, uint32_t position)
{
    const uint32_t length = (uint32_t)golden->lengths[p];
    return position < length ? golden->prompt_tokens[(size_t)p * golden->longest + position]
                             : golden->greedy[(size_t)p * golden->steps + position - length];
}
