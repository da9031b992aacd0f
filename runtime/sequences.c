/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences: slots, their pages and the ops that tell the device. The host's view changes only once
 * nothing can fail any more.
 */
#include "runtime/slots.h"

#include "common/math.h"

#include <inttypes.h>
#include <string.h>

enum rt_status rt_slot_of(struct rt_runtime *rt, rt_seq seq, struct rt_slot **out)
{
    *out = rt_slot_find(rt, seq);
    RT_REQUIRE(*out, &rt->error, RT_ERR_SEQUENCE, "0x%" PRIx64 " is not an open sequence", seq);
    return RT_OK;
}

/* ---- pending ops -------------------------------------------------------------------------------
 */

uint32_t rt_set_pages_bytes(uint32_t count)
{
    return (uint32_t)(sizeof(struct rt_record_op) +
                      rt_align_up_u64((uint64_t)count * sizeof(int32_t), 16));
}

void rt_put_op(struct rt_runtime *rt, enum rt_record_op_kind kind, uint32_t slot, int32_t a,
               int32_t b)
{
    struct rt_record_op op = {.kind = kind, .slot = slot, .a = a, .b = b};
    memcpy(rt->ops + rt->ops_bytes, &op, sizeof(op));
    rt->ops_bytes += (uint32_t)sizeof(op);
    rt->ops_count++;
}

void rt_put_set_pages(struct rt_runtime *rt, uint32_t slot, uint32_t first, const int32_t *pages,
                      uint32_t count)
{
    uint32_t bytes = rt_set_pages_bytes(count);
    rt_put_op(rt, RT_OP_SET_PAGES, slot, (int32_t)first, (int32_t)count);
    unsigned char *payload = rt->ops + rt->ops_bytes;
    memset(payload, 0, bytes - sizeof(struct rt_record_op));
    memcpy(payload, pages, (size_t)count * sizeof(*pages));
    rt->ops_bytes += bytes - (uint32_t)sizeof(struct rt_record_op);
}

void rt_take_ops(struct rt_runtime *rt, struct rt_record *record)
{
    record->op_count = rt->ops_count;
    record->op_bytes = rt->ops_bytes;
    memcpy(rt_ring_ops(&rt->ring, record), rt->ops, rt->ops_bytes);
    rt->ops_count = 0;
    rt->ops_bytes = 0;
}

enum rt_status rt_flush_ops(struct rt_runtime *rt)
{
    rt_harvest(rt);
    if (!rt_ring_room(&rt->ring, rt->harvested)) {
        rt->stats.busy++;
        return rt_fail(&rt->error, RT_ERR_BUSY,
                       "all %u records are in flight and the pending changes fill one",
                       rt->ring.depth);
    }
    struct rt_driver *d = &rt->driver;
    struct rt_record *record = rt_ring_record(&rt->ring);
    uint32_t bytes = rt->ops_bytes, count = rt->ops_count;
    *record = (struct rt_record){.step = rt->ring.next_step, .query_len = 1};
    rt_take_ops(rt, record);
    enum rt_status status =
        RT_DRV(d, &rt->error, graph_launch, (d, rt->control.graph.exec, rt->stream));
    if (status != RT_OK) {
        record->step = 0; /* no replay may take it for the next step's */
        rt->ops_bytes = bytes;
        rt->ops_count = count;
        return status;
    }
    uint64_t step = rt_ring_advance(&rt->ring);
    rt->flights[step % rt->ring.depth] =
        (struct rt_flight){.step = step, .ticket_first = step, .call_first = step};
    rt->stats.control_replays++;
    return RT_OK;
}

enum rt_status rt_reserve_ops(struct rt_runtime *rt, uint32_t bytes)
{
    if (rt->ops_bytes + (uint64_t)bytes <= rt->blueprint.placement.record.ops_capacity)
        return RT_OK;
    return rt_flush_ops(rt);
}

enum rt_status rt_flush_or_forget(struct rt_runtime *rt, uint32_t bytes, uint32_t count)
{
    enum rt_status status = rt_flush_ops(rt);
    if (status != RT_OK) {
        rt->ops_bytes = bytes;
        rt->ops_count = count;
    }
    return status;
}

