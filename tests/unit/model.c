/* SPDX-License-Identifier: Apache-2.0 */
#include "config/model.h"

#include "tests/unit/expect.h"

#include <stdlib.h>

/* ---- real families --------------------------------------------------------------------------- */

struct good {
    const char *file; /* below tests/data */
    uint32_t heads, rank, rope, layers;
    double scale;
};

/* 192^-0.5, 192^-0.5 * 1.3688879^2, ... computed apart from this library. */
static const struct good GOOD[] = {
    {"models/deepseek_v2.json", 128, 512, 64, 60, 0.11472138679292611},
    {"models/deepseek_v2_lite.json", 16, 512, 64, 27, 0.11472138679292611},
    {"models/deepseek_v3.json", 128, 512, 64, 61, 0.1352337788608801},
    {"models/deepseek_v32.json", 128, 512, 64, 61, 0.1352337788608801},
    {"models/glm_4_7_flash.json", 20, 512, 64, 47, 0.0625},
    {"models/glm_5.json", 64, 512, 64, 78, 0.0625},
    {"models/kimi_k2.json", 64, 512, 64, 61, 0.13086079996295005},
    {"models/kimi_k25.json", 64, 512, 64, 61, 0.14467962580268923},
    {"models/kimi_linear.json", 32, 512, 64, 7, 0.07216878364870322},
    {"models/longcat_flash.json", 64, 512, 64, 56, 0.07216878364870322},
    {"models/minicpm3.json", 40, 256, 32, 62, 0.10206207261596575},
    {"models/mistral_small_4.json", 32, 256, 64, 36, 0.19496949473302969},
    {"models/youtu_llm_2b.json", 16, 512, 64, 32, 0.07216878364870322},
    {"golden/tiny_deepseek_v2/config.json", 4, 512, 64, 2, 0.07216878364870322},
    {"golden/tiny_deepseek_v3/config.json", 4, 512, 64, 2, 0.09356516759751216},
    {"golden/tiny_mistral4/config.json", 4, 256, 64, 2, 0.19496949473302969},
};

static void test_families(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(GOOD); i++) {
        const struct good *want = &GOOD[i];
        struct rt_geometry g = {.heads = 0};
        struct rt_error err = {.message = ""};
        char path[512];
        (void)snprintf(path, sizeof(path), "%s/%s", RT_TEST_DATA, want->file);
        enum rt_status status = rt_model_load(path, &g, &err);
        if (status != RT_OK)
            fail_msg("%s: %s: %s", want->file, rt_status_string(status), err.message);
        double error = g.softmax_scale / want->scale - 1.0;
        if (g.heads != want->heads || g.kv_lora_rank != want->rank ||
            g.qk_rope_head_dim != want->rope || g.layers != want->layers || error > 1e-15 ||
            error < -1e-15)
            fail_msg("%s: %u heads, %u + %u, %u layers, scale %.17g", want->file, g.heads,
                     g.kv_lora_rank, g.qk_rope_head_dim, g.layers, g.softmax_scale);
    }
}

/* ---- variations of one text ------------------------------------------------------------------ */

#define HEAD "{\"model_type\": \"deepseek_v3\",\n \"num_attention_heads\": 128,\n"
#define RANK " \"kv_lora_rank\": 512,\n"
#define DIMS " \"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64,\n"
#define LAYERS " \"num_hidden_layers\": 61,\n"
#define ALL HEAD RANK DIMS LAYERS
#define PLAIN 0.07216878364870322
#define YARN40 0.1352337788608801

static enum rt_status parse(const char *text, size_t bytes, struct rt_geometry *g,
                            struct rt_error *err)
{
    /* An exact allocation, so that a sanitizer sees one byte too many. */
    char *copy = malloc(bytes ? bytes : 1);
    assert_non_null(copy);
    memcpy(copy, text, bytes);
    const struct rt_yaml_source source = {.text = copy, .bytes = bytes, .name = "config.json"};
    enum rt_status status = rt_model_parse(&source, g, err);
    free(copy);
    return status;
}

struct scale {
    const char *tail; /* of the text that begins with ALL */
    double scale;
};

