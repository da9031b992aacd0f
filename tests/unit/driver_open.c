/* SPDX-License-Identifier: Apache-2.0 */
/* Opening devices by name, the stories of failures, assumed devices. */
#include "driver/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_names(const struct rt_error *err, const char *part)
{
    if (!strstr(err->message, part))
        fail_msg("\"%s\" does not contain \"%s\"", err->message, part);
}

static void assert_closed(const struct rt_driver *d)
{
    static const struct rt_driver zero;
    assert_memory_equal(d, &zero, sizeof(zero));
}

static void refuses_what_is_no_device(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "gpu",
                                        " host",
                                        "Host",
                                        "host ",
                                        "auto:0",
                                        "cuda",
                                        "cuda:",
                                        "cuda:-1",
                                        "cuda:+1",
                                        "cuda: 1",
                                        "cuda:1 ",
                                        "cuda:x",
                                        "cuda:0x1",
                                        "cuda:1.",
                                        "cuda:01",
                                        "CUDA:0",
                                        "cuda:00",
                                        "cuda:2147483648",
                                        "cuda:4294967296",
                                        "cuda:99999999999",
                                        "cuda:18446744073709551616"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct rt_driver d;
        struct rt_error err = {.status = RT_OK};
        char why[8] = "before";
        memset(&d, 0xFF, sizeof(d));
        if (rt_driver_open(wrong[i], &d, why, sizeof(why), &err) != RT_ERR_INVALID)
            fail_msg("\"%s\" gave status %d: %s", wrong[i], err.status, err.message);
        assert_int_equal(err.status, RT_ERR_INVALID);
        assert_names(&err, wrong[i]);
        assert_string_equal(why, "");
        assert_closed(&d);
    }
}

static void refuses_null(void **state)
{
    (void)state;
    struct rt_driver d;
    struct rt_error err = {.status = RT_OK};
    assert_int_equal(rt_driver_open(NULL, &d, NULL, 0, &err), RT_ERR_INVALID);
    assert_closed(&d);
    assert_int_equal(rt_driver_open("host", NULL, NULL, 0, &err), RT_ERR_INVALID);
    assert_int_equal(rt_driver_open("gpu", &d, NULL, 0, NULL), RT_ERR_INVALID);
    rt_driver_close(NULL);
    rt_driver_close(&d);
}

/* Ordinals that can be spelled but that no machine has. */
static void refuses_missing_ordinals(void **state)
{
    (void)state;
    static const char *const absent[] = {"cuda:4096", "cuda:2147483647"};
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        struct rt_driver d;
        struct rt_error err = {.status = RT_OK};
        assert_int_equal(rt_driver_open(absent[i], &d, NULL, 0, &err), RT_ERR_NO_DEVICE);
        assert_closed(&d);
    }
}

static void opens_host(void **state)
{
    (void)state;
    struct rt_driver d;
    char why[64] = "before";
    assert_int_equal(rt_driver_open("host", &d, why, sizeof(why), NULL), RT_OK);
    assert_string_equal(why, "");
    assert_int_equal(d.caps.kind, RT_DEVICE_KIND_HOST);
    assert_int_equal(d.caps.cc, 0);
    assert_int_equal(d.caps.sm_count, 8);
    assert_string_equal(d.caps.name, "host (C reference kernels)");
    assert_true(d.caps.memory_bytes > 0);
    rt_driver_close(&d);
    assert_closed(&d);
    rt_driver_close(&d);
}

static void auto_says_why(void **state)
{
    (void)state;
    struct rt_driver d;
    struct rt_error err = {.status = RT_OK};
    char why[256] = "before";
    assert_int_equal(rt_driver_open("auto", &d, why, sizeof(why), &err), RT_OK);
    assert_true(strlen(why) > 0);
    rt_driver_close(&d);

    char cramped[4] = "xyz";
    assert_int_equal(rt_driver_open("auto", &d, cramped, sizeof(cramped), &err), RT_OK);
    assert_true(strlen(cramped) < sizeof(cramped));
    rt_driver_close(&d);
    assert_int_equal(rt_driver_open("auto", &d, NULL, 0, &err), RT_OK);
    rt_driver_close(&d);
}

