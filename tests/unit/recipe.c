/* SPDX-License-Identifier: Apache-2.0 */
/* Every graph's programs, with allocations at addresses that nothing else could be: each word of a
 * parameter block that lies in one is known as an address, and no other word is. */
#include "tests/unit/recipe_plan.h"

#include "kernels/abi/preattend_sums.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_device(const char *name, bool per_layer, uint32_t topk, enum rt_kv_layout layout)
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
    c.topk = topk;
    c.kv_layout = layout;
    c.sinks = topk > 0;
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
        /* Sparse attention has a schedule in each, but for few tokens of bf16 on Hopper, of which
         * some have no reduce either. */
        const uint32_t tokens = spec->rows * rt_spec_query_len(spec);
        const bool few = strcmp(name, "h200") == 0 && layout == RT_KV_BF16 && tokens <= 32;
        const bool whole = few && tokens >= 8 && tokens <= 15;
        const uint32_t of_layer = !topk ? 3 : whole ? 2 : few ? 3 : 4;
        const uint32_t schedule = layout != RT_KV_BF16 && !topk; /* on its own */
        assert_int_equal(program.count, spec->rows ? 2 + 3 * of_layer + schedule : 3);
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
        check_device(devices[i], false, 0, RT_KV_BF16);
        check_device(devices[i], true, 0, RT_KV_BF16);
        check_device(devices[i], i % 2, 48, RT_KV_BF16);
        check_device(devices[i], i % 2, 0, RT_KV_FP8_TENSOR);
        check_device(devices[i], i % 2, 0, RT_KV_FP8_TOKEN);
        check_device(devices[i], i % 2, 0, RT_KV_V32);
        check_device(devices[i], i % 2, 48, RT_KV_V32);
    }
}

/* ---- weights that lie one way or the other --------------------------------------------------- */

/* preattend and w_uk, or one node in their place: once in every layer, or nowhere. */
static void check_shared(const struct rt_program *p, bool shared)
{
    assert_int_equal(count_stages(p, "preattend_absorb."), shared ? 1 : 0);
    assert_int_equal(count_stages(p, "w_uk."), shared ? 0 : 1);
    if (shared)
        assert_int_equal(count_stages(p, "preattend."), 0);
}

/* What recipes are made of, for an H200 that is not there. */
/* Weights of these ids column by column. */
static void lie_across(struct planned *x, uint32_t across)
{
    for (uint32_t id = 0; id < RT_WEIGHT_COUNT; id++) {
        struct rt_bound_weight *w = &x->weights.bound[id];
        if (!(across >> id & 1) || w->rows <= 1)
            continue;
        w->row_stride = 1;
        w->column_stride = (int64_t)w->rows;
    }
}

/* All graphs of it, weights of these ids column by column. *shared: what each graph of up to 16
 * tokens must have, unless it is null. */
static enum rt_status make_graphs(const struct rt_config *c, uint32_t across, const bool *shared,
                                  struct rt_error *err)
{
    struct planned x;
    plan(&x, c);
    lie_across(&x, across);
    enum rt_status status = RT_OK;
    for (uint32_t i = 0; i < x.b->spec_count && status == RT_OK; i++) {
        struct rt_program program = {0};
        status = rt_recipe_make(&x.source, &x.b->specs[i], NULL, &program, err);
        if (status == RT_OK && shared && x.b->specs[i].tokens <= 16)
            check_shared(&program, *shared);
        rt_program_free(&program);
    }
    forget(&x);
    return status;
}

static enum rt_status make_all(const struct rt_config *c, uint32_t across, struct rt_error *err)
{
    return make_graphs(c, across, NULL, err);
}

/* One node where the weights lie as checkpoints have them; two with factors of q, where W_UK lies
 * along k, and where the library multiplies. */
