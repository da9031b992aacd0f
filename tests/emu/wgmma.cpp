/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of warp groups: kernels/device/ptx/wgmma.cuh says what is where. Every warp's share is
 * done on its own, in order, at any time between its being asked for and the wait for its group.
 * Until then the registers of the result hold a mark, and nobody may have touched it, or those of
 * the operand a.
 */
#include "tests/emu/wgmma.h"

#include "tests/emu/access.h"

#include <cstring>
#include <deque>
#include <vector>

enum {
    MAX_WARPS = EMU_MAX_THREADS / 32,
    MOST_N = 256,
    MOST_RESULTS = 12,
    ORDERS = 16,
    M = 16,
    K = 16
};
static const uint32_t IN_FLIGHT = 0x7fc0deadu; /* a NaN */

/* A result in flight of one thread: what it is so far. It keeps its place until it is given back,
 * for shares point into it. */
struct result {
    float *d; /* null: none is here any more */
    int count, last_group;
    float value[MOST_N / 2];
};
struct lane {
    int group, fences; /* group of the next commit */
    bool fenced, sleeps;
    int result_count, known_count; /* places of results used so far */
    struct result results[MOST_RESULTS];
    struct result known[MOST_RESULTS]; /* every result of the block so far, as at the last fence */
};
struct share {
    struct emu_product p;
    int group, fence;
    float *value[32];
    const uint32_t *a_registers[32];
    uint32_t a_copy[32][4];
};

/* Products that a warp group has asked for, by its first warp to do so; and how many each has. */
struct request {
    uint64_t a, b;
    int n, flags;
};

static thread_local emu_of_threads<struct lane> lanes;
static thread_local std::vector<struct request> requests[MAX_WARPS / 4];
static thread_local size_t request_count[MAX_WARPS];
static thread_local std::deque<struct share> shares[MAX_WARPS];
static thread_local uint32_t pending; /* a bit a warp that has shares */
static thread_local struct emu_order asked[MAX_WARPS][ORDERS], done[MAX_WARPS][ORDERS];
static thread_local void *agents[MAX_WARPS];

void emu_product_begin(void)
{
    for (auto &of_warp : shares)
        of_warp.clear();
    pending = 0;
    for (auto &of_group : requests)
        of_group.clear();
    memset(request_count, 0, sizeof(request_count));
    for (int i = 0; i < emu_thread_count(); i++) {
        struct lane *l = &lanes[i];
        l->group = l->fences = l->result_count = l->known_count = 0;
        l->fenced = l->sleeps = false;
    }
}

bool emu_product_pending(void)
{
    return pending != 0;
}

void emu_product_end(void)
{
    for (int i = 0; i < emu_thread_count(); i++)
        if (lanes[i].result_count > 0)
            emu_fail("thread %d has left with a product in flight", i);
    for (int warp = 0; warp < MAX_WARPS; warp++)
        if (request_count[warp] != requests[warp / 4].size())
            emu_fail("warp %d has asked for %zu of its group's %zu products", warp,
                     request_count[warp], requests[warp / 4].size());
}

void emu_product_fence(void)
{
    struct lane *l = &lanes[emu_self];
    l->fences++;
    emu_release(&asked[emu_self / 32][l->fences % ORDERS]);
    emu_exchange(EMU_PRODUCT_FENCE, nullptr, 0);
    l->fenced = true;
    for (int i = 0; i < l->known_count; i++)
        memcpy(l->known[i].value, l->known[i].d, (size_t)l->known[i].count * sizeof(float));
}

/* ---- asking ---- */

/* What changes behind the fence is not what the product starts from. */
static void check_since_fence(struct lane *l, const struct emu_product *p)
{
    for (int i = 0; i < l->known_count; i++)
        if (l->known[i].d == p->d) {
            if (memcmp(l->known[i].value, p->d, (size_t)l->known[i].count * sizeof(float)) != 0)
                emu_fail("registers of a product have changed since the fence before it");
            return;
        }
    if (l->known_count == MOST_RESULTS)
        emu_fail("too many results");
    l->known[l->known_count].d = p->d;
    l->known[l->known_count++].count = p->n / 2;
}

static struct result *find_result(const struct emu_product *p)
{
    const emu_unseen unseen;
    struct lane *l = &lanes[emu_self];
    for (int i = 0; i < l->result_count; i++)
        if (l->results[i].d == p->d)
            return &l->results[i];
    if (!l->fenced)
        emu_fail("a product's registers without a fence before it");
    check_since_fence(l, p);
    struct result *r = l->results;
    while (r < &l->results[l->result_count] && r->d)
        r++;
    if (r == &l->results[MOST_RESULTS])
        emu_fail("too many results in flight");
    if (r == &l->results[l->result_count])
        l->result_count++;
    r->d = p->d;
    r->count = p->n / 2;
    memcpy(r->value, p->d, (size_t)r->count * sizeof(float));
    for (int i = 0; i < r->count; i++)
        memcpy(&p->d[i], &IN_FLIGHT, sizeof(IN_FLIGHT));
    return r;
}

