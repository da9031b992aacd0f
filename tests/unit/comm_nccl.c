/* SPDX-License-Identifier: Apache-2.0 */
/* NCCL through a stand-in: what is found, what is refused, what it is asked for, what is left. */
#include "tests/unit/comm_crew.h"
#include "tests/unit/fake_nccl.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static int entered(struct rt_driver *d)
{
    return d->probe.fail_at == 1 ? RT_DRIVER_INJECTED : 0;
}

static const char *no_text(struct rt_driver *d, int code)
{
    (void)d;
    (void)code;
    return "no text";
}

static bool is_never(struct rt_driver *d, int code)
{
    (void)d;
    (void)code;
    return false;
}

static int is_idle(struct rt_driver *d, rt_dstream s, bool *out_idle)
{
    (void)d;
    (void)s;
    *out_idle = true;
    return 0;
}

/* ---- what a first exchange takes of the device, on the host ---- */

static _Atomic int held;    /* streams and allocations */
static void *last[2];       /* of each */
static _Atomic int touched; /* by exchanges: each reads and writes all that it was given */

static int make_stream(struct rt_driver *d, rt_dstream *out)
{
    char *const stream = d->probe.fail_at == 2 ? NULL : malloc(1);
    if (!stream)
        return RT_DRIVER_INJECTED;
    held++;
    last[0] = stream;
    *out = (rt_dstream)(void *)stream;
    return 0;
}

static int end_stream(struct rt_driver *d, rt_dstream s)
{
    (void)d;
    held--;
    free(s);
    return 0;
}

static int take_memory(struct rt_driver *d, uint64_t bytes, rt_addr *out)
{
    void *const memory = d->probe.fail_at == 3 ? NULL : calloc(1, bytes);
    if (!memory)
        return RT_DRIVER_INJECTED;
    held++;
    last[1] = memory;
    *out = (uintptr_t)memory;
    return 0;
}

static int free_memory(struct rt_driver *d, rt_addr memory)
{
    (void)d;
    held--;
    free((void *)(uintptr_t)memory);
    return 0;
}

/* A sanitizer, or the allocator, finds what was freed. */
static void touch(const void *from, void *to, void *stream)
{
    *(char *)to = *(const char *)from;
    *(char *)stream = 1;
    touched++;
}

static int exchange(struct rt_driver *d, const struct rt_collective *x, rt_dstream s)
{
    return rt_comm_exchange(d, x, s);
}

/* Of a CUDA device its kind is looked at, its context is entered, and its stream is asked. */
static struct rt_driver cuda(void)
{
    return (struct rt_driver){.caps.kind = RT_DEVICE_KIND_CUDA,
                              .ctx_enter = entered,
                              .stream_create = make_stream,
                              .stream_destroy = end_stream,
                              .mem_alloc = take_memory,
                              .mem_free = free_memory,
                              .collective = exchange,
                              .stream_query = is_idle,
                              .error_text = no_text,
                              .is_out_of_memory = is_never};
}

/* A group of one that has met. */
static void meet(struct rt_comm *c)
{
    struct crew crew;
    struct rt_error err = {.status = RT_OK};
    crew_begin(&crew, 1);
    if (rt_comm_meet(crew.path, 0, 1, CREW_LIMIT_NS, c, &err) != RT_OK)
        fail_msg("%s", err.message);
}

static void open_well(struct rt_comm *c)
{
    struct rt_driver d = cuda();
    meet(c);
    assert_int_equal(rt_comm_open(c, &d, NULL, NULL), RT_OK);
    assert_int_equal(rt_comm_open(c, &d, NULL, NULL), RT_OK); /* once more does nothing */
    assert_int_equal(fake_nccl.made, 1);
}

static void close_well(struct rt_comm *c)
{
    rt_comm_close(c);
    assert_int_equal(fake_nccl.made, 0);
    assert_int_equal(fake_nccl.loaded, 0);
}

/* ---- opening --------------------------------------------------------------------------------- */

