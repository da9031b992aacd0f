/* SPDX-License-Identifier: Apache-2.0 */
#include "replayrt/rt.h"
#include "tests/unit/expect.h"

#include <math.h>

/* ---- rt_config_default and rt_config_check --------------------------------------------------- */

static struct rt_config good_config(void)
{
    struct rt_config c;
    memset(&c, 0xA5, sizeof(c));
    rt_config_default(&c);
    c.geometry = (struct rt_geometry){.heads = 16,
                                      .kv_lora_rank = 512,
                                      .qk_rope_head_dim = 64,
                                      .layers = 61,
                                      .softmax_scale = 0.1352337788608801};
    return c;
}

static void test_default(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 4, 8, 16, 32, 64};
    const struct rt_geometry zero = {.heads = 0};
    struct rt_config c;
    memset(&c, 0xA5, sizeof(c));
    rt_config_default(&c);
    assert_int_equal(c.struct_size, sizeof(c));
    assert_memory_equal(&c.geometry, &zero, sizeof(zero));
    assert_string_equal(c.device, "auto");
    assert_int_equal(c.batch_size_count, COUNT(sizes));
    assert_memory_equal(c.batch_sizes, sizes, sizeof(sizes));
    assert_int_equal(c.query_len_count, 1);
    assert_int_equal(c.query_lens[0], 1);
    assert_int_equal(c.ring_depth, 8);
    assert_int_equal(c.max_sequences, 64);
    assert_int_equal(c.max_length, 8192);
    assert_int_equal(c.kv_layout, RT_KV_BF16);
    assert_int_equal(c.page_size, 64);
    assert_true(c.pages == 0);
    assert_true(c.memory_fraction == 0.85);
    assert_int_equal(c.backend, RT_BACKEND_AUTO);
    assert_int_equal(c.tensors, RT_TENSORS_SHARED);
    assert_int_equal(c.chunk_count, 0);
    assert_int_equal(c.prefill_rows, 0);
    assert_int_equal(c.mixed_row_count, 0);
    assert_int_equal(c.context_piece, 0);
    rt_config_default(NULL);
}

static void test_check_good(void **state)
{
    (void)state;
    static const uint32_t ranks[] = {512, 512, 256, 256};
    static const uint32_t ropes[] = {64, 0, 64, 32};
    struct rt_error err = {.message = ""};
    for (size_t i = 0; i < COUNT(ranks); i++) {
        for (uint32_t heads = 1; heads <= RT_MAX_HEADS; heads++) {
            struct rt_config c = good_config();
            c.geometry.heads = heads;
            c.geometry.kv_lora_rank = ranks[i];
            c.geometry.qk_rope_head_dim = ropes[i];
            assert_int_equal(rt_config_check(&c, &err), RT_OK);
        }
    }
    struct rt_config c = good_config();
    c.batch_size_count = RT_MAX_BUCKETS;
    for (uint32_t i = 0; i < RT_MAX_BUCKETS; i++)
        c.batch_sizes[i] = 16 * (i + 1);
    c.query_len_count = RT_MAX_QUERY_LENS;
    for (uint32_t i = 0; i < RT_MAX_QUERY_LENS; i++)
        c.query_lens[i] = i + 1;
    c.max_length = 8;
    (void)snprintf(c.device, sizeof(c.device), "cuda:9999");
    assert_int_equal(rt_config_check(&c, NULL), RT_OK);
}

/* One field made wrong: bytes written at an offset of a good configuration. */
struct edit {
    size_t offset, bytes;
    union {
        uint32_t u32;
        uint64_t u64;
        double f64;
        char text[32];
    } value;
    enum rt_status status;
    const char *want[2];
};

