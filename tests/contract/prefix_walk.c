/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random walk of sequences that open on pages of others, go on by steps of one token, of any
 * number of tokens a row, and by chunks of prompts, fork, rewind, close, and of a caller who
 * retains and releases, beside a model that knows who holds what: after every move every page has
 * the references it should have, and every token of every past and every prefix lies where it
 * should, bit for bit.
 */
#include "tests/support/fixture.h"
#include "tests/support/history.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 16u
#define PAGES 30u
#define LONGEST 80u
#define MOST (LONGEST / PAGE)
#define SEQUENCES 7u /* of builtin pages, in the walk */
#define KEPT 4u
#define BANK 4u /* pages of the caller's sequences, which one that never steps holds for them */
#define MOVES 1500u
#define CHUNK 24u /* tokens of prompts at once; and a few: */
#define SMALL_CHUNK 4u
#define LONG 3u /* the longer query of steps */

/* Tokens and where they lie; of a sequence, or retained. */
struct past {
    bool there;
    rt_seq seq; /* 0: retained */
    uint32_t length, page_count;
    int32_t pages[MOST];
    uint32_t tags[LONGEST];
};

struct walk {
    rt_runtime *rt;
    uint64_t seed, chance;
    uint32_t move, tag, refused;
    uint32_t chunks[2]; /* of prompts alone, and beside a row */
    uint32_t ragged
        [2]; /* steps of two rows of unlike numbers of tokens; rows of several beside a chunk */
    struct past sequences[SEQUENCES], kept[KEPT];
    struct past own; /* of the caller's pages */
    int32_t bank[BANK];
    uint16_t *kv[2]; /* [layer][PAGES][PAGE][HISTORY_D_QK] */
    uint64_t kv_bytes;
};

static uint32_t below(struct walk *w, uint32_t bound)
{
    return (uint32_t)((fixture_random(&w->chance) >> 32) % bound);
}

static void learn_pages(struct walk *w, struct past *p)
{
    assert_int_equal(rt_seq_pages(w->rt, p->seq, p->pages, MOST, &p->page_count), RT_OK);
}

/* True: done. False: no pages, which is only so where fewer than `needed` are free. */
static bool done(struct walk *w, enum rt_status status, uint32_t needed)
{
    if (status == RT_OK)
        return true;
    if (status != RT_ERR_PAGES || w->rt->pages.free_count >= needed)
        fail_msg("seed %" PRIu64 ", move %u: %s", w->seed, w->move, rt_last_error(w->rt)->message);
    w->refused++;
    return false;
}

/* ---- the moves ----------------------------------------------------------------------------- */

/* Steps the sequence by up to `most` tokens of a tag that nobody has had. */
static void go_on(struct walk *w, struct past *p, uint32_t most)
{
    const uint32_t tag = ++w->tag;
    for (uint32_t n = 1 + below(w, most); n > 0 && p->length < LONGEST; n--) {
        history_feed(w->rt, 0, tag, p->length);
        const int32_t token = (int32_t)tag;
        const struct rt_step_params step = {
            .struct_size = sizeof(step), .rows = 1, .seqs = &p->seq, .tokens = &token};
        uint64_t ticket;
        if (!done(w, rt_step(w->rt, &step, &ticket), 1))
            break;
        assert_int_equal(rt_wait(w->rt, ticket, UINT64_MAX), RT_OK);
        p->tags[p->length++] = tag;
    }
    learn_pages(w, p);
}

static uint32_t pages_for(const struct past *p, uint32_t more)
{
    const uint32_t needed = (p->length + more + PAGE - 1) / PAGE;
    return needed > p->page_count ? needed - p->page_count : 0;
}

static void grow(struct walk *w, struct past *p, uint32_t count)
{
    for (uint32_t t = 0; t < count; t++)
        p->tags[p->length++] = w->tag;
    learn_pages(w, p);
}

/* Of b up to `columns` tokens, where they are beside a chunk of so many of a prompt. */
static uint32_t feed_beside(struct walk *w, const struct past *b, uint32_t chunk, uint32_t columns)
{
    const uint32_t spare = LONGEST - b->length - 1, more = columns - 1;
    const uint32_t count = 1 + below(w, 1 + (spare < more ? spare : more));
    const uint32_t first = chunk > SMALL_CHUNK ? CHUNK : SMALL_CHUNK;
    for (uint32_t t = 0; t < columns; t++) /* behind the padded chunk */
        history_feed(w->rt, first + t, w->tag, b->length + t);
    return count;
}

