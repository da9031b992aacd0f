/* SPDX-License-Identifier: Apache-2.0 */
#include "models/decoder_impl.h"
#include "models/fail.h"

#include <inttypes.h>
#include <stdlib.h>

#define ALIGN UINT64_C(256)

/* Of which rt_moe_block serves more in no shape. */
#define RT_DECODER_BLOCK_TOKENS 4u

uint32_t rt_decoder_longest_query(const struct rt_decoder *d)
{
    return d->config.query_lens[d->config.query_len_count - 1];
}

/* ---- graphs ---------------------------------------------------------------------------------- */

/* Vectors of a graph: what goes through its layers, and what is sampled from, a vector a column. */
struct sizes {
    uint32_t tokens, rows;
};

/* Query lengths of rows beside a chunk: 1, and those of steps. */
static uint32_t beside_len(const struct rt_config *c, uint32_t i)
{
    if (c->query_lens[0] == 1)
        return c->query_lens[i];
    return i == 0 ? 1 : c->query_lens[i - 1];
}

static uint32_t beside_len_count(const struct rt_config *c)
{
    return c->query_len_count + (c->query_lens[0] > 1);
}

/* What one chunk is alone and beside. */
static uint32_t graphs_of_chunk(const struct rt_config *c)
{
    return 1 + c->mixed_row_count * beside_len_count(c);
}

/* Graphs that differ in these: chunks' by cached context do not. */
static uint32_t graph_count(const struct rt_decoder *d)
{
    const struct rt_config *c = &d->config;
    return c->batch_size_count * c->query_len_count + c->chunk_count * graphs_of_chunk(c);
}

static struct sizes sizes_of_chunk(const struct rt_config *c, uint32_t i)
{
    const uint32_t lens = beside_len_count(c), mix = i % graphs_of_chunk(c);
    const uint32_t decoding = mix == 0 ? 0 : c->mixed_rows[(mix - 1) / lens];
    const uint32_t query_len = mix == 0 ? 1 : beside_len(c, (mix - 1) % lens);
    const uint32_t shared = c->prefill_rows ? c->prefill_rows : RT_PREFILL_ROWS;
    const uint32_t prompts = shared < c->max_sequences ? shared : c->max_sequences;
    return (struct sizes){.tokens = c->chunks[i / graphs_of_chunk(c)] + decoding * query_len,
                          .rows = (prompts + decoding) * query_len};
}

static struct sizes sizes_of(const struct rt_decoder *d, uint32_t i)
{
    const struct rt_config *c = &d->config;
    const uint32_t steps = c->batch_size_count * c->query_len_count;
    if (i >= steps)
        return sizes_of_chunk(c, i - steps);
    const uint32_t tokens =
        c->batch_sizes[i / c->query_len_count] * c->query_lens[i % c->query_len_count];
    return (struct sizes){.tokens = tokens, .rows = tokens};
}

/* Of any graph; tokens no less than rows, for both go through a norm. */
static struct sizes most_sizes(const struct rt_decoder *d)
{
    struct sizes most = {0, 0};
    for (uint32_t i = 0; i < graph_count(d); i++) {
        const struct sizes graph = sizes_of(d, i);
        most.tokens = graph.tokens > most.tokens ? graph.tokens : most.tokens;
        most.rows = graph.rows > most.rows ? graph.rows : most.rows;
    }
    most.tokens = most.rows > most.tokens ? most.rows : most.tokens;
    return most;
}

uint32_t rt_decoder_most_rows(const struct rt_decoder *d)
{
    return most_sizes(d).rows;
}

/* Rows of the longest query that are as many: what sampling is asked for by. */
static uint32_t most_batch(const struct rt_decoder *d)
{
    const uint32_t query_len = rt_decoder_longest_query(d);
    return (most_sizes(d).rows + query_len - 1) / query_len;
}

bool rt_decoder_gates(const struct rt_decoder *d, uint32_t tokens)
{
    const struct rt_moe *moe = &d->model.moe;
    return tokens <= rt_gate_tokens(d->model.hidden_size, moe->experts, moe->experts_per_token);
}

/* ---- products -------------------------------------------------------------------------------- */

const struct rt_decoder_products *rt_decoder_products_of(const struct rt_decoder *d,
                                                         uint32_t vectors)
{
    for (uint32_t i = 0; i < d->product_count; i++)
        if (d->products[i].vectors == vectors)
            return &d->products[i];
    return NULL;
}

