/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_CLUSTER_H
#define RT_TESTS_EMU_CLUSTER_H

/*
 * Blocks of a cluster, which are there at the same time (grid.h) and reach into each other's shared
 * memory. A block's rank is its number among them.
 */
#include "tests/emu/core.h"

unsigned emu_cluster_rank(void);
/* All threads of all blocks, which are told what others have done, or not. */
void emu_cluster_meet(bool tells);

/* That place of a block's shared memory, whose first byte is `base`; ends the program where the
 * block has not begun yet or has left. */
unsigned char *emu_cluster_at(const void *shared, unsigned rank, unsigned char **base);

void emu_cluster_meets(unsigned blocks); /* so many begin together */
void emu_cluster_begin(void);            /* of a block */
void emu_cluster_end(void);

#endif
