/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/recipe_product.h"

#include "common/math.h"
#include "runtime/multiply.h"

#include <stdio.h>

/* The library has no way for some products of more that is kernels alone: they are several. */
#define MOST_LIBRARY_VECTORS 2048u
#define MOST_LIBRARY_OUTPUTS (1u << 23) /* docs/notebook.md, "Prompts in chunks" */

static const struct rt_config *config_of(const struct recipe *b)
{
    return &b->s->blueprint->config;
}

static uint32_t vectors_of(const struct recipe *b, const struct recipe_product *p)
{
    return p->vectors ? p->vectors : rt_recipe_tokens(b);
}

/* Of one weight; y at `column` of its rows. */
static struct rt_matmul matmul_of(const struct recipe *b, const struct recipe_product *p,
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
    return rt_recipe_lies_along_k(&w[0]) && rt_recipe_lies_along_k(&w[1]) &&
           w[0].row_stride == w[1].row_stride &&
           w[1].base == w[0].base + w[0].rows * w[0].row_stride && !w[0].bias && !w[1].bias;
}

/* The library's products of one of ours: how many. */
static uint32_t matmuls_of(const struct recipe *b, const struct recipe_product *p,
                           struct rt_matmul out[2])
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
static uint32_t library_vectors(const struct recipe_product *p)
{
    const uint32_t rows = rt_max_u32(p->w[0].rows + p->w[1].rows, 1u);
    const uint32_t tiles = rt_max_u32(MOST_LIBRARY_OUTPUTS / rows / 128u, 1u) * 128u;
    return rt_min_u32(tiles, MOST_LIBRARY_VECTORS);
}

/* The product's vectors from `first` on, as many as the library gets at once. */
static struct recipe_product slice_of(const struct recipe *b, const struct recipe_product *p,
                                      uint32_t first)
{
    struct recipe_product slice = *p;
    slice.x.base = rt_recipe_behind(b, p->x.base, (uint64_t)first * (uint64_t)p->x.row_stride);
    slice.y.base = rt_recipe_behind(b, p->y.base, (uint64_t)first * (uint64_t)p->y.row_stride);
    slice.vectors = rt_min_u32(rt_recipe_tokens(b) - first, library_vectors(p));
    return slice;
}

/* Why the library has no way for it; null: none is known. */
static const char *refusal_of(const struct recipe *b, const struct recipe_product *p)
{
    const char *why = NULL;
    if (!b->s->refusals)
        return NULL;
    for (uint32_t first = 0; first < rt_recipe_tokens(b) && !why; first += library_vectors(p)) {
        const struct recipe_product slice = slice_of(b, p, first);
        struct rt_matmul m[2];
        const uint32_t count = matmuls_of(b, &slice, m);
        for (uint32_t i = 0; i < count && !why; i++)
            why = rt_refusals_find(b->s->refusals, &m[i]);
    }
    return why;
}

struct rt_project_params rt_recipe_project(const struct recipe *b, const struct recipe_product *p)
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
        .y_f32 = p->y_f32,
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
static bool has_wide_norm(const struct recipe_product *p)
{
    return p->norm.weight && p->norm.width > RT_PREATTEND_MOST_WIDTH;
}

bool rt_recipe_are_many(const struct recipe *b)
{
    return rt_recipe_tokens(b) > RT_OWN_MOST_VECTORS;
}

bool rt_recipe_streams(const struct recipe *b, const struct recipe_product *p)
{
    struct rt_project_params params = rt_recipe_project(b, p);
    struct rt_variant own;
    struct rt_error why_not = {0};
    if (rt_recipe_are_many(b) && !has_wide_norm(p))
        params.norm.weight = NULL;
    return resolve_own(b, &params, &own, &why_not) == RT_OK && own.backend == RT_BACKEND_SM90;
}

bool rt_recipe_norms_apart(const struct recipe *b, const struct recipe_product *p)
{
    return rt_recipe_are_many(b) && !has_wide_norm(p) && rt_recipe_streams(b, p);
}

bool rt_recipe_by_library(const struct recipe *b, const struct recipe_product *p,
                          const char **reason)
{
    const uint64_t rows = (uint64_t)p->w[0].rows + p->w[1].rows;
    const struct rt_multiplication product = {
        .vectors = rt_recipe_tokens(b),
        .heads = p->batch,
        .vector_bytes = p->k * sizeof(uint16_t),
        .weight_bytes = rows * p->k * p->batch * sizeof(uint16_t),
        .rows = rows * p->batch,
        .streams = rt_recipe_streams(b, p),
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

void rt_recipe_note_kernel(const struct recipe *b, const struct rt_variant *variant)
{
    struct rt_stage *stage = &b->p->stages[b->p->count - 1];
    if (b->s->blueprint->caps.kind != RT_DEVICE_KIND_HOST)
        (void)snprintf(stage->reason, sizeof(stage->reason), "%s", variant->reason);
}

static enum rt_status add_own(struct recipe *b, uint32_t layer, const struct recipe_product *p)
{
    const struct rt_project_params params = rt_recipe_project(b, p);
    struct rt_variant variant;
    struct rt_work work;
    RT_TRY(resolve_own(b, &params, &variant, b->err));
    RT_TRY(rt_op_build(b->s->kernels, &variant, &params, sizeof(params), &work, b->err));
    RT_TRY(rt_recipe_add(b, p->name, layer, &work));
    rt_recipe_note_kernel(b, &variant);
    return RT_OK;
}

static enum rt_status add_slice(struct recipe *b, uint32_t layer,
                                const struct recipe_product *slice)
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

static enum rt_status add_by_library(struct recipe *b, uint32_t layer,
                                     const struct recipe_product *p)
{
    for (uint32_t first = 0; first < rt_recipe_tokens(b); first += library_vectors(p)) {
        const struct recipe_product slice = slice_of(b, p, first);
        RT_TRY(add_slice(b, layer, &slice));
    }
    return RT_OK;
}

/* By our kernel: two weights that lie differently are two products. */
static enum rt_status add_by_kernel(struct recipe *b, uint32_t layer,
                                    const struct recipe_product *p)
{
    if (p->w[1].rows == 0 || rt_recipe_lies_along_k(&p->w[0]) == rt_recipe_lies_along_k(&p->w[1]))
        return add_own(b, layer, p);
    struct recipe_product first = *p, second = *p;
    first.w[1].rows = 0;
    second.w[0] = p->w[1];
    second.w[1].rows = 0;
    second.y.base = rt_recipe_behind(b, p->y.base, p->w[0].rows);
    RT_TRY(add_own(b, layer, &first));
    return add_own(b, layer, &second);
}

void rt_recipe_put_in_front(const char *reason, char text[RT_STAGE_REASON_BYTES])
{
    char kernel[RT_STAGE_REASON_BYTES];
    (void)snprintf(kernel, sizeof(kernel), "%s", text);
    (void)snprintf(text, RT_STAGE_REASON_BYTES, "%.120s%s%.130s", reason, kernel[0] ? "; " : "",
                   kernel);
}

enum rt_status rt_recipe_add_product(struct recipe *b, uint32_t layer,
                                     const struct recipe_product *p)
{
    const char *reason;
    const uint32_t first = b->p->count;
    const bool library = rt_recipe_by_library(b, p, &reason);
    RT_TRY(library ? add_by_library(b, layer, p) : add_by_kernel(b, layer, p));
    for (uint32_t i = first; i < b->p->count; i++)
        rt_recipe_put_in_front(reason, b->p->stages[i].reason);
    return RT_OK;
}
