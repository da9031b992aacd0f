/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mla_block, step by step: each tensor of the exchange against the reference of its own step, made
 * from what the kernel itself left for it, so the first step that differs is the wrong one. Then
 * again and again, by other numbers of blocks, the exchanges in turn: the same bits. There is no
 * generic kernel to compare with: the level before are the operators that it replaces, each held
 * against the same references by a test of its own.
 */
#include "common/bf16.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"
#include "tests/checkkern/mla_block_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rounding to bf16, of the truth and of the kernel's, and what weights and pieces of attention lose
 * of the mean of a vector by theirs. */
#define REL_BOUND (1.01 / 128)
#define OF_MEAN 4e-3
#define OF_MEAN_ATTEND 2.5e-2

/* Host copies of what the kernel wrote. */
struct outcome {
    unsigned char *bytes[CK_BLOCK_WRITTEN];
};

enum { HIDDEN, RESIDUAL, KV, EXCHANGE, STALE };

static struct outcome download(struct ck *ck, struct ck_block_buffers *b)
{
    struct outcome o;
    for (size_t i = 0; i < CK_BLOCK_WRITTEN; i++) {
        o.bytes[i] = ck_new(ck, ck_block_nth(b, i)->bytes + CK_GUARD_BYTES);
        ck_download(ck, ck_block_nth(b, i), o.bytes[i]);
    }
    return o;
}

static void drop(struct outcome *o)
{
    for (size_t i = 0; i < CK_BLOCK_WRITTEN; i++)
        free(o->bytes[i]);
}

/* ---- one step against its reference ---- */

/* Numbers of `vectors` vectors of `width`, `pitch` apart. */
struct tensor {
    const char *name;
    uint32_t vectors, width, pitch;
    double of_mean;
};

static double mean_of(const uint16_t *x, uint32_t width)
{
    double squares = 0;
    for (uint32_t i = 0; i < width; i++) {
        const double v = (double)rt_bf16_to_float(x[i]);
        squares += isfinite(v) ? v * v : 0;
    }
    return sqrt(squares / width);
}

static void compare(struct ck *ck, const struct tensor *t, const uint16_t *found,
                    const uint16_t *truth)
{
    struct ck_floats f = {.name = t->name, .rel_bound = REL_BOUND};
    for (uint32_t v = 0; v < t->vectors; v++) {
        const size_t first = (size_t)v * t->pitch;
        f.abs_bound = t->of_mean * mean_of(truth + first, t->width) + 1e-30;
        for (uint32_t i = 0; i < t->width; i++)
            ck_floats_add(&f, (double)rt_bf16_to_float(found[first + i]),
                          (double)rt_bf16_to_float(truth[first + i]),
                          (struct ck_place){.row = v, .d = i});
    }
    ck_floats_end(ck, &f, 0);
}

/* What the kernel left, made anew by the step: *scratch holds the kernel's words and becomes the
 * step's. `p` points into copies of the host's. */
struct bench {
    struct rt_mla_block_params p;
    struct rt_mla_block_exchange at;
    uint32_t slots;
    const struct outcome *found;
    unsigned char *exchange; /* p.exchange */
};

static void run_step(struct bench *b, enum rt_ref_mla_block_step step)
{
    memcpy(b->exchange, b->found->bytes[EXCHANGE], b->at.bytes);
    rt_ref_mla_block_step(&b->p, step);
}

static void check_words(struct ck *ck, const struct bench *b, const struct tensor *t, uint32_t at)
{
    compare(ck, t, (const uint16_t *)(const void *)(b->found->bytes[EXCHANGE] + at),
            (const uint16_t *)(const void *)(b->exchange + at));
}

