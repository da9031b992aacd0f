/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/verify_ranks.h"

#include "tools/verify_run.h"

#include <inttypes.h>
#include <string.h>

_Static_assert(VERIFY_SIDES == SIDES, "a group for every side");

/* ---- meeting --------------------------------------------------------------------------------- */

static enum rt_status meet(const struct verify_options *o, rt_ranks **group, struct rt_error *error)
{
    const struct rt_ranks_params params = {
        .struct_size = sizeof(params), .rank = o->rank, .ranks = o->ranks, .path = o->meeting};
    return rt_ranks_create(&params, group, error);
}

enum rt_status verify_ranks_meet(struct verify_ranks *r, const struct verify_options *options,
                                 struct rt_config *config, struct rt_error *error)
{
    *r = (struct verify_ranks){.rank = options->rank, .ranks = options->ranks};
    if (!r->ranks)
        return RT_OK;
    TRY(meet(options, &r->verdict, error));
    for (int side = 0; side < SIDES; side++)
        TRY(meet(options, &r->sides[side], error));
    return rt_ranks_cut(r->verdict, config, error);
}

/* ---- the verdict ----------------------------------------------------------------------------- */

/* No number of a rank, and no text: what those say that have nothing to say. */
#define NOTHING UINT32_MAX

/* words [count] of rank `from` become everybody's. */
static enum rt_status pass_on(rt_ranks *group, bool mine, uint32_t *words, uint32_t count,
                              struct rt_error *error)
{
    for (uint32_t i = 0; !mine && i < count; i++)
        words[i] = NOTHING;
    for (uint32_t done = 0; done < count; done += RT_MAX_LEAST) {
        const uint32_t left = count - done;
        TRY(rt_ranks_least(group, words + done, left < RT_MAX_LEAST ? left : RT_MAX_LEAST, error));
    }
    return RT_OK;
}

struct story {
    uint32_t status;
    char text[sizeof(((struct rt_error *)0)->message)];
};
_Static_assert(sizeof(struct story) % sizeof(uint32_t) == 0, "a story is words");

/* Whose story is told: a rank that has failed by itself before one that another has failed. */
static enum rt_status choose_teller(const struct verify_ranks *r, enum rt_status status,
                                    uint32_t *teller, struct rt_error *error)
{
    *teller = status == RT_OK ? NOTHING : status == RT_ERR_RANKS ? RT_MAX_RANKS + r->rank : r->rank;
    TRY(rt_ranks_least(r->verdict, teller, 1, error));
    if (*teller != NOTHING)
        *teller %= RT_MAX_RANKS;
    return RT_OK;
}

static enum rt_status tell(const struct verify_ranks *r, enum rt_status *status,
                           struct rt_error *error)
{
    uint32_t words[sizeof(struct story) / sizeof(uint32_t)], teller;
    struct rt_error lost = {.status = RT_OK};
    struct story story = {.status = (uint32_t)*status};
    TRY(choose_teller(r, *status, &teller, &lost));
    if (teller == NOTHING)
        return RT_OK;
    if (r->rank == teller && error)
        memcpy(story.text, error->message, sizeof(story.text));
    memcpy(words, &story, sizeof(words));
    TRY(pass_on(r->verdict, r->rank == teller, words, sizeof(words) / sizeof(words[0]), &lost));
    memcpy(&story, words, sizeof(words));
    story.text[sizeof(story.text) - 1] = '\0';
    char who[32];
    (void)snprintf(who, sizeof(who), "rank %" PRIu32 " of %" PRIu32, teller, r->ranks);
    *status = verify_say(error, (enum rt_status)story.status, who, story.text);
    return RT_OK;
}

enum rt_status verify_ranks_part(struct verify_ranks *r, enum rt_status status,
                                 struct verify_report *report, struct rt_error *error)
{
    for (int side = 0; side < SIDES; side++)
        report->lingers |= rt_ranks_destroy(&r->sides[side]) != RT_OK;
    report->told = !r->ranks || (r->verdict && tell(r, &status, error) == RT_OK);
    (void)rt_ranks_destroy(&r->verdict);
    return status;
}

/* ---- the same on all ranks ------------------------------------------------------------------- */

/* What is made of a rank's own heads is its own; and where ranks share a context, its pages are. */
static bool is_shared(const struct run *run, const char *name)
{
    static const char *const of_heads[] = {"q", "out", "lse"};
    for (size_t i = 0; i < sizeof(of_heads) / sizeof(of_heads[0]); i++)
        if (strcmp(name, of_heads[i]) == 0)
            return false;
    return run->config.context_parallel == 1 || strcmp(name, "kv") != 0;
}

/* Not for those who would find two that have the same one. */
static uint64_t digest_of(const unsigned char *bytes, uint64_t count)
{
    uint64_t digest = count, word;
    for (uint64_t at = 0; at < count; at += sizeof(word)) {
        word = 0;
        memcpy(&word, bytes + at, count - at < sizeof(word) ? count - at : sizeof(word));
        digest = (digest ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        digest ^= digest >> 29;
    }
    return digest;
}

enum rt_status verify_ranks_note(struct run *run, const char *name, uint32_t layer, uint64_t bytes,
                                 const struct shape *s)
{
    struct verify_ranks *const r = run->ranks;
    if (!r->ranks || !is_shared(run, name))
        return RT_OK;
    if (r->count == VERIFY_DIGESTS)
        TRY(verify_ranks_compare(run, s));
    const uint64_t digest = digest_of(run->seen[REPLAY], bytes);
    r->words[2 * r->count] = (uint32_t)digest;
    r->words[2 * r->count + 1] = (uint32_t)(digest >> 32);
    r->names[r->count] = name;
    r->layers[r->count++] = layer;
    run->report->bytes_of_ranks += bytes;
    return RT_OK;
}

/* The first rank that has seen another than rank 0, and where: all come to the same. */
static enum rt_status find_other(struct verify_ranks *r, uint32_t *rank, uint32_t *digest,
                                 struct rt_error *error)
{
    uint32_t words[RT_MAX_LEAST], at = 0;
    const uint32_t count = 2 * r->count;
    memcpy(words, r->words, sizeof(words));
    TRY(pass_on(r->sides[REPLAY], r->rank == 0, words, count, error));
    while (at < count && words[at] == r->words[at])
        at++;
    uint32_t found = at < count ? r->rank * VERIFY_DIGESTS + at / 2 : NOTHING;
    TRY(rt_ranks_least(r->sides[REPLAY], &found, 1, error));
    *rank = found == NOTHING ? NOTHING : found / VERIFY_DIGESTS;
    *digest = found % VERIFY_DIGESTS;
    return RT_OK;
}

enum rt_status verify_ranks_compare(struct run *run, const struct shape *s)
{
    struct verify_ranks *const r = run->ranks;
    uint32_t rank, digest;
    char text[256];
    if (!r->ranks || !r->count)
        return RT_OK;
    TRY(find_other(r, &rank, &digest, run->error));
    r->count = 0;
    if (rank == NOTHING)
        return RT_OK;
    (void)snprintf(text, sizeof(text),
                   "tensor %s, layer %" PRIu32 ": rank %" PRIu32 " has other bits than rank 0; %s, "
                   "step %" PRIu64,
                   r->names[digest], r->layers[digest], rank, s->name, run->report->steps);
    return verify_say(run->error, RT_ERR_INTERNAL, "difference", text);
}
