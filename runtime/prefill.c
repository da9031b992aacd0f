/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts: cut into chunks of static shape, each one record and one launch. Beside the prompts'
 * rows a record may have rows that decode, which are step.c's.
 */
#include "common/math.h"
#include "runtime/step_parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A prompt's tokens in one chunk. */
struct part {
    struct rt_slot *slot;
    const int32_t *tokens;
    uint32_t count;
};

/* One replay: parts of prompts, and rows that decode. */
struct chunk {
    struct part parts[RT_MAX_PREFILL_ROWS];
    uint32_t part_count;
    uint32_t tokens;                       /* of the parts */
    uint64_t context;                      /* tokens in front of them */
    const struct rt_step_params *decoding; /* its first `rows` rows; null: none */
    uint32_t rows;
    uint32_t flags;
    uint64_t call_first; /* step */
    bool goes_on;        /* rows that decode follow in replays of their own */
};

/* ---- checks ---------------------------------------------------------------------------------- */

static uint32_t query_len_of(const struct rt_step_params *p)
{
    return p->query_len ? p->query_len : 1;
}

static uint32_t pages_for(const struct rt_runtime *rt, const struct rt_slot *slot, uint32_t reach)
{
    const uint32_t held = rt_slot_rest(rt, slot)->page_count;
    const uint32_t needed = rt_ceil_div_u32(reach, rt_page_tokens(rt));
    return needed > held ? needed - held : 0;
}

static enum rt_status check_ids(struct rt_runtime *rt, const struct rt_prompt *prompt, uint32_t i)
{
    for (uint32_t t = 0; t < prompt->count; t++)
        RT_REQUIRE(prompt->tokens[t] >= (t == 0 ? -1 : 0), &rt->error, RT_ERR_INVALID,
                   "prompt %u: token %u is %d, %s", i, t, prompt->tokens[t],
                   t == 0 ? "neither a token nor -1" : "no token");
    return RT_OK;
}

/* Its tokens fit, also if all stay that steps in flight decide. */
static enum rt_status check_length(struct rt_runtime *rt, const struct rt_slot *slot,
                                   const struct rt_prompt *prompt, uint32_t i)
{
    const uint32_t most = rt->blueprint.config.max_length;
    const uint32_t decided = slot->length - slot->undecided;
    RT_REQUIRE((uint64_t)decided + prompt->count <= most, &rt->error, RT_ERR_LENGTH,
               "prompt %u: %u tokens and %u new ones exceed max_length %u", i, decided,
               prompt->count, most);
    if ((uint64_t)slot->length + prompt->count <= most)
        return RT_OK;
    rt->stats.busy++;
    return rt_fail(&rt->error, RT_ERR_BUSY,
                   "prompt %u: up to %u tokens and %u new ones may exceed max_length %u; wait for "
                   "the steps that decide its length",
                   i, slot->length, prompt->count, most);
}

/* The sequence is open, named once, short enough, goes on from a token, and has its pages or gets
 * more. */
static enum rt_status check_prompt(struct rt_runtime *rt, const struct rt_prompt *prompt,
                                   uint32_t i, uint64_t *new_pages)
{
    struct rt_slot *slot = NULL;
    RT_REQUIRE(prompt->tokens && prompt->count >= 1, &rt->error, RT_ERR_INVALID,
               "prompt %u: %u tokens at %p", i, prompt->count, (const void *)prompt->tokens);
    RT_REQUIRE(prompt->reserved == 0, &rt->error, RT_ERR_INVALID,
               "prompt %u: reserved is %u, not 0", i, prompt->reserved);
    RT_TRY(rt_slot_of(rt, prompt->seq, &slot));
    RT_REQUIRE(slot->named_in != rt->attempts, &rt->error, RT_ERR_DUPLICATE,
               "prompt %u names sequence 0x%" PRIx64 " a second time", i, prompt->seq);
    RT_TRY(check_length(rt, slot, prompt, i));
    RT_REQUIRE(slot->length != slot->nameless || prompt->tokens[0] >= 0, &rt->error, RT_ERR_INVALID,
               "prompt %u: sequence 0x%" PRIx64 " was opened or rewound at %u tokens without a "
               "last one; its first token must be named",
               i, prompt->seq, slot->length);
    const uint32_t reach = slot->length + prompt->count;
    if (rt_slot_rest(rt, slot)->builtin_pages)
        *new_pages += pages_for(rt, slot, reach);
    else
        RT_REQUIRE(reach <= slot->capacity, &rt->error, RT_ERR_PAGES,
                   "prompt %u: %u tokens need %u pages, %u are bound", i, reach,
                   rt_ceil_div_u32(reach, rt_page_tokens(rt)), rt_slot_rest(rt, slot)->page_count);
    slot->named_in = rt->attempts;
    return check_ids(rt, prompt, i);
}

