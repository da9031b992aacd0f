/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/access.h"
#include "tests/emu/grid.h"
#include "tests/emu/mma.h"
#include "tests/emu/place.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

/* Stacks begin at different lines of a cache's sets, which stacks of a power of two would share. */
enum { STACK_BYTES = 512 * 1024, STACK_SHIFT_BYTES = 17 * 64, MAX_WARPS = EMU_MAX_THREADS / 32 };

EMU_OF_BLOCK unsigned char rt_attend_shared[EMU_SHARED_BYTES] __attribute__((aligned(1024)));
extern EMU_OF_BLOCK unsigned char rt_sm90_shared[EMU_SHARED_BYTES]
    __attribute__((alias("rt_attend_shared")));
EMU_OF_BLOCK struct emu_dim blockIdx, gridDim;
EMU_OF_BLOCK int emu_self;

/* What a switch touches is a line of a cache, but for the sanitizer's clocks. */
struct alignas(64) fiber {
    struct emu_place place;
    struct emu_wish wish;
    struct emu_clocks clocks;
    bool made, waited;
};

/* Where a warp or a block meets. Two sets, so that the fast may be one meeting ahead. */
struct meeting {
    int arrived, number, operation;
    int votes[2];
    struct emu_order order[2];
    emu_words words[2][32];
};

/* Who runs next. Warps in an order that seldom changes leave some of them far behind the others. */
enum policy { ANYBODY, ANYBODY_COPIES_LAST, RANKED, RANKED_COPIES_LAST, POLICIES };

/* Of the block, of which each may be a thread of the host. */
static thread_local struct fiber fibers[EMU_MAX_THREADS];
static thread_local struct meeting warps[MAX_WARPS], block;
static thread_local uint32_t runnable_in[MAX_WARPS], there_in[MAX_WARPS]; /* a bit a lane */
static thread_local int rank[MAX_WARPS];
static thread_local struct emu_place all_left; /* who runs the block goes on there */
static thread_local int thread_count, warp_count, threads_left;
static thread_local uint64_t random_state;
static thread_local const struct emu_launch *launch;
static thread_local struct emu_order block_order[2];
static thread_local bool grid_waited, triggered;
static thread_local enum policy policy;

/* Of the grid. */
static struct emu_order grid_order;
static bool waited, waits_before_trigger;

void emu_fail(const char *format, ...)
{
    va_list more;
    va_start(more, format);
    fprintf(stderr, "emu: block (%u, %u) thread %d: ", blockIdx.x, blockIdx.y, emu_self);
    vfprintf(stderr, format, more);
    fputc('\n', stderr);
    va_end(more);
    abort();
}

int emu_thread_count(void)
{
    return thread_count;
}

void emu_random_begin(uint64_t seed)
{
    random_state = seed * 2654435761u + 88172645463325252ull;
}

uint64_t emu_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* ---- sleep ---- */

static uint32_t lane_bit(int thread)
{
    return 1u << thread % 32;
}

static int next_thread(void);

/* Until somebody has chosen it again: who goes chooses, with no scheduler to come back to. */
static inline void let_others_run(void)
{
    struct emu_place *here = &fibers[emu_self].place, *to = &all_left;
    emu_grid_pause();
    const int next = next_thread();
    if (next >= 0) {
        emu_self = next;
        emu_clocks_switch(&fibers[next].clocks);
        to = &fibers[next].place;
    } else {
        emu_clocks_leave();
    }
    if (to != here)
        emu_place_go(here, to);
}

static inline void fall_asleep(struct emu_wish wish)
{
    fibers[emu_self].wish = wish;
    runnable_in[emu_self / 32] &= ~lane_bit(emu_self);
    let_others_run();
}

void emu_sleep(struct emu_wish wish)
{
    fall_asleep(wish);
}

/* It stays among those that may run: what it waits for nobody here may know. */
void emu_yield(void)
{
    let_others_run();
}

void emu_wake(int thread)
{
    runnable_in[thread / 32] |= there_in[thread / 32] & lane_bit(thread);
}

/* Whole warps. */
static void wake_all(int first, int size)
{
    for (int warp = first / 32; warp * 32 < first + size; warp++)
        runnable_in[warp] = there_in[warp];
}

void emu_wake_any(int thread)
{
    if (thread >= 0)
        emu_wake(thread);
    else
        wake_all(0, thread_count);
}

/* ---- meetings ---- */

static void end_meeting(struct meeting *m, int first, int size)
{
    m->arrived = 0;
    m->number++;
    m->votes[m->number % 2] = 0;
    wake_all(first, size);
}

/* Returns once `count` of `size` threads, all that are there, have come. Who wakes a sleeper for
 * something else finds it asleep again. */
