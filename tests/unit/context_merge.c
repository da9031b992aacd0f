/* SPDX-License-Identifier: Apache-2.0 */
/* context_merge: what it is launched with and refuses, which exchanges go that way, and groups of
 * ranks, threads here, that sum in between: what each has is the merge of its group's. */
#include "common/bf16.h"
#include "common/context.h"
#include "kernels/op.h"
#include "kernels/ops/op_build.h"
#include "kernels/ref/ref.h"
#include "runtime/context_exchange.h"
#include "runtime/one_shot.h"
#include "tests/unit/comm_crew.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define HEADS 3u
#define MOST_TOKENS 5u
#define DIM 256u
#define EXCHANGES 5u
#define MOST_HEAD_BYTES (MOST_TOKENS * DIM * 2 + 32)
#define SUMMED 4112u

static enum rt_status build(const struct rt_context_merge_params *p, struct rt_launch *out,
                            struct rt_error *err)
{
    static const struct rt_kernels no_device;
    const struct rt_device_caps host = {.kind = RT_DEVICE_KIND_HOST};
    const struct rt_op_request request = {.caps = &host};
    struct rt_variant variant;
    struct rt_work work = {0};
    RT_TRY(rt_op_resolve(RT_OP_CONTEXT_MERGE, &request, &variant, err));
    RT_TRY(rt_op_build(&no_device, &variant, p, sizeof(*p), &work, err));
    *out = work.launch;
    return RT_OK;
}

static void *at(uintptr_t address)
{
    return (void *)address;
}

static struct rt_context_merge_params good(uint32_t tokens, uint32_t heads, uint32_t v_dim)
{
    return (struct rt_context_merge_params){.given = at(0x1000000),
                                            .out = at(0x2000000),
                                            .out_lse = at(0x3000000),
                                            .mailbox = {at(0x4000000), at(0x5000000)},
                                            .stop = at(0x6000000),
                                            .ranks = 2,
                                            .tokens = tokens,
                                            .heads = heads,
                                            .v_dim = v_dim,
                                            .head_bytes =
                                                (uint32_t)rt_context_head_bytes(tokens, v_dim, 2)};
}

static void test_launch(void **state)
{
    static const uint32_t shapes[][4] = {
        {1, 1, 256, 1}, {1, 8, 256, 1}, {1, 5, 512, 2}, {3, 3, 512, 3}, {4, 64, 512, 64}};
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct rt_context_merge_params p = good(shapes[i][0], shapes[i][1], shapes[i][2]);
        struct rt_launch l = {0};
        assert_int_equal(build(&p, &l, NULL), RT_OK);
        assert_string_equal(l.entry, "rt_context_merge");
        assert_int_equal(l.grid[0], shapes[i][3]);
        assert_int_equal(l.grid[1] * l.grid[2], 1);
        assert_int_equal(l.block[0], RT_ALL_REDUCE_THREADS);
        assert_true(l.waits);
        assert_int_equal(l.address_mask, 0xfff); /* given, out, lse, eight mailboxes, stop */
    }
}

static void refused(const struct rt_context_merge_params *p, const char *story)
{
    struct rt_launch l;
    struct rt_error err = {.status = RT_OK};
    assert_int_equal(build(p, &l, &err), RT_ERR_INVALID);
    if (!strstr(err.message, story))
        fail_msg("\"%s\" does not contain \"%s\"", err.message, story);
}

static void test_refusals(void **state)
{
    struct rt_context_merge_params p = good(1, 1, 256);
    (void)state;
    p.ranks = 9;
    refused(&p, "9 ranks, not 2 to 8");
    p = good(1, 1, 128);
    refused(&p, "v_dim = 128 is not a multiple of 256 up to 512");
    p = good(1, 1, 768);
    refused(&p, "v_dim = 768 is not");
    p = good(5, 64, 512);
    refused(&p, "5 tokens of 64 heads and v_dim 512, not 1 to 262144 bytes");
    p = good(0, 64, 512);
    refused(&p, "0 tokens");
    p = good(2, 2, 256);
    p.head_bytes -= 32;
    refused(&p, "a head of 1024 bytes, not a multiple of 16 from 1032 on");
    p = good(2, 2, 256);
    p.out = at(0x1000100);
    refused(&p, "out, 2048 bytes at 0x1000100, overlaps what is given");
    p = good(2, 2, 256);
    p.out_lse = at(0x0fffff8);
    refused(&p, "out_lse is at 0xfffff8, not 16-byte aligned");
    p.out_lse = at(0x1001070); /* the last 16 bytes of what is given */
    refused(&p, "out_lse, 16 bytes at 0x1001070, overlaps what is given, 4224 bytes");
    p = good(2, 2, 256);
    p.mailbox[5] = at(0x8000000);
    refused(&p, "mailbox 5 of 2 ranks");
}

