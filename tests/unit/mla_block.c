/* SPDX-License-Identifier: Apache-2.0 */
/* mla_block's cut: every row of every product is somebody's, once; where an exchange's tensors lie;
 * and what the operator serves, launches and refuses. */
#include "kernels/ops/op_build.h"
#include "tests/support/device_caps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const uint32_t hiddens[] = {128, 384, 512, 2048, 3072, 5120, 7168};
static const uint32_t ranks[] = {0, 128, 512, 768, 1536};
static const uint32_t block_counts[] = {1, 2, 7, 8, 78, 114, 127, 128, 129, 132, 148};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static void test_output_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(hiddens); i++)
        for (size_t j = 0; j < COUNT(block_counts); j++) {
            const uint32_t hidden = hiddens[i], blocks = block_counts[j];
            const struct rt_mla_block_cut cut = rt_mla_block_cut(hidden, 1536, 16, blocks);
            uint32_t next = 0;
            assert_int_equal(cut.blocks, blocks);
            for (uint32_t b = 0; b < blocks; b++) {
                const uint32_t first = rt_mla_block_out_first(&cut, hidden, b);
                assert_int_equal(first, next);
                assert_int_equal(first % 2, 0); /* rows go by pairs */
                next = rt_mla_block_out_first(&cut, hidden, b + 1);
                assert_in_range(next, first, hidden);
            }
            assert_int_equal(next, hidden);
        }
}

/* An H200, DeepSeek-V3: a unit a block of each product, and blocks without heads have 64 rows. */
static void test_v3(void **state)
{
    const struct rt_mla_block_cut cut = rt_mla_block_cut(7168, 1536, 16, 132);
    (void)state;
    assert_int_equal(cut.query_units + RT_MLA_BLOCK_LATENT_UNITS, 132);
    assert_int_equal(cut.out_rows, 54);
    assert_int_equal(cut.out_rest, 64);
    assert_int_equal(rt_mla_block_out_first(&cut, 7168, 128), 128 * 54);
}

/* DeepSeek-V2-Lite: q straight from hidden, kv_a's rows on the blocks that have none of it. */
static void test_v2_lite(void **state)
{
    const struct rt_mla_block_cut cut = rt_mla_block_cut(2048, 0, 16, 132);
    (void)state;
    assert_int_equal(cut.query_units, 96);
    assert_int_equal(cut.query_units + RT_MLA_BLOCK_LATENT_UNITS, 132);
    assert_int_equal(cut.out_rows, 16);
}

static const uint32_t head_counts[] = {8, 16, 32};

static void test_units(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ranks) * COUNT(head_counts); i++) {
        const uint32_t rank = ranks[i / COUNT(head_counts)];
        const uint32_t heads = head_counts[i % COUNT(head_counts)];
        const struct rt_mla_block_cut cut = rt_mla_block_cut(2048, rank, heads, 132);
        const uint32_t of_query = rank ? RT_MLA_BLOCK_TILE_ROWS : RT_MLA_BLOCK_QUERY_ROWS;
        assert_int_equal(cut.query_units * of_query, rank ? rank : heads * RT_MLA_BLOCK_QUERY);
    }
    assert_int_equal(RT_MLA_BLOCK_LATENT_UNITS * RT_MLA_BLOCK_TILE_ROWS, RT_MLA_BLOCK_TOKEN);
    assert_int_equal(RT_MLA_BLOCK_NOPE % RT_MLA_BLOCK_QUERY_ROWS, 0); /* a unit is turned or not */
}

