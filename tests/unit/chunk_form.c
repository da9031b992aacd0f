/* SPDX-License-Identifier: Apache-2.0 */
#include "config/chunk_form.h"
#include "tests/unit/expect.h"

/* Keys of 128 + 64 numbers and values of 128, from latents of 256: a key's expansion costs 256 *
 * 256, and each token that sees it saves 2 * 256 - 256. */
static struct rt_config even_config(void)
{
    struct rt_config c;
    rt_config_default(&c);
    c.geometry = (struct rt_geometry){.heads = 16,
                                      .kv_lora_rank = 256,
                                      .qk_rope_head_dim = 64,
                                      .layers = 2,
                                      .softmax_scale = 0.1};
    c.layer = 1;
    c.block.hidden_size = 2048;
    c.block.qk_nope_head_dim = 128;
    c.block.v_head_dim = 128;
    return c;
}

static struct rt_chunk_form chosen(const struct rt_config *c, uint32_t chunk, const char *words)
{
    struct rt_chunk_form form;
    memset(&form, 0xA5, sizeof(form));
    rt_chunk_form_choose(c, chunk, &form);
    if (!strstr(form.reason, words))
        fail_msg("chunk %u: no \"%s\" in: %s", chunk, words, form.reason);
    return form;
}

static void test_the_cheaper_form(void **state)
{
    (void)state;
    struct rt_config c = even_config();
    assert_true(chosen(&c, 1, "absorbed: a key costs 576").absorbed);
    assert_true(
        chosen(&c, 256, "absorbed: a key costs 147456").absorbed); /* as dear as the other */
    assert_false(chosen(&c, 257, "expanded: a key costs 148032").absorbed);
    assert_false(chosen(&c, RT_MAX_CHUNK, "65536 of them once").absorbed);
    c.geometry.kv_lora_rank = 512; /* break-even at 170.7 tokens */
    assert_true(chosen(&c, 170, "absorbed").absorbed);
    assert_false(chosen(&c, 171, "expanded").absorbed);
}

static void test_who_must_absorb(void **state)
{
    (void)state;
    struct rt_config c = even_config();
    struct rt_chunk_form form;
    c.layer = 0;
    form = chosen(&c, 4096, "without layer");
    assert_true(form.absorbed);
    assert_int_equal(form.pieces, 0);
    c = even_config();
    c.block.qk_nope_head_dim = 192; /* and 64 rotated */
    assert_false(chosen(&c, 4096, "expanded").absorbed);
    c.block.qk_nope_head_dim = 200;
    assert_true(chosen(&c, 4096, "up to 256 numbers, not 200 + 64 and 128").absorbed);
    c = even_config();
    c.block.v_head_dim = 264;
    assert_true(chosen(&c, 4096, "not 128 + 64 and 264").absorbed);
    c = even_config();
    c.context_parallel = 4;
    assert_true(chosen(&c, 4096, "absorbed: of a context over 4 ranks").absorbed);
}

static void test_pieces_of_context(void **state)
{
    (void)state;
    static const uint32_t cases[][4] = {/* piece asked for, max_length, piece, pieces */
                                        {8192, 8192, 8192, 1},
                                        {8192, 100, 100, 1},
                                        {64, 65, 64, 2},
                                        {64, 64 * 63, 64, 63},
                                        {16645, RT_MAX_LENGTH, 16645, 63},
                                        /* the default: 8192 as long as it may */
                                        {0, 8192, 8192, 1},
                                        {0, 8192 * 63, 8192, 63},
                                        {0, 8192 * 63 + 1, 8320, 63},
                                        {0, RT_MAX_LENGTH, 16768, 63}};
    struct rt_config c = even_config();
    for (size_t i = 0; i < COUNT(cases); i++) {
        c.context_piece = cases[i][0];
        c.max_length = cases[i][1];
        const struct rt_chunk_form form = chosen(&c, 512, "expanded");
        assert_int_equal(form.piece, cases[i][2]);
        assert_int_equal(form.pieces, cases[i][3]);
        assert_int_equal(chosen(&c, 16, "absorbed").pieces, 0);
    }
}

/* Of one chunk, by the configuration's check: passes where `first` is null. */
static void checked(struct rt_config c, uint32_t chunk, const char *first, const char *second)
{
    const char *const words[] = {first, second};
    struct rt_error err = {.message = ""};
    c.chunks[0] = chunk;
    c.chunk_count = 1;
    if (first)
        expect(first, rt_config_check(&c, &err), &err, RT_ERR_CONFIG, words, 2);
    else if (rt_config_check(&c, &err) != RT_OK)
        fail_msg("chunk %u: %s", chunk, err.message);
}

static void test_checked(void **state)
{
    (void)state;
    struct rt_config c = even_config();
    c.context_piece = 64;
    c.max_length = 64 * 63 + 1;
    checked(c, 512, "context_piece is 64: must be at least 65",
            "max_length 4033 comes in 63 pieces at most");
    checked(c, 16, NULL, NULL); /* absorbed, it needs no pieces */
    c.max_length = 64 * 63;
    checked(c, 512, NULL, NULL);
    c = even_config();
    c.block.v_head_dim = 264;
    checked(c, 4096, NULL, NULL);
    checked(c, 4097, "chunks[0] is 4097: must be at most 4096", "not 128 + 64 and 264");
    c.layer = 0;
    checked(c, RT_MAX_CHUNK, "chunks[0] is 16384: must be at most 4096", "without layer");
}

static void test_any_length_has_a_default_piece(void **state)
{
    (void)state;
    struct rt_config c = even_config();
    c.max_sequences = 1;
    for (uint32_t length = 1; length < RT_MAX_LENGTH; length += 997) {
        c.max_length = length;
        checked(c, 512, NULL, NULL);
    }
    c.max_length = RT_MAX_LENGTH;
    checked(c, 512, NULL, NULL);
}

static void test_rows_of_a_chunk(void **state)
{
    (void)state;
    struct rt_config c = even_config();
    assert_int_equal(rt_chunk_prefill_rows(&c), 8);
    c.prefill_rows = 9;
    assert_int_equal(rt_chunk_prefill_rows(&c), 9);
    c.max_sequences = 3;
    assert_int_equal(rt_chunk_prefill_rows(&c), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_cheaper_form),
        cmocka_unit_test(test_who_must_absorb),
        cmocka_unit_test(test_pieces_of_context),
        cmocka_unit_test(test_checked),
        cmocka_unit_test(test_any_length_has_a_default_piece),
        cmocka_unit_test(test_rows_of_a_chunk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