static void expect_served(const struct rt_context_exchange *x, const char *story)
{
    char why[RT_PEERS_WHY_BYTES];
    assert_int_equal(rt_context_one_shot_serves(x, why, sizeof(why)), !*story);
    assert_string_equal(why, story);
}

static void test_what_goes_in_one_shot(void **state)
{
    struct rt_driver d = {0};
    struct rt_comm c = {.ranks = 2};
    struct rt_context_exchange x = {.swap = {.kind = RT_ALL_TO_ALL, .group = 2, .comm = &c},
                                    .merge = {.tokens = 4, .heads = 64, .v_dim = 512}};
    (void)state;
    expect_served(&x, "no memory of the ranks is mapped");
    c.peers.driver = &d;
    c.peers.mapped = true;
    expect_served(&x, "");
    x.merge.tokens = 5;
    expect_served(&x, "327680 bytes of vectors for a rank, not up to 262144");
    x.merge.v_dim = 320;
    expect_served(&x, "320 numbers a head, not a multiple of 256");
    x.merge.is_f32 = 1;
    expect_served(&x, "it merges bf16 alone");
}

/* ---- ranks that wait for each other ---------------------------------------------------------- */

struct seat {
    struct rt_kernels kernels;
    uint16_t numbers[SUMMED / 2];
    _Alignas(32) unsigned char given[CREW_MOST * HEADS * MOST_HEAD_BYTES];
    _Alignas(32) unsigned char taken[CREW_MOST * HEADS * MOST_HEAD_BYTES];
    _Alignas(32) uint16_t out[MOST_TOKENS * HEADS * DIM];
    _Alignas(32) uint16_t wanted[MOST_TOKENS * HEADS * DIM];
    _Alignas(32) float lse[MOST_TOKENS * HEADS];
    float wanted_lse[MOST_TOKENS * HEADS];
};

/* What `rank` has of a head, of all that it attends with. */
static void fill_head(unsigned char *head, uint32_t rank, uint32_t h, uint32_t tokens, uint32_t n)
{
    uint16_t *const vectors = (uint16_t *)(void *)head;
    float *const lse = (float *)(void *)(head + tokens * DIM * 2);
    for (uint32_t i = 0; i < tokens * DIM; i++)
        vectors[i] = rt_float_to_bf16((float)((rank * 37 + h * 11 + n * 5 + i) % 251) - 125.0f);
    for (uint32_t t = 0; t < tokens; t++)
        lse[t] = (float)((rank * 3 + h + t + n) % 7) - 3.0f;
}

/* Of a group of `group`: the exchange that the runtime makes, and what is to come of it. */
static struct rt_context_exchange prepare(struct seat *s, struct rt_comm *c, uint32_t group,
                                          uint32_t tokens, uint32_t n)
{
    const uint32_t bytes = (uint32_t)rt_context_head_bytes(tokens, DIM, 2);
    const uint32_t first = c->rank / group * group, me = c->rank - first;
    const int64_t head = bytes, piece = HEADS * head;
    struct rt_merge_params m = {.in = {s->taken, piece / 2, DIM, head / 2},
                                .in_lse = {s->taken + tokens * DIM * 2, piece / 4, 1, head / 4},
                                .out = {s->wanted, HEADS * DIM, DIM},
                                .out_lse = {s->wanted_lse, HEADS, 1},
                                .pieces = group,
                                .tokens = tokens,
                                .heads = HEADS,
                                .v_dim = DIM};
    for (uint32_t h = 0; h < group * HEADS; h++)
        fill_head(s->given + h * bytes, c->rank, h, tokens, n);
    for (uint32_t i = 0; i < group * HEADS; i++)
        fill_head(s->taken + i * bytes, first + i / HEADS, me * HEADS + i % HEADS, tokens, n);
    rt_ref_merge(&m);
    m.out.base = s->out;
    m.out_lse.base = s->lse;
    return (struct rt_context_exchange){.swap = {.kind = RT_ALL_TO_ALL,
                                                 .dtype = RT_DTYPE_U8,
                                                 .from = (uintptr_t)s->given,
                                                 .to = (uintptr_t)s->taken,
                                                 .count = HEADS * bytes,
                                                 .ranks = c->ranks,
                                                 .group = group,
                                                 .comm = c},
                                        .merge = m};
}