static void refused(void *given, enum rt_status status, const char *story)
{
    struct rt_driver d = cuda();
    struct rt_comm c;
    struct rt_error err = {.status = RT_OK};
    meet(&c);
    assert_int_equal(rt_comm_open(&c, &d, given, &err), status);
    assert_string_equal(err.message, story);
    assert_int_equal(fake_nccl.made, 0);
    assert_int_equal(fake_nccl.loaded, 0);
    assert_int_equal(fake_nccl.aborts, 0);
    rt_comm_close(&c);
    fake_nccl_reset();
}

static void test_what_is_missing(void **state)
{
    (void)state;
    fake_nccl_reset();
    fake_nccl.found = NULL;
    refused(NULL, RT_ERR_UNSUPPORTED,
            "NCCL cannot be loaded (libnccl.so.2: no such file; libnccl.so: no such file): tried "
            "libnccl.so.2, libnccl.so; LD_LIBRARY_PATH must reach it");
    fake_nccl.version = 21199;
    refused(NULL, RT_ERR_UNSUPPORTED, "libnccl.so.2 is NCCL 2.11; needed is NCCL 2.12 or later");
    fake_nccl.version = 2708;
    refused(NULL, RT_ERR_UNSUPPORTED, "libnccl.so.2 is NCCL 2.7; needed is NCCL 2.12 or later");
    static const char *const symbols[] = {
#define RT_NCCL_SYMBOL(name, result, arguments) "nccl" #name,
#include "driver/comm/comm_nccl_symbols.inc"
#undef RT_NCCL_SYMBOL
    };
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        char story[128];
        fake_nccl.lacks = symbols[i];
        (void)snprintf(story, sizeof(story), "libnccl.so.2 lacks %s; needed is NCCL 2.12 or later",
                       symbols[i]);
        refused(NULL, RT_ERR_UNSUPPORTED, story);
    }
    struct rt_comm c;
    fake_nccl.found = "libnccl.so";
    fake_nccl.version = 21200;
    open_well(&c);
    assert_string_equal(fake_nccl.tried, "libnccl.so.2 libnccl.so ");
    close_well(&c);
}

static void test_calls_that_fail(void **state)
{
    static const char *const own[] = {"libnccl.so.2: ncclGetVersion failed: internal error",
                                      "ncclGetUniqueId failed: internal error (3)",
                                      "ncclCommInitRank failed: internal error (3)"};
    static const char *const given[] = {"ncclCommCount failed: internal error (3)",
                                        "ncclCommUserRank failed: internal error (3)"};
    (void)state;
    fake_nccl_reset();
    for (uint64_t i = 0; i < 3; i++) {
        fake_nccl.fail_at = 1 + i;
        refused(NULL, i ? RT_ERR_DRIVER : RT_ERR_UNSUPPORTED, own[i]);
    }
    for (uint64_t i = 0; i < 2; i++) {
        fake_nccl.fail_at = 2 + i;
        refused(&fake_nccl, RT_ERR_DRIVER, given[i]);
    }
}

static void test_a_communicator_of_the_callers(void **state)
{
    struct rt_driver d = cuda(), host = {.caps.kind = RT_DEVICE_KIND_HOST};
    struct rt_error err = {.status = RT_OK};
    struct rt_comm c;
    (void)state;
    fake_nccl_reset();
    fake_nccl.given_count = 4;
    fake_nccl.given_rank = 2;
    refused(&fake_nccl, RT_ERR_INVALID,
            "the ncclComm_t is rank 2 of 4, the group's rank is 0 of 1");
    meet(&c);
    assert_int_equal(rt_comm_open(&c, &d, &fake_nccl, &err), RT_OK);
    rt_comm_close(&c);
    assert_int_equal(fake_nccl.made, 0); /* neither made nor destroyed */
    meet(&c);
    assert_int_equal(rt_comm_open(&c, &host, &fake_nccl, &err), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "is nothing to the host device"));
    rt_comm_close(&c);
}

