/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MLA block as stages:
 *
 *   hidden ─(input_norm)─> qkv_a ─> (preattend: q_a) ─> q_b ─> preattend, w_uk ─> attend, reduce
 *                                                                                       │
 *   hidden <─ o_proj <─ w_uv <──────────────────────────────────────────────────────────┘
 *
 * The norm of q's low-rank vector is part of q_b where our kernel for few vectors multiplies, and
 * of a preattend of its own where another does. Without q_lora_rank there is no q_b: qkv_a gives q
 * itself. preattend and w_uk are one node, preattend_absorb, where one kernel does both.
 */
#include "kernels/abi/preattend_absorb.h"
#include "runtime/recipe_product.h"

static const struct rt_config *config_of(const struct recipe *b)
{
    return &b->s->blueprint->config;
}

/* ---- weights --------------------------------------------------------------------------------- */

/* A head's W_UK [P, L] or W_UV [V, L] in kv_b_proj as it lies, of head `head` and those behind it:
 * `skip` rows into each head's. */
static struct rt_weight_view kv_b(const struct recipe *b, uint32_t layer, uint32_t head,
                                  uint32_t skip)
{
    const struct rt_block *block = &config_of(b)->block;
    struct rt_weight_view w = rt_recipe_weight(b, layer, RT_WEIGHT_KV_B, RT_WEIGHT_COUNT);
    w.batch_stride = ((int64_t)block->qk_nope_head_dim + block->v_head_dim) * w.row_stride;
    w.base += head * w.batch_stride + skip * w.row_stride;
    w.rows = block->v_head_dim;
    return w;
}

/* ---- the block ------------------------------------------------------------------------------- */

static struct recipe_vectors packed(const struct recipe *b, enum rt_tensor_id id, uint32_t width)
{
    return (struct recipe_vectors){.base = rt_recipe_at_span(b, id, 0, width), .row_stride = width};
}

/* Head by head within each token. */
static struct recipe_vectors of_heads(const struct recipe *b, enum rt_tensor_id id, uint32_t heads,
                                      uint32_t width)
{
    const uint64_t row = (uint64_t)heads * width;
    return (struct recipe_vectors){.base = rt_recipe_at_span(b, id, 0, row),
                                   .batch_stride = width,
                                   .row_stride = (int64_t)row};
}

static struct recipe_product qkv_a(const struct recipe *b, uint32_t layer)
{
    const struct rt_config *c = config_of(b);
    const bool lora = c->block.q_lora_rank > 0;
    return (struct recipe_product){
        .name = "qkv_a",
        .x = packed(b, c->input_norm ? RT_TENSOR_NORMED : RT_TENSOR_HIDDEN, c->block.hidden_size),
        .y = packed(b, RT_TENSOR_QKV_A, b->s->blueprint->placement.dims.a_width),
        .w = {lora ? rt_recipe_weight(b, layer, RT_WEIGHT_Q_A, RT_WEIGHT_Q_A_BIAS)
                   : rt_recipe_weight(b, layer, RT_WEIGHT_Q, RT_WEIGHT_Q_BIAS),
              rt_recipe_weight(b, layer, RT_WEIGHT_KV_A, RT_WEIGHT_KV_A_BIAS)},
        .batch = 1,
        .k = c->block.hidden_size,
    };
}

static struct recipe_product q_b(const struct recipe *b, uint32_t layer)
{
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    const struct rt_block *block = &config_of(b)->block;
    return (struct recipe_product){
        .name = "q_b",
        .x = packed(b, RT_TENSOR_QKV_A, dims->a_width),
        .y = packed(b, RT_TENSOR_Q_FULL, dims->q_width),
        .w = {rt_recipe_weight(b, layer, RT_WEIGHT_Q_B, RT_WEIGHT_Q_B_BIAS)},
        .norm = rt_recipe_norm(b, layer, RT_WEIGHT_Q_A_NORM, block->norm_eps, block->q_a_scale),
        .batch = 1,
        .k = block->q_lora_rank,
    };
}

/* A preattend norms what q_b multiplies, in a node of its own. */
static bool norms_in_front(const struct recipe *b, const struct recipe_product *q)
{
    const char *reason;
    return rt_recipe_by_library(b, q, &reason) || rt_recipe_norms_apart(b, q);
}

