/* SPDX-License-Identifier: Apache-2.0 */
/* What a config.json says of the block around attention. */
#include "config/model.h"
#include "tests/unit/expect.h"

#include <math.h>

struct good {
    const char *file; /* below tests/data */
    uint32_t hidden, q_rank, nope, v;
    double eps, q_scale, kv_scale;
    struct rt_rope rope;
};

/* The models' own numbers; 0.1 ln(factor) + 1 where a yarn has no mscale. */
static const struct good GOOD[] = {
    {"models/deepseek_v3.json",
     7168,
     1536,
     128,
     128,
     1e-6,
     1,
     1,
     {RT_ROPE_YARN, RT_ROPE_INTERLEAVED, 10000, 40, 4096, 1, 32, 1, 1, {0}, {0}, 0}},
    {"golden/tiny_deepseek_v2/config.json",
     64,
     0,
     128,
     128,
     1e-6,
     1,
     1,
     {RT_ROPE_DEFAULT, RT_ROPE_INTERLEAVED, 10000, 0, 8192, 1, 32, 1, 1, {0}, {0}, 0}},
    {"golden/tiny_deepseek_v3/config.json",
     64,
     48,
     128,
     128,
     1e-6,
     1,
     1,
     {RT_ROPE_YARN, RT_ROPE_INTERLEAVED, 10000, 4, 64, 1, 32, 1, 1, {0}, {0}, 0}},
    {"golden/tiny_mistral4/config.json",
     64,
     48,
     64,
     128,
     1e-6,
     1,
     1,
     {RT_ROPE_YARN, RT_ROPE_INTERLEAVED, 10000, 128, 8192, 1, 32, 1, 1, {0}, {0}, 0.1}},
};

static enum rt_status load(const char *file, struct rt_geometry *g, struct rt_block *b,
                           struct rt_error *err)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", RT_TEST_DATA, file);
    return rt_model_load(path, g, b, err);
}

static void test_families(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(GOOD); i++) {
        const struct good *want = &GOOD[i];
        struct rt_geometry g = {.heads = 0};
        struct rt_block b = {.hidden_size = 0};
        struct rt_error err = {.message = ""};
        if (load(want->file, &g, &b, &err) != RT_OK)
            fail_msg("%s: %s", want->file, err.message);
        if (b.hidden_size != want->hidden || b.q_lora_rank != want->q_rank ||
            b.qk_nope_head_dim != want->nope || b.v_head_dim != want->v || b.norm_eps != 1e-6 ||
            b.input_norm_eps != want->eps || b.q_a_scale != want->q_scale ||
            b.kv_a_scale != want->kv_scale)
            fail_msg("%s: %u %u %u %u %g %g %g", want->file, b.hidden_size, b.q_lora_rank,
                     b.qk_nope_head_dim, b.v_head_dim, b.input_norm_eps, b.q_a_scale, b.kv_a_scale);
        const struct rt_rope *r = &b.rope, *w = &want->rope;
        if (r->type != w->type || r->order != w->order || r->theta != w->theta ||
            r->factor != w->factor || r->original_max_length != w->original_max_length ||
            r->attention_factor != w->attention_factor || r->beta_fast != w->beta_fast ||
            r->query_scale_beta != w->query_scale_beta)
            fail_msg("%s: rope %d %d %g %g %u %g %g %g", want->file, (int)r->type, (int)r->order,
                     r->theta, r->factor, r->original_max_length, r->attention_factor, r->beta_fast,
                     r->query_scale_beta);
    }
}

#define BASE                                                                                       \
    "\"num_attention_heads\": 4, \"kv_lora_rank\": 512, \"qk_nope_head_dim\": 128,\n"              \
    " \"qk_rope_head_dim\": 64, \"num_hidden_layers\": 2, \"max_position_embeddings\": 4096,\n"
#define BLOCK "\"hidden_size\": 2048, \"v_head_dim\": 128,\n"
#define V3 "{\"model_type\": \"deepseek_v3\", " BASE

static enum rt_status parse(const char *text, struct rt_block *b, struct rt_error *err)
{
    struct rt_geometry g;
    struct rt_source source = {.text = text, .bytes = strlen(text), .name = "config.json"};
    return rt_model_parse(&source, &g, b, err);
}

