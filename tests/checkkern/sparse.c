/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/sparse_case.h"

#include "common/bf16.h"
#include "common/math.h"
#include "kernels/counted_view.h"
#include "tests/checkkern/compare.h"
#include "tests/checkkern/parallel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_D 576

/* Pairs of a query row and an entry that a case may have where the kernels are C, and pairs whose
 * truth a case on a GPU may ask for. */
#define HOST_PAIRS 60000u
#define TRUTH_PAIRS 1500000u

/* ---- the truth: every query row by the plain formula ----------------------------------------- */

struct truth {
    const struct rt_sparse_attend_params *p;
    const int32_t *row_length;
    uint32_t row_base, every; /* of how many query rows one is computed */
    double *out, *lse;        /* [count, d_v], [count] */
};

static const uint16_t *key_of(const struct rt_sparse_attend_params *p,
                              const struct rt_sparse_view *list, const struct rt_kv_view *kv,
                              uint32_t row, int32_t entry)
{
    int64_t page = entry < 0 ? -1 : entry / (int32_t)kv->page_size;
    if (page >= 0 && list->by_position) {
        const int64_t line = p->slot ? p->slot[row] : (int64_t)row;
        const bool has_column = line >= 0 && page < kv->max_blocks;
        page = has_column ? kv->table[line * kv->max_blocks + page] : -1;
    }
    if (page < 0 || page >= kv->pages)
        return NULL;
    return (const uint16_t *)(kv->base + page * kv->page_stride_bytes +
                              entry % (int32_t)kv->page_size * kv->token_stride_bytes);
}

/* One list's part of a softmax that is relative to its running maximum. */
static void add_list(const struct rt_sparse_attend_params *p, const struct rt_sparse_view *list,
                     const struct rt_kv_view *kv, const uint32_t at[3], const double *q,
                     double *state, double *out)
{
    const uint32_t row = at[0], token = at[1], d_v = p->attend.d_v;
    if (!list->index)
        return;
    int64_t holds = list->topk;
    if (list->count)
        holds = list->count[token / list->count_tokens];
    for (int64_t i = 0; i < holds && i < list->topk; i++) {
        const uint16_t *key = key_of(p, list, kv, row, list->index[token * list->token_stride + i]);
        double score = 0;
        for (uint32_t d = 0; key && d < p->attend.d_qk; d++)
            score += q[d] * (double)rt_bf16_to_float(key[d]);
        if (!key)
            continue;
        const double top = fmax(state[0], score), shrink = exp(state[0] - top);
        const double weight = exp(score - top);
        state[0] = top;
        state[1] = state[1] * shrink + weight;
        for (uint32_t d = 0; d < d_v; d++)
            out[d] = out[d] * shrink + weight * (double)rt_bf16_to_float(key[d]);
    }
}

static const uint16_t *query_at(const struct rt_heads_view *view, uint32_t row, uint32_t token,
                                uint32_t head)
{
    return (const uint16_t *)view->base + row * view->row_stride + token * view->token_stride +
           head * view->head_stride;
}

static void load_query(const struct rt_attend_params *a, const uint32_t at[3], double *q)
{
    const uint32_t width = a->q_rope.base ? a->d_v : a->d_qk;
    const uint16_t *from = query_at(&a->q, at[0], at[1], at[2]);
    for (uint32_t d = 0; d < width; d++)
        q[d] = (double)a->scale * (double)rt_bf16_to_float(from[d]);
    for (uint32_t d = width; d < a->d_qk; d++)
        q[d] = (double)a->scale *
               (double)rt_bf16_to_float(query_at(&a->q_rope, at[0], at[1], at[2])[d - width]);
}

