/* SPDX-License-Identifier: Apache-2.0 */
#include "config/model.h"

#include "tests/unit/expect.h"

#include <math.h>
#include <stdlib.h>

/* ---- real families --------------------------------------------------------------------------- */

struct good {
    const char *file; /* below tests/data */
    uint32_t heads, rank, rope, layers;
    double scale; /* 0: by the formula with these */
    double qk_dim, mscale_all_dim, factor;
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
    /* qk_dim^-0.5 * (0.1 * mscale_all_dim * ln(factor) + 1)^2; the family's own numbers */
    {"models/ax_k1.json", 64, 512, 64, 61, 0, 128 + 64, 1.0, 32},
    {"models/deepseek_vl2.json", 32, 512, 64, 30, 0, 128 + 64, 0, 1},
    {"models/gigachat_3_5.json", 64, 512, 64, 10, 0, 128 + 64, 1.0, 32},
    {"models/glm_5_3_flash.json", 64, 512, 0, 11, 0, 256 + 0, 0, 1},
    {"models/glm_5_3_flash_types.json", 64, 512, 0, 11, 0, 256 + 0, 0, 1},
    {"models/hy_v4_preview.json", 64, 512, 64, 78, 0, 192 + 64, 0, 1},
    {"models/joyai_llm_flash.json", 32, 512, 64, 40, 0, 128 + 64, 0, 1},
    {"models/k2_vl.json", 64, 512, 64, 61, 0, 128 + 64, 1.0, 32},
    {"models/kimi_k3.json", 96, 512, 64, 24, 0, 128 + 64, 0, 1},
    {"models/ling_3_tiny.json", 16, 512, 64, 24 / 4, 0, 128 + 64, 0, 1},
    {"models/longcat_flash_lite.json", 32, 512, 64, 2 * 14, 0, 128 + 64, 0, 1},
    {"models/longcat_next.json", 64, 512, 64, 2 * 28, 0, 128 + 64, 0, 1},
    {"models/pangu_ultra_moe.json", 128, 512, 64, 61, 0, 128 + 64, 0, 1},
    {"models/sarvam_105b.json", 64, 512, 64, 32, 0, 128 + 64, 1.0, 40},
    {"golden/tiny_deepseek_v2/config.json", 4, 512, 64, 2, 0.07216878364870322},
    {"golden/tiny_deepseek_v3/config.json", 4, 512, 64, 2, 0.09356516759751216},
    {"golden/tiny_mistral4/config.json", 4, 256, 64, 2, 0.19496949473302969},
};

static double scale_of(const struct good *want)
{
    double mscale = 0.1 * want->mscale_all_dim * log(want->factor) + 1.0;
    return want->scale > 0.0 ? want->scale : mscale * mscale / sqrt(want->qk_dim);
}

