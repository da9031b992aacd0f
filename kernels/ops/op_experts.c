/* SPDX-License-Identifier: Apache-2.0 */
/* The two products of experts and of a dense MLP. */
#include "kernels/ops/op_experts.h"

#include "common/math.h"
#include "kernels/abi/experts_sm90.h"

#include <stdio.h>

/* Blocks of the generic kernel for each multiprocessor: as many as there is room for at once. */
#define GENERIC_BLOCKS 2u

/* Rows are moved 16 bytes at a time. */
#define VECTOR_ELEMENTS 8u

/* What a block of an sm90 kernel takes of shared memory: two of them share an SM. */
#define SM90_SMEM_BYTES ((RT_PROJECT_SM90_SMEM_BYTES + 1024u) / 2u - 1024u)

/* Weights of a block on their way while its ring fills first. */
#define SM90_EARLY_BYTES (32u * 1024u)

struct sm90_kernel {
    const char *entry;
    enum rt_op_id op;
    uint32_t vectors; /* of a slice; all of few tokens */
    uint32_t tiles;   /* of a pass */
    bool few;         /* a token a column, instead of slices of an expert's */
};

/* Of each operator the one for few tokens first, then rising in vectors, then in tiles. */
static const struct sm90_kernel sm90_kernels[] = {
    {"rt_experts_sm90_up_few", RT_OP_EXPERTS_UP, 8, RT_EXPERTS_SM90_UP_TILES, true},
    {"rt_experts_sm90_up8", RT_OP_EXPERTS_UP, 8, RT_EXPERTS_SM90_UP_TILES, false},
    {"rt_experts_sm90_up16", RT_OP_EXPERTS_UP, 16, RT_EXPERTS_SM90_UP_TILES, false},
    {"rt_experts_sm90_down_few_x1", RT_OP_EXPERTS_DOWN, 8, 1, true},
    {"rt_experts_sm90_down_few_x4", RT_OP_EXPERTS_DOWN, 8, 4, true},
    {"rt_experts_sm90_down8x1", RT_OP_EXPERTS_DOWN, 8, 1, false},
    {"rt_experts_sm90_down8x4", RT_OP_EXPERTS_DOWN, 8, 4, false},
    {"rt_experts_sm90_down16x1", RT_OP_EXPERTS_DOWN, 16, 1, false},
    {"rt_experts_sm90_down16x4", RT_OP_EXPERTS_DOWN, 16, 4, false},
};
#define SM90_COUNT (sizeof(sm90_kernels) / sizeof(sm90_kernels[0]))

/* Of either product: how long its vectors are, and how many rows a weight has for each. */
struct product {
    const struct rt_experts_view *work;
    uint32_t hidden, width, k, rows;
};

static struct product product_of_up(const struct rt_experts_up_params *p)
{
    return (struct product){&p->work, p->hidden, p->width, p->hidden, p->width};
}

static struct product product_of_down(const struct rt_experts_down_params *p)
{
    return (struct product){&p->work, p->hidden, p->width, p->width, p->hidden};
}

/* ---- what is a product at all ---------------------------------------------------------------- */

static enum rt_status check_product(const struct product *p, struct rt_error *err)
{
    const struct rt_experts_view *work = p->work;
    RT_REQUIRE(work->tokens >= 1 && p->hidden >= 1 && p->width >= 1, err, RT_ERR_INVALID,
               "%u tokens of %u numbers, experts of %u: at least 1 of each", work->tokens,
               p->hidden, p->width);
    RT_REQUIRE(work->experts + work->shared >= 1 && work->experts <= RT_ROUTE_MOST_EXPERTS &&
                   work->shared <= RT_ROUTE_MOST_EXPERTS,
               err, RT_ERR_INVALID, "%u experts and %u shared ones: up to %u, and one at least",
               work->experts, work->shared, RT_ROUTE_MOST_EXPERTS);
    RT_REQUIRE(work->chosen <= RT_ROUTE_MOST_CHOSEN && (work->experts == 0 || work->chosen >= 1),
               err, RT_ERR_INVALID, "%u of %u experts chosen, not 1 to %u", work->chosen,
               work->experts, RT_ROUTE_MOST_CHOSEN);
    RT_REQUIRE(work->tokens <= RT_MAX_BATCH * RT_MAX_QUERY_LEN, err, RT_ERR_INVALID,
               "%u tokens, not up to %u", work->tokens, RT_MAX_BATCH * RT_MAX_QUERY_LEN);
    return rt_check_pointer("active", work->groups.active, err);
}