static void test_shared_node(void **state)
{
    (void)state;
    static const bool yes = true, no = false;
    for (int low_rank = 0; low_rank < 2; low_rank++) {
        struct rt_config c = block_config();
        struct rt_error err = {0};
        c.block.q_lora_rank = low_rank ? 1536 : 0;
        assert_int_equal(make_graphs(&c, 0, &yes, &err), RT_OK);
        assert_int_equal(make_graphs(&c, 1u << RT_WEIGHT_KV_B, &no, &err), RT_OK);
        c.projections = RT_PROJECTIONS_OWN;
        assert_int_equal(make_graphs(&c, 0, &yes, &err), RT_OK);
        c.block.rope.original_max_length = 64;
        c.block.rope.query_scale_beta = 0.1;
        assert_int_equal(make_graphs(&c, 0, &no, &err), RT_OK);
        c.block.rope.query_scale_beta = 0;
        c.projections = RT_PROJECTIONS_CUBLASLT;
        assert_int_equal(make_graphs(&c, 0, &no, &err), RT_OK);
    }
}

/* auto always finds a way, however the weights lie: singly, in pairs, all at once. */
static void test_weights_lie_as_they_do(void **state)
{
    (void)state;
    for (int projections = RT_PROJECTIONS_AUTO; projections <= RT_PROJECTIONS_OWN; projections++)
        for (uint32_t first = 0; first < RT_WEIGHT_COUNT; first++)
            for (uint32_t second = first; second <= RT_WEIGHT_COUNT; second++) {
                struct rt_config c = block_config();
                struct rt_error err = {0};
                const uint32_t all = second == RT_WEIGHT_COUNT ? UINT32_MAX : 0;
                c.projections = (enum rt_projections)projections;
                c.block.q_lora_rank = first % 2 ? 1536 : 0;
                if (make_all(&c, 1u << first | 1u << second % 32 | all, &err) != RT_OK)
                    fail_msg("weights %u and %u across: %s", first, second, err.message);
            }
}

static void refused(const struct rt_config *c, enum rt_weight_id across, const char *words)
{
    struct rt_error err = {0};
    assert_int_not_equal(make_all(c, 1u << across, &err), RT_OK);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

/* What is asked for by name is served or refused by name. */
static void test_sm90_by_name(void **state)
{
    (void)state;
    struct rt_config c = block_config();
    struct rt_error err = {0};
    c.batch_size_count = 5; /* up to 16 */
    c.projections = RT_PROJECTIONS_OWN;
    c.backend = RT_BACKEND_SM90;
    assert_int_equal(make_all(&c, 0, &err), RT_OK);
    assert_int_equal(make_all(&c, 1u << RT_WEIGHT_O | 1u << RT_WEIGHT_KV_B, &err), RT_OK);
    refused(&c, RT_WEIGHT_Q_B, "only without a norm");
    c.block.q_lora_rank = 0;
    assert_int_equal(make_all(&c, 1u << RT_WEIGHT_KV_A, &err), RT_OK); /* two products of one */
}

/* A norm that the node in front of a library's product does not take. */
static void test_wide_norm(void **state)
{
    (void)state;
    struct rt_config c = block_config();
    struct rt_error err = {0};
    c.block.q_lora_rank = 8192;
    assert_int_equal(make_all(&c, 0, &err), RT_OK);
    c.projections = RT_PROJECTIONS_CUBLASLT;
    refused(&c, RT_WEIGHT_COUNT, "q_a norm of 8192 numbers, not a multiple of 8 up to 4096");
}

/* ---- branches of a chunk --------------------------------------------------------------------- */

/* A layer's stages of a chunk on an H200, branch by branch. */
#define WITH_ROWS                                                                                  \
    "qkv_a preattend | 1 q_b w_uk | 2 kv_gather kv_b | preattend "                                 \
    "| 1 attend reduce w_uv | 2 prefill_attend | o_proj "
#define WITHOUT_ROWS "qkv_a preattend | 1 q_b | 2 kv_gather kv_b | preattend prefill_attend o_proj "
#define FACTORS                                                                                    \
    "qkv_a preattend | 1 q_b | 2 kv_gather kv_b | preattend "                                      \
    "| 1 w_uk attend reduce w_uv | 2 prefill_attend | o_proj "
#define NO_LOW_RANK                                                                                \
    "qkv_a preattend | 1 w_uk attend reduce w_uv | 2 kv_gather kv_b prefill_attend | o_proj "
#define ABSORBED "qkv_a preattend q_b preattend w_uk attend reduce attend reduce w_uv o_proj "

#define QUANTISED                                                                                  \
    "qkv_a preattend_quant | 1 q_b w_uk | 2 kv_gather_quant kv_b | preattend "                     \
    "| 1 attend_quant reduce w_uv | 2 prefill_attend | o_proj "

static void describe_layer(const struct rt_program *p, char *text, size_t bytes)
{
    uint32_t branch = RT_TRUNK;
    size_t used = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        const struct rt_stage *s = &p->stages[i];
        const int stem = (int)strcspn(s->label, ".");
        if (s->layer != 1)
            continue;
        if (s->branch != branch)
            used +=
                (size_t)snprintf(text + used, bytes - used, s->branch ? "| %u " : "| ", s->branch);
        branch = s->branch;
        used += (size_t)snprintf(text + used, bytes - used, "%.*s ", stem, s->label);
        assert_true(used < bytes);
    }
}

