/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels serve lists of keys, pages of a few tokens, and e4m3. */
#include "kernels/counted_view.h"
#include "kernels/op.h"
#include "tests/support/device_caps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct rt_op_request request(const struct rt_kv_format *kv, uint32_t heads, uint32_t q_len,
                                    uint32_t page_size, enum rt_backend backend)
{
    return (struct rt_op_request){.caps = &h200,
                                  .kv = kv,
                                  .heads = heads,
                                  .q_len = q_len,
                                  .page_size = page_size,
                                  .backend = backend};
}

static void refuse(enum rt_op_id op, const struct rt_op_request *r, enum rt_status status,
                   const char *words)
{
    struct rt_variant v = {.parts = 77};
    struct rt_error err = {0};
    assert_int_equal(rt_op_resolve(op, r, &v, &err), status);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_int_equal(v.parts, 77);
}

/* Rows of sparse attention are query tokens, whatever the query length and the page. */
static void test_sparse(void **state)
{
    (void)state;
    const struct rt_kv_format wide = {.d_qk = 576, .d_v = 512}, narrow = {.d_qk = 320, .d_v = 256};
    const struct {
        uint32_t heads;
        const char *sm90, *generic;
    } tiles[] = {{1, "n8", "r16"},   {8, "n8", "r16"},   {9, "n16", "r16"},  {17, "n32", "r32"},
                 {33, "m64", "r64"}, {64, "m64", "r64"}, {128, "m64", "r64"}};
    for (size_t i = 0; i < 2 * sizeof(tiles) / sizeof(tiles[0]); i++) {
        const uint32_t heads = tiles[i / 2].heads;
        const bool generic = i % 2;
        const struct rt_op_request r =
            request(&wide, heads, 4, 7, generic ? RT_BACKEND_GENERIC : RT_BACKEND_AUTO);
        struct rt_variant v;
        char entry[64];
        (void)snprintf(entry, sizeof(entry), "rt_mla_sparse_%s576x512_%s", generic ? "" : "sm90_",
                       generic ? tiles[i / 2].generic : tiles[i / 2].sm90);
        assert_int_equal(rt_op_resolve(RT_OP_SPARSE_ATTEND, &r, &v, NULL), RT_OK);
        assert_int_equal(v.op, RT_OP_SPARSE_ATTEND);
        assert_int_equal(v.backend, generic ? RT_BACKEND_GENERIC : RT_BACKEND_SM90);
        assert_string_equal(v.entry, entry);
        assert_int_equal(v.m_tiles, heads > 64 ? 2 : 1);
        assert_true(v.parts >= 1 && v.min_blocks >= 1);
        assert_non_null(strstr(v.reason, generic ? "generic as asked for" : "sm90, tiles of"));
    }
    struct rt_op_request r = request(&wide, 16, 1, 64, RT_BACKEND_SM90);
    r.caps = &a100;
    refuse(RT_OP_SPARSE_ATTEND, &r, RT_ERR_UNSUPPORTED,
           "backend sm90 needs compute capability 9.0, A100 has 8.0");
    r = request(&narrow, 16, 1, 64, RT_BACKEND_AUTO);
    refuse(RT_OP_SPARSE_ATTEND, &r, RT_ERR_GEOMETRY,
           "no kernel serves sparse attention of d_qk/d_v 320/256; served are 576/512, 512/512");
}

/* A row by a cluster, where most of the device then has work and no row waits for another. */
static void test_whole_rows(void **state)
{
    (void)state;
    const struct rt_kv_format kv = {.d_qk = 576, .d_v = 512};
    const struct {
        uint32_t heads;
        const char *entry;
    } tiles[] = {{1, "w8"}, {8, "w8"}, {9, "w16"}, {16, "w16"}, {17, NULL}, {64, NULL}};
    for (size_t i = 0; i < sizeof(tiles) / sizeof(tiles[0]); i++) {
        const struct rt_op_request r = request(&kv, tiles[i].heads, 1, 64, RT_BACKEND_AUTO);
        struct rt_variant v;
        char entry[64];
        assert_int_equal(rt_op_resolve(RT_OP_SPARSE_ATTEND, &r, &v, NULL), RT_OK);
        if (!tiles[i].entry) {
            assert_null(v.whole_entry);
            assert_string_equal(rt_sparse_attend_entry(&v, 12, 2048), v.entry);
            continue;
        }
        (void)snprintf(entry, sizeof(entry), "rt_mla_sparse_sm90_576x512_%s", tiles[i].entry);
        assert_string_equal(v.whole_entry, entry);
        assert_string_equal(rt_sparse_attend_entry(&v, 15, 2048), entry);
        assert_string_equal(rt_sparse_attend_entry(&v, 15, 2049), v.entry);
        assert_string_equal(rt_sparse_attend_entry(&v, 16, 2048), v.entry);
        assert_string_equal(rt_sparse_attend_entry(&v, 7, 2048), v.entry);
        assert_int_equal(v.whole_least, tiles[i].heads > 8 ? 9 : 8);
        assert_int_equal(v.whole_most, 15);
        assert_non_null(strstr(v.reason, tiles[i].heads > 8
                                             ? "whole ones by 8 blocks of 9 to 15 query tokens"
                                             : "whole ones by 8 blocks of 8 to 15 query tokens"));
    }
    const struct rt_op_request r = request(&kv, 8, 1, 64, RT_BACKEND_GENERIC);
    struct rt_variant v;
    assert_int_equal(rt_op_resolve(RT_OP_SPARSE_ATTEND, &r, &v, NULL), RT_OK);
    assert_null(v.whole_entry);
}

