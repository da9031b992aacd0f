/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/serve_prefixes.h"

#include <stdlib.h>

static uint32_t pages_in_common(const struct prefixes *p, const struct prefix *known,
                                const int32_t *tokens, uint32_t count)
{
    const uint32_t kept = known->count * p->page_size, most = kept < count ? kept : count;
    uint32_t same = 0;
    while (same < most && known->tokens[same] == tokens[same])
        same++;
    return same / p->page_size;
}

struct prefix *prefixes_find(struct prefixes *p, const int32_t *tokens, uint32_t count,
                             uint32_t *shared)
{
    struct prefix *found = NULL;
    *shared = 0;
    for (uint32_t i = 0; i < MAX_PREFIXES; i++) {
        const uint32_t common = pages_in_common(p, &p->list[i], tokens, count);
        if (common > *shared) {
            *shared = common;
            found = &p->list[i];
        }
    }
    if (found)
        found->used = ++p->clock;
    return found;
}

static void forget(struct prefixes *p, struct prefix *known)
{
    (void)rt_pages_release(p->runtime, known->pages, known->count); /* they were retained */
    free(known->pages);
    *known = (struct prefix){.pages = NULL};
}

bool prefixes_forget(struct prefixes *p)
{
    struct prefix *oldest = NULL;
    for (uint32_t i = 0; i < MAX_PREFIXES; i++) {
        struct prefix *const at = &p->list[i];
        if (at->pages && (!oldest || at->used < oldest->used))
            oldest = at;
    }
    if (oldest)
        forget(p, oldest);
    return oldest != NULL;
}

void prefixes_clear(struct prefixes *p)
{
    for (uint32_t i = 0; i < MAX_PREFIXES; i++)
        if (p->list[i].pages)
            forget(p, &p->list[i]);
}

static struct prefix *free_place(struct prefixes *p)
{
    for (;;) {
        for (uint32_t i = 0; i < MAX_PREFIXES; i++)
            if (!p->list[i].pages)
                return &p->list[i];
        (void)prefixes_forget(p);
    }
}

enum rt_status prefixes_keep(struct prefixes *p, rt_seq seq, const int32_t *tokens, uint32_t count,
                             struct rt_error *error)
{
    uint32_t held;
    int32_t *pages = malloc(count * sizeof *pages);
    if (!pages)
        return rt_error_set(error, RT_ERR_NOMEM, "out of memory for %u page ids", count);
    enum rt_status status = rt_seq_pages(p->runtime, seq, pages, count, &held);
    if (status == RT_OK)
        status = rt_pages_retain(p->runtime, pages, count);
    if (status != RT_OK) {
        free(pages);
        return rt_error_set(error, status, "%s", rt_last_error(p->runtime)->message);
    }
    *free_place(p) =
        (struct prefix){.tokens = tokens, .pages = pages, .count = count, .used = ++p->clock};
    return RT_OK;
}
