/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: one file and many, what is refused, how numbers are converted, random ones. */
#include "tests/models/scratch.h"

#include "common/bf16.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int setup(void **state)
{
    (void)state;
    scratch_make();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

static rt_checkpoint *open_good(const char *path)
{
    rt_checkpoint *c = NULL;
    struct rt_error err = {.status = RT_OK};
    if (rt_checkpoint_open(path, &c, &err) != RT_OK)
        fail_msg("%s: %s", path, err.message);
    return c;
}

static void refuse(const char *path, const char *const *parts, size_t count)
{
    rt_checkpoint *c = (rt_checkpoint *)&parts;
    struct rt_error err = {.status = RT_OK};
    const enum rt_status status = rt_checkpoint_open(path, &c, &err);
    expect(path, status, &err, RT_ERR_FILE, parts, count);
    assert_null(c);
}
#define REFUSE(path, ...)                                                                          \
    do {                                                                                           \
        const char *const parts_[] = {__VA_ARGS__};                                                \
        refuse((path), parts_, COUNT(parts_));                                                     \
    } while (0)

/* ---- files ----------------------------------------------------------------------------------- */

static const float floats[6] = {1, -2, 3.5f, 0x1.01p0f, 0x1.03p0f, 0x1.018p0f};
static const uint16_t halfs[6] = {0x3C00, 0xC000, 0x0001, 0x83FF, 0x7C00, 0x7E01};
static const int32_t ints[3] = {7, -1, 2147483647};

static void write_single(const char *name)
{
    const struct scratch_tensor tensors[] = {{"odd", "U8", "[1]", "x", 1},
                                             {"w", "F32", "[2, 3]", floats, sizeof(floats)},
                                             {"h", "F16", "[3, 1, 2]", halfs, sizeof(halfs)},
                                             {"i", "I32", "[3]", ints, sizeof(ints)},
                                             {"e", "F8_E4M3", "[2]", "xy", 2}};
    scratch_safetensors(name, tensors, COUNT(tensors));
}

static void test_single(void **state)
{
    (void)state;
    struct rt_error err = {.status = RT_OK};
    struct rt_stored_tensor t = {.struct_size = sizeof(t)};
    write_single("model.safetensors");
    rt_checkpoint *c = open_good(scratch_path(""));
    assert_int_equal(rt_checkpoint_count(c), 5);
    assert_int_equal(rt_checkpoint_at(c, 0, &t, &err), RT_OK);
    assert_string_equal(t.name, "e");
    assert_int_equal(t.stored, RT_STORED_OTHER);
    assert_int_equal(rt_checkpoint_find(c, "h", 0, NULL, &t, &err), RT_OK);
    assert_int_equal(t.stored, RT_STORED_F16);
    assert_string_equal(t.dtype, "F16");
    assert_string_equal(t.file, scratch_path("model.safetensors"));
    assert_memory_equal(t.data, halfs, sizeof(halfs));
    assert_int_equal(t.bytes, sizeof(halfs));
    assert_int_equal(t.rows, 3);
    assert_int_equal(t.columns, 2);
    assert_int_equal(t.rank, 3);
    assert_int_equal(t.shape[0], 3);
    const uint64_t right[2] = {2, 3}, wrong[2] = {3, 2};
    assert_int_equal(rt_checkpoint_find(c, "w", 2, right, &t, &err), RT_OK);
    assert_int_equal(rt_checkpoint_find(c, "w", 2, wrong, &t, &err), RT_ERR_FILE);
    assert_non_null(strstr(err.message, "tensor w has shape [2, 3], expected [3, 2]"));
    assert_int_equal(rt_checkpoint_find(c, "w", 0, right, &t, &err), RT_ERR_FILE);
    assert_non_null(strstr(err.message, "expected []"));
    assert_int_equal(rt_checkpoint_find(c, "v", 0, NULL, &t, &err), RT_ERR_FILE);
    assert_non_null(strstr(err.message, "no tensor v among its 5"));
    assert_int_equal(rt_checkpoint_at(c, 5, &t, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "index 5 of 5"));
    rt_checkpoint_close(&c);
    assert_null(c);
    rt_checkpoint_close(&c);

    c = open_good(scratch_path("model.safetensors"));
    assert_int_equal(rt_checkpoint_count(c), 5);
    rt_checkpoint_close(&c);
}

static void test_struct_sizes(void **state)
{
    (void)state;
    struct rt_error err = {.status = RT_OK};
    struct {
        struct rt_stored_tensor t;
        uint32_t tail;
    } grown = {.t.struct_size = sizeof(grown)};
    write_single("model.safetensors");
    rt_checkpoint *c = open_good(scratch_path(""));
    assert_int_equal(rt_checkpoint_at(c, 4, &grown.t, &err), RT_OK);
    assert_int_equal(grown.t.rank, 2);
    grown.tail = 1;
    assert_int_equal(rt_checkpoint_at(c, 4, &grown.t, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "is not 0"));
    grown.t = (struct rt_stored_tensor){.struct_size = 16, .rank = 77};
    assert_int_equal(rt_checkpoint_at(c, 4, &grown.t, &err), RT_OK);
    assert_string_equal(grown.t.name, "w");
    assert_int_equal(grown.t.rank, 77);
    grown.t.struct_size = 0;
    assert_int_equal(rt_checkpoint_at(c, 4, &grown.t, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "out->struct_size is 0"));
    rt_checkpoint_close(&c);
}

/* Two files and an index; model.safetensors, where it is there too, is all. */
static void write_listed(const char *index)
{
    const struct scratch_tensor first[] = {{"b", "F32", "[2, 3]", floats, sizeof(floats)},
                                           {"unlisted", "I32", "[3]", ints, sizeof(ints)}};
    const struct scratch_tensor second[] = {{"a", "I32", "[3]", ints, sizeof(ints)},
                                            {"c", "F16", "[6]", halfs, sizeof(halfs)}};
    scratch_safetensors("one.safetensors", first, 2);
    scratch_safetensors("two.safetensors", second, 2);
    scratch_text("model.safetensors.index.json", index);
}

#define MAP(lines) "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {" lines "}}"
#define ALL "\"a\": \"two.safetensors\", \"b\": \"one.safetensors\", \"c\": \"two.safetensors\""

static void test_listed(void **state)
{
    (void)state;
    struct rt_error err = {.status = RT_OK};
    struct rt_stored_tensor t = {.struct_size = sizeof(t)};
    write_listed(MAP(ALL));
    rt_checkpoint *c = open_good(scratch_path(""));
    static const char *const files[] = {"two.safetensors", "one.safetensors", "two.safetensors"};
    static const char *const names[] = {"a", "b", "c"};
    assert_int_equal(rt_checkpoint_count(c), 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(rt_checkpoint_at(c, i, &t, &err), RT_OK);
        assert_string_equal(t.name, names[i]);
        assert_string_equal(t.file, scratch_path(files[i]));
    }
    rt_checkpoint_close(&c);
    write_single("model.safetensors");
    c = open_good(scratch_path(""));
    assert_int_equal(rt_checkpoint_count(c), 5);
    rt_checkpoint_close(&c);
}

static void test_bad_index(void **state)
{
    (void)state;
    static const struct {
        const char *index, *words;
    } cases[] = {
        {"", "the index is not an object of JSON"},
        {"[]", "the index is not an object of JSON"},
        {"{\"weight_map\": {}", ":1: the index has no ',' or '}' at column 18"},
        {"{\"weight_map\": {}} 1", "more than one value at column 20"},
        {"{}", "the index has no weight_map that is an object"},
        {"{\"weight_map\": [1]}", "the index has no weight_map that is an object"},
        {"{\"weight_map\": {}}", "the index lists no tensor"},
        {"{\"weight_map\": {}, \"weight_map\": {}}", "weight_map stands twice"},
        {MAP("\"a\": 1"), "the file of tensor a is not a string"},
        {MAP("\"a\": \"../two.safetensors\""),
         "tensor a is said to be in \"../two.safetensors\": must"},
        {MAP("\"a\": \"\""), "tensor a is said to be in \"\""},
        {MAP("\"a\": \"..\""), "tensor a is said to be in \"..\""},
        {MAP("\"a\": \"two.safetensors\", \"a\": \"one.safetensors\""),
         "tensor a stands twice in the index"},
        {MAP(ALL ", \"d\": \"one.safetensors\""),
         "one.safetensors: has no tensor d among its 2, which the index says it has"},
        {MAP(ALL ", \"d\": \"three.safetensors\""), "three.safetensors: No such file"},
        {MAP("\"c\": \"one.safetensors\""), "one.safetensors: has no tensor c among its 2"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_listed(cases[i].index);
        REFUSE(scratch_path(""), cases[i].words);
    }
}

static void test_bad_files(void **state)
{
    (void)state;
    REFUSE("/nonexistent/model", "/nonexistent/model: No such file");
    REFUSE("/dev/null", "/dev/null: not a regular file");
    REFUSE(scratch_path(""), "has neither model.safetensors nor model.safetensors.index.json");
    scratch_text("model.safetensors", "");
    REFUSE(scratch_path(""), "model.safetensors: 0 bytes are too few");
    write_single("model.safetensors");
    assert_int_equal(truncate(scratch_path("model.safetensors"), 300), 0);
    REFUSE(scratch_path(""), "model.safetensors: ", "of tensor ", "do not lie in the");
    /* Nobody writes into it: who waited for that would wait for ever. */
    assert_int_equal(mkfifo(scratch_path("pipe"), 0600), 0);
    (void)alarm(20);
    REFUSE(scratch_path("pipe"), "pipe: not a regular file");
    (void)alarm(0);
    assert_int_equal(remove(scratch_path("pipe")), 0);
    char long_path[600];
    memset(long_path, 'x', sizeof(long_path) - 1);
    long_path[0] = '/';
    long_path[sizeof(long_path) - 1] = '\0';
    REFUSE(long_path, "...xxxx", "xxxx: File name too long");
}

/* What a clone of a large repository, or a moved cache, has in a file's place. */
static void test_not_the_file(void **state)
{
    (void)state;
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\n"
                                  "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2c"
                                  "a24d17e2393\nsize 4976698672\n";
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    for (size_t i = 0; i < COUNT(names); i++) {
        scratch_text(names[i], pointer);
        REFUSE(scratch_path(""), names[i], ": a Git LFS pointer of 135 bytes in the file's place");
        assert_int_equal(remove(scratch_path(names[i])), 0);
        assert_int_equal(symlink("../blobs/nowhere", scratch_path(names[i])), 0);
        REFUSE(scratch_path(""), names[i], ": a symbolic link to a file that is not there");
        assert_int_equal(remove(scratch_path(names[i])), 0);
    }
}

/* ---- numbers --------------------------------------------------------------------------------- */

static void test_copies(void **state)
{
    (void)state;
    struct rt_error err = {.status = RT_OK};
    uint16_t bf16[6];
    float f32[6];
    int32_t i32[3];
    write_single("model.safetensors");
    rt_checkpoint *c = open_good(scratch_path(""));
    assert_int_equal(rt_checkpoint_copy(c, "w", 0, 2, RT_DTYPE_F32, f32, &err), RT_OK);
    assert_memory_equal(f32, floats, sizeof(floats));
    assert_int_equal(rt_checkpoint_copy(c, "w", 1, 1, RT_DTYPE_BF16, bf16, &err), RT_OK);
    /* Halfway between two: to the even one, below and above; a little more than halfway: up. */
    static const uint16_t rounded[3] = {0x3F80, 0x3F82, 0x3F81};
    assert_memory_equal(bf16, rounded, sizeof(rounded));
    assert_int_equal(rt_checkpoint_copy(c, "h", 0, 3, RT_DTYPE_F32, f32, &err), RT_OK);
    static const float widened[5] = {1, -2, 0x1p-24f, -0x1.ff8p-15f, INFINITY};
    assert_memory_equal(f32, widened, sizeof(widened));
    assert_true(isnan(f32[5]));
    assert_int_equal(rt_checkpoint_copy(c, "h", 0, 3, RT_DTYPE_BF16, bf16, &err), RT_OK);
    for (int i = 0; i < 5; i++)
        assert_int_equal(bf16[i], rt_float_to_bf16(widened[i]));
    assert_true(isnan(rt_bf16_to_float(bf16[5])));
    assert_int_equal(rt_checkpoint_copy(c, "i", 0, 1, RT_DTYPE_I32, i32, &err), RT_OK);
    assert_memory_equal(i32, ints, sizeof(ints));
    assert_int_equal(rt_checkpoint_copy(c, "w", 2, 0, RT_DTYPE_F32, NULL, &err), RT_OK);
    rt_checkpoint_close(&c);
}

static void test_bad_copies(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t first, count;
        enum rt_dtype dtype;
        enum rt_status status;
        const char *words;
    } cases[] = {
        {"v", 0, 1, RT_DTYPE_F32, RT_ERR_FILE, "no tensor v among its 5"},
        {"i", 0, 1, RT_DTYPE_F32, RT_ERR_FILE, "tensor i has dtype I32, expected BF16, F16 or F32"},
        {"e", 0, 1, RT_DTYPE_BF16, RT_ERR_FILE, "tensor e has dtype F8_E4M3, expected BF16"},
        {"w", 0, 1, RT_DTYPE_I32, RT_ERR_FILE, "tensor w has dtype F32, expected I32"},
        {"w", 0, 1, RT_DTYPE_U8, RT_ERR_INVALID, "dtype is 4: must be bf16 (1), f32 (2) or i32"},
        {"w", 2, 1, RT_DTYPE_F32, RT_ERR_INVALID, "1 rows from row 2 on were asked for, it has 2"},
        {"w", 1, UINT64_MAX, RT_DTYPE_F32, RT_ERR_INVALID,
         "18446744073709551615 rows from row 1 on were"},
    };
    float out[6];
    write_single("model.safetensors");
    rt_checkpoint *c = open_good(scratch_path(""));
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct rt_error err = {.status = RT_OK};
        const enum rt_status status = rt_checkpoint_copy(c, cases[i].name, cases[i].first,
                                                         cases[i].count, cases[i].dtype, out, &err);
        expect(cases[i].name, status, &err, cases[i].status, &cases[i].words, 1);
    }
    struct rt_error err = {.status = RT_OK};
    for (size_t off = 1; off < 4; off++) {
        void *const odd = (char *)out + off;
        assert_int_equal(rt_checkpoint_copy(c, "w", 0, 1, RT_DTYPE_F32, odd, &err), RT_ERR_INVALID);
        assert_non_null(strstr(err.message, "is not 4-byte aligned"));
        assert_int_equal(rt_checkpoint_copy(c, "w", 0, 1, RT_DTYPE_BF16, odd, &err),
                         off == 2 ? RT_OK : RT_ERR_INVALID);
    }
    assert_int_equal(rt_checkpoint_copy(c, "w", 0, 1, RT_DTYPE_F32, NULL, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_checkpoint_copy(NULL, "w", 0, 1, RT_DTYPE_F32, out, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_checkpoint_copy(c, NULL, 0, 1, RT_DTYPE_F32, out, NULL), RT_ERR_INVALID);
    rt_checkpoint_close(&c);
}

/* ---- random ones ----------------------------------------------------------------------------- */

#define V3 RT_TEST_DATA "/golden/tiny_deepseek_v3/config.json"
#define KV_B "model.layers.1.self_attn.kv_b_proj.weight"

static rt_checkpoint *random_of(uint64_t seed)
{
    rt_checkpoint *c = NULL;
    struct rt_error err = {.status = RT_OK};
    if (rt_checkpoint_random(V3, seed, &c, &err) != RT_OK)
        fail_msg("%s", err.message);
    return c;
}

/* All tensors of the real one, in its shapes. */
static void test_random_names(void **state)
{
    (void)state;
    struct rt_error err = {.status = RT_OK};
    struct rt_stored_tensor a = {.struct_size = sizeof(a)}, b = a;
    rt_checkpoint *c = random_of(1), *real = open_good(RT_TEST_DATA "/golden/tiny_deepseek_v3");
    assert_int_equal(rt_checkpoint_count(c), rt_checkpoint_count(real));
    for (uint64_t i = 0; i < rt_checkpoint_count(c); i++) {
        assert_int_equal(rt_checkpoint_at(c, i, &a, &err), RT_OK);
        assert_int_equal(rt_checkpoint_at(real, i, &b, &err), RT_OK);
        assert_string_equal(a.name, b.name);
        assert_int_equal(a.rank, b.rank);
        assert_memory_equal(a.shape, b.shape, sizeof(a.shape));
        assert_int_equal(a.bytes, b.bytes);
        assert_null(a.data);
        assert_string_equal(a.file, "");
    }
    rt_checkpoint_close(&c);
    rt_checkpoint_close(&real);
}

static void *memory(size_t bytes)
{
    void *p = malloc(bytes);
    if (!p)
        abort();
    return p;
}

/* Rows of an odd length begin anywhere among the four elements of a hash. */
static void test_random_begin(void **state)
{
    (void)state;
    const struct rt_stored_entry t = {.name = "w", .rank = 2, .shape = {3, 7}};
    uint16_t all[21], part[21];
    rt_random_values(&t, 5, 0, 21, all);
    for (uint64_t first = 0; first < 21; first++) {
        rt_random_values(&t, 5, first, 21 - first, part);
        assert_memory_equal(part, all + first, (21 - first) * sizeof(part[0]));
    }
}

/* The same wherever a copy begins and in both dtypes; others for another seed, name, place. */
static void test_random_values(void **state)
{
    (void)state;
    enum { ROWS = 1024, COLUMNS = 512, COUNT_ALL = ROWS * COLUMNS };
    uint16_t *all = memory(COUNT_ALL * 2), *other = memory(COUNT_ALL * 2), part[3 * COLUMNS];
    float *wide = memory(COUNT_ALL * sizeof(float)), norm[512];
    double sum = 0, squares = 0;
    rt_checkpoint *c = random_of(7), *d = random_of(8);
    assert_int_equal(rt_checkpoint_copy(c, KV_B, 0, ROWS, RT_DTYPE_BF16, all, NULL), RT_OK);
    assert_int_equal(rt_checkpoint_copy(c, KV_B, 5, 3, RT_DTYPE_BF16, part, NULL), RT_OK);
    assert_memory_equal(part, all + 5 * COLUMNS, sizeof(part));
    assert_int_equal(rt_checkpoint_copy(c, KV_B, 0, ROWS, RT_DTYPE_F32, wide, NULL), RT_OK);
    for (uint32_t i = 0; i < COUNT_ALL; i++) {
        assert_true(wide[i] == rt_bf16_to_float(all[i]));
        sum += (double)wide[i];
        squares += (double)wide[i] * (double)wide[i];
    }
    /* Of half a million draws: six deviations of the mean are 0.008 of one. */
    const double deviation = sqrt(squares / COUNT_ALL) * sqrt(COLUMNS);
    assert_true(fabs(deviation - 1) < 0.01);
    assert_true(fabs(sum / COUNT_ALL) * sqrt(COLUMNS) < 0.009);
    assert_int_equal(rt_checkpoint_copy(d, KV_B, 0, ROWS, RT_DTYPE_BF16, other, NULL), RT_OK);
    assert_true(memcmp(all, other, 64) != 0);
    assert_int_equal(rt_checkpoint_copy(c, "model.layers.0.self_attn.kv_b_proj.weight", 0, ROWS,
                                        RT_DTYPE_BF16, other, NULL),
                     RT_OK);
    assert_true(memcmp(all, other, 64) != 0);
    assert_true(memcmp(all, all + COLUMNS, 64) != 0);
    assert_int_equal(rt_checkpoint_copy(c, "model.layers.0.self_attn.kv_a_layernorm.weight", 0, 1,
                                        RT_DTYPE_F32, norm, NULL),
                     RT_OK);
    for (uint32_t i = 0; i < 512; i++)
        assert_true(norm[i] == 1.0f);
    rt_checkpoint_close(&c);
    rt_checkpoint_close(&d);
    free(all);
    free(other);
    free(wide);
}

static void test_null_arguments(void **state)
{
    (void)state;
    rt_checkpoint *c = NULL;
    struct rt_stored_tensor t = {.struct_size = sizeof(t)};
    assert_int_equal(rt_checkpoint_open(NULL, &c, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_checkpoint_open("x", NULL, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_checkpoint_random(NULL, 0, &c, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_checkpoint_random("x", 0, NULL, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_checkpoint_random("/nonexistent", 0, &c, NULL), RT_ERR_FILE);
    assert_null(c);
    assert_int_equal(rt_checkpoint_count(NULL), 0);
    assert_int_equal(rt_checkpoint_at(NULL, 0, &t, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_checkpoint_find(NULL, "x", 0, NULL, &t, NULL), RT_ERR_INVALID);
    rt_checkpoint_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_single, setup, teardown),
        cmocka_unit_test_setup_teardown(test_struct_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_listed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_index, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_copies, setup, teardown),
        cmocka_unit_test(test_random_names),
        cmocka_unit_test(test_random_begin),
        cmocka_unit_test(test_random_values),
        cmocka_unit_test(test_null_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
