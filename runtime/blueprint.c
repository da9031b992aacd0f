/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/blueprint.h"

#include "common/math.h"
#include "kernels/abi/prefill.h"
#include "kernels/abi/project.h"
#include "runtime/multiply.h"
#include "runtime/whole_block.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The host device is for development and tests: a fraction of all RAM would serve nobody there. */
#define HOST_BUDGET_BYTES (2ull << 30)

_Static_assert(RT_EXPANDED_MOST_DIM == RT_PREFILL_MOST_DIM, "checked as the kernels have it");

/* Of the operators that attend, the configuration's alone. */
static bool is_asked_for(const struct rt_config *c, enum rt_op_id op)
{
    const bool attends = op == RT_OP_ATTEND || op == RT_OP_ATTEND_QUANT ||
                         op == RT_OP_SPARSE_ATTEND || op == RT_OP_SPARSE_ATTEND_QUANT;
    if (op == RT_OP_MLA_BLOCK) /* graph by graph: runtime/whole_block.h */
        return false;
    return !attends || op == rt_attend_op(c);
}

static enum rt_status resolve_all(const struct rt_config *c, const struct rt_op_request *request,
                                  struct rt_variant *variants, struct rt_error *err)
{
    /* Attention first: of several reasons, its is the one to read. */
    const enum rt_op_id attend = rt_attend_op(c);
    RT_TRY(rt_op_resolve(attend, request, &variants[attend], err));
    for (uint32_t op = 0; op < RT_OP_COUNT; op++)
        if (op != attend && is_asked_for(c, (enum rt_op_id)op))
            RT_TRY(rt_op_resolve((enum rt_op_id)op, request, &variants[op], err));
    return RT_OK;
}

/* Of prompts every token is a row, for what knows rows. */
static enum rt_status choose_chunk_kernels(struct rt_blueprint *b, struct rt_op_request request,
                                           struct rt_error *err)
{
    const struct rt_config *c = &b->config;
    bool expanded = false;
    for (uint32_t i = 0; i < c->chunk_count; i++) {
        rt_chunk_form_choose(c, c->chunks[i], &b->forms[i]);
        expanded = expanded || !b->forms[i].absorbed;
    }
    request.q_len = 1;
    if (expanded) {
        request.nope_dim = c->block.qk_nope_head_dim;
        request.rope_dim = c->geometry.qk_rope_head_dim;
        request.v_dim = c->block.v_head_dim;
    }
    return c->chunk_count ? resolve_all(c, &request, b->chunk_variants, err) : RT_OK;
}

/* Where ranks share a context, each has other lengths: they keep one tile. */
static enum rt_status choose_small_tiles(struct rt_blueprint *b, struct rt_op_request request,
                                         struct rt_error *err)
{
    const struct rt_config *c = &b->config;
    if (c->small_tiles == RT_SMALL_TILES_OFF || c->context_parallel > 1)
        return RT_OK;
    struct rt_small_tile_limits *const small = &b->small_tiles[request.q_len];
    *small = rt_small_tiles_of(rt_attend_op(c), &request);
    for (uint32_t i = 0; i < small->count; i++) {
        request.small_tile_rows = small->tiles[i].tile_rows;
        RT_TRY(resolve_all(c, &request, b->small_variants[request.q_len][i], err));
    }
    return RT_OK;
}

static enum rt_status choose_kernels(struct rt_blueprint *b, const struct rt_kv_format *kv,
                                     struct rt_error *err)
{
    const struct rt_config *c = &b->config;
    struct rt_op_request request = {
        .caps = &b->caps,
        .kv = kv,
        .heads = c->geometry.heads,
        .page_size = c->page_size,
        .backend = c->backend,
        .topk = c->topk,
        .invariant = c->invariant,
    };
    for (uint32_t i = 0; i < c->query_len_count; i++) {
        request.q_len = c->context_parallel > 1 ? 1 : c->query_lens[i];
        RT_TRY(resolve_all(c, &request, b->variants[c->query_lens[i]], err));
        RT_TRY(choose_small_tiles(b, request, err));
    }
    /* What opens and closes a step is the same in all graphs. */
    memcpy(b->variants[0], b->variants[c->query_lens[0]], sizeof(b->variants[0]));
    return choose_chunk_kernels(b, request, err);
}

/* Whether some product of some graph may be the library's. */
static bool needs_workspace(const struct rt_blueprint *b)
{
    return b->caps.kind == RT_DEVICE_KIND_CUDA && b->caps.has_blas &&
           b->config.projections != RT_PROJECTIONS_OWN;
}