static inline void meet(struct meeting *m, int first, int size, int count, int operation)
{
    const int number = m->number;
    if (m->arrived == 0)
        m->operation = operation;
    if (m->operation != operation)
        emu_fail("lanes meet in different operations, %d and %d", m->operation, operation);
    if (++m->arrived == count) {
        end_meeting(m, first, size);
        return;
    }
    while (m->number == number)
        fall_asleep({"a meeting in operation", operation, m->arrived});
}

static emu_words *bring(struct meeting *m, const uint32_t *words, int count)
{
    emu_words *set = m->words[m->number % 2];
    for (int i = 0; i < count; i++)
        set[emu_self % 32][i] = words[i];
    return set;
}

const emu_words *emu_exchange(int operation, const uint32_t *words, int count)
{
    struct meeting *m = &warps[emu_self / 32];
    const emu_words *set = bring(m, words, count);
    meet(m, emu_self / 32 * 32, 32, 32, operation);
    return set;
}

/* By the last of the lanes, for all of them. */
void emu_multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    struct meeting *m = &warps[emu_self / 32];
    const uint32_t words[] = {emu_bits(d[0]),
                              emu_bits(d[1]),
                              emu_bits(d[2]),
                              emu_bits(d[3]),
                              a[0],
                              a[1],
                              a[2],
                              a[3],
                              b0,
                              b1};
    emu_words *set = bring(m, words, sizeof(words) / sizeof(*words));
    if (m->arrived == 31)
        emu_multiply_warp(set);
    meet(m, emu_self / 32 * 32, 32, 32, EMU_MMA);
    memcpy(d, set[emu_self % 32], sizeof(d));
}

void __syncwarp(void)
{
    struct meeting *m = &warps[emu_self / 32];
    struct emu_order *order = &m->order[m->number % 2];
    emu_release(order);
    meet(m, emu_self / 32 * 32, 32, 32, EMU_SYNCWARP);
    emu_acquire(order);
}

/* Threads that have left are not waited for. */
int __syncthreads_count(bool vote)
{
    const int set = block.number % 2;
    block.votes[set] += vote;
    emu_release(&block.order[set]);
    meet(&block, 0, thread_count, threads_left, 0);
    emu_acquire(&block.order[set]);
    return block.votes[set];
}

bool __syncthreads_or(bool vote)
{
    return __syncthreads_count(vote) > 0;
}

void __syncthreads(void)
{
    __syncthreads_or(false);
}

static void leave(void)
{
    there_in[emu_self / 32] &= ~lane_bit(emu_self);
    runnable_in[emu_self / 32] &= ~lane_bit(emu_self);
    threads_left--;
    if (block.arrived > 0 && block.arrived == threads_left)
        end_meeting(&block, 0, thread_count);
}

/* ---- the grid before this one ---- */

void emu_grid_wait(void)
{
    while (!emu_grid_before_is_over())
        emu_sleep({"the grid before", 0, 0});
    grid_waited = fibers[emu_self].waited = true;
    emu_acquire(&grid_order);
}

/* All blocks must have come here, one thread of each, or have left, before the next grid starts.
 * That another thread has waited by then is luck. */
void emu_grid_trigger(void)
{
    waits_before_trigger |= !triggered && fibers[emu_self].waited;
    triggered = true;
}

void emu_block_release(void)
{
    emu_release(&grid_order);
}

void __trap(void)
{
    emu_fail("traps");
}

/* ---- values ---- */

static void *matrix_row(const void *row)
{
    const unsigned char *at = (const unsigned char *)row;
    if ((uintptr_t)at % 16 != 0 || at < rt_attend_shared ||
        at >= rt_attend_shared + EMU_SHARED_BYTES)
        emu_fail("bad matrix row");
    return (void *)row;
}

void emu_load_row(uint32_t (&words)[4], const void *row)
{
    const struct emu_16_bytes value = emu_load_16(matrix_row(row));
    memcpy(words, &value, sizeof(value));
}

void emu_store_row(void *row, const uint32_t (&words)[4])
{
    struct emu_16_bytes value;
    memcpy(&value, words, sizeof(value));
    emu_store_16(matrix_row(row), value);
}

/* ---- a block ---- */

/* Of one block after the other. */
static void fiber_main(void)
{
    for (;;) {
        emu_acquire(&block_order[0]);
        launch->thread(launch->params);
        emu_copy_wait(0);
        emu_release(&block_order[1]);
        leave();
        let_others_run();
    }
}

static void start_fiber(int i)
{
    static thread_local emu_of_threads<unsigned char[STACK_BYTES]> stacks;
    struct fiber *f = &fibers[i];
    f->waited = false;
    there_in[i / 32] |= lane_bit(i);
    runnable_in[i / 32] |= lane_bit(i);
    emu_clocks_make(&f->clocks);
    if (f->made)
        return;
    f->made = true;
    emu_place_make(&f->place, stacks[i], STACK_BYTES - (size_t)(i % 64) * STACK_SHIFT_BYTES,
                   fiber_main);
}