static struct rt_block good(const char *text)
{
    struct rt_block b = {.hidden_size = 0};
    struct rt_error err = {.message = ""};
    if (parse(text, &b, &err) != RT_OK)
        fail_msg("%s: %s", text, err.message);
    return b;
}

/* sqrt(2048 / 512) = 2 and sqrt(2048 / 128) = 4. */
static void test_multipliers(void **state)
{
    (void)state;
    struct rt_block b = good("{\"model_type\": \"longcat_flash\", \"num_layers\": 1, " BASE BLOCK
                             "\"q_lora_rank\": 128, \"mla_scale_q_lora\": true,"
                             " \"mla_scale_kv_lora\": true}");
    assert_true(b.q_a_scale == 4.0 && b.kv_a_scale == 2.0);
    assert_true(b.residual_scale == 1.0);
    b = good("{\"model_type\": \"longcat_flash\", \"num_layers\": 1, " BASE BLOCK
             "\"q_lora_rank\": 128, \"mla_scale_q_lora\": true, \"scale_depth\": 3}");
    assert_true(b.q_a_scale == 4.0 && b.kv_a_scale == 1.0 && b.residual_scale == 1.0);
    b = good("{\"model_type\": \"minicpm3\", " BASE BLOCK "\"scale_depth\": 1.4}");
    assert_true(b.residual_scale == 1.4 / sqrt(2.0));
    b = good("{\"model_type\": \"minicpm3\", " BASE BLOCK "\"scale_emb\": 12}");
    assert_true(b.residual_scale == 1.0 / sqrt(2.0));
}

static void test_rope(void **state)
{
    (void)state;
    struct rt_block b = good(V3 BLOCK "\"rope_theta\": 5e4, \"rms_norm_eps\": 1e-5}");
    assert_true(b.rope.theta == 5e4 && b.input_norm_eps == 1e-5);
    assert_true(b.rope.type == RT_ROPE_DEFAULT && b.rope.order == RT_ROPE_INTERLEAVED);
    b = good(V3 BLOCK "\"rope_theta\": 5e4, \"rope_interleave\": false, \"rope_parameters\":"
                      " {\"rope_theta\": 7, \"full_attention\": {\"rope_theta\": 8}}}");
    assert_true(b.rope.theta == 8.0 && b.rope.order == RT_ROPE_HALF);
    b = good(V3 BLOCK "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40, \"mscale\": 1,"
                      " \"mscale_all_dim\": 0.5, \"beta_slow\": 2, \"truncate\": false}}");
    const double ratio = (0.1 * log(40.0) + 1.0) / (0.05 * log(40.0) + 1.0);
    assert_true(fabs(b.rope.attention_factor / ratio - 1.0) < 1e-15);
    assert_true(b.rope.beta_slow == 2.0 && b.rope.truncate == 0);
    assert_int_equal(b.rope.original_max_length, 4096);
    b = good(V3 BLOCK "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40}}");
    assert_true(fabs(b.rope.attention_factor / (0.1 * log(40.0) + 1.0) - 1.0) < 1e-15);
    b = good("{\"model_type\": \"minicpm3\", " BASE BLOCK "\"x\": 1}");
    assert_int_equal(b.rope.order, RT_ROPE_HALF);
    b = good("{\"model_type\": \"kimi_linear\", " BASE BLOCK "\"mla_use_nope\": true,"
             " \"linear_attn_config\": {\"full_attn_layers\": [1, 2]}}");
    assert_int_equal(b.rope.type, RT_ROPE_NONE);
}

