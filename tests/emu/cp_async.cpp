/* SPDX-License-Identifier: Apache-2.0 */
/* Copies that a thread asks for and waits for itself: cp.async. */
#include "tests/emu/access.h"
#include "tests/emu/core.h"

enum { MAX_COPIES = 512 };

struct copy {
    void *to;
    const void *from; /* null: zeros, or read already */
    int group;
    struct emu_16_bytes value;
};
static struct copies {
    int group, count; /* group of the next commit */
    struct copy of[MAX_COPIES];
} copies[EMU_MAX_THREADS];

void emu_copy_begin(void)
{
    for (auto &of_thread : copies)
        of_thread.group = of_thread.count = 0;
}

/* A copy that has not landed looks like NaN, to a reader that is early and to one that is late. */
void emu_copy_async(void *to, const void *from, bool valid)
{
    struct copies *c = &copies[emu_self()];
    if ((uintptr_t)to % 16 != 0 || (valid && (uintptr_t)from % 16 != 0))
        emu_fail("misaligned copy");
    if (c->count == MAX_COPIES)
        emu_fail("too many copies in flight");
    emu_store_16(to, {UINT64_MAX, UINT64_MAX});
    c->of[c->count++] = {to, valid ? from : nullptr, c->group, {0, 0}};
}

void emu_copy_read(void)
{
    for (auto &of_thread : copies)
        for (int i = 0; i < of_thread.count; i++) {
            struct copy *c = &of_thread.of[i];
            if (c->from)
                c->value = emu_load_16(c->from);
            c->from = nullptr;
        }
}

void emu_copy_commit(void)
{
    copies[emu_self()].group++;
}

void emu_copy_wait(int pending)
{
    struct copies *c = &copies[emu_self()];
    int left = 0;
    for (int i = 0; i < c->count; i++) {
        const struct copy at = c->of[i];
        if (at.group >= c->group - pending)
            c->of[left++] = at;
        else
            emu_store_16(at.to, at.from ? emu_load_16(at.from) : at.value);
    }
    c->count = left;
}
