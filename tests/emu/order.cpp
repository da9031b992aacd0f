/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/order.h"

#ifdef EMU_ORDER
#include "tests/emu/core.h"

#include <sanitizer/tsan_interface.h>

static thread_local struct emu_clocks *now; /* of the thread that runs; null: the scheduler */
static thread_local void *scheduler, *interrupted;
static bool asynchronous; /* the grid has the second clock */

static void switch_to(void *clock)
{
    __tsan_switch_to_fiber(clock, __tsan_switch_to_fiber_no_sync);
}

void emu_clocks_begin(bool has_async)
{
    asynchronous = has_async;
}

void emu_clocks_make(struct emu_clocks *clocks)
{
    if (!clocks->own)
        clocks->own = __tsan_create_fiber(0);
    if (asynchronous && !clocks->async)
        clocks->async = __tsan_create_fiber(0);
}

void emu_clocks_switch(struct emu_clocks *clocks)
{
    if (!now)
        scheduler = __tsan_get_current_fiber();
    now = clocks;
    switch_to(clocks->own);
}

void emu_clocks_leave(void)
{
    now = nullptr;
    switch_to(scheduler);
}

/* By both clocks of the thread that runs; the scheduler has one. */
static void both(struct emu_order *order, void (*operation)(void *))
{
    operation(&order->own);
    if (!asynchronous)
        return;
    if (now)
        switch_to(now->async);
    operation(&order->async);
    if (now)
        switch_to(now->own);
}

void emu_release(struct emu_order *order)
{
    both(order, __tsan_release);
}

void emu_acquire(struct emu_order *order)
{
    both(order, __tsan_acquire);
}

static void need_async(void)
{
    if (!asynchronous)
        emu_fail("what is asynchronous, in a grid without a clock of it");
}

void emu_order_fence(void)
{
    char *between = (char *)now;
    need_async();
    __tsan_release(between);
    switch_to(now->async);
    __tsan_acquire(between);
    switch_to(now->own);
}

extern "C" void __tsan_ignore_thread_begin(void);
extern "C" void __tsan_ignore_thread_end(void);

emu_unseen::emu_unseen()
{
    __tsan_ignore_thread_begin();
}

emu_unseen::~emu_unseen()
{
    __tsan_ignore_thread_end();
}

void *emu_agent_make(void)
{
    return __tsan_create_fiber(0);
}

void emu_agent_enter(void *agent, struct emu_order *asked, bool plain)
{
    interrupted = now ? now->own : __tsan_get_current_fiber();
    switch_to(agent);
    if (asked && !plain)
        need_async();
    if (asked)
        __tsan_acquire(plain ? &asked->own : &asked->async);
}

void emu_agent_leave(struct emu_order *done, bool plain)
{
    if (done)
        __tsan_release(&done->own);
    if (done && !plain)
        __tsan_release(&done->async);
    switch_to(interrupted);
}
#else
void emu_clocks_begin(bool)
{
}
void emu_clocks_make(struct emu_clocks *)
{
}
void emu_clocks_switch(struct emu_clocks *)
{
}
void emu_clocks_leave(void)
{
}
void emu_release(struct emu_order *)
{
}
void emu_acquire(struct emu_order *)
{
}
void emu_order_fence(void)
{
}
emu_unseen::emu_unseen()
{
}
emu_unseen::~emu_unseen()
{
}
void *emu_agent_make(void)
{
    return nullptr;
}
void emu_agent_enter(void *, struct emu_order *, bool)
{
}
void emu_agent_leave(struct emu_order *, bool)
{
}
#endif
