/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/emu/chain.h"

#include "tests/emu/core.h"

#include <cstring>
#include <vector>

enum { STRIDE = 256 }; /* bytes that are mostly the same, and are compared at once */

struct memory {
    unsigned char *at;
    std::vector<unsigned char> over;    /* as kernels have left it that are over for certain */
    std::vector<unsigned char> started; /* when the kernel that runs was started */
    std::vector<unsigned char> left;    /* by the kernel before */
};
/* Bytes that a kernel wrote which may not be over. */
struct hidden_bytes {
    unsigned char *at;
    std::vector<unsigned char> before, after;
};

static std::vector<struct memory> memories;
static std::vector<struct hidden_bytes> hidden;
static bool chained, first, is_hidden;

void emu_chain_add(void *at, size_t bytes)
{
    struct memory m = {};
    m.at = (unsigned char *)at;
    m.left.resize(bytes);
    memories.push_back(m);
}

void emu_chain_remove(void *at)
{
    for (size_t i = 0; i < memories.size(); i++)
        if (memories[i].at == at) {
            memories.erase(memories.begin() + (ptrdiff_t)i);
            return;
        }
}

void emu_chain_begin(void)
{
    chained = first = true;
}

void emu_chain_end(void)
{
    chained = false;
}

/* Runs of bytes that differ. */
static void find_hidden(const struct memory *m)
{
    const size_t bytes = m->started.size();
    for (size_t i = 0; i < bytes; i++) {
        if (i % STRIDE == 0 && i + STRIDE <= bytes &&
            memcmp(&m->over[i], &m->started[i], STRIDE) == 0) {
            i += STRIDE - 1;
            continue;
        }
        size_t end = i;
        while (end < bytes && m->over[end] != m->started[end])
            end++;
        if (end == i)
            continue;
        hidden.push_back(
            {m->at + i, {m->over.begin() + (ptrdiff_t)i, m->over.begin() + (ptrdiff_t)end}, {}});
        i = end;
    }
}

void emu_chain_kernel_begins(void)
{
    hidden.clear();
    if (!chained)
        return;
    for (auto &m : memories) {
        const size_t bytes = m.left.size();
        m.started.assign(m.at, m.at + bytes);
        /* The first, or somebody else has written in between: an edge that is not programmatic. */
        if (first || m.started != m.left)
            m.over = m.started;
        find_hidden(&m);
    }
    first = false;
}

void emu_chain_hide(void)
{
    is_hidden = true;
    for (auto &h : hidden) {
        h.after.assign(h.at, h.at + h.before.size());
        memcpy(h.at, h.before.data(), h.before.size());
    }
}

void emu_chain_reveal(void)
{
    if (!is_hidden)
        return;
    is_hidden = false;
    for (const auto &h : hidden) {
        if (memcmp(h.at, h.before.data(), h.before.size()) != 0)
            emu_fail("writes what a kernel before it may still write");
        memcpy(h.at, h.after.data(), h.after.size());
    }
}

void emu_chain_kernel_ends(bool waits_before_trigger)
{
    if (!chained)
        return;
    for (auto &m : memories) {
        m.left.assign(m.at, m.at + m.left.size());
        if (waits_before_trigger)
            m.over = m.started;
    }
}
