/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"

enum rt_status rt_embed_build(const struct rt_kernels *k, const struct rt_variant *variant,
                              const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_embed_params *p = params;
    RT_TRY(rt_check_token_rows(p->rows.count, p->rows.q_len, err));
    RT_REQUIRE(p->vocab >= 1 && p->vocab <= INT32_MAX, err, RT_ERR_INVALID,
               "a vocabulary of %u, not 1 to %d", p->vocab, INT32_MAX);
    RT_REQUIRE(p->width >= 8 && p->width % 8 == 0, err, RT_ERR_INVALID,
               "embeddings of %u numbers, not a multiple of 8", p->width);
    RT_TRY(rt_check_pointer("embedding table", p->table, err));
    RT_TRY(rt_check_pointer("hidden", p->hidden, err));
    RT_TRY(rt_check_stride("embedding stride in elements", p->table_stride, sizeof(uint16_t), err));
    RT_TRY(rt_check_stride("hidden stride in elements", p->hidden_stride, sizeof(uint16_t), err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), p->rows.count * p->rows.q_len, 1,
                          RT_EMBED_THREADS, out, err);
}
