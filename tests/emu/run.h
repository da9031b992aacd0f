/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_RUN_H
#define RT_TESTS_EMU_RUN_H

/* The emulator's door: kernels of CUDA C on the CPU. See emu.h for what it finds. */
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct emu_launch {
    unsigned grid_x, grid_y;
    unsigned threads, shared_bytes; /* of a block */
    bool cooperative;               /* all blocks are there at the same time */
    unsigned cluster;               /* blocks along x that are; 0 is 1 */
    bool asynchronous;              /* asks the copy engine, or for products of warp groups */
    uint64_t seed;                  /* decides the order of blocks and threads */
    void (*thread)(const void *params);
    const void *params;
};

/* Added to every launch's seed. */
extern uint64_t emu_seed;

/* The grid before, which is over when a block can go no further without it; for every block, so
 * that each meets it. Null: it does nothing. */
extern void (*emu_grid_begins)(void), (*emu_grid_ends)(void);

/* Runs a grid to its end; ends the program where a thread does what no thread may. */
void emu_run(const struct emu_launch *launch);

#ifdef __cplusplus
}
#endif

#endif