/* Products beside each other have a workspace each, inside the tensor. */
static void check_workspaces(const struct rt_program *p, const struct rt_placement *l)
{
    const struct rt_placed *t = &l->tensors[RT_TENSOR_WORKSPACE];
    for (uint32_t i = 0; i < p->count; i++) {
        const struct rt_matmul *m = &p->stages[i].work->matmul;
        const uint32_t branch = p->stages[i].branch;
        if (p->stages[i].work->kind != RT_WORK_MATMUL)
            continue;
        const uint64_t at = m->workspace - ARENA - t->offset;
        assert_int_equal(at, branch > 1 ? m->workspace_bytes : 0);
        assert_true(m->workspace_bytes > 0 && at + m->workspace_bytes <= t->bytes);
    }
}

static void expect_layer(const struct rt_config *c, uint32_t chunk, uint32_t rows, const char *want)
{
    struct planned x;
    struct rt_error err = {0};
    struct rt_program program = {0};
    char text[512];
    uint32_t i = 0;
    plan(&x, c);
    while (i < x.b->spec_count && (rt_spec_chunk(&x.b->specs[i]) != chunk || x.b->specs[i].pieces ||
                                   x.b->specs[i].decode_rows != rows))
        i++;
    assert_true(i < x.b->spec_count);
    if (rt_recipe_make(&x.source, &x.b->specs[i], NULL, &program, &err) != RT_OK)
        fail_msg("%s", err.message);
    describe_layer(&program, text, sizeof(text));
    assert_string_equal(text, want);
    check_workspaces(&program, &x.b->placement);
    rt_program_free(&program);
    forget(&x);
}

static void test_branches(void **state)
{
    (void)state;
    struct rt_config c = block_config();
    c.geometry.layers = 2;
    c.projections = RT_PROJECTIONS_CUBLASLT;
    c.max_sequences = 16;
    c.chunks[0] = 64;
    c.chunks[1] = 512;
    c.chunk_count = 2;
    c.prefill_rows = 2;
    c.mixed_rows[0] = 8;
    c.mixed_row_count = 1;
    expect_layer(&c, 512, 8, WITH_ROWS);
    expect_layer(&c, 512, 0, WITHOUT_ROWS);
    expect_layer(&c, 64, 8, ABSORBED);
    c.kv_layout = RT_KV_V32;
    expect_layer(&c, 512, 8, QUANTISED);
    c.kv_layout = RT_KV_BF16;
    c.block.rope.original_max_length = 64;
    c.block.rope.query_scale_beta = 0.1;
    expect_layer(&c, 512, 8, FACTORS);
    c.block.rope.query_scale_beta = 0;
    c.block.q_lora_rank = 0;
    expect_layer(&c, 512, 8, NO_LOW_RANK);
}

/* ---- branches of a step ---------------------------------------------------------------------- */

