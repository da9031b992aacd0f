/* SPDX-License-Identifier: Apache-2.0 */
/* embed: bit for bit the reference's, but that a NaN may be another. */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/harness.h"

#include <stdio.h>
#include <stdlib.h>

#define POISON_BYTE 0x77
#define BF16_INFINITY 0x7f80u

struct embed_case {
    uint32_t rows, q_len, vocab, width;
    uint32_t table_gap, hidden_gap; /* numbers between ids, between tokens */
    uint32_t row_base;
    bool lengths, ctrl;
    float scale;
};

struct embed_buffers {
    struct ck_buffer table, tokens, hidden, length, ctrl;
};

static struct rt_embed_params params_of(const struct embed_case *c, const struct embed_buffers *b,
                                        enum ck_side side)
{
    return (struct rt_embed_params){.table = ck_at(&b->table, side),
                                    .tokens = ck_at(&b->tokens, side),
                                    .hidden = ck_at(&b->hidden, side),
                                    .table_stride = c->width + c->table_gap,
                                    .hidden_stride = c->width + c->hidden_gap,
                                    .rows = {.length = c->lengths ? ck_at(&b->length, side) : NULL,
                                             .ctrl = c->ctrl ? ck_at(&b->ctrl, side) : NULL,
                                             .count = c->rows,
                                             .q_len = c->q_len},
                                    .scale = c->scale,
                                    .vocab = c->vocab,
                                    .width = c->width};
}

/* Any id, and those beside the table, and padding of every kind. */
static void fill_rows(struct ck_random *random, const struct embed_case *c,
                      const struct embed_buffers *b)
{
    const int32_t vocab = (int32_t)c->vocab;
    const int32_t edges[] = {-1, INT32_MIN, vocab, INT32_MAX, 0, vocab - 1};
    int32_t *tokens = ck_at(&b->tokens, CK_REF), *length = ck_at(&b->length, CK_REF);
    for (uint32_t i = 0; i < (c->row_base + c->rows) * c->q_len; i++)
        tokens[i] = ck_random_below(random, 3) ? (int32_t)ck_random_below(random, c->vocab)
                                               : edges[ck_random_below(random, 6)];
    for (uint32_t r = 0; r < c->rows; r++)
        length[r] = (int32_t)ck_random_below(random, 4) - 1;
    ((struct rt_ctrl *)ck_at(&b->ctrl, CK_REF))->row_base = c->row_base;
}

static struct embed_buffers make_buffers(struct ck *ck, struct ck_random *random,
                                         const struct embed_case *c)
{
    const uint64_t ids = c->vocab * (uint64_t)(c->width + c->table_gap);
    const uint64_t numbers = c->rows * c->q_len * (uint64_t)(c->width + c->hidden_gap);
    struct embed_buffers b = {
        .table = ck_alloc(ck, "table", ids * 2, POISON_BYTE),
        .tokens = ck_alloc(ck, "tokens", (c->row_base + c->rows) * c->q_len * 4, POISON_BYTE),
        .hidden = ck_alloc(ck, "hidden", numbers * 2, POISON_BYTE),
        .length = ck_alloc(ck, "length", c->rows * 4, POISON_BYTE),
        .ctrl = ck_alloc(ck, "ctrl", sizeof(struct rt_ctrl), 0)};
    uint16_t *table = ck_at(&b.table, CK_REF);
    for (uint32_t id = 0; id < c->vocab; id++)
        for (uint32_t i = 0; i < c->width; i++)
            table[id * (uint64_t)(c->width + c->table_gap) + i] = (uint16_t)ck_random_u64(random);
    fill_rows(random, c, &b);
    ck_upload(ck, &b.table);
    ck_upload(ck, &b.tokens);
    ck_upload(ck, &b.length);
    ck_upload(ck, &b.ctrl);
    return b;
}

static void free_buffers(struct ck *ck, struct embed_buffers *b)
{
    ck_free(ck, &b->table);
    ck_free(ck, &b->tokens);
    ck_free(ck, &b->hidden);
    ck_free(ck, &b->length);
    ck_free(ck, &b->ctrl);
}