#define U32(field, number, status, ...)                                                            \
    {                                                                                              \
        offsetof(struct rt_config, field), 4, {.u32 = (number)}, status,                           \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define F64(field, number, status, ...)                                                            \
    {                                                                                              \
        offsetof(struct rt_config, field), 8, {.f64 = (number)}, status,                           \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define U64(field, number, status, ...)                                                            \
    {                                                                                              \
        offsetof(struct rt_config, field), 8, {.u64 = (number)}, status,                           \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define DEVICE(words, ...)                                                                         \
    {                                                                                              \
        offsetof(struct rt_config, device), 32, {.text = words}, RT_ERR_CONFIG,                    \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

static const struct edit EDITS[] = {
    U32(struct_size, 0, RT_ERR_INVALID, "config->struct_size is 0, this library's is"),
    U32(struct_size, 65537, RT_ERR_INVALID, "struct_size is 65537"),
    U32(struct_size, 4, RT_ERR_GEOMETRY, "geometry.heads is 0"), /* the defaults have no heads */
    U32(geometry.heads, 0, RT_ERR_GEOMETRY,
        "geometry.heads is 0: must be an integer from 1 to 128"),
    U32(geometry.heads, 129, RT_ERR_GEOMETRY, "geometry.heads is 129"),
    U32(geometry.kv_lora_rank, 0, RT_ERR_GEOMETRY, "geometry.kv_lora_rank is 0 with",
        "d_qk/d_v 64/0"),
    U32(geometry.kv_lora_rank, 256 + 512, RT_ERR_GEOMETRY, "832/768", "576/512, 320/256"),
    U32(geometry.kv_lora_rank, UINT32_MAX, RT_ERR_GEOMETRY, "d_qk/d_v 4294967359/4294967295"),
    U32(geometry.qk_rope_head_dim, 32, RT_ERR_GEOMETRY, "512 with qk_rope_head_dim 32", "544/512"),
    U32(geometry.qk_rope_head_dim, 65, RT_ERR_GEOMETRY, "577/512"),
    U32(geometry.layers, 0, RT_ERR_GEOMETRY,
        "geometry.layers is 0: must be an integer from 1 to 1024"),
    F64(geometry.softmax_scale, 0.0, RT_ERR_GEOMETRY, "geometry.softmax_scale is 0: must be"),
    F64(geometry.softmax_scale, -0.1, RT_ERR_GEOMETRY, "geometry.softmax_scale is -0.1"),
    F64(geometry.softmax_scale, (double)NAN, RT_ERR_GEOMETRY, "geometry.softmax_scale is", "nan"),
    F64(geometry.softmax_scale, (double)INFINITY, RT_ERR_GEOMETRY, "geometry.softmax_scale is inf"),
    F64(geometry.softmax_scale, 1e300, RT_ERR_GEOMETRY, "geometry.softmax_scale is 1e+300: must be",
        "as a float"),
    F64(block.norm_eps, 1e-60, RT_ERR_CONFIG, "block.norm_eps is 1e-60: must be from 1.18e-38"),
    F64(block.input_norm_eps, 1e-60, RT_ERR_CONFIG, "block.input_norm_eps is 1e-60"),
    F64(block.q_a_scale, 1e60, RT_ERR_CONFIG, "block.q_a_scale is 1e+60"),
    F64(block.kv_a_scale, 1e60, RT_ERR_CONFIG, "block.kv_a_scale is 1e+60"),
    F64(block.residual_scale, 1e60, RT_ERR_CONFIG, "block.residual_scale is 1e+60"),
    F64(block.rope.attention_factor, 1e60, RT_ERR_CONFIG, "rope.attention_factor is 1e+60"),
    F64(block.rope.theta, 1e60, RT_ERR_CONFIG, "rope.theta is 1e+60: must be from 1.18e-38"),
    F64(block.rope.theta, 1e-60, RT_ERR_CONFIG, "rope.theta is 1e-60"),
    F64(block.rope.factor, 1e60, RT_ERR_CONFIG, "rope.factor is 1e+60"),
    F64(block.rope.query_scale_beta, 2e37, RT_ERR_CONFIG,
        "rope.query_scale_beta is 2e+37: must be at most 1.06e+37"),
    F64(geometry.softmax_scale, 1e-60, RT_ERR_GEOMETRY, "geometry.softmax_scale is 1e-60"),
    DEVICE("", "device is \"\": must be auto, host or cuda:N"),
    DEVICE("gpu", "device is \"gpu\""),
    DEVICE("cuda", "device is \"cuda\""),
    DEVICE("cuda:", "device is \"cuda:\""),
    DEVICE("cuda:-1", "device is \"cuda:-1\""),
    DEVICE("cuda:01", "device is \"cuda:01\""),
    DEVICE("cuda:1 ", "device is \"cuda:1 \""),
    DEVICE("cuda:10000", "device is \"cuda:10000\""),
    DEVICE("Host", "device is \"Host\""),
    DEVICE("0123456789012345678901234567890"
           "1",
           "device is \"01234567890123456789012345678901\""),
    U32(batch_size_count, 0, RT_ERR_CONFIG, "batch_sizes is a list of 0: must be"),
    U32(batch_size_count, 257, RT_ERR_CONFIG, "batch_sizes is a list of 257", "1 to 256"),
    U32(batch_sizes[0], 0, RT_ERR_CONFIG, "batch_sizes[0] is 0: must be an integer from 1 to 4096"),
    U32(batch_sizes[3], 4, RT_ERR_CONFIG,
        "batch_sizes[3] is 4: must be greater than the 4 before it"),
    U32(batch_sizes[3], 3, RT_ERR_CONFIG,
        "batch_sizes[3] is 3: must be greater than the 4 before it"),
    U32(batch_sizes[6], 4097, RT_ERR_CONFIG, "batch_sizes[6] is 4097"),
    U32(query_len_count, 0, RT_ERR_CONFIG, "query_lens is a list of 0"),
    U32(query_len_count, 9, RT_ERR_CONFIG, "query_lens is a list of 9"),
    U32(query_lens[0], 0, RT_ERR_CONFIG, "query_lens[0] is 0"),
    U32(query_lens[0], 9, RT_ERR_CONFIG, "query_lens[0] is 9: must be an integer from 1 to 8"),
    U32(ring_depth, 1, RT_ERR_CONFIG, "ring_depth is 1: must be an integer from 2 to 64"),
    U32(ring_depth, 65, RT_ERR_CONFIG, "ring_depth is 65"),
    U32(max_sequences, 0, RT_ERR_CONFIG, "max_sequences is 0"),
    U32(max_sequences, 65537, RT_ERR_CONFIG, "max_sequences is 65537", "1 to 65536"),
    U32(max_length, 0, RT_ERR_CONFIG, "max_length is 0"),
    U32(max_length, 1048577, RT_ERR_CONFIG, "max_length is 1048577", "1 to 1048576"),
    U32(kv_layout, 6, RT_ERR_CONFIG, "kv_layout is 6: must be bf16, fp8_tensor"),
    U32(kv_layout, RT_KV_V4, RT_ERR_CONFIG, "kv_layout is v4: must be one that d_qk/d_v 576/512"),
    U32(kv_layout, RT_KV_V32_NO_ROPE, RT_ERR_CONFIG, "kv_layout is v32_no_rope"),
    U32(page_size, 0, RT_ERR_CONFIG, "page_size is 0: must be 16, 32, 64 or 128"),
    U32(page_size, 8, RT_ERR_CONFIG, "page_size is 8"),
    U32(page_size, 48, RT_ERR_CONFIG, "page_size is 48"),
    U32(page_size, 256, RT_ERR_CONFIG, "page_size is 256"),
    U64(pages, UINT64_C(2147483648), RT_ERR_CONFIG, "pages is 2147483648", "1 to 2147483647"),
    U64(pages, UINT64_MAX, RT_ERR_CONFIG, "pages is 18446744073709551615"),
    F64(memory_fraction, 0.0, RT_ERR_CONFIG, "memory_fraction is 0: must be a number above 0, at"),
    F64(memory_fraction, 1.0625, RT_ERR_CONFIG, "memory_fraction is 1.0625"),
    F64(memory_fraction, (double)NAN, RT_ERR_CONFIG, "memory_fraction is", "nan"),
    U32(backend, 3, RT_ERR_CONFIG, "backend is 3: must be auto, generic or sm90"),
    U32(tensors, 2, RT_ERR_CONFIG, "tensors is 2: must be shared or per_layer"),
    U32(chunk_count, 9, RT_ERR_CONFIG, "chunks is a list of 9", "a list of 1 to 8"),
    U32(chunk_count, 1, RT_ERR_CONFIG, "chunks[0] is 0: must be an integer from 1 to 16384"),
    U32(prefill_rows, 257, RT_ERR_CONFIG, "prefill_rows is 257: must be an integer from 1 to 256"),
    U32(mixed_row_count, 9, RT_ERR_CONFIG, "mixed_rows is a list of 9", "a list of 1 to 8"),
    U32(mixed_row_count, 1, RT_ERR_CONFIG, "mixed_rows[0] is 0: must be an integer from 1 to 1024"),
    U32(context_piece, 63, RT_ERR_CONFIG,
        "context_piece is 63: must be an integer from 64 to 1048576"),
    U32(context_piece, 1048577, RT_ERR_CONFIG, "context_piece is 1048577"),
};

static void test_check_edits(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(EDITS); i++) {
        const struct edit *e = &EDITS[i];
        struct rt_config c = good_config();
        struct rt_error err = {.message = ""};
        memcpy((char *)&c + e->offset, &e->value, e->bytes);
        expect(e->want[0], rt_config_check(&c, &err), &err, e->status, e->want, COUNT(e->want));
        assert_int_equal(rt_config_check(&c, NULL), e->status);
    }
}

static void test_check_together(void **state)
{
    (void)state;
    static const char *const lengths[] = {"max_length is 3: must be at least 4"};
    static const char *const tables[] = {"max_length is 1048576: must be at most 524272 with 65536",
                                         "2147483647 entries"};
    static const char *const nulls[] = {"config is null"};
    static const char *const reserved[] = {"block.reserved is 5: must be 0"};
    struct rt_error err = {.message = ""};
    struct rt_config c = good_config();
    c.query_lens[0] = 4;
    c.max_length = 3;
    expect("query", rt_config_check(&c, &err), &err, RT_ERR_CONFIG, lengths, COUNT(lengths));
    c = good_config();
    c.max_sequences = RT_MAX_SEQUENCES;
    c.max_length = RT_MAX_LENGTH;
    c.page_size = 16;
    expect("table", rt_config_check(&c, &err), &err, RT_ERR_CONFIG, tables, COUNT(tables));
    c.max_length = 524272;
    assert_int_equal(rt_config_check(&c, &err), RT_OK);
    c = good_config();
    c.block.reserved = 5;
    expect("reserved", rt_config_check(&c, &err), &err, RT_ERR_CONFIG, reserved, COUNT(reserved));
    c = good_config();
    c.pages = INT32_MAX;
    assert_int_equal(rt_config_check(&c, &err), RT_OK);
    c.geometry.layers = RT_MAX_LAYERS; /* at the far end of everything: 2^58 bytes, no overflow */
    assert_int_equal(rt_config_check(&c, &err), RT_OK);
    expect("null", rt_config_check(NULL, &err), &err, RT_ERR_INVALID, nulls, COUNT(nulls));
}

/* Ranks that share a context have whole blocks, and heads and rows that can be shared out. */
static void test_check_context(void **state)
{
    (void)state;
    static const struct {
        uint32_t ranks, heads, layer, sinks, query_len, batch;
        const char *words; /* null: it is good */
    } cases[] = {{1, 3, 0, 1, 1, 4096, NULL},
                 {2, 16, 1, 0, 2, 2048, NULL},
                 {16, 16, 1, 0, 1, 64, NULL},
                 {0, 16, 1, 0, 1, 64, "context_parallel is 0: must be an integer from 1 to 64"},
                 {65, 16, 1, 0, 1, 64, "context_parallel is 65: must be an integer from 1 to 64"},
                 {2, 16, 0, 0, 1, 64, "context_parallel is 2: must be 1 without layer"},
                 {2, 16, 1, 1, 1, 64, "context_parallel is 2: must be 1 without layer and with"},
                 {3, 16, 1, 0, 1, 64, "context_parallel is 3: must be a divisor of the 16 heads"},
                 {2, 16, 1, 0, 2, 2049, "is 2049: must be at most 2048 with context_parallel"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rt_config c = good_config();
        struct rt_error err = {.message = ""};
        c.context_parallel = cases[i].ranks;
        c.geometry.heads = cases[i].heads;
        c.layer = cases[i].layer;
        c.block.hidden_size = 2048;
        c.block.qk_nope_head_dim = c.block.v_head_dim = 128;
        c.sinks = cases[i].sinks;
        c.query_lens[0] = cases[i].query_len;
        c.batch_sizes[0] = cases[i].batch;
        c.batch_size_count = 1;
        const enum rt_status status = rt_config_check(&c, &err);
        if (status != (cases[i].words ? RT_ERR_CONFIG : RT_OK) ||
            !strstr(err.message, cases[i].words ? cases[i].words : ""))
            fail_msg("case %zu: %d \"%s\"", i, (int)status, err.message);
    }
}

/* A pair's angle is divided by its factor. */
static void test_check_longrope(void **state)
{
    (void)state;
    static const char *const words[] = {"rope.long_factor is 1e-60: must be from 1.18e-38"};
    struct rt_config c = good_config();
    struct rt_error err = {.message = ""};
    c.layer = 1;
    c.block.hidden_size = 2048;
    c.block.qk_nope_head_dim = c.block.v_head_dim = 128;
    c.block.rope.type = RT_ROPE_LONGROPE;
    c.block.rope.original_max_length = 4096;
    for (uint32_t i = 0; i < c.geometry.qk_rope_head_dim / 2; i++)
        c.block.rope.short_factor[i] = c.block.rope.long_factor[i] = 1;
    if (rt_config_check(&c, &err) != RT_OK)
        fail_msg("%s", err.message);
    c.block.rope.long_factor[3] = 1e-60;
    expect("longrope", rt_config_check(&c, &err), &err, RT_ERR_CONFIG, words, COUNT(words));
}

static void refuse_chunks(const struct rt_config *c, const char *first, const char *second)
{
    const char *const words[] = {first, second};
    struct rt_error err = {.message = ""};
    expect(first, rt_config_check(c, &err), &err, RT_ERR_CONFIG, words, COUNT(words));
}

static void test_check_chunks(void **state)
{
    (void)state;
    struct rt_config c = good_config();
    struct rt_error err = {.message = ""};
    c.chunks[0] = 1;
    c.chunks[1] = RT_MAX_BATCH;
    c.chunk_count = 2;
    c.mixed_rows[0] = 3;
    c.mixed_rows[1] = RT_MAX_MIXED_ROWS;
    c.mixed_row_count = 2;
    c.max_sequences = RT_MAX_MIXED_ROWS;
    if (rt_config_check(&c, &err) != RT_OK)
        fail_msg("%s", err.message);
    c.max_sequences--;
    refuse_chunks(&c, "mixed_rows[1] is 1024: must be at most 1023", "sequences");
    c.mixed_rows[1] = 3;
    refuse_chunks(&c, "mixed_rows[1] is 3: must be greater than the 3 before it", NULL);
    c.mixed_rows[1] = RT_MAX_MIXED_ROWS + 1;
    refuse_chunks(&c, "mixed_rows[1] is 1025", NULL);
    c.mixed_row_count = 1;
    c.chunks[1] = 1;
    refuse_chunks(&c, "chunks[1] is 1: must be greater than the 1 before it", NULL);
    c.chunks[1] = RT_MAX_BATCH + 1;
    refuse_chunks(&c, "chunks[1] is 4097: must be at most 4096", "without layer");
    c.layer = 1;
    c.block.hidden_size = 2048;
    c.block.qk_nope_head_dim = c.block.v_head_dim = 128;
    c.chunks[1] = RT_MAX_CHUNK;
    if (rt_config_check(&c, &err) != RT_OK)
        fail_msg("%s", err.message);
    c.chunks[1] = RT_MAX_CHUNK + 1;
    refuse_chunks(&c, "chunks[1] is 16385", "from 1 to 16384");
    c.chunk_count = 0;
    refuse_chunks(&c, "mixed_rows is 3: must be absent without prefill.chunks", NULL);
    c.mixed_row_count = 0;
    c.prefill_rows = 8;
    refuse_chunks(&c, "prefill_rows is 8: must be absent without prefill.chunks", NULL);
    c.prefill_rows = 0;
    c.context_piece = 8192;
    refuse_chunks(&c, "context_piece is 8192: must be absent without prefill.chunks", NULL);
    c.context_piece = 0;
    assert_int_equal(rt_config_check(&c, &err), RT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default),       cmocka_unit_test(test_check_good),
        cmocka_unit_test(test_check_edits),   cmocka_unit_test(test_check_together),
        cmocka_unit_test(test_check_chunks),  cmocka_unit_test(test_check_longrope),
        cmocka_unit_test(test_check_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
