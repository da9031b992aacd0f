/* SPDX-License-Identifier: Apache-2.0 */
/* What comes back from the device: completions, results, and waiting for them. */
#include "runtime/ranks_impl.h"
#include "runtime/runtime.h"

#include <inttypes.h>
#include <time.h>

/* Spins between two looks at the clock, and looks at the clock between two questions to the driver:
 * a completion is seen within a cache miss, a dead device within about a millisecond. */
#define SPINS_PER_CLOCK 256
#define QUERY_INTERVAL_NS 1000000u

/* More rows than this do not hold up whoever waits: the core tracks a few tens of misses. */
#define WARM_ROWS 128u

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Lengths of the rows whose tokens the device counted. */
static void settle_lengths(struct rt_runtime *rt, const struct rt_flight *flight,
                           const struct rt_completion *completion)
{
    const struct rt_record_row *rows =
        rt_ring_rows(&rt->ring, rt_ring_record_of(&rt->ring, flight->step));
    const struct rt_row_outcome *outcomes = rt_ring_outcomes(completion);
    for (uint32_t i = 0; i < flight->rows; i++) {
        struct rt_slot *slot = &rt->slots[rows[i].slot];
        if (rows[i].accept != RT_ACCEPT_BY_DEVICE ||
            rt_slot_rest(rt, slot)->opened_step > flight->step)
            continue;
        slot->undecided -= rows[i].tokens;
        slot->length -= rows[i].tokens - (uint32_t)outcomes[i].accepted;
        rt_slot_rest(rt, slot)->taken_back += rows[i].tokens - (uint32_t)outcomes[i].accepted;
        if (outcomes[i].sampled >= 0) /* known, even where no token stayed */
            slot->nameless = RT_NEVER_NAMELESS;
    }
}

static void count_gap(struct rt_stats *s, const struct rt_completion *from,
                      const struct rt_completion *to)
{
    if (!from->step)
        return;
    s->gap_graph_ns = to->t_begin > from->t_end ? to->t_begin - from->t_end : 0;
    /* A chunk may have had no attention of rows, and blocks of one kernel each have none by itself:
     * then there are no stamps. */
    if (!from->t_attend_last || to->t_attend_first <= from->t_attend_last)
        return;
    s->gap_ns_last = to->t_attend_first - from->t_attend_last;
    s->gap_ns_total += s->gap_ns_last;
    if (!s->gap_steps || s->gap_ns_last < s->gap_ns_min)
        s->gap_ns_min = s->gap_ns_last;
    s->gap_steps++;
    s->gap_end_ns = from->t_end - from->t_attend_last;
    s->gap_begin_ns = to->t_attend_first - to->t_begin;
}

/* A step may be several replays, and is one once the last of them is seen: one that failed half-way
 * has no time, and neither ends a gap nor begins one. */
static void count_clocks(struct rt_runtime *rt, const struct rt_flight *flight,
                         const struct rt_completion *c)
{
    if (!flight->rows)
        return;
    if (flight->step == flight->ticket_first) {
        if (rt->first.step) /* never ended */
            rt->last.step = 0;
        rt->first = *c;
        rt->first.step =
            flight->step; /* the completion's own word may arrive later than the rest */
    }
    if (!flight->ends_call)
        return;
    struct rt_stats *s = &rt->stats;
    s->gpu_ns_last = c->t_end - rt->first.t_begin;
    s->gpu_ns_total += s->gpu_ns_last;
    s->gpu_steps++;
    count_gap(s, &rt->last, &rt->first);
    rt->first.step = 0;
    rt->last = *c;
    rt->last.step = flight->step;
}

/* The next record's lines are the device's, which has read their last life. Asked for as soon as
 * a completion is seen, for as many rows as last time, they come while the caller does other
 * things. */
static void warm_next(const struct rt_runtime *rt)
{
    const struct rt_flight *last = &rt->flights[(rt->ring.next_step - 1) % rt->ring.depth];
    const uint32_t rows = rt_min_u32(last->rows, WARM_ROWS);
    rt_ring_warm(&rt->ring, rows, (uint64_t)rows * last->query_len);
}

void rt_harvest(struct rt_runtime *rt)
{
    uint64_t completed = rt_ring_completed(&rt->ring);
    if (rt->harvested == completed)
        return;
    while (rt->harvested < completed) {
        uint64_t step = ++rt->harvested;
        const struct rt_flight *flight = &rt->flights[step % rt->ring.depth];
        const struct rt_completion *completion = rt_ring_completion(&rt->ring, step);
        if (RT_UNLIKELY(completion->error != RT_DEV_OK)) {
            rt->refused_step = step;
            rt->refusal = *completion;
        }
        if (flight->device_decides)
            settle_lengths(rt, flight, completion);
        count_clocks(rt, flight, completion);
    }
    warm_next(rt);
}

