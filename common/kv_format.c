/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kv_format.h"

#include "common/math.h"

/* Rows are moved 16 bytes at a time, so what is behind inline scales begins at a multiple. */
#define VECTOR_BYTES 16u
#define F32_BYTES 4u
#define BF16_BYTES 2u

#define ALL_LATENT 0u  /* fp8: as many elements as d_v has */
#define ALL UINT32_MAX /* fp8: d_qk; tile: all of them */

enum rope { ANY_ROPE, WITH_ROPE, WITHOUT_ROPE };

/* One line a layout: what of a token is e4m3, and where its scales are. */
static const struct line {
    const char *name;
    enum rt_kv_scale scale;
    uint32_t fp8, tile;
    bool apart;
    enum rope rope;     /* elements behind d_v: there must be some, or none */
    uint32_t only_d_qk; /* 0: any */
} lines[] = {
    [RT_KV_BF16] = {"bf16", RT_KV_SCALE_NONE, 0, 0, false, ANY_ROPE, 0},
    [RT_KV_FP8_TENSOR] = {"fp8_tensor", RT_KV_SCALE_TENSOR, ALL, ALL, false, ANY_ROPE, 0},
    [RT_KV_FP8_TOKEN] = {"fp8_token", RT_KV_SCALE_F32, ALL_LATENT, ALL, true, ANY_ROPE, 0},
    [RT_KV_V32] = {"v32", RT_KV_SCALE_F32, ALL_LATENT, 128, false, WITH_ROPE, 0},
    [RT_KV_V32_NO_ROPE] = {"v32_no_rope", RT_KV_SCALE_F32, ALL_LATENT, 128, false, WITHOUT_ROPE, 0},
    [RT_KV_V4] = {"v4", RT_KV_SCALE_UE8M0, 448, 64, true, WITHOUT_ROPE, 512},
};
#define LINE_COUNT (sizeof(lines) / sizeof(lines[0]))

const char *rt_kv_layout_name(enum rt_kv_layout layout)
{
    return (size_t)layout < LINE_COUNT ? lines[layout].name : NULL;
}

/* What tiles, scales and rows are made for; keys of bf16 are of any width. */
static bool is_geometry(uint32_t d_qk, uint32_t d_v)
{
    return d_v == 512 ? d_qk == 576 || d_qk == 512 : d_v == 256 && (d_qk == 320 || d_qk == 288);
}

static bool is_served(const struct line *line, uint32_t d_qk, uint32_t d_v)
{
    if (line->scale != RT_KV_SCALE_NONE && !is_geometry(d_qk, d_v))
        return false;
    if (line->only_d_qk && line->only_d_qk != d_qk)
        return false;
    return line->rope == ANY_ROPE || (line->rope == WITH_ROPE) == (d_qk > d_v);
}

static void make_plain(uint32_t element_bytes, struct rt_kv_format *out)
{
    out->element_bytes = element_bytes;
    out->token_bytes = out->row_bytes = out->d_qk * element_bytes;
}

/* Scales of eight tiles and 8 bytes: what UE8M0 is padded to. */
static uint32_t scale_bytes(const struct line *line, uint32_t tiles)
{
    switch (line->scale) {
    case RT_KV_SCALE_F32:
        return line->apart ? F32_BYTES * tiles
                           : (uint32_t)rt_align_up_u64(F32_BYTES * tiles, VECTOR_BYTES);
    case RT_KV_SCALE_UE8M0:
        return (uint32_t)rt_align_up_u64(tiles, 8);
    case RT_KV_SCALE_NONE:
    case RT_KV_SCALE_TENSOR:
        break;
    }
    return 0;
}

static void make_quantised(const struct line *line, struct rt_kv_format *out)
{
    const uint32_t fp8 = line->fp8 == ALL          ? out->d_qk
                         : line->fp8 == ALL_LATENT ? out->d_v
                                                   : line->fp8;
    out->scale = line->scale;
    out->fp8_elements = fp8;
    out->tile_elements = line->tile == ALL ? fp8 : line->tile;
    out->scale_bytes = scale_bytes(line, fp8 / out->tile_elements);
    out->scales_apart = line->apart;
    out->token_bytes = fp8 + out->scale_bytes + BF16_BYTES * (out->d_qk - fp8);
    out->row_bytes = out->token_bytes - (line->apart ? out->scale_bytes : 0);
}

bool rt_kv_format_make(enum rt_kv_layout layout, enum rt_precision precision, uint32_t d_qk,
                       uint32_t d_v, struct rt_kv_format *out)
{
    *out = (struct rt_kv_format){0};
    if ((size_t)layout >= LINE_COUNT)
        return false;
    const struct line *line = &lines[layout];
    const bool is_f32 = precision == RT_PRECISION_F32, plain = layout == RT_KV_BF16;
    if (!is_served(line, d_qk, d_v) || (is_f32 && !plain))
        return false;
    *out = (struct rt_kv_format){
        .layout = layout, .name = is_f32 ? "f32" : line->name, .d_qk = d_qk, .d_v = d_v};
    if (plain)
        make_plain(is_f32 ? F32_BYTES : BF16_BYTES, out);
    else
        make_quantised(line, out);
    return true;
}