/* The lines of the record that the first chunk of the prompts goes to, and the rows beside it: they
 * come while prompts and rows are checked. */
static void warm_record(const struct rt_runtime *rt, const struct rt_prompt *prompts,
                        uint32_t count, const struct rt_step_params *beside)
{
    const uint32_t rows = beside ? beside->rows : 0, query_len = beside ? query_len_of(beside) : 1;
    const struct rt_dims *dims = &rt->blueprint.placement.dims;
    const uint32_t parts = rt_min_u32(count, dims->prefill_rows);
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < parts; i++)
        tokens += prompts[i].count;
    rt_ring_warm(&rt->ring, parts + rows,
                 (uint64_t)dims->chunk_rows * query_len + dims->prefill_rows +
                     rt_min_u64(tokens, dims->chunk));
}

/* `beside`: the step whose rows decode beside them; null: none. */
static enum rt_status check_prompts(struct rt_runtime *rt, const struct rt_prompt *prompts,
                                    uint32_t count, const struct rt_step_params *beside,
                                    uint64_t *new_pages)
{
    const struct rt_config *c = &rt->blueprint.config;
    RT_REQUIRE(c->chunk_count > 0, &rt->error, RT_ERR_UNSUPPORTED,
               "%u prompts, but prefill.chunks configures no chunk; feed them through rt_step",
               count);
    RT_REQUIRE(prompts, &rt->error, RT_ERR_INVALID, "%u prompts at null", count);
    RT_REQUIRE(count <= c->max_sequences, &rt->error, RT_ERR_ROWS,
               "%u prompts; this runtime has 1..%u sequences", count, c->max_sequences);
    warm_record(rt, prompts, count, beside);
    for (uint32_t i = 0; i < count; i++)
        RT_TRY(check_prompt(rt, &prompts[i], i, new_pages));
    return RT_OK;
}

/* ---- one chunk ------------------------------------------------------------------------------- */

static uint32_t pieces_of(const struct rt_runtime *rt, uint64_t context)
{
    const uint32_t piece = rt->blueprint.placement.dims.context_piece;
    return piece ? (uint32_t)rt_ceil_div_u64(context, piece) : 0;
}

/* The graph for prompts alone; the blueprint's count: there is none. */
static uint32_t find_spec(const struct rt_runtime *rt, uint32_t tokens, uint64_t context)
{
    const struct rt_blueprint *b = &rt->blueprint;
    const struct rt_chunk_load load = {.tokens = tokens, .pieces = pieces_of(rt, context)};
    return rt_spec_find_chunk(b->specs, b->spec_count, &load);
}

/* Takes pages for the part, and tells the device with the same record. Room is there. */
static void grow(struct rt_runtime *rt, const struct part *part)
{
    const uint32_t held = rt_slot_rest(rt, part->slot)->page_count;
    const uint32_t count = pages_for(rt, part->slot, part->slot->length);
    if (count == 0 || !rt_slot_rest(rt, part->slot)->builtin_pages)
        return;
    rt_slot_take_pages(rt, part->slot, count);
    rt_put_set_pages(rt, rt_slot_index(rt, part->slot), held, rt_slot_line(rt, part->slot) + held,
                     count);
}

static uint32_t ops_bytes_of(const struct rt_runtime *rt, const struct chunk *c)
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < c->part_count; i++) {
        const struct part *part = &c->parts[i];
        const uint32_t pages = pages_for(rt, part->slot, part->slot->length + part->count);
        bytes += pages ? rt_set_pages_bytes(pages) : 0;
    }
    return bytes;
}

