/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/layer/layer_trace.h"

#include "common/bf16.h"
#include "common/math.h"
#include "config/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 1024
#define ALIGN 256u

static bool failed(const char *what, const struct rt_error *err)
{
    printf("%s: %s: %s\n", what, rt_status_string(err->status), err->message);
    return false;
}

/* ---- the checkpoint -------------------------------------------------------------------------- */

static bool open_files(struct layer_trace *t, const char *folder)
{
    char path[PATH_BYTES];
    struct rt_error err = {.status = RT_OK};
    struct rt_config *c = &t->config;
    struct rt_stored_tensor found = {.struct_size = sizeof(found)};
    const uint64_t lens[1] = {LAYER_TRACE_PROMPTS};
    (void)snprintf(path, sizeof(path), "%s/config.json", folder);
    if (rt_model_load(path, &c->geometry, &c->block, &err) != RT_OK)
        return failed(path, &err);
    if (rt_checkpoint_open(folder, &t->model, &err) != RT_OK)
        return failed(folder, &err);
    (void)snprintf(path, sizeof(path), "%s/golden.safetensors", folder);
    if (rt_checkpoint_open(path, &t->golden, &err) != RT_OK ||
        rt_checkpoint_find(t->golden, "prompt_lens", 1, lens, &found, &err) != RT_OK ||
        rt_checkpoint_copy(t->golden, "prompt_lens", 0, 1, RT_DTYPE_I32, t->lens, &err) != RT_OK)
        return failed(path, &err);
    return true;
}

static bool is_weight(const struct rt_stored_tensor *tensor, uint32_t *layer)
{
    static const char layers[] = "model.layers.";
    const size_t length = sizeof(layers) - 1;
    if (strncmp(tensor->name, layers, length) != 0)
        return false;
    *layer = (uint32_t)strtoul(tensor->name + length, NULL, 10);
    return strstr(tensor->name, ".self_attn.") != NULL;
}

/* Copies the blocks' weights behind each other into device memory, and binds them. */
static bool bind_weights(struct layer_trace *t, rt_weights *weights, struct rt_error *err)
{
    struct rt_driver *d = &t->memory;
    uint64_t at = 0;
    uint32_t layer;
    struct rt_stored_tensor found = {.struct_size = sizeof(found)}, *const tensor = &found;
    for (uint64_t i = 0; rt_checkpoint_at(t->model, i, tensor, NULL) == RT_OK; i++)
        if (is_weight(tensor, &layer))
            t->weights_bytes += rt_align_up_u64(tensor->bytes, ALIGN);
    if (RT_DRV(d, err, mem_alloc, (d, t->weights_bytes, &t->weights)) != RT_OK)
        return false;
    for (uint64_t i = 0; rt_checkpoint_at(t->model, i, tensor, NULL) == RT_OK; i++) {
        if (!is_weight(tensor, &layer))
            continue;
        const bool vector = tensor->rank == 1;
        const struct rt_weight w = {.struct_size = sizeof(w),
                                    .dtype = RT_DTYPE_BF16,
                                    .address = t->weights + at,
                                    .rows = vector ? 1 : tensor->shape[0],
                                    .columns = tensor->shape[vector ? 0 : 1]};
        if (RT_DRV(d, err, copy_in, (d, w.address, tensor->data, tensor->bytes, NULL)) != RT_OK ||
            RT_DRV(d, err, stream_sync, (d, NULL)) != RT_OK ||
            rt_weights_bind(weights, layer, tensor->name, &w, err) != RT_OK)
            return false;
        at += rt_align_up_u64(tensor->bytes, ALIGN);
    }
    return true;
}

/* ---- stages ---------------------------------------------------------------------------------- */

