/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REF_PIECE_H
#define RT_KERNELS_REF_PIECE_H

/* Pieces of split rows as kernels/abi/piece.h has them, a query row at a time. */
#include "kernels/abi/views.h"

#include <stdbool.h>

struct rt_ref_pieces {
    struct rt_partials_view partials;
    uint32_t query_rows, d_v;
    /* Numbers as they are: batch-invariant, or all data is f32, or rows are not of whole 32s, which
     * no device has. */
    bool is_f32;
};

static inline struct rt_ref_pieces rt_ref_pieces_of(const struct rt_partials_view *partials,
                                                    uint32_t query_rows, uint32_t d_v, bool is_f32)
{
    return (struct rt_ref_pieces){.partials = *partials,
                                  .query_rows = query_rows,
                                  .d_v = d_v,
                                  .is_f32 = is_f32 || d_v % 32 != 0};
}

/* x [d_v]. Stores words that are wide, since this is what others are compared with. */
void rt_ref_piece_store(const struct rt_ref_pieces *to, int64_t slot, uint32_t query,
                        const float *x);
void rt_ref_piece_load(const struct rt_ref_pieces *from, int64_t slot, uint32_t query, float *x);

#endif