static void check_query(struct ck *ck, const struct bench *b)
{
    const uint32_t heads = b->slots * b->p.heads;
    const struct tensor nope = {"q", heads, RT_MLA_BLOCK_NOPE, RT_MLA_BLOCK_NOPE, OF_MEAN};
    const struct tensor turned = {"q turned", heads, RT_MLA_BLOCK_ROPE, RT_MLA_BLOCK_TOKEN,
                                  OF_MEAN};
    check_words(ck, b, &nope, b->at.nope);
    check_words(ck, b, &turned, b->at.q + 2 * RT_MLA_BLOCK_LATENT);
}

static void check_front(struct ck *ck, struct bench *b)
{
    const uint32_t heads = b->slots * b->p.heads, width = b->p.q_rank + RT_MLA_BLOCK_TOKEN;
    const struct tensor a = {"a", b->slots, width, width, OF_MEAN};
    const struct tensor q = {"q latent", heads, RT_MLA_BLOCK_LATENT, RT_MLA_BLOCK_TOKEN, OF_MEAN};
    run_step(b, RT_REF_MLA_BLOCK_A);
    check_words(ck, b, &a, b->at.a);
    if (b->p.q_rank == 0)
        check_query(ck, b);
    run_step(b, RT_REF_MLA_BLOCK_QUERY);
    if (b->p.q_rank > 0)
        check_query(ck, b);
    run_step(b, RT_REF_MLA_BLOCK_ABSORB);
    check_words(ck, b, &q, b->at.q);
}

/* Every token of the cache, the new ones among them; other tokens stay as they were. */
static void check_append(struct ck *ck, struct bench *b, const struct ck_block_buffers *buffers)
{
    const uint64_t bytes = buffers->kv.bytes;
    const uint16_t *found = (const uint16_t *)(const void *)b->found->bytes[KV];
    const uint16_t *before = (const uint16_t *)(const void *)buffers->kv.ref;
    unsigned char *kv = ck_new(ck, bytes);
    const uint16_t *truth = (const uint16_t *)(const void *)kv;
    const struct tensor token = {"new token", 1, RT_MLA_BLOCK_TOKEN, RT_MLA_BLOCK_TOKEN, OF_MEAN};
    memcpy(kv, before, bytes);
    b->p.kv.base = kv;
    run_step(b, RT_REF_MLA_BLOCK_APPEND);
    for (uint64_t i = 0; i < bytes / 2; i += RT_MLA_BLOCK_TOKEN) {
        if (memcmp(truth + i, before + i, 2 * RT_MLA_BLOCK_TOKEN) != 0)
            compare(ck, &token, found + i, truth + i);
        else if (memcmp(found + i, before + i, 2 * RT_MLA_BLOCK_TOKEN) != 0)
            ck_failed(ck, "token %llu of the cache has changed",
                      (unsigned long long)(i / RT_MLA_BLOCK_TOKEN));
    }
    free(kv);
    b->p.kv.base = b->found->bytes[KV];
}

static void check_back(struct ck *ck, struct bench *b)
{
    const uint32_t heads = b->slots * b->p.heads;
    const struct tensor o = {"o", heads, RT_MLA_BLOCK_LATENT, RT_MLA_BLOCK_LATENT, OF_MEAN_ATTEND};
    const struct tensor v = {"v", heads, RT_MLA_BLOCK_VALUE, RT_MLA_BLOCK_VALUE, OF_MEAN};
    const struct tensor hidden = {"hidden", rt_mla_block_vectors(&b->p), b->p.hidden_size,
                                  b->p.hidden_size, OF_MEAN};
    run_step(b, RT_REF_MLA_BLOCK_ATTEND);
    check_words(ck, b, &o, b->at.o);
    run_step(b, RT_REF_MLA_BLOCK_VALUES);
    check_words(ck, b, &v, b->at.v);
    run_step(b, RT_REF_MLA_BLOCK_HIDDEN);
    compare(ck, &hidden, (const uint16_t *)(const void *)b->found->bytes[HIDDEN], b->p.hidden);
}

