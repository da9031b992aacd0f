/* SPDX-License-Identifier: Apache-2.0 */
#include "buffers/placement.h"

#include "common/work.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SEED UINT64_C(0x1a40a7)

/* DeepSeek-V3 with all 128 heads, batch 128, on 132 multiprocessors: 66 parts, 194 partial slots.
 */
static const struct rt_dims DEEPSEEK_V3 = {
    .kv = {.layout = RT_KV_BF16, .d_qk = 576, .d_v = 512, .token_bytes = 1152},
    .heads = 128,
    .layers = 61,
    .slots = 128,
    .max_length = 131072,
    .page_size = 64,
    .context = 1,
    .pages = 32768,
    .bucket_max = 128,
    .rows = 128,
    .q_max = 1,
    .parts_max = 66,
    .partial_rows = 194 * 128,
    .ring_depth = 8,
};

struct place {
    enum rt_tensor_id id;
    uint64_t offset, bytes;
};

static void test_deepseek_v3_to_the_byte(void **state)
{
    (void)state;
    static const struct place expected[] = {
        {RT_TENSOR_CTRL, 0, 128},
        {RT_TENSOR_SLOT_LENGTH, 256, 512},
        {RT_TENSOR_SLOT_TOKEN, 768, 512},
        {RT_TENSOR_BLOCK_TABLE, 1280, 1048576},
        {RT_TENSOR_ROW_SLOT, 1049856, 512},
        {RT_TENSOR_ROW_POSITION, 1050368, 512},
        {RT_TENSOR_ROW_LENGTH, 1050880, 512},
        {RT_TENSOR_ROW_ACCEPT, 1051392, 512},
        {RT_TENSOR_TOKENS, 1051904, 512},
        {RT_TENSOR_ACCEPTED, 1052416, 512},
        {RT_TENSOR_SAMPLED, 1052928, 512},
        {RT_TENSOR_PAGE_COPIES, 1053440, 1024},
        {RT_TENSOR_PARTS, 1054464, 2112},
        {RT_TENSOR_NUM_SPLITS, 1056768, 516},
        {RT_TENSOR_Q, 1057536, 18874368},
        {RT_TENSOR_LATENT, 19931904, 147456},
        {RT_TENSOR_OUT, 20079360, 16777216},
        {RT_TENSOR_LSE, 36856576, 65536},
        {RT_TENSOR_PARTIAL_LSE, 36922112, 99328},
        {RT_TENSOR_PARTIAL_OUT, 37021440, 50855936},
        {RT_TENSOR_RECORDS, 0, 217600},
        {RT_TENSOR_COMPLETIONS, 217600, 12800},
        {RT_TENSOR_COMPLETED, 230400, 64},
        {RT_TENSOR_KV, 0, UINT64_C(147371065344)},
    };
    struct rt_placement l;
    assert_int_equal(rt_placement_make(&DEEPSEEK_V3, &l, NULL), RT_OK);
    uint32_t present = 0;
    for (uint32_t id = 0; id < RT_TENSOR_COUNT; id++)
        present += l.tensors[id].bytes > 0;
    assert_int_equal(COUNT(expected), present);
    for (size_t i = 0; i < COUNT(expected); i++) {
        const struct rt_placed *b = &l.tensors[expected[i].id];
        if (b->offset != expected[i].offset || b->bytes != expected[i].bytes)
            fail_msg("%s: %llu bytes at %llu, expected %llu at %llu", b->name,
                     (unsigned long long)b->bytes, (unsigned long long)b->offset,
                     (unsigned long long)expected[i].bytes, (unsigned long long)expected[i].offset);
    }
    assert_int_equal(l.max_blocks, 2048);
    assert_true(l.arena_bytes == 87877376);
    assert_true(l.mapped_bytes == 230656);
    assert_true(l.pool_bytes == UINT64_C(147371065344));
    assert_true(l.tensors[RT_TENSOR_KV].layer_stride == UINT64_C(2415919104));
    assert_true(rt_placement_page_bytes(&DEEPSEEK_V3) == UINT64_C(147371065344) / 32768);
}

