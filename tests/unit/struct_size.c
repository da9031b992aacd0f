/* SPDX-License-Identifier: Apache-2.0 */
#include "common/struct_size.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* A public struct as this library knows it, and as a later one might. */
struct mine {
    uint32_t struct_size, a;
    uint64_t b;
};
struct longer {
    uint32_t struct_size, a;
    uint64_t b, c;
};

static enum rt_status take(const void *given, struct mine *out, struct rt_error *err)
{
    const struct mine *p = given;
    struct mine copy = {0};
    RT_TAKE_STRUCT(p, copy, err);
    *out = *p;
    return RT_OK;
}

static void test_same_size_is_taken_as_it_is(void **state)
{
    (void)state;
    const struct mine given = {.struct_size = sizeof(given), .a = 1, .b = 2};
    const struct mine *p = &given;
    struct mine copy;
    assert_int_equal(rt_struct_check(p, sizeof(copy), "f", "p", NULL), RT_OK);
    struct mine out = {0};
    assert_int_equal(take(p, &out, NULL), RT_OK);
    assert_memory_equal(&out, &given, sizeof(out));
}

static void test_missing_tail_is_zero(void **state)
{
    (void)state;
    struct mine out = {0};
    for (uint32_t size = 4; size <= 8; size += 4) {
        const struct mine given = {.struct_size = size, .a = 7, .b = UINT64_MAX};
        assert_int_equal(take(&given, &out, NULL), RT_OK);
        assert_int_equal(out.struct_size, sizeof(out));
        assert_int_equal(out.a, size > 4 ? 7 : 0);
        assert_true(out.b == 0);
    }
}

static void test_longer_with_a_zero_tail(void **state)
{
    (void)state;
    const struct longer given = {.struct_size = sizeof(given), .a = 1, .b = 2};
    struct mine out = {0};
    assert_int_equal(take(&given, &out, NULL), RT_OK);
    assert_int_equal(out.struct_size, sizeof(out));
    assert_int_equal(out.a, 1);
    assert_true(out.b == 2);
}

static void refused(const void *given, const char *words)
{
    struct rt_error err = {0};
    struct mine out = {.a = 77};
    assert_int_equal(take(given, &out, &err), RT_ERR_INVALID);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_int_equal(out.a, 77);
}

static void test_refusals(void **state)
{
    (void)state;
    refused(NULL, "take: p is null");
    const uint32_t sizes[] = {0, 1, 3, 65537, UINT32_MAX};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const struct mine given = {.struct_size = sizes[i]};
        refused(&given, "this library's is 16: ");
        refused(&given, sizes[i] < 4 ? "sizeof the struct, at least 4" : "larger than 65536");
    }
    const struct longer asks = {.struct_size = sizeof(asks), .c = UINT64_C(1) << 40};
    refused(&asks, "struct_size is 24, this library's is 16, and byte 21 behind that is not 0");
}

/* A result goes as far as the caller's struct does, and no byte farther. */
static void test_write(void **state)
{
    (void)state;
    const struct mine result = {.struct_size = 99, .a = 3, .b = 4};
    struct longer given;
    for (uint32_t size = 4; size <= sizeof(given); size += 4) {
        memset(&given, 0x5a, sizeof(given));
        given.struct_size = size;
        rt_struct_write(&given, &result, sizeof(result));
        assert_int_equal(given.struct_size, size);
        assert_int_equal(given.a, size >= 8 ? 3 : 0x5a5a5a5a);
        assert_true(size < 16 || given.b == 4);
        assert_true(given.c == UINT64_C(0x5a5a5a5a5a5a5a5a));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_size_is_taken_as_it_is),
        cmocka_unit_test(test_missing_tail_is_zero),
        cmocka_unit_test(test_longer_with_a_zero_tail),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
