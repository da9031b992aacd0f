/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 6
#define POISON_PAGE 2147480000

struct append_case {
    uint32_t rows, q_len, d_qk, page_size;
    uint32_t row_base;
    bool slots;   /* row_slot given */
    bool strided; /* gaps between tokens, rows and pages */
    bool ragged;  /* rows have a length, of any number of tokens */
};

struct append_buffers {
    struct ck_buffer latent, kv, table, slot, position, length, ctrl;
};

static uint32_t pages_of(const struct append_case *c)
{
    return c->rows * COLUMNS + 3;
}

static struct rt_append_params params_of(const struct append_case *c,
                                         const struct append_buffers *b, enum ck_side side)
{
    int64_t token = c->d_qk + (c->strided ? 8 : 0);
    struct rt_append_params p = {.latent.base = ck_at(&b->latent, side),
                                 .kv.base = ck_at(&b->kv, side),
                                 .kv.table = ck_at(&b->table, side),
                                 .rows.position = ck_at(&b->position, side),
                                 .latent.token_stride = token,
                                 .latent.row_stride = c->q_len * token + (c->strided ? 16 : 0),
                                 .kv.token_stride_bytes = 2 * token,
                                 .kv.page_stride_bytes =
                                     2 * (c->page_size * token + (c->strided ? 64 : 0)),
                                 .rows.count = c->rows,
                                 .rows.q_len = c->q_len,
                                 .kv.token_bytes = 2 * c->d_qk,
                                 .kv.page_size = c->page_size,
                                 .kv.max_blocks = COLUMNS,
                                 .kv.pages = pages_of(c)};
    if (c->slots)
        p.rows.slot = ck_at(&b->slot, side);
    if (c->ragged)
        p.rows.length = ck_at(&b->length, side);
    if (c->row_base > 0)
        p.rows.ctrl = ck_at(&b->ctrl, side);
    return p;
}

static void fill_bits(struct ck_random *random, void *to, uint64_t bytes)
{
    unsigned char *bits = to;
    for (uint64_t i = 0; i + 8 <= bytes; i += 8) {
        uint64_t x = ck_random_u64(random);
        memcpy(bits + i, &x, sizeof(x));
    }
}

/* Positions at every edge, good and bad; each row's line has pages of its own. */
static void fill(struct ck *ck, struct ck_random *random, const struct append_case *c,
                 struct append_buffers *b)
{
    int32_t *table = ck_at(&b->table, CK_REF), *slot = ck_at(&b->slot, CK_REF);
    int32_t *position = ck_at(&b->position, CK_REF), *length = ck_at(&b->length, CK_REF);
    struct rt_ctrl *ctrl = ck_at(&b->ctrl, CK_REF);
    int32_t page = (int32_t)c->page_size, end = COLUMNS * page;
    const int32_t edges[] = {
        0,   page - 1,   page,      page + 1, 2 * page - 1, end - 1,
        end, end - page, INT32_MAX, -1,       INT32_MIN,    end - (int32_t)c->q_len};
    *ctrl = (struct rt_ctrl){.row_base = c->row_base, .live_rows = c->rows};
    fill_bits(random, b->latent.ref, b->latent.bytes);
    for (uint32_t r = 0; r < c->rows; r++) {
        uint32_t line = c->slots ? c->rows - 1 - r : r;
        slot[r] = ck_random_below(random, 8) ? (int32_t)line : -1 - (int32_t)r;
        position[r] = ck_random_below(random, 3) ? (int32_t)ck_random_below(random, (uint32_t)end)
                                                 : edges[ck_random_below(random, 12)];
        length[r] = (int32_t)((uint32_t)position[r] + ck_random_below(random, c->q_len + 2));
        for (uint32_t i = 0; i < COLUMNS; i++) {
            uint32_t id = r * COLUMNS + (i * 5 + 2) % COLUMNS;
            table[line * COLUMNS + i] = (int32_t)id;
            if (ck_random_below(random, 10) == 0)
                table[line * COLUMNS + i] = ck_random_below(random, 2) ? POISON_PAGE : -1;
        }
    }
    table[0] = (int32_t)pages_of(c); /* the first id that is not one */
    const struct ck_buffer *all[] = {&b->latent,   &b->table,  &b->slot,
                                     &b->position, &b->length, &b->ctrl};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_upload(ck, all[i]);
}

static struct append_buffers make_buffers(struct ck *ck, const struct append_case *c)
{
    struct append_buffers none = {0};
    struct rt_append_params p = params_of(c, &none, CK_REF);
    uint64_t rows = c->row_base + c->rows;
    return (struct append_buffers){
        .latent = ck_alloc(ck, "latent", rows * (uint64_t)p.latent.row_stride * 2, 0),
        .kv = ck_alloc(ck, "kv", p.kv.pages * (uint64_t)p.kv.page_stride_bytes, 0x77),
        .table = ck_alloc(ck, "table", (uint64_t)c->rows * COLUMNS * 4, 0),
        .slot = ck_alloc(ck, "row_slot", c->rows * 4, 0),
        .position = ck_alloc(ck, "row_position", c->rows * 4, 0),
        .length = ck_alloc(ck, "row_length", c->rows * 4, 0),
        .ctrl = ck_alloc(ck, "ctrl", sizeof(struct rt_ctrl), 0)};
}

