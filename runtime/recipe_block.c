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
#include "common/math.h"
#include "kernels/abi/preattend_absorb.h"
#include "runtime/multiply.h"
#include "runtime/recipe_parts.h"

#include <stdio.h>

/* Where vectors lie: [batch, m, k], k packed. */
struct vectors {
    void *base;
    int64_t batch_stride, row_stride;
};

/* One product, y = norm(x) w^T + bias; w[1].rows 0: there is one weight. */
struct product {
    const char *name;
    struct vectors x, y;
    struct rt_weight_view w[2];
    struct rt_norm_view norm;
    uint32_t batch, k;
    uint32_t vectors; /* 0: the span's tokens */
};

/* The library has no way for some products of more that is kernels alone: they are several. */
#define MOST_LIBRARY_VECTORS 2048u
#define MOST_LIBRARY_OUTPUTS (1u << 23) /* docs/notebook.md, "Prompts in chunks" */

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

/* ---- products -------------------------------------------------------------------------------- */

static bool lies_along_k(const struct rt_weight_view *w)
{
    return w->column_stride == 1;
}

static uint32_t vectors_of(const struct recipe *b, const struct product *p)
{
    return p->vectors ? p->vectors : rt_recipe_tokens(b);
}

/* Of one weight; y at `column` of its rows. */
static struct rt_matmul matmul_of(const struct recipe *b, const struct product *p,
                                  const struct rt_weight_view *w, uint32_t column)
{
    const bool is_f32 = config_of(b)->precision == RT_PRECISION_F32;
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    return (struct rt_matmul){
        .a = (uintptr_t)p->x.base,
        .b = (uintptr_t)w->base,
        .bias = (uintptr_t)w->bias,
        .d = (uintptr_t)rt_recipe_behind(b, p->y.base, column),
        .input_dtype = is_f32 ? RT_DTYPE_F32 : RT_DTYPE_BF16,
        .weight_dtype = RT_DTYPE_BF16,
        .output_dtype = is_f32 ? RT_DTYPE_F32 : RT_DTYPE_BF16,
        .batch = p->batch,
        .m = vectors_of(b, p),
        .n = w->rows,
        .k = p->k,
        .a_batch_stride = p->x.batch_stride,
        .a_row_stride = p->x.row_stride,
        .b_batch_stride = w->batch_stride,
        .b_row_stride = w->row_stride,
        .b_column_stride = w->column_stride,
        .d_batch_stride = p->y.batch_stride,
        .d_row_stride = p->y.row_stride,
        .workspace_bytes = dims->workspace_bytes,
        .workspace = rt_recipe_workspace(b),
    };
}

/* Two weights that lie one behind the other are one. */
static bool are_one(const struct rt_weight_view w[2])
{
    return lies_along_k(&w[0]) && lies_along_k(&w[1]) && w[0].row_stride == w[1].row_stride &&
           w[1].base == w[0].base + w[0].rows * w[0].row_stride && !w[0].bias && !w[1].bias;
}

/* The library's products of one of ours: how many. */
static uint32_t matmuls_of(const struct recipe *b, const struct product *p, struct rt_matmul out[2])
{
    struct rt_weight_view whole = p->w[0];
    const bool one = p->w[1].rows == 0 || are_one(p->w);
    whole.rows += one ? p->w[1].rows : 0;
    out[0] = matmul_of(b, p, &whole, 0);
    if (!one)
        out[1] = matmul_of(b, p, &p->w[1], p->w[0].rows);
    return one ? 1 : 2;
}

/* Vectors that the library gets at once. */
static uint32_t library_vectors(const struct product *p)
{
    const uint32_t rows = rt_max_u32(p->w[0].rows + p->w[1].rows, 1u);
    const uint32_t tiles = rt_max_u32(MOST_LIBRARY_OUTPUTS / rows / 128u, 1u) * 128u;
    return rt_min_u32(tiles, MOST_LIBRARY_VECTORS);
}

/* The product's vectors from `first` on, as many as the library gets at once. */
static struct product slice_of(const struct recipe *b, const struct product *p, uint32_t first)
{
    struct product slice = *p;
    slice.x.base = rt_recipe_behind(b, p->x.base, (uint64_t)first * (uint64_t)p->x.row_stride);
    slice.y.base = rt_recipe_behind(b, p->y.base, (uint64_t)first * (uint64_t)p->y.row_stride);
    slice.vectors = rt_min_u32(rt_recipe_tokens(b) - first, library_vectors(p));
    return slice;
}