/* By the library, behind the cache's new tokens: an expanded chunk has more to do meanwhile. */
static enum rt_status add_q_b(struct recipe *b, uint32_t layer, const struct recipe_product *q)
{
    if (!rt_spec_is_chunk(b->spec) || b->spec->absorbed)
        return rt_recipe_add_product(b, layer, q);
    b->p->branch = 1;
    RT_TRY(rt_recipe_add_product(b, layer, q));
    return rt_recipe_add_ahead(b, layer);
}

/* qkv_a in parts of k, which the preattend in front of q_b adds up. False: it is left whole. */
static bool cut_qkv_a(const struct recipe *b, const struct recipe_product *whole,
                      struct recipe_product *out)
{
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    const struct rt_project_params params = rt_recipe_project(b, whole);
    const char *reason;
    if (rt_spec_is_chunk(b->spec) || !rt_recipe_are_many(b) ||
        rt_recipe_tokens(b) > dims->sum_tokens || !rt_recipe_lies_along_k(&whole->w[0]) ||
        !rt_recipe_lies_along_k(&whole->w[1]))
        return false;
    const uint32_t parts = rt_project_parts(&b->s->blueprint->caps, &params);
    *out = *whole;
    out->batch = parts;
    out->k /= parts;
    out->x.batch_stride = out->w[0].batch_stride = out->w[1].batch_stride = out->k;
    out->y = (struct recipe_vectors){.base = rt_recipe_at(b, RT_TENSOR_QKV_SUMS, 0),
                                     .batch_stride = (int64_t)dims->sum_tokens * dims->a_width,
                                     .row_stride = dims->a_width};
    out->y_f32 = true;
    return parts > 1 && rt_recipe_streams(b, out) && !rt_recipe_by_library(b, out, &reason);
}

/* The norm of what q_b multiplies, and the latent, behind qkv_a; cut: of its parts. */
static enum rt_status add_norm(struct recipe *b, uint32_t layer, const struct recipe_product *cut,
                               const struct rt_preattend_params *params)
{
    if (!cut)
        return rt_recipe_add_preattend(b, layer, params);
    const float *first = cut->y.base;
    const struct rt_preattend_sums_params p = {.preattend = *params,
                                               .sums = {.q_a = first,
                                                        .kv_a = first + cut->w[0].rows,
                                                        .stride = cut->y.batch_stride,
                                                        .parts = cut->batch}};
    return rt_recipe_add_op(b, RT_OP_PREATTEND_SUMS, layer, &p, sizeof(p));
}

/* qkv_a, the norm of what q_b multiplies with the latent, and q_b. */
static enum rt_status add_normed(struct recipe *b, uint32_t layer, const struct recipe_product *a,
                                 const struct recipe_product *q, struct rt_preattend_params *params)
{
    struct recipe_product cut, normed = *q;
    struct rt_preattend_params first = *params;
    const bool is_cut = cut_qkv_a(b, a, &cut);
    first.q_in.base = NULL;
    params->kv_a.base = NULL;
    normed.norm.weight = NULL;
    RT_TRY(rt_recipe_add_product(b, layer, is_cut ? &cut : a));
    RT_TRY(add_norm(b, layer, is_cut ? &cut : NULL, &first));
    return add_q_b(b, layer, &normed);
}

/* From hidden to q and latent. *out: what is left of preattend. */
static enum rt_status add_query(struct recipe *b, uint32_t layer, struct rt_preattend_params *out)
{
    if (config_of(b)->input_norm)
        RT_TRY(rt_recipe_add_input_norm(b, layer));
    const struct recipe_product a = qkv_a(b, layer), q = q_b(b, layer);
    *out = rt_recipe_preattend_params(b, layer);
    if (config_of(b)->block.q_lora_rank && norms_in_front(b, &q)) {
        RT_TRY(add_normed(b, layer, &a, &q, out));
    } else {
        RT_TRY(rt_recipe_add_product(b, layer, &a));
        if (config_of(b)->block.q_lora_rank)
            RT_TRY(rt_recipe_add_product(b, layer, &q));
    }
    out->q_a.base = NULL;
    return RT_OK;
}

