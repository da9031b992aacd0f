/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hot path: check every row, write one record, launch one graph. Nothing here allocates, locks,
 * waits or asks the device.
 */
#include "common/math.h"
#include "runtime/ranks_impl.h"
#include "runtime/step_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

uint64_t rt_step_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static enum rt_status refuse_query_len(struct rt_runtime *rt, uint32_t query_len) RT_COLD;

static enum rt_status refuse_query_len(struct rt_runtime *rt, uint32_t query_len)
{
    const struct rt_config *c = &rt->blueprint.config;
    char list[64];
    size_t used = 0;
    for (uint32_t i = 0; i < c->query_len_count; i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, " %u", c->query_lens[i]);
    return rt_fail(&rt->error, RT_ERR_QUERY_LEN, "query length %u was not captured; captured:%s",
                   query_len, list);
}

static inline bool names_token(const struct rt_step_params *p, uint32_t row, uint32_t query_len)
{
    return p->tokens && p->tokens[(size_t)row * query_len] >= 0;
}

/* Of the row's columns those that it has. */
static inline uint32_t row_tokens(const struct rt_step_params *p, uint32_t row, uint32_t query_len)
{
    return RT_UNLIKELY(p->query_lens != NULL) ? p->query_lens[row] : query_len;
}

/* Why a row may not run. The checks of row_may_run, one by one. */
static enum rt_status refuse_row(struct rt_runtime *rt, const struct rt_step_params *p,
                                 uint32_t row, uint32_t query_len) RT_COLD;

static enum rt_status refuse_row(struct rt_runtime *rt, const struct rt_step_params *p,
                                 uint32_t row, uint32_t query_len)
{
    const struct rt_config *c = &rt->blueprint.config;
    const uint32_t count = row_tokens(p, row, query_len);
    struct rt_error *err = &rt->error;
    struct rt_slot *slot;
    RT_REQUIRE(count >= 1 && count <= query_len, err, RT_ERR_QUERY_LEN,
               "row %u: %u tokens in a step of 1..%u a row", row, count, query_len);
    RT_TRY(rt_slot_of(rt, p->seqs[row], &slot));
    RT_REQUIRE(slot->named_in != rt->attempts, err, RT_ERR_DUPLICATE,
               "row %u names sequence 0x%" PRIx64 " a second time in this step", row, p->seqs[row]);
    uint32_t longest = slot->length, decided = longest - slot->undecided;
    RT_REQUIRE(decided + count <= c->max_length, err, RT_ERR_LENGTH,
               "row %u: %u tokens and %u new ones exceed max_length %u", row, decided, count,
               c->max_length);
    RT_REQUIRE(longest != slot->nameless || names_token(p, row, query_len), err, RT_ERR_INVALID,
               "row %u: sequence 0x%" PRIx64 " was opened or rewound at %u tokens without a last "
               "one; the step must name its token",
               row, p->seqs[row], longest);
    if (longest + count > c->max_length) {
        rt->stats.busy++;
        return rt_fail(err, RT_ERR_BUSY,
                       "row %u: up to %u tokens and %u new ones may exceed max_length %u; wait for "
                       "the steps that decide its length",
                       row, longest, count, c->max_length);
    }
    return rt_fail(err, RT_ERR_PAGES, "row %u: %u tokens need %u pages, %u are bound", row,
                   longest + count, rt_ceil_div_u32(longest + count, rt_page_tokens(rt)),
                   rt_slot_rest(rt, slot)->page_count);
}

/* The sequence is open, named once, short enough, goes on from a token, and has its pages or gets
 * one more. */