/* Into how many parts of k a block's first product is best cut, weights without a bias. */
static uint32_t parts_of_qkv_a(const struct rt_blueprint *b, const struct rt_dims *dims)
{
    const struct rt_block *block = &b->config.block;
    const struct rt_project_params whole = {
        .batch = 1,
        .k = block->hidden_size,
        .w = {{.rows = block->q_lora_rank}, {.rows = dims->kv.d_qk}}};
    return rt_project_parts(&b->caps, &whole);
}

/* Tokens whose q_a and latent may come in parts of k: those of steps with more vectors than few,
 * where our kernels multiply them. 0: there are none. */
static uint32_t most_sum_tokens(const struct rt_blueprint *b, uint32_t parts)
{
    const struct rt_config *c = &b->config;
    uint32_t most = 0;
    if (parts == 1 || b->caps.cc != 90 || c->block.q_lora_rank == 0 || c->kv_layout != RT_KV_BF16 ||
        c->precision == RT_PRECISION_F32 || c->projections == RT_PROJECTIONS_CUBLASLT)
        return 0;
    for (uint32_t i = 0; i < b->spec_count; i++) {
        const uint32_t tokens = b->specs[i].rows * rt_spec_query_len(&b->specs[i]);
        if (!rt_spec_is_chunk(&b->specs[i]) && tokens > RT_OWN_MOST_VECTORS &&
            tokens <= RT_OWN_MANY_MOST_VECTORS)
            most = rt_max_u32(most, tokens);
    }
    return most;
}

static void fill_block_dims(const struct rt_blueprint *b, struct rt_dims *dims)
{
    const struct rt_config *c = &b->config;
    const struct rt_block *block = &c->block;
    const uint32_t rope = c->geometry.qk_rope_head_dim, heads = c->geometry.heads;
    const uint32_t q = heads * (block->qk_nope_head_dim + rope);
    const bool turns = rope > 0 && block->rope.type != RT_ROPE_NONE;
    dims->hidden = block->hidden_size;
    dims->input_norm_rows = c->input_norm ? dims->bucket_max : 0;
    dims->a_width = (block->q_lora_rank ? block->q_lora_rank : q) + dims->kv.d_qk;
    dims->q_width = block->q_lora_rank ? q : 0;
    dims->sum_parts = parts_of_qkv_a(b, dims);
    dims->sum_tokens = most_sum_tokens(b, dims->sum_parts);
    dims->v_width = rt_blueprint_out_heads(b) * block->v_head_dim;
    dims->rope_positions = turns ? c->max_length : 0;
    dims->rope_pairs = turns ? rope / 2 : 0;
    dims->query_scales = block->rope.query_scale_beta > 0.0 ? c->max_length : 0;
    dims->workspace_bytes = needs_workspace(b) ? RT_WORKSPACE_BYTES : 0;
    dims->exchange_bytes = rt_exchanges_bytes(b);
}

/* Those of one size beside its graph for any lengths: by tiles smaller than the one that max_length
 * alone lets it have, but none where no step has so few blocks, for every row has one. Of a graph
 * whose blocks are one kernel each, nothing attends. */
static void add_small_specs_of(struct rt_blueprint *b, uint32_t i)
{
    const uint32_t query_lens = b->config.query_len_count;
    const uint32_t least_rows = i < query_lens ? 1 : b->specs[i - query_lens].rows + 1;
    const struct rt_graph_spec *const spec = &b->specs[i];
    const struct rt_small_tile_limits *const small = &b->small_tiles[rt_spec_query_len(spec)];
    struct rt_variant whole;
    if (b->config.layer && rt_whole_block_resolve(b, spec, &whole, NULL) == RT_OK)
        return;
    for (uint32_t tile = rt_blueprint_small_tile(b, spec); tile-- > 0;) {
        if (!rt_small_tile_serves(&small->tiles[tile], spec->rows, least_rows))
            continue;
        struct rt_graph_spec *const added = &b->specs[b->spec_count++];
        *added = *spec;
        added->most_blocks = small->tiles[tile].blocks;
    }
}

/* Behind the graphs for any number of blocks those for few. */
static void add_small_specs(struct rt_blueprint *b)
{
    const uint32_t count = b->spec_count;
    for (uint32_t i = 0; b->config.small_tiles == RT_SMALL_TILES_AUTO && i < count; i++)
        add_small_specs_of(b, i);
}

static void add_chunk_specs(struct rt_blueprint *b)
{
    const struct rt_config *c = &b->config;
    const struct rt_spec_beside beside = {.rows = c->mixed_rows,
                                          .query_lens = c->query_lens,
                                          .row_count = c->mixed_row_count,
                                          .query_len_count = c->query_len_count};
    for (uint32_t i = 0; i < c->chunk_count; i++) {
        const struct rt_graph_spec chunk = {.phase = RT_PHASE_CHUNK,
                                            .rows = rt_chunk_prefill_rows(c),
                                            .tokens = c->chunks[i],
                                            .absorbed = b->forms[i].absorbed,
                                            .pieces = b->forms[i].pieces};
        b->spec_count += rt_specs_of_chunk(&chunk, &beside, b->specs + b->spec_count);
    }
}

