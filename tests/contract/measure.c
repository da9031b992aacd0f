/* SPDX-License-Identifier: Apache-2.0 */
/* Measuring attention: figures and a verdict on the host device, wrong output found, bad input and
 * every failing driver call refused with a sentence and nothing left behind. */
#include "bench/measure.h"

#include "kernels/ops/op_build.h"
#include "tests/support/fail_driver.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- attention that goes wrong where the test says so ------------------------------------------
 */

enum sabotage { NONE, WRONG_SCALE, NO_REDUCTION, LOST_ROW, WRONG_IN_CHAINS };
static enum sabotage sabotage;
static uint32_t attends, reductions;

enum rt_status __real_rt_attend_build(const struct rt_kernels *k, const struct rt_variant *v,
                                      const void *params, struct rt_launch *out,
                                      struct rt_error *err);
enum rt_status __wrap_rt_attend_build(const struct rt_kernels *k, const struct rt_variant *v,
                                      const void *params, struct rt_launch *out,
                                      struct rt_error *err);

/* The first attend is the timed kernel's on its own, the second its truth's, then come chains. */
enum rt_status __wrap_rt_attend_build(const struct rt_kernels *k, const struct rt_variant *v,
                                      const void *params, struct rt_launch *out,
                                      struct rt_error *err)
{
    struct rt_attend_params changed = *(const struct rt_attend_params *)params;
    uint32_t number = attends++;
    if ((sabotage == WRONG_SCALE && number == 0) || (sabotage == WRONG_IN_CHAINS && number >= 2))
        changed.scale *= 4;
    if (sabotage == LOST_ROW && number == 0)
        changed.out.row_stride = 0;
    return __real_rt_attend_build(k, v, &changed, out, err);
}

enum rt_status __real_rt_reduce_build(const struct rt_kernels *k, const struct rt_variant *v,
                                      const void *params, struct rt_launch *out,
                                      struct rt_error *err);
enum rt_status __wrap_rt_reduce_build(const struct rt_kernels *k, const struct rt_variant *v,
                                      const void *params, struct rt_launch *out,
                                      struct rt_error *err);
enum rt_status __wrap_rt_reduce_build(const struct rt_kernels *k, const struct rt_variant *v,
                                      const void *params, struct rt_launch *out,
                                      struct rt_error *err)
{
    struct rt_reduce_params changed = *(const struct rt_reduce_params *)params;
    if (sabotage == NO_REDUCTION && reductions == 0)
        changed.heads = 1; /* of three */
    reductions++;
    return __real_rt_reduce_build(k, v, &changed, out, err);
}

/* ---- a small measurement ------------------------------------------------------------------------
 */

#define NOISE 4096
static uint16_t noise[NOISE];

/* Values of both signs, of 0.03 to 4. */
static void make_noise(void)
{
    uint64_t state = 1;
    for (int i = 0; i < NOISE; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        noise[i] = (uint16_t)((state >> 48 & 0x8000) | (122 + (state >> 40) % 7) << 7 |
                              (state >> 50 & 0x7f));
    }
}

static struct rt_measure_params good_params(void)
{
    return (struct rt_measure_params){
        .device = "host", .noise = noise, .noise_bytes = sizeof(noise)};
}

/* The third is split: it is longer than the two blocks of the least piece. */
static const int32_t lengths[] = {2, 17, 400};

static struct rt_measure_attention_params good_shape(void)
{
    return (struct rt_measure_attention_params){
        .batch = 3,
        .lengths = lengths,
        .query_len = 2,
        .heads = 3,
        .d_qk = 288,
        .d_v = 256,
        .page_size = 16,
        .causal = 1,
        .softmax_scale = 0.1f,
        .replays = 1,
    };
}

static rt_measure *open_measure(void)
{
    struct rt_measure_params params = good_params();
    rt_measure *m = NULL;
    struct rt_error error = {0};
    if (rt_measure_create(&params, &m, &error) != RT_OK)
        fail_msg("%s", error.message);
    return m;
}

