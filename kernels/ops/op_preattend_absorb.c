/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preattend and the product of q's first part in one launch. Each half is resolved, checked and
 * built by its own operator; what is here is which of their kernels stand side by side in one.
 */
#include "kernels/abi/preattend_absorb_sm90.h"
#include "kernels/ops/op_build.h"

#include "common/math.h"

#include <stdio.h>
#include <string.h>

/* The product's kernel, and the one that does its work beside preattend's. */
static const struct pair {
    const char *product, *both;
} pairs[] = {
    {"rt_project", "rt_preattend_absorb"},
    {"rt_project_sm90_across8", "rt_preattend_absorb_sm90_8"},
    {"rt_project_sm90_across16", "rt_preattend_absorb_sm90_16"},
};
#define PAIR_COUNT (sizeof(pairs) / sizeof(pairs[0]))

static const struct pair *find_pair(const char *product)
{
    for (size_t i = 0; i < PAIR_COUNT; i++)
        if (strcmp(pairs[i].product, product) == 0)
            return &pairs[i];
    return NULL;
}

/* ---- resolve --------------------------------------------------------------------------------- */

/* Where no block gets more tiles than with the product's own `most`, fewer blocks leave room to
 * preattend's. */
static uint32_t product_blocks(const struct rt_project_params *p, uint32_t most)
{
    const uint32_t tiles = rt_project_across_tiles(p);
    return rt_ceil_div_u32(tiles, rt_ceil_div_u32(tiles, most));
}

/* The product's kernel becomes the one that does both. */
static void join(const struct rt_op_request *request, const struct rt_project_params *p,
                 const char *entry, struct rt_variant *v)
{
    const uint32_t vectors = p->m > 8 ? RT_PROJECT_SM90_MOST_VECTORS : 8u;
    v->entry = entry;
    if (v->backend != RT_BACKEND_SM90)
        return;
    v->parts = product_blocks(p, v->parts);
    (void)snprintf(v->reason, sizeof(v->reason),
                   "sm90%s, up to %u tokens for %u, %u blocks multiply beside preattend's",
                   request->backend == RT_BACKEND_AUTO ? "" : " as asked for", vectors, p->m,
                   v->parts);
}

enum rt_status rt_preattend_absorb_resolve(const struct rt_op_request *request,
                                           struct rt_variant *out, struct rt_error *err)
{
    const struct rt_preattend_absorb_params *p = request->preattend_absorb;
    struct rt_op_request half = *request;
    struct rt_variant product;
    if (!p)
        return rt_plain_resolve(request, out, err);
    half.product = &p->absorb;
    RT_REQUIRE(!p->preattend.rope.query_scale, err, RT_ERR_UNSUPPORTED,
               "factors of q are written where the product reads, so preattend comes first");
    RT_TRY(rt_op_resolve(RT_OP_PROJECT, &half, &product, err));
    const struct pair *pair = find_pair(product.entry);
    RT_REQUIRE(pair, err, RT_ERR_UNSUPPORTED, "%s: %s fills its SM and shares no launch",
               p->absorb.w[0].column_stride == 1 ? "the weight lies along k"
                                                 : "there are many vectors",
               product.entry);
    product.op = out->op;
    join(request, &p->absorb, pair->both, &product);
    *out = product;
    return RT_OK;
}

/* ---- build ----------------------------------------------------------------------------------- */

/* The product's vectors are q's, and none of it is another product. */
static enum rt_status check_absorb(const struct rt_preattend_params *q,
                                   const struct rt_project_params *p, struct rt_error *err)
{
    const struct rt_heads_view *in = &q->q_in, *out = &q->q_out;
    RT_REQUIRE(p->batch == q->heads && p->m == q->rows.count * q->rows.q_len &&
                   p->k == q->nope_dim && p->w[0].rows == q->latent_dim && p->w[1].rows == 0 &&
                   !p->norm.weight && !p->y_f32 && p->is_f32 == q->is_f32,
               err, RT_ERR_INVALID,
               "a product of %u times %u vectors of %u with %u + %u rows, not of %u heads, %u "
               "tokens, P %u with L %u rows alone, without a norm, to q's type",
               p->batch, p->m, p->k, p->w[0].rows, p->w[1].rows, q->heads,
               q->rows.count * q->rows.q_len, q->nope_dim, q->latent_dim);
    RT_REQUIRE(p->x.base == in->base && p->x.batch_stride == in->head_stride &&
                   p->x.row_stride == in->token_stride,
               err, RT_ERR_INVALID,
               "the product's x at %p, strides %lld, %lld, is not q_in at %p, strides %lld, %lld",
               p->x.base, (long long)p->x.batch_stride, (long long)p->x.row_stride, in->base,
               (long long)in->head_stride, (long long)in->token_stride);
    RT_REQUIRE(!out->base || (p->y.base == out->base && p->y.batch_stride == out->head_stride &&
                              p->y.row_stride == out->token_stride),
               err, RT_ERR_INVALID,
               "the product's y at %p, strides %lld, %lld, is not q_out at %p, strides %lld, %lld",
               p->y.base, (long long)p->y.batch_stride, (long long)p->y.row_stride, out->base,
               (long long)out->head_stride, (long long)out->token_stride);
    return RT_OK;
}