static bool is_nan(uint16_t bits)
{
    return (bits & 0x7fffu) > BF16_INFINITY;
}

/* Gaps and guard included. */
static void compare(struct ck *ck, const struct ck_buffer *b)
{
    const uint64_t bytes = b->bytes + CK_GUARD_BYTES;
    const uint16_t *expected = ck_at(b, CK_REF);
    uint16_t *found = ck_new(ck, bytes);
    ck_download(ck, b, found);
    for (uint64_t i = 0; i < bytes / 2; i++)
        if (found[i] != expected[i] && !(is_nan(found[i]) && is_nan(expected[i]))) {
            ck_failed(ck, "hidden, element %llu: 0x%04x, expected 0x%04x", (unsigned long long)i,
                      found[i], expected[i]);
            break;
        }
    free(found);
}

static void check(struct ck *ck, struct ck_random *random, const struct embed_case *c)
{
    ck_case(ck, "%u rows of %u from row %u, %u ids of %u, gaps %u and %u%s%s, scale %g", c->rows,
            c->q_len, c->row_base, c->vocab, c->width, c->table_gap, c->hidden_gap,
            c->lengths ? ", lengths" : "", c->ctrl ? ", ctrl" : "", (double)c->scale);
    struct embed_buffers b = make_buffers(ck, random, c);
    const struct rt_embed_params ref = params_of(c, &b, CK_REF);
    const struct rt_embed_params device = params_of(c, &b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_embed(&ref);
    enum rt_status status = ck_build(ck, RT_OP_EMBED, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);
    compare(ck, &b.hidden);
    ck_expect_same(ck, &b.table);
    ck_expect_same(ck, &b.tokens);
    free_buffers(ck, &b);
}

void ck_embed_run(struct ck *ck)
{
    static const uint32_t widths[] = {2048, 8, 7168, 5120, 264, 8192, 8200, 16384};
    static const float scales[] = {1.0f, 12.0f, 0.1f, -3e38f};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 400 : 64;
    for (uint32_t i = 0; i < rounds; i++) {
        const struct embed_case c = {.rows = 1 + ck_random_below(&random, 9),
                                     .q_len = 1 + ck_random_below(&random, 4),
                                     .vocab = i % 5 ? 1 + ck_random_below(&random, 40) : 1,
                                     .width = widths[i % 8],
                                     .table_gap = i % 3 ? 0 : 8 * ck_random_below(&random, 9),
                                     .hidden_gap = i % 4 ? 0 : 8 * ck_random_below(&random, 9),
                                     .row_base = i % 2 ? ck_random_below(&random, 7) : 0,
                                     .lengths = ck_random_below(&random, 3) > 0,
                                     .ctrl = i % 2,
                                     .scale = scales[i / 2 % 4]};
        check(ck, &random, &c);
    }
}

#define BENCH_LAUNCHES 50

void ck_embed_bench(struct ck *ck)
{
    static const uint32_t batches[] = {1, 32, 512};
    struct ck_random random = {.state = ck->seed};
    for (size_t i = 0; i < 3; i++) {
        const struct embed_case c = {
            .rows = batches[i], .q_len = 1, .vocab = 4096, .width = 7168, .scale = 1.0f};
        struct embed_buffers b = make_buffers(ck, &random, &c);
        const struct rt_embed_params p = params_of(&c, &b, CK_DEVICE);
        struct rt_launch launches[BENCH_LAUNCHES];
        struct rt_error err = {0};
        for (int l = 0; l < BENCH_LAUNCHES; l++)
            ck_must(ck, ck_build(ck, RT_OP_EMBED, &p, sizeof(p), &launches[l], &err), &err);
        printf("embed      %4u tokens of %u: %8.2f us\n", c.rows, c.width,
               ck_time_ns(ck, launches, BENCH_LAUNCHES) / 1e3);
        free_buffers(ck, &b);
    }
}