static inline bool row_may_run(struct rt_runtime *rt, const struct rt_step_params *p, uint32_t row,
                               uint32_t query_len, uint64_t *new_pages)
{
    struct rt_slot *slot = rt_slot_find(rt, p->seqs[row]);
    const uint32_t count = row_tokens(p, row, query_len);
    if (RT_UNLIKELY(!slot || slot->named_in == rt->attempts || count - 1 >= query_len))
        return false;
    if (RT_UNLIKELY(slot->length == slot->nameless && !names_token(p, row, query_len)))
        return false;
    uint32_t reach = slot->length + count;
    if (RT_UNLIKELY(reach > slot->capacity)) {
        if (reach > rt->blueprint.config.max_length || !rt_slot_rest(rt, slot)->builtin_pages)
            return false;
        ++*new_pages;
    }
    slot->named_in = rt->attempts;
    return true;
}

static enum rt_status refuse_token(struct rt_runtime *rt, const int32_t *tokens,
                                   uint32_t query_len) RT_COLD;

static enum rt_status refuse_token(struct rt_runtime *rt, const int32_t *tokens, uint32_t query_len)
{
    size_t i = 0;
    while (tokens[i] >= -1)
        i++;
    return rt_fail(&rt->error, RT_ERR_INVALID, "row %zu: token %zu is %d, neither a token nor -1",
                   i / query_len, i % query_len, tokens[i]);
}

/* All of them, in a loop that has no way out and so runs several at a time. */
static enum rt_status check_tokens(struct rt_runtime *rt, const struct rt_step_params *p,
                                   uint32_t query_len)
{
    size_t count = p->tokens ? (size_t)p->rows * query_len : 0;
    int32_t least = 0;
    for (size_t i = 0; i < count; i++)
        least = p->tokens[i] < least ? p->tokens[i] : least;
    return RT_LIKELY(least >= -1) ? RT_OK : refuse_token(rt, p->tokens, query_len);
}

enum rt_status rt_step_check_rows(struct rt_runtime *rt, const struct rt_step_params *p,
                                  uint32_t query_len, uint64_t *new_pages)
{
    for (uint32_t row = 0; row < p->rows; row++)
        if (RT_UNLIKELY(!row_may_run(rt, p, row, query_len, new_pages)))
            return refuse_row(rt, p, row, query_len);
    for (uint32_t row = 0; p->accept && row < p->rows; row++)
        RT_REQUIRE(p->accept[row] >= RT_ACCEPT_DEVICE &&
                       p->accept[row] <= (int32_t)row_tokens(p, row, query_len),
                   &rt->error, RT_ERR_INVALID, "row %u: accept %d is not -1, 0 or 1..%u", row,
                   p->accept[row], row_tokens(p, row, query_len));
    return check_tokens(rt, p, query_len);
}

enum rt_status rt_step_check_pages(struct rt_runtime *rt, const char *whose, uint64_t new_pages)
{
    RT_REQUIRE(new_pages <= rt->pages.free_count, &rt->error, RT_ERR_PAGES,
               "%s needs %" PRIu64 " new pages, %u of %u are free", whose, new_pages,
               rt->pages.free_count, rt->pages.count);
    return RT_OK;
}

enum rt_status rt_step_check_room(struct rt_runtime *rt)
{
    if (RT_LIKELY(rt_ring_room(&rt->ring, rt->harvested) > 0))
        return RT_OK;
    rt->stats.busy++;
    return rt_fail(&rt->error, RT_ERR_BUSY, "1 record needed, 0 of %u free: wait for an older step",
                   rt->ring.depth);
}

/* What does not depend on the rows. */
enum rt_status rt_step_check_flags(struct rt_runtime *rt, const char *function, uint32_t flags)
{
    const uint32_t known = RT_STEP_EAGER | RT_STEP_ANY_LENGTH | RT_STEP_MOST_BLOCKS;
    RT_REQUIRE(!(flags & ~known), &rt->error, RT_ERR_INVALID, "%s: unknown flags 0x%x", function,
               flags & ~known);
    RT_REQUIRE(!rt->held || !(flags & RT_STEP_EAGER), &rt->error, RT_ERR_UNSUPPORTED,
               "%s: an eager step's stages run at once and cannot be held, see rt_host_hold",
               function);
    return RT_OK;
}

