/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/comm/comm.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_S 1e9

static const char *const op_names[RT_COMM_OP_COUNT] = {
#define OP_NAME(name) [RT_COMM_OP_##name] = #name,
    RT_COMM_OPS(OP_NAME)
#undef OP_NAME
};

enum rt_status rt_comm_fail(struct rt_comm *c, struct rt_error *why)
{
    if (c->story.status == RT_OK) {
        c->story = *why;
        rt_board_give_up(&c->board, why->message);
        if (c->peers.stop)
            __atomic_store_n(c->peers.stop, 1, __ATOMIC_RELEASE);
        if (c->abandon)
            c->abandon(c);
    }
    *why = c->story;
    return why->status;
}

/* What every operation begins with: a group that has failed stays so. */
static enum rt_status enter(struct rt_comm *c, enum rt_comm_op op, struct rt_error *err)
{
    c->probe.per_op[op]++;
    if (RT_UNLIKELY(++c->probe.calls == c->probe.fail_at))
        return rt_fail(err, RT_ERR_RANKS, "%s failed: injected failure", op_names[op]);
    if (RT_UNLIKELY(c->story.status != RT_OK)) {
        *err = c->story;
        return err->status;
    }
    return RT_OK;
}

/* The failure is told to the caller and to the other ranks. */
static enum rt_status leave(struct rt_comm *c, enum rt_status status, struct rt_error *why,
                            struct rt_error *err)
{
    if (RT_LIKELY(status == RT_OK))
        return RT_OK;
    status = rt_comm_fail(c, why);
    if (err)
        *err = *why;
    return status;
}

enum rt_status rt_comm_meet(const char *path, uint32_t rank, uint32_t ranks, uint64_t limit_ns,
                            struct rt_comm *out, struct rt_error *err)
{
    *out = (struct rt_comm){.rank = rank, .ranks = ranks};
    const enum rt_status status = rt_board_open(path, rank, ranks, limit_ns, &out->board, err);
    if (status != RT_OK)
        *out = (struct rt_comm){0};
    return status;
}

bool rt_comm_close(struct rt_comm *c)
{
    if (c->close)
        c->close(c);
    const bool lingers = c->lingers;
    rt_comm_unmap(c);
    rt_board_close(&c->board);
    *c = (struct rt_comm){0};
    return lingers;
}

static enum rt_status open_for(struct rt_comm *c, struct rt_driver *d, void *nccl,
                               struct rt_error *err)
{
    const bool host = d->caps.kind == RT_DEVICE_KIND_HOST;
    RT_TRY(enter(c, RT_COMM_OP_open, err));
    RT_REQUIRE(!host || !nccl, err, RT_ERR_UNSUPPORTED,
               "an ncclComm_t (%p) is nothing to the host device", nccl);
    return host ? rt_comm_open_host(c, err) : rt_comm_open_nccl(c, d, nccl, err);
}

enum rt_status rt_comm_open(struct rt_comm *c, struct rt_driver *d, void *nccl,
                            struct rt_error *err)
{
    struct rt_error why = {.status = RT_OK};
    if (c->exchange)
        return RT_OK;
    return leave(c, open_for(c, d, nccl, &why), &why, err);
}

enum rt_status rt_comm_post(struct rt_comm *c, const uint32_t fields[RT_BOARD_FIELD_COUNT],
                            struct rt_error *err)
{
    struct rt_error why = {.status = RT_OK};
    enum rt_status status = enter(c, RT_COMM_OP_post, &why);
    if (RT_LIKELY(status == RT_OK))
        status = rt_board_post(&c->board, fields, &why);
    return leave(c, status, &why, err);
}

enum rt_status rt_comm_look(struct rt_comm *c, struct rt_error *err)
{
    struct rt_error why = {.status = RT_OK};
    enum rt_status status = enter(c, RT_COMM_OP_look, &why);
    if (status == RT_OK)
        status = rt_board_look(&c->board, &why);
    if (status == RT_OK && c->health)
        status = c->health(c, &why);
    return leave(c, status, &why, err);
}

