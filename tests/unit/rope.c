/* SPDX-License-Identifier: Apache-2.0 */
/* Expected numbers were computed with 50 digits from the formulas of modeling_rope_utils. */
#include "common/rope.h"

#include "tests/unit/expect.h"

#include <math.h>
#include <string.h>

#define V3                                                                                         \
    {                                                                                              \
        .type = RT_ROPE_YARN, .theta = 10000, .factor = 40, .original_max_length = 4096,           \
        .truncate = 1, .beta_fast = 32, .beta_slow = 1                                             \
    }

struct expected {
    uint32_t pair;
    double speed; /* 0 behind the last */
};

struct speeds_case {
    const char *name;
    struct rt_rope rope;
    uint32_t rope_dim;
    struct expected expected[8];
};

static const struct speeds_case cases[] = {
    {.name = "default",
     .rope = {.theta = 10000},
     .rope_dim = 64,
     .expected = {{0, 1.0},
                  {1, 0.749894209332455827},
                  {7, 0.133352143216332403},
                  {16, 0.01},
                  {31, 0.000133352143216332403}}},
    {.name = "default, 32 wide",
     .rope = {.theta = 50000},
     .rope_dim = 32,
     .expected = {{0, 1.0},
                  {1, 0.508527419424272712},
                  {8, 0.00447213595499957939},
                  {15, 0.0000393292460466397665}}},
    {.name = "DeepSeek-V3: pairs 10 to 23",
     .rope = V3,
     .rope_dim = 64,
     .expected = {{0, 1.0},
                  {10, 0.056234132519034908},
                  {11, 0.039006926567143858},
                  {16, 0.0055},
                  {22, 0.00017782794100389228},
                  {23, 0.0000333380358040831006},
                  {31, 3.33380358040831006e-6}}},
    {.name = "not truncated: pairs 8.09 to 17.40",
     .rope = {.type = RT_ROPE_YARN,
              .theta = 150000,
              .factor = 32,
              .original_max_length = 4096,
              .beta_fast = 32,
              .beta_slow = 1},
     .rope_dim = 64,
     .expected = {{0, 1.0},
                  {8, 0.0508132748154614736},
                  {9, 0.031705696184663766},
                  {12, 0.00679495948973221783},
                  {17, 0.000129318701245062721},
                  {18, 0.0000383088123737533829},
                  {31, 3.02351142811921437e-7}}},
    {.name = "from pair 0 on",
     .rope = {.type = RT_ROPE_YARN,
              .theta = 10000,
              .factor = 8,
              .original_max_length = 64,
              .truncate = 1,
              .beta_fast = 32,
              .beta_slow = 1},
     .rope_dim = 32,
     .expected = {{0, 1.0},
                  {1, 0.463931593282037991},
                  {2, 0.205548047910944657},
                  {4, 0.03},
                  {5, 0.0070292665648793635},
                  {15, 0.000022228492625486535}}},
    {.name = "up to R - 1, behind the last pair",
     .rope = {.type = RT_ROPE_YARN,
              .theta = 100,
              .factor = 4,
              .original_max_length = 1048576,
              .truncate = 1,
              .beta_fast = 4096,
              .beta_slow = 1},
     .rope_dim = 32,
     .expected = {{0, 1.0},
                  {10, 0.056234132519034908},
                  {12, 0.0316227766016837933},
                  {15, 0.011756044204597725}}},
    {.name = "upside down: 59 to 31",
     .rope = {.type = RT_ROPE_YARN,
              .theta = 10,
              .factor = 4,
              .original_max_length = 1048576,
              .truncate = 1,
              .beta_fast = 32,
              .beta_slow = 1},
     .rope_dim = 32,
     .expected = {{0, 0.25}, {7, 0.0912935318137094265}, {15, 0.0288695496172364545}}},
    {.name = "a step at 7.64",
     .rope = {.type = RT_ROPE_YARN,
              .theta = 10000,
              .factor = 4,
              .original_max_length = 4096,
              .beta_fast = 8,
              .beta_slow = 8},
     .rope_dim = 32,
     .expected = {{0, 1.0}, {7, 0.017782794100389228}, {8, 0.0025}, {15, 0.00004445698525097307}}},
};

static void expect_speeds(const char *name, const double *found, const struct expected *expected)
{
    for (; expected->speed > 0; expected++)
        if (!(fabs(found[expected->pair] / expected->speed - 1.0) <= 1e-13))
            fail_msg("%s: pair %u turns by %.17g, not %.17g", name, expected->pair,
                     found[expected->pair], expected->speed);
}

static void test_speeds(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        double speeds[RT_MAX_ROPE_PAIRS] = {0};
        rt_rope_speeds(&cases[i].rope, cases[i].rope_dim, 8192, speeds);
        expect_speeds(cases[i].name, speeds, cases[i].expected);
        for (uint32_t pair = cases[i].rope_dim / 2; pair < RT_MAX_ROPE_PAIRS; pair++)
            assert_true(speeds[pair] == 0);
    }
}

