/* SPDX-License-Identifier: Apache-2.0 */
/* What a stage of the user's would have listed: keys of every query token. */
#include "tools/verify_run.h"

#include <stdlib.h>

/* A position that the row has once the step's own tokens are appended, or no key. */
static int32_t draw_entry(struct run *run, uint32_t length)
{
    const uint32_t kind = verify_below(run, 16);
    return kind == 0 ? -1 : kind == 1 ? INT32_MAX : (int32_t)verify_below(run, length);
}

static int32_t draw_count(struct run *run, uint32_t topk)
{
    const int32_t edges[] = {0, -1, 1, (int32_t)topk, INT32_MAX};
    const uint32_t kind = verify_below(run, 10);
    return kind < sizeof(edges) / sizeof(edges[0]) ? edges[kind]
                                                   : (int32_t)verify_below(run, topk + 1);
}

static enum rt_status write_both(struct run *run, const char *name, const int32_t *from,
                                 uint64_t count)
{
    for (int side = 0; side < SIDES; side++)
        TRY(verify_check(run, side,
                         rt_tensor_write(run->rts[side], name, 0, 0, from, count * sizeof(*from))));
    return RT_OK;
}

/* Padding has lists as well, whole ones of keys that there are: they must not be looked at. */
static void draw_lists(struct run *run, const uint32_t *lengths, uint32_t tokens, int32_t *counts,
                       int32_t *entries)
{
    const uint32_t topk = run->config.topk;
    for (uint32_t i = 0; i < tokens; i++) {
        counts[i] = lengths[i] ? draw_count(run, topk) : (int32_t)topk;
        for (uint32_t k = 0; k < topk; k++)
            entries[(size_t)i * topk + k] = lengths[i] ? draw_entry(run, lengths[i]) : 0;
    }
}

enum rt_status verify_write_lists(struct run *run, const uint32_t *lengths, uint32_t tokens)
{
    const uint64_t entries = (uint64_t)tokens * run->config.topk;
    if (!entries)
        return RT_OK;
    int32_t *lists = malloc((tokens + entries) * sizeof(*lists));
    if (!lists)
        return verify_say(run->error, RT_ERR_NOMEM, "verify", "out of host memory");
    draw_lists(run, lengths, tokens, lists, lists + tokens);
    enum rt_status status = write_both(run, "sparse_counts", lists, tokens);
    if (status == RT_OK)
        status = write_both(run, "sparse_indices", lists + tokens, entries);
    free(lists);
    return status;
}
