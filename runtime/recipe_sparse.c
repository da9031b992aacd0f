/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over keys that the caller's stages list. */
#include "kernels/abi/quant.h"
#include "kernels/counted_view.h"
#include "runtime/recipe_parts.h"

/* Lists of the span's rows, packed for the query length as q is; entries are positions. */
static struct rt_sparse_view lists(const struct recipe *b)
{
    const uint32_t topk = b->s->blueprint->config.topk;
    return (struct rt_sparse_view){
        .index = rt_recipe_at_span(b, RT_TENSOR_SPARSE_INDICES, 0, topk),
        .count = rt_recipe_at_span(b, RT_TENSOR_SPARSE_COUNTS, 0, 1),
        .token_stride = topk,
        .topk = topk,
        .count_tokens = 1,
        .by_position = 1,
    };
}

/* Keys of every query token of the span, which the schedule counts. */
static int32_t *lengths(const struct recipe *b)
{
    return rt_recipe_at_span(b, RT_TENSOR_SPARSE_LENGTHS, 0, 1);
}

/* A row for every query token of the span. */
static struct rt_rows_view token_rows(const struct recipe *b)
{
    const struct rt_rows_view rows = rt_recipe_rows_view(b);
    return (struct rt_rows_view){
        .length = lengths(b),
        .count = rows.count * rows.q_len,
        .q_len = 1,
        .ctrl = rows.ctrl,
    };
}

static const struct rt_variant *attend_of(const struct recipe *b)
{
    return &b->variants[rt_attend_op(&b->s->blueprint->config)];
}

/* Whether attention and reduce make their plan themselves. */
static bool counts(const struct recipe *b)
{
    return rt_attend_counts(attend_of(b), token_rows(b).count);
}

static struct rt_counted_view counted(const struct recipe *b)
{
    const struct rt_sparse_view keys = lists(b), none = {0};
    return rt_counted_view_make(attend_of(b), &keys, &none, rt_recipe_rows_view(b).length,
                                b->query_len);
}

/* In every layer: its counts are its own. */
static enum rt_status add_schedule(struct recipe *b, uint32_t layer)
{
    struct rt_sparse_schedule_params p = {
        .schedule = rt_recipe_schedule_params(b),
        .keys = lists(b),
        .length = lengths(b),
        .row_length = rt_recipe_rows_view(b).length,
        .q_len = b->query_len,
    };
    p.schedule.rows = token_rows(b);
    return rt_recipe_add_op(b, RT_OP_SPARSE_SCHEDULE, layer, &p, sizeof(p));
}

/* Whether attention leaves nothing to reduce. */
static bool is_whole(const struct recipe *b)
{
    return rt_attend_is_whole(attend_of(b), token_rows(b).count, lists(b).topk);
}

static enum rt_status add_attend(struct recipe *b, uint32_t layer)
{
    struct rt_sparse_attend_quant_params all = {.quant = {0}};
    struct rt_sparse_attend_params *p = &all.sparse;
    *p = (struct rt_sparse_attend_params){
        .attend = rt_recipe_attend_params(b, layer),
        .keys = lists(b),
        .slot = rt_recipe_rows_view(b).slot,
        .q_len = b->query_len,
    };
    p->attend.rows = token_rows(b);
    p->attend.causal = 0; /* the lists say what a token sees */
    p->attend.early = 0;  /* what it reads is this layer's */
    if (counts(b))
        p->counted = counted(b);
    if (is_whole(b))
        p->stamp_last = rt_recipe_reduce_params(b, layer).stamp_last;
    if (!rt_recipe_is_quantised(b))
        return rt_recipe_add_op(b, RT_OP_SPARSE_ATTEND, layer, p, sizeof(*p));
    all.quant = rt_recipe_quant_view(b, layer);
    return rt_recipe_add_op(b, RT_OP_SPARSE_ATTEND_QUANT, layer, &all, sizeof(all));
}

static enum rt_status add_reduce(struct recipe *b, uint32_t layer)
{
    struct rt_reduce_params p = rt_recipe_reduce_params(b, layer);
    p.rows = token_rows(b);
    p.row_tokens = b->query_len;
    if (counts(b))
        p.counted = counted(b);
    return rt_recipe_add_op(b, RT_OP_REDUCE, layer, &p, sizeof(p));
}

enum rt_status rt_recipe_add_sparse(struct recipe *b, uint32_t layer)
{
    if (!counts(b))
        RT_TRY(add_schedule(b, layer));
    RT_TRY(add_attend(b, layer));
    return is_whole(b) ? RT_OK : add_reduce(b, layer);
}

enum rt_status rt_recipe_add_listed(struct recipe *b, uint32_t layer)
{
    RT_TRY(rt_recipe_add_user_stage(b, RT_STAGE_INDEXER, layer));
    return rt_recipe_add_sparse(b, layer);
}