enum rt_status rt_recipe_add_query(struct recipe *b, uint32_t layer)
{
    struct rt_preattend_params rest;
    RT_TRY(add_query(b, layer, &rest));
    return rt_recipe_add_preattend(b, layer, &rest);
}

struct rt_heads_view rt_recipe_full_query(const struct recipe *b)
{
    return rt_recipe_preattend_params(b, 0).q_in;
}

enum rt_status rt_recipe_add_expansion(struct recipe *b, uint32_t layer)
{
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    struct recipe_product p = {
        .name = "kv_b",
        .x = packed(b, RT_TENSOR_EXPANDED_LATENT, dims->kv.d_qk),
        .y = packed(b, RT_TENSOR_EXPANDED_KV, dims->kv_width),
        .w = {kv_b(b, layer, 0, 0)},
        .batch = 1,
        .k = config_of(b)->geometry.kv_lora_rank,
    };
    p.w[0].rows = dims->kv_width;
    p.w[0].batch_stride = 0;
    return rt_recipe_add_product(b, layer, &p);
}

/* q's first part becomes a query of latents: per head q nope [P] times W_UK [P, L]. */
static struct recipe_product absorb(const struct recipe *b, uint32_t layer,
                                    const struct rt_heads_view *q_in)
{
    const struct rt_config *c = config_of(b);
    struct recipe_product p = {
        .name = "w_uk",
        .x = {.base = q_in->base,
              .batch_stride = q_in->head_stride,
              .row_stride = q_in->token_stride},
        .y = of_heads(b, RT_TENSOR_Q, c->geometry.heads, b->s->blueprint->placement.dims.kv.d_qk),
        .w = {kv_b(b, layer, 0, 0)},
        .batch = c->geometry.heads,
        .k = c->block.qk_nope_head_dim,
    };
    const int64_t along_p = p.w[0].row_stride;
    p.w[0].row_stride = p.w[0].column_stride;
    p.w[0].column_stride = along_p;
    p.w[0].rows = c->geometry.kv_lora_rank;
    return p;
}

enum rt_status rt_recipe_add_absorption(struct recipe *b, uint32_t layer)
{
    const struct rt_preattend_params q = rt_recipe_preattend_params(b, layer);
    const struct recipe_product p = absorb(b, layer, &q.q_in);
    return rt_recipe_add_product(b, layer, &p);
}

/* With more heads the product is most of both, and of more tokens takes longer where blocks of the
 * other kind are among its own, an SM's one (docs/notebook.md). */
#define MOST_SHARED_HEADS 32u
#define MANY_HEADS_MOST_TOKENS 8u

static bool may_share(const struct recipe_product *p, uint32_t tokens)
{
    return p->batch <= MOST_SHARED_HEADS || tokens <= MANY_HEADS_MOST_TOKENS;
}

/* preattend and the product behind it as one node. False: no kernel does both; none quantises. */
static bool resolve_shared(const struct recipe *b, const struct rt_preattend_absorb_params *params,
                           struct rt_variant *variant)
{
    if (params->preattend.kv_a.base && rt_recipe_is_quantised(b))
        return false;
    struct rt_error why_not = {0};
    const struct rt_op_request request = {.caps = &b->s->blueprint->caps,
                                          .backend = config_of(b)->backend,
                                          .preattend_absorb = params};
    return rt_op_resolve(RT_OP_PREATTEND_ABSORB, &request, variant, &why_not) == RT_OK;
}

static enum rt_status add_shared(struct recipe *b, uint32_t layer, const char *reason,
                                 const struct rt_preattend_absorb_params *params,
                                 const struct rt_variant *variant)
{
    struct rt_work work;
    RT_TRY(rt_op_build(b->s->kernels, variant, params, sizeof(*params), &work, b->err));
    RT_TRY(rt_recipe_add(b, rt_op_name(variant->op), layer, &work));
    rt_recipe_note_kernel(b, variant);
    rt_recipe_put_in_front(reason, b->p->stages[b->p->count - 1].reason);
    return RT_OK;
}