void rt_note_copy(struct rt_runtime *rt, int32_t page)
{
    struct rt_flight *flight = &rt->flights[(rt->ring.next_step - 1) % rt->ring.depth];
    flight->copies = true;
    flight->copied_page = page;
}

void rt_note_left(struct rt_runtime *rt, int32_t page)
{
    if (rt_pages_refs(&rt->pages, page) - rt_pages_pins(&rt->pages, page) > 1)
        rt->shared_left = rt->ring.next_step - 1;
}

/* ---- slots and pages ---------------------------------------------------------------------------
 */

void rt_slot_set_page_count(const struct rt_runtime *rt, struct rt_slot *slot, uint32_t count)
{
    const struct rt_config *c = &rt->blueprint.config;
    rt_slot_rest(rt, slot)->page_count = count;
    slot->capacity = rt_min_u32(count * rt_page_tokens(rt), c->max_length);
}

struct rt_slot *rt_next_slot(const struct rt_runtime *rt)
{
    return rt->free_slot_count ? &rt->slots[rt->free_slots[rt->free_slot_head]] : NULL;
}

void rt_slot_open(struct rt_runtime *rt, struct rt_slot *slot, bool builtin_pages, uint32_t length,
                  bool has_token)
{
    rt->free_slot_head = (rt->free_slot_head + 1) % rt->blueprint.config.max_sequences;
    rt->free_slot_count--;
    struct rt_slot_rest *rest = rt_slot_rest(rt, slot);
    slot->handle = (rt_seq)rest->generation << 32 | rt_slot_index(rt, slot);
    rest->builtin_pages = builtin_pages;
    slot->length = length;
    slot->undecided = 0;
    slot->nameless = has_token || !rt->needs_tokens ? RT_NEVER_NAMELESS : length;
    rest->taken_back = 0;
    rest->opened_step = rt->ring.next_step;
    /* Its pages may be those of a sequence that steps in flight still write. */
    rest->touched_by = rest->page_count ? rt->ring.next_step - 1 : 0;
    rt->stats.open_sequences++;
}

void rt_slot_drop_pages(struct rt_runtime *rt, struct rt_slot *slot)
{
    for (uint32_t i = rt_slot_rest(rt, slot)->page_count; i-- > 0;)
        rt_pages_drop(&rt->pages, rt_slot_line(rt, slot)[i]);
    rt_slot_set_page_count(rt, slot, 0);
}

static void close_slot(struct rt_runtime *rt, struct rt_slot *slot)
{
    struct rt_slot_rest *rest = rt_slot_rest(rt, slot);
    for (uint32_t i = 0; rest->builtin_pages && i < rest->page_count; i++)
        rt_note_left(rt, rt_slot_line(rt, slot)[i]);
    if (rest->builtin_pages)
        rt_slot_drop_pages(rt, slot);
    rt_slot_set_page_count(rt, slot, 0);
    slot->handle = 0;
    /* Generation 0 is never valid, so that the handle 0 is not. */
    rest->generation = rest->generation == UINT32_MAX ? 1 : rest->generation + 1;
    uint32_t size = rt->blueprint.config.max_sequences;
    rt->free_slots[(rt->free_slot_head + rt->free_slot_count) % size] = rt_slot_index(rt, slot);
    rt->free_slot_count++;
    rt->stats.open_sequences--;
}

void rt_slot_take_pages(struct rt_runtime *rt, struct rt_slot *slot, uint32_t count)
{
    uint32_t held = rt_slot_rest(rt, slot)->page_count;
    int32_t *line = rt_slot_line(rt, slot);
    for (uint32_t i = 0; i < count; i++)
        line[held + i] = rt_pages_take(&rt->pages);
    rt_slot_set_page_count(rt, slot, held + count);
}

enum rt_status rt_slot_share_pages(struct rt_runtime *rt, struct rt_slot *slot,
                                   const int32_t *pages, uint32_t count)
{
    int32_t *line = rt_slot_line(rt, slot);
    for (uint32_t i = 0; i < count; i++) {
        /* One page may be several of them, so its limit is known only when its turn comes. */
        if (rt_pages_refs(&rt->pages, pages[i]) == RT_PAGES_MAX_REFS) {
            rt_slot_drop_pages(rt, slot);
            return rt_fail(&rt->error, RT_ERR_PAGES, "page %d is shared %u times already", pages[i],
                           RT_PAGES_MAX_REFS);
        }
        rt_pages_share(&rt->pages, pages[i]);
        line[i] = pages[i];
        rt_slot_set_page_count(rt, slot, i + 1);
    }
    return RT_OK;
}

