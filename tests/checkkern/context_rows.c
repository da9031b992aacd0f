/* SPDX-License-Identifier: Apache-2.0 */
/* context_rows: bit for bit the reference's, whose numbers tests/unit/context.c counts out. */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/harness.h"

#define POISON_BYTE 0x77
#define OUTPUTS 4

struct context_case {
    uint32_t rows, q_len, page_size, ranks, rank;
    bool known;  /* slots and positions of tokens */
    bool ragged; /* rows have a length, of any number of tokens */
};

struct context_buffers {
    struct ck_buffer slot, position, length, out[OUTPUTS];
};

static struct rt_context_rows_params params_of(const struct context_case *c,
                                               const struct context_buffers *b, enum ck_side side)
{
    return (struct rt_context_rows_params){
        .slot = ck_at(&b->slot, side),
        .position = ck_at(&b->position, side),
        .length = c->ragged ? ck_at(&b->length, side) : NULL,
        .token_slot = c->known ? NULL : ck_at(&b->out[0], side),
        .token_position = c->known ? NULL : ck_at(&b->out[1], side),
        .token_length = ck_at(&b->out[2], side),
        .token_place = ck_at(&b->out[3], side),
        .rows = c->rows,
        .q_len = c->q_len,
        .page_size = c->page_size,
        .ranks = c->ranks,
        .rank = c->rank,
    };
}

/* Padding of every kind, and positions around the ends of pages and of rounds of them. */
static struct context_buffers make_buffers(struct ck *ck, struct ck_random *random,
                                           const struct context_case *c)
{
    static const char *const names[OUTPUTS] = {"token_slot", "token_position", "token_length",
                                               "token_place"};
    const int32_t page = (int32_t)c->page_size, round = page * (int32_t)c->ranks;
    const int32_t edges[] = {0,         page - 1,  page,          round - 1, round,
                             round + 1, 2 * round, 5 * round - 1, -1,        RT_MAX_LENGTH - 8};
    struct context_buffers b = {.slot = ck_alloc(ck, "slot", c->rows * 4, 0),
                                .position = ck_alloc(ck, "position", c->rows * 4, 0),
                                .length = ck_alloc(ck, "length", c->rows * 4, 0)};
    for (int i = 0; i < OUTPUTS; i++)
        b.out[i] = ck_alloc(ck, names[i], (uint64_t)c->rows * c->q_len * 4, POISON_BYTE);
    int32_t *slot = ck_at(&b.slot, CK_REF), *position = ck_at(&b.position, CK_REF);
    int32_t *length = ck_at(&b.length, CK_REF);
    for (uint32_t r = 0; r < c->rows; r++) {
        slot[r] = ck_random_below(random, 6) ? (int32_t)ck_random_below(random, 4096) : -1;
        position[r] = ck_random_below(random, 2) ? (int32_t)ck_random_below(random, RT_MAX_LENGTH)
                                                 : edges[ck_random_below(random, 10)];
        length[r] = position[r] + (int32_t)ck_random_below(random, c->q_len + 2);
    }
    ck_upload(ck, &b.slot);
    ck_upload(ck, &b.position);
    ck_upload(ck, &b.length);
    return b;
}

static void check(struct ck *ck, struct ck_random *random, const struct context_case *c)
{
    ck_case(ck, "%u rows of %u, pages of %u, rank %u of %u%s%s", c->rows, c->q_len, c->page_size,
            c->rank, c->ranks, c->known ? ", places known" : "", c->ragged ? ", ragged" : "");
    struct context_buffers b = make_buffers(ck, random, c);
    const struct rt_context_rows_params ref = params_of(c, &b, CK_REF);
    const struct rt_context_rows_params device = params_of(c, &b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_context_rows(&ref);
    const enum rt_status built =
        ck_build(ck, RT_OP_CONTEXT_ROWS, &device, sizeof(device), &launch, &err);
    ck_launch(ck, built, &err, &launch);
    struct ck_buffer *all[] = {&b.slot,   &b.position, &b.length, &b.out[0],
                               &b.out[1], &b.out[2],   &b.out[3]};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        ck_expect_same(ck, all[i]);
        ck_free(ck, all[i]);
    }
}

void ck_context_rows_run(struct ck *ck)
{
    static const uint32_t page_sizes[] = {64, 16, 128, 32}, ranks[] = {2, 3, 1, 8, 64, 4};
    static const uint32_t rows[] = {1, 40, 300, 7};
    struct ck_random random = {.state = ck->seed};
    for (uint32_t i = 0; i < 24; i++) {
        const uint32_t q_len = i % 3 ? 1 : 1 + i % 8;
        const struct context_case c = {.rows = rows[i % 4],
                                       .q_len = q_len,
                                       .page_size = page_sizes[i % 4],
                                       .ranks = ranks[i % 6],
                                       .rank = ck_random_below(&random, ranks[i % 6]),
                                       .known = q_len == 1 && i % 2,
                                       .ragged = i % 4 > 1};
        check(ck, &random, &c);
    }
}
