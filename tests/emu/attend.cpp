/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The attend and reduce kernels, emulated, against the plain formula in double: random shapes, cuts
 * and gaps, NaN in what must not be read, in some of what must, and in what is not written yet.
 * Usage: emu_attend [cases [first seed [part of a kernel's name [verbose]]]]
 */
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/reduce.h"
#include "kernels/abi/schedule.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "tests/emu/attend_kernels.h"
#include "tests/emu/emu.h"

extern "C" void rt_ref_schedule(const void *params);

static const uint16_t NAN_BITS = 0x7fc1, SENTINEL = 0x4321;
static const float SENTINEL_F = 12345.0f;
#define SECOND_RUN 1000u /* added to the seed, for another order of blocks and threads */

static uint64_t rng;
static unsigned below(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)(rng % n);
}
static float normal(void)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)below(1 << 20) / (1 << 20);
    return sum - 6.0f;
}
static double widen(uint16_t bits)
{
    return emu_float((uint32_t)bits << 16);
}

struct problem {
    struct rt_attend_params a;
    struct rt_reduce_params r;
    struct rt_ctrl ctrl;
    const struct emu_attend_kernel *kernel;
    std::vector<uint16_t> q, q_rope, kv, out;
    std::vector<float> lse, partial_out, partial_lse, sink;
    std::vector<int32_t> table, slot, length, splits;
    std::vector<struct rt_part> tiles;
    uint64_t stamp_first, stamp_last;
    size_t rows_stored;
};

/* A random cut of the rows' blocks into parts, some without work. */
static void schedule(struct problem *p, unsigned parts)
{
    std::vector<std::pair<int, int>> cuts;
    const int rows = (int)p->a.rows.count;
    for (unsigned i = 0; i + 1 < parts; i++) {
        const int row = (int)below((unsigned)rows);
        const int blocks = (p->length[row] + 63) / 64;
        if (blocks <= 0)
            continue;
        const int block = below(3) == 0 ? 0 : (int)below((unsigned)blocks);
        cuts.push_back({row, block});
    }
    cuts.push_back({rows, 0});
    std::sort(cuts.begin(), cuts.end());
    std::vector<int> pieces(rows, 1);
    std::pair<int, int> from = {0, 0};
    while (from.first < rows && p->length[from.first] <= 0)
        from.first++;
    for (auto cut : cuts) {
        if (cut <= from)
            continue;
        struct rt_part t = {};
        t.begin_row = from.first;
        t.begin_block = from.second;
        t.end_row = cut.first;
        t.end_block = cut.second;
        t.begin_split = from.second > 0 ? pieces[from.first] - 1 : 0;
        p->tiles.push_back(t);
        if (cut.second > 0)
            pieces[cut.first]++;
        from = cut;
    }
    struct rt_part none = {};
    none.begin_row = rows;
    while (p->tiles.size() < parts)
        p->tiles.insert(p->tiles.begin() + below((unsigned)p->tiles.size() + 1), none);
    p->splits.push_back(0);
    for (int r = 0; r < rows; r++)
        p->splits.push_back(p->splits.back() + (pieces[r] > 1 ? pieces[r] : 0));
}

/* Of batch-invariant kernels: the rule's own, for random parts and leaves of random length. */
static void own_schedule(struct problem *p, unsigned parts)
{
    const unsigned way = emu_attend_way(p->kernel, below(6));
    struct rt_schedule_params s = {};
    p->tiles.resize(parts), p->splits.resize(p->a.rows.count + 1);
    s.schedule = {p->tiles.data(), p->splits.data(), parts, way};
    s.rows.length = p->length.data(), s.rows.count = p->a.rows.count, s.min_blocks = 1;
    rt_ref_schedule(&s);
    p->a.schedule.invariant = way;
}

/* Element of the pool where key `k` of a row begins, which lies in page `page`. */
static size_t key_at(const struct rt_attend_params *a, int page, int k)
{
    return (page * a->kv.page_stride_bytes + k % (int)a->kv.page_size * a->kv.token_stride_bytes) /
           2;
}