static enum rt_status put(struct rt_driver *d, const struct rt_work *work, struct rt_error *err)
{
    return RT_DRV(d, err, launch, (d, &work->launch, false, NULL));
}

/* Of all ranks, so that groups are not in step by themselves. */
static enum rt_status sum(struct seat *s, struct rt_comm *c, struct rt_driver *d,
                          struct rt_error *err)
{
    struct rt_work work;
    const struct rt_collective x = {.kind = RT_ALL_REDUCE,
                                    .dtype = RT_DTYPE_BF16,
                                    .from = (uintptr_t)s->numbers,
                                    .to = (uintptr_t)s->numbers,
                                    .count = SUMMED / 2,
                                    .ranks = c->ranks,
                                    .comm = c};
    for (uint32_t i = 0; i < SUMMED / 2; i++)
        s->numbers[i] = rt_float_to_bf16((float)(c->rank + i % 9));
    RT_TRY(rt_one_shot_work(&s->kernels, &x, &work, err));
    RT_TRY(put(d, &work, err));
    for (uint32_t i = 0; i < SUMMED / 2; i++) {
        const uint32_t wanted = c->ranks * (c->ranks - 1) / 2 + c->ranks * (i % 9);
        RT_REQUIRE(rt_bf16_to_float(s->numbers[i]) == (float)wanted, err, RT_ERR_INTERNAL,
                   "number %u of the sum", i);
    }
    return RT_OK;
}

static enum rt_status exchange_all(struct seat *s, struct rt_comm *c, struct rt_driver *d,
                                   struct rt_error *err)
{
    const uint32_t group = c->ranks % 2 ? c->ranks : 2;
    RT_TRY(rt_kernels_load(d, &s->kernels, err));
    RT_TRY(rt_one_shot_map(c, d, err));
    for (uint32_t n = 0; n < EXCHANGES; n++) {
        const uint32_t tokens = n % 2 ? MOST_TOKENS : 1;
        const struct rt_context_exchange x = prepare(s, c, group, tokens, n);
        struct rt_work work;
        RT_TRY(rt_context_one_shot_work(&s->kernels, &x, &work, err));
        RT_TRY(put(d, &work, err));
        RT_REQUIRE(memcmp(s->out, s->wanted, (size_t)tokens * HEADS * DIM * 2) == 0 &&
                       memcmp(s->lse, s->wanted_lse, tokens * HEADS * sizeof(float)) == 0,
                   err, RT_ERR_INTERNAL, "exchange %u of rank %u is not the merge", n, c->rank);
        if (n % 3 == 1)
            RT_TRY(sum(s, c, d, err));
    }
    return RT_OK;
}

static enum rt_status run(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    static struct seat seats[CREW_MOST];
    struct seat *const s = &seats[c->rank];
    struct rt_driver d;
    (void)crew;
    RT_TRY(rt_driver_open_host(&d, err));
    const enum rt_status status = exchange_all(s, c, &d, err);
    rt_comm_unmap(c);
    rt_kernels_unload(&s->kernels);
    rt_driver_close(&d);
    return status;
}

static void test_groups_that_wait_for_each_other(void **state)
{
    (void)state;
    for (uint32_t ranks = 2; ranks <= CREW_MOST; ranks++) {
        struct crew crew;
        crew_begin(&crew, ranks);
        crew_succeed(&crew, run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launch),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_what_goes_in_one_shot),
        cmocka_unit_test(test_groups_that_wait_for_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