/* Why the library has no way for it; null: none is known. */
static const char *refusal_of(const struct recipe *b, const struct product *p)
{
    const char *why = NULL;
    if (!b->s->refusals)
        return NULL;
    for (uint32_t first = 0; first < rt_recipe_tokens(b) && !why; first += library_vectors(p)) {
        const struct product slice = slice_of(b, p, first);
        struct rt_matmul m[2];
        const uint32_t count = matmuls_of(b, &slice, m);
        for (uint32_t i = 0; i < count && !why; i++)
            why = rt_refusals_find(b->s->refusals, &m[i]);
    }
    return why;
}

static struct rt_project_params project(const struct recipe *b, const struct product *p)
{
    return (struct rt_project_params){
        .x = {p->x.base, p->x.batch_stride, p->x.row_stride},
        .y = {p->y.base, p->y.batch_stride, p->y.row_stride},
        .w = {p->w[0], p->w[1]},
        .norm = p->norm,
        .batch = p->batch,
        .m = rt_recipe_tokens(b),
        .k = p->k,
        .is_f32 = config_of(b)->precision == RT_PRECISION_F32,
    };
}

static enum rt_status resolve_own(const struct recipe *b, const struct rt_project_params *params,
                                  struct rt_variant *variant, struct rt_error *err)
{
    const struct rt_op_request request = {
        .caps = &b->s->blueprint->caps, .backend = config_of(b)->backend, .product = params};
    return rt_op_resolve(RT_OP_PROJECT, &request, variant, err);
}

/* Wider than the node that norms in front of a product takes. */
static bool has_wide_norm(const struct product *p)
{
    return p->norm.weight && p->norm.width > RT_PREATTEND_MOST_WIDTH;
}

static bool are_many(const struct recipe *b)
{
    return rt_recipe_tokens(b) > RT_OWN_MOST_VECTORS;
}

/* Whether a kernel of ours that is tuned for the device takes it. Those for many vectors take no
 * norm: it is a node in front, as a library's is. */
static bool streams(const struct recipe *b, const struct product *p)
{
    struct rt_project_params params = project(b, p);
    struct rt_variant own;
    struct rt_error why_not = {0};
    if (are_many(b) && !has_wide_norm(p))
        params.norm.weight = NULL;
    return resolve_own(b, &params, &own, &why_not) == RT_OK && own.backend == RT_BACKEND_SM90;
}

static bool norms_apart(const struct recipe *b, const struct product *p)
{
    return are_many(b) && !has_wide_norm(p) && streams(b, p);
}

static bool by_library(const struct recipe *b, const struct product *p, const char **reason)
{
    const uint64_t rows = (uint64_t)p->w[0].rows + p->w[1].rows;
    const struct rt_multiplication product = {
        .vectors = rt_recipe_tokens(b),
        .heads = p->batch,
        .vector_bytes = p->k * sizeof(uint16_t),
        .weight_bytes = rows * p->k * p->batch * sizeof(uint16_t),
        .rows = rows * p->batch,
        .streams = streams(b, p),
        .only_own = has_wide_norm(p)
                        ? "a norm too wide for the node in front of a library's product"
                        : NULL,
    };
    if (!rt_multiply_by_library(config_of(b)->projections, &b->s->blueprint->caps, &product,
                                reason))
        return false;
    const char *refusal = refusal_of(b, p);
    *reason = refusal ? refusal : *reason;
    return !refusal;
}

/* Why this kernel, until add_product puts in front why a kernel at all. */
static void note_kernel(const struct recipe *b, const struct rt_variant *variant)
{
    struct rt_stage *stage = &b->p->stages[b->p->count - 1];
    if (b->s->blueprint->caps.kind != RT_DEVICE_KIND_HOST)
        (void)snprintf(stage->reason, sizeof(stage->reason), "%s", variant->reason);
}

static enum rt_status add_own(struct recipe *b, uint32_t layer, const struct product *p)
{
    const struct rt_project_params params = project(b, p);
    struct rt_variant variant;
    struct rt_work work;
    RT_TRY(resolve_own(b, &params, &variant, b->err));
    RT_TRY(rt_op_build(b->s->kernels, &variant, &params, sizeof(params), &work, b->err));
    RT_TRY(rt_recipe_add(b, p->name, layer, &work));
    note_kernel(b, &variant);
    return RT_OK;
}