/* Of hidden. y_stride: from one vector's results to the next one's. */
static enum rt_status make_product(struct rt_decoder *d, uint32_t tokens, uint32_t rows,
                                   uint32_t y_stride, enum rt_projections projections,
                                   rt_product **out, uint64_t *workspace, struct rt_error *err)
{
    const struct rt_product_shape shape = {.struct_size = sizeof(shape),
                                           .batch = 1,
                                           .vectors = tokens,
                                           .k = d->model.hidden_size,
                                           .weights = {{.rows = rows}},
                                           .y_row_stride = y_stride,
                                           .output = RT_DTYPE_F32,
                                           .projections = projections,
                                           .backend = d->config.backend,
                                           .precision = d->config.precision};
    struct rt_product_info info = {.struct_size = sizeof(info)};
    enum rt_status status = rt_product_create(d->ops, &shape, out);
    if (status == RT_OK)
        status = rt_product_get_info(*out, &info);
    RT_MODELS_REQUIRE(status == RT_OK, err, status, "%s", rt_ops_last_error(d->ops)->message);
    *workspace = info.workspace_bytes > *workspace ? info.workspace_bytes : *workspace;
    return RT_OK;
}

/* Those of so many vectors, which graphs share: new ones have none yet. There is room. */
static struct rt_decoder_products *products_for(struct rt_decoder *d, uint32_t vectors)
{
    for (uint32_t i = 0; i < d->product_count; i++)
        if (d->products[i].vectors == vectors)
            return &d->products[i];
    struct rt_decoder_products *const p = &d->products[d->product_count++];
    p->vectors = vectors;
    return p;
}

/* What each rank does for itself must come to the same bits, or they would choose other experts:
 * blocks agree on the library's ways, an operator knows of no ranks. */
static enum rt_status make_router(struct rt_decoder *d, uint32_t tokens, uint64_t *workspace,
                                  struct rt_error *err)
{
    struct rt_decoder_products *const p = products_for(d, tokens);
    const uint32_t experts = d->model.moe.experts;
    const enum rt_projections projections =
        d->ranks > 1 ? RT_PROJECTIONS_OWN : d->config.projections;
    if (!experts || p->router || rt_decoder_gates(d, tokens))
        return RT_OK;
    return make_product(d, tokens, experts, 0, projections, &p->router, workspace, err);
}

/* Of what ranks gather all have the same bits, whichever way each has multiplied. */
static enum rt_status make_head(struct rt_decoder *d, uint32_t vectors, uint64_t *workspace,
                                struct rt_error *err)
{
    struct rt_decoder_products *const p = products_for(d, vectors);
    const uint32_t stride = d->ranks > 1 ? rt_decoder_slice(d) : 0;
    uint32_t first;
    const uint32_t rows = rt_decoder_own_ids(d, &first);
    if (p->lm_head || rows == 0)
        return RT_OK;
    return make_product(d, vectors, rows, stride, d->config.projections, &p->lm_head, workspace,
                        err);
}

