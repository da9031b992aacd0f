/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of fresh tokens with keys and values of every head. */
#include "kernels/ops/op_build.h"

#include "common/math.h"
#include "kernels/abi/prefill_sm90.h"

#include <stdio.h>

/* Of a tile that the copy engine brings: 128 bytes, its swizzle. */
#define TILE_ELEMENTS 64u

/* Keys and values of the heads that are worked on at once are to stay in so much of L2: the rest is
 * for queries, outputs, and what is not evicted yet. */
#define L2_SHARE(bytes) ((bytes) / 2u)

struct sm90_kernel {
    const char *entry;
    uint32_t d_qk, d_v;
};

static const struct sm90_kernel sm90_kernels[] = {
    {"rt_prefill_sm90_192x128", 192, 128},
    {"rt_prefill_sm90_256x256", 256, 256},
    {"rt_prefill_sm90_128x128", 128, 128},
    {"rt_prefill_sm90_96x64", 96, 64},
};
#define SM90_COUNT (sizeof(sm90_kernels) / sizeof(sm90_kernels[0]))

static enum rt_status find_sm90(const struct rt_op_request *request, const struct sm90_kernel **out,
                                struct rt_error *err)
{
    const struct sm90_kernel *kernel = sm90_kernels, *end = kernel + SM90_COUNT;
    RT_TRY(rt_check_sm90(request->caps, err));
    while (kernel < end &&
           (kernel->d_qk != request->nope_dim + request->rope_dim || kernel->d_v != request->v_dim))
        kernel++;
    RT_REQUIRE(
        kernel < end && request->nope_dim >= TILE_ELEMENTS &&
            request->nope_dim % TILE_ELEMENTS == 0 && request->rope_dim <= TILE_ELEMENTS,
        err, RT_ERR_UNSUPPORTED,
        "backend sm90 prefills 192/128, 256/256, 128/128 and 96/64 with rope_dim up to %u and "
        "nope_dim in %us, not %u + %u/%u",
        TILE_ELEMENTS, TILE_ELEMENTS, request->nope_dim, request->rope_dim, request->v_dim);
    *out = kernel;
    return RT_OK;
}

static void choose_sm90(const struct rt_op_request *request, const struct sm90_kernel *kernel,
                        struct rt_variant *out)
{
    out->backend = RT_BACKEND_SM90;
    out->entry = kernel->entry;
    out->tile_rows = RT_PREFILL_SM90_QUERIES;
    out->parts = request->caps->sm_count;
    out->threads = RT_PREFILL_SM90_THREADS;
    (void)snprintf(out->reason, sizeof(out->reason),
                   "sm90%s, %u queries by blocks of %u keys, %u thread blocks",
                   request->backend == RT_BACKEND_AUTO ? "" : " as asked for",
                   RT_PREFILL_SM90_QUERIES, RT_PREFILL_SM90_BLOCK(kernel->d_qk, kernel->d_v),
                   out->parts);
}

static void choose_generic(struct rt_variant *out)
{
    out->tile_rows = RT_PREFILL_GENERIC_QUERIES;
    out->threads = RT_PREFILL_GENERIC_THREADS;
}