static void tells_failures(void **state)
{
    (void)state;
    struct rt_driver d;
    struct rt_error err = {.status = RT_OK};
    assert_int_equal(rt_driver_open("host", &d, NULL, 0, NULL), RT_OK);
    rt_addr addr = 0;
    assert_int_equal(RT_DRV(&d, &err, mem_alloc, (&d, UINT64_MAX, &addr)), RT_ERR_DEVICE_MEMORY);
    assert_names(&err, "mem_alloc failed: RT_HOST_NO_MEMORY (2): out of memory; ");
    assert_names(&err, " GiB are free [");
    assert_int_equal(rt_driver_wanted(err.status, "it", UINT64_C(3) << 29, &err), err.status);
    assert_names(&err, "it of 1.500 GiB (1610612736 bytes) does not fit: mem_alloc failed: ");
    assert_names(&err, "unit/driver_open.c:");
    assert_null(strstr(err.message, "tests/"));
    assert_int_equal(RT_DRV(&d, &err, mem_free, (&d, 12345)), RT_ERR_DRIVER);
    assert_names(&err, "mem_free failed: RT_HOST_NOT_FOUND (3): ");

    d.probe.fail_at = d.probe.calls + 1;
    assert_int_equal(RT_DRV(&d, &err, stream_sync, (&d, NULL)), RT_ERR_DRIVER);
    assert_names(&err, "stream_sync failed: injected failure [");
    assert_int_equal(RT_DRV(&d, &err, stream_sync, (&d, NULL)), RT_OK);

    assert_int_equal(
        rt_driver_fail(&d, &err, RT_DOP_graph_launch, RT_DRIVER_CALL_FAILED - 7, "x.c", 3),
        RT_ERR_CALLBACK);
    assert_string_equal(err.message, "the stage's function returned -7");
    static const int unknown[] = {INT32_MIN,
                                  -1,
                                  10,
                                  4711,
                                  INT32_MAX,
                                  RT_DRIVER_CALL_FAILED + RT_DRIVER_CALL_RANGE + 1,
                                  RT_DRIVER_CALL_FAILED - RT_DRIVER_CALL_RANGE - 1};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        assert_int_equal(rt_driver_fail(&d, &err, RT_DOP_fill, unknown[i], "/a/b/c.c", 9),
                         RT_ERR_DRIVER);
        assert_names(&err, "unknown error");
        assert_names(&err, "[b/c.c:9]");
    }
    rt_driver_close(&d);
}

static void names_operations(void **state)
{
    (void)state;
    assert_string_equal(rt_driver_op_name(RT_DOP_ctx_enter), "ctx_enter");
    assert_string_equal(rt_driver_op_name(RT_DOP_address_range), "address_range");
    for (int op = 0; op < RT_DOP_COUNT; op++)
        assert_string_not_equal(rt_driver_op_name((enum rt_driver_op)op), "unknown operation");
    assert_string_equal(rt_driver_op_name(RT_DOP_COUNT), "unknown operation");
}

static void assumes_known_devices(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t cc, sm_count, smem_optin_bytes;
        uint64_t l2_bytes, memory_bytes;
    } known[] = {
        {"h200", 90, 132, 232448, 62914560, 150754820096},
        {"h100", 90, 132, 232448, 52428800, 85520809984},
        {"a100", 80, 108, 166912, 41943040, 85899345920},
    };
    struct rt_device_caps caps;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        assert_int_equal(rt_device_caps_assume(known[i].name, &caps, NULL), RT_OK);
        assert_int_equal(caps.kind, RT_DEVICE_KIND_CUDA);
        assert_int_equal(caps.cc, known[i].cc);
        assert_int_equal(caps.sm_count, known[i].sm_count);
        assert_int_equal(caps.smem_optin_bytes, known[i].smem_optin_bytes);
        assert_int_equal(caps.l2_bytes, known[i].l2_bytes);
        assert_int_equal(caps.memory_bytes, known[i].memory_bytes);
    }
    struct rt_driver d;
    assert_int_equal(rt_driver_open("host", &d, NULL, 0, NULL), RT_OK);
    assert_int_equal(rt_device_caps_assume("host", &caps, NULL), RT_OK);
    assert_memory_equal(&caps, &d.caps, sizeof(caps));
    rt_driver_close(&d);

    struct rt_error err = {.status = RT_OK};
    assert_int_equal(rt_device_caps_assume("v100", &caps, &err), RT_ERR_NO_DEVICE);
    assert_string_equal(err.message, "device \"v100\" is not one of h200, h100, a100, host");
    assert_int_equal(rt_device_caps_assume(NULL, &caps, &err), RT_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_no_device),
        cmocka_unit_test(refuses_null),
        cmocka_unit_test(refuses_missing_ordinals),
        cmocka_unit_test(opens_host),
        cmocka_unit_test(auto_says_why),
        cmocka_unit_test(tells_failures),
        cmocka_unit_test(names_operations),
        cmocka_unit_test(assumes_known_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