/* Rows, and of the tokens: columns | counts | all, as common/record.h has them. */
static void write_parts(struct rt_runtime *rt, const struct chunk *c,
                        const struct rt_graph_spec *spec, struct rt_record_row *rows,
                        int32_t *tokens)
{
    const uint32_t query_len = rt_spec_query_len(spec);
    int32_t *const counts = tokens + (size_t)spec->rows * query_len;
    int32_t *to = counts + rt_spec_prefill_rows(spec);
    for (uint32_t i = 0; i < c->part_count; i++) {
        const struct part *part = &c->parts[i];
        rows[i] = (struct rt_record_row){.slot = rt_slot_index(rt, part->slot),
                                         .accept = 1,
                                         .tokens = 1,
                                         .new_block = -1,
                                         .new_page = -1};
        tokens[(size_t)i * query_len] = part->tokens[part->count - 1];
        counts[i] = (int32_t)part->count;
        memcpy(to, part->tokens, part->count * sizeof(*to));
        to += part->count;
        part->slot->length += part->count;
    }
}

static void unwrite_parts(struct rt_runtime *rt, const struct chunk *c, const uint32_t *held)
{
    for (uint32_t i = c->part_count; i-- > 0;) {
        struct rt_slot *slot = c->parts[i].slot;
        slot->length -= c->parts[i].count;
        for (uint32_t page = rt_slot_rest(rt, slot)->page_count; page-- > held[i];)
            rt_pages_drop(&rt->pages, rt_slot_line(rt, slot)[page]);
        rt_slot_set_page_count(rt, slot, held[i]);
    }
}

static void note_flight(struct rt_runtime *rt, const struct chunk *c, uint32_t query_len,
                        bool device_decides)
{
    const uint64_t step = rt_ring_advance(&rt->ring);
    rt->flights[step % rt->ring.depth] = (struct rt_flight){
        .step = step,
        .ticket_first = step,
        .call_first = c->call_first,
        .rows = c->part_count + c->rows,
        .query_len = query_len,
        .prompts = c->part_count,
        .device_decides = device_decides,
        .ends_call = !c->goes_on,
    };
    rt->stats.replays++;
}

/* All is checked, and there is a record. On failure everything is as before. */
static enum rt_status replay(struct rt_runtime *rt, const struct chunk *c, struct rt_captured *g)
{
    const struct rt_graph_spec *spec = &g->program.spec;
    const uint32_t bytes = rt->ops_bytes, count = rt->ops_count;
    uint32_t held[RT_MAX_PREFILL_ROWS];
    struct rt_record *record = rt_ring_record(&rt->ring);
    struct rt_record_row *rows = rt_ring_rows(&rt->ring, record);
    int32_t *tokens = rt_ring_tokens(&rt->ring, record);
    const uint32_t live = c->part_count + c->rows, query_len = rt_spec_query_len(spec);
    *record = (struct rt_record){.step = rt->ring.next_step,
                                 .live_rows = live,
                                 .query_len = query_len,
                                 .bucket = spec->rows,
                                 .prompts = c->part_count};
    for (uint32_t i = 0; i < c->part_count; i++)
        held[i] = rt_slot_rest(rt, c->parts[i].slot)->page_count;
    write_parts(rt, c, spec, rows, tokens);
    for (uint32_t i = 0; i < c->part_count; i++)
        grow(rt, &c->parts[i]);
    rt_take_ops(rt, record);
    bool device_decides = false;
    if (c->decoding) {
        const struct rt_step_params *p = c->decoding;
        const struct rt_step_rows of = rt_step_rows_of(p, 0, c->rows, query_len);
        device_decides = rt_step_write_rows(rt, &of, rows + c->part_count);
        rt_step_write_tokens(p, 0, c->rows, query_len, tokens + (size_t)c->part_count * query_len);
    }
    const enum rt_status status = rt_step_launch(rt, g, c->flags & RT_STEP_EAGER);
    if (status != RT_OK) {
        rt_step_unwrite_rows(rt, rows + c->part_count, c->rows);
        unwrite_parts(rt, c, held);
        record->step = 0; /* no replay may take it for the next step's */
        rt->ops_bytes = bytes;
        rt->ops_count = count;
        return status;
    }
    note_flight(rt, c, query_len, device_decides);
    g->replays++;
    g->live_rows += live;
    g->padded_rows += spec->rows - live;
    return RT_OK;
}