static const struct rt_stage *find_stage(const struct rt_program *p, uint32_t layer,
                                         const char *name, uint32_t branch)
{
    for (uint32_t i = 0; i < p->count; i++)
        if (p->stages[i].layer == layer && p->stages[i].branch == branch &&
            strncmp(p->stages[i].label, name, strlen(name)) == 0)
            return &p->stages[i];
    fail_msg("no %s in branch %u of layer %u", name, branch, layer);
    return NULL;
}

/* A step's rows: W_UK and preattend are beside each other, but where preattend scales what W_UK
 * reads, and whoever is behind a library's product may be there while that runs. */
static void check_beside(const struct rt_config *c, const char *want, bool beside)
{
    struct planned x;
    struct rt_error err = {0};
    struct rt_program p = {0};
    char text[512];
    plan(&x, c);
    if (rt_recipe_make(&x.source, &x.b->specs[0], NULL, &p, &err) != RT_OK)
        fail_msg("%s", err.message);
    describe_layer(&p, text, sizeof(text));
    assert_string_equal(text, want);
    check_workspaces(&p, &x.b->placement);
    for (uint32_t i = 0; i < p.count; i++) {
        assert_int_equal(p.stages[i].overlapped, p.stages[i].work->kind == RT_WORK_MATMUL);
        assert_int_equal(p.stages[i].tight, p.stages[i].branch != RT_TRUNK);
    }
    const struct rt_stage *behind[] = {find_stage(&p, 1, "preattend", beside ? 2 : RT_TRUNK),
                                       find_stage(&p, 1, "attend", RT_TRUNK)};
    for (uint32_t i = 0; i < 2; i++)
        assert_true(rt_program_edge_programmatic(&p, (uint32_t)(behind[i] - p.stages)));
    rt_program_free(&p);
    forget(&x);
}

static void test_beside(void **state)
{
    (void)state;
    struct rt_config c = block_config();
    c.geometry.layers = 2;
    c.projections = RT_PROJECTIONS_CUBLASLT;
    check_beside(&c, "qkv_a preattend q_b | 1 w_uk | 2 preattend | attend reduce w_uv o_proj ",
                 true);
    c.block.rope.original_max_length = 64;
    c.block.rope.query_scale_beta = 0.1;
    check_beside(&c, "qkv_a preattend q_b preattend w_uk attend reduce w_uv o_proj ", false);
    c.block.rope.query_scale_beta = 0;
    c.block.q_lora_rank = 0; /* queries of padding are what hidden is there */
    check_beside(&c, "qkv_a preattend w_uk attend reduce w_uv o_proj ", false);
}

/* More vectors than few: qkv_a in parts of k where all is ours, on an H200 four of V3's; whole
 * where the cache, a weight or the device is of another kind. */
