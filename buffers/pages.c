/* SPDX-License-Identifier: Apache-2.0 */
#include "buffers/pages.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

enum rt_status rt_pages_init(struct rt_pages *p, uint64_t count, struct rt_error *err)
{
    *p = (struct rt_pages){0};
    RT_REQUIRE(count >= 1 && count <= INT32_MAX, err, RT_ERR_INVALID,
               "%" PRIu64 " pages, valid are 1 to %" PRId32, count, INT32_MAX);
    p->free_list = malloc((size_t)count * sizeof(*p->free_list));
    p->refs = calloc((size_t)count, sizeof(*p->refs));
    p->pins = calloc((size_t)count, sizeof(*p->pins));
    if (!p->free_list || !p->refs || !p->pins) {
        rt_pages_free(p);
        return rt_fail(err, RT_ERR_NOMEM, "no memory to keep account of %" PRIu64 " pages", count);
    }
    p->count = (uint32_t)count;
    p->free_count = (uint32_t)count;
    /* The lowest ids on top: a young pool is used from its beginning. */
    for (uint32_t i = 0; i < p->count; i++)
        p->free_list[i] = (int32_t)(p->count - 1 - i);
    return RT_OK;
}

void rt_pages_free(struct rt_pages *p)
{
    free(p->free_list);
    free(p->refs);
    free(p->pins);
    *p = (struct rt_pages){0};
}

int32_t rt_pages_take(struct rt_pages *p)
{
    if (p->free_count == 0)
        return -1;
    const int32_t page = p->free_list[--p->free_count];
    assert(p->refs[page] == 0);
    p->refs[page] = 1;
    return page;
}

void rt_pages_share(struct rt_pages *p, int32_t page)
{
    assert(rt_pages_refs(p, page) > 0 && rt_pages_refs(p, page) < RT_PAGES_MAX_REFS);
    p->refs[page]++;
}

void rt_pages_drop(struct rt_pages *p, int32_t page)
{
    assert(rt_pages_refs(p, page) > rt_pages_pins(p, page));
    if (--p->refs[page] == 0)
        p->free_list[p->free_count++] = page;
}

void rt_pages_pin(struct rt_pages *p, int32_t page)
{
    assert(rt_pages_refs(p, page) > rt_pages_pins(p, page));
    p->pinned += p->pins[page]++ == 0;
}

void rt_pages_unpin(struct rt_pages *p, int32_t page)
{
    assert(rt_pages_pins(p, page) > 0);
    p->pinned -= --p->pins[page] == 0;
}

uint32_t rt_pages_refs(const struct rt_pages *p, int32_t page)
{
    assert(page >= 0 && (uint32_t)page < p->count);
    return p->refs[page];
}

uint32_t rt_pages_pins(const struct rt_pages *p, int32_t page)
{
    assert(page >= 0 && (uint32_t)page < p->count);
    return p->pins[page];
}
