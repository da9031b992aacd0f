/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_PLACE_H
#define RT_TESTS_EMU_PLACE_H

/*
 * Where a fiber, or who runs a block of them, goes on: emu_place_go stores where `from` is and goes
 * on at `to`, in the frame of the caller. Every meeting of a warp is 32 of these, so it is without
 * a call: each call that never returns makes the processor guess wrong at all returns behind it.
 */
#include <cstddef>

#if defined(__x86_64__)
struct emu_place {
    void *stack, *frame, *code;
};

static inline void emu_place_make(struct emu_place *place, void *stack, size_t bytes,
                                  void (*main)(void))
{
    const size_t top = ((size_t)stack + bytes) / 16 * 16;
    *place = {(void *)(top - sizeof(void *)), nullptr, (void *)main}; /* as behind a call */
}

/* All registers are another's behind it: what is needed of them the compiler has in the frame. */
__attribute__((always_inline)) static inline void emu_place_go(struct emu_place *from,
                                                               struct emu_place *to)
{
    asm volatile("movq %%rsp, (%0)\n\t"
                 "movq %%rbp, 8(%0)\n\t"
                 "leaq 1f(%%rip), %%rax\n\t"
                 "movq %%rax, 16(%0)\n\t"
                 "movq (%1), %%rsp\n\t"
                 "movq 8(%1), %%rbp\n\t"
                 "jmpq *16(%1)\n"
                 "1:"
                 : "+D"(from), "+S"(to)
                 :
                 : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                   "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                   "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
}
#else
#include <ucontext.h>

/* Two system calls each time. */
struct emu_place {
    ucontext_t context;
};

static inline void emu_place_make(struct emu_place *place, void *stack, size_t bytes,
                                  void (*main)(void))
{
    getcontext(&place->context);
    place->context.uc_stack.ss_sp = stack;
    place->context.uc_stack.ss_size = bytes;
    place->context.uc_link = nullptr;
    makecontext(&place->context, main, 0);
}

static inline void emu_place_go(struct emu_place *from, struct emu_place *to)
{
    swapcontext(&from->context, &to->context);
}
#endif

#endif
