/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exchanges through slots of the board, part by part: every rank fills its own, all meet, and each
 * reads what it needs of the others'. Two slots a rank are enough: who has met at part n is done
 * with part n - 1, whose slot part n + 1 fills.
 *
 * Sums are in double and in the order of ranks: the same bits on every rank and in every run.
 */
#include "common/bf16.h"
#include "common/math.h"
#include "driver/comm/comm.h"

#include <string.h>

/* Part of an exchange: `count` elements from element `at` of every rank's [count] on. */
struct part {
    const struct rt_collective *x;
    uint64_t at, count;
    uint64_t number; /* of the board */
};

static unsigned char *bytes_at(const struct rt_collective *x, rt_addr base, uint64_t element)
{
    return (unsigned char *)(uintptr_t)base + element * rt_dtype_bytes(x->dtype);
}

/* Of a sum: bf16 or f32. */
static double load(const unsigned char *from, uint64_t i, enum rt_dtype dtype)
{
    uint16_t half;
    float single;
    if (dtype == RT_DTYPE_BF16) {
        memcpy(&half, from + 2 * i, sizeof(half));
        return (double)rt_bf16_to_float(half);
    }
    memcpy(&single, from + 4 * i, sizeof(single));
    return (double)single;
}

static void store(unsigned char *to, uint64_t i, enum rt_dtype dtype, double value)
{
    const uint16_t half = rt_float_to_bf16((float)value);
    const float single = (float)value;
    if (dtype == RT_DTYPE_BF16)
        memcpy(to + 2 * i, &half, sizeof(half));
    else
        memcpy(to + 4 * i, &single, sizeof(single));
}

static void sum(const struct rt_comm *c, const struct part *p, uint64_t skip)
{
    const struct rt_collective *const x = p->x;
    unsigned char *const to = bytes_at(x, x->to, p->at);
    for (uint64_t i = 0; i < p->count; i++) {
        double total = 0;
        for (uint32_t r = 0; r < c->ranks; r++)
            total += load(rt_board_slot(&c->board, r, p->number), skip + i, x->dtype);
        store(to, i, x->dtype, total);
    }
}

/* ---- the four kinds -------------------------------------------------------------------------- */

/* For how many ranks a rank's `from` has something each; 1: for all the same. */
static uint32_t pieces_of(const struct rt_collective *x)
{
    switch (x->kind) {
    case RT_REDUCE_SCATTER:
        return x->ranks;
    case RT_ALL_TO_ALL:
        return x->group;
    case RT_ALL_REDUCE:
    case RT_ALL_GATHER:
        break;
    }
    return 1;
}

static void fill(const struct rt_comm *c, const struct part *p)
{
    const struct rt_collective *const x = p->x;
    const uint64_t bytes = p->count * rt_dtype_bytes(x->dtype);
    const uint32_t pieces = pieces_of(x);
    unsigned char *const slot = rt_board_slot(&c->board, c->rank, p->number);
    for (uint32_t i = 0; i < pieces; i++)
        memcpy(slot + i * bytes, bytes_at(x, x->from, i * x->count + p->at), bytes);
}

/* From `skip` bytes on in the slots of `count` ranks, one behind the other. */
static void copy_from(const struct rt_comm *c, const struct part *p, uint32_t first, uint32_t count,
                      uint64_t skip)
{
    const struct rt_collective *const x = p->x;
    for (uint32_t i = 0; i < count; i++)
        memcpy(bytes_at(x, x->to, i * x->count + p->at),
               rt_board_slot(&c->board, first + i, p->number) + skip,
               p->count * rt_dtype_bytes(x->dtype));
}

static void take(const struct rt_comm *c, const struct part *p)
{
    const struct rt_collective *const x = p->x;
    const uint64_t bytes = p->count * rt_dtype_bytes(x->dtype);
    switch (x->kind) {
    case RT_ALL_REDUCE:
        sum(c, p, 0);
        break;
    case RT_REDUCE_SCATTER:
        sum(c, p, c->rank * p->count);
        break;
    case RT_ALL_GATHER:
        copy_from(c, p, 0, c->ranks, 0);
        break;
    case RT_ALL_TO_ALL:
        copy_from(c, p, c->rank / x->group * x->group, x->group, c->rank % x->group * bytes);
        break;
    }
}

/* Elements of a part: what a slot holds for each. */
static uint64_t most_elements(const struct rt_collective *x)
{
    return RT_BOARD_SLOT_BYTES / pieces_of(x) / rt_dtype_bytes(x->dtype);
}

static enum rt_status exchange(struct rt_comm *c, const struct rt_collective *x, rt_dstream s,
                               struct rt_error *err)
{
    (void)s;
    const uint64_t words[RT_BOARD_CALL_WORDS] = {[RT_BOARD_KIND] = (uint64_t)x->kind,
                                                 [RT_BOARD_DTYPE] = (uint64_t)x->dtype,
                                                 [RT_BOARD_COUNT] = x->count,
                                                 [RT_BOARD_GROUP] = x->group};
    const uint64_t most = most_elements(x);
    uint64_t at = 0;
    do { /* once also with nothing to exchange: others may have something */
        const struct part p = {.x = x,
                               .at = at,
                               .count = rt_min_u64(x->count - at, most),
                               .number = c->board.part + 1};
        if (p.count > 0)
            fill(c, &p);
        RT_TRY(rt_board_meet(&c->board, words, err));
        if (p.count > 0)
            take(c, &p);
        at += p.count;
    } while (at < x->count);
    return RT_OK;
}

enum rt_status rt_comm_open_host(struct rt_comm *c, struct rt_error *err)
{
    (void)err;
    c->exchange = exchange;
    return RT_OK;
}
