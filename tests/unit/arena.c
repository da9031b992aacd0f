/* SPDX-License-Identifier: Apache-2.0 */
#include "buffers/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct rt_dims SHAPE = {
    .kv = {.d_qk = 288, .d_v = 256, .token_bytes = 576},
    .heads = 3,
    .layers = 4,
    .slots = 5,
    .max_length = 1000,
    .page_size = 16,
    .context = 1,
    .pages = 7,
    .bucket_max = 4,
    .rows = 6,
    .q_max = 2,
    .parts_max = 8,
    .partial_rows = 16,
    .ring_depth = 4,
    .per_layer = true,
};
static const struct rt_arena_given OWN = {0};

struct bench {
    struct rt_driver d;
    struct rt_placement layout;
    struct rt_arena arena;
};

static int set_up(void **state)
{
    struct bench *const b = test_calloc(1, sizeof(*b));
    *state = b;
    assert_int_equal(rt_placement_make(&SHAPE, &b->layout, NULL), RT_OK);
    assert_int_equal(rt_driver_open_host(&b->d, NULL), RT_OK);
    return b->d.ctx_enter(&b->d);
}

static int tear_down(void **state)
{
    struct bench *const b = *state;
    b->d.probe.fail_at = 0;
    assert_int_equal(b->d.ctx_leave(&b->d), 0);
    assert_int_equal(b->d.probe.live, 0);
    rt_driver_close(&b->d);
    test_free(b);
    return 0;
}

static bool all_bytes_are(const void *memory, uint64_t bytes, unsigned char value)
{
    const unsigned char *const m = memory;
    for (uint64_t i = 0; i < bytes; i++)
        if (m[i] != value)
            return false;
    return true;
}

/* The host device's memory is the host's. */
static void *at(rt_addr addr)
{
    return (void *)(uintptr_t)addr;
}

static void test_allocates_zeroes_and_frees(void **state)
{
    struct bench *const b = *state;
    struct rt_arena *const a = &b->arena;
    memset(a, 0xA5, sizeof(*a));
    assert_int_equal(rt_arena_init(a, &b->d, &b->layout, &OWN, NULL, NULL), RT_OK);
    assert_true(a->owns_arena && a->owns_pool);
    assert_int_equal(b->d.probe.live, 3);
    assert_true(all_bytes_are(at(a->arena), b->layout.arena_bytes, 0));
    assert_true(all_bytes_are(a->mapped, b->layout.mapped_bytes, 0));
    assert_true(all_bytes_are(at(a->pool), b->layout.pool_bytes, 0xC3)); /* as it was allocated */
    rt_arena_free(a);
    assert_int_equal(b->d.probe.live, 0);
    assert_null(a->mapped);
    assert_int_equal(a->arena + a->pool + a->mapped_addr, 0);
    rt_arena_free(a);
}

static void test_addresses(void **state)
{
    struct bench *const b = *state;
    const struct rt_arena *const a = &b->arena;
    assert_int_equal(rt_arena_init(&b->arena, &b->d, &b->layout, &OWN, NULL, NULL), RT_OK);
    const rt_addr bases[] = {[RT_REGION_ARENA] = a->arena,
                             [RT_REGION_MAPPED] = a->mapped_addr,
                             [RT_REGION_POOL] = a->pool};
    for (uint32_t id = 0; id < RT_TENSOR_COUNT; id++) {
        const struct rt_placed *const buffer = &b->layout.tensors[id];
        for (uint32_t layer = 0; layer < SHAPE.layers; layer++) {
            const rt_addr addr = rt_arena_addr(a, (enum rt_tensor_id)id, layer);
            assert_int_equal(addr,
                             bases[buffer->region] + buffer->offset + layer * buffer->layer_stride);
            assert_int_equal(addr % RT_TENSOR_ALIGN, 0);
            memset(at(addr), 0x11, buffer->layer_stride ? buffer->layer_stride : buffer->bytes);
        }
        if (buffer->region == RT_REGION_MAPPED)
            assert_ptr_equal(rt_arena_host(a, (enum rt_tensor_id)id),
                             at(rt_arena_addr(a, (enum rt_tensor_id)id, 0)));
        if (!buffer->layer_stride)
            assert_int_equal(rt_arena_addr(a, (enum rt_tensor_id)id, UINT32_MAX),
                             rt_arena_addr(a, (enum rt_tensor_id)id, 0));
    }
    rt_arena_free(&b->arena);
}