static void swap_ranks(int a, int b)
{
    const int was = rank[a];
    rank[a] = rank[b];
    rank[b] = was;
}

/* Warp groups one behind the other, in any order; and every now and then a warp changes place. */
static void make_ranks(void)
{
    const int shift = (int)(emu_random() % (uint64_t)warp_count);
    for (int w = 0; w < warp_count; w++)
        rank[w] = (w + shift / 4 * 4) % warp_count;
    if (emu_random() % 2)
        for (int w = warp_count - 1; w > 0; w--)
            swap_ranks(w, (int)(emu_random() % (uint64_t)(w + 1)));
}

static int pick_warp(void)
{
    const bool ranked = policy >= RANKED;
    if (ranked && emu_random() % 4096 == 0)
        swap_ranks((int)(emu_random() % (uint64_t)warp_count),
                   (int)(emu_random() % (uint64_t)warp_count));
    for (int i = 0; i < warp_count && ranked; i++)
        if (runnable_in[rank[i]])
            return rank[i];
    if (ranked)
        return -1;
    int warp = (int)((emu_random() >> 32) * (uint64_t)warp_count >> 32); /* quicker than % */
    for (int i = 0; i < warp_count; i++) {
        if (runnable_in[warp])
            return warp;
        warp = warp + 1 < warp_count ? warp + 1 : 0;
    }
    return -1;
}

static int pick_thread(int warp)
{
    const unsigned from = (unsigned)(emu_random() % 32);
    const uint32_t lanes = runnable_in[warp] >> from | runnable_in[warp] << (32 - from) % 32;
    return warp * 32 + (int)(from + (unsigned)__builtin_ctz(lanes)) % 32;
}

/* Negative: all have left. What happens before it runs is nobody's. */
static int next_thread(void)
{
    while (threads_left > 0 || emu_async_pending()) {
        emu_grid_read_mail();
        const int warp = pick_warp();
        const bool copies_first = policy == RANKED || (policy == ANYBODY && emu_random() % 4 == 0);
        if (emu_async_pending() && (warp < 0 || copies_first)) {
            emu_clocks_leave();
            emu_async_step();
        } else if (warp < 0) {
            emu_clocks_leave();
            emu_grid_stuck();
        } else {
            return pick_thread(warp);
        }
    }
    return -1;
}

void emu_tell_wishes(void)
{
    for (int i = 0; i < thread_count; i++) {
        const struct emu_wish *wish = &fibers[i].wish, *before = &fibers[i - (i % 32 != 0)].wish;
        const uint32_t there = there_in[i / 32];
        if (!(there & lane_bit(i)) || (i % 32 != 0 && there & lane_bit(i - 1) &&
                                       wish->what == before->what && wish->which == before->which))
            continue;
        fprintf(stderr, "  block (%u, %u) thread %d waits for %s %d (%d)\n", blockIdx.x, blockIdx.y,
                i, wish->what, wish->which, wish->more);
    }
}

static void begin_block(void)
{
    memset(rt_attend_shared, 0xa5, sizeof(rt_attend_shared));
    emu_poison_shared();
    memset(warps, 0, sizeof(warps));
    memset(&block, 0, sizeof(block));
    memset(runnable_in, 0, sizeof(runnable_in));
    memset(there_in, 0, sizeof(there_in));
    policy = (enum policy)(emu_random() % POLICIES);
    make_ranks();
    emu_async_begin();
    for (int i = 0; i < thread_count; i++)
        start_fiber(i);
    threads_left = thread_count;
    grid_waited = triggered = false;
    emu_release(&block_order[0]);
}

static void end_block(void)
{
    emu_acquire(&block_order[1]);
    emu_async_end();
    waited |= grid_waited;
    waits_before_trigger |= !triggered && grid_waited;
    for (size_t i = launch->shared_bytes; i < sizeof(rt_attend_shared); i++)
        if (rt_attend_shared[i] != 0xa5)
            emu_fail("byte %zu behind the shared memory is written", i - launch->shared_bytes);
}

void emu_block_run(const struct emu_launch *l, unsigned number)
{
    const emu_unseen unseen;
    launch = l;
    gridDim = {l->grid_x, l->grid_y, 1};
    blockIdx = {number % gridDim.x, number / gridDim.x, 0};
    thread_count = (int)l->threads;
    warp_count = (thread_count + 31) / 32;
    begin_block();
    emu_self = next_thread();
    emu_clocks_switch(&fibers[emu_self].clocks);
    emu_place_go(&all_left, &fibers[emu_self].place);
    end_block();
}

void emu_blocks_begin(void)
{
    waited = waits_before_trigger = false;
}

bool emu_blocks_end(void)
{
    if (!waited)
        emu_fail("no block has waited for the grid before");
    return waits_before_trigger;
}
