/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe_block: which shapes the one kernel serves, and its launch. There is no generic kernel: what
 * stands in its place elsewhere are the operators that it replaces, one after the other.
 */
#include "kernels/ops/op_build.h"
#include "kernels/ops/op_experts.h"

#include "common/math.h"

#include <stdio.h>

/* Stages that a block has on their way at once (kernels/sm90/moe_block_bring.cuh): of a ring that
 * has fewer the oldest would be waited for in vain. */
#define MIXTURE_FLIGHT 4u
#define DENSE_FLIGHT 8u

/* Rows are moved 16 bytes at a time. */
#define VECTOR_ELEMENTS 8u

struct kernel {
    const char *entry;
    uint32_t tiles; /* of 16 rows of out at a time */
    uint32_t slots; /* vectors of x that a thread has */
};
static const struct kernel kernels[] = {
    {"rt_moe_block_x1_1", 1, 1}, {"rt_moe_block_x1_4", 1, 4}, {"rt_moe_block_x4_4", 4, 4}};
#define KERNELS (sizeof(kernels) / sizeof(kernels[0]))

/* A block's rows at once, where there is a kernel with so many tiles; the last has room for all. */
static const struct kernel *pick(uint32_t hidden, uint32_t tokens, uint32_t blocks)
{
    const uint32_t rows = rt_ceil_div_u32(hidden, blocks);
    const uint32_t slots = tokens * rt_ceil_div_u32(hidden, 2048);
    size_t i = 0;
    while (i + 1 < KERNELS &&
           (rows > kernels[i].tiles * RT_MOE_BLOCK_TILE_ROWS || slots > kernels[i].slots))
        i++;
    return &kernels[i];
}

static uint32_t tokens_of(const struct rt_moe_block_params *p)
{
    return p->gate.route.rows.count * p->gate.route.rows.q_len;
}

/* ---- resolve --------------------------------------------------------------------------------- */

static enum rt_status check_numbers(const struct rt_moe_block_params *p, struct rt_error *err)
{
    const uint32_t hidden = p->gate.norm.norm.width;
    RT_REQUIRE(!p->gate.norm.is_f32, err, RT_ERR_UNSUPPORTED,
               "moe_block takes bf16, not f32, which is the C references' alone");
    RT_REQUIRE(hidden % VECTOR_ELEMENTS == 0 && p->width % VECTOR_ELEMENTS == 0 && p->width > 0,
               err, RT_ERR_UNSUPPORTED,
               "moe_block serves %u numbers and experts of %u: not multiples of %u", hidden,
               p->width, VECTOR_ELEMENTS);
    RT_REQUIRE(p->gate.route.experts + p->shared >= 1 && p->shared <= RT_ROUTE_MOST_EXPERTS, err,
               RT_ERR_INVALID, "%u experts and %u shared ones: up to %u, and one at least",
               p->gate.route.experts, p->shared, RT_ROUTE_MOST_EXPERTS);
    return RT_OK;
}

static enum rt_status check_sizes(const struct rt_moe_block_params *p, uint32_t blocks,
                                  struct rt_error *err)
{
    const uint32_t hidden = p->gate.norm.norm.width, tokens = tokens_of(p);
    const uint32_t most = rt_moe_block_most_tokens(hidden, p->gate.route.experts,
                                                   p->gate.route.chosen, p->shared, p->width);
    RT_TRY(check_numbers(p, err));
    RT_REQUIRE(tokens >= 1 && tokens <= most, err, RT_ERR_UNSUPPORTED,
               "moe_block serves up to %u tokens of %u numbers, each to %u of %u experts and %u "
               "shared ones of %u, not %u",
               most, hidden, p->gate.route.chosen, p->gate.route.experts, p->shared, p->width,
               tokens);
    RT_REQUIRE(rt_ceil_div_u32(hidden, blocks) <= RT_MOE_BLOCK_MOST_ROWS, err, RT_ERR_UNSUPPORTED,
               "moe_block of %u numbers needs %u multiprocessors, not %u", hidden,
               rt_ceil_div_u32(hidden, RT_MOE_BLOCK_MOST_ROWS), blocks);
    return RT_OK;
}

/* Where what lies: whatever is left is the ring. */
static enum rt_status place(const struct rt_moe_block_params *p,
                            struct rt_moe_block_sm90_params *out, uint32_t *smem_bytes,
                            struct rt_error *err)
{
    const uint32_t flight = p->gate.route.experts > 0 ? MIXTURE_FLIGHT : DENSE_FLIGHT;
    const uint32_t hidden = p->gate.norm.norm.width, tokens = tokens_of(p);
    const uint32_t stage_bytes = RT_MOE_BLOCK_TILE_ROWS * RT_PROJECT_SM90_ROW_BYTES;
    const uint32_t h_bytes = 2 * tokens * (p->gate.route.chosen + p->shared) * p->width;
    struct rt_experts_ring *ring = &out->ring;
    ring->row_bytes = RT_PROJECT_SM90_ROW_BYTES;
    ring->tile_rows = RT_MOE_BLOCK_TILE_ROWS;
    ring->sums_at =
        RT_PROJECT_SM90_DESK_BYTES +
        RT_PROJECT_SM90_SUMS_BYTES(tokens, RT_PROJECT_SM90_SUMS_STRIDE(RT_PROJECT_SM90_TILES));
    out->logits_at = ring->sums_at + RT_MOE_BLOCK_DESK_BYTES;
    out->x_at = (uint32_t)rt_align_up_u64(
        out->logits_at + RT_MOE_BLOCK_CHOOSERS * sizeof(float) * p->gate.route.experts, 16);
    ring->ring_at = (uint32_t)rt_align_up_u64(
        out->x_at + rt_max_u32(4 * hidden + tokens * RT_MOE_BLOCK_X_BYTES(hidden), h_bytes), 128);
    ring->stages = rt_min_u32((RT_PROJECT_SM90_SMEM_BYTES - ring->ring_at) / stage_bytes,
                              RT_PROJECT_SM90_MOST_STAGES);
    *smem_bytes = ring->ring_at + ring->stages * stage_bytes;
    RT_REQUIRE(ring->stages >= flight, err, RT_ERR_UNSUPPORTED,
               "moe_block keeps %u bytes beside its ring, which leaves %u stages of at least %u",
               ring->ring_at, ring->stages, flight);
    return RT_OK;
}

