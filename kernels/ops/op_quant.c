/* SPDX-License-Identifier: Apache-2.0 */
/* Caches of e4m3: what their views are held to, beside what append and attend ask of all. */
#include "kernels/abi/quant_sm90.h"
#include "kernels/ops/op_build.h"
#include "kernels/quant_view.h"

#include "common/math.h"

#include <float.h>

/* Of a tile that the copy engine brings: 128 bytes, its swizzle; and that one's period. */
#define TILE_ELEMENTS 64u
#define GROUP_ROWS 8u

static uint32_t kind_of(enum rt_kv_scale scale)
{
    switch (scale) {
    case RT_KV_SCALE_F32:
        return RT_QUANT_SCALE_F32;
    case RT_KV_SCALE_UE8M0:
        return RT_QUANT_SCALE_UE8M0;
    case RT_KV_SCALE_TENSOR:
    case RT_KV_SCALE_NONE:
        break;
    }
    return RT_QUANT_SCALE_TENSOR;
}

struct rt_quant_view rt_quant_view_make(const struct rt_kv_format *format,
                                        const struct rt_kv_view *kv, float tensor_scale)
{
    const bool apart = format->scales_apart, by_tensor = format->scale == RT_KV_SCALE_TENSOR;
    return (struct rt_quant_view){
        .scale_offset_bytes =
            apart ? kv->page_size * kv->token_stride_bytes : (int64_t)format->fp8_elements,
        .scale_stride_bytes = apart ? (int64_t)format->scale_bytes : kv->token_stride_bytes,
        .scale_kind = kind_of(format->scale),
        .scale_bytes = format->scale_bytes,
        .fp8 = format->fp8_elements,
        .tile = format->tile_elements,
        .rest_offset_bytes = format->fp8_elements + (apart ? 0 : format->scale_bytes),
        .tensor_scale = by_tensor ? tensor_scale : 1,
    };
}

struct rt_quant_view rt_quant_view_of_any(const struct rt_kv_format *format,
                                          const struct rt_kv_view *kv, float tensor_scale)
{
    if (rt_kv_is_quantised(format))
        return rt_quant_view_make(format, kv, tensor_scale);
    return (struct rt_quant_view){.scale_stride_bytes = kv->token_stride_bytes,
                                  .scale_kind = RT_QUANT_SCALE_TENSOR,
                                  .tile = format->d_qk,
                                  .tensor_scale = 1};
}

static enum rt_status check_scales(const struct rt_quant_view *q, struct rt_error *err)
{
    if (q->scale_kind == RT_QUANT_SCALE_TENSOR) {
        /* Written so that NaN fails too. */
        RT_REQUIRE(q->tensor_scale >= FLT_MIN && q->tensor_scale <= FLT_MAX, err, RT_ERR_INVALID,
                   "a KV scale of %g is not from %g to %g", (double)q->tensor_scale,
                   (double)FLT_MIN, (double)FLT_MAX);
        return RT_OK;
    }
    const uint32_t number_bytes = q->scale_kind == RT_QUANT_SCALE_F32 ? 4 : 1;
    RT_REQUIRE(q->scale_kind == RT_QUANT_SCALE_F32 || q->scale_kind == RT_QUANT_SCALE_UE8M0, err,
               RT_ERR_INTERNAL, "KV scales of kind %u", q->scale_kind);
    RT_REQUIRE(q->tile == 64 || q->tile == 128 || q->tile == 256 || q->tile == 512, err,
               RT_ERR_INTERNAL, "KV scales of %u numbers each", q->tile);
    RT_REQUIRE(q->fp8 <= 512 && q->scale_bytes >= q->fp8 / q->tile * number_bytes, err,
               RT_ERR_INTERNAL, "%u bytes of KV scales for %u numbers, %u to a scale",
               q->scale_bytes, q->fp8, q->tile);
    RT_REQUIRE(q->scale_offset_bytes % number_bytes == 0 &&
                   q->scale_stride_bytes % number_bytes == 0,
               err, RT_ERR_INVALID, "KV scales begin at byte %lld of a page and are %lld apart",
               (long long)q->scale_offset_bytes, (long long)q->scale_stride_bytes);
    return RT_OK;
}

enum rt_status rt_check_quant(const struct rt_quant_view *q, uint32_t d_qk,
                              const struct rt_kv_view *kv, struct rt_error *err)
{
    RT_REQUIRE(q->tile && q->fp8 % q->tile == 0 && q->fp8 % 16 == 0 && q->fp8 <= d_qk, err,
               RT_ERR_INTERNAL, "%u numbers of e4m3 of %u, %u to a scale", q->fp8, d_qk, q->tile);
    RT_REQUIRE(q->rest_offset_bytes % 16 == 0 &&
                   q->rest_offset_bytes + 2 * (d_qk - q->fp8) <= kv->token_bytes,
               err, RT_ERR_INTERNAL, "%u bf16 from byte %u on of a KV row of %u", d_qk - q->fp8,
               q->rest_offset_bytes, kv->token_bytes);
    return check_scales(q, err);
}

