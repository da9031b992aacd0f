/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensor maps on both back ends, and kernels that take them by value. Without a GPU that knows them
 * only the host device is tested; with RT_TEST_FAKE_CUDA set, the driver is the one of fake_cuda.c,
 * whose maps say what they were made from.
 */
#include "tests/unit/wide_kernel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define INVALID 1 /* CUDA_ERROR_INVALID_VALUE and RT_HOST_INVALID */
#define TENSOR_BYTES 65536u

struct fixture {
    struct rt_driver d;
    rt_addr mem; /* TENSOR_BYTES */
};

static bool is_fake(void)
{
    return getenv("RT_TEST_FAKE_CUDA") != NULL;
}

static struct fixture *fixture_of(const char *device)
{
    struct fixture *const f = calloc(1, sizeof(*f));
    assert_non_null(f);
    assert_int_equal(rt_driver_open(device, &f->d, NULL, 0, NULL), RT_OK);
    assert_int_equal(f->d.ctx_enter(&f->d), 0);
    assert_int_equal(f->d.mem_alloc(&f->d, TENSOR_BYTES, &f->mem), 0);
    return f;
}

static int setup_host(void **state)
{
    *state = fixture_of("host");
    return 0;
}

static int setup_cuda(void **state)
{
    *state = fixture_of("cuda:0");
    return 0;
}

static int teardown(void **state)
{
    struct fixture *const f = *state;
    assert_int_equal(f->d.mem_free(&f->d, f->mem), 0);
    assert_int_equal(f->d.ctx_leave(&f->d), 0);
    assert_int_equal(f->d.probe.live, 0);
    rt_driver_close(&f->d);
    free(f);
    return 0;
}

/* 2 pages of 4 tokens, 3 heads' 576 elements: no two numbers are equal. */
static struct rt_tensor_map_spec good_spec(const struct fixture *f)
{
    return (struct rt_tensor_map_spec){.address = f->mem + 16,
                                       .dims = 4,
                                       .size = {576, 3, 4, 2},
                                       .stride_bytes = {7, 1152, 3456, 16384},
                                       .box = {64, 1, 5, 6}};
}

/* Nothing but a success writes a map. */
static int encode(struct fixture *f, const struct rt_tensor_map_spec *spec,
                  struct rt_tensor_map *out)
{
    struct rt_tensor_map before;
    memset(&before, 0xEE, sizeof(before));
    *out = before;
    const int rc = f->d.tensor_map(&f->d, spec, out);
    if (rc == 0)
        assert_memory_not_equal(out, &before, sizeof(before));
    else
        assert_memory_equal(out, &before, sizeof(before));
    return rc;
}

/* ---- both back ends ---- */

static void refuses_what_no_map_can_say(void **state)
{
    struct fixture *const f = *state;
    const struct rt_tensor_map_spec good = good_spec(f);
    struct rt_tensor_map_spec wrong[40];
    uint32_t count = 0;
#define WRONG(field, value)                                                                        \
    do {                                                                                           \
        wrong[count] = good;                                                                       \
        wrong[count++].field = (value);                                                            \
    } while (0)
    WRONG(address, 0);
    WRONG(address, good.address + 8);
    WRONG(address, good.address + 1);
    WRONG(dims, 0);
    WRONG(dims, 1);
    WRONG(dims, 5);
    WRONG(dims, UINT32_MAX);
    WRONG(box[0], 4); /* 8 bytes */
    WRONG(box[0], 63);
    WRONG(box[0], 72); /* 144 bytes */
    WRONG(box[0], UINT32_C(1) << 31);
    for (uint32_t i = 0; i < good.dims; i++) {
        WRONG(size[i], 0);
        WRONG(size[i], (UINT64_C(1) << 32) + 1);
        WRONG(box[i], 0);
        WRONG(box[i], 257);
        if (i == 0)
            continue;
        WRONG(stride_bytes[i], 1152 + 8);
        WRONG(stride_bytes[i], UINT64_C(1) << 40);
    }
#undef WRONG
    struct rt_tensor_map map;
    assert_int_equal(encode(f, &good, &map), 0);
    for (uint32_t i = 0; i < count; i++) {
        const int rc = encode(f, &wrong[i], &map);
        if (rc != INVALID)
            fail_msg("wrong spec %u gave %d", i, rc);
    }
    struct rt_error err = {.status = RT_OK};
    assert_int_equal(RT_DRV(&f->d, &err, tensor_map, (&f->d, &wrong[0], &map)), RT_ERR_DRIVER);
    assert_non_null(strstr(err.message, "tensor_map failed: "));
}

