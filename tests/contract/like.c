/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two runtimes, or products, that each measure a library's ways may multiply by others, and differ
 * in the last bits; one that is to be like another does not. The host device's product stands in
 * for a library of two ways, of which the second has other last bits, and which takes longer is
 * told.
 */
#include "driver/host/host_parts.h"
#include "driver/matmul_plan.h"
#include "replayrt/block_ops.h"
#include "replayrt/ranks.h"
#include "tests/support/block_fixture.h"
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define WAYS 2u
#define ROWS 2u
#define STEPS 3u

static struct {
    uint32_t faster;  /* of the ways */
    uint32_t ordinal; /* of the device that is opened next */
    uint32_t ran;     /* the way of the last product */
    uint32_t ways;    /* that the library has */
    int (*prepare)(struct rt_driver *d, const struct rt_matmul *m, uint32_t most,
                   struct rt_matmul_plan **out);
} now;

static int select_way(struct rt_driver *d, struct rt_matmul_plan *plan, uint32_t i)
{
    (void)d;
    plan->selected = i;
    plan->identity[0] = 100 + i;
    return 0;
}

static int prepare(struct rt_driver *d, const struct rt_matmul *m, uint32_t most,
                   struct rt_matmul_plan **out)
{
    const int rc = now.prepare(d, m, most, out);
    if (rc == 0)
        (*out)->candidates = now.ways;
    return rc == 0 ? select_way(d, *out, 0) : rc;
}

static int elapsed(struct rt_driver *d, rt_devent from, rt_devent to, float *ms)
{
    (void)d;
    (void)from;
    (void)to;
    *ms = now.ran == now.faster ? 1 : 2;
    return 0;
}

enum rt_status __real_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);
enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);
void __real_rt_host_run_matmul(const struct rt_matmul *m);
void __wrap_rt_host_run_matmul(const struct rt_matmul *m);

enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err)
{
    const enum rt_status status = __real_rt_driver_open(device, out, why, why_bytes, err);
    if (status != RT_OK)
        return status;
    now.prepare = out->matmul_prepare;
    out->matmul_prepare = prepare;
    out->matmul_select = select_way;
    out->event_elapsed = elapsed;
    out->caps.ordinal = now.ordinal;
    return RT_OK;
}

void __wrap_rt_host_run_matmul(const struct rt_matmul *m)
{
    __real_rt_host_run_matmul(m);
    now.ran = m->plan ? m->plan->selected : 0;
    if (now.ran == 0 || m->output_dtype != RT_DTYPE_BF16)
        return;
    for (uint32_t z = 0; z < m->batch; z++)
        for (uint32_t i = 0; i < m->m; i++)
            for (uint32_t j = 0; j < m->n; j++)
                ((uint16_t *)(uintptr_t)m->d)[z * m->d_batch_stride + i * m->d_row_stride + j] ^= 1;
}

static enum rt_status create(const struct block_fixture *b, uint32_t faster, const rt_runtime *like,
                             rt_ranks *ranks, rt_runtime **out, struct rt_error *error)
{
    const struct rt_create_params params = {.struct_size = sizeof(params),
                                            .config = &b->config,
                                            .weights = b->weights,
                                            .ranks = ranks,
                                            .like = like};
    now.faster = faster;
    return rt_create(&params, out, error);
}

static rt_runtime *make(const struct block_fixture *b, uint32_t faster, const rt_runtime *like)
{
    struct rt_error error = {.status = RT_OK};
    rt_runtime *rt = NULL;
    if (create(b, faster, like, NULL, &rt, &error) != RT_OK)
        fail_msg("%s", error.message);
    return rt;
}

/* What some steps leave in hidden. */
static void run(rt_runtime *rt, uint16_t *hidden, uint32_t width)
{
    const uint64_t bytes = sizeof(*hidden) * ROWS * width;
    const rt_seq seqs[ROWS] = {fixture_open(rt), fixture_open(rt)};
    for (uint32_t i = 0; i < ROWS * width; i++)
        hidden[i] = (uint16_t)(0x3f00 + i);
    for (uint32_t i = 0; i < STEPS; i++) {
        assert_int_equal(rt_tensor_write(rt, "hidden", 0, 0, hidden, bytes), RT_OK);
        fixture_step_ok(rt, seqs, ROWS, 1);
        assert_int_equal(rt_tensor_read(rt, "hidden", 0, 0, hidden, bytes), RT_OK);
    }
    for (uint32_t i = 0; i < ROWS; i++)
        assert_int_equal(rt_seq_close(rt, seqs[i]), RT_OK);
}

static void open_device(void)
{
    now.ordinal = 0;
    now.ways = WAYS;
}

static void open_blocks(struct block_fixture *b)
{
    struct rt_config config;
    block_config(&config);
    config.projections = RT_PROJECTIONS_CUBLASLT;
    block_open(b, &config, 7);
    open_device();
}

