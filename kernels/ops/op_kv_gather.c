/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"

#include "common/math.h"

#define VECTOR_BYTES 16u

/* `token_bytes`: of out. */
static enum rt_status check(const struct rt_kv_gather_params *p, uint32_t token_bytes,
                            struct rt_error *err)
{
    RT_REQUIRE(p->rows >= 1 && p->rows <= RT_PREFILL_MOST_ROWS, err, RT_ERR_INVALID,
               "%u rows to gather, not 1 to %u", p->rows, RT_PREFILL_MOST_ROWS);
    RT_REQUIRE(p->count >= 1 && p->count <= RT_PREFILL_MOST_TOKENS, err, RT_ERR_INVALID,
               "%u tokens to gather, not 1 to %u", p->count, RT_PREFILL_MOST_TOKENS);
    RT_REQUIRE(p->begin <= INT32_MAX - p->count, err, RT_ERR_INVALID,
               "%u tokens to gather from %u on: more than %d", p->count, p->begin, INT32_MAX);
    RT_REQUIRE(p->kv.page_size >= 1, err, RT_ERR_INVALID, "pages of 0 tokens to gather from");
    RT_REQUIRE(token_bytes >= VECTOR_BYTES && token_bytes <= RT_KV_GATHER_MOST_BYTES, err,
               RT_ERR_INVALID, "tokens of %u bytes to gather, not %u to %u", token_bytes,
               VECTOR_BYTES, RT_KV_GATHER_MOST_BYTES);
    RT_TRY(rt_check_kv(&p->kv, err));
    return rt_check_pointer("out", p->out, err);
}

static uint32_t blocks(const struct rt_kv_gather_params *p, uint32_t token_bytes)
{
    const uint64_t vectors = (uint64_t)p->count * (token_bytes / VECTOR_BYTES);
    return (uint32_t)rt_ceil_div_u64(vectors, RT_KV_GATHER_VECTORS);
}

enum rt_status rt_kv_gather_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                  const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_kv_gather_params *p = params;
    RT_TRY(check(p, p->kv.token_bytes, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), blocks(p, p->kv.token_bytes), 1,
                          RT_KV_GATHER_THREADS, out, err);
}

enum rt_status rt_kv_gather_quant_build(const struct rt_kernels *k,
                                        const struct rt_variant *variant, const void *params,
                                        struct rt_launch *out, struct rt_error *err)
{
    const struct rt_kv_gather_quant_params *p = params;
    const uint32_t token_bytes = 2 * p->d_qk;
    RT_REQUIRE(p->d_qk >= RT_KV_GATHER_QUANT_LEAST && p->d_qk <= RT_KV_GATHER_MOST_BYTES / 2 &&
                   p->d_qk % 8 == 0,
               err, RT_ERR_INVALID,
               "tokens of %u numbers to gather, not a multiple of 8 from %u to %u", p->d_qk,
               RT_KV_GATHER_QUANT_LEAST, RT_KV_GATHER_MOST_BYTES / 2);
    RT_TRY(check(&p->gather, token_bytes, err));
    RT_TRY(rt_check_quant(&p->quant, p->d_qk, &p->gather.kv, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), blocks(&p->gather, token_bytes), 1,
                          RT_KV_GATHER_THREADS, out, err);
}
