/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config.h"

#include "tests/unit/expect.h"

#include <locale.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define GEOMETRY                                                                                   \
    "geometry: {heads: 16, kv_lora_rank: 512, qk_rope_head_dim: 64, layers: 61, "                  \
    "softmax_scale: 0.1352}\n"

/* A folder of this test alone; every name in it is forgotten at the end. */
static char folder[] = "/tmp/replayrt-config-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static const char *const NAMES[] = {"a.yaml", "a.json", "pipe", "link", "sub/config.json", "sub"};

static void path_of(const char *name, char out[128])
{
    (void)snprintf(out, 128, "%s/%s", folder, name);
}

static int remove_folder(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(NAMES); i++) {
        char path[128];
        path_of(NAMES[i], path);
        (void)remove(path);
    }
    return rmdir(folder);
}

static void write_file(const char *name, const char *text, size_t bytes)
{
    char path[128];
    path_of(name, path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

/* The load fails so, and leaves the configuration alone. */
static void expect_failure(const char *path, enum rt_status status, const char *want)
{
    struct rt_config before, c;
    struct rt_error err = {.message = ""};
    memset(&before, 0x5A, sizeof(before));
    c = before;
    enum rt_status got = rt_config_load(path, &c, &err);
    if (got != status || err.status != status || !strstr(err.message, want))
        fail_msg("%s: %s: %s\nshould say: %s", path, rt_status_string(got), err.message, want);
    assert_memory_equal(&c, &before, sizeof(c));
}

static void expect_name_failure(const char *name, enum rt_status status, const char *want)
{
    char path[128];
    path_of(name, path);
    expect_failure(path, status, want);
}

/* ---- the examples ---------------------------------------------------------------------------- */

static void load_good(const char *path, struct rt_config *c)
{
    struct rt_error err = {.message = ""};
    if (rt_config_load(path, c, &err) != RT_OK)
        fail_msg("%s: %s", path, err.message);
    assert_int_equal(rt_config_check(c, NULL), RT_OK);
}

static void test_examples(void **state)
{
    (void)state;
    static const char *const names[] = {"flow.json", "full.yaml", "geometry.yaml", "model.yaml",
                                        "short_sequences.yaml"};
    struct rt_config c;
    for (size_t i = 0; i < COUNT(names); i++) {
        char path[512];
        (void)snprintf(path, sizeof(path), "%s/config/%s", RT_TEST_DATA, names[i]);
        load_good(path, &c);
    }
    load_good(RT_TEST_DATA "/../../examples/config.yaml", &c);
}

static void test_model_example(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 4, 8, 16, 20};
    struct rt_config c;
    load_good(RT_TEST_DATA "/config/model.yaml", &c);
    assert_int_equal(c.struct_size, sizeof(c));
    assert_int_equal(c.geometry.heads, 16);
    assert_int_equal(c.geometry.layers, 61);
    assert_true(c.geometry.softmax_scale > 0.13523377 && c.geometry.softmax_scale < 0.13523378);
    assert_string_equal(c.device, "host");
    assert_int_equal(c.batch_size_count, COUNT(sizes));
    assert_memory_equal(c.batch_sizes, sizes, sizeof(sizes));
    assert_true(c.memory_fraction == 1.0);
    assert_int_equal(c.backend, RT_BACKEND_GENERIC);
}

/* Geometry and block of the model itself; nothing else changes, and nothing where it fails. */
static void test_model_alone(void **state)
{
    (void)state;
    struct rt_config c, before;
    struct rt_error err = {.message = ""};
    static const char path[] = RT_TEST_DATA "/golden/tiny_minicpm3/config.json";
    rt_config_default(&c);
    before = c;
    assert_int_equal(rt_config_model(path, &c, &err), RT_OK);
    assert_int_equal(c.geometry.heads, 4);
    assert_int_equal(c.geometry.qk_rope_head_dim, 32);
    assert_int_equal(c.block.q_lora_rank, 48);
    assert_int_equal(c.block.rope.order, RT_ROPE_HALF);
    before.geometry = c.geometry;
    before.block = c.block;
    assert_memory_equal(&c, &before, sizeof(c));
    rt_config_default(&c);
    assert_int_equal(rt_config_model(RT_TEST_DATA "/golden/tiny_minicpm3", &c, &err), RT_OK);
    assert_memory_equal(&c, &before, sizeof(c));

    assert_int_equal(rt_config_model(NULL, &c, &err), RT_ERR_INVALID);
    assert_int_equal(rt_config_model(path, NULL, &err), RT_ERR_INVALID);
    assert_int_equal(rt_config_model(RT_TEST_DATA, &c, &err), RT_ERR_FILE);
    assert_non_null(strstr(err.message, "data/config.json: No such file"));
    assert_memory_equal(&c, &before, sizeof(c));
    c.struct_size--;
    assert_int_equal(rt_config_model(path, &c, &err), RT_ERR_INVALID);
    assert_non_null(strstr(err.message, "config->struct_size is"));
}

/* ---- paths ----------------------------------------------------------------------------------- */

#define KIMI                                                                                       \
    "{\"model_type\": \"kimi_k2\", \"num_attention_heads\": 64, \"kv_lora_rank\": 512,\n"          \
    "\"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, \"num_hidden_layers\": 61}\n"

static void test_relative_paths(void **state)
{
    (void)state;
    static const char text[] = "model: sub/config.json\ntensor_parallel: 4\n";
    char path[128], before[512], absolute[256];
    struct rt_config c;
    path_of("sub", path);
    assert_int_equal(mkdir(path, 0700), 0);
    write_file("sub/config.json", KIMI, strlen(KIMI));
    write_file("a.yaml", text, strlen(text));
    path_of("a.yaml", path);
    load_good(path, &c);
    assert_int_equal(c.geometry.heads, 16);

    assert_non_null(getcwd(before, sizeof(before)));
    assert_int_equal(chdir(folder), 0);
    load_good("a.yaml", &c);
    load_good("./a.yaml", &c);
    assert_int_equal(chdir("sub"), 0);
    load_good("../a.yaml", &c);
    assert_int_equal(chdir(before), 0);

    path_of("sub/config.json", path);
    (void)snprintf(absolute, sizeof(absolute), "model: %s\n", path);
    write_file("a.yaml", absolute, strlen(absolute));
    path_of("a.yaml", path);
    load_good(path, &c);
    assert_int_equal(c.geometry.heads, 64);
}

static void test_model_failures(void **state)
{
    (void)state;
    static const char missing[] = "device: host\nmodel: nowhere/config.json\n";
    static const char directory[] = "model: .\n";
    static const char other[] = "model: a.json\n";
    static const char big[] = "{\"model_type\": \"youtu\", \"num_attention_heads\": 512,\n"
                              "\"kv_lora_rank\": 512, \"qk_nope_head_dim\": 128,\n"
                              "\"qk_rope_head_dim\": 64, \"num_hidden_layers\": 61}\n";
    write_file("a.yaml", missing, strlen(missing));
    expect_name_failure("a.yaml", RT_ERR_FILE,
                        "/a.yaml:2: model: cannot read /tmp/replayrt-config-");
    expect_name_failure("a.yaml", RT_ERR_FILE, "/nowhere/config.json: No such file or directory");
    write_file("a.yaml", directory, strlen(directory));
    expect_name_failure("a.yaml", RT_ERR_FILE, "/./config.json: No such file or directory");
    write_file("a.yaml", other, strlen(other));
    write_file("a.json", "{\n\"model_type\": \"llama\"}", 24);
    expect_name_failure("a.yaml", RT_ERR_CONFIG,
                        "a.json:2: model_type is \"llama\": must be one of");
    write_file("a.json", big, strlen(big));
    expect_name_failure("a.yaml", RT_ERR_GEOMETRY,
                        "a.yaml:1: the model's 512 heads over tensor_para");
    write_file("a.yaml", "model: a.yaml\n", 14);
    expect_name_failure("a.yaml", RT_ERR_CONFIG, "a.yaml: model_type is missing");
}

/* By its name a file is JSON, and then nothing else; by any other name it is YAML. */
static void test_json(void **state)
{
    (void)state;
    static const char json[] =
        "\t{\"geometry\"\n:\n{\"heads\": 16, \"kv_lora_rank\": 512, \"layers\": 61,\n"
        "\"qk_rope_head_dim\": 64, \"softmax_scale\": 0.1352}}\n";
    static const char flow[] = "{geometry: {heads: 16, kv_lora_rank: 512, qk_rope_head_dim: 64,\n"
                               "layers: 61, softmax_scale: 0.1352}}\n";
    static const char wrong[] = "{\"geometry\": {\"heads\": 16,\n\"headz\": 1}}\n";
    struct rt_config c;
    char path[128];
    write_file("a.json", json, strlen(json));
    path_of("a.json", path);
    load_good(path, &c);
    assert_int_equal(c.geometry.layers, 61);
    write_file("a.json", wrong, strlen(wrong));
    expect_name_failure("a.json", RT_ERR_CONFIG,
                        "a.json:2: unknown key geometry.headz (did you mean heads?)");
    write_file("a.json", flow, strlen(flow));
    expect_name_failure("a.json", RT_ERR_CONFIG, "a.json:1: not JSON: did not find expected key");
    write_file("a.yaml", flow, strlen(flow));
    path_of("a.yaml", path);
    load_good(path, &c);
}

/* ---- files that are none --------------------------------------------------------------------- */

static void test_file_failures(void **state)
{
    (void)state;
    struct rt_config c;
    struct rt_error err;
    char path[128], long_path[1000];
    assert_int_equal(rt_config_load(NULL, &c, &err), RT_ERR_INVALID);
    assert_int_equal(rt_config_load("a.yaml", NULL, &err), RT_ERR_INVALID);
    assert_int_equal(rt_config_load("/nowhere/at/all", &c, NULL), RT_ERR_FILE);
    expect_failure("", RT_ERR_FILE, "No such file or directory");
    expect_failure("/nowhere/a.yaml", RT_ERR_FILE,
                   "cannot read /nowhere/a.yaml: No such file or directory");
    expect_failure("/tmp", RT_ERR_FILE, "cannot read /tmp: it is a directory");
    path_of("link", path);
    assert_int_equal(symlink("nowhere", path), 0);
    expect_failure(path, RT_ERR_FILE, "/link: it is a symbolic link to a file that is not there");
    expect_failure("/dev/zero", RT_ERR_FILE, "it is a device, pipe or socket");
    memset(long_path, 'a', sizeof(long_path) - 1);
    long_path[sizeof(long_path) - 1] = '\0';
    expect_failure(long_path, RT_ERR_FILE, "aaaa: File name too long");
    path_of("pipe", path);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_failure(path, RT_ERR_FILE, "it is a device, pipe or socket");
    write_file("a.yaml", "model: pipe\n", 12);
    expect_name_failure("a.yaml", RT_ERR_FILE, "/pipe: it is a device, pipe or socket");
    write_file("a.yaml", "", 0);
    expect_name_failure("a.yaml", RT_ERR_CONFIG, "a.yaml: is empty: must be YAML with keys");
}

static void test_sizes(void **state)
{
    (void)state;
    size_t bytes = RT_TEXT_FILE_MAX_BYTES + 1;
    char *text = malloc(bytes);
    struct rt_config c;
    char path[128];
    assert_non_null(text);
    memset(text, '\n', bytes);
    memcpy(text, GEOMETRY, strlen(GEOMETRY));
    write_file("a.yaml", text, bytes);
    expect_name_failure("a.yaml", RT_ERR_FILE, "a.yaml: it is larger than 4194304 bytes");
    write_file("a.yaml", text, bytes - 1);
    path_of("a.yaml", path);
    load_good(path, &c);
    free(text);
}

/* Bytes of no text, from a fixed seed: refused with a line, or a key that is not ours. */
static void test_rubbish(void **state)
{
    (void)state;
    uint32_t seed = 12345;
    for (int round = 0; round < 200; round++) {
        char text[512];
        uint32_t mask = round % 2 ? 0x7F : 0xFF;
        for (size_t i = 0; i < sizeof(text); i++) {
            seed = seed * 1664525u + 1013904223u;
            text[i] = (char)((seed >> 24) & mask);
        }
        write_file("a.yaml", text, sizeof(text));
        expect_name_failure("a.yaml", RT_ERR_CONFIG, "a.yaml:");
    }
}

/* In some locales strtod stops at the point of 0.85. */
static void test_locale(void **state)
{
    (void)state;
    static const char *const locales[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "fr_FR.utf8"};
    static const char text[] = GEOMETRY "kv_cache: {memory: 0.75}\n";
    char path[128];
    struct rt_config c;
    const char *set = NULL;
    for (size_t i = 0; i < COUNT(locales) && !set; i++)
        set = setlocale(LC_ALL, locales[i]);
    if (!set)
        skip();
    write_file("a.yaml", text, strlen(text));
    path_of("a.yaml", path);
    load_good(path, &c);
    assert_true(c.memory_fraction == 0.75);
    assert_true(c.geometry.softmax_scale == 0.1352);
    assert_string_equal(localeconv()->decimal_point, ",");
    (void)setlocale(LC_ALL, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),       cmocka_unit_test(test_model_example),
        cmocka_unit_test(test_model_alone),    cmocka_unit_test(test_relative_paths),
        cmocka_unit_test(test_model_failures), cmocka_unit_test(test_file_failures),
        cmocka_unit_test(test_sizes),          cmocka_unit_test(test_rubbish),
        cmocka_unit_test(test_locale),         cmocka_unit_test(test_json),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