/* v_dim 0: nothing is known of the heads, and nobody asks for them: the generic one. */
enum rt_status rt_prefill_attend_resolve(const struct rt_op_request *request,
                                         struct rt_variant *out, struct rt_error *err)
{
    struct rt_error why_not = {0};
    const struct sm90_kernel *kernel = NULL;
    RT_TRY(rt_plain_resolve(request, out, err));
    RT_REQUIRE(request->nope_dim + request->rope_dim <= RT_PREFILL_MOST_DIM &&
                   request->v_dim <= RT_PREFILL_MOST_DIM,
               err, RT_ERR_GEOMETRY,
               "prefill serves heads of up to %u numbers of a query and of a value, not %u + %u "
               "and %u",
               RT_PREFILL_MOST_DIM, request->nope_dim, request->rope_dim, request->v_dim);
    choose_generic(out);
    switch (request->v_dim > 0 ? request->backend : RT_BACKEND_GENERIC) {
    case RT_BACKEND_SM90:
        RT_TRY(find_sm90(request, &kernel, err));
        choose_sm90(request, kernel, out);
        return RT_OK;
    case RT_BACKEND_AUTO:
        if (find_sm90(request, &kernel, &why_not) == RT_OK)
            choose_sm90(request, kernel, out);
        else
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

/* ---- what both build ---- */

static enum rt_status check_view(const char *name, const struct rt_prefill_view *view,
                                 struct rt_error *err)
{
    char what[64];
    RT_TRY(rt_check_pointer(name, view->base, err));
    (void)snprintf(what, sizeof(what), "%s token stride in elements", name);
    RT_TRY(rt_check_stride(what, view->token_stride, sizeof(uint16_t), err));
    (void)snprintf(what, sizeof(what), "%s head stride in elements", name);
    return rt_check_stride(what, view->head_stride, sizeof(uint16_t), err);
}

static enum rt_status check_views(const struct rt_prefill_attend_params *p, struct rt_error *err)
{
    RT_TRY(check_view("q", &p->q, err));
    RT_TRY(check_view("k", &p->k, err));
    RT_TRY(check_view("v", &p->v, err));
    RT_TRY(check_view("out", &p->out, err));
    if (p->rope_dim == 0)
        return RT_OK;
    RT_TRY(check_view("q_rope", &p->q_rope, err));
    return check_view("k_rope", &p->k_rope, err);
}

static enum rt_status check_dim(const char *name, uint32_t dim, uint32_t least, uint32_t most,
                                struct rt_error *err)
{
    RT_REQUIRE(dim >= least && dim <= most && dim % 8 == 0, err, RT_ERR_INVALID,
               "%s = %u is not a multiple of 8 from %u to %u", name, dim, least, most);
    return RT_OK;
}

static enum rt_status check_params(const struct rt_prefill_attend_params *p, struct rt_error *err)
{
    RT_REQUIRE(p->rows >= 1 && p->rows <= RT_PREFILL_MOST_ROWS, err, RT_ERR_INVALID,
               "%u rows, not 1 to %u", p->rows, RT_PREFILL_MOST_ROWS);
    RT_REQUIRE(p->heads >= 1 && p->heads <= RT_MAX_HEADS, err, RT_ERR_INVALID,
               "%u heads, not 1 to %u", p->heads, RT_MAX_HEADS);
    RT_REQUIRE(p->tokens >= 1 && p->tokens <= RT_PREFILL_MOST_TOKENS && p->keys >= 1 &&
                   p->keys <= RT_PREFILL_MOST_TOKENS,
               err, RT_ERR_INVALID, "%u tokens and %u keys, not 1 to %u of each", p->tokens,
               p->keys, RT_PREFILL_MOST_TOKENS);
    RT_TRY(check_dim("nope_dim", p->nope_dim, 8, RT_PREFILL_MOST_DIM, err));
    RT_TRY(check_dim("rope_dim", p->rope_dim, 0, RT_PREFILL_MOST_DIM - p->nope_dim, err));
    RT_TRY(check_dim("v_dim", p->v_dim, 8, RT_PREFILL_MOST_DIM, err));
    /* Written so that NaN fails too. */
    RT_REQUIRE(p->scale > 0, err, RT_ERR_INVALID, "softmax scale %g is not above 0",
               (double)p->scale);
    return check_views(p, err);
}

/* Tiles of all rows there can be, and heads; a row has at most one that is not full. */
static uint32_t most_items(const struct rt_prefill_attend_params *p, uint32_t queries)
{
    return (p->tokens / queries + rt_min_u32(p->rows, p->tokens)) * p->heads;
}

/* ---- sm90 ---- */

/* Which of a vector's tensors, and how many vectors a box has. */
struct boxes {
    const struct rt_prefill_view *view;
    uint32_t vectors, heads, rows;
};

static enum rt_status make_map(struct rt_driver *d, const struct boxes *b, uint32_t dim,
                               struct rt_tensor_map *map, struct rt_error *err)
{
    const struct rt_tensor_map_spec spec = {
        .address = (uintptr_t)b->view->base,
        .dims = 4,
        .size = {TILE_ELEMENTS, b->vectors, dim / TILE_ELEMENTS, b->heads},
        .stride_bytes = {0, (uint64_t)b->view->token_stride * sizeof(uint16_t),
                         TILE_ELEMENTS * sizeof(uint16_t),
                         (uint64_t)b->view->head_stride * sizeof(uint16_t)},
        .box = {TILE_ELEMENTS, b->rows, dim / TILE_ELEMENTS, 1},
    };
    return RT_DRV(d, err, tensor_map, (d, &spec, map));
}

/* A head that all share is a tensor of one: no stride of 0 has to mean anything there. */
static enum rt_status make_rope_map(struct rt_driver *d, const struct boxes *b, uint32_t dim,
                                    uint16_t *shared, struct rt_tensor_map *map,
                                    struct rt_error *err)
{
    *shared = b->view->head_stride == 0;
    const int64_t head_stride = *shared ? b->view->token_stride : b->view->head_stride;
    const struct rt_tensor_map_spec spec = {
        .address = (uintptr_t)b->view->base,
        .dims = 3,
        .size = {dim, b->vectors, *shared ? 1 : b->heads},
        .stride_bytes = {0, (uint64_t)b->view->token_stride * sizeof(uint16_t),
                         (uint64_t)head_stride * sizeof(uint16_t)},
        .box = {TILE_ELEMENTS, b->rows, 1},
    };
    return RT_DRV(d, err, tensor_map, (d, &spec, map));
}

static enum rt_status make_maps(struct rt_driver *d, struct rt_prefill_sm90_params *sm90,
                                struct rt_error *err)
{
    const struct rt_prefill_attend_params *p = &sm90->attend;
    const uint32_t d_qk = p->nope_dim + p->rope_dim;
    const uint32_t block = RT_PREFILL_SM90_BLOCK(d_qk, p->v_dim);
    const struct boxes q = {&p->q, p->tokens, p->heads, RT_PREFILL_SM90_QUERIES};
    const struct boxes q_rope = {&p->q_rope, p->tokens, p->heads, RT_PREFILL_SM90_QUERIES};
    const struct boxes k = {&p->k, p->keys, p->heads, block};
    const struct boxes k_rope = {&p->k_rope, p->keys, p->heads, block};
    const struct boxes v = {&p->v, p->keys, p->heads, block};
    RT_TRY(make_map(d, &q, p->nope_dim, &sm90->q_map, err));
    RT_TRY(make_map(d, &k, p->nope_dim, &sm90->k_map, err));
    RT_TRY(make_map(d, &v, p->v_dim, &sm90->v_map, err));
    if (p->rope_dim == 0)
        return RT_OK;
    RT_TRY(make_rope_map(d, &q_rope, p->rope_dim, &sm90->q_rope_shared, &sm90->q_rope_map, err));
    return make_rope_map(d, &k_rope, p->rope_dim, &sm90->k_rope_shared, &sm90->k_rope_map, err);
}

/* As many as there is room for, and so that the last group is as large as the others or smaller by
 * few. */
static uint32_t group_heads(const struct rt_prefill_attend_params *p, uint64_t l2_bytes)
{
    const uint64_t head_bytes =
        (uint64_t)p->keys * (p->nope_dim + p->rope_dim + p->v_dim) * sizeof(uint16_t);
    const uint64_t fit = L2_SHARE(l2_bytes) / head_bytes;
    const uint32_t most = fit < 1 ? 1 : fit < p->heads ? (uint32_t)fit : p->heads;
    return rt_ceil_div_u32(p->heads, rt_ceil_div_u32(p->heads, most));
}

static enum rt_status build_sm90(const struct rt_kernels *k, const struct rt_variant *v,
                                 const struct rt_prefill_attend_params *p, struct rt_launch *out,
                                 struct rt_error *err)
{
    struct rt_prefill_sm90_params sm90 = {.attend = *p, .group_heads = p->heads};
    RT_REQUIRE(p->turn, err, RT_ERR_INVALID, "turn is null");
    if (k->driver) {
        sm90.group_heads = group_heads(p, k->driver->caps.l2_bytes);
        RT_TRY(make_maps(k->driver, &sm90, err));
    }
    return rt_launch_grid(k, v->entry, &sm90, sizeof(sm90),
                          rt_min_u32(v->parts, most_items(p, RT_PREFILL_SM90_QUERIES)), 1,
                          v->threads, out, err);
}

enum rt_status rt_prefill_attend_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                       const void *params, struct rt_launch *out,
                                       struct rt_error *err)
{
    const struct rt_prefill_attend_params *p = params;
    RT_TRY(check_params(p, err));
    RT_TRY(rt_check_f32(k, variant, p->is_f32, err));
    if (variant->backend == RT_BACKEND_SM90)
        return build_sm90(k, variant, p, out, err);
    return rt_launch_grid(k, variant->entry, p, sizeof(*p),
                          most_items(p, RT_PREFILL_GENERIC_QUERIES), 1, variant->threads, out, err);
}
