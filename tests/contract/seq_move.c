/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences as bytes: one that is imported goes on as the one that was exported, bit for bit, and
 * is exported as the same bytes; what is refused, by name, changes nothing; every driver call fails
 * once.
 */
#include "runtime/seq_image.h"
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEADS 3u
#define D_V 256u
#define PAGE 16u
#define TOKENS 21u

/* Inputs follow from the token's position alone. */
static int write_inputs(void *user, const struct rt_stage_context *c)
{
    const uint32_t *position = user;
    uint64_t random = 1 + *position * 8u + c->layer;
    uint16_t *const to[] = {fixture_address(c->runtime, "q", 0),
                            fixture_address(c->runtime, "latent", 0)};
    const uint32_t counts[] = {HEADS * 288u, 288u};
    for (uint32_t t = 0; t < 2; t++)
        for (uint32_t i = 0; i < counts[t]; i++)
            to[t][i] = (uint16_t)(0x3c00u + (fixture_random(&random) & 0x81ffu));
    return 0;
}

struct side {
    rt_runtime *rt;
    rt_seq seq;
    uint32_t position;
};

static void set_layout(struct rt_config *c, enum rt_kv_layout layout)
{
    c->kv_layout = layout;
    c->kv_scale = layout == RT_KV_FP8_TENSOR ? 0.03125 : 1;
}

static void open_with(struct side *s, const struct rt_config *config)
{
    struct rt_create_params params = {.struct_size = sizeof(params), .config = config};
    struct rt_error err = {.status = RT_OK};
    *s = (struct side){.rt = NULL};
    params.stages[RT_STAGE_BEFORE_ATTENTION] = write_inputs;
    params.stage_user = &s->position;
    if (rt_create(&params, &s->rt, &err) != RT_OK)
        fail_msg("%s", err.message);
}

static void open_side(struct side *s, enum rt_kv_layout layout)
{
    struct rt_config config;
    fixture_config(&config);
    strcpy(config.device, "host");
    set_layout(&config, layout);
    open_with(s, &config);
}

static void grow(struct side *s, uint32_t tokens)
{
    for (uint32_t i = 0; i < tokens; i++) {
        fixture_step_ok(s->rt, &s->seq, 1, 1);
        s->position++;
    }
}

static unsigned char *export(struct side *s, uint64_t *bytes)
{
    assert_int_equal(rt_seq_export(s->rt, s->seq, NULL, 0, bytes), RT_OK);
    unsigned char *image = malloc(*bytes);
    assert_non_null(image);
    memset(image, 0x5a, *bytes);
    uint64_t again = 0;
    if (rt_seq_export(s->rt, s->seq, image, *bytes, &again) != RT_OK)
        fail_msg("%s", rt_last_error(s->rt)->message);
    assert_true(again == *bytes);
    return image;
}

static void goes_on_elsewhere(void **state)
{
    static const enum rt_kv_layout layouts[] = {RT_KV_BF16, RT_KV_FP8_TENSOR, RT_KV_FP8_TOKEN,
                                                RT_KV_V32};
    static const uint32_t lengths[] = {0, 1, 16, TOKENS};
    (void)state;
    for (size_t i = 0; i < 16; i++) {
        struct side a, b;
        uint64_t bytes, again;
        open_side(&a, layouts[i / 4]);
        open_side(&b, layouts[i / 4]);
        const rt_seq other = fixture_open(b.rt); /* its pages are others than a's */
        fixture_step_ok(b.rt, &other, 1, 3);
        a.seq = fixture_open(a.rt);
        grow(&a, lengths[i % 4]);
        unsigned char *image = export(&a, &bytes);
        if (rt_seq_import(b.rt, image, bytes, -1, &b.seq) != RT_OK)
            fail_msg("%s", rt_last_error(b.rt)->message);
        unsigned char *back = export(&b, &again);
        assert_true(again == bytes);
        assert_memory_equal(back, image, bytes);
        b.position = a.position;
        for (uint32_t n = 0; n < 14; n++) {
            grow(&a, 1);
            grow(&b, 1);
            assert_memory_equal(fixture_address(a.rt, "out", 0), fixture_address(b.rt, "out", 0),
                                HEADS * D_V * 2);
        }
        free(image);
        free(back);
        rt_destroy(&a.rt);
        rt_destroy(&b.rt);
    }
}