static void test_none(void **state)
{
    (void)state;
    const struct rt_rope rope = {.type = RT_ROPE_NONE};
    double speeds[RT_MAX_ROPE_PAIRS];
    memset(speeds, 0xff, sizeof(speeds));
    rt_rope_speeds(&rope, 64, 1, speeds);
    float rows[2 * RT_MAX_ROPE_PAIRS];
    rt_rope_rows(&rope, speeds, 32, 77, 1, rows);
    for (uint32_t i = 0; i < 64; i += 2)
        assert_true(rows[i] == 1.0f && rows[i + 1] == 0.0f);
}

static void test_longrope(void **state)
{
    (void)state;
    static const struct expected brief[] = {
        {0, 1.0}, {1, 0.499858955724754738}, {8, 0.005}, {15, 0.000061853196870919054}, {0, 0}};
    static const struct expected extended[] = {{0, 0.5},
                                               {1, 0.14058533129758727},
                                               {8, 0.000555555555555555556},
                                               {15, 5.55712315637163375e-6},
                                               {0, 0}};
    struct rt_rope rope = {.type = RT_ROPE_LONGROPE, .theta = 10000, .original_max_length = 32768};
    for (uint32_t i = 0; i < 16; i++) {
        rope.short_factor[i] = 1.0 + i / 8.0;
        rope.long_factor[i] = 2.0 * (1 + i);
    }
    double speeds[RT_MAX_ROPE_PAIRS];
    rt_rope_speeds(&rope, 32, 32768, speeds);
    expect_speeds("short", speeds, brief);
    rt_rope_speeds(&rope, 32, 32769, speeds);
    expect_speeds("long", speeds, extended);
}

/* DeepSeek-V3's rows with an attention factor of 1.25. */
static void test_rows(void **state)
{
    (void)state;
    static const struct {
        uint32_t position, pair;
        float cosine, sine;
    } expected[] = {
        {0, 0, 1.25f, 0.0f},
        {0, 31, 1.25f, 0.0f},
        {1, 0, 0x1.59cb22p-1f, 0x1.0d454ep+0f},
        {1, 12, 0x1.3fe268p+0f, 0x1.133626p-5f},
        {1, 31, 1.25f, 0x1.17a8e4p-18f},
        {4097, 0, 0x1.2b2084p+0f, 0x1.c6b7c6p-2f},
        {4097, 12, -0x1.3b70fcp+0f, -0x1.ae9278p-3f},
        {4097, 31, 0x1.3ff85cp+0f, 0x1.17b824p-6f},
        {163839, 12, 0x1.036e02p+0f, -0x1.76ae02p-1f},
        {163839, 31, 0x1.1170b8p+0f, 0x1.4c72acp-1f},
        {1048575, 0, 0x1.f858d8p-1f, -0x1.89ff60p-1f},
        {1048575, 12, 0x1.1f7e68p-2f, -0x1.37d2f2p+0f},
        {1048575, 31, -0x1.2c242ap+0f, -0x1.bbe558p-2f},
    };
    struct rt_rope rope = V3;
    double speeds[RT_MAX_ROPE_PAIRS];
    rt_rope_speeds(&rope, 64, 163840, speeds);
    float plain[64], rows[3 * 64 + 1];
    for (size_t i = 0; i < COUNT(expected); i++) {
        /* As the last of three rows, or the first, and nothing behind them. */
        const uint32_t before = expected[i].position < 2 ? 0 : 2;
        rows[3 * 64] = 77.0f;
        rope.attention_factor = 1.25;
        rt_rope_rows(&rope, speeds, 32, expected[i].position - before, 3, rows);
        const float *found = rows + before * 64 + expected[i].pair * 2;
        if (found[0] != expected[i].cosine || found[1] != expected[i].sine)
            fail_msg("position %u, pair %u: %a, %a", expected[i].position, expected[i].pair,
                     (double)found[0], (double)found[1]);
        assert_true(rows[3 * 64] == 77.0f);
        rope.attention_factor = 0;
        rt_rope_rows(&rope, speeds, 32, expected[i].position, 1, plain);
        for (uint32_t n = 0; n < 64; n += 2)
            assert_true(fabsf(plain[n] * plain[n] + plain[n + 1] * plain[n + 1] - 1.0f) < 1e-6f);
    }
}

static void test_query_scale(void **state)
{
    (void)state;
    static const struct {
        uint32_t position;
        double scale;
    } expected[] = {{0, 1.0},
                    {8191, 1.0},
                    {8192, 1.06931471805599453},
                    {16383, 1.06931471805599453},
                    {16384, 1.10986122886681097},
                    {1048575, 1.48520302639196172}};
    const struct rt_rope none = V3;
    const struct rt_rope rope = {.query_scale_beta = 0.1, .original_max_length = 8192};
    for (size_t i = 0; i < COUNT(expected); i++) {
        assert_true(fabs(rt_rope_query_scale(&rope, expected[i].position) - expected[i].scale) <
                    1e-15);
        assert_true(rt_rope_query_scale(&none, expected[i].position) == 1.0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_speeds),      cmocka_unit_test(test_none),
        cmocka_unit_test(test_longrope),    cmocka_unit_test(test_rows),
        cmocka_unit_test(test_query_scale),
    };
    return cmocka_run_group_tests_name("rope", tests, NULL, NULL);
}
