/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of a cluster: cluster.h. */
#include "tests/emu/cluster.h"

#include "tests/emu/grid.h"

#include <cstring>

enum { MOST_BLOCKS = 16, EVERYBODY = -1 };

/* Of the cluster. */
static unsigned char *shared_of[MOST_BLOCKS]; /* null: has not begun, or has left */
static unsigned block_count;
static int arrived;
static unsigned phase;
static struct emu_order order[2];

void emu_cluster_meets(unsigned blocks)
{
    if (blocks > MOST_BLOCKS)
        emu_fail("a cluster of %u blocks", blocks);
    memset(shared_of, 0, sizeof(shared_of));
    block_count = blocks;
    arrived = 0;
}

void emu_cluster_begin(void)
{
    if (emu_grid_block() < block_count)
        shared_of[emu_grid_block()] = rt_attend_shared;
}

void emu_cluster_end(void)
{
    if (emu_grid_block() < block_count)
        shared_of[emu_grid_block()] = nullptr;
}

unsigned emu_cluster_rank(void)
{
    return emu_grid_block();
}

unsigned char *emu_cluster_at(const void *shared, unsigned rank, unsigned char **base)
{
    const ptrdiff_t at = (const unsigned char *)shared - rt_attend_shared;
    if (at < 0 || at >= EMU_SHARED_BYTES || rank >= block_count)
        emu_fail("byte %td of shared memory of block %u of %u", at, rank, block_count);
    if (!shared_of[rank])
        emu_fail("block %u of the cluster has not begun, or has left", rank);
    *base = shared_of[rank];
    return shared_of[rank] + at;
}

static void arrive(void)
{
    if (++arrived < (int)block_count * emu_thread_count())
        return;
    arrived = 0;
    phase++;
    emu_wake_any(EVERYBODY);
    for (unsigned i = 0; i < block_count; i++)
        if (i != emu_grid_block())
            emu_grid_wake(i, EVERYBODY);
}

void emu_cluster_meet(bool tells)
{
    emu_exchange(EMU_CLUSTER, nullptr, 0);
    const unsigned mine = phase;
    if (tells)
        emu_release(&order[mine % 2]);
    arrive();
    while (phase == mine)
        emu_sleep({"all of the cluster", (int)phase, arrived});
    if (tells)
        emu_acquire(&order[mine % 2]);
}
