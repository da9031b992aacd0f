/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mathematics around the attention in the example mla_trace, against recorded traces, with
 * attention in double precision in the runtime's place: exact numbers agree to float's precision,
 * rounded ones stay within the bound, and each mistake that is easily made goes far beyond it.
 */
#include "examples/mla_cpu.h"

#include "examples/bf16.h"
#include "examples/golden.h"
#include "examples/mla_model.h"
#include "examples/outcome.h"

#include <math.h>
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

enum { MAX_KEYS = 256 };

struct bench {
    struct mla_model model;
    struct golden golden;
    double softmax_scale;
    bool rounded;        /* q, latents and out go through bf16 */
    bool stale_key;      /* the key before the first compared one is written twice */
    size_t width;        /* L + R */
    double *keys;        /* [MAX_KEYS, L + R] */
    double *exact;       /* [MAX_KEYS, L + R] */
    double *q, *exact_q; /* [N, L + R] */
    double *out;         /* [N, L] */
    double *x, *y;       /* [H] */
    double *scratch;
};

static double yarn_scale(double head_dim, double factor)
{
    const double m = 0.1 * log(factor) + 1.0;
    return m * m / sqrt(head_dim);
}

static double *numbers(size_t count)
{
    double *memory = malloc(count * sizeof *memory);
    assert_non_null(memory);
    return memory;
}

static void bench_open(struct bench *b, const char *name, double softmax_scale)
{
    char path[1024];
    struct rt_error error = {0};
    *b = (struct bench){.softmax_scale = softmax_scale};
    (void)snprintf(path, sizeof path, "%s/golden/%s", RT_TEST_DATA, name);
    if (mla_model_open(path, &b->model, &error) != RT_OK)
        fail_msg("%s", error.message);
    (void)snprintf(path, sizeof path, "%s/golden/%s/golden.safetensors", RT_TEST_DATA, name);
    if (golden_open(path, &b->golden, &error) != RT_OK)
        fail_msg("%s", error.message);
    const struct mla_config *c = &b->model.config;
    b->width = (size_t)c->kv_rank + c->rope;
    b->keys = numbers(MAX_KEYS * b->width);
    b->exact = numbers(MAX_KEYS * b->width);
    b->q = numbers(c->heads * b->width);
    b->exact_q = numbers(c->heads * b->width);
    b->out = numbers((size_t)c->heads * c->kv_rank);
    b->x = numbers(c->hidden);
    b->y = numbers(c->hidden);
    b->scratch = numbers(mla_scratch_count(c));
}

static void bench_close(struct bench *b)
{
    double *const all[] = {b->keys, b->exact, b->q, b->exact_q, b->out, b->x, b->y, b->scratch};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    golden_close(&b->golden);
    mla_model_close(&b->model);
}

static void pass(const struct bench *b, const double *from, size_t count, double *to)
{
    for (size_t i = 0; i < count; i++)
        to[i] = b->rounded ? (double)bf16_to_float(bf16_from_float((float)from[i])) : from[i];
}

static void attend_head(const struct bench *b, const double *q, size_t count, double *out)
{
    const size_t rank = b->model.config.kv_rank;
    double weights[MAX_KEYS], highest = -INFINITY, sum = 0.0;
    for (size_t key = 0; key < count; key++) {
        weights[key] = 0.0;
        for (size_t i = 0; i < b->width; i++)
            weights[key] += b->softmax_scale * q[i] * b->keys[key * b->width + i];
        highest = fmax(highest, weights[key]);
    }
    for (size_t key = 0; key < count; key++) {
        weights[key] = exp(weights[key] - highest);
        sum += weights[key];
    }
    for (size_t i = 0; i < rank; i++) {
        out[i] = 0.0;
        for (size_t key = 0; key < count; key++)
            out[i] += weights[key] / sum * b->keys[key * b->width + i];
    }
    pass(b, out, rank, out);
}

/* The recorded step s of prompt p, at a position whose keys are in place. */
static struct outcome compare(struct bench *b, uint32_t p, uint32_t s, uint32_t position)
{
    const struct mla_config *c = &b->model.config;
    mla_query(&b->model, b->x, position, b->exact_q, b->scratch);
    pass(b, b->exact_q, c->heads * b->width, b->q);
    for (size_t head = 0; head < c->heads; head++)
        attend_head(b, b->q + head * b->width, (size_t)position + 1, b->out + head * c->kv_rank);
    mla_output(&b->model, b->out, b->y, b->scratch);
    const size_t at = ((size_t)p * b->golden.steps + s) * c->hidden;
    return outcome_compare(
        b->x, b->golden.attn_in + at, b->y, b->golden.attn_out + at, c->hidden,
        mla_expected_error(c, b->exact_q, b->exact, (size_t)position + 1, b->softmax_scale));
}

