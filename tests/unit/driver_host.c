/* SPDX-License-Identifier: Apache-2.0 */
/* The host device: memory, copies, kernels, streams, events. */
#include "driver/host/host_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* out[0..count) += value; then spoils its own parameters. */
struct add_params {
    uint32_t *out;
    uint32_t count, value;
};

static void add(const void *params)
{
    struct add_params p;
    assert_int_equal((uintptr_t)params % 64, 0);
    memcpy(&p, params, sizeof(p));
    for (uint32_t i = 0; i < p.count; i++)
        p.out[i] += p.value;
    memset((void *)(uintptr_t)params, 0xEE, sizeof(p));
}

/* *out = *out * 10 + digit: shows in which order launches ran. */
struct digit_params {
    uint64_t *out;
    uint64_t digit;
};

static void digit(const void *params)
{
    const struct digit_params *p = params;
    *p->out = *p->out * 10 + p->digit;
}

static const struct rt_host_kernel kernels[] = {
    {.entry = "add", .run = add, .param_bytes = sizeof(struct add_params)},
    {.entry = "digit", .run = digit, .param_bytes = sizeof(struct digit_params)},
};
static const struct rt_image image = {.host_kernels = kernels, .host_kernel_count = 2};

struct fixture {
    struct rt_driver d;
    rt_dlibrary lib;
    rt_dkernel add, digit;
    rt_addr mem; /* 64 bytes, zeroed */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct rt_driver *d = &f->d;
    assert_int_equal(rt_driver_open_host(d, NULL), RT_OK);
    assert_int_equal(d->library_load(d, &image, &f->lib), 0);
    assert_int_equal(d->kernel_get(d, f->lib, "add", &f->add), 0);
    assert_int_equal(d->kernel_get(d, f->lib, "digit", &f->digit), 0);
    assert_int_equal(d->mem_alloc(d, 64, &f->mem), 0);
    assert_int_equal(d->fill(d, f->mem, 0, 64, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(f->d.mem_free(&f->d, f->mem), 0);
    assert_int_equal(f->d.library_unload(&f->d, f->lib), 0);
    assert_int_equal(f->d.probe.live, 0);
    rt_driver_close(&f->d);
    free(f);
    return 0;
}

static struct rt_launch launch_of(rt_dkernel k, const void *params, uint32_t bytes)
{
    struct rt_launch l = {
        .kernel = k, .grid = {1, 1, 1}, .block = {32, 1, 1}, .param_bytes = bytes};
    memcpy(l.params, params, bytes);
    return l;
}

static struct rt_launch digit_launch(const struct fixture *f, uint64_t value)
{
    const struct digit_params p = {.out = (uint64_t *)(uintptr_t)f->mem, .digit = value};
    return launch_of(f->digit, &p, sizeof(p));
}

static void put_digit(struct fixture *f, uint64_t value, rt_dstream s)
{
    const struct rt_launch l = digit_launch(f, value);
    assert_int_equal(f->d.launch(&f->d, &l, value % 2 == 0, s), 0);
}

static uint64_t digits(const struct fixture *f)
{
    return *(const uint64_t *)(uintptr_t)f->mem;
}

static bool idle(struct rt_driver *d, rt_dstream s)
{
    bool out = false;
    assert_int_equal(d->stream_query(d, s, &out), 0);
    return out;
}

/* ---- memory ---- */

static void memory_is_poisoned_and_counted(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    const uint64_t before = d->probe.live;
    static const uint64_t sizes[] = {1, 255, 256, 257, 100000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        rt_addr addr = 0, mapped = 0;
        void *host = NULL;
        assert_int_equal(d->mem_alloc(d, sizes[i], &addr), 0);
        assert_int_equal(d->host_alloc(d, sizes[i], &host, &mapped), 0);
        assert_int_equal(d->probe.live, before + 2);
        assert_int_equal(addr % 256, 0);
        assert_int_equal(mapped, (uintptr_t)host);
        const unsigned char *bytes = (const unsigned char *)(uintptr_t)addr;
        for (uint64_t b = 0; b < sizes[i]; b++)
            assert_int_equal(bytes[b], 0xC3);
        assert_int_equal(d->mem_free(d, addr), 0);
        assert_int_equal(d->host_free(d, host), 0);
        assert_int_equal(d->probe.live, before);
    }
}

static void memory_refuses(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    const uint64_t before = d->probe.live;
    rt_addr addr = 7, mapped = 8;
    void *host = d;
    assert_int_equal(d->mem_alloc(d, 0, &addr), RT_HOST_INVALID);
    assert_int_equal(d->host_alloc(d, 0, &host, &mapped), RT_HOST_INVALID);
    const uint64_t too_much[] = {UINT64_MAX, INT64_MAX, d->caps.memory_bytes,
                                 d->caps.memory_bytes + 1};
    for (size_t i = 0; i < sizeof(too_much) / sizeof(too_much[0]); i++) {
        const int rc = d->mem_alloc(d, too_much[i], &addr);
        assert_int_equal(rc, RT_HOST_NO_MEMORY);
        assert_true(d->is_out_of_memory(d, rc));
        assert_int_equal(d->host_alloc(d, too_much[i], &host, &mapped), RT_HOST_NO_MEMORY);
    }
    assert_false(d->is_out_of_memory(d, RT_HOST_INVALID));
    assert_int_equal(addr, 7);
    assert_int_equal(mapped, 8);
    assert_ptr_equal(host, d);
    assert_int_equal(d->mem_free(d, 0), RT_HOST_NOT_FOUND);
    assert_int_equal(d->mem_free(d, f->mem + 1), RT_HOST_NOT_FOUND);
    assert_int_equal(d->host_free(d, (void *)(uintptr_t)f->mem), RT_HOST_NOT_FOUND);
    assert_int_equal(d->host_free(d, NULL), RT_HOST_NOT_FOUND);
    assert_int_equal(d->probe.live, before);
}

static void memory_info_is_sane(void **state)
{
    struct fixture *f = *state;
    uint64_t available = 0, total = 0;
    assert_int_equal(f->d.mem_info(&f->d, &available, &total), 0);
    assert_true(available > 0 && available <= total);
    assert_int_equal(total, f->d.caps.memory_bytes);
}

static void assert_range(struct rt_driver *d, rt_addr addr, rt_addr base, uint64_t bytes)
{
    struct rt_address_range r = {.base = 1, .bytes = 1};
    assert_int_equal(d->address_range(d, addr, &r), 0);
    assert_int_equal(r.base, base);
    assert_int_equal(r.bytes, bytes);
}

/* The caller's memory: ranges that follow each other are one, and again is nothing new. */
static void adopted_ranges_join(void **state)
{
    struct rt_driver *d = &((struct fixture *)*state)->d;
    static const struct {
        rt_addr base;
        uint64_t bytes;
    } given[] = {{0x1000, 0x200}, {0x5000, 0x10}, {0x1200, 0x100}, {0x1000, 0x200}, {0x5010, 0x10}};
    struct rt_address_range r;
    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++)
        assert_int_equal(rt_driver_host_adopt(d, given[i].base, given[i].bytes), 0);
    assert_int_equal(d->address_range(d, 0x12ff, &r), 0);
    assert_int_equal(r.base, 0x1000);
    assert_int_equal(r.bytes, 0x300);
    assert_int_equal(d->address_range(d, 0x1000, &r), 0);
    assert_int_equal(r.bytes, 0x300);
    assert_int_equal(d->address_range(d, 0x5000, &r), 0);
    assert_int_equal(r.bytes, 0x20);
    assert_int_equal(d->address_range(d, 0x1300, &r), 0);
    assert_int_equal(r.bytes, 0);
}

static void address_range_edges(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    rt_addr mapped = 0;
    void *host = NULL;
    assert_int_equal(d->host_alloc(d, 33, &host, &mapped), 0);
    assert_range(d, f->mem, f->mem, 64);
    assert_range(d, f->mem + 63, f->mem, 64);
    assert_range(d, f->mem + 64, 0, 0);
    assert_range(d, f->mem - 1, 0, 0);
    assert_range(d, mapped + 32, mapped, 33);
    assert_range(d, mapped + 33, 0, 0);
    assert_range(d, 0, 0, 0);
    assert_range(d, UINT64_MAX, 0, 0);
    assert_range(d, (uintptr_t)&mapped, 0, 0);
    assert_int_equal(d->host_free(d, host), 0);
    assert_range(d, mapped, 0, 0);
}

static void contexts_must_balance(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    assert_int_equal(d->ctx_leave(d), RT_HOST_NO_CONTEXT);
    assert_int_equal(d->ctx_enter(d), 0);
    assert_int_equal(d->ctx_enter(d), 0);
    assert_int_equal(d->ctx_leave(d), 0);
    assert_int_equal(d->ctx_leave(d), 0);
    assert_int_equal(d->ctx_leave(d), RT_HOST_NO_CONTEXT);
}

/* ---- copies ---- */

static void copies_move_bytes(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    unsigned char in[64], out[64];
    for (int i = 0; i < 64; i++)
        in[i] = (unsigned char)(3 * i + 1);
    assert_int_equal(d->copy_in(d, f->mem, in, 64, NULL), 0);
    assert_int_equal(d->fill(d, f->mem + 10, 0xAB, 5, NULL), 0);
    assert_int_equal(d->copy_out(d, out, f->mem, 64, NULL), 0);
    memset(in + 10, 0xAB, 5);
    assert_memory_equal(in, out, 64);
}

static void copies_refuse_strange_ranges(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    unsigned char host[128] = {0};
    rt_addr other = 0;
    assert_int_equal(d->mem_alloc(d, 64, &other), 0);
    const struct {
        rt_addr at;
        uint64_t bytes;
    } wrong[] = {
        {f->mem, 65},         {f->mem + 1, 64}, {f->mem - 1, 2}, {f->mem + 64, 1},
        {f->mem, UINT64_MAX}, {UINT64_MAX, 2},  {0, 1},          {(uintptr_t)host, 1},
        {f->mem + 63, 2},     {other - 1, 1},   {other, 4097},   {f->mem + 8, UINT64_MAX - 7},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const rt_addr at = wrong[i].at;
        const uint64_t n = wrong[i].bytes;
        assert_int_equal(d->copy_in(d, at, host, n, NULL), RT_HOST_RANGE);
        assert_int_equal(d->copy_out(d, host, at, n, NULL), RT_HOST_RANGE);
        assert_int_equal(d->fill(d, at, 1, n, NULL), RT_HOST_RANGE);
    }
    assert_int_equal(d->copy_in(d, f->mem, NULL, 1, NULL), RT_HOST_INVALID);
    assert_int_equal(d->copy_out(d, NULL, f->mem, 1, NULL), RT_HOST_INVALID);
    assert_int_equal(d->copy_in(d, 0, NULL, 0, NULL), 0);
    assert_int_equal(d->copy_out(d, NULL, 0, 0, NULL), 0);
    assert_int_equal(d->fill(d, 0, 1, 0, NULL), 0);
    assert_int_equal(digits(f), 0);
    assert_int_equal(d->mem_free(d, other), 0);
    assert_int_equal(d->fill(d, other, 1, 1, NULL), RT_HOST_RANGE);
}

/* ---- kernels ---- */

static void kernels_are_looked_up(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    rt_dkernel k = NULL;
    uint32_t bytes = 0;
    assert_int_equal(d->kernel_param_bytes(d, f->add, &bytes), 0);
    assert_int_equal(bytes, sizeof(struct add_params));
    assert_int_equal(d->kernel_set_smem(d, f->add, 1 << 20), 0);
    assert_int_equal(d->kernel_get(d, f->lib, "sub", &k), RT_HOST_NOT_FOUND);
    assert_int_equal(d->kernel_get(d, NULL, "add", &k), RT_HOST_INVALID);
    assert_int_equal(d->kernel_get(d, f->lib, NULL, &k), RT_HOST_INVALID);
    assert_null(k);
    const struct rt_image wrong[] = {
        {.fatbin = "x", .fatbin_bytes = 1},
        {.host_kernels = (const struct rt_host_kernel[]){{.entry = "e", .param_bytes = 8}},
         .host_kernel_count = 1},
        {.host_kernels = (const struct rt_host_kernel[]){{"e", digit, RT_LAUNCH_PARAM_BYTES + 1}},
         .host_kernel_count = 1},
    };
    rt_dlibrary lib = NULL;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(d->library_load(d, &wrong[i], &lib), RT_HOST_INVALID);
    assert_int_equal(d->library_load(d, NULL, &lib), RT_HOST_INVALID);
    assert_int_equal(d->library_unload(d, NULL), RT_HOST_NOT_FOUND);
}

static void launch_copies_parameters(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    const struct add_params p = {.out = (uint32_t *)(uintptr_t)f->mem, .count = 16, .value = 3};
    const struct rt_launch l = launch_of(f->add, &p, sizeof(p));
    for (int i = 0; i < 2; i++)
        assert_int_equal(d->launch(d, &l, false, NULL), 0);
    const uint32_t *out = (const uint32_t *)(uintptr_t)f->mem;
    for (int i = 0; i < 16; i++)
        assert_int_equal(out[i], 6);
}

static void launch_refuses(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    const struct rt_launch good = digit_launch(f, 1);
    struct rt_launch l = good;
    l.param_bytes = 8;
    assert_int_equal(d->launch(d, &l, false, NULL), RT_HOST_PARAMS);
    l = good;
    l.kernel = NULL;
    assert_int_equal(d->launch(d, &l, false, NULL), RT_HOST_NOT_FOUND);
    l.kernel = (rt_dkernel)((uintptr_t)f->digit + 1);
    assert_int_equal(d->launch(d, &l, false, NULL), RT_HOST_NOT_FOUND);
    for (int i = 0; i < 3; i++) {
        l = good;
        l.grid[i] = 0;
        assert_int_equal(d->launch(d, &l, false, NULL), RT_HOST_INVALID);
        l.grid[i] = i == 0 ? UINT32_C(1) << 31 : 65536;
        assert_int_equal(d->launch(d, &l, false, NULL), RT_HOST_INVALID);
        l.grid[i] = i == 0 ? (UINT32_C(1) << 31) - 1 : 65535;
        assert_int_equal(d->launch(d, &l, false, NULL), 0);
        l = good;
        l.block[i] = 0;
        assert_int_equal(d->launch(d, &l, false, NULL), RT_HOST_INVALID);
        l.block[i] = UINT32_MAX;
        assert_int_equal(d->launch(d, &l, false, NULL), RT_HOST_INVALID);
    }
    assert_int_equal(digits(f), 111);
    l = good;
    l.block[1] = 33; /* 32 * 33 > 1024 */
    assert_int_equal(d->launch(d, &l, false, NULL), RT_HOST_INVALID);
    l = good;
    l.grid[0] = 3;
    l.cluster_x = 2;
    assert_int_equal(d->launch(d, &l, false, NULL), RT_HOST_INVALID);
    assert_int_equal(d->launch(d, NULL, false, NULL), RT_HOST_INVALID);
    assert_int_equal(digits(f), 111);

    rt_dlibrary other = NULL;
    rt_dkernel k = NULL;
    const struct rt_host_kernel gone[] = {{"gone", digit, sizeof(struct digit_params)}};
    const struct rt_image short_lived = {.host_kernels = gone, .host_kernel_count = 1};
    assert_int_equal(d->library_load(d, &short_lived, &other), 0);
    assert_int_equal(d->kernel_get(d, other, "gone", &k), 0);
    assert_int_equal(d->library_unload(d, other), 0);
    l = good;
    l.kernel = k;
    assert_int_equal(d->launch(d, &l, false, NULL), RT_HOST_NOT_FOUND);
}

/* ---- streams ---- */

static void hold_and_release(struct fixture *f, rt_dstream s)
{
    struct rt_driver *d = &f->d;
    rt_driver_host_hold(d, s, true);
    assert_true(idle(d, s));
    for (uint64_t i = 1; i <= 6; i++)
        put_digit(f, i, s);
    assert_int_equal(digits(f), 0);
    assert_false(idle(d, s));
    assert_int_equal(rt_driver_host_release(d, s, 0), 0);
    assert_int_equal(rt_driver_host_release(d, s, 2), 2);
    assert_int_equal(digits(f), 12);
    assert_false(idle(d, s));
    assert_int_equal(rt_driver_host_release(d, s, UINT32_MAX), 4);
    assert_int_equal(digits(f), 123456);
    assert_true(idle(d, s));
    put_digit(f, 7, s);
    assert_int_equal(digits(f), 123456);
    assert_int_equal(d->stream_sync(d, s), 0);
    assert_int_equal(digits(f), 1234567);
    put_digit(f, 8, s);
    rt_driver_host_hold(d, s, false);
    put_digit(f, 9, s);
    assert_int_equal(digits(f), 123456789);
}

static void held_streams_queue(void **state)
{
    struct fixture *f = *state;
    rt_dstream s = NULL;
    hold_and_release(f, NULL);
    assert_int_equal(f->d.fill(&f->d, f->mem, 0, 64, NULL), 0);
    assert_int_equal(f->d.stream_create(&f->d, &s), 0);
    hold_and_release(f, s);
    assert_int_equal(f->d.stream_destroy(&f->d, s), 0);
}

static void streams_queue_independently(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    rt_dstream a = NULL, b = NULL;
    assert_int_equal(d->stream_create(d, &a), 0);
    assert_int_equal(d->stream_create(d, &b), 0);
    rt_driver_host_hold(d, a, true);
    rt_driver_host_hold(d, b, true);
    put_digit(f, 1, a);
    put_digit(f, 2, b);
    put_digit(f, 3, NULL);
    put_digit(f, 4, a);
    assert_int_equal(digits(f), 3);
    assert_int_equal(d->stream_sync(d, b), 0);
    assert_int_equal(digits(f), 32);
    assert_int_equal(d->stream_destroy(d, a), 0); /* runs dry first */
    assert_int_equal(digits(f), 3214);
    assert_int_equal(d->stream_destroy(d, b), 0);
    assert_int_equal(d->stream_destroy(d, NULL), RT_HOST_INVALID);
}

static void closing_runs_the_own_stream_dry(void **state)
{
    (void)state;
    struct rt_driver d;
    rt_addr mem = 0;
    unsigned char seen = 0;
    assert_int_equal(rt_driver_open_host(&d, NULL), RT_OK);
    assert_int_equal(d.mem_alloc(&d, 1, &mem), 0);
    rt_driver_host_hold(&d, NULL, true);
    assert_int_equal(d.fill(&d, mem, 9, 1, NULL), 0);
    assert_int_equal(d.copy_out(&d, &seen, mem, 1, NULL), 0);
    assert_int_equal(rt_driver_host_release(&d, NULL, 2), 2);
    assert_int_equal(d.fill(&d, mem, 8, 1, NULL), 0);
    assert_int_equal(d.mem_free(&d, mem), 0);
    assert_int_equal(seen, 9);
    rt_driver_close(&d); /* the fill's memory is gone, which it finds out */
}

/* Queued work owns what it was given, except memory; that is checked again when it runs. */
static void queued_work_stands_alone(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    rt_addr gone = 0;
    unsigned char in[2] = {1, 2}, out[2] = {0};
    assert_int_equal(d->mem_alloc(d, 8, &gone), 0);
    rt_driver_host_hold(d, NULL, true);
    struct rt_launch l = digit_launch(f, 5);
    assert_int_equal(d->launch(d, &l, false, NULL), 0);
    memset(&l, 0xFF, sizeof(l));
    assert_int_equal(d->copy_in(d, f->mem + 8, in, 2, NULL), 0);
    assert_int_equal(d->copy_out(d, out, f->mem + 8, 2, NULL), 0);
    in[1] = 7; /* read when it runs, as a GPU would */
    assert_int_equal(d->fill(d, gone, 1, 8, NULL), 0);
    assert_int_equal(d->fill(d, f->mem + 16, 0x11, 1, NULL), 0);
    assert_int_equal(d->fill(d, gone, 1, 9, NULL), RT_HOST_RANGE);
    assert_int_equal(d->mem_free(d, gone), 0);
    assert_int_equal(rt_driver_host_release(d, NULL, 4), 4);
    bool is_idle = true;
    assert_int_equal(d->stream_query(d, NULL, &is_idle), RT_HOST_RANGE);
    assert_int_equal(d->stream_sync(d, NULL), RT_HOST_RANGE);
    assert_int_equal(d->stream_sync(d, NULL), RT_HOST_RANGE); /* for good */
    assert_int_equal(digits(f), 5);
    assert_int_equal(out[0], 1);
    assert_int_equal(out[1], 7);
    assert_int_equal(*(const unsigned char *)(uintptr_t)(f->mem + 16), 0);
}

/* ---- events ---- */

static void events_measure(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    rt_devent a = NULL, b = NULL;
    float ms = -1;
    assert_int_equal(d->event_create(d, &a), 0);
    assert_int_equal(d->event_create(d, &b), 0);
    assert_int_equal(d->event_elapsed(d, a, b, &ms), RT_HOST_NOT_READY);
    assert_int_equal(d->event_record(d, a, NULL), 0);
    assert_int_equal(d->event_elapsed(d, a, b, &ms), RT_HOST_NOT_READY);
    assert_int_equal(d->event_record(d, b, NULL), 0);
    assert_int_equal(d->event_sync(d, b), 0);
    assert_int_equal(d->event_elapsed(d, a, b, &ms), 0);
    assert_true(ms >= 0 && ms < 60000);
    float back = 1;
    assert_int_equal(d->event_elapsed(d, b, a, &back), 0);
    assert_true(back == -ms);
    assert_int_equal(d->event_elapsed(d, NULL, a, &back), RT_HOST_INVALID);
    assert_int_equal(d->event_record(d, NULL, NULL), RT_HOST_INVALID);
    assert_int_equal(d->event_sync(d, NULL), RT_HOST_INVALID);
    assert_int_equal(d->event_destroy(d, NULL), RT_HOST_INVALID);
    assert_int_equal(d->event_destroy(d, a), 0);
    assert_int_equal(d->event_destroy(d, b), 0);
}

static void events_keep_queue_order(void **state)
{
    struct fixture *f = *state;
    struct rt_driver *d = &f->d;
    rt_devent a = NULL, b = NULL;
    rt_dstream s = NULL;
    float ms = -1;
    assert_int_equal(d->event_create(d, &a), 0);
    assert_int_equal(d->event_create(d, &b), 0);
    assert_int_equal(d->stream_create(d, &s), 0);
    assert_int_equal(d->event_record(d, a, s), 0);
    rt_driver_host_hold(d, s, true);
    put_digit(f, 1, s);
    assert_int_equal(d->event_record(d, b, s), 0);
    put_digit(f, 2, s);
    assert_int_equal(d->event_elapsed(d, a, b, &ms), RT_HOST_NOT_READY);
    assert_int_equal(d->event_record(d, b, NULL), RT_HOST_INVALID); /* queued elsewhere */
    assert_int_equal(d->event_sync(d, b), 0);
    assert_int_equal(digits(f), 1); /* no further than the record */
    assert_false(idle(d, s));
    assert_int_equal(d->event_elapsed(d, a, b, &ms), 0);
    assert_true(ms >= 0);
    assert_int_equal(d->event_record(d, b, s), 0);
    assert_int_equal(d->event_record(d, b, s), 0);
    assert_int_equal(d->event_destroy(d, b), 0); /* two records of it are still queued */
    assert_int_equal(d->event_destroy(d, a), 0);
    assert_int_equal(rt_driver_host_release(d, s, UINT32_MAX), 3);
    assert_int_equal(digits(f), 12);
    assert_int_equal(d->stream_destroy(d, s), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(memory_is_poisoned_and_counted),
        TEST(memory_refuses),
        TEST(memory_info_is_sane),
        TEST(adopted_ranges_join),
        TEST(address_range_edges),
        TEST(contexts_must_balance),
        TEST(copies_move_bytes),
        TEST(copies_refuse_strange_ranges),
        TEST(kernels_are_looked_up),
        TEST(launch_copies_parameters),
        TEST(launch_refuses),
        TEST(held_streams_queue),
        TEST(streams_queue_independently),
        cmocka_unit_test(closing_runs_the_own_stream_dry),
        TEST(queued_work_stands_alone),
        TEST(events_measure),
        TEST(events_keep_queue_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
