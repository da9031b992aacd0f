/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/emu.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>

/* Under the thread sanitizer a fiber is a thread, and only barriers put one before another; what
 * the emulator itself does is not looked at. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define UNSEEN __attribute__((no_sanitize_thread, noinline))
static void order_before(void *at)
{
    __tsan_release(at);
}
static void order_after(void *at)
{
    __tsan_acquire(at);
}
#else
#define UNSEEN
static void order_before(void *)
{
}
static void order_after(void *)
{
}
#endif

enum { MAX_THREADS = 1024, STACK_BYTES = 256 * 1024, SHARED_BYTES = 227 * 1024, MAX_COPIES = 512 };

alignas(1024) unsigned char rt_attend_shared[SHARED_BYTES];
struct emu_dim blockIdx, gridDim;

struct copy {
    unsigned char *to;
    const unsigned char *from;
    int group;
};

struct fiber {
    ucontext_t context;
    void *race_id;
    bool runnable, done;
    int copy_group, copy_count;
    struct copy copies[MAX_COPIES];
};

/* Where a warp or a block meets. Two sets, so that the fast may be one meeting ahead. */
struct meeting {
    int arrived, number, operation;
    char order[2];
    emu_words words[2][32];
};

static struct fiber fibers[MAX_THREADS];
static struct meeting warps[MAX_THREADS / 32], block;
static ucontext_t scheduler;
#ifdef __SANITIZE_THREAD__
static void *scheduler_race_id;
#endif
static int self, thread_count;
static uint64_t random_state;
static void (*kernel_run)(const void *params);
static const void *kernel_params;
static char block_order[2];

[[noreturn]] static void fail(const char *text)
{
    fprintf(stderr, "emu: block (%u, %u) thread %d: %s\n", blockIdx.x, blockIdx.y, self, text);
    abort();
}

UNSEEN struct emu_dim emu_thread_index(void)
{
    return {(unsigned)self, 0, 0};
}

UNSEEN int emu_lane(void)
{
    return self % 32;
}

UNSEEN static void to_scheduler(void)
{
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(scheduler_race_id, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&fibers[self].context, &scheduler);
}

/* Returns the meeting's number once everybody has come. */
UNSEEN static int meet(struct meeting *m, int first, int count, int operation)
{
    const int number = m->number;
    if (m->arrived == 0)
        m->operation = operation;
    if (m->operation != operation)
        fail("lanes meet in different operations");
    if (++m->arrived < count) {
        fibers[self].runnable = false;
        to_scheduler();
        return number;
    }
    m->arrived = 0;
    m->number++;
    for (int i = 0; i < count; i++)
        fibers[first + i].runnable = true;
    return number;
}

UNSEEN const emu_words *emu_exchange(int operation, const uint32_t *words, int count)
{
    struct meeting *m = &warps[self / 32];
    const int set = m->number % 2;
    for (int i = 0; i < count; i++)
        m->words[set][self % 32][i] = words[i];
    meet(m, self / 32 * 32, 32, operation);
    return m->words[set];
}

UNSEEN void __syncwarp(void)
{
    struct meeting *m = &warps[self / 32];
    char *order = &m->order[m->number % 2];
    order_before(order);
    meet(m, self / 32 * 32, 32, EMU_SYNCWARP);
    order_after(order);
}

UNSEEN void __syncthreads(void)
{
    char *order = &block.order[block.number % 2];
    order_before(order);
    meet(&block, 0, thread_count, 0);
    order_after(order);
}

/* A copy that has not landed looks like NaN, to a reader that is early and to one that is late. */
void emu_copy_async(void *to, const void *from, bool valid)
{
    struct fiber *f = &fibers[self];
    if ((uintptr_t)to % 16 != 0 || (valid && (uintptr_t)from % 16 != 0))
        fail("misaligned copy");
    if (f->copy_count == MAX_COPIES)
        fail("too many copies in flight");
    memset(to, 0xff, 16);
    f->copies[f->copy_count++] = {(unsigned char *)to,
                                  valid ? (const unsigned char *)from : nullptr, f->copy_group};
}

