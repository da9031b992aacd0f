/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_ORDER_H
#define RT_TESTS_EMU_ORDER_H

/*
 * Which accesses are in order, for the thread sanitizer: to it every fiber is a thread, only what
 * stands here puts one before another, and what the emulator itself does is not looked at. Without
 * it all of this is nothing.
 *
 * A thread of a GPU has two ways to shared memory, its own loads and stores and the asynchronous
 * ones of tensor cores and the copy engine, and what it stored one way is not seen the other way
 * before a proxy fence: so it has two clocks. Barriers carry both; a fence brings the second up to
 * the first. A product or a copy is a thread of its own, an agent, which starts behind the second
 * clock of those who asked for it and ends before both clocks of those who wait for it.
 */
struct emu_order {
    char own, async;
};
struct emu_clocks {
    void *own, *async;
};

/* Between two grids: whether threads of the next have the second clock; without, who needs one is
 * told. The sanitizer takes the longer to hand a clock on the more of them there are. */
void emu_clocks_begin(bool asynchronous);

/* The thread that runs from here on. */
void emu_clocks_make(struct emu_clocks *clocks);
void emu_clocks_switch(struct emu_clocks *clocks);
/* The scheduler runs, whose accesses are nobody's. */
void emu_clocks_leave(void);

void emu_release(struct emu_order *order);
void emu_acquire(struct emu_order *order);
void emu_order_fence(void);

/* What whoever runs does here is not looked at: for copies and memory of the emulator's own, which
 * the sanitizer sees in the C library whoever asks for them. */
struct emu_unseen {
    emu_unseen();
    ~emu_unseen();
};

/* By whoever runs. The agent starts behind what was asked, and ends before what is done; either may
 * be null. One that is `plain` goes the way of loads and stores instead. */
void *emu_agent_make(void);
void emu_agent_enter(void *agent, struct emu_order *asked, bool plain = false);
void emu_agent_leave(struct emu_order *done, bool plain = false);

#endif
