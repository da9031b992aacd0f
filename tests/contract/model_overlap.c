/* SPDX-License-Identifier: Apache-2.0 */
/* What rt_ops_overlap, and who stands in front of rt_experts_down, do to launches. */
#include "kernels/abi/experts.h"
#include "runtime/ops_handle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/support/model_rig.h"

static struct spy {
    int (*launch)(struct rt_driver *d, const struct rt_launch *l, bool programmatic, rt_dstream s);
    uint32_t launches, early;
    uint32_t looks_early; /* `early` of the last experts_down */
} spy;

static int spy_launch(struct rt_driver *d, const struct rt_launch *l, bool programmatic,
                      rt_dstream s)
{
    spy.launches++;
    spy.early += programmatic;
    if (l->param_bytes == sizeof(struct rt_experts_down_params))
        spy.looks_early = ((const struct rt_experts_down_params *)(const void *)l->params)->early;
    return spy.launch(d, l, programmatic, s);
}

/* Every operator's launches, and none of the library's. */
static void put_everything(struct rig *r)
{
    const struct rt_embed_args e = embed_args(r);
    const struct rt_route_args route_a = route_args(r);
    const struct rt_experts_up_args up = up_args(r);
    const struct rt_experts_down_args down = down_args(r);
    const struct rt_sample_args s = sample_args(r);
    const struct rt_mla_input_norm_args norm = {.struct_size = sizeof(norm),
                                                .tokens = 2,
                                                .hidden = in(r, 1),
                                                .residual = out(r, 1),
                                                .normed = out(r, 2),
                                                .norm = {.width = 16},
                                                .first = 1};
    spy.launches = spy.early = 0;
    assert_int_equal(rt_embed(r->ops, &e, NULL), RT_OK);
    assert_int_equal(rt_route(r->ops, &route_a, NULL), RT_OK);
    assert_int_equal(rt_experts_up(r->ops, &up, NULL), RT_OK);
    assert_int_equal(rt_experts_down(r->ops, &down, NULL), RT_OK);
    assert_int_equal(rt_sample(r->ops, &s, NULL), RT_OK);
    assert_int_equal(rt_mla_input_norm(r->ops, &norm, NULL), RT_OK);
    for (int by_library = 0; by_library < 2; by_library++) {
        const struct rt_product_shape shape = {.struct_size = sizeof(shape),
                                               .batch = 1,
                                               .vectors = 2,
                                               .k = 16,
                                               .weights = {{.rows = 8}},
                                               .projections = by_library ? RT_PROJECTIONS_CUBLASLT
                                                                         : RT_PROJECTIONS_OWN};
        const struct rt_product_args args = {.struct_size = sizeof(args),
                                             .x = in(r, 1),
                                             .y = out(r, 3),
                                             .weights = {in(r, 2)},
                                             .workspace = out(r, 4)};
        rt_product *p = NULL;
        assert_int_equal(rt_product_create(r->ops, &shape, &p), RT_OK);
        assert_int_equal(rt_product_run(p, &args, NULL), RT_OK);
        rt_product_destroy(&p);
    }
    assert_int_equal(spy.launches, 4 + 3 + 1 + 1);
}

static void overlap(void **state)
{
    struct rig *r = *state;
    spy.launch = r->ops->driver.launch;
    r->ops->driver.launch = spy_launch;
    put_everything(r);
    assert_int_equal(spy.early, 0);
    assert_int_equal(rt_ops_overlap(r->ops, 1), RT_OK);
    put_everything(r);
    assert_int_equal(spy.early, spy.launches);
    memset(r->out, POISON, BYTES);
    refused(r->ops, rt_ops_overlap(r->ops, 2), "rt_ops_overlap: overlap 2 is not 0 or");
    untouched(r, "rt_ops_overlap");
    put_everything(r); /* as it was */
    assert_int_equal(spy.early, spy.launches);
    /* Kernels before sm_90 do not wait. */
    r->ops->kernels.cc = 80;
    put_everything(r);
    assert_int_equal(spy.early, 0);
    r->ops->kernels.cc = 0;
    assert_int_equal(rt_ops_overlap(r->ops, 0), RT_OK);
    put_everything(r);
    assert_int_equal(spy.early, 0);
    assert_int_equal(rt_ops_overlap(NULL, 0), RT_ERR_INVALID);
}

static void behind_up(void **state)
{
    struct rig *r = *state;
    struct rt_experts_down_args down = down_args(r);
    spy.launch = r->ops->driver.launch;
    r->ops->driver.launch = spy_launch;
    for (uint32_t way = 0; way < 2; way++) {
        down.behind_up = way;
        spy.looks_early = 77;
        assert_int_equal(rt_experts_down(r->ops, &down, NULL), RT_OK);
        assert_int_equal(spy.looks_early, way);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {RIG_TEST(overlap), RIG_TEST(behind_up)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