static const struct scale SCALES[] = {
    {" \"rope_scaling\": null}", PLAIN},
    {" \"rope_scaling\": {}}", PLAIN},
    {" \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40}}", PLAIN},
    {" \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40, \"mscale_all_dim\": 0}}", PLAIN},
    {" \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40, \"mscale_all_dim\": null}}", PLAIN},
    {" \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40, \"mscale_all_dim\": 1}}", YARN40},
    {" \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4e1, \"mscale_all_dim\": 1.0}}",
     YARN40},
    {" \"rope_parameters\": {\"rope_type\": \"yarn\", \"type\": \"default\", \"factor\": 40,"
     " \"mscale_all_dim\": 1}}",
     YARN40},
    {" \"rope_parameters\": {\"rope_type\": \"default\", \"factor\": 40, \"mscale_all_dim\": 1}}",
     PLAIN},
    {" \"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 1, \"mscale_all_dim\": 1}}",
     PLAIN},
    {" \"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 40, \"mscale_all_dim\": 1,"
     " \"apply_yarn_scaling\": false}}",
     PLAIN},
    {" \"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 40, \"mscale_all_dim\": 1,"
     " \"apply_yarn_scaling\": true}, \"rope_scaling\": null}",
     YARN40},
    {" \"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 40, \"mscale_all_dim\": 1},"
     " \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40, \"mscale_all_dim\": 1}}",
     YARN40},
};

static void test_scales(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(SCALES); i++) {
        char text[1024];
        struct rt_geometry g = {.heads = 0};
        struct rt_error err = {.message = ""};
        int bytes = snprintf(text, sizeof(text), ALL "%s", SCALES[i].tail);
        if (parse(text, (size_t)bytes, &g, &err) != RT_OK)
            fail_msg("%s: %s", SCALES[i].tail, err.message);
        double error = g.softmax_scale / SCALES[i].scale - 1.0;
        if (error > 1e-15 || error < -1e-15)
            fail_msg("%s: scale %.17g", SCALES[i].tail, g.softmax_scale);
    }
}

/* Texts that real files hold and that a YAML parser could stumble over. */
static const char *const STRANGE[] = {
    ALL " \"a\": \"\\ud83d\\ude00 \\u00e9 \\\\ud83d \\/ \\\" \\\\\", \"z\": 1e-06}",
    ALL "\t\"tabs\":\t[\t1,\n\t\t2\t],\r\n \"crlf\": true}\r\n",
    ("\xEF\xBB\xBF" ALL " \"bom\": [[], {}, [[1, [2]]], {\"a\": {\"b\": [null]}}]}"),
    ALL " \"x\": \"# no comment\", \"y\": \"a: b, [c] {d} & * ! | > %\", \"utf8\": \"\xC3\xA9\"}",
    ALL " \"inf\": Infinity, \"nan\": NaN, \"big\": 1e999, \"neg\": -12345678901234567890}",
    ALL " \"kv_lora_rank_\": \"x\", \"num_layers\": null, \"text_config\": null,"
        " \"layer_types\": null, \"linear_attn_config\": null, \"\": 1}",
    ALL " \"layer_types\": [\"full_attention\", \"deepseek_sparse_attention\"]}",
    ALL " \"id2label\": {\"0\": \"LABEL_0\"}, \"null\": null, \"~\": \"~\"}",
    "{\"qk_rope_head_dim\":64,\"qk_nope_head_dim\":128,\"kv_lora_rank\":512,\"x\":-1,"
    "\"num_attention_heads\":128,\"num_hidden_layers\":61,\"model_type\":\"deepseek_v3\"}",
};

static void test_strange(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(STRANGE); i++) {
        struct rt_geometry g = {.heads = 0};
        struct rt_error err = {.message = ""};
        if (parse(STRANGE[i], strlen(STRANGE[i]), &g, &err) != RT_OK)
            fail_msg("%zu: %s", i, err.message);
        if (g.heads != 128 || g.layers != 61 || g.kv_lora_rank != 512 || g.qk_rope_head_dim != 64)
            fail_msg("%zu: %u heads, %u layers", i, g.heads, g.layers);
    }
}

/* A list of a hundred thousand modules, and a text of a megabyte: no limit of ours is near. */
static void test_huge(void **state)
{
    (void)state;
    const size_t capacity = (size_t)4 << 20;
    char *text = malloc(capacity);
    assert_non_null(text);
    size_t used = (size_t)snprintf(text, capacity, "{\"modules\": [");
    for (int i = 0; i < 100000; i++)
        used += (size_t)snprintf(text + used, capacity - used, "\"layers.%d\", ", i);
    used += (size_t)snprintf(text + used, capacity - used, "0], \"template\": \"");
    memset(text + used, 'x', 1 << 20);
    used += 1 << 20;
    used += (size_t)snprintf(text + used, capacity - used, "\",\n%s \"end\": 1}", &ALL[1]);
    struct rt_geometry g = {.heads = 0};
    struct rt_error err = {.message = ""};
    if (parse(text, used, &g, &err) != RT_OK)
        fail_msg("%s", err.message);
    free(text);
    assert_int_equal(g.layers, 61);
}