static void one_query(void *arg, uint32_t i)
{
    const struct truth *t = arg;
    const struct rt_sparse_attend_params *p = t->p;
    const uint32_t query = i * t->every, token = query / p->attend.heads;
    const uint32_t head = query % p->attend.heads, row = token / p->q_len;
    const uint32_t at[] = {row, t->row_base * p->q_len + token, 0};
    const uint32_t of_q[] = {t->row_base + row, token % p->q_len, head};
    double q[MOST_D], state[2] = {-INFINITY, 0}, *out = t->out + (size_t)i * p->attend.d_v;
    load_query(&p->attend, of_q, q);
    if (!t->row_length || t->row_length[row] > 0) {
        add_list(p, &p->keys, &p->attend.kv, at, q, state, out);
        add_list(p, &p->extra, &p->extra_kv, at, q, state, out);
    }
    const double lse = state[0] + log(state[1]);
    const double sink = p->attend.sink ? (double)p->attend.sink[head] : -INFINITY;
    const double share = 1 / (1 + exp(sink - lse));
    for (uint32_t d = 0; d < p->attend.d_v; d++)
        out[d] = state[1] == 0 ? 0 : out[d] / state[1] * share;
    t->lse[i] = state[1] == 0 ? INFINITY : lse / (p->attend.lse_base2 ? log(2) : 1);
}

static struct truth make_truth(struct ck *ck, const struct ck_sparse *c,
                               const struct ck_sparse_rig *rig)
{
    const uint32_t queries = c->rows * c->q_len * c->heads;
    const uint64_t pairs = (uint64_t)queries * (c->keys.topk + c->extra.topk);
    struct truth t = {.p = &rig->attend[CK_REF],
                      .row_length = rig->schedule[CK_REF].row_length,
                      .row_base = c->row_base,
                      .every = (uint32_t)(1 + (ck_is_cuda(ck) ? pairs / TRUTH_PAIRS : 0))};
    t.every += t.every > 1 && c->heads % t.every == 0; /* every head sometimes */
    const uint32_t count = (queries - 1) / t.every + 1;
    t.out = ck_new(ck, (uint64_t)count * c->d_v * sizeof(double));
    t.lse = ck_new(ck, count * sizeof(double));
    ck_parallel(count, one_query, &t);
    return t;
}

/* ---- one case -------------------------------------------------------------------------------- */

/* Query rows that have no truth must be numbers, lse perhaps +inf; then all is poison again. */
static void compare(struct ck *ck, const struct ck_sparse *c, const struct ck_sparse_rig *rig,
                    const struct truth *t)
{
    const struct rt_attend_params *a = &rig->attend[CK_REF].attend;
    struct ck_floats outs = ck_floats_out(), lses = ck_floats_lse();
    uint16_t *out = ck_new(ck, rig->out.bytes + CK_GUARD_BYTES);
    float *lse = ck_new(ck, rig->lse.bytes + CK_GUARD_BYTES);
    uint32_t odd = 0;
    ck_download(ck, &rig->out, out);
    ck_download(ck, &rig->lse, lse);
    for (uint32_t i = 0; i < c->rows * c->q_len * c->heads; i++) {
        struct ck_place at = {i / c->heads / c->q_len, i / c->heads % c->q_len, i % c->heads, 0};
        const int64_t row = c->row_base + at.row;
        uint16_t *o = out + row * a->out.row_stride + at.token * a->out.token_stride +
                      at.head * a->out.head_stride;
        float *l = lse + row * a->lse.row_stride + at.token * a->lse.token_stride +
                   at.head * a->lse.head_stride;
        const bool compared = i % t->every == 0;
        if (compared)
            ck_floats_add(&lses, (double)*l, t->lse[i / t->every], at);
        odd += isnan(*l);
        for (at.d = 0; at.d < c->d_v; at.d++) {
            const float found = rt_bf16_to_float(o[at.d]);
            odd += !(fabsf(found) <= 1);
            if (compared)
                ck_floats_add(&outs, (double)found, t->out[(size_t)(i / t->every) * c->d_v + at.d],
                              at);
        }
        memset(o, 0xff, c->d_v * sizeof(*o));
        memset(l, 0xff, sizeof(*l));
    }
    ck_floats_end(ck, &outs, CK_OUT_COS);
    ck_floats_end(ck, &lses, 0);
    if (odd > 0)
        ck_failed(ck, "%u numbers that no mean of the keys' values can be", odd);
    ck_expect_bytes(ck, "out beside the rows", out, rig->out.ref, rig->out.bytes + CK_GUARD_BYTES);
    ck_expect_bytes(ck, "lse beside the rows", lse, rig->lse.ref, rig->lse.bytes + CK_GUARD_BYTES);
    free(out);
    free(lse);
}