static enum rt_status add_slice(struct recipe *b, uint32_t layer, const struct product *slice)
{
    struct rt_matmul m[2];
    const uint32_t count = matmuls_of(b, slice, m);
    for (uint32_t i = 0; i < count; i++) {
        const struct rt_work work = {.kind = RT_WORK_MATMUL, .matmul = m[i]};
        RT_TRY(rt_recipe_add(b, slice->name, layer, &work));
        /* Its kernels begin when all before them is over: whoever waits for them waits for that. */
        b->p->stages[b->p->count - 1].overlapped =
            b->s->blueprint->caps.kind != RT_DEVICE_KIND_HOST;
    }
    return RT_OK;
}

static enum rt_status add_by_library(struct recipe *b, uint32_t layer, const struct product *p)
{
    for (uint32_t first = 0; first < rt_recipe_tokens(b); first += library_vectors(p)) {
        const struct product slice = slice_of(b, p, first);
        RT_TRY(add_slice(b, layer, &slice));
    }
    return RT_OK;
}

/* By our kernel: two weights that lie differently are two products. */
static enum rt_status add_by_kernel(struct recipe *b, uint32_t layer, const struct product *p)
{
    if (p->w[1].rows == 0 || lies_along_k(&p->w[0]) == lies_along_k(&p->w[1]))
        return add_own(b, layer, p);
    struct product first = *p, second = *p;
    first.w[1].rows = 0;
    second.w[0] = p->w[1];
    second.w[1].rows = 0;
    second.y.base = rt_recipe_behind(b, p->y.base, p->w[0].rows);
    RT_TRY(add_own(b, layer, &first));
    return add_own(b, layer, &second);
}

static void put_in_front(const char *reason, char text[RT_STAGE_REASON_BYTES])
{
    char kernel[RT_STAGE_REASON_BYTES];
    (void)snprintf(kernel, sizeof(kernel), "%s", text);
    (void)snprintf(text, RT_STAGE_REASON_BYTES, "%.120s%s%.130s", reason, kernel[0] ? "; " : "",
                   kernel);
}

static enum rt_status add_product(struct recipe *b, uint32_t layer, const struct product *p)
{
    const char *reason;
    const uint32_t first = b->p->count;
    const bool library = by_library(b, p, &reason);
    RT_TRY(library ? add_by_library(b, layer, p) : add_by_kernel(b, layer, p));
    for (uint32_t i = first; i < b->p->count; i++)
        put_in_front(reason, b->p->stages[i].reason);
    return RT_OK;
}

/* ---- the block ------------------------------------------------------------------------------- */

static struct vectors packed(const struct recipe *b, enum rt_tensor_id id, uint32_t width)
{
    return (struct vectors){.base = rt_recipe_at_span(b, id, 0, width), .row_stride = width};
}

/* Head by head within each token. */
static struct vectors of_heads(const struct recipe *b, enum rt_tensor_id id, uint32_t heads,
                               uint32_t width)
{
    const uint64_t row = (uint64_t)heads * width;
    return (struct vectors){.base = rt_recipe_at_span(b, id, 0, row),
                            .batch_stride = width,
                            .row_stride = (int64_t)row};
}

