/* SPDX-License-Identifier: Apache-2.0 */
/* The two products of experts for many tokens, by tensor cores: who takes them, and their grids. */
#include "kernels/ops/op_experts.h"

#include "common/math.h"
#include "kernels/abi/experts_many.h"

#include <stdio.h>
#include <string.h>

/* Rows are moved 16 bytes at a time, which no row may end within. */
#define VECTOR_ELEMENTS 8u

static const char up_entry[] = "rt_experts_up_many";

/* Falling in tokens of a group, which is what they differ in. */
static const struct down_kernel {
    const char *entry;
    uint32_t most;
} down_kernels[] = {{"rt_experts_down_many512", 512}, {"rt_experts_down_many128", 128}};
#define DOWN_COUNT (sizeof(down_kernels) / sizeof(down_kernels[0]))

static const struct down_kernel *find_down(const struct rt_variant *v)
{
    for (size_t i = 0; i < DOWN_COUNT; i++)
        if (v->entry && strcmp(v->entry, down_kernels[i].entry) == 0)
            return &down_kernels[i];
    return NULL;
}

/* The largest that there is room for; the host device runs no kernel of them and has none. */
static const struct down_kernel *pick_down(const struct rt_device_caps *caps)
{
    for (size_t i = 0; i < DOWN_COUNT; i++) {
        const uint32_t bytes =
            RT_EXPERTS_MANY_DOWN_SMEM_BYTES(down_kernels[i].most, RT_ROUTE_MOST_EXPERTS);
        if (caps->kind == RT_DEVICE_KIND_HOST || bytes <= caps->smem_optin_bytes)
            return &down_kernels[i];
    }
    return NULL;
}

/* ---- who takes what -------------------------------------------------------------------------- */

/* Besides what is read: two numbers are written at once. */
static enum rt_status check_up(const struct rt_experts_up_params *p, struct rt_error *err)
{
    RT_TRY(rt_experts_check_up_alignment(p, err));
    RT_TRY(rt_check_pointer("h", p->h.base, err));
    RT_TRY(rt_check_stride("h token stride in elements", p->h.token_stride, sizeof(uint16_t), err));
    return rt_check_stride("h place stride in elements", p->h.place_stride, sizeof(uint16_t), err);
}

enum rt_status rt_experts_many_check_down(const struct rt_experts_down_params *p,
                                          struct rt_error *err)
{
    RT_TRY(rt_experts_check_down_alignment(p, err));
    RT_TRY(rt_check_pointer("out", p->out, err));
    return rt_check_stride("out stride in elements", p->out_stride, sizeof(uint16_t), err);
}

static bool up_fits(const struct rt_op_request *request)
{
    const struct rt_experts_up_params *p = request->experts_up;
    const struct rt_device_caps *caps = request->caps;
    return !p->is_f32 && p->work.tokens >= RT_EXPERTS_MANY_LEAST_TOKENS &&
           p->hidden % VECTOR_ELEMENTS == 0 && check_up(p, NULL) == RT_OK &&
           (caps->kind == RT_DEVICE_KIND_HOST ||
            caps->smem_optin_bytes >= RT_EXPERTS_MANY_TILE_SMEM_BYTES);
}

static bool down_fits(const struct rt_op_request *request)
{
    const struct rt_experts_down_params *p = request->experts_down;
    return !p->is_f32 && p->work.tokens >= RT_EXPERTS_MANY_LEAST_TOKENS &&
           p->width % VECTOR_ELEMENTS == 0 && rt_experts_many_check_down(p, NULL) == RT_OK &&
           pick_down(request->caps);
}

bool rt_experts_many_takes(const struct rt_op_request *request, enum rt_op_id op)
{
    return op == RT_OP_EXPERTS_UP ? up_fits(request) : down_fits(request);
}

bool rt_experts_many_is(const struct rt_variant *v)
{
    return v->entry && (strcmp(v->entry, up_entry) == 0 || find_down(v));
}

/* ---- grids ----------------------------------------------------------------------------------- */

/* An expert's last tile may have a single pair. */
enum rt_status rt_experts_many_blocks(const struct rt_experts_view *work, uint32_t shared,
                                      uint32_t rows, uint32_t tile_rows, uint32_t *blocks,
                                      struct rt_error *err)
{
    const uint64_t pairs = work->experts > 0 ? (uint64_t)work->tokens * work->chosen : 0;
    const uint64_t active = pairs < work->experts ? pairs : work->experts;
    const uint64_t of_shared =
        (uint64_t)shared * rt_ceil_div_u32(work->tokens, RT_EXPERTS_MANY_TILE_PAIRS);
    const uint64_t tiles = of_shared + (pairs - active) / RT_EXPERTS_MANY_TILE_PAIRS + active;
    const uint64_t all = tiles * rt_ceil_div_u32(rows, tile_rows);
    RT_REQUIRE(all <= INT32_MAX, err, RT_ERR_INVALID,
               "%llu tiles of %u pairs by %u rows are too many for one launch",
               (unsigned long long)tiles, RT_EXPERTS_MANY_TILE_PAIRS, rows);
    *blocks = (uint32_t)all;
    return RT_OK;
}

