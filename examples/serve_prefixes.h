/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_SERVE_PREFIXES_H
#define RT_EXAMPLES_SERVE_PREFIXES_H

#include "replayrt/rt.h"

#include <stdbool.h>

/*
 * Which pages hold which beginnings of prompts: the map that docs/prefix_cache.md leaves to an
 * engine. Whole pages alone, which a sequence opens on without a copy. A beginning is looked for in
 * all there are, token by token; an engine that keeps thousands hashes their pages.
 */
enum { MAX_PREFIXES = 64 };

struct prefix {
    const int32_t *tokens; /* of a request, which stays where it is */
    int32_t *pages;        /* [count], retained; null: the place is free */
    uint32_t count;
    uint64_t used; /* the larger, the later */
};

struct prefixes {
    rt_runtime *runtime;
    uint32_t page_size;
    uint64_t clock;
    struct prefix list[MAX_PREFIXES];
};

/* The one that has most pages in common with the tokens; null: none has one. *shared gets how many
 * pages. It counts as used. */
struct prefix *prefixes_find(struct prefixes *p, const int32_t *tokens, uint32_t count,
                             uint32_t *shared);

/* Retains `count` pages of the sequence, which hold the first tokens of its prompt. Where all
 * places are taken, the one not used for longest is forgotten. */
enum rt_status prefixes_keep(struct prefixes *p, rt_seq seq, const int32_t *tokens, uint32_t count,
                             struct rt_error *error);

/* Forgets the one not used for longest: its pages are free where no sequence has them. False: there
 * is none. */
bool prefixes_forget(struct prefixes *p);

/* Forgets all. */
void prefixes_clear(struct prefixes *p);

#endif
