/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that are there at the same time: grid.h. */
#include "tests/emu/grid.h"

#include "tests/emu/chain.h"
#include "tests/emu/cluster.h"
#include "tests/emu/tickets.h"
#include "tests/emu/words.h"

#include <pthread.h>
#include <semaphore.h>
#include <vector>

enum { MOST_BLOCKS = 256, EVERYBODY = -1 };
static const size_t STACK_BYTES = (size_t)256 << 20; /* what a block has is in it too */

struct resident {
    pthread_t thread;
    sem_t turn;
    unsigned number; /* in the grid */
    uint64_t seed;
    bool stuck, left;
    std::vector<int> mail; /* threads that others have woken */
};

static struct resident residents[MOST_BLOCKS];
static unsigned count, left;
static const struct emu_launch *launch;
static bool over;       /* the grid before */
static bool lands_late; /* words, when nobody can go on without */
static void (*errand)(void);
static struct resident *sender; /* of the errand */
static thread_local struct resident *mine = residents;

uint64_t emu_seed;
void (*emu_grid_begins)(void), (*emu_grid_ends)(void);

unsigned emu_grid_block(void)
{
    return (unsigned)(mine - residents);
}

bool emu_grid_before_is_over(void)
{
    return over;
}

void emu_grid_wake(unsigned block, int thread)
{
    residents[block].mail.push_back(thread);
}

void emu_grid_read_mail(void)
{
    for (const int thread : mine->mail)
        emu_wake_any(thread);
    mine->mail.clear();
}

/* ---- whose turn it is ---- */

static void await(sem_t *turn)
{
    while (sem_wait(turn) != 0) {
    }
}

static void take_turn(void)
{
    for (await(&mine->turn); errand; await(&mine->turn)) {
        errand();
        sem_post(&sender->turn);
    }
}

/* By every block that is there, one after the other. */
static void send(void (*what)(void))
{
    sender = mine;
    errand = what;
    for (unsigned i = 0; i < count; i++) {
        struct resident *other = &residents[i];
        if (other == mine || other->left)
            continue;
        sem_post(&other->turn);
        await(&mine->turn);
    }
    errand = nullptr;
    what();
}

/* Any other that can go on; null: there is none. */
static struct resident *find_other(void)
{
    const unsigned from = (unsigned)(emu_random() % count);
    for (unsigned i = 0; i < count; i++) {
        struct resident *other = &residents[(from + i) % count];
        if (other != mine && !other->left && (!other->stuck || !other->mail.empty()))
            return other;
    }
    return nullptr;
}

static bool pass_turn(void)
{
    struct resident *other = count > 1 ? find_other() : nullptr;
    if (!other)
        return false;
    sem_post(&other->turn);
    take_turn();
    return true;
}

void emu_grid_pause(void)
{
    if (emu_words_pending() && !lands_late && emu_random() % 4 == 0)
        emu_words_land();
    if (count > 1 && emu_random() % 2048 == 0)
        pass_turn();
}

/* ---- what happens when nobody can go on ---- */

static void end_grid_before(void)
{
    over = true;
    send(emu_copy_read);
    emu_chain_reveal();
    if (emu_grid_ends)
        emu_grid_ends();
    emu_block_release();
    for (unsigned i = 0; i < count; i++)
        emu_grid_wake(i, EVERYBODY);
}

static void advance(void)
{
    if (emu_words_pending()) {
        for (uint64_t n = 1 + emu_random() % 64; n > 0 && emu_words_pending(); n--)
            emu_words_land();
    } else if (!over) {
        end_grid_before();
    } else if (!emu_words_try_again()) {
        send(emu_tell_wishes);
        emu_fail("deadlock");
    }
}

/* Mostly words land that its threads may wait for, which is quicker than another's turn. */
void emu_grid_stuck(void)
{
    mine->stuck = true;
    if (emu_words_pending() && !lands_late && emu_random() % 4 != 0)
        advance();
    else if (!pass_turn())
        advance();
    mine->stuck = false;
}

/* ---- a grid ---- */

static void leave(void)
{
    mine->left = true;
    left--;
    while (left > 0) {
        struct resident *other = find_other();
        if (other) {
            sem_post(&other->turn);
            return;
        }
        advance();
    }
}

static void *resident_main(void *resident)
{
    mine = (struct resident *)resident;
    take_turn();
    emu_random_begin(mine->seed);
    emu_block_run(launch, mine->number);
    leave();
    return nullptr;
}

static void begin(unsigned blocks)
{
    count = left = blocks;
    over = false;
    for (unsigned i = 0; i < count; i++)
        residents[i].stuck = residents[i].left = false;
    emu_chain_hide();
    if (emu_grid_begins)
        emu_grid_begins();
}

static void end(void)
{
    mine = residents;
    if (!over)
        end_grid_before();
    residents[0].mail.clear();
}

/* From number `from` on. */
static void run_together(unsigned from, unsigned blocks)
{
    pthread_attr_t attributes;
    if (blocks > MOST_BLOCKS)
        emu_fail("a cooperative grid of %u blocks", blocks);
    begin(blocks);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    for (unsigned i = 0; i < blocks; i++) {
        residents[i].number = from + i;
        residents[i].seed = emu_random();
        sem_init(&residents[i].turn, 0, 0);
    }
    const uint64_t first = emu_random() % blocks;
    for (unsigned i = 0; i < blocks; i++)
        if (pthread_create(&residents[i].thread, &attributes, resident_main, &residents[i]) != 0)
            emu_fail("no thread for block %u", i);
    sem_post(&residents[first].turn);
    for (unsigned i = 0; i < blocks; i++) {
        pthread_join(residents[i].thread, nullptr);
        sem_destroy(&residents[i].turn);
        residents[i].mail.clear();
    }
    pthread_attr_destroy(&attributes);
    count = 1;
    end();
}

void emu_run(const struct emu_launch *l)
{
    const emu_unseen unseen;
    launch = l;
    emu_random_begin(l->seed + emu_seed);
    emu_clocks_begin(l->asynchronous);
    const unsigned blocks = l->grid_x * l->grid_y, cluster = l->cluster;
    if (cluster > 1 && l->grid_x % cluster != 0)
        emu_fail("a grid of %u blocks along x, clusters of %u", l->grid_x, cluster);
    emu_cluster_meets(0);
    const unsigned shift = (unsigned)(emu_random() % blocks);
    emu_chain_kernel_begins();
    emu_words_begin();
    emu_tickets_begin();
    emu_blocks_begin();
    lands_late = (l->seed + emu_seed) % 4 == 3;
    for (unsigned i = 0; i < blocks && !l->cooperative && cluster <= 1; i++) {
        begin(1);
        emu_block_run(l, (i + shift) % blocks);
        end();
    }
    for (unsigned i = 0; i < blocks && cluster > 1; i += cluster) {
        emu_cluster_meets(cluster);
        run_together((i + shift / cluster * cluster) % blocks, cluster);
    }
    if (l->cooperative)
        run_together(0, blocks);
    emu_words_end();
    emu_chain_kernel_ends(emu_blocks_end());
}
