/* SPDX-License-Identifier: Apache-2.0 */
/* Named barriers, and barriers in shared memory. */
#include "tests/emu/barrier.h"

#include "tests/emu/grid.h"

#include <cstring>

enum { NAMED = 16, MOST_BARRIERS = 96, MOST_BLOCKS = 256 };
static const uint64_t MARK = 0x6d62617272696572ull; /* in place of a barrier; beside its number */

struct named {
    unsigned threads, arrived; /* expected, and come so far */
    uint32_t phase;
    bool is_here[EMU_MAX_THREADS], sleeps[EMU_MAX_THREADS];
    struct emu_order order[2];
};
struct phases {
    unsigned block; /* whose threads wait */
    int count, pending, bytes;
    uint32_t phase;
    bool sleeps[EMU_MAX_THREADS];
    struct emu_order order[2]; /* of phases with an even number, with an odd one */
};

static thread_local struct named named[NAMED];
static thread_local struct phases barriers[MOST_BARRIERS];
static thread_local int barrier_count;
/* Of all blocks that are there: those of a cluster arrive at each other's. */
static struct phases *barriers_of[MOST_BLOCKS];

void emu_barrier_begin(void)
{
    memset(named, 0, sizeof(named));
    memset(barriers, 0, sizeof(barriers));
    barrier_count = 0;
    barriers_of[emu_grid_block()] = barriers;
}

static void wake_all(unsigned block, bool (&sleeps)[EMU_MAX_THREADS])
{
    for (int i = 0; i < emu_thread_count(); i++) {
        if (sleeps[i] && block == emu_grid_block())
            emu_wake(i);
        else if (sleeps[i])
            emu_grid_wake(block, i);
        sleeps[i] = false;
    }
}

/* ---- named ---- */

/* A thread that comes twice before the others have come makes a phase end without them. */
static struct named *come(unsigned id, unsigned threads)
{
    const uint32_t mine[2] = {id, threads};
    const emu_words *all = emu_exchange(EMU_BARRIER, mine, 2);
    for (int i = 0; i < 32; i++)
        if (all[i][0] != id || all[i][1] != threads)
            emu_fail("barrier %u, and lane %d comes to %u", id, i, all[i][0]);
    struct named *n = &named[id % NAMED];
    if (id == 0 || id >= NAMED || threads == 0 || threads % 32 != 0)
        emu_fail("bad barrier %u of %u threads", id, threads);
    if (n->arrived > 0 && n->threads != threads)
        emu_fail("barrier %u of %u threads is one of %u threads", id, n->threads, threads);
    if (n->is_here[emu_self])
        emu_fail("barrier %u: comes again before the phase is over", id);
    n->threads = threads;
    n->is_here[emu_self] = true;
    n->arrived++;
    emu_release(&n->order[n->phase % 2]);
    return n;
}

static bool end_named(struct named *n)
{
    if (n->arrived < n->threads)
        return false;
    n->arrived = 0;
    n->phase++;
    memset(n->is_here, 0, sizeof(n->is_here));
    wake_all(emu_grid_block(), n->sleeps);
    return true;
}

void emu_bar_arrive(unsigned id, unsigned threads)
{
    end_named(come(id, threads));
}

void emu_bar_sync(unsigned id, unsigned threads)
{
    struct named *n = come(id, threads);
    const uint32_t phase = n->phase;
    if (!end_named(n))
        while (n->phase == phase) {
            n->sleeps[emu_self] = true;
            emu_sleep({"named barrier", (int)id, (int)n->arrived});
        }
    emu_acquire(&n->order[phase % 2]);
}

/* ---- in shared memory ---- */

static struct phases *find(const uint64_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    const uint64_t number = word - MARK, block = number / MOST_BARRIERS;
    if (block >= MOST_BLOCKS || !barriers_of[block])
        emu_fail("no barrier at byte %td of shared memory",
                 (const unsigned char *)at - rt_attend_shared);
    return &barriers_of[block][number % MOST_BARRIERS];
}

void emu_mbarrier_init(uint64_t *at, unsigned count)
{
    if (barrier_count == MOST_BARRIERS)
        emu_fail("too many barriers");
    struct phases *b = &barriers[barrier_count];
    b->block = emu_grid_block();
    b->count = b->pending = (int)count;
    const uint64_t word = MARK + b->block * MOST_BARRIERS + (uint64_t)barrier_count++;
    memcpy(at, &word, sizeof(word));
}

static void end_phase(struct phases *b)
{
    if (b->pending < 0)
        emu_fail("barrier %td: more arrivals than its %d", b - barriers, b->count);
    if (b->pending > 0 || b->bytes != 0)
        return;
    b->pending = b->count;
    b->phase++;
    wake_all(b->block, b->sleeps);
}

void emu_mbarrier_arrive(uint64_t *at, unsigned bytes)
{
    struct phases *b = find(at);
    b->bytes += (int)bytes;
    b->pending--;
    emu_release(&b->order[b->phase % 2]);
    end_phase(b);
}

struct emu_order *emu_mbarrier_order(const uint64_t *at)
{
    struct phases *b = find(at);
    return &b->order[b->phase % 2];
}

void emu_mbarrier_copied(const uint64_t *at, unsigned bytes, unsigned arrivals)
{
    struct phases *b = find(at);
    b->bytes -= (int)bytes;
    b->pending -= (int)arrivals;
    end_phase(b);
}

/*
 * By a whole warp, whose lanes look at the barrier in one instruction and leave together. A lane
 * that looked by itself could come when the phase after next has begun, and wait for good: on the
 * hardware too, were the warp to diverge there.
 */
void emu_mbarrier_wait(const uint64_t *at, unsigned parity)
{
    struct phases *b = find(at);
    emu_exchange(EMU_WAIT, nullptr, 0);
    while (emu_lane() == 0 && b->phase % 2 == parity) {
        b->sleeps[emu_self] = true;
        emu_sleep({"phase of barrier", (int)(b - barriers), (int)b->phase});
    }
    emu_exchange(EMU_WAIT, nullptr, 0);
    emu_acquire(&b->order[parity]);
}

/* Likewise, but for a look: what lane 0 sees all do. */
bool emu_mbarrier_test(const uint64_t *at, unsigned parity)
{
    struct phases *b = find(at);
    const uint32_t seen = b->phase % 2 != parity;
    const bool over = emu_exchange(EMU_WAIT, &seen, 1)[0][0] != 0;
    if (over)
        emu_acquire(&b->order[parity]);
    return over;
}
