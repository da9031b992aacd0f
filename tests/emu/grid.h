/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_GRID_H
#define RT_TESTS_EMU_GRID_H

/*
 * Blocks that are there at the same time: all of a cooperative grid, a cluster's, one of any
 * other. Several are threads of the host, of which one has the turn: it passes it on when none of
 * its own threads can go on, and now and then without need. So a run depends on its seed alone.
 */
#include "tests/emu/core.h"

/* By the block that has the turn. */
unsigned emu_grid_block(void); /* its number among those that are there */
void emu_grid_pause(void);     /* now and then a word lands, or another block goes on */
void emu_grid_stuck(void);     /* none of its threads can go on: something else happens, or ends
                                 * the program */
bool emu_grid_before_is_over(void);
void emu_grid_read_mail(void); /* wakes those of its threads that others have woken */

/* A thread of any block. */
void emu_grid_wake(unsigned block, int thread);

#endif
