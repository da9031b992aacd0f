/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/keys.h"

#include "kernels/ref/append_place.h"
#include "kernels/ref/number.h"
#include "kernels/ref/quant.h"
#include "kernels/ref/ref.h"

int64_t rt_ref_seen_keys(const struct rt_attend_params *p, uint32_t row, uint32_t token)
{
    int64_t length = p->rows.length[row];
    return p->causal ? length - (int64_t)(p->rows.q_len - 1 - token) : length;
}

/* The key's place in the pool; false: it has none. */
static bool find_key(const struct rt_attend_params *p, uint32_t row, int64_t position,
                     struct rt_ref_place *out)
{
    int64_t slot = p->rows.slot ? p->rows.slot[row] : (int64_t)row;
    int64_t column = position / p->kv.page_size;
    if (slot < 0 || column >= (int64_t)p->kv.max_blocks)
        return false;
    int32_t page = p->kv.table[slot * p->kv.max_blocks + column];
    if (page < 0 || (uint32_t)page >= p->kv.pages)
        return false;
    *out = (struct rt_ref_place){page, position % p->kv.page_size};
    return true;
}

static void widen(const void *from, int64_t first, double scale, uint32_t count, bool is_f32,
                  double *to)
{
    for (uint32_t d = 0; d < count; d++)
        to[d] = rt_ref_load(from, first + d, is_f32) * scale;
}

void rt_ref_load_key(const struct rt_attend_params *p, const struct rt_quant_view *quant,
                     uint32_t row, int64_t position, double *key)
{
    struct rt_ref_place at;
    uint16_t elements[RT_REF_MAX_D];
    if (!find_key(p, row, position, &at)) {
        memset(key, 0, p->d_qk * sizeof(*key));
    } else if (quant) {
        rt_ref_dequantise(quant, rt_ref_quant_row(&p->kv, quant, at.page, at.row), p->d_qk,
                          elements);
        widen(elements, 0, 1, p->d_qk, false, key);
    } else {
        widen(p->kv.base + at.page * p->kv.page_stride_bytes + at.row * p->kv.token_stride_bytes, 0,
              1, p->d_qk, p->is_f32, key);
    }
}

/* Where it begins, in elements from the view's base. */
static int64_t find_query(const struct rt_attend_params *p, const struct rt_heads_view *view,
                          uint32_t row, uint32_t query)
{
    const int64_t row_base = p->rows.ctrl ? p->rows.ctrl->row_base : 0;
    return (row_base + row) * view->row_stride + query / p->heads * view->token_stride +
           query % p->heads * view->head_stride;
}

void rt_ref_load_query(const struct rt_attend_params *p, uint32_t row, uint32_t query, double scale,
                       double *q)
{
    const uint32_t width = p->q_rope.base ? p->d_v : p->d_qk;
    widen(p->q.base, find_query(p, &p->q, row, query), scale, width, p->is_f32, q);
    if (p->q_rope.base)
        widen(p->q_rope.base, find_query(p, &p->q_rope, row, query), scale, p->d_qk - width,
              p->is_f32, q + width);
}

/* Sums side by side, so that the compiler may use vectors without reordering one. */
double rt_ref_dot(const double *restrict a, const double *restrict b, size_t n)
{
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
    for (size_t d = 0; d < n; d += 8) {
        s0 += a[d] * b[d];
        s1 += a[d + 1] * b[d + 1];
        s2 += a[d + 2] * b[d + 2];
        s3 += a[d + 3] * b[d + 3];
        s4 += a[d + 4] * b[d + 4];
        s5 += a[d + 5] * b[d + 5];
        s6 += a[d + 6] * b[d + 6];
        s7 += a[d + 7] * b[d + 7];
    }
    return ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7));
}

void rt_ref_add_scaled(double *restrict sum, const double *restrict a, double scale, size_t n)
{
    for (size_t d = 0; d < n; d += 4) {
        sum[d] += scale * a[d];
        sum[d + 1] += scale * a[d + 1];
        sum[d + 2] += scale * a[d + 2];
        sum[d + 3] += scale * a[d + 3];
    }
}
