/* SPDX-License-Identifier: Apache-2.0 */
/* The copy engine. A box lands whole, at any time after it was asked for. */
#include "tests/emu/tma.h"

#include "tests/emu/access.h"
#include "tests/emu/barrier.h"
#include "tests/emu/cluster.h"

#include <cstddef>
#include <cstring>
#include <deque>
#include <vector>

enum { VECTOR = 16, ROW = 128, LEAST_AGENTS = 64 };

struct box {
    unsigned char *to, *shared; /* in which memory: another block's, too */
    uint64_t *barrier;
    uint64_t map[EMU_MAP_WORDS]; /* the parameter that it was in is gone when its thread is */
    int at[RT_TENSOR_MAP_DIMS];
    const unsigned char *from; /* of a bulk copy, which is no box and has no map: null else */
    uint32_t bytes;
    bool is_word; /* two numbers that a thread sends to another block: what they are */
    float word[2];
    void *agent;
};

static thread_local std::vector<struct box> boxes;
static thread_local std::deque<void *> idle_agents;
static thread_local int agent_count;
static thread_local struct emu_order asked[EMU_MAX_THREADS];

void emu_async_begin(void)
{
    boxes.clear();
    emu_copy_begin();
    emu_barrier_begin();
    emu_cluster_begin();
    emu_product_begin();
}

void emu_async_end(void)
{
    if (!boxes.empty())
        emu_fail("%zu boxes are still on their way", boxes.size());
    emu_copy_end();
    emu_cluster_end();
    emu_product_end();
}

bool emu_async_pending(void)
{
    return !boxes.empty() || emu_copy_pending() || emu_product_pending();
}

static uint64_t extent(const struct box *b, unsigned dim)
{
    return b->map[EMU_MAP_BOX] >> EMU_MAP_BOX_BITS * dim & ((1u << EMU_MAP_BOX_BITS) - 1);
}

static uint64_t bytes_of(const struct box *b)
{
    uint64_t bytes = 2;
    if (b->from || b->is_word)
        return b->bytes;
    for (unsigned i = 0; i < b->map[EMU_MAP_DIMS]; i++)
        bytes *= extent(b, i);
    return bytes;
}

/* Rows of the box are a line of shared memory each, whatever the row's length in the tensor. */
static unsigned char *swizzled(const struct box *b, uint64_t byte)
{
    const uint64_t at = (uint64_t)(b->to - b->shared) + byte;
    return b->shared + (at ^ (at >> 7 & 7) << 4);
}

/* Where 16 bytes of the tensor are; null outside of it. */
static const unsigned char *source(const struct box *b, const uint64_t *index)
{
    const unsigned char *from = (const unsigned char *)(uintptr_t)b->map[EMU_MAP_ADDRESS];
    for (unsigned i = 0; i < b->map[EMU_MAP_DIMS]; i++) {
        const int64_t at = b->at[i] + (int64_t)index[i];
        if (at < 0 || at >= (int64_t)b->map[EMU_MAP_SIZE + i])
            return nullptr;
        from += at * (int64_t)(i == 0 ? 2 : b->map[EMU_MAP_STRIDE + i]);
    }
    return from;
}

/* By the copy's agent. */
static void copy_bytes(const struct box *b, bool poison)
{
    const struct emu_16_bytes nothing = {UINT64_MAX, UINT64_MAX};
    for (uint32_t i = 0; i < b->bytes; i += VECTOR)
        emu_store_16(b->to + i, poison ? nothing : emu_load_16(b->from + i));
}

static uint64_t word_of(const struct box *b)
{
    uint64_t word;
    memcpy(&word, b->word, sizeof(word));
    return word;
}

/* Likewise. */
static void copy_vectors(const struct box *b, bool poison)
{
    if (b->from) {
        copy_bytes(b, poison);
        return;
    }
    if (b->is_word) {
        emu_store_8(b->to, poison ? UINT64_MAX : word_of(b));
        return;
    }
    const uint64_t count = bytes_of(b) / VECTOR, of_row = extent(b, 0) * 2 / VECTOR;
    for (uint64_t n = 0; n < count; n++) {
        uint64_t index[RT_TENSOR_MAP_DIMS] = {n % of_row * 8}, row = n / of_row;
        for (unsigned i = 1; i < b->map[EMU_MAP_DIMS]; i++) {
            index[i] = row % extent(b, i);
            row /= extent(b, i);
        }
        struct emu_16_bytes value = {0, 0};
        const unsigned char *from = source(b, index);
        if (poison)
            value = {UINT64_MAX, UINT64_MAX};
        else if (from)
            value = emu_load_16(from);
        emu_store_16(swizzled(b, n / of_row * ROW + n % of_row * VECTOR), value);
    }
}

static void check_box(const struct box *b, int dims)
{
    const ptrdiff_t at = b->to - b->shared;
    if (b->map[EMU_MAP_MARK] != EMU_MAP_IS_ONE || b->map[EMU_MAP_DIMS] != (uint64_t)dims)
        emu_fail("no tensor map of %d dimensions", dims);
    if (at < 0 || at % ROW != 0 || at + (ptrdiff_t)bytes_of(b) > EMU_SHARED_BYTES)
        emu_fail("box to byte %td of shared memory", at);
    if (extent(b, 0) * 2 != ROW)
        emu_fail("rows of %llu bytes in a box", (unsigned long long)extent(b, 0) * 2);
}