/* Copies, so foreign: what is in the pinned buffers at each replay. */
static int copy_stage(void *user, const struct rt_stage_context *context)
{
    struct layer_trace *t = user;
    struct rt_driver *d = &t->memory;
    struct rt_tensor hidden = {.struct_size = sizeof(hidden)};
    const uint64_t bytes = (uint64_t)context->batch * context->query_len *
                           t->config.block.hidden_size * t->element_bytes;
    const uint64_t at = context->layer * t->layer_bytes;
    rt_dstream stream = (rt_dstream)context->stream;
    if (rt_tensor(context->runtime, "hidden", 0, &hidden) != RT_OK)
        return 1;
    if (context->host) { /* its memory is the runtime's own driver's */
        const bool before = context->point == RT_STAGE_BEFORE_ATTENTION;
        void *const tensor = (void *)(uintptr_t)hidden.address;
        memcpy(before ? tensor : t->out + at, before ? t->in + at : tensor, bytes);
        return 0;
    }
    if (context->point == RT_STAGE_BEFORE_ATTENTION)
        return d->copy_in(d, hidden.address, t->in + at, bytes, stream);
    return d->copy_out(d, t->out + at, hidden.address, bytes, stream);
}

/* ---- open and close -------------------------------------------------------------------------- */

static void fill_config(struct layer_trace *t, const struct rt_config *options)
{
    const uint32_t buckets[] = {1, 2, 4, 8};
    struct rt_config *c = &t->config;
    *c = *options;
    c->layer = 1;
    memcpy(c->batch_sizes, buckets, sizeof(buckets));
    c->batch_size_count = 4;
    c->max_sequences = LAYER_TRACE_PROMPTS;
    c->max_length = 256;
    c->pages = 24;
}

static bool create(struct layer_trace *t, struct rt_error *err)
{
    rt_weights *weights = NULL;
    const struct rt_config *c = &t->config;
    const uint64_t q_max = c->query_lens[c->query_len_count - 1];
    t->element_bytes = c->precision == RT_PRECISION_F32 ? 4 : 2;
    t->layer_bytes = 8 * q_max * c->block.hidden_size * t->element_bytes;
    const uint64_t bytes = c->geometry.layers * t->layer_bytes;
    struct rt_driver *d = &t->memory;
    void *in = NULL, *out = NULL;
    if (RT_DRV(d, err, host_alloc, (d, bytes, &in, &t->in_address)) != RT_OK ||
        RT_DRV(d, err, host_alloc, (d, bytes, &out, &t->out_address)) != RT_OK)
        return false;
    t->in = in;
    t->out = out;
    if (rt_weights_create(c, &weights, err) != RT_OK)
        return false;
    struct rt_create_params params = {
        .struct_size = sizeof(params),
        .config = c,
        .stages =
            {[RT_STAGE_BEFORE_ATTENTION] = copy_stage, [RT_STAGE_AFTER_ATTENTION] = copy_stage},
        .stage_user = t,
        .foreign_stages = 1u << RT_STAGE_BEFORE_ATTENTION | 1u << RT_STAGE_AFTER_ATTENTION,
        .weights = weights,
    };
    const bool good =
        bind_weights(t, weights, err) && rt_create(&params, &t->runtime, err) == RT_OK;
    rt_weights_destroy(&weights);
    return good;
}

bool layer_trace_open(struct layer_trace *t, const char *folder, const struct rt_config *options)
{
    struct rt_error err = {.status = RT_OK};
    char why[160];
    fill_config(t, options);
    if (!open_files(t, folder))
        return false;
    if (rt_driver_open(t->config.device, &t->memory, why, sizeof(why), &err) != RT_OK ||
        RT_DRV(&t->memory, &err, ctx_enter, (&t->memory)) != RT_OK || !create(t, &err))
        return failed(folder, &err);
    return true;
}

void layer_trace_close(struct layer_trace *t)
{
    struct rt_driver *d = &t->memory;
    rt_destroy(&t->runtime);
    if (t->in)
        (void)d->host_free(d, t->in);
    if (t->out)
        (void)d->host_free(d, t->out);
    if (t->weights)
        (void)d->mem_free(d, t->weights);
    if (d->ctx_leave)
        (void)d->ctx_leave(d);
    rt_driver_close(d);
    rt_checkpoint_close(&t->model);
    rt_checkpoint_close(&t->golden);
}

