/* SPDX-License-Identifier: Apache-2.0 */
/* Products with weights: which kernel serves one, and how it is launched. */
#include "kernels/ops/op_project.h"

#include "common/math.h"

#include <stdio.h>
#include <string.h>

/* Rows are moved 16 bytes at a time. */
#define VECTOR_ELEMENTS 8u

struct sm90_kernel {
    const char *entry;
    uint32_t vectors;
    uint32_t tiles; /* of a pass; 0: for weights that lie across */
};

/* Weights along k from which on two blocks of a product share an SM instead of blocks of two
 * products: what the next one could ask for early is little of them. */
#define SM90_PAIR_BYTES (UINT64_C(40) << 20)

/* Rising in vectors, then in tiles. */
static const struct sm90_kernel sm90_kernels[] = {
    {"rt_project_sm90_across8", 8, 0},    {"rt_project_sm90_along8x1", 8, 1},
    {"rt_project_sm90_along8x2", 8, 2},   {"rt_project_sm90_along8x4", 8, 4},
    {"rt_project_sm90_across16", 16, 0},  {"rt_project_sm90_along16x1", 16, 1},
    {"rt_project_sm90_along16x2", 16, 2}, {"rt_project_sm90_along16x4", 16, 4},
};
#define SM90_COUNT (sizeof(sm90_kernels) / sizeof(sm90_kernels[0]))

/* As few tiles as hold a block's share, all alike. */
static uint32_t tile_rows(uint32_t share)
{
    return rt_ceil_div_u32(share, rt_ceil_div_u32(share, RT_PROJECT_SM90_TILE_ROWS));
}

/* Rows of all weights of the batch: check_project bounds them. */
static uint32_t all_rows(const struct rt_project_params *p)
{
    return p->batch * (p->w[0].rows + p->w[1].rows);
}

/* Of weights that lie across, for up to 8 vectors, up to three blocks an SM with a tile each or
 * more: they ask for two rounds early, and so for most of what they read. Along k one, which leaves
 * room for the next product's, or two; where these are all that an SM holds, each has as many. */
static uint32_t blocks_per_sm(const struct rt_project_params *p, uint32_t sm_count)
{
    const uint64_t bytes = (uint64_t)all_rows(p) * p->k * sizeof(uint16_t);
    if (!rt_project_lies_across(p))
        return bytes > SM90_PAIR_BYTES ? 2 : 1;
    const uint32_t tiles = rt_project_across_tiles(p);
    return p->m > 8 ? 1 : rt_max_u32(1, rt_min_u32(3, tiles / sm_count));
}

uint32_t rt_project_across_tiles(const struct rt_project_params *p)
{
    return p->batch * rt_ceil_div_u32(p->w[0].rows, RT_PROJECT_SM90_ACROSS_ROWS);
}

/* ---- what is a product at all ---------------------------------------------------------------- */

static enum rt_status check_project(const struct rt_project_params *p, struct rt_error *err)
{
    RT_REQUIRE(p->batch >= 1 && p->m >= 1 && p->k >= 1 && p->w[0].rows >= 1, err, RT_ERR_INVALID,
               "a product of %u times %u vectors of %u with %u rows: at least 1 of each", p->batch,
               p->m, p->k, p->w[0].rows);
    const bool along = !rt_project_lies_across(p);
    for (int i = 0; i < 2 && p->w[i].rows > 0; i++) {
        const struct rt_weight_view *w = &p->w[i];
        RT_REQUIRE(along ? w->column_stride == 1 : w->row_stride == 1, err, RT_ERR_INVALID,
                   "weight %d has row stride %lld, column stride %lld: one of the two is 1, and "
                   "the same one in both weights",
                   i, (long long)w->row_stride, (long long)w->column_stride);
        RT_REQUIRE(!w->bias || p->batch == 1, err, RT_ERR_INVALID, "a bias in a batch of %u",
                   p->batch);
    }
    RT_REQUIRE(!p->norm.weight || p->norm.width == p->k, err, RT_ERR_INVALID,
               "a norm of %u numbers for vectors of %u", p->norm.width, p->k);
    RT_REQUIRE((uint64_t)p->batch * ((uint64_t)p->w[0].rows + p->w[1].rows) <= INT32_MAX, err,
               RT_ERR_INVALID, "%u times %u + %u rows are too many", p->batch, p->w[0].rows,
               p->w[1].rows);
    return RT_OK;
}

