/* SPDX-License-Identifier: Apache-2.0 */
/* Copies that a thread asks for and waits for itself, or lets a barrier wait for: cp.async. */
#include "tests/emu/access.h"
#include "tests/emu/barrier.h"

#include <vector>

enum { MAX_COPIES = 512 };

struct copy {
    void *to;
    const void *from; /* null: zeros, or read already */
    int group;
    bool is_word; /* 4 bytes, not 16 */
    struct emu_16_bytes value;
};
struct copies {
    int group, count; /* group of the next commit */
    struct copy of[MAX_COPIES];
};
static thread_local emu_of_threads<struct copies> copies;

/* A thread's copies that arrive at a barrier when they have landed, all at one moment. */
struct batch {
    uint64_t *barrier;
    std::vector<struct copy> of;
    void *agent;
};
static thread_local std::vector<struct batch> batches;
static thread_local struct emu_order asked[EMU_MAX_THREADS];

void emu_copy_begin(void)
{
    for (int i = 0; i < emu_thread_count(); i++)
        copies[i].group = copies[i].count = 0;
    batches.clear();
}

void emu_copy_end(void)
{
    if (!batches.empty())
        emu_fail("copies of %zu threads are still on their way", batches.size());
}

static void ask(void *to, const void *from, uintptr_t bytes)
{
    struct copies *c = &copies[emu_self];
    if ((uintptr_t)to % bytes != 0 || (uintptr_t)from % bytes != 0)
        emu_fail("misaligned copy");
    if (c->count == MAX_COPIES)
        emu_fail("too many copies in flight");
    c->of[c->count++] = {to, from, c->group, bytes == 4, {0, 0}};
}

/* A copy that has not landed looks like NaN, to a reader that is early and to one that is late. */
void emu_copy_async(void *to, const void *from, bool valid)
{
    ask(to, valid ? from : nullptr, 16);
    emu_store_16(to, {UINT64_MAX, UINT64_MAX});
}

void emu_copy_async_4(void *to, const void *from)
{
    ask(to, from, 4);
    emu_store_4(to, UINT32_MAX);
}

static void read_source(struct copy *c)
{
    if (c->from && c->is_word)
        c->value = {emu_load_4(c->from), 0};
    else if (c->from)
        c->value = emu_load_16(c->from);
    c->from = nullptr;
}

void emu_copy_read(void)
{
    for (int thread = 0; thread < emu_thread_count(); thread++)
        for (int i = 0; i < copies[thread].count; i++)
            read_source(&copies[thread].of[i]);
    for (auto &b : batches)
        for (auto &c : b.of)
            read_source(&c);
}

void emu_copy_commit(void)
{
    copies[emu_self].group++;
}

static void land(struct copy *c)
{
    read_source(c);
    if (c->is_word)
        emu_store_4(c->to, (uint32_t)c->value.low);
    else
        emu_store_16(c->to, c->value);
}

void emu_copy_wait(int pending)
{
    struct copies *c = &copies[emu_self];
    int left = 0;
    for (int i = 0; i < c->count; i++) {
        if (c->of[i].group >= c->group - pending)
            c->of[left++] = c->of[i];
        else
            land(&c->of[i]);
    }
    c->count = left;
}

/* The thread does not wait for them any more. */
void emu_copy_arrive(uint64_t *barrier)
{
    const emu_unseen unseen;
    struct copies *c = &copies[emu_self];
    emu_release(&asked[emu_self]);
    void *agent = emu_agent_take();
    emu_agent_enter(agent, &asked[emu_self], true);
    emu_agent_leave(nullptr);
    batches.push_back({barrier, std::vector<struct copy>(c->of, c->of + c->count), agent});
    c->count = 0;
}

bool emu_copy_pending(void)
{
    return !batches.empty();
}

void emu_copy_step(void)
{
    const size_t i = emu_random() % batches.size();
    struct batch b = batches[i];
    batches[i] = batches.back();
    batches.pop_back();
    emu_agent_enter(b.agent, nullptr);
    for (auto &c : b.of)
        land(&c);
    emu_agent_leave(emu_mbarrier_order(b.barrier), true);
    emu_agent_give_back(b.agent);
    emu_mbarrier_copied(b.barrier, 0, 1);
}