static void check_guard(struct ck *ck, const struct ck_buffer *b)
{
    unsigned char *found = ck_new(ck, b->bytes + CK_GUARD_BYTES);
    ck_download(ck, b, found);
    ck_expect_bytes(ck, b->name, found + b->bytes, b->ref + b->bytes, CK_GUARD_BYTES);
    free(found);
}

static void name_case(struct ck *ck, const struct ck_sparse *c, const struct rt_variant *choice)
{
    ck_case(ck,
            "%s, %u heads, %u rows of %u (%u padded), %u of %u %s, counts %u, page %u, extra %u "
            "of %u %s, page %u, row_base %u%s%s%s%s%s%s, %u parts",
            choice->entry, c->heads, c->rows, c->q_len, c->padded, c->keys.topk, c->keys.tokens,
            c->keys.by_position ? "positions" : "slots", c->keys.counts, c->keys.page_size,
            c->extra.topk, c->extra.tokens, c->extra.by_position ? "positions" : "slots",
            c->extra.page_size, c->row_base, c->nothing ? ", rows of nothing" : "",
            c->slots ? ", lines by slot" : "", c->sink ? ", sinks" : "",
            c->lse_base2 ? ", base-2 lse" : "", c->q_rope ? ", q_rope" : "",
            c->strided ? ", strided" : "", choice->parts);
}

/* What attention and reduce write. */
#define OUTPUTS 4

static void outputs_of(const struct ck_sparse_rig *rig, const struct ck_buffer *to[OUTPUTS])
{
    to[0] = &rig->out;
    to[1] = &rig->lse;
    to[2] = &rig->partial_out;
    to[3] = &rig->partial_lse;
}

/* By a plan of their own, which is in no memory, attention and reduce leave the same bits as by the
 * schedule's, whose outputs lie there. */
static void check_counted(struct ck *ck, const struct ck_sparse *c, struct ck_sparse_rig *rig)
{
    const char *whole = rig->choice.whole_entry;
    const struct ck_buffer *outputs[OUTPUTS];
    void *expected[OUTPUTS];
    struct rt_launch launches[2];
    struct rt_error err = {0};
    if (!rt_attend_counts(&rig->choice, c->rows * c->q_len))
        return;
    outputs_of(rig, outputs);
    for (uint32_t i = 0; i < OUTPUTS; i++) {
        expected[i] = ck_fetch(ck, outputs[i]);
        ck_upload(ck, outputs[i]);
    }
    ck_sparse_count(c, rig);
    rig->choice.whole_entry = NULL;
    ck_sparse_attend(ck, rig, &launches[0]);
    rig->choice.whole_entry = whole;
    ck_must(ck, ck_build(ck, RT_OP_REDUCE, &rig->reduce, sizeof(rig->reduce), &launches[1], &err),
            &err);
    ck_launch_chain(ck, launches, 2);
    for (uint32_t i = 0; i < OUTPUTS; i++) {
        void *found = ck_fetch(ck, outputs[i]);
        ck_expect_bytes(ck, outputs[i]->name, found, expected[i],
                        outputs[i]->bytes + CK_GUARD_BYTES);
        free(found);
        free(expected[i]);
    }
}

/* A kernel that leaves nothing to reduce makes its plan, too, and writes no piece. */
static void check_whole(struct ck *ck, const struct ck_sparse *c, struct ck_sparse_rig *rig,
                        const struct truth *truth)
{
    const struct ck_buffer *outputs[OUTPUTS];
    struct rt_launch launch;
    if (!rig->choice.whole_entry || !rt_attend_counts(&rig->choice, c->rows * c->q_len))
        return;
    rig->choice.whole_least = 0; /* it is right of all, though not chosen */
    rig->choice.whole_most = rig->choice.whole_topk = UINT32_MAX;
    ck_case(ck, "%s, %u heads, %u rows of %u, whole", rig->choice.whole_entry, c->heads, c->rows,
            c->q_len);
    outputs_of(rig, outputs);
    for (uint32_t i = 0; i < OUTPUTS; i++)
        ck_upload(ck, outputs[i]);
    ck_sparse_attend(ck, rig, &launch);
    ck_launch_chain(ck, &launch, 1);
    compare(ck, c, rig, truth);
    for (uint32_t i = 2; i < OUTPUTS; i++) {
        void *found = ck_fetch(ck, outputs[i]);
        ck_expect_bytes(ck, outputs[i]->name, found, outputs[i]->ref,
                        outputs[i]->bytes + CK_GUARD_BYTES);
        free(found);
    }
}

