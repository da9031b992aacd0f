/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ranks have for each other: the sum behind o_proj, what the caller has listed behind its
 * stages, and where they share a context, what each has seen of it.
 *
 * Each attends with all heads of its group to the tokens of its own,
 * and gets of the others what they have of the heads that are its own behind attention:
 *
 *   own keys, all heads ─attend, reduce─> given ─out_exchange─> taken ─merge─> own heads, all keys
 *                                              └─────── context_merge, in one shot ──────┘
 *
 * A head's vectors and their lse lie behind each other, head by head, so that those of one rank's
 * heads are one piece: attention writes them where they are sent from.
 */
#include "kernels/abi/context.h"
#include "runtime/one_shot.h"
#include "runtime/ranks_impl.h"
#include "runtime/recipe_parts.h"
#include "runtime/sum_norm.h"

#include <stdio.h>

static const struct rt_dims *dims_of(const struct recipe *b)
{
    return &b->s->blueprint->placement.dims;
}

static bool is_part(const struct recipe *b)
{
    return b->s->comm && b->s->comm->ranks > 1;
}

static uint32_t element_bytes(const struct recipe *b)
{
    return dims_of(b)->is_f32 ? sizeof(float) : sizeof(uint16_t);
}

static uint64_t head_bytes(const struct recipe *b)
{
    return rt_context_head_bytes(b->spec->tokens, dims_of(b)->kv.d_v, element_bytes(b));
}

/* Of a head, where behind its vectors the lse are. */
static uint64_t lse_at(const struct recipe *b)
{
    return (uint64_t)b->spec->tokens * dims_of(b)->kv.d_v * element_bytes(b);
}

enum rt_status rt_recipe_add_context_rows(struct recipe *b)
{
    const bool chunk = rt_spec_is_chunk(b->spec);
    const struct rt_context_rows_params p = {
        .slot = rt_recipe_at(b, chunk ? RT_TENSOR_TOKEN_SLOT : RT_TENSOR_ROW_SLOT, 0),
        .position = rt_recipe_at(b, chunk ? RT_TENSOR_TOKEN_POSITION : RT_TENSOR_ROW_POSITION, 0),
        .length = chunk ? NULL : rt_recipe_at(b, RT_TENSOR_ROW_LENGTH, 0),
        .token_slot = chunk ? NULL : rt_recipe_at(b, RT_TENSOR_TOKEN_SLOT, 0),
        .token_position = chunk ? NULL : rt_recipe_at(b, RT_TENSOR_TOKEN_POSITION, 0),
        .token_length = rt_recipe_at(b, RT_TENSOR_OWN_LENGTH, 0),
        .token_place = rt_recipe_at(b, RT_TENSOR_OWN_PLACE, 0),
        .rows = chunk ? b->spec->tokens : b->spec->rows,
        .q_len = b->query_len,
        .page_size = dims_of(b)->page_size,
        .ranks = dims_of(b)->context,
        .rank = b->s->blueprint->context_rank,
    };
    b->query_len = 1;
    b->span = (struct span){.rows = b->spec->tokens, .by_token = true};
    return rt_recipe_add_op(b, RT_OP_CONTEXT_ROWS, RT_NO_LAYER, &p, sizeof(p));
}

struct rt_heads_view rt_recipe_given_out(const struct recipe *b)
{
    const uint32_t d_v = dims_of(b)->kv.d_v;
    char *const base = rt_recipe_at(b, RT_TENSOR_GIVEN, 0);
    return (struct rt_heads_view){
        .base = base + (uint64_t)b->span.first * d_v * element_bytes(b),
        .row_stride = d_v,
        .token_stride = d_v,
        .head_stride = (int64_t)(head_bytes(b) / element_bytes(b)),
    };
}

struct rt_heads_view rt_recipe_given_lse(const struct recipe *b)
{
    char *const base = rt_recipe_at(b, RT_TENSOR_GIVEN, 0);
    return (struct rt_heads_view){
        .base = base + lse_at(b) + b->span.first * sizeof(float),
        .row_stride = 1,
        .token_stride = 1,
        .head_stride = (int64_t)(head_bytes(b) / sizeof(float)),
    };
}

/* The audit knows nothing of what a library captures, which may want host functions where ranks
 * cannot reach each other's memory. */
static enum rt_status add_collective(struct recipe *b, const char *name, uint32_t layer,
                                     const struct rt_collective *collective)
{
    const struct rt_work work = {.kind = RT_WORK_COLLECTIVE, .collective = *collective};
    RT_TRY(rt_recipe_add(b, name, layer, &work));
    b->p->stages[b->p->count - 1].trust = RT_STAGE_FOREIGN_HOST;
    return RT_OK;
}

static enum rt_status add_one_shot(struct recipe *b, const char *name, uint32_t layer,
                                   const struct rt_collective *x)
{
    struct rt_work work;
    RT_TRY(rt_one_shot_work(b->s->kernels, x, &work, b->err));
    RT_TRY(rt_recipe_add(b, name, layer, &work));
    b->summed = *x;
    b->summed_count = b->p->count;
    return RT_OK;
}

/* By what was the fastest. */
static enum rt_status add_chosen(struct recipe *b, const char *name, uint32_t layer,
                                 const struct rt_collective *x)
{
    const struct rt_sum_choice *const choice = rt_sums_find(b->s->sums, x);
    RT_TRY(choice && choice->one_shot ? add_one_shot(b, name, layer, x)
                                      : add_collective(b, name, layer, x));
    struct rt_stage *const stage = &b->p->stages[b->p->count - 1];
    if (choice)
        (void)snprintf(stage->reason, sizeof(stage->reason), "%s", choice->reason);
    return RT_OK;
}