/* Pending ops of a slot's beginning, for which there is room. */
static void put_beginning(struct rt_runtime *rt, const struct rt_slot *slot, uint32_t length,
                          int32_t last_token)
{
    uint32_t index = rt_slot_index(rt, slot), pages = rt_slot_rest(rt, slot)->page_count;
    rt_put_op(rt, RT_OP_SET_SLOT, index, (int32_t)length, last_token);
    if (pages)
        rt_put_set_pages(rt, index, 0, rt_slot_line(rt, slot), pages);
}

static uint32_t beginning_bytes(const struct rt_runtime *rt, const struct rt_slot *slot)
{
    return (uint32_t)sizeof(struct rt_record_op) +
           rt_set_pages_bytes(rt_slot_rest(rt, slot)->page_count);
}

enum rt_status rt_slot_tell(struct rt_runtime *rt, const struct rt_slot *slot, uint32_t length,
                            int32_t last_token)
{
    RT_TRY(rt_reserve_ops(rt, beginning_bytes(rt, slot)));
    put_beginning(rt, slot, length, last_token);
    return RT_OK;
}

enum rt_status rt_slot_tell_at_once(struct rt_runtime *rt, const struct rt_slot *slot,
                                    uint32_t length, int32_t last_token, int32_t copied)
{
    uint32_t tail = length % rt_page_tokens(rt);
    RT_TRY(rt_reserve_ops(rt, beginning_bytes(rt, slot) + (uint32_t)sizeof(struct rt_record_op)));
    uint32_t bytes = rt->ops_bytes, count = rt->ops_count;
    put_beginning(rt, slot, length, last_token);
    if (tail)
        rt_put_op(rt, RT_OP_COPY_PAGE, rt_own_tokens(rt, tail), copied,
                  rt_slot_line(rt, slot)[rt_slot_rest(rt, slot)->page_count - 1]);
    RT_TRY(rt_flush_or_forget(rt, bytes, count));
    if (tail)
        rt_note_copy(rt, copied);
    return RT_OK;
}

enum rt_status rt_slot_decided(struct rt_runtime *rt, const struct rt_slot *slot, const char *what)
{
    if (!slot->undecided)
        return RT_OK;
    rt->stats.busy++;
    return rt_fail(&rt->error, RT_ERR_BUSY,
                   "%s: steps in flight still decide %u tokens of this sequence; wait for them",
                   what, slot->undecided);
}

static enum rt_status check_params(struct rt_runtime *rt, const struct rt_seq_params *params)
{
    const struct rt_config *c = &rt->blueprint.config;
    RT_REQUIRE(params->pages == RT_PAGES_BUILTIN || params->pages == RT_PAGES_CALLER, &rt->error,
               RT_ERR_INVALID, "rt_seq_open: page owner %d is not one of enum rt_page_owner",
               (int)params->pages);
    RT_REQUIRE(params->length <= c->max_length, &rt->error, RT_ERR_LENGTH,
               "length %u exceeds max_length %u", params->length, c->max_length);
    /* Below -1 the record's op means another slot's token. */
    RT_REQUIRE(params->last_token >= -1, &rt->error, RT_ERR_INVALID,
               "rt_seq_open: last_token %d is neither a token nor -1", params->last_token);
    RT_REQUIRE(!params->reserved, &rt->error, RT_ERR_INVALID, "rt_seq_open: reserved is %u, not 0",
               params->reserved);
    return RT_OK;
}