static void check_on(struct ck *ck, const struct ck_sparse *c)
{
    struct ck_sparse_rig rig;
    struct rt_launch launches[3];
    struct rt_error err = {0};
    if (!ck_sparse_make(ck, c, &rig))
        return;
    name_case(ck, c, &rig.choice);
    const struct rt_sparse_schedule_params *schedule = &rig.schedule[CK_DEVICE];
    ck_must(ck,
            ck_build(ck, RT_OP_SPARSE_SCHEDULE, schedule, sizeof(*schedule), &launches[0], &err),
            &err);
    ck_sparse_attend(ck, &rig, &launches[1]);
    ck_must(ck, ck_build(ck, RT_OP_REDUCE, &rig.reduce, sizeof(rig.reduce), &launches[2], &err),
            &err);
    ck_launch_chain(ck, launches, 3);
    ck_expect_same(ck, &rig.length);
    ck_expect_same(ck, &rig.parts);
    ck_expect_same(ck, &rig.num_splits);
    check_counted(ck, c, &rig);
    struct truth truth = make_truth(ck, c, &rig);
    compare(ck, c, &rig, &truth);
    check_guard(ck, &rig.partial_out);
    check_guard(ck, &rig.partial_lse);
    check_whole(ck, c, &rig, &truth);
    free(truth.out);
    free(truth.lse);
    ck_sparse_free(ck, &rig);
}

/* By every kernel that serves it. */
static void check(struct ck *ck, const struct ck_sparse *given)
{
    static const enum rt_backend backends[] = {RT_BACKEND_GENERIC, RT_BACKEND_SM90};
    for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
        struct ck_sparse c = *given;
        c.backend = backends[i];
        check_on(ck, &c);
    }
}

/* ---- the cases ------------------------------------------------------------------------------- */

static const struct {
    uint32_t tokens, topk, page_size;
} caches[] = {{512, 64, 64}, {1024, 576, 64}, {2046, 2048, 64}, {4096, 1000, 1}};
#define CACHES 4u

static const uint32_t head_counts[] = {64, 128, 6, 8, 12, 16, 24, 40, 48, 96};
#define HEAD_COUNTS 10u

static bool fits_host(const struct ck *ck, const struct ck_sparse *c)
{
    const uint64_t most = HOST_PAIRS * (ck->full ? 8u : 1u) / (ck->quick ? 6u : 1u);
    const uint64_t entries = c->keys.topk + c->extra.topk;
    return ck_is_cuda(ck) || entries * c->rows * c->q_len * c->heads <= most;
}

/* What is no part of the grid turns with `n`, each at its own pace. */
static struct ck_sparse turn(const struct ck *ck, uint32_t cache, uint32_t n)
{
    return (struct ck_sparse){
        .d_qk = n % 2 ? 512 : 576,
        .d_v = 512,
        .keys = {.tokens = caches[cache].tokens,
                 .topk = caches[cache].topk,
                 .page_size = caches[cache].page_size,
                 .by_position = n % 3 == 1,
                 .counts = n / 2 % 3},
        .sink = n % 5 < 3,
        .lse_base2 = n % 7 < 3,
        .strided = n % 4 == 1,
        .slots = n % 3 == 1 && n % 2,
        .q_rope = n % 2 == 0 && n % 3 == 0,
        .row_base = n % 5 == 2 ? 3 : 0,
        .scale = n % 4 ? 0.1352338f : 0.5f,
        .seed = ck->seed * 1000003u + n,
    };
}

/* In turn one of those that the geometry has. */
static enum rt_kv_layout quantised(uint32_t d_qk, uint32_t n)
{
    static const enum rt_kv_layout with_rope[] = {RT_KV_V32, RT_KV_FP8_TOKEN, RT_KV_FP8_TENSOR},
                                   without[] = {RT_KV_V32_NO_ROPE, RT_KV_V4, RT_KV_FP8_TOKEN};
    return d_qk == 576 ? with_rope[n % 3] : without[n % 3];
}

