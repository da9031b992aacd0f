/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_CHAIN_H
#define RT_TESTS_EMU_CHAIN_H

/*
 * Kernels of a graph, one behind the other along programmatic edges. The emulator runs them one
 * after the other; here each still meets those before it as a GPU may let it: none of what they
 * write is there until it waits. Which ones those are follows from where they trigger: the next
 * kernel starts when all blocks of the one before have triggered or left, so what is over by then
 * is what one of those blocks had waited for.
 */
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Memory of the device. */
void emu_chain_add(void *at, size_t bytes);
void emu_chain_remove(void *at);

/* Kernels between the two are a chain; the first starts when all before is over. */
void emu_chain_begin(void);
void emu_chain_end(void);

#ifdef __cplusplus
}

void emu_chain_kernel_begins(void);
void emu_chain_hide(void);   /* a block begins */
void emu_chain_reveal(void); /* it waits, or has left without */
/* Whether what the kernel waits for is over when its successor starts. */
void emu_chain_kernel_ends(bool waits_before_trigger);
#endif

#endif