static const char *device_error_text(uint32_t error)
{
    static const char *const texts[] = {
        [RT_DEV_OK] = "nothing",
        [RT_DEV_STEP] = "step number",
        [RT_DEV_BUCKET] = "bucket",
        [RT_DEV_QUERY_LEN] = "query length",
        [RT_DEV_ROWS] = "live row count",
        [RT_DEV_SLOT] = "slot",
        [RT_DEV_LENGTH] = "length",
        [RT_DEV_PAGE] = "page",
        [RT_DEV_BLOCK] = "block-table column",
        [RT_DEV_ACCEPT] = "accepted count",
        [RT_DEV_OP] = "op",
        [RT_DEV_TOKENS] = "number of tokens",
    };
    return error < sizeof(texts) / sizeof(texts[0]) ? texts[error] : "unknown";
}

/* Is the device alive, and does it have work left? The caller's thread may never have met its
 * context. */
static enum rt_status ask_driver(struct rt_runtime *rt, bool *idle)
{
    struct rt_driver *d = &rt->driver;
    RT_TRY(RT_DRV(d, &rt->error, ctx_enter, (d)));
    enum rt_status status = RT_DRV(d, &rt->error, stream_query, (d, rt->stream, idle));
    const enum rt_status looked = rt_ranks_look(rt);
    (void)d->ctx_leave(d);
    return looked == RT_OK ? rt_stage_outcome(rt, status) : looked;
}

/* Seldom, and also for who only looks, again and again: a dead device never completes a step. */
static enum rt_status look_for_life(struct rt_runtime *rt, uint64_t step, uint64_t now)
{
    bool idle = false;
    RT_TRY(ask_driver(rt, &idle));
    rt->asked_ns = now; /* a failure is told again at once */
    RT_REQUIRE(!idle || rt_ring_completed(&rt->ring) >= step, &rt->error, RT_ERR_DEVICE_CHECK,
               "the stream is idle but step %" PRIu64 " never completed; completed: %" PRIu64, step,
               rt_ring_completed(&rt->ring));
    return RT_OK;
}

static enum rt_status wait_for(struct rt_runtime *rt, uint64_t step, uint64_t timeout_ns)
{
    if (rt_ring_completed(&rt->ring) >= step)
        return RT_OK;
    const uint64_t begin = now_ns();
    const bool for_ever = timeout_ns == UINT64_MAX;
    if (timeout_ns >= QUERY_INTERVAL_NS && !rt->held)
        rt->asked_ns = begin;
    for (;;) {
        for (uint32_t i = 0; timeout_ns && i < SPINS_PER_CLOCK; i++) {
            if (rt_ring_completed(&rt->ring) >= step)
                return RT_OK;
            pause_cpu();
        }
        const uint64_t now = now_ns();
        const bool no_end = rt->held && for_ever;
        if (now - rt->asked_ns >= QUERY_INTERVAL_NS || no_end)
            RT_TRY(look_for_life(rt, step, now));
        RT_REQUIRE(!no_end, &rt->error, RT_ERR_TIMEOUT,
                   "step %" PRIu64 " is held back and nothing runs while this waits; see "
                   "rt_host_release",
                   step);
        if (now - begin >= timeout_ns)
            return rt_fail(&rt->error, RT_ERR_TIMEOUT,
                           "step %" PRIu64 " is not complete after %" PRIu64
                           " ns; completed: %" PRIu64,
                           step, now - begin, rt_ring_completed(&rt->ring));
    }
}

enum rt_status rt_wait_step(struct rt_runtime *rt, uint64_t step)
{
    RT_TRY(wait_for(rt, step, UINT64_MAX));
    rt_harvest(rt);
    return RT_OK;
}

/* First step of the rt_step call that gave the ticket, while the ring remembers; else the ticket.
 */
static uint64_t ticket_first(const struct rt_runtime *rt, uint64_t ticket)
{
    const struct rt_flight *flight = &rt->flights[ticket % rt->ring.depth];
    return flight->step == ticket ? flight->ticket_first : ticket;
}

static enum rt_status check_ticket(struct rt_runtime *rt, uint64_t ticket)
{
    RT_REQUIRE(ticket && ticket < rt->ring.next_step, &rt->error, RT_ERR_INVALID,
               "ticket %" PRIu64 " was never given; the last is %" PRIu64, ticket,
               rt->ring.next_step - 1);
    return RT_OK;
}

static enum rt_status check_completion(struct rt_runtime *rt, uint64_t step,
                                       const struct rt_completion *c)
{
    RT_REQUIRE(c->error == RT_DEV_OK, &rt->error, RT_ERR_DEVICE_CHECK,
               "step %" PRIu64 ", row %u: the device refused %s %" PRId64, step, c->error_row,
               device_error_text(c->error), c->error_value);
    return RT_OK;
}