static void check_cut(const struct rt_config *c, const char *device, uint32_t across,
                      uint32_t parts)
{
    struct planned x;
    struct rt_error err = {0};
    struct rt_program p = {0};
    plan_on(&x, c, device);
    lie_across(&x, across);
    if (rt_recipe_make(&x.source, &x.b->specs[0], NULL, &p, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_int_equal(count_stages(&p, "preattend_sums."), parts ? 1 : 0);
    if (!across) /* as nobody knows before weights are there */
        assert_int_equal(x.b->placement.dims.sum_tokens, parts ? c->batch_sizes[0] : 0);
    if (parts) {
        assert_int_equal(x.b->placement.dims.sum_parts, parts);
        const struct rt_stage *sums = &p.stages[stage_at(&p, "preattend_sums.0")];
        struct rt_preattend_sums_params params;
        memcpy(&params, sums->work->launch.params, sizeof(params));
        assert_int_equal(params.sums.parts, parts);
        assert_true(params.sums.kv_a == params.sums.q_a + 1536);
        assert_true(inside((uintptr_t)params.sums.q_a, &x.b->placement));
    }
    rt_program_free(&p);
    forget(&x);
}

static void test_cut(void **state)
{
    (void)state;
    struct rt_config c = block_config();
    c.batch_sizes[0] = 64;
    c.batch_size_count = 1;
    c.projections = RT_PROJECTIONS_OWN;
    check_cut(&c, "h200", 0, 4);
    check_cut(&c, "h200", 1u << RT_WEIGHT_KV_A, 0);
    check_cut(&c, "h200", 1u << RT_WEIGHT_Q_B, 4);
    check_cut(&c, "a100", 0, 0);
    c.kv_layout = RT_KV_FP8_TENSOR;
    check_cut(&c, "h200", 0, 0);
    c.kv_layout = RT_KV_BF16;
    c.batch_sizes[0] = 16;
    check_cut(&c, "h200", 0, 0);
    c.batch_sizes[0] = 72;
    check_cut(&c, "h200", 0, 0);
    c.batch_sizes[0] = 64;
    c.block.hidden_size = 113 * 64; /* of which there is no half in whole pieces */
    check_cut(&c, "h200", 0, 0);
}

/* ---- listed keys ----------------------------------------------------------------------------- */

static uint32_t is_early(const struct rt_program *p, const char *label)
{
    struct rt_preattend_params params;
    memcpy(&params, p->stages[stage_at(p, label)].work->launch.params, sizeof(params));
    return params.early;
}

/* No schedule stands in front of the blocks: the first may not ask for rows before it has waited.
 * Each layer's own is behind its queries, one for prompts and one for what decodes beside them. */
static void check_listed(const struct rt_program *p, const struct rt_graph_spec *spec)
{
    const bool chunk = rt_spec_is_chunk(spec);
    const uint32_t attentions = chunk && spec->decode_rows > 0 ? 2 : 1;
    assert_int_equal(count_stages(p, "schedule"), 0);
    assert_int_equal(count_stages(p, "attend."), 0);
    assert_int_equal(count_stages(p, "sparse_schedule."), 2 * attentions);
    assert_int_equal(count_stages(p, "sparse_attend."), 2 * attentions);
    assert_int_equal(count_stages(p, "reduce."), 2 * attentions);
    assert_int_equal(is_early(p, "preattend.0"), 0);
    assert_int_equal(is_early(p, "preattend.1"), !chunk);
    assert_true(stage_at(p, "w_uk.1") < stage_at(p, "sparse_schedule.1"));
    assert_true(stage_at(p, "preattend.1") < stage_at(p, "sparse_schedule.1"));
}

static void test_listed_blocks(void **state)
{
    (void)state;
    struct rt_error err = {0};
    struct rt_config c = block_config();
    struct planned x;
    c.geometry.heads = 64;
    c.geometry.layers = 2;
    c.block.rope.original_max_length = 64;
    c.block.rope.query_scale_beta = 0.1; /* so that preattend is a node of its own */
    c.topk = 48;
    c.chunks[0] = 16;
    c.chunks[1] = 512; /* expanded, but for the lists */
    c.chunk_count = 2;
    c.mixed_rows[0] = 4;
    c.mixed_row_count = 1;
    c.query_lens[1] = 3;
    c.query_len_count = 2;
    plan(&x, &c);
    for (uint32_t i = 0; i < x.b->spec_count; i++) {
        struct rt_program program = {0};
        if (rt_recipe_make(&x.source, &x.b->specs[i], NULL, &program, &err) != RT_OK)
            fail_msg("%s", err.message);
        check_listed(&program, &x.b->specs[i]);
        for (uint32_t k = 0; k < program.count; k++)
            if (strncmp(program.stages[k].label, "sparse_", strlen("sparse_")) == 0)
                check_launch(&program.stages[k], &x.b->placement);
        rt_program_free(&program);
    }
    forget(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masks_are_whole),
        cmocka_unit_test(test_listed_blocks),
        cmocka_unit_test(test_shared_node),
        cmocka_unit_test(test_weights_lie_as_they_do),
        cmocka_unit_test(test_sm90_by_name),
        cmocka_unit_test(test_wide_norm),
        cmocka_unit_test(test_branches),
        cmocka_unit_test(test_beside),
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
