/* SPDX-License-Identifier: Apache-2.0 */
/* Opening cuBLASLt, with a stand-in for it: what is found, what is refused, what fails later. */
#include "tests/unit/blas_bench.h"

#include <stdio.h>

static void assert_names(const struct rt_error *err, const char *part)
{
    if (!strstr(err->message, part))
        fail_msg("\"%s\" does not contain \"%s\"", err->message, part);
}

/* ---- opening ---- */

static void test_every_name_is_tried(void **state)
{
    static const struct {
        const char *found, *tried;
    } cases[] = {{"libcublasLt.so.13", "libcublasLt.so.13 "},
                 {"libcublasLt.so.12", "libcublasLt.so.13 libcublasLt.so.12 "},
                 {"libcublasLt.so", "libcublasLt.so.13 libcublasLt.so.12 libcublasLt.so "}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct blas_bench b;
        blas_bench_open_closed(&b);
        fake_blas.found = cases[i].found;
        fake_blas.version = 120000;
        assert_int_equal(b.d.ctx_leave(&b.d), 0); /* needs no context of the caller's */
        assert_int_equal(rt_driver_open_blas(&b.d, NULL), RT_OK);
        assert_int_equal(rt_driver_open_blas(&b.d, NULL), RT_OK);
        assert_int_equal(b.d.ctx_enter(&b.d), 0);
        assert_string_equal(fake_blas.tried, cases[i].tried);
        assert_int_equal(fake_blas.loaded, 1);
        assert_int_equal(fake_blas.handles, 1);
        blas_bench_close(&b);
    }
}

/* The story of an opening that fails, after which nothing is held and a second try may succeed. */
static void assert_refused(struct blas_bench *b, enum rt_status status, const char *message)
{
    struct rt_error err = {.status = RT_OK};
    assert_int_equal(rt_driver_open_blas(&b->d, &err), status);
    assert_int_equal(err.status, status);
    assert_string_equal(err.message, message);
    assert_int_equal(fake_blas.loaded, 0);
    assert_int_equal(fake_blas.handles, 0);
    fake_blas_reset();
    fake_blas.cuda = rt_cuda_of(&b->d);
    assert_int_equal(rt_driver_open_blas(&b->d, &err), RT_OK);
    blas_bench_close(b);
    blas_bench_open_closed(b);
}

#define TRIED                                                                                      \
    "tried libcublasLt.so.13, libcublasLt.so.12, libcublasLt.so; LD_LIBRARY_PATH must reach it; "  \
    "`projections: own` does without"

static void test_says_what_is_missing(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open_closed(&b);
    fake_blas.found = NULL;
    assert_refused(&b, RT_ERR_UNSUPPORTED,
                   "cuBLASLt is not found (libcublasLt.so.13: cannot open shared object file: No "
                   "such file or directory): " TRIED);
    static const char *const damaged[] = {"libcublasLt.so.13", "libcublasLt.so.12",
                                          "libcublasLt.so"};
    for (size_t i = 0; i < 3; i++) {
        char message[400];
        fake_blas.found = NULL;
        fake_blas.damaged = damaged[i];
        snprintf(message, sizeof(message), "cuBLASLt cannot be loaded (%s: file too short): " TRIED,
                 damaged[i]);
        assert_refused(&b, RT_ERR_UNSUPPORTED, message);
    }
    fake_blas.damaged = "libcublasLt.so.13"; /* an older one serves */
    fake_blas.found = "libcublasLt.so.12";
    assert_int_equal(rt_driver_open_blas(&b.d, NULL), RT_OK);
    blas_bench_close(&b);
}

static void test_refuses_old_libraries(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open_closed(&b);
    fake_blas.found = "libcublasLt.so";
    fake_blas.version = 11611;
    assert_refused(&b, RT_ERR_UNSUPPORTED,
                   "libcublasLt.so is cuBLASLt 11.6, needed is 12.0 or later; `projections: own` "
                   "does without");
    fake_blas.version = 119999;
    assert_refused(&b, RT_ERR_UNSUPPORTED,
                   "libcublasLt.so.13 is cuBLASLt 11.99, needed is 12.0 or later; `projections: "
                   "own` does without");
    static const char *const symbols[] = {
#define RT_BLAS_SYMBOL(name, result, arguments) "cublasLt" #name,
#include "driver/cuda/cuda_blas_symbols.inc"
#undef RT_BLAS_SYMBOL
    };
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        char message[256];
        fake_blas.lacks = symbols[i];
        snprintf(message, sizeof(message),
                 "libcublasLt.so.13 lacks %s; needed is cuBLASLt 12.0 or later; `projections: own` "
                 "does without",
                 symbols[i]);
        assert_refused(&b, RT_ERR_UNSUPPORTED, message);
    }
    blas_bench_close(&b);
}

static void test_a_library_that_does_not_start(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open_closed(&b);
    fake_blas.fail_at = 1;
    assert_refused(&b, RT_ERR_DRIVER,
                   "cublasLtCreate failed: CUBLAS_STATUS_INTERNAL_ERROR (14): something else");
    fake_blas.fail_at = 1;
    fake_blas.failure = CUBLAS_STATUS_ALLOC_FAILED;
    assert_refused(&b, RT_ERR_DEVICE_MEMORY,
                   "cublasLtCreate failed: CUBLAS_STATUS_ALLOC_FAILED (3): no room");
    blas_bench_close(&b);
}