static void test_longrope(void **state)
{
    (void)state;
    char text[2048], list[512] = "";
    for (int i = 0; i < 32; i++)
        (void)snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%d.5", i ? "," : "", i);
    (void)snprintf(text, sizeof(text),
                   V3 BLOCK
                   "\"rope_scaling\": {\"rope_type\": \"longrope\", \"short_factor\": [%s],"
                   " \"long_factor\": [%s], \"original_max_position_embeddings\": 1024}}",
                   list, list);
    const struct rt_block b = good(text);
    assert_int_equal(b.rope.type, RT_ROPE_LONGROPE);
    assert_true(b.rope.short_factor[31] == 31.5 && b.rope.long_factor[0] == 0.5);
    assert_true(fabs(b.rope.attention_factor - sqrt(1.0 + log(4.0) / log(1024.0))) < 1e-15);
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {V3 "\"v_head_dim\": 128}", "hidden_size is missing: a deepseek_v3 model must have it"},
        {V3 "\"hidden_size\": 64}", "v_head_dim is missing"},
        {V3 BLOCK "\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}",
         "rope_scaling.type is \"dynamic\": must be default, yarn, deepseek_yarn or longrope"},
        {V3 BLOCK "\"rope_scaling\": {\"type\": \"yarn\"}}", "rope_scaling.factor is missing"},
        {"{\"model_type\": \"minicpm3\", " BASE BLOCK "\"scale_depth\": 0}",
         "scale_depth is 0: must be a number above 0"},
        {V3 BLOCK "\"rope_scaling\": {\"type\": \"su\", \"short_factor\": [1]}}",
         "rope_scaling.short_factor is a list: must be a list of 32 numbers above 0"},
        {V3 BLOCK "\"rope_scaling\": {\"type\": \"su\", \"short_factor\": [true]}}",
         "rope_scaling.short_factor[0] is true: must be a number"},
        {V3 BLOCK "\"sliding_window\": 4095}",
         "json:4: sliding_window is 4095: must be null: every token sees all before it here"},
        {V3 BLOCK "\"sliding_window\": 64, \"use_sliding_window\": true}", "sliding_window is 64"},
        {V3 BLOCK "\"attn_logit_softcapping\": 50.0}",
         "attn_logit_softcapping is 50.0: must be null: scores have no cap here"},
        {V3 BLOCK "\"qk_head_dim\": 128}",
         "qk_head_dim is 128: must be 192, the sum of qk_nope_head_dim and qk_rope_head_dim"},
        {V3 BLOCK "\"use_qk_norm\": true}", "use_qk_norm is true: must be false: heads of q and k"},
        {V3 BLOCK "\"qk_layernorm\": true}", "qk_layernorm is true: must be false"},
        {V3 BLOCK "\"layer_types\": [\"full_attention\", \"sliding_attention\"]}",
         "layer_types[1] is \"sliding_attention\": must be full_attention or deepseek_sparse"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct rt_block b;
        struct rt_error err = {.message = ""};
        assert_int_equal(parse(bad[i][0], &b, &err), RT_ERR_CONFIG);
        if (!strstr(err.message, bad[i][1]))
            fail_msg("%s\nis told as %s\nwant %s", bad[i][0], err.message, bad[i][1]);
    }
}

/* Nothing else is asked for by these. */
static void test_asked_for_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = {
        V3 BLOCK "\"sliding_window\": null, \"attn_logit_softcapping\": null}",
        V3 BLOCK "\"sliding_window\": 64, \"use_sliding_window\": false}",
        V3 BLOCK "\"sliding_window\": 4096, \"use_qk_norm\": false, \"qk_layernorm\": null}",
        V3 BLOCK "\"attn_logit_softcapping\": 0, \"qk_head_dim\": 192, \"use_qk_norm\": null}",
        V3 BLOCK "\"qk_head_dim\": null, \"layer_types\": [\"full_attention\"]}",
    };
    for (size_t i = 0; i < COUNT(texts); i++)
        assert_int_equal(good(texts[i]).hidden_size, 2048);
}

/* A block that has more than ours is refused, and its attention is still served. */
static void test_not_served(void **state)
{
    (void)state;
    static const char *const files[] = {"models/gigachat_3_5.json", "models/hy_v4_preview.json",
                                        "models/kimi_k3.json"};
    for (size_t i = 0; i < COUNT(files); i++) {
        struct rt_geometry g;
        struct rt_block b;
        struct rt_error err = {.message = ""};
        assert_int_equal(load(files[i], &g, NULL, &err), RT_OK);
        assert_int_equal(load(files[i], &g, &b, &err), RT_ERR_CONFIG);
        assert_non_null(strstr(err.message, "gate on its attention's output: must be without"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_multipliers),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_longrope),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_not_served),
        cmocka_unit_test(test_asked_for_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
