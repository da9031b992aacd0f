/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <string.h>

void rt_ref_page_copy(const void *params)
{
    const struct rt_page_copy_params *p = params;
    uint32_t count = p->ctrl->copy_count;
    const int64_t tail = p->kv.page_size * p->kv.token_stride_bytes;
    for (uint32_t layer = 0; layer < p->layers; layer++) {
        unsigned char *kv = p->kv.base + layer * p->layer_stride_bytes;
        for (uint32_t i = 0; i < count && i < RT_MAX_PAGE_COPIES; i++) {
            const struct rt_page_copy *copy = &p->copies[i];
            const unsigned char *from = kv + copy->from * p->kv.page_stride_bytes;
            unsigned char *to = kv + copy->to * p->kv.page_stride_bytes;
            /* memmove: a page may be copied onto itself. */
            for (int64_t row = 0; row < copy->rows; row++)
                memmove(to + row * p->kv.token_stride_bytes, from + row * p->kv.token_stride_bytes,
                        p->kv.token_bytes);
            memmove(to + tail, from + tail, p->tail_bytes);
        }
    }
}