static void test_record_format_of_deepseek_v3(void **state)
{
    (void)state;
    struct rt_placement l;
    assert_int_equal(rt_placement_make(&DEEPSEEK_V3, &l, NULL), RT_OK);
    assert_int_equal(l.record.rows_offset, 64);
    assert_int_equal(l.record.tokens_offset, 64 + 128 * 16);
    assert_int_equal(l.record.ops_offset, 64 + 128 * 16 + 128 * 4);
    assert_int_equal(l.record.ops_capacity, 2048 * 4 + 16384);
    assert_int_equal(l.record.record_bytes, 27200);
    assert_int_equal(l.record.outcome_tokens_offset, 64 + 128 * 8);
    assert_int_equal(l.record.completion_bytes, 64 + 128 * 8 + 128 * 4);
}

static void test_odd_sizes_are_rounded_up(void **state)
{
    (void)state;
    struct rt_dims s = DEEPSEEK_V3;
    s.bucket_max = 3;
    s.rows = 5;
    s.q_max = 3;
    s.max_length = 65;
    struct rt_placement l;
    assert_int_equal(rt_placement_make(&s, &l, NULL), RT_OK);
    assert_int_equal(l.max_blocks, 2);
    assert_int_equal(l.record.tokens_offset, 64 + 48);
    assert_int_equal(l.record.ops_offset, 64 + 48 + 48);       /* 36 bytes of tokens */
    assert_int_equal(l.record.ops_capacity, 16 + 16384);       /* 8 bytes of line */
    assert_int_equal(l.record.record_bytes, 16576);            /* 16560 */
    assert_int_equal(l.record.outcome_tokens_offset, 64 + 32); /* 88 */
    assert_int_equal(l.record.completion_bytes, 192);          /* 132 */
}

static void assert_shape_is(const struct rt_placement *l, const char *name, uint32_t rank,
                            uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    const enum rt_tensor_id id = rt_tensor_find(l, name);
    assert_int_not_equal(id, RT_TENSOR_COUNT);
    const struct rt_placed *buffer = &l->tensors[id];
    const uint64_t shape[4] = {a, b, c, d};
    assert_string_equal(buffer->name, name);
    assert_int_equal(buffer->rank, rank);
    assert_memory_equal(buffer->shape, shape, sizeof(shape));
}

static void test_shapes_by_name(void **state)
{
    (void)state;
    struct rt_dims s = DEEPSEEK_V3;
    s.slots = 100;
    s.rows = 160;
    s.q_max = 4;
    struct rt_placement l;
    assert_int_equal(rt_placement_make(&s, &l, NULL), RT_OK);
    assert_shape_is(&l, "ctrl", 1, sizeof(struct rt_ctrl), 0, 0, 0);
    assert_shape_is(&l, "slot_lengths", 1, 100, 0, 0, 0);
    assert_shape_is(&l, "slot_tokens", 1, 100, 0, 0, 0);
    assert_shape_is(&l, "slot_drafts", 2, 100, 3, 0, 0);
    assert_shape_is(&l, "block_table", 2, 100, 2048, 0, 0);
    assert_shape_is(&l, "slots", 1, 128, 0, 0, 0);
    assert_shape_is(&l, "positions", 1, 128, 0, 0, 0);
    assert_shape_is(&l, "lengths", 1, 128, 0, 0, 0);
    assert_shape_is(&l, "accept", 1, 128, 0, 0, 0);
    assert_shape_is(&l, "tokens", 2, 160, 4, 0, 0);
    assert_shape_is(&l, "accepted", 1, 160, 0, 0, 0);
    assert_shape_is(&l, "sampled", 1, 160, 0, 0, 0);
    assert_shape_is(&l, "drafts", 2, 160, 3, 0, 0);
    assert_shape_is(&l, "page_copies", 2, RT_MAX_PAGE_COPIES, 4, 0, 0);
    assert_shape_is(&l, "parts", 2, 66, 8, 0, 0);
    assert_shape_is(&l, "num_splits", 1, 129, 0, 0, 0);
    assert_shape_is(&l, "q", 4, 160, 4, 128, 576);
    assert_shape_is(&l, "latent", 3, 160, 4, 576, 0);
    assert_shape_is(&l, "out", 4, 160, 4, 128, 512);
    assert_shape_is(&l, "lse", 3, 160, 4, 128, 0);
    assert_shape_is(&l, "partial_lse", 1, 194 * 128, 0, 0, 0);
    assert_shape_is(&l, "partial_out", 2, 194 * 128, 512, 0, 0);
    assert_shape_is(&l, "records", 2, 8, l.record.record_bytes, 0, 0);
    assert_shape_is(&l, "completions", 2, 8, l.record.completion_bytes, 0, 0);
    assert_shape_is(&l, "completed", 1, 64, 0, 0, 0);
    assert_shape_is(&l, "kv", 3, 32768, 64, 576, 0);
    assert_int_equal(rt_tensor_find(&l, "kvx"), RT_TENSOR_COUNT);
    assert_int_equal(l.tensors[RT_TENSOR_SPARSE_INDICES].bytes, 0);
    assert_int_equal(l.tensors[RT_TENSOR_SINK].bytes, 0);
    assert_int_equal(rt_tensor_find(&l, ""), RT_TENSOR_COUNT);
}

