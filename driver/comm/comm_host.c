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

/* ---- the three kinds ------------------------------------------------------------------------- */

static void fill(const struct rt_comm *c, const struct part *p)
{
    const struct rt_collective *const x = p->x;
    const uint64_t bytes = p->count * rt_dtype_bytes(x->dtype);
    const uint32_t pieces = x->kind == RT_REDUCE_SCATTER ? x->ranks : 1;
    unsigned char *const slot = rt_board_slot(&c->board, c->rank, p->number);
    for (uint32_t i = 0; i < pieces; i++)
        memcpy(slot + i * bytes, bytes_at(x, x->from, i * x->count + p->at), bytes);
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
        for (uint32_t r = 0; r < c->ranks; r++)
            memcpy(bytes_at(x, x->to, r * x->count + p->at), rt_board_slot(&c->board, r, p->number),
                   bytes);
        break;
    }
}

/* Elements of a part: what a slot holds, of which REDUCE_SCATTER needs one for each rank. */
static uint64_t most_elements(const struct rt_collective *x)
{
    const uint32_t pieces = x->kind == RT_REDUCE_SCATTER ? x->ranks : 1;
    return RT_BOARD_SLOT_BYTES / pieces / rt_dtype_bytes(x->dtype);
}

static enum rt_status exchange(struct rt_comm *c, const struct rt_collective *x, rt_dstream s,
                               struct rt_error *err)
{
    (void)s;
    const uint64_t words[RT_BOARD_CALL_WORDS] = {[RT_BOARD_KIND] = (uint64_t)x->kind,
                                                 [RT_BOARD_DTYPE] = (uint64_t)x->dtype,
                                                 [RT_BOARD_COUNT] = x->count};
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