static struct product qkv_a(const struct recipe *b, uint32_t layer)
{
    const struct rt_config *c = config_of(b);
    const bool lora = c->block.q_lora_rank > 0;
    return (struct product){
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

static struct product q_b(const struct recipe *b, uint32_t layer)
{
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    const struct rt_block *block = &config_of(b)->block;
    return (struct product){
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
static bool norms_in_front(const struct recipe *b, const struct product *q)
{
    const char *reason;
    return by_library(b, q, &reason) || norms_apart(b, q);
}

/* By the library, behind the cache's new tokens: an expanded chunk has more to do meanwhile. */
static enum rt_status add_q_b(struct recipe *b, uint32_t layer, const struct product *q)
{
    if (!rt_spec_is_chunk(b->spec) || b->spec->absorbed)
        return add_product(b, layer, q);
    b->p->branch = 1;
    RT_TRY(add_product(b, layer, q));
    return rt_recipe_add_ahead(b, layer);
}

/* From hidden to q and latent. *out: what is left of preattend. */
static enum rt_status add_query(struct recipe *b, uint32_t layer, struct rt_preattend_params *out)
{
    if (config_of(b)->input_norm)
        RT_TRY(rt_recipe_add_input_norm(b, layer));
    const struct product a = qkv_a(b, layer);
    RT_TRY(add_product(b, layer, &a));
    struct rt_preattend_params rest = rt_recipe_preattend_params(b, layer);
    if (config_of(b)->block.q_lora_rank) {
        struct product q = q_b(b, layer);
        if (norms_in_front(b, &q)) {
            struct rt_preattend_params first = rest;
            first.q_in.base = NULL;
            rest.kv_a.base = NULL;
            q.norm.weight = NULL;
            RT_TRY(rt_recipe_add_preattend(b, layer, &first));
            RT_TRY(add_q_b(b, layer, &q));
        } else {
            RT_TRY(add_product(b, layer, &q));
        }
    }
    rest.q_a.base = NULL;
    *out = rest;
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
    struct product p = {
        .name = "kv_b",
        .x = packed(b, RT_TENSOR_EXPANDED_LATENT, dims->kv.d_qk),
        .y = packed(b, RT_TENSOR_EXPANDED_KV, dims->kv_width),
        .w = {kv_b(b, layer, 0, 0)},
        .batch = 1,
        .k = config_of(b)->geometry.kv_lora_rank,
    };
    p.w[0].rows = dims->kv_width;
    p.w[0].batch_stride = 0;
    return add_product(b, layer, &p);
}

/* q's first part becomes a query of latents: per head q nope [P] times W_UK [P, L]. */
static struct product absorb(const struct recipe *b, uint32_t layer,
                             const struct rt_heads_view *q_in)
{
    const struct rt_config *c = config_of(b);
    struct product p = {
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
    const struct product p = absorb(b, layer, &q.q_in);
    return add_product(b, layer, &p);
}

/* With more heads the product is most of both, and of more tokens takes longer where blocks of the
 * other kind are among its own, an SM's one (docs/notebook.md). */
#define MOST_SHARED_HEADS 32u
#define MANY_HEADS_MOST_TOKENS 8u

static bool may_share(const struct product *p, uint32_t tokens)
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
    note_kernel(b, variant);
    put_in_front(reason, b->p->stages[b->p->count - 1].reason);
    return RT_OK;
}

/* The product reads nothing that preattend writes: there are no factors, and queries of padding,
 * which preattend makes zeros, are zeros already, for so is what q_b has multiplied. */
static bool may_be_beside(const struct recipe *b, uint32_t layer,
                          const struct rt_preattend_params *preattend)
{
    if (preattend->rope.query_scale || config_of(b)->block.q_lora_rank == 0)
        return false;
    const struct product q = q_b(b, layer);
    return norms_in_front(b, &q) && !q.w[0].bias;
}

static enum rt_status add_beside(struct recipe *b, uint32_t layer, const struct product *product,
                                 const struct rt_preattend_params *preattend)
{
    b->p->tight = true;
    b->p->branch = 1;
    RT_TRY(add_product(b, layer, product));
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
    const struct product p = absorb(b, layer, &preattend->q_in);
    const struct rt_preattend_absorb_params both = {.preattend = *preattend,
                                                    .absorb = project(b, &p)};
    struct rt_variant variant;
    const char *reason;
    if (!by_library(b, &p, &reason) && may_share(&p, both.absorb.m) &&
        resolve_shared(b, &both, &variant))
        return add_shared(b, layer, reason, &both, &variant);
    if (!may_be_beside(b, layer, preattend)) {
        RT_TRY(rt_recipe_add_preattend(b, layer, preattend));
        return add_product(b, layer, &p);
    }
    return add_beside(b, layer, &p, preattend);
}

enum rt_status rt_recipe_add_values(struct recipe *b, uint32_t layer)
{
    const struct rt_config *c = config_of(b);
    const uint32_t heads = rt_blueprint_out_heads(b->s->blueprint);
    const uint32_t first = b->s->blueprint->context_rank * heads;
    const struct product values = {
        .name = "w_uv",
        .x = of_heads(b, RT_TENSOR_OUT, heads, b->s->blueprint->placement.dims.kv.d_v),
        .y = of_heads(b, RT_TENSOR_VALUES, heads, c->block.v_head_dim),
        .w = {kv_b(b, layer, first, c->block.qk_nope_head_dim)},
        .batch = heads,
        .k = c->geometry.kv_lora_rank,
    };
    return add_product(b, layer, &values);
}

enum rt_status rt_recipe_add_hidden(struct recipe *b, uint32_t layer)
{
    const struct rt_config *c = config_of(b);
    const struct rt_dims *dims = &b->s->blueprint->placement.dims;
    const struct product hidden = {
        .name = "o_proj",
        .x = packed(b, RT_TENSOR_VALUES, dims->v_width),
        .y = packed(b, RT_TENSOR_HIDDEN, c->block.hidden_size),
        .w = {rt_recipe_weight(b, layer, RT_WEIGHT_O, rt_recipe_output_bias(b))},
        .batch = 1,
        .k = dims->v_width,
    };
    RT_TRY(add_product(b, layer, &hidden));
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