static enum rt_status check_up(const struct rt_experts_up_params *p, struct rt_error *err)
{
    const struct product product = product_of_up(p);
    return check_product(&product, err);
}

enum rt_status rt_experts_check_down(const struct rt_experts_down_params *p, struct rt_error *err)
{
    const struct product product = product_of_down(p);
    RT_TRY(check_product(&product, err));
    RT_TRY(rt_check_token_rows(p->rows.count, p->rows.q_len, err));
    RT_REQUIRE(p->rows.count * p->rows.q_len == p->work.tokens, err, RT_ERR_INVALID,
               "%u rows of %u tokens are not %u tokens", p->rows.count, p->rows.q_len,
               p->work.tokens);
    return RT_OK;
}

/* ---- the generic kernels' grids -------------------------------------------------------------- */

static enum rt_status generic_up_blocks(const struct rt_experts_up_params *p, uint32_t parts,
                                        uint32_t *blocks, struct rt_error *err)
{
    const uint64_t jobs =
        p->work.shared + rt_min_u32(p->work.experts, p->work.tokens * p->work.chosen);
    const uint64_t items = jobs * rt_ceil_div_u32(p->width, RT_EXPERTS_ROWS);
    RT_REQUIRE(items <= INT32_MAX, err, RT_ERR_INVALID,
               "%llu experts of %u rows are too many for one launch", (unsigned long long)jobs,
               p->width);
    *blocks = rt_min_u32((uint32_t)items, rt_max_u32(parts, 1));
    return RT_OK;
}

static enum rt_status generic_down_blocks(const struct rt_experts_down_params *p, uint32_t *blocks,
                                          struct rt_error *err)
{
    const uint64_t tiles = (uint64_t)rt_ceil_div_u32(p->hidden, RT_EXPERTS_ROWS) * p->work.tokens;
    RT_REQUIRE(tiles <= INT32_MAX, err, RT_ERR_INVALID,
               "%u tokens of %u numbers are too many for one launch", p->work.tokens, p->hidden);
    *blocks = (uint32_t)tiles;
    return RT_OK;
}

/* ---- what the Hopper kernels take of them ---------------------------------------------------- */

static enum rt_status check_weight(const char *name, const struct rt_expert_weight_view *w,
                                   struct rt_error *err)
{
    char text[64];
    RT_TRY(rt_check_pointer(name, w->base, err));
    (void)snprintf(text, sizeof(text), "%s expert stride in elements", name);
    RT_TRY(rt_check_stride(text, w->expert_stride, sizeof(uint16_t), err));
    (void)snprintf(text, sizeof(text), "%s row stride in elements", name);
    return rt_check_stride(text, w->row_stride, sizeof(uint16_t), err);
}

/* What they move 16 bytes at a time. */
enum rt_status rt_experts_check_up_alignment(const struct rt_experts_up_params *p,
                                             struct rt_error *err)
{
    RT_TRY(rt_check_pointer("x", p->x, err));
    RT_TRY(rt_check_stride("x stride in elements", p->x_stride, sizeof(uint16_t), err));
    for (int i = 0; i < 2; i++) {
        RT_TRY(check_weight("gate", &p->gate[i], err));
        RT_TRY(check_weight("up", &p->up[i], err));
    }
    return RT_OK;
}

enum rt_status rt_experts_check_down_alignment(const struct rt_experts_down_params *p,
                                               struct rt_error *err)
{
    RT_TRY(rt_check_pointer("h", p->h.base, err));
    RT_TRY(rt_check_stride("h token stride in elements", p->h.token_stride, sizeof(uint16_t), err));
    RT_TRY(rt_check_stride("h place stride in elements", p->h.place_stride, sizeof(uint16_t), err));
    for (int i = 0; i < 2; i++)
        RT_TRY(check_weight("down", &p->down[i], err));
    return RT_OK;
}

