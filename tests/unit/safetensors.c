/* SPDX-License-Identifier: Apache-2.0 */
/* The example programs' safetensors reader: what it reads, and everything that it refuses. */
#include "examples/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* Parses header and that many bytes of data (0x11, 0x22, 0x33, ...). */
static enum rt_status parse(const char *header, size_t data_count, struct image *image,
                            struct safetensors **file, struct rt_error *error)
{
    *image = image_of(strlen(header), header, strlen(header), data_count);
    return safetensors_parse(image->bytes, image->count, "test", file, error);
}

static void expect_refused(const char *header, size_t data_count, const char *words)
{
    struct image image;
    struct safetensors *file;
    struct rt_error error = {0};
    const enum rt_status status = parse(header, data_count, &image, &file, &error);
    if (status != RT_ERR_FILE || file != NULL || error.status != RT_ERR_FILE ||
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
    struct safetensors *file;
    struct rt_error error;
    /* The one byte in front makes all others unaligned. */
    const char *header = "{\"a\":" ENTRY("U8", "[1]", "0", "1") ",\"c\":" ENTRY(
        "BF16", "[2]", "1", "5") ",\"b\":" ENTRY("F32", "[1,2]", "5",
                                                 "13") ",\"i\":" ENTRY("I32", "[]", "13",
                                                                       "17") "}  ";
    assert_int_equal(parse(header, 17, &image, &file, &error), RT_OK);
    assert_int_equal(safetensors_count(file), 4);
    assert_string_equal(safetensors_at(file, 0)->name, "a");
    assert_string_equal(safetensors_at(file, 1)->name, "b");
    assert_null(safetensors_at(file, 4));

    const struct safetensors_tensor *tensor;
    float floats[2];
    uint32_t bits[2];
    assert_int_equal(safetensors_find(file, "c", &tensor, &error), RT_OK);
    assert_int_equal(tensor->dtype, SAFETENSORS_BF16);
    assert_int_equal(tensor->elements, 2);
    assert_int_equal(safetensors_read_floats(tensor, 0, 2, floats, &error), RT_OK);
    memcpy(bits, floats, sizeof bits);
    assert_int_equal(bits[0], 0x33220000u);
    assert_int_equal(bits[1], 0x55440000u);

    assert_int_equal(safetensors_find(file, "b", &tensor, &error), RT_OK);
    assert_int_equal(tensor->rank, 2);
    assert_int_equal(tensor->shape[1], 2);
    assert_int_equal(safetensors_read_floats(tensor, 1, 1, floats, &error), RT_OK);
    memcpy(bits, floats, sizeof bits[0]);
    assert_int_equal(bits[0], 0xddccbbaau);

    int32_t value;
    assert_int_equal(safetensors_find(file, "i", &tensor, &error), RT_OK);
    assert_int_equal(tensor->rank, 0);
    assert_int_equal(safetensors_read_ints(tensor, 0, 1, &value, &error), RT_OK);
    assert_int_equal((uint32_t)value, 0x2110ffeeu);
    safetensors_close(&file);
    assert_null(file);
    safetensors_close(&file);
    free(image.bytes);
}

static void test_empty_and_metadata(void **state)
{
    (void)state;
    struct image image;
    struct safetensors *file;
    const struct safetensors_tensor *tensor;
    struct rt_error error;
    assert_int_equal(parse("{}", 0, &image, &file, &error), RT_OK);
    assert_int_equal(safetensors_count(file), 0);
    assert_int_equal(safetensors_find(file, "x", &tensor, &error), RT_ERR_FILE);
    safetensors_close(&file);
    free(image.bytes);

    const char *header =
        "{\"__metadata__\":{\"format\":\"pt\"},\"none\":" ENTRY("F32", "[0,7]", "0", "0") "}";
    assert_int_equal(parse(header, 0, &image, &file, &error), RT_OK);
    assert_int_equal(safetensors_count(file), 1);
    assert_int_equal(safetensors_find(file, "none", &tensor, NULL), RT_OK);
    assert_int_equal(tensor->elements, 0);
    assert_int_equal(safetensors_read_floats(tensor, 0, 0, NULL, NULL), RT_OK);
    assert_int_equal(safetensors_find(file, "__metadata__", &tensor, NULL), RT_ERR_FILE);
    safetensors_close(&file);
    free(image.bytes);
}

static void test_shapes_and_ranges(void **state)
{
    (void)state;
    struct image image;
    struct safetensors *file;
    const struct safetensors_tensor *tensor;
    struct rt_error error;
    int32_t ints[8];
    float floats[8];
    const char *header = "{\"w\":" ENTRY("I32", "[2,3]", "0", "24") "}";
    assert_int_equal(parse(header, 24, &image, &file, &error), RT_OK);
    const uint64_t right[2] = {2, 3}, wrong[2] = {3, 2};
    assert_int_equal(safetensors_find_shaped(file, "w", 2, right, &tensor, &error), RT_OK);
    assert_int_equal(safetensors_read_ints(tensor, 6, 0, ints, &error), RT_OK);
    assert_int_equal(safetensors_read_ints(tensor, 6, 1, ints, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "1 elements from 6 on"));
    assert_int_equal(safetensors_read_ints(tensor, 1, UINT64_MAX, ints, &error), RT_ERR_FILE);
    assert_int_equal(safetensors_read_floats(tensor, 0, 1, floats, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "I32, expected BF16 or F32"));
    assert_int_equal(safetensors_find_shaped(file, "w", 2, wrong, &tensor, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "[2, 3], expected [3, 2]"));
    assert_null(tensor);
    assert_int_equal(safetensors_find_shaped(file, "w", 0, NULL, &tensor, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "expected []"));
    assert_int_equal(safetensors_find(file, "v", &tensor, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "no tensor v among its 1"));
    safetensors_close(&file);
    free(image.bytes);
}

static void test_other_dtypes(void **state)
{
    (void)state;
    struct image image;
    struct safetensors *file;
    const struct safetensors_tensor *tensor;
    struct rt_error error;
    const char *header = "{\"new\":" ENTRY("F4_E2M1", "[3]", "0",
                                           "2") ",\"half\":" ENTRY("F16", "[1]", "2", "4") "}";
    assert_int_equal(parse(header, 4, &image, &file, &error), RT_OK);
    assert_int_equal(safetensors_find(file, "new", &tensor, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "tensor new has dtype F4_E2M1"));
    assert_int_equal(safetensors_find(file, "half", &tensor, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "tensor half has dtype F16"));
    safetensors_close(&file);
    free(image.bytes);
}

/* ---- what it refuses ------------------------------------------------------------------------ */

static void test_bad_headers(void **state)
{
    (void)state;
    expect_refused("", 0, "no JSON from byte 0 of 0 on");
    expect_refused("{", 0, "no JSON from byte 1 of 1 on");
    expect_refused("{} x", 0, "no JSON");
    expect_refused("[]", 0, "not an object");
    expect_refused("7", 0, "not an object");
    expect_refused("{\"t\":1}", 0, "entry t is not an object");
    expect_refused("{\"t\":{}}", 0, "dtype of tensor t is not a string");
    expect_refused("{\"t\":{\"dtype\":3}}", 0, "dtype of tensor t is not a string");
    expect_refused("{\"t\":{\"dtype\":\"F32\"}}", 0, "no shape that is a list");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":4}}", 0, "no shape that is a list");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[]}}", 0, "not two whole numbers");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0]}}", 4,
                   "not two whole numbers");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4,4]}}", 4,
                   "not two whole numbers");
    expect_refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,\"4\"]}}", 4,
                   "not two whole numbers");
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
    expect_refused(twice, 8, "key t stands twice in the header");
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
        {.header_bytes = 1, .words = "no JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct image image = image_of(cases[i].header_bytes, "{}", 2, 0);
        struct safetensors *file;
        struct rt_error error;
        assert_int_equal(safetensors_parse(image.bytes, image.count, "test", &file, &error),
                         RT_ERR_FILE);
        if (strstr(error.message, cases[i].words) == NULL)
            fail_msg("\"%s\", expected \"%s\"", error.message, cases[i].words);
        free(image.bytes);
    }
    const struct image nul = image_of(3, "{\0}", 3, 0);
    struct safetensors *file;
    struct rt_error error;
    assert_int_equal(safetensors_parse(nul.bytes, nul.count, "test", &file, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "has a NUL"));
    free(nul.bytes);
}

