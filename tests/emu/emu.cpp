/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/access.h"
#include "tests/emu/chain.h"
#include "tests/emu/core.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>

enum { STACK_BYTES = 512 * 1024, MAX_WARPS = EMU_MAX_THREADS / 32 };

alignas(1024) unsigned char rt_attend_shared[EMU_SHARED_BYTES];
extern unsigned char rt_sm90_shared[EMU_SHARED_BYTES] __attribute__((alias("rt_attend_shared")));
struct emu_dim blockIdx, gridDim;
uint64_t emu_seed;
void (*emu_grid_begins)(void), (*emu_grid_ends)(void);

/* Where a fiber, or the scheduler, goes on. A jump needs no system call, a context does; it is for
 * the first time, and for a compiler without jumps of its own: of the C library's the thread
 * sanitizer would have to know, which follows fibers by emu_clocks_switch. */
struct place {
    ucontext_t context;
    void *jump[5];
    bool jumps;
};

struct fiber {
    struct place place;
    struct emu_clocks clocks;
    struct emu_wish wish;
    bool runnable, done, waited;
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

static struct fiber fibers[EMU_MAX_THREADS];
static struct meeting warps[MAX_WARPS], block;
static int runnable_in[MAX_WARPS], rank[MAX_WARPS];
static struct place scheduler;
static int self, thread_count, threads_left;
static uint64_t random_state;
static const struct emu_launch *launch;
static struct emu_order block_order[2], grid_order;
static bool grid_waited, grid_over, triggered, waits_before_trigger;
static enum policy policy;

void emu_fail(const char *format, ...)
{
    va_list more;
    va_start(more, format);
    fprintf(stderr, "emu: block (%u, %u) thread %d: ", blockIdx.x, blockIdx.y, self);
    vfprintf(stderr, format, more);
    fputc('\n', stderr);
    va_end(more);
    abort();
}

struct emu_dim emu_thread_index(void)
{
    return {(unsigned)self, 0, 0};
}

int emu_lane(void)
{
    return self % 32;
}

int emu_self(void)
{
    return self;
}

uint64_t emu_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* ---- sleep ---- */

#if defined(__x86_64__) || !defined(__clang__)
/* Not where the jump was prepared: the compiler forbids it. */
__attribute__((noinline, noreturn)) static void leap(struct place *to)
{
    if (to->jumps)
        __builtin_longjmp(to->jump, 1);
    setcontext(&to->context);
    abort();
}

__attribute__((noinline)) static void go(struct place *from, struct place *to)
{
    from->jumps = true;
    if (__builtin_setjmp(from->jump) == 0)
        leap(to);
}
#else
static void go(struct place *from, struct place *to)
{
    swapcontext(&from->context, &to->context);
}
#endif

static void set_runnable(int i, bool runnable)
{
    runnable_in[i / 32] += (int)runnable - (int)fibers[i].runnable;
    fibers[i].runnable = runnable;
}

static void to_scheduler(void)
{
    emu_clocks_leave();
    go(&fibers[self].place, &scheduler);
}

void emu_sleep(struct emu_wish wish)
{
    fibers[self].wish = wish;
    set_runnable(self, false);
    to_scheduler();
}

void emu_wake(int thread)
{
    if (!fibers[thread].done)
        set_runnable(thread, true);
}

/* ---- meetings ---- */

static void end_meeting(struct meeting *m, int first, int size)
{
    m->arrived = 0;
    m->number++;
    m->votes[m->number % 2] = 0;
    for (int i = 0; i < size; i++)
        emu_wake(first + i);
}

/* Returns once `count` of `size` threads, all that are there, have come. Who wakes a sleeper for
 * something else finds it asleep again. */
static void meet(struct meeting *m, int first, int size, int count, int operation)
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
        emu_sleep({"a meeting in operation", operation, m->arrived});
}

const emu_words *emu_exchange(int operation, const uint32_t *words, int count)
{
    struct meeting *m = &warps[self / 32];
    const int set = m->number % 2;
    for (int i = 0; i < count; i++)
        m->words[set][self % 32][i] = words[i];
    meet(m, self / 32 * 32, 32, 32, operation);
    return m->words[set];
}

void __syncwarp(void)
{
    struct meeting *m = &warps[self / 32];
    struct emu_order *order = &m->order[m->number % 2];
    emu_release(order);
    meet(m, self / 32 * 32, 32, 32, EMU_SYNCWARP);
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
    fibers[self].done = true;
    set_runnable(self, false);
    threads_left--;
    if (block.arrived > 0 && block.arrived == threads_left)
        end_meeting(&block, 0, thread_count);
}

/* ---- the grid before this one ---- */

void emu_grid_wait(void)
{
    while (!grid_over)
        emu_sleep({"the grid before", 0, 0});
    grid_waited = fibers[self].waited = true;
    emu_acquire(&grid_order);
}

/* All blocks must have come here, one thread of each, or have left, before the next grid starts.
 * That another thread has waited by then is luck. */
void emu_grid_trigger(void)
{
    waits_before_trigger |= !triggered && fibers[self].waited;
    triggered = true;
}

