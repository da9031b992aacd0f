/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mla_block: which shapes the one kernel serves, and its launch. There is no generic kernel: what
 * stands in its place elsewhere are the operators that it replaces, one after the other.
 */
#include "kernels/ops/op_build.h"

#include <stdio.h>

/* Of input_norm's weight there is room beside sums for a block with several units. */
#define MOST_HIDDEN_OF_SEVERAL 5120u

/* Kernels by slots, 1, 2, 4 and 8. */
static const char *const plain_entries[] = {"rt_mla_block_1", "rt_mla_block_2", "rt_mla_block_4",
                                            "rt_mla_block_8"};
static const struct {
    uint32_t heads;
    const char *entries[4];
} general[] = {
    {8,
     {"rt_mla_block_general_8_1", "rt_mla_block_general_8_2", "rt_mla_block_general_8_4",
      "rt_mla_block_general_8_8"}},
    {16,
     {"rt_mla_block_general_16_1", "rt_mla_block_general_16_2", "rt_mla_block_general_16_4",
      "rt_mla_block_general_16_8"}},
    {32,
     {"rt_mla_block_general_32_1", "rt_mla_block_general_32_2", "rt_mla_block_general_32_4",
      "rt_mla_block_general_32_8"}},
};

/* Null where no kernel has so many heads. */
static const char *entry_of(const struct rt_mla_block_params *p)
{
    const uint32_t slots = rt_mla_block_slots(rt_mla_block_vectors(p));
    uint32_t i = 0;
    while (1u << i < slots)
        i++;
    if (!rt_mla_block_is_general(p))
        return plain_entries[i];
    for (size_t k = 0; k < sizeof(general) / sizeof(general[0]); k++)
        if (general[k].heads == p->heads)
            return general[k].entries[i];
    return NULL;
}

/* ---- resolve --------------------------------------------------------------------------------- */

/* What is one number to a weight's row is a whole copy to the kernel. */
static enum rt_status check_sizes(const struct rt_mla_block_params *p, struct rt_error *err)
{
    const uint64_t vectors = (uint64_t)p->rows.count * p->rows.q_len;
    RT_REQUIRE(vectors >= 1 && vectors <= RT_MLA_BLOCK_MOST_VECTORS, err, RT_ERR_UNSUPPORTED,
               "mla_block serves 1 to %u tokens of all rows, not %u rows of %u",
               RT_MLA_BLOCK_MOST_VECTORS, p->rows.count, p->rows.q_len);
    RT_REQUIRE(p->heads == 8 || p->heads == 16 || p->heads == 32, err, RT_ERR_UNSUPPORTED,
               "mla_block serves 8, 16 and 32 heads, not %u", p->heads);
    RT_REQUIRE(p->hidden_size >= RT_MLA_BLOCK_EVEN && p->hidden_size % RT_MLA_BLOCK_EVEN == 0 &&
                   p->hidden_size <= RT_MLA_BLOCK_MOST_HIDDEN,
               err, RT_ERR_UNSUPPORTED,
               "mla_block serves hidden sizes that are multiples of %u up to %u, not %u",
               RT_MLA_BLOCK_EVEN, RT_MLA_BLOCK_MOST_HIDDEN, p->hidden_size);
    RT_REQUIRE(p->q_rank % RT_MLA_BLOCK_EVEN == 0 && p->q_rank <= RT_MLA_BLOCK_MOST_RANK, err,
               RT_ERR_UNSUPPORTED,
               "mla_block serves q ranks that are multiples of %u up to %u, or none, not %u",
               RT_MLA_BLOCK_EVEN, RT_MLA_BLOCK_MOST_RANK, p->q_rank);
    RT_REQUIRE(p->kv.page_size >= 16 && p->kv.page_size <= 128 &&
                   (p->kv.page_size & (p->kv.page_size - 1)) == 0,
               err, RT_ERR_UNSUPPORTED,
               "mla_block serves pages of 16, 32, 64 and 128 tokens, not of %u", p->kv.page_size);
    return RT_OK;
}