static enum rt_status check_preattend(const struct rt_preattend_params *q, struct rt_error *err)
{
    const int64_t in = q->q_in.token_stride * q->rows.q_len;
    const int64_t out = q->q_out.token_stride * q->rows.q_len;
    RT_REQUIRE(q->q_in.base && !q->q_a.base, err, RT_ERR_INVALID,
               "preattend_absorb has q_in at %p and q_a at %p: the first alone", q->q_in.base,
               (const void *)q->q_a.base);
    RT_REQUIRE(!q->rope.query_scale, err, RT_ERR_INVALID,
               "factors of q at %p, which are written "
               "where the product reads",
               (const void *)q->rope.query_scale);
    RT_REQUIRE(!q->rows.ctrl, err, RT_ERR_INVALID,
               "a control block at %p: a product's rows are counted from 0",
               (const void *)q->rows.ctrl);
    RT_REQUIRE(q->rows.count == 1 || (q->q_in.row_stride == in && q->q_out.row_stride == out), err,
               RT_ERR_INVALID,
               "q's row strides %lld, %lld are not those of %u tokens, %lld, %lld, as a product's "
               "vectors lie",
               (long long)q->q_in.row_stride, (long long)q->q_out.row_stride, q->rows.q_len,
               (long long)in, (long long)out);
    return RT_OK;
}

/* Each half as its own operator would launch it. */
static enum rt_status build_halves(const struct rt_kernels *k, const struct rt_variant *v,
                                   const struct rt_preattend_absorb_params *p,
                                   struct rt_launch *preattend, struct rt_launch *product,
                                   struct rt_error *err)
{
    const struct rt_variant first = {
        .op = RT_OP_PREATTEND, .backend = RT_BACKEND_GENERIC, .entry = "rt_preattend"};
    struct rt_variant second = *v;
    const struct pair *pair = pairs, *end = pairs + PAIR_COUNT;
    while (pair < end && strcmp(pair->both, v->entry) != 0)
        pair++;
    RT_REQUIRE(pair < end, err, RT_ERR_INTERNAL, "no pair of halves is named %s", v->entry);
    second.op = RT_OP_PROJECT;
    second.entry = pair->product;
    RT_TRY(rt_preattend_build(k, &first, &p->preattend, preattend, err));
    return rt_project_build(k, &second, &p->absorb, product, err);
}

static enum rt_status launch_sm90(const struct rt_kernels *k, const struct rt_variant *v,
                                  const struct rt_preattend_params *preattend,
                                  const struct rt_launch *product, uint32_t blocks,
                                  struct rt_launch *out, struct rt_error *err)
{
    struct rt_preattend_absorb_sm90_params both = {.preattend = *preattend};
    memcpy(&both.absorb, product->params, sizeof(both.absorb));
    RT_TRY(rt_launch_grid(k, v->entry, &both, sizeof(both), blocks, 1, v->threads, out, err));
    out->smem_bytes = product->smem_bytes;
    return RT_OK;
}

enum rt_status rt_preattend_absorb_build(const struct rt_kernels *k,
                                         const struct rt_variant *variant, const void *params,
                                         struct rt_launch *out, struct rt_error *err)
{
    const struct rt_preattend_absorb_params *p = params;
    struct rt_launch preattend, product;
    RT_TRY(check_preattend(&p->preattend, err));
    RT_TRY(check_absorb(&p->preattend, &p->absorb, err));
    RT_TRY(build_halves(k, variant, p, &preattend, &product, err));
    const uint32_t blocks = preattend.grid[0] + product.grid[0];
    if (variant->backend == RT_BACKEND_SM90)
        return launch_sm90(k, variant, &p->preattend, &product, blocks, out, err);
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), blocks, 1, RT_PROJECT_THREADS, out,
                          err);
}
