/* SPDX-License-Identifier: Apache-2.0 */
/* What is read of a config.json, family by family, and every way in which one is refused. */
#include "models/family.h"
#include "tests/models/scratch.h"

#include <math.h>

static struct rt_model parse_good(const char *text)
{
    struct rt_model m;
    struct rt_error err = {.status = RT_OK};
    if (rt_family_parse("x", text, strlen(text), &m, &err) != RT_OK)
        fail_msg("%s\n%s", text, err.message);
    return m;
}

static void refuse(const char *text, const char *words)
{
    struct rt_model m, before;
    struct rt_error err = {.status = RT_OK};
    memset(&before, 0x5A, sizeof(before));
    m = before;
    expect(text, rt_family_parse("x", text, strlen(text), &m, &err), &err, RT_ERR_CONFIG, &words,
           1);
    assert_memory_equal(&m, &before, sizeof(m));
}

/* Keys of each, so that a test can change what they say by what it puts in their place. */
#define START(type)                                                                                \
    "{\"model_type\": \"" type "\",\n\"vocab_size\": 100, \"hidden_size\": 64, "                   \
    "\"num_hidden_layers\": 4,\n\"rms_norm_eps\": 1e-05, \"intermediate_size\": 128"
#define EXPERTS                                                                                    \
    ",\n\"n_routed_experts\": 16, \"num_experts_per_tok\": 4, \"moe_intermediate_size\": 32, "     \
    "\"n_shared_experts\": 2,\n\"routed_scaling_factor\": 2.5"
#define GROUPS ",\n\"n_group\": 4, \"topk_group\": 2"
#define FIRST ",\n\"first_k_dense_replace\": 1"
#define V3(more) START("deepseek_v3") EXPERTS GROUPS FIRST more "}"
#define V2(more) START("deepseek_v2") EXPERTS FIRST more "}"

/* ---- families -------------------------------------------------------------------------------- */

static void expect_layers(const struct rt_model *m, const char *want)
{
    for (uint32_t i = 0; i < m->layers; i++)
        if (m->moe_layers[i] != (want[i] == 'm'))
            fail_msg("layer %u is %d, expected %s", i, m->moe_layers[i], want);
}

static void test_common(void **state)
{
    (void)state;
    struct rt_model m = parse_good(START("youtu_llm") ", \"max_position_embeddings\": 4096, "
                                                      "\"eos_token_id\": [7, 99]}");
    assert_int_equal(m.struct_size, sizeof(m));
    assert_string_equal(m.family, "youtu");
    assert_int_equal(m.vocab_size, 100);
    assert_int_equal(m.hidden_size, 64);
    assert_int_equal(m.layers, 4);
    assert_int_equal(m.intermediate_size, 128);
    assert_int_equal(m.max_positions, 4096);
    assert_true(m.norm_eps == 1e-5);
    assert_int_equal(m.tied, 1);
    assert_int_equal(m.bos, -1);
    assert_int_equal(m.eos_count, 2);
    assert_int_equal(m.eos[1], 99);
    assert_int_equal(m.has_zero_token, 0);
    assert_int_equal(m.moe.experts, 0);
    assert_true(m.embedding_scale == 1 && m.residual_scale == 1 && m.logits_scale == 1);
    expect_layers(&m, "dddd");
    m = parse_good(START("youtu") ", \"eos_token_id\": 3, \"bos_token_id\": 0, "
                                  "\"pad_token_id\": 5, \"tie_word_embeddings\": false}");
    assert_int_equal(m.bos, 0);
    assert_int_equal(m.eos_count, 1);
    assert_int_equal(m.eos[0], 3);
    assert_int_equal(m.tied, 0);
    assert_int_equal(m.has_zero_token, 1);
    assert_int_equal(m.zero_token, 5);
    assert_int_equal(m.max_positions, 0);
}

