/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: all_reduce_ranks [RANKS] [EXCHANGES]
 *
 * Ranks that wait for each other: processes whose mailboxes are one mapping, each of which runs
 * the emulated kernel on its own, exchange after exchange of other sizes, every third of which
 * gathers instead and every third merges attention; every other sum has a norm behind it. What
 * comes is known, and every rank has the bits of the reference. To one more, a sum, the last rank
 * never comes, and when the others wait for it, the host says so.
 */
#define _GNU_SOURCE /* mappings of no file */
#include "common/bf16.h"
#include "driver/driver.h"
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCKS 3u
#define MOST_BYTES (BLOCKS * RT_ALL_REDUCE_BLOCK_BYTES)
#define HEADS 3u /* of 512 numbers; of up to 4 tokens */
#define HEAD_BYTES(tokens) ((tokens)*1024u + 32u)

/* In front of the mailboxes, likewise of all ranks. */
struct page {
    _Alignas(64) int32_t stop;
};

struct rank {
    struct rt_driver d;
    struct rt_kernels kernels;
    struct rt_all_reduce_params p;
    uint16_t *numbers;                    /* [MOST_BYTES / 2], of the device */
    uint16_t *all;                        /* [ranks][MOST_BYTES / 2], likewise */
    unsigned char *given;                 /* [ranks][HEADS], likewise */
    struct rt_context_merge_params merge; /* of the same ranks */
    bool is_stopped;                      /* this exchange will be */
};

static void must(bool holds, const char *what, const struct rt_error *err)
{
    if (holds)
        return;
    fprintf(stderr, "all_reduce_ranks: %s: %s\n", what, err->message);
    exit(1);
}

/* Another number for every rank, exchange and element; sums of eight are exact in f32. */
static float number(uint32_t rank, uint32_t exchange, uint32_t i)
{
    return (float)((rank * 37 + exchange * 11 + i * 7) % 251) - 125.0f;
}

static void launch(struct rank *r, enum rt_op_id op, const void *params, size_t bytes)
{
    struct rt_error err = {0};
    struct rt_variant variant;
    struct rt_work work;
    const struct rt_op_request request = {.caps = &r->d.caps};
    must(rt_op_resolve(op, &request, &variant, &err) == RT_OK, "resolve", &err);
    must(rt_op_build(&r->kernels, &variant, params, bytes, &work, &err) == RT_OK, "build", &err);
    must(r->d.launch(&r->d, &work.launch, false, NULL) == 0, "launch", &err);
}

static void expect(const struct rank *r, uint32_t n, uint32_t i, uint16_t found, float wanted)
{
    if (found == rt_float_to_bf16(wanted))
        return;
    fprintf(stderr, "rank %u, exchange %u, element %u: %g, expected %g\n", r->p.rank, n, i,
            (double)rt_bf16_to_float(found), (double)wanted);
    exit(1);
}

static void gather(struct rank *r, uint32_t n)
{
    const uint32_t count = r->p.bytes / 2;
    r->p.to = r->all;
    launch(r, RT_OP_ALL_GATHER, &r->p, sizeof(r->p));
    for (uint32_t i = 0; i < r->p.ranks * count; i++)
        expect(r, n, i, r->all[i], number(i / count, n, i % count));
}

/* One token's; the residual was 0, and is then what has been summed. */
static void add_up_and_norm(struct rank *r, uint32_t n)
{
    const uint32_t width = r->p.bytes / 2;
    const struct rt_all_reduce_norm_params p = {
        .sum = r->p,
        .norm = {.hidden = r->numbers,
                 .residual = r->all,
                 .normed = r->all + MOST_BYTES / 2,
                 .stride = width,
                 .norm = {.eps = 1e-6f, .scale = 1, .width = width},
                 .tokens = 1,
                 .hidden_scale = 1}};
    memset(r->all, 0, r->p.bytes);
    launch(r, RT_OP_ALL_REDUCE_NORM, &p, sizeof(p));
    for (uint32_t i = 0; i < width; i++)
        expect(r, n, i, r->all[i], rt_bf16_to_float(r->numbers[i]));
}