/* Rows of a sparse schedule are query tokens. */
static void test_sparse_tensors(void **state)
{
    (void)state;
    struct rt_dims s = DEEPSEEK_V3;
    s.rows = 160;
    s.q_max = 4;
    s.topk = 2048;
    s.has_sinks = true;
    struct rt_placement l;
    assert_int_equal(rt_placement_make(&s, &l, NULL), RT_OK);
    assert_shape_is(&l, "sparse_indices", 3, 160, 4, 2048, 0);
    assert_shape_is(&l, "sparse_counts", 2, 160, 4, 0, 0);
    assert_shape_is(&l, "sparse_lengths", 1, 128 * 4, 0, 0, 0);
    assert_shape_is(&l, "num_splits", 1, 128 * 4 + 1, 0, 0, 0);
    assert_shape_is(&l, "attn_sink", 1, 128, 0, 0, 0);
    assert_true(l.tensors[RT_TENSOR_SINK].layer_stride == 512);
    assert_true(l.tensors[RT_TENSOR_SINK].bytes == 512 * 61);
    s.chunk_rows = s.prefill_rows = 8; /* whose tokens have a list each */
    s.chunk_tokens = s.chunk = s.absorbed = 1030;
    assert_int_equal(rt_placement_make(&s, &l, NULL), RT_OK);
    assert_shape_is(&l, "sparse_indices", 3, 258, 4, 2048, 0);
    assert_shape_is(&l, "sparse_lengths", 1, 1030, 0, 0, 0);
}

static void test_per_layer_tensors(void **state)
{
    (void)state;
    struct rt_dims s = DEEPSEEK_V3;
    s.heads = 5;
    s.bucket_max = 3;
    s.rows = 3;
    s.per_layer = true;
    struct rt_placement l;
    assert_int_equal(rt_placement_make(&s, &l, NULL), RT_OK);
    assert_true(l.tensors[RT_TENSOR_Q].layer_stride == 17408);     /* 17280 bytes */
    assert_true(l.tensors[RT_TENSOR_LATENT].layer_stride == 3584); /* 3456 bytes */
    assert_true(l.tensors[RT_TENSOR_OUT].layer_stride == 15360);
    assert_true(l.tensors[RT_TENSOR_LSE].layer_stride == 256); /* 60 bytes */
    for (uint32_t id = 0; id < RT_TENSOR_COUNT; id++) {
        const struct rt_placed *b = &l.tensors[id];
        const bool layered = (id >= RT_TENSOR_Q && id <= RT_TENSOR_LSE) || id == RT_TENSOR_KV;
        assert_int_equal(b->layer_stride != 0, layered);
        if (layered)
            assert_true(b->bytes == b->layer_stride * 61);
    }
    s.per_layer = false;
    assert_int_equal(rt_placement_make(&s, &l, NULL), RT_OK);
    assert_true(l.tensors[RT_TENSOR_Q].layer_stride == 0 && l.tensors[RT_TENSOR_Q].bytes == 17280);
}

static uint32_t below(uint64_t *random, uint32_t limit)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*random >> 33) % limit);
}