static void check_steps(struct ck *ck, const struct ck_block_case *c, struct ck_block_buffers *b,
                        const struct outcome *found)
{
    const uint64_t bytes = b->hidden.bytes;
    struct bench bench = {.p = ck_block_params(c, b, CK_REF),
                          .slots = rt_mla_block_slots(c->rows * c->q_len),
                          .found = found};
    uint16_t *hidden = ck_new(ck, bytes), *residual = ck_new(ck, bytes);
    bench.at = rt_mla_block_exchange(bench.slots, c->q_rank, c->heads);
    bench.exchange = ck_new(ck, bench.at.bytes);
    bench.p.exchange = bench.exchange;
    memcpy(hidden, b->hidden.ref, bytes);
    memcpy(residual, b->residual.ref, bytes);
    bench.p.hidden = hidden;
    bench.p.residual = bench.p.residual ? residual : NULL;
    check_front(ck, &bench);
    check_append(ck, &bench, b);
    check_back(ck, &bench);
    (void)ck_expect_bytes(ck, "residual", found->bytes[RESIDUAL], residual, bytes);
    free(hidden);
    free(residual);
    free(bench.exchange);
}

/* ---- words ---- */

static bool is_blank(const unsigned char *at, uint32_t bytes, uint32_t *first)
{
    const uint32_t *words = (const uint32_t *)(const void *)at;
    for (*first = 0; *first < bytes / 4; ++*first)
        if (words[*first] == RT_MLA_BLOCK_BLANK)
            return true;
    return false;
}

/* The other exchange is blank, and nothing behind either has changed. Where the kernel's source
 * runs every word has been written; the reference makes no pieces, and has another NaN. */
static void check_exchanges(struct ck *ck, const struct ck_block_buffers *b,
                            const struct outcome *found)
{
    const bool is_reference = !ck_is_cuda(ck) && ck->driver.caps.cc == 0;
    unsigned char *blank = ck_new(ck, b->stale.bytes + CK_GUARD_BYTES);
    uint32_t first;
    memset(blank, 0xff, b->stale.bytes);
    memcpy(blank + b->stale.bytes, b->stale.ref + b->stale.bytes, CK_GUARD_BYTES);
    (void)ck_expect_bytes(ck, "stale exchange", found->bytes[STALE], blank,
                          b->stale.bytes + CK_GUARD_BYTES);
    (void)ck_expect_bytes(ck, "behind the exchange", found->bytes[EXCHANGE] + b->exchange.bytes,
                          b->exchange.ref + b->exchange.bytes, CK_GUARD_BYTES);
    if (!is_reference && is_blank(found->bytes[EXCHANGE], (uint32_t)b->exchange.bytes, &first))
        ck_failed(ck, "word %u of the exchange is blank", first);
    free(blank);
}

/* ---- runs ---- */

static void launch(struct ck *ck, const struct rt_variant *choice,
                   const struct rt_mla_block_params *p)
{
    struct rt_launch l;
    struct rt_error err = {0};
    const enum rt_status status = ck_build_variant(ck, choice, p, sizeof(*p), &l, &err);
    ck_launch(ck, status, &err, &l);
}

static void restore(struct ck *ck, struct ck_block_buffers *b)
{
    ck_upload(ck, &b->hidden);
    ck_upload(ck, &b->residual);
    ck_upload(ck, &b->kv);
}

/* Once more, by `blocks` blocks, the exchanges of the run before in turn. */
static void check_again(struct ck *ck, struct ck_block_buffers *b, struct rt_variant choice,
                        struct rt_mla_block_params *p, uint32_t blocks, const struct outcome *first)
{
    unsigned char *const exchange = p->stale;
    p->stale = p->exchange;
    p->exchange = exchange;
    choice.parts = blocks;
    restore(ck, b);
    launch(ck, &choice, p);
    struct outcome again = download(ck, b);
    for (size_t i = 0; i <= KV; i++)
        (void)ck_expect_bytes(ck, ck_block_nth(b, i)->name, again.bytes[i], first->bytes[i],
                              ck_block_nth(b, i)->bytes + CK_GUARD_BYTES);
    drop(&again);
}

