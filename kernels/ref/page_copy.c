/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <string.h>

void rt_ref_page_copy(const void *params)
{
    const struct rt_page_copy_params *p = params;
    uint32_t count = p->ctrl->copy_count;
    for (uint32_t layer = 0; layer < p->layers; layer++) {
        uint16_t *kv = p->kv + (int64_t)layer * p->layer_stride;
        for (uint32_t i = 0; i < count && i < RT_MAX_PAGE_COPIES; i++) {
            const struct rt_page_copy *copy = &p->copies[i];
            const uint16_t *from = kv + (int64_t)copy->from * p->page_stride;
            uint16_t *to = kv + (int64_t)copy->to * p->page_stride;
            /* memmove: a page may be copied onto itself. */
            for (int64_t row = 0; row < copy->rows; row++)
                memmove(to + row * p->token_stride, from + row * p->token_stride,
                        p->d_qk * sizeof(*to));
        }
    }
}