static struct rt_dims random_shape(uint64_t *random)
{
    const uint32_t bucket_max = 1 + below(random, RT_MAX_BATCH);
    const uint32_t d_qk = 8 * (1 + below(random, 128));
    return (struct rt_dims){
        .kv = {.d_qk = d_qk, .d_v = 8 * (1 + below(random, d_qk / 8)), .token_bytes = 2 * d_qk},
        .heads = 1 + below(random, RT_MAX_HEADS),
        .layers = 1 + below(random, 100),
        .slots = 1 + below(random, RT_MAX_SEQUENCES),
        .max_length = 1 + below(random, RT_MAX_LENGTH),
        .page_size = 16u << below(random, 4),
        .context = 1,
        .pages = 1 + below(random, INT32_MAX - 1),
        .bucket_max = bucket_max,
        .rows = bucket_max + below(random, RT_MAX_SEQUENCES),
        .q_max = 1 + below(random, RT_MAX_QUERY_LEN),
        .parts_max = 1 + below(random, 1000),
        .partial_rows = 1 + below(random, 1000000),
        .ring_depth = 2 + below(random, 63),
        .per_layer = below(random, 2) != 0,
    };
}

static uint64_t naive_bytes(const struct rt_placed *b, uint32_t layers)
{
    uint64_t bytes = rt_dtype_bytes(b->dtype);
    for (uint32_t i = 0; i < b->rank; i++)
        bytes *= b->shape[i];
    return b->layer_stride ? (bytes + 255) / 256 * 256 * layers : bytes;
}

/* Order, alignment, no overlap, exact cover; the same answer whatever was in *out before. */
static void assert_sound(const struct rt_dims *s, struct rt_placement *l)
{
    struct rt_placement again;
    memset(l, 0xA5, sizeof(*l));
    memset(&again, 0x5A, sizeof(again));
    assert_int_equal(rt_placement_make(s, l, NULL), RT_OK);
    assert_int_equal(rt_placement_make(s, &again, NULL), RT_OK);
    uint64_t end[3] = {0};
    for (uint32_t id = 0; id < RT_TENSOR_COUNT; id++) {
        const struct rt_placed *b = &l->tensors[id];
        assert_true(b->offset == end[b->region]);
        assert_true(b->bytes == naive_bytes(b, s->layers));
        assert_true(b->offset == again.tensors[id].offset && b->bytes == again.tensors[id].bytes);
        end[b->region] = (b->offset + b->bytes + 255) / 256 * 256;
    }
    assert_true(l->arena_bytes == end[RT_REGION_ARENA]);
    assert_true(l->mapped_bytes == end[RT_REGION_MAPPED]);
    assert_true(l->pool_bytes == end[RT_REGION_POOL]);
    assert_true(l->pool_bytes == s->pages * rt_placement_page_bytes(s));
    const struct rt_record_format *f = &l->record;
    assert_int_equal(f->rows_offset, sizeof(struct rt_record));
    assert_true(f->tokens_offset >= f->rows_offset + 16 * s->bucket_max);
    assert_true(f->ops_offset >= f->tokens_offset + 4 * s->bucket_max * s->q_max);
    assert_true(f->ops_capacity >= 4 * l->max_blocks + 16384);
    assert_true(f->record_bytes >= f->ops_offset + f->ops_capacity);
    assert_int_equal(f->tokens_offset % 16 + f->ops_offset % 16 + f->ops_capacity % 16, 0);
    assert_int_equal(f->record_bytes % 64 + f->completion_bytes % 64, 0);
    assert_true(f->outcome_tokens_offset >= 64 + 8 * s->bucket_max);
    assert_true(f->completion_bytes >= f->outcome_tokens_offset + 4 * s->bucket_max * s->q_max);
}

static void test_random_shapes_are_sound(void **state)
{
    (void)state;
    uint64_t random = SEED;
    for (uint32_t i = 0; i < 2000; i++) {
        const struct rt_dims s = random_shape(&random);
        struct rt_placement l;
        assert_sound(&s, &l);
    }
}

