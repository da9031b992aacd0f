/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Second sequences with the same past, and going back to a shorter one. A page that the past shares
 * and the future writes is copied at once, so no step ever has to.
 */
#include "runtime/slots.h"

#include "common/math.h"

#include <inttypes.h>
#include <string.h>

/* The sequence that is forked, and the slot of its twin. */
static enum rt_status find_pair(struct rt_runtime *rt, rt_seq seq, struct rt_slot **parent,
                                struct rt_slot **child)
{
    rt_harvest(rt);
    RT_TRY(rt_slot_of(rt, seq, parent));
    RT_TRY(rt_slot_decided(rt, *parent, "fork"));
    *child = rt_next_slot(rt);
    RT_REQUIRE(*child, &rt->error, RT_ERR_SLOTS, "all %u sequences are open",
               rt->blueprint.config.max_sequences);
    return RT_OK;
}

/* The child's pages are in its line: tells the device, and opens it. */
static enum rt_status open_fork(struct rt_runtime *rt, const struct rt_slot *parent,
                                struct rt_slot *child, rt_seq *out)
{
    uint32_t page_size = rt_page_tokens(rt), length = parent->length;
    int32_t copied = length % page_size ? rt_slot_line(rt, parent)[length / page_size] : -1;
    /* At once even without a page to copy: a failed step applies its ops again, and by then the
     * parent's token could be another. */
    RT_TRY(rt_slot_tell_at_once(rt, child, length, RT_TOKEN_OF_SLOT(rt_slot_index(rt, parent)),
                                copied));
    rt_slot_open(rt, child, rt_slot_rest(rt, parent)->builtin_pages, length, true);
    child->nameless = parent->nameless;
    *out = child->handle;
    return RT_OK;
}

enum rt_status rt_seq_fork(rt_runtime *rt, rt_seq seq, rt_seq *out)
{
    RT_ENTER(rt);
    RT_REQUIRE(out, &rt->error, RT_ERR_INVALID, "rt_seq_fork: out is null");
    struct rt_slot *parent = NULL, *child = NULL;
    RT_TRY(find_pair(rt, seq, &parent, &child));
    RT_REQUIRE(rt_slot_rest(rt, parent)->builtin_pages, &rt->error, RT_ERR_UNSUPPORTED,
               "sequence 0x%" PRIx64 " has the caller's pages: rt_seq_fork_onto forks it", seq);
    uint32_t page_size = rt_page_tokens(rt);
    uint32_t tail = parent->length % page_size, full = parent->length / page_size;
    RT_REQUIRE(!tail || rt->pages.free_count, &rt->error, RT_ERR_PAGES,
               "a fork at length %u copies its last page, none of %u is free", parent->length,
               rt->pages.count);
    RT_TRY(rt_slot_share_pages(rt, child, rt_slot_line(rt, parent), full));
    rt_slot_take_pages(rt, child, tail ? 1 : 0);
    enum rt_status status = open_fork(rt, parent, child, out);
    if (status != RT_OK)
        rt_slot_drop_pages(rt, child);
    return status;
}

/* The parent has a page for each of its tokens, and `last_page` is a new one where the last of them
 * is to be copied; -1 where it is full. */
static enum rt_status check_last_page(struct rt_runtime *rt, const struct rt_slot *parent,
                                      int32_t last_page)
{
    uint32_t length = parent->length, page_size = rt_page_tokens(rt);
    uint32_t bound = rt_slot_rest(rt, parent)->page_count;
    RT_REQUIRE(rt_ceil_div_u32(length, page_size) <= bound, &rt->error, RT_ERR_PAGES,
               "a fork at length %u shares %u pages, %u are bound", length,
               rt_ceil_div_u32(length, page_size), bound);
    if (length % page_size == 0) {
        RT_REQUIRE(last_page == -1, &rt->error, RT_ERR_INVALID,
                   "a fork at length %u copies no page: last_page must be -1, not %d", length,
                   last_page);
        return RT_OK;
    }
    uint64_t pages = rt->blueprint.placement.dims.pages;
    RT_REQUIRE(last_page >= 0 && (uint64_t)last_page < pages, &rt->error, RT_ERR_INVALID,
               "a fork at length %u copies its last page: last_page %d is not one of %" PRIu64,
               length, last_page, pages);
    for (uint32_t i = 0; i < bound; i++)
        RT_REQUIRE(rt_slot_line(rt, parent)[i] != last_page, &rt->error, RT_ERR_INVALID,
                   "last_page %d is bound at column %u of the sequence that is forked", last_page,
                   i);
    return RT_OK;
}