static struct outcome run_prompt(struct bench *b, uint32_t p)
{
    struct outcome worst = outcome_none();
    const uint32_t length = golden_length(&b->golden, p);
    const uint32_t first = (uint32_t)b->golden.lengths[p] - 1;
    assert_true(length <= MAX_KEYS);
    for (uint32_t position = 0; position < length; position++) {
        const int32_t token = golden_token(&b->golden, p, position);
        assert_int_equal(mla_attention_input(&b->model, token, b->x, NULL), RT_OK);
        double *exact = b->exact + position * b->width, *key = b->keys + position * b->width;
        mla_latent(&b->model, b->x, position, exact);
        pass(b, exact, b->width, key);
        if (b->stale_key && position == first && position > 0)
            memcpy(key, key - b->width, b->width * sizeof *key);
        if (position < first)
            continue;
        const struct outcome one = compare(b, p, position - first, position);
        outcome_merge(&worst, &one);
    }
    return worst;
}

static void check_model(const char *name, double softmax_scale)
{
    struct bench b;
    bench_open(&b, name, softmax_scale);
    for (uint32_t p = 0; p < b.golden.prompts; p++) {
        b.rounded = false;
        const struct outcome exact = run_prompt(&b, p);
        b.rounded = true;
        const struct outcome rounded = run_prompt(&b, p);
        print_message("%s prompt %u: exact %.1e, rounded %.1e, %.0f %% of the bound\n", name, p,
                      exact.norm, rounded.norm, 100.0 * rounded.of_limit);
        assert_int_equal(exact.compared, b.golden.steps);
        assert_true(exact.norm < 5e-6);
        assert_true(rounded.of_limit < 1.0);
    }
    bench_close(&b);
}

static void test_deepseek_v2(void **state)
{
    (void)state;
    check_model("tiny_deepseek_v2", 1.0 / sqrt(192.0));
}

static void test_deepseek_v3(void **state)
{
    (void)state;
    check_model("tiny_deepseek_v3", yarn_scale(192.0, 4.0));
}

static void test_mistral4(void **state)
{
    (void)state;
    check_model("tiny_mistral4", yarn_scale(128.0, 128.0));
}

/* Each of these computes a plausible attention of another model. */
static void test_mistakes_are_seen(void **state)
{
    (void)state;
    const uint32_t prompt = 2; /* 63 tokens */
    struct bench b;
    bench_open(&b, "tiny_deepseek_v3", yarn_scale(192.0, 4.0));
    b.rounded = true;
    struct mla_rope *rope = &b.model.config.rotation;
    const struct mla_rope right = *rope;
    const double right_scale = b.softmax_scale;

    rope->interleave = false;
    assert_true(run_prompt(&b, prompt).of_limit > 10.0);
    *rope = right;
    rope->yarn = false;
    mla_inverse_frequencies(&b.model.config, b.model.inverse_frequency);
    assert_true(run_prompt(&b, prompt).of_limit > 10.0);
    *rope = right;
    mla_inverse_frequencies(&b.model.config, b.model.inverse_frequency);
    b.softmax_scale = 1.0 / sqrt(192.0); /* without YaRN's part */
    assert_true(run_prompt(&b, prompt).of_limit > 10.0);
    b.softmax_scale = 1.0 / sqrt(576.0); /* of the absorbed width */
    assert_true(run_prompt(&b, prompt).of_limit > 10.0);
    b.softmax_scale = right_scale;
    b.stale_key = true;
    assert_true(run_prompt(&b, prompt).of_limit > 5.0);
    b.stale_key = false;
    assert_true(run_prompt(&b, prompt).of_limit < 1.0);
    bench_close(&b);
}

static void test_nan_is_a_mismatch(void **state)
{
    (void)state;
    const double x[2] = {1.0, 1.0}, y[2] = {1.0, NAN};
    const float recorded[2] = {1.0f, 1.0f};
    struct outcome worst = outcome_compare(x, recorded, y, recorded, 2, 1e-3);
    assert_false(worst.of_limit <= 1.0);
    const struct outcome fine = outcome_compare(x, recorded, x, recorded, 2, 1e-3);
    assert_true(fine.of_limit <= 1.0 && fine.absolute == 0.0);
    outcome_merge(&worst, &fine);
    assert_int_equal(worst.compared, 2);
    assert_false(worst.of_limit <= 1.0);
}

