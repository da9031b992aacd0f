/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"

static enum rt_status check_dims(const struct rt_preattend_params *p, struct rt_error *err)
{
    RT_REQUIRE(p->latent_dim == 512 || p->latent_dim == 256, err, RT_ERR_INVALID,
               "a latent of %u numbers, not 512 or 256", p->latent_dim);
    RT_REQUIRE(p->rope_dim == 64 || p->rope_dim == 32 || p->rope_dim == 0, err, RT_ERR_INVALID,
               "a rotated part of %u numbers, not 64, 32 or 0", p->rope_dim);
    return rt_check_pointer("rope table", p->rope.table, err);
}

/* `quant`: what the cache's rows hold; null: plain numbers. */
static enum rt_status check_kv_a(const struct rt_preattend_params *p,
                                 const struct rt_quant_view *quant, struct rt_error *err)
{
    const uint32_t d_qk = p->latent_dim + p->rope_dim;
    const uint32_t token_bytes = quant ? p->kv.token_bytes : d_qk * (p->is_f32 ? 4u : 2u);
    RT_TRY(rt_check_tokens("kv_a", &p->kv_a, err));
    RT_TRY(rt_check_norm("kv_a norm", &p->kv_a_norm, p->latent_dim, err));
    RT_REQUIRE(p->kv_a_norm.width == p->latent_dim && p->kv.token_bytes == token_bytes, err,
               RT_ERR_INVALID,
               "a norm of %u numbers and a cache of %u bytes a token for L %u, R %u",
               p->kv_a_norm.width, p->kv.token_bytes, p->latent_dim, p->rope_dim);
    RT_TRY(rt_check_kv(&p->kv, err));
    return quant ? rt_check_quant(quant, d_qk, &p->kv, err) : RT_OK;
}

static enum rt_status check_q(const struct rt_preattend_params *p, struct rt_error *err)
{
    RT_REQUIRE(p->heads >= 1 && p->heads <= RT_MAX_HEADS, err, RT_ERR_INVALID,
               "%u heads, not 1 to %u", p->heads, RT_MAX_HEADS);
    RT_REQUIRE(p->nope_dim % 8 == 0, err, RT_ERR_INVALID,
               "%u numbers of a head are not rotated, not a multiple of 8", p->nope_dim);
    RT_REQUIRE(p->q_out.base || p->rope_dim == 0, err, RT_ERR_INVALID,
               "q has %u rotated numbers, and q_out no address", p->rope_dim);
    RT_TRY(rt_check_heads("q_in", &p->q_in, err));
    return rt_check_heads("q_out", &p->q_out, err);
}

static enum rt_status check(const struct rt_preattend_params *p, const struct rt_quant_view *quant,
                            struct rt_error *err)
{
    RT_TRY(rt_check_token_rows(p->rows.count, p->rows.q_len, err));
    RT_TRY(check_dims(p, err));
    RT_REQUIRE(p->q_a.base || p->kv_a.base || p->q_in.base, err, RT_ERR_INVALID,
               "preattend has none of q_a, kv_a and q_in");
    if (p->q_a.base) {
        RT_TRY(rt_check_tokens("q_a", &p->q_a, err));
        RT_TRY(rt_check_norm("q_a norm", &p->q_a_norm, RT_PREATTEND_MOST_WIDTH, err));
    }
    if (p->kv_a.base)
        RT_TRY(check_kv_a(p, quant, err));
    return p->q_in.base ? check_q(p, err) : RT_OK;
}

enum rt_status rt_preattend_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                  const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_preattend_params *p = params;
    RT_TRY(check(p, NULL, err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          rt_preattend_blocks(p, RT_PREATTEND_WARPS), 1,
                          RT_PREATTEND_WARPS * RT_WARP_THREADS, out, err);
}

/* Without kv_a nothing goes into the cache, and it is preattend's work. */
enum rt_status rt_preattend_quant_build(const struct rt_kernels *k,
                                        const struct rt_variant *variant, const void *params,
                                        struct rt_launch *out, struct rt_error *err)
{
    const struct rt_preattend_quant_params *p = params;
    RT_REQUIRE(p->preattend.kv_a.base && !p->preattend.is_f32, err, RT_ERR_INVALID,
               "preattend_quant with kv_a at %p, f32 %u: must be there, of bf16",
               (const void *)p->preattend.kv_a.base, p->preattend.is_f32);
    RT_TRY(check(&p->preattend, &p->quant, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          rt_preattend_blocks(&p->preattend, RT_PREATTEND_WARPS), 1,
                          RT_PREATTEND_WARPS * RT_WARP_THREADS, out, err);
}

static enum rt_status check_sums(const struct rt_preattend_sums_params *p, struct rt_error *err)
{
    const struct rt_preattend_params *of = &p->preattend;
    RT_REQUIRE(p->sums.parts >= 1 && p->sums.parts <= RT_PREATTEND_MOST_PARTS && !of->is_f32, err,
               RT_ERR_INVALID, "preattend_sums of %u parts, f32 %u: 1 to %u, and of bf16",
               p->sums.parts, of->is_f32, RT_PREATTEND_MOST_PARTS);
    RT_REQUIRE(
        (!of->q_a.base || (p->sums.q_a && of->q_a_norm.weight)) && (!of->kv_a.base || p->sums.kv_a),
        err, RT_ERR_INVALID,
        "preattend_sums with q_a's at %p, its norm at %p, kv_a's at %p: must be there",
        (const void *)p->sums.q_a, (const void *)of->q_a_norm.weight, (const void *)p->sums.kv_a);
    RT_TRY(rt_check_pointer("q_a's sums", p->sums.q_a, err));
    RT_TRY(rt_check_pointer("kv_a's sums", p->sums.kv_a, err));
    return rt_check_stride("sums' stride in numbers", p->sums.stride, sizeof(float), err);
}

enum rt_status rt_preattend_sums_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                       const void *params, struct rt_launch *out,
                                       struct rt_error *err)
{
    const struct rt_preattend_sums_params *p = params;
    RT_TRY(check(&p->preattend, NULL, err));
    RT_TRY(check_sums(p, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          rt_preattend_blocks(&p->preattend, RT_PREATTEND_WARPS), 1,
                          RT_PREATTEND_WARPS * RT_WARP_THREADS, out, err);
}
