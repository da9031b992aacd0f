/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/measure_pages.h"

#include "kernels/quant_view.h"
#include "kernels/ref/quant.h"

#include <string.h>

void rt_measure_make_pages(const struct rt_kv_format *format, uint32_t page_size, float kv_scale,
                           const void *noise, uint64_t noise_bytes, uint64_t pages, void *to)
{
    const struct rt_kv_view kv = {.base = to,
                                  .page_stride_bytes = (int64_t)rt_kv_page_bytes(format, page_size),
                                  .token_stride_bytes = format->row_bytes,
                                  .token_bytes = format->row_bytes,
                                  .page_size = (int32_t)page_size};
    const struct rt_quant_view quant = rt_quant_view_make(format, &kv, kv_scale);
    const uint64_t slots = noise_bytes / 2 / RT_MEASURE_PLACE_BYTES;
    memset(to, 0, pages * (uint64_t)kv.page_stride_bytes);
    for (uint64_t token = 0; token < pages * page_size; token++) {
        const uint64_t at = rt_measure_place(token, slots) * RT_MEASURE_PLACE_BYTES;
        const uint16_t *from = (const uint16_t *)noise + at / sizeof(uint16_t);
        const struct rt_ref_quant_row row = rt_ref_quant_row(
            &kv, &quant, (int64_t)(token / page_size), (int64_t)(token % page_size));
        rt_ref_quantise(&quant, from, format->d_qk, row);
    }
}