static void make_pages(struct problem *p, unsigned lines, bool poison)
{
    struct rt_attend_params *a = &p->a;
    std::vector<int> free_pages;
    for (unsigned i = 0; i < a->kv.pages; i++)
        free_pages.insert(free_pages.begin() + below(i + 1), (int)i);
    p->table.assign((size_t)lines * a->kv.max_blocks, 2147480000);
    p->kv.assign((size_t)a->kv.pages * a->kv.page_stride_bytes / 2, NAN_BITS);
    for (unsigned r = 0; r < a->rows.count; r++) {
        const int line = a->rows.slot ? p->slot[r] : (int)r;
        for (int k = 0; k < p->length[r]; k++) {
            int32_t *entry = &p->table[(size_t)line * a->kv.max_blocks + k / (int)a->kv.page_size];
            if (k % (int)a->kv.page_size == 0) {
                *entry = free_pages.back();
                free_pages.pop_back();
            }
            uint16_t *key = &p->kv[key_at(a, *entry, k)];
            for (unsigned d = 0; d < a->d_qk; d++)
                key[d] = emu_bf16(normal() * 0.1f);
            const int from_end = p->length[r] - 1 - k;
            /* A piece in which all scores seen are -inf is empty, whatever 0 times their values is:
             * infinities only behind keys that are not. */
            const uint16_t bad = k % 64 < 8 || below(2) ? NAN_BITS : below(2) ? 0x7f80 : 0xff80;
            if (poison && (from_end < 8 ? below(3) == 0 : below(400) == 0))
                key[below(2) ? below(a->d_v) : below(a->d_qk)] = bad;
        }
        /* An entry that leads nowhere reads as zeros. */
        if (p->length[r] > 0 && below(12) == 0)
            p->table[(size_t)line * a->kv.max_blocks +
                     below((unsigned)p->length[r]) / a->kv.page_size] =
                below(2) ? -1 : (int)a->kv.pages;
    }
}

/* Of those whose name has the text in it, one after the other. */
static const struct emu_attend_kernel *next_kernel(const char *part, uint64_t turn)
{
    std::vector<const struct emu_attend_kernel *> named;
    for (const auto &kernel : kernels)
        if (strstr(kernel.entry, part))
            named.push_back(&kernel);
    if (!named.empty())
        return named[turn % named.size()];
    fprintf(stderr, "no kernel's name has '%s' in it\n", part);
    exit(2);
}

/* What else is chosen of a problem. */
struct choices {
    bool slots, poison, gaps, with_ctrl;
    unsigned lines; /* of the block table */
};

/* Whose last tile would have nobody to share with. */
static bool is_alone(const struct problem *p)
{
    const unsigned rows = p->a.heads * p->a.rows.q_len, of_tile = p->kernel->tile_rows;
    return (rows + of_tile - 1) / of_tile % p->kernel->sharers != 0;
}

static struct choices make_shape(struct problem *p, const char *part, uint64_t seed)
{
    static const unsigned pages[] = {16, 32, 64, 128, 1, 8},
                          heads[] = {1, 5, 8, 10, 16, 20, 33, 40};
    static const float scales[] = {0.06f, 0.5f, 4.0f};
    struct rt_attend_params *a = &p->a;
    memset(a, 0, sizeof(*a));
    p->kernel = next_kernel(part, seed);
    a->d_qk = p->kernel->d_qk;
    a->d_v = p->kernel->d_v;
    a->early = below(2);
    a->rows.count = 1 + below(4);
    a->rows.q_len = below(2) ? 1 + below(8) : 1;
    a->heads = heads[below(8)];
    while (is_alone(p)) {
        a->rows.q_len = 1 + below(5);
        a->heads = a->rows.q_len == 1 ? 65 + below(64) : 33 + below(32);
    }
    a->causal = below(4) != 0;
    a->lse_base2 = below(2);
    a->kv.page_size = pages[below(p->kernel->sm90 ? 4 : 6)];
    a->scale = scales[below(3)];
    struct choices c = {};
    c.slots = below(2);
    c.poison = below(3) == 0;
    c.gaps = below(2);
    c.lines = c.slots ? a->rows.count + 3 : a->rows.count;
    return c;
}