/* The layouts of docs/kv_formats.md are these. */
enum rt_status rt_check_quant_sm90(const struct rt_quant_view *q, const struct rt_attend_params *p,
                                   struct rt_error *err)
{
    const bool has_rest = p->d_qk > p->d_v, by_tensor = q->scale_kind == RT_QUANT_SCALE_TENSOR;
    const uint32_t last_tile = p->d_v - 64;
    RT_REQUIRE(q->fp8 == p->d_v ||
                   (has_rest ? q->fp8 == p->d_qk && by_tensor : q->fp8 == last_tile),
               err, RT_ERR_INTERNAL, "sm90 attention over %u numbers of e4m3 of %u/%u", q->fp8,
               p->d_qk, p->d_v);
    if (by_tensor)
        return RT_OK;
    const bool is_f32 = q->scale_kind == RT_QUANT_SCALE_F32;
    RT_REQUIRE(is_f32 ? q->tile >= 128 : q->tile == 64 && p->d_v == 512, err, RT_ERR_INTERNAL,
               "sm90 attention over scales of %u numbers each", q->tile);
    RT_REQUIRE(q->scale_offset_bytes % 4 == 0 && q->scale_stride_bytes % 4 == 0, err,
               RT_ERR_INVALID, "KV scales begin at byte %lld of a page and are %lld apart",
               (long long)q->scale_offset_bytes, (long long)q->scale_stride_bytes);
    return RT_OK;
}

enum rt_status rt_append_quant_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                     const void *params, struct rt_launch *out,
                                     struct rt_error *err)
{
    const struct rt_append_quant_params *p = params;
    const struct rt_append_general_params *g = &p->general;
    RT_TRY(rt_check_append(&g->append, err));
    RT_TRY(rt_check_tokens("rope", &g->rope, err));
    RT_TRY(rt_check_stride("rope bytes of a token", g->rope_bytes, 1, err));
    RT_REQUIRE(g->rope.base ? g->rope_bytes > 0 && g->rope_bytes < 2 * p->d_qk : g->rope_bytes == 0,
               err, RT_ERR_INVALID, "%u of a token's %u bytes come from rope, which is at %p",
               g->rope_bytes, 2 * p->d_qk, (const void *)g->rope.base);
    RT_TRY(rt_check_quant(&p->quant, p->d_qk, &g->append.kv, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), rt_append_blocks(&g->append.rows), 1,
                          RT_APPEND_WARPS * RT_WARP_THREADS, out, err);
}

/* Two bytes are an element; see kernels/abi/quant_sm90.h. */
static enum rt_status make_key_maps(const struct rt_kernels *k, const struct rt_quant_view *quant,
                                    struct rt_attend_quant_sm90_params *sm90, struct rt_error *err)
{
    const struct rt_attend_params *p = &sm90->attend;
    const struct rt_kv_view *kv = &p->kv;
    const uint32_t tokens = rt_min_u32(kv->page_size, RT_BLOCK_TOKENS);
    const uint32_t tiles = p->d_v / (2 * TILE_ELEMENTS), rest = p->d_qk - p->d_v;
    const bool rest_is_bf16 = quant->fp8 < p->d_qk;
    const uint64_t row_bytes = (uint64_t)kv->token_stride_bytes;
    const uint64_t page_bytes = (uint64_t)kv->page_stride_bytes;
    const struct rt_tensor_map_spec values = {
        .address = (uintptr_t)kv->base,
        .dims = 5,
        .size = {TILE_ELEMENTS, GROUP_ROWS, tiles, kv->page_size / GROUP_ROWS, kv->pages},
        .stride_bytes = {0, row_bytes, 2 * TILE_ELEMENTS, GROUP_ROWS * row_bytes, page_bytes},
        .box = {TILE_ELEMENTS, GROUP_ROWS, tiles / 2, tokens / GROUP_ROWS, 1},
    };
    const struct rt_tensor_map_spec others = {
        .address = (uintptr_t)kv->base + (rest_is_bf16 ? quant->rest_offset_bytes : p->d_v),
        .dims = 3,
        .size = {rest_is_bf16 ? rest : rest / 2, kv->page_size, kv->pages},
        .stride_bytes = {0, row_bytes, page_bytes},
        .box = {TILE_ELEMENTS, tokens, 1},
    };
    RT_TRY(RT_DRV(k->driver, err, tensor_map, (k->driver, &values, &sm90->kv_map)));
    return RT_DRV(k->driver, err, tensor_map, (k->driver, &others, &sm90->kv_rest_map));
}

/* A kernel of one kind of scales knows no other. */
static enum rt_status check_scales_kind(const struct rt_variant *variant,
                                        const struct rt_quant_view *quant, uint32_t d_v,
                                        struct rt_error *err)
{
    const bool has_tiles = quant->scale_kind != RT_QUANT_SCALE_TENSOR && quant->tile < d_v;
    RT_REQUIRE(variant->scales == RT_ATTEND_SCALES_any ||
                   has_tiles == (variant->scales == RT_ATTEND_SCALES_tiles),
               err, RT_ERR_INTERNAL, "%s over scales of %u numbers each", variant->entry,
               quant->tile);
    return RT_OK;
}

enum rt_status rt_attend_quant_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                     const void *params, struct rt_launch *out,
                                     struct rt_error *err)
{
    const struct rt_attend_quant_params *p = params;
    const struct rt_attend_params *attend = &p->attend;
    RT_TRY(rt_check_attend(variant, attend, err));
    RT_TRY(rt_check_quant(&p->quant, attend->d_qk, &attend->kv, err));
    if (variant->backend != RT_BACKEND_SM90)
        return rt_launch_grid(k, variant->entry, p, sizeof(*p), variant->m_tiles, variant->parts,
                              variant->threads, out, err);
    RT_TRY(rt_check_quant_sm90(&p->quant, attend, err));
    RT_TRY(check_scales_kind(variant, &p->quant, attend->d_v, err));
    struct rt_attend_quant_sm90_params sm90 = {.attend = *attend, .quant = p->quant};
    if (k->driver)
        RT_TRY(rt_attend_query_maps(k, variant, attend, &sm90.q_even, &sm90.q_map, &sm90.q_rest_map,
                                    err));
    if (k->driver && variant->many_entry) /* of three workers */
        RT_TRY(make_key_maps(k, &p->quant, &sm90, err));
    return rt_launch_attend(k, variant, attend->rows.count, &sm90, sizeof(sm90), out, err);
}
