/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_KV_OPS_H
#define REPLAYRT_KV_OPS_H

/*
 * Caches by themselves, as operators like those of replayrt/ops.h: of the same handle, with its
 * laws, a kernel node each in a capture.
 */
#include "replayrt/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One layer's cache, and the pages of the rows in it. It lies inside of other structs, where it
 * cannot grow. */
struct rt_kv_pages {
    enum rt_kv_layout layout;
    float kv_scale;     /* as rt_mla_append_args has it: of fp8_tensor above 0 and finite, else 0 */
    uint32_t page_size; /* tokens, 1..RT_MAX_LENGTH */
    uint32_t max_blocks;  /* columns of the block table, 1..RT_MAX_LENGTH */
    uint32_t pages;       /* of the pool, 1..INT32_MAX; ids outside 0..pages-1 are never followed */
    uint32_t reserved;    /* 0 */
    uint64_t kv;          /* bf16 [pages, page_size, d_qk], or of the layout; 16-byte aligned */
    uint64_t block_table; /* int32 [rows, max_blocks] */
    int64_t kv_page_stride, kv_token_stride; /* as rt_mla_append_args has them; 0: packed */
};

/*
 * Copies tokens of one cache into another of any layout, page size and pages: from one that prompts
 * were put in into the one that decodes, say. Of row r tokens 0 .. lengths[r] - 1, by both tables;
 * no page but theirs is touched. Between caches of one layout, and one kv_scale, a token keeps
 * every bit. Between others it is read as attention reads it, in bf16, and written as rt_mla_append
 * writes it; so what was quantised by powers of two is exact in bf16, and in a layout whose scales
 * are for fewer numbers.
 *
 * Tokens beyond max_length, in no column of a table, or whose page is none of a pool's are left
 * out. The two caches share no byte (RT_ERR_INVALID). RT_ERR_GEOMETRY: a layout that d_qk and d_v
 * have not.
 */
struct rt_kv_convert_args {
    uint32_t struct_size;
    uint32_t rows;       /* 1..RT_MAX_BATCH */
    uint32_t d_qk, d_v;  /* of both: 576/512, 320/256, 288/256 or 512/512 */
    uint32_t max_length; /* 1..RT_MAX_LENGTH: no row has more tokens */
    uint32_t reserved;   /* 0 */
    uint64_t lengths;    /* int32 [rows]: tokens of each; 0 and less: none */
    struct rt_kv_pages from, to;
};
RT_API enum rt_status rt_kv_convert(rt_ops *ops, const struct rt_kv_convert_args *args,
                                    void *stream);

#ifdef __cplusplus
}
#endif

#endif
