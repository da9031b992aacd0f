/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/convert.h"
#include "kernels/ops/op_build.h"

#include "common/math.h"

static enum rt_status check_side(const char *name, const struct rt_kv_view *kv,
                                 const struct rt_quant_view *quant, uint32_t d_qk,
                                 struct rt_error *err)
{
    RT_REQUIRE(kv->page_size >= 1, err, RT_ERR_INVALID, "%s has pages of 0 tokens", name);
    RT_TRY(rt_check_kv(kv, err));
    return rt_check_quant(quant, d_qk, kv, err);
}

/* Whether rt_kv_convert_even serves. */
static bool is_even(const struct rt_kv_convert_params *p)
{
    const uint32_t fp8 = rt_min_u32(p->from_quant.fp8, RT_KV_CONVERT_MOST_SCALED);
    return fp8 > 0 && fp8 == rt_min_u32(p->to_quant.fp8, RT_KV_CONVERT_MOST_SCALED) &&
           p->d_qk <= fp8 + RT_KV_CONVERT_MOST_WIDTH - RT_KV_CONVERT_MOST_SCALED;
}

static const char *entry_of(const struct rt_kv_convert_params *p, const struct rt_variant *variant)
{
    if (p->copies)
        return "rt_kv_copy";
    return is_even(p) ? "rt_kv_convert_even" : variant->entry;
}

enum rt_status rt_kv_convert_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                   const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_kv_convert_params *p = params;
    RT_REQUIRE(p->rows >= 1 && p->rows <= RT_MAX_BATCH, err, RT_ERR_INVALID,
               "%u rows to convert, not 1 to %d", p->rows, RT_MAX_BATCH);
    RT_REQUIRE(p->max_length >= 1 && p->max_length <= RT_MAX_LENGTH, err, RT_ERR_INVALID,
               "up to %u tokens of a row to convert, not 1 to %d", p->max_length, RT_MAX_LENGTH);
    RT_REQUIRE(p->d_qk % 16 == 0 && p->d_qk >= 16 && p->d_qk <= RT_KV_CONVERT_MOST_WIDTH, err,
               RT_ERR_INVALID, "keys of %u numbers to convert, not a multiple of 16 from 16 to %u",
               p->d_qk, RT_KV_CONVERT_MOST_WIDTH);
    RT_REQUIRE(!p->copies || p->from.token_bytes == p->to.token_bytes, err, RT_ERR_INTERNAL,
               "rows of %u bytes to copy into rows of %u", p->from.token_bytes, p->to.token_bytes);
    RT_TRY(check_side("from", &p->from, &p->from_quant, p->d_qk, err));
    RT_TRY(check_side("to", &p->to, &p->to_quant, p->d_qk, err));
    const uint32_t lanes = p->copies ? RT_KV_COPY_LANES : RT_KV_CONVERT_LANES;
    return rt_launch_grid(k, entry_of(p, variant), p, sizeof(*p),
                          rt_ceil_div_u32(p->max_length, RT_KV_CONVERT_TOKENS(lanes)), p->rows,
                          RT_KV_CONVERT_THREADS, out, err);
}