/* The product reads nothing that preattend writes: there are no factors, and queries of padding,
 * which preattend makes zeros, are zeros already, for so is what q_b has multiplied. */
static bool may_be_beside(const struct recipe *b, uint32_t layer,
                          const struct rt_preattend_params *preattend)
{
    if (preattend->rope.query_scale || config_of(b)->block.q_lora_rank == 0)
        return false;
    const struct recipe_product q = q_b(b, layer);
    return norms_in_front(b, &q) && !q.w[0].bias;
}

static enum rt_status add_beside(struct recipe *b, uint32_t layer,
                                 const struct recipe_product *product,
                                 const struct rt_preattend_params *preattend)
{
    b->p->tight = true;
    b->p->branch = 1;
    RT_TRY(rt_recipe_add_product(b, layer, product));
    b->p->branch = 2;
    RT_TRY(rt_recipe_add_preattend(b, layer, preattend));
    b->p->branch = RT_TRUNK;
    b->p->tight = false;
    return RT_OK;
}

/* From q and latent to what attention reads. */
static enum rt_status add_absorbed(struct recipe *b, uint32_t layer,
                                   const struct rt_preattend_params *preattend)
{
    const struct recipe_product p = absorb(b, layer, &preattend->q_in);
    const struct rt_preattend_absorb_params both = {.preattend = *preattend,
                                                    .absorb = rt_recipe_project(b, &p)};
    struct rt_variant variant;
    const char *reason;
    if (!rt_recipe_by_library(b, &p, &reason) && may_share(&p, both.absorb.m) &&
        resolve_shared(b, &both, &variant))
        return add_shared(b, layer, reason, &both, &variant);
    if (!may_be_beside(b, layer, preattend)) {
        RT_TRY(rt_recipe_add_preattend(b, layer, preattend));
        return rt_recipe_add_product(b, layer, &p);
    }
    return add_beside(b, layer, &p, preattend);
}

enum rt_status rt_recipe_add_values(struct recipe *b, uint32_t layer)
{
    const struct rt_config *c = config_of(b);
    const uint32_t heads = rt_blueprint_out_heads(b->s->blueprint);
    const uint32_t first = b->s->blueprint->context_rank * heads;
    const struct recipe_product values = {
        .name = "w_uv",
        .x = of_heads(b, RT_TENSOR_OUT, heads, b->s->blueprint->placement.dims.kv.d_v),
        .y = of_heads(b, RT_TENSOR_VALUES, heads, c->block.v_head_dim),
        .w = {kv_b(b, layer, first, c->block.qk_nope_head_dim)},
        .batch = heads,
        .k = c->geometry.kv_lora_rank,
    };
    return rt_recipe_add_product(b, layer, &values);
}

enum rt_status rt_recipe_add_hidden(struct recipe *b, uint32_t layer)
{
    const struct rt_config *c = config_of(b);
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    const struct recipe_product hidden = {
        .name = "o_proj",
        .x = packed(b, RT_TENSOR_VALUES, dims->v_width),
        .y = packed(b, RT_TENSOR_HIDDEN, c->block.hidden_size),
        .w = {rt_recipe_weight(b, layer, RT_WEIGHT_O, rt_recipe_output_bias(b))},
        .batch = 1,
        .k = dims->v_width,
    };
    RT_TRY(rt_recipe_add_product(b, layer, &hidden));
    return rt_recipe_add_sum(b, layer);
}

static enum rt_status add_attention(struct recipe *b, uint32_t layer)
{
    if (rt_recipe_is_listed(b))
        return rt_recipe_add_listed(b, layer);
    RT_TRY(rt_recipe_add_attend(b, layer));
    return rt_recipe_add_reduce(b, layer);
}

enum rt_status rt_recipe_add_block(struct recipe *b, uint32_t layer)
{
    struct rt_preattend_params rest;
    RT_TRY(add_query(b, layer, &rest));
    RT_TRY(add_absorbed(b, layer, &rest));
    RT_TRY(add_attention(b, layer));
    if (rt_recipe_has_context(b))
        RT_TRY(rt_recipe_add_context(b, layer));
    RT_TRY(rt_recipe_add_values(b, layer));
    return rt_recipe_add_hidden(b, layer);
}
