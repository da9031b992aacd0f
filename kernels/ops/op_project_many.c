/* SPDX-License-Identifier: Apache-2.0 */
/* Products of many vectors on Hopper: how one is cut, and how it is launched. */
#include "kernels/abi/preattend_sums.h"
#include "kernels/abi/project_many.h"
#include "kernels/ops/op_project.h"

#include "common/math.h"

#include <stdio.h>
#include <string.h>

/*
 * What a cut costs, in ns: what all blocks read, by the pace of L2, and the chunks of one block,
 * of which barriers take 190 and the products of a row of the tile 2.5 (docs/notebook.md, "Many
 * vectors, a second time"). The one is less with large tiles, the other with small ones.
 */
#define L2_BYTES_A_NS 6500u
#define CHUNK_NS(rows) (190u + 5u * (rows) / 2u)

/* Weights on their way while rings fill first, of all blocks: 32 KiB where every SM of an H200 has
 * one, more where they are fewer. */
#define EARLY_BYTES (33u << 17)

struct many_kernel {
    const char *entry;
    uint32_t rows; /* of a tile */
    bool across;
};

static const struct many_kernel many_kernels[] = {
    {"rt_project_sm90_many64x16", 16, false},
    {"rt_project_sm90_many64x32", 32, false},
    {"rt_project_sm90_many64x64", 64, false},
    {"rt_project_sm90_many64x64_across", 64, true},
};
#define MANY_COUNT (sizeof(many_kernels) / sizeof(many_kernels[0]))

static uint32_t tiles_of(const struct rt_project_params *p, uint32_t rows)
{
    return p->batch * (rt_ceil_div_u32(p->w[0].rows, rows) + rt_ceil_div_u32(p->w[1].rows, rows));
}

/* ---- what they take -------------------------------------------------------------------------- */

static enum rt_status check_step(const char *name, int64_t stride, struct rt_error *err)
{
    RT_REQUIRE(stride > 0, err, RT_ERR_UNSUPPORTED,
               "backend sm90 takes more than %u vectors with %s stride above 0, not %lld",
               RT_PROJECT_SM90_MOST_VECTORS, name, (long long)stride);
    return RT_OK;
}

enum rt_status rt_project_many_check(const struct rt_project_params *p, struct rt_error *err)
{
    RT_REQUIRE(p->m <= RT_PROJECT_MANY_VECTORS, err, RT_ERR_UNSUPPORTED,
               "backend sm90 multiplies up to %u vectors, not %u", RT_PROJECT_MANY_VECTORS, p->m);
    RT_REQUIRE(!p->norm.weight, err, RT_ERR_UNSUPPORTED,
               "backend sm90 takes more than %u vectors, %u, only without a norm; backend generic "
               "takes any",
               RT_PROJECT_SM90_MOST_VECTORS, p->m);
    RT_TRY(check_step("x row", p->x.row_stride, err));
    if (p->batch > 1)
        RT_TRY(check_step("x batch", p->x.batch_stride, err));
    for (int i = 0; i < 2 && p->w[i].rows > 0; i++) {
        const struct rt_weight_view *w = &p->w[i];
        RT_TRY(check_step("weight", rt_project_lies_across(p) ? w->column_stride : w->row_stride,
                          err));
        if (p->batch > 1)
            RT_TRY(check_step("weight batch", w->batch_stride, err));
    }
    return RT_OK;
}

/* ---- resolve --------------------------------------------------------------------------------- */

static uint64_t cost_ns(const struct rt_project_params *p, uint32_t rows, uint32_t sms)
{
    const uint64_t tiles = tiles_of(p, rows);
    const uint64_t tile_bytes = 2ull * p->k * (rows + p->m);
    const uint64_t turns = (tiles + sms - 1) / sms;
    const uint64_t chunks = rt_ceil_div_u32(p->k, RT_PROJECT_MANY_CHUNK);
    return tiles * tile_bytes / L2_BYTES_A_NS + turns * chunks * CHUNK_NS(rows);
}