static enum rt_status check_sm90(const struct product *p, bool is_f32, struct rt_error *err)
{
    RT_REQUIRE(!is_f32, err, RT_ERR_UNSUPPORTED,
               "backend sm90 takes bf16 to experts, not f32, which is the C references' alone");
    RT_REQUIRE(p->work->tokens <= RT_EXPERTS_SM90_MOST_TOKENS, err, RT_ERR_UNSUPPORTED,
               "backend sm90 takes up to %u tokens to experts, not %u", RT_EXPERTS_SM90_MOST_TOKENS,
               p->work->tokens);
    RT_REQUIRE(p->k % VECTOR_ELEMENTS == 0, err, RT_ERR_UNSUPPORTED,
               "backend sm90 takes experts of vectors of a multiple of %u numbers, not %u",
               VECTOR_ELEMENTS, p->k);
    return RT_OK;
}

static enum rt_status misaligned(const struct rt_error *story, struct rt_error *err)
{
    return rt_fail(err, RT_ERR_UNSUPPORTED, "backend sm90: %s", story->message);
}

static enum rt_status check_up_sm90(const struct rt_experts_up_params *p, struct rt_error *err)
{
    const struct product product = product_of_up(p);
    struct rt_error story = {0};
    RT_TRY(check_sm90(&product, p->is_f32, err));
    return rt_experts_check_up_alignment(p, &story) == RT_OK ? RT_OK : misaligned(&story, err);
}

static enum rt_status check_down_sm90(const struct rt_experts_down_params *p, struct rt_error *err)
{
    const struct product product = product_of_down(p);
    struct rt_error story = {0};
    RT_TRY(check_sm90(&product, p->is_f32, err));
    return rt_experts_check_down_alignment(p, &story) == RT_OK ? RT_OK : misaligned(&story, err);
}

/* What passes over weights cost in slices of so many tokens: a pass of 16 takes a third longer than
 * one of 8. Shared experts have all tokens; the others are not chosen evenly, and what is read is
 * mostly of those that have more than their share: twice it. */
static uint64_t slices_cost(const struct rt_experts_view *work, uint32_t vectors)
{
    const uint64_t pairs = (uint64_t)work->tokens * work->chosen;
    const uint64_t active = pairs < work->experts ? pairs : work->experts;
    const uint64_t share = active > 0 ? (pairs + active - 1) / active : 0;
    const uint64_t each = 2 * share < work->tokens ? 2 * share : work->tokens;
    const uint64_t passes = active * rt_ceil_div_u32((uint32_t)each, vectors) +
                            (uint64_t)work->shared * rt_ceil_div_u32(work->tokens, vectors);
    return passes * (vectors == 8 ? 3 : 4);
}

/* Of both halves or of neither: see `early`. */
static bool are_few(const struct rt_experts_view *work)
{
    return work->tokens <= RT_EXPERTS_SM90_FEW_TOKENS &&
           (work->experts == 0 || work->tokens * work->chosen <= RT_EXPERTS_SM90_FEW_PAIRS);
}

/* Few tokens without slices; else the slices that cost less, and of those the one for a block's
 * rows in one pass, else the largest passes. */
static const struct sm90_kernel *pick_sm90(const struct product *p, uint32_t blocks,
                                           enum rt_op_id op)
{
    const uint32_t share = rt_ceil_div_u32(p->rows, blocks);
    const bool few = are_few(p->work);
    const uint32_t vectors = few || slices_cost(p->work, 8) <= slices_cost(p->work, 16) ? 8 : 16;
    const struct sm90_kernel *best = NULL;
    for (size_t i = 0; i < SM90_COUNT; i++) {
        const struct sm90_kernel *kernel = &sm90_kernels[i];
        if (kernel->op == op && kernel->vectors == vectors && kernel->few == few &&
            (!best || best->tiles * RT_PROJECT_SM90_TILE_ROWS < share))
            best = kernel;
    }
    return best;
}