static enum rt_status check_step(struct rt_runtime *rt, const struct rt_step_params *p,
                                 uint32_t query_len)
{
    const struct rt_config *c = &rt->blueprint.config;
    RT_REQUIRE(p->rows >= 1 && p->rows <= c->max_sequences, &rt->error, RT_ERR_ROWS,
               "%u rows; this runtime has 1..%u sequences", p->rows, c->max_sequences);
    RT_REQUIRE(p->seqs, &rt->error, RT_ERR_INVALID, "rt_step: params->seqs is null");
    RT_TRY(rt_step_check_flags(rt, "rt_step", p->flags));
    uint32_t replays = rt_spec_replays(&rt->spec_index, query_len, p->rows);
    /* Room is counted from what has been harvested: an unread completion is not written over. */
    uint32_t room = rt_ring_room(&rt->ring, rt->harvested);
    if (RT_UNLIKELY(replays > room)) {
        RT_REQUIRE(replays <= c->ring_depth, &rt->error, RT_ERR_ROWS,
                   "%u rows need %u replays of at most %u rows; the ring has %u records", p->rows,
                   replays, rt->spec_index.largest[query_len], c->ring_depth);
        rt->stats.busy++;
        return rt_fail(&rt->error, RT_ERR_BUSY,
                       "%u records needed, %u of %u free: wait for an older step", replays, room,
                       c->ring_depth);
    }
    uint64_t new_pages = 0;
    rt->attempts++;
    RT_TRY(rt_step_check_rows(rt, p, query_len, &new_pages));
    return rt_step_check_pages(rt, "the step", new_pages);
}

/* A graph of just that batch size, and a record for it. */
static enum rt_status check_idle(struct rt_runtime *rt, const struct rt_step_params *p,
                                 uint32_t query_len)
{
    const struct rt_spec_index *index = &rt->spec_index;
    uint32_t spec = 0;
    RT_TRY(rt_step_check_flags(rt, "rt_step", p->flags));
    const bool fits = p->idle_batch <= index->largest[query_len];
    if (fits)
        (void)rt_spec_take(index, query_len, p->idle_batch, &spec);
    RT_REQUIRE(fits && rt->captured[spec].program.spec.rows == p->idle_batch, &rt->error,
               RT_ERR_ROWS, "rt_step: idle_batch %u is no captured batch size; the largest is %u",
               p->idle_batch, index->largest[query_len]);
    return rt_step_check_room(rt);
}

/* A page for the row that has outgrown its pages: about one row in a page's tokens. */
static void grow(struct rt_runtime *rt, struct rt_slot *slot, struct rt_record_row *row)
{
    uint32_t count = rt_slot_rest(rt, slot)->page_count;
    row->new_block = (int32_t)count;
    row->new_page = rt_pages_take(&rt->pages);
    rt_slot_line(rt, slot)[count] = row->new_page;
    rt_slot_set_page_count(rt, slot, count + 1);
}

_Static_assert(offsetof(struct rt_record_row, accept) == 4 &&
                   offsetof(struct rt_record_row, tokens) == 6 &&
                   offsetof(struct rt_record_row, new_block) == 8 &&
                   offsetof(struct rt_record_row, new_page) == 12 &&
                   __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "a row is two words");

/* A row without a new page. The device has read the line of its last life, so that each store into
 * it waits for the line to come back: two stores instead of four let more rows wait at once. */
static inline void put_row(struct rt_record_row *row, uint32_t slot, int32_t accept,
                           uint32_t tokens)
{
    const uint32_t counts = ((uint32_t)accept & 0xffffu) | tokens << 16;
    const uint64_t words[2] = {slot | (uint64_t)counts << 32, UINT64_MAX};
    memcpy(row, words, sizeof(words));
}