/* Every row of q is in one tile of one unit, and numbers that are turned together in one unit. */
static void test_query_tiles(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 2; half++) {
        int32_t unit_of[32 * RT_MLA_BLOCK_QUERY];
        memset(unit_of, 0xff, sizeof(unit_of));
        for (uint32_t i = 0; i < 2 * 32 * RT_MLA_BLOCK_QUERY_UNITS; i++) {
            const uint32_t first = rt_mla_block_query_tile(i / 2, i % 2, half);
            for (uint32_t row = first; row < first + RT_MLA_BLOCK_TILE_ROWS; row++) {
                assert_in_range(row, 0, 32 * RT_MLA_BLOCK_QUERY - 1);
                assert_int_equal(unit_of[row], -1);
                unit_of[row] = (int32_t)(i / 2);
            }
        }
        for (uint32_t row = 0; row < 32 * RT_MLA_BLOCK_QUERY; row++) {
            const uint32_t turned = row % RT_MLA_BLOCK_QUERY - RT_MLA_BLOCK_NOPE;
            const uint32_t mate = half ? row + RT_MLA_BLOCK_ROPE / 2 : row ^ 1u;
            assert_int_not_equal(unit_of[row], -1);
            if (row % RT_MLA_BLOCK_QUERY >= RT_MLA_BLOCK_NOPE &&
                (!half || turned < RT_MLA_BLOCK_ROPE / 2))
                assert_int_equal(unit_of[row], unit_of[mate]);
        }
    }
}

static void check_parts(uint32_t tiles, uint32_t parts)
{
    assert_int_equal(rt_mla_block_first_tile(tiles, 0, parts), 0);
    assert_int_equal(rt_mla_block_first_tile(tiles, parts, parts), tiles);
    for (uint32_t part = 0; part < parts; part++)
        assert_true(rt_mla_block_first_tile(tiles, part, parts) <=
                    rt_mla_block_first_tile(tiles, part + 1, parts));
    if (tiles > 0) /* the new token is the last part's */
        assert_true(rt_mla_block_first_tile(tiles, parts - 1, parts) < tiles);
}

static void test_tiles(void **state)
{
    static const uint32_t tile_counts[] = {0, 1, 2, 15, 16, 17, 127, 128, 129, 256, 8192};
    (void)state;
    for (uint32_t vectors = 1; vectors <= RT_MLA_BLOCK_MOST_VECTORS; vectors++)
        for (uint32_t groups = 1; groups <= 2; groups++) {
            const uint32_t slots = rt_mla_block_slots(vectors);
            const uint32_t parts = rt_mla_block_parts(slots, groups);
            assert_in_range(slots, vectors, RT_MLA_BLOCK_MOST_VECTORS);
            assert_int_equal(slots * parts * groups, RT_MLA_BLOCK_UNITS);
            for (size_t i = 0; i < COUNT(tile_counts); i++)
                check_parts(tile_counts[i], parts);
        }
}

static void check_exchange(uint32_t slots, uint32_t rank, uint32_t heads)
{
    const struct rt_mla_block_exchange e = rt_mla_block_exchange(slots, rank, heads);
    const uint32_t all = slots * heads, groups = heads > 16 ? heads / 16 : 1;
    const uint32_t at[] = {e.a, e.nope, e.q, e.o, e.v, e.weights, e.pieces, e.bytes};
    const uint32_t numbers[] = {slots * (rank + 576),
                                all * 128,
                                all * 576,
                                all * 512,
                                all * 128,
                                heads * (128 / groups) * 2 * 2,
                                128 * (heads / groups) * 512};
    for (size_t j = 0; j < COUNT(numbers); j++) {
        assert_int_equal(at[j] % 128, 0); /* read in whole lines */
        assert_int_equal(at[j + 1] - at[j], 2 * numbers[j]);
    }
    assert_int_equal(e.bytes, rt_mla_block_exchange_bytes(slots, rank, heads));
}

static void test_exchange(void **state)
{
    (void)state;
    for (uint32_t slots = 1; slots <= RT_MLA_BLOCK_MOST_VECTORS; slots *= 2)
        for (size_t i = 0; i < COUNT(ranks); i++)
            for (size_t j = 0; j < COUNT(head_counts); j++)
                check_exchange(slots, ranks[i], head_counts[j]);
    assert_int_equal(rt_mla_block_exchange_bytes(3, 0, 16), rt_mla_block_exchange_bytes(4, 0, 16));
}