static struct rt_variant variant_of(const struct sm90_kernel *kernel,
                                    const struct rt_op_request *request, uint32_t tokens)
{
    struct rt_variant v = {
        .op = kernel->op,
        .backend = RT_BACKEND_SM90,
        .entry = kernel->entry,
        .m_tiles = kernel->tiles,
        .parts = request->caps->sm_count,
        .threads = kernel->few ? RT_EXPERTS_SM90_FEW_THREADS : RT_PROJECT_SM90_THREADS,
        .smem_bytes = SM90_SMEM_BYTES,
    };
    const char *const asked = request->backend == RT_BACKEND_AUTO ? "" : " as asked for";
    if (kernel->few)
        (void)snprintf(v.reason, sizeof(v.reason), "sm90%s, %u tokens side by side, %u blocks",
                       asked, tokens, v.parts);
    else
        (void)snprintf(v.reason, sizeof(v.reason),
                       "sm90%s, slices of %u tokens for up to %u, %u blocks", asked,
                       kernel->vectors, tokens, v.parts);
    return v;
}

static const struct sm90_kernel *find_sm90(const struct rt_variant *v)
{
    const struct sm90_kernel *kernel = sm90_kernels, *end = kernel + SM90_COUNT;
    while (kernel < end && kernel->entry != v->entry)
        kernel++;
    return kernel < end && kernel->op == v->op ? kernel : NULL;
}

/* Rows that begin at multiples of 128 bytes come faster, but not down's of one token, as measured
 * (docs/notebook.md, "Few tokens: a column each"), and down of 4 tiles has no registers left. */
static uint32_t row_bytes(const struct sm90_kernel *kernel, uint32_t tokens)
{
    const bool tight =
        kernel->few && (kernel->op == RT_OP_EXPERTS_UP || (kernel->tiles == 1 && tokens > 1));
    return tight ? RT_EXPERTS_SM90_TIGHT_ROW_BYTES : RT_PROJECT_SM90_ROW_BYTES;
}

/* Whatever the table of sums and what lies behind it leave is the ring. */
static enum rt_status place(const struct rt_variant *v, const struct sm90_kernel *kernel,
                            uint32_t tokens, uint32_t stage_rows, uint32_t sums_bytes,
                            struct rt_experts_ring *ring, uint32_t *smem_bytes,
                            struct rt_error *err)
{
    const uint32_t vectors = kernel->few ? tokens : kernel->vectors;
    ring->row_bytes = row_bytes(kernel, tokens);
    const uint32_t table_bytes =
        RT_PROJECT_SM90_SUMS_BYTES(vectors, RT_PROJECT_SM90_SUMS_STRIDE(kernel->tiles));
    const uint32_t stage_bytes = stage_rows * ring->row_bytes;
    ring->sums_at = RT_PROJECT_SM90_DESK_BYTES + table_bytes;
    ring->ring_at = (uint32_t)rt_align_up_u64(ring->sums_at + sums_bytes, 128);
    RT_REQUIRE(ring->ring_at + 2 * stage_bytes <= v->smem_bytes, err, RT_ERR_UNSUPPORTED,
               "backend sm90 has no room for %u bytes of sums in %u bytes; backend generic needs "
               "none",
               sums_bytes, v->smem_bytes);
    ring->stages =
        rt_min_u32((v->smem_bytes - ring->ring_at) / stage_bytes, RT_PROJECT_SM90_MOST_STAGES);
    ring->early = rt_max_u32(1, SM90_EARLY_BYTES / stage_bytes);
    *smem_bytes = ring->ring_at + ring->stages * stage_bytes;
    return RT_OK;
}

/* The whole of what a variant's launch has to know. */
static enum rt_status make_up_sm90(const struct rt_variant *v, const struct sm90_kernel *kernel,
                                   const struct rt_experts_up_params *p,
                                   struct rt_experts_up_sm90_params *out, uint32_t *smem_bytes,
                                   struct rt_error *err)
{
    *out = (struct rt_experts_up_sm90_params){.up = *p, .ring.tile_rows = RT_EXPERTS_SM90_UP_ROWS};
    return place(v, kernel, p->work.tokens, 2 * RT_EXPERTS_SM90_UP_ROWS,
                 kernel->few ? RT_EXPERTS_SM90_FEW_BYTES : 0, &out->ring, smem_bytes, err);
}