/* With --full every point, and of e4m3 too. */
static void check_grid(struct ck *ck)
{
    static const uint32_t batches[] = {4, 74}, q_lens[] = {1, 3};
    uint32_t n = 0;
    for (uint32_t cache = 0; cache < CACHES; cache++)
        for (uint32_t h = 0; h < HEAD_COUNTS; h++)
            for (uint32_t i = 0; i < 8; i++, n++) {
                const bool first = i == (cache + h) % 8, second = i == (cache + 3 * h) % 8;
                if (!ck->full && !first && (ck_is_brief(ck) || !second))
                    continue;
                struct ck_sparse c = turn(ck, cache, n);
                c.d_qk = i / 4 ? 512 : 576;
                c.q_rope = c.q_rope && c.d_qk == 576;
                c.heads = head_counts[h];
                c.rows = batches[i / 2 % 2];
                c.q_len = q_lens[i % 2];
                while (!fits_host(ck, &c) && c.rows > 1)
                    c.rows /= 2;
                while (!fits_host(ck, &c) && c.heads > 5)
                    c.heads = c.heads * 2 / 3;
                check(ck, &c);
                c.layout = quantised(c.d_qk, n);
                if (ck->full)
                    check(ck, &c);
            }
}

/* Few entries and many: none that holds, one, a block's edge, and every length of a row. */
static void check_small(struct ck *ck)
{
    static const uint32_t topks[] = {1, 2, 31, 32, 33, 63, 65, 129, 200};
    for (uint32_t n = 0; n < 27; n++) {
        struct ck_sparse c = turn(ck, n % CACHES, n + 100);
        c.keys.topk = topks[n % 9];
        c.keys.page_size = n % 4 == 3 ? 1 : 1 + n % 70;
        c.heads = 1 + n * 7 % 20;
        c.rows = 5;
        c.q_len = 1 + n % 8;
        c.padded = n % 3;
        c.nothing = n % 4 == 2;
        c.tile_rows = 16 << n % 3;
        c.parts = 1 + n * 5 % 40;
        c.min_blocks = 1;
        while (!fits_host(ck, &c) && c.heads > 1)
            c.heads /= 2;
        check(ck, &c);
    }
}

/* As many tokens as may make their plan themselves, and one more; whole rows, where all are alike;
 * parts that are many and few. */
static void check_few(struct ck *ck)
{
    static const uint32_t tokens[] = {32, 31, 33, 16, 1}, parts[] = {0, 1, 5, 32, 16, 131};
    for (uint32_t n = 0; n < 30; n++) {
        struct ck_sparse c = turn(ck, n % CACHES, n + 300);
        c.keys.topk = n % 2 ? 130 : 321;
        c.keys.counts = n % 3;
        c.heads = 1 + n % 4;
        c.q_len = tokens[n % 5] % 2 == 0 && n % 2 ? 2 : 1;
        c.rows = tokens[n % 5] / c.q_len;
        c.padded = n % 7 == 6 ? c.rows / 2 : 0;
        c.parts = parts[n % 6];
        c.min_blocks = 1 + n % 3;
        c.overhead_blocks = n % 4;
        c.layout = n % 4 == 3 ? quantised(c.d_qk, n) : RT_KV_BF16;
        c.q_rope = c.q_rope && c.d_qk == 576;
        while (!fits_host(ck, &c) && c.heads > 1)
            c.heads /= 2;
        while (!fits_host(ck, &c))
            c.keys.topk /= 2;
        check(ck, &c);
    }
}

/* A second cache behind the first: of another page size, by the other kind of entry, with counts of
 * its own, and either of them empty. */
static void check_extra(struct ck *ck)
{
    static const uint32_t topks[] = {128, 1, 512, 70};
    for (uint32_t n = 0; n < 16; n++) {
        struct ck_sparse c = turn(ck, n % CACHES, n + 200);
        c.keys.topk = topks[n % 4];
        c.extra = (struct ck_sparse_list){.tokens = 300 + n,
                                          .topk = topks[n / 4],
                                          .page_size = n % 3 ? 2 + n : 1,
                                          .by_position = n % 2,
                                          .counts = (n + 1) % 3};
        c.heads = 3 + n;
        c.rows = 3;
        c.q_len = 1 + n % 3;
        c.tile_rows = n % 4 ? 8u << n % 4 : 0;
        c.parts = n % 2 ? 1 + n : 0;
        c.min_blocks = 1;
        while (!fits_host(ck, &c) && c.heads > 1)
            c.heads /= 2;
        check(ck, &c);
    }
}

