/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chunk's graph: tokens of prompts and rows that decode, behind each other, through the same
 * layers. What knows no sequences has all of them at once; attention has them apart, so that the
 * rows that decode are scheduled as if they were alone.
 *
 *   tokens   0 ........... chunk ............. tokens
 *            prompts'      query_len a row that decodes
 *
 * To all but attention every token is a row. Attention of rows that decode has the tokens of each
 * together, as in a step, and by a step's kernel for so many.
 *
 * Where prompts attend with expanded keys, the two kinds of attention are branches beside each
 * other: that of prompts is bound by tensor cores and fills no device with few tokens, that of rows
 * by memory.
 */
#include "kernels/abi/chunk.h"
#include "runtime/recipe_parts.h"

static struct span all_of(const struct recipe *b)
{
    return (struct span){.rows = b->spec->tokens, .by_token = true};
}

static struct span prompts_of(const struct recipe *b)
{
    return (struct span){.rows = rt_spec_chunk(b->spec), .by_token = true, .chunk = true};
}

static struct span decoding_of(const struct recipe *b)
{
    return (struct span){.first = rt_spec_chunk(b->spec),
                         .rows = b->spec->decode_rows * rt_spec_query_len(b->spec),
                         .by_token = true};
}

/* From here on the span is rows that decode as attention has them; where ranks share a context it
 * has tokens. */
static void enter_rows(struct recipe *b)
{
    b->span = decoding_of(b);
    b->variants = rt_blueprint_beside(b->s->blueprint, b->spec);
    if (rt_spec_query_len(b->spec) == 1 || rt_recipe_has_context(b))
        return;
    b->query_len = rt_spec_query_len(b->spec);
    b->span.rows = b->spec->decode_rows;
    b->span.by_token = false;
    b->span.beside = true;
}

/* And from here on their tokens. */
static void leave_rows(struct recipe *b)
{
    b->span = decoding_of(b);
    b->variants = b->s->blueprint->chunk_variants;
    b->query_len = 1;
}

static enum rt_status add_chunk_rows(struct recipe *b)
{
    const struct rt_placement *l = &b->s->blueprint->placement;
    const bool is_long = b->spec->decode_rows && rt_spec_query_len(b->spec) > 1;
    const struct rt_chunk_rows_params p = {
        .ring = rt_recipe_at(b, RT_TENSOR_RECORDS, 0),
        .ctrl = rt_recipe_at(b, RT_TENSOR_CTRL, 0),
        .slot_token = rt_recipe_at(b, RT_TENSOR_SLOT_TOKEN, 0),
        .tokens = rt_recipe_at(b, RT_TENSOR_TOKENS, 0),
        .row_slot = rt_recipe_at(b, RT_TENSOR_ROW_SLOT, 0),
        .row_position = rt_recipe_at(b, RT_TENSOR_ROW_POSITION, 0),
        .row_length = rt_recipe_at(b, RT_TENSOR_ROW_LENGTH, 0),
        .row_accept = rt_recipe_at(b, RT_TENSOR_ROW_ACCEPT, 0),
        .row_start = rt_recipe_at(b, RT_TENSOR_ROW_START, 0),
        .row_last = rt_recipe_at(b, RT_TENSOR_ROW_LAST, 0),
        .token_id = rt_recipe_at(b, RT_TENSOR_CHUNK_IDS, 0),
        .token_slot = rt_recipe_at(b, RT_TENSOR_TOKEN_SLOT, 0),
        .token_position = rt_recipe_at(b, RT_TENSOR_TOKEN_POSITION, 0),
        .token_length = rt_recipe_at(b, RT_TENSOR_TOKEN_LENGTH, 0),
        .beside_slot = is_long ? rt_recipe_at(b, RT_TENSOR_BESIDE_SLOT, 0) : NULL,
        .beside_position = is_long ? rt_recipe_at(b, RT_TENSOR_BESIDE_POSITION, 0) : NULL,
        .beside_reach = is_long ? rt_recipe_at(b, RT_TENSOR_BESIDE_REACH, 0) : NULL,
        .chunk_first = rt_recipe_at(b, RT_TENSOR_CHUNK_FIRST, 0),
        .context_first = rt_recipe_at(b, RT_TENSOR_CONTEXT_FIRST, 0),
        .piece_first = b->spec->pieces ? rt_recipe_at(b, RT_TENSOR_PIECE_FIRST, 0) : NULL,
        .ring_depth = l->dims.ring_depth,
        .record_bytes = l->record.record_bytes,
        .tokens_offset = l->record.tokens_offset,
        .prefill_rows = rt_spec_prefill_rows(b->spec),
        .decode_rows = b->spec->decode_rows,
        .chunk = rt_spec_chunk(b->spec),
        .pieces = b->spec->pieces,
        .piece = l->dims.context_piece,
        .max_length = l->dims.max_length,
        .query_len = rt_spec_query_len(b->spec),
    };
    return rt_recipe_add_op(b, RT_OP_CHUNK_ROWS, RT_NO_LAYER, &p, sizeof(p));
}

/* The one of the prompts only where they attend as rows of a schedule. Those of listed keys are
 * every layer's own. */
