/* SPDX-License-Identifier: Apache-2.0 */
/* The energy meter against a stand-in for NVML, which lies in front of the loader. */
#include "driver/energy.h"
#include "tests/unit/fake_loader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NVML_FAILURE 3

static struct {
    bool missing;
    const char *lacks, *fails; /* a function's name, or null */
    int loaded, started;
    char bus_id[32];
    unsigned long long mj;
} nvml;

static int result_of(const char *name)
{
    return nvml.fails && strcmp(nvml.fails, name) == 0 ? NVML_FAILURE : 0;
}

static int nvmlInit_v2(void)
{
    const int result = result_of(__func__);
    nvml.started += result == 0;
    return result;
}

static int nvmlShutdown(void)
{
    nvml.started--;
    return 0;
}

static int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **out)
{
    (void)snprintf(nvml.bus_id, sizeof(nvml.bus_id), "%s", bus_id);
    *out = &nvml;
    return result_of(__func__);
}

static int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *mj)
{
    assert_ptr_equal(device, &nvml);
    *mj = nvml.mj;
    return result_of(__func__);
}

static const char *nvmlErrorString(int result)
{
    return result == NVML_FAILURE ? "Not Supported" : "Success";
}

static bool open_it(const char *name, int flags, char *story, size_t bytes)
{
    (void)flags;
    if (nvml.missing)
        (void)snprintf(story, bytes, "%s: no such file", name);
    return !nvml.missing;
}

static void *find_symbol(const char *name)
{
    void *p = NULL;
#define FAKE(function)                                                                             \
    if (strcmp(name, #function) == 0) {                                                            \
        __typeof__(&(function)) address = (function);                                              \
        memcpy(&p, &address, sizeof(p));                                                           \
    }
    FAKE(nvmlInit_v2)
    FAKE(nvmlShutdown)
    FAKE(nvmlDeviceGetHandleByPciBusId_v2)
    FAKE(nvmlDeviceGetTotalEnergyConsumption)
    FAKE(nvmlErrorString)
#undef FAKE
    return p;
}

const struct fake_library fake_library = {.names = "libnvidia-ml.so.1",
                                          .open = open_it,
                                          .find = find_symbol,
                                          .lacks = &nvml.lacks,
                                          .loaded = &nvml.loaded};

static const struct rt_device_caps card = {.kind = RT_DEVICE_KIND_CUDA,
                                           .bus_id = "00000000:3b:00.0"};

static void expect_refused(const struct rt_device_caps *caps, const char *why)
{
    struct rt_energy_meter *meter = (struct rt_energy_meter *)&nvml;
    struct rt_error err = {0};
    assert_int_equal(rt_energy_open(caps, &meter, &err), RT_ERR_UNSUPPORTED);
    assert_null(meter);
    if (!strstr(err.message, why))
        fail_msg("%s, not %s", err.message, why);
    assert_int_equal(nvml.loaded, 0);
    assert_int_equal(nvml.started, 0);
}

static void test_reads(void **state)
{
    (void)state;
    struct rt_energy_meter *meter = NULL;
    struct rt_error err = {0};
    uint64_t mj = 0;
    nvml.mj = 5000000000ULL;
    assert_int_equal(rt_energy_open(&card, &meter, &err), RT_OK);
    assert_string_equal(nvml.bus_id, "00000000:3b:00.0");
    assert_int_equal(rt_energy_read(meter, &mj, &err), RT_OK);
    assert_int_equal(mj, 5000000000ULL);
    nvml.fails = "nvmlDeviceGetTotalEnergyConsumption";
    assert_int_equal(rt_energy_read(meter, &mj, &err), RT_ERR_UNSUPPORTED);
    assert_int_equal(mj, 5000000000ULL);
    nvml.fails = NULL;
    rt_energy_close(&meter);
    assert_null(meter);
    rt_energy_close(&meter);
    assert_int_equal(nvml.loaded, 0);
    assert_int_equal(nvml.started, 0);
}

static void test_there_is_none(void **state)
{
    (void)state;
    static const char *const functions[] = {"nvmlInit_v2", "nvmlDeviceGetHandleByPciBusId_v2",
                                            "nvmlDeviceGetTotalEnergyConsumption", "nvmlShutdown",
                                            "nvmlErrorString"};
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        nvml.lacks = functions[i];
        expect_refused(&card, functions[i]);
        nvml.lacks = NULL;
        if (i > 2)
            continue; /* those do not fail */
        nvml.fails = functions[i];
        expect_refused(&card, "Not Supported (3)");
        nvml.fails = NULL;
    }
    nvml.missing = true;
    expect_refused(&card, "no energy counter: libnvidia-ml.so.1: no such file");
    nvml.missing = false;
    expect_refused(&(const struct rt_device_caps){.kind = RT_DEVICE_KIND_HOST}, "host device");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reads),
                                       cmocka_unit_test(test_there_is_none)};
    return cmocka_run_group_tests_name("energy", tests, NULL, NULL);
}