/* Pages of its own for what its length says, or none but those that the caller binds. */
static enum rt_status open_unshared(struct rt_runtime *rt, struct rt_slot *slot,
                                    const struct rt_seq_params *params)
{
    bool builtin = params->pages == RT_PAGES_BUILTIN;
    uint32_t needed = builtin ? rt_ceil_div_u32(params->length, rt_page_tokens(rt)) : 0;
    RT_REQUIRE(needed <= rt->pages.free_count, &rt->error, RT_ERR_PAGES,
               "length %u needs %u pages, %u of %u are free", params->length, needed,
               rt->pages.free_count, rt->pages.count);
    rt_slot_take_pages(rt, slot, needed);
    enum rt_status status = rt_slot_tell(rt, slot, params->length, params->last_token);
    if (status != RT_OK) {
        rt_slot_drop_pages(rt, slot);
        return status;
    }
    rt_slot_open(rt, slot, builtin, params->length, params->last_token >= 0);
    return RT_OK;
}

enum rt_status rt_seq_open(rt_runtime *rt, const struct rt_seq_params *params, rt_seq *out)
{
    RT_ENTER(rt);
    RT_REQUIRE(out, &rt->error, RT_ERR_INVALID, "rt_seq_open: out is null");
    const struct rt_seq_params empty = {.struct_size = sizeof(empty), .last_token = -1};
    if (!params)
        params = &empty;
    struct rt_seq_params mine;
    RT_TAKE_STRUCT(params, mine, &rt->error);
    RT_TRY(check_params(rt, params));
    struct rt_slot *slot = rt_next_slot(rt);
    RT_REQUIRE(slot, &rt->error, RT_ERR_SLOTS, "all %u sequences are open",
               rt->blueprint.config.max_sequences);
    if (params->shared_pages || params->shared_count)
        RT_TRY(rt_slot_open_shared(rt, slot, params));
    else
        RT_TRY(open_unshared(rt, slot, params));
    *out = slot->handle;
    return RT_OK;
}

enum rt_status rt_seq_close(rt_runtime *rt, rt_seq seq)
{
    RT_ENTER(rt);
    struct rt_slot *slot = NULL;
    RT_TRY(rt_slot_of(rt, seq, &slot));
    close_slot(rt, slot);
    return RT_OK;
}

enum rt_status rt_seq_bind_pages(rt_runtime *rt, rt_seq seq, uint32_t first, const int32_t *pages,
                                 uint32_t count)
{
    RT_ENTER(rt);
    RT_REQUIRE(pages || !count, &rt->error, RT_ERR_INVALID, "rt_seq_bind_pages: pages is null");
    struct rt_slot *slot = NULL;
    RT_TRY(rt_slot_of(rt, seq, &slot));
    const struct rt_placement *l = &rt->blueprint.placement;
    struct rt_slot_rest *rest = rt_slot_rest(rt, slot);
    RT_REQUIRE(!rest->builtin_pages, &rt->error, RT_ERR_UNSUPPORTED,
               "sequence 0x%" PRIx64 " was opened with builtin pages", seq);
    RT_REQUIRE(first <= rest->page_count, &rt->error, RT_ERR_INVALID,
               "column %u leaves a gap: %u columns are bound", first, rest->page_count);
    RT_REQUIRE(count <= l->max_blocks - first, &rt->error, RT_ERR_LENGTH,
               "columns %u..%" PRIu64 " exceed the %u of max_length", first,
               (uint64_t)first + count, l->max_blocks);
    for (uint32_t i = 0; i < count; i++)
        RT_REQUIRE(pages[i] >= 0 && (uint64_t)pages[i] < l->dims.pages, &rt->error, RT_ERR_INVALID,
                   "page %d at column %u is not one of %" PRIu64, pages[i], first + i,
                   l->dims.pages);
    if (!count)
        return RT_OK;
    RT_TRY(rt_reserve_ops(rt, rt_set_pages_bytes(count)));

    memcpy(rt_slot_line(rt, slot) + first, pages, (size_t)count * sizeof(*pages));
    rt_slot_set_page_count(rt, slot, rt_max_u32(rest->page_count, first + count));
    rest->touched_by = rt->ring.next_step - 1; /* nobody here knows whose they were */
    rt_put_set_pages(rt, rt_slot_index(rt, slot), first, pages, count);
    return RT_OK;
}

enum rt_status rt_seq_length(rt_runtime *rt, rt_seq seq, uint32_t *out)
{
    RT_ENTER(rt);
    RT_REQUIRE(out, &rt->error, RT_ERR_INVALID, "rt_seq_length: out is null");
    rt_harvest(rt);
    struct rt_slot *slot = NULL;
    RT_TRY(rt_slot_of(rt, seq, &slot));
    *out = slot->length - slot->undecided;
    return RT_OK;
}