static void test_addresses(void **state)
{
    struct rt_mla_block_params p;
    uint64_t words[sizeof(p) / 8], mask = 0;
    (void)state;
    memset(&p, 0, sizeof(p));
    const uint16_t *const one = (const uint16_t *)(uintptr_t)1;
    unsigned char *const byte = (unsigned char *)(uintptr_t)1;
    p.rows = (struct rt_rows_view){.length = (const int32_t *)one,
                                   .slot = (const int32_t *)one,
                                   .position = (const int32_t *)one,
                                   .ctrl = (const struct rt_ctrl *)one};
    p.kv.base = byte;
    p.kv.table = (const int32_t *)one;
    p.hidden = p.residual = (uint16_t *)(uintptr_t)1;
    p.q.base = p.kv_a.base = p.q_b.base = p.kv_b.base = p.o.base = one;
    p.q.bias = p.kv_a.bias = p.q_b.bias = p.kv_b.bias = p.o.bias = one;
    p.input_norm.weight = p.q_a_norm.weight = p.kv_a_norm.weight = one;
    p.rope.table = p.rope.query_scale = (const float *)(uintptr_t)1;
    p.exchange = p.stale = byte;
    memcpy(words, &p, sizeof(p));
    for (size_t i = 0; i < COUNT(words); i++)
        mask |= (words[i] == 1 ? UINT64_C(1) : 0) << i;
    assert_true(mask == RT_MLA_BLOCK_PARAMS_ADDRESSES(struct rt_mla_block_params, ));
}

/* ---- the operator ---- */

static struct rt_mla_block_params block_of(uint32_t rows, uint32_t hidden, uint32_t rank)
{
    const struct rt_norm_view norm = {.weight = (void *)16, .eps = 1e-6f, .scale = 1};
    struct rt_mla_block_params p = {
        .rows = {.length = (void *)16, .count = rows, .q_len = 1},
        .kv = {.base = (void *)16,
               .table = (void *)16,
               .page_stride_bytes = 64 * 1152,
               .token_stride_bytes = 1152,
               .page_size = 64,
               .max_blocks = 4,
               .pages = 4,
               .token_bytes = 1152},
        .hidden = (void *)16,
        .q = {.base = (void *)16, .row_stride = hidden},
        .kv_a = {.base = (void *)16, .row_stride = hidden},
        .kv_b = {.base = (void *)16, .row_stride = 512},
        .o = {.base = (void *)16, .row_stride = 4096},
        .input_norm = norm,
        .kv_a_norm = norm,
        .exchange = (void *)128,
        .stale = (void *)256,
        .hidden_size = hidden,
        .q_rank = rank,
        .heads = 16,
        .scale = 1,
        .hidden_scale = 1,
    };
    p.input_norm.width = hidden;
    p.kv_a_norm.width = 512;
    if (rank > 0) {
        p.q_b = (struct rt_mla_block_weight){.base = (void *)16, .row_stride = rank};
        p.q_a_norm = norm;
        p.q_a_norm.width = rank;
    }
    return p;
}

static enum rt_status resolve(const struct rt_device_caps *caps, enum rt_backend backend,
                              const struct rt_mla_block_params *p, struct rt_variant *out,
                              struct rt_error *err)
{
    struct rt_kv_format kv;
    assert_true(rt_kv_format_make(RT_KV_BF16, RT_PRECISION_BF16, 576, 512, &kv));
    const struct rt_op_request request = {.caps = caps,
                                          .kv = &kv,
                                          .heads = p->heads,
                                          .q_len = p->rows.q_len,
                                          .page_size = p->kv.page_size,
                                          .backend = backend,
                                          .mla_block = p};
    return rt_op_resolve(RT_OP_MLA_BLOCK, &request, out, err);
}

