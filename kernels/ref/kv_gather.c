/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <string.h>

/* The token's place in the pool, or null. */
static const void *find(const struct rt_kv_gather_params *p, int64_t token)
{
    const struct rt_kv_view *kv = &p->kv;
    const uint32_t row = rt_kv_gather_row(p->first, p->rows, token);
    const int64_t slot = p->slot ? p->slot[row] : (int64_t)row;
    const int64_t position = (p->position ? p->position[row] : 0) + token - p->first[row];
    const int64_t column = position / kv->page_size;
    if (slot < 0 || position < 0 || position > INT32_MAX || column >= kv->max_blocks)
        return NULL;
    const int32_t page = kv->table[slot * kv->max_blocks + column];
    if (page < 0 || (uint32_t)page >= kv->pages)
        return NULL;
    return kv->base + page * kv->page_stride_bytes +
           position % kv->page_size * kv->token_stride_bytes;
}

void rt_ref_kv_gather(const void *params)
{
    const struct rt_kv_gather_params *p = params;
    const size_t bytes = p->kv.token_bytes;
    for (uint32_t j = 0; j < p->count; j++) {
        const int64_t token = (int64_t)p->begin + j;
        unsigned char *to = (unsigned char *)p->out + j * bytes;
        if (token < p->first[0] || token >= p->first[p->rows])
            continue;
        const void *from = find(p, token);
        if (from)
            memcpy(to, from, bytes);
        else
            memset(to, 0, bytes);
    }
}