enum rt_status rt_seq_fork_onto(rt_runtime *rt, rt_seq seq, int32_t last_page, rt_seq *out)
{
    RT_ENTER(rt);
    RT_REQUIRE(out, &rt->error, RT_ERR_INVALID, "rt_seq_fork_onto: out is null");
    struct rt_slot *parent = NULL, *child = NULL;
    RT_TRY(find_pair(rt, seq, &parent, &child));
    RT_REQUIRE(!rt_slot_rest(rt, parent)->builtin_pages, &rt->error, RT_ERR_UNSUPPORTED,
               "sequence 0x%" PRIx64 " has builtin pages: rt_seq_fork forks it", seq);
    RT_TRY(check_last_page(rt, parent, last_page));
    uint32_t full = parent->length / rt_page_tokens(rt);
    int32_t *line = rt_slot_line(rt, child);
    memcpy(line, rt_slot_line(rt, parent), (size_t)full * sizeof(*line));
    if (last_page >= 0)
        line[full] = last_page;
    rt_slot_set_page_count(rt, child, full + (last_page >= 0 ? 1 : 0));
    enum rt_status status = open_fork(rt, parent, child, out);
    if (status != RT_OK)
        rt_slot_set_page_count(rt, child, 0);
    return status;
}

enum rt_status rt_seq_rewind(rt_runtime *rt, rt_seq seq, uint32_t length)
{
    RT_ENTER(rt);
    rt_harvest(rt);
    struct rt_slot *slot = NULL;
    RT_TRY(rt_slot_of(rt, seq, &slot));
    RT_TRY(rt_slot_decided(rt, slot, "rewind"));
    RT_REQUIRE(length <= slot->length, &rt->error, RT_ERR_LENGTH,
               "rewind to %u: the sequence has %u tokens", length, slot->length);
    uint32_t page_size = rt_page_tokens(rt);
    uint32_t index = rt_slot_index(rt, slot), tail = length % page_size, kept = length / page_size;
    int32_t *line = rt_slot_line(rt, slot);
    struct rt_slot_rest *rest = rt_slot_rest(rt, slot);
    /* Who else holds the page, a sequence or the caller, keeps the tokens that are forgotten here.
     * Where none is, the next one is written behind all that the page has. */
    bool copy = rest->builtin_pages && tail && length < slot->length &&
                rt_pages_refs(&rt->pages, line[kept]) > 1;
    RT_REQUIRE(!copy || rt->pages.free_count, &rt->error, RT_ERR_PAGES,
               "a rewind to %u copies a shared page, none of %u is free", length, rt->pages.count);
    RT_TRY(rt_reserve_ops(rt, 2 * (uint32_t)sizeof(struct rt_record_op) + rt_set_pages_bytes(1)));

    uint32_t bytes = rt->ops_bytes, count = rt->ops_count;
    /* What was sampled behind another past than this is no token of it. */
    rt_put_op(rt, RT_OP_SET_SLOT, index, (int32_t)length,
              length == slot->length ? RT_TOKEN_OF_SLOT(index) : -1);
    if (copy) {
        int32_t fresh = rt_pages_take(&rt->pages), shared = line[kept];
        rt_put_set_pages(rt, index, kept, &fresh, 1);
        rt_put_op(rt, RT_OP_COPY_PAGE, rt_own_tokens(rt, tail), shared, fresh);
        enum rt_status status = rt_flush_or_forget(rt, bytes, count);
        if (status != RT_OK) {
            rt_pages_drop(&rt->pages, fresh);
            return status;
        }
        rt_note_copy(rt, shared);
        line[kept] = fresh;
        rest->touched_by = rt->ring.next_step - 1;
        rt_note_left(rt, shared);
        rt_pages_drop(&rt->pages, shared);
    }
    if (length < slot->length)
        slot->nameless = length;
    slot->length = length;
    rest->taken_back = 0;
    uint32_t pages = rt_ceil_div_u32(length, page_size);
    while (rest->builtin_pages && rest->page_count > pages) {
        rt_slot_set_page_count(rt, slot, rest->page_count - 1);
        rt_note_left(rt, line[rest->page_count]);
        rt_pages_drop(&rt->pages, line[rest->page_count]);
    }
    return RT_OK;
}