/* What the case has, for the line of a failure. */
static const char *words_of(const struct ck_block_case *c, char *out, size_t bytes)
{
    static const char *const words[] = {"norm",  "residual", "first",  "rope",   "early",
                                        "slots", "strided",  "halves", "biases", "factors"};
    size_t at = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (ck_block_has(c, 1u << i))
            at += (size_t)snprintf(out + at, bytes - at, " %s", words[i]);
    return out;
}

static void check(struct ck *ck, struct ck_random *random, const struct ck_block_case *c,
                  uint32_t repeats)
{
    static const uint32_t others[] = {3, 0, 97, 0, 7, 1, 128};
    struct ck_block_buffers b = ck_block_make(ck, random, c, 1);
    struct rt_mla_block_params p = ck_block_params(c, &b, CK_DEVICE);
    struct rt_variant choice;
    char words[96];
    if (ck_block_resolve(ck, c, &p, &choice)) {
        const uint32_t most = choice.parts;
        ck_case(ck,
                "%u rows of %d .. %d tokens, %u new, %u heads, kind %d, hidden %u, q rank %u, "
                "pages of %u:%s",
                c->rows, c->length[0], c->length[c->rows - 1], c->q_len, c->heads, (int)c->kind,
                c->hidden_size, c->q_rank, c->page_size, words_of(c, words, sizeof(words)));
        launch(ck, &choice, &p);
        struct outcome found = download(ck, &b);
        check_steps(ck, c, &b, &found);
        check_exchanges(ck, &b, &found);
        for (uint32_t i = 0; i < repeats; i++) {
            const uint32_t other = others[i % (sizeof(others) / sizeof(others[0]))];
            /* a unit a block, then */
            const bool is_few = ck_block_has(c, CK_BLOCK_NORM) && c->hidden_size > 5120;
            check_again(ck, &b, choice, &p, other && other < most && !is_few ? other : most,
                        &found);
        }
        ck_count(ck, rt_backend_name(choice.backend), c->rows, c->rows);
        drop(&found);
    }
    ck_block_free(ck, &b);
}

/* ---- cases ---- */

#define PLAIN CK_BLOCK_PLAIN
#define NORM CK_BLOCK_NORM
#define SUM (CK_BLOCK_NORM | CK_BLOCK_RESIDUAL)
#define FIRST CK_BLOCK_FIRST
#define ROPE CK_BLOCK_ROPE
#define EARLY CK_BLOCK_EARLY
#define SLOTS CK_BLOCK_SLOTS
#define STRIDED CK_BLOCK_STRIDED
#define HALVES (CK_BLOCK_ROPE | CK_BLOCK_HALVES)
#define BIASES CK_BLOCK_BIASES
#define FACTORS CK_BLOCK_FACTORS

/* Rows, new tokens, heads; hidden, q rank, page; kind, flags; lengths, absent tokens. What more
 * than one token a row, or another number of heads, or the flags from HALVES on ask for is the
 * general kernels' to do. */
