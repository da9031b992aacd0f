/* SPDX-License-Identifier: Apache-2.0 */
/* schedule, append in its two forms, and the two in one. */
#include "kernels/ops/op_build.h"

#include "common/math.h"

enum rt_status rt_check_schedule(const struct rt_schedule_params *p, struct rt_error *err)
{
    const uint32_t parts = p->schedule.part_count;
    RT_TRY(rt_check_rows(p->rows.count, 1, err));
    RT_REQUIRE(parts >= 1 && parts <= UINT16_MAX && p->min_blocks >= 1, err, RT_ERR_INVALID,
               "a schedule of %u parts with at least %u blocks: 1 to 65535 parts, 1 block or more",
               parts, p->min_blocks);
    RT_REQUIRE(!p->schedule.invariant || (p->overhead_blocks == 0 && p->min_blocks == 1), err,
               RT_ERR_INVALID,
               "rows cut by their own length, with %u blocks of overhead and at least %u: 0 and 1",
               p->overhead_blocks, p->min_blocks);
    return RT_OK;
}

enum rt_status rt_check_append(const struct rt_append_params *p, struct rt_error *err)
{
    RT_TRY(rt_check_token_rows(p->rows.count, p->rows.q_len, err));
    RT_TRY(rt_check_tokens("latent", &p->latent, err));
    return rt_check_kv(&p->kv, err);
}

enum rt_status rt_schedule_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                 const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_schedule_params *p = params;
    RT_TRY(rt_check_schedule(p, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), 1, 1, RT_SCHEDULE_THREADS, out, err);
}

uint32_t rt_append_blocks(const struct rt_rows_view *rows)
{
    return rt_ceil_div_u32(rows->count * rows->q_len, RT_APPEND_WARPS);
}

enum rt_status rt_append_build(const struct rt_kernels *k, const struct rt_variant *variant,
                               const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_append_params *p = params;
    RT_TRY(rt_check_append(p, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), rt_append_blocks(&p->rows), 1,
                          RT_APPEND_WARPS * RT_WARP_THREADS, out, err);
}

enum rt_status rt_append_general_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                       const void *params, struct rt_launch *out,
                                       struct rt_error *err)
{
    const struct rt_append_general_params *p = params;
    RT_TRY(rt_check_append(&p->append, err));
    RT_TRY(rt_check_tokens("rope", &p->rope, err));
    RT_TRY(rt_check_stride("rope bytes of a token", p->rope_bytes, 1, err));
    RT_REQUIRE(p->rope.base ? p->rope_bytes > 0 && p->rope_bytes < p->append.kv.token_bytes
                            : p->rope_bytes == 0,
               err, RT_ERR_INVALID, "%u of a token's %u bytes come from rope, which is at %p",
               p->rope_bytes, p->append.kv.token_bytes, (const void *)p->rope.base);
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), rt_append_blocks(&p->append.rows), 1,
                          RT_APPEND_WARPS * RT_WARP_THREADS, out, err);
}

/* Both halves are checked as they are alone. */
enum rt_status rt_schedule_append_build(const struct rt_kernels *k,
                                        const struct rt_variant *variant, const void *params,
                                        struct rt_launch *out, struct rt_error *err)
{
    const struct rt_schedule_append_params *p = params;
    const struct rt_rows_view *rows = &p->append.rows;
    RT_TRY(rt_check_schedule(&p->schedule, err));
    RT_TRY(rt_check_append(&p->append, err));
    const uint32_t warps = RT_SCHEDULE_THREADS / RT_WARP_THREADS;
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          1 + rt_ceil_div_u32(rows->count * rows->q_len, warps), 1,
                          RT_SCHEDULE_THREADS, out, err);
}