void emu_copy_commit(void)
{
    fibers[self].copy_group++;
}

void emu_copy_wait(int pending)
{
    struct fiber *f = &fibers[self];
    int left = 0;
    for (int i = 0; i < f->copy_count; i++) {
        const struct copy c = f->copies[i];
        if (c.group >= f->copy_group - pending)
            f->copies[left++] = c;
        else if (c.from)
            memcpy(c.to, c.from, 16);
        else
            memset(c.to, 0, 16);
    }
    f->copy_count = left;
}

void emu_load_row(uint32_t (&words)[4], const void *row)
{
    const unsigned char *at = (const unsigned char *)row;
    if ((uintptr_t)at % 16 != 0 || at < rt_attend_shared || at >= rt_attend_shared + SHARED_BYTES)
        fail("bad matrix row");
    memcpy(words, at, 16);
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

UNSEEN static void fiber_main(void)
{
    order_after(&block_order[0]);
    kernel_run(kernel_params);
    emu_copy_wait(0);
    order_before(&block_order[1]);
    fibers[self].done = true;
    fibers[self].runnable = false;
    to_scheduler();
}

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

UNSEEN static void start_fiber(int i)
{
    static unsigned char *stacks;
    if (!stacks)
        stacks = (unsigned char *)malloc((size_t)MAX_THREADS * STACK_BYTES);
    struct fiber *f = &fibers[i];
#ifdef __SANITIZE_THREAD__
    if (!f->race_id)
        f->race_id = __tsan_create_fiber(0);
#endif
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = stacks + (size_t)i * STACK_BYTES;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = nullptr;
    makecontext(&f->context, fiber_main, 0);
    f->runnable = true;
    f->done = false;
    f->copy_group = f->copy_count = 0;
}

UNSEEN static bool run_one(void)
{
    const int from = (int)(next_random() % (uint64_t)thread_count);
    for (int i = 0; i < thread_count; i++) {
        const int at = (from + i) % thread_count;
        if (!fibers[at].runnable)
            continue;
        self = at;
#ifdef __SANITIZE_THREAD__
        __tsan_switch_to_fiber(fibers[at].race_id, __tsan_switch_to_fiber_no_sync);
#endif
        swapcontext(&scheduler, &fibers[at].context);
        return true;
    }
    return false;
}

UNSEEN static void run_block(unsigned shared_bytes)
{
    memset(rt_attend_shared, 0xa5, sizeof(rt_attend_shared));
    emu_poison_shared();
    memset(warps, 0, sizeof(warps));
    memset(&block, 0, sizeof(block));
    for (int i = 0; i < thread_count; i++)
        start_fiber(i);
    order_before(&block_order[0]);
    while (run_one())
        ;
    order_after(&block_order[1]);
    for (int i = 0; i < thread_count; i++)
        if (!fibers[i].done)
            fail("deadlock");
    for (size_t i = shared_bytes; i < sizeof(rt_attend_shared); i++)
        if (rt_attend_shared[i] != 0xa5)
            fail("write behind the shared memory");
}

void emu_run(const struct emu_launch *launch)
{
#ifdef __SANITIZE_THREAD__
    scheduler_race_id = __tsan_get_current_fiber();
#endif
    gridDim = {launch->grid_x, launch->grid_y, 1};
    thread_count = (int)launch->threads;
    kernel_run = launch->thread;
    kernel_params = launch->params;
    random_state = launch->seed * 2654435761u + 88172645463325252ull;
    const unsigned blocks = gridDim.x * gridDim.y;
    const unsigned shift = (unsigned)(next_random() % blocks);
    for (unsigned i = 0; i < blocks; i++) {
        const unsigned b = (i + shift) % blocks;
        blockIdx = {b % gridDim.x, b / gridDim.x, 0};
        run_block(launch->shared_bytes);
    }
}
