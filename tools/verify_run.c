/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/verify_run.h"

#include <stdlib.h>
#include <string.h>

static const char *const side_names[SIDES] = {"replay", "eager"};

static const struct data attention_data[] = {
    {.name = "q", .given = true},
    {.name = "latent", .given = true},
    {.name = "out", .made = true, .zero = true},
    {.name = "lse", .made = true},
};
static const struct data block_data[] = {
    {.name = "hidden", .given = true, .made = true, .zero = true},
    {.name = "q", .made = true},
    {.name = "out", .made = true, .zero = true},
    {.name = "lse", .made = true},
    {.name = "residual", .made = true}, /* last: with input_norm alone */
};

enum rt_status verify_say(struct rt_error *error, enum rt_status status, const char *what,
                          const char *detail)
{
    if (error) {
        error->status = status;
        snprintf(error->message, sizeof(error->message), "%s: %.440s", what, detail);
    }
    return status;
}

/* Forwards a library failure of one side. */
enum rt_status verify_check(struct run *run, int side, enum rt_status status)
{
    if (status == RT_OK)
        return RT_OK;
    return verify_say(run->error, status, side_names[side], rt_last_error(run->rts[side])->message);
}

uint32_t verify_below(struct run *run, uint32_t bound)
{
    return (uint32_t)((chance_draw(&run->chance) >> 32) * bound >> 32);
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static uint64_t query_row_bytes(const struct run *run)
{
    const struct rt_geometry *g = &run->config.geometry;
    return (uint64_t)g->heads * (g->kv_lora_rank + g->qk_rope_head_dim) * sizeof(uint16_t);
}

void verify_choose_layers(struct run *run, uint32_t tokens)
{
    struct rt_config *c = &run->config;
    const uint64_t inputs = query_row_bytes(run) * tokens * c->geometry.layers;
    /* a block's data are handed from layer to layer */
    c->tensors = inputs <= PER_LAYER_BYTES && !c->layer ? RT_TENSORS_PER_LAYER : RT_TENSORS_SHARED;
    run->data_layers = c->tensors == RT_TENSORS_PER_LAYER ? c->geometry.layers : 1;
}

static void choose_data(struct run *run)
{
    const struct rt_config *c = &run->config;
    const uint32_t blocks = MOST_DATA - (c->input_norm ? 0 : 1);
    run->data_count = c->layer ? blocks : sizeof(attention_data) / sizeof(attention_data[0]);
    memcpy(run->data, c->layer ? block_data : attention_data,
           run->data_count * sizeof(run->data[0]));
}

/* The largest of all that is written and read. */
static enum rt_status measure_tensors(struct run *run)
{
    const char *const others[] = {"kv", "block_table"};
    struct rt_tensor t = {.struct_size = sizeof(t)};
    for (uint32_t i = 0; i < run->data_count; i++) {
        struct data *d = &run->data[i];
        TRY(verify_check(run, REPLAY, rt_tensor(run->rts[REPLAY], d->name, 0, &t)));
        d->rows = (uint32_t)t.shape[0];
        d->token_bytes = t.bytes / (t.shape[0] * t.shape[1]);
        run->scratch_bytes = t.bytes > run->scratch_bytes ? t.bytes : run->scratch_bytes;
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        TRY(verify_check(run, REPLAY, rt_tensor(run->rts[REPLAY], others[i], 0, &t)));
        run->scratch_bytes = t.bytes > run->scratch_bytes ? t.bytes : run->scratch_bytes;
    }
    return RT_OK;
}

static void fill_noise(struct run *run)
{
    uint16_t *words = (uint16_t *)(void *)run->noise;
    for (uint64_t i = 0; i < run->noise_bytes / 2; i++) {
        uint64_t r = chance_draw(&run->chance);
        /* sign, exponent 2^-8 … 2^0, mantissa; two of them are such an f32 too */
        words[i] = (uint16_t)((r >> 3 & 0x8000) | (119 + (r >> 20) % 9) << 7 | (r >> 40 & 0x7f));
    }
}

uint32_t verify_page_tokens(const struct run *run)
{
    return run->config.page_size * run->config.context_parallel;
}

enum rt_status verify_set_up(struct run *run, uint64_t seed)
{
    choose_data(run);
    if (run->config.layer)
        TRY(random_weights_create(&run->config, seed, run->ranks->rank, &run->weights, run->error));
    /* Both by the same of the library's ways, or they would differ in the last bits. */
    for (int side = 0; side < SIDES; side++) {
        const struct rt_create_params params = {.struct_size = sizeof(params),
                                                .config = &run->config,
                                                .weights = run->weights.table,
                                                .ranks = run->ranks->sides[side],
                                                .like = side ? run->rts[0] : NULL};
        TRY(rt_create(&params, &run->rts[side], run->error));
    }
    struct rt_info info = {.struct_size = sizeof(info)};
    if (rt_get_info(run->rts[0], &info) == RT_OK)
        memcpy(run->report->device, info.device, sizeof(info.device));
    TRY(measure_tensors(run));
    run->noise_bytes = 2 * run->scratch_bytes;
    run->tracked = calloc(run->config.max_sequences, sizeof(*run->tracked));
    run->noise = malloc(run->noise_bytes);
    run->poison = malloc(run->scratch_bytes);
    for (int side = 0; side < SIDES; side++)
        run->seen[side] = malloc(run->scratch_bytes);
    if (!run->tracked || !run->noise || !run->poison || !run->seen[0] || !run->seen[1])
        return verify_say(run->error, RT_ERR_NOMEM, "verify", "out of host memory");
    memset(run->poison, 0xff, run->scratch_bytes);
    fill_noise(run);
    for (int side = 0; side < SIDES; side++)
        for (uint32_t layer = 0; layer < run->config.geometry.layers; layer++) {
            struct rt_tensor t = {.struct_size = sizeof(t)};
            TRY(verify_check(run, side, rt_tensor(run->rts[side], "kv", layer, &t)));
            TRY(verify_check(
                run, side, rt_tensor_write(run->rts[side], "kv", layer, 0, run->poison, t.bytes)));
        }
    return RT_OK;
}

void verify_tear_down(struct run *run)
{
    for (int side = 0; side < SIDES; side++) {
        rt_destroy(&run->rts[side]);
        free(run->seen[side]);
    }
    random_weights_destroy(&run->weights);
    free(run->poison);
    free(run->noise);
    free(run->tracked);
}
