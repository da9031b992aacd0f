/* SPDX-License-Identifier: Apache-2.0 */
/* Relaxed loads and stores: words.h. */
#include "tests/emu/words.h"

#include "tests/emu/grid.h"

#include <unordered_map>
#include <vector>

enum { PAGE_WORDS = 1024, MOST_TRIES = 64 };
static const uint32_t BLANK = 0xffffffffu;

struct page {
    uint32_t value[PAGE_WORDS];
    bool stored[PAGE_WORDS], landed[PAGE_WORDS];
};
struct waiter {
    unsigned block;
    int thread;
};

static std::unordered_map<uintptr_t, struct page> pages;
static std::vector<uint32_t *> under_way;
static std::unordered_map<uintptr_t, std::vector<struct waiter>> waiters; /* by word */
static int tries;                                                         /* since the last store */
static unsigned rounds;                                                   /* of waiting in vain */

static uintptr_t number(const uint32_t *at)
{
    return (uintptr_t)at / sizeof(*at);
}

static struct page *page_of(const uint32_t *at)
{
    static struct page *last;
    static uintptr_t last_number;
    const uintptr_t n = number(at) / PAGE_WORDS;
    if (pages.empty() || !last || n != last_number) {
        last = &pages[n];
        last_number = n;
    }
    return last;
}

static uint32_t seen(const uint32_t *at)
{
    const struct page *page = page_of(at);
    const uintptr_t i = number(at) % PAGE_WORDS;
    return page->landed[i] ? page->value[i] : *at;
}

void emu_words_begin(void)
{
    for (auto &page : pages)
        page.second = {};
    tries = 0;
}

bool emu_words_pending(void)
{
    return !under_way.empty();
}

static void wake(const std::vector<struct waiter> &all)
{
    for (const auto &w : all)
        emu_grid_wake(w.block, w.thread);
}

void emu_words_land(void)
{
    const size_t n = emu_random() % under_way.size();
    const uint32_t *at = under_way[n];
    under_way[n] = under_way.back();
    under_way.pop_back();
    page_of(at)->landed[number(at) % PAGE_WORDS] = true;
    const auto waiting = waiters.find(number(at));
    if (waiting == waiters.end())
        return;
    wake(waiting->second);
    waiters.erase(waiting);
}

void emu_words_end(void)
{
    while (emu_words_pending())
        emu_words_land();
    for (auto &page : pages)
        for (uintptr_t i = 0; i < PAGE_WORDS; i++) {
            uint32_t *at = (uint32_t *)((page.first * PAGE_WORDS + i) * sizeof(uint32_t));
            if (!page.second.stored[i])
                continue;
            if (*at != BLANK)
                emu_fail("the word at %p has been stored relaxed and in another way", (void *)at);
            *at = page.second.value[i];
        }
}

bool emu_words_try_again(void)
{
    if (waiters.empty() || tries++ == MOST_TRIES)
        return false;
    rounds++;
    for (const auto &waiting : waiters)
        wake(waiting.second);
    waiters.clear();
    return true;
}

/* ---- by threads ---- */

static void check_place(const void *at, int count)
{
    if ((uintptr_t)at % ((size_t)count * sizeof(uint32_t)) != 0)
        emu_fail("a relaxed access of %d words to %p", count, at);
}

void emu_store_relaxed(void *to, const uint32_t *words, int count)
{
    const emu_unseen unseen;
    check_place(to, count);
    for (int i = 0; i < count; i++) {
        uint32_t *at = (uint32_t *)to + i;
        struct page *page = page_of(at);
        const uintptr_t n = number(at) % PAGE_WORDS;
        if (words[i] == BLANK)
            emu_fail("stores a blank to the word at %p", (void *)at);
        if (page->stored[n] || *at != BLANK)
            emu_fail("the word at %p is stored, and is not blank", (void *)at);
        page->stored[n] = true;
        page->value[n] = words[i];
        under_way.push_back(at);
    }
    tries = 0;
}

/* The first word that is not there; null: there is none. */
static const uint32_t *missing(const uint32_t *at, int count)
{
    for (int i = 0; i < count; i++)
        if (seen(at + i) == BLANK)
            return at + i;
    return nullptr;
}

/* A load that finds words missing would be made again and again: it mostly waits for them instead,
 * and sometimes comes back with what there is. */
void emu_load_relaxed(uint32_t *words, int count, const void *from)
{
    const emu_unseen unseen;
    const uint32_t *at = (const uint32_t *)from, *without;
    const unsigned before = rounds;
    check_place(from, count);
    while ((without = missing(at, count)) && rounds == before && emu_random() % 8 != 0) {
        waiters[number(without)].push_back({emu_grid_block(), emu_self});
        while (seen(without) == BLANK && rounds == before)
            emu_sleep({"a word that nobody has stored, at", (int)(uintptr_t)without, count});
    }
    for (int i = 0; i < count; i++)
        words[i] = seen(at + i);
}
