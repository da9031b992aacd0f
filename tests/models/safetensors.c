/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of safetensors files: what is read, and everything that is refused. */
#include "models/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A file in a block of exactly its size, so that a sanitizer sees each byte read too many. */
struct image {
    unsigned char *bytes;
    size_t count;
};

static struct image image_of(uint64_t header_bytes, const char *header, size_t header_count,
                             size_t data_count)
{
    struct image image = {.count = 8 + header_count + data_count};
    image.bytes = malloc(image.count);
    assert_non_null(image.bytes);
    for (unsigned i = 0; i < 8; i++)
        image.bytes[i] = (unsigned char)(header_bytes >> (8 * i));
    memcpy(image.bytes + 8, header, header_count);
    for (size_t i = 0; i < data_count; i++)
        image.bytes[8 + header_count + i] = (unsigned char)(0x11 * (i + 1));
    return image;
}

/* Reads header and that many bytes of data (0x11, 0x22, 0x33, ...). */
static enum rt_status parse(const char *header, size_t data_count, struct image *image,
                            struct rt_safetensors *file, struct rt_error *error)
{
    *image = image_of(strlen(header), header, strlen(header), data_count);
    return rt_safetensors_read(image->bytes, image->count, "test", file, error);
}

static void expect_refused(const char *header, size_t data_count, const char *words)
{
    struct image image;
    struct rt_safetensors file;
    struct rt_error error = {0};
    const enum rt_status status = parse(header, data_count, &image, &file, &error);
    if (status != RT_ERR_FILE || file.entries || file.words || error.status != RT_ERR_FILE ||
        strstr(error.message, words) == NULL)
        fail_msg("%s: status %d, message \"%s\", expected \"%s\"", header, (int)status,
                 error.message, words);
    free(image.bytes);
}

#define ENTRY(dtype, shape, begin, end)                                                            \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

/* ---- what it reads -------------------------------------------------------------------------- */

static void test_values(void **state)
{
    (void)state;
    struct image image;
    struct rt_safetensors file;
    struct rt_error error;
    /* The one byte in front makes all others unaligned. */
    const char *header = "{\"a\":" ENTRY("U8", "[1]", "0", "1") ",\"c\":" ENTRY(
        "BF16", "[2]", "1", "5") ",\"b\":" ENTRY("F32", "[1,2]", "5",
                                                 "13") ",\"i\":" ENTRY("I32", "[]", "13",
                                                                       "17") "}  ";
    assert_int_equal(parse(header, 17, &image, &file, &error), RT_OK);
    assert_int_equal(file.count, 4);
    const char *const names[] = {"a", "b", "c", "i"};
    const enum rt_stored stored[] = {RT_STORED_OTHER, RT_STORED_F32, RT_STORED_BF16, RT_STORED_I32};
    const size_t offsets[] = {0, 5, 1, 13}, bytes[] = {1, 8, 4, 4};
    const uint64_t elements[] = {1, 2, 2, 1};
    const uint32_t ranks[] = {1, 2, 1, 0};
    for (size_t i = 0; i < 4; i++) {
        const struct rt_stored_entry *t = rt_stored_find(file.entries, file.count, names[i]);
        assert_ptr_equal(t, &file.entries[i]);
        assert_string_equal(t->name, names[i]);
        assert_int_equal(t->stored, stored[i]);
        assert_int_equal(t->bytes, bytes[i]);
        assert_int_equal(t->elements, elements[i]);
        assert_int_equal(t->rank, ranks[i]);
        assert_ptr_equal(t->data, image.bytes + 8 + strlen(header) + offsets[i]);
    }
    assert_string_equal(file.entries[2].dtype, "BF16");
    assert_int_equal(file.entries[1].shape[1], 2);
    assert_null(rt_stored_find(file.entries, file.count, "bb"));
    rt_safetensors_free(&file);
    assert_null(file.entries);
    free(image.bytes);
}

