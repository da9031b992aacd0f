/* SPDX-License-Identifier: Apache-2.0 */
/* mla_block's cut: every row of every product is somebody's, once; and where an exchange's tensors
 * lie. */
#include "kernels/abi/mla_block.h"

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
            const struct rt_mla_block_cut cut = rt_mla_block_cut(hidden, 1536, blocks);
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
    const struct rt_mla_block_cut cut = rt_mla_block_cut(7168, 1536, 132);
    (void)state;
    assert_int_equal(cut.query_units + RT_MLA_BLOCK_LATENT_UNITS, 132);
    assert_int_equal(cut.out_rows, 54);
    assert_int_equal(cut.out_rest, 64);
    assert_int_equal(rt_mla_block_out_first(&cut, 7168, 128), 128 * 54);
}

/* DeepSeek-V2-Lite: q straight from hidden, kv_a's rows on the blocks that have none of it. */
static void test_v2_lite(void **state)
{
    const struct rt_mla_block_cut cut = rt_mla_block_cut(2048, 0, 132);
    (void)state;
    assert_int_equal(cut.query_units, 96);
    assert_int_equal(cut.query_units + RT_MLA_BLOCK_LATENT_UNITS, 132);
    assert_int_equal(cut.out_rows, 16);
}

static void test_units(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ranks); i++) {
        const struct rt_mla_block_cut cut = rt_mla_block_cut(2048, ranks[i], 132);
        const uint32_t of_query = ranks[i] ? RT_MLA_BLOCK_TILE_ROWS : RT_MLA_BLOCK_QUERY_ROWS;
        const uint32_t rows = ranks[i] ? ranks[i] : RT_MLA_BLOCK_HEADS * RT_MLA_BLOCK_QUERY;
        assert_int_equal(cut.query_units * of_query, rows);
    }
    assert_int_equal(RT_MLA_BLOCK_LATENT_UNITS * RT_MLA_BLOCK_TILE_ROWS, RT_MLA_BLOCK_TOKEN);
    assert_int_equal(RT_MLA_BLOCK_NOPE % RT_MLA_BLOCK_QUERY_ROWS, 0); /* a unit is turned or not */
}

static void test_tiles(void **state)
{
    static const uint32_t tile_counts[] = {0, 1, 2, 15, 16, 17, 127, 128, 129, 256, 8192};
    (void)state;
    for (uint32_t rows = 1; rows <= RT_MLA_BLOCK_MOST_ROWS; rows++)
        for (size_t i = 0; i < COUNT(tile_counts); i++) {
            const uint32_t slots = rt_mla_block_slots(rows), parts = rt_mla_block_parts(slots);
            const uint32_t tiles = tile_counts[i];
            assert_in_range(slots, rows, RT_MLA_BLOCK_MOST_ROWS);
            assert_int_equal(slots * parts, RT_MLA_BLOCK_UNITS);
            assert_int_equal(rt_mla_block_first_tile(tiles, 0, parts), 0);
            assert_int_equal(rt_mla_block_first_tile(tiles, parts, parts), tiles);
            for (uint32_t part = 0; part < parts; part++)
                assert_true(rt_mla_block_first_tile(tiles, part, parts) <=
                            rt_mla_block_first_tile(tiles, part + 1, parts));
            if (tiles > 0) /* the new token is the last part's */
                assert_true(rt_mla_block_first_tile(tiles, parts - 1, parts) < tiles);
        }
}

static void test_exchange(void **state)
{
    (void)state;
    for (uint32_t slots = 1; slots <= RT_MLA_BLOCK_MOST_ROWS; slots *= 2)
        for (size_t i = 0; i < COUNT(ranks); i++) {
            const struct rt_mla_block_exchange e = rt_mla_block_exchange(slots, ranks[i]);
            const uint32_t at[] = {e.a, e.nope, e.q, e.o, e.v, e.weights, e.pieces, e.bytes};
            const uint32_t numbers[] = {
                slots * (ranks[i] + 576), slots * 16 * 128, slots * 16 * 576, slots * 16 * 512,
                slots * 16 * 128,         16 * 128 * 2 * 2, 128 * 16 * 512};
            for (size_t j = 0; j < COUNT(numbers); j++) {
                assert_int_equal(at[j] % 128, 0); /* read in whole lines */
                assert_int_equal(at[j + 1] - at[j], 2 * numbers[j]);
            }
            assert_int_equal(e.bytes, rt_mla_block_exchange_bytes(slots, ranks[i]));
        }
    assert_int_equal(rt_mla_block_exchange_bytes(3, 0), rt_mla_block_exchange_bytes(4, 0));
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
    p.input_norm.weight = p.q_a_norm.weight = p.kv_a_norm.weight = one;
    p.rope.table = p.rope.query_scale = (const float *)one;
    p.exchange = p.stale = byte;
    memcpy(words, &p, sizeof(p));
    for (size_t i = 0; i < COUNT(words); i++)
        mask |= (words[i] == 1 ? UINT64_C(1) : 0) << i;
    assert_true(mask == RT_MLA_BLOCK_PARAMS_ADDRESSES(struct rt_mla_block_params, ));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_rows), cmocka_unit_test(test_v3),
        cmocka_unit_test(test_v2_lite),     cmocka_unit_test(test_units),
        cmocka_unit_test(test_tiles),       cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
