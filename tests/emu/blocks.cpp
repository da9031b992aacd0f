/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The emulator's own test: blocks that wait for each other, and the words that they hand over.
 *
 *   emu_blocks      small kernels in many orders; then mistakes, which must be told
 */
#include "tests/emu/emu.h"

#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/relaxed.cuh"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 6, THREADS = 64, WORDS = BLOCKS * THREADS * 4 };
static const uint32_t BLANK = 0xffffffffu;

/* A kernel's parameters. */
struct room {
    uint32_t words[WORDS] __attribute__((aligned(16)));
    uint32_t out[BLOCKS][THREADS];
    uint32_t before; /* written by the grid before */
};
static struct room room;

void emu_poison_shared(void)
{
}

static uint32_t own(unsigned block, unsigned thread)
{
    return 1000 * block + thread;
}

static uint32_t await(const uint32_t *at)
{
    uint32_t v = BLANK;
    while (v == BLANK)
        rt_load_relaxed(v, at);
    return v;
}

/* ---- what is right ---- */

/* Every thread stores a vector, and sums all that the threads of its number have stored. What a
 * block keeps in shared memory meanwhile is its own. */
static void everybody(const void *)
{
    __shared__ uint32_t kept[THREADS];
    const unsigned t = threadIdx.x, b = blockIdx.x;
    uint32_t sum = 0;
    kept[t] = own(b, t);
    rt_pdl_wait();
    rt_store_relaxed(room.words + (b * THREADS + t) * 4,
                     make_uint4(own(b, t), own(b, t) + 1, own(b, t) + 2, room.before));
    for (unsigned i = 0; i < BLOCKS; i++) {
        uint4 v = {BLANK, BLANK, BLANK, BLANK};
        while (v.x == BLANK || v.y == BLANK || v.z == BLANK || v.w == BLANK)
            rt_load_relaxed(v, room.words + (i * THREADS + t) * 4);
        sum += v.x + v.y + v.z + v.w;
    }
    __syncthreads();
    room.out[b][t] = kept[t ^ 1] == own(b, t ^ 1) ? sum : 0;
}

static void hide_before(void)
{
    room.before = 77777;
}

static void show_before(void)
{
    room.before = 5;
}

/* A block takes from the one before it in a ring, and gives to the next; the last round's words
 * are all that is left. */
static void ring(const void *)
{
    const unsigned t = threadIdx.x, b = blockIdx.x;
    rt_pdl_wait();
    uint32_t value = own(b, t);
    for (unsigned round = 0; round < 3; round++) {
        rt_store_relaxed(room.words + (round * BLOCKS + b) * THREADS + t, value);
        value = 1 + await(room.words + (round * BLOCKS + (b + 1) % BLOCKS) * THREADS + t);
    }
    room.out[b][t] = value;
}

/* ---- mistakes ---- */

static void stores_twice(const void *)
{
    rt_pdl_wait();
    if (threadIdx.x == 0)
        rt_store_relaxed(room.words, 3 + blockIdx.x);
}

static void stores_a_blank(const void *)
{
    rt_pdl_wait();
    rt_store_relaxed(room.words + blockIdx.x * THREADS + threadIdx.x, BLANK - (threadIdx.x != 9));
}

static void stores_over_what_is_there(const void *)
{
    rt_pdl_wait();
    if (blockIdx.x == 2 && threadIdx.x == 1)
        rt_store_relaxed(room.out[0], 7u);
}

static void stores_in_two_ways(const void *)
{
    rt_pdl_wait();
    if (blockIdx.x == 1)
        rt_store_relaxed(room.words + threadIdx.x, 8u);
    if (blockIdx.x == 3)
        room.words[5] = 9;
}

static void waits_for_nobody(const void *)
{
    rt_pdl_wait();
    if (blockIdx.x != 4)
        room.out[blockIdx.x][threadIdx.x] = await(room.words + threadIdx.x);
    else if (threadIdx.x != 33)
        rt_store_relaxed(room.words + threadIdx.x, 1u);
}

static void waits_in_a_barrier(const void *)
{
    rt_pdl_wait();
    if (threadIdx.x > 0)
        __syncthreads();
    else
        await(room.words + blockIdx.x);
}

static void stores_beside_a_vector(const void *)
{
    rt_pdl_wait();
    rt_store_relaxed(room.words + 1, make_uint2(1, 2));
}

