/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/blueprint.h"

#include "common/math.h"
#include "graphs/bucket.h"
#include "kernels/mla.h"

#include <inttypes.h>
#include <string.h>

/* The host device is for development and tests: a fraction of all RAM would serve nobody there. */
#define HOST_BUDGET_BYTES (2ull << 30)

static enum rt_status choose_kernels(struct rt_blueprint *b, struct rt_error *err)
{
    const struct rt_config *c = &b->config;
    for (uint32_t i = 0; i < c->query_len_count; i++) {
        struct rt_attend_request request = {
            .heads = c->geometry.heads,
            .d_qk = b->d_qk,
            .d_v = b->d_v,
            .q_len = c->query_lens[i],
            .page_size = c->page_size,
            .kv_layout = c->kv_layout,
            .backend = c->backend,
        };
        RT_TRY(rt_kernels_resolve_attend(&b->caps, &request, &b->choices[i], err));
    }
    return RT_OK;
}

static void fill_shape(const struct rt_blueprint *b, uint64_t pages, struct rt_shape *shape)
{
    const struct rt_config *c = &b->config;
    *shape = (struct rt_shape){
        .heads = c->geometry.heads,
        .d_qk = b->d_qk,
        .d_v = b->d_v,
        .layers = c->geometry.layers,
        .slots = c->max_sequences,
        .max_length = c->max_length,
        .page_size = c->page_size,
        .pages = pages,
        .bucket_max = c->batch_sizes[c->batch_size_count - 1],
        .rows = (uint32_t)rt_bucket_capacity(c->batch_sizes, c->batch_size_count, c->max_sequences),
        .q_max = c->query_lens[c->query_len_count - 1],
        .ring_depth = c->ring_depth,
        .per_layer = c->tensors == RT_TENSORS_PER_LAYER,
    };
    for (uint32_t i = 0; i < c->query_len_count; i++) {
        const struct rt_attend_choice *choice = &b->choices[i];
        uint64_t rows =
            (uint64_t)rt_max_split_slots(choice->parts) * c->geometry.heads * c->query_lens[i];
        shape->parts_max = rt_max_u32(shape->parts_max, choice->parts);
        if (rows > shape->partial_rows)
            shape->partial_rows = rows;
    }
}

/* Pages that the memory budget holds, and no more than all sequences at full length can use. */
static enum rt_status budget_pages(const struct rt_blueprint *b, uint64_t free_bytes,
                                   uint64_t *pages, struct rt_error *err)
{
    const struct rt_config *c = &b->config;
    struct rt_shape shape;
    struct rt_layout probe;
    fill_shape(b, 1, &shape);
    RT_TRY(rt_layout_compute(&shape, &probe, err));

    if (b->caps.kind == RT_DEVICE_KIND_HOST && free_bytes > HOST_BUDGET_BYTES)
        free_bytes = HOST_BUDGET_BYTES;
    uint64_t budget = (uint64_t)((double)free_bytes * c->memory_fraction);
    uint64_t page_bytes = rt_layout_page_bytes(&shape);
    uint64_t useful = (uint64_t)c->max_sequences * probe.max_blocks;
    uint64_t fit = 0;
    if (page_bytes && budget > probe.arena_bytes)
        fit = (budget - probe.arena_bytes) / page_bytes;
    RT_REQUIRE(fit, err, RT_ERR_DEVICE_MEMORY,
               "no KV page fits: %.3g of %" PRIu64 " free bytes is %" PRIu64
               ", the arena takes %" PRIu64 " and one page of all layers %" PRIu64,
               c->memory_fraction, free_bytes, budget, probe.arena_bytes, page_bytes);
    *pages = fit < useful ? fit : useful;
    return RT_OK;
}

enum rt_status rt_blueprint_make(const struct rt_config *config, const struct rt_device_caps *caps,
                                 uint64_t free_bytes, struct rt_blueprint *out,
                                 struct rt_error *err)
{
    RT_TRY(rt_config_check(config, err));
    *out = (struct rt_blueprint){
        .config = *config,
        .caps = *caps,
        .d_qk = config->geometry.kv_lora_rank + config->geometry.qk_rope_head_dim,
        .d_v = config->geometry.kv_lora_rank,
    };
    RT_TRY(choose_kernels(out, err));
    uint64_t pages = config->pages;
    if (!pages)
        RT_TRY(budget_pages(out, free_bytes, &pages, err));
    struct rt_shape shape;
    fill_shape(out, pages, &shape);
    return rt_layout_compute(&shape, &out->layout, err);
}