/* The largest of everything, and dimensions that are not there: nobody may look at those. */
static void takes_the_limits(void **state)
{
    struct fixture *const f = *state;
    struct rt_tensor_map map;
    struct rt_tensor_map_spec spec = {.address = f->mem,
                                      .dims = 2,
                                      .size = {UINT64_C(1) << 32, UINT64_C(1) << 32, 0, 0},
                                      .stride_bytes = {1, (UINT64_C(1) << 40) - 16, 1, 1},
                                      .box = {64, 256, 0, 257}};
    assert_int_equal(encode(f, &spec, &map), 0);
    spec.box[0] = 8;
    spec.box[1] = 1;
    spec.size[0] = spec.size[1] = 1;
    spec.stride_bytes[1] = 16;
    assert_int_equal(encode(f, &spec, &map), 0);
}

static void fails_when_told_to(void **state)
{
    struct fixture *const f = *state;
    const struct rt_tensor_map_spec spec = good_spec(f);
    struct rt_tensor_map map;
    f->d.probe.fail_at = f->d.probe.calls + 1;
    assert_int_equal(encode(f, &spec, &map), RT_DRIVER_INJECTED);
    assert_int_equal(encode(f, &spec, &map), 0);
    assert_int_equal(f->d.probe.per_op[RT_DOP_tensor_map], 2);
}

/* ---- host ---- */

static void host_map_is_an_address(void **state)
{
    struct fixture *const f = *state;
    const struct rt_tensor_map_spec spec = good_spec(f);
    const struct rt_tensor_map want = {.words = {f->mem + 16}};
    struct rt_tensor_map map;
    assert_int_equal(encode(f, &spec, &map), 0);
    assert_memory_equal(&map, &want, sizeof(want));
}

/* ---- CUDA ---- */

static void driver_gets_every_value(void **state)
{
    struct fixture *const f = *state;
    struct rt_tensor_map_spec spec = good_spec(f);
    struct rt_tensor_map map;
    const uint64_t step = UINT64_C(1) << 32;
    /* CU_TENSOR_MAP_: DATA_TYPE_BFLOAT16 9, SWIZZLE_128B 3, L2_PROMOTION_L2_128B 2, the rest 0. */
    const uint64_t kinds = UINT64_C(9) | UINT64_C(3) << 24 | UINT64_C(2) << 32;
    const struct rt_tensor_map four = {.words = {f->mem + 16, kinds | 4 << 8, 576, 3, 4, 2, 1152,
                                                 3456, 16384, step | 64, step | 1, step | 5,
                                                 step | 6}};
    assert_int_equal(encode(f, &spec, &map), 0);
    assert_memory_equal(&map, &four, sizeof(four));

    const struct rt_tensor_map two = {
        .words = {f->mem + 16, kinds | 2 << 8, 576, 3, 0, 0, 1152, 0, 0, step | 64, step | 1}};
    spec.dims = 2;
    assert_int_equal(encode(f, &spec, &map), 0);
    assert_memory_equal(&map, &two, sizeof(two));

    setenv("FAKE_CUDA_FAILS", "cuTensorMapEncodeTiled", 1);
    const int rc = encode(f, &spec, &map);
    spec.dims = 5; /* refused before the driver could fail */
    const int early_rc = encode(f, &spec, &map);
    unsetenv("FAKE_CUDA_FAILS");
    assert_int_not_equal(rc, 0);
    assert_int_not_equal(rc, INVALID);
    assert_int_equal(early_rc, INVALID);
}

static struct rt_launch wide_launch(struct fixture *f, rt_dkernel kernel, uint32_t value,
                                    uint32_t cluster_x)
{
    const struct rt_tensor_map_spec spec = good_spec(f);
    struct wide_params p = {.p = f->mem, .tensor = spec.address, .last = value};
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(f->d.tensor_map(&f->d, &spec, &p.maps[i]), 0);
    struct rt_launch l = {.kernel = kernel,
                          .entry = "rt_test_wide",
                          .grid = {4, 1, 1},
                          .block = {1, 1, 1},
                          .cluster_x = cluster_x,
                          .waits = true,
                          .param_bytes = sizeof(p),
                          .address_mask = 3};
    memcpy(l.params, &p, sizeof(p));
    return l;
}

static void assert_value(struct fixture *f, rt_dstream s, uint32_t want)
{
    uint32_t value = 0;
    assert_int_equal(f->d.copy_out(&f->d, &value, f->mem, sizeof(value), s), 0);
    assert_int_equal(f->d.stream_sync(&f->d, s), 0);
    assert_int_equal(value, want);
}