static inline bool write_rows(struct rt_runtime *rt, const struct rt_step_rows *r,
                              const int32_t *accept, const uint32_t *query_lens,
                              struct rt_record_row *rows)
{
    struct rt_slot *const slots = rt->slots;
    bool device_decides = false;
    for (uint32_t i = 0; i < r->count; i++) {
        struct rt_slot *const slot = &slots[(uint32_t)r->seqs[i]];
        const int32_t stay = accept ? accept[i] : RT_ACCEPT_ALL;
        const uint32_t tokens = query_lens ? query_lens[i] : r->query_len;
        put_row(&rows[i], (uint32_t)r->seqs[i], stay == RT_ACCEPT_ALL ? (int32_t)tokens : stay,
                tokens);
        slot->length += tokens;
        if (RT_UNLIKELY(slot->length > slot->capacity))
            grow(rt, slot, &rows[i]);
        if (RT_LIKELY(stay == RT_ACCEPT_ALL))
            continue;
        if (stay == RT_ACCEPT_DEVICE) {
            slot->undecided += tokens;
            device_decides = true;
        } else {
            slot->length -= tokens - (uint32_t)stay;
        }
    }
    return device_decides;
}

struct rt_step_rows rt_step_rows_of(const struct rt_step_params *p, uint32_t first, uint32_t count,
                                    uint32_t query_len)
{
    return (struct rt_step_rows){.seqs = count ? p->seqs + first : NULL,
                                 .accept = p->accept ? p->accept + first : NULL,
                                 .query_lens = p->query_lens ? p->query_lens + first : NULL,
                                 .count = count,
                                 .query_len = query_len};
}

/* A loop each: most steps name no counts, and then nothing asks for them. */
bool rt_step_write_rows(struct rt_runtime *rt, const struct rt_step_rows *r,
                        struct rt_record_row *rows)
{
    return r->accept || r->query_lens ? write_rows(rt, r, r->accept, r->query_lens, rows)
                                      : write_rows(rt, r, NULL, NULL, rows);
}

void rt_step_unwrite_rows(struct rt_runtime *rt, const struct rt_record_row *rows, uint32_t count)
{
    while (count--) {
        const struct rt_record_row *row = &rows[count];
        struct rt_slot *slot = &rt->slots[row->slot];
        const bool by_device = row->accept == RT_ACCEPT_BY_DEVICE;
        slot->length -= by_device ? row->tokens : (uint32_t)row->accept;
        slot->undecided -= by_device ? row->tokens : 0;
        if (row->new_page >= 0) {
            rt_slot_set_page_count(rt, slot, rt_slot_rest(rt, slot)->page_count - 1);
            rt_pages_drop(&rt->pages, row->new_page);
        }
    }
}

void rt_step_write_tokens(const struct rt_step_params *p, uint32_t first, uint32_t rows,
                          uint32_t query_len, int32_t *out)
{
    size_t count = (size_t)rows * query_len;
    if (p->tokens)
        memcpy(out, p->tokens + (size_t)first * query_len, count * sizeof(*out));
    else
        memset(out, 0xff, count * sizeof(*out)); /* -1: the slot's last token */
}

/* Blank, as every step wants them. */
static enum rt_status blank_exchanges(struct rt_runtime *rt, struct rt_captured *g,
                                      struct rt_error *err) RT_COLD;

static enum rt_status blank_exchanges(struct rt_runtime *rt, struct rt_captured *g,
                                      struct rt_error *err)
{
    struct rt_driver *d = &rt->driver;
    RT_TRY(RT_DRV(d, err, ctx_enter, (d)));
    const enum rt_status status =
        RT_DRV(d, err, fill, (d, g->exchange, 0xff, g->exchange_bytes, rt->stream));
    (void)d->ctx_leave(d);
    g->is_half_written = status != RT_OK;
    return status;
}

static enum rt_status launch(struct rt_runtime *rt, const struct rt_captured *g, bool eager)
{
    struct rt_driver *d = &rt->driver;
    if (RT_LIKELY(!eager))
        return rt_stage_outcome(
            rt, RT_DRV(d, &rt->error, graph_launch, (d, g->graph.exec, rt->stream)));
    RT_TRY(RT_DRV(d, &rt->error, ctx_enter, (d)));
    enum rt_status status = rt_program_run(&g->program, d, rt->stream, &rt->error);
    /* Stages before the one that failed may still read the record, which is about to be taken back.
     */
    if (status != RT_OK)
        (void)d->stream_sync(d, rt->stream);
    (void)d->ctx_leave(d);
    return status;
}