/* ---- what the Hopper kernels take of them ---------------------------------------------------- */

static enum rt_status check_strides(const char *name, const int64_t strides[2],
                                    struct rt_error *err)
{
    static const char *const what[] = {"batch", "row"};
    for (int i = 0; i < 2; i++) {
        char text[48];
        (void)snprintf(text, sizeof(text), "%s %s stride in elements", name, what[i]);
        RT_TRY(rt_check_stride(text, strides[i], sizeof(uint16_t), err));
    }
    return RT_OK;
}

/* They move 16 bytes at a time. */
static enum rt_status check_alignment(const struct rt_project_params *p, struct rt_error *err)
{
    RT_TRY(rt_check_pointer("x", p->x.base, err));
    RT_TRY(check_strides("x", (int64_t[]){p->x.batch_stride, p->x.row_stride}, err));
    RT_TRY(rt_check_pointer("norm", p->norm.weight, err));
    for (int i = 0; i < 2 && p->w[i].rows > 0; i++) {
        const struct rt_weight_view *w = &p->w[i];
        const int64_t outer = rt_project_lies_across(p) ? w->column_stride : w->row_stride;
        RT_TRY(rt_check_pointer("weight", w->base, err));
        RT_TRY(check_strides("weight", (int64_t[]){w->batch_stride, outer}, err));
    }
    return RT_OK;
}

static bool are_few(const struct rt_project_params *p)
{
    return p->m <= RT_PROJECT_SM90_MOST_VECTORS;
}

static enum rt_status check_few(const struct rt_project_params *p, struct rt_error *err)
{
    RT_REQUIRE(!rt_project_lies_across(p) || !p->norm.weight, err, RT_ERR_UNSUPPORTED,
               "backend sm90 takes a weight that lies across, with row stride 1, only without a "
               "norm; backend generic takes any");
    RT_REQUIRE(!rt_project_lies_across(p) || p->w[1].rows == 0, err, RT_ERR_UNSUPPORTED,
               "backend sm90 takes one weight that lies across, with row stride 1, not two of %u "
               "and %u rows; backend generic takes any",
               p->w[0].rows, p->w[1].rows);
    return RT_OK;
}

/* Why they do not take the product, but for their room. */
static enum rt_status check_sm90(const struct rt_project_params *p, struct rt_error *err)
{
    struct rt_error story = {0};
    RT_REQUIRE(!p->is_f32, err, RT_ERR_UNSUPPORTED,
               "backend sm90 takes bf16, not f32, which is the C references' alone");
    RT_REQUIRE(p->k % VECTOR_ELEMENTS == 0, err, RT_ERR_UNSUPPORTED,
               "backend sm90 takes vectors of a multiple of %u numbers, not %u", VECTOR_ELEMENTS,
               p->k);
    RT_TRY(are_few(p) ? check_few(p, err) : rt_project_many_check(p, err));
    if (check_alignment(p, &story) != RT_OK)
        return rt_fail(err, RT_ERR_UNSUPPORTED, "backend sm90: %s", story.message);
    return RT_OK;
}

/* The one with the least room for that many vectors, and for a block's share in one pass; else the
 * one with the largest passes. */
static const struct sm90_kernel *pick_sm90(const struct rt_project_params *p, uint32_t blocks)
{
    const uint32_t share = rt_ceil_div_u32(all_rows(p), blocks);
    const struct sm90_kernel *best = NULL;
    for (size_t i = 0; i < SM90_COUNT; i++) {
        const struct sm90_kernel *kernel = &sm90_kernels[i];
        if (p->m > kernel->vectors || rt_project_lies_across(p) != (kernel->tiles == 0))
            continue;
        if (best &&
            (best->vectors < kernel->vectors || best->tiles * RT_PROJECT_SM90_TILE_ROWS >= share))
            break;
        best = kernel;
    }
    return best;
}