/* A reader that takes the first of two and one that takes the last would differ. */
static void test_keys_that_stand_twice(void **state)
{
    (void)state;
    const char *entry =
        "{\"t\":" ENTRY("F32", "[1]", "0", "4") ",\"\\u0074\":" ENTRY("F32", "[1]", "4", "8") "}";
    expect_refused(entry, 8, "key t stands twice in the header");
    expect_refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "key __metadata__ stands twice");
    expect_refused("{\"__metadata__\":{\"a\":\"1\",\"b\":\"2\",\"a\":\"3\"}}", 0,
                   "key a stands twice in __metadata__");
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
        struct safetensors *file;
        struct rt_error error = {0};
        (void)snprintf(header, sizeof header, "{\"%s\":" ENTRY("F32", "[1]", "0", "4") "}",
                       good[i]);
        if (parse(header, 4, &image, &file, &error) != RT_OK)
            fail_msg("%s: %s", header, error.message);
        safetensors_close(&file);
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
    expect_refused("\xc3", 0, "no UTF-8 at byte 0");
    expect_refused("{}\\", 0, "no JSON");
}

/* Every beginning of a good file is a bad file. */
static void test_truncated(void **state)
{
    (void)state;
    struct image image;
    struct safetensors *file;
    const char *header =
        "{\"a\":" ENTRY("BF16", "[2]", "0", "4") ",\"b\":" ENTRY("I32", "[1]", "4", "8") "}";
    assert_int_equal(parse(header, 8, &image, &file, NULL), RT_OK);
    safetensors_close(&file);
    for (size_t count = 0; count < image.count; count++) {
        unsigned char *part = malloc(count > 0 ? count : 1);
        assert_non_null(part);
        memcpy(part, image.bytes, count);
        struct rt_error error = {0};
        if (safetensors_parse(part, count, "part", &file, &error) != RT_ERR_FILE || file != NULL)
            fail_msg("the first %zu of %zu bytes were accepted", count, image.count);
        assert_true(strncmp(error.message, "part: ", 6) == 0);
        free(part);
    }
    free(image.bytes);
}