static void add_up(struct rank *r, uint32_t n)
{
    r->p.to = r->numbers;
    if (n % 2 && !r->is_stopped)
        add_up_and_norm(r, n);
    else
        launch(r, RT_OP_ALL_REDUCE, &r->p, sizeof(r->p));
    for (uint32_t i = 0; i < r->p.bytes / 2; i++) {
        float sum = r->is_stopped ? number(r->p.rank, n, i) : 0; /* all that there is */
        for (uint32_t rank = 0; rank < r->p.ranks && !r->is_stopped; rank++)
            sum += number(rank, n, i);
        expect(r, n, i, r->numbers[i], sum);
    }
}

/* What `rank` has of a head, of all that it attends with, and here of none of the first token. */
static void fill_head(unsigned char *head, uint32_t rank, uint32_t h, uint32_t tokens, uint32_t n)
{
    uint16_t *const vectors = (uint16_t *)(void *)head;
    float *const lse = (float *)(void *)(head + (size_t)tokens * 1024);
    for (uint32_t i = 0; i < tokens * 512; i++)
        vectors[i] = rt_float_to_bf16(number(rank, h + n, i));
    for (uint32_t t = 0; t < tokens; t++)
        lse[t] = t == 0 && rank == 0 ? __builtin_huge_valf() : (float)((rank + h + t + n) % 7);
}

/* The reference's merge of what all ranks have of this one's heads, into `out` and its lse. */
static void merge_truth(const struct rank *r, uint32_t n, uint16_t *out, float *lse)
{
    const uint32_t tokens = r->merge.tokens, bytes = HEAD_BYTES(tokens);
    const int64_t piece = HEADS * (int64_t)bytes;
    unsigned char *const taken = calloc(r->p.ranks, (size_t)piece);
    struct rt_merge_params m = {.in = {taken, piece / 2, 512, bytes / 2},
                                .in_lse = {taken + (size_t)tokens * 1024, piece / 4, 1, bytes / 4},
                                .out = {out, HEADS * 512, 512},
                                .out_lse = {lse, HEADS, 1},
                                .pieces = r->p.ranks,
                                .tokens = tokens,
                                .heads = HEADS,
                                .v_dim = 512};
    for (uint32_t i = 0; i < r->p.ranks * HEADS; i++)
        fill_head(taken + (size_t)i * bytes, i / HEADS, r->p.rank * HEADS + i % HEADS, tokens, n);
    rt_ref_merge(&m);
    free(taken);
}

static void near(const struct rank *r, uint32_t n, uint32_t i, double found, double wanted,
                 double bound)
{
    if (found == wanted || fabs(found - wanted) <= bound)
        return;
    fprintf(stderr, "rank %u, merge %u, number %u: %g, expected %g\n", r->p.rank, n, i, found,
            wanted);
    exit(1);
}

/* Vectors are whole numbers up to 125. */
static void merge(struct rank *r, uint32_t n)
{
    static uint16_t truth[4 * HEADS * 512];
    static float lse_truth[4 * HEADS];
    const uint32_t tokens = 1 + n % 4, items = tokens * HEADS;
    float *const lse = (float *)(void *)r->all;
    uint16_t *const out = r->all + MOST_BYTES / 4;
    r->merge.tokens = tokens;
    r->merge.head_bytes = HEAD_BYTES(tokens);
    r->merge.out = out;
    r->merge.out_lse = lse;
    for (uint32_t h = 0; h < r->p.ranks * HEADS; h++)
        fill_head(r->given + (size_t)h * HEAD_BYTES(tokens), r->p.rank, h, tokens, n);
    launch(r, RT_OP_CONTEXT_MERGE, &r->merge, sizeof(r->merge));
    merge_truth(r, n, truth, lse_truth);
    for (uint32_t i = 0; i < items * 512; i++) {
        const double wanted = (double)rt_bf16_to_float(truth[i]);
        near(r, n, i, (double)rt_bf16_to_float(out[i]), wanted, fabs(wanted) * 0x1p-7 + 0x1p-11);
    }
    for (uint32_t i = 0; i < items; i++)
        near(r, n, i, (double)lse[i], (double)lse_truth[i], 10 * 0x1p-20);
}

