/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_KV_FORMAT_H
#define RT_COMMON_KV_FORMAT_H

/*
 * What lies in the KV cache, as data: made once from the configuration's layout and geometry, asked
 * by whoever sizes, resolves, appends or copies. Nobody computes a token's bytes by himself.
 * docs/kv_formats.md draws the layouts.
 *
 *   page   | row 0 | row 1 | …  | scales of row 0 | of row 1 | …    page_size of each, the scales
 *                                                                   only where they lie apart
 *   row    | e4m3 [fp8_elements] | scales | bf16 [d_qk - fp8_elements]
 *
 * A row of plain numbers is fp8_elements 0, and no scales.
 */
#include "replayrt/rt.h"

#include <stdbool.h>

/* What an e4m3 number is multiplied by. */
enum rt_kv_scale {
    RT_KV_SCALE_NONE,
    RT_KV_SCALE_TENSOR, /* one number of all tokens of a layer, not in the cache */
    RT_KV_SCALE_F32,    /* one f32 for every tile of a token */
    RT_KV_SCALE_UE8M0   /* likewise, a power of two: byte x is 2^(x - 127) */
};

struct rt_kv_format {
    enum rt_kv_layout layout;
    const char *name; /* as kv_cache.layout has it, static storage */
    uint32_t d_qk, d_v;
    uint32_t token_bytes;   /* of all that a token has in a page */
    uint32_t row_bytes;     /* from row to row, a multiple of 16: token_bytes, less the scales where
                               they lie behind the page's rows */
    uint32_t element_bytes; /* of a plain number; 0: the layout is quantised */
    enum rt_kv_scale scale;
    uint32_t fp8_elements;  /* of d_qk, the first: e4m3; the others are bf16 */
    uint32_t tile_elements; /* e4m3 numbers that share a scale */
    uint32_t scale_bytes;   /* of a token's scales in the cache; those of no tile are 0 */
    bool scales_apart;      /* behind the rows of the page, else between e4m3 and bf16 */
};

/* False, and *out zeroed, where there is no such layout of that geometry. Pure. */
bool rt_kv_format_make(enum rt_kv_layout layout, enum rt_precision precision, uint32_t d_qk,
                       uint32_t d_v, struct rt_kv_format *out);

/* "bf16", "v32", …, as kv_cache.layout has it: static storage; null: there is no such layout. */
const char *rt_kv_layout_name(enum rt_kv_layout layout);

static inline bool rt_kv_is_quantised(const struct rt_kv_format *format)
{
    return format->scale != RT_KV_SCALE_NONE;
}

/* A multiple of 16. */
static inline uint64_t rt_kv_page_bytes(const struct rt_kv_format *format, uint32_t page_size)
{
    return ((uint64_t)format->token_bytes * page_size + 15) / 16 * 16;
}

#endif