static void make_lengths(struct problem *p, const struct choices &c)
{
    struct rt_attend_params *a = &p->a;
    unsigned longest = 1;
    for (unsigned r = 0; r < a->rows.count; r++) {
        const unsigned kind = below(8);
        int length = kind == 0   ? 0
                     : kind == 1 ? (int)below(10)
                     : kind == 2 ? 64 * (int)(1 + below(4)) + (int)below(3) - 1
                                 : (int)below(330);
        p->length.push_back(kind == 0 && below(2) ? -5 : length);
        longest = length > (int)longest ? (unsigned)length : longest;
    }
    a->kv.max_blocks = (longest + a->kv.page_size - 1) / a->kv.page_size + below(3);
    a->kv.pages = a->rows.count * a->kv.max_blocks + 5;
    a->kv.token_stride_bytes = 2 * (a->d_qk + (c.gaps ? 8 * below(4) : 0));
    a->kv.page_stride_bytes = a->kv.token_stride_bytes * a->kv.page_size + (c.gaps ? 128 : 0);
    for (unsigned r = 0; c.slots && r < a->rows.count; r++) {
        const unsigned slot = c.lines % 2 == 0 ? c.lines - 1 - r : (r * 2 + 1) % c.lines;
        p->slot.push_back(p->length[r] > 0 ? (int)slot : -1);
    }
    a->rows.slot = c.slots ? p->slot.data() : nullptr;
}

static void make_strides(struct problem *p, struct choices *c)
{
    struct rt_attend_params *a = &p->a;
    memset(&p->ctrl, 0, sizeof(p->ctrl));
    p->ctrl.row_base = below(3);
    c->with_ctrl = below(2);
    p->rows_stored = a->rows.count + (c->with_ctrl ? p->ctrl.row_base : 0);
    const bool two = a->d_qk > a->d_v && below(3);
    a->q.head_stride = (two ? a->d_v : a->d_qk) + (c->gaps ? 8 : 0);
    a->q.token_stride = a->q.head_stride * a->heads + (c->gaps ? 16 : 0);
    a->q.row_stride = a->q.token_stride * a->rows.q_len;
    if (two) {
        a->q_rope.head_stride = a->d_qk - a->d_v + 8 * below(2);
        a->q_rope.token_stride = a->q_rope.head_stride * a->heads + 24 * below(2);
        a->q_rope.row_stride = a->q_rope.token_stride * a->rows.q_len + 8 * below(3);
    }
    a->out.head_stride = a->d_v + (c->gaps ? 8 : 0);
    a->out.token_stride = a->out.head_stride * a->heads;
    a->out.row_stride = a->out.token_stride * a->rows.q_len + (c->gaps ? 8 : 0);
    const bool head_major = below(2);
    a->lse.head_stride = head_major ? a->rows.q_len : 1;
    a->lse.token_stride = head_major ? 1 : a->heads;
    a->lse.row_stride = a->heads * a->rows.q_len + below(2);
}

/* Of every head: about as heavy as its keys, infinite, and with poison NaN. */
static void make_sinks(struct problem *p, bool poison)
{
    for (unsigned h = 0; h < p->a.heads; h++) {
        const float kinds[] = {-INFINITY, INFINITY, poison ? NAN : 100.0f};
        const unsigned kind = below(6);
        p->sink.push_back(kind < 3 ? kinds[kind] : 2.0f + 2.0f * normal());
    }
}

static void make_tensors(struct problem *p, const struct choices &c)
{
    struct rt_attend_params *a = &p->a;
    p->q.resize(p->rows_stored * a->q.row_stride);
    p->q_rope.resize(p->rows_stored * a->q_rope.row_stride);
    for (auto q : {&p->q, &p->q_rope}) {
        for (auto &x : *q)
            x = emu_bf16(normal());
        for (unsigned i = 0; c.poison && !q->empty() && i < 2; i++)
            (*q)[below((unsigned)q->size())] = NAN_BITS;
    }
    const size_t pieces = ((size_t)p->splits.back() + 1) * a->heads * a->rows.q_len;
    p->out.assign(p->rows_stored * a->out.row_stride, SENTINEL);
    p->lse.assign(p->rows_stored * a->lse.row_stride, SENTINEL_F);
    p->partial_out.assign(pieces * a->d_v, NAN);
    p->partial_lse.assign(pieces, NAN);
    p->stamp_first = p->stamp_last = 0;
    a->q.base = p->q.data();
    a->q_rope.base = p->q_rope.empty() ? nullptr : p->q_rope.data();
    a->kv.base = (unsigned char *)p->kv.data();
    a->kv.table = p->table.data();
    a->rows.length = p->length.data();
    a->schedule.parts = p->tiles.data();
    a->schedule.num_splits = p->splits.data();
    a->out.base = p->out.data();
    a->lse.base = p->lse.data();
    a->partials.out = p->partial_out.data();
    a->partials.lse = p->partial_lse.data();
    a->rows.ctrl = c.with_ctrl ? &p->ctrl : nullptr;
    if (below(2))
        make_sinks(p, c.poison);
    a->sink = p->sink.empty() ? nullptr : p->sink.data();
    a->stamp_first = &p->stamp_first;
}