/* ---- rt_step with prompts -------------------------------------------------------------------- */

static enum rt_status check_mixed(struct rt_runtime *rt, const struct rt_step_params *p)
{
    uint64_t new_pages = 0;
    RT_REQUIRE(p->rows <= rt->blueprint.config.max_sequences, &rt->error, RT_ERR_ROWS,
               "%u rows; this runtime has 1..%u sequences", p->rows,
               rt->blueprint.config.max_sequences);
    RT_REQUIRE(!p->rows || p->seqs, &rt->error, RT_ERR_INVALID, "rt_step: params->seqs is null");
    RT_TRY(rt_step_check_flags(rt, "rt_step", p->flags));
    RT_TRY(rt_step_check_room(rt));
    rt->attempts++;
    RT_TRY(check_prompts(rt, p->prompts, p->prompt_count, p, &new_pages));
    RT_TRY(rt_step_check_rows(rt, p, query_len_of(p), &new_pages));
    return rt_step_check_pages(rt, "the step", new_pages);
}

static uint32_t most_beside(const struct rt_runtime *rt)
{
    const struct rt_dims *dims = &rt->blueprint.placement.dims;
    return dims->chunk_rows - dims->prefill_rows;
}

/*
 * The graph for all of it. Or, where more rows decode than any has beside its chunk, for as many as
 * the largest has: what is left follows in steps' graphs. Not where attention is alone: there the
 * rows' q and latent would have to be where the chunk's tokens have theirs, which a caller that
 * writes them in front of the call cannot do.
 */
static uint32_t find_mixed(const struct rt_runtime *rt, struct chunk *c)
{
    const struct rt_blueprint *b = &rt->blueprint;
    const struct rt_step_params *p = c->decoding;
    const uint32_t query_len = query_len_of(p), most = most_beside(rt);
    const bool goes_on =
        p->rows > most && b->config.layer && rt_spec_captured(&rt->spec_index, query_len);
    c->rows = goes_on ? most : p->rows;
    c->goes_on = goes_on;
    const struct rt_chunk_load load = {.tokens = c->tokens,
                                       .decode_rows = c->rows,
                                       .query_len = query_len,
                                       .pieces = pieces_of(rt, c->context)};
    return rt_spec_find_chunk(b->specs, b->spec_count, &load);
}

/* Too many tokens or rows; or no more than a graph has room for, but too much in front of them. */
static enum rt_status refuse_mixed(struct rt_runtime *rt, const struct chunk *c, uint64_t tokens)
{
    const struct rt_step_params *p = c->decoding;
    const struct rt_blueprint *b = &rt->blueprint;
    const struct rt_dims *dims = &b->placement.dims;
    const struct rt_chunk_load load = {
        .tokens = c->tokens, .decode_rows = c->rows, .query_len = query_len_of(p)};
    if (rt_spec_find_chunk(b->specs, b->spec_count, &load) < b->spec_count)
        return rt_fail(&rt->error, RT_ERR_ROWS,
                       "%u prompts have %" PRIu64
                       " cached tokens together: a chunk expands at most "
                       "%" PRIu64 ", which one sequence can have",
                       p->prompt_count, c->context,
                       (uint64_t)pieces_of(rt, b->config.max_length) * dims->context_piece);
    return rt_fail(&rt->error, RT_ERR_ROWS,
                   "no graph holds %" PRIu64 " tokens of prompts and %u rows that decode: "
                   "prefill.chunks go up to %u, prefill.mixed_rows to %u",
                   tokens, p->rows, dims->chunk, most_beside(rt));
}