static const struct ck_block_case small[] = {
    {1, 1, 16, 256, 256, 64, PLAIN, SUM | ROPE | EARLY, {65}, {0}},
    {8,
     1,
     16,
     512,
     128,
     16,
     PLAIN,
     SUM | FIRST | ROPE | SLOTS | STRIDED,
     {1, 2, 16, 0, 17, 64, 33, 257},
     {0}},
    {8, 1, 16, 256, 0, 64, PLAIN, SUM | ROPE | EARLY, {15, 16, 17, 300, 0, 1, 128, 129}, {0}},
    {2, 1, 16, 256, 0, 32, CK_BLOCK_NAN, NORM | ROPE, {40, 1}, {0}},
    {3, 1, 16, 384, 640, 64, PLAIN, ROPE | EARLY | SLOTS, {30, 0, 70}, {0}},
    {4, 1, 16, 1024, 128, 128, CK_BLOCK_SHARP, NORM, {200, 7, 16, 31}, {0}},
    {6, 1, 16, 128, 256, 16, CK_BLOCK_LOST, SUM | ROPE | SLOTS, {40, 30, 20, 17, 5, 100}, {0}},
    {1, 1, 16, 256, 128, 64, CK_BLOCK_ZERO, NORM | ROPE | EARLY, {100}, {0}},
    {1, 1, 16, 128, 0, 64, PLAIN, SUM, {0}, {0}},
    {3, 1, 8, 256, 128, 64, PLAIN, SUM | ROPE | EARLY, {65, 1, 200}, {0}},
    {2, 1, 32, 256, 128, 16, PLAIN, SUM | ROPE | EARLY, {100, 33}, {0}},
    {2, 4, 16, 256, 128, 16, PLAIN, SUM | ROPE | EARLY | SLOTS, {18, 70}, {0, 1}},
    {1, 8, 16, 128, 0, 64, PLAIN, HALVES | STRIDED, {8}, {0}},
    {1, 2, 8, 128, 0, 64, CK_BLOCK_NAN, NORM | HALVES | FACTORS | BIASES, {33}, {0}},
    {1, 3, 32, 128, 0, 16, CK_BLOCK_SHARP, NORM | BIASES, {17}, {0}},
    {5, 1, 16, 128, 256, 32, CK_BLOCK_LOST, SUM | HALVES | BIASES | SLOTS, {40, 30, 0, 17, 5}, {0}},
    {2, 2, 16, 128, 128, 16, CK_BLOCK_LOST, ROPE | FACTORS | SLOTS, {17, 40}, {0}},
};

static void check_small(struct ck *ck, struct ck_random *random)
{
    for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++)
        check(ck, random, &small[i], ck_is_cuda(ck) ? 7 : i % 3 == 0);
}

/* DeepSeek-V3 and V2-Lite, and V3's heads over more and fewer devices, where a GPU is. */
static const struct ck_block_case large[] = {
    {1, 1, 16, 7168, 1536, 64, PLAIN, ROPE | EARLY, {4096}, {0}},
    {8,
     1,
     16,
     7168,
     1536,
     64,
     PLAIN,
     SUM | ROPE | EARLY,
     {4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096},
     {0}},
    {8,
     1,
     16,
     7168,
     1536,
     64,
     PLAIN,
     SUM | ROPE | SLOTS,
     {1, 2, 64, 65, 500, 1023, 3000, 4097},
     {0}},
    {1, 1, 16, 2048, 0, 64, PLAIN, SUM | ROPE | EARLY, {1024}, {0}},
    {4, 1, 16, 2048, 0, 64, PLAIN, SUM | ROPE | EARLY, {1024, 1025, 3, 2000}, {0}},
    {8,
     1,
     8,
     7168,
     1536,
     64,
     PLAIN,
     SUM | ROPE | EARLY,
     {4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096},
     {0}},
    {8,
     1,
     32,
     7168,
     1536,
     64,
     PLAIN,
     SUM | ROPE | EARLY,
     {4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096},
     {0}},
    {2, 4, 16, 7168, 1536, 64, PLAIN, SUM | ROPE | EARLY, {4096, 2050}, {0, 2}},
    {1, 8, 32, 2048, 0, 64, PLAIN, SUM | HALVES | BIASES | FACTORS, {1025}, {0}},
};

static void check_large(struct ck *ck, struct ck_random *random)
{
    for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++)
        check(ck, random, &large[i], 30);
}

void ck_mla_block_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    check_small(ck, &random);
    if (ck_is_cuda(ck))
        check_large(ck, &random);
}