static bool end_grid_before(void)
{
    if (grid_over)
        return false;
    grid_over = true;
    emu_copy_read();
    emu_chain_reveal();
    if (emu_grid_ends)
        emu_grid_ends();
    emu_release(&grid_order);
    for (int i = 0; i < thread_count; i++)
        emu_wake(i);
    return true;
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

float emu_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

uint32_t emu_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

uint16_t emu_bf16(float value)
{
    const uint32_t bits = emu_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* ---- a block ---- */

static void fiber_main(void)
{
    emu_acquire(&block_order[0]);
    launch->thread(launch->params);
    emu_copy_wait(0);
    emu_release(&block_order[1]);
    leave();
    to_scheduler();
}

static void start_fiber(int i)
{
    static unsigned char *stacks;
    if (!stacks)
        stacks = (unsigned char *)malloc((size_t)EMU_MAX_THREADS * STACK_BYTES);
    struct fiber *f = &fibers[i];
    emu_clocks_make(&f->clocks);
    struct place *at = &f->place;
    at->jumps = false;
    getcontext(&at->context);
    at->context.uc_stack.ss_sp = stacks + (size_t)i * STACK_BYTES;
    at->context.uc_stack.ss_size = STACK_BYTES;
    at->context.uc_link = nullptr;
    makecontext(&at->context, fiber_main, 0);
    f->done = f->runnable = f->waited = false;
    set_runnable(i, true);
}

static void swap_ranks(int a, int b)
{
    const int was = rank[a];
    rank[a] = rank[b];
    rank[b] = was;
}

/* Warp groups one behind the other, in any order; and every now and then a warp changes place. */
static void make_ranks(int warp_count)
{
    const int shift = (int)(emu_random() % (uint64_t)warp_count);
    for (int w = 0; w < warp_count; w++)
        rank[w] = (w + shift / 4 * 4) % warp_count;
    if (emu_random() % 2)
        for (int w = warp_count - 1; w > 0; w--)
            swap_ranks(w, (int)(emu_random() % (uint64_t)(w + 1)));
}

static int pick_warp(int warp_count)
{
    const bool ranked = policy >= RANKED;
    if (ranked && emu_random() % 4096 == 0)
        swap_ranks((int)(emu_random() % (uint64_t)warp_count),
                   (int)(emu_random() % (uint64_t)warp_count));
    const int from = ranked ? 0 : (int)(emu_random() % (uint64_t)warp_count);
    for (int i = 0; i < warp_count; i++) {
        const int warp = ranked ? rank[i] : (from + i) % warp_count;
        if (runnable_in[warp] > 0)
            return warp;
    }
    return -1;
}

static void run_fiber(int warp)
{
    const int from = (int)(emu_random() % 32);
    for (int i = 0; i < 32; i++) {
        self = warp * 32 + (from + i) % 32;
        if (fibers[self].runnable)
            break;
    }
    emu_clocks_switch(&fibers[self].clocks);
    go(&scheduler, &fibers[self].place);
}

static bool run_one(int warp_count)
{
    const int warp = pick_warp(warp_count);
    const bool copies_first = policy == RANKED || (policy == ANYBODY && emu_random() % 4 == 0);
    if (emu_async_pending() && (warp < 0 || copies_first)) {
        emu_async_step();
        return true;
    }
    if (warp < 0)
        return end_grid_before();
    run_fiber(warp);
    return true;
}

static void tell_wishes(void)
{
    for (int i = 0; i < thread_count; i++) {
        const struct emu_wish *wish = &fibers[i].wish, *before = &fibers[i - (i % 32 != 0)].wish;
        if (fibers[i].done || (i % 32 != 0 && !fibers[i - 1].done && wish->what == before->what &&
                               wish->which == before->which))
            continue;
        fprintf(stderr, "  thread %d waits for %s %d (%d)\n", i, wish->what, wish->which,
                wish->more);
    }
}

static void run_block(void)
{
    memset(rt_attend_shared, 0xa5, sizeof(rt_attend_shared));
    emu_poison_shared();
    memset(warps, 0, sizeof(warps));
    memset(&block, 0, sizeof(block));
    memset(runnable_in, 0, sizeof(runnable_in));
    policy = (enum policy)(emu_random() % POLICIES);
    const int warp_count = (thread_count + 31) / 32;
    make_ranks(warp_count);
    emu_async_begin();
    for (int i = 0; i < thread_count; i++)
        start_fiber(i);
    threads_left = thread_count;
    grid_over = grid_waited = triggered = false;
    emu_chain_hide();
    if (emu_grid_begins)
        emu_grid_begins();
    emu_release(&block_order[0]);
    while (run_one(warp_count))
        ;
    emu_acquire(&block_order[1]);
    if (threads_left > 0) {
        tell_wishes();
        emu_fail("deadlock, policy %d", policy);
    }
    emu_async_end();
    emu_chain_reveal();
    waits_before_trigger |= !triggered && grid_waited;
    for (size_t i = launch->shared_bytes; i < sizeof(rt_attend_shared); i++)
        if (rt_attend_shared[i] != 0xa5)
            emu_fail("byte %zu behind the shared memory is written", i - launch->shared_bytes);
}

void emu_run(const struct emu_launch *l)
{
    const emu_unseen unseen;
    launch = l;
    gridDim = {l->grid_x, l->grid_y, 1};
    thread_count = (int)l->threads;
    random_state = (l->seed + emu_seed) * 2654435761u + 88172645463325252ull;
    const unsigned blocks = gridDim.x * gridDim.y;
    const unsigned shift = (unsigned)(emu_random() % blocks);
    bool waited = false;
    waits_before_trigger = false;
    emu_chain_kernel_begins();
    for (unsigned i = 0; i < blocks; i++) {
        const unsigned b = (i + shift) % blocks;
        blockIdx = {b % gridDim.x, b / gridDim.x, 0};
        run_block();
        waited |= grid_waited;
    }
    emu_chain_kernel_ends(waits_before_trigger);
    if (!waited)
        emu_fail("no block has waited for the grid before");
}
