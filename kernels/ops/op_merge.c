/* SPDX-License-Identifier: Apache-2.0 */
/* Attention's pieces become one. */
#include "kernels/ops/op_build.h"

#include "common/math.h"

/* Of vectors: what is moved 16 bytes at a time. */
static enum rt_status check_vectors(const struct rt_merge_params *p, struct rt_error *err)
{
    RT_TRY(rt_check_pointer("in", p->in.base, err));
    RT_TRY(rt_check_pointer("out", p->out.base, err));
    const struct {
        const char *name;
        int64_t stride;
    } strides[] = {{"in piece stride in elements", p->in.piece_stride},
                   {"in token stride in elements", p->in.token_stride},
                   {"in head stride in elements", p->in.head_stride},
                   {"out token stride in elements", p->out.token_stride},
                   {"out head stride in elements", p->out.head_stride}};
    for (size_t i = 0; i < sizeof(strides) / sizeof(strides[0]); i++)
        RT_TRY(rt_check_stride(strides[i].name, strides[i].stride, sizeof(uint16_t), err));
    return RT_OK;
}

enum rt_status rt_merge_build(const struct rt_kernels *k, const struct rt_variant *variant,
                              const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_merge_params *p = params;
    RT_REQUIRE(p->pieces >= 1 && p->pieces <= RT_MERGE_MOST_PIECES, err, RT_ERR_INVALID,
               "%u pieces, not 1 to %u", p->pieces, RT_MERGE_MOST_PIECES);
    RT_REQUIRE(p->tokens >= 1 && p->tokens <= RT_PREFILL_MOST_TOKENS, err, RT_ERR_INVALID,
               "%u tokens, not 1 to %u", p->tokens, RT_PREFILL_MOST_TOKENS);
    RT_REQUIRE(p->heads >= 1 && p->heads <= RT_MAX_HEADS, err, RT_ERR_INVALID,
               "%u heads, not 1 to %u", p->heads, RT_MAX_HEADS);
    RT_REQUIRE(p->v_dim >= 8 && p->v_dim <= RT_MERGE_MOST_DIM && p->v_dim % 8 == 0, err,
               RT_ERR_INVALID, "v_dim = %u is not a multiple of 8 from 8 to %u", p->v_dim,
               RT_MERGE_MOST_DIM);
    RT_TRY(check_vectors(p, err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    const uint32_t items = RT_MERGE_THREADS / rt_merge_lanes(p->v_dim); /* of a block */
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          rt_ceil_div_u32(p->tokens * p->heads, items), 1, RT_MERGE_THREADS, out,
                          err);
}
