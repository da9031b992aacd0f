/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <math.h>

/* What a token is chosen for by, and which experts are left to be chosen. */
struct candidates {
    double value[RT_ROUTE_MOST_EXPERTS];
    bool left[RT_ROUTE_MOST_EXPERTS];
};

/* Of softmax: the largest logit, and the sum of the exponentials. */
struct softmax {
    double largest, sum;
};

static struct softmax find_softmax(const struct rt_route_params *p, const float *logits)
{
    struct softmax s = {.largest = (double)logits[0]};
    for (uint32_t e = 1; e < p->experts; e++)
        s.largest = (double)logits[e] > s.largest ? (double)logits[e] : s.largest;
    for (uint32_t e = 0; e < p->experts; e++)
        s.sum += exp((double)logits[e] - s.largest);
    return s;
}

static double score(const struct rt_route_params *p, const struct softmax *s, float logit)
{
    if (p->scoring == RT_ROUTE_SIGMOID)
        return 1 / (1 + exp(-(double)logit));
    return exp((double)logit - s->largest) / s->sum;
}

/* NaN is less than any number. */
static bool is_larger(double a, double b)
{
    return a > b || (isnan(b) && !isnan(a));
}

/* The first of the largest that are left among `count` from `first` on: one is. */
static uint32_t find_largest(const double *value, const bool *left, uint32_t first, uint32_t count)
{
    uint32_t best = first;
    for (uint32_t i = first; i < first + count; i++)
        if (left[i] && (!left[best] || is_larger(value[i], value[best])))
            best = i;
    return best;
}

static double group_value(const struct rt_route_params *p, struct candidates *c, uint32_t first,
                          uint32_t count)
{
    const uint32_t best = find_largest(c->value, c->left, first, count);
    if (p->group_value == RT_ROUTE_GROUP_MAX)
        return c->value[best];
    c->left[best] = false;
    const uint32_t next = find_largest(c->value, c->left, first, count);
    c->left[best] = true;
    return c->value[best] + c->value[next];
}

/* Leaves the experts of the groups that are kept. */
static void keep_groups(const struct rt_route_params *p, struct candidates *c)
{
    const uint32_t each = p->experts / p->groups;
    double value[RT_ROUTE_MOST_GROUPS] = {0};
    bool dropped[RT_ROUTE_MOST_GROUPS] = {false};
    for (uint32_t g = 0; g < p->groups; g++) {
        value[g] = group_value(p, c, g * each, each);
        dropped[g] = true;
    }
    for (uint32_t i = 0; i < p->groups_kept; i++)
        dropped[find_largest(value, dropped, 0, p->groups)] = false;
    for (uint32_t e = 0; e < p->experts; e++)
        c->left[e] = !dropped[e / each];
}

static void choose(const struct rt_route_params *p, uint32_t token)
{
    const float *logits = p->logits + token * p->logit_stride;
    int32_t *choices = p->choices + (size_t)token * p->chosen;
    float *weights = p->weights + (size_t)token * p->chosen;
    const struct softmax s = find_softmax(p, logits);
    struct candidates c = {0};
    for (uint32_t e = 0; e < p->experts; e++) {
        c.value[e] = (double)logits[e];
        if (rt_route_by_score(p))
            c.value[e] = score(p, &s, logits[e]) + (p->bias ? (double)p->bias[e] : 0);
        c.left[e] = true;
    }
    if (p->groups > 1)
        keep_groups(p, &c);
    double sum = 0;
    for (uint32_t i = 0; i < p->chosen; i++) {
        const uint32_t best = find_largest(c.value, c.left, 0, p->experts);
        c.left[best] = false;
        choices[i] = (int32_t)best;
        sum += score(p, &s, logits[best]);
    }
    const double by = p->normalise ? sum + (double)RT_ROUTE_LEAST_SUM : 1;
    for (uint32_t i = 0; i < p->chosen; i++)
        weights[i] = (float)(score(p, &s, logits[choices[i]]) / by * (double)p->scale);
}

static void group(const struct rt_route_params *p, uint32_t pairs)
{
    const struct rt_groups_view *g = &p->groups_of;
    int32_t at = 0;
    *g->active_count = 0;
    for (uint32_t e = 0; e < p->experts; e++) {
        g->offsets[e] = at;
        for (uint32_t i = 0; i < pairs; i++)
            if (p->choices[i] == (int32_t)e)
                g->pairs[at++] = (int32_t)i;
        if (at > g->offsets[e])
            g->active[(*g->active_count)++] = (struct rt_expert_group){
                .expert = (int32_t)e, .first = g->offsets[e], .count = at - g->offsets[e]};
    }
    g->offsets[p->experts] = at;
}

/* Behind the last pair and the last active expert nothing is written. */
void rt_ref_route(const void *params)
{
    const struct rt_route_params *p = params;
    const uint32_t tokens = p->rows.count * p->rows.q_len;
    for (uint32_t t = 0; t < tokens; t++) {
        if (rt_row_is_live(&p->rows, t / p->rows.q_len)) {
            choose(p, t);
            continue;
        }
        for (uint32_t i = t * p->chosen; i < (t + 1) * p->chosen; i++) {
            p->choices[i] = -1;
            p->weights[i] = 0;
        }
    }
    group(p, tokens * p->chosen);
}
