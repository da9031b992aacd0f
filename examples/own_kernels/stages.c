/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/own_kernels/stages.h"

#include <stddef.h>

/* Of one row, in this order. */
static const uint64_t hidden_bytes = OWN_HIDDEN * sizeof(float);
static const uint64_t margin_bytes = sizeof(float);
static const uint64_t history_bytes = OWN_MAX_STEPS * sizeof(int32_t);

uint64_t own_memory_bytes(uint32_t rows)
{
    return rows * (hidden_bytes + margin_bytes + history_bytes);
}

void own_memory_tensors(const struct own_memory *memory, struct own_tensors *out)
{
    const uint64_t hidden = memory->address;
    const uint64_t margin = hidden + memory->rows * hidden_bytes;
    const uint64_t history = margin + memory->rows * margin_bytes;
    out->hidden = (float *)(uintptr_t)hidden;
    out->margin = (float *)(uintptr_t)margin;
    out->history = (int32_t *)(uintptr_t)history;
}

static void host_row(enum rt_stage_point point, const struct own_tensors *t, uint32_t r)
{
    const uint32_t row = (uint32_t)*t->row_base + r;
    float *hidden = t->hidden + row * OWN_HIDDEN, next[OWN_HIDDEN];
    switch (point) {
    case RT_STAGE_STEP_BEGIN:
        t->history[row * OWN_MAX_STEPS + (uint32_t)t->positions[r]] = t->tokens[row];
        for (uint32_t i = 0; i < OWN_HIDDEN; i++)
            hidden[i] = own_embedding(t->tokens[row], t->positions[r], i);
        break;
    case RT_STAGE_BEFORE_ATTENTION:
        for (uint32_t e = 0; e < OWN_HEADS * OWN_WIDTH; e++)
            t->q[(size_t)row * OWN_HEADS * OWN_WIDTH + e] = own_q(t->layer, e, hidden);
        for (uint32_t e = 0; e < OWN_WIDTH; e++)
            t->latent[(size_t)row * OWN_WIDTH + e] = own_latent(t->layer, e, hidden);
        break;
    case RT_STAGE_AFTER_ATTENTION:
        for (uint32_t i = 0; i < OWN_HIDDEN; i++)
            next[i] =
                own_next_hidden(t->layer, i, hidden, t->out + (size_t)row * OWN_HEADS * OWN_RANK);
        memcpy(hidden, next, sizeof next);
        break;
    default:
        t->sampled[row] = own_sample(hidden, &t->margin[row]);
        break;
    }
}

void own_host_stage(enum rt_stage_point point, const struct own_tensors *t)
{
    for (uint32_t r = 0; r < (uint32_t)*t->live_rows; r++)
        host_row(point, t, r);
}

static int find(const struct rt_stage_context *context, const char *name, void **out)
{
    struct rt_tensor tensor = {.struct_size = sizeof tensor};
    if (rt_tensor(context->runtime, name, context->layer, &tensor) != RT_OK)
        return 1;
    *out = (void *)(uintptr_t)tensor.address;
    return 0;
}

int own_stage(void *user, const struct rt_stage_context *context)
{
    struct own_tensors t = {.layer = context->layer};
    void *live_rows, *row_base, *positions, *tokens, *q, *latent, *out, *sampled;
    if (find(context, "live_rows", &live_rows) || find(context, "row_base", &row_base) ||
        find(context, "positions", &positions) || find(context, "tokens", &tokens) ||
        find(context, "q", &q) || find(context, "latent", &latent) || find(context, "out", &out) ||
        find(context, "sampled", &sampled))
        return 1;
    t.live_rows = live_rows;
    t.row_base = row_base;
    t.positions = positions;
    t.tokens = tokens;
    t.q = q;
    t.latent = latent;
    t.out = out;
    t.sampled = sampled;
    own_memory_tensors(user, &t);
    if (context->host == 0)
        return own_cuda_stage(context->point, &t, context->batch, context->stream);
    own_host_stage(context->point, &t);
    return 0;
}