static void test_deepseek_v2(void **state)
{
    (void)state;
    struct rt_model m = parse_good(V2(", \"norm_topk_prob\": false"));
    const struct rt_moe greedy = {.experts = 16,
                                  .experts_per_token = 4,
                                  .groups = 1,
                                  .groups_per_token = 1,
                                  .scoring = RT_SCORING_SOFTMAX,
                                  .group_score = RT_GROUP_SCORE_MAX,
                                  .scale = 2.5,
                                  .intermediate_size = 32,
                                  .shared_intermediate_size = 64};
    assert_memory_equal(&m.moe, &greedy, sizeof(greedy));
    expect_layers(&m, "dmmm");
    assert_int_equal(m.tied, 0);
    m = parse_good(V2(GROUPS ", \"topk_method\": \"group_limited_greedy\", "
                             "\"scoring_func\": \"softmax\", \"moe_layer_freq\": 2"));
    assert_int_equal(m.moe.groups, 4);
    assert_int_equal(m.moe.groups_per_token, 2);
    expect_layers(&m, "ddmd");
    /* Groups of a greedy one, as V2-Lite's file has them, choose nothing. */
    m = parse_good(V2(", \"n_group\": 1, \"topk_group\": 1, \"topk_method\": \"greedy\""));
    assert_int_equal(m.moe.groups, 1);
    m = parse_good(START("deepseek_v2") ", \"n_routed_experts\": null}");
    assert_int_equal(m.moe.experts, 0);
    expect_layers(&m, "dddd");
    refuse(START("deepseek_v2") ", \"n_routed_experts\": null, \"n_routed_experts\": 16}",
           "n_routed_experts is given 2 times: must be once");
    refuse(V2(", \"norm_topk_prob\": true"),
           "x:6: norm_topk_prob is true: must be false in a deep");
    refuse(V2(", \"topk_method\": \"noaux_tc\""),
           "topk_method is \"noaux_tc\": must be \"greedy\" or \"group_limited_greedy\"");
    refuse(V2(", \"scoring_func\": \"sigmoid\""),
           "scoring_func is \"sigmoid\": must be \"softmax\"");
    refuse(V2(", \"topk_method\": \"group_limited_greedy\""), "x: n_group is missing: must be an");
}

static void test_deepseek_v3(void **state)
{
    (void)state;
    struct rt_model m = parse_good(V3(", \"num_nextn_predict_layers\": 1"));
    const struct rt_moe moe = {.experts = 16,
                               .experts_per_token = 4,
                               .groups = 4,
                               .groups_per_token = 2,
                               .scoring = RT_SCORING_SIGMOID,
                               .group_score = RT_GROUP_SCORE_TOP2,
                               .bias = 1,
                               .normalise = 1,
                               .scale = 2.5,
                               .intermediate_size = 32,
                               .shared_intermediate_size = 64};
    assert_memory_equal(&m.moe, &moe, sizeof(moe));
    expect_layers(&m, "dmmm");
    m = parse_good(V3(", \"norm_topk_prob\": false, \"topk_method\": \"noaux_tc\""));
    assert_int_equal(m.moe.normalise, 0);
    refuse(V3(", \"scoring_func\": \"softmax\""),
           "scoring_func is \"softmax\": must be \"sigmoid\"");
    refuse(START("deepseek_v3") EXPERTS GROUPS "}", "first_k_dense_replace is missing");
    refuse(START("deepseek_v3") EXPERTS FIRST "}", "n_group is missing");
    refuse(START("deepseek_v3") "}",
           "n_routed_experts is missing: must be an integer from 1 to 4096");
    refuse(START("deepseek_v3") EXPERTS FIRST ", \"n_group\": 3, \"topk_group\": 1}",
           "n_group is 3: must divide n_routed_experts, 16");
    refuse(START("deepseek_v3") EXPERTS FIRST ", \"n_group\": 8, \"topk_group\": 1}",
           "num_experts_per_tok is 4: must be at most 2, the experts of topk_group 1 groups");
    refuse(START("deepseek_v3") EXPERTS FIRST ", \"n_group\": 4, \"topk_group\": 5}",
           "topk_group is 5: must be an integer from 1 to 4");
}

