/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that looks at a counter again, and finds what it has found before, sleeps until somebody
 * draws: it would look for ever. The accesses themselves are made where the thread sanitizer sees
 * them (kernels/device/ptx/ticket.cuh).
 */
#include "tests/emu/tickets.h"

#include "tests/emu/grid.h"

#include <map>
#include <unordered_map>
#include <vector>

struct looker {
    unsigned block;
    int thread;

    bool operator<(const struct looker &other) const
    {
        return block != other.block ? block < other.block : thread < other.thread;
    }
};
struct seen {
    const uint32_t *counter;
    uint32_t count;
};

static std::map<struct looker, struct seen> last;
static std::unordered_map<const uint32_t *, std::vector<struct looker>> waiting;

void emu_tickets_begin(void)
{
    last.clear();
    waiting.clear();
}

void emu_ticket_look(const uint32_t *counter)
{
    const emu_unseen unseen;
    const struct looker me = {emu_grid_block(), emu_self};
    const auto found = last.find(me);
    const uint32_t count = *counter;
    if (found != last.end() && found->second.counter == counter && found->second.count == count)
        while (*counter == count) {
            waiting[counter].push_back(me);
            emu_sleep({"a ticket that nobody has drawn, at", (int)(uintptr_t)counter, (int)count});
        }
    last[me] = {counter, *counter};
}

void emu_ticket_drawn(const uint32_t *counter)
{
    const emu_unseen unseen;
    const auto found = waiting.find(counter);
    if (found == waiting.end())
        return;
    for (const struct looker &one : found->second)
        emu_grid_wake(one.block, one.thread);
    waiting.erase(found);
}
