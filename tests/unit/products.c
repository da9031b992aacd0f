/* SPDX-License-Identifier: Apache-2.0 */
/* Programs whose products the library may have no way for, as on a GPU that none of our kernels is
 * tuned for: all products are the library's there, by a driver that says what it refuses. */
#include "runtime/products.h"

#include "kernels/abi/project.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS 2
#define HIDDEN 64
#define V_WIDTH 48 /* of all heads: k of o_proj alone */
#define Q_RANK 40  /* k of q_b alone */

static struct {
    uint32_t k; /* of what is refused; 0: all of it */
    int code;
    int (*prepare)(struct rt_driver *d, const struct rt_matmul *m, uint32_t most,
                   struct rt_matmul_plan **out);
} refused;

static int prepare(struct rt_driver *d, const struct rt_matmul *m, uint32_t most,
                   struct rt_matmul_plan **out)
{
    const bool refuses = refused.code && (refused.k == 0 || refused.k == m->k);
    return refuses ? refused.code : refused.prepare(d, m, most, out);
}

/* The operands are nobody's memory. */
static int multiply(struct rt_driver *d, const struct rt_matmul *m, rt_dstream stream)
{
    (void)d;
    (void)m;
    (void)stream;
    return 0;
}

struct rig {
    struct rt_driver driver;
    rt_dstream stream;
    struct rt_blueprint blueprint;
    struct rt_weights weights;
    struct rt_arena arena;
    struct rt_kernels kernels;
    struct rt_products products;
    struct rt_program programs[RT_MAX_BUCKETS];
    struct rt_error error;
};

static struct rt_config config_of(enum rt_projections projections)
{
    struct rt_config c;
    rt_config_default(&c);
    c.geometry = (struct rt_geometry){.heads = 3,
                                      .kv_lora_rank = 256,
                                      .qk_rope_head_dim = 32,
                                      .layers = LAYERS,
                                      .softmax_scale = 0.1};
    c.block.hidden_size = HIDDEN;
    c.block.q_lora_rank = Q_RANK;
    c.block.qk_nope_head_dim = 8;
    c.block.v_head_dim = V_WIDTH / 3;
    c.pages = 100;
    c.max_length = 1000;
    c.layer = 1;
    c.projections = projections;
    return c;
}

static struct rig *open(enum rt_projections projections)
{
    struct rig *r = aligned_alloc(_Alignof(struct rig), sizeof(*r));
    struct rt_device_caps caps;
    const struct rt_config c = config_of(projections);
    assert_non_null(r);
    memset(r, 0, sizeof(*r));
    char why[64];
    assert_int_equal(rt_driver_open("host", &r->driver, why, sizeof(why), &r->error), RT_OK);
    refused.prepare = r->driver.matmul_prepare;
    r->driver.matmul_prepare = prepare;
    r->driver.matmul = multiply;
    assert_int_equal(r->driver.stream_create(&r->driver, &r->stream), 0);
    assert_int_equal(rt_device_caps_assume("a100", &caps, NULL), RT_OK);
    assert_int_equal(rt_blueprint_make(&c, &caps, 0, &r->blueprint, &r->error), RT_OK);
    assert_int_equal(rt_weights_assume(&c, &r->weights, &r->error), RT_OK);
    r->arena = (struct rt_arena){.arena = UINT64_C(0x7a0000000000),
                                 .pool = UINT64_C(0x7b0000000000),
                                 .mapped_addr = UINT64_C(0x7c0000000000),
                                 .placement = &r->blueprint.placement};
    r->kernels.cc = caps.cc;
    r->products.may_refuse = projections == RT_PROJECTIONS_AUTO;
    return r;
}

static void shut(struct rig *r)
{
    for (uint32_t i = 0; i < r->blueprint.spec_count; i++)
        rt_program_free(&r->programs[i]);
    rt_products_free(&r->products, &r->driver);
    rt_weights_free(&r->weights);
    (void)r->driver.stream_destroy(&r->driver, r->stream);
    assert_int_equal(r->driver.probe.live, 0);
    rt_driver_close(&r->driver);
    free(r);
}

static enum rt_status make_all(struct rig *r)
{
    static const rt_stage_fn none[RT_STAGE_POINT_COUNT];
    const struct rt_recipe_source source = {.blueprint = &r->blueprint,
                                            .arena = &r->arena,
                                            .kernels = &r->kernels,
                                            .stages = none,
                                            .weights = &r->weights,
                                            .refusals = &r->products.refusals};
    enum rt_status status = RT_OK;
    for (uint32_t i = 0; i < r->blueprint.spec_count && status == RT_OK; i++)
        status = rt_products_make(&r->products, &source, &r->blueprint.specs[i], NULL, &r->driver,
                                  r->stream, &r->programs[i], &r->error);
    return status;
}