/* A step that has failed between two layers leaves words behind that the next one would take for
 * its own. Where they cannot be blanked at once the next step does it, or fails. */
static enum rt_status launch_whole(struct rt_runtime *rt, struct rt_captured *g, bool eager)
{
    struct rt_error story = {.status = RT_OK};
    if (RT_UNLIKELY(g->is_half_written))
        RT_TRY(blank_exchanges(rt, g, &rt->error));
    const enum rt_status status = launch(rt, g, eager);
    if (RT_UNLIKELY(status != RT_OK)) {
        g->is_half_written = true;
        (void)blank_exchanges(rt, g, &story);
    }
    return status;
}

static enum rt_status launch_any(struct rt_runtime *rt, struct rt_captured *g, bool eager)
{
    return RT_UNLIKELY(g->exchange_bytes > 0) ? launch_whole(rt, g, eager) : launch(rt, g, eager);
}

enum rt_status rt_step_launch(struct rt_runtime *rt, struct rt_captured *g, bool eager)
{
    if (RT_LIKELY(!rt->ranks))
        return launch_any(rt, g, eager);
    RT_TRY(rt_ranks_post(rt, g));
    return rt_ranks_outcome(rt, launch_any(rt, g, eager));
}

/*
 * Blocks of keys that the rows have; looks at no more rows once they are more than so many. Lengths
 * are those of a run in which the device takes no token back: when the host learns of one is a
 * matter of time, and the choice, with the last bits of what attention gives, is to be the same in
 * every run.
 */
static uint32_t blocks_up_to(const struct rt_runtime *rt, const struct rt_step_rows *r,
                             uint32_t most)
{
    uint32_t blocks = 0;
    for (uint32_t i = 0; i < r->count && blocks <= most; i++) {
        const uint32_t at = (uint32_t)r->seqs[i];
        blocks += rt_blocks_of(rt->slots[at].length + rt->slot_rests[at].taken_back + r->query_len);
    }
    return blocks;
}

/* Of the graphs of a size, which this is the one for any lengths of, that with the least bound that
 * the rows are within. */
static struct rt_captured *choose_by_blocks(const struct rt_runtime *rt,
                                            const struct rt_step_rows *r, uint32_t flags,
                                            struct rt_captured *g)
{
    if (!g->small || flags & RT_STEP_ANY_LENGTH)
        return g;
    const uint32_t blocks = blocks_up_to(rt, r, g->small->program.spec.most_blocks);
    while (g->small && blocks <= g->small->program.spec.most_blocks) {
        g = g->small;
        if (flags & RT_STEP_MOST_BLOCKS)
            break;
    }
    return g;
}

/* Rows [first, first + live) in one record and one launch; `before` rows of prompts are in front of
 * them in the call. */
static enum rt_status replay(struct rt_runtime *rt, const struct rt_step_params *p, uint32_t before,
                             uint32_t first, uint32_t live, uint32_t query_len,
                             struct rt_captured *g, uint64_t ticket_first)
{
    struct rt_record *record = rt_ring_record(&rt->ring);
    struct rt_record_row *rows = rt_ring_rows(&rt->ring, record);
    const struct rt_step_rows of = rt_step_rows_of(p, first, live, query_len);
    g = choose_by_blocks(rt, &of, p->flags, g);
    *record = (struct rt_record){
        .step = rt->ring.next_step,
        .live_rows = live,
        .row_base = before + first,
        .query_len = query_len,
        .bucket = g->program.spec.rows,
    };
    uint32_t taken_bytes = rt->ops_bytes, taken_count = rt->ops_count;
    rt_take_ops(rt, record);
    const bool device_decides = rt_step_write_rows(rt, &of, rows);
    rt_step_write_tokens(p, first, live, query_len, rt_ring_tokens(&rt->ring, record));

