/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks are threads or processes, whose mailboxes are memory of all of them. */
#include "common/math.h"
#include "kernels/ref/mailbox.h"
#include "kernels/ref/number.h"
#include "kernels/ref/ref.h"

#include <string.h>

/* What a block does: its exchange's number, and the vectors that it has of the numbers. */
struct share {
    const struct rt_all_reduce_params *p;
    uint32_t block, epoch, first, count;
};

static uint32_t blocks_of(const struct rt_all_reduce_params *p)
{
    return rt_ceil_div_u32(p->bytes, RT_ALL_REDUCE_BLOCK_BYTES);
}

/* Of vectors from `first` on, behind the last of which is `end`. */
static struct share share_between(const struct rt_all_reduce_params *p, uint32_t block,
                                  uint32_t first, uint32_t end)
{
    const uint32_t *const epochs = p->mailbox[p->rank];
    return (struct share){.p = p,
                          .block = block,
                          .epoch = epochs[block] + 1,
                          .first = first,
                          .count = rt_min_u32(end - first, RT_ALL_REDUCE_THREADS)};
}

static struct share share_of(const struct rt_all_reduce_params *p, uint32_t block)
{
    return share_between(p, block, block * RT_ALL_REDUCE_THREADS,
                         p->bytes / RT_ALL_REDUCE_VECTOR_BYTES);
}

/* Of a token's numbers what is in its slot of that number. */
static struct share share_of_token(const struct rt_all_reduce_norm_params *p, uint32_t token,
                                   uint32_t slot)
{
    const uint32_t vectors = p->norm.norm.width / 8, first = token * vectors;
    return share_between(&p->sum, token * RT_ALL_REDUCE_NORM_SLOTS(p->norm.norm.width) + slot,
                         first + slot * RT_ALL_REDUCE_THREADS, first + vectors);
}

/* Of the vector of `thread` that `source` sends to `owner`: word 0..3. */
static uint64_t *word_at(const struct share *s, uint32_t owner, uint32_t source, uint32_t thread,
                         uint32_t word)
{
    const uint64_t slot = rt_all_reduce_slot(s->p->ranks, s->block, s->epoch, source);
    unsigned char *const mailbox = s->p->mailbox[owner];
    return rt_ref_mailbox_word(mailbox + slot, thread, word);
}

static void send(const struct share *s)
{
    const unsigned char *const from = s->p->from;
    for (uint32_t owner = 0; owner < s->p->ranks; owner++)
        for (uint32_t i = 0; i < 4 * s->count && owner != s->p->rank; i++) {
            uint32_t number;
            memcpy(&number, from + (uint64_t)s->first * RT_ALL_REDUCE_VECTOR_BYTES + 4 * i, 4);
            rt_ref_mailbox_put(word_at(s, owner, s->p->rank, i / 4, i % 4), s->epoch, number);
        }
}

/* False: nobody comes any more. */
static bool take(const struct share *s, uint32_t source, uint32_t i, uint32_t *number)
{
    return rt_ref_mailbox_take(word_at(s, s->p->rank, source, i / 4, i % 4), s->epoch, s->p->stop,
                               number);
}

/* The i-th 4 bytes of the share, one number or two. */
static void sum(const struct share *s, uint32_t i)
{
    const struct rt_all_reduce_params *const p = s->p;
    const uint64_t at = (uint64_t)s->first * RT_ALL_REDUCE_VECTOR_BYTES + 4 * i;
    const uint32_t numbers = p->is_f32 ? 1 : 2;
    double total[2] = {0, 0};
    for (uint32_t r = 0; r < p->ranks; r++) {
        uint32_t packed;
        memcpy(&packed, (const unsigned char *)p->from + at, 4);
        if (r != p->rank && !take(s, r, i, &packed))
            return;
        for (uint32_t n = 0; n < numbers; n++) {
            const double number = rt_ref_load(&packed, n, p->is_f32);
            total[n] = r == 0 ? number : total[n] + number; /* a sum of -0 alone is -0 */
        }
    }
    for (uint32_t n = 0; n < numbers; n++)
        rt_ref_store((unsigned char *)p->to + at, n, p->is_f32, total[n]);
}

void rt_ref_all_reduce_send(const struct rt_all_reduce_params *p)
{
    for (uint32_t block = 0; block < blocks_of(p); block++) {
        const struct share s = share_of(p, block);
        send(&s);
    }
}

/* The same 4 bytes of every rank. */
static void gather(const struct share *s, uint32_t i)
{
    const struct rt_all_reduce_params *const p = s->p;
    const uint64_t at = (uint64_t)s->first * RT_ALL_REDUCE_VECTOR_BYTES + 4 * i;
    for (uint32_t r = 0; r < p->ranks; r++) {
        uint32_t number;
        memcpy(&number, (const unsigned char *)p->from + at, 4);
        if (r != p->rank && !take(s, r, i, &number))
            return;
        memcpy((unsigned char *)p->to + (uint64_t)r * p->bytes + at, &number, 4);
    }
}

static void exchange(const struct rt_all_reduce_params *p,
                     void (*finish)(const struct share *s, uint32_t i))
{
    uint32_t *const epochs = p->mailbox[p->rank];
    rt_ref_all_reduce_send(p);
    for (uint32_t block = 0; block < blocks_of(p); block++) {
        const struct share s = share_of(p, block);
        for (uint32_t i = 0; i < 4 * s.count; i++)
            finish(&s, i);
        epochs[block] = s.epoch;
    }
}

void rt_ref_all_reduce(const void *params)
{
    exchange(params, sum);
}

void rt_ref_all_gather(const void *params)
{
    exchange(params, gather);
}

void rt_ref_all_reduce_norm_send(const struct rt_all_reduce_norm_params *p)
{
    for (uint32_t t = 0; t < p->norm.tokens; t++)
        for (uint32_t i = 0; i < RT_ALL_REDUCE_NORM_SLOTS(p->norm.norm.width); i++) {
            const struct share s = share_of_token(p, t, i);
            send(&s);
        }
}

void rt_ref_all_reduce_norm(const void *params)
{
    const struct rt_all_reduce_norm_params *const p = params;
    uint32_t *const epochs = p->sum.mailbox[p->sum.rank];
    rt_ref_all_reduce_norm_send(p);
    for (uint32_t t = 0; t < p->norm.tokens; t++)
        for (uint32_t i = 0; i < RT_ALL_REDUCE_NORM_SLOTS(p->norm.norm.width); i++) {
            const struct share s = share_of_token(p, t, i);
            for (uint32_t w = 0; w < 4 * s.count; w++)
                sum(&s, w);
            epochs[s.block] = s.epoch;
        }
    rt_ref_input_norm(&p->norm);
}
