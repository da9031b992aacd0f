/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/whole_block.h"

#include "common/math.h"
#include "kernels/abi/mla_block.h"

/*
 * Where the chain may be quicker. Arithmetic alone stands behind it. There is no limit of lengths,
 * for those of a step are not known here (docs/mla_block.md, "Which is quicker").
 *
 * A vector of the block reads its row's keys for itself, for each 16 heads once more, where the
 * chain's attention reads them once a row. At 4096 tokens a vector costs the block 1.9 us (29.4 us
 * for one, 42.9 for eight), and the chain 0.4 without and 1.9 with a row of its own (39.4 and
 * 52.4). So 10 us of advantage are gone at six readings that the chain has not.
 */
#define MOST_AGAIN 4u /* readings of a row's keys beyond its first */

static enum rt_status check_cost(const struct rt_config *c, const struct rt_graph_spec *spec,
                                 struct rt_error *err)
{
    const uint32_t vectors = spec->rows * rt_spec_query_len(spec);
    const uint32_t again = vectors * rt_mla_block_groups(c->geometry.heads) - spec->rows;
    RT_REQUIRE(again <= MOST_AGAIN, err, RT_ERR_UNSUPPORTED,
               "a chain is quicker: mla_block would read keys of %u rows %u times more, for %u "
               "tokens of %u heads, at most %u pay",
               spec->rows, again, rt_spec_query_len(spec), c->geometry.heads, MOST_AGAIN);
    return RT_OK;
}

/* Of a configuration's own wishes, and of dimensions that the kernel takes for granted. */
static enum rt_status check_config(const struct rt_config *c, struct rt_error *err)
{
    RT_REQUIRE(!c->split_blocks, err, RT_ERR_UNSUPPORTED, "split_blocks asks for chains");
    RT_REQUIRE(c->projections != RT_PROJECTIONS_CUBLASLT, err, RT_ERR_UNSUPPORTED,
               "projections cublaslt: a library multiplies");
    RT_REQUIRE(c->context_parallel <= 1, err, RT_ERR_UNSUPPORTED,
               "mla_block has all tokens of its rows, not those of one of %u ranks",
               c->context_parallel);
    RT_REQUIRE(c->geometry.layers >= 2, err, RT_ERR_UNSUPPORTED,
               "%u layer, at least 2 blank each other's exchanges", c->geometry.layers);
    RT_REQUIRE(!c->invariant && !c->sinks && !c->topk, err, RT_ERR_UNSUPPORTED,
               "mla_block has no batch-invariant attention, no sinks and no listed keys");
    RT_REQUIRE(
        c->block.qk_nope_head_dim == RT_MLA_BLOCK_NOPE && c->block.v_head_dim == RT_MLA_BLOCK_VALUE,
        err, RT_ERR_UNSUPPORTED,
        "mla_block serves heads of %u numbers without RoPE and %u values, not %u and %u",
        RT_MLA_BLOCK_NOPE, RT_MLA_BLOCK_VALUE, c->block.qk_nope_head_dim, c->block.v_head_dim);
    return RT_OK;
}

/* What is known before there is an address: whether something is there, not where. */
static struct rt_mla_block_params shape_of(const struct rt_config *c,
                                           const struct rt_graph_spec *spec)
{
    static const uint16_t weight;
    static const float number;
    const struct rt_block *block = &c->block;
    const bool turns = block->rope.type != RT_ROPE_NONE;
    const struct rt_norm_view norm = {.weight = &weight,
                                      .offset = block->norm_one_plus ? 1.0f : 0.0f};
    struct rt_mla_block_params p = {
        .rows = {.count = spec->rows, .q_len = rt_spec_query_len(spec)},
        .kv = {.page_size = c->page_size},
        .kv_a_norm = norm,
        .rope = {.table = turns ? &number : NULL,
                 .query_scale = block->rope.query_scale_beta > 0.0 ? &number : NULL,
                 .half_order = block->rope.order == RT_ROPE_HALF},
        .hidden_size = block->hidden_size,
        .q_rank = block->q_lora_rank,
        .heads = c->geometry.heads,
    };
    if (c->input_norm)
        p.input_norm = norm;
    if (block->q_lora_rank)
        p.q_a_norm = norm;
    return p;
}

enum rt_status rt_whole_block_resolve(const struct rt_blueprint *b,
                                      const struct rt_graph_spec *spec, struct rt_variant *out,
                                      struct rt_error *err)
{
    const struct rt_config *c = &b->config;
    struct rt_kv_format kv;
    RT_REQUIRE(c->layer && spec->phase == RT_PHASE_DECODE, err, RT_ERR_UNSUPPORTED,
               "mla_block serves steps of whole blocks");
    RT_TRY(check_config(c, err));
    RT_REQUIRE(rt_kv_format_make(c->kv_layout, c->precision,
                                 c->geometry.kv_lora_rank + c->geometry.qk_rope_head_dim,
                                 c->geometry.kv_lora_rank, &kv),
               err, RT_ERR_UNSUPPORTED, "mla_block serves no cache of layout %d",
               (int)c->kv_layout);
    const struct rt_mla_block_params shape = shape_of(c, spec);
    const struct rt_op_request request = {.caps = &b->caps,
                                          .kv = &kv,
                                          .heads = c->geometry.heads,
                                          .q_len = rt_spec_query_len(spec),
                                          .page_size = c->page_size,
                                          .backend = c->backend,
                                          .mla_block = &shape};
    RT_TRY(rt_op_resolve(RT_OP_MLA_BLOCK, &request, out, err));
    return check_cost(c, spec, err);
}

static struct rt_exchanges exchanges_at(const struct rt_blueprint *b,
                                        const struct rt_graph_spec *spec, uint64_t offset)
{
    const struct rt_config *c = &b->config;
    struct rt_variant variant;
    struct rt_exchanges e = {.offset = offset};
    struct rt_error why_not;
    if (rt_whole_block_resolve(b, spec, &variant, &why_not) != RT_OK)
        return e;
    e.bytes = rt_align_up_u64(rt_mla_block_exchange_bytes(spec->rows * rt_spec_query_len(spec),
                                                          c->block.q_lora_rank, c->geometry.heads),
                              RT_TENSOR_ALIGN);
    e.count = 2 + c->geometry.layers % 2;
    return e;
}

/* Of the graphs in front of `end`. */
static uint64_t bytes_before(const struct rt_blueprint *b, const struct rt_graph_spec *end)
{
    uint64_t bytes = 0;
    for (const struct rt_graph_spec *spec = b->specs; b->config.layer && spec < end; spec++) {
        const struct rt_exchanges e = exchanges_at(b, spec, bytes);
        bytes += e.bytes * e.count;
    }
    return bytes;
}

struct rt_exchanges rt_exchanges_of(const struct rt_blueprint *b, const struct rt_graph_spec *spec)
{
    return exchanges_at(b, spec, bytes_before(b, spec));
}

uint64_t rt_exchanges_bytes(const struct rt_blueprint *b)
{
    return bytes_before(b, b->specs + b->spec_count);
}