/* One more of anything never needs less of anything. */
static void test_sizes_grow_with_the_shape(void **state)
{
    (void)state;
    uint64_t random = SEED + 1;
    for (uint32_t i = 0; i < 2000; i++) {
        const struct rt_dims s = random_shape(&random);
        struct rt_dims more = s;
        struct rt_placement small, large;
        assert_int_equal(rt_placement_make(&s, &small, NULL), RT_OK);
        switch (below(&random, 8)) {
        case 0:
            more.layers++;
            break;
        case 1:
            more.rows++;
            break;
        case 2:
            more.parts_max++;
            break;
        case 3:
            more.partial_rows++;
            break;
        case 4:
            more.pages++;
            break;
        case 5:
            more.heads += more.heads < RT_MAX_HEADS;
            break;
        case 6:
            more.max_length += more.max_length < RT_MAX_LENGTH;
            break;
        default:
            more.per_layer = true;
            break;
        }
        assert_int_equal(rt_placement_make(&more, &large, NULL), RT_OK);
        for (uint32_t id = 0; id < RT_TENSOR_COUNT; id++) {
            if (large.tensors[id].bytes < small.tensors[id].bytes ||
                large.tensors[id].offset < small.tensors[id].offset)
                fail_msg("seed 0x%llx, shape %u: %s shrank", (unsigned long long)SEED + 1, i,
                         small.tensors[id].name);
        }
        assert_true(large.arena_bytes >= small.arena_bytes);
        assert_true(large.mapped_bytes >= small.mapped_bytes);
        assert_true(large.pool_bytes >= small.pool_bytes);
    }
}

static void assert_refused(const struct rt_dims *s, const char *text)
{
    static const struct rt_placement zero;
    struct rt_placement l;
    memset(&l, 0xA5, sizeof(l));
    struct rt_error err = {0};
    assert_int_equal(rt_placement_make(s, &l, &err), RT_ERR_INVALID);
    assert_int_equal(err.status, RT_ERR_INVALID);
    assert_string_equal(err.message, text);
    assert_int_equal(l.arena_bytes + l.mapped_bytes + l.pool_bytes, 0);
    assert_int_equal(l.dims.heads, 0);
    assert_memory_equal(l.tensors, zero.tensors, sizeof(l.tensors));
}

#define REFUSED(field, value, text)                                                                \
    do {                                                                                           \
        struct rt_dims s = DEEPSEEK_V3;                                                            \
        s.field = (value);                                                                         \
        assert_refused(&s, text);                                                                  \
    } while (0)

static void test_zero_fields_are_refused(void **state)
{
    (void)state;
    REFUSED(heads, 0, "heads = 0 is outside 1..128");
    REFUSED(kv.d_qk, 0, "d_qk = 0 is outside 8..1024");
    REFUSED(kv.d_v, 0, "d_v = 0 is outside 8..576");
    REFUSED(layers, 0, "layers = 0 is outside 1..4294967295");
    REFUSED(slots, 0, "slots = 0 is outside 1..65536");
    REFUSED(max_length, 0, "max_length = 0 is outside 1..1048576");
    REFUSED(page_size, 0, "page_size = 0, valid are 16, 32, 64 and 128");
    REFUSED(pages, 0, "pages = 0 is outside 1..2147483647");
    REFUSED(bucket_max, 0, "bucket_max = 0 is outside 1..4096");
    REFUSED(rows, 0, "rows = 0 is outside 128..4294967295");
    REFUSED(q_max, 0, "q_max = 0 is outside 1..8");
    REFUSED(parts_max, 0, "parts_max = 0 is outside 1..2147483647");
    REFUSED(partial_rows, 0, "partial_rows = 0 is outside 1..18446744073709551615");
    REFUSED(ring_depth, 0, "ring_depth = 0 is outside 2..64");
}