/* ---- hybrids --------------------------------------------------------------------------------- */

#define KIMI                                                                                       \
    "{\"model_type\": \"kimi_linear\", \"num_attention_heads\": 32,\n" RANK DIMS                   \
    " \"num_hidden_layers\": 4,\n"

static void test_layer_types(void **state)
{
    (void)state;
    static const char text[] =
        KIMI " \"layer_types\": [\"linear_attention\", \"full_attention\", \"linear_attention\","
             " \"full_attention\"]}";
    struct rt_geometry g = {.heads = 0};
    struct rt_error err = {.message = ""};
    assert_int_equal(parse(text, strlen(text), &g, &err), RT_OK);
    assert_int_equal(g.layers, 2);
}

/* ---- refusals -------------------------------------------------------------------------------- */

struct bad {
    const char *text;
    enum rt_status status;
    const char *want[3]; /* parts of the message */
};

static const struct bad BAD[] = {
    {"", RT_ERR_CONFIG, {"config.json: is empty"}},
    {"   \n\n", RT_ERR_CONFIG, {"config.json: is empty"}},
    {"[1, 2]", RT_ERR_CONFIG, {"config.json:1: the document is a list: must be a mapping"}},
    {"\"words\"", RT_ERR_CONFIG, {"config.json:1: the document is \"words\""}},
    {"{\"a\": 1", RT_ERR_CONFIG, {"config.json:", "not JSON", "did not find expected"}},
    {"{\"a\": \"\\q\"}", RT_ERR_CONFIG, {"config.json:1: not JSON", "unknown escape"}},
    {"{\n\"a\": \"\x01\"}", RT_ERR_CONFIG, {"config.json:2: not JSON", "control characters"}},
    {"{\n\n\"a\": \"\xFF\"}", RT_ERR_CONFIG, {"config.json:3: not JSON", "UTF-8"}},
    {"{}",
     RT_ERR_CONFIG,
     {"config.json: model_type is missing", "one of deepseek_v2, deepseek_v3"}},
    {"{\"model_type\": null}", RT_ERR_CONFIG, {"config.json:1: model_type is null", "youtu_llm"}},
    {"{\"model_type\": 3}", RT_ERR_CONFIG, {"config.json:1: model_type is 3: must be one of"}},
    {"{\n\"model_type\": \"llama\"}",
     RT_ERR_CONFIG,
     {"config.json:2: model_type is \"llama\": must be one of", "longcat_flash", "mistral4"}},
    {"{\"model_type\": \"mistral3\",\n\"text_config\": {\"model_type\": \"mistral\"}}",
     RT_ERR_CONFIG,
     {"config.json:2: text_config.model_type is \"mistral\""}},
    {"{\"model_type\": \"x\", \"text_config\": {\"model_type\": \"mistral4\"}}",
     RT_ERR_CONFIG,
     {"config.json: text_config.num_attention_heads is missing: a mistral4 model must have it"}},
    {"{\"model_type\": \"x\", \"text_config\": [1]}",
     RT_ERR_CONFIG,
     {"text_config is a list: must be a mapping"}},
    {HEAD DIMS LAYERS " \"x\": 1}", RT_ERR_CONFIG, {"kv_lora_rank is missing: a deepseek_v3"}},
    {HEAD DIMS LAYERS " \"kv_lora_rank\": null}",
     RT_ERR_CONFIG,
     {"config.json:5: kv_lora_rank is null: must be an integer"}},
    {HEAD DIMS LAYERS " \"kv_lora_rank\": \"512\"}",
     RT_ERR_CONFIG,
     {"config.json:5: kv_lora_rank is \"512\": must be an integer"}},
    {HEAD DIMS LAYERS " \"kv_lora_rank\": 512.0}", RT_ERR_CONFIG, {"kv_lora_rank is 512.0"}},
    {HEAD DIMS LAYERS " \"kv_lora_rank\": -512}", RT_ERR_CONFIG, {"kv_lora_rank is -512"}},
    {HEAD DIMS LAYERS " \"kv_lora_rank\": 0x200}", RT_ERR_CONFIG, {"kv_lora_rank is 0x200"}},
    {HEAD DIMS LAYERS " \"kv_lora_rank\": 4294967808}",
     RT_ERR_CONFIG,
     {"config.json:5: kv_lora_rank is 4294967808"}},
    {HEAD DIMS LAYERS " \"kv_lora_rank\": [512]}",
     RT_ERR_CONFIG,
     {"kv_lora_rank is a list: must be an integer"}},
    {HEAD DIMS LAYERS " \"kv_lora_rank\": {}}", RT_ERR_CONFIG, {"kv_lora_rank is a mapping"}},
    {HEAD DIMS LAYERS RANK RANK " \"x\": 1}",
     RT_ERR_CONFIG,
     {"config.json:6: kv_lora_rank is given twice, first in line 5"}},
    {HEAD RANK DIMS " \"x\": 1}", RT_ERR_CONFIG, {"num_hidden_layers is missing"}},
    {HEAD RANK LAYERS " \"qk_rope_head_dim\": 64}", RT_ERR_CONFIG, {"qk_nope_head_dim is missing"}},
    {HEAD RANK LAYERS " \"qk_nope_head_dim\": 64}", RT_ERR_CONFIG, {"qk_rope_head_dim is missing"}},
    {HEAD DIMS LAYERS " \"kv_lora_rank\": 1024}",
     RT_ERR_GEOMETRY,
     {"config.json:5: kv_lora_rank 1024 with qk_rope_head_dim 64 is d_qk/d_v 1088/1024",
      "576/512, 320/256, 288/256 or 512/512"}},
    {"{\"model_type\": \"youtu\", \"num_attention_heads\": 0,\n" RANK DIMS LAYERS " \"x\": 1}",
     RT_ERR_GEOMETRY,
     {"0 heads in 61 layers"}},
    {HEAD RANK DIMS " \"num_hidden_layers\": 0}", RT_ERR_GEOMETRY, {"128 heads in 0 layers"}},
    {ALL " \"rope_scaling\": {\"factor\": 40, \"mscale_all_dim\": 1}}",
     RT_ERR_CONFIG,
     {"rope_scaling.rope_type is missing"}},
    {ALL " \"rope_scaling\": {\"type\": \"yarn\", \"mscale_all_dim\": 1}}",
     RT_ERR_CONFIG,
     {"rope_scaling.factor is missing"}},
    {ALL " \"rope_parameters\": {\"rope_type\": \"yarn\", \"mscale_all_dim\": 1,\n"
         " \"factor\": -4}}",
     RT_ERR_CONFIG,
     {"config.json:7: rope_parameters.factor is -4: must be a number above 0"}},
    {ALL " \"rope_scaling\": {\"factor\": \"40\"}}", RT_ERR_CONFIG, {"factor is \"40\""}},
    {ALL " \"rope_scaling\": {\"factor\": 1e999}}", RT_ERR_CONFIG, {"factor is 1e999"}},
    {ALL " \"rope_scaling\": {\"mscale_all_dim\": NaN}}", RT_ERR_CONFIG, {"mscale_all_dim is NaN"}},
    {ALL " \"rope_scaling\": {\"apply_yarn_scaling\": \"no\"}}",
     RT_ERR_CONFIG,
     {"apply_yarn_scaling is \"no\": must be true or false"}},
    {ALL " \"rope_scaling\": \"yarn\"}", RT_ERR_CONFIG, {"rope_scaling is \"yarn\""}},
    {ALL " \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"mscale_all_dim\": 1e300}}",
     RT_ERR_GEOMETRY,
     {"softmax scale"}},
    {ALL " \"rope_parameters\": {\"rope_type\": \"default\"}, \"rope_scaling\":"
         " {\"type\": \"yarn\", \"factor\": 40, \"mscale_all_dim\": 1}}",
     RT_ERR_CONFIG,
     {"rope_parameters gives the mscale 1 and rope_scaling 1.36889: must agree"}},
    {"{\"model_type\": \"longcat_flash\", \"num_attention_heads\": 64,\n" RANK DIMS LAYERS
     " \"x\": 1}",
     RT_ERR_CONFIG,
     {"num_layers is missing: a longcat_flash model"}},
    {"{\"model_type\": \"longcat_flash\", \"num_attention_heads\": 64,\n" RANK DIMS
     " \"num_layers\": 2147483648}",
     RT_ERR_CONFIG,
     {"num_layers is 2147483648: must be at most 2147483647"}},
    {KIMI " \"x\": 1}", RT_ERR_CONFIG, {"linear_attn_config.full_attn_layers is missing"}},
    {KIMI " \"linear_attn_config\": {\"full_attn_layers\": [2, 5]}}",
     RT_ERR_CONFIG,
     {"linear_attn_config.full_attn_layers[1] is 5: must be an integer from 3 to"}},
    {KIMI " \"linear_attn_config\": {\"full_attn_layers\": [2, 2]}}",
     RT_ERR_CONFIG,
     {"full_attn_layers[1] is 2"}},
    {KIMI " \"linear_attn_config\": {\"full_attn_layers\": [0]}}",
     RT_ERR_CONFIG,
     {"full_attn_layers[0] is 0: must be an integer from 1"}},
    {KIMI " \"linear_attn_config\": {\"full_attn_layers\": [null]}}",
     RT_ERR_CONFIG,
     {"full_attn_layers[0] is null"}},
    {KIMI " \"linear_attn_config\": {\"full_attn_layers\": []}}",
     RT_ERR_CONFIG,
     {"full_attn_layers is an empty list: must be a list of at least one layer"}},
    {KIMI " \"layer_types\": [\"full_attention\"]}",
     RT_ERR_CONFIG,
     {"layer_types is a list of 1: must be a list of num_hidden_layers, 4, words"}},
    {"{\"a\": &x 1, \"b\": *x}", RT_ERR_CONFIG, {"config.json:1: aliases are not allowed"}},
    {ALL " \"a\": 1}\n---\n{}", RT_ERR_CONFIG, {"config.json:7: a second document begins"}},
    {"{\"model_type\\0\": \"deepseek_v3\"}", RT_ERR_CONFIG, {"a key has a NUL in it"}},
    {"{\"model_type\": \"deepseek_v3\\0\"}", RT_ERR_CONFIG, {"model_type is \"deepseek_v3?\""}},
};