/* A chunk of tokens of a new tag; where b is another sequence, some of it decode beside. */
static void feed_chunk(struct walk *w, struct past *a, struct past *b)
{
    const int32_t tag = (int32_t)++w->tag, beside[LONG] = {tag, tag, tag};
    int32_t ids[CHUNK];
    const uint32_t room = LONGEST - a->length < CHUNK ? LONGEST - a->length : CHUNK;
    const uint32_t count = room ? 1 + below(w, room) : 0;
    const uint32_t mixed = b != a && b->there && b->length < LONGEST;
    const uint32_t columns = below(w, 2) ? LONG : 1;
    const uint32_t own = mixed && count ? feed_beside(w, b, count, columns) : 0;
    const struct rt_prompt prompt = {.seq = a->seq, .tokens = ids, .count = count};
    const struct rt_prefill_params p = {
        .struct_size = sizeof(p), .prompts = &prompt, .prompt_count = 1};
    const struct rt_step_params step = {.struct_size = sizeof(step),
                                        .rows = mixed,
                                        .query_len = columns,
                                        .seqs = &b->seq,
                                        .tokens = beside,
                                        .prompts = &prompt,
                                        .prompt_count = 1,
                                        .query_lens = &own};
    uint64_t ticket = 0;
    if (count == 0)
        return;
    for (uint32_t t = 0; t < count; t++) {
        history_feed(w->rt, t, w->tag, a->length + t);
        ids[t] = tag;
    }
    const enum rt_status status =
        mixed ? rt_step(w->rt, &step, &ticket) : rt_prefill(w->rt, &p, &ticket);
    if (!done(w, status, pages_for(a, count) + (mixed ? pages_for(b, own) : 0)))
        return;
    assert_int_equal(rt_wait(w->rt, ticket, UINT64_MAX), RT_OK);
    w->chunks[mixed]++;
    grow(w, a, count);
    if (mixed)
        grow(w, b, own);
    w->ragged[1] += own > 1;
}

/* One step of two rows, each of up to LONG tokens of a new tag; of one where b is no other. */
static void step_ragged(struct walk *w, struct past *a, struct past *b)
{
    const int32_t tag = (int32_t)++w->tag;
    struct past *const who[2] = {a, b};
    const uint32_t rows = b != a && b->there && b->length < LONGEST ? 2 : 1;
    rt_seq seqs[2] = {a->seq, 0};
    uint32_t counts[2] = {0}, pages = 0;
    int32_t tokens[2 * LONG];
    if (a->length == LONGEST)
        return;
    for (uint32_t i = 0; i < 2 * LONG; i++)
        tokens[i] = tag;
    for (uint32_t r = 0; r < rows; r++) {
        const uint32_t left = LONGEST - who[r]->length;
        seqs[r] = who[r]->seq;
        counts[r] = 1 + below(w, left < LONG ? left : LONG);
        pages += pages_for(who[r], counts[r]);
        for (uint32_t t = 0; t < LONG; t++) /* what a row does not have too, for nobody */
            history_feed(w->rt, r * LONG + t, w->tag, who[r]->length + t);
    }
    const struct rt_step_params step = {.struct_size = sizeof(step),
                                        .rows = rows,
                                        .query_len = LONG,
                                        .seqs = seqs,
                                        .tokens = tokens,
                                        .query_lens = counts};
    uint64_t ticket = 0;
    if (!done(w, rt_step(w->rt, &step, &ticket), pages))
        return;
    assert_int_equal(rt_wait(w->rt, ticket, UINT64_MAX), RT_OK);
    w->ragged[0] += counts[0] != counts[1] && rows == 2;
    for (uint32_t r = 0; r < rows; r++)
        grow(w, who[r], counts[r]);
}

/* A sequence on the first tokens of what `from` has, null for none. */
static void open_on(struct walk *w, struct past *to, const struct past *from)
{
    const uint32_t length = from ? below(w, from->length + 1) : 0;
    struct past p = {.there = true, .length = length};
    const struct rt_seq_params params = {.struct_size = sizeof(params),
                                         .length = length,
                                         .last_token = -1,
                                         .shared_pages = from ? from->pages : NULL,
                                         .shared_count = (length + PAGE - 1) / PAGE};
    if (!done(w, rt_seq_open(w->rt, &params, &p.seq), 1))
        return;
    if (from)
        memcpy(p.tags, from->tags, sizeof(p.tags));
    learn_pages(w, &p);
    *to = p;
}

