/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REF_QUANT_H
#define RT_KERNELS_REF_QUANT_H

/* Rows of e4m3 numbers, as kernels/abi/quant.h has them. */
#include "kernels/abi/quant.h"

/* To nearest even, saturated; NaN is 0x7f. */
uint8_t rt_ref_to_e4m3(double value);
double rt_ref_of_e4m3(uint8_t code);

/* A row, with its scales apart or in it. */
struct rt_ref_quant_row {
    unsigned char *row, *scales;
};
static inline struct rt_ref_quant_row rt_ref_quant_row(const struct rt_kv_view *kv,
                                                       const struct rt_quant_view *quant,
                                                       int64_t page, int64_t row)
{
    unsigned char *base = kv->base + page * kv->page_stride_bytes;
    return (struct rt_ref_quant_row){base + row * kv->token_stride_bytes,
                                     base + quant->scale_offset_bytes +
                                         row * quant->scale_stride_bytes};
}

/* One token's bf16 elements, [d_qk], into the row. */
void rt_ref_quantise(const struct rt_quant_view *quant, const uint16_t *from, uint32_t d_qk,
                     struct rt_ref_quant_row to);
/* The row as bf16 numbers, [d_qk]. */
void rt_ref_dequantise(const struct rt_quant_view *quant, struct rt_ref_quant_row from,
                       uint32_t d_qk, uint16_t *to);

#endif
