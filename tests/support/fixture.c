/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void fixture_config(struct rt_config *config)
{
    const char *device = getenv("RT_TEST_DEVICE");
    rt_config_default(config);
    snprintf(config->device, sizeof(config->device), "%s", device ? device : "host");
    config->geometry = (struct rt_geometry){
        .heads = 3,
        .kv_lora_rank = 256,
        .qk_rope_head_dim = 32,
        .layers = 2,
        .softmax_scale = 0.102,
    };
    const uint32_t batches[] = {1, 2, 4}, queries[] = {1, 3};
    memcpy(config->batch_sizes, batches, sizeof(batches));
    config->batch_size_count = 3;
    memcpy(config->query_lens, queries, sizeof(queries));
    config->query_len_count = 2;
    config->ring_depth = 3;
    config->max_sequences = 6;
    config->max_length = 80;
    config->page_size = 16;
    config->pages = 24;
}

static rt_runtime *create(const struct rt_create_params *params)
{
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    if (rt_create(params, &rt, &error) != RT_OK)
        fail_msg("rt_create: %s: %s", rt_status_string(error.status), error.message);
    return rt;
}

rt_runtime *fixture_create(const struct rt_config *config)
{
    struct rt_config standard;
    fixture_config(&standard);
    return create(&(struct rt_create_params){.struct_size = sizeof(struct rt_create_params),
                                             .config = config ? config : &standard});
}

rt_runtime *fixture_create_stage(enum rt_stage_point point, rt_stage_fn stage, void *user)
{
    struct rt_config config;
    fixture_config(&config);
    strcpy(config.device, "host");
    struct rt_create_params params = {
        .struct_size = sizeof(params), .config = &config, .stage_user = user};
    params.stages[point] = stage;
    return create(&params);
}

rt_seq fixture_open(rt_runtime *rt)
{
    rt_seq seq = 0;
    if (rt_seq_open(rt, NULL, &seq) != RT_OK)
        fail_msg("rt_seq_open: %s", rt_last_error(rt)->message);
    return seq;
}

enum rt_status fixture_step(rt_runtime *rt, const rt_seq *seqs, uint32_t rows, uint32_t q,
                            uint64_t *ticket)
{
    const struct rt_step_params params = {
        .struct_size = sizeof(params), .rows = rows, .query_len = q, .seqs = seqs};
    return rt_step(rt, &params, ticket);
}

void fixture_step_ok(rt_runtime *rt, const rt_seq *seqs, uint32_t rows, uint32_t q)
{
    uint64_t ticket;
    if (fixture_step(rt, seqs, rows, q, &ticket) != RT_OK ||
        rt_wait(rt, ticket, UINT64_MAX) != RT_OK)
        fail_msg("step of %u rows, q %u: %s", rows, q, rt_last_error(rt)->message);
}

uint64_t fixture_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545F4914F6CDD1Dull;
}

void *fixture_address(rt_runtime *rt, const char *name, uint32_t layer)
{
    struct rt_tensor tensor = {.struct_size = sizeof(tensor)};
    return rt_tensor(rt, name, layer, &tensor) == RT_OK ? (void *)(uintptr_t)tensor.address : NULL;
}

static void randomise_tensor(rt_runtime *rt, const char *name, uint32_t layer, uint64_t *state)
{
    struct rt_tensor tensor = {.struct_size = sizeof(tensor)};
    assert_int_equal(rt_tensor(rt, name, layer, &tensor), RT_OK);
    uint16_t *data = malloc(tensor.bytes);
    assert_non_null(data);
    for (uint64_t i = 0; i < tensor.bytes / 2; i++) {
        uint64_t r = fixture_random(state);
        /* sign, exponent 2^-8 … 2^-1, 7 bits of mantissa */
        data[i] = (uint16_t)((r & 0x8000) | (119 + (r >> 20) % 8) << 7 | (r >> 40 & 0x7f));
    }
    assert_int_equal(rt_tensor_write(rt, name, layer, 0, data, tensor.bytes), RT_OK);
    free(data);
}

static void poison_pool(rt_runtime *rt, uint32_t layer)
{
    struct rt_tensor tensor = {.struct_size = sizeof(tensor)};
    assert_int_equal(rt_tensor(rt, "kv", layer, &tensor), RT_OK);
    void *data = malloc(tensor.bytes);
    assert_non_null(data);
    memset(data, 0xff, tensor.bytes); /* bf16 NaN */
    assert_int_equal(rt_tensor_write(rt, "kv", layer, 0, data, tensor.bytes), RT_OK);
    free(data);
}

void fixture_randomise(rt_runtime *rt, uint64_t seed)
{
    uint64_t state = seed | 1;
    uint32_t layers = rt->blueprint.config.geometry.layers;
    bool per_layer = rt->blueprint.config.tensors == RT_TENSORS_PER_LAYER;
    for (uint32_t layer = 0; layer < (per_layer ? layers : 1); layer++) {
        randomise_tensor(rt, "q", layer, &state);
        randomise_tensor(rt, "latent", layer, &state);
    }
    for (uint32_t layer = 0; layer < layers; layer++)
        poison_pool(rt, layer);
}

static uint64_t mix(uint64_t h, uint64_t value)
{
    return (h ^ value) * 0x100000001B3ull;
}

static uint64_t hash_pages(const struct rt_pages *p)
{
    uint64_t hash = mix(14695981039346656037ull, p->pinned);
    for (uint32_t i = 0; i < p->count; i++)
        hash = mix(hash, (uint64_t)p->refs[i] << 32 | p->pins[i]);
    for (uint32_t i = 0; i < p->free_count; i++)
        hash = mix(hash, (uint32_t)p->free_list[i]);
    return hash;
}

void fixture_snapshot(rt_runtime *rt, struct fixture_snapshot *out)
{
    *out = (struct fixture_snapshot){
        .next_step = rt->ring.next_step,
        .harvested = rt->harvested,
        .free_pages = rt->pages.free_count,
        .open_sequences = rt->stats.open_sequences,
        .ops_bytes = rt->ops_bytes,
        .ops_count = rt->ops_count,
        .table_hash = 14695981039346656037ull,
        .slots_hash = 14695981039346656037ull,
        .pages_hash = hash_pages(&rt->pages),
    };
    for (uint32_t i = 0; i < rt->blueprint.config.max_sequences; i++) {
        const struct rt_slot *s = &rt->slots[i];
        const uint32_t pages = rt_slot_rest(rt, s)->page_count;
        const uint64_t fields[] = {s->handle, s->length, s->undecided, pages, s->capacity};
        for (size_t k = 0; k < sizeof(fields) / sizeof(fields[0]); k++)
            out->slots_hash = mix(out->slots_hash, fields[k]);
        const int32_t *line = rt_slot_line(rt, s);
        for (uint32_t k = 0; k < pages; k++)
            out->table_hash = mix(out->table_hash, (uint32_t)line[k]);
    }
}
