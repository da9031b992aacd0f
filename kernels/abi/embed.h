/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_EMBED_H
#define RT_KERNELS_ABI_EMBED_H

#include "kernels/abi/views.h"

/* A block a token. */
#define RT_EMBED_THREADS 256u

/*
 * embed: hidden[r][t] = scale * table[tokens[row_base + r][t]], rounded once to float and, as bf16,
 * once more. Zeros for tokens of padding, for -1 and whatever else is no row of the table: the id
 * is looked up nowhere, nothing is counted, and the layers behind see a token that is nothing.
 *
 * Of `rows`: length may be null, then no row is padding; slot and position are not read. row_base
 * is where tokens begin, hidden is at the replay's own rows.
 */
struct rt_embed_params {
    const uint16_t *table; /* [vocab, width] bf16, 16-byte aligned like hidden */
    const int32_t *tokens; /* [row_base + rows.count, rows.q_len] */
    void *hidden;          /* [rows.count, rows.q_len, width] bf16 */
    /* From id to id, from token to token; in elements, multiples of 8. */
    int64_t table_stride, hidden_stride;
    struct rt_rows_view rows;
    float scale;
    uint32_t vocab, width; /* width: a multiple of 8 */
    uint32_t is_f32;       /* host device alone: hidden is f32; the table is bf16 still */
};
#define RT_EMBED_PARAMS_ADDRESSES(type, at)                                                        \
    (RT_ADDRESS(type, at table) | RT_ADDRESS(type, at tokens) | RT_ADDRESS(type, at hidden) |      \
     RT_ROWS_ADDRESSES(type, at rows))
RT_STATIC_ASSERT(sizeof(struct rt_embed_params) == 96, "embed ABI");

#endif