/* Where what lies in a block's shared memory; whatever remains is the ring. */
static enum rt_status place_along(const struct rt_variant *v, struct rt_project_sm90_params *sm90,
                                  uint32_t *smem_bytes, struct rt_error *err)
{
    const struct rt_project_params *p = &sm90->project;
    const uint32_t share = rt_ceil_div_u32(all_rows(p), v->parts);
    sm90->tile_rows = tile_rows(share);
    const uint32_t tiles = rt_min_u32(rt_ceil_div_u32(share, sm90->tile_rows), v->m_tiles);
    const uint32_t stage_bytes = sm90->tile_rows * RT_PROJECT_SM90_ROW_BYTES;
    sm90->sums_stride = RT_PROJECT_SM90_SUMS_STRIDE(tiles);
    sm90->norm_at =
        RT_PROJECT_SM90_DESK_BYTES + RT_PROJECT_SM90_SUMS_BYTES(p->m, sm90->sums_stride);
    sm90->ring_at =
        sm90->norm_at + (uint32_t)rt_align_up_u64(p->norm.weight ? 2 * (uint64_t)p->k : 0, 128);
    RT_REQUIRE(sm90->ring_at + 2 * stage_bytes <= v->smem_bytes, err, RT_ERR_UNSUPPORTED,
               "backend sm90 has no room for %u vectors of %u in %u bytes; backend generic takes "
               "any",
               p->m, p->k, v->smem_bytes);
    /* More than the block has to bring is no use. */
    const uint64_t chunks = rt_ceil_div_u32(p->k, RT_PROJECT_SM90_CHUNK);
    const uint64_t wanted = chunks * rt_ceil_div_u32(share, sm90->tile_rows);
    const uint32_t fit = (v->smem_bytes - sm90->ring_at) / stage_bytes;
    sm90->stages = rt_min_u32(rt_min_u32(fit, RT_PROJECT_SM90_MOST_STAGES),
                              wanted < 2 ? 2 : (uint32_t)rt_min_u32((uint32_t)wanted, UINT16_MAX));
    sm90->early = rt_max_u32(1, RT_PROJECT_SM90_EARLY_BYTES / stage_bytes);
    *smem_bytes = sm90->ring_at + sm90->stages * stage_bytes;
    return RT_OK;
}

/* The whole of what a variant's launch has to know. */
static enum rt_status make_sm90(const struct rt_variant *v, const struct rt_project_params *p,
                                struct rt_project_sm90_params *out, uint32_t *smem_bytes,
                                struct rt_error *err)
{
    *out = (struct rt_project_sm90_params){.project = *p};
    if (!rt_project_lies_across(p))
        return place_along(v, out, smem_bytes, err);
    out->sums_stride = RT_PROJECT_SM90_SUMS_STRIDE(4u);
    *smem_bytes = RT_PROJECT_SM90_ACROSS_BYTES(p->m);
    return RT_OK;
}

/* ---- resolve --------------------------------------------------------------------------------- */

static enum rt_status resolve_sm90(const struct rt_op_request *request, struct rt_variant *out,
                                   struct rt_error *err)
{
    const struct rt_project_params *p = request->product;
    struct rt_project_sm90_params params;
    uint32_t smem_bytes;
    RT_TRY(rt_check_sm90(request->caps, err));
    RT_TRY(check_sm90(p, err));
    if (!are_few(p))
        return rt_project_many_resolve(request, out, err);
    const uint32_t blocks = request->caps->sm_count * blocks_per_sm(p, request->caps->sm_count);
    const struct sm90_kernel *kernel = pick_sm90(p, blocks);
    struct rt_variant v = {
        .op = out->op,
        .backend = RT_BACKEND_SM90,
        .entry = kernel->entry,
        .m_tiles = kernel->tiles,
        .parts = blocks,
        .threads =
            rt_project_lies_across(p) ? RT_PROJECT_SM90_ACROSS_THREADS : RT_PROJECT_SM90_THREADS,
        .smem_bytes = rt_project_lies_across(p) ? RT_PROJECT_SM90_ACROSS_BYTES(p->m)
                                                : RT_PROJECT_SM90_HALF_SMEM_BYTES,
    };
    RT_TRY(make_sm90(&v, p, &params, &smem_bytes, err));
    (void)snprintf(v.reason, sizeof(v.reason), "sm90%s, up to %u vectors for %u, %u blocks",
                   request->backend == RT_BACKEND_AUTO ? "" : " as asked for", kernel->vectors,
                   p->m, v.parts);
    *out = v;
    return RT_OK;
}