static void free_buffers(struct ck *ck, struct append_buffers *b)
{
    ck_free(ck, &b->latent);
    ck_free(ck, &b->kv);
    ck_free(ck, &b->table);
    ck_free(ck, &b->slot);
    ck_free(ck, &b->position);
    ck_free(ck, &b->length);
    ck_free(ck, &b->ctrl);
}

static void check(struct ck *ck, struct ck_random *random, const struct append_case *c)
{
    ck_case(ck, "%u rows, query length %u, d_qk %u, page %u, row_base %u%s%s%s", c->rows, c->q_len,
            c->d_qk, c->page_size, c->row_base, c->slots ? ", slots" : "",
            c->strided ? ", strided" : "", c->ragged ? ", ragged" : "");
    struct append_buffers b = make_buffers(ck, c);
    fill(ck, random, c, &b);
    struct rt_append_params ref = params_of(c, &b, CK_REF);
    struct rt_append_params device = params_of(c, &b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_append(&ref);
    enum rt_status status = ck_build(ck, RT_OP_APPEND, &device, sizeof(device), &launch, &err);
    ck_launch(ck, status, &err, &launch);
    ck_expect_same(ck, &b.kv);
    free_buffers(ck, &b);
}

/* Pages 64 MiB apart: offsets of 31 and of 32 bits are both too small, in elements and in bytes. */
#define FAR_STRIDE (INT64_C(1) << 25)
#define FAR_PAGES 80

static void check_far(struct ck *ck)
{
    struct append_case c = {.rows = 4, .q_len = 1, .d_qk = 576, .page_size = 64};
    ck_case(ck, "pages %lld elements apart", (long long)FAR_STRIDE);
    static const int32_t pages[] = {79, 64, 33, 0};
    struct append_buffers b = make_buffers(ck, &c);
    struct ck_random random = {.state = ck->seed};
    fill(ck, &random, &c, &b);
    int32_t *table = ck_at(&b.table, CK_REF), *position = ck_at(&b.position, CK_REF);
    for (int32_t r = 0; r < 4; r++) {
        table[r * COLUMNS] = pages[r];
        position[r] = 60 + r;
    }
    ck_upload(ck, &b.table);
    ck_upload(ck, &b.position);

    rt_addr pool = 0;
    CK_DRV(ck, mem_alloc, (&ck->driver, FAR_PAGES * FAR_STRIDE * 2, &pool));
    struct rt_append_params p = params_of(&c, &b, CK_DEVICE);
    p.kv.base = (unsigned char *)(uintptr_t)pool;
    p.kv.page_stride_bytes = 2 * FAR_STRIDE;
    p.kv.pages = FAR_PAGES;
    struct rt_launch launch;
    struct rt_error err = {0};
    ck_launch(ck, ck_build(ck, RT_OP_APPEND, &p, sizeof(p), &launch, &err), &err, &launch);
    for (uint32_t r = 0; r < 4; r++) {
        uint16_t found[576];
        uint64_t at = ((uint64_t)pages[r] * FAR_STRIDE + (uint64_t)position[r] * c.d_qk) * 2;
        CK_DRV(ck, copy_out, (&ck->driver, found, pool + at, sizeof(found), ck->stream));
        CK_DRV(ck, stream_sync, (&ck->driver, ck->stream));
        ck_expect_bytes(ck, "far token", found, b.latent.ref + r * sizeof(found), sizeof(found));
    }
    CK_DRV(ck, mem_free, (&ck->driver, pool));
    free_buffers(ck, &b);
}

void ck_append_run(struct ck *ck)
{
    static const uint32_t widths[] = {576, 320, 288, 512}, page_sizes[] = {16, 32, 64, 128};
    struct ck_random random = {.state = ck->seed};
    uint32_t rounds = ck->full ? 400 : 48;
    for (uint32_t i = 0; i < rounds; i++) {
        struct append_case c = {.rows = 1 + ck_random_below(&random, i % 12 ? 20 : 300),
                                .q_len = 1 + ck_random_below(&random, 8),
                                .d_qk = widths[i % 4],
                                .page_size = page_sizes[i / 4 % 4],
                                .row_base = i % 3 ? 0 : 1 + ck_random_below(&random, 9),
                                .slots = i % 2,
                                .strided = i % 5 == 0,
                                .ragged = i % 7 > 2};
        check(ck, &random, &c);
    }
    if (ck_is_cuda(ck))
        check_far(ck);
}

struct copy_case {
    uint32_t d_qk, page_size, layers, count;
    int64_t token_stride;
};

/* Pages to read first, then those to write. */
#define COPY_PAGES (2 * RT_MAX_PAGE_COPIES)

static void copy_on(struct ck *ck, const struct copy_case *c, const struct ck_buffer *kv,
                    const struct ck_buffer *ctrl, const struct ck_buffer *list, enum ck_side side)
{
    int64_t page_stride = c->page_size * c->token_stride;
    struct rt_page_copy_params p = {.ctrl = ck_at(ctrl, side),
                                    .copies = ck_at(list, side),
                                    .kv.base = ck_at(kv, side),
                                    .kv.page_stride_bytes = 2 * page_stride,
                                    .kv.token_stride_bytes = 2 * c->token_stride,
                                    .layer_stride_bytes = 2 * COPY_PAGES * page_stride,
                                    .kv.token_bytes = 2 * c->d_qk,
                                    .layers = c->layers};
    struct rt_launch launch;
    struct rt_error err = {0};
    if (side == CK_REF)
        rt_ref_page_copy(&p);
    else
        ck_launch(ck, ck_build(ck, RT_OP_PAGE_COPY, &p, sizeof(p), &launch, &err), &err, &launch);
}

static void check_copy(struct ck *ck, struct ck_random *random, const struct copy_case *c)
{
    uint64_t bytes =
        2 * (uint64_t)c->layers * COPY_PAGES * c->page_size * (uint64_t)c->token_stride;
    ck_case(ck, "%u copies, %u layers, d_qk %u, page %u", c->count, c->layers, c->d_qk,
            c->page_size);
    struct ck_buffer kv = ck_alloc(ck, "kv", bytes, 0);
    struct ck_buffer ctrl = ck_alloc(ck, "ctrl", sizeof(struct rt_ctrl), 0);
    struct ck_buffer list =
        ck_alloc(ck, "copies", RT_MAX_PAGE_COPIES * sizeof(struct rt_page_copy), 0xff);
    ((struct rt_ctrl *)ck_at(&ctrl, CK_REF))->copy_count = c->count;
    struct rt_page_copy *copies = ck_at(&list, CK_REF);
    for (uint32_t n = 0; n < c->count; n++)
        copies[n] =
            (struct rt_page_copy){.from = (int32_t)ck_random_below(random, RT_MAX_PAGE_COPIES),
                                  .to = RT_MAX_PAGE_COPIES + (int32_t)n,
                                  .rows = (int32_t)ck_random_below(random, c->page_size + 1)};
    fill_bits(random, kv.ref, kv.bytes);
    ck_upload(ck, &kv);
    ck_upload(ck, &ctrl);
    ck_upload(ck, &list);
    copy_on(ck, c, &kv, &ctrl, &list, CK_REF);
    copy_on(ck, c, &kv, &ctrl, &list, CK_DEVICE);
    ck_expect_same(ck, &kv);
    ck_free(ck, &kv);
    ck_free(ck, &ctrl);
    ck_free(ck, &list);
}

void ck_page_copy_run(struct ck *ck)
{
    static const uint32_t widths[] = {576, 320, 288, 512}, page_sizes[] = {16, 32, 64, 128};
    struct ck_random random = {.state = ck->seed};
    for (uint32_t i = 0; i < 16; i++) {
        struct copy_case c = {.d_qk = widths[i % 4],
                              .page_size = page_sizes[i / 4],
                              .layers = 1 + i % 3,
                              .count = i % 5 ? ck_random_below(&random, 12) : RT_MAX_PAGE_COPIES,
                              .token_stride = widths[i % 4] + i % 2 * 8};
        check_copy(ck, &random, &c);
    }
}

#define BENCH_LAUNCHES 50

void ck_append_bench(struct ck *ck)
{
    static const uint32_t batches[] = {1, 16, 64, 512};
    struct ck_random random = {.state = ck->seed};
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
        struct append_case c = {.rows = batches[i], .q_len = 1, .d_qk = 576, .page_size = 64};
        struct append_buffers b = make_buffers(ck, &c);
        fill(ck, &random, &c, &b);
        struct rt_append_params p = params_of(&c, &b, CK_DEVICE);
        struct rt_launch launches[BENCH_LAUNCHES];
        struct rt_error err = {0};
        for (int l = 0; l < BENCH_LAUNCHES; l++)
            ck_must(ck, ck_build(ck, RT_OP_APPEND, &p, sizeof(p), &launches[l], &err), &err);
        printf("append     batch %4u, d_qk 576: %8.2f us\n", c.rows,
               ck_time_ns(ck, launches, BENCH_LAUNCHES) / 1e3);
        free_buffers(ck, &b);
    }
}