static void test_empty_and_metadata(void **state)
{
    (void)state;
    struct image image;
    struct rt_safetensors file;
    struct rt_error error;
    assert_int_equal(parse("{}", 0, &image, &file, &error), RT_OK);
    assert_int_equal(file.count, 0);
    assert_null(rt_stored_find(file.entries, file.count, "x"));
    rt_safetensors_free(&file);
    free(image.bytes);

    const char *header =
        "{\"__metadata__\":{\"format\":\"pt\"},\"none\":" ENTRY("F32", "[0,7]", "0", "0") "}";
    assert_int_equal(parse(header, 0, &image, &file, &error), RT_OK);
    assert_int_equal(file.count, 1);
    assert_string_equal(file.entries[0].name, "none");
    assert_int_equal(file.entries[0].elements, 0);
    rt_safetensors_free(&file);
    free(image.bytes);
}

/* One that is new, and members that are: they hurt nobody. Names may be escaped. */
static void test_what_is_not_known(void **state)
{
    (void)state;
    struct image image;
    struct rt_safetensors file;
    struct rt_error error;
    const char *header = "{\"n\\u0065w\\ud83d\\ude00\":" ENTRY(
        "F4_E2M1", "[3]", "0",
        "2") ",\"half\":{\"dtype\":\"F16\","
             "\"x\":[{},[1,-2.5e3,null,true,false]],\"shape\":[1],\"data_offsets\":[2,4]}}";
    assert_int_equal(parse(header, 4, &image, &file, &error), RT_OK);
    assert_int_equal(file.count, 2);
    assert_string_equal(file.entries[0].name, "half");
    assert_int_equal(file.entries[0].stored, RT_STORED_F16);
    assert_string_equal(file.entries[1].name, "new\xf0\x9f\x98\x80");
    assert_int_equal(file.entries[1].stored, RT_STORED_OTHER);
    assert_string_equal(file.entries[1].dtype, "F4_E2M1");
    rt_safetensors_free(&file);
    free(image.bytes);
}

/* ---- what it refuses ------------------------------------------------------------------------ */

static void test_bad_headers(void **state)
{
    (void)state;
    expect_refused("", 0, "the header of 0 bytes is not an object of JSON");
    expect_refused("[]", 0, "not an object");
    expect_refused("7", 0, "not an object");
    expect_refused("{", 0, "the header of 1 bytes has no string at byte 1");
    expect_refused("{} x", 0, "more than one value at byte 3");
    expect_refused("{\"t\"}", 0, "no ':' behind a key at byte 4");
    expect_refused("{\"t\":{},}", 0, "no string at byte 8");
    expect_refused("{\"t\":{} \"u\":{}}", 0, "no ',' or '}' at byte 8");
    expect_refused("{\"t\":[1 2]}", 0, "no ',' or ']' at byte 8");
    expect_refused("{\"t\":[1,]}", 0, "no value at byte 8");
    expect_refused("{\"t\":01}", 0, "a number that is none");
    expect_refused("{\"t\":1.}", 0, "a number that is none");
    expect_refused("{\"t\":-}", 0, "a number that is none");
    expect_refused("{\"t\":1e+}", 0, "a number that is none");
    expect_refused("{\"t\":nul}", 0, "a word that is none at byte 5");
    expect_refused("{\"t", 0, "a string without an end at byte 3");
    expect_refused("{\"\\x\":1}", 0, "an unknown escape at byte 2");
    expect_refused("{\"\\u12g4\":1}", 0, "an unknown escape at byte 2");
    expect_refused("{\"a\nb\":1}", 0, "a control character in a string at byte 3");
    expect_refused("{\"t\":1}", 0, "entry t is not an object");
    expect_refused("{\"t\":{}}", 0, "tensor t has no dtype");
    expect_refused("{\"t\":{\"dtype\":3}}", 0, "dtype of tensor t is not a string");
    expect_refused("{\"t\":{\"dtype\":\"F32\"}}", 0, "tensor t has no shape");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":4}}", 0, "no shape that is a list");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[]}}", 0, "tensor t has no data_offsets");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0]}}", 4,
                   "not two whole numbers");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4,4]}}", 4,
                   "not two whole numbers");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,\"4\"]}}", 4,
                   "not two whole numbers");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":{}}}", 4,
                   "not two whole numbers");
    char deep[200] = "{\"t\":";
    memset(deep + 5, '[', 100);
    expect_refused(deep, 0, "more than 64 levels at byte 68");
}

