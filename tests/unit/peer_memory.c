/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles of memory for other processes, on the CUDA back end over fake_cuda.c. A driver lets no
 * process open what is its own, the stand-in does: so both ends are seen here. Two processes and
 * two GPUs are gpu-ranks'.
 */
#include "driver/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BYTES 64u

static int setup(void **state)
{
    struct rt_driver *const d = calloc(1, sizeof(*d));
    assert_non_null(d);
    assert_int_equal(rt_driver_open("cuda:0", d, NULL, 0, NULL), RT_OK);
    assert_int_equal(d->ctx_enter(d), 0);
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    struct rt_driver *const d = *state;
    unsetenv("FAKE_CUDA_FAILS");
    assert_int_equal(d->ctx_leave(d), 0);
    assert_int_equal(d->probe.live, 0);
    rt_driver_close(d);
    free(d);
    return 0;
}

static void hands_memory_over(void **state)
{
    struct rt_driver *const d = *state;
    struct rt_peer_handle handle;
    rt_addr mem, peer = 0;
    assert_int_equal(d->mem_alloc(d, BYTES, &mem), 0);
    assert_int_equal(d->peer_export(d, mem, &handle), 0);
    assert_int_equal(d->peer_open(d, &handle, &peer), 0);
    assert_int_equal(peer, mem);
    assert_int_equal(d->probe.live, 2);
    assert_int_equal(d->peer_close(d, peer), 0);
    assert_int_not_equal(d->peer_close(d, 0), 0);
    assert_int_equal(d->mem_free(d, mem), 0);
}

static void refuses_what_is_nobodys(void **state)
{
    struct rt_driver *const d = *state;
    struct rt_peer_handle handle;
    rt_addr mem, peer = 7;
    assert_int_equal(d->mem_alloc(d, BYTES, &mem), 0);
    assert_int_not_equal(d->peer_export(d, mem + 8, &handle), 0); /* within an allocation */
    memset(&handle, 0, sizeof(handle));
    assert_int_not_equal(d->peer_open(d, &handle, &peer), 0);
    assert_int_equal(peer, 7);
    assert_int_equal(d->mem_free(d, mem), 0);
}

/* Each as the library fails it, and as the probe does: what could not be closed is closed. */
static void fails_once_each(void **state)
{
    struct rt_driver *const d = *state;
    struct rt_peer_handle handle;
    rt_addr mem, peer = 7;
    assert_int_equal(d->mem_alloc(d, BYTES, &mem), 0);
    setenv("FAKE_CUDA_FAILS", "cuIpcGetMemHandle", 1);
    assert_int_not_equal(d->peer_export(d, mem, &handle), 0);
    setenv("FAKE_CUDA_FAILS", "cuIpcOpenMemHandle", 1);
    assert_int_equal(d->peer_export(d, mem, &handle), 0);
    assert_int_not_equal(d->peer_open(d, &handle, &peer), 0);
    unsetenv("FAKE_CUDA_FAILS");
    d->probe.fail_at = d->probe.calls + 1;
    assert_int_equal(d->peer_export(d, mem, &handle), RT_DRIVER_INJECTED);
    d->probe.fail_at = d->probe.calls + 1;
    assert_int_equal(d->peer_open(d, &handle, &peer), RT_DRIVER_INJECTED);
    assert_int_equal(peer, 7);
    assert_int_equal(d->peer_open(d, &handle, &peer), 0);
    d->probe.fail_at = d->probe.calls + 1;
    assert_int_equal(d->peer_close(d, peer), RT_DRIVER_INJECTED);
    assert_int_equal(d->probe.live, 1);
    assert_int_equal(d->mem_free(d, mem), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hands_memory_over, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_what_is_nobodys, setup, teardown),
        cmocka_unit_test_setup_teardown(fails_once_each, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