    enum rt_status status = rt_step_launch(rt, g, p->flags & RT_STEP_EAGER);
    if (RT_UNLIKELY(status != RT_OK)) {
        rt_step_unwrite_rows(rt, rows, live);
        record->step = 0; /* no replay may take it for the next step's */
        rt->ops_bytes = taken_bytes;
        rt->ops_count = taken_count;
        return status;
    }
    uint64_t step = rt_ring_advance(&rt->ring);
    rt->flights[step % rt->ring.depth] = (struct rt_flight){
        .step = step,
        .ticket_first = ticket_first,
        .call_first = ticket_first,
        .rows = live,
        .query_len = query_len,
        .device_decides = device_decides,
        .ends_call = first + live == p->rows,
    };
    g->replays++;
    g->live_rows += live;
    g->padded_rows += g->program.spec.rows - live;
    rt->stats.replays++;
    return RT_OK;
}

enum rt_status rt_step_replay_rest(struct rt_runtime *rt, const struct rt_step_params *p,
                                   uint32_t first, uint32_t query_len, uint64_t first_step)
{
    while (first < p->rows) {
        uint32_t spec;
        const uint32_t live = rt_spec_take(&rt->spec_index, query_len, p->rows - first, &spec);
        RT_TRY(replay(rt, p, p->prompt_count, first, live, query_len, &rt->captured[spec],
                      first_step));
        first += live;
    }
    return RT_OK;
}

enum rt_status rt_step(rt_runtime *rt, const struct rt_step_params *params, uint64_t *ticket)
{
    RT_ENTER(rt);
    struct rt_step_params mine;
    RT_TAKE_STRUCT(params, mine, &rt->error);
    RT_REQUIRE(!params->idle_batch || (params->rows == 0 && params->prompt_count == 0), &rt->error,
               RT_ERR_INVALID, "rt_step: idle_batch %u beside %u rows and %u prompts",
               params->idle_batch, params->rows, params->prompt_count);
    uint64_t begin = rt_step_now_ns();
    uint32_t query_len = params->query_len ? params->query_len : 1;
    /* Beside a chunk rows of one token need no graph of that length. */
    if (RT_UNLIKELY(!rt_spec_captured(&rt->spec_index, query_len) &&
                    (query_len > 1 || params->prompt_count == 0)))
        return refuse_query_len(rt, query_len);
    if (RT_UNLIKELY(params->prompt_count > 0))
        return rt_step_mixed(rt, params, ticket);
    /* They come while the rows are checked. */
    rt_ring_warm(&rt->ring, params->rows, (uint64_t)params->rows * query_len);
    rt_harvest(rt);
    const bool is_idle = params->rows == 0 && params->idle_batch > 0;
    RT_TRY(is_idle ? check_idle(rt, params, query_len) : check_step(rt, params, query_len));

    uint64_t first_step = rt->ring.next_step;
    enum rt_status status = RT_OK;
    uint32_t row = 0;
    do {
        uint32_t spec;
        uint32_t live = is_idle ? 0 : params->rows - row;
        live = rt_spec_take(&rt->spec_index, query_len, is_idle ? params->idle_batch : live, &spec);
        live = is_idle ? 0 : live;
        status = replay(rt, params, 0, row, live, query_len, &rt->captured[spec], first_step);
        row += live;
    } while (row < params->rows && status == RT_OK);
    if (ticket && rt->ring.next_step > first_step)
        *ticket = rt->ring.next_step - 1;
    RT_TRY(status);
    rt->stats.steps++;
    rt->stats.eager_steps += params->flags & RT_STEP_EAGER ? 1 : 0;
    rt->stats.host_ns_last = rt_step_now_ns() - begin;
    rt->stats.host_ns_total += rt->stats.host_ns_last;
    return RT_OK;
}