/* Every rank has the product of its own heads. */
enum rt_status rt_recipe_add_sum(struct recipe *b, uint32_t layer)
{
    const struct rt_config *const c = &b->s->blueprint->config;
    if (!is_part(b))
        return RT_OK;
    void *const hidden = rt_recipe_at_span(b, RT_TENSOR_HIDDEN, 0, c->block.hidden_size);
    const struct rt_collective sum =
        rt_ranks_sum(c, b->s->comm, (uintptr_t)hidden, rt_recipe_tokens(b));
    return add_chosen(b, "o_proj_sum", layer, &sum);
}

enum rt_status rt_recipe_add_stage_exchange(struct recipe *b, const struct rt_stage_exchange *x,
                                            uint32_t layer)
{
    char name[RT_LABEL_BYTES];
    if (!is_part(b))
        return RT_OK;
    const struct rt_collective c =
        rt_stage_exchange_work(x, b->s->blueprint, b->s->arena, b->s->comm, b->spec);
    (void)snprintf(name, sizeof(name), "%s_%s", rt_stage_point_name(x->point),
                   x->kind == RT_EXCHANGE_SUM ? "sum" : "gather");
    return add_chosen(b, name, layer, &c);
}

static enum rt_status add_exchange_and_merge(struct recipe *b, uint32_t layer,
                                             const struct rt_context_exchange *x)
{
    RT_TRY(add_collective(b, "out_exchange", layer, &x->swap));
    return rt_recipe_add_op(b, RT_OP_MERGE, layer, &x->merge, sizeof(x->merge));
}

static enum rt_status add_context_merge(struct recipe *b, uint32_t layer,
                                        const struct rt_context_exchange *x)
{
    struct rt_work work;
    RT_TRY(rt_context_one_shot_work(b->s->kernels, x, &work, b->err));
    return rt_recipe_add(b, "context_merge", layer, &work);
}

/* By what was the fastest, which the first of its stages tells. */
enum rt_status rt_recipe_add_context(struct recipe *b, uint32_t layer)
{
    const struct rt_context_exchange x =
        rt_context_exchange_of(b->s->blueprint, b->s->arena, b->s->comm, b->spec->tokens);
    const struct rt_sum_choice *const choice = rt_sums_find(b->s->sums, &x.swap);
    const uint32_t first = b->p->count;
    RT_TRY(choice && choice->one_shot ? add_context_merge(b, layer, &x)
                                      : add_exchange_and_merge(b, layer, &x));
    struct rt_stage *const stage = &b->p->stages[first];
    if (choice)
        (void)snprintf(stage->reason, sizeof(stage->reason), "%s", choice->reason);
    return RT_OK;
}

/* In the place of the sum, which is the last stage. */
static enum rt_status replace_sum(struct recipe *b, uint32_t layer,
                                  const struct rt_input_norm_params *norm,
                                  const struct rt_sum_choice *choice)
{
    struct rt_work work;
    RT_TRY(rt_sum_norm_work(b->s->kernels, &b->summed, norm, &work, b->err));
    rt_program_drop(b->p);
    RT_TRY(rt_recipe_add(b, "sum_input_norm", layer, &work));
    struct rt_stage *const stage = &b->p->stages[b->p->count - 1];
    (void)snprintf(stage->reason, sizeof(stage->reason), "%s", choice->reason);
    return RT_OK;
}

/* What the sum of hidden and the norm take in one launch, where the sum is the stage before, one
 * launch can do both, and was faster; null: not so. */
static const struct rt_sum_choice *sum_in_front(const struct recipe *b,
                                                const struct rt_input_norm_params *norm)
{
    const bool behind_sum = b->summed_count > 0 && b->summed_count == b->p->count &&
                            b->p->stages[b->p->count - 1].branch == b->p->branch;
    const struct rt_sum_choice *const choice =
        behind_sum ? rt_sums_find_norm(b->s->sums, &b->summed) : NULL;
    return choice && choice->one_shot && rt_sum_norm_serves(&b->summed, norm) ? choice : NULL;
}

enum rt_status rt_recipe_add_input_norm(struct recipe *b, uint32_t layer)
{
    const struct rt_input_norm_params norm =
        rt_input_norm_of(b->s->blueprint, b->s->arena, b->s->weights, layer, rt_recipe_tokens(b));
    const struct rt_sum_choice *const choice = sum_in_front(b, &norm);
    return choice ? replace_sum(b, layer, &norm, choice)
                  : rt_recipe_add_op(b, RT_OP_INPUT_NORM, layer, &norm, sizeof(norm));
}

/*
 * In a block that is one kernel each of its blocks does the norm, of every token; behind the sum
 * one block a token does. Measured, a layer of 7168 numbers takes 0.4 us less with the norm in it
 * for one token, and 0.2, 1.2 and 3.3 more for 2, 4 and 8 (docs/ranks.md).
 */
#define MOST_NORMED_IN_BLOCK 1u

enum rt_status rt_recipe_norm_sum(struct recipe *b, uint32_t layer, bool *normed)
{
    struct rt_input_norm_params norm =
        rt_input_norm_of(b->s->blueprint, b->s->arena, b->s->weights, layer, rt_recipe_tokens(b));
    const struct rt_sum_choice *const choice =
        norm.tokens > MOST_NORMED_IN_BLOCK ? sum_in_front(b, &norm) : NULL;
    norm.normed = (uint16_t *)rt_recipe_at(b, RT_TENSOR_HIDDEN, 0);
    *normed = choice != NULL;
    return choice ? replace_sum(b, layer, &norm, choice) : RT_OK;
}
