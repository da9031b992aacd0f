/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: gpu-ranks [RANKS] [--threads] [--host]
 *
 * Ranks (2 unless said), a process and a GPU each, that exchange by the real NCCL, on a stream and
 * in a replayed graph whose nodes the audit has seen, and likewise in one shot by kernels of ours,
 * which merge attention too; then one is killed while the others' kernels wait for it, and they
 * learn of it. Exit 0: passed; 77: not so many GPUs, or no NCCL.
 * --threads: ranks are threads of this process, none is killed, and none maps another's memory.
 * --host: the same on the host device, so that the test itself is tested.
 */
#include "common/bf16.h"
#include "common/context.h"
#include "driver/comm/comm.h"
#include "graphs/audit.h"
#include "graphs/build.h"
#include "runtime/context_exchange.h"
#include "runtime/one_shot.h"
#include "runtime/sum_norm.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77
#define MOST_RANKS 8u
#define MOST_ELEMENTS ((UINT64_C(1) << 20) + 3)
#define MOST_BYTES (MOST_ELEMENTS * 4)
#define LIMIT_NS UINT64_C(20000000000)
#define REPLAYS 3u
#define RESIDUAL_AT (UINT64_C(2) << 20) /* in a rank's memory, behind the numbers of one shot */
#define NORMED_AT (UINT64_C(3) << 20)

struct rank {
    uint32_t rank, ranks;
    bool host, is_thread;
    bool lingers; /* a thread of it, in NCCL */
    int code;     /* of a thread */
    char path[64];
    struct rt_driver d;
    struct rt_comm comm;
    struct rt_kernels kernels; /* on a GPU */
    rt_dstream stream;
    rt_addr memory;
    unsigned char *numbers; /* on the host */
    struct rt_error err;
};

/* Whole numbers, whose sums over all ranks bf16 still has. */
static float number(uint32_t rank, uint64_t i, uint32_t turn)
{
    return (float)((rank + 1) * ((i + turn) % 7));
}

static void set(unsigned char *to, uint64_t i, enum rt_dtype dtype, float value)
{
    const uint16_t half = rt_float_to_bf16(value);
    if (dtype == RT_DTYPE_BF16)
        memcpy(to + 2 * i, &half, sizeof(half));
    else
        memcpy(to + 4 * i, &value, sizeof(value));
}

static float get(const unsigned char *from, uint64_t i, enum rt_dtype dtype)
{
    uint16_t half;
    float value;
    memcpy(&half, from + (dtype == RT_DTYPE_BF16 ? 2 : 4) * i, sizeof(half));
    memcpy(&value, from + 4 * (dtype == RT_DTYPE_BF16 ? 0 : i), sizeof(value));
    return dtype == RT_DTYPE_BF16 ? rt_bf16_to_float(half) : value;
}

static enum rt_status fill(struct rank *r, const struct rt_collective *x, uint32_t turn)
{
    for (uint64_t i = 0; i < x->count; i++)
        set(r->numbers, i, x->dtype, number(r->rank, i, turn));
    const uint64_t bytes = x->count * rt_dtype_bytes(x->dtype);
    return RT_DRV(&r->d, &r->err, copy_in, (&r->d, r->memory, r->numbers, bytes, r->stream));
}

static float expected(const struct rank *r, const struct rt_collective *x, uint64_t i,
                      uint32_t turn)
{
    float sum = 0;
    if (x->kind == RT_ALL_GATHER)
        return number((uint32_t)(i / x->count), i % x->count, turn);
    for (uint32_t other = 0; other < r->ranks; other++)
        sum += number(other, i, turn);
    return sum;
}