/* The thread that is left behind ends what it was given too late. */
static enum rt_status open_stuck(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct rt_driver d = cuda();
    const enum rt_status *const what = crew->user;
    if (c->rank == 0)
        return rt_comm_open(c, &d, NULL, err);
    while (!fake_nccl.inside)
        continue;
    if (*what == RT_ERR_RANKS)
        return rt_fail(err, RT_OK, "left");
    while (c->board.page->lines[0].state == RT_BOARD_JOINED)
        continue;
    return RT_OK;
}

static void test_a_library_that_does_not_return(void **state)
{
    (void)state;
    for (enum rt_status how = RT_OK; how <= RT_ERR_RANKS; how += RT_ERR_RANKS) {
        struct crew crew;
        fake_nccl_reset();
        fake_nccl.stuck = 1;
        crew_begin(&crew, 2);
        crew.user = &how;
        crew.limit_ns = how == RT_OK ? CREW_LIMIT_NS / 20 : CREW_LIMIT_NS;
        crew_run(&crew, open_stuck);
        crew_expect(&crew, 0, RT_ERR_RANKS,
                    how == RT_OK ? "ncclCommInitRank of rank 0 (this one) of 2 has not returned "
                                   "within 0.250 s; NCCL_DEBUG=INFO has it tell what it waits for"
                                 : "rank 1 has left the group; its last step was 0");
        assert_int_equal(fake_nccl.aborts, 0);
        fake_nccl.stuck = 0;
        while (!fake_nccl.aborts)
            continue;
        assert_int_equal(fake_nccl.made, 0);
    }
}

static void test_a_context_that_cannot_be_entered(void **state)
{
    struct rt_driver d = cuda();
    struct rt_error err = {.status = RT_OK};
    struct rt_comm c;
    (void)state;
    fake_nccl_reset();
    meet(&c);
    d.probe.fail_at = 1;
    assert_int_equal(rt_comm_open(&c, &d, NULL, &err), RT_ERR_DRIVER);
    assert_non_null(strstr(err.message, "ctx_enter failed: injected failure"));
    assert_int_equal(fake_nccl.made, 0);
    rt_comm_close(&c);
}

/* The library's word for a rank that is gone is less than the board's. */
static enum rt_status open_deserted(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct rt_driver d = cuda();
    (void)crew;
    if (c->rank == 1)
        return RT_OK;
    while (c->board.page->lines[1].state == RT_BOARD_JOINED)
        continue;
    return rt_comm_open(c, &d, NULL, err);
}

static void test_a_library_that_was_deserted(void **state)
{
    struct crew crew;
    (void)state;
    fake_nccl_reset();
    fake_nccl.fail_at = 3; /* ncclCommInitRank, behind version and id */
    crew_begin(&crew, 2);
    crew_run(&crew, open_deserted);
    crew_expect(&crew, 0, RT_ERR_RANKS,
                "rank 1 has left the group; its last step was 0; ncclCommInitRank failed: internal "
                "error (3)");
    assert_int_equal(fake_nccl.made, 0);
}

/* Where the library fails at rank 0, whose only rank this is to it. */
struct fall {
    int moment; /* 0: an exchange; 1: a first one; 2: asked how it is; 3: it tells of a failure */
    bool stays; /* rank 1 */
    _Atomic bool begun;
};

static enum rt_status fall(struct rt_comm *c, struct rt_driver *d, int moment, struct rt_error *err)
{
    const struct rt_collective x = {.dtype = RT_DTYPE_BF16, .count = 8, .ranks = 2, .comm = c};
    fake_nccl.async = moment == 3 ? 6 : 0;
    fake_nccl.fail_at = moment == 3 ? 0 : fake_nccl.calls + 1;
    if (moment == 0)
        (void)rt_comm_exchange(d, &x, NULL); /* and then looks, as whoever waits does */
    return moment == 1 ? c->connect(c, d, &x, err) : rt_comm_look(c, err);
}

