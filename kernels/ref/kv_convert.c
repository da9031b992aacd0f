/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/convert.h"
#include "kernels/ref/append_place.h"
#include "kernels/ref/keys.h"
#include "kernels/ref/quant.h"
#include "kernels/ref/ref.h"

#include <string.h>

static bool find(const struct rt_kv_view *kv, uint32_t row, uint32_t position,
                 struct rt_ref_place *out)
{
    const uint32_t column = position / kv->page_size;
    if (column >= kv->max_blocks)
        return false;
    const int32_t page = kv->table[(int64_t)row * kv->max_blocks + column];
    *out = (struct rt_ref_place){page, position % kv->page_size};
    return page >= 0 && (uint32_t)page < kv->pages;
}

/* A row as it is, and scales that lie apart from it. */
static void copy(const struct rt_kv_convert_params *p, struct rt_ref_quant_row from,
                 struct rt_ref_quant_row to)
{
    memcpy(to.row, from.row, p->from.token_bytes);
    if (p->from_quant.scale_stride_bytes != p->from.token_stride_bytes)
        memcpy(to.scales, from.scales, p->from_quant.scale_bytes);
}

static void convert(const struct rt_kv_convert_params *p, uint32_t row, uint32_t position)
{
    struct rt_ref_place from_at, to_at;
    uint16_t elements[RT_REF_MAX_D];
    if (!find(&p->from, row, position, &from_at) || !find(&p->to, row, position, &to_at))
        return;
    const struct rt_ref_quant_row from =
        rt_ref_quant_row(&p->from, &p->from_quant, from_at.page, from_at.row);
    const struct rt_ref_quant_row to =
        rt_ref_quant_row(&p->to, &p->to_quant, to_at.page, to_at.row);
    if (p->copies) {
        copy(p, from, to);
    } else if (p->d_qk <= RT_REF_MAX_D) {
        rt_ref_dequantise(&p->from_quant, from, p->d_qk, elements);
        rt_ref_quantise(&p->to_quant, elements, p->d_qk, to);
    }
}

void rt_ref_kv_convert(const void *params)
{
    const struct rt_kv_convert_params *p = params;
    for (uint32_t row = 0; row < p->rows; row++)
        for (uint32_t i = 0; i < p->max_length && (int64_t)i < p->length[row]; i++)
            convert(p, row, i);
}