static const struct many_kernel *pick(const struct rt_project_params *p, uint32_t sms)
{
    const struct many_kernel *best = NULL;
    for (size_t i = 0; i < MANY_COUNT; i++) {
        const struct many_kernel *kernel = &many_kernels[i];
        if (kernel->across == rt_project_lies_across(p) &&
            (!best || cost_ns(p, kernel->rows, sms) < cost_ns(p, best->rows, sms)))
            best = kernel;
    }
    return best;
}

enum rt_status rt_project_many_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                       struct rt_error *err)
{
    const struct rt_project_params *p = request->product;
    const uint32_t sms = request->caps->sm_count;
    RT_TRY(rt_project_many_check(p, err));
    const struct many_kernel *kernel = pick(p, sms);
    *out = (struct rt_variant){
        .op = out->op,
        .backend = RT_BACKEND_SM90,
        .entry = kernel->entry,
        .parts = rt_min_u32(tiles_of(p, kernel->rows), sms),
        .threads = RT_PROJECT_MANY_THREADS,
        .smem_bytes = RT_PROJECT_SM90_SMEM_BYTES,
    };
    (void)snprintf(out->reason, sizeof(out->reason),
                   "sm90%s, up to %u vectors for %u, tiles of %u rows, %u blocks",
                   request->backend == RT_BACKEND_AUTO ? "" : " as asked for",
                   RT_PROJECT_MANY_VECTORS, p->m, kernel->rows, out->parts);
    return RT_OK;
}

uint32_t rt_project_parts(const struct rt_device_caps *caps, const struct rt_project_params *p)
{
    const uint32_t tiles = tiles_of(p, RT_PROJECT_MANY_VECTORS);
    uint32_t best = 1, least = UINT32_MAX;
    for (uint32_t parts = 1; parts <= RT_PREATTEND_MOST_PARTS; parts *= 2) {
        const uint32_t chunks = p->k / parts / RT_PROJECT_MANY_CHUNK;
        const uint32_t turns = rt_ceil_div_u32(tiles * parts, caps->sm_count) * chunks;
        if (p->k % (parts * RT_PROJECT_MANY_CHUNK) != 0 || turns >= least)
            continue;
        best = parts;
        least = turns;
    }
    return p->w[0].bias || p->w[1].bias ? 1 : best;
}

/* ---- build ----------------------------------------------------------------------------------- */

/* The rings: half of the room for x, and no more than a block has to bring. */
static enum rt_status place(const struct rt_variant *v, const struct many_kernel *kernel,
                            struct rt_project_many_params *many, uint32_t *smem_bytes,
                            struct rt_error *err)
{
    const uint32_t w_bytes = RT_PROJECT_MANY_W_BYTES(kernel->rows);
    const uint32_t x_bytes = RT_PROJECT_MANY_X_BYTES;
    const uint32_t least = RT_PROJECT_MANY_LEAST_STAGES;
    const uint64_t wanted = (uint64_t)rt_ceil_div_u32(many->project.k, RT_PROJECT_MANY_CHUNK) *
                            rt_ceil_div_u32(tiles_of(&many->project, kernel->rows), v->parts);
    const uint32_t most = wanted < RT_PROJECT_MANY_MOST_STAGES ? rt_max_u32((uint32_t)wanted, least)
                                                               : RT_PROJECT_MANY_MOST_STAGES;
    RT_REQUIRE(RT_PROJECT_MANY_DESK_BYTES + least * (w_bytes + x_bytes) <= v->smem_bytes, err,
               RT_ERR_INTERNAL, "%u bytes are no room for rings of %u rows", v->smem_bytes,
               kernel->rows);
    const uint32_t room = v->smem_bytes - RT_PROJECT_MANY_DESK_BYTES;
    many->stages[1] = rt_min_u32(rt_max_u32(room / 2 / x_bytes, least), most);
    many->stages[0] = rt_min_u32((room - many->stages[1] * x_bytes) / w_bytes, most);
    many->early = rt_max_u32(1, EARLY_BYTES / v->parts / w_bytes);
    *smem_bytes =
        RT_PROJECT_MANY_DESK_BYTES + many->stages[0] * w_bytes + many->stages[1] * x_bytes;
    return RT_OK;
}