static enum rt_status judge(struct rank *r, const struct rt_collective *x, uint32_t turn)
{
    const uint64_t count = x->kind == RT_ALL_GATHER ? r->ranks * x->count : x->count;
    const uint64_t bytes = count * rt_dtype_bytes(x->dtype);
    RT_TRY(rt_comm_await(&r->comm, &r->d, r->stream, true, &r->err));
    RT_TRY(RT_DRV(&r->d, &r->err, copy_out, (&r->d, r->numbers, x->to, bytes, r->stream)));
    RT_TRY(RT_DRV(&r->d, &r->err, stream_sync, (&r->d, r->stream)));
    for (uint64_t i = 0; i < count; i++) {
        const float got = get(r->numbers, i, x->dtype), wanted = expected(r, x, i, turn);
        RT_REQUIRE(got == wanted, &r->err, RT_ERR_INTERNAL,
                   "%s, %" PRIu64 " elements, turn %" PRIu32 ": element %" PRIu64
                   " is %g, expected %g",
                   rt_dtype_name(x->dtype), x->count, turn, i, (double)got, (double)wanted);
    }
    return RT_OK;
}

/* ---- exchanges ------------------------------------------------------------------------------- */

static enum rt_status on_a_stream(struct rank *r, const struct rt_collective *x)
{
    RT_TRY(fill(r, x, 0));
    RT_TRY(rt_comm_try(&r->comm, &r->d, x, r->stream, &r->err));
    return judge(r, x, 0);
}

/* As a block's is: a foreign stage of a program, or a launch whose addresses are all known. */
static enum rt_status build(struct rank *r, const struct rt_work *work, struct rt_program *p,
                            struct rt_graph *g)
{
    const struct rt_peers *const peers = &r->comm.peers;
    struct rt_audit_region regions[2 + RT_PEERS_MOST] = {
        {.base = r->memory, .bytes = MOST_BYTES, .name = "numbers"},
        {.base = peers->stop_addr,
         .bytes = peers->stop ? sizeof(*peers->stop) : 0,
         .name = "stop"}};
    for (uint32_t i = 0; i < RT_PEERS_MOST; i++)
        regions[2 + i] = (struct rt_audit_region){.base = peers->memory[i],
                                                  .bytes = peers->memory[i] ? peers->bytes : 0,
                                                  .name = "mailbox"};
    RT_TRY(rt_program_add(p, "sum", 0, work, &r->err));
    if (work->kind == RT_WORK_COLLECTIVE)
        p->stages[0].trust = RT_STAGE_FOREIGN_HOST;
    RT_TRY(rt_graph_build(p, &r->d, r->stream, g, &r->err));
    RT_TRY(rt_graph_audit(g, p, &r->d, regions, 2 + RT_PEERS_MOST, &r->err));
    return rt_graph_instantiate(g, &r->d, r->stream, &r->err);
}

static enum rt_status replay(struct rank *r, const struct rt_collective *x,
                             const struct rt_graph *g)
{
    RT_TRY(rt_comm_barrier(&r->comm, &r->err));
    for (uint32_t turn = 1; turn <= REPLAYS; turn++) {
        RT_TRY(fill(r, x, turn));
        RT_TRY(RT_DRV(&r->d, &r->err, graph_launch, (&r->d, g->exec, r->stream)));
        RT_TRY(judge(r, x, turn));
    }
    return RT_OK;
}

static enum rt_status in_a_graph(struct rank *r, const struct rt_collective *x,
                                 const struct rt_work *work)
{
    struct rt_program p = {0};
    struct rt_graph g = {0};
    enum rt_status status = build(r, work, &p, &g);
    if (status == RT_OK)
        status = replay(r, x, &g);
    if (status == RT_OK && r->rank == 0)
        printf("%s, %" PRIu64 " elements, %s: %u nodes: good\n", rt_dtype_name(x->dtype), x->count,
               rt_work_name(work), g.node_count);
    rt_graph_free(&g, &r->d);
    rt_program_free(&p);
    return status;
}

static struct rt_collective sum_of(struct rank *r, enum rt_dtype dtype, uint64_t count)
{
    return (struct rt_collective){.kind = RT_ALL_REDUCE,
                                  .dtype = dtype,
                                  .from = r->memory,
                                  .to = r->memory,
                                  .count = count,
                                  .ranks = r->ranks,
                                  .comm = &r->comm};
}

/* Of few elements: all ranks' lie behind this one's. */
static struct rt_collective gather_of(struct rank *r, enum rt_dtype dtype, uint64_t count)
{
    struct rt_collective x = sum_of(r, dtype, count);
    x.kind = RT_ALL_GATHER;
    x.to = r->memory + (x.count * rt_dtype_bytes(dtype) + 255) / 256 * 256;
    return x;
}

