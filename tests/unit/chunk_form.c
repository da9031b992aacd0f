/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/chunk_form.h"
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
    c.block.qk_nope_head_dim = 128;
    c.block.v_head_dim = 128;
    return c;
}

static struct rt_chunk_form chosen(const struct rt_config *c, uint32_t chunk, const char *words)
{
    struct rt_chunk_form form;
    struct rt_error err = {.message = ""};
    memset(&form, 0xA5, sizeof(form));
    if (rt_chunk_form_choose(c, chunk, &form, &err) != RT_OK)
        fail_msg("chunk %u: %s", chunk, err.message);
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
}

static void test_pieces_of_context(void **state)
{
    (void)state;
    static const uint32_t cases[][4] = {/* piece asked for, max_length, piece, pieces */
                                        {8192, 8192, 8192, 1},
                                        {8192, 100, 100, 1},
                                        {64, 65, 64, 2},
                                        {64, 64 * 63, 64, 63},
                                        {16645, RT_MAX_LENGTH, 16645, 63}};
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

static void refused(const struct rt_config *c, uint32_t chunk, const char *first,
                    const char *second)
{
    const char *const words[] = {first, second};
    struct rt_chunk_form form;
    struct rt_error err = {.message = ""};
    expect(first, rt_chunk_form_choose(c, chunk, &form, &err), &err, RT_ERR_CONFIG, words, 2);
}

static void test_refused(void **state)
{
    (void)state;
    struct rt_config c = even_config();
    c.context_piece = 64;
    c.max_length = 64 * 63 + 1;
    refused(&c, 512, "prefill.context_piece is 64: must be at least 65",
            "max_length 4033 comes in 63 pieces at most");
    assert_true(chosen(&c, 16, "absorbed").absorbed); /* which needs no pieces */
    c = even_config();
    c.block.v_head_dim = 264;
    refused(&c, 4097, "4097 tokens are more than 4096", "not 128 + 64 and 264");
    c.layer = 0;
    refused(&c, RT_MAX_CHUNK, "16384 tokens are more than 4096", "without layer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_cheaper_form),
        cmocka_unit_test(test_who_must_absorb),
        cmocka_unit_test(test_pieces_of_context),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
