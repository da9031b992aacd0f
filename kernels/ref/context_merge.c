/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks are threads or processes, whose mailboxes are memory of all of them. */
#include "common/math.h"
#include "kernels/ref/mailbox.h"
#include "kernels/ref/ref.h"

#include <string.h>

/* A token and head: `count` vectors of 16 bytes, from a block's thread `thread` on. */
struct item {
    const struct rt_context_merge_params *p;
    uint32_t token, head, block, thread, count, epoch;
};

static struct item item_of(const struct rt_context_merge_params *p, uint32_t token, uint32_t head)
{
    const uint32_t *const epochs = p->mailbox[p->rank];
    const uint32_t count = p->v_dim / 8, at = (head * p->tokens + token) * count;
    return (struct item){.p = p,
                         .token = token,
                         .head = head,
                         .block = at / RT_ALL_REDUCE_THREADS,
                         .thread = at % RT_ALL_REDUCE_THREADS,
                         .count = count,
                         .epoch = epochs[at / RT_ALL_REDUCE_THREADS] + 1};
}

/* What this rank has of it for `rank`. */
static const unsigned char *given(const struct item *i, uint32_t rank, float *lse)
{
    const struct rt_context_merge_params *const p = i->p;
    const uint64_t vectors = (uint64_t)p->v_dim * 2;
    const unsigned char *const head =
        (const unsigned char *)p->given + (uint64_t)(rank * p->heads + i->head) * p->head_bytes;
    memcpy(lse, head + p->tokens * vectors + i->token * sizeof(float), sizeof(*lse));
    return head + i->token * vectors;
}

static unsigned char *slot_of(const struct item *i, uint32_t owner, uint32_t source)
{
    return (unsigned char *)i->p->mailbox[owner] +
           rt_context_merge_slot(i->p->ranks, i->block, i->epoch, source);
}

/* The w-th 4 bytes of its vectors; the words with its lse of the w-th warp that has it. */
static uint64_t *number_at(const struct item *i, unsigned char *slot, uint32_t w)
{
    return rt_ref_mailbox_word(slot, i->thread + w / 4, w % 4);
}

static uint64_t *lse_at(const struct item *i, unsigned char *slot, uint32_t w)
{
    return (uint64_t *)(void *)(slot + rt_context_merge_lse_pair(i->thread / 32 + w));
}

static void send(const struct item *i, uint32_t owner)
{
    unsigned char *const slot = slot_of(i, owner, i->p->rank);
    float lse;
    uint32_t number;
    const unsigned char *const from = given(i, owner, &lse);
    for (uint32_t w = 0; w < 4 * i->count; w++) {
        memcpy(&number, from + 4 * w, sizeof(number));
        rt_ref_mailbox_put(number_at(i, slot, w), i->epoch, number);
    }
    memcpy(&number, &lse, sizeof(number));
    for (uint32_t w = 0; w < i->count / 32; w++) {
        rt_ref_mailbox_put(lse_at(i, slot, w), i->epoch, number);
        rt_ref_mailbox_put(lse_at(i, slot, w) + 1, i->epoch, number);
    }
}

/* False: nobody comes any more. */
static bool take(const struct item *i, uint32_t source, uint16_t *numbers, float *lse)
{
    unsigned char *const slot = slot_of(i, i->p->rank, source);
    uint32_t number;
    for (uint32_t w = 0; w < 4 * i->count; w++) {
        if (!rt_ref_mailbox_take(number_at(i, slot, w), i->epoch, i->p->stop, &number))
            return false;
        memcpy(numbers + (uint64_t)2 * w, &number, sizeof(number));
    }
    if (!rt_ref_mailbox_take(lse_at(i, slot, 0), i->epoch, i->p->stop, &number))
        return false;
    memcpy(lse, &number, sizeof(*lse));
    return true;
}

static void merge(const struct item *i)
{
    const struct rt_context_merge_params *const p = i->p;
    uint16_t pieces[RT_ALL_REDUCE_MOST_RANKS][RT_MERGE_MOST_DIM];
    float lse[RT_ALL_REDUCE_MOST_RANKS];
    const uint64_t at = (uint64_t)i->token * p->heads + i->head;
    for (uint32_t r = 0; r < p->ranks; r++)
        if (r == p->rank)
            memcpy(pieces[r], given(i, r, &lse[r]), (size_t)p->v_dim * 2);
        else if (!take(i, r, pieces[r], &lse[r]))
            return;
    const struct rt_merge_params m = {
        .in = {.base = pieces, .piece_stride = RT_MERGE_MOST_DIM},
        .in_lse = {.base = lse, .piece_stride = 1},
        .out = {.base = (uint16_t *)p->out + at * p->v_dim},
        .out_lse = {.base = (float *)p->out_lse + at},
        .pieces = p->ranks,
        .tokens = 1,
        .heads = 1,
        .v_dim = p->v_dim,
    };
    rt_ref_merge(&m);
}

void rt_ref_context_merge_send(const struct rt_context_merge_params *p)
{
    for (uint32_t head = 0; head < p->heads; head++)
        for (uint32_t token = 0; token < p->tokens; token++) {
            const struct item i = item_of(p, token, head);
            for (uint32_t r = 0; r < p->ranks; r++)
                if (r != p->rank)
                    send(&i, r);
        }
}

void rt_ref_context_merge(const void *params)
{
    const struct rt_context_merge_params *const p = params;
    uint32_t *const epochs = p->mailbox[p->rank];
    rt_ref_context_merge_send(p);
    for (uint32_t head = 0; head < p->heads; head++)
        for (uint32_t token = 0; token < p->tokens; token++) {
            const struct item i = item_of(p, token, head);
            merge(&i);
        }
    for (uint32_t b = 0; b * RT_ALL_REDUCE_THREADS < rt_context_merge_vectors(p); b++)
        epochs[b]++;
}
