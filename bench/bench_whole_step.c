/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench_whole_step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sequences grow by a step's tokens and are set back by the host now and then. The record of the
 * step behind that carries it, so that one is not measured; the others of a round lie around the
 * length that is meant. */
#define ROUNDS 5u
#define MEASURED_PER_ROUND 3u
#define WARM_UP_ROUNDS 1u
#define STEPS (ROUNDS * MEASURED_PER_ROUND)

/* On the host device the pool is the runtime's own, and filled by copies. */
#define HOST_POOL_BYTES (UINT64_C(1) << 30)

struct step_bench {
    const struct whole_step_setup *setup;
    const struct shape *shape;
    rt_runtime *rt;
    struct rt_config config;
    rt_seq seqs[RT_MAX_BATCH];
    int32_t tokens[RT_MAX_BATCH * RT_MAX_QUERY_LEN]; /* a rewound sequence's must be named */
    double ns[STEPS];
};

/* Before a round, so that its measured steps end around the length, and none beyond the longest. */
static uint32_t base_length(const struct shape *s, uint32_t row)
{
    uint32_t length = (uint32_t)s->lengths[row], back = 3 * s->query_len;
    if (length + s->query_len > RT_MAX_LENGTH)
        back += s->query_len;
    return length > back ? length - back : 0;
}

static uint32_t grown_length(const struct shape *s, uint32_t row)
{
    return base_length(s, row) + (1 + MEASURED_PER_ROUND) * s->query_len;
}

static uint64_t pages_of(const struct shape *s)
{
    uint64_t pages = 0;
    for (uint32_t i = 0; i < s->batch; i++)
        pages += (grown_length(s, i) + s->page_size - 1) / s->page_size;
    return pages;
}

static uint64_t layer_bytes(const struct shape *s)
{
    uint64_t d_qk = s->kv_lora_rank + s->qk_rope_head_dim;
    return pages_of(s) * s->page_size * d_qk * sizeof(uint16_t);
}

uint64_t whole_step_pool_bytes(const struct shape *shape)
{
    return WHOLE_STEP_LAYERS * layer_bytes(shape);
}

static void configure(struct step_bench *b, uint32_t layers)
{
    const struct shape *s = b->shape;
    struct rt_config *c = &b->config;
    uint32_t longest = 0;
    for (uint32_t i = 0; i < s->batch; i++)
        longest = grown_length(s, i) > longest ? grown_length(s, i) : longest;
    rt_config_default(c);
    c->geometry = (struct rt_geometry){.heads = s->heads,
                                       .kv_lora_rank = s->kv_lora_rank,
                                       .qk_rope_head_dim = s->qk_rope_head_dim,
                                       .layers = layers,
                                       .softmax_scale = b->setup->softmax_scale};
    (void)snprintf(c->device, sizeof(c->device), "%s", b->setup->device);
    c->batch_sizes[0] = s->batch;
    c->batch_size_count = 1;
    c->query_lens[0] = s->query_len;
    c->query_len_count = 1;
    c->max_sequences = s->batch;
    c->max_length = longest;
    c->page_size = s->page_size;
    c->pages = pages_of(s);
    c->backend = b->setup->backend;
    c->invariant = b->setup->invariant;
    c->small_tiles = b->setup->small_tiles;
}

/* ---- inputs --------------------------------------------------------------------------------- */

static enum rt_status fill(const struct step_bench *b, const char *name, uint32_t layer)
{
    const struct whole_step_setup *setup = b->setup;
    struct rt_tensor t = {.struct_size = sizeof(t)};
    enum rt_status status = rt_tensor(b->rt, name, layer, &t);
    for (uint64_t at = 0; at < t.bytes && status == RT_OK; at += setup->noise_bytes)
        status =
            rt_tensor_write(b->rt, name, layer, at, setup->noise,
                            t.bytes - at < setup->noise_bytes ? t.bytes - at : setup->noise_bytes);
    return status;
}

/* A lent pool is full of noise already. */
static enum rt_status fill_all(const struct step_bench *b)
{
    enum rt_status status = fill(b, "q", 0);
    if (status == RT_OK)
        status = fill(b, "latent", 0);
    for (uint32_t layer = 0; b->setup->host && layer < b->config.geometry.layers; layer++)
        if (status == RT_OK)
            status = fill(b, "kv", layer);
    return status;
}