static void exchange(struct rank *r, uint32_t n)
{
    static const uint32_t sizes[] = {16, MOST_BYTES, 4096, 8208, 4112};
    r->p.bytes = sizes[n % 5];
    for (uint32_t i = 0; i < r->p.bytes / 2; i++)
        r->numbers[i] = rt_float_to_bf16(number(r->p.rank, n, i));
    if (n % 3 == 1 && !r->is_stopped)
        gather(r, n);
    else if (n % 3 == 2 && !r->is_stopped)
        merge(r, n);
    else
        add_up(r, n);
}

static void begin(struct rank *r, struct page *page)
{
    struct rt_error err = {0};
    rt_addr numbers, all, given;
    const uint64_t mailbox = rt_all_reduce_mailbox_bytes(r->p.ranks, BLOCKS) +
                             rt_context_merge_mailbox_bytes(r->p.ranks, BLOCKS);
    must(rt_driver_open("host", &r->d, NULL, 0, &err) == RT_OK, "open", &err);
    must(rt_kernels_load(&r->d, &r->kernels, &err) == RT_OK, "load", &err);
    must(r->d.mem_alloc(&r->d, MOST_BYTES, &numbers) == 0, "memory", &err);
    must(r->d.mem_alloc(&r->d, (uint64_t)r->p.ranks * MOST_BYTES, &all) == 0, "memory", &err);
    must(r->d.mem_alloc(&r->d, (uint64_t)r->p.ranks * HEADS * HEAD_BYTES(4), &given) == 0, "memory",
         &err);
    r->numbers = (uint16_t *)(uintptr_t)numbers;
    r->all = (uint16_t *)(uintptr_t)all;
    r->given = (unsigned char *)(uintptr_t)given;
    r->p.from = r->numbers;
    r->p.stop = &page->stop;
    r->merge = (struct rt_context_merge_params){.given = r->given,
                                                .stop = &page->stop,
                                                .rank = r->p.rank,
                                                .ranks = r->p.ranks,
                                                .heads = HEADS,
                                                .v_dim = 512};
    for (uint32_t i = 0; i < r->p.ranks; i++) {
        unsigned char *const at = (unsigned char *)(page + 1) + i * mailbox;
        r->p.mailbox[i] = at;
        r->merge.mailbox[i] = at + rt_all_reduce_mailbox_bytes(r->p.ranks, BLOCKS);
    }
}

static void run(struct page *page, uint32_t rank, uint32_t ranks, uint32_t exchanges)
{
    struct rank r = {.p = {.rank = rank, .ranks = ranks}};
    begin(&r, page);
    for (uint32_t n = 0; n < exchanges; n++)
        exchange(&r, n);
    r.is_stopped = true;
    if (rank + 1 < ranks)
        exchange(&r, exchanges);
    else
        (void)usleep(20000);
    __atomic_store_n(&page->stop, 1, __ATOMIC_RELEASE);
    (void)r.d.mem_free(&r.d, (uintptr_t)r.numbers);
    (void)r.d.mem_free(&r.d, (uintptr_t)r.all);
    (void)r.d.mem_free(&r.d, (uintptr_t)r.given);
    rt_kernels_unload(&r.kernels);
    rt_driver_close(&r.d);
}

int main(int argc, char **argv)
{
    const uint32_t ranks = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 2;
    const uint32_t exchanges = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 10;
    const size_t bytes =
        sizeof(struct page) + ranks * (rt_all_reduce_mailbox_bytes(ranks, BLOCKS) +
                                       rt_context_merge_mailbox_bytes(ranks, BLOCKS));
    struct page *const page =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int failed = page == MAP_FAILED;
    for (uint32_t rank = 0; rank < ranks && !failed; rank++) {
        const pid_t pid = fork();
        if (pid == 0) {
            run(page, rank, ranks, exchanges);
            exit(0);
        }
        failed = pid < 0;
    }
    for (int status; wait(&status) > 0;)
        failed |= status != 0;
    puts(failed ? "all_reduce_ranks: FAILED" : "all_reduce_ranks: passed");
    return failed;
}