/* A part of its own, whose kind is no exchange's: who is at one instead is told of. */
enum rt_status rt_comm_barrier(struct rt_comm *c, struct rt_error *err)
{
    static const uint64_t words[RT_BOARD_CALL_WORDS] = {[RT_BOARD_KIND] = RT_ALL_TO_ALL + 1};
    struct rt_error why = {.status = RT_OK};
    enum rt_status status = enter(c, RT_COMM_OP_barrier, &why);
    if (status == RT_OK)
        status = rt_board_meet(&c->board, words, &why);
    return leave(c, status, &why, err);
}

/* As an exchange of the host device: who has met at a part is done with the one before. */
static enum rt_status gather(struct rt_comm *c, const void *mine, unsigned char *all,
                             uint32_t bytes, struct rt_error *err)
{
    struct rt_board *const b = &c->board;
    const uint64_t words[RT_BOARD_CALL_WORDS] = {
        [RT_BOARD_KIND] = RT_ALL_TO_ALL + 2, [RT_BOARD_COUNT] = bytes};
    const uint64_t part = b->part + 1;
    memcpy(rt_board_slot(b, c->rank, part), mine, bytes);
    RT_TRY(rt_board_meet(b, words, err));
    for (uint32_t r = 0; r < c->ranks; r++)
        memcpy(all + (size_t)r * bytes, rt_board_slot(b, r, part), bytes);
    return RT_OK;
}

enum rt_status rt_comm_gather(struct rt_comm *c, const void *mine, void *all, uint32_t bytes,
                              struct rt_error *err)
{
    struct rt_error why = {.status = RT_OK};
    enum rt_status status = enter(c, RT_COMM_OP_gather, &why);
    if (status == RT_OK)
        status = gather(c, mine, all, bytes, &why);
    return leave(c, status, &why, err);
}

/* Looked at even where the time is up: a rank that is late or gone is the better story. */
static enum rt_status look_while_waiting(struct rt_comm *c, const struct rt_board_wait *w,
                                         bool whole, struct rt_error *err)
{
    struct rt_error why = {.status = RT_OK};
    RT_TRY(rt_comm_look(c, err));
    if (!whole || !rt_board_is_late(&c->board, w))
        return RT_OK;
    return leave(c,
                 rt_fail(&why, RT_ERR_RANKS,
                         "the device of rank %" PRIu32 " (this one) has not done step %" PRIu64
                         " within %.3f s, though all ranks have begun it",
                         c->rank, c->board.step, (double)c->board.limit_ns / NS_PER_S),
                 &why, err);
}

enum rt_status rt_comm_await(struct rt_comm *c, struct rt_driver *d, rt_dstream s, bool whole,
                             struct rt_error *err)
{
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    for (bool idle = false;;) {
        RT_TRY(RT_DRV(d, err, stream_query, (d, s, &idle)));
        if (idle)
            return RT_OK;
        if (rt_board_pause(&w))
            RT_TRY(look_while_waiting(c, &w, whole, err));
    }
}

static enum rt_status connect_all(struct rt_comm *c, struct rt_driver *d,
                                  const struct rt_collective *x, struct rt_error *err)
{
    struct rt_error why = {.status = RT_OK};
    enum rt_status status = enter(c, RT_COMM_OP_connect, &why);
    if (status == RT_OK && c->connect)
        status = c->connect(c, d, x, &why);
    return leave(c, status, &why, err);
}

/* What is posted is compared by those that come later alone: so all come, and then look. */
enum rt_status rt_comm_try(struct rt_comm *c, struct rt_driver *d, const struct rt_collective *x,
                           rt_dstream s, struct rt_error *err)
{
    RT_TRY(rt_comm_barrier(c, err));
    RT_TRY(rt_comm_look(c, err));
    RT_TRY(connect_all(c, d, x, err));
    RT_TRY(RT_DRV(d, err, collective, (d, x, s)));
    return rt_comm_await(c, d, s, true, err);
}

int rt_comm_exchange(struct rt_driver *d, const struct rt_collective *x, rt_dstream s)
{
    struct rt_comm *const c = x->comm;
    struct rt_error why = {.status = RT_OK};
    enum rt_status status = enter(c, RT_COMM_OP_exchange, &why);
    if (status == RT_OK)
        status = c->exchange(c, x, s, &why);
    if (leave(c, status, &why, NULL) == RT_OK)
        return 0;
    d->failed_comm = c;
    return RT_DRIVER_COMM_FAILED;
}
