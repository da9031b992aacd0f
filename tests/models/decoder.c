/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder that is the truth: its routing against numbers made by hand, for recorded traces have
 * not every kind; and models of random weights, whose activations must keep their size. */
#include "tests/models/decoder_truth.h"
#include "tests/unit/expect.h"

#include <math.h>

/* ---- routing --------------------------------------------------------------------------------- */

static void expect_route(const struct rt_moe *moe, const double *s, const float *bias,
                         const uint32_t *chosen, const double *weights)
{
    uint32_t got[8];
    double w[8];
    truth_route(moe, s, bias, got, w);
    for (uint32_t k = 0; k < moe->experts_per_token; k++)
        if (got[k] != chosen[k] || !(fabs(w[k] - weights[k]) < 1e-15))
            fail_msg("choice %u is %u by %.17g, expected %u by %.17g", k, got[k], w[k], chosen[k],
                     weights[k]);
}

static const double scores[8] = {0.30, 0.01, 0.02, 0.25, 0.12, 0.11, 0.10, 0.09};

static void test_greedy(void **state)
{
    (void)state;
    const struct rt_moe moe = {
        .experts = 8, .experts_per_token = 3, .groups = 1, .groups_per_token = 1, .scale = 16};
    expect_route(&moe, scores, NULL, (const uint32_t[]){0, 3, 4},
                 (const double[]){16 * 0.30, 16 * 0.25, 16 * 0.12});
}

/* Four groups of two, of which the first two have the best single experts. */
static void test_groups(void **state)
{
    (void)state;
    struct rt_moe moe = {
        .experts = 8, .experts_per_token = 3, .groups = 4, .groups_per_token = 2, .scale = 1};
    expect_route(&moe, scores, NULL, (const uint32_t[]){0, 3, 2},
                 (const double[]){0.30, 0.25, 0.02});
    /* Two groups of four: by the best one the first (0.30), by the two best ones too (0.55). */
    moe.groups = 2;
    moe.groups_per_token = 1;
    const double other[8] = {0.30, 0.01, 0.02, 0.03, 0.22, 0.21, 0.11, 0.10};
    expect_route(&moe, other, NULL, (const uint32_t[]){0, 3, 2},
                 (const double[]){0.30, 0.03, 0.02});
    moe.group_score = RT_GROUP_SCORE_TOP2;
    expect_route(&moe, other, NULL, (const uint32_t[]){4, 5, 6},
                 (const double[]){0.22, 0.21, 0.11});
}

/* The bias chooses, and has no part in the weights; groups that are not chosen stay out also where
 * every score with its bias is below 0. */
static void test_bias(void **state)
{
    (void)state;
    struct rt_moe moe = {.experts = 8,
                         .experts_per_token = 2,
                         .groups = 2,
                         .groups_per_token = 1,
                         .group_score = RT_GROUP_SCORE_TOP2,
                         .bias = 1,
                         .normalise = 1,
                         .scale = 2.5};
    const float bias[8] = {-0.5f, 0, 0, -0.5f, 0, 0, 0.25f, 0};
    expect_route(&moe, scores, bias, (const uint32_t[]){6, 4},
                 (const double[]){2.5 * 0.10 / 0.22, 2.5 * 0.12 / 0.22});
    float low[8];
    for (uint32_t i = 0; i < 8; i++)
        low[i] = bias[i] - 4;
    expect_route(&moe, scores, low, (const uint32_t[]){6, 4},
                 (const double[]){2.5 * 0.10 / 0.22, 2.5 * 0.12 / 0.22});
    moe.normalise = 0;
    expect_route(&moe, scores, bias, (const uint32_t[]){6, 4},
                 (const double[]){2.5 * 0.10, 2.5 * 0.12});
}

/* ---- random weights -------------------------------------------------------------------------- */

/* Sixteen tokens through a model that has never been trained: logits are of the size that the last
 * norm, the head's deviation and the scale give, whatever the layers do. */
static void expect_steady(const char *family)
{
    char path[512];
    struct rt_error err = {.status = RT_OK};
    struct rt_model m = {.struct_size = sizeof(m)};
    struct truth t;
    rt_checkpoint *c = NULL;
    double logits[256], squares = 0;
    (void)snprintf(path, sizeof(path), RT_TEST_DATA "/golden/tiny_%s/config.json", family);
    if (rt_model_read(path, &m, &err) != RT_OK ||
        rt_checkpoint_random(path, 3, &c, &err) != RT_OK || !truth_open(&t, &m, c, &err))
        fail_msg("%s", err.message);
    for (uint32_t i = 0; i < 16; i++) {
        truth_step(&t, (int32_t)(i * 13 + 5), i, logits);
        for (uint32_t v = 0; v < m.vocab_size; v++)
            squares += logits[v] * logits[v];
    }
    const double size = sqrt(squares / (16.0 * m.vocab_size)) / m.logits_scale;
    if (!(size > 0.8 && size < 1.25))
        fail_msg("%s: logits are of size %g", family, size);
    truth_close(&t);
    rt_checkpoint_close(&c);
}

static void test_random(void **state)
{
    (void)state;
    expect_steady("deepseek_v2");
    expect_steady("deepseek_v3");
    expect_steady("glm4_moe_lite");
    expect_steady("minicpm3");
    expect_steady("mistral4");
    expect_steady("youtu");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
