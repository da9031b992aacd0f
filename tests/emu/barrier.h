/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_BARRIER_H
#define RT_TESTS_EMU_BARRIER_H

#include "tests/emu/core.h"

void emu_barrier_begin(void); /* of a block */

void emu_bar_sync(unsigned id, unsigned threads);
void emu_bar_arrive(unsigned id, unsigned threads);

/* A barrier in shared memory. `bytes` are announced with the arrival, and copied in later. */
void emu_mbarrier_init(uint64_t *at, unsigned count);
void emu_mbarrier_arrive(uint64_t *at, unsigned bytes);
void emu_mbarrier_wait(const uint64_t *at, unsigned parity);
bool emu_mbarrier_test(const uint64_t *at, unsigned parity);

/* By a copy: its end is before what waits for the phase that the barrier is in. It brings bytes
 * that were announced, or an arrival. */
struct emu_order *emu_mbarrier_order(const uint64_t *at);
void emu_mbarrier_copied(const uint64_t *at, unsigned bytes, unsigned arrivals = 0);

#endif