/* An ordinary load finds what was there before, however late it comes. */
static void reads_in_another_way(const void *)
{
    const unsigned t = threadIdx.x, b = blockIdx.x;
    rt_pdl_wait();
    if (b == 0)
        rt_store_relaxed(room.words + t, own(b, t));
    if (b == 1) {
        (void)await(room.words + t);
        room.out[b][t] = *(volatile uint32_t *)(room.words + t);
    }
}

/* ---- running them ---- */

static void run(void (*thread)(const void *), bool cooperative, uint64_t seed)
{
    struct emu_launch l = {};
    l.grid_x = BLOCKS;
    l.grid_y = 1;
    l.threads = THREADS;
    l.cooperative = cooperative;
    l.seed = seed;
    l.thread = thread;
    memset(&room, 0, sizeof(room));
    memset(room.words, 0xff, sizeof(room.words));
    emu_run(&l);
}

static void must(bool holds, const char *what, uint64_t seed)
{
    if (holds)
        return;
    fprintf(stderr, "%s, seed %llu\n", what, (unsigned long long)seed);
    exit(1);
}

static void check_everybody(uint64_t seed)
{
    emu_grid_begins = hide_before;
    emu_grid_ends = show_before;
    run(everybody, true, seed);
    emu_grid_begins = emu_grid_ends = nullptr;
    for (unsigned t = 0; t < THREADS; t++) {
        uint32_t sum = 0;
        for (unsigned b = 0; b < BLOCKS; b++)
            sum += 3 * own(b, t) + 3 + 5;
        for (unsigned b = 0; b < BLOCKS; b++)
            must(room.out[b][t] == sum, "a sum of all blocks", seed);
    }
    for (unsigned i = 0; i < WORDS; i++)
        must(i % 4 == 3 || room.words[i] == own(i / 4 / THREADS, i / 4 % THREADS) + i % 4,
             "what is in memory behind the grid", seed);
}

static void check_ring(uint64_t seed)
{
    run(ring, true, seed);
    for (unsigned b = 0; b < BLOCKS; b++)
        for (unsigned t = 0; t < THREADS; t++)
            must(room.out[b][t] == own((b + 3) % BLOCKS, t) + 3, "round the ring", seed);
}

static void check_other_reads(uint64_t seed)
{
    run(reads_in_another_way, true, seed);
    for (unsigned t = 0; t < THREADS; t++)
        must(room.out[1][t] == BLANK && room.words[t] == own(0, t), "an ordinary load", seed);
}

/* In a child, which must end with the text. */
static void expect_told(void (*thread)(const void *), bool cooperative, const char *text)
{
    int pipes[2], status = 0;
    static char said[65536];
    if (pipe(pipes) != 0)
        exit(1);
    const pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], STDERR_FILENO);
        run(thread, cooperative, 3);
        _exit(0);
    }
    close(pipes[1]);
    size_t used = 0;
    ssize_t got = 0;
    while ((got = read(pipes[0], said + used, sizeof(said) - 1 - used)) > 0)
        used += (size_t)got;
    said[used] = '\0';
    close(pipes[0]);
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status) && strstr(said, text))
        return;
    fprintf(stderr, "no \"%s\" in what a child said that ended with %d:\n%s\n", text, status, said);
    exit(1);
}

int main(int argc, char **argv)
{
    const uint64_t seeds = argc > 1 ? strtoull(argv[1], nullptr, 10) : 20;
    for (uint64_t seed = 0; seed < seeds; seed++) {
        check_everybody(seed);
        check_ring(seed);
        check_other_reads(seed);
    }
    expect_told(stores_twice, true, "is stored, and is not blank");
    expect_told(stores_twice, false, "is stored, and is not blank");
    expect_told(stores_a_blank, true, "stores a blank");
    expect_told(stores_over_what_is_there, true, "is stored, and is not blank");
    expect_told(stores_in_two_ways, true, "stored relaxed and in another way");
    expect_told(waits_for_nobody, true, "thread 33 waits for a word that nobody has stored");
    expect_told(waits_for_nobody, true, "deadlock");
    expect_told(waits_in_a_barrier, true, "deadlock");
    expect_told(stores_beside_a_vector, true, "a relaxed access of 2 words");
    expect_told(everybody, false, "deadlock");
    printf("%llu orders, 10 mistakes told\n", (unsigned long long)seeds);
    return 0;
}