static void test_bad_numbers(void **state)
{
    (void)state;
    expect_refused("{\"t\":" ENTRY("F32", "[-1]", "0", "4") "}", 4, "dimension 0 of tensor t");
    expect_refused("{\"t\":" ENTRY("F32", "[1,1.5]", "0", "4") "}", 4, "dimension 1 of tensor t");
    expect_refused("{\"t\":" ENTRY("F32", "[1e300]", "0", "4") "}", 4, "dimension 0 of tensor t");
    expect_refused("{\"t\":" ENTRY("F32", "[true]", "0", "4") "}", 4, "dimension 0 of tensor t");
    expect_refused("{\"t\":" ENTRY("F32", "[1]", "-1", "4") "}", 4, "not two whole numbers");
    expect_refused("{\"t\":" ENTRY("F32", "[1]", "0", "4.5") "}", 4, "not two whole numbers");
    expect_refused("{\"t\":" ENTRY("F32", "[1]", "4", "0") "}", 4, "[4, 0] of tensor t");
    expect_refused("{\"t\":" ENTRY("F32", "[1]", "0", "5") "}", 4, "lie in the 4 bytes");
    expect_refused("{\"t\":" ENTRY("F32", "[1]", "0", "9007199254740992") "}", 4,
                   "lie in the 4 bytes");
    expect_refused("{\"t\":" ENTRY("F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4,
                   "more than 8 dimensions");
    expect_refused("{\"t\":" ENTRY("F32", "[4294967296,4294967296]", "0", "0") "}", 0,
                   "more elements than 64 bits");
    /* 2^62 elements of 4 bytes are 0 bytes in 64 bits. */
    expect_refused("{\"t\":" ENTRY("F32", "[2147483648,2147483648]", "0", "0") "}", 0,
                   "4611686018427387904 elements of F32");
    expect_refused("{\"t\":" ENTRY("BF16", "[3]", "0", "4") "}", 4, "3 elements of BF16");
    expect_refused("{\"t\":" ENTRY("F32", "[]", "0", "0") "}", 0, "1 elements of F32");
}

static void test_bad_cover(void **state)
{
    (void)state;
    const char *twice =
        "{\"t\":" ENTRY("F32", "[1]", "0", "4") ",\"t\":" ENTRY("F32", "[1]", "4", "8") "}";
    expect_refused(twice, 8, "tensor t stands twice in the header");
    const char *overlap =
        "{\"a\":" ENTRY("F32", "[1]", "0", "4") ",\"b\":" ENTRY("F32", "[1]", "2", "6") "}";
    expect_refused(overlap, 6, "b begins at byte 2 of the data, the one before it ends at 4");
    const char *gap =
        "{\"a\":" ENTRY("F32", "[1]", "0", "4") ",\"b\":" ENTRY("F32", "[1]", "5", "9") "}";
    expect_refused(gap, 9, "b begins at byte 5 of the data, the one before it ends at 4");
    expect_refused("{\"a\":" ENTRY("F32", "[1]", "0", "4") "}", 5,
                   "take 4 bytes of data, the file has 5");
    expect_refused("{}", 1, "take 0 bytes of data, the file has 1");
}

static void test_bad_length(void **state)
{
    (void)state;
    const struct {
        uint64_t header_bytes;
        const char *words;
    } cases[] = {
        {.header_bytes = 3, .words = "3 bytes does not fit: 2 bytes follow"},
        {.header_bytes = 100000001, .words = "100000001 bytes does not fit"},
        {.header_bytes = UINT64_MAX, .words = "18446744073709551615 bytes does not fit"},
        {.header_bytes = 1, .words = "no string at byte 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct image image = image_of(cases[i].header_bytes, "{}", 2, 0);
        struct rt_safetensors file;
        struct rt_error error;
        assert_int_equal(rt_safetensors_read(image.bytes, image.count, "test", &file, &error),
                         RT_ERR_FILE);
        if (strstr(error.message, cases[i].words) == NULL)
            fail_msg("\"%s\", expected \"%s\"", error.message, cases[i].words);
        free(image.bytes);
    }
    static const char json[] = "{\n \"architectures\": []}";
    struct rt_safetensors text;
    struct rt_error why;
    assert_int_equal(rt_safetensors_read(json, sizeof(json), "x.json", &text, &why), RT_ERR_FILE);
    assert_string_equal(why.message, "x.json: is text, as JSON begins, and no safetensors file");
    const struct image nul = image_of(4, "{\"\0\"", 4, 0);
    struct rt_safetensors file;
    struct rt_error error;
    assert_int_equal(rt_safetensors_read(nul.bytes, nul.count, "test", &file, &error), RT_ERR_FILE);
    if (!strstr(error.message, "has a NUL at byte 2"))
        fail_msg("%s", error.message);
    free(nul.bytes);
}

/* A reader that takes the first of two and one that takes the last would differ. */
static void test_keys_that_stand_twice(void **state)
{
    (void)state;
    const char *entry =
        "{\"t\":" ENTRY("F32", "[1]", "0", "4") ",\"\\u0074\":" ENTRY("F32", "[1]", "4", "8") "}";
    expect_refused(entry, 8, "tensor t stands twice in the header");
    expect_refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "key __metadata__ stands twice");
    expect_refused(
        "{\"t\":{\"dtype\":\"F32\",\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
        "key dtype stands twice in t");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"shape\":[2]}}",
                   4, "key shape stands twice in t");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],"
                   "\"data_offsets\":[0,4]}}",
                   4, "key data_offsets stands twice in t");
}