static void test_refusals(void **state)
{
    (void)state;
    const struct rt_geometry before = {.heads = 7, .softmax_scale = 3.0};
    for (size_t i = 0; i < COUNT(BAD); i++) {
        struct rt_geometry g = before;
        struct rt_error err = {.message = ""};
        enum rt_status status = parse(BAD[i].text, strlen(BAD[i].text), &g, &err);
        expect(BAD[i].text, status, &err, BAD[i].status, BAD[i].want, COUNT(BAD[i].want));
        assert_memory_equal(&g, &before, sizeof(g));
    }
}

/* The work of libyaml grows with the square of the depth: it must not get that far. */
static void test_deep(void **state)
{
    (void)state;
    const size_t bytes = (size_t)1 << 20;
    char *text = malloc(bytes);
    assert_non_null(text);
    struct rt_geometry g = {.heads = 0};
    struct rt_error err = {.message = ""};
    memset(text, '[', bytes);
    memcpy(text, "{\"a\":", 5);
    assert_int_equal(parse(text, bytes, &g, &err), RT_ERR_CONFIG);
    assert_non_null(strstr(err.message, "config.json:1: nested deeper than 64 levels"));
    free(text);
}

/* Every prefix of a text is either refused or, at the very end, good. */
static void test_truncated(void **state)
{
    (void)state;
    static const char text[] = ALL " \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40}}";
    for (size_t bytes = 0; bytes < strlen(text); bytes++) {
        struct rt_geometry g = {.heads = 0};
        struct rt_error err = {.message = ""};
        if (parse(text, bytes, &g, &err) != RT_ERR_CONFIG)
            fail_msg("%zu bytes: %s", bytes, err.message);
    }
}

static void test_no_error_struct(void **state)
{
    (void)state;
    struct rt_geometry g = {.heads = 0};
    assert_int_equal(parse("{}", 2, &g, NULL), RT_ERR_CONFIG);
    assert_int_equal(rt_model_load("/nowhere/config.json", &g, NULL), RT_ERR_FILE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_scales),
        cmocka_unit_test(test_strange),
        cmocka_unit_test(test_huge),
        cmocka_unit_test(test_layer_types),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_deep),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_no_error_struct),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
