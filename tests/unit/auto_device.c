/* SPDX-License-Identifier: Apache-2.0 */
/* What "auto" takes, and what it says of it: with the stand-in for the driver's library. */
#include "driver/driver.h"
#include "replayrt/ops.h"
#include "tests/unit/expect.h"

#include <stdlib.h>

/* variables: "NAME=value" pairs of fake_cuda.h, null behind the last. */
struct machine {
    const char *variables[3][2];
    enum rt_status status;
    const char *serves; /* the device's own name; null: none does */
    const char *words;  /* of the reason, or of the error */
};

static const struct machine machines[] = {
    /* whole ones */
    {{{"FAKE_CUDA_DEVICES", "2"}}, RT_OK, "fake 0", "cuda:0: the first device"},
    {{{"FAKE_CUDA_BUSY", "1"}}, RT_OK, "fake 0", "cuda:0: the first device"},
    /* mixed ones */
    {{{"FAKE_CUDA_OLD", "0"}},
     RT_OK,
     "fake 1",
     "cuda:1: cuda:0: fake 0 has compute capability 7.0, needed is 8.0 or later"},
    {{{"FAKE_CUDA_BUSY", "0"}},
     RT_OK,
     "fake 1",
     "cuda:1: cuda:0: cuDevicePrimaryCtxRetain failed: CUDA_ERROR_DEVICE_UNAVAILABLE (46)"},
    {{{"FAKE_CUDA_FULL", "0"}},
     RT_OK,
     "fake 1",
     "cuda:1: cuda:0: cuDevicePrimaryCtxRetain failed: CUDA_ERROR_OUT_OF_MEMORY (2)"},
    {{{"FAKE_CUDA_DEVICES", "4"}, {"FAKE_CUDA_OLD", "0"}, {"FAKE_CUDA_BUSY", "1"}},
     RT_OK,
     "fake 2",
     "needed is 8.0 or later; cuda:1: cuDevicePrimaryCtxRetain failed: "},
    /* a driver and no device */
    {{{"FAKE_CUDA_DEVICES", "0"}}, RT_OK, "host", "the NVIDIA driver has no device"},
    {{{"FAKE_CUDA_INIT", "100"}}, RT_OK, "host", "cuInit failed: CUDA_ERROR_NO_DEVICE (100)"},
    /* a driver that fails */
    {{{"FAKE_CUDA_INIT", "803"}},
     RT_ERR_DRIVER,
     NULL,
     "cuInit failed: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)"},
    {{{"FAKE_CUDA_INIT", "3"}},
     RT_ERR_DRIVER,
     NULL,
     "CUDA_ERROR_NOT_INITIALIZED (3): the driver has no text for it; a process forked from one"},
    {{{"FAKE_CUDA_INIT", "2"}},
     RT_ERR_DEVICE_MEMORY,
     NULL,
     "cuInit failed: CUDA_ERROR_OUT_OF_MEMORY (2)"},
    {{{"FAKE_CUDA_LACKS", "cuFuncLoad"}}, RT_ERR_DRIVER, NULL, "(for CUDA 12.2) lacks cuFuncLoad"},
    /* devices of which none serves */
    {{{"FAKE_CUDA_DEVICES", "1"}, {"FAKE_CUDA_BUSY", "0"}},
     RT_ERR_DRIVER,
     NULL,
     "no device serves: cuda:0: cuDevicePrimaryCtxRetain failed: CUDA_ERROR_DEVICE_UNAVAILABLE"},
    {{{"FAKE_CUDA_FULL", "0"}, {"FAKE_CUDA_OLD", "1"}},
     RT_ERR_DEVICE_MEMORY,
     NULL,
     "out of memory; cuda:1: fake 1 has compute capability 7.0"},
};
#define MACHINE_COUNT (sizeof(machines) / sizeof(machines[0]))

static void enter(const struct machine *m)
{
    static const char *const all[] = {"FAKE_CUDA_DEVICES", "FAKE_CUDA_INIT", "FAKE_CUDA_LACKS",
                                      "FAKE_CUDA_OLD",     "FAKE_CUDA_BUSY", "FAKE_CUDA_FULL"};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        unsetenv(all[i]);
    for (size_t i = 0; m && i < 3 && m->variables[i][0]; i++)
        setenv(m->variables[i][0], m->variables[i][1], 1);
}

static void assert_words(size_t machine, const char *text, const char *words)
{
    if (!strstr(text, words))
        fail_msg("machine %zu: \"%s\" does not contain \"%s\"", machine, text, words);
}

static void test_driver(void **state)
{
    (void)state;
    for (size_t i = 0; i < MACHINE_COUNT; i++) {
        const struct machine *m = &machines[i];
        struct rt_driver d;
        struct rt_error err = {.message = ""};
        char why[160] = "before", cramped[4];
        enter(m);
        const enum rt_status status = rt_driver_open("auto", &d, why, sizeof(why), &err);
        if (status != m->status)
            fail_msg("machine %zu: status %d: %s%s", i, status, why, err.message);
        assert_words(i, status == RT_OK ? why : err.message, m->words);
        if (status == RT_OK)
            assert_words(i, d.caps.name, m->serves);
        rt_driver_close(&d);
        assert_int_equal(rt_driver_open("auto", &d, cramped, sizeof(cramped), NULL), m->status);
        assert_true(strlen(cramped) < sizeof(cramped));
        rt_driver_close(&d);
        assert_int_equal(rt_driver_open("auto", &d, NULL, 0, NULL), m->status);
        rt_driver_close(&d);
    }
    enter(NULL);
}

/* The same through the public doors; pointers of one kind never become the other's. */
static void test_public(void **state)
{
    (void)state;
    struct rt_config config;
    rt_config_default(&config);
    config.geometry = (struct rt_geometry){.heads = 16,
                                           .kv_lora_rank = 512,
                                           .qk_rope_head_dim = 64,
                                           .layers = 1,
                                           .softmax_scale = 0.1};
    for (size_t i = 0; i < MACHINE_COUNT; i++) {
        const struct machine *m = &machines[i];
        struct rt_error err = {.message = ""};
        rt_plan *plan = NULL;
        rt_ops *ops = NULL;
        enter(m);
        assert_int_equal(rt_plan_create(&config, NULL, &plan, &err), m->status);
        assert_words(i, m->status == RT_OK ? rt_plan_info(plan)->device_reason : err.message,
                     m->words);
        rt_plan_destroy(&plan);
        if (m->status == RT_OK && strcmp(m->serves, "host") != 0)
            continue; /* this stand-in has none of the operators' kernels */
        assert_int_equal(rt_ops_create("auto", &ops, &err),
                         m->status == RT_OK ? RT_ERR_NO_DEVICE : m->status);
        assert_words(i, err.message, m->words);
        assert_null(ops);
    }
    enter(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_driver),
        cmocka_unit_test(test_public),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
