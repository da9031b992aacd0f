/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_gather, and kv_gather_quant where the case has a layout: bit for bit the reference's, whatever
 * offsets, slots and tables hold.
 */
#include "kernels/ops/op_build.h"
#include "kernels/quant_view.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/harness.h"
#include "tests/checkkern/quant_case.h"

#include <stdio.h>
#include <stdlib.h>

#define POISON_BYTE 0x77
#define MOST_TOKENS 40u /* of a row, in checks */

struct gather_case {
    const struct rt_kv_format *format;    /* of a quantised cache, or null */
    uint32_t rows, begin, count, vectors; /* vectors of 16 bytes of a token's row */
    uint32_t page_size, max_blocks, pages, lines;
    uint32_t token_gap, page_gap; /* vectors behind a token, behind a page */
    int32_t front;                /* first[0] */
    bool slots, positions, wild;  /* wild: offsets rise and fall, and point anywhere */
};

struct gather_buffers {
    struct ck_buffer kv, table, slot, first, position, out;
};

static uint64_t token_stride(const struct gather_case *c)
{
    return 16ull * (c->vectors + c->token_gap);
}

static uint64_t page_stride(const struct gather_case *c)
{
    const uint64_t apart = c->format ? c->format->token_bytes - c->format->row_bytes : 0;
    return (c->page_size * (token_stride(c) + apart) + 15) / 16 * 16 + 16ull * c->page_gap;
}

/* Of a token of out. */
static uint64_t out_bytes(const struct gather_case *c)
{
    return c->format ? 2ull * c->format->d_qk : 16ull * c->vectors;
}

static struct rt_kv_gather_params params_of(const struct gather_case *c,
                                            const struct gather_buffers *b, enum ck_side side)
{
    return (struct rt_kv_gather_params){
        .kv = {.base = ck_at(&b->kv, side),
               .table = ck_at(&b->table, side),
               .page_stride_bytes = (int64_t)page_stride(c),
               .token_stride_bytes = (int64_t)token_stride(c),
               .page_size = c->page_size,
               .max_blocks = c->max_blocks,
               .pages = c->pages,
               .token_bytes = c->vectors * 16},
        .slot = c->slots ? ck_at(&b->slot, side) : NULL,
        .first = ck_at(&b->first, side),
        .position = c->positions ? ck_at(&b->position, side) : NULL,
        .out = ck_at(&b->out, side),
        .rows = c->rows,
        .begin = c->begin,
        .count = c->count,
    };
}

static struct rt_kv_gather_quant_params
quant_params_of(const struct gather_case *c, const struct gather_buffers *b, enum ck_side side)
{
    const struct rt_kv_gather_params gather = params_of(c, b, side);
    return (struct rt_kv_gather_quant_params){
        .gather = gather,
        .quant = rt_quant_view_make(c->format, &gather.kv, 0.0117f),
        .d_qk = c->format->d_qk};
}

/* Pages beside the pool, lines that are none, positions in front and behind the table, rows without
 * a token. */
static void fill(struct ck_random *random, const struct gather_case *c,
                 const struct gather_buffers *b)
{
    const int32_t pages = (int32_t)c->pages, edges[] = {-1, INT32_MIN, pages, INT32_MAX};
    const int32_t ends[] = {INT32_MIN, INT32_MAX, -1, 0};
    int32_t *table = ck_at(&b->table, CK_REF), *slot = ck_at(&b->slot, CK_REF);
    int32_t *first = ck_at(&b->first, CK_REF), *position = ck_at(&b->position, CK_REF);
    uint64_t *kv = ck_at(&b->kv, CK_REF);
    for (uint64_t i = 0; i < b->kv.bytes / 8; i++)
        kv[i] = ck_random_u64(random);
    for (uint32_t i = 0; i < c->lines * c->max_blocks; i++)
        table[i] = ck_random_below(random, 8) ? (int32_t)ck_random_below(random, c->pages)
                                              : edges[ck_random_below(random, 4)];
    first[0] = c->front;
    for (uint32_t r = 0; r < c->rows; r++) {
        const uint32_t most = ck_random_below(random, 3) ? MOST_TOKENS : 1;
        slot[r] = ck_random_below(random, 6) ? (int32_t)ck_random_below(random, c->lines)
                                             : -1 - (int32_t)r;
        position[r] = ck_random_below(random, 4)
                          ? (int32_t)ck_random_below(random, c->page_size * c->max_blocks)
                          : ends[ck_random_below(random, 4)];
        first[r + 1] = first[r] + (int32_t)ck_random_below(random, most);
    }
    for (uint32_t r = 0; r <= c->rows && c->wild; r++)
        first[r] = ck_random_below(random, 3) ? (int32_t)ck_random_below(random, 2 * MOST_TOKENS)
                                              : ends[ck_random_below(random, 4)];
    if (c->wild && ck_random_below(random, 2)) { /* positions that are some again in 32 bits */
        first[0] = INT32_MIN;
        first[1] = MOST_TOKENS;
        position[0] = INT32_MAX;
        slot[0] = 0;
    }
}