static void make_reduce(struct problem *p)
{
    const struct rt_attend_params *a = &p->a;
    struct rt_reduce_params *r = &p->r;
    memset(r, 0, sizeof(*r));
    r->partials = a->partials;
    r->schedule = a->schedule;
    r->rows = a->rows;
    r->out = a->out;
    r->lse = a->lse;
    r->stamp_last = &p->stamp_last;
    r->heads = a->heads;
    r->d_v = a->d_v;
    r->lse_base2 = a->lse_base2;
    r->sink = a->sink;
}

static void make(struct problem *p, uint64_t seed, const char *part)
{
    rng = seed * 0x9e3779b97f4a7c15ull + 1;
    for (int i = 0; i < 20; i++)
        below(2);
    struct choices c = make_shape(p, part, seed);
    make_lengths(p, c);
    make_pages(p, c.lines, c.poison);
    if (p->kernel->folds)
        own_schedule(p, 1 + below(12));
    else
        schedule(p, 1 + below(6));
    p->a.schedule.part_count = (uint32_t)p->tiles.size();
    /* A caller may shorten a row behind its schedule's back: then parts find nothing to do. */
    for (unsigned r = 0;
         p->kernel->sm90 && !p->kernel->folds && !c.poison && below(8) == 0 && r < p->a.rows.count;
         r++)
        p->length[r] = p->length[r] > 0 ? 1 + (int)below((unsigned)p->length[r]) : p->length[r];
    make_strides(p, &c);
    make_tensors(p, c);
    make_reduce(p);
}

/* ---- the grid before: it writes q and each row's last keys; without `early` the plan, too ---- */

static struct hidden {
    struct problem *p;
    std::vector<uint16_t> q, q_rope, out;
    std::vector<std::vector<uint16_t>> keys;
    std::vector<float> partial_out, lse;
    std::vector<int32_t> table, length, splits;
    std::vector<struct rt_part> tiles;
} hidden;

/* Of row r, the k-th from its end; null where there is none. */
static uint16_t *last_key(struct problem *p, unsigned r, unsigned k)
{
    const struct rt_attend_params *a = &p->a;
    const int key = hidden.length[r] - 1 - (int)k, line = a->rows.slot ? p->slot[r] : (int)r;
    if (key < 0)
        return nullptr;
    const int page = hidden.table[(size_t)line * a->kv.max_blocks + key / (int)a->kv.page_size];
    if (page < 0 || page >= (int)a->kv.pages)
        return nullptr;
    return &p->kv[key_at(a, page, key)];
}

static void grid_begins(void)
{
    struct problem *p = hidden.p;
    hidden.q = p->q;
    hidden.q_rope = p->q_rope;
    hidden.out = p->out;
    hidden.lse = p->lse;
    hidden.partial_out = p->partial_out;
    hidden.table = p->table;
    hidden.length = p->length;
    hidden.splits = p->splits;
    hidden.tiles = p->tiles;
    hidden.keys.clear();
    p->q.assign(p->q.size(), NAN_BITS);
    p->q_rope.assign(p->q_rope.size(), NAN_BITS);
    for (unsigned r = 0; r < p->a.rows.count; r++)
        for (unsigned k = 0; k < p->a.rows.q_len; k++) {
            uint16_t *key = last_key(p, r, k);
            if (!key)
                continue;
            hidden.keys.push_back(std::vector<uint16_t>(key, key + p->a.d_qk));
            for (unsigned d = 0; d < p->a.d_qk; d++)
                key[d] = NAN_BITS;
        }
    if (p->a.early)
        return;
    p->table.assign(p->table.size(), 0);
    p->length.assign(p->length.size(), 1);
    p->splits.assign(p->splits.size(), 0);
    p->tiles.assign(p->tiles.size(), {});
}

static void grid_ends(void)
{
    struct problem *p = hidden.p;
    if (p->out != hidden.out || memcmp(p->lse.data(), hidden.lse.data(), 4 * p->lse.size()) != 0 ||
        memcmp(p->partial_out.data(), hidden.partial_out.data(), 4 * p->partial_out.size()) != 0) {
        printf("output before the grid before is over\n");
        exit(1);
    }
    p->q = hidden.q;
    p->q_rope = hidden.q_rope;
    p->table = hidden.table;
    p->length = hidden.length;
    p->splits = hidden.splits;
    p->tiles = hidden.tiles;
    size_t next = 0;
    for (unsigned r = 0; r < p->a.rows.count; r++)
        for (unsigned k = 0; k < p->a.rows.q_len; k++) {
            uint16_t *key = last_key(p, r, k);
            if (key)
                memcpy(key, hidden.keys[next++].data(), 2 * p->a.d_qk);
        }
}