static void fork_to(struct walk *w, struct past *to, const struct past *from)
{
    struct past p = *from;
    if (!done(w, rt_seq_fork(w->rt, from->seq, &p.seq), 1))
        return;
    learn_pages(w, &p);
    *to = p;
}

static void rewind_one(struct walk *w, struct past *p)
{
    const uint32_t length = below(w, p->length + 1);
    if (done(w, rt_seq_rewind(w->rt, p->seq, length), 1))
        p->length = length;
    learn_pages(w, p);
}

static void retain(struct walk *w, struct past *to, const struct past *from)
{
    struct past p = *from;
    p.seq = 0;
    p.length = below(w, from->length + 1);
    p.page_count = (p.length + PAGE - 1) / PAGE;
    assert_int_equal(rt_pages_retain(w->rt, p.pages, p.page_count), RT_OK);
    *to = p;
}

static void let_go(struct walk *w, struct past *p)
{
    if (p->seq)
        assert_int_equal(rt_seq_close(w->rt, p->seq), RT_OK);
    else
        assert_int_equal(rt_pages_release(w->rt, p->pages, p->page_count), RT_OK);
    p->there = false;
}

static void assert_holds(const struct walk *w, const struct past *p, const char *what);
static void look(struct walk *w);

/* The caller's sequence is forked, and both go on: the fork in the two last pages of the bank. */
static void fork_own(struct walk *w)
{
    struct past child = w->own;
    const uint32_t full = child.length / PAGE, tail = child.length % PAGE;
    const enum rt_status status =
        rt_seq_fork_onto(w->rt, w->own.seq, tail ? w->bank[2] : -1, &child.seq);
    if (status != RT_OK)
        fail_msg("move %u: %s", w->move, rt_last_error(w->rt)->message);
    const int32_t more[] = {w->bank[2], w->bank[3]};
    assert_int_equal(rt_seq_bind_pages(w->rt, child.seq, full, more, 2), RT_OK);
    go_on(w, &child, PAGE);
    if (w->own.length <= PAGE) /* it has two pages */
        go_on(w, &w->own, PAGE);
    look(w);
    assert_holds(w, &child, "a fork of the caller's sequence");
    assert_int_equal(rt_seq_close(w->rt, child.seq), RT_OK);
    if (below(w, 3))
        return;
    w->own.length =
        below(w, w->own.length + 1); /* the fork is gone, so its full pages are nobody else's */
    assert_int_equal(rt_seq_rewind(w->rt, w->own.seq, w->own.length), RT_OK);
}

static void move(struct walk *w)
{
    struct past *a = &w->sequences[below(w, SEQUENCES)], *b = &w->sequences[below(w, SEQUENCES)];
    struct past *k = &w->kept[below(w, KEPT)];
    const uint32_t what = below(w, 14);
    if (what == 0)
        fork_own(w);
    else if (what == 1 && k->there)
        let_go(w, k);
    else if (!a->there)
        open_on(w, a, k->there && what < 8 ? k : b->there ? b : NULL);
    else if (what == 2)
        let_go(w, a);
    else if (what == 3)
        rewind_one(w, a);
    else if (what == 4 && !b->there)
        fork_to(w, b, a);
    else if (what < 7 && !k->there)
        retain(w, k, a);
    else if (what < 10)
        feed_chunk(w, a, b);
    else if (what < 12)
        step_ragged(w, a, b);
    else
        go_on(w, a, 20);
}

/* ---- the model ----------------------------------------------------------------------------- */

static void look(struct walk *w)
{
    for (uint32_t layer = 0; layer < 2; layer++)
        assert_int_equal(rt_tensor_read(w->rt, "kv", layer, 0, w->kv[layer], w->kv_bytes), RT_OK);
}

static void assert_holds(const struct walk *w, const struct past *p, const char *what)
{
    for (uint32_t t = 0; t < p->length; t++) {
        uint16_t latent[HISTORY_D_QK];
        history_latent(p->tags[t], t, latent);
        const size_t row = (size_t)p->pages[t / PAGE] * PAGE + t % PAGE;
        for (uint32_t layer = 0; layer < 2; layer++)
            if (memcmp(w->kv[layer] + row * HISTORY_D_QK, latent, sizeof(latent)) != 0)
                fail_msg("seed %" PRIu64 ", move %u: %s of %u tokens: token %u in page %d, layer "
                         "%u, is another",
                         w->seed, w->move, what, p->length, t, p->pages[t / PAGE], layer);
    }
}