static enum rt_status make_products(struct rt_decoder *d, uint64_t *workspace, struct rt_error *err)
{
    const uint32_t graphs = graph_count(d);
    d->products = calloc((size_t)2 * graphs, sizeof(*d->products));
    RT_MODELS_REQUIRE(d->products, err, RT_ERR_NOMEM, "out of host memory for products");
    for (uint32_t i = 0; i < graphs; i++) {
        const struct sizes graph = sizes_of(d, i);
        RT_MODELS_TRY(make_router(d, graph.tokens, workspace, err));
        RT_MODELS_TRY(make_head(d, graph.rows, workspace, err));
    }
    return RT_OK;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void put(uint64_t bytes, uint64_t *end, uint64_t *offset)
{
    *offset = *end;
    *end = (*end + bytes + ALIGN - 1) / ALIGN * ALIGN;
}

struct rt_experts_shape rt_decoder_mlp_shape(const struct rt_decoder *d, bool mixture,
                                             uint32_t tokens)
{
    const struct rt_model *m = &d->model;
    return (struct rt_experts_shape){.tokens = tokens,
                                     .hidden = m->hidden_size,
                                     .width = rt_decoder_width(d, mixture),
                                     .experts = mixture ? m->moe.experts : 0,
                                     .experts_per_token = mixture ? m->moe.experts_per_token : 0,
                                     .shared = mixture ? rt_decoder_shared(m) : 1,
                                     .backend = d->config.backend,
                                     .precision = d->config.precision};
}

/* Of the layer that needs the most. */
static enum rt_status pairs_bytes(const struct rt_decoder *d, uint64_t *most, struct rt_error *err)
{
    *most = 0;
    for (uint32_t l = 0; l < d->model.layers; l++) {
        const struct rt_experts_shape shape =
            rt_decoder_mlp_shape(d, d->model.moe_layers[l], most_sizes(d).tokens);
        uint64_t bytes;
        RT_MODELS_TRY(rt_experts_down_scratch(&shape, &bytes, err));
        *most = bytes > *most ? bytes : *most;
    }
    return RT_OK;
}

/* Numbers of a token between the two products of its MLP, in the layer that has the most. */
static uint64_t between(const struct rt_decoder *d)
{
    const struct rt_model *m = &d->model;
    const uint64_t dense = rt_decoder_width(d, false);
    const uint64_t mixed =
        (uint64_t)(m->moe.experts_per_token + rt_decoder_shared(m)) * rt_decoder_width(d, true);
    return dense > mixed ? dense : mixed;
}

/* Numbers of all products' orders; of one rank none. */
static uint64_t order_count(const struct rt_decoder *d)
{
    uint64_t count = 0;
    for (uint32_t i = 0; d->ranks > 1 && i < d->product_count; i++)
        count += (uint64_t)d->products[i].vectors * d->ranks;
    return count;
}

/* What operators work in. */
struct workspaces {
    uint64_t pairs, exchange, sampling, products;
};

/* Offsets of all; what a model has no use for has no bytes. */
static void lay_out(const struct rt_decoder *d, const struct workspaces *w,
                    struct rt_decoder_scratch *s)
{
    const struct rt_model *m = &d->model;
    const struct sizes most = most_sizes(d);
    const uint64_t tokens = most.tokens, rows = d->config.chunk_count ? most.rows : 0;
    const uint64_t number = d->config.precision == RT_PRECISION_F32 ? 4 : 2;
    const uint64_t pairs = tokens * m->moe.experts_per_token, experts = m->moe.experts;
    struct rt_routing *const r = &s->routing;
    uint64_t end = 0;
    put(tokens * m->hidden_size * number, &end, &s->normed);
    put(rows * m->hidden_size * number, &end, &s->last_hidden);
    put(rows * m->hidden_size * number, &end, &s->last_residual);
    put(tokens * experts * sizeof(float), &end, &s->scores);
    put(pairs * sizeof(int32_t), &end, &r->choices);
    put(pairs * sizeof(float), &end, &r->weights);
    put((experts + 1) * sizeof(int32_t), &end, &r->offsets);
    put(pairs * sizeof(int32_t), &end, &r->pairs);
    put(experts * 4 * sizeof(int32_t), &end, &r->active);
    put(sizeof(int32_t), &end, &r->active_count);
    put(sizeof(int32_t), &end, &s->arrivals);
    put(w->exchange, &end, &s->exchange);
    put(tokens * between(d) * number, &end, &s->between);
    put(w->pairs, &end, &s->pairs);
    const uint64_t logits = (uint64_t)most_batch(d) * rt_decoder_longest_query(d);
    put(logits * rt_decoder_line(d) * sizeof(float), &end, &s->logits);
    if (d->ranks > 1) {
        put((uint64_t)most.rows * rt_decoder_slice(d) * sizeof(float), &end, &s->part);
        put(most.rows * rt_decoder_line(d) * sizeof(float), &end, &s->gathered);
        put(order_count(d) * sizeof(int32_t), &end, &s->orders);
    }
    put(d->config.max_sequences * sizeof(struct rt_sampling), &end, &s->lines);
    put(w->sampling, &end, &s->sampling);
    put(w->products, &end, &s->products);
    s->bytes = end;
}

static void make_addresses(struct rt_decoder_scratch *s)
{
    uint64_t *const all[] = {&s->normed,
                             &s->last_hidden,
                             &s->last_residual,
                             &s->scores,
                             &s->routing.choices,
                             &s->routing.weights,
                             &s->routing.offsets,
                             &s->routing.pairs,
                             &s->routing.active,
                             &s->routing.active_count,
                             &s->arrivals,
                             &s->exchange,
                             &s->between,
                             &s->pairs,
                             &s->part,
                             &s->gathered,
                             &s->orders,
                             &s->logits,
                             &s->lines,
                             &s->sampling,
                             &s->products};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        *all[i] += s->address;
}

/*
 * What is gathered lies rank by rank, vector by vector, and logits are wanted vector by vector:
 *
 *   [ranks, vectors, slice] ─ rt_take_rows ─> [vectors, ranks, slice]
 */
static enum rt_status write_orders(struct rt_decoder *d, struct rt_error *err)
{
    const struct rt_decoder_scratch *const s = &d->scratch;
    const uint64_t count = order_count(d);
    int32_t *const all = count ? malloc(count * sizeof(*all)) : NULL;
    uint64_t at = 0;
    if (count == 0)
        return RT_OK;
    RT_MODELS_REQUIRE(all, err, RT_ERR_NOMEM, "out of host memory for the orders of logits");
    for (uint32_t i = 0; i < d->product_count; i++) {
        struct rt_decoder_products *const p = &d->products[i];
        p->order = s->orders + at * sizeof(*all);
        for (uint64_t line = 0; line < (uint64_t)p->vectors * d->ranks; line++)
            all[at++] = (int32_t)(line % d->ranks * p->vectors + line / d->ranks);
    }
    const enum rt_status status =
        rt_memory_write(s->memory, s->orders - s->address, all, count * sizeof(*all), err);
    free(all);
    return status;
}

/* The most that it serves: with fewer tokens it serves them all. Whoever asks for split blocks has
 * the operators one by one here too. */
static enum rt_status find_block_tokens(struct rt_decoder *d, bool mixture, uint64_t *exchange,
                                        struct rt_error *err)
{
    struct rt_moe_block_info info = {.struct_size = sizeof(info)};
    uint32_t tokens = d->config.split_blocks ? 0 : RT_DECODER_BLOCK_TOKENS;
    for (; tokens > 0; tokens--) {
        const struct rt_experts_shape shape = rt_decoder_mlp_shape(d, mixture, tokens);
        const enum rt_status status = rt_moe_block_get_info(d->ops, &shape, &info);
        if (status == RT_OK)
            break;
        RT_MODELS_REQUIRE(status == RT_ERR_UNSUPPORTED, err, status, "%s",
                          rt_ops_last_error(d->ops)->message);
    }
    d->block_tokens[mixture] = tokens;
    *exchange = info.exchange_bytes > *exchange ? info.exchange_bytes : *exchange;
    return RT_OK;
}

/* On all ranks alike: a kernel's router need not come to the bits of the operators in its place,
 * and by other bits a token may go to other experts. */
static enum rt_status find_blocks(struct rt_decoder *d, rt_ranks *ranks, uint64_t *exchange,
                                  struct rt_error *err)
{
    bool any[2] = {false, false};
    for (uint32_t l = 0; l < d->model.layers; l++)
        any[d->model.moe_layers[l] != 0] = true;
    for (int mixture = 0; mixture < 2; mixture++)
        if (any[mixture])
            RT_MODELS_TRY(find_block_tokens(d, mixture != 0, exchange, err));
    return ranks ? rt_ranks_least(ranks, d->block_tokens, 2, err) : RT_OK;
}

static enum rt_status clear_exchange(struct rt_decoder_scratch *s, uint64_t bytes,
                                     struct rt_error *err)
{
    void *const zeros = bytes ? calloc(1, bytes) : NULL;
    if (bytes == 0)
        return RT_OK;
    RT_MODELS_REQUIRE(zeros, err, RT_ERR_NOMEM, "out of host memory for %" PRIu64 " bytes", bytes);
    const enum rt_status status =
        rt_memory_write(s->memory, s->exchange - s->address, zeros, bytes, err);
    free(zeros);
    return status;
}

enum rt_status rt_decoder_scratch_make(struct rt_decoder *d, rt_ranks *ranks, struct rt_error *err)
{
    static const int32_t nobody = 0;
    struct rt_decoder_scratch *const s = &d->scratch;
    struct workspaces w = {.products = 0};
    RT_MODELS_TRY(make_products(d, &w.products, err));
    RT_MODELS_TRY(rt_sample_workspace(most_batch(d), rt_decoder_longest_query(d),
                                      d->model.vocab_size, &w.sampling, err));
    RT_MODELS_TRY(pairs_bytes(d, &w.pairs, err));
    RT_MODELS_TRY(find_blocks(d, ranks, &w.exchange, err));
    lay_out(d, &w, s);
    RT_MODELS_TRY(rt_memory_create(d->device, s->bytes, &s->memory, &s->address, err));
    make_addresses(s);
    RT_MODELS_TRY(write_orders(d, err));
    RT_MODELS_TRY(clear_exchange(s, w.exchange, err));
    return rt_memory_write(s->memory, s->arrivals - s->address, &nobody, sizeof(nobody), err);
}

void rt_decoder_scratch_free(struct rt_decoder *d)
{
    for (uint32_t i = 0; i < d->product_count; i++) {
        rt_product_destroy(&d->products[i].router);
        rt_product_destroy(&d->products[i].lm_head);
    }
    free(d->products);
    rt_memory_destroy(&d->scratch.memory);
}