static void test_families(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(GOOD); i++) {
        const struct good *want = &GOOD[i];
        struct rt_geometry g = {.heads = 0};
        struct rt_error err = {.message = ""};
        char path[512];
        (void)snprintf(path, sizeof(path), "%s/%s", RT_TEST_DATA, want->file);
        enum rt_status status = rt_model_load(path, &g, NULL, &err);
        if (status != RT_OK)
            fail_msg("%s: %s: %s", want->file, rt_status_string(status), err.message);
        double error = g.softmax_scale / scale_of(want) - 1.0;
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

static enum rt_status parse_as(const char *name, const char *text, size_t bytes,
                               struct rt_geometry *g, struct rt_error *err)
{
    /* An exact allocation, so that a sanitizer sees one byte too many. */
    char *copy = malloc(bytes ? bytes : 1);
    assert_non_null(copy);
    memcpy(copy, text, bytes);
    struct rt_source source = {.text = copy, .bytes = bytes};
    (void)snprintf(source.name, sizeof(source.name), "%s", name);
    enum rt_status status = rt_model_parse(&source, g, NULL, err);
    free(copy);
    return status;
}

static enum rt_status parse(const char *text, size_t bytes, struct rt_geometry *g,
                            struct rt_error *err)
{
    return parse_as("config.json", text, bytes, g, err);
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

/* Where what is said of it lies deeper, beside nothing, or in a family with a rule of its own. */
#define DEEP "{\"rope_type\": \"yarn\", \"factor\": 40, \"mscale_all_dim\": 1}"

static const struct scale NESTED[] = {
    {" \"rope_parameters\": {\"full_attention\": " DEEP "}}", YARN40},
    {" \"rope_parameters\": {\"main\": " DEEP ", \"rope_theta\": 10000}}", YARN40},
    {" \"rope_parameters\": {\"full_attention\": " DEEP
     ", \"linear_attention\": {\"rope_type\": \"default\"}}}",
     YARN40},
    {" \"rope_parameters\": {\"deepseek_sparse_attention\": " DEEP
     ", \"sliding_attention\": {\"rope_type\": \"default\"}}}",
     YARN40},
    {" \"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}", PLAIN},
    {" \"rope_scaling\": {\"full_attention\": " DEEP "}}", YARN40},
    {" \"rope_parameters\": {\"full_attention\": " DEEP "}, \"rope_scaling\": " DEEP "}", YARN40},
    {" \"rope_parameters\": {}, \"rope_scaling\": " DEEP "}", YARN40},
    {" \"rope_parameters\": null, \"rope_scaling\": " DEEP "}", YARN40},
    {" \"rope_parameters\": {\"rope_theta\": 10000}, \"rope_scaling\": " DEEP "}", YARN40},
    {" \"rope_parameters\": {\"full_attention\": {\"rope_theta\": 1}}, \"rope_scaling\": " DEEP "}",
     YARN40},
    {" \"rope_parameters\": {\"rope_theta\": 10000}}", PLAIN},
};

static void expect_scales(const char *head, const struct scale *scales, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char text[1024];
        struct rt_geometry g = {.heads = 0};
        struct rt_error err = {.message = ""};
        int bytes = snprintf(text, sizeof(text), "%s%s", head, scales[i].tail);
        if (parse(text, (size_t)bytes, &g, &err) != RT_OK)
            fail_msg("%s: %s", scales[i].tail, err.message);
        double error = g.softmax_scale / scales[i].scale - 1.0;
        if (error > 1e-15 || error < -1e-15)
            fail_msg("%s: scale %.17g", scales[i].tail, g.softmax_scale);
    }
}

#define GIGACHAT                                                                                   \
    "{\"model_type\": \"gigachat3_5\", \"num_attention_heads\": 64, \"num_hidden_layers\": 8,\n"   \
    " \"full_attention_layers\": [0, 7],\n" RANK DIMS
#define HY                                                                                         \
    "{\"model_type\": \"hy_v4\", \"num_attention_heads\": 64, \"num_hidden_layers\": 8,\n" RANK DIMS

static void test_scales(void **state)
{
    (void)state;
    static const struct scale gigachat[] = {
        {" \"rope_parameters\": " DEEP "}", YARN40},
        {" \"rope_scaling\": {\"type\": \"deepseek_yarn\", \"factor\": 40, \"mscale_all_dim\": 1}}",
         PLAIN},
    };
    static const struct scale hy[] = {{" \"rope_parameters\": " DEEP "}", PLAIN}};
    expect_scales(ALL, SCALES, COUNT(SCALES));
    expect_scales(ALL, NESTED, COUNT(NESTED));
    expect_scales(GIGACHAT, gigachat, COUNT(gigachat));
    expect_scales(HY, hy, COUNT(hy));
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
    "\t" ALL " \"colon\"\n\t:\n\"on another line\", \"empty\": {}, \"half\": \"\\udc00 \\ud800\"}",
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"num_attention_heads\": 128,\n" RANK DIMS
        LAYERS " \"model_type\": null}",
    ALL " \"use_mla\": true, \"language_config\": null}",
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
    used += (size_t)snprintf(text + used, capacity - used, "0], \"");
    memset(text + used, 'k', 5000); /* libyaml takes no key of more than 1024 characters */
    used += 5000;
    used += (size_t)snprintf(text + used, capacity - used, "\": 1, \"template\": \"");
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

#define GLM                                                                                        \
    "{\"model_type\": \"glm5_next_text\", \"num_attention_heads\": 64,\n" RANK DIMS                \
    " \"num_hidden_layers\": 4,\n"
#define LING "{\"model_type\": \"bailing_hybrid\", \"num_attention_heads\": 64,\n" RANK DIMS
#define LISTED(list) " \"linear_attn_config\": {\"full_attn_layers\": " list "}}"
#define TYPED(a, b, c, d) " \"layer_types\": [\"" a "\", \"" b "\", \"" c "\", \"" d "\"]}"

static const struct {
    const char *text;
    uint32_t layers;
} LAYER_TEXTS[] = {
    {KIMI TYPED("linear_attention", "full_attention", "linear_attention", "full_attention"), 2},
    {KIMI LISTED("[1, 4]"), 2},
    {KIMI " \"full_attention_layers\": [3]}", 1},
    {GLM LISTED("[0, 3]"), 2},
    {GLM LISTED("[1, 2, 4]"), 3},
    {GLM LISTED("[0, 1, 2, 3]"), 4},
    {GLM LISTED("[1, 2, 3, 4]"), 4},
    {GLM TYPED("linear_attention", "deepseek_sparse_attention", "full_attention",
               "linear_attention"),
     2},
    {"{\"model_type\": \"gigachat3_5\", \"num_attention_heads\": 64,\n" RANK DIMS
     " \"num_hidden_layers\": 4, \"linear_attention_type\": null}",
     4},
    /* the last of every group, and what does not fill one */
    {LING " \"num_hidden_layers\": 80, \"layer_group_size\": 8}", 10},
    {LING " \"num_hidden_layers\": 42, \"layer_group_size\": 4}", 12},
    {LING " \"num_hidden_layers\": 5, \"layer_group_size\": 1}", 5},
    {LING " \"num_hidden_layers\": 3, \"layer_group_size\": 4}", 3},
    {LING " \"num_hidden_layers\": 4," TYPED("linear_attention", "linear_attention",
                                             "linear_attention", "full_attention"),
     1},
    /* num_layers has the last word */
    {"{\"model_type\": \"longcat_flash\", \"num_attention_heads\": 64,\n" RANK DIMS
     " \"num_layers\": 28, \"num_hidden_layers\": 56}",
     56},
};

static void test_layers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(LAYER_TEXTS); i++) {
        struct rt_geometry g = {.heads = 0};
        struct rt_error err = {.message = ""};
        if (parse(LAYER_TEXTS[i].text, strlen(LAYER_TEXTS[i].text), &g, &err) != RT_OK)
            fail_msg("%s\n%s", LAYER_TEXTS[i].text, err.message);
        if (g.layers != LAYER_TEXTS[i].layers)
            fail_msg("%s\n%u layers", LAYER_TEXTS[i].text, g.layers);
    }
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
     {"config.json: model_type is missing", "an MLA model must have it, one of those known",
      "which are deepseek_v2, deepseek_v3"}},
    {"{\"model_type\": null}", RT_ERR_CONFIG, {"config.json:1: model_type is null", "youtu_llm"}},
    {"{\"model_type\": 3}", RT_ERR_CONFIG, {"config.json:1: model_type is 3: must be one of"}},
    {"{\n\"model_type\": \"llama\"}",
     RT_ERR_CONFIG,
     {"config.json:2: model_type is \"llama\": must be one of", "longcat_flash",
      "another MLA model is given by geometry: in place of model:), which are deepseek_v2, deep"}},
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
    {"{\"model_type\": \"longcat_flash\", \"num_attention_heads\": 64,\n" RANK DIMS " \"x\": 1}",
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
    {"{\"a\": &x 1, \"b\": *x}",
     RT_ERR_CONFIG,
     {"config.json:1: not JSON: a is &x: must be a str"}},
    {ALL "\n \"use_mla\": false}",
     RT_ERR_CONFIG,
     {"config.json:7: use_mla is false: must be true: without it the attention is not MLA"}},
    {"{\"model_type\": \"deepseek_vl_v2\", \"language_config\": " ALL " \"use_mla\": false}}",
     RT_ERR_CONFIG,
     {"language_config.use_mla is false"}},
    {"{\"model_type\": \"x\", \"language_config\": {\n}}",
     RT_ERR_CONFIG,
     {"config.json: language_config.model_type is missing"}},
    {KIMI TYPED("full_attention", "full_attention", "full_attention", "sliding"),
     RT_ERR_CONFIG,
     {"layer_types[3] is \"sliding\": must be full_attention, deepseek_sparse_attention or "
      "linear"}},
    {GLM LISTED("[0, 4]"),
     RT_ERR_CONFIG,
     {"full_attn_layers[1] is 4: must be an integer from 1 to 3"}},
    {GLM LISTED("[5]"),
     RT_ERR_CONFIG,
     {"full_attn_layers[0] is 5: must be an integer from 0 to 4"}},
    {"{\"model_type\": \"gigachat3_5\", \"num_attention_heads\": 64,\n" RANK DIMS LAYERS
     " \"full_attention_layers\": [3, 61]}",
     RT_ERR_CONFIG,
     {"full_attention_layers[1] is 61: must be an integer from 4 to 60"}},
    {LING LAYERS " \"x\": 1}", RT_ERR_CONFIG, {"layer_group_size is missing: a bailing_hybrid"}},
    {LING LAYERS " \"layer_group_size\": 0}",
     RT_ERR_CONFIG,
     {"layer_group_size is 0: must be an int"}},
    {ALL " \"rope_parameters\": {\"full_attention\": " DEEP ", \"rope_type\": \"default\"}}",
     RT_ERR_CONFIG,
     {"rope_parameters gives the mscale 1 and rope_parameters.full_attention 1.36889: must agree"}},
    {ALL " \"rope_parameters\": {\"a\": " DEEP ", \"b\": {\"rope_type\": \"default\"}}}",
     RT_ERR_CONFIG,
     {"rope_parameters.a gives the mscale 1.36889 and rope_parameters.b 1: must agree"}},
    {ALL "\n \"rope_parameters\": {\"full_attention\": {\"factor\": \"40\"}}}",
     RT_ERR_CONFIG,
     {"config.json:7: rope_parameters.full_attention.factor is \"40\": must be a number"}},
    {ALL " \"a\": 1}\n---\n{}", RT_ERR_CONFIG, {"config.json:7: a second document begins"}},
    {"{\"model_type\\u0000\": \"deepseek_v3\"}", RT_ERR_CONFIG, {"a key has a NUL in it"}},
    {"{\"model_type\": \"deepseek_v3\\u0000\"}", RT_ERR_CONFIG, {"model_type is \"deepseek_v3?\""}},
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
    assert_int_equal(rt_model_load("/nowhere/config.json", &g, NULL, NULL), RT_ERR_FILE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_scales),
        cmocka_unit_test(test_strange),
        cmocka_unit_test(test_huge),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_deep),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_no_error_struct),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
