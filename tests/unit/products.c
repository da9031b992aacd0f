/* SPDX-License-Identifier: Apache-2.0 */
/* Programs whose products the library may have no way for, by a driver that says what it refuses.
 */
#include "kernels/abi/project.h"
#include "tests/unit/products_rig.h"

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

static struct rig *open(enum rt_projections projections)
{
    struct rig *r = rig_open(projections);
    refused.prepare = r->driver.matmul_prepare;
    r->driver.matmul_prepare = prepare;
    return r;
}

static enum rt_status make_all(struct rig *r)
{
    return rig_make_all(r, NULL);
}

/* qkv_a of weights that lie one behind the other, q_b, w_uk, w_uv, o_proj. */
static void all_by_the_library(void **state)
{
    (void)state;
    struct rig *r = open(RT_PROJECTIONS_AUTO);
    refused.code = 0;
    assert_int_equal(make_all(r), RT_OK);
    for (uint32_t i = 0; i < r->blueprint.spec_count; i++)
        assert_int_equal(rig_matmuls(r, i), 5 * LAYERS);
    assert_int_equal(r->products.refusals.count, 0);
    assert_int_equal(r->products.count, 5 * r->blueprint.spec_count);
    rig_shut(r);
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
        assert_int_equal(rig_matmuls(r, i), 4 * LAYERS);
        const struct rt_stage *o = rig_stage(r, i, "o_proj.1");
        assert_int_equal(o->work->kind, RT_WORK_LAUNCH);
        if (!strstr(o->reason, "the library has no way: matmul_prepare failed"))
            fail_msg("%s", o->reason);
    }
    rig_shut(r);
}

/* The norm in front of q_b is part of our kernel: no node of its own stays behind. */
static void a_normed_one_takes_its_norm_along(void **state)
{
    (void)state;
    struct rig *r = open(RT_PROJECTIONS_AUTO);
    refused.code = 0;
    assert_int_equal(make_all(r), RT_OK);
    const uint32_t before = r->programs[0].count;
    rig_shut(r);
    r = open(RT_PROJECTIONS_AUTO);
    refused.code = 5;
    refused.k = Q_RANK;
    assert_int_equal(make_all(r), RT_OK);
    assert_int_equal(r->programs[0].count, before - LAYERS);
    const struct rt_stage *q = rig_stage(r, 0, "q_b.0");
    struct rt_project_params p;
    memcpy(&p, q->work->launch.params, sizeof(p));
    assert_int_equal(p.norm.width, Q_RANK);
    assert_non_null(p.norm.weight);
    rig_shut(r);
}

static void all_go(void **state)
{
    (void)state;
    struct rig *r = open(RT_PROJECTIONS_AUTO);
    refused.code = 5;
    refused.k = 0;
    assert_int_equal(make_all(r), RT_OK);
    for (uint32_t i = 0; i < r->blueprint.spec_count; i++)
        assert_int_equal(rig_matmuls(r, i), 0);
    assert_int_equal(r->products.count, 0);
    rig_shut(r);
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
    rig_shut(r);
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
    rig_shut(r);
}

/* What stood in the way of another runtime's is gone by now, and this one is to be like it. */
static void what_another_refused(void **state)
{
    (void)state;
    struct rig *first = open(RT_PROJECTIONS_AUTO);
    refused.code = 5;
    refused.k = V_WIDTH;
    assert_int_equal(make_all(first), RT_OK);
    refused.code = 0;
    struct rig *second = open(RT_PROJECTIONS_AUTO), *by_name = open(RT_PROJECTIONS_CUBLASLT);
    struct rig *const all[] = {second, by_name};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rt_products_follow(&all[i]->products, &first->products, &all[i]->error),
                         RT_OK);
        assert_int_equal(make_all(all[i]), RT_OK);
    }
    for (uint32_t i = 0; i < second->blueprint.spec_count; i++) {
        const struct rt_stage *o = rig_stage(second, i, "o_proj.1");
        assert_int_equal(rig_matmuls(second, i), 4 * LAYERS);
        assert_int_equal(rig_matmuls(by_name, i), 5 * LAYERS);
        assert_int_equal(o->work->kind, RT_WORK_LAUNCH);
        if (!strstr(o->reason, "as the runtime that this one is like: the library has no way: "))
            fail_msg("%s", o->reason);
    }
    rig_shut(first);
    rig_shut(second);
    rig_shut(by_name);
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
        cmocka_unit_test(what_another_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
