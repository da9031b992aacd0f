/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/keys.h"
#include "kernels/ref/ref.h"

int64_t rt_ref_seen_keys(const struct rt_mla_attend_params *p, uint32_t row, uint32_t token)
{
    int64_t length = p->row_length[row];
    return p->causal ? length - (int64_t)(p->q_len - 1 - token) : length;
}

/* The key's place in the pool, or null. */
static const uint16_t *find_key(const struct rt_mla_attend_params *p, uint32_t row,
                                int64_t position)
{
    int64_t slot = p->row_slot ? p->row_slot[row] : (int64_t)row;
    int64_t column = position / p->page_size;
    if (slot < 0 || column >= (int64_t)p->max_blocks)
        return NULL;
    int32_t page = p->block_table[slot * p->max_blocks + column];
    if (page < 0 || (uint32_t)page >= p->pages)
        return NULL;
    return p->kv + page * p->kv_page_stride + position % p->page_size * p->kv_token_stride;
}

void rt_ref_load_key(const struct rt_mla_attend_params *p, uint32_t row, int64_t position,
                     double *key)
{
    const uint16_t *bits = find_key(p, row, position);
    for (uint32_t d = 0; d < p->d_qk; d++)
        key[d] = bits ? (double)rt_ref_widen(bits[d]) : 0;
}

/* Eight sums, so that the compiler may use vectors without reordering one. */
double rt_ref_dot(const double *a, const double *b, uint32_t n)
{
    double s[8] = {0};
    for (uint32_t d = 0; d < n; d += 8)
        for (uint32_t i = 0; i < 8; i++)
            s[i] += a[d + i] * b[d + i];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

void rt_ref_add_scaled(double *sum, const double *a, double scale, uint32_t n)
{
    for (uint32_t d = 0; d < n; d += 8)
        for (uint32_t i = 0; i < 8; i++)
            sum[d + i] += scale * a[d + i];
}