static enum rt_status fall_alone(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct rt_driver d = cuda();
    struct fall *const f = crew->user;
    if (c->rank == 0) {
        RT_TRY(rt_comm_open(c, &d, NULL, err));
        f->begun = true;
        return fall(c, &d, f->moment, err);
    }
    while (!f->begun)
        continue;
    (void)nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    while (f->stays && rt_board_is_there(&c->board, 0, NULL) == RT_OK)
        continue;
    return RT_OK;
}

static void test_a_call_that_fails_beside_a_rank_that_is_gone(void **state)
{
    static const char *const words[] = {"ncclAllReduce failed: internal error (3)",
                                        "ncclCommGetAsyncError failed: internal error (3)",
                                        "the communicator failed: remote process exited (6)"};
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct fall f = {.moment = i % 4, .stays = i >= 4};
        const char *const said = words[f.moment ? f.moment - 1 : 0];
        struct crew crew;
        char story[128] = "rank 1 has left the group; its last step was 0; ";
        fake_nccl_reset();
        crew_begin(&crew, 2);
        crew.user = &f;
        crew.limit_ns = f.stays ? CREW_LIMIT_NS / 20 : CREW_LIMIT_NS;
        crew_run(&crew, fall_alone);
        crew_expect(&crew, 0, f.stays ? RT_ERR_DRIVER : RT_ERR_RANKS,
                    f.stays ? said : strcat(story, said));
    }
}

static enum rt_status open_one(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER; /* the stand-in is not made for two */
    struct rt_driver d = cuda();
    (void)crew;
    if (c->rank == 0) /* its word is what the others wait for */
        return rt_comm_open(c, &d, NULL, err);
    while (!c->board.page->has_id)
        continue;
    (void)pthread_mutex_lock(&one);
    const enum rt_status status = rt_comm_open(c, &d, NULL, err);
    (void)pthread_mutex_unlock(&one);
    return status;
}

static void test_all_have_one_id(void **state)
{
    struct crew crew;
    (void)state;
    fake_nccl_reset();
    crew_begin(&crew, 2);
    crew_run(&crew, open_one);
    for (uint32_t r = 0; r < 2; r++) {
        crew_expect(&crew, r, RT_OK, "");
        assert_string_equal(fake_nccl.ids[r].bytes, "an id");
    }
    assert_int_equal(fake_nccl.made, 0);
}

/* ---- exchanges ------------------------------------------------------------------------------- */

static void test_what_it_is_asked_for(void **state)
{
    static const struct {
        enum rt_collective_kind kind;
        const char *call;
        int sum;
    } kinds[] = {{RT_ALL_REDUCE, "AllReduce", 1},
                 {RT_ALL_GATHER, "AllGather", 0},
                 {RT_REDUCE_SCATTER, "ReduceScatter", 1}};
    static const struct {
        enum rt_dtype dtype;
        int theirs;
    } dtypes[] = {{RT_DTYPE_BF16, 9}, {RT_DTYPE_F32, 7}, {RT_DTYPE_I32, 2}, {RT_DTYPE_U8, 1}};
    struct rt_driver d = cuda();
    struct rt_comm c;
    int stream;
    (void)state;
    fake_nccl_reset();
    open_well(&c);
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < 4; k++) {
            const struct rt_collective x = {.kind = kinds[i].kind,
                                            .dtype = dtypes[k].dtype,
                                            .from = 0x1000,
                                            .to = 0x2000,
                                            .count = 77 + k,
                                            .ranks = 1,
                                            .comm = &c};
            assert_int_equal(rt_comm_exchange(&d, &x, (rt_dstream)(void *)&stream), 0);
            assert_string_equal(fake_nccl.call, kinds[i].call);
            assert_int_equal((uintptr_t)fake_nccl.from, 0x1000);
            assert_int_equal((uintptr_t)fake_nccl.to, 0x2000);
            assert_int_equal(fake_nccl.count, 77 + k);
            assert_int_equal(fake_nccl.dtype, dtypes[k].theirs);
            assert_int_equal(fake_nccl.sum, kinds[i].sum);
            assert_ptr_equal(fake_nccl.stream, &stream);
        }
    close_well(&c);
}