static enum rt_status by_the_library(struct rank *r, const struct rt_collective *x)
{
    const struct rt_work work = {.kind = RT_WORK_COLLECTIVE, .collective = *x};
    RT_TRY(on_a_stream(r, x));
    return in_a_graph(r, x, &work);
}

static enum rt_status exchange_all(struct rank *r)
{
    static const uint64_t counts[] = {1, 5120, MOST_ELEMENTS};
    for (int i = 0; i < 6; i++) {
        const struct rt_collective x =
            sum_of(r, i % 2 ? RT_DTYPE_BF16 : RT_DTYPE_F32, counts[i / 2]);
        RT_TRY(by_the_library(r, &x));
    }
    const struct rt_collective x = gather_of(r, RT_DTYPE_F32, 5120);
    return by_the_library(r, &x);
}

/* Of one token, whose residual and what is normed lie behind. */
static enum rt_status sum_and_norm(struct rank *r, const struct rt_collective *x)
{
    struct rt_work work;
    const struct rt_input_norm_params norm = {
        .hidden = (const uint16_t *)(uintptr_t)x->to,
        .residual = (uint16_t *)(uintptr_t)(r->memory + RESIDUAL_AT),
        .normed = (uint16_t *)(uintptr_t)(r->memory + NORMED_AT),
        .stride = (int64_t)x->count,
        .norm = {.eps = 1e-6f, .scale = 1, .width = (uint32_t)x->count},
        .tokens = 1,
        .hidden_scale = 1};
    if (!rt_sum_norm_serves(x, &norm) || x->count > RT_INPUT_NORM_MOST_WIDTH)
        return RT_OK;
    RT_TRY(rt_sum_norm_work(&r->kernels, x, &norm, &work, &r->err));
    return in_a_graph(r, x, &work);
}

/* Small and large, sums and what is gathered in turn, so that blocks count apart. */
static enum rt_status exchange_in_one_shot(struct rank *r)
{
    static const uint64_t counts[] = {8, 131072, 5120, 131064, 2048, 8192};
    char why[RT_PEERS_WHY_BYTES] = "";
    for (size_t i = 0; i < 2 * sizeof(counts) / sizeof(counts[0]); i++) {
        const struct rt_collective x = i % 2 ? gather_of(r, RT_DTYPE_BF16, counts[i / 2])
                                             : sum_of(r, RT_DTYPE_BF16, counts[i / 2]);
        struct rt_work work;
        if (!rt_one_shot_serves(&r->comm, &x, why, sizeof(why)))
            break;
        RT_TRY(rt_one_shot_work(&r->kernels, &x, &work, &r->err));
        RT_TRY(in_a_graph(r, &x, &work));
        if (x.kind == RT_ALL_REDUCE)
            RT_TRY(sum_and_norm(r, &x));
    }
    if (why[0] && r->rank == 0)
        printf("nothing goes in one shot: %s\n", why);
    RT_REQUIRE(!why[0] || r->host || r->is_thread, &r->err, RT_ERR_INTERNAL,
               "nothing goes in one shot: %s", why);
    return RT_OK;
}

/* ---- attention that is merged ---------------------------------------------------------------- */

#define HEADS 64u /* of a rank, of DIM numbers, each that of all ranks */
#define DIM 512u
#define OUT_AT (UINT64_C(2) << 20) /* in a rank's memory, behind what is given */
#define LSE_AT (UINT64_C(3) << 20)

static void fill_head(unsigned char *head, uint32_t rank, uint32_t h, uint32_t tokens,
                      uint32_t turn)
{
    float *const lse = (float *)(void *)(head + (size_t)tokens * DIM * 2);
    for (uint32_t i = 0; i < tokens * DIM; i++)
        set(head, i, RT_DTYPE_BF16, number(rank, h + i, turn));
    for (uint32_t t = 0; t < tokens; t++)
        lse[t] = (float)((5 * rank + h + t + turn) % 11);
}