enum rt_status rt_wait(rt_runtime *rt, uint64_t ticket, uint64_t timeout_ns)
{
    RT_ENTER(rt);
    RT_TRY(check_ticket(rt, ticket));
    RT_TRY(wait_for(rt, ticket, timeout_ns));
    rt_harvest(rt);
    const struct rt_flight *flight = &rt->flights[ticket % rt->ring.depth];
    const uint64_t first = flight->step == ticket ? flight->call_first : ticket;
    /* Of the steps that the ring has forgotten, the last refusal is remembered. */
    if (rt->refused_step >= first && rt->refused_step <= ticket)
        return check_completion(rt, rt->refused_step, &rt->refusal);
    for (uint64_t step = first; step <= ticket; step++)
        if (step + rt->ring.depth >= rt->ring.next_step)
            RT_TRY(check_completion(rt, step, rt_ring_completion(&rt->ring, step)));
    return RT_OK;
}

/* No RT_ENTER, no sentence: another thread may be writing either. What is read here is decided by
 * create, but for the word. */
enum rt_status rt_completed(const rt_runtime *rt, uint64_t *ticket)
{
    RT_REQUIRE(rt && ticket, NULL, RT_ERR_INVALID, "rt_completed: runtime or ticket is null");
    *ticket = rt_ring_completed(&rt->ring);
    return RT_OK;
}

enum rt_status rt_completed_word(const rt_runtime *rt, const uint64_t **word)
{
    RT_REQUIRE(rt && word, NULL, RT_ERR_INVALID, "rt_completed_word: runtime or word is null");
    *word = rt->ring.completed;
    return RT_OK;
}

enum rt_status rt_synchronize(rt_runtime *rt)
{
    RT_ENTER(rt);
    struct rt_driver *d = &rt->driver;
    RT_TRY(RT_DRV(d, &rt->error, ctx_enter, (d)));
    enum rt_status status = rt_ranks_settle(rt);
    if (status == RT_OK)
        status = RT_DRV(d, &rt->error, stream_sync, (d, rt->stream));
    (void)d->ctx_leave(d);
    if (status == RT_OK)
        rt_harvest(rt);
    return rt_stage_outcome(rt, status);
}

/* The ticket's step is complete and the ring still holds what came of it, from step *out on. */
static enum rt_status check_held(struct rt_runtime *rt, uint64_t ticket, uint64_t *out)
{
    RT_TRY(check_ticket(rt, ticket));
    rt_harvest(rt);
    RT_REQUIRE(rt->harvested >= ticket, &rt->error, RT_ERR_INVALID,
               "step %" PRIu64 " is not complete; completed: %" PRIu64, ticket, rt->harvested);
    uint64_t first = ticket_first(rt, ticket);
    RT_REQUIRE(first + rt->ring.depth >= rt->ring.next_step &&
                   rt->flights[ticket % rt->ring.depth].step == ticket &&
                   (rt->flights[ticket % rt->ring.depth].rows ||
                    rt->flights[ticket % rt->ring.depth].ends_call),
               &rt->error, RT_ERR_INVALID,
               "the ring no longer holds the results of step %" PRIu64
               ": it has %u records, the last is that of %" PRIu64,
               ticket, rt->ring.depth, rt->ring.next_step - 1);
    *out = first;
    return RT_OK;
}

enum rt_status rt_result(rt_runtime *rt, uint64_t ticket, struct rt_row_result *rows,
                         uint32_t capacity, uint32_t *count)
{
    RT_ENTER(rt);
    RT_REQUIRE(count && (rows || !capacity), &rt->error, RT_ERR_INVALID,
               "rt_result: count or rows is null");
    uint64_t first = 0;
    RT_TRY(check_held(rt, ticket, &first));
    uint32_t total = 0;
    for (uint64_t step = first; step <= ticket; step++) {
        const struct rt_row_outcome *outcomes =
            rt_ring_outcomes(rt_ring_completion(&rt->ring, step));
        uint32_t live = rt->flights[step % rt->ring.depth].rows;
        for (uint32_t i = 0; i < live; i++, total++)
            if (total < capacity)
                rows[total] = (struct rt_row_result){.accepted = outcomes[i].accepted,
                                                     .sampled = outcomes[i].sampled};
    }
    *count = total;
    return RT_OK;
}

enum rt_status rt_result_tokens(rt_runtime *rt, uint64_t ticket, int32_t *tokens, uint32_t capacity,
                                uint32_t *count)
{
    RT_ENTER(rt);
    RT_REQUIRE(count && (tokens || !capacity), &rt->error, RT_ERR_INVALID,
               "rt_result_tokens: count or tokens is null");
    uint64_t first = 0;
    RT_TRY(check_held(rt, ticket, &first));
    uint32_t total = 0;
    for (uint64_t step = first; step <= ticket; step++) {
        const int32_t *from =
            rt_ring_outcome_tokens(&rt->ring, rt_ring_completion(&rt->ring, step));
        const struct rt_flight *flight = &rt->flights[step % rt->ring.depth];
        for (uint32_t row = 0; row < flight->rows; row++) {
            const uint32_t columns = row < flight->prompts ? 1 : flight->query_len;
            for (uint32_t t = 0; t < columns; t++, total++)
                if (total < capacity)
                    tokens[total] = from[row * flight->query_len + t];
        }
    }
    *count = total;
    return RT_OK;
}