void *emu_agent_take(void)
{
    while (idle_agents.empty() || agent_count < LEAST_AGENTS) {
        idle_agents.push_front(emu_agent_make());
        agent_count++;
    }
    void *agent = idle_agents.front();
    idle_agents.pop_front();
    return agent;
}

void emu_agent_give_back(void *agent)
{
    idle_agents.push_back(agent);
}

static void ask(struct box b)
{
    b.agent = emu_agent_take();
    emu_release(&asked[emu_self]);
    emu_agent_enter(b.agent, &asked[emu_self]);
    copy_vectors(&b, true);
    emu_agent_leave(nullptr);
    boxes.push_back(b);
}

static struct box box_of(const void *map, int dims, const int *at)
{
    struct box b = {};
    memcpy(b.map, map, sizeof(b.map));
    memcpy(b.at, at, (size_t)dims * sizeof(*at));
    return b;
}

void emu_tma_load(void *shared, const void *map, uint64_t *barrier, int dims, const int *at)
{
    const emu_unseen unseen;
    struct box b = box_of(map, dims, at);
    b.to = (unsigned char *)shared;
    b.shared = rt_attend_shared;
    b.barrier = barrier;
    check_box(&b, dims);
    ask(b);
}

/* A box a block, which land by themselves. */
void emu_tma_share(void *shared, const void *map, uint64_t *barrier, int dims, const int *at,
                   unsigned ranks)
{
    const emu_unseen unseen;
    struct box b = box_of(map, dims, at);
    for (unsigned rank = 0; ranks >> rank; rank++) {
        if (!(ranks >> rank & 1))
            continue;
        b.to = emu_cluster_at(shared, rank, &b.shared);
        b.barrier = (uint64_t *)emu_cluster_at(barrier, rank, &b.shared);
        check_box(&b, dims);
        ask(b);
    }
}

void emu_bulk_load(void *shared, const void *global, uint32_t bytes, uint64_t *barrier)
{
    const emu_unseen unseen;
    struct box b = {};
    b.to = (unsigned char *)shared;
    b.barrier = barrier;
    b.from = (const unsigned char *)global;
    b.bytes = bytes;
    const ptrdiff_t at = b.to - rt_attend_shared;
    if (at < 0 || at + (ptrdiff_t)bytes > EMU_SHARED_BYTES || bytes == 0 ||
        (at | (ptrdiff_t)bytes | (ptrdiff_t)(uintptr_t)global) % VECTOR != 0)
        emu_fail("bulk copy of %u bytes to byte %td of shared memory", bytes, at);
    ask(b);
}

/* What goes to a place of another block, of so many bytes. */
static struct box sent_to(uint32_t place, uint32_t barrier, uint32_t bytes, uint32_t align)
{
    struct box b = {};
    const unsigned rank = place >> EMU_PLACE_BITS, at = place & ((1u << EMU_PLACE_BITS) - 1);
    if (at % align != 0 || at + bytes > EMU_SHARED_BYTES || barrier >> EMU_PLACE_BITS != rank)
        emu_fail("%u bytes to byte %u of block %u, a barrier of block %u", bytes, at, rank,
                 barrier >> EMU_PLACE_BITS);
    b.to = emu_cluster_at(rt_attend_shared + at, rank, &b.shared);
    b.barrier = (uint64_t *)emu_cluster_at(
        rt_attend_shared + (barrier & ((1u << EMU_PLACE_BITS) - 1)), rank, &b.shared);
    b.bytes = bytes;
    return b;
}

void emu_cluster_send(uint32_t place, uint32_t barrier, float low, float high)
{
    const emu_unseen unseen;
    struct box b = sent_to(place, barrier, sizeof(b.word), sizeof(b.word));
    b.is_word = true;
    b.word[0] = low;
    b.word[1] = high;
    ask(b);
}

void emu_cluster_send_bytes(uint32_t place, uint32_t barrier, const void *shared, uint32_t bytes)
{
    const emu_unseen unseen;
    struct box b = sent_to(place, barrier, bytes, VECTOR);
    b.from = (const unsigned char *)shared;
    const ptrdiff_t at = b.from - rt_attend_shared;
    if (at < 0 || at + (ptrdiff_t)bytes > EMU_SHARED_BYTES || bytes == 0 || bytes % VECTOR != 0 ||
        at % VECTOR != 0)
        emu_fail("%u bytes from byte %td of shared memory", bytes, at);
    if (b.to == rt_attend_shared + (place & ((1u << EMU_PLACE_BITS) - 1)))
        emu_fail("%u bytes from byte %td of shared memory to the same block", bytes, at);
    ask(b);
}

static void land(void)
{
    const size_t i = emu_random() % boxes.size();
    const struct box b = boxes[i];
    boxes[i] = boxes.back();
    boxes.pop_back();
    emu_agent_enter(b.agent, nullptr);
    copy_vectors(&b, false);
    emu_agent_leave(emu_mbarrier_order(b.barrier));
    emu_agent_give_back(b.agent);
    emu_mbarrier_copied(b.barrier, (unsigned)bytes_of(&b));
}

void emu_async_step(void)
{
    const bool others = emu_copy_pending() || emu_product_pending();
    if (!boxes.empty() && (!others || emu_random() % 2))
        land();
    else if (emu_copy_pending() && (!emu_product_pending() || emu_random() % 2))
        emu_copy_step();
    else
        emu_product_step();
}
