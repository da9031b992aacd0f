/* SPDX-License-Identifier: Apache-2.0 */
/* all_reduce and all_gather: what they are launched with and refuse, and which exchanges go in one
 * shot. */
#include "kernels/ops/op_build.h"
#include "runtime/one_shot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static enum rt_status build(enum rt_op_id op, const struct rt_all_reduce_params *p,
                            struct rt_launch *out, struct rt_error *err)
{
    static const struct rt_kernels no_device;
    const struct rt_device_caps host = {.kind = RT_DEVICE_KIND_HOST};
    const struct rt_op_request request = {.caps = &host};
    struct rt_variant variant;
    struct rt_work work = {0};
    RT_TRY(rt_op_resolve(op, &request, &variant, err));
    RT_TRY(rt_op_build(&no_device, &variant, p, sizeof(*p), &work, err));
    *out = work.launch;
    return RT_OK;
}

static void *at(uintptr_t address)
{
    return (void *)address;
}

static struct rt_all_reduce_params good(uint32_t bytes)
{
    return (struct rt_all_reduce_params){.from = at(0x1000),
                                         .to = at(0x1000),
                                         .mailbox = {at(0x2000), at(0x3000)},
                                         .stop = at(0x4000),
                                         .ranks = 2,
                                         .bytes = bytes};
}

static void test_launch(void **state)
{
    static const uint32_t sizes[][2] = {{16, 1}, {4096, 1}, {4112, 2}, {262144, 64}};
    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const struct rt_all_reduce_params p = good(sizes[i][0]);
        struct rt_launch l = {0};
        assert_int_equal(build(RT_OP_ALL_REDUCE, &p, &l, NULL), RT_OK);
        assert_string_equal(l.entry, "rt_all_reduce");
        assert_int_equal(l.grid[0], sizes[i][1]);
        assert_int_equal(l.grid[1] * l.grid[2], 1);
        assert_int_equal(l.block[0], RT_ALL_REDUCE_THREADS);
        assert_true(l.waits);
        assert_int_equal(l.address_mask, 0x7ff); /* from, to, eight mailboxes, stop */
    }
}

static void refused(const struct rt_all_reduce_params *p, const char *story)
{
    struct rt_launch l;
    struct rt_error err = {.status = RT_OK};
    assert_int_equal(build(RT_OP_ALL_REDUCE, p, &l, &err), RT_ERR_INVALID);
    if (!strstr(err.message, story))
        fail_msg("\"%s\" does not contain \"%s\"", err.message, story);
}

static void test_refusals(void **state)
{
    struct rt_all_reduce_params p = good(16);
    (void)state;
    p.ranks = 9;
    refused(&p, "9 ranks, not 2 to 8");
    p.ranks = 1;
    refused(&p, "1 ranks, not 2 to 8");
    p = good(16);
    p.rank = 2;
    refused(&p, "rank 2 of 2");
    static const uint32_t sizes[] = {0, 8, 24, 262160};
    for (size_t i = 0; i < 4; i++) {
        char story[80];
        p = good(sizes[i]);
        (void)snprintf(story, sizeof(story), "%u bytes, not a multiple of 16 up to 262144",
                       sizes[i]);
        refused(&p, story);
    }
    p = good(16);
    p.to = at(0x1008);
    refused(&p, "to is at 0x1008, not 16-byte aligned");
    p = good(16);
    p.mailbox[2] = at(0x5000);
    refused(&p, "mailbox 2 of 2 ranks is at 0x5000, must be null");
}

/* The same grid; `to` of all ranks lies behind `from`, or in front of it. */
static void test_gather(void **state)
{
    static const struct {
        uintptr_t from, to;
        bool good;
    } cases[] = {{0x10000, 0x11010, true},
                 {0x12020, 0x10000, true},
                 {0x10000, 0x10000, false},
                 {0x10000, 0x11000, false},
                 {0x12010, 0x10000, false}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rt_all_reduce_params p = good(0x1010);
        struct rt_launch l = {0};
        struct rt_error err = {.status = RT_OK};
        p.from = at(cases[i].from);
        p.to = at(cases[i].to);
        assert_int_equal(build(RT_OP_ALL_GATHER, &p, &l, &err),
                         cases[i].good ? RT_OK : RT_ERR_INVALID);
        if (!cases[i].good) {
            assert_non_null(strstr(err.message, "overlap what 2 ranks' are gathered in"));
            continue;
        }
        assert_string_equal(l.entry, "rt_all_gather");
        assert_int_equal(l.grid[0], 2);
        assert_int_equal(l.address_mask, 0x7ff);
    }
}

/* ---- which exchanges it serves --------------------------------------------------------------- */

static void test_what_goes_in_one_shot(void **state)
{
    struct rt_driver d = {0};
    struct rt_comm c = {.ranks = 2};
    struct rt_collective x = {
        .kind = RT_ALL_REDUCE, .dtype = RT_DTYPE_BF16, .count = 131072, .ranks = 2, .comm = &c};
    char why[RT_PEERS_WHY_BYTES];
    (void)state;
    assert_false(rt_one_shot_serves(&c, &x, why, sizeof(why)));
    assert_string_equal(why, "no memory of the ranks is mapped");
    c.peers.driver = &d;
    (void)snprintf(c.peers.why, sizeof(c.peers.why), "rank 1: cannot");
    assert_false(rt_one_shot_serves(&c, &x, why, sizeof(why)));
    assert_string_equal(why, "rank 1: cannot");
    c.peers.mapped = true;
    assert_true(rt_one_shot_serves(&c, &x, why, sizeof(why)));
    assert_string_equal(why, "");
    x.count = 131080;
    assert_false(rt_one_shot_serves(&c, &x, why, sizeof(why)));
    assert_string_equal(why, "262160 bytes, not a multiple of 16 up to 262144");
    x.count = 4;
    assert_false(rt_one_shot_serves(&c, &x, why, sizeof(why)));
    x.count = 8;
    x.dtype = RT_DTYPE_F32;
    assert_false(rt_one_shot_serves(&c, &x, why, sizeof(why)));
    assert_string_equal(why, "it sums bf16 alone");
    x.kind = RT_ALL_GATHER; /* of anything */
    assert_true(rt_one_shot_serves(&c, &x, why, sizeof(why)));
    x.kind = RT_ALL_TO_ALL;
    assert_false(rt_one_shot_serves(&c, &x, why, sizeof(why)));
    assert_string_equal(why, "it sums and gathers alone");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launch),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_what_goes_in_one_shot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