static void test_adopts_the_callers_memory(void **state)
{
    struct bench *const b = *state;
    struct rt_arena_given given = {.arena_bytes = b->layout.arena_bytes + 256,
                                   .pool_bytes = b->layout.pool_bytes};
    assert_int_equal(b->d.mem_alloc(&b->d, given.arena_bytes, &given.arena), 0);
    assert_int_equal(b->d.mem_alloc(&b->d, given.pool_bytes, &given.pool), 0);
    assert_int_equal(rt_arena_init(&b->arena, &b->d, &b->layout, &given, NULL, NULL), RT_OK);
    assert_int_equal(b->arena.arena, given.arena);
    assert_int_equal(b->arena.pool, given.pool);
    assert_false(b->arena.owns_arena || b->arena.owns_pool);
    assert_int_equal(b->d.probe.live, 3);
    assert_true(all_bytes_are(at(given.arena), b->layout.arena_bytes, 0));
    assert_true(all_bytes_are(at(given.arena + b->layout.arena_bytes), 256, 0xC3)); /* not ours */
    assert_true(all_bytes_are(at(given.pool), given.pool_bytes, 0xC3));
    rt_arena_free(&b->arena);
    assert_int_equal(b->d.probe.live, 2);

    const struct rt_arena_given pool_only = {.pool = given.pool, .pool_bytes = given.pool_bytes};
    assert_int_equal(rt_arena_init(&b->arena, &b->d, &b->layout, &pool_only, NULL, NULL), RT_OK);
    assert_true(b->arena.owns_arena && !b->arena.owns_pool);
    rt_arena_free(&b->arena);
    assert_int_equal(b->d.mem_free(&b->d, given.pool), 0);
    assert_int_equal(b->d.mem_free(&b->d, given.arena), 0);
}

static void assert_refused(struct bench *b, const struct rt_arena_given *given, const char *part)
{
    struct rt_error err = {0};
    memset(&b->arena, 0xA5, sizeof(b->arena));
    const uint64_t calls = b->d.probe.calls;
    assert_int_equal(rt_arena_init(&b->arena, &b->d, &b->layout, given, NULL, &err),
                     RT_ERR_INVALID);
    if (!strstr(err.message, part))
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_int_equal(b->d.probe.calls, calls);
    assert_null(b->arena.mapped);
    assert_null(b->arena.driver);
    assert_false(b->arena.owns_arena || b->arena.owns_pool);
}

static void test_bad_memory_is_refused(void **state)
{
    struct bench *const b = *state;
    const uint64_t arena_bytes = b->layout.arena_bytes, pool_bytes = b->layout.pool_bytes;
    const rt_addr far = UINT64_C(1) << 40;
    struct rt_arena_given g = {.arena = 4096 + 128, .arena_bytes = arena_bytes};
    assert_refused(b, &g, "arena address 0x1080 is not aligned to 256 bytes");
    g = (struct rt_arena_given){.arena = 4096, .arena_bytes = arena_bytes - 1};
    assert_refused(b, &g, "arena of ");
    assert_refused(b, &g, " is too small, ");
    g = (struct rt_arena_given){.pool = far + 8, .pool_bytes = pool_bytes};
    assert_refused(b, &g, "pool address 0x10000000008 is not aligned to 256 bytes");
    g = (struct rt_arena_given){.pool = far, .pool_bytes = pool_bytes - 1};
    assert_refused(b, &g, "pool of ");
    g = (struct rt_arena_given){.pool = UINT64_MAX - 255, .pool_bytes = pool_bytes};
    assert_refused(b, &g, "ends beyond the address space");
    g = (struct rt_arena_given){.arena = far,
                                .arena_bytes = arena_bytes,
                                .pool = far + arena_bytes - 256,
                                .pool_bytes = pool_bytes};
    assert_refused(b, &g, "overlap");
    g.pool = far - pool_bytes + 256;
    assert_refused(b, &g, "overlap");
}

static void test_every_failing_call_leaves_nothing(void **state)
{
    struct bench *const b = *state;
    for (uint32_t n = 1;; n++) {
        struct rt_error err = {0};
        b->d.probe.fail_at = b->d.probe.calls + n;
        const enum rt_status status = rt_arena_init(&b->arena, &b->d, &b->layout, &OWN, NULL, &err);
        b->d.probe.fail_at = 0;
        if (status == RT_OK) {
            assert_int_equal(n, 6); /* three allocations, a fill, a wait */
            break;
        }
        assert_int_equal(status, RT_ERR_DRIVER);
        assert_non_null(strstr(err.message, "injected failure"));
        assert_int_equal(b->d.probe.live, 0);
        assert_null(b->arena.driver);
    }
    rt_arena_free(&b->arena);
}

/* A release that reports a failure has released. */
static void test_failing_release_releases(void **state)
{
    struct bench *const b = *state;
    for (uint32_t n = 1; n <= 3; n++) {
        assert_int_equal(rt_arena_init(&b->arena, &b->d, &b->layout, &OWN, NULL, NULL), RT_OK);
        b->d.probe.fail_at = b->d.probe.calls + n;
        rt_arena_free(&b->arena);
        assert_int_equal(b->d.probe.live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_allocates_zeroes_and_frees, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_adopts_the_callers_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_memory_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_failing_call_leaves_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failing_release_releases, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