static void replays(struct fixture *f, rt_dkernel kernel, rt_dstream s, bool own_cluster)
{
    struct rt_driver *const d = &f->d;
    rt_dgraph g = NULL;
    rt_dnode nodes[2];
    rt_dexec x = NULL;
    const struct rt_launch first = wide_launch(f, kernel, 50, 0);
    struct rt_launch second = wide_launch(f, kernel, 60, 4);
    second.own_cluster = own_cluster;
    assert_int_equal(d->graph_create(d, &g), 0);
    assert_int_equal(d->graph_add_kernel(d, g, &first, NULL, 0, &nodes[0]), 0);
    const struct rt_dedge edge = {.from = nodes[0], .programmatic = true};
    assert_int_equal(d->graph_add_kernel(d, g, &second, &edge, 1, &nodes[1]), 0);
    for (int i = 0; i < 2; i++) {
        struct rt_node_info info;
        assert_int_equal(d->graph_node_info(d, nodes[i], &info), 0);
        assert_string_equal(info.name, "rt_test_wide");
        assert_int_equal(info.grid[0], 4);
        assert_int_equal(info.word_count, 64);
        assert_memory_equal(info.words, i == 0 ? first.params : second.params, 512);
    }
    assert_int_equal(d->graph_instantiate(d, g, s, &x), 0);
    assert_int_equal(d->graph_launch(d, x, s), 0);
    assert_value(f, s, own_cluster ? 61 : 64);
    assert_int_equal(d->exec_destroy(d, x), 0);
    assert_int_equal(d->graph_destroy(d, g), 0);
}

/* Blocks of a cluster in all four ways: launch and node, in the wake of another kernel or not. */
static void kernels_take_maps_in_clusters(void **state)
{
    struct fixture *const f = *state;
    struct rt_driver *const d = &f->d;
    const struct rt_image image = {.fatbin = wide_ptx, .fatbin_bytes = sizeof(wide_ptx)};
    rt_dlibrary lib = NULL;
    rt_dkernel kernel = NULL;
    rt_dstream s = NULL;
    uint32_t bytes = 0;
    assert_int_equal(d->library_load(d, &image, &lib), 0);
    assert_int_equal(d->kernel_get(d, lib, "rt_test_wide", &kernel), 0);
    assert_int_equal(d->kernel_param_bytes(d, kernel, &bytes), 0);
    assert_int_equal(bytes, sizeof(struct wide_params));
    assert_int_equal(d->stream_create(d, &s), 0);
    for (uint32_t cluster_x = 1; cluster_x <= 4; cluster_x *= 2) {
        const struct rt_launch l = wide_launch(f, kernel, 100 * cluster_x, cluster_x);
        assert_int_equal(d->launch(d, &l, false, s), 0);
        assert_value(f, s, 101 * cluster_x);
        assert_int_equal(d->fill(d, f->mem, 0, 4, s), 0);
        assert_int_equal(d->launch(d, &l, true, s), 0);
        assert_value(f, s, 101 * cluster_x);
    }
    struct rt_launch own = wide_launch(f, kernel, 100, 2);
    own.own_cluster = true; /* as this kernel has none, it shows that nobody asks */
    assert_int_equal(d->launch(d, &own, false, s), 0);
    assert_value(f, s, 101);
    replays(f, kernel, s, false);
    replays(f, kernel, s, true);
    assert_int_equal(d->stream_destroy(d, s), 0);
    assert_int_equal(d->library_unload(d, lib), 0);
}

static bool cuda_has_maps(void)
{
    struct rt_driver d;
    const bool has = rt_driver_open_cuda(0, &d, NULL) == RT_OK && d.caps.cc >= 90;
    rt_driver_close(&d);
    return has;
}

#define HOST(name) cmocka_unit_test_setup_teardown(name, setup_host, teardown)
#define CUDA(name) cmocka_unit_test_setup_teardown(name, setup_cuda, teardown)

int main(void)
{
    const struct CMUnitTest host[] = {
        HOST(refuses_what_no_map_can_say),
        HOST(takes_the_limits),
        HOST(fails_when_told_to),
        HOST(host_map_is_an_address),
    };
    const struct CMUnitTest cuda[] = {
        CUDA(refuses_what_no_map_can_say),
        CUDA(fails_when_told_to),
        CUDA(kernels_take_maps_in_clusters),
    };
    const struct CMUnitTest fake[] = {
        CUDA(takes_the_limits),
        CUDA(driver_gets_every_value),
    };
    int failures = cmocka_run_group_tests(host, NULL, NULL);
    if (cuda_has_maps() || is_fake())
        failures += cmocka_run_group_tests(cuda, NULL, NULL);
    if (is_fake())
        failures += cmocka_run_group_tests(fake, NULL, NULL);
    return failures;
}