static void count(const struct past *pasts, uint32_t past_count, uint32_t *refs)
{
    for (uint32_t i = 0; i < past_count; i++)
        for (uint32_t k = 0; pasts[i].there && k < pasts[i].page_count; k++)
            refs[pasts[i].pages[k]]++;
}

static void compare(struct walk *w)
{
    uint32_t refs[PAGES] = {0}, pins[PAGES] = {0}, free_count = 0, retained = 0;
    count(w->sequences, SEQUENCES, refs);
    count(w->kept, KEPT, refs);
    count(w->kept, KEPT, pins);
    for (uint32_t i = 0; i < BANK; i++)
        refs[w->bank[i]]++;
    for (uint32_t i = 0; i < PAGES; i++) {
        if (rt_pages_refs(&w->rt->pages, (int32_t)i) != refs[i] ||
            rt_pages_pins(&w->rt->pages, (int32_t)i) != pins[i])
            fail_msg("seed %" PRIu64 ", move %u: page %u has %u references, %u of them the "
                     "caller's; they should be %u and %u",
                     w->seed, w->move, i, rt_pages_refs(&w->rt->pages, (int32_t)i),
                     rt_pages_pins(&w->rt->pages, (int32_t)i), refs[i], pins[i]);
        free_count += refs[i] == 0;
        retained += pins[i] > 0;
    }
    struct rt_stats stats = {.struct_size = sizeof(stats)};
    assert_int_equal(rt_get_stats(w->rt, &stats), RT_OK);
    assert_int_equal(stats.free_pages, free_count);
    assert_int_equal(stats.retained_pages, retained);
    look(w);
    for (uint32_t i = 0; i < SEQUENCES; i++)
        if (w->sequences[i].there)
            assert_holds(w, &w->sequences[i], "a sequence");
    for (uint32_t i = 0; i < KEPT; i++)
        if (w->kept[i].there)
            assert_holds(w, &w->kept[i], "a retained prefix");
    assert_holds(w, &w->own, "the caller's sequence");
}

static void begin(struct walk *w)
{
    struct rt_config config;
    fixture_config(&config);
    config.max_sequences = SEQUENCES + 3;
    config.pages = PAGES;
    config.chunks[0] = SMALL_CHUNK;
    config.chunks[1] = CHUNK;
    config.chunk_count = 2;
    config.mixed_rows[0] = 2;
    config.mixed_row_count = 1;
    w->rt = fixture_create(&config);
    fixture_randomise(w->rt, w->seed);
    w->kv_bytes = (uint64_t)PAGES * PAGE * HISTORY_D_QK * sizeof(uint16_t);
    for (uint32_t layer = 0; layer < 2; layer++) {
        w->kv[layer] = malloc(w->kv_bytes);
        assert_non_null(w->kv[layer]);
    }
    const struct rt_seq_params bank = {.struct_size = sizeof(bank), .length = BANK * PAGE};
    const struct rt_seq_params own = {
        .struct_size = sizeof(own), .pages = RT_PAGES_CALLER, .last_token = -1};
    rt_seq seq;
    uint32_t pages;
    assert_int_equal(rt_seq_open(w->rt, &bank, &seq), RT_OK);
    assert_int_equal(rt_seq_pages(w->rt, seq, w->bank, BANK, &pages), RT_OK);
    assert_int_equal(rt_seq_open(w->rt, &own, &w->own.seq), RT_OK);
    assert_int_equal(rt_seq_bind_pages(w->rt, w->own.seq, 0, w->bank, 2), RT_OK);
    learn_pages(w, &w->own);
}

static void who_holds_what(void **state)
{
    (void)state;
    static struct walk w;
    w = (struct walk){.seed = 20, .chance = 20};
    begin(&w);
    for (w.move = 1; w.move <= MOVES; w.move++) {
        move(&w);
        compare(&w);
    }
    assert_true(w.refused > 10); /* the pool was empty at times */
    assert_true(w.chunks[0] > 20 && w.chunks[1] > 20);
    assert_true(w.ragged[0] > 20 && w.ragged[1] > 20);
    for (uint32_t i = 0; i < SEQUENCES; i++)
        if (w.sequences[i].there)
            let_go(&w, &w.sequences[i]);
    for (uint32_t i = 0; i < KEPT; i++)
        if (w.kept[i].there)
            let_go(&w, &w.kept[i]);
    compare(&w);
    assert_int_equal(w.rt->pages.free_count, PAGES - BANK);
    free(w.kv[0]);
    free(w.kv[1]);
    rt_destroy(&w.rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(who_holds_what)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