static void test_launches(void **state)
{
    static const char *const entries[] = {NULL,
                                          "rt_mla_block_1",
                                          "rt_mla_block_2",
                                          "rt_mla_block_4",
                                          "rt_mla_block_4",
                                          "rt_mla_block_8",
                                          "rt_mla_block_8",
                                          "rt_mla_block_8",
                                          "rt_mla_block_8"};
    static const struct rt_kernels k;
    (void)state;
    for (uint32_t rows = 1; rows <= 8; rows++) {
        const struct rt_mla_block_params p = block_of(rows, 7168, 1536);
        struct rt_variant v;
        struct rt_work work = {0};
        struct rt_mla_block_sm90_params made;
        assert_int_equal(resolve(&h200, RT_BACKEND_AUTO, &p, &v, NULL), RT_OK);
        assert_int_equal(v.backend, RT_BACKEND_SM90);
        assert_string_equal(v.entry, entries[rows]);
        assert_int_equal(rt_op_build(&k, &v, &p, sizeof(p), &work, NULL), RT_OK);
        assert_int_equal(work.launch.grid[0], 132);
        assert_int_equal(work.launch.block[0], 608);
        assert_int_equal(work.launch.smem_bytes, 232448);
        assert_true(work.launch.waits && work.launch.cooperative);
        assert_int_equal(work.launch.param_bytes, sizeof(made));
        memcpy(&made, work.launch.params, sizeof(made));
        assert_memory_equal(&made.block, &p, sizeof(p));
        assert_int_equal(made.cut.out_rows, 54);
    }
}

/* What a model has beside 16 heads and one token a row is another kernel's. */
static void test_general(void **state)
{
    static const char *const entries[] = {"rt_mla_block_general_8_2",
                                          "rt_mla_block_general_32_2",
                                          "rt_mla_block_general_16_4",
                                          "rt_mla_block_general_16_2",
                                          "rt_mla_block_general_16_2",
                                          "rt_mla_block_general_16_2",
                                          "rt_mla_block_2"};
    static const struct rt_kernels k;
    struct rt_mla_block_params p[COUNT(entries)];
    (void)state;
    for (size_t i = 0; i < COUNT(entries); i++)
        p[i] = block_of(2, 7168, 1536);
    p[0].heads = 8;
    p[1].heads = 32;
    p[2].rows.q_len = 2;
    p[2].rows.position = (void *)16;
    p[3].kv_a.bias = (void *)16;
    p[4].rope = (struct rt_rope_view){.table = (void *)16, .capacity = 1, .half_order = 1};
    p[5].rope = (struct rt_rope_view){.query_scale = (void *)16, .capacity = 1};
    p[6].rope.half_order = 1; /* and no table: nothing is turned */
    for (size_t i = 0; i < COUNT(entries); i++) {
        struct rt_variant v;
        struct rt_work work = {0};
        assert_int_equal(resolve(&h200, RT_BACKEND_AUTO, &p[i], &v, NULL), RT_OK);
        assert_string_equal(v.entry, entries[i]);
        v.entry = "rt_mla_block_2"; /* as if biases had not been known */
        assert_int_equal(rt_op_build(&k, &v, &p[i], sizeof(p[i]), &work, NULL), RT_OK);
        assert_string_equal(work.launch.entry, entries[i]);
    }
}

static void expect_words(const struct rt_error *err, const char *words)
{
    if (!strstr(err->message, words))
        fail_msg("\"%s\" has no \"%s\"", err->message, words);
}

static void test_not_served(void **state)
{
    static const struct rt_device_caps small = {.kind = RT_DEVICE_KIND_CUDA,
                                                .name = "small",
                                                .cc = 90,
                                                .sm_count = 114,
                                                .smem_optin_bytes = 232448};
    static const struct rt_device_caps other = {.kind = RT_DEVICE_KIND_CUDA,
                                                .name = "other",
                                                .cc = 100,
                                                .sm_count = 148,
                                                .smem_optin_bytes = 232448};
    static const char *const words[9] = {"1 to 8 tokens of all rows, not 9 rows of 1",
                                         "multiples of 128 up to 7168, not 7296",
                                         "up to 1536, or none, not 1600",
                                         "16, 32, 64 and 128 tokens, not of 8",
                                         "not offset, not by 1",
                                         "8, 16 and 32 heads, not 24",
                                         "not 3 rows of 3",
                                         "needs 132 multiprocessors, small has 114",
                                         "has 10.0"};
    struct rt_mla_block_params bad[9];
    (void)state;
    for (int i = 0; i < 9; i++)
        bad[i] = block_of(8, 7168, 1536);
    bad[0].rows.count = 9;
    bad[1].hidden_size = 7296;
    bad[2].q_rank = 1600;
    bad[3].kv.page_size = 8;
    bad[4].kv_a_norm.offset = 1;
    bad[5].heads = 24;
    bad[6].rows.count = bad[6].rows.q_len = 3;
    for (int i = 0; i < 9; i++) {
        struct rt_variant v = {.parts = 77};
        struct rt_error err = {0};
        assert_int_equal(resolve(i == 7   ? &small
                                 : i == 8 ? &other
                                          : &h200,
                                 RT_BACKEND_AUTO, &bad[i], &v, &err),
                         RT_ERR_UNSUPPORTED);
        expect_words(&err, words[i]);
        assert_int_equal(v.parts, 77);
    }
}