template <typename T> static T *pointer_of(const uint32_t *words)
{
    return (T *)(uintptr_t)(words[0] | (uint64_t)words[1] << 32);
}

/* The four warps of a group ask for the same. */
static void check_request(const struct emu_product *p)
{
    const int warp = emu_self / 32;
    const struct request mine = {p->a, p->b, p->n,
                                 p->a_across | p->b_across << 1 | p->keep << 2 | p->f16 << 3 |
                                     (p->a_registers ? 16 : 0)};
    std::vector<struct request> &all = requests[warp / 4];
    const size_t number = request_count[warp]++;
    if (number == all.size())
        all.push_back(mine);
    const struct request &first = all[number];
    if (first.a != mine.a || first.b != mine.b || first.n != mine.n || first.flags != mine.flags)
        emu_fail("product %zu is another in another warp of the group", number);
}

static void add_share(const struct emu_product *p, const emu_words *all)
{
    const emu_unseen unseen;
    check_request(p);
    struct share s;
    s.p = *p;
    s.group = lanes[emu_self].group;
    s.fence = lanes[emu_self].fences;
    for (int i = 0; i < 32; i++) {
        if (all[i][4] != (uint32_t)p->a || all[i][5] != (uint32_t)p->b)
            emu_fail("lane %d brings another operand", i);
        s.value[i] = pointer_of<float>(&all[i][0]);
        s.a_registers[i] = pointer_of<const uint32_t>(&all[i][2]);
        if (p->a_registers)
            memcpy(s.a_copy[i], s.a_registers[i], sizeof(s.a_copy[i]));
    }
    shares[emu_self / 32].push_back(s);
    pending |= 1u << emu_self / 32;
}

void emu_product_issue(const struct emu_product *p)
{
    struct result *r = find_result(p);
    r->last_group = lanes[emu_self].group;
    const uintptr_t value = (uintptr_t)r->value, a = (uintptr_t)p->a_registers;
    const uint32_t words[6] = {(uint32_t)value, (uint32_t)((uint64_t)value >> 32),
                               (uint32_t)a,     (uint32_t)((uint64_t)a >> 32),
                               (uint32_t)p->a,  (uint32_t)p->b};
    const emu_words *all = emu_exchange(EMU_PRODUCT, words, 6);
    if (emu_lane() == 0)
        add_share(p, all);
}

void emu_product_commit(void)
{
    emu_exchange(EMU_PRODUCT_COMMIT, nullptr, 0);
    lanes[emu_self].group++;
}

/* ---- waiting ---- */

static void give_back(struct lane *l, struct result *r)
{
    const emu_unseen unseen;
    for (int i = 0; i < r->count; i++)
        if (emu_bits(r->d[i]) != IN_FLIGHT)
            emu_fail("register %d of a product was touched while it was in flight", i);
    memcpy(r->d, r->value, (size_t)r->count * sizeof(float));
    r->d = nullptr;
    l->fenced = false;
}

void emu_product_wait(int pending)
{
    emu_exchange(EMU_PRODUCT_WAIT, nullptr, 0);
    struct lane *l = &lanes[emu_self];
    const int warp = emu_self / 32, until = l->group - pending;
    while (!shares[warp].empty() && shares[warp].front().group < until) {
        l->sleeps = true;
        emu_sleep({"products of warp", warp, until});
    }
    if (until > 0)
        emu_acquire(&done[warp][(until - 1) % ORDERS]);
    for (int i = 0; i < l->result_count; i++)
        if (l->results[i].d && l->results[i].last_group < until)
            give_back(l, &l->results[i]);
    while (l->result_count > 0 && !l->results[l->result_count - 1].d)
        l->result_count--;
}

/* ---- doing ---- */

static float widen(uint32_t half, bool f16)
{
    return f16 ? emu_of_f16((uint16_t)half) : emu_float(half << 16);
}