static void run_reduce(const void *params)
{
    const struct rt_reduce_params &p = *(const struct rt_reduce_params *)params;
    const bool few = p.heads * p.rows.q_len <= RT_REDUCE_BESIDE_ROWS;
    if (p.schedule.invariant)
        RT_INVARIANT_FOLDS(p.schedule.invariant) ? rt_reduce_fold(p) : rt_reduce_own(p);
    else
        few ? rt_reduce_beside(p) : rt_reduce(p);
}

static void run(struct problem *p, uint64_t seed)
{
    hidden.p = p;
    emu_seed = seed;
    emu_grid_begins = grid_begins;
    emu_grid_ends = grid_ends;
    emu_attend(p->kernel, &p->a);
    emu_grid_begins = emu_grid_ends = nullptr;
    /* Any grid is right; the order of some sums depends on it, so both runs have the same. */
    struct emu_launch launch = {};
    launch.grid_x = 1 + (unsigned)(seed % SECOND_RUN * 7 % 60);
    launch.grid_y = 1;
    launch.threads = RT_REDUCE_THREADS;
    launch.thread = run_reduce;
    launch.params = &p->r;
    emu_run(&launch);
}

/* A query row, in one piece. */
static std::vector<uint16_t> query_of(const struct problem *p, unsigned r, unsigned t, unsigned h)
{
    const struct rt_attend_params *a = &p->a;
    const size_t row = (a->rows.ctrl ? a->rows.ctrl->row_base : 0) + r;
    const uint16_t *from =
        p->q.data() + row * a->q.row_stride + t * a->q.token_stride + h * a->q.head_stride;
    std::vector<uint16_t> q(from, from + (a->q_rope.base ? a->d_v : a->d_qk));
    from = p->q_rope.data() + row * a->q_rope.row_stride + t * a->q_rope.token_stride +
           h * a->q_rope.head_stride;
    q.insert(q.end(), from, from + (a->d_qk - q.size()));
    return q;
}

/* The formula for one query row. */
static void truth(const struct problem *p, unsigned r, unsigned t, unsigned h,
                  std::vector<double> &out, double *lse)
{
    const struct rt_attend_params *a = &p->a;
    const std::vector<uint16_t> q = query_of(p, r, t, h);
    const int seen = a->causal ? p->length[r] - (int)(a->rows.q_len - 1 - t) : p->length[r];
    std::vector<double> x;
    std::vector<const uint16_t *> keys;
    double top = -INFINITY, sum = 0;
    out.assign(a->d_v, 0);
    for (int k = 0; k < seen; k++) {
        const int line = a->rows.slot ? a->rows.slot[r] : (int)r;
        const int page = a->kv.table[(size_t)line * a->kv.max_blocks + k / (int)a->kv.page_size];
        const bool valid = page >= 0 && page < (int)a->kv.pages;
        keys.push_back(valid ? &p->kv[key_at(a, page, k)] : nullptr);
        double dot = 0;
        for (unsigned d = 0; valid && d < a->d_qk; d++)
            dot += widen(q[d]) * widen(keys.back()[d]);
        for (unsigned d = 0; !valid && d < a->d_qk; d++)
            dot += widen(q[d]) * 0.0;
        x.push_back(dot * a->scale);
        top = fmax(top, x.back());
    }
    for (size_t k = 0; k < x.size(); k++) {
        const double weight = exp(x[k] - (top == -INFINITY ? 0 : top));
        sum += weight;
        for (unsigned d = 0; keys[k] && d < a->d_v; d++)
            out[d] += weight * widen(keys[k][d]);
    }
    double divisor = sum;
    if (a->sink && sum != 0)
        divisor += exp(a->sink[h] - top);
    /* All sink: what of the keys is not finite goes, too. A sum that is NaN stays. */
    const bool none = sum == 0 || std::isinf(divisor);
    for (unsigned d = 0; d < a->d_v; d++)
        out[d] = none ? 0 : out[d] / divisor;
    *lse = sum == 0 ? INFINITY : (top + log(sum)) / (a->lse_base2 ? log(2.0) : 1);
}