static struct rt_measure_attention_result measure(rt_measure *m,
                                                  const struct rt_measure_attention_params *p)
{
    struct rt_measure_attention_result r = {0};
    attends = reductions = 0;
    if (rt_measure_attention(m, p, &r) != RT_OK)
        fail_msg("%s", rt_measure_last_error(m)->message);
    return r;
}

static void figures_and_a_verdict(void **state)
{
    (void)state;
    rt_measure *m = open_measure();
    struct rt_measure_attention_params p = good_shape();
    const uint32_t replays[] = {0, 1, RT_MEASURE_MAX_REPLAYS};
    for (int i = 0; i < 3; i++) {
        p.replays = replays[i];
        struct rt_measure_attention_result r = measure(m, &p);
        assert_string_equal(r.problem, "");
        assert_int_equal(r.backend, RT_BACKEND_GENERIC);
        assert_non_null(strstr(r.kernel, "rt_mla_attend_288x256"));
        assert_string_equal(r.reduction, "rt_reduce_beside");
        assert_int_equal(r.layers, 3);
        assert_int_equal(r.layer_bytes, (1 + 2 + 25) * 16 * 288 * 2);
        assert_int_equal(r.compared, 3 * 2 * 3 * (256 + 1));
        assert_int_equal(r.wrong, 0);
        assert_true(r.worst_share >= 0 && r.worst_share <= 1 && fabs(r.cosine) < 5e-6);
        assert_true(r.layer_ns > 0 && r.append_attend_ns > 0);
        assert_true(r.schedule_ns > 0 && r.append_ns > 0);
        assert_true(r.sustained_ns == 0 && r.sustained_step_mj == 0 && !r.why_no_energy[0]);
    }
    p.sustain_ms = 1;
    struct rt_measure_attention_result r = measure(m, &p);
    assert_string_equal(r.problem, "");
    assert_true(r.sustained_ns > 0 && r.sustained_step_mj == 0);
    assert_string_equal(r.why_no_energy, "no energy counter: the host device has none");
    p.sustain_ms = 0;
    p.query_len = 1;
    p.causal = 0;
    p.batch = 1;
    assert_string_equal(measure(m, &p).problem, "");
    rt_measure_destroy(&m);
    assert_null(m);
    assert_int_equal(fail_driver_live(), 0);
    rt_measure_destroy(&m);
    rt_measure_destroy(NULL);
}

static void wrong_output_is_told(void **state)
{
    (void)state;
    static const struct {
        enum sabotage how;
        const char *words;
    } cases[] = {
        {WRONG_SCALE, "elements of out are wrong, first element"},
        {NO_REDUCTION, "of query row 12: "},
        {LOST_ROW, "of query row 0: "},
        {WRONG_IN_CHAINS, "elements of out at the end of a chain are not what a launch"},
    };
    rt_measure *m = open_measure();
    const struct rt_measure_attention_params p = good_shape();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sabotage = cases[i].how;
        struct rt_measure_attention_result r = measure(m, &p);
        sabotage = NONE;
        if (!strstr(r.problem, cases[i].words))
            fail_msg("\"%s\" does not say \"%s\"", r.problem, cases[i].words);
        assert_int_equal(r.wrong == 0, cases[i].how == WRONG_IN_CHAINS);
        /* what was not written is poison, and NaN is beyond any bound */
        bool poison = cases[i].how == NO_REDUCTION || cases[i].how == LOST_ROW;
        assert_int_equal(isinf(r.worst_share) != 0, poison);
    }
    assert_string_equal(measure(m, &p).problem, "");
    rt_measure_destroy(&m);
}

/* `count` f32, one behind the other. */
static void scales_are_powers_of_2(const unsigned char *scales, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        float scale;
        int log2;
        memcpy(&scale, scales + i * sizeof(scale), sizeof(scale));
        if (!(scale > 0) || frexpf(scale, &log2) != 0.5f)
            fail_msg("scale %u is %g", i, (double)scale);
    }
}