static enum rt_status make_down_sm90(const struct rt_variant *v, const struct sm90_kernel *kernel,
                                     const struct rt_experts_down_params *p,
                                     struct rt_experts_down_sm90_params *out, uint32_t *smem_bytes,
                                     struct rt_error *err)
{
    /* As few tiles as hold a block's rows, all alike. */
    const uint32_t share = rt_ceil_div_u32(p->hidden, v->parts);
    const uint32_t tiles = rt_ceil_div_u32(share, RT_PROJECT_SM90_TILE_ROWS);
    const uint32_t sums_bytes =
        kernel->few ? RT_EXPERTS_SM90_FEW_BYTES
                    : 4 * RT_PROJECT_SM90_TILE_ROWS * kernel->tiles * p->work.tokens;
    *out = (struct rt_experts_down_sm90_params){.down = *p,
                                                .ring.tile_rows = rt_ceil_div_u32(share, tiles)};
    if (kernel->few) /* up of as few lets it begin while route still runs */
        out->down.early = 0;
    return place(v, kernel, p->work.tokens, out->ring.tile_rows, sums_bytes, &out->ring, smem_bytes,
                 err);
}

/* ---- resolve --------------------------------------------------------------------------------- */

static enum rt_status resolve_up_sm90(const struct rt_op_request *request, struct rt_variant *out,
                                      struct rt_error *err)
{
    const struct rt_experts_up_params *p = request->experts_up;
    const struct product product = product_of_up(p);
    struct rt_experts_up_sm90_params params;
    uint32_t smem_bytes;
    RT_TRY(rt_check_sm90(request->caps, err));
    RT_TRY(check_up_sm90(p, err));
    const struct sm90_kernel *kernel = pick_sm90(&product, request->caps->sm_count, out->op);
    const struct rt_variant v = variant_of(kernel, request, p->work.tokens);
    RT_TRY(make_up_sm90(&v, kernel, p, &params, &smem_bytes, err));
    *out = v;
    return RT_OK;
}

static enum rt_status resolve_down_sm90(const struct rt_op_request *request, struct rt_variant *out,
                                        struct rt_error *err)
{
    const struct rt_experts_down_params *p = request->experts_down;
    const struct product product = product_of_down(p);
    struct rt_experts_down_sm90_params params;
    uint32_t smem_bytes;
    RT_TRY(rt_check_sm90(request->caps, err));
    RT_TRY(check_down_sm90(p, err));
    const struct sm90_kernel *kernel = pick_sm90(&product, request->caps->sm_count, out->op);
    const struct rt_variant v = variant_of(kernel, request, p->work.tokens);
    RT_TRY(make_down_sm90(&v, kernel, p, &params, &smem_bytes, err));
    *out = v;
    return RT_OK;
}

/* Of the generic kernels, in front of whose reason stands why no other serves. */
static enum rt_status choose_generic(const struct rt_op_request *request, struct rt_variant *out,
                                     struct rt_error *err)
{
    uint32_t blocks;
    if (rt_experts_many_takes(request, out->op))
        return rt_experts_many_choose(request, out, err);
    return out->op == RT_OP_EXPERTS_UP
               ? generic_up_blocks(request->experts_up, out->parts, &blocks, err)
               : generic_down_blocks(request->experts_down, &blocks, err);
}

static enum rt_status choose(const struct rt_op_request *request, struct rt_variant *out,
                             struct rt_error *err)
{
    struct rt_error why_not = {0};
    enum rt_status (*const resolve_sm90)(const struct rt_op_request *, struct rt_variant *,
                                         struct rt_error *) =
        out->op == RT_OP_EXPERTS_UP ? resolve_up_sm90 : resolve_down_sm90;
    switch (request->backend) {
    case RT_BACKEND_SM90:
        return resolve_sm90(request, out, err);
    case RT_BACKEND_AUTO:
        if (resolve_sm90(request, out, &why_not) == RT_OK)
            return RT_OK;
        (void)snprintf(out->reason, sizeof(out->reason), "generic; not sm90: %.150s",
                       why_not.message);
        return choose_generic(request, out, err);
    case RT_BACKEND_GENERIC:
        (void)snprintf(out->reason, sizeof(out->reason), "generic as asked for");
        return choose_generic(request, out, err);
    default:
        return rt_fail(err, RT_ERR_UNSUPPORTED, "backend %d is not known", (int)request->backend);
    }
}