/* Eight elements of an operand, by the warp's agent. */
static void load(float *to, int step, uint64_t operand, uint64_t byte, bool f16)
{
    const uint64_t at = ((operand & 0x3fff) << 4) + byte, swizzled = at ^ (at >> 7 & 7) << 4;
    if (swizzled + sizeof(struct emu_16_bytes) > EMU_SHARED_BYTES)
        emu_fail("an operand at byte %llu of shared memory", (unsigned long long)at);
    const struct emu_16_bytes bytes = emu_load_16(rt_attend_shared + swizzled);
    uint16_t of[8];
    memcpy(of, &bytes, sizeof(of));
    for (int i = 0; i < 8; i++)
        to[i * step] = widen(of[i], f16);
}

/* to[k][i], `width` to a row, of rows or columns 0 .. count - 1. */
static void load_operand(float *to, int width, uint64_t operand, bool across, int count, bool f16)
{
    const uint64_t tile_bytes = (operand >> 16 & 0x3fff) << 4,
                   group_bytes = (operand >> 32 & 0x3fff) << 4;
    if (operand >> 62 != 1 || group_bytes == 0 || group_bytes % 1024 != 0)
        emu_fail("operand %llx", (unsigned long long)operand);
    for (int i = 0; i < count && !across; i++)
        for (int k = 0; k < K; k += 8)
            load(to + k * width + i, width, operand,
                 (uint64_t)i / 8 * group_bytes + (uint64_t)i % 8 * 128 + (uint64_t)k * 2, f16);
    for (int k = 0; k < K && across; k++)
        for (int i = 0; i < count; i += 8)
            load(to + k * width + i, 1, operand,
                 (uint64_t)i / 64 * tile_bytes + (uint64_t)k / 8 * group_bytes +
                     (uint64_t)k % 8 * 128 + (uint64_t)i % 64 * 2,
                 f16);
}

static void load_a_registers(float (&to)[K][M], const struct share *s)
{
    for (int l = 0; l < 32; l++) {
        if (memcmp(s->a_copy[l], s->a_registers[l], sizeof(s->a_copy[l])) != 0)
            emu_fail("the operand in lane %d's registers has changed in flight", l);
        for (int r = 0; r < 4; r++)
            for (int e = 0; e < 2; e++)
                to[l % 4 * 2 + e + r / 2 * 8][l / 4 + r % 2 * 8] =
                    widen(s->a_copy[l][r] >> e * 16 & 0xffff, s->p.f16);
    }
}

/* value[4 j + 2 i + e] of lane l: row l / 4 + 8 i, column 8 j + 2 (l % 4) + e. */
static float *element(const struct share *s, int row, int column)
{
    return &s->value[row % 8 * 4 + column % 8 / 2][column / 8 * 4 + row / 8 * 2 + column % 2];
}

static void multiply(const struct share *s, const float (&a)[K][M], const float (&b)[K][MOST_N])
{
    for (int row = 0; row < M; row++) {
        float sum[MOST_N];
        for (int n = 0; n < s->p.n; n++)
            sum[n] = s->p.keep ? *element(s, row, n) : 0.0f;
        for (int k = 0; k < K; k++)
            for (int n = 0; n < s->p.n; n++)
                sum[n] += a[k][row] * b[k][n];
        for (int n = 0; n < s->p.n; n++)
            *element(s, row, n) = sum[n];
    }
}

static void do_share(int warp)
{
    static thread_local float a[K][M], all_a[K][4 * M], b[K][MOST_N];
    const struct share *s = &shares[warp].front();
    if (!agents[warp])
        agents[warp] = emu_agent_make();
    emu_agent_enter(agents[warp], &asked[warp][s->fence % ORDERS]);
    /* Nobody says that a warp's share reads no more than the warp's rows. */
    if (!s->p.a_registers)
        load_operand(&all_a[0][0], 4 * M, s->p.a, s->p.a_across, 4 * M, s->p.f16);
    load_operand(&b[0][0], MOST_N, s->p.b, s->p.b_across, s->p.n, s->p.f16);
    emu_agent_leave(&done[warp][s->group % ORDERS]);
    if (s->p.a_registers)
        load_a_registers(a, s);
    for (int k = 0; k < K && !s->p.a_registers; k++)
        memcpy(a[k], &all_a[k][warp % 4 * M], sizeof(a[k]));
    multiply(s, a, b);
    shares[warp].pop_front();
    if (shares[warp].empty())
        pending &= ~(1u << warp);
    for (int l = warp * 32; l < warp * 32 + 32; l++) {
        if (lanes[l].sleeps)
            emu_wake(l);
        lanes[l].sleeps = false;
    }
}

void emu_product_step(void)
{
    const int from = (int)(emu_random() % MAX_WARPS);
    for (int i = 0; i < MAX_WARPS; i++)
        if (!shares[(from + i) % MAX_WARPS].empty())
            return do_share((from + i) % MAX_WARPS);
}
