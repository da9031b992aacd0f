/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/op.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct rt_device_caps h200 = {.kind = RT_DEVICE_KIND_CUDA,
                                           .name = "H200",
                                           .cc = 90,
                                           .sm_count = 132,
                                           .smem_optin_bytes = 227 * 1024};
static const struct rt_device_caps small = {.kind = RT_DEVICE_KIND_CUDA,
                                            .name = "L40",
                                            .cc = 89,
                                            .sm_count = 142,
                                            .smem_optin_bytes = 99 * 1024};
static const struct rt_device_caps host = {
    .kind = RT_DEVICE_KIND_HOST, .name = "host", .sm_count = 8, .smem_optin_bytes = 0};

/* What a test asks for: the request's format is made of it. */
struct wanted {
    uint32_t heads, q_len, d_qk, d_v, page_size;
    enum rt_kv_layout kv_layout;
    enum rt_backend backend;
};

static struct wanted request(uint32_t heads, uint32_t q_len, enum rt_backend backend)
{
    return (struct wanted){.heads = heads,
                           .d_qk = 576,
                           .d_v = 512,
                           .q_len = q_len,
                           .page_size = 64,
                           .kv_layout = RT_KV_BF16,
                           .backend = backend};
}

static enum rt_status ask(const struct rt_device_caps *caps, const struct wanted *w,
                          enum rt_op_id op, struct rt_variant *out, struct rt_error *err)
{
    const struct rt_kv_format kv = {.layout = w->kv_layout, .d_qk = w->d_qk, .d_v = w->d_v};
    const struct rt_op_request r = {.caps = caps,
                                    .kv = &kv,
                                    .heads = w->heads,
                                    .q_len = w->q_len,
                                    .page_size = w->page_size,
                                    .backend = w->backend};
    return rt_op_resolve(op, &r, out, err);
}