/* ---- one step -------------------------------------------------------------------------------- */

/* The input of a layer's block at a position: of the prompt, or at a recorded step. */
static bool read_input(const struct layer_trace *t, uint32_t layer, uint32_t prompt,
                       uint32_t position, float *out)
{
    char name[64];
    struct rt_error err = {.status = RT_OK};
    const uint32_t len = (uint32_t)t->lens[prompt];
    const bool in_prompt = position < len;
    const uint64_t row = in_prompt ? prompt * (uint64_t)LAYER_TRACE_MOST + position
                                   : prompt * (uint64_t)LAYER_TRACE_STEPS + position - len + 1;
    (void)snprintf(name, sizeof(name), "layers.%u.%s", layer, in_prompt ? "prompt_in" : "attn_in");
    if (rt_checkpoint_copy(t->golden, name, row, 1, RT_DTYPE_F32, out, &err) != RT_OK)
        return failed(name, &err);
    return true;
}

static void store(const struct layer_trace *t, unsigned char *at, const float *values)
{
    for (uint32_t i = 0; i < t->config.block.hidden_size; i++) {
        const uint16_t bf16 = rt_float_to_bf16(values[i]);
        if (t->element_bytes == 4)
            memcpy(at + (size_t)i * 4, &values[i], 4);
        else
            memcpy(at + (size_t)i * 2, &bf16, 2);
    }
}

static float load(const struct layer_trace *t, const unsigned char *at, uint32_t i)
{
    float value;
    uint16_t bf16;
    if (t->element_bytes == 4) {
        memcpy(&value, at + (size_t)i * 4, 4);
        return value;
    }
    memcpy(&bf16, at + (size_t)i * 2, 2);
    return rt_bf16_to_float(bf16);
}

/* One output vector, where it is a recorded one. */
static bool compare(struct layer_trace *t, uint32_t layer, uint32_t prompt, uint32_t position,
                    const unsigned char *at)
{
    char name[64];
    struct rt_error err = {.status = RT_OK};
    const uint32_t hidden = t->config.block.hidden_size;
    const int64_t step = (int64_t)position - t->lens[prompt] + 1;
    float want[1024];
    double error = 0, norm = 0;
    if (step < 0)
        return true;
    (void)snprintf(name, sizeof(name), "layers.%u.attn_out", layer);
    if (rt_checkpoint_copy(t->golden, name, prompt * (uint64_t)LAYER_TRACE_STEPS + (uint64_t)step,
                           1, RT_DTYPE_F32, want, &err) != RT_OK)
        return failed(name, &err);
    for (uint32_t i = 0; i < hidden; i++) {
        const double difference = (double)load(t, at, i) - (double)want[i];
        error += difference * difference;
        norm += (double)want[i] * (double)want[i];
    }
    t->error[layer][step] += error;
    t->norm[layer][step] += norm;
    if (!(sqrt(error / norm) <= t->worst_vector))
        t->worst_vector = sqrt(error / norm);
    t->compared++;
    return true;
}

double layer_trace_worst(const struct layer_trace *t)
{
    double worst = 0;
    for (uint32_t layer = 0; layer < LAYER_TRACE_LAYERS; layer++)
        for (uint32_t step = 0; step < LAYER_TRACE_STEPS; step++) {
            const double error = sqrt(t->error[layer][step] / t->norm[layer][step]);
            if (!(error <= worst))
                worst = error;
        }
    return worst;
}

/* Rows of this step: the prompts that have query_len positions left behind `done`. */
struct batch {
    uint32_t query_len, rows;
    uint32_t prompts[LAYER_TRACE_PROMPTS], positions[LAYER_TRACE_PROMPTS];
};