static void expect_config(const char *text, enum rt_status wanted, const char *words)
{
    struct mla_config config;
    struct rt_error error = {0};
    const enum rt_status status = mla_config_parse(text, "config", &config, &error);
    if (status != wanted || strstr(error.message, words) == NULL)
        fail_msg("%s: status %d, \"%s\", expected \"%s\"", text, (int)status, error.message, words);
}

#define SIZES                                                                                      \
    "\"hidden_size\":8,\"vocab_size\":4,\"num_attention_heads\":2,\"kv_lora_rank\":4,"             \
    "\"qk_nope_head_dim\":4,\"v_head_dim\":4,"

static void test_bad_configs(void **state)
{
    (void)state;
    expect_config("", RT_ERR_CONFIG, "not a JSON object");
    expect_config("[]", RT_ERR_CONFIG, "not a JSON object");
    expect_config("{\"hidden_size\":0}", RT_ERR_CONFIG, "hidden_size is 0, not a whole number");
    expect_config("{\"hidden_size\":\"8\"}", RT_ERR_CONFIG, "hidden_size is missing or not");
    expect_config("{" SIZES "\"qk_rope_head_dim\":3}", RT_ERR_CONFIG, "rotate pairs");
    expect_config("{" SIZES "\"qk_rope_head_dim\":2}", RT_ERR_CONFIG, "rms_norm_eps is missing");
    expect_config("{" SIZES "\"qk_rope_head_dim\":2,\"rms_norm_eps\":1e-6}", RT_ERR_CONFIG,
                  "rope_theta is missing");
    expect_config("{" SIZES "\"qk_rope_head_dim\":2,\"rms_norm_eps\":1e-6,\"rope_parameters\":"
                  "{\"rope_theta\":10000,\"rope_type\":\"longrope\"}}",
                  RT_ERR_UNSUPPORTED, "rope_type is longrope");
    expect_config("{" SIZES "\"qk_rope_head_dim\":2,\"rms_norm_eps\":1e-6,\"rope_theta\":1e4,"
                  "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}",
                  RT_ERR_CONFIG, "original_max_position_embeddings is missing");
    expect_config("{" SIZES "\"qk_rope_head_dim\":2,\"rms_norm_eps\":1e-6,\"rope_theta\":1e4,"
                  "\"rope_scaling\":null,\"q_lora_rank\":null}",
                  RT_OK, "");
}

/* Above the original context, mistral4 scales its queries; the recorded prompts are too short. */
static void test_long_queries_are_scaled(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, "tiny_mistral4", 1.0);
    struct mla_config *c = &b.model.config;
    assert_true(c->rotation.query_beta == 0.1 && c->rotation.original == 8192.0);
    assert_int_equal(mla_attention_input(&b.model, 3, b.x, NULL), RT_OK);
    mla_query(&b.model, b.x, 8191, b.q, b.scratch);
    mla_query(&b.model, b.x, 16384, b.exact_q, b.scratch);
    /* The part that is not rotated differs by the scale alone. */
    for (size_t i = 0; i < c->kv_rank; i++)
        assert_true(fabs(b.exact_q[i] - b.q[i] * (1.0 + 0.1 * log(3.0))) <= 1e-12);
    bench_close(&b);
}

/* A pipe that nobody writes into is refused, not waited for; what stands behind a NUL counts. */
static void test_config_files(void **state)
{
    (void)state;
    char folder[] = "/tmp/replayrt-model-XXXXXX", path[64];
    struct mla_model model;
    struct rt_error error;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    (void)alarm(20);
    assert_int_equal(mla_model_open(folder, &model, &error), RT_ERR_FILE);
    (void)alarm(0);
    assert_non_null(strstr(error.message, "config.json: not a regular file"));
    assert_int_equal(remove(path), 0);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite("{}\0{}", 1, 5, file), 5);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(mla_model_open(folder, &model, &error), RT_ERR_FILE);
    assert_non_null(strstr(error.message, "has a NUL"));
    assert_int_equal(remove(path), 0);
    assert_int_equal(remove(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deepseek_v2),       cmocka_unit_test(test_deepseek_v3),
        cmocka_unit_test(test_mistral4),          cmocka_unit_test(test_mistakes_are_seen),
        cmocka_unit_test(test_nan_is_a_mismatch), cmocka_unit_test(test_bad_configs),
        cmocka_unit_test(test_config_files),      cmocka_unit_test(test_long_queries_are_scaled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