static struct rt_context_exchange merge_of(struct rank *r, uint32_t tokens)
{
    const uint64_t bytes = rt_context_head_bytes(tokens, DIM, 2);
    return (struct rt_context_exchange){
        .swap = {.kind = RT_ALL_TO_ALL,
                 .dtype = RT_DTYPE_U8,
                 .from = r->memory,
                 .count = HEADS * bytes,
                 .ranks = r->ranks,
                 .group = r->ranks,
                 .comm = &r->comm},
        .merge = {.out.base = (void *)(uintptr_t)(r->memory + OUT_AT),
                  .out_lse.base = (void *)(uintptr_t)(r->memory + LSE_AT),
                  .tokens = tokens,
                  .heads = HEADS,
                  .v_dim = DIM}};
}

/* Number d of a token and head, over what all ranks have of it. */
static double merged(const struct rank *r, uint32_t token, uint32_t h, uint32_t d, uint32_t turn)
{
    const uint32_t of = r->rank * HEADS + h;
    double sum = 0, weights = 0;
    for (uint32_t rank = 0; rank < r->ranks; rank++) {
        const double weight = exp((double)((5 * rank + of + token + turn) % 11));
        const float x = number(rank, of + token * DIM + d, turn);
        sum += weight * (double)rt_bf16_to_float(rt_float_to_bf16(x));
        weights += weight;
    }
    return sum / weights;
}

static enum rt_status judge_merge(struct rank *r, uint32_t tokens, uint32_t turn)
{
    const uint64_t bytes = (uint64_t)tokens * HEADS * DIM * 2;
    RT_TRY(rt_comm_await(&r->comm, &r->d, r->stream, true, &r->err));
    RT_TRY(RT_DRV(&r->d, &r->err, copy_out,
                  (&r->d, r->numbers, r->memory + OUT_AT, bytes, r->stream)));
    RT_TRY(RT_DRV(&r->d, &r->err, stream_sync, (&r->d, r->stream)));
    for (uint32_t i = 0; i < tokens * HEADS * DIM; i++) {
        const uint32_t token = i / (HEADS * DIM), h = i / DIM % HEADS;
        const double wanted = merged(r, token, h, i % DIM, turn);
        const double got = (double)get(r->numbers, i, RT_DTYPE_BF16);
        RT_REQUIRE(fabs(got - wanted) <= fabs(wanted) * 0x1p-7 + 0x1p-10, &r->err, RT_ERR_INTERNAL,
                   "%u tokens merged, turn %u: number %u is %g, expected %g", tokens, turn, i, got,
                   wanted);
    }
    return RT_OK;
}

static enum rt_status replay_merge(struct rank *r, const struct rt_context_exchange *x,
                                   const struct rt_graph *g)
{
    const uint32_t tokens = x->merge.tokens, heads = r->ranks * HEADS;
    const uint64_t bytes = x->swap.count / HEADS;
    RT_TRY(rt_comm_barrier(&r->comm, &r->err));
    for (uint32_t turn = 0; turn < REPLAYS; turn++) {
        for (uint32_t h = 0; h < heads; h++)
            fill_head(r->numbers + h * bytes, r->rank, h, tokens, turn);
        RT_TRY(RT_DRV(&r->d, &r->err, copy_in,
                      (&r->d, r->memory, r->numbers, heads * bytes, r->stream)));
        RT_TRY(RT_DRV(&r->d, &r->err, graph_launch, (&r->d, g->exec, r->stream)));
        RT_TRY(judge_merge(r, tokens, turn));
    }
    return RT_OK;
}

static enum rt_status merge_in_a_graph(struct rank *r, uint32_t tokens)
{
    const struct rt_context_exchange x = merge_of(r, tokens);
    char why[RT_PEERS_WHY_BYTES];
    struct rt_program p = {0};
    struct rt_graph g = {0};
    struct rt_work work;
    if (!rt_context_one_shot_serves(&x, why, sizeof(why)))
        return RT_OK;
    RT_TRY(rt_context_one_shot_work(&r->kernels, &x, &work, &r->err));
    enum rt_status status = build(r, &work, &p, &g);
    if (status == RT_OK)
        status = replay_merge(r, &x, &g);
    if (status == RT_OK && r->rank == 0)
        printf("%u tokens of %u heads, %s: %u nodes: good\n", tokens, HEADS, rt_work_name(&work),
               g.node_count);
    rt_graph_free(&g, &r->d);
    rt_program_free(&p);
    return status;
}