static bool give_inputs(struct layer_trace *t, const struct batch *b)
{
    float values[1024];
    const uint64_t token_bytes = (uint64_t)t->config.block.hidden_size * t->element_bytes;
    memset(t->in, 0x7F, t->config.geometry.layers * t->layer_bytes);
    for (uint32_t layer = 0; layer < t->config.geometry.layers; layer++)
        for (uint32_t i = 0; i < b->rows * b->query_len; i++) {
            const uint32_t row = i / b->query_len;
            if (!read_input(t, layer, b->prompts[row], b->positions[row] + i % b->query_len,
                            values))
                return false;
            store(t, t->in + layer * t->layer_bytes + i * token_bytes, values);
        }
    return true;
}

static bool take_outputs(struct layer_trace *t, const struct batch *b)
{
    const uint64_t token_bytes = (uint64_t)t->config.block.hidden_size * t->element_bytes;
    for (uint32_t layer = 0; layer < t->config.geometry.layers; layer++)
        for (uint32_t i = 0; i < b->rows * b->query_len; i++) {
            const uint32_t row = i / b->query_len;
            if (!compare(t, layer, b->prompts[row], b->positions[row] + i % b->query_len,
                         t->out + layer * t->layer_bytes + i * token_bytes))
                return false;
        }
    return true;
}

static bool run_batch(struct layer_trace *t, const struct batch *b, bool eager)
{
    rt_seq seqs[LAYER_TRACE_PROMPTS];
    int32_t tokens[LAYER_TRACE_PROMPTS * RT_MAX_QUERY_LEN] = {0};
    uint64_t ticket;
    for (uint32_t i = 0; i < b->rows; i++)
        seqs[i] = t->seqs[b->prompts[i]];
    const struct rt_step_params params = {.struct_size = sizeof(params),
                                          .flags = eager ? RT_STEP_EAGER : 0,
                                          .rows = b->rows,
                                          .query_len = b->query_len,
                                          .seqs = seqs,
                                          .tokens = tokens};
    if (!give_inputs(t, b))
        return false;
    if (rt_step(t->runtime, &params, &ticket) != RT_OK ||
        rt_wait(t->runtime, ticket, UINT64_MAX) != RT_OK)
        return failed("step", rt_last_error(t->runtime));
    return take_outputs(t, b);
}

/* Positions of a prompt that there is an input for. */
static uint32_t length_of(const struct layer_trace *t, uint32_t prompt)
{
    return (uint32_t)t->lens[prompt] + LAYER_TRACE_STEPS - 1;
}

static bool run_all(struct layer_trace *t, uint32_t query_len, bool eager)
{
    uint32_t done[LAYER_TRACE_PROMPTS] = {0};
    for (;;) {
        struct batch b = {.query_len = query_len};
        for (uint32_t p = 0; p < LAYER_TRACE_PROMPTS; p++) {
            if (length_of(t, p) - done[p] < b.query_len)
                continue;
            b.prompts[b.rows] = p;
            b.positions[b.rows++] = done[p];
            done[p] += b.query_len;
        }
        if (b.rows > 0 && !run_batch(t, &b, eager))
            return false;
        if (b.rows == 0 && query_len == 1)
            return true;
        if (b.rows == 0)
            query_len = 1;
    }
}

bool layer_trace_run(struct layer_trace *t, uint32_t query_len, bool eager)
{
    bool good = true;
    for (uint32_t p = 0; p < LAYER_TRACE_PROMPTS; p++) {
        const struct rt_seq_params params = {.struct_size = sizeof(params), .last_token = -1};
        if (rt_seq_open(t->runtime, &params, &t->seqs[p]) != RT_OK)
            return failed("rt_seq_open", rt_last_error(t->runtime));
    }
    good = run_all(t, query_len, eager);
    for (uint32_t p = 0; p < LAYER_TRACE_PROMPTS; p++)
        (void)rt_seq_close(t->runtime, t->seqs[p]);
    return good;
}
