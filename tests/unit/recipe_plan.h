/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_RECIPE_PLAN_H
#define RT_TESTS_UNIT_RECIPE_PLAN_H

/* Programs of a device that is elsewhere, with allocations at addresses that nothing else could
 * be. */
#include "runtime/recipe.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARENA UINT64_C(0x7a0000000000)
#define POOL UINT64_C(0x7b0000000000)
#define MAPPED UINT64_C(0x7c0000000000)

static inline bool inside(uint64_t word, const struct rt_placement *p)
{
    return (word >= ARENA && word - ARENA < p->arena_bytes) ||
           (word >= POOL && word - POOL < p->pool_bytes) ||
           (word >= MAPPED && word - MAPPED < p->mapped_bytes);
}

/* Words of its parameters that lie in an allocation are known as addresses, and no others are. */
static inline void check_launch(const struct rt_stage *stage, const struct rt_placement *p)
{
    const struct rt_launch *l = &stage->work->launch;
    for (uint32_t i = 0; i < l->param_bytes / 8; i++) {
        uint64_t word;
        memcpy(&word, l->params + 8 * i, sizeof(word));
        const bool known = i < 64 && l->address_mask >> i & 1;
        if (known ? word != 0 && !inside(word, p) : inside(word, p))
            fail_msg("%s (%s): word %u is 0x%" PRIx64 ", which the mask says is %s address",
                     stage->label, l->entry, i, word, known ? "an" : "no");
    }
}

static inline struct rt_config block_config(void)
{
    struct rt_config c;
    rt_config_default(&c);
    c.geometry = (struct rt_geometry){.heads = 16,
                                      .kv_lora_rank = 512,
                                      .qk_rope_head_dim = 64,
                                      .layers = 1,
                                      .softmax_scale = 0.1};
    c.block.hidden_size = 7168;
    c.block.q_lora_rank = 1536;
    c.block.qk_nope_head_dim = c.block.v_head_dim = 128;
    c.pages = 100;
    c.max_length = 1000;
    c.layer = 1;
    return c;
}

/* Stages whose labels begin so. */
static inline uint32_t count_stages(const struct rt_program *p, const char *name)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->count; i++)
        count += strncmp(p->stages[i].label, name, strlen(name)) == 0;
    return count;
}

static inline uint32_t stage_at(const struct rt_program *p, const char *label)
{
    for (uint32_t i = 0; i < p->count; i++)
        if (strcmp(p->stages[i].label, label) == 0)
            return i;
    fail_msg("no stage %s", label);
    return UINT32_MAX;
}

struct planned {
    struct rt_blueprint *b;
    struct rt_weights weights;
    struct rt_arena arena;
    struct rt_kernels kernels;
    struct rt_recipe_source source;
};

/* Of such a device; forget gives it back. */
static inline void plan_with(struct planned *p, const struct rt_config *c,
                             const struct rt_device_caps *caps)
{
    static const rt_stage_fn none[RT_STAGE_POINT_COUNT] = {0};
    struct rt_error err = {0};
    *p = (struct planned){.b = calloc(1, sizeof(*p->b))};
    assert_non_null(p->b);
    if (rt_blueprint_make(c, caps, 0, p->b, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_int_equal(rt_weights_assume(c, &p->weights, NULL), RT_OK);
    p->arena = (struct rt_arena){
        .arena = ARENA, .pool = POOL, .mapped_addr = MAPPED, .placement = &p->b->placement};
    p->kernels = (struct rt_kernels){.cc = caps->cc};
    p->source = (struct rt_recipe_source){.blueprint = p->b,
                                          .arena = &p->arena,
                                          .kernels = &p->kernels,
                                          .stages = none,
                                          .weights = &p->weights};
}

/* Of a device of that name. */
static inline void plan_on(struct planned *p, const struct rt_config *c, const char *device)
{
    struct rt_device_caps caps;
    assert_int_equal(rt_device_caps_assume(device, &caps, NULL), RT_OK);
    plan_with(p, c, &caps);
}

static inline void plan(struct planned *p, const struct rt_config *c)
{
    plan_on(p, c, "h200");
}

static inline void forget(struct planned *p)
{
    rt_weights_free(&p->weights);
    free(p->b);
}

#endif