static void the_same_bits(void **state)
{
    struct block_fixture b;
    uint16_t hidden[3][ROWS * 32];
    (void)state;
    open_blocks(&b);
    const uint32_t width = b.config.block.hidden_size;
    assert_true(sizeof(hidden[0]) == sizeof(uint16_t) * ROWS * width);
    for (uint32_t first = 0; first < WAYS; first++) {
        rt_runtime *rts[3] = {make(&b, first, NULL)};
        rts[1] = make(&b, 1 - first, NULL);
        rts[2] = make(&b, 1 - first, rts[0]);
        for (int i = 0; i < 3; i++)
            run(rts[i], hidden[i], width);
        assert_memory_not_equal(hidden[1], hidden[0],
                                sizeof(hidden[0])); /* or this shows nothing */
        assert_memory_equal(hidden[2], hidden[0], sizeof(hidden[0]));
        rt_destroy(&rts[0]); /* and is not needed any more */
        run(rts[2], hidden[1], width);
        assert_memory_equal(hidden[1], hidden[2], sizeof(hidden[0]));
        rt_destroy(&rts[1]);
        rt_destroy(&rts[2]);
    }
    block_close(&b);
}

/* Of the products that the two have in common alone: the other has larger batches too. */
static void what_it_has_not_chosen_is_measured(void **state)
{
    struct block_fixture b;
    (void)state;
    open_blocks(&b);
    const uint32_t all = b.config.batch_size_count;
    assert_true(all > 1);
    b.config.batch_size_count = 1;
    rt_runtime *const first = make(&b, 0, NULL);
    b.config.batch_size_count = all;
    rt_runtime *second = make(&b, 1, first), *gone = first;
    uint32_t alike = 0, measured = 0;
    for (uint32_t i = 0; i < second->products.count; i++) {
        const struct rt_planned *const p = &second->products.items[i];
        bool is_common = false;
        for (uint32_t k = 0; k < gone->products.count; k++)
            is_common = is_common || rt_matmul_alike(&p->first, &gone->products.items[k].first);
        assert_int_equal(p->plan->selected, is_common ? 0 : 1);
        alike += is_common;
        measured += !is_common;
    }
    assert_int_equal(alike, gone->products.count);
    assert_true(measured > 0);
    rt_destroy(&gone);
    rt_destroy(&second);
    block_close(&b);
}

static void refused(const struct block_fixture *b, const rt_runtime *like, rt_ranks *ranks,
                    const char *story)
{
    struct rt_error error = {.status = RT_OK};
    rt_runtime *rt = NULL;
    assert_int_equal(create(b, 0, like, ranks, &rt, &error), RT_ERR_INVALID);
    assert_null(rt);
    assert_string_equal(error.message, story);
}

static void what_is_unlike(void **state)
{
    struct block_fixture b;
    struct rt_error error = {.status = RT_OK};
    char path[64], story[256];
    rt_ranks *group = NULL;
    (void)state;
    open_blocks(&b);
    rt_runtime *rt = make(&b, 0, NULL), *alone = NULL;
    now.ordinal = 3;
    (void)snprintf(story, sizeof(story),
                   "rt_create: params->like is on %s (0), this runtime on %s (3): must be one "
                   "device",
                   rt->driver.caps.name, rt->driver.caps.name);
    refused(&b, rt, NULL, story);
    now.ordinal = 0;
    (void)snprintf(path, sizeof(path), "like.%ld.group", (long)getpid());
    const struct rt_ranks_params one = {
        .struct_size = sizeof(one), .rank = 0, .ranks = 1, .path = path};
    assert_int_equal(rt_ranks_create(&one, &group, &error), RT_OK);
    assert_int_equal(create(&b, 1, rt, group, &alone, &error), RT_OK); /* a group of one is one */
    rt_destroy(&alone);
    assert_int_equal(rt_ranks_destroy(&group), RT_OK);
    rt_destroy(&rt);
    block_close(&b);
}

/* ---- products -------------------------------------------------------------------------------- */

enum { K = 16, N = 8, M = 3 };

static struct rt_product_shape shape_like(const rt_product *like)
{
    return (struct rt_product_shape){.struct_size = sizeof(struct rt_product_shape),
                                     .batch = 1,
                                     .vectors = M,
                                     .k = K,
                                     .weights[0].rows = N,
                                     .projections = RT_PROJECTIONS_CUBLASLT,
                                     .like = like};
}

static rt_product *product(rt_ops *ops, uint32_t faster, const rt_product *like)
{
    const struct rt_product_shape shape = shape_like(like);
    rt_product *p = NULL;
    now.faster = faster;
    if (rt_product_create(ops, &shape, &p) != RT_OK)
        fail_msg("%s", rt_ops_last_error(ops)->message);
    return p;
}