/* Rank 3 of 4 in groups of 2: with rank 2 and itself, each of its own place. Whatever fails, what
 * was begun is ended. */
static void test_a_group_of_sends(void **state)
{
    const struct rt_nccl_api *const api = fake_nccl_api();
    const struct rt_collective x = {.kind = RT_ALL_TO_ALL,
                                    .dtype = RT_DTYPE_F32,
                                    .from = 0x1000,
                                    .to = 0x2000,
                                    .count = 8,
                                    .ranks = 4,
                                    .group = 2};
    (void)state;
    fake_nccl_reset();
    assert_int_equal(rt_nccl_put(api, NULL, 3, &x, NULL), RT_NCCL_SUCCESS);
    assert_int_equal(fake_nccl.calls, 6);
    assert_int_equal(fake_nccl.sends, 2);
    assert_int_equal(fake_nccl.receives, 2);
    for (int way = 0; way < 2; way++)
        for (int i = 0; i < 2; i++) {
            assert_int_equal(fake_nccl.peers[way][i], 2 + i);
            assert_int_equal(fake_nccl.places[way][i], 0x1000 * (way + 1) + 32 * i);
        }
    assert_int_equal(fake_nccl.count, 8);
    assert_int_equal(fake_nccl.dtype, RT_NCCL_F32);
    for (uint64_t i = 1; i <= 6; i++) {
        fake_nccl_reset();
        fake_nccl.fail_at = i;
        assert_int_equal(rt_nccl_put(api, NULL, 3, &x, NULL), FAKE_NCCL_FAILURE);
        assert_int_equal(fake_nccl.groups, 0);
    }
    assert_string_equal(rt_nccl_call_name(RT_ALL_TO_ALL), "a group of ncclSend and ncclRecv");
}

/* The first exchange connects, with a stream and numbers of its own. */
struct first {
    uint64_t fail_at;     /* of the library's calls, counted from here */
    uint64_t driver_fail; /* 2: no stream; 3: no memory */
    int stuck;
    enum rt_status status;
    const char *story;
};

static void exchange_first(const struct first *f)
{
    struct rt_driver *const d = malloc(sizeof(*d));
    struct rt_error err = {.status = RT_OK};
    struct rt_comm c;
    struct crew crew;
    unsigned char numbers[10] = {0}, stream = 0;
    const struct rt_collective x = {.kind = RT_ALL_GATHER,
                                    .dtype = RT_DTYPE_BF16,
                                    .from = (uintptr_t)numbers,
                                    .to = (uintptr_t)numbers,
                                    .count = 5,
                                    .ranks = 1,
                                    .comm = &c};
    assert_non_null(d);
    *d = cuda();
    fake_nccl_reset();
    fake_nccl.touch = touch;
    touched = held = 0;
    crew_begin(&crew, 1);
    assert_int_equal(rt_comm_meet(crew.path, 0, 1, CREW_LIMIT_NS / 20, &c, &err), RT_OK);
    assert_int_equal(rt_comm_open(&c, d, NULL, NULL), RT_OK);
    fake_nccl.fail_at = f->fail_at ? fake_nccl.calls + f->fail_at : 0;
    d->probe.fail_at = f->driver_fail;
    fake_nccl.stuck_exchange = f->stuck;
    fake_nccl.stuck_abort = f->stuck;
    err.message[0] = '\0';
    assert_int_equal(rt_comm_try(&c, d, &x, (rt_dstream)(void *)&stream, &err), f->status);
    if (f->driver_fail)
        assert_non_null(strstr(err.message, f->story));
    else
        assert_string_equal(err.message, f->story);
    assert_int_equal(rt_comm_close(&c), f->stuck); /* something lingers */
    free(d);
    /* Its own stays with what is left behind, and is touched when nothing of ours is there. */
    assert_int_equal(held, f->stuck ? 2 : 0);
    assert_int_equal(touched, f->status == RT_OK ? 2 : 0);
    fake_nccl.stuck_abort = 0;
    fake_nccl.stuck_exchange = 0;
    while (f->stuck && !(fake_nccl.exchanges && fake_nccl.aborts))
        continue;
    assert_int_equal(touched, f->status == RT_OK ? 2 : f->stuck);
    for (int i = 0; i < 2 && f->stuck; i++) /* what a process leaves to its end */
        free(last[i]);
    assert_int_equal(fake_nccl.made, 0);
    assert_int_equal(fake_nccl.aborts, f->status != RT_OK);
}