enum rt_status rt_project_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                  struct rt_error *err)
{
    struct rt_error why_not = {0};
    RT_TRY(rt_plain_resolve(request, out, err));
    if (request->product)
        RT_TRY(check_project(request->product, err));
    switch (request->product ? request->backend : RT_BACKEND_GENERIC) {
    case RT_BACKEND_SM90:
        return resolve_sm90(request, out, err);
    case RT_BACKEND_AUTO:
        if (resolve_sm90(request, out, &why_not) != RT_OK)
            (void)snprintf(out->reason, sizeof(out->reason), "generic; not sm90: %.150s",
                           why_not.message);
        return RT_OK;
    case RT_BACKEND_GENERIC:
        (void)snprintf(out->reason, sizeof(out->reason), "generic as asked for");
        return RT_OK;
    default:
        return rt_fail(err, RT_ERR_UNSUPPORTED, "backend %d is not known", (int)request->backend);
    }
}

/* ---- build ----------------------------------------------------------------------------------- */

static enum rt_status build_generic(const struct rt_kernels *k, const struct rt_project_params *p,
                                    const char *entry, struct rt_launch *out, struct rt_error *err)
{
    const uint64_t blocks =
        (uint64_t)rt_ceil_div_u32(p->w[0].rows + p->w[1].rows, RT_PROJECT_ROWS) *
        rt_ceil_div_u32(p->m, RT_PROJECT_VECTORS) * p->batch;
    RT_REQUIRE(blocks <= INT32_MAX, err, RT_ERR_INVALID, "a product of %llu blocks is too large",
               (unsigned long long)blocks);
    return rt_launch_grid(k, entry, p, sizeof(*p), (uint32_t)blocks, 1, RT_PROJECT_THREADS, out,
                          err);
}

/* What is built is what was resolved, but for its addresses. */
static enum rt_status check_variant(const struct rt_variant *v, const struct rt_project_params *p,
                                    struct rt_error *err)
{
    const struct sm90_kernel *kernel = sm90_kernels, *end = kernel + SM90_COUNT;
    while (kernel < end && strcmp(kernel->entry, v->entry) != 0)
        kernel++;
    RT_REQUIRE(kernel < end && p->m <= kernel->vectors &&
                   rt_project_lies_across(p) == (kernel->tiles == 0),
               err, RT_ERR_INTERNAL, "%u vectors, weights that lie %s, were planned as %s", p->m,
               rt_project_lies_across(p) ? "across" : "along", v->entry);
    return RT_OK;
}

static enum rt_status build_few(const struct rt_kernels *k, const struct rt_variant *v,
                                const struct rt_project_params *p, struct rt_launch *out,
                                struct rt_error *err)
{
    struct rt_project_sm90_params params;
    uint32_t smem_bytes;
    RT_TRY(check_variant(v, p, err));
    RT_TRY(make_sm90(v, p, &params, &smem_bytes, err));
    RT_TRY(rt_launch_grid(k, v->entry, &params, sizeof(params), v->parts, 1, v->threads, out, err));
    out->smem_bytes = smem_bytes;
    return RT_OK;
}

static enum rt_status build_sm90(const struct rt_kernels *k, const struct rt_variant *v,
                                 const struct rt_project_params *p, struct rt_launch *out,
                                 struct rt_error *err)
{
    RT_TRY(check_sm90(p, err));
    return are_few(p) ? build_few(k, v, p, out, err) : rt_project_many_build(k, v, p, out, err);
}

enum rt_status rt_project_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_project_params *p = params;
    RT_TRY(check_project(p, err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    if (variant->backend == RT_BACKEND_SM90)
        return build_sm90(k, variant, p, out, err);
    return build_generic(k, p, variant->entry, out, err);
}