enum rt_status rt_moe_block_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                    struct rt_error *err)
{
    const struct rt_moe_block_params *p = request->moe_block;
    if (!p) /* nothing is known of it yet, and nothing is built of this */
        return rt_plain_resolve(request, out, err);
    RT_REQUIRE(request->backend != RT_BACKEND_GENERIC, err, RT_ERR_UNSUPPORTED,
               "moe_block has no generic kernel: generic operators do its steps");
    RT_TRY(rt_check_sm90(request->caps, err));
    RT_TRY(check_sizes(p, request->caps->sm_count, err));
    const struct kernel *kernel =
        pick(p->gate.norm.norm.width, tokens_of(p), request->caps->sm_count);
    out->backend = RT_BACKEND_SM90;
    out->entry = kernel->entry;
    out->parts = request->caps->sm_count;
    out->m_tiles = kernel->tiles;
    out->threads = RT_MOE_BLOCK_THREADS;
    out->smem_bytes = RT_PROJECT_SM90_SMEM_BYTES;
    (void)snprintf(out->reason, sizeof(out->reason),
                   "sm90%s, norm to hidden as one kernel, %u tokens, %u blocks at a time",
                   request->backend == RT_BACKEND_AUTO ? "" : " as asked for", tokens_of(p),
                   out->parts);
    return RT_OK;
}

/* ---- build ----------------------------------------------------------------------------------- */

/* The two products as operators of their own have them. */
static enum rt_status check_products(const struct rt_moe_block_params *p, struct rt_error *err)
{
    const struct rt_experts_view work = {.groups = p->gate.route.groups_of,
                                         .tokens = tokens_of(p),
                                         .experts = p->gate.route.experts,
                                         .chosen = p->gate.route.chosen,
                                         .shared = p->shared};
    const struct rt_experts_up_params up = {.work = work,
                                            .x = p->gate.norm.normed,
                                            .h = p->h,
                                            .gate = {p->expert[0], p->expert[1]},
                                            .up = {p->expert_up[0], p->expert_up[1]},
                                            .x_stride = p->gate.norm.stride,
                                            .hidden = p->gate.norm.norm.width,
                                            .width = p->width};
    const struct rt_experts_down_params down = {.work = work,
                                                .rows = p->gate.route.rows,
                                                .h = p->h,
                                                .out = p->out,
                                                .down = {p->expert_down[0], p->expert_down[1]},
                                                .out_stride = p->out_stride,
                                                .hidden = p->gate.norm.norm.width,
                                                .width = p->width};
    RT_TRY(rt_experts_check_up_alignment(&up, err));
    RT_TRY(rt_experts_check_down(&down, err));
    return rt_experts_check_down_alignment(&down, err);
}

static enum rt_status check_data(const struct rt_moe_block_params *p, struct rt_error *err)
{
    const struct rt_gate_params *gate = &p->gate;
    RT_TRY(rt_check_input_norm(&gate->norm, err));
    RT_REQUIRE(gate->norm.tokens == tokens_of(p), err, RT_ERR_INVALID,
               "%u rows of %u tokens are not %u tokens", gate->route.rows.count,
               gate->route.rows.q_len, gate->norm.tokens);
    if (gate->route.experts > 0) {
        RT_TRY(rt_check_route(&gate->route, err));
        RT_TRY(rt_check_pointer("router", gate->router, err));
        RT_TRY(rt_check_stride("router stride in elements", gate->router_stride, sizeof(uint16_t),
                               err));
    }
    RT_REQUIRE(p->exchange && (uintptr_t)p->exchange % sizeof(uint64_t) == 0, err, RT_ERR_INVALID,
               "the exchange is at %p, not 8-byte aligned", (void *)p->exchange);
    return check_products(p, err);
}

enum rt_status rt_moe_block_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                  const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_moe_block_params *p = params;
    struct rt_moe_block_sm90_params sm90 = {.block = *p};
    uint32_t smem_bytes = 0;
    RT_TRY(check_sizes(p, variant->parts, err));
    RT_TRY(check_data(p, err));
    RT_TRY(place(p, &sm90, &smem_bytes, err));
    RT_TRY(rt_launch_grid(k, variant->entry, &sm90, sizeof(sm90), variant->parts, 1,
                          variant->threads, out, err));
    out->smem_bytes = smem_bytes;
    out->cooperative = true; /* its blocks wait for each other */
    return RT_OK;
}