static enum rt_status add_schedules(struct recipe *b)
{
    if (rt_recipe_is_listed(b))
        return RT_OK;
    if (b->spec->absorbed) {
        b->span = prompts_of(b);
        RT_TRY(rt_recipe_add_schedule(b));
    }
    if (b->spec->decode_rows == 0)
        return RT_OK;
    enter_rows(b);
    RT_TRY(rt_recipe_add_schedule(b));
    leave_rows(b);
    return RT_OK;
}

/* Of the span. */
static enum rt_status attend_absorbed(struct recipe *b, uint32_t layer)
{
    if (rt_recipe_is_listed(b))
        return rt_recipe_add_sparse(b, layer);
    RT_TRY(rt_recipe_add_attend(b, layer));
    return rt_recipe_add_reduce(b, layer);
}

/* Of rows that decode. */
static enum rt_status attend_rows(struct recipe *b, uint32_t layer)
{
    enter_rows(b);
    RT_TRY(attend_absorbed(b, layer));
    leave_rows(b);
    return RT_OK;
}

/* All rows by latents. */
static enum rt_status add_attention(struct recipe *b, uint32_t layer)
{
    if (rt_recipe_is_listed(b))
        RT_TRY(rt_recipe_add_user_stage(b, RT_STAGE_INDEXER, layer));
    b->span = prompts_of(b);
    RT_TRY(attend_absorbed(b, layer));
    return b->spec->decode_rows ? attend_rows(b, layer) : RT_OK;
}

/*
 * Two chains beside each other, none of which needs the other; each leaves SMs idle where a product
 * begins and ends:
 *
 *   q_b ─ w_uk of rows that decode         which factors of q, made behind q_b, rule out
 *   kv_gather ─ kv_b of the chunk's own    whose latents are in the cache
 */
enum rt_status rt_recipe_add_ahead(struct recipe *b, uint32_t layer)
{
    const struct span span = b->span;
    if (b->spec->decode_rows && !b->s->blueprint->placement.dims.query_scales) {
        b->span = decoding_of(b);
        b->has_absorbed = true;
        RT_TRY(rt_recipe_add_absorption(b, layer));
    }
    b->p->branch = 2;
    RT_TRY(rt_recipe_add_own_keys(b, layer));
    b->p->branch = RT_TRUNK;
    b->span = span;
    return RT_OK;
}

/* All by latents, from queries to values. */
static enum rt_status add_absorbed(struct recipe *b, uint32_t layer)
{
    RT_TRY(rt_recipe_add_absorption(b, layer));
    RT_TRY(add_attention(b, layer));
    b->span = all_of(b);
    if (rt_recipe_has_context(b))
        RT_TRY(rt_recipe_add_context(b, layer));
    return rt_recipe_add_values(b, layer);
}

/* By latents what decodes alone, beside the prompts. Its chain is the longer one, so it is launched
 * first (docs/notebook.md, "Branches of a chunk"). */
static enum rt_status add_beside(struct recipe *b, uint32_t layer)
{
    b->p->branch = 1;
    b->span = decoding_of(b);
    if (!b->has_absorbed)
        RT_TRY(rt_recipe_add_absorption(b, layer));
    RT_TRY(attend_rows(b, layer));
    RT_TRY(rt_recipe_add_values(b, layer));
    b->has_absorbed = false; /* the next layer's are to come */
    b->p->branch = 2;
    RT_TRY(rt_recipe_add_expanded(b, layer));
    b->p->branch = RT_TRUNK;
    return RT_OK;
}

/* From queries to values. */
static enum rt_status add_values(struct recipe *b, uint32_t layer)
{
    if (b->spec->absorbed)
        return add_absorbed(b, layer);
    return b->spec->decode_rows ? add_beside(b, layer) : rt_recipe_add_expanded(b, layer);
}

static enum rt_status add_block(struct recipe *b, uint32_t layer)
{
    b->span = all_of(b);
    RT_TRY(rt_recipe_add_query(b, layer));
    RT_TRY(add_values(b, layer));
    b->span = all_of(b);
    return rt_recipe_add_hidden(b, layer);
}

static enum rt_status add_latents(struct recipe *b, uint32_t layer)
{
    b->span = all_of(b);
    RT_TRY(rt_recipe_add_append(b, layer));
    return add_attention(b, layer);
}

enum rt_status rt_recipe_add_chunk(struct recipe *b)
{
    const struct rt_config *config = &b->s->blueprint->config;
    RT_TRY(add_chunk_rows(b));
    RT_TRY(rt_recipe_add_user_stage(b, RT_STAGE_STEP_BEGIN, RT_NO_LAYER));
    if (rt_recipe_has_context(b))
        RT_TRY(rt_recipe_add_context_rows(b));
    RT_TRY(add_schedules(b));
    for (uint32_t layer = 0; layer < config->geometry.layers; layer++) {
        RT_TRY(rt_recipe_add_user_stage(b, RT_STAGE_BEFORE_ATTENTION, layer));
        RT_TRY(config->layer ? add_block(b, layer) : add_latents(b, layer));
        RT_TRY(rt_recipe_add_user_stage(b, RT_STAGE_AFTER_ATTENTION, layer));
    }
    return rt_recipe_add_user_stage(b, RT_STAGE_STEP_END, RT_NO_LAYER);
}