static void test_text_that_is_no_utf8(void **state)
{
    (void)state;
    static const char *const good[] = {"\xc2\x80",         "\xdf\xbf",         "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",     "\xee\x80\x80",     "\xef\xbf\xbf",
                                       "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "\\\\u0000"};
    static const char *const bad[] = {
        "\x80",         "\xc0\x80",         "\xc1\xbf",         "\xc2",
        "\xc2x",        "\xe0\x9f\xbf",     "\xe1\x80",         "\xed\xa0\x80",
        "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xff",         "\xe2\x82"};
    char header[256];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct image image;
        struct rt_safetensors file;
        struct rt_error error = {0};
        (void)snprintf(header, sizeof header, "{\"%s\":" ENTRY("F32", "[1]", "0", "4") "}",
                       good[i]);
        if (parse(header, 4, &image, &file, &error) != RT_OK)
            fail_msg("%s: %s", header, error.message);
        rt_safetensors_free(&file);
        free(image.bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        (void)snprintf(header, sizeof header, "{\"%s\":" ENTRY("F32", "[1]", "0", "4") "}", bad[i]);
        expect_refused(header, 4, "has text that is no UTF-8 at byte");
        (void)snprintf(header, sizeof header, "{\"__metadata__\":{\"a\":\"%s\"}}", bad[i]);
        expect_refused(header, 0, "has text that is no UTF-8 at byte");
    }
    expect_refused("{\"t\\u0000x\":" ENTRY("F32", "[1]", "0", "4") "}", 4,
                   "has an escaped NUL at byte 3");
    expect_refused("{\"\\\\\\u0000\":" ENTRY("F32", "[1]", "0", "4") "}", 4, "an escaped NUL");
    expect_refused("{\"\xc3", 0, "no UTF-8 at byte 2");
    expect_refused("{}\\", 0, "more than one value at byte 2");
}

/* Every beginning of a good file is a bad file. */
static void test_truncated(void **state)
{
    (void)state;
    struct image image;
    struct rt_safetensors file;
    const char *header =
        "{\"a\":" ENTRY("BF16", "[2]", "0", "4") ",\"b\":" ENTRY("I32", "[1]", "4", "8") "}";
    assert_int_equal(parse(header, 8, &image, &file, NULL), RT_OK);
    rt_safetensors_free(&file);
    for (size_t count = 0; count < image.count; count++) {
        unsigned char *part = malloc(count > 0 ? count : 1);
        assert_non_null(part);
        memcpy(part, image.bytes, count);
        struct rt_error error = {0};
        if (rt_safetensors_read(part, count, "part", &file, &error) != RT_ERR_FILE || file.entries)
            fail_msg("the first %zu of %zu bytes were accepted", count, image.count);
        assert_true(strncmp(error.message, "part: ", 6) == 0);
        free(part);
    }
    free(image.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_empty_and_metadata),
        cmocka_unit_test(test_what_is_not_known),
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_bad_numbers),
        cmocka_unit_test(test_bad_cover),
        cmocka_unit_test(test_bad_length),
        cmocka_unit_test(test_keys_that_stand_twice),
        cmocka_unit_test(test_text_that_is_no_utf8),
        cmocka_unit_test(test_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