static enum rt_status fill_mixed(struct rt_runtime *rt, struct chunk *c, uint32_t *spec)
{
    const struct rt_step_params *p = c->decoding;
    const uint32_t most = rt->blueprint.placement.dims.prefill_rows;
    uint64_t tokens = 0;
    RT_REQUIRE(p->prompt_count <= most, &rt->error, RT_ERR_ROWS,
               "%u prompts in one step: prefill.rows is %u", p->prompt_count, most);
    for (uint32_t i = 0; i < p->prompt_count; i++) {
        struct rt_slot *slot = rt_slot_find(rt, p->prompts[i].seq);
        c->parts[c->part_count++] = (struct part){slot, p->prompts[i].tokens, p->prompts[i].count};
        tokens += p->prompts[i].count;
        c->context += slot->length;
    }
    c->tokens = (uint32_t)rt_min_u64(tokens, UINT32_MAX);
    *spec = find_mixed(rt, c);
    return *spec < rt->blueprint.spec_count ? RT_OK : refuse_mixed(rt, c, tokens);
}

/* A record for the chunk and for each replay behind it. */
static enum rt_status check_records(struct rt_runtime *rt, const struct chunk *c)
{
    if (!c->goes_on)
        return rt_step_check_room(rt);
    const uint32_t rows = c->decoding->rows, depth = rt->ring.depth;
    const uint32_t query_len = query_len_of(c->decoding);
    const uint32_t records = 1 + rt_spec_replays(&rt->spec_index, query_len, rows - c->rows);
    const uint32_t room = rt_ring_room(&rt->ring, rt->harvested);
    RT_REQUIRE(records <= depth, &rt->error, RT_ERR_ROWS,
               "%u rows beside prompts need %u replays, %u rows in the first and at most %u in "
               "each other; the ring has %u records",
               rows, records, c->rows, rt->spec_index.largest[query_len], depth);
    if (records <= room)
        return RT_OK;
    rt->stats.busy++;
    return rt_fail(&rt->error, RT_ERR_BUSY,
                   "%u records needed, %u of %u free: wait for an older step", records, room,
                   depth);
}

enum rt_status rt_step_mixed(struct rt_runtime *rt, const struct rt_step_params *params,
                             uint64_t *ticket)
{
    const uint64_t begin = rt_step_now_ns();
    struct chunk c = {.decoding = params, .flags = params->flags};
    uint32_t spec = 0;
    rt_harvest(rt);
    RT_TRY(check_mixed(rt, params));
    RT_TRY(fill_mixed(rt, &c, &spec));
    RT_TRY(check_records(rt, &c));
    RT_TRY(rt_reserve_ops(rt, ops_bytes_of(rt, &c)));
    RT_TRY(check_records(rt, &c)); /* where those before had to go first */
    c.call_first = rt->ring.next_step;
    RT_TRY(replay(rt, &c, &rt->captured[spec]));
    const enum rt_status status =
        rt_step_replay_rest(rt, params, c.rows, query_len_of(params), c.call_first);
    if (ticket)
        *ticket = rt->ring.next_step - 1;
    RT_TRY(status);
    rt->stats.steps++;
    rt->stats.eager_steps += params->flags & RT_STEP_EAGER ? 1 : 0;
    rt->stats.host_ns_last = rt_step_now_ns() - begin;
    rt->stats.host_ns_total += rt->stats.host_ns_last;
    return RT_OK;
}

/* ---- rt_prefill ------------------------------------------------------------------------------ */

/* What is left of the prompts: from token `done` of prompt `at` on. */
struct rest {
    const struct rt_prefill_params *params;
    uint32_t at, done;
};

static uint64_t tokens_left(const struct rest *rest)
{
    uint64_t left = 0;
    for (uint32_t i = rest->at; i < rest->params->prompt_count; i++)
        left += rest->params->prompts[i].count;
    return left - rest->done;
}

/* The graph of as many tokens as are left, or the largest. */
static uint32_t room_for(const struct rt_runtime *rt, uint64_t left)
{
    const struct rt_config *c = &rt->blueprint.config;
    for (uint32_t i = 0; i < c->chunk_count; i++)
        if (c->chunks[i] >= left)
            return c->chunks[i];
    return c->chunks[c->chunk_count - 1];
}

/* The next chunk, as full as its room, its rows and their context allow; what it takes is gone from
 * the rest. */