/* Of graph i; each is planned. */
static uint32_t matmuls(const struct rig *r, uint32_t i)
{
    uint32_t count = 0;
    for (uint32_t s = 0; s < r->programs[i].count; s++) {
        const struct rt_work *work = r->programs[i].stages[s].work;
        count += work->kind == RT_WORK_MATMUL;
        if (work->kind == RT_WORK_MATMUL)
            assert_non_null(work->matmul.plan);
    }
    return count;
}

static const struct rt_stage *stage_of(const struct rig *r, uint32_t i, const char *label)
{
    for (uint32_t s = 0; s < r->programs[i].count; s++)
        if (strcmp(r->programs[i].stages[s].label, label) == 0)
            return &r->programs[i].stages[s];
    fail_msg("no stage %s", label);
    return NULL;
}

/* qkv_a of weights that lie one behind the other, q_b, w_uk, w_uv, o_proj. */
static void all_by_the_library(void **state)
{
    (void)state;
    struct rig *r = open(RT_PROJECTIONS_AUTO);
    refused.code = 0;
    assert_int_equal(make_all(r), RT_OK);
    for (uint32_t i = 0; i < r->blueprint.spec_count; i++)
        assert_int_equal(matmuls(r, i), 5 * LAYERS);
    assert_int_equal(r->products.refusals.count, 0);
    assert_int_equal(r->products.count, 5 * r->blueprint.spec_count);
    shut(r);
}

/* One product of each layer: of each graph once, however many layers ask. */
static void one_goes_to_our_kernels(void **state)
{
    (void)state;
    struct rig *r = open(RT_PROJECTIONS_AUTO);
    refused.code = 5;
    refused.k = V_WIDTH;
    assert_int_equal(make_all(r), RT_OK);
    assert_int_equal(r->products.refusals.count, r->blueprint.spec_count);
    for (uint32_t i = 0; i < r->blueprint.spec_count; i++) {
        assert_int_equal(matmuls(r, i), 4 * LAYERS);
        const struct rt_stage *o = stage_of(r, i, "o_proj.1");
        assert_int_equal(o->work->kind, RT_WORK_LAUNCH);
        if (!strstr(o->reason, "the library has no way: matmul_prepare failed"))
            fail_msg("%s", o->reason);
    }
    shut(r);
}

/* The norm in front of q_b is part of our kernel: no node of its own stays behind. */
static void a_normed_one_takes_its_norm_along(void **state)
{
    (void)state;
    struct rig *r = open(RT_PROJECTIONS_AUTO);
    refused.code = 0;
    assert_int_equal(make_all(r), RT_OK);
    const uint32_t before = r->programs[0].count;
    shut(r);
    r = open(RT_PROJECTIONS_AUTO);
    refused.code = 5;
    refused.k = Q_RANK;
    assert_int_equal(make_all(r), RT_OK);
    assert_int_equal(r->programs[0].count, before - LAYERS);
    const struct rt_stage *q = stage_of(r, 0, "q_b.0");
    struct rt_project_params p;
    memcpy(&p, q->work->launch.params, sizeof(p));
    assert_int_equal(p.norm.width, Q_RANK);
    assert_non_null(p.norm.weight);
    shut(r);
}

static void all_go(void **state)
{
    (void)state;
    struct rig *r = open(RT_PROJECTIONS_AUTO);
    refused.code = 5;
    refused.k = 0;
    assert_int_equal(make_all(r), RT_OK);
    for (uint32_t i = 0; i < r->blueprint.spec_count; i++)
        assert_int_equal(matmuls(r, i), 0);
    assert_int_equal(r->products.count, 0);
    shut(r);
}

static void asked_for_by_name_it_fails(void **state)
{
    (void)state;
    struct rig *r = open(RT_PROJECTIONS_CUBLASLT);
    refused.code = 5;
    refused.k = V_WIDTH;
    assert_int_equal(make_all(r), RT_ERR_UNSUPPORTED);
    if (!strstr(r->error.message, "o_proj.0") || !strstr(r->error.message, "matmul_prepare failed"))
        fail_msg("%s", r->error.message);
    shut(r);
}

/* Memory that runs out is no refusal. */
static void no_memory_is_no_refusal(void **state)
{
    (void)state;
    struct rig *r = open(RT_PROJECTIONS_AUTO);
    refused.code = 2; /* of the host device: out of memory */
    refused.k = V_WIDTH;
    const enum rt_status status = make_all(r);
    if (status == RT_OK || status == RT_ERR_UNSUPPORTED || status == RT_ERR_DRIVER)
        fail_msg("%d: %s", (int)status, r->error.message);
    assert_int_equal(r->products.refusals.count, 0);
    shut(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_by_the_library),
        cmocka_unit_test(one_goes_to_our_kernels),
        cmocka_unit_test(a_normed_one_takes_its_norm_along),
        cmocka_unit_test(all_go),
        cmocka_unit_test(asked_for_by_name_it_fails),
        cmocka_unit_test(no_memory_is_no_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