/* Of three pages, whose bytes are no multiple of 256: a layer's are where the pool has pages. */
static void every_layout(void **state)
{
    (void)state;
    rt_measure *m = open_measure();
    struct rt_measure_attention_params p = good_shape();
    struct rt_memory_region pool;
    p.batch = 2;
    for (int layout = RT_KV_V4; layout >= 0; layout--) {
        p.kv_layout = (enum rt_kv_layout)layout;
        const bool wide = layout == RT_KV_V32_NO_ROPE || layout == RT_KV_V4;
        p.d_qk = wide ? 512 : 288;
        p.d_v = wide ? 512 : 256;
        const struct rt_measure_attention_result r = measure(m, &p);
        assert_string_equal(r.problem, "");
        assert_int_equal(r.wrong, 0);
        assert_int_equal(rt_measure_pool(m, 1, &pool), RT_OK);
        const unsigned char *const last =
            (const unsigned char *)(uintptr_t)pool.address + (r.layers - 1) * r.layer_bytes;
        if (layout == RT_KV_FP8_TOKEN)
            scales_are_powers_of_2(last + (uint64_t)p.page_size * 320, p.page_size);
        for (uint32_t i = 0; layout == RT_KV_BF16 && i < r.layer_bytes / 2; i++) {
            uint16_t number;
            memcpy(&number, last + 2 * (uint64_t)i, sizeof(number));
            assert_in_range(number >> 7 & 0xff, 122, 128); /* noise, and nothing that was e4m3 */
        }
    }
    rt_measure_destroy(&m);
    assert_int_equal(fail_driver_live(), 0);
}

