/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BUFFERS_PAGES_H
#define RT_BUFFERS_PAGES_H

/*
 * The page allocator: reference counts over page ids 0..count-1, a LIFO free list, no memory after
 * init, O(1) per page. It knows ids, not addresses.
 *
 * A reference is a sequence's, or *pinned*: then it is the caller's of the library. Dropping takes
 * only the first kind, so neither can take what is the other's.
 */
#include "common/check.h"

#include <stdint.h>

#define RT_PAGES_MAX_REFS ((uint32_t)UINT16_MAX)

struct rt_pages {
    uint32_t count;
    uint32_t free_count;
    int32_t *free_list; /* [count]; the top free_count are free */
    uint16_t *refs;     /* [count]; 0: free */
    uint16_t *pins;     /* [count]; those of the references that are pinned */
    uint32_t pinned;    /* pages with such a reference */
};

/* RT_ERR_NOMEM; RT_ERR_INVALID for 0 pages or more than INT32_MAX. Zeroed on failure. */
enum rt_status rt_pages_init(struct rt_pages *p, uint64_t count, struct rt_error *err);
void rt_pages_free(struct rt_pages *p);

/* A page with one reference, or -1 when none is free. */
int32_t rt_pages_take(struct rt_pages *p);
/* One more reference. The page must be in use and have fewer than RT_PAGES_MAX_REFS. */
void rt_pages_share(struct rt_pages *p, int32_t page);
/* One reference less, which is there and not pinned; the page is free again at zero. */
void rt_pages_drop(struct rt_pages *p, int32_t page);
/* Pins one of the page's references, which is there and not pinned yet. */
void rt_pages_pin(struct rt_pages *p, int32_t page);
/* The other way: there must be a pinned one. */
void rt_pages_unpin(struct rt_pages *p, int32_t page);
/* All of them, and those that are pinned. */
uint32_t rt_pages_refs(const struct rt_pages *p, int32_t page);
uint32_t rt_pages_pins(const struct rt_pages *p, int32_t page);

#endif
