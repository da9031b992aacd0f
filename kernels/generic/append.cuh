/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_APPEND_CUH
#define RT_KERNELS_GENERIC_APPEND_CUH

/*
 * append: new latent rows -> their places in their pages, bit for bit. The rule is in
 * kernels/abi/append.h, the timeline in cycles in docs/schedule.md.
 *
 *   latent [row_base + rows, q_len, d_qk] bf16 -> kv [pages, page_size, d_qk] bf16
 *
 * A warp a token, numbered row-major over (row, token of the row), and three dependent trips to
 * memory, the least there can be:
 *
 *   row_slot, row_position, row_base  ->  table entry     ->  store
 *                                         latent row
 *
 * Pages are found with 64-bit offsets: a pool is larger than 2^31 elements.
 */
#include "kernels/abi/append.h"
#include "kernels/device/copy.cuh"
#include "kernels/device/divisor.cuh"
#include "kernels/device/page_row.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/settle.cuh"

/* What is known of a token before the step's lengths are: where to look, and how to divide. */
struct token_place {
    const int32_t *slot;      /* null: the row's own number */
    const int32_t *length;    /* null: it has all tokens */
    const int32_t *position;  /* of the row's first token */
    const uint32_t *row_base; /* null: 0 */
    const uint16_t *latent;   /* for row_base 0 */
    uint32_t row, token;
};

static __device__ __forceinline__ struct token_place find_token(const struct rt_append_params &p,
                                                                uint32_t index)
{
    struct token_place place = {};
    place.row = index / p.rows.q_len;
    place.token = index - place.row * p.rows.q_len;
    place.slot = p.rows.slot ? p.rows.slot + place.row : nullptr;
    place.length = p.rows.q_len > 1 && p.rows.length ? p.rows.length + place.row : nullptr;
    place.position = p.rows.position + place.row;
    place.row_base = p.rows.ctrl ? &p.rows.ctrl->row_base : nullptr;
    place.latent =
        p.latent.base + place.row * p.latent.row_stride + place.token * p.latent.token_stride;
    return place;
}

/* The work of one warp, waiting for its predecessor included: token `index`, or none. */
static __device__ __forceinline__ void append_token(const struct rt_append_params &p,
                                                    uint32_t index)
{
    const struct token_place place = find_token(p, index);
    const rt_divisor<uint32_t> page_size(p.kv.page_size);
    rt_settle(place.slot);
    rt_settle(place.length);
    rt_settle(place.position);
    rt_settle(place.row_base);
    rt_settle(place.latent);
    rt_settle(page_size.inverse);
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    if (place.row >= p.rows.count)
        return;

    const int32_t slot = place.slot ? *place.slot : (int32_t)place.row;
    const int32_t position = *place.position;
    const int64_t length = place.length ? *place.length : INT64_MAX;
    const uint32_t row_base = place.row_base ? *place.row_base : 0;
    if (slot < 0 || position < 0 || (int64_t)position + place.token >= length)
        return;
    const uint4 *from =
        reinterpret_cast<const uint4 *>(place.latent + row_base * p.latent.row_stride);
    const uint32_t vectors = p.kv.token_bytes / sizeof(uint4);
    const struct rt_row_piece piece = rt_load_row(from, vectors);
    uint4 *to = page_row(p.kv, page_size, (uint32_t)slot, (uint32_t)position + place.token);
    if (to)
        rt_store_row(to, from, vectors, piece);
}

#endif