static void refused(rt_runtime *rt, enum rt_status got, enum rt_status want, const char *words)
{
    assert_int_equal(got, want);
    assert_int_equal(rt_last_error(rt)->status, want);
    if (!strstr(rt_last_error(rt)->message, words))
        fail_msg("\"%s\" does not say \"%s\"", rt_last_error(rt)->message, words);
}

/* Another runtime's, whose every difference is told with both values. */
static void other_runtimes(void **state)
{
    static const struct {
        const char *words;
        enum rt_kv_layout layout, mine;
        double scale;
        uint32_t page_size, layers;
        enum rt_rope_order order;
    } others[] = {
        {"layout is v32, this runtime's is bf16", RT_KV_BF16, RT_KV_V32, 1, PAGE, 2, 0},
        {"page_size is 16, this runtime's is 32", RT_KV_BF16, RT_KV_BF16, 1, 32, 2, 0},
        {"layers is 2, this runtime's is 3", RT_KV_BF16, RT_KV_BF16, 1, PAGE, 3, 0},
        {"rope order is 0, this runtime's is 1", RT_KV_BF16, RT_KV_BF16, 1, PAGE, 2, 1},
        {"KV scale of layer 0 is 0.03125, this runtime has 0.125", RT_KV_FP8_TENSOR,
         RT_KV_FP8_TENSOR, 0.125, PAGE, 2, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct side a, b;
        struct rt_config config;
        struct fixture_snapshot before, after;
        uint64_t bytes;
        rt_seq seq = 77;
        open_side(&a, others[i].mine);
        a.seq = fixture_open(a.rt);
        grow(&a, TOKENS);
        unsigned char *image = export(&a, &bytes);
        fixture_config(&config);
        strcpy(config.device, "host");
        config.kv_layout = others[i].layout;
        config.kv_scale = others[i].scale;
        config.page_size = others[i].page_size;
        config.geometry.layers = others[i].layers;
        config.block.rope.order = others[i].order;
        open_with(&b, &config);
        fixture_snapshot(b.rt, &before);
        refused(b.rt, rt_seq_import(b.rt, image, bytes, -1, &seq), RT_ERR_UNSUPPORTED,
                others[i].words);
        fixture_snapshot(b.rt, &after);
        assert_memory_equal(&before, &after, sizeof(before));
        assert_int_equal(seq, 77);
        free(image);
        rt_destroy(&a.rt);
        rt_destroy(&b.rt);
    }
}

static void bad_arguments(void **state)
{
    struct side a;
    uint64_t bytes, needed;
    rt_seq seq;
    (void)state;
    open_side(&a, RT_KV_BF16);
    a.seq = fixture_open(a.rt);
    grow(&a, TOKENS);
    unsigned char *image = export(&a, &bytes);
    assert_true(bytes == 96 + 2 * 2 * PAGE * 576);
    refused(a.rt, rt_seq_export(a.rt, a.seq, image, bytes, NULL), RT_ERR_INVALID, "needed is null");
    refused(a.rt, rt_seq_export(a.rt, 12345, image, bytes, &needed), RT_ERR_SEQUENCE, "0x3039");
    refused(a.rt, rt_seq_export(a.rt, a.seq, image, bytes - 1, &needed), RT_ERR_INVALID,
            "capacity 36959 is less than the 36960 bytes needed");
    refused(a.rt, rt_seq_import(a.rt, NULL, bytes, -1, &seq), RT_ERR_INVALID, "is null");
    refused(a.rt, rt_seq_import(a.rt, image, bytes, -1, NULL), RT_ERR_INVALID, "is null");
    refused(a.rt, rt_seq_import(a.rt, image, bytes, -2, &seq), RT_ERR_INVALID, "last_token -2");
    refused(a.rt, rt_seq_import(a.rt, image, bytes - 16, -1, &seq), RT_ERR_INVALID,
            "36944 bytes, of a sequence that has 36960");
    refused(a.rt, rt_seq_import(a.rt, image, 79, -1, &seq), RT_ERR_INVALID, "79 bytes are no");
    for (uint64_t i = 0; i < bytes; i += i < 120 ? 1 : 977) {
        image[i] ^= 0x10;
        assert_int_equal(rt_seq_import(a.rt, image, bytes, -1, &seq), RT_ERR_INVALID);
        image[i] ^= 0x10;
    }
    assert_int_equal(rt_seq_import(a.rt, image, bytes, 5, &seq), RT_OK);
    free(image);
    rt_destroy(&a.rt);
}

/* Of the caller's pages too, which must be there; what is not told yet, waits. */
static void pages_of_the_caller(void **state)
{
    struct side a;
    const struct rt_seq_params params = {.struct_size = sizeof(params),
                                         .pages = RT_PAGES_CALLER,
                                         .length = TOKENS,
                                         .last_token = -1};
    const int32_t pages[] = {9, 3};
    uint64_t bytes;
    (void)state;
    open_side(&a, RT_KV_BF16);
    fixture_randomise(a.rt, 3);
    assert_int_equal(rt_seq_open(a.rt, &params, &a.seq), RT_OK);
    assert_int_equal(rt_seq_bind_pages(a.rt, a.seq, 0, pages, 1), RT_OK);
    refused(a.rt, rt_seq_export(a.rt, a.seq, NULL, 0, &bytes), RT_ERR_PAGES,
            "21 tokens are in 2 pages, 1 are bound");
    assert_int_equal(rt_seq_bind_pages(a.rt, a.seq, 1, pages + 1, 1), RT_OK);
    unsigned char *image = export(&a, &bytes);
    for (uint32_t layer = 0; layer < 2; layer++) {
        const unsigned char *kv = fixture_address(a.rt, "kv", layer);
        const unsigned char *found = image + 96 + layer * 2 * PAGE * 576;
        const unsigned char zeros[576] = {0};
        assert_memory_equal(found, kv + 9 * PAGE * 576, PAGE * 576);
        assert_memory_equal(found + PAGE * 576, kv + 3 * PAGE * 576, 5 * 576);
        for (uint32_t row = 5; row < PAGE; row++)
            assert_memory_equal(found + (PAGE + row) * 576, zeros, 576);
    }
    assert_int_equal(rt_host_hold(a.rt, 1), RT_OK);
    refused(a.rt, rt_seq_export(a.rt, a.seq, image, bytes, &bytes), RT_ERR_BUSY, "held back");
    refused(a.rt, rt_seq_import(a.rt, image, bytes, -1, &a.seq), RT_ERR_BUSY, "held back");
    assert_int_equal(rt_host_hold(a.rt, 0), RT_OK);
    free(image);
    rt_destroy(&a.rt);
}

static void every_driver_call(void **state)
{
    struct side a;
    uint64_t bytes, needed;
    uint32_t failures[2] = {0};
    (void)state;
    open_side(&a, RT_KV_FP8_TOKEN);
    a.seq = fixture_open(a.rt);
    grow(&a, TOKENS);
    unsigned char *image = export(&a, &bytes);
    struct rt_driver_probe *const probe = &a.rt->driver.probe;
    for (int import = 0; import < 2; import++)
        for (uint64_t n = 1;; n++) {
            struct fixture_snapshot before, after;
            rt_seq seq = 0;
            fixture_snapshot(a.rt, &before);
            probe->fail_at = probe->calls + n;
            const enum rt_status status = import
                                              ? rt_seq_import(a.rt, image, bytes, -1, &seq)
                                              : rt_seq_export(a.rt, a.seq, image, bytes, &needed);
            const bool failed = probe->calls >= probe->fail_at;
            probe->fail_at = 0;
            if (!failed)
                break;
            failures[import] += status == RT_ERR_DRIVER;
            if (status == RT_OK) /* leaving a context, whose failure is nobody's */
                continue;
            assert_int_equal(status, RT_ERR_DRIVER);
            fixture_snapshot(a.rt, &after);
            assert_int_equal(before.open_sequences, after.open_sequences);
            assert_int_equal(before.free_pages, after.free_pages);
        }
    assert_true(failures[0] >= 4 && failures[1] >= 4);
    free(image);
    rt_destroy(&a.rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on_elsewhere), cmocka_unit_test(other_runtimes),
        cmocka_unit_test(bad_arguments),     cmocka_unit_test(pages_of_the_caller),
        cmocka_unit_test(every_driver_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
