/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/append_place.h"
#include "kernels/ref/quant.h"
#include "kernels/ref/ref.h"

#include <string.h>

/* The token's place in the pool; false: it has none. */
static bool find(const struct rt_kv_gather_params *p, int64_t token, struct rt_ref_place *out)
{
    const struct rt_kv_view *kv = &p->kv;
    const uint32_t row = rt_kv_gather_row(p->first, p->rows, token);
    const int64_t slot = p->slot ? p->slot[row] : (int64_t)row;
    const int64_t position = (p->position ? p->position[row] : 0) + token - p->first[row];
    const int64_t column = position / kv->page_size;
    if (slot < 0 || position < 0 || position > INT32_MAX || column >= kv->max_blocks)
        return false;
    const int32_t page = kv->table[slot * kv->max_blocks + column];
    if (page < 0 || (uint32_t)page >= kv->pages)
        return false;
    *out = (struct rt_ref_place){page, position % kv->page_size};
    return true;
}

/* A token of `bytes` of out. */
static void put(const struct rt_kv_gather_params *p,
                const struct rt_kv_gather_quant_params *quantised, const struct rt_ref_place *from,
                unsigned char *to, size_t bytes)
{
    const struct rt_kv_view *kv = &p->kv;
    if (!from)
        memset(to, 0, bytes);
    else if (quantised)
        rt_ref_dequantise(&quantised->quant,
                          rt_ref_quant_row(kv, &quantised->quant, from->page, from->row),
                          quantised->d_qk, (uint16_t *)(void *)to);
    else
        memcpy(to,
               kv->base + from->page * kv->page_stride_bytes + from->row * kv->token_stride_bytes,
               bytes);
}

/* Tokens of `bytes`. `quantised`: the params that these begin; null: tokens as they are. */
static void gather(const struct rt_kv_gather_params *p,
                   const struct rt_kv_gather_quant_params *quantised, size_t bytes)
{
    for (uint32_t j = 0; j < p->count; j++) {
        const int64_t token = (int64_t)p->begin + j;
        struct rt_ref_place from;
        if (token < p->first[0] || token >= p->first[p->rows])
            continue;
        put(p, quantised, find(p, token, &from) ? &from : NULL, (unsigned char *)p->out + j * bytes,
            bytes);
    }
}

void rt_ref_kv_gather(const void *params)
{
    const struct rt_kv_gather_params *p = params;
    gather(p, NULL, p->kv.token_bytes);
}

void rt_ref_kv_gather_quant(const void *params)
{
    const struct rt_kv_gather_quant_params *p = params;
    gather(&p->gather, p, p->d_qk * sizeof(uint16_t));
}