/* Caches of every layout that sparse attention's geometries have, and a second of the same. */
static void check_layouts(struct ck *ck)
{
    static const struct {
        enum rt_kv_layout layout;
        uint32_t d_qk;
    } layouts[] = {{RT_KV_V32, 576},
                   {RT_KV_V32_NO_ROPE, 512},
                   {RT_KV_V4, 512},
                   {RT_KV_FP8_TOKEN, 576},
                   {RT_KV_FP8_TENSOR, 512}};
    for (uint32_t n = 0; n < 30; n++) {
        struct ck_sparse c = turn(ck, n / 5 % CACHES, n + 300);
        c.layout = layouts[n % 5].layout;
        c.d_qk = layouts[n % 5].d_qk;
        c.q_rope = c.q_rope && c.d_qk > c.d_v;
        c.keys.topk = rt_min_u32(c.keys.topk, 70 + 30 * (n % 7));
        c.keys.page_size = n % 4 ? c.keys.page_size : 2 + n;
        if (n % 3 == 2)
            c.extra = (struct ck_sparse_list){.tokens = 300 + n,
                                              .topk = 64 + n,
                                              .page_size = n % 2 ? 64 : 1 + n,
                                              .by_position = n % 2,
                                              .counts = n % 3};
        c.heads = head_counts[n % HEAD_COUNTS];
        c.rows = 4;
        c.q_len = 1 + n % 3;
        c.tile_rows = n % 6 < 3 ? 16u << n % 3 : 0;
        while (!fits_host(ck, &c) && c.heads > 1)
            c.heads = c.heads * 2 / 3;
        check(ck, &c);
    }
}

/* Lists of several blocks for tiles of 32 and 64 heads and more: whole rows, pieces of one and of
 * many blocks, an odd number of blocks and an even one, several rows to a part. */
static void check_wide(struct ck *ck)
{
    static const uint32_t heads[] = {40, 20, 64, 70}, topks[] = {150, 65, 260, 192, 129};
    for (uint32_t n = 0; n < 12; n++) {
        struct ck_sparse c = turn(ck, n % CACHES, n + 300);
        c.keys.topk = topks[n % 5];
        c.heads = heads[n % 4];
        c.rows = 1 + n % 3;
        c.q_len = 1 + n / 3 % 2;
        c.parts = 1 + n % 4;
        c.min_blocks = 1;
        check(ck, &c);
    }
}

/* Likewise of two tiles of 64 heads over e4m3, and of a second cache. */
static void check_shared(struct ck *ck)
{
    static const uint32_t heads[] = {128, 96, 65}, topks[] = {129, 64, 200, 3, 448, 256, 65};
    for (uint32_t n = 0; n < 21; n++) {
        if (!ck->full && !ck_is_cuda(ck) && n % 3 != n / 7)
            continue;
        struct ck_sparse c = turn(ck, n % CACHES, n + 400);
        c.layout = quantised(c.d_qk, n / 2);
        c.keys.topk = topks[n % 7];
        c.heads = heads[n % 3];
        c.rows = ck_is_cuda(ck) ? 7 : 1 + n % 3;
        c.q_len = 1 + n / 3 % 2;
        c.parts = n % 4 == 0 ? 0 : 1 + n % 4;
        c.min_blocks = 1;
        if (n % 3 == 1)
            c.extra = (struct ck_sparse_list){.tokens = 300 + n,
                                              .topk = 30 + 5 * n,
                                              .page_size = n % 2 ? 64 : 1 + n,
                                              .by_position = n % 2,
                                              .counts = n % 3};
        check(ck, &c);
    }
}

void ck_sparse_run(struct ck *ck)
{
    check_shared(ck);
    check_layouts(ck);
    check_grid(ck);
    check_wide(ck);
    check_small(ck);
    check_few(ck);
    check_extra(ck);
}
