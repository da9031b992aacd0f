/* SPDX-License-Identifier: Apache-2.0 */
/* Exchanges of graphs whose blocks are one kernel each: which layer has which, where they lie. */
#include "runtime/whole_block.h"

#include "kernels/abi/mla_block.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct rt_blueprint *blueprint_with(uint32_t layers, uint32_t heads)
{
    static const uint32_t sizes[] = {1, 2, 5, 8, 9};
    struct rt_blueprint *const b = calloc(1, sizeof(*b));
    struct rt_device_caps caps;
    struct rt_config c;
    struct rt_error err = {.status = RT_OK};
    assert_non_null(b);
    assert_int_equal(rt_device_caps_assume("h200", &caps, &err), RT_OK);
    rt_config_default(&c);
    c.geometry = (struct rt_geometry){.heads = heads,
                                      .kv_lora_rank = 512,
                                      .qk_rope_head_dim = 64,
                                      .layers = layers,
                                      .softmax_scale = 0.1};
    c.layer = c.input_norm = 1;
    c.block.hidden_size = 7168;
    c.block.q_lora_rank = 1536;
    c.block.qk_nope_head_dim = c.block.v_head_dim = 128;
    memcpy(c.batch_sizes, sizes, sizeof(sizes));
    c.batch_size_count = sizeof(sizes) / sizeof(sizes[0]);
    c.query_lens[1] = 2;
    c.query_len_count = 2;
    c.pages = 9;
    if (rt_blueprint_make(&c, &caps, UINT64_C(1) << 36, b, &err) != RT_OK)
        fail_msg("%s", err.message);
    return b;
}

static struct rt_blueprint *blueprint_of(uint32_t layers)
{
    return blueprint_with(layers, 16);
}

/* A layer blanks the exchange of the one in front, the first that of the last: neither is its own,
 * and what a layer finds blank has been blanked since it was last written. */
static void test_neighbours_differ(void **state)
{
    (void)state;
    for (uint32_t layers = 2; layers < 12; layers++) {
        bool blank[3] = {true, true, true};
        for (uint32_t i = 0; i < 3 * layers; i++) {
            const uint32_t layer = i % layers, mine = rt_exchange_of(layer, layers);
            const uint32_t stale = rt_exchange_of((layer + layers - 1) % layers, layers);
            assert_true(mine < 2 + layers % 2 && mine != stale);
            assert_true(blank[mine]);
            blank[stale] = true;
            blank[mine] = false;
        }
    }
}

static void test_graphs_have_their_own(void **state)
{
    (void)state;
    for (uint32_t layers = 2; layers <= 3; layers++) {
        struct rt_blueprint *const b = blueprint_of(layers);
        uint64_t end = 0;
        uint32_t whole = 0;
        for (uint32_t i = 0; i < b->spec_count; i++) {
            const struct rt_graph_spec *spec = &b->specs[i];
            const struct rt_exchanges e = rt_exchanges_of(b, spec);
            const uint32_t vectors = spec->rows * rt_spec_query_len(spec);
            const bool fits = vectors <= 8 && vectors - spec->rows <= 4;
            assert_int_equal(e.count, fits ? 2 + layers % 2 : 0);
            if (!fits)
                continue;
            assert_int_equal(e.offset, end);
            assert_int_equal(e.bytes % RT_TENSOR_ALIGN, 0);
            assert_true(e.bytes >= rt_mla_block_exchange_bytes(spec->rows * rt_spec_query_len(spec),
                                                               1536, 16));
            end = e.offset + e.bytes * e.count;
            whole++;
        }
        assert_int_equal(whole, 6);
        assert_int_equal(rt_exchanges_bytes(b), end);
        assert_int_equal(b->placement.tensors[RT_TENSOR_EXCHANGES].bytes, end);
        free(b);
    }
}

/* One layer has nobody to blank its exchange; without blocks there is none. */
static void test_without(void **state)
{
    (void)state;
    struct rt_blueprint *const b = blueprint_of(1);
    assert_int_equal(b->placement.tensors[RT_TENSOR_EXCHANGES].bytes, 0);
    free(b);
}

/* Keys that the block would read again and the chain would not: of further tokens, and of heads
 * beyond the first 16. */
static void test_where_the_chain_is_quicker(void **state)
{
    (void)state;
    struct rt_blueprint *const b = blueprint_with(2, 32);
    const struct {
        uint32_t rows, query_len;
        bool whole;
    } graphs[] = {{1, 1, true}, {2, 1, true}, {1, 2, true}, {2, 2, false}, {5, 1, false}};
    for (size_t i = 0; i < sizeof(graphs) / sizeof(graphs[0]); i++) {
        struct rt_graph_spec spec = b->specs[0];
        struct rt_variant v;
        struct rt_error err = {.status = RT_OK};
        for (uint32_t s = 0; s < b->spec_count; s++)
            if (b->specs[s].rows == graphs[i].rows &&
                rt_spec_query_len(&b->specs[s]) == graphs[i].query_len)
                spec = b->specs[s];
        assert_int_equal(spec.rows, graphs[i].rows);
        assert_int_equal(rt_whole_block_resolve(b, &spec, &v, &err),
                         graphs[i].whole ? RT_OK : RT_ERR_UNSUPPORTED);
        if (!graphs[i].whole)
            assert_non_null(strstr(err.message, "a chain is quicker"));
    }
    b->config.max_length = UINT32_MAX; /* there is no limit of lengths */
    struct rt_variant v;
    assert_int_equal(rt_whole_block_resolve(b, &b->specs[0], &v, NULL), RT_OK);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_neighbours_differ),
        cmocka_unit_test(test_graphs_have_their_own),
        cmocka_unit_test(test_without),
        cmocka_unit_test(test_where_the_chain_is_quicker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