static void test_glm4_moe_lite(void **state)
{
    (void)state;
#define GLM(more) START("glm4_moe_lite") EXPERTS GROUPS more "}"
    struct rt_model m = parse_good(GLM(""));
    assert_int_equal(m.moe.scoring, RT_SCORING_SIGMOID);
    assert_int_equal(m.moe.bias, 1);
    expect_layers(&m, "dmmm");
    m = parse_good(GLM(", \"first_k_dense_replace\": 2"));
    expect_layers(&m, "ddmm");
    m = parse_good(
        GLM(FIRST ", \"mlp_layer_types\": [\"sparse\", \"dense\", \"dense\", \"sparse\"]"));
    expect_layers(&m, "mddm");
    refuse(GLM(", \"mlp_layer_types\": \"dense\""), "must be a list of 4 words, dense or sparse");
    refuse(GLM(", \"mlp_layer_types\": [\"dense\"]"),
           "mlp_layer_types is a list: must be a list of 4");
    refuse(GLM(", \"mlp_layer_types\": [\"dense\", 1]"), "mlp_layer_types[1] is 1: must be");
    refuse(GLM(", \"mlp_layer_types\": [\"dense\", \"moe\"]"),
           "mlp_layer_types[1] is \"moe\": must");
    refuse(GLM(", \"mlp_layer_types\": [\"dense\",\"dense\",\"dense\",\"dense\",\"dense\"]"),
           "mlp_layer_types[4] is \"dense\": must be a list of 4 words");
}

static void test_mistral4(void **state)
{
    (void)state;
    const struct rt_model m = parse_good(START("mistral4") EXPERTS GROUPS "}");
    const struct rt_moe moe = {.experts = 16,
                               .experts_per_token = 4,
                               .groups = 4,
                               .groups_per_token = 2,
                               .scoring = RT_SCORING_SOFTMAX,
                               .group_score = RT_GROUP_SCORE_TOP2,
                               .normalise = 1,
                               .scale = 2.5,
                               .intermediate_size = 32,
                               .shared_intermediate_size = 64};
    assert_memory_equal(&m.moe, &moe, sizeof(moe));
    expect_layers(&m, "mmmm");
    assert_int_equal(m.intermediate_size, 0);
}

static void test_minicpm3(void **state)
{
    (void)state;
#define MINI(scales) START("minicpm3") scales "}"
    const struct rt_model m =
        parse_good(MINI(", \"scale_emb\": 12, \"scale_depth\": 1.4, \"dim_model_base\": 256"));
    assert_true(m.embedding_scale == 12);
    assert_true(m.residual_scale == 1.4 / 2);
    assert_true(m.logits_scale == 4);
    assert_int_equal(m.tied, 1);
    refuse(MINI(", \"scale_depth\": 1.4, \"dim_model_base\": 256"),
           "x: scale_emb is missing: must be a number above 0");
    refuse(MINI(", \"scale_emb\": 12, \"dim_model_base\": 256"), "scale_depth is missing");
    refuse(MINI(", \"scale_emb\": 12, \"scale_depth\": 1.4"), "dim_model_base is missing");
    refuse(MINI(", \"scale_emb\": -1"), "scale_emb is -1: must be a number above 0");
    refuse(MINI(", \"scale_emb\": 1e999"), "scale_emb is 1e999: must be a number above 0");
    refuse(MINI(", \"scale_emb\": \"12\""), "scale_emb is \"12\": must be a number above 0");
}

/* The part that is of a family here, wherever it is. */
static void test_nested(void **state)
{
    (void)state;
    struct rt_model m = parse_good("{\"model_type\": \"kimi_k25\", \"vocab_size\": 1, "
                                   "\"text_config\": " V3("") "}");
    assert_string_equal(m.family, "deepseek_v3");
    assert_int_equal(m.vocab_size, 100);
    m = parse_good("{\"language_config\": " START("youtu") "}, \"model_type\": \"youtu_vl\"}");
    assert_string_equal(m.family, "youtu");
    m = parse_good(START("youtu") ", \"text_config\": {\"model_type\": \"other\"}}");
    assert_string_equal(m.family, "youtu");
}

/* ---- what is refused everywhere -------------------------------------------------------------- */

