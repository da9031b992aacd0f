/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that outlive their sequence: kept by the caller, and shared by sequences that open on them.
 */
#include "runtime/slots.h"

#include "common/math.h"

#include <inttypes.h>

/* The page is one of the pool's, and a sequence or the caller has it from the allocator. */
static enum rt_status check_in_use(struct rt_runtime *rt, const int32_t *pages, uint32_t index)
{
    const int32_t page = pages[index];
    RT_REQUIRE(page >= 0 && (uint32_t)page < rt->pages.count, &rt->error, RT_ERR_INVALID,
               "page %d at index %u is not one of %u", page, index, rt->pages.count);
    RT_REQUIRE(
        rt_pages_refs(&rt->pages, page), &rt->error, RT_ERR_INVALID,
        "page %d at index %u is not in use: no sequence of builtin pages holds it, and it is "
        "not retained",
        page, index);
    return RT_OK;
}

static void release_one(struct rt_runtime *rt, int32_t page)
{
    rt_pages_unpin(&rt->pages, page);
    rt_pages_drop(&rt->pages, page);
}

static enum rt_status retain_one(struct rt_runtime *rt, const int32_t *pages, uint32_t index)
{
    RT_TRY(check_in_use(rt, pages, index));
    RT_REQUIRE(rt_pages_refs(&rt->pages, pages[index]) < RT_PAGES_MAX_REFS, &rt->error,
               RT_ERR_PAGES, "page %d at index %u is shared or retained %u times already",
               pages[index], index, RT_PAGES_MAX_REFS);
    rt_pages_share(&rt->pages, pages[index]);
    rt_pages_pin(&rt->pages, pages[index]);
    return RT_OK;
}

enum rt_status rt_pages_retain(rt_runtime *rt, const int32_t *pages, uint32_t count)
{
    RT_ENTER(rt);
    RT_REQUIRE(pages || !count, &rt->error, RT_ERR_INVALID, "rt_pages_retain: pages is null");
    for (uint32_t i = 0; i < count; i++) {
        enum rt_status status = retain_one(rt, pages, i);
        if (status != RT_OK) {
            while (i-- > 0)
                release_one(rt, pages[i]);
            return status;
        }
    }
    return RT_OK;
}

/* All that was retained of the page at `index` is released by the entries in front of it. */
static enum rt_status refuse_release(struct rt_runtime *rt, const int32_t *pages, uint32_t index)
{
    uint32_t retained = 0;
    for (uint32_t i = 0; i < index; i++)
        retained += pages[i] == pages[index];
    return rt_fail(&rt->error, RT_ERR_INVALID,
                   "page %d at index %u: release %u of it, and it was retained %u times",
                   pages[index], index, retained + 1, retained);
}

/* First the caller's share of every page is given back, which can be taken back again; no page is
 * free before that has gone well for all. */
enum rt_status rt_pages_release(rt_runtime *rt, const int32_t *pages, uint32_t count)
{
    RT_ENTER(rt);
    RT_REQUIRE(pages || !count, &rt->error, RT_ERR_INVALID, "rt_pages_release: pages is null");
    for (uint32_t i = 0; i < count; i++) {
        enum rt_status status = check_in_use(rt, pages, i);
        if (status == RT_OK && !rt_pages_pins(&rt->pages, pages[i]))
            status = refuse_release(rt, pages, i);
        if (status != RT_OK) {
            while (i-- > 0)
                rt_pages_pin(&rt->pages, pages[i]);
            return status;
        }
        rt_pages_unpin(&rt->pages, pages[i]);
    }
    for (uint32_t i = 0; i < count; i++)
        rt_pages_drop(&rt->pages, pages[i]);
    return RT_OK;
}

/* ---- opening on pages that are there ---- */

static enum rt_status check_shared(struct rt_runtime *rt, const struct rt_seq_params *params)
{
    const uint32_t page_size = rt_page_tokens(rt);
    RT_REQUIRE(params->pages == RT_PAGES_BUILTIN, &rt->error, RT_ERR_UNSUPPORTED,
               "rt_seq_open: shared_pages with the caller's pages: rt_seq_bind_pages shares those");
    RT_REQUIRE(params->shared_pages, &rt->error, RT_ERR_INVALID,
               "rt_seq_open: shared_count is %u and shared_pages is null", params->shared_count);
    const uint32_t needed = rt_ceil_div_u32(params->length, page_size);
    RT_REQUIRE(params->shared_count == needed, &rt->error, RT_ERR_INVALID,
               "rt_seq_open: %u shared pages, but %u tokens are in %u pages of %u",
               params->shared_count, params->length, needed, page_size);
    for (uint32_t i = 0; i < needed; i++)
        RT_TRY(check_in_use(rt, params->shared_pages, i));
    RT_REQUIRE(params->length % page_size == 0 || rt->pages.free_count, &rt->error, RT_ERR_PAGES,
               "length %u on shared pages copies the last one, none of %u is free", params->length,
               rt->pages.count);
    return RT_OK;
}

enum rt_status rt_slot_open_shared(struct rt_runtime *rt, struct rt_slot *slot,
                                   const struct rt_seq_params *params)
{
    RT_TRY(check_shared(rt, params));
    const uint32_t page_size = rt_page_tokens(rt);
    const uint32_t tail = params->length % page_size, full = params->length / page_size;
    RT_TRY(rt_slot_share_pages(rt, slot, params->shared_pages, full));
    rt_slot_take_pages(rt, slot, tail ? 1 : 0);
    /* At once where a page is copied: until the next step its tokens may be others. */
    enum rt_status status = tail
                                ? rt_slot_tell_at_once(rt, slot, params->length, params->last_token,
                                                       params->shared_pages[full])
                                : rt_slot_tell(rt, slot, params->length, params->last_token);
    if (status != RT_OK) {
        rt_slot_drop_pages(rt, slot);
        return status;
    }
    rt_slot_open(rt, slot, true, params->length, params->last_token >= 0);
    return RT_OK;
}
