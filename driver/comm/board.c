/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/comm/board.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define NS_PER_S 1e9
#define LOOK_NS 1000000u
#define SLEEP_NS 50000
/* Turns of waiting that spin, and that only yield, before it sleeps. */
#define SPINS 200u
#define YIELDS 400u

static const char *const field_words[] = {
#define FIELD_WORDS(name, words) [RT_BOARD_##name] = (words),
    RT_BOARD_FIELDS(FIELD_WORDS)
#undef FIELD_WORDS
};

uint64_t rt_board_now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool rt_board_pause(struct rt_board_wait *w)
{
    if (++w->turns < SPINS)
        return false;
    if (w->turns < YIELDS)
        (void)sched_yield();
    else
        (void)nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
    const uint64_t now = rt_board_now_ns();
    if (now - w->looked_ns < LOOK_NS)
        return false;
    w->looked_ns = now;
    return true;
}

/* ---- who is there ---------------------------------------------------------------------------- */

/* The lock is asked first: a rank that leaves says so and then lets it go. */
enum rt_status rt_board_is_there(const struct rt_board *b, uint32_t rank, struct rt_error *err)
{
    const struct rt_board_line *const line = &b->page->lines[rank];
    const bool holds = rt_board_holds(b, rank);
    const uint32_t state = atomic_load(&line->state);
    const uint64_t step = atomic_load(&line->step);
    RT_REQUIRE(state != RT_BOARD_FAILED, err, RT_ERR_RANKS,
               "rank %" PRIu32 " has given up at step %" PRIu64 ": %.*s", rank, step,
               (int)sizeof(line->story), line->story);
    RT_REQUIRE(state != RT_BOARD_LEFT, err, RT_ERR_RANKS,
               "rank %" PRIu32 " has left the group; its last step was %" PRIu64, rank, step);
    RT_REQUIRE(holds, err, RT_ERR_RANKS,
               "rank %" PRIu32 " is gone, its process has ended; its last step was %" PRIu64, rank,
               step);
    return RT_OK;
}

enum rt_status rt_board_others_are_there(const struct rt_board *b, struct rt_error *err)
{
    for (uint32_t r = 0; r < b->ranks; r++)
        if (r != b->rank)
            RT_TRY(rt_board_is_there(b, r, err));
    return RT_OK;
}

/* Likewise, but of a rank that has come to `wanted` of its count, and may have left since. */
static enum rt_status has_come_or_is_there(const struct rt_board *b, uint32_t rank,
                                           const _Atomic uint64_t *count, uint64_t wanted,
                                           struct rt_error *err)
{
    if (rt_board_is_there(b, rank, NULL) == RT_OK || atomic_load(count) >= wanted)
        return RT_OK;
    return rt_board_is_there(b, rank, err);
}

void rt_board_give_up(struct rt_board *b, const char *story)
{
    struct rt_board_line *const line = rt_board_mine(b);
    if (atomic_load(&line->state) != RT_BOARD_JOINED)
        return;
    (void)snprintf(line->story, sizeof(line->story), "%s", story);
    atomic_store(&line->state, RT_BOARD_FAILED);
}

void rt_board_leave(struct rt_board *b)
{
    uint32_t joined = RT_BOARD_JOINED;
    (void)atomic_compare_exchange_strong(&rt_board_mine(b)->state, &joined, RT_BOARD_LEFT);
}

void rt_board_let_go(struct rt_board *b)
{
    rt_board_leave(b);
    atomic_store(&rt_board_mine(b)->let_go, 1);
}