static enum rt_status check_norms(const struct rt_mla_block_params *p, struct rt_error *err)
{
    const struct rt_norm_view *norms[] = {&p->input_norm, &p->q_a_norm, &p->kv_a_norm};
    for (int i = 0; i < 3; i++)
        RT_REQUIRE(!norms[i]->weight || norms[i]->offset == 0.0f, err, RT_ERR_UNSUPPORTED,
                   "mla_block serves norms whose weights are not offset, not by %g",
                   (double)norms[i]->offset);
    return RT_OK;
}

static enum rt_status check_request(const struct rt_op_request *r, struct rt_error *err)
{
    RT_REQUIRE(r->kv->layout == RT_KV_BF16 && r->kv->element_bytes == sizeof(uint16_t) &&
                   r->kv->d_qk == RT_MLA_BLOCK_TOKEN && r->kv->d_v == RT_MLA_BLOCK_LATENT,
               err, RT_ERR_UNSUPPORTED,
               "mla_block serves a bf16 cache of %u numbers a token, %u of them values, not %s of "
               "%u and %u",
               RT_MLA_BLOCK_TOKEN, RT_MLA_BLOCK_LATENT, r->kv->name, r->kv->d_qk, r->kv->d_v);
    return RT_OK;
}

/* Bits do not depend on the number of blocks, and an SM without one is idle. */
static enum rt_status check_device(const struct rt_op_request *r, struct rt_error *err)
{
    const struct rt_mla_block_params *p = r->mla_block;
    const uint32_t blocks = r->caps->sm_count;
    const struct rt_mla_block_cut cut =
        rt_mla_block_cut(p->hidden_size, p->q_rank, p->heads, blocks);
    const uint32_t units = cut.query_units + RT_MLA_BLOCK_LATENT_UNITS;
    RT_REQUIRE(!p->input_norm.weight || p->hidden_size <= MOST_HIDDEN_OF_SEVERAL || units <= blocks,
               err, RT_ERR_UNSUPPORTED,
               "mla_block with input_norm of %u numbers needs %u multiprocessors, %s has %u",
               p->hidden_size, units, r->caps->name, blocks);
    return RT_OK;
}

enum rt_status rt_mla_block_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                    struct rt_error *err)
{
    const struct rt_mla_block_params *p = request->mla_block;
    if (!p) /* nothing is known of it yet, and nothing is built of this */
        return rt_plain_resolve(request, out, err);
    RT_REQUIRE(request->backend != RT_BACKEND_GENERIC, err, RT_ERR_UNSUPPORTED,
               "mla_block has no generic kernel: generic operators do its steps");
    RT_TRY(rt_check_sm90(request->caps, err));
    RT_TRY(check_request(request, err));
    RT_TRY(check_sizes(p, err));
    RT_TRY(check_norms(p, err));
    RT_TRY(check_device(request, err));
    out->backend = RT_BACKEND_SM90;
    out->entry = entry_of(p);
    out->parts = request->caps->sm_count;
    out->threads = RT_MLA_BLOCK_THREADS;
    out->smem_bytes = RT_MLA_BLOCK_SMEM_BYTES;
    (void)snprintf(out->reason, sizeof(out->reason),
                   "sm90%s, a block as one kernel, up to %u tokens for %u, %u blocks at a time",
                   request->backend == RT_BACKEND_AUTO ? "" : " as asked for",
                   rt_mla_block_slots(rt_mla_block_vectors(p)), rt_mla_block_vectors(p),
                   out->parts);
    return RT_OK;
}

/* ---- build ----------------------------------------------------------------------------------- */

static enum rt_status check_weight(const char *name, const struct rt_mla_block_weight *w,
                                   uint32_t k, struct rt_error *err)
{
    char stride[48];
    (void)snprintf(stride, sizeof(stride), "%s row stride in elements", name);
    RT_TRY(rt_check_pointer(name, w->base, err));
    RT_TRY(rt_check_stride(stride, w->row_stride, sizeof(uint16_t), err));
    RT_REQUIRE(w->row_stride >= (int64_t)k, err, RT_ERR_INVALID,
               "%s has rows of %u numbers, %lld apart", name, k, (long long)w->row_stride);
    char bias[48];
    (void)snprintf(bias, sizeof(bias), "%s bias", name);
    return w->bias ? rt_check_pointer(bias, w->bias, err) : RT_OK;
}