static void add_chunk(const struct rt_blueprint *b, const struct rt_graph_spec *spec,
                      const struct rt_chunk_form *form, struct rt_dims *dims)
{
    const uint32_t chunk = rt_spec_chunk(spec);
    uint32_t *const most = spec->absorbed ? &dims->absorbed : &dims->expanded;
    *most = rt_max_u32(*most, chunk);
    dims->chunk = rt_max_u32(dims->chunk, chunk);
    dims->chunk_rows = rt_max_u32(dims->chunk_rows, spec->rows);
    dims->chunk_tokens = rt_max_u32(dims->chunk_tokens, spec->tokens);
    dims->pieces = rt_max_u32(dims->pieces, spec->pieces);
    dims->prefill_rows = rt_spec_prefill_rows(spec);
    if (form->absorbed)
        return;
    dims->context_piece = form->piece;
    dims->kv_width =
        b->config.geometry.heads * (b->config.block.qk_nope_head_dim + b->config.block.v_head_dim);
}

/* Where ranks share a context, query tokens are rows of their own. */
static bool attends_by_token(const struct rt_config *c)
{
    return c->topk || c->context_parallel > 1;
}

uint32_t rt_blueprint_attend_rows(const struct rt_blueprint *b, const struct rt_graph_spec *spec)
{
    const uint32_t rows = rt_spec_is_chunk(spec) ? spec->decode_rows : spec->rows;
    return attends_by_token(&b->config) ? rows * rt_spec_query_len(spec) : rows;
}

/* Most partial rows of a schedule of `rows` rows of query_len tokens, and its parts. */
static void add_schedule(const struct rt_blueprint *b, const struct rt_variant *variants,
                         uint32_t rows, uint32_t query_len, struct rt_dims *dims)
{
    const struct rt_variant *attend = rt_attend_variant(b, variants);
    const bool by_token = attends_by_token(&b->config);
    /* Drafts and padding of a sequence that is nearly full count, too. */
    const uint32_t blocks =
        rt_ceil_div_u32(b->config.max_length + RT_MAX_QUERY_LEN, RT_BLOCK_TOKENS);
    const uint64_t slots = rt_max_split_slots(attend, by_token ? rows * query_len : rows, blocks);
    dims->parts_max = rt_max_u32(dims->parts_max, attend->parts);
    dims->partial_rows =
        rt_max_u64(dims->partial_rows, slots * dims->heads * (by_token ? 1 : query_len));
}

/* A chunk's prompts have one where they are absorbed, and what decodes beside them. */
static void add_schedules(const struct rt_blueprint *b, const struct rt_graph_spec *spec,
                          struct rt_dims *dims)
{
    const uint32_t query_len = rt_spec_query_len(spec);
    if (!rt_spec_is_chunk(spec)) {
        add_schedule(b, rt_blueprint_variants(b, spec), spec->rows, query_len, dims);
        return;
    }
    add_schedule(b, b->chunk_variants, spec->absorbed ? rt_spec_chunk(spec) : 0, 1, dims);
    add_schedule(b, rt_blueprint_beside(b, spec), spec->decode_rows, query_len, dims);
}

static void fill_dims(const struct rt_blueprint *b, const struct rt_kv_format *kv, uint64_t pages,
                      struct rt_dims *dims)
{
    const struct rt_config *c = &b->config;
    *dims = (struct rt_dims){
        .kv = *kv,
        .heads = c->geometry.heads,
        .layers = c->geometry.layers,
        .slots = c->max_sequences,
        .max_length = c->max_length,
        .page_size = c->page_size,
        .context = c->context_parallel,
        .pages = pages,
        .rows = (uint32_t)rt_specs_capacity(b->specs, b->spec_count, c->max_sequences),
        .ring_depth = c->ring_depth,
        .per_layer = c->tensors == RT_TENSORS_PER_LAYER,
        .topk = c->topk,
        .has_sinks = c->sinks,
    };
    dims->is_f32 = c->precision == RT_PRECISION_F32;
    for (uint32_t i = 0; i < b->spec_count; i++) {
        const struct rt_graph_spec *const spec = &b->specs[i];
        add_schedules(b, spec, dims);
        dims->bucket_max = rt_max_u32(dims->bucket_max, spec->rows);
        dims->q_max = rt_max_u32(dims->q_max, rt_spec_query_len(spec));
        if (rt_spec_is_chunk(spec))
            add_chunk(b, spec, rt_blueprint_form(b, spec), dims);
    }
    dims->rows = rt_max_u32(dims->rows, dims->bucket_max);
    if (c->layer && c->chunk_count)
        dims->rows = rt_max_u32(dims->rows, (uint32_t)rt_specs_capacity_behind(
                                                b->specs, b->spec_count, c->max_sequences));
    if (c->layer)
        fill_block_dims(b, dims);
}