static void what_the_device_is(void **state)
{
    (void)state;
    rt_measure *m = open_measure();
    struct rt_measure_info info = {0};
    assert_int_equal(rt_measure_get_info(m, &info), RT_OK);
    assert_int_equal(info.host, 1);
    assert_string_equal(info.opens, "host");
    assert_string_equal(info.device_reason, "");
    assert_true(info.device[0] && info.sm_count > 0);
    assert_int_equal(rt_measure_get_info(m, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_measure_get_info(NULL, &info), RT_ERR_INVALID);
    rt_measure_destroy(&m);
}

static void the_pool_grows_and_is_noise(void **state)
{
    (void)state;
    rt_measure *m = open_measure();
    struct rt_memory_region small, same, large;
    assert_int_equal(rt_measure_pool(m, 1, &small), RT_OK);
    assert_int_equal(small.bytes, 256);
    assert_int_equal(rt_measure_pool(m, 256, &same), RT_OK);
    assert_true(same.address == small.address && same.bytes == 256);
    assert_int_equal(rt_measure_pool(m, 100001, &large), RT_OK);
    assert_int_equal(large.bytes, 100096);
    const uint16_t *at = (const uint16_t *)(uintptr_t)large.address;
    uint64_t odd = 0;
    for (uint64_t i = 0; i < large.bytes / 2; i++)
        odd += (at[i] >> 7 & 0xff) < 122 || (at[i] >> 7 & 0xff) > 128;
    assert_int_equal(odd, 0);
    assert_int_not_equal(memcmp(at, at + NOISE, NOISE), 0); /* no plain repetition */
    rt_measure_destroy(&m);
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

static void refused(rt_measure *m, struct rt_measure_attention_params p, enum rt_status expected,
                    const char *words)
{
    struct rt_measure_attention_result r, before;
    memset(&r, 0x5a, sizeof(r));
    before = r;
    enum rt_status status = rt_measure_attention(m, &p, &r);
    if (status != expected)
        fail_msg("%s: got %s, expected %s", words, rt_status_string(status),
                 rt_status_string(expected));
    assert_int_equal(rt_measure_last_error(m)->status, expected);
    if (!strstr(rt_measure_last_error(m)->message, words))
        fail_msg("\"%s\" does not say \"%s\"", rt_measure_last_error(m)->message, words);
    assert_memory_equal(&r, &before, sizeof(r));
}

static void bad_shapes(void **state)
{
    (void)state;
    const int32_t short_one[] = {2, 1, 400}, long_one[] = {2, 17, RT_MAX_LENGTH + 1};
    rt_measure *m = open_measure();
    const struct rt_measure_attention_params good = good_shape();
    struct rt_measure_attention_params p;
#define REFUSED(change, status, words)                                                             \
    do {                                                                                           \
        p = good;                                                                                  \
        p.change;                                                                                  \
        refused(m, p, (status), (words));                                                          \
    } while (0)
    REFUSED(batch = 0, RT_ERR_INVALID, "batch 0");
    REFUSED(batch = RT_MAX_BATCH + 1, RT_ERR_INVALID, "batch 4097");
    REFUSED(lengths = NULL, RT_ERR_INVALID, "lengths is null");
    REFUSED(lengths = short_one, RT_ERR_INVALID, "lengths[1] = 1 is not 2..1048576");
    REFUSED(lengths = long_one, RT_ERR_INVALID, "lengths[2] = 1048577");
    REFUSED(query_len = 0, RT_ERR_INVALID, "query_len 0");
    REFUSED(query_len = 9, RT_ERR_INVALID, "query_len 9");
    REFUSED(heads = 129, RT_ERR_INVALID, "heads 129");
    REFUSED(d_qk = 577, RT_ERR_GEOMETRY, "577/256");
    REFUSED(page_size = 48, RT_ERR_INVALID, "page_size 48");
    REFUSED(causal = 2, RT_ERR_INVALID, "causal 2");
    REFUSED(backend = RT_BACKEND_SM90, RT_ERR_UNSUPPORTED, "sm90");
    REFUSED(softmax_scale = 0, RT_ERR_INVALID, "softmax_scale 0");
    REFUSED(softmax_scale = NAN, RT_ERR_INVALID, "softmax_scale");
    REFUSED(softmax_scale = INFINITY, RT_ERR_INVALID, "softmax_scale");
    REFUSED(replays = RT_MEASURE_MAX_REPLAYS + 1, RT_ERR_INVALID, "replays 65");
    REFUSED(sustain_ms = 60001, RT_ERR_INVALID, "sustain_ms 60001 is not 0..60000");
#undef REFUSED
    struct rt_measure_attention_result r = {0};
    assert_int_equal(rt_measure_attention(m, &good, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_measure_attention(m, NULL, &r), RT_ERR_INVALID);
    assert_int_equal(rt_measure_attention(NULL, &good, &r), RT_ERR_INVALID);
    assert_string_equal(measure(m, &good).problem, "");
    struct rt_memory_region region;
    assert_int_equal(rt_measure_pool(m, 0, &region), RT_ERR_INVALID);
    assert_int_equal(rt_measure_pool(m, 1, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_measure_pool(m, UINT64_MAX, &region), RT_ERR_INVALID);
    assert_int_equal(rt_measure_pool(NULL, 1, &region), RT_ERR_INVALID);
    rt_measure_destroy(&m);
    assert_int_equal(rt_measure_last_error(NULL)->status, RT_ERR_INVALID);
}

static void bad_handles(void **state)
{
    (void)state;
    struct rt_measure_params p;
    struct rt_error error = {0};
    rt_measure *m = NULL;
#define REFUSED(change, status_)                                                                   \
    do {                                                                                           \
        p = good_params();                                                                         \
        p.change;                                                                                  \
        m = (rt_measure *)&p;                                                                      \
        assert_int_equal(rt_measure_create(&p, &m, &error), (status_));                            \
        assert_int_equal(error.status, (status_));                                                 \
        assert_null(m);                                                                            \
    } while (0)
    REFUSED(device = NULL, RT_ERR_INVALID);
    REFUSED(device = "gpu", RT_ERR_INVALID);
    REFUSED(device = "cuda:9999", RT_ERR_NO_DEVICE);
    REFUSED(noise = NULL, RT_ERR_INVALID);
    REFUSED(noise_bytes = 4096 - 256, RT_ERR_INVALID);
    REFUSED(noise_bytes = 4096 + 2, RT_ERR_INVALID);
    REFUSED(noise_bytes = UINT64_MAX / 256 * 256, RT_ERR_INVALID);
#undef REFUSED
    assert_int_equal(rt_measure_create(NULL, &m, &error), RT_ERR_INVALID);
    p = good_params();
    assert_int_equal(rt_measure_create(&p, NULL, &error), RT_ERR_INVALID);
}

/* ---- every driver call fails once ----------------------------------------------------------- */

static void every_call_of_create(void **state)
{
    (void)state;
    uint64_t failed = 0;
    for (uint64_t n = 1;; n++) {
        const struct rt_measure_params params = good_params();
        struct rt_error error = {0};
        rt_measure *m = NULL;
        fail_driver_arm(n);
        enum rt_status status = rt_measure_create(&params, &m, &error);
        fail_driver_arm(0);
        if (status == RT_OK)
            rt_measure_destroy(&m);
        bool reached = fail_driver_reached();
        assert_null(m);
        assert_int_equal(fail_driver_live(), 0);
        if (!reached)
            break;
        if (status == RT_OK)
            continue; /* leaving, or a release: nobody is left to be told */
        failed++;
        assert_int_equal(error.status, status);
        assert_non_null(strstr(error.message, "injected failure"));
    }
    assert_true(failed > 50);
}

/* Call n fails; true once n is past the end of a measurement. */
static bool measure_failing_at(uint64_t n, uint64_t calls_of_create, uint64_t *failed)
{
    const struct rt_measure_params params = good_params();
    struct rt_measure_attention_params p = good_shape();
    struct rt_measure_attention_result r = {0};
    rt_measure *m = NULL;
    fail_driver_arm(calls_of_create + n);
    assert_int_equal(rt_measure_create(&params, &m, NULL), RT_OK);
    fail_driver_arm(0);
    p.heads = 1;
    p.batch = 2;
    p.sustain_ms = 1;
    enum rt_status status = rt_measure_attention(m, &p, &r);
    if (status != RT_OK) {
        ++*failed;
        assert_int_equal(rt_measure_last_error(m)->status, status);
        assert_non_null(strstr(rt_measure_last_error(m)->message, "injected failure"));
        /* it was one failure: the next measurement is as good as any */
        r = (struct rt_measure_attention_result){0};
        status = rt_measure_attention(m, &p, &r);
    }
    assert_int_equal(status, RT_OK);
    assert_string_equal(r.problem, "");
    rt_measure_destroy(&m);
    assert_int_equal(fail_driver_live(), 0);
    return !fail_driver_reached();
}

static void every_call_of_a_measurement(void **state)
{
    (void)state;
    uint64_t created = 1, failed = 0;
    for (;; created++) { /* calls until create succeeds */
        const struct rt_measure_params params = good_params();
        rt_measure *m = NULL;
        fail_driver_arm(created);
        enum rt_status status = rt_measure_create(&params, &m, NULL);
        fail_driver_arm(0);
        rt_measure_destroy(&m);
        if (status == RT_OK)
            break;
    }
    for (uint64_t n = 1; !measure_failing_at(n, created, &failed);)
        n++;
    assert_true(failed > 150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_and_a_verdict),
        cmocka_unit_test(wrong_output_is_told),
        cmocka_unit_test(every_layout),
        cmocka_unit_test(what_the_device_is),
        cmocka_unit_test(the_pool_grows_and_is_noise),
        cmocka_unit_test(bad_shapes),
        cmocka_unit_test(bad_handles),
        cmocka_unit_test(every_call_of_create),
        cmocka_unit_test(every_call_of_a_measurement),
    };
    make_noise();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