static enum rt_status check_weights(const struct rt_mla_block_params *p, struct rt_error *err)
{
    RT_TRY(check_weight("q_a or q", &p->q, p->hidden_size, err));
    RT_TRY(check_weight("kv_a", &p->kv_a, p->hidden_size, err));
    RT_REQUIRE((p->q_rank > 0) == (p->q_b.base != NULL), err, RT_ERR_INVALID,
               "q_b is at %p for q rank %u", (const void *)p->q_b.base, p->q_rank);
    if (p->q_rank > 0)
        RT_TRY(check_weight("q_b", &p->q_b, p->q_rank, err));
    RT_TRY(check_weight("kv_b", &p->kv_b, RT_MLA_BLOCK_LATENT, err));
    RT_REQUIRE(!p->kv_b.bias, err, RT_ERR_INVALID, "kv_b has a bias at %p, and none is added",
               (const void *)p->kv_b.bias);
    return check_weight("o", &p->o, p->heads * RT_MLA_BLOCK_VALUE, err);
}

static enum rt_status check_norm(const char *name, const struct rt_norm_view *norm, uint32_t width,
                                 struct rt_error *err)
{
    RT_TRY(rt_check_norm(name, norm, width, err));
    RT_REQUIRE(norm->weight && norm->width == width, err, RT_ERR_INVALID,
               "%s at %p of %u numbers, not of %u", name, (const void *)norm->weight, norm->width,
               width);
    return RT_OK;
}

static enum rt_status check_exchange(const char *name, const unsigned char *exchange,
                                     struct rt_error *err)
{
    RT_REQUIRE((uintptr_t)exchange % 128 == 0, err, RT_ERR_INVALID,
               "%s is at %p, not 128-byte aligned", name, (const void *)exchange);
    return RT_OK;
}

static enum rt_status check_data(const struct rt_mla_block_params *p, struct rt_error *err)
{
    RT_TRY(rt_check_pointer("hidden", p->hidden, err));
    RT_TRY(rt_check_pointer("residual", p->residual, err));
    RT_TRY(rt_check_pointer("rope table", p->rope.table, err));
    RT_TRY(rt_check_pointer("query scale", p->rope.query_scale, err));
    RT_REQUIRE(p->rows.q_len == 1 || p->rows.position, err, RT_ERR_INVALID,
               "rows of %u tokens without positions", p->rows.q_len);
    RT_TRY(check_exchange("the exchange", p->exchange, err));
    RT_TRY(check_exchange("the stale exchange", p->stale, err));
    RT_REQUIRE(!p->residual || p->input_norm.weight, err, RT_ERR_INVALID,
               "a residual at %p, and no input norm", (void *)p->residual);
    RT_REQUIRE(!p->rows.ctrl, err, RT_ERR_INVALID,
               "a control block at %p: a product's rows are counted from 0",
               (const void *)p->rows.ctrl);
    RT_REQUIRE(p->kv.token_bytes == 2 * RT_MLA_BLOCK_TOKEN, err, RT_ERR_INVALID,
               "a cache of %u bytes a token, not %u", p->kv.token_bytes, 2 * RT_MLA_BLOCK_TOKEN);
    return rt_check_kv(&p->kv, err);
}

enum rt_status rt_mla_block_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                  const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_mla_block_params *p = params;
    RT_TRY(check_sizes(p, err));
    RT_TRY(check_norms(p, err));
    if (p->input_norm.weight)
        RT_TRY(check_norm("input norm", &p->input_norm, p->hidden_size, err));
    if (p->q_rank > 0)
        RT_TRY(check_norm("q_a norm", &p->q_a_norm, p->q_rank, err));
    RT_TRY(check_norm("kv_a norm", &p->kv_a_norm, RT_MLA_BLOCK_LATENT, err));
    RT_TRY(check_weights(p, err));
    RT_TRY(check_data(p, err));
    /* By its own parameters: what biases a layer has is not known when its shape is resolved. */
    const char *const entry = entry_of(p);
    const struct rt_mla_block_sm90_params sm90 = {
        .block = *p, .cut = rt_mla_block_cut(p->hidden_size, p->q_rank, p->heads, variant->parts)};
    RT_TRY(rt_launch_grid(k, entry, &sm90, sizeof(sm90), variant->parts, 1, variant->threads, out,
                          err));
    out->cooperative = true; /* its blocks wait for each other's words */
    return RT_OK;
}