/* strides, size: of the lines and of z. Where there is one z, nobody goes from one to the next: any
 * stride will do. */
static enum rt_status make_map(struct rt_driver *d, const void *base, const int64_t strides[2],
                               const uint32_t size[3], uint32_t lines, struct rt_tensor_map *map,
                               struct rt_error *err)
{
    const int64_t batch_stride = size[2] > 1 ? strides[1] : strides[0];
    const struct rt_tensor_map_spec spec = {
        .address = (uintptr_t)base,
        .dims = 3,
        .size = {size[0], size[1], size[2]},
        .stride_bytes = {0, (uint64_t)strides[0] * sizeof(uint16_t),
                         (uint64_t)batch_stride * sizeof(uint16_t)},
        .box = {RT_PROJECT_MANY_BOX, lines, 1},
    };
    return RT_DRV(d, err, tensor_map, (d, &spec, map));
}

static enum rt_status make_maps(struct rt_driver *d, const struct many_kernel *kernel,
                                struct rt_project_many_params *many, struct rt_error *err)
{
    const struct rt_project_params *p = &many->project;
    RT_TRY(make_map(d, p->x.base, (int64_t[]){p->x.row_stride, p->x.batch_stride},
                    (uint32_t[]){p->k, p->m, p->batch}, p->m, &many->x_map, err));
    for (int i = 0; i < 2 && p->w[i].rows > 0; i++) {
        const struct rt_weight_view *w = &p->w[i];
        const uint32_t across[] = {w->rows, p->k, p->batch}, along[] = {p->k, w->rows, p->batch};
        const int64_t outer = kernel->across ? w->column_stride : w->row_stride;
        RT_TRY(make_map(d, w->base, (int64_t[]){outer, w->batch_stride},
                        kernel->across ? across : along,
                        kernel->across ? RT_PROJECT_MANY_BOX : kernel->rows, &many->w_map[i], err));
    }
    return RT_OK;
}

static enum rt_status find_kernel(const struct rt_variant *v, const struct rt_project_params *p,
                                  const struct many_kernel **out, struct rt_error *err)
{
    const struct many_kernel *kernel = many_kernels, *end = kernel + MANY_COUNT;
    while (kernel < end && strcmp(kernel->entry, v->entry) != 0)
        kernel++;
    RT_REQUIRE(kernel < end && kernel->across == rt_project_lies_across(p), err, RT_ERR_INTERNAL,
               "%u vectors, weights that lie %s, were planned as %s", p->m,
               rt_project_lies_across(p) ? "across" : "along", v->entry);
    *out = kernel;
    return RT_OK;
}

enum rt_status rt_project_many_build(const struct rt_kernels *k, const struct rt_variant *v,
                                     const struct rt_project_params *p, struct rt_launch *out,
                                     struct rt_error *err)
{
    const struct many_kernel *kernel = NULL;
    struct rt_project_many_params many = {.project = *p};
    uint32_t smem_bytes = 0;
    RT_TRY(rt_project_many_check(p, err));
    RT_TRY(find_kernel(v, p, &kernel, err));
    for (int i = 0; i < 2; i++)
        many.tiles[i] = rt_ceil_div_u32(p->w[i].rows, kernel->rows);
    RT_TRY(place(v, kernel, &many, &smem_bytes, err));
    /* An operator that is being chosen has no addresses yet, and there is no map of none. */
    if (k->driver && p->x.base)
        RT_TRY(make_maps(k->driver, kernel, &many, err));
    RT_TRY(rt_launch_grid(k, v->entry, &many, sizeof(many), v->parts, 1, v->threads, out, err));
    out->smem_bytes = smem_bytes;
    return RT_OK;
}