static void test_bad_text(void **state)
{
    (void)state;
    refuse("", "x: is not an object of JSON");
    refuse("[1]", "x: is not an object of JSON");
    refuse("{\"a\": 1", "x:1: has no ',' or '}' at column 8");
    refuse("{} {}", "x:1: has more than one value at column 4");
    refuse("{\"a\": Infinite}", "x:1: has a number that is none at column 7");
    refuse("{\n \"a\": 1,\n \"b\": 2,,\n}", "x:3: has no string at column 9");
    refuse("\xef\xbb\xbf{\"a\": Non}", "x:1: has a number that is none at column 10");
    refuse("\xef\xbb\xbf[]", "x: is not an object of JSON");
    refuse("{}", "x: model_type is missing: must be one of those known: deepseek_v2, deepseek_v3, "
                 "glm4_moe_lite, minicpm3, mistral4, youtu, youtu_llm");
    refuse("{\"model_type\":\n\"llama\"}",
           "x:2: model_type is \"llama\": must be one of those known");
    refuse("{\"model_type\": 7}",
           "x:1: model_type is 7: must be a string of at most 63 characters");
    refuse("{\"model_type\": \"a\", \"text_config\": {\"model_type\": \"b\"}}",
           "x:1: model_type is \"a\": must be one of those known");
    refuse("{\"model_type\": \"a\",\n\"text_config\": {\"model_type\":\n7}}",
           "x:3: text_config.model_type is 7: must be a string");
    refuse("{\"model_type\": \"a\", \"language_config\": " START("youtu") ",\n\"mlp_bias\": true}}",
           "x:4: language_config.mlp_bias is true: must be false");
    refuse("{\"text_config\": {\"model_type\": \"youtu\"}}",
           "x: text_config.vocab_size is missing");
    refuse("{\"model_type\": \"youtu\", \"model_type\": \"youtu\"}",
           "x: model_type is given 2 times: must be once");
    refuse("{\"model_type\": \"youtu\", \"model_t\\u0079pe\": \"youtu\"}",
           "x: model_type is given 2 times: must be once");
    refuse("{\"text_config\": 1, \"text_config\": {\"model_type\": \"youtu\"}}",
           "x: text_config is given 2 times: must be once");
}

#define YOUTU(sizes, more)                                                                         \
    "{\"model_type\": \"youtu\", " sizes                                                           \
    "\"num_hidden_layers\": 4, \"rms_norm_eps\": 1e-6, \"intermediate_size\": 128" more "}"
#define SIZES "\"vocab_size\": 100, \"hidden_size\": 64, "
#define EPS(value)                                                                                 \
    "{\"model_type\": \"youtu\", " SIZES "\"num_hidden_layers\": 2, \"rms_norm_eps\": " value "}"

#define START_OF(layers)                                                                           \
    "{\"model_type\": \"deepseek_v3\", " SIZES                                                     \
    "\"rms_norm_eps\": 1, \"num_hidden_layers\": " #layers ", \"first_k_dense_replace\": 0"