/* Pages that the memory budget holds, and no more than all sequences at full length can use. */
static enum rt_status budget_pages(struct rt_blueprint *b, const struct rt_kv_format *kv,
                                   uint64_t free_bytes, uint64_t *pages, struct rt_error *err)
{
    const struct rt_config *c = &b->config;
    struct rt_dims dims;
    struct rt_placement probe;
    fill_dims(b, kv, 1, &dims);
    RT_TRY(rt_placement_make(&dims, &probe, err));

    if (b->caps.kind == RT_DEVICE_KIND_HOST && free_bytes > HOST_BUDGET_BYTES)
        free_bytes = HOST_BUDGET_BYTES;
    uint64_t budget = (uint64_t)((double)free_bytes * c->memory_fraction);
    uint64_t page_bytes = rt_placement_page_bytes(&dims);
    uint64_t useful = (uint64_t)c->max_sequences * probe.max_blocks;
    uint64_t fit = 0;
    if (page_bytes && budget > probe.arena_bytes)
        fit = (budget - probe.arena_bytes) / page_bytes;
    RT_REQUIRE(fit, err, RT_ERR_DEVICE_MEMORY,
               "no KV page fits: %.3g of %" PRIu64 " free bytes is %" PRIu64
               ", the arena takes %" PRIu64 " and one page of all layers %" PRIu64,
               c->memory_fraction, free_bytes, budget, probe.arena_bytes, page_bytes);
    *pages = fit < useful ? fit : useful;
    b->pages_limit = fit < useful ? RT_LIMIT_MEMORY : RT_LIMIT_SEQUENCES;
    return RT_OK;
}

void rt_blueprint_info(const struct rt_blueprint *b, struct rt_info *info)
{
    const struct rt_placement *l = &b->placement;
    info->host = b->caps.kind == RT_DEVICE_KIND_HOST;
    snprintf(info->device, sizeof(info->device), "%s", b->caps.name);
    info->sm_count = b->caps.sm_count;
    info->graphs = b->spec_count;
    info->pages = l->dims.pages;
    info->arena_bytes = l->arena_bytes;
    info->pool_bytes = l->pool_bytes;
    info->mapped_bytes = l->mapped_bytes;
    info->tokens = l->dims.pages * rt_blueprint_page_tokens(b);
    info->full_sequences = l->dims.pages / l->max_blocks;
    info->memory_bytes = b->free_bytes;
    info->pages_limit = b->pages_limit;
    info->kv_token_bytes = l->dims.kv.token_bytes;
    info->kv_layout = l->dims.kv.name;
}

enum rt_status rt_blueprint_make(const struct rt_config *config, const struct rt_device_caps *caps,
                                 uint64_t free_bytes, struct rt_blueprint *out,
                                 struct rt_error *err)
{
    struct rt_kv_format kv;
    struct rt_dims dims;
    RT_TRY(rt_config_check(config, err));
    *out = (struct rt_blueprint){.config = *config,
                                 .caps = *caps,
                                 .control = {.phase = RT_PHASE_CONTROL},
                                 .free_bytes = free_bytes};
    RT_REQUIRE(rt_kv_format_make(config->kv_layout, config->precision,
                                 config->geometry.kv_lora_rank + config->geometry.qk_rope_head_dim,
                                 config->geometry.kv_lora_rank, &kv),
               err, RT_ERR_CONFIG, "kv_layout %d of d_v %u is not known", (int)config->kv_layout,
               config->geometry.kv_lora_rank);
    RT_REQUIRE(config->precision == RT_PRECISION_BF16 || caps->kind == RT_DEVICE_KIND_HOST, err,
               RT_ERR_UNSUPPORTED,
               "precision f32 is the host device's alone, this is %s: must be bf16", caps->name);
    RT_REQUIRE(config->projections != RT_PROJECTIONS_CUBLASLT || caps->has_blas, err,
               RT_ERR_UNSUPPORTED, "projections cublaslt: %s has none", caps->name);
    RT_TRY(choose_kernels(out, &kv, err));
    out->spec_count = rt_specs_of_buckets(config->batch_sizes, config->batch_size_count,
                                          config->query_lens, config->query_len_count, out->specs);
    add_small_specs(out);
    add_chunk_specs(out);
    uint64_t pages = config->pages;
    if (!pages)
        RT_TRY(budget_pages(out, &kv, free_bytes, &pages, err));
    fill_dims(out, &kv, pages, &dims);
    return rt_placement_make(&dims, &out->placement, err);
}