static bool close_to(double got, double want, double absolute, double relative, double *worst)
{
    if (std::isnan(want) || std::isnan(got))
        return std::isnan(want) && std::isnan(got);
    if (std::isinf(want) || std::isinf(got))
        return got == want;
    const double error = fabs(got - want) / (absolute + relative * fabs(want));
    *worst = fmax(*worst, error);
    return error <= 1;
}

static bool check(const struct problem *p, uint64_t seed, double *worst)
{
    const struct rt_attend_params *a = &p->a;
    const size_t base = a->rows.ctrl ? a->rows.ctrl->row_base : 0;
    std::vector<bool> written(p->out.size()), written_lse(p->lse.size());
    std::vector<double> want;
    for (unsigned r = 0; r < a->rows.count; r++)
        for (unsigned t = 0; t < a->rows.q_len; t++)
            for (unsigned h = 0; h < a->heads; h++) {
                double lse;
                truth(p, r, t, h, want, &lse);
                const size_t at = (base + r) * a->out.row_stride + t * a->out.token_stride +
                                  h * a->out.head_stride;
                const size_t at_lse = (base + r) * a->lse.row_stride + t * a->lse.token_stride +
                                      h * a->lse.head_stride;
                written_lse[at_lse] = true;
                if (!close_to(p->lse[at_lse], lse, 1e-5, 8.01 / 65536, worst)) {
                    printf("seed %llu row %u token %u head %u lse %g, not %g\n",
                           (unsigned long long)seed, r, t, h, p->lse[at_lse], lse);
                    return false;
                }
                for (unsigned d = 0; d < a->d_v; d++) {
                    written[at + d] = true;
                    if (!close_to(widen(p->out[at + d]), want[d], 8e-4, 2.01 / 128, worst)) {
                        printf("seed %llu row %u token %u head %u column %u: %g, not %g\n",
                               (unsigned long long)seed, r, t, h, d, widen(p->out[at + d]),
                               want[d]);
                        return false;
                    }
                }
            }
    for (size_t i = 0; i < written.size(); i++)
        if (!written[i] && p->out[i] != SENTINEL)
            return printf("seed %llu: out %zu written\n", (unsigned long long)seed, i), false;
    for (size_t i = 0; i < written_lse.size(); i++)
        if (!written_lse[i] && p->lse[i] != SENTINEL_F)
            return printf("seed %llu: lse %zu written\n", (unsigned long long)seed, i), false;
    if (p->stamp_first == 0 || p->stamp_last < p->stamp_first)
        return printf("seed %llu: attention begins at %llu ns and ends at %llu\n",
                      (unsigned long long)seed, (unsigned long long)p->stamp_first,
                      (unsigned long long)p->stamp_last),
               false;
    return true;
}

int main(int argc, char **argv)
{
    const unsigned cases = argc > 1 ? (unsigned)atoi(argv[1]) : 20;
    const uint64_t first = argc > 2 ? strtoull(argv[2], nullptr, 10) : 1;
    const char *part = argc > 3 ? argv[3] : "";
    const bool verbose = argc > 4;
    unsigned failed = 0;
    double worst = 0;
    for (uint64_t seed = first; seed < first + cases; seed++) {
        struct problem p, again;
        make(&p, seed, part);
        run(&p, seed);
        double error = 0;
        bool good = check(&p, seed, &error);
        make(&again, seed, part);
        run(&again, seed + SECOND_RUN);
        if (p.out != again.out || memcmp(p.lse.data(), again.lse.data(), 4 * p.lse.size()) != 0) {
            printf("seed %llu: two runs differ\n", (unsigned long long)seed);
            good = false;
        }
        failed += !good;
        worst = fmax(worst, error);
        if (!good || verbose)
            printf("seed %llu: %s heads %u q_len %u rows %u parts %u page %u causal %u early %u "
                   "q_rope "
                   "%d sinks %d slots %d lengths",
                   (unsigned long long)seed, p.kernel->entry, p.a.heads, p.a.rows.q_len,
                   p.a.rows.count, p.a.schedule.part_count, p.a.kv.page_size, p.a.causal, p.a.early,
                   p.a.q_rope.base != nullptr, p.a.sink != nullptr, p.splits.back());
        for (size_t i = 0; i < p.length.size() && (!good || verbose); i++)
            printf(" %d%s", p.length[i],
                   i + 1 == p.length.size() ? (good ? ": good\n" : ": BAD\n") : "");
        fflush(stdout);
    }
    printf("%u cases, %u failed, worst error %.3f of the bound\n", cases, failed, worst);
    return failed != 0;
}