static struct gather_buffers make(struct ck *ck, const struct gather_case *c)
{
    return (struct gather_buffers){
        .kv = ck_alloc_later(ck, "kv", c->pages * page_stride(c), 0),
        .table = ck_alloc(ck, "table", 4ull * c->lines * c->max_blocks, 0),
        .slot = ck_alloc(ck, "slot", 4ull * c->rows, 0),
        .first = ck_alloc(ck, "first", 4ull * (c->rows + 1), 0),
        .position = ck_alloc(ck, "position", 4ull * c->rows, 0),
        .out = ck_alloc(ck, "out", c->count * out_bytes(c), POISON_BYTE)};
}

static void upload(struct ck *ck, const struct gather_buffers *b)
{
    const struct ck_buffer *inputs[] = {&b->kv, &b->table, &b->slot, &b->first, &b->position};
    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++)
        ck_upload(ck, inputs[i]);
}

static void drop(struct ck *ck, struct gather_buffers *b)
{
    struct ck_buffer *all[] = {&b->kv, &b->table, &b->slot, &b->first, &b->position, &b->out};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

/* Numbers of any bits are a NaN of any kind somewhere, which two devices have each its own of. */
static void expect_numbers(struct ck *ck, const struct ck_buffer *b)
{
    uint16_t *found = ck_new(ck, b->bytes + CK_GUARD_BYTES), *expected = ck_at(b, CK_REF);
    ck_download(ck, b, found);
    for (uint64_t i = 0; i < b->bytes / 2; i++)
        if ((found[i] & 0x7fffu) > 0x7f80u && (expected[i] & 0x7fffu) > 0x7f80u)
            found[i] = expected[i];
    ck_expect_bytes(ck, b->name, found, expected, b->bytes + CK_GUARD_BYTES);
    free(found);
}

static void run_quantised(struct ck *ck, const struct gather_case *c,
                          const struct gather_buffers *b)
{
    const struct rt_kv_gather_quant_params ref = quant_params_of(c, b, CK_REF);
    const struct rt_kv_gather_quant_params device = quant_params_of(c, b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_kv_gather_quant(&ref);
    const enum rt_status built =
        ck_build(ck, RT_OP_KV_GATHER_QUANT, &device, sizeof(device), &launch, &err);
    ck_launch(ck, built, &err, &launch);
    expect_numbers(ck, &b->out);
}

static void run_plain(struct ck *ck, const struct gather_case *c, const struct gather_buffers *b)
{
    const struct rt_kv_gather_params ref = params_of(c, b, CK_REF);
    const struct rt_kv_gather_params device = params_of(c, b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_kv_gather(&ref);
    const enum rt_status built =
        ck_build(ck, RT_OP_KV_GATHER, &device, sizeof(device), &launch, &err);
    ck_launch(ck, built, &err, &launch);
    ck_expect_same(ck, &b->out);
}

static void check(struct ck *ck, struct ck_random *random, const struct gather_case *c)
{
    ck_case(ck,
            "%s, %u rows, %u tokens of %u vectors from %u on, pages of %u, %u columns, front "
            "%d%s%s%s",
            c->format ? c->format->name : "plain", c->rows, c->count, c->vectors, c->begin,
            c->page_size, c->max_blocks, c->front, c->slots ? ", slots" : "",
            c->positions ? ", positions" : "", c->wild ? ", wild" : "");
    struct gather_buffers b = make(ck, c);
    fill(random, c, &b);
    upload(ck, &b);
    if (c->format)
        run_quantised(ck, c, &b);
    else
        run_plain(ck, c, &b);
    ck_expect_same(ck, &b.kv);
    drop(ck, &b);
}

void ck_kv_gather_run(struct ck *ck)
{
    static const uint32_t vectors[] = {72, 1, 40, 36, 2, 64, 7, 144};
    static const uint32_t page_sizes[] = {64, 16, 1, 128, 32, 5};
    static const uint32_t rows[] = {1, 7, 2, 33, 512, 3, 5};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 400 : ck->quick ? 28 : 72;
    for (uint32_t i = 0; i < rounds; i++) {
        const uint32_t most = i % 8 == 1 ? 3000 : 200;
        struct gather_case c = {
            .rows = rows[i % 7],
            .begin = i % 3 ? ck_random_below(&random, MOST_TOKENS) : 0,
            .count = 1 + ck_random_below(&random, most),
            .vectors = vectors[i % 8],
            .page_size = page_sizes[i % 6],
            .max_blocks = 1 + ck_random_below(&random, 4),
            .pages = 1 + ck_random_below(&random, 9),
            .lines = i % 4 ? 1 + ck_random_below(&random, 9) : rows[i % 7],
            .token_gap = i % 5 ? 0 : ck_random_below(&random, 4),
            .page_gap = i % 3 ? 0 : ck_random_below(&random, 9),
            .front = i % 5 == 2 ? (int32_t)ck_random_below(&random, 60) : 0,
            .slots = i % 4 != 0,
            .positions = i % 3 != 1,
            .wild = i % 6 == 5,
        };
        check(ck, &random, &c);
        const struct rt_kv_format format = ck_format_make(i % CK_FORMATS);
        c.format = &format;
        c.vectors = format.row_bytes / 16;
        if (i % 2)
            check(ck, &random, &c);
    }
}

/* ---- on time ---- */

#define LAUNCHES 8
#define PAGE 64u

/* All rows of one length, their pages one behind the other. */
void ck_kv_gather_bench(struct ck *ck)
{
    static const uint32_t shapes[][3] = {{1, 1024, 72}, {1, 8192, 72},  {16, 512, 72},
                                         {512, 16, 72}, {1, 65536, 72}, {1, 8192, 40}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const uint32_t rows = shapes[i][0], tokens = shapes[i][1];
        const uint32_t columns = (tokens + PAGE - 1) / PAGE;
        const struct gather_case c = {.rows = rows,
                                      .count = rows * tokens,
                                      .vectors = shapes[i][2],
                                      .page_size = PAGE,
                                      .max_blocks = columns,
                                      .pages = rows * columns,
                                      .lines = rows,
                                      .slots = true,
                                      .positions = true};
        struct gather_buffers b = make(ck, &c);
        int32_t *table = ck_at(&b.table, CK_REF), *slot = ck_at(&b.slot, CK_REF);
        int32_t *first = ck_at(&b.first, CK_REF);
        for (uint32_t p = 0; p < c.pages; p++)
            table[p] = (int32_t)p;
        for (uint32_t r = 0; r < rows; r++) {
            slot[r] = (int32_t)r;
            first[r + 1] = first[r] + (int32_t)tokens;
        }
        upload(ck, &b);
        const struct rt_kv_gather_params p = params_of(&c, &b, CK_DEVICE);
        struct rt_launch launches[LAUNCHES];
        struct rt_error err = {0};
        for (int l = 0; l < LAUNCHES; l++)
            ck_must(ck, ck_build(ck, RT_OP_KV_GATHER, &p, sizeof(p), &launches[l], &err), &err);
        const double ns = ck_time_ns(ck, launches, LAUNCHES);
        printf("kv_gather  %3u x %5u tokens of %4u bytes: %8.2f us, %6.0f GB/s\n", rows, tokens,
               c.vectors * 16, ns / 1e3, 32.0 * c.count * c.vectors / ns);
        drop(ck, &b);
    }
}
