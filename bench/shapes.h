/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_SHAPES_H
#define RT_BENCH_SHAPES_H

/*
 * Shapes of decode attention, one JSON object a line:
 *   heads, s_q, kv_rank, rope_dim, page_size  integers
 *   kv_lens           a list: tokens of each request, the s_q new ones included
 *   label             optional text
 *   flashmla_layer_us, flashmla_metadata_us, floor_us  optional: what another implementation took
 *                     on some device, and the least that the device allows
 * Other keys are skipped: a record may carry more.
 */
#include "replayrt/rt.h"

#define SHAPE_LABEL_BYTES 64

struct shape {
    char label[SHAPE_LABEL_BYTES]; /* made of the values where none is given */
    uint32_t heads, query_len, kv_lora_rank, qk_rope_head_dim, page_size;
    uint32_t batch;
    int32_t lengths[RT_MAX_BATCH];
    double peer_layer_us, peer_metadata_us, floor_us; /* 0: not given */
};

/* One line. RT_ERR_CONFIG: "NAME:LINE: KEY is VALUE: must be …", and *out is as before. */
enum rt_status shape_read(const char *name, uint32_t line, const char *text, struct shape *out,
                          struct rt_error *error);

struct shapes {
    struct shape *list;
    uint32_t count;
};

/* All lines of a regular file but the blank ones. RT_ERR_FILE, RT_ERR_NOMEM, RT_ERR_CONFIG. */
enum rt_status shapes_load(const char *path, struct shapes *out, struct rt_error *error);
void shapes_free(struct shapes *shapes);

#endif