static enum rt_status merge_in_one_shot(struct rank *r)
{
    static const uint32_t tokens[] = {1, 4, 3};
    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]) && r->ranks <= 4; i++)
        RT_TRY(merge_in_a_graph(r, tokens[i]));
    return RT_OK;
}

/* ---- a rank that is killed ------------------------------------------------------------------- */

/* The others put exchanges on the stream that the last rank never comes to. */
static enum rt_status wait_in_vain(struct rank *r)
{
    const struct rt_collective single = sum_of(r, RT_DTYPE_F32, 5120);
    const struct rt_collective half = sum_of(r, RT_DTYPE_BF16, 5120);
    struct rt_work work;
    RT_TRY(RT_DRV(&r->d, &r->err, collective, (&r->d, &single, r->stream)));
    if (!r->comm.peers.mapped)
        return RT_OK;
    RT_TRY(rt_one_shot_work(&r->kernels, &half, &work, &r->err));
    return rt_work_put(&work, &r->d, false, r->stream, &r->err);
}

static enum rt_status be_left(struct rank *r)
{
    static const uint32_t fields[RT_BOARD_FIELD_COUNT] = {1, 1, 0, 1};
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    bool idle = false;
    if (r->rank == r->ranks - 1)
        (void)raise(SIGKILL);
    enum rt_status status = rt_comm_post(&r->comm, fields, &r->err);
    if (status == RT_OK)
        status = wait_in_vain(r);
    while (status == RT_OK && !rt_board_is_late(&r->comm.board, &w))
        if (rt_board_pause(&w))
            status = rt_comm_look(&r->comm, &r->err);
    RT_REQUIRE(status == RT_ERR_RANKS, &r->err, RT_ERR_INTERNAL,
               "a killed rank is not noticed: status %d", (int)status);
    /* What waited on the device is over, by an error or not. */
    while (r->d.stream_query(&r->d, r->stream, &idle) == 0 && !idle) {
        RT_REQUIRE(!rt_board_is_late(&r->comm.board, &w), &r->err, RT_ERR_INTERNAL,
                   "kernels still wait for a rank that is gone (%s)", r->comm.story.message);
        (void)rt_board_pause(&w);
    }
    if (r->rank == 0)
        printf("noticed: %s\n", r->comm.story.message);
    return RT_OK;
}

/* ---- one rank -------------------------------------------------------------------------------- */

static enum rt_status open_rank(struct rank *r)
{
    struct rt_driver *const d = &r->d;
    RT_TRY(r->host ? rt_driver_open_host(d, &r->err) : rt_driver_open_cuda(r->rank, d, &r->err));
    RT_TRY(RT_DRV(d, &r->err, ctx_enter, (d)));
    RT_TRY(RT_DRV(d, &r->err, stream_create, (d, &r->stream)));
    RT_TRY(RT_DRV(d, &r->err, mem_alloc, (d, MOST_BYTES, &r->memory)));
    r->numbers = malloc(MOST_BYTES);
    RT_REQUIRE(r->numbers, &r->err, RT_ERR_NOMEM, "out of host memory");
    RT_TRY(rt_comm_meet(r->path, r->rank, r->ranks, LIMIT_NS, &r->comm, &r->err));
    RT_TRY(rt_comm_open(&r->comm, d, NULL, &r->err));
    if (r->host)
        return RT_OK;
    RT_TRY(rt_kernels_load(d, &r->kernels, &r->err));
    return rt_one_shot_map(&r->comm, d, &r->err);
}

/* False: a thread is left in NCCL, in the device's context. */
static bool close_rank(struct rank *r)
{
    struct rt_driver *const d = &r->d;
    const bool lingers = rt_comm_close(&r->comm);
    free(r->numbers);
    if (lingers)
        return false;
    rt_kernels_unload(&r->kernels);
    if (r->memory)
        (void)d->mem_free(d, r->memory);
    if (r->stream)
        (void)d->stream_destroy(d, r->stream);
    rt_driver_close(d);
    return true;
}