static struct rt_variant resolve(const struct rt_device_caps *caps, struct wanted r)
{
    struct rt_variant choice = {0};
    struct rt_error err = {0};
    if (ask(caps, &r, RT_OP_ATTEND, &choice, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_int_not_equal(choice.backend, RT_BACKEND_AUTO);
    assert_true(choice.reason[0] != '\0');
    assert_int_equal(choice.op, RT_OP_ATTEND);
    assert_true(choice.m_tiles * choice.tile_rows >= r.heads * r.q_len);
    assert_true((choice.m_tiles - 1) * choice.tile_rows < r.heads * r.q_len);
    assert_true(choice.parts >= 1 && choice.min_blocks >= 1);
    return choice;
}

static void refuse(const struct rt_device_caps *caps, struct wanted r, enum rt_status status,
                   const char *words)
{
    struct rt_variant choice = {.parts = 77};
    struct rt_error err = {0};
    assert_int_equal(ask(caps, &r, RT_OP_ATTEND, &choice, &err), status);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_int_equal(choice.parts, 77);
}

static void test_tile_by_query_rows(void **state)
{
    (void)state;
    static const struct {
        uint32_t heads, q_len, tile_rows;
    } cases[] = {{1, 1, 16},  {16, 1, 16}, {8, 2, 16},  {17, 1, 32},
                 {16, 2, 32}, {33, 1, 64}, {64, 1, 64}, {128, 8, 64}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rt_variant c =
            resolve(&h200, request(cases[i].heads, cases[i].q_len, RT_BACKEND_GENERIC));
        assert_int_equal(c.tile_rows, cases[i].tile_rows);
        assert_int_equal(c.backend, RT_BACKEND_GENERIC);
    }
}

/* Blocks that run at once, spread over the tiles; never none. */
static void test_parts(void **state)
{
    (void)state;
    struct rt_variant one = resolve(&h200, request(64, 1, RT_BACKEND_GENERIC));
    assert_int_equal(one.m_tiles, 1);
    assert_true(one.parts == 132 || one.parts == 264);
    struct rt_variant many = resolve(&h200, request(128, 8, RT_BACKEND_GENERIC));
    assert_int_equal(many.m_tiles, 16);
    assert_int_equal(many.parts, one.parts / 16);
    struct rt_device_caps tiny = h200;
    tiny.sm_count = 1;
    assert_int_equal(resolve(&tiny, request(128, 8, RT_BACKEND_GENERIC)).parts, 1);
}

/* A device with less shared memory gets the largest tile that it has room for. */
static void test_small_shared_memory(void **state)
{
    (void)state;
    struct rt_variant c = resolve(&small, request(128, 1, RT_BACKEND_GENERIC));
    assert_int_equal(c.tile_rows, 16);
    assert_true(c.smem_bytes <= small.smem_optin_bytes);
    struct wanted narrow = request(128, 1, RT_BACKEND_GENERIC);
    narrow.d_qk = 288;
    narrow.d_v = 256;
    assert_true(resolve(&small, narrow).tile_rows > 16);

    struct rt_device_caps none = small;
    none.smem_optin_bytes = 48 * 1024;
    refuse(&none, request(1, 1, RT_BACKEND_GENERIC), RT_ERR_UNSUPPORTED, "49152");
}

static void test_host(void **state)
{
    (void)state;
    struct rt_variant c = resolve(&host, request(20, 2, RT_BACKEND_AUTO));
    assert_int_equal(c.backend, RT_BACKEND_GENERIC);
    assert_int_equal(c.tile_rows, 64);
    assert_int_equal(c.parts, 8);
    assert_int_equal(resolve(&host, request(128, 1, RT_BACKEND_GENERIC)).parts, 4);
    refuse(&host, request(16, 1, RT_BACKEND_SM90), RT_ERR_UNSUPPORTED, "host device");
}

static void test_backends(void **state)
{
    (void)state;
    struct rt_variant c = resolve(&small, request(16, 1, RT_BACKEND_AUTO));
    assert_int_equal(c.backend, RT_BACKEND_GENERIC);
    assert_non_null(strstr(c.reason, "8.9"));
    refuse(&small, request(16, 1, RT_BACKEND_SM90), RT_ERR_UNSUPPORTED, "8.9");
    struct rt_device_caps old = h200;
    old.cc = 75;
    refuse(&old, request(16, 1, RT_BACKEND_AUTO), RT_ERR_UNSUPPORTED, "7.5");
    refuse(&old, request(16, 1, RT_BACKEND_GENERIC), RT_ERR_UNSUPPORTED, "7.5");
    refuse(&h200, request(16, 1, (enum rt_backend)9), RT_ERR_UNSUPPORTED, "9");
    assert_string_equal(rt_backend_name(RT_BACKEND_GENERIC), "generic");
    assert_string_equal(rt_backend_name(RT_BACKEND_SM90), "sm90");
}

/* Every other operator is one kernel everywhere, from the first device that the library serves. */
static void test_plain_operators(void **state)
{
    (void)state;
    const struct wanted w = request(16, 1, RT_BACKEND_AUTO);
    struct rt_device_caps old = h200;
    old.cc = 75;
    for (int op = 0; op < RT_OP_COUNT; op++) {
        struct rt_variant v = {.parts = 77};
        struct rt_error err = {0};
        assert_int_equal(ask(&old, &w, (enum rt_op_id)op, &v, &err), RT_ERR_UNSUPPORTED);
        assert_int_equal(v.parts, 77);
        if (!strstr(err.message, "7.5"))
            fail_msg("\"%s\" does not say 7.5", err.message);
        if (op == RT_OP_ATTEND)
            continue;
        assert_int_equal(ask(&host, &w, (enum rt_op_id)op, &v, NULL), RT_OK);
        assert_int_equal(v.op, op);
        assert_string_equal(v.entry + strlen("rt_"), rt_op_name((enum rt_op_id)op));
    }
}

static void expect_project(const struct rt_device_caps *caps, struct rt_op_request r,
                           const char *entry)
{
    struct rt_variant choice = {0};
    struct rt_error err = {0};
    r.caps = caps;
    if (rt_op_resolve(RT_OP_PROJECT, &r, &choice, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_string_equal(choice.entry, entry);
    assert_int_equal(choice.backend, strstr(entry, "sm90") ? RT_BACKEND_SM90 : RT_BACKEND_GENERIC);
    assert_true(choice.reason[0] != '\0');
}

/* By vectors, by a block's share of the rows, and by how the weight lies. */
static void test_project(void **state)
{
    (void)state;
    const struct rt_op_request qkv_a = {.m = 1, .k = 7168, .rows = 2112};
    const struct rt_op_request q_b = {.m = 9, .k = 1536, .rows = 3072};
    const struct rt_op_request out = {.m = 16, .k = 2048, .rows = 7168};
    const struct rt_op_request keys = {.m = 8, .k = 128, .rows = 8192, .transposed = true};
    struct rt_op_request r = {0};
    expect_project(&h200, r, "rt_project"); /* nothing is known of it yet */
    expect_project(&h200, qkv_a, "rt_project_sm90_along8x1");
    expect_project(&h200, q_b, "rt_project_sm90_along16x2");
    expect_project(&h200, out, "rt_project_sm90_along16x4");
    expect_project(&h200, keys, "rt_project_sm90_across8");
    expect_project(&small, qkv_a, "rt_project");
    expect_project(&host, qkv_a, "rt_project");

    struct rt_variant choice = {0};
    struct rt_error err = {0};
    r = out;
    r.caps = &h200;
    r.backend = RT_BACKEND_GENERIC;
    expect_project(&h200, r, "rt_project");
    r.backend = RT_BACKEND_SM90;
    expect_project(&h200, r, "rt_project_sm90_along16x4");
    r.m = 17;
    assert_int_equal(rt_op_resolve(RT_OP_PROJECT, &r, &choice, &err), RT_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "up to 16 vectors, not 17"));
    r.m = 16;
    r.k = 2052;
    assert_int_equal(rt_op_resolve(RT_OP_PROJECT, &r, &choice, &err), RT_ERR_UNSUPPORTED);
    r.backend = RT_BACKEND_AUTO;
    expect_project(&h200, r, "rt_project");
}

static void test_refused_requests(void **state)
{
    (void)state;
    struct wanted r = request(16, 1, RT_BACKEND_AUTO);
    r.d_qk = 640;
    refuse(&h200, r, RT_ERR_GEOMETRY, "576/512, 320/256, 288/256, 512/512");
    r.d_qk = 576;
    r.d_v = 256;
    refuse(&host, r, RT_ERR_GEOMETRY, "576/256");
    refuse(&h200, request(0, 1, RT_BACKEND_AUTO), RT_ERR_GEOMETRY, "0 heads");
    refuse(&h200, request(129, 1, RT_BACKEND_AUTO), RT_ERR_GEOMETRY, "129 heads");
    refuse(&h200, request(16, 9, RT_BACKEND_AUTO), RT_ERR_UNSUPPORTED, "length 9");
    refuse(&h200, request(16, 0, RT_BACKEND_AUTO), RT_ERR_UNSUPPORTED, "length 0");
    r = request(16, 1, RT_BACKEND_AUTO);
    r.page_size = 48;
    refuse(&h200, r, RT_ERR_UNSUPPORTED, "page size 48");
    r.page_size = 64;
    r.kv_layout = (enum rt_kv_layout)1;
    refuse(&h200, r, RT_ERR_UNSUPPORTED, "layout 1");
}

/* What is chosen is in the registry, with the shared memory that the choice says. */
static void test_choices_exist(void **state)
{
    (void)state;
    static const uint32_t geometry[][2] = {{576, 512}, {320, 256}, {288, 256}, {512, 512}};
    uint32_t count;
    const struct rt_kernel_entry *entries = rt_kernel_entries(&count);
    for (uint32_t heads = 1; heads <= RT_MAX_HEADS; heads++)
        for (size_t g = 0; g < 4; g++) {
            struct wanted r = request(heads, 1 + heads % 8, RT_BACKEND_AUTO);
            r.d_qk = geometry[g][0];
            r.d_v = geometry[g][1];
            struct rt_variant c = resolve(heads % 2 ? &h200 : &small, r);
            uint32_t i = 0;
            while (i < count && strcmp(entries[i].entry, c.entry) != 0)
                i++;
            assert_true(i < count);
            assert_int_equal(entries[i].smem_bytes, c.smem_bytes);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tile_by_query_rows),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_small_shared_memory),
        cmocka_unit_test(test_host),
        cmocka_unit_test(test_backends),
        cmocka_unit_test(test_plain_operators),
        cmocka_unit_test(test_project),
        cmocka_unit_test(test_refused_requests),
        cmocka_unit_test(test_choices_exist),
    };
    return cmocka_run_group_tests_name("resolve", tests, NULL, NULL);
}