static void test_nothing_goes_before_opening(void **state)
{
    (void)state;
    struct blas_bench b;
    struct rt_matmul_plan *plan = NULL;
    blas_bench_open_closed(&b);
    struct rt_matmul m = blas_bench_product(&b, 4, 6, 8);
    assert_int_equal(b.d.matmul_prepare(&b.d, &m, 1, &plan), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(b.d.matmul(&b.d, &m, b.s), CUDA_ERROR_NOT_SUPPORTED);
    assert_null(plan);
    assert_string_equal(fake_blas.tried, "");
    blas_bench_close(&b);
}

/* ---- failures ---- */

static int live(struct blas_bench *b, struct rt_error *err)
{
    struct rt_matmul m = blas_bench_product(b, 4, 6, 8);
    m.bias = b->mem + BIAS_AT;
    struct rt_matmul_plan *plan = NULL;
    enum rt_status status = rt_driver_open_blas(&b->d, err);
    if (status == RT_OK)
        status = RT_DRV(&b->d, err, matmul_prepare, (&b->d, &m, 1, &plan));
    m.plan = plan;
    if (status == RT_OK)
        status = RT_DRV(&b->d, err, matmul_select, (&b->d, plan, 0));
    if (status == RT_OK)
        status = RT_DRV(&b->d, err, matmul, (&b->d, &m, b->s));
    if (plan) {
        const enum rt_status released = RT_DRV(&b->d, err, matmul_release, (&b->d, plan));
        status = status == RT_OK ? released : status;
    }
    return (int)status;
}

/* Of the library's own calls: nothing is left, and the story names its code. What only tells
 * a way from others is not missed, and a handle that says no when it goes has gone. */
static void test_every_call_of_the_library_fails_once(void **state)
{
    (void)state;
    uint32_t failed = 0, unnoticed = 0;
    for (uint64_t n = 1;; n++) {
        struct blas_bench b;
        struct rt_error err = {.status = RT_OK};
        blas_bench_open_closed(&b);
        fake_blas.fail_at = n;
        fake_blas.failure = n % 2 ? CUBLAS_STATUS_INTERNAL_ERROR : CUBLAS_STATUS_ALLOC_FAILED;
        const int status = live(&b, &err);
        assert_int_equal(fake_blas.objects, 0);
        const bool reached = fake_blas.calls >= n;
        if (status != RT_OK) {
            failed++;
            assert_int_equal(status, n % 2 ? RT_ERR_DRIVER : RT_ERR_DEVICE_MEMORY);
            assert_names(&err, n % 2 ? "CUBLAS_STATUS_INTERNAL_ERROR (14): something else"
                                     : "CUBLAS_STATUS_ALLOC_FAILED (3): no room");
        } else if (reached) {
            unnoticed++;
        }
        blas_bench_close(&b);
        if (!reached)
            break;
    }
    /* create; operation 1 + 5; layouts 3; preference 1 + 6; ways; destroy; bias, product; 4 */
    assert_int_equal(failed, 1 + 6 + 3 + 7 + 1 + 1 + 2 + 4);
    assert_int_equal(unnoticed, 2 * 9); /* what a way is, at prepare and at select */
}

static void test_every_operation_fails_once(void **state)
{
    (void)state;
    uint32_t failed = 0;
    for (uint64_t n = 1;; n++) {
        struct blas_bench b;
        struct rt_error err = {.status = RT_OK};
        blas_bench_open_closed(&b);
        b.d.probe.fail_at = b.d.probe.calls + n;
        const int status = live(&b, &err);
        b.d.probe.fail_at = 0;
        assert_int_equal(fake_blas.objects, 0);
        blas_bench_close(&b);
        if (status == RT_OK)
            break;
        assert_names(&err, "injected failure");
        failed++;
    }
    assert_int_equal(failed, 5);
}

static void test_codes_are_told(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open_closed(&b);
    /* Not open: nobody knows the library's names. */
    assert_non_null(strstr(b.d.error_text(&b.d, RT_CUDA_BLAS_FAILED + 14), "unknown error"));
    assert_int_equal(rt_driver_open_blas(&b.d, NULL), RT_OK);
    assert_string_equal(b.d.error_text(&b.d, RT_CUDA_BLAS_FAILED + 15),
                        "CUBLAS_STATUS_NOT_SUPPORTED (15): something else");
    assert_non_null(strstr(b.d.error_text(&b.d, 2), "CUDA_ERROR_OUT_OF_MEMORY (2)"));
    assert_true(b.d.is_out_of_memory(&b.d, RT_CUDA_BLAS_FAILED + 3));
    assert_false(b.d.is_out_of_memory(&b.d, RT_CUDA_BLAS_FAILED + 2));
    assert_false(rt_driver_is_call_failure(RT_CUDA_BLAS_FAILED));
    blas_bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_name_is_tried),
        cmocka_unit_test(test_says_what_is_missing),
        cmocka_unit_test(test_refuses_old_libraries),
        cmocka_unit_test(test_a_library_that_does_not_start),
        cmocka_unit_test(test_nothing_goes_before_opening),
        cmocka_unit_test(test_every_call_of_the_library_fails_once),
        cmocka_unit_test(test_every_operation_fails_once),
        cmocka_unit_test(test_codes_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
