/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_KV_FORMAT_H
#define RT_COMMON_KV_FORMAT_H

/*
 * What lies in the KV cache, as data: made once from the configuration's layout and geometry, asked
 * by whoever sizes, resolves, appends or copies. Nobody computes a token's bytes by himself.
 *
 *   page   | token 0 | token 1 | …            page_size tokens, token_bytes each
 *   token  | latent [d_v] | rope [d_qk - d_v] | segments, one behind the other
 */
#include "replayrt/rt.h"

#include <stdbool.h>

enum rt_kv_segment_kind {
    RT_KV_LATENT, /* the normalised latent: key and value */
    RT_KV_ROPE    /* the rotated part of the key */
};

struct rt_kv_segment {
    enum rt_kv_segment_kind kind;
    enum rt_dtype dtype;
    uint32_t elements;
    uint32_t offset_bytes; /* in the token */
};

#define RT_KV_MAX_SEGMENTS 2
struct rt_kv_format {
    enum rt_kv_layout layout;
    const char *name; /* as kv_cache.layout has it, static storage */
    uint32_t d_qk, d_v;
    uint32_t token_bytes; /* a multiple of 16 */
    uint32_t segment_count;
    struct rt_kv_segment segments[RT_KV_MAX_SEGMENTS];
};

/* False, and *out zeroed, where there is no such layout. Pure. */
bool rt_kv_format_make(enum rt_kv_layout layout, enum rt_precision precision, uint32_t d_qk,
                       uint32_t d_v, struct rt_kv_format *out);

static inline uint64_t rt_kv_page_bytes(const struct rt_kv_format *format, uint32_t page_size)
{
    return (uint64_t)format->token_bytes * page_size;
}

#endif