/* Fewer multiprocessors than units are no matter where hidden leaves room for sums. */
static void test_few_multiprocessors(void **state)
{
    const struct rt_device_caps small = {
        .kind = RT_DEVICE_KIND_CUDA, .name = "small", .cc = 90, .sm_count = 8};
    const struct rt_mla_block_params p = block_of(1, 2048, 0);
    struct rt_variant v;
    struct rt_error err = {0};
    (void)state;
    assert_int_equal(resolve(&small, RT_BACKEND_SM90, &p, &v, &err), RT_OK);
    assert_int_equal(v.parts, 8);
    assert_int_equal(resolve(&small, RT_BACKEND_GENERIC, &p, &v, &err), RT_ERR_UNSUPPORTED);
    expect_words(&err, "no generic kernel");
}

static void test_bad_parameters(void **state)
{
    static const struct rt_kernels k;
    static const char *const words[12] = {"q_b is at (nil) for q rank 1536",
                                          "kv_b has rows of 512 numbers, 256 apart",
                                          "o is at 0x8, not 16-byte aligned",
                                          "the exchange is at 0x40, not 128-byte aligned",
                                          "a control block at 0x10",
                                          "a cache of 1024 bytes a token, not 1152",
                                          "kv_a norm at (nil) of 512",
                                          "kv_a row stride in elements is 7169",
                                          "a residual at 0x10, and no input norm",
                                          "q_b bias is at 0x8, not 16-byte aligned",
                                          "kv_b has a bias at 0x10",
                                          "rows of 2 tokens without positions"};
    struct rt_mla_block_params bad[12];
    (void)state;
    for (int i = 0; i < 12; i++)
        bad[i] = block_of(8, 7168, 1536);
    bad[0].q_b.base = NULL;
    bad[1].kv_b.row_stride = 256;
    bad[2].o.base = (void *)8;
    bad[3].exchange = (void *)64;
    bad[4].rows.ctrl = (void *)16;
    bad[5].kv.token_bytes = 1024;
    bad[6].kv_a_norm.weight = NULL;
    bad[7].kv_a.row_stride = 7169;
    bad[8].residual = (void *)16;
    bad[8].input_norm.weight = NULL;
    bad[9].q_b.bias = (void *)8;
    bad[10].kv_b.bias = (void *)16;
    bad[11].rows.count = 4;
    bad[11].rows.q_len = 2;
    for (int i = 0; i < 12; i++) {
        const struct rt_variant v = {.op = RT_OP_MLA_BLOCK,
                                     .backend = RT_BACKEND_SM90,
                                     .entry = "rt_mla_block_8",
                                     .parts = 132,
                                     .threads = RT_MLA_BLOCK_THREADS};
        struct rt_work work = {.launch.param_bytes = 77};
        struct rt_error err = {0};
        assert_int_equal(rt_op_build(&k, &v, &bad[i], sizeof(bad[i]), &work, &err), RT_ERR_INVALID);
        expect_words(&err, words[i]);
        assert_int_equal(work.launch.param_bytes, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_rows),    cmocka_unit_test(test_v3),
        cmocka_unit_test(test_v2_lite),        cmocka_unit_test(test_units),
        cmocka_unit_test(test_tiles),          cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_addresses),      cmocka_unit_test(test_launches),
        cmocka_unit_test(test_not_served),     cmocka_unit_test(test_few_multiprocessors),
        cmocka_unit_test(test_bad_parameters), cmocka_unit_test(test_query_tiles),
        cmocka_unit_test(test_general),
    };
    return cmocka_run_group_tests_name("mla_block", tests, NULL, NULL);
}