static int run_rank(struct rank *r)
{
    enum rt_status status = open_rank(r);
    const bool missing = status == RT_ERR_NO_DEVICE || status == RT_ERR_UNSUPPORTED;
    if (status == RT_OK)
        status = exchange_all(r);
    if (status == RT_OK)
        status = exchange_in_one_shot(r);
    if (status == RT_OK)
        status = merge_in_one_shot(r);
    if (status == RT_OK && !r->is_thread)
        status = be_left(r);
    if (status != RT_OK)
        printf("rank %u: %s: %s\n", r->rank, rt_status_string(status), r->err.message);
    r->lingers = !close_rank(r);
    return missing ? SKIPPED : status == RT_OK ? 0 : 1;
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* Its number among the ranks; it is waited for no more. */
static uint32_t forget(pid_t *pids, uint32_t ranks, pid_t pid)
{
    uint32_t rank = 0;
    while (rank + 1 < ranks && pids[rank] != pid)
        rank++;
    pids[rank] = 0;
    return rank;
}

/* The first that has no GPU ends the rest, which wait for it. */
static int await_all(pid_t *pids, uint32_t ranks)
{
    int outcome = 0;
    for (uint32_t left = ranks; left > 0; left--) {
        int status = 0;
        const uint32_t rank = forget(pids, ranks, wait(&status));
        const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        if (rank == ranks - 1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
            continue;
        if (outcome == 0)
            outcome = code;
        for (uint32_t i = 0; i < ranks && code == SKIPPED; i++)
            if (pids[i] > 0)
                (void)kill(pids[i], SIGTERM);
    }
    return outcome;
}

/* Exit handlers would run under a thread that is left. */
static void leave(const struct rank *r, int code)
{
    if (!r->lingers)
        exit(code);
    (void)fflush(NULL);
    _exit(code);
}

/* A process that has opened CUDA may have no children that do: this one opens nothing. */
static int run_processes(const struct rank *what)
{
    pid_t pids[MOST_RANKS];
    struct rank r = *what;
    for (r.rank = 0; r.rank < r.ranks; r.rank++) {
        (void)fflush(NULL);
        pids[r.rank] = fork();
        if (pids[r.rank] == 0)
            leave(&r, run_rank(&r));
        if (pids[r.rank] < 0) {
            perror("fork");
            return 1;
        }
    }
    return await_all(pids, r.ranks);
}

static void *run_thread(void *user)
{
    struct rank *const r = user;
    r->code = run_rank(r);
    return NULL;
}

/* One that has no GPU leaves; the others, which wait for it, find it gone. */
static int run_threads(const struct rank *what)
{
    static struct rank ranks[MOST_RANKS];
    pthread_t threads[MOST_RANKS];
    int outcome = 0;
    for (uint32_t i = 0; i < what->ranks; i++) {
        ranks[i] = *what;
        ranks[i].rank = i;
        if (pthread_create(&threads[i], NULL, run_thread, &ranks[i]) != 0) {
            perror("pthread_create");
            exit(1);
        }
    }
    for (uint32_t i = 0; i < what->ranks; i++) {
        (void)pthread_join(threads[i], NULL);
        if (outcome != SKIPPED && ranks[i].code != 0)
            outcome = ranks[i].code;
    }
    return outcome;
}

int main(int argc, char **argv)
{
    struct rank r = {.ranks = 2};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--host") == 0)
            r.host = true;
        else if (strcmp(argv[i], "--threads") == 0)
            r.is_thread = true;
        else
            r.ranks = (uint32_t)strtoul(argv[i], NULL, 10);
    }
    if (r.ranks < 2 || r.ranks > MOST_RANKS) {
        fprintf(stderr, "usage: gpu-ranks [2..%u] [--threads] [--host]\n", MOST_RANKS);
        return 2;
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0); /* what is known is told, also where it ends badly */
    (void)snprintf(r.path, sizeof(r.path), "/tmp/gpu-ranks.%ld", (long)getpid());
    const int code = r.is_thread ? run_threads(&r) : run_processes(&r);
    puts(code == 0         ? "gpu-ranks: passed"
         : code == SKIPPED ? "gpu-ranks: skipped"
                           : "gpu-ranks: FAILED");
    return code;
}
