/* SPDX-License-Identifier: Apache-2.0 */
/* Every graph's programs, with allocations at addresses that nothing else could be: each word of a
 * parameter block that lies in one is known as an address, and no other word is. */
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

static bool inside(uint64_t word, const struct rt_placement *p)
{
    return (word >= ARENA && word - ARENA < p->arena_bytes) ||
           (word >= POOL && word - POOL < p->pool_bytes) ||
           (word >= MAPPED && word - MAPPED < p->mapped_bytes);
}

static void check_launch(const struct rt_stage *stage, const struct rt_placement *p)
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

static void check_device(const char *name, bool per_layer)
{
    struct rt_config c;
    struct rt_device_caps caps;
    struct rt_error err = {0};
    struct rt_blueprint *b = calloc(1, sizeof(*b));
    assert_non_null(b);
    rt_config_default(&c);
    c.geometry = (struct rt_geometry){
        .heads = 5, .kv_lora_rank = 512, .qk_rope_head_dim = 64, .layers = 3, .softmax_scale = 0.1};
    c.pages = 100;
    c.max_sequences = 8;
    c.max_length = 1000;
    c.tensors = per_layer ? RT_TENSORS_PER_LAYER : RT_TENSORS_SHARED;
    assert_int_equal(rt_device_caps_assume(name, &caps, NULL), RT_OK);
    if (rt_blueprint_make(&c, &caps, 0, b, &err) != RT_OK)
        fail_msg("%s", err.message);
    const struct rt_arena arena = {
        .arena = ARENA, .pool = POOL, .mapped_addr = MAPPED, .placement = &b->placement};
    const struct rt_kernels kernels = {.cc = caps.cc};
    const rt_stage_fn none[RT_STAGE_POINT_COUNT] = {0};
    const struct rt_recipe_source source = {
        .blueprint = b, .arena = &arena, .kernels = &kernels, .stages = none};
    for (uint32_t i = 0; i <= b->spec_count; i++) {
        const struct rt_graph_spec *spec = i < b->spec_count ? &b->specs[i] : &b->control;
        struct rt_program program = {0};
        if (rt_recipe_make(&source, spec, NULL, &program, &err) != RT_OK)
            fail_msg("%s", err.message);
        assert_int_equal(program.count, spec->rows ? 2 + 3 * 3 : 3);
        for (uint32_t s = 0; s < program.count; s++)
            check_launch(&program.stages[s], &b->placement);
        rt_program_free(&program);
    }
    free(b);
}

static void test_masks_are_whole(void **state)
{
    (void)state;
    static const char *const devices[] = {"h200", "a100", "host"};
    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
        check_device(devices[i], false);
        check_device(devices[i], true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_masks_are_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