static enum rt_status open_all(struct step_bench *b)
{
    enum rt_status status = RT_OK;
    for (uint32_t i = 0; i < b->shape->batch && status == RT_OK; i++) {
        const struct rt_seq_params past = {
            .struct_size = sizeof(past), .length = base_length(b->shape, i), .last_token = -1};
        status = rt_seq_open(b->rt, &past, &b->seqs[i]);
    }
    return status;
}

/* ---- steps ---------------------------------------------------------------------------------- */

static enum rt_status one_step(struct step_bench *b, double *ns)
{
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .rows = b->shape->batch,
                                     .query_len = b->shape->query_len,
                                     .seqs = b->seqs,
                                     .tokens = b->tokens};
    struct rt_stats stats = {.struct_size = sizeof(stats)};
    uint64_t ticket;
    enum rt_status status = rt_step(b->rt, &p, &ticket);
    if (status == RT_OK)
        status = rt_wait(b->rt, ticket, UINT64_MAX);
    if (status == RT_OK)
        status = rt_get_stats(b->rt, &stats);
    *ns = (double)stats.gpu_ns_last;
    return status;
}

static enum rt_status one_round(struct step_bench *b, double ns[MEASURED_PER_ROUND])
{
    double unused;
    enum rt_status status = RT_OK;
    for (uint32_t i = 0; i < b->shape->batch && status == RT_OK; i++)
        status = rt_seq_rewind(b->rt, b->seqs[i], base_length(b->shape, i));
    if (status == RT_OK)
        status = one_step(b, &unused);
    for (uint32_t i = 0; i < MEASURED_PER_ROUND && status == RT_OK; i++)
        status = one_step(b, &ns[i]);
    return status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum rt_status run(struct step_bench *b, double *median_ns)
{
    enum rt_status status = fill_all(b);
    if (status == RT_OK)
        status = open_all(b);
    for (uint32_t i = 0; i < WARM_UP_ROUNDS && status == RT_OK; i++)
        status = one_round(b, b->ns);
    for (uint32_t i = 0; i < ROUNDS && status == RT_OK; i++)
        status = one_round(b, &b->ns[i * MEASURED_PER_ROUND]);
    qsort(b->ns, STEPS, sizeof(b->ns[0]), by_value);
    *median_ns = b->ns[STEPS / 2];
    return status;
}

/* How many layers have room. */
static enum rt_status find_room(const struct step_bench *b, struct rt_memory_region *pool,
                                uint32_t *layers)
{
    uint64_t bytes = whole_step_pool_bytes(b->shape), room = HOST_POOL_BYTES;
    enum rt_status status = RT_OK;
    if (!b->setup->host) {
        status = rt_measure_pool(b->setup->lender, bytes, pool);
        room = status == RT_OK ? pool->bytes : 0;
    }
    uint64_t one = layer_bytes(b->shape), fit = one ? room / one : 0;
    *layers = fit < WHOLE_STEP_LAYERS ? (uint32_t)fit : WHOLE_STEP_LAYERS;
    return status;
}

static enum rt_status create(struct step_bench *b, struct whole_step *out, struct rt_error *error)
{
    struct rt_memory_region pool = {0};
    enum rt_status status = find_room(b, &pool, &out->layers);
    if (status != RT_OK) {
        *error = *rt_measure_last_error(b->setup->lender);
        return status;
    }
    if (!out->layers) {
        (void)snprintf(error->message, sizeof(error->message), "not one layer's KV has room");
        return RT_ERR_DEVICE_MEMORY;
    }
    configure(b, out->layers);
    const struct rt_create_params params = {.struct_size = sizeof(params),
                                            .config = &b->config,
                                            .pool_address = pool.address,
                                            .pool_bytes = pool.bytes};
    return rt_create(&params, &b->rt, error);
}

enum rt_status whole_step_measure(const struct whole_step_setup *setup, const struct shape *shape,
                                  struct whole_step *out)
{
    *out = (struct whole_step){0};
    struct rt_error error = {.message = "a step's sequences"};
    struct step_bench *b = calloc(1, sizeof(*b));
    enum rt_status status = b ? RT_OK : RT_ERR_NOMEM;
    if (b) {
        b->setup = setup;
        b->shape = shape;
        status = create(b, out, &error);
        if (status == RT_OK && (status = run(b, &out->ns)) != RT_OK)
            error = *rt_last_error(b->rt);
        rt_destroy(&b->rt);
    }
    free(b);
    if (status != RT_OK) {
        out->layers = 0;
        (void)snprintf(out->why_not, sizeof(out->why_not), "%s: %s", rt_status_string(status),
                       error.message);
    }
    return status;
}