static void take_chunk(const struct rt_runtime *rt, struct rest *rest, struct chunk *c)
{
    const uint32_t room = room_for(rt, tokens_left(rest));
    const struct rt_dims *dims = &rt->blueprint.placement.dims;
    while (rest->at < rest->params->prompt_count && c->part_count < dims->prefill_rows &&
           c->tokens < room) {
        const struct rt_prompt *prompt = &rest->params->prompts[rest->at];
        struct rt_slot *slot = rt_slot_find(rt, prompt->seq);
        const uint32_t count = rt_min_u32(prompt->count - rest->done, room - c->tokens);
        const uint64_t context = c->context + slot->length;
        if (c->part_count > 0 && find_spec(rt, room, context) == rt->blueprint.spec_count)
            break;
        c->parts[c->part_count++] = (struct part){slot, prompt->tokens + rest->done, count};
        c->tokens += count;
        c->context = context;
        rest->done += count;
        if (rest->done == prompt->count) {
            rest->at++;
            rest->done = 0;
        }
    }
}

/* A record, waited for if need be: the oldest step's. */
static enum rt_status await_room(struct rt_runtime *rt)
{
    rt_harvest(rt);
    while (rt_ring_room(&rt->ring, rt->harvested) == 0)
        RT_TRY(rt_wait_step(rt, rt->harvested + 1));
    return RT_OK;
}

static enum rt_status launch_chunk(struct rt_runtime *rt, struct chunk *c)
{
    const uint32_t spec = find_spec(rt, c->tokens, c->context);
    RT_REQUIRE(spec < rt->blueprint.spec_count, &rt->error, RT_ERR_INTERNAL,
               "no graph for a chunk of %u tokens behind %" PRIu64, c->tokens, c->context);
    RT_TRY(await_room(rt));
    RT_TRY(rt_reserve_ops(rt, ops_bytes_of(rt, c)));
    RT_TRY(await_room(rt));
    return replay(rt, c, &rt->captured[spec]);
}

/* Prompts that end in the chunk just launched. */
static void tell_results(const struct rt_runtime *rt, const struct rt_prefill_params *p,
                         uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        if (p->tickets)
            p->tickets[i] = rt->ring.next_step - 1;
        if (p->rows)
            p->rows[i] = i - first;
    }
}

static enum rt_status check_prefill(struct rt_runtime *rt, const struct rt_prefill_params *p)
{
    uint64_t new_pages = 0;
    RT_REQUIRE(p->prompt_count >= 1, &rt->error, RT_ERR_INVALID, "rt_prefill: 0 prompts");
    RT_REQUIRE(p->reserved == 0, &rt->error, RT_ERR_INVALID, "rt_prefill: reserved is %u, not 0",
               p->reserved);
    RT_TRY(rt_step_check_flags(rt, "rt_prefill", p->flags));
    rt->attempts++;
    RT_TRY(check_prompts(rt, p->prompts, p->prompt_count, NULL, &new_pages));
    return rt_step_check_pages(rt, "the prefill", new_pages);
}

enum rt_status rt_prefill(rt_runtime *rt, const struct rt_prefill_params *params, uint64_t *ticket)
{
    RT_ENTER(rt);
    struct rt_prefill_params mine;
    RT_TAKE_STRUCT(params, mine, &rt->error);
    const uint64_t begin = rt_step_now_ns();
    rt_harvest(rt);
    RT_TRY(check_prefill(rt, params));
    const uint64_t call_first = rt->ring.next_step;
    struct rest rest = {.params = params};
    while (rest.at < params->prompt_count) {
        const uint32_t first = rest.at;
        struct chunk c = {.flags = params->flags, .call_first = call_first};
        take_chunk(rt, &rest, &c);
        RT_TRY(launch_chunk(rt, &c));
        tell_results(rt, params, first, rest.at);
        if (ticket)
            *ticket = rt->ring.next_step - 1;
        rt->stats.steps++;
        rt->stats.eager_steps += params->flags & RT_STEP_EAGER ? 1 : 0;
    }
    rt->stats.host_ns_last = rt_step_now_ns() - begin;
    rt->stats.host_ns_total += rt->stats.host_ns_last;
    return RT_OK;
}
