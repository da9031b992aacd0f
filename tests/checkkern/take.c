/* SPDX-License-Identifier: Apache-2.0 */
/* take: bit for bit the reference's, on any bits. */
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/harness.h"

#define POISON_BYTE 0x77

struct take_case {
    uint32_t rows, x_rows, width;
    uint32_t x_gap, out_gap; /* numbers between rows */
};

struct take_buffers {
    struct ck_buffer x, index, out;
};

static struct rt_take_params params_of(const struct take_case *c, const struct take_buffers *b,
                                       enum ck_side side)
{
    return (struct rt_take_params){.x = ck_at(&b->x, side),
                                   .index = ck_at(&b->index, side),
                                   .out = ck_at(&b->out, side),
                                   .x_stride = c->width + c->x_gap,
                                   .out_stride = c->width + c->out_gap,
                                   .rows = c->rows,
                                   .x_rows = c->x_rows,
                                   .width = c->width};
}

/* Any row, more than once too, and numbers beside the matrix. */
static struct take_buffers make_buffers(struct ck *ck, struct ck_random *random,
                                        const struct take_case *c)
{
    const uint64_t numbers = c->x_rows * (uint64_t)(c->width + c->x_gap);
    const uint64_t out_numbers = c->rows * (uint64_t)(c->width + c->out_gap);
    const int32_t x_rows = (int32_t)c->x_rows;
    const int32_t edges[] = {-1, INT32_MIN, x_rows, INT32_MAX, 0, x_rows - 1};
    struct take_buffers b = {.x = ck_alloc(ck, "x", numbers * 2, 0),
                             .index = ck_alloc(ck, "index", c->rows * 4, 0),
                             .out = ck_alloc(ck, "out", out_numbers * 2, POISON_BYTE)};
    uint16_t *x = ck_at(&b.x, CK_REF);
    int32_t *index = ck_at(&b.index, CK_REF);
    for (uint64_t i = 0; i < numbers; i++)
        x[i] = (uint16_t)ck_random_u64(random);
    for (uint32_t i = 0; i < c->rows; i++)
        index[i] = ck_random_below(random, 3) ? (int32_t)ck_random_below(random, c->x_rows)
                                              : edges[ck_random_below(random, 6)];
    ck_upload(ck, &b.x);
    ck_upload(ck, &b.index);
    return b;
}

static void check(struct ck *ck, struct ck_random *random, const struct take_case *c)
{
    ck_case(ck, "%u rows of %u, %u numbers each, gaps %u and %u", c->rows, c->x_rows, c->width,
            c->x_gap, c->out_gap);
    struct take_buffers b = make_buffers(ck, random, c);
    const struct rt_take_params ref = params_of(c, &b, CK_REF);
    const struct rt_take_params device = params_of(c, &b, CK_DEVICE);
    struct ck_buffer *all[] = {&b.out, &b.x, &b.index};
    struct rt_launch launch;
    struct rt_error err = {0};
    rt_ref_take(&ref);
    const enum rt_status built = ck_build(ck, RT_OP_TAKE, &device, sizeof(device), &launch, &err);
    ck_launch(ck, built, &err, &launch);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        ck_expect_same(ck, all[i]);
        ck_free(ck, all[i]);
    }
}

void ck_take_run(struct ck *ck)
{
    static const uint32_t widths[] = {2048, 8, 7168, 264, 8192, 8200};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 300 : 48;
    for (uint32_t i = 0; i < rounds; i++) {
        const struct take_case c = {.rows = 1 + ck_random_below(&random, 40),
                                    .x_rows = i % 5 ? 1 + ck_random_below(&random, 50) : 1,
                                    .width = widths[i % 6],
                                    .x_gap = i % 3 ? 0 : 8 * ck_random_below(&random, 9),
                                    .out_gap = i % 4 ? 0 : 8 * ck_random_below(&random, 9)};
        check(ck, &random, &c);
    }
}