static void test_small_pages(void **state)
{
    (void)state;
    const struct rt_kv_format kv = {.d_qk = 320, .d_v = 256};
    struct rt_op_request r = request(&kv, 20, 2, 1, RT_BACKEND_AUTO);
    struct rt_variant v;
    assert_int_equal(rt_op_resolve(RT_OP_ATTEND, &r, &v, NULL), RT_OK);
    assert_int_equal(v.backend, RT_BACKEND_GENERIC);
    assert_non_null(strstr(v.reason, "not sm90: backend sm90 serves pages of 8"));
    r.backend = RT_BACKEND_SM90;
    refuse(RT_OP_ATTEND, &r, RT_ERR_UNSUPPORTED, "tokens, not of 1");
    r = request(&kv, 20, 2, 8, RT_BACKEND_AUTO);
    assert_int_equal(rt_op_resolve(RT_OP_ATTEND, &r, &v, NULL), RT_OK);
    assert_int_equal(v.backend, RT_BACKEND_SM90);
    const uint32_t bad[] = {0, 2, 48};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        r = request(&kv, 20, 2, bad[i], RT_BACKEND_AUTO);
        refuse(RT_OP_ATTEND, &r, RT_ERR_UNSUPPORTED, "1, 8, 16, 32, 64 and 128 are served");
    }
}

static void test_quantised(void **state)
{
    (void)state;
    struct rt_kv_format v32;
    const struct rt_kv_format bf16 = {.d_qk = 576, .d_v = 512};
    struct rt_variant v;
    assert_true(rt_kv_format_make(RT_KV_V32, RT_PRECISION_BF16, 576, 512, &v32));
    struct rt_op_request r = request(&v32, 16, 2, 64, RT_BACKEND_AUTO);
    assert_int_equal(rt_op_resolve(RT_OP_ATTEND_QUANT, &r, &v, NULL), RT_OK);
    assert_string_equal(v.entry, "rt_mla_quant_sm90_576x512_n32_tiles");
    assert_int_equal(v.parts, 132); /* one block to a multiprocessor */
    assert_int_equal(rt_op_resolve(RT_OP_SPARSE_ATTEND_QUANT, &r, &v, NULL), RT_OK);
    assert_string_equal(v.entry, "rt_mla_sparse_quant_sm90_576x512_n16");
    r.backend = RT_BACKEND_GENERIC;
    assert_int_equal(rt_op_resolve(RT_OP_ATTEND_QUANT, &r, &v, NULL), RT_OK);
    assert_string_equal(v.entry, "rt_mla_attend_quant_576x512_r32");
    assert_int_equal(v.parts, 132);
    r.backend = RT_BACKEND_AUTO;
    r.page_size = 1;
    assert_int_equal(rt_op_resolve(RT_OP_ATTEND_QUANT, &r, &v, NULL), RT_OK);
    assert_string_equal(v.entry, "rt_mla_attend_quant_576x512_r32");
    assert_non_null(strstr(v.reason, "not sm90: backend sm90 serves pages of 8"));
    r.page_size = 64;
    refuse(RT_OP_ATTEND, &r, RT_ERR_UNSUPPORTED, "KV layout v32 is not read by attend, which");
    refuse(RT_OP_SPARSE_ATTEND, &r, RT_ERR_UNSUPPORTED, "v32 is not read by sparse_attend");
    r = request(&bf16, 16, 2, 64, RT_BACKEND_AUTO);
    refuse(RT_OP_ATTEND_QUANT, &r, RT_ERR_UNSUPPORTED,
           "KV layout bf16 is not read by attend_quant");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_whole_rows),
        cmocka_unit_test(test_small_pages),
        cmocka_unit_test(test_quantised),
    };
    return cmocka_run_group_tests_name("resolve_sparse", tests, NULL, NULL);
}