static void test_a_first_exchange(void **state)
{
    static const struct first all[] = {
        {.status = RT_OK, .story = ""},
        /* It looks before. */
        {.fail_at = 2,
         .status = RT_ERR_DRIVER,
         .story = "ncclAllGather failed: internal error (3)"},
        {.driver_fail = 2, .status = RT_ERR_DRIVER, .story = "stream_create failed"},
        {.driver_fail = 3, .status = RT_ERR_DRIVER, .story = "mem_alloc failed"},
        {.stuck = 1,
         .status = RT_ERR_RANKS,
         .story = "ncclAllGather of rank 0 (this one) of 1 has not returned within 0.250 s; "
                  "NCCL_DEBUG=INFO has it tell what it waits for"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        exchange_first(&all[i]);
}

/* What waits on the device for others is ended, once, and nothing of it is destroyed again. */
static void test_a_group_that_fails(void **state)
{
    struct rt_driver d = cuda();
    struct rt_error err = {.status = RT_OK};
    struct rt_comm c;
    (void)state;
    for (int i = 0; i < 3; i++) {
        static const char *const stories[] = {"ncclAllReduce failed: internal error (3)",
                                              "ncclCommGetAsyncError failed: internal error (3)",
                                              "the communicator failed: remote process exited (6)"};
        const struct rt_collective x = {.dtype = RT_DTYPE_BF16, .ranks = 1, .comm = &c};
        fake_nccl_reset();
        open_well(&c);
        assert_int_equal(rt_comm_look(&c, &err), RT_OK);
        fake_nccl.async = RT_NCCL_IN_PROGRESS;
        assert_int_equal(rt_comm_look(&c, &err), RT_OK);
        fake_nccl.graphs = 1;
        fake_nccl.async = i == 2 ? 6 : 0;
        fake_nccl.fail_at = i == 2 ? 0 : fake_nccl.calls + 1;
        if (i == 0) {
            assert_int_equal(rt_comm_exchange(&d, &x, NULL), RT_DRIVER_COMM_FAILED);
            assert_ptr_equal(d.failed_comm, &c);
        }
        assert_int_equal(rt_comm_look(&c, &err), RT_ERR_DRIVER);
        assert_string_equal(err.message, stories[i]);
        assert_int_equal(rt_comm_look(&c, &err), RT_ERR_DRIVER);
        assert_string_equal(err.message, stories[i]);
        assert_int_equal(fake_nccl.aborts, 0); /* and nobody waits for it */
        fake_nccl.graphs = 0;
        close_well(&c);
        assert_int_equal(fake_nccl.aborts, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_missing),
        cmocka_unit_test(test_calls_that_fail),
        cmocka_unit_test(test_a_communicator_of_the_callers),
        cmocka_unit_test(test_a_library_that_does_not_return),
        cmocka_unit_test(test_a_library_that_was_deserted),
        cmocka_unit_test(test_a_call_that_fails_beside_a_rank_that_is_gone),
        cmocka_unit_test(test_a_context_that_cannot_be_entered),
        cmocka_unit_test(test_all_have_one_id),
        cmocka_unit_test(test_what_it_is_asked_for),
        cmocka_unit_test(test_a_group_of_sends),
        cmocka_unit_test(test_a_first_exchange),
        cmocka_unit_test(test_a_group_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
