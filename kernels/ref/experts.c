/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/experts_many.h"
#include "kernels/ref/number.h"
#include "kernels/ref/ref.h"

#include <math.h>

/* x . a row of a weight. */
static double product(const void *x, int64_t at, const struct rt_expert_weight_view *w,
                      uint32_t expert, uint32_t row, uint32_t count, bool is_f32)
{
    const uint16_t *weight = w->base + expert * w->expert_stride + row * w->row_stride;
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += rt_ref_load(x, at + i, is_f32) * (double)rt_bf16_to_float(weight[i]);
    return sum;
}

/* `place`: of h. A number that is not finite reaches what is summed with it: nan for the gate -inf,
 * which is 0 times an infinity. */
static void up(const struct rt_experts_up_params *p, int shared, uint32_t expert, uint32_t token,
               uint32_t place)
{
    const int64_t x = token * p->x_stride;
    const int64_t h = token * p->h.token_stride + place * p->h.place_stride;
    for (uint32_t j = 0; j < p->width; j++) {
        const double a = product(p->x, x, &p->gate[shared], expert, j, p->hidden, p->is_f32);
        const double b = product(p->x, x, &p->up[shared], expert, j, p->hidden, p->is_f32);
        rt_ref_store(p->h.base, h + j, p->is_f32, a / (1 + exp(-a)) * b);
    }
}

void rt_ref_experts_up(const void *params)
{
    const struct rt_experts_up_params *p = params;
    const struct rt_experts_view *w = &p->work;
    for (uint32_t e = 0; e < w->shared; e++)
        for (uint32_t t = 0; t < w->tokens; t++)
            up(p, 1, e, t, w->chosen + e);
    for (int32_t a = 0; w->experts > 0 && a < *w->groups.active_count; a++) {
        const struct rt_expert_group *g = &w->groups.active[a];
        for (int32_t i = g->first; i < g->first + g->count; i++) {
            const uint32_t pair = (uint32_t)w->groups.pairs[i];
            up(p, 0, (uint32_t)g->expert, pair / w->chosen, pair % w->chosen);
        }
    }
}

/* ---- experts_down, in one launch and in two -------------------------------------------------- */

/* A number of a token's line of products, rounded to float: that of a place, or behind them that of
 * all shared experts. In one launch it is made where it is added, so that both agree bit by bit. */
static float make_product(const struct rt_experts_down_params *p, uint32_t token, uint32_t line,
                          uint32_t row)
{
    const struct rt_experts_view *w = &p->work;
    const int64_t h = token * p->h.token_stride + line * p->h.place_stride;
    double sum = 0;
    if (line < w->chosen)
        return (float)product(p->h.base, h, &p->down[0],
                              (uint32_t)p->choices[(size_t)token * w->chosen + line], row, p->width,
                              p->is_f32);
    for (uint32_t e = 0; e < w->shared; e++)
        sum +=
            product(p->h.base, h + e * p->h.place_stride, &p->down[1], e, row, p->width, p->is_f32);
    return (float)sum;
}

static size_t product_at(const struct rt_experts_down_params *p, uint32_t token, uint32_t line)
{
    return ((size_t)token * rt_experts_products(&p->work) + line) * p->hidden;
}

/* Lines of places that nobody has chosen are left alone. */
void rt_ref_experts_down_pairs(const void *params)
{
    const struct rt_experts_down_pairs_params *p = params;
    const struct rt_experts_down_params *down = &p->down;
    const struct rt_experts_view *w = &down->work;
    for (uint32_t t = 0; t < w->tokens; t++)
        for (uint32_t s = w->experts > 0 ? 0 : w->chosen; s < rt_experts_products(w); s++) {
            if (s < w->chosen && down->choices[(size_t)t * w->chosen + s] < 0)
                continue;
            for (uint32_t j = 0; j < down->hidden; j++)
                p->products[product_at(down, t, s) + j] = make_product(down, t, s, j);
        }
}

/* products: null where they are made here. */
static double add_products(const struct rt_experts_down_params *p, const float *products,
                           uint32_t token, uint32_t row)
{
    const struct rt_experts_view *w = &p->work;
    double sum = 0;
    for (uint32_t i = 0; i < rt_experts_products(w); i++) {
        const uint32_t line = w->shared == 0 ? i : i == 0 ? w->chosen : i - 1;
        if (line < w->chosen && w->experts == 0)
            continue;
        const double weight =
            line < w->chosen ? (double)p->weights[(size_t)token * w->chosen + line] : 1;
        sum += weight * (double)(products ? products[product_at(p, token, line) + row]
                                          : make_product(p, token, line, row));
    }
    return sum;
}

static void add_all(const struct rt_experts_down_params *p, const float *products)
{
    for (uint32_t t = 0; t < p->work.tokens; t++) {
        const bool live = rt_row_is_live(&p->rows, t / p->rows.q_len);
        for (uint32_t j = 0; j < p->hidden; j++)
            rt_ref_store(p->out, t * p->out_stride + j, p->is_f32,
                         live ? add_products(p, products, t, j) : 0);
    }
}

void rt_ref_experts_down(const void *params)
{
    add_all(params, NULL);
}

void rt_ref_experts_down_sum(const void *params)
{
    const struct rt_experts_down_pairs_params *p = params;
    add_all(&p->down, p->products);
}