/* While nothing is known of the experts, nobody asks for them: the generic one. */
enum rt_status rt_experts_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                  struct rt_error *err)
{
    const bool is_up = out->op == RT_OP_EXPERTS_UP;
    RT_TRY(rt_plain_resolve(request, out, err));
    out->parts = GENERIC_BLOCKS * request->caps->sm_count;
    if (is_up ? !request->experts_up : !request->experts_down) {
        (void)snprintf(out->reason, sizeof(out->reason),
                       "generic: nothing is known of the experts");
        return RT_OK;
    }
    RT_TRY(is_up ? check_up(request->experts_up, err)
                 : rt_experts_check_down(request->experts_down, err));
    return choose(request, out, err);
}

/* ---- build ----------------------------------------------------------------------------------- */

/* What is built is what was resolved, but for its addresses. */
static enum rt_status planned(const struct rt_variant *v, const struct sm90_kernel *kernel,
                              struct rt_error *err)
{
    RT_REQUIRE(kernel, err, RT_ERR_INTERNAL, "%s was planned as %s", rt_op_name(v->op), v->entry);
    return RT_OK;
}

static enum rt_status build_up_sm90(const struct rt_kernels *k, const struct rt_variant *v,
                                    const struct rt_experts_up_params *p, struct rt_launch *out,
                                    struct rt_error *err)
{
    const struct sm90_kernel *kernel = find_sm90(v);
    struct rt_experts_up_sm90_params params;
    uint32_t smem_bytes = 0;
    RT_TRY(planned(v, kernel, err));
    RT_TRY(check_up_sm90(p, err));
    RT_TRY(make_up_sm90(v, kernel, p, &params, &smem_bytes, err));
    RT_TRY(rt_launch_grid(k, v->entry, &params, sizeof(params), v->parts, 1, v->threads, out, err));
    out->smem_bytes = smem_bytes;
    return RT_OK;
}

static enum rt_status build_down_sm90(const struct rt_kernels *k, const struct rt_variant *v,
                                      const struct rt_experts_down_params *p, struct rt_launch *out,
                                      struct rt_error *err)
{
    const struct sm90_kernel *kernel = find_sm90(v);
    struct rt_experts_down_sm90_params params;
    uint32_t smem_bytes = 0;
    RT_TRY(planned(v, kernel, err));
    RT_TRY(check_down_sm90(p, err));
    RT_TRY(make_down_sm90(v, kernel, p, &params, &smem_bytes, err));
    RT_TRY(rt_launch_grid(k, v->entry, &params, sizeof(params), v->parts, 1, v->threads, out, err));
    out->smem_bytes = smem_bytes;
    return RT_OK;
}

enum rt_status rt_experts_up_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                   const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_experts_up_params *p = params;
    uint32_t blocks = 0;
    RT_TRY(check_up(p, err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    if (variant->backend == RT_BACKEND_SM90)
        return build_up_sm90(k, variant, p, out, err);
    if (rt_experts_many_is(variant))
        return rt_experts_many_build_up(k, variant, p, out, err);
    RT_TRY(generic_up_blocks(p, variant->parts, &blocks, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), blocks, 1, RT_EXPERTS_THREADS, out,
                          err);
}

enum rt_status rt_experts_down_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                     const void *params, struct rt_launch *out,
                                     struct rt_error *err)
{
    const struct rt_experts_down_params *p = params;
    uint32_t blocks = 0;
    RT_TRY(rt_experts_check_down(p, err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    if (variant->backend == RT_BACKEND_SM90)
        return build_down_sm90(k, variant, p, out, err);
    if (rt_experts_many_is(variant))
        return rt_experts_many_build_down(k, variant, p, out, err);
    RT_TRY(generic_down_blocks(p, &blocks, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), blocks, 1, RT_EXPERTS_THREADS, out,
                          err);
}