static void test_fields_out_of_range_are_refused(void **state)
{
    (void)state;
    REFUSED(heads, 129, "heads = 129 is outside 1..128");
    REFUSED(kv.d_qk, 1032, "d_qk = 1032 is outside 8..1024");
    REFUSED(kv.d_qk, 577, "d_qk = 577 is no multiple of 8");
    REFUSED(kv.d_v, 584, "d_v = 584 is outside 8..576");
    REFUSED(kv.d_v, 511, "d_v = 511 is no multiple of 8");
    REFUSED(slots, 65537, "slots = 65537 is outside 1..65536");
    REFUSED(max_length, 1048577, "max_length = 1048577 is outside 1..1048576");
    REFUSED(page_size, 48, "page_size = 48, valid are 16, 32, 64 and 128");
    REFUSED(page_size, 256, "page_size = 256, valid are 16, 32, 64 and 128");
    REFUSED(pages, UINT64_C(1) << 31, "pages = 2147483648 is outside 1..2147483647");
    REFUSED(pages, UINT64_MAX, "pages = 18446744073709551615 is outside 1..2147483647");
    REFUSED(bucket_max, 4097, "bucket_max = 4097 is outside 1..4096");
    REFUSED(rows, 127, "rows = 127 is outside 128..4294967295");
    REFUSED(q_max, 9, "q_max = 9 is outside 1..8");
    REFUSED(parts_max, UINT32_MAX, "parts_max = 4294967295 is outside 1..2147483647");
    REFUSED(ring_depth, 1, "ring_depth = 1 is outside 2..64");
    REFUSED(ring_depth, 65, "ring_depth = 65 is outside 2..64");
}

static void test_overflow_is_refused_with_the_values(void **state)
{
    (void)state;
    REFUSED(partial_rows, UINT64_C(1) << 62,
            "partial_lse [4611686018427387904] of 4 bytes an element, 61 layers, ends beyond "
            "64-bit sizes");
    REFUSED(partial_rows, (UINT64_C(1) << 62) - 1, /* the product fits, the sum does not */
            "partial_lse [4611686018427387903] of 4 bytes an element, 61 layers, ends beyond "
            "64-bit sizes");
    REFUSED(partial_rows, (UINT64_C(1) << 62) - 9230401, /* the sum fits, its alignment does not */
            "partial_lse [4611686018418157503] of 4 bytes an element, 61 layers, ends beyond "
            "64-bit sizes");
    REFUSED(partial_rows, UINT64_C(1) << 53,
            "partial_out [9007199254740992, 512] of 4 bytes an element, 61 layers, ends beyond "
            "64-bit sizes");
    struct rt_dims s = DEEPSEEK_V3;
    s.layers = UINT32_MAX;
    s.pages = INT32_MAX;
    assert_refused(&s, "kv [2147483647, 64, 576] of 2 bytes an element, 4294967295 layers, ends "
                       "beyond 64-bit sizes");
    s.rows = UINT32_MAX;
    s.per_layer = true;
    assert_refused(&s, "q [4294967295, 1, 128, 576] of 2 bytes an element, 4294967295 layers, "
                       "ends beyond 64-bit sizes");
}

static void test_page_bytes(void **state)
{
    (void)state;
    struct rt_dims s = DEEPSEEK_V3;
    assert_true(rt_placement_page_bytes(&s) == 61 * 64 * 576 * 2);
    s.layers = s.page_size = s.kv.token_bytes = UINT32_MAX;
    assert_true(rt_placement_page_bytes(&s) == 0);
}

static void test_dtype_bytes(void **state)
{
    (void)state;
    assert_int_equal(rt_dtype_bytes(RT_DTYPE_U8), 1);
    assert_int_equal(rt_dtype_bytes(RT_DTYPE_BF16), 2);
    assert_int_equal(rt_dtype_bytes(RT_DTYPE_F32), 4);
    assert_int_equal(rt_dtype_bytes(RT_DTYPE_I32), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deepseek_v3_to_the_byte),
        cmocka_unit_test(test_record_format_of_deepseek_v3),
        cmocka_unit_test(test_odd_sizes_are_rounded_up),
        cmocka_unit_test(test_shapes_by_name),
        cmocka_unit_test(test_sparse_tensors),
        cmocka_unit_test(test_per_layer_tensors),
        cmocka_unit_test(test_random_shapes_are_sound),
        cmocka_unit_test(test_sizes_grow_with_the_shape),
        cmocka_unit_test(test_zero_fields_are_refused),
        cmocka_unit_test(test_fields_out_of_range_are_refused),
        cmocka_unit_test(test_overflow_is_refused_with_the_values),
        cmocka_unit_test(test_page_bytes),
        cmocka_unit_test(test_dtype_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