static void multiply(rt_product *p, uint16_t *y)
{
    static _Alignas(256) uint16_t x[M * K], w[N * K], out[M * N];
    static _Alignas(256) unsigned char workspace[1 << 12];
    struct rt_product_info info = {.struct_size = sizeof(info)};
    memset(out, 0x7f, sizeof(out));
    for (uint32_t i = 0; i < M * K; i++)
        x[i] = (uint16_t)(0x3f00 + i);
    for (uint32_t i = 0; i < N * K; i++)
        w[i] = (uint16_t)(0x3e00 + i);
    assert_int_equal(rt_product_get_info(p, &info), RT_OK);
    assert_true(info.workspace_bytes <= sizeof(workspace));
    const struct rt_product_args args = {.struct_size = sizeof(args),
                                         .x = (uintptr_t)x,
                                         .y = (uintptr_t)out,
                                         .weights = {(uintptr_t)w},
                                         .workspace = (uintptr_t)workspace};
    assert_int_equal(rt_product_run(p, &args, NULL), RT_OK);
    memcpy(y, out, sizeof(out));
}

/* Also of another handle; and the one that was liked may go. */
static void products_of_the_same_bits(void **state)
{
    uint16_t y[3][M * N];
    rt_ops *ops[2];
    (void)state;
    open_device();
    for (int i = 0; i < 2; i++)
        assert_int_equal(rt_ops_create("host", &ops[i], NULL), RT_OK);
    for (uint32_t first = 0; first < WAYS; first++) {
        rt_product *p[3] = {product(ops[0], first, NULL)};
        p[1] = product(ops[0], 1 - first, NULL);
        p[2] = product(ops[1], 1 - first, p[0]);
        for (int i = 0; i < 3; i++) {
            multiply(p[i], y[i]);
            if (i == 0)
                rt_product_destroy(&p[0]);
        }
        assert_memory_not_equal(y[1], y[0], sizeof(y[0])); /* or this shows nothing */
        assert_memory_equal(y[2], y[0], sizeof(y[0]));
        rt_product *const last = product(ops[0], first, p[2]), *gone = last;
        multiply(last, y[1]);
        assert_memory_equal(y[1], first == 0 ? y[0] : y[2], sizeof(y[0]));
        rt_product_destroy(&gone);
        rt_product_destroy(&p[1]);
        rt_product_destroy(&p[2]);
    }
    for (int i = 0; i < 2; i++)
        rt_ops_destroy(&ops[i]);
}

static void not_made(rt_ops *ops, const struct rt_product_shape *shape, enum rt_status status,
                     const char *story)
{
    rt_product *p = NULL;
    assert_int_equal(rt_product_create(ops, shape, &p), status);
    assert_null(p);
    if (!strstr(rt_ops_last_error(ops)->message, story))
        fail_msg("\"%s\" does not say \"%s\"", rt_ops_last_error(ops)->message, story);
}

static void products_unlike(void **state)
{
    rt_ops *ops, *elsewhere;
    (void)state;
    open_device();
    assert_int_equal(rt_ops_create("host", &ops, NULL), RT_OK);
    now.ordinal = 3;
    assert_int_equal(rt_ops_create("host", &elsewhere, NULL), RT_OK);
    rt_product *like = product(ops, 1, NULL);
    struct rt_product_shape s = shape_like(like);
    not_made(elsewhere, &s, RT_ERR_INVALID, "must be one device");
    s.k = 2 * K;
    not_made(ops, &s, RT_ERR_INVALID,
             "rt_product_create: like is of 1 times 3 vectors of 16 by 8 and 0 rows, this product "
             "of 1 times 3 of 32 by 8 and 0: must be the same");
    s = shape_like(like);
    s.weights[0].biased = 1;
    not_made(ops, &s, RT_ERR_INVALID, "must be the same");
    s = shape_like(like);
    s.x_row_stride = K + 8;
    not_made(ops, &s, RT_ERR_INVALID, "must be the same");
    s = shape_like(like);
    s.projections = RT_PROJECTIONS_OWN;
    not_made(ops, &s, RT_ERR_INVALID,
             "like has projections 1 and backend 0, this product 2 and 0: must be the same");
    s = shape_like(like);
    s.backend = RT_BACKEND_GENERIC;
    not_made(ops, &s, RT_ERR_INVALID, "must be the same");
    now.ways = 1; /* the other one, the slower, alone */
    s = shape_like(like);
    not_made(ops, &s, RT_ERR_UNSUPPORTED, "is none of those that work");
    rt_product_destroy(&like);
    rt_ops_destroy(&elsewhere);
    rt_ops_destroy(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bits),   cmocka_unit_test(what_it_has_not_chosen_is_measured),
        cmocka_unit_test(what_is_unlike),  cmocka_unit_test(products_of_the_same_bits),
        cmocka_unit_test(products_unlike),
    };
    return cmocka_run_group_tests_name("like", tests, NULL, NULL);
}