static enum rt_status up_blocks(const struct rt_experts_up_params *p, uint32_t *blocks,
                                struct rt_error *err)
{
    return rt_experts_many_blocks(&p->work, p->work.shared, p->width, RT_EXPERTS_MANY_ROWS, blocks,
                                  err);
}

/* Tokens of a group: as many as there is room for, which saves most, but no more than leave every
 * one of `parts` blocks something to do; whole tiles of a shared expert. */
static uint32_t group_of(const struct rt_experts_down_params *p, uint32_t most, uint32_t parts)
{
    const uint32_t across = rt_ceil_div_u32(p->hidden, RT_EXPERTS_MANY_ROWS);
    const uint32_t groups =
        rt_max_u32(rt_ceil_div_u32(p->work.tokens, most), rt_max_u32(parts / across, 1));
    const uint32_t even = rt_ceil_div_u32(p->work.tokens, groups);
    return rt_ceil_div_u32(even, RT_EXPERTS_MANY_DOWN_PAIRS) * RT_EXPERTS_MANY_DOWN_PAIRS;
}

static enum rt_status down_blocks(const struct rt_experts_down_params *p, uint32_t group,
                                  uint32_t *blocks, struct rt_error *err)
{
    const uint64_t all = (uint64_t)rt_ceil_div_u32(p->hidden, RT_EXPERTS_MANY_ROWS) *
                         rt_ceil_div_u32(p->work.tokens, group);
    RT_REQUIRE(all <= INT32_MAX, err, RT_ERR_INVALID,
               "%u tokens of %u numbers are too many for one launch", p->work.tokens, p->hidden);
    *blocks = (uint32_t)all;
    return RT_OK;
}

/* ---- resolve --------------------------------------------------------------------------------- */

static void add_reason(struct rt_variant *v, const char *how)
{
    char before[RT_REASON_BYTES];
    (void)snprintf(before, sizeof(before), "%s", v->reason);
    (void)snprintf(v->reason, sizeof(v->reason), "%.*s; %s",
                   (int)(sizeof(before) - strlen(how) - 3), before, how);
}

enum rt_status rt_experts_many_choose(const struct rt_op_request *request, struct rt_variant *out,
                                      struct rt_error *err)
{
    uint32_t blocks;
    char how[64];
    out->threads = RT_EXPERTS_MANY_THREADS;
    out->parts = request->caps->sm_count;
    if (out->op == RT_OP_EXPERTS_UP) {
        out->entry = up_entry;
        out->smem_bytes = RT_EXPERTS_MANY_TILE_SMEM_BYTES;
        (void)snprintf(how, sizeof(how), "tensor cores, tiles of %u pairs",
                       RT_EXPERTS_MANY_TILE_PAIRS);
        add_reason(out, how);
        return up_blocks(request->experts_up, &blocks, err);
    }
    const struct rt_experts_down_params *p = request->experts_down;
    const struct down_kernel *kernel = pick_down(request->caps);
    const uint32_t group = group_of(p, kernel->most, out->parts);
    out->entry = kernel->entry;
    out->smem_bytes = RT_EXPERTS_MANY_DOWN_SMEM_BYTES(group, p->work.experts);
    (void)snprintf(how, sizeof(how), "tensor cores, groups of %u tokens", group);
    add_reason(out, how);
    return down_blocks(p, group, &blocks, err);
}

/* ---- build ----------------------------------------------------------------------------------- */

enum rt_status rt_experts_many_build_up(const struct rt_kernels *k, const struct rt_variant *v,
                                        const struct rt_experts_up_params *p, struct rt_launch *out,
                                        struct rt_error *err)
{
    uint32_t blocks = 0;
    RT_REQUIRE(v->entry && strcmp(v->entry, up_entry) == 0, err, RT_ERR_INTERNAL,
               "experts_up was planned as %s", v->entry);
    RT_TRY(check_up(p, err));
    RT_TRY(up_blocks(p, &blocks, err));
    return rt_launch_grid(k, v->entry, p, sizeof(*p), blocks, 1, RT_EXPERTS_MANY_THREADS, out, err);
}

enum rt_status rt_experts_many_build_down(const struct rt_kernels *k, const struct rt_variant *v,
                                          const struct rt_experts_down_params *p,
                                          struct rt_launch *out, struct rt_error *err)
{
    const struct down_kernel *kernel = find_down(v);
    uint32_t blocks = 0;
    RT_REQUIRE(kernel, err, RT_ERR_INTERNAL, "experts_down was planned as %s", v->entry);
    RT_TRY(rt_experts_many_check_down(p, err));
    const struct rt_experts_down_many_params params = {
        .down = *p, .group = group_of(p, kernel->most, v->parts)};
    RT_TRY(down_blocks(p, params.group, &blocks, err));
    RT_TRY(rt_launch_grid(k, v->entry, &params, sizeof(params), blocks, 1, RT_EXPERTS_MANY_THREADS,
                          out, err));
    out->smem_bytes = RT_EXPERTS_MANY_DOWN_SMEM_BYTES(params.group, p->work.experts);
    return RT_OK;
}