static void test_bad_values(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {YOUTU("", ""), "vocab_size is missing: must be an integer from 1 to 16777216"},
        {YOUTU("\"vocab_size\": 0, ", ""), "vocab_size is 0: must be an integer from 1 to"},
        {YOUTU("\"vocab_size\": -5, ", ""), "vocab_size is -5: must be an integer"},
        {YOUTU("\"vocab_size\": 1e2, ", ""), "vocab_size is 1e2: must be an integer"},
        {YOUTU("\"vocab_size\": \"100\", ", ""), "vocab_size is \"100\": must be an integer"},
        {YOUTU("\"vocab_size\": [100], ", ""), "vocab_size is a list: must be an integer"},
        {YOUTU("\"vocab_size\": 99999999999999999999, ", ""), "is 99999999999999999999: must be"},
        {YOUTU("\"vocab_size\": 100, \"hidden_size\": 65537, ", ""), "from 1 to 65536"},
        {YOUTU(SIZES, ", \"rms_norm_eps\": 1"), "rms_norm_eps is given 2 times: must be once"},
        {YOUTU(SIZES, ", \"hidden_act\": \"gelu\""), "hidden_act is \"gelu\": must be \"silu\""},
        {YOUTU(SIZES, ", \"hidden_act\": 1"), "hidden_act is 1: must be \"silu\""},
        {YOUTU(SIZES, ", \"mlp_bias\": true"),
         "mlp_bias is true: must be false: an MLP has no bias"},
        {YOUTU(SIZES, ", \"mlp_bias\": 0"), "mlp_bias is 0: must be true or false"},
        {YOUTU(SIZES, ", \"tie_word_embeddings\": \"no\""), "is \"no\": must be true or false"},
        {YOUTU(SIZES, ", \"eos_token_id\": 100"),
         "eos_token_id is 100: must be an integer from 0 to 99, or a list of at most 8"},
        {YOUTU(SIZES, ", \"eos_token_id\": [1, 100]"), "eos_token_id[1] is 100: must be"},
        {YOUTU(SIZES, ", \"eos_token_id\": [1,2,3,4,5,6,7,8,9]"),
         "eos_token_id is a list: must be"},
        {YOUTU(SIZES, ", \"bos_token_id\": -1"), "bos_token_id is -1: must be an integer from 0"},
        {YOUTU(SIZES, ", \"pad_token_id\": 100"), "pad_token_id is 100: must be"},
        {START("deepseek_v3") EXPERTS GROUPS ", \"first_k_dense_replace\": 5}",
         "first_k_dense_replace is 5: must be an integer from 0 to 4"},
        {START("deepseek_v3") ", \"n_routed_experts\": 4, \"num_experts_per_tok\": 5}",
         "num_experts_per_tok is 5: must be an integer from 1 to 4"},
        {"{\"model_type\": \"youtu\", " SIZES "\"num_hidden_layers\": 1025}",
         "num_hidden_layers is 1025: must be an integer from 1 to 1024"},
        {"{\"model_type\": \"youtu\", " SIZES "\"num_hidden_layers\": 2}",
         "rms_norm_eps is missing"},
        {"{\"model_type\": \"youtu\", " SIZES "\"num_hidden_layers\": 2, \"rms_norm_eps\": 0}",
         "rms_norm_eps is 0: must be a number above 0"},
        {START_OF(128) ", \"n_routed_experts\": 4096, \"num_experts_per_tok\": 4, "
                       "\"moe_intermediate_size\": 8, \"routed_scaling_factor\": 1" GROUPS "}",
         "n_routed_experts is 4096: must be at most 2048 in 128 layers, 262144 in all"},
        {EPS("NaN"), "rms_norm_eps is NaN: must be a number above 0, from 1.18e-38"},
        {EPS("-Infinity"), "rms_norm_eps is -Infinity: must be"},
        {EPS("1e999"), "rms_norm_eps is 1e999: must be"},
        {EPS("1e-999"), "rms_norm_eps is 1e-999: must be"},
        {EPS("1e39"), "rms_norm_eps is 1e39: must be a number above 0, from 1.18e-38 to 3.4e+38"},
        {EPS("1e-39"), "rms_norm_eps is 1e-39: must be"},
        {YOUTU(SIZES, ",\n\"num_attention_heads\": 129"),
         "x:2: num_attention_heads is 129: must be an integer from 1 to 128"},
        {YOUTU(SIZES, ", \"v_head_dim\": 0"), "v_head_dim is 0: must be an integer from 8 to 512"},
        {YOUTU(SIZES, ", \"v_head_dim\": 100"), "v_head_dim is 100: must be a multiple of 8, from"},
        {YOUTU(SIZES, ", \"qk_nope_head_dim\": 12"), "qk_nope_head_dim is 12: must be a multiple"},
        {YOUTU(SIZES, ", \"q_lora_rank\": 4"), "q_lora_rank is 4: must be a multiple of 8, from 0"},
        {YOUTU(SIZES, ", \"final_logit_softcapping\": 30"),
         "final_logit_softcapping is 30: must be null: logits have no cap here"},
        {"{\"model_type\": \"youtu\", \"vocab_size\": 100, \"num_hidden_layers\": 2,\n"
         "\"hidden_size\": 60, \"rms_norm_eps\": 1, \"intermediate_size\": 8}",
         "x:2: hidden_size is 60: must be a multiple of 8, from 8 to 65536"},
        {"{\"model_type\": \"youtu\", " SIZES "\"num_hidden_layers\": 2, \"rms_norm_eps\": 1}",
         "intermediate_size is missing"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        refuse(cases[i].text, cases[i].words);
}

/* Numbers as Python and people write them, and what says that there is nothing. */
static void test_odd_text(void **state)
{
    (void)state;
    struct rt_model m = parse_good("\xef\xbb\xbf" YOUTU(SIZES, ", \"x\": [NaN, -Infinity]"));
    assert_int_equal(m.attention_bias, 0);
    m = parse_good(
        EPS("0.00001000000000000000000000000000000000000000000000000000000000000000000001"
            ", \"y\": Infinity, \"q_lora_rank\": null, \"intermediate_size\": 8, "
            "\"final_logit_softcapping\": 0.0, \"attention_bias\": true"));
    assert_true(m.norm_eps == 1e-5);
    assert_int_equal(m.attention_bias, 1);
}

/* ---- files ----------------------------------------------------------------------------------- */

#define GOLDEN RT_TEST_DATA "/golden/tiny_"

static void test_files(void **state)
{
    (void)state;
    struct rt_model m = {.struct_size = sizeof(m)}, n = m;
    struct rt_config config;
    struct rt_error err = {.status = RT_OK};
    rt_config_default(&config);
    assert_int_equal(rt_model_read(GOLDEN "mistral4", &m, &err), RT_OK);
    assert_int_equal(rt_model_read(GOLDEN "mistral4/config.json", &n, &err), RT_OK);
    assert_memory_equal(&m, &n, sizeof(m));
    assert_string_equal(m.family, "mistral4");
    assert_int_equal(rt_config_model(GOLDEN "mistral4/config.json", &config, &err), RT_OK);
    assert_memory_equal(&m.geometry, &config.geometry, sizeof(m.geometry));
    assert_memory_equal(&m.block, &config.block, sizeof(m.block));
    assert_int_equal(rt_model_read(RT_TEST_DATA, &m, &err), RT_ERR_FILE);
    assert_non_null(strstr(err.message, "/config.json: No such file"));
    assert_int_equal(rt_model_read(NULL, &m, &err), RT_ERR_INVALID);
    assert_int_equal(rt_model_read(GOLDEN "youtu", NULL, &err), RT_ERR_INVALID);
    m.struct_size = 3;
    assert_int_equal(rt_model_read(GOLDEN "youtu", &m, &err), RT_ERR_INVALID);
    scratch_make();
    scratch_text("config.json", V3(", \"num_attention_heads\": 4"));
    m.struct_size = sizeof(m);
    assert_int_equal(rt_model_read(scratch_path(""), &m, &err), RT_ERR_CONFIG);
    assert_non_null(strstr(err.message, "config.json: kv_lora_rank is missing"));
    scratch_text("config.json",
                 V3(", \"num_attention_heads\": 4, \"kv_lora_rank\": 512, \"rope_theta\": 1e-9,"
                    " \"qk_rope_head_dim\": 64, \"qk_nope_head_dim\": 64, \"v_head_dim\": 64,"
                    " \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2,"
                    " \"attention_factor\": 1e60}"));
    assert_int_equal(rt_model_read(scratch_path(""), &m, &err), RT_ERR_CONFIG);
    if (!strstr(err.message, "config.json: block.rope.attention_factor is 1e+60: must be"))
        fail_msg("%s", err.message);
    scratch_text("config.json", "");
    assert_int_equal(rt_model_read(scratch_path(""), &m, &err), RT_ERR_CONFIG);
    scratch_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_common),      cmocka_unit_test(test_deepseek_v2),
        cmocka_unit_test(test_deepseek_v3), cmocka_unit_test(test_glm4_moe_lite),
        cmocka_unit_test(test_mistral4),    cmocka_unit_test(test_minicpm3),
        cmocka_unit_test(test_nested),      cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_bad_values),  cmocka_unit_test(test_files),
        cmocka_unit_test(test_odd_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