/* ---- files ---------------------------------------------------------------------------------- */

static void test_files(void **state)
{
    (void)state;
    struct safetensors *file;
    struct rt_error error;
    assert_int_equal(safetensors_open("/nonexistent/model", &file, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "/nonexistent/model: No such file"));
    assert_null(file);
    assert_int_equal(safetensors_open("/", &file, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "not a regular file"));
    assert_int_equal(safetensors_open("/dev/null", &file, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "not a regular file"));
    /* Nobody writes into it: who waited for that would wait for ever. */
    char folder[] = "/tmp/replayrt-safetensors-XXXXXX", pipe[64];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(pipe, sizeof pipe, "%s/pipe", folder);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    (void)alarm(20);
    assert_int_equal(safetensors_open(pipe, &file, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "not a regular file"));
    (void)alarm(0);
    assert_int_equal(remove(pipe), 0);
    assert_int_equal(remove(folder), 0);

    char path[] = "/tmp/replayrt-safetensors-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *out = fdopen(fd, "wb");
    assert_non_null(out);
    assert_int_equal(fflush(out), 0);
    assert_int_equal(safetensors_open(path, &file, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "0 bytes are too few"));

    const char *header = "{\"i\":" ENTRY("I32", "[1]", "0", "4") "}";
    const struct image image = image_of(strlen(header), header, strlen(header), 4);
    assert_int_equal(fwrite(image.bytes, 1, image.count, out), image.count);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(safetensors_open(path, &file, &error), RT_OK);
    const struct safetensors_tensor *tensor;
    int32_t value;
    assert_int_equal(safetensors_find(file, "i", &tensor, &error), RT_OK);
    assert_int_equal(safetensors_read_ints(tensor, 0, 1, &value, &error), RT_OK);
    assert_int_equal(value, 0x44332211);
    safetensors_close(&file);
    assert_int_equal(remove(path), 0);
    free(image.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_empty_and_metadata),
        cmocka_unit_test(test_shapes_and_ranges),
        cmocka_unit_test(test_other_dtypes),
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_bad_numbers),
        cmocka_unit_test(test_bad_cover),
        cmocka_unit_test(test_bad_length),
        cmocka_unit_test(test_keys_that_stand_twice),
        cmocka_unit_test(test_text_that_is_no_utf8),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
