/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <string.h>

void rt_ref_take(const void *params)
{
    const struct rt_take_params *p = params;
    const int64_t element_bytes = p->is_f32 ? sizeof(float) : sizeof(uint16_t);
    const size_t row_bytes = p->width * (size_t)element_bytes;
    for (uint32_t i = 0; i < p->rows; i++) {
        unsigned char *to = (unsigned char *)p->out + i * p->out_stride * element_bytes;
        const int32_t row = p->index[i];
        if (row >= 0 && (uint32_t)row < p->x_rows)
            memcpy(to, (const unsigned char *)p->x + row * p->x_stride * element_bytes, row_bytes);
        else
            memset(to, 0, row_bytes);
    }
}