bool rt_board_all_let_go(const struct rt_board *b, uint64_t limit_ns)
{
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    for (uint32_t r = 0; r < b->ranks; r++)
        while (r != b->rank && !atomic_load(&b->page->lines[r].let_go) && rt_board_holds(b, r)) {
            if (rt_board_now_ns() - w.begin_ns > limit_ns)
                return false;
            (void)rt_board_pause(&w);
        }
    return true;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* Who has read a field of a later step from it finds the step's number gone or changed behind it:
 * fields are released one by one, and acquired, which a thread sanitizer follows and fences not.
 * The number of the line is in one order with compare_all's reads: of two ranks that post at once
 * one sees the other's, where with less both may have read before either's number is out. */
static void write_step(struct rt_board *b, const uint32_t fields[RT_BOARD_FIELD_COUNT])
{
    struct rt_board_line *const line = rt_board_mine(b);
    const uint64_t step = ++b->step;
    struct rt_board_step *const s = &line->steps[step % RT_BOARD_STEPS];
    atomic_store_explicit(&s->step, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < RT_BOARD_FIELD_COUNT; i++)
        atomic_store_explicit(&s->fields[i], fields[i], memory_order_release);
    atomic_store_explicit(&s->step, step, memory_order_release);
    atomic_store(&line->step, step);
}

/* False: the line is not so far, or has forgotten it. */
static bool read_step(const struct rt_board_line *line, uint64_t step,
                      uint32_t fields[RT_BOARD_FIELD_COUNT])
{
    const struct rt_board_step *const s = &line->steps[step % RT_BOARD_STEPS];
    if (atomic_load_explicit(&s->step, memory_order_acquire) != step)
        return false;
    for (uint32_t i = 0; i < RT_BOARD_FIELD_COUNT; i++)
        fields[i] = atomic_load_explicit(&s->fields[i], memory_order_acquire);
    return atomic_load_explicit(&s->step, memory_order_relaxed) == step;
}

/* A rank with nothing to decode goes along with any number of rows. */
static bool agree(enum rt_board_field field, const uint32_t *mine, const uint32_t *theirs)
{
    const bool is_of_rows =
        field == RT_BOARD_ROWS || field == RT_BOARD_TOKENS || field == RT_BOARD_SHARES;
    const bool is_idle = mine[RT_BOARD_ROWS] == 0 || theirs[RT_BOARD_ROWS] == 0;
    return mine[field] == theirs[field] || (is_of_rows && is_idle);
}

static enum rt_status compare(const struct rt_board *b, uint32_t rank, uint64_t step,
                              struct rt_error *err)
{
    uint32_t mine[RT_BOARD_FIELD_COUNT], theirs[RT_BOARD_FIELD_COUNT];
    if (!read_step(rt_board_mine(b), step, mine) || !read_step(&b->page->lines[rank], step, theirs))
        return RT_OK;
    for (uint32_t i = 0; i < RT_BOARD_FIELD_COUNT; i++)
        RT_REQUIRE(agree((enum rt_board_field)i, mine, theirs), err, RT_ERR_RANKS,
                   "step %" PRIu64 ": rank %" PRIu32 " has %s %" PRIu32 ", rank %" PRIu32
                   " (this one) has %" PRIu32,
                   step, rank, field_words[i], theirs[i], b->rank, mine[i]);
    return RT_OK;
}

/* All steps that both have told of and that were not compared yet. */
static enum rt_status compare_all(struct rt_board *b, uint32_t rank, struct rt_error *err)
{
    const uint64_t theirs = atomic_load(&b->page->lines[rank].step);
    const uint64_t common = theirs < b->step ? theirs : b->step;
    uint64_t *const agreed = &b->peers[rank].agreed;
    if (common > RT_BOARD_STEPS && *agreed < common - RT_BOARD_STEPS)
        *agreed = common - RT_BOARD_STEPS;
    for (; *agreed < common; ++*agreed)
        RT_TRY(compare(b, rank, *agreed + 1, err));
    return RT_OK;
}

enum rt_status rt_board_post(struct rt_board *b, const uint32_t fields[RT_BOARD_FIELD_COUNT],
                             struct rt_error *err)
{
    const uint64_t now = rt_board_now_ns();
    write_step(b, fields);
    for (uint32_t r = 0; r < b->ranks; r++) {
        if (r == b->rank)
            continue;
        RT_TRY(compare_all(b, r, err));
        /* Time counts from where this rank got ahead, not from where both were idle. */
        if (b->peers[r].agreed + 1 >= b->step) {
            b->peers[r].step = b->peers[r].agreed;
            b->peers[r].moved_ns = now;
        }
    }
    return RT_OK;
}

/* A rank that is behind may be slow, but not for ever. */
static enum rt_status look_at(struct rt_board *b, uint32_t rank, uint64_t now, struct rt_error *err)
{
    const _Atomic uint64_t *const step = &b->page->lines[rank].step;
    const uint64_t theirs = atomic_load_explicit(step, memory_order_acquire);
    RT_TRY(compare_all(b, rank, err));
    if (theirs >= b->step || theirs != b->peers[rank].step) {
        b->peers[rank].step = theirs;
        b->peers[rank].moved_ns = now;
    }
    if (theirs >= b->step)
        return RT_OK;
    RT_TRY(has_come_or_is_there(b, rank, step, b->step, err));
    RT_REQUIRE(now - b->peers[rank].moved_ns <= b->limit_ns, err, RT_ERR_RANKS,
               "rank %" PRIu32 " has not begun step %" PRIu64 " within %.3f s; its last is %" PRIu64
               ", that of rank %" PRIu32 " (this one) %" PRIu64,
               rank, theirs + 1, (double)b->limit_ns / NS_PER_S, theirs, b->rank, b->step);
    return RT_OK;
}

enum rt_status rt_board_look(struct rt_board *b, struct rt_error *err)
{
    const uint64_t now = rt_board_now_ns();
    for (uint32_t r = 0; r < b->ranks; r++)
        if (r != b->rank)
            RT_TRY(look_at(b, r, now, err));
    return RT_OK;
}

/* ---- exchanges ------------------------------------------------------------------------------- */

static const char *const call_words[RT_BOARD_CALL_WORDS] = {[RT_BOARD_KIND] = "kind",
                                                            [RT_BOARD_DTYPE] = "dtype",
                                                            [RT_BOARD_COUNT] = "elements",
                                                            [RT_BOARD_GROUP] = "ranks of a group"};

static enum rt_status await_part(struct rt_board *b, uint32_t rank, struct rt_board_wait *w,
                                 struct rt_error *err)
{
    while (atomic_load_explicit(&b->page->lines[rank].part, memory_order_acquire) < b->part) {
        if (!rt_board_pause(w))
            continue;
        RT_TRY(rt_board_look(b, err));
        RT_TRY(has_come_or_is_there(b, rank, &b->page->lines[rank].part, b->part, err));
        RT_REQUIRE(!rt_board_is_late(b, w), err, RT_ERR_RANKS,
                   "rank %" PRIu32 " has not come to exchange %" PRIu64 " of step %" PRIu64
                   " within %.3f s; its last step is %" PRIu64,
                   rank, b->part, b->step, (double)b->limit_ns / NS_PER_S,
                   atomic_load(&b->page->lines[rank].step));
    }
    return RT_OK;
}

/* Of a rank that has come to this part. Of another step, that is the better story. */
static enum rt_status compare_call(struct rt_board *b, uint32_t rank,
                                   const uint64_t words[RT_BOARD_CALL_WORDS], struct rt_error *err)
{
    const _Atomic uint64_t *const calls = b->page->lines[rank].calls[b->part % 2];
    for (uint32_t i = 0; i < RT_BOARD_CALL_WORDS; i++) {
        const uint64_t theirs = atomic_load_explicit(&calls[i], memory_order_relaxed);
        if (theirs == words[i])
            continue;
        RT_TRY(rt_board_look(b, err));
        return rt_fail(err, RT_ERR_RANKS,
                       "exchange %" PRIu64 " of step %" PRIu64 ": rank %" PRIu32 " has %s %" PRIu64
                       ", rank %" PRIu32 " (this one) %" PRIu64,
                       b->part, b->step, rank, call_words[i], theirs, b->rank, words[i]);
    }
    return RT_OK;
}

enum rt_status rt_board_meet(struct rt_board *b, const uint64_t words[RT_BOARD_CALL_WORDS],
                             struct rt_error *err)
{
    struct rt_board_line *const mine = rt_board_mine(b);
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    const uint64_t part = ++b->part;
    for (uint32_t i = 0; i < RT_BOARD_CALL_WORDS; i++)
        atomic_store_explicit(&mine->calls[part % 2][i], words[i], memory_order_relaxed);
    atomic_store_explicit(&mine->part, part, memory_order_release);
    for (uint32_t r = 0; r < b->ranks; r++) {
        RT_TRY(await_part(b, r, &w, err));
        RT_TRY(compare_call(b, r, words, err));
    }
    return RT_OK;
}

/* ---- rank 0's word --------------------------------------------------------------------------- */

void rt_board_give_id(struct rt_board *b, const unsigned char id[RT_BOARD_ID_BYTES])
{
    memcpy(b->page->id, id, RT_BOARD_ID_BYTES);
    atomic_store_explicit(&b->page->has_id, 1, memory_order_release);
}

enum rt_status rt_board_take_id(struct rt_board *b, unsigned char id[RT_BOARD_ID_BYTES],
                                struct rt_error *err)
{
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    while (!atomic_load_explicit(&b->page->has_id, memory_order_acquire)) {
        if (!rt_board_pause(&w))
            continue;
        RT_TRY(rt_board_is_there(b, 0, err));
        RT_REQUIRE(!rt_board_is_late(b, &w), err, RT_ERR_RANKS,
                   "rank 0 has given no id of a communicator within %.3f s",
                   (double)b->limit_ns / NS_PER_S);
    }
    memcpy(id, b->page->id, RT_BOARD_ID_BYTES);
    return RT_OK;
}
