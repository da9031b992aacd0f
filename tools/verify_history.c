/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences that open, close, fork, rewind, and open on pages of closed ones. */
#include "tools/verify_run.h"

#define BLOCK_TOKENS 64u /* as rt_plan_graph.most_blocks counts */

enum rt_status verify_open(struct run *run, struct tracked *t)
{
    for (int side = 0; side < SIDES; side++)
        TRY(verify_check(run, side, rt_seq_open(run->rts[side], NULL, &t->seqs[side])));
    t->open = true;
    t->length = 0;
    return RT_OK;
}

enum rt_status verify_close(struct run *run, struct tracked *t)
{
    for (int side = 0; side < SIDES; side++)
        TRY(verify_check(run, side, rt_seq_close(run->rts[side], t->seqs[side])));
    t->open = false;
    run->report->closes++;
    return RT_OK;
}

static enum rt_status fork_one(struct run *run, struct tracked *from, struct tracked *to)
{
    for (int side = 0; side < SIDES; side++)
        TRY(verify_check(run, side,
                         rt_seq_fork(run->rts[side], from->seqs[side], &to->seqs[side])));
    to->open = true;
    to->length = from->length;
    run->report->forks++;
    return RT_OK;
}

enum rt_status verify_rewind(struct run *run, struct tracked *t, uint32_t length)
{
    t->length = length;
    for (int side = 0; side < SIDES; side++)
        TRY(verify_check(run, side, rt_seq_rewind(run->rts[side], t->seqs[side], t->length)));
    run->report->rewinds++;
    return RT_OK;
}

/* Closes it and opens another on the first tokens of its pages, which are the caller's between. */
static enum rt_status reopen_one(struct run *run, struct tracked *t)
{
    const uint32_t page_size = verify_page_tokens(run), length = verify_below(run, t->length + 1);
    int32_t pages[TEST_PAGES];
    uint32_t held, shared = (length + page_size - 1) / page_size;
    const struct rt_seq_params params = {.struct_size = sizeof(params),
                                         .length = length,
                                         .last_token = -1,
                                         .shared_pages = pages,
                                         .shared_count = shared};
    for (int side = 0; side < SIDES; side++) {
        rt_runtime *rt = run->rts[side];
        TRY(verify_check(run, side, rt_seq_pages(rt, t->seqs[side], pages, TEST_PAGES, &held)));
        TRY(verify_check(run, side, rt_pages_retain(rt, pages, shared)));
        TRY(verify_check(run, side, rt_seq_close(rt, t->seqs[side])));
        TRY(verify_check(run, side, rt_seq_open(rt, &params, &t->seqs[side])));
        TRY(verify_check(run, side, rt_pages_release(rt, pages, shared)));
    }
    t->length = length;
    run->report->closes++;
    return RT_OK;
}

/* One slot's turn before a step: most of the time nothing. */
enum rt_status verify_disturb(struct run *run, uint32_t q)
{
    struct tracked *t = &run->tracked[verify_below(run, run->config.max_sequences)];
    struct tracked *other = &run->tracked[verify_below(run, run->config.max_sequences)];
    switch (verify_below(run, 16)) {
    case 0:
        return t->open ? verify_close(run, t) : RT_OK;
    case 1:
        return t->open ? verify_rewind(run, t, verify_below(run, t->length + 1)) : RT_OK;
    case 2:
        if (!t->open || t == other || t->length + q > run->longest)
            return RT_OK;
        if (other->open)
            TRY(verify_close(run, other));
        return fork_one(run, t, other);
    case 3:
        return t->open && t->length <= run->longest ? reopen_one(run, t) : RT_OK;
    default:
        return RT_OK;
    }
}

/* `live` distinct open sequences with room for q tokens, in random order. */
enum rt_status verify_choose_rows(struct run *run, uint32_t live, uint32_t q, uint32_t *rows)
{
    uint32_t count = run->config.max_sequences;
    uint32_t start = verify_below(run, count), found = 0;
    for (uint32_t i = 0; i < count && found < live; i++) {
        uint32_t index = (start + i) % count;
        struct tracked *t = &run->tracked[index];
        if (t->open && t->length + q > run->longest)
            TRY(verify_close(run, t));
        if (!t->open)
            TRY(verify_open(run, t));
        rows[found++] = index;
    }
    for (uint32_t i = live; i > 1; i--) {
        uint32_t j = verify_below(run, i), swap = rows[i - 1];
        rows[i - 1] = rows[j];
        rows[j] = swap;
    }
    return RT_OK;
}

enum rt_status verify_shorten(struct run *run, const uint32_t *rows, uint32_t live, uint32_t q,
                              uint32_t blocks)
{
    const uint32_t most = blocks * BLOCK_TOKENS - q;
    for (uint32_t i = 0; i < live; i++)
        if (run->tracked[rows[i]].length > most)
            TRY(verify_rewind(run, &run->tracked[rows[i]], most));
    return RT_OK;
}
