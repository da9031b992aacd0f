/* SPDX-License-Identifier: Apache-2.0 */
/* prefill_attend: which kernel serves, and what its launch is. */
#include "kernels/abi/prefill_sm90.h"
#include "kernels/op.h"
#include "tests/support/device_caps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define SMS 132u
/* Addresses that nothing else looks like, and that nobody follows. */
#define MEMORY UINT64_C(0x7f0000000000)
#define L2_BYTES (UINT64_C(60) << 20)

static enum rt_status ask(const struct rt_device_caps *caps, uint32_t nope, uint32_t rope,
                          uint32_t v, enum rt_backend backend, struct rt_variant *out,
                          struct rt_error *err)
{
    const struct rt_op_request request = {
        .caps = caps, .backend = backend, .nope_dim = nope, .rope_dim = rope, .v_dim = v};
    return rt_op_resolve(RT_OP_PREFILL_ATTEND, &request, out, err);
}

static void chooses(const struct rt_device_caps *caps, uint32_t nope, uint32_t rope, uint32_t v,
                    enum rt_backend backend, const char *entry, const char *words)
{
    struct rt_variant variant = {0};
    struct rt_error err = {0};
    if (ask(caps, nope, rope, v, backend, &variant, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_string_equal(variant.entry, entry);
    if (!strstr(variant.reason, words))
        fail_msg("\"%s\" does not say \"%s\"", variant.reason, words);
}

static void refuses(const struct rt_device_caps *caps, uint32_t nope, uint32_t rope, uint32_t v,
                    enum rt_status status, const char *words)
{
    struct rt_variant variant = {.parts = 77};
    struct rt_error err = {0};
    assert_int_equal(ask(caps, nope, rope, v, RT_BACKEND_SM90, &variant, &err), status);
    assert_int_equal(variant.parts, 77);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void test_kernel_by_dimensions(void **state)
{
    (void)state;
    const enum rt_backend any = RT_BACKEND_AUTO;
    chooses(&h200, 128, 64, 128, any, "rt_prefill_sm90_192x128", "sm90, 128 queries by blocks");
    chooses(&h200, 192, 0, 128, any, "rt_prefill_sm90_192x128", "blocks of 128 keys");
    chooses(&h200, 192, 64, 256, any, "rt_prefill_sm90_256x256", "blocks of 64 keys");
    chooses(&h200, 256, 0, 256, any, "rt_prefill_sm90_256x256", "132 thread blocks");
    chooses(&h200, 64, 64, 128, any, "rt_prefill_sm90_128x128", "sm90");
    chooses(&h200, 64, 32, 64, any, "rt_prefill_sm90_96x64", "sm90");
    chooses(&h200, 64, 32, 64, RT_BACKEND_SM90, "rt_prefill_sm90_96x64", "sm90 as asked for");
    chooses(&h200, 96, 96, 128, any, "rt_prefill_attend", "not 96 + 96/128");
    chooses(&h200, 128, 128, 256, any, "rt_prefill_attend", "not 128 + 128/256");
    chooses(&h200, 128, 64, 64, any, "rt_prefill_attend", "not 128 + 64/64");
    chooses(&h200, 128, 64, 128, RT_BACKEND_GENERIC, "rt_prefill_attend", "generic as asked for");
    chooses(&a100, 128, 64, 128, any, "rt_prefill_attend", "A100 has 8.0");
    refuses(&a100, 128, 64, 128, RT_ERR_UNSUPPORTED, "A100 has 8.0");
    refuses(&h200, 120, 72, 128, RT_ERR_UNSUPPORTED, "not 120 + 72/128");
    refuses(&h200, 256, 8, 256, RT_ERR_GEOMETRY, "up to 256 numbers");
}

/* A device that encodes maps, as one of compute capability 9.0. */
struct rig {
    struct rt_driver driver;
    struct rt_kernels kernels;
};

static int set_up(void **state)
{
    static struct rig r;
    assert_int_equal(rt_driver_open_host(&r.driver, NULL), RT_OK);
    r.driver.caps.cc = 90;
    r.driver.caps.sm_count = SMS;
    r.driver.caps.l2_bytes = L2_BYTES;
    assert_int_equal(rt_kernels_load(&r.driver, &r.kernels, NULL), RT_OK);
    *state = &r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    rt_kernels_unload(&r->kernels);
    rt_driver_close(&r->driver);
    return 0;
}

static void *place(uint32_t page)
{
    return (void *)(uintptr_t)(MEMORY + page * UINT64_C(4096));
}

static struct rt_prefill_view view(void *base, int64_t token_stride, int64_t head_stride)
{
    return (struct rt_prefill_view){
        .base = base, .token_stride = token_stride, .head_stride = head_stride};
}

/* A head's 192/128, keys and values as one projection leaves them. */
static struct rt_prefill_attend_params params(uint32_t rows, uint32_t tokens, uint32_t heads)
{
    return (struct rt_prefill_attend_params){
        .q = view(place(1), (int64_t)heads * 192, 192),
        .q_rope = view((uint16_t *)place(1) + 128, (int64_t)heads * 192, 192),
        .k = view(place(2), (int64_t)heads * 256, 256),
        .k_rope = view(place(3), 64, 0),
        .v = view((uint16_t *)place(2) + 128, (int64_t)heads * 256, 256),
        .out = view(place(4), (int64_t)heads * 128, 128),
        .lse = view(place(5), heads, 1),
        .q_first = place(6),
        .k_first = place(6),
        .turn = place(7),
        .sink = place(8),
        .scale = 0.07f,
        .rows = rows,
        .tokens = tokens,
        .keys = tokens,
        .heads = heads,
        .nope_dim = 128,
        .rope_dim = 64,
        .v_dim = 128,
        .causal = 1};
}

static struct rt_launch build(const struct rig *r, const struct rt_prefill_attend_params *p,
                              enum rt_backend backend)
{
    struct rt_variant variant;
    struct rt_work work = {0};
    struct rt_error err = {0};
    assert_int_equal(
        ask(&r->driver.caps, p->nope_dim, p->rope_dim, p->v_dim, backend, &variant, &err), RT_OK);
    if (rt_op_build(&r->kernels, &variant, p, sizeof(*p), &work, &err) != RT_OK)
        fail_msg("%s", err.message);
    return work.launch;
}

static struct rt_prefill_sm90_params sm90_params(const struct rt_launch *l)
{
    struct rt_prefill_sm90_params sm90;
    assert_int_equal(l->param_bytes, sizeof(sm90));
    memcpy(&sm90, l->params, sizeof(sm90));
    return sm90;
}

/* No more blocks than there can be items; heads in groups that half of L2 holds, of one size. */
static void test_launch_of_sm90(void **state)
{
    const struct rig *r = *state;
    struct rt_prefill_attend_params p = params(1, 8192, 16);
    struct rt_launch l = build(r, &p, RT_BACKEND_SM90);
    assert_int_equal(l.grid[0], SMS);
    assert_int_equal(l.block[0], 384);
    assert_int_equal(l.smem_bytes, RT_PREFILL_SM90_SMEM_BYTES(192, 128));
    assert_int_equal(sm90_params(&l).group_heads, 6); /* of 5 MiB each */
    assert_int_equal(sm90_params(&l).k_rope_shared, 1);
    assert_int_equal(sm90_params(&l).q_rope_shared, 0);
    p = params(3, 200, 5);
    l = build(r, &p, RT_BACKEND_SM90);
    assert_int_equal(l.grid[0], (1 + 3) * 5);
    assert_int_equal(sm90_params(&l).group_heads, 5);
    p = params(1, 1 << 20, 128);
    l = build(r, &p, RT_BACKEND_SM90);
    assert_int_equal(sm90_params(&l).group_heads, 1);
}

/* What the graph audit reads: every address, and nothing else. */
static void expect_addresses(const struct rt_launch *l)
{
    uint64_t words[sizeof(struct rt_prefill_attend_params) / 8];
    memcpy(words, l->params, sizeof(words));
    for (uint32_t i = 0; i < sizeof(words) / 8; i++)
        assert_int_equal(words[i] >> 20 == MEMORY >> 20, l->address_mask >> i & 1);
}

static void test_addresses(void **state)
{
    const struct rig *r = *state;
    const struct rt_prefill_attend_params p = params(2, 300, 16);
    const struct rt_launch sm90 = build(r, &p, RT_BACKEND_SM90);
    const struct rt_launch generic = build(r, &p, RT_BACKEND_GENERIC);
    expect_addresses(&sm90);
    expect_addresses(&generic);
}

static void test_launch_of_generic(void **state)
{
    const struct rig *r = *state;
    const struct rt_prefill_attend_params p = params(512, 130, 3);
    const struct rt_launch l = build(r, &p, RT_BACKEND_GENERIC);
    assert_int_equal(l.grid[0], (2 + 130) * 3); /* no more rows than tokens have a query */
    assert_int_equal(l.block[0], RT_PREFILL_GENERIC_THREADS);
    assert_int_equal(l.smem_bytes, RT_PREFILL_GENERIC_SMEM_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel_by_dimensions),
        cmocka_unit_test_setup_teardown(test_launch_of_sm90, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_launch_of_generic, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