enum rt_status rt_seq_slot(rt_runtime *rt, rt_seq seq, uint32_t *out)
{
    RT_ENTER(rt);
    RT_REQUIRE(out, &rt->error, RT_ERR_INVALID, "rt_seq_slot: out is null");
    struct rt_slot *slot = NULL;
    RT_TRY(rt_slot_of(rt, seq, &slot));
    *out = rt_slot_index(rt, slot);
    return RT_OK;
}

/* The last step in flight whose record has a row of the slot's sequence; 0: none. Looked for here,
 * so that rt_step need not note it in every slot. */
static uint64_t last_row_in_flight(const struct rt_runtime *rt, const struct rt_slot *slot)
{
    uint64_t opened = rt_slot_rest(rt, slot)->opened_step;
    for (uint64_t step = rt->ring.next_step - 1; step > rt->harvested && step >= opened; step--) {
        const struct rt_record_row *rows =
            rt_ring_rows(&rt->ring, rt_ring_record_of(&rt->ring, step));
        for (uint32_t i = 0; i < rt->flights[step % rt->ring.depth].rows; i++)
            if (rows[i].slot == rt_slot_index(rt, slot))
                return step;
    }
    return 0;
}

static bool holds_page(const struct rt_runtime *rt, const struct rt_slot *slot, int32_t page)
{
    const int32_t *line = rt_slot_line(rt, slot);
    for (uint32_t i = 0; i < rt_slot_rest(rt, slot)->page_count; i++)
        if (line[i] == page)
            return true;
    return false;
}

/* The last control replay in flight that copies a page of the slot's for another one; 0: none. */
static uint64_t last_copy_in_flight(const struct rt_runtime *rt, const struct rt_slot *slot)
{
    for (uint64_t step = rt->ring.next_step - 1; step > rt->harvested; step--) {
        const struct rt_flight *flight = &rt->flights[step % rt->ring.depth];
        if (flight->copies && holds_page(rt, slot, flight->copied_page))
            return step;
    }
    return 0;
}

/* The last step in flight that may read a page of the slot's for a sequence that has left it since;
 * 0: none. Who opened later has that step in touched_by. */
static uint64_t last_left_in_flight(const struct rt_runtime *rt, const struct rt_slot *slot)
{
    const struct rt_slot_rest *rest = rt_slot_rest(rt, slot);
    const bool shares =
        rest->builtin_pages && rest->page_count && rest->opened_step <= rt->shared_left;
    return shares ? rt->shared_left : 0;
}

enum rt_status rt_seq_quiet(rt_runtime *rt, rt_seq seq, uint64_t *ticket)
{
    RT_ENTER(rt);
    RT_REQUIRE(ticket, &rt->error, RT_ERR_INVALID, "rt_seq_quiet: ticket is null");
    rt_harvest(rt);
    struct rt_slot *slot = NULL;
    RT_TRY(rt_slot_of(rt, seq, &slot));
    const uint64_t touched[] = {rt_slot_rest(rt, slot)->touched_by, last_row_in_flight(rt, slot),
                                last_copy_in_flight(rt, slot), last_left_in_flight(rt, slot)};
    uint64_t last = rt->harvested;
    for (size_t i = 0; i < sizeof(touched) / sizeof(touched[0]); i++)
        last = touched[i] > last ? touched[i] : last;
    *ticket = last > rt->harvested ? last : 0;
    return RT_OK;
}

enum rt_status rt_seq_pages(rt_runtime *rt, rt_seq seq, int32_t *pages, uint32_t capacity,
                            uint32_t *count)
{
    RT_ENTER(rt);
    RT_REQUIRE(count && (pages || !capacity), &rt->error, RT_ERR_INVALID,
               "rt_seq_pages: count or pages is null");
    struct rt_slot *slot = NULL;
    RT_TRY(rt_slot_of(rt, seq, &slot));
    *count = rt_slot_rest(rt, slot)->page_count;
    uint32_t copied = rt_min_u32(capacity, *count);
    if (copied)
        memcpy(pages, rt_slot_line(rt, slot), copied * sizeof(*pages));
    return RT_OK;
}
