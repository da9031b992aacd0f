/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_PRODUCTS_RIG_H
#define RT_TESTS_UNIT_PRODUCTS_RIG_H

/*
 * Graphs of blocks whose products are all the library's, as on a GPU that none of our kernels is
 * tuned for, over a driver of the host device whose functions a test may replace.
 *
 * Includes cmocka.h, so a test includes this last.
 */
#include "runtime/products.h"

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

/* The driver is the first member: functions of it find the rig by a cast. */
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

static inline struct rt_config rig_config(enum rt_projections projections)
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

/* The operands are nobody's memory. */
static inline int rig_multiply(struct rt_driver *d, const struct rt_matmul *m, rt_dstream stream)
{
    (void)d;
    (void)m;
    (void)stream;
    return 0;
}

static inline struct rig *rig_open(enum rt_projections projections)
{
    struct rig *r = aligned_alloc(_Alignof(struct rig), sizeof(*r));
    struct rt_device_caps caps;
    const struct rt_config c = rig_config(projections);
    assert_non_null(r);
    memset(r, 0, sizeof(*r));
    char why[64];
    assert_int_equal(rt_driver_open("host", &r->driver, why, sizeof(why), &r->error), RT_OK);
    r->driver.matmul = rig_multiply;
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

static inline void rig_shut(struct rig *r)
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

/* Null comm: this is the only rank. */
static inline enum rt_status rig_make_all(struct rig *r, struct rt_comm *comm)
{
    static const rt_stage_fn none[RT_STAGE_POINT_COUNT];
    const struct rt_recipe_source source = {.blueprint = &r->blueprint,
                                            .arena = &r->arena,
                                            .kernels = &r->kernels,
                                            .stages = none,
                                            .weights = &r->weights,
                                            .refusals = &r->products.refusals,
                                            .comm = comm};
    enum rt_status status = RT_OK;
    for (uint32_t i = 0; i < r->blueprint.spec_count && status == RT_OK; i++)
        status = rt_products_make(&r->products, &source, &r->blueprint.specs[i], NULL, &r->driver,
                                  r->stream, &r->programs[i], &r->error);
    return status;
}

/* Of graph i; each is planned. */
static inline uint32_t rig_matmuls(const struct rig *r, uint32_t i)
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

static inline const struct rt_stage *rig_stage(const struct rig *r, uint32_t i, const char *label)
{
    for (uint32_t s = 0; s < r->programs[i].count; s++)
        if (strcmp(r->programs[i].stages[s].label, label) == 0)
            return &r->programs[i].stages[s];
    fail_msg("no stage %s", label);
    return NULL;
}

#endif
