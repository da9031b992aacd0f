/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/dump.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char GOLDEN[] =
    "digraph \"batch 8, query length 2\" {\n"
    "    node [shape=box];\n"
    "    s0 [label=\"step_begin\\nrt_step_begin\\ngrid 1x1x1 block 256x1x1\"];\n"
    "    s1 [label=\"say \\\"hi\\\" \\\\ now\\ncallback\", style=rounded];\n"
    "    s0 -> s1;\n"
    "    s2 [label=\"append.0\\nrt_append\\ngrid 16x2x3 block 128x2x1\"];\n"
    "    s1 -> s2;\n"
    "    s3 [label=\"attend.0\\nrt_mla_attend\\ngrid 132x4x1 block 384x1x1 cluster 2 "
    "cooperative\\n"
    "200704 bytes shared\"];\n"
    "    s2 -> s3 [style=dashed];\n"
    "    s4 [label=\"o_proj.0\\nmatmul\\n1 x [8, 2048] by [7168, 2048], bf16 to f32, bias\\n"
    "algo 66, \\\"split-K\\\" 5\"];\n"
    "    s3 -> s4;\n"
    "    s5 [label=\"sum.0\\nall_reduce\\n57344 bf16, 4 ranks\"];\n"
    "    s4 -> s5;\n"
    "}\n";

static const struct rt_matmul_plan PLAN = {.candidates = 1, .text = "algo 66, \"split-K\" 5"};

static int never(void *user, rt_dstream stream)
{
    (void)user;
    (void)stream;
    return 1;
}

/* As a plan without a device makes it: kernels are null. */
static int set_up(void **state)
{
    struct rt_program *const p = calloc(1, sizeof(*p));
    if (!p)
        return -1;
    p->spec =
        (struct rt_graph_spec){.phase = RT_PHASE_DECODE, .rows = 8, .tokens = 16, .decode_rows = 8};
    const struct {
        const char *label;
        uint32_t layer;
        struct rt_work work;
    } stages[] = {
        {"step_begin",
         RT_NO_LAYER,
         {.kind = RT_WORK_LAUNCH,
          .launch =
              {.entry = "rt_step_begin", .grid = {1, 1, 1}, .block = {256, 1, 1}, .waits = true}}},
        {"say \"hi\" \\\nnow", 0, {.kind = RT_WORK_CALL, .call = {.fn = never}}},
        {"append.0",
         0,
         {.kind = RT_WORK_LAUNCH,
          .launch =
              {.entry = "rt_append", .grid = {16, 2, 3}, .block = {128, 2, 1}, .waits = true}}},
        {"attend.0",
         0,
         {.kind = RT_WORK_LAUNCH,
          .launch = {.entry = "rt_mla_attend",
                     .grid = {132, 4, 1},
                     .block = {384, 1, 1},
                     .cluster_x = 2,
                     .cooperative = true,
                     .smem_bytes = 200704,
                     .waits = true}}},
        {"o_proj.0",
         0,
         {.kind = RT_WORK_MATMUL,
          .matmul = {.bias = 256,
                     .input_dtype = RT_DTYPE_BF16,
                     .weight_dtype = RT_DTYPE_BF16,
                     .output_dtype = RT_DTYPE_F32,
                     .batch = 1,
                     .m = 8,
                     .n = 7168,
                     .k = 2048,
                     .plan = &PLAN}}},
        {"sum.0",
         0,
         {.kind = RT_WORK_COLLECTIVE,
          .collective =
              {.kind = RT_ALL_REDUCE, .dtype = RT_DTYPE_BF16, .count = 57344, .ranks = 4}}},
    };
    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++)
        assert_int_equal(rt_program_add(p, stages[i].label, stages[i].layer, &stages[i].work, NULL),
                         RT_OK);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    rt_program_free(*state);
    free(*state);
    return 0;
}

static void test_matches_the_golden_text(void **state)
{
    char text[2048];
    assert_int_equal(rt_program_dot(*state, text, sizeof(text)), sizeof(GOLDEN));
    assert_string_equal(text, GOLDEN);
}

static void test_every_capacity_is_respected(void **state)
{
    for (size_t capacity = 0; capacity <= sizeof(GOLDEN) + 1; capacity++) {
        char text[sizeof(GOLDEN) + 2];
        memset(text, '#', sizeof(text));
        assert_int_equal(rt_program_dot(*state, text, capacity), sizeof(GOLDEN));
        const size_t kept = capacity < sizeof(GOLDEN) ? capacity : sizeof(GOLDEN);
        if (kept > 0) {
            assert_memory_equal(text, GOLDEN, kept - 1);
            assert_int_equal(text[kept - 1], '\0');
        }
        for (size_t i = capacity; i < sizeof(text); i++)
            assert_int_equal(text[i], '#');
    }
    assert_int_equal(rt_program_dot(*state, NULL, 0), sizeof(GOLDEN));
}

static void test_branches(void **state)
{
    (void)state;
    struct rt_program p = {.spec = {.phase = RT_PHASE_DECODE, .rows = 1, .tokens = 1}};
    const struct rt_work work = {.kind = RT_WORK_LAUNCH, .launch = {.entry = "k", .waits = true}};
    static const uint32_t branches[] = {0, 1, 1, 2, 0};
    for (uint32_t i = 0; i < 5; i++) {
        p.branch = branches[i];
        assert_int_equal(rt_program_add(&p, "s", 0, &work, NULL), RT_OK);
    }
    static const char *const edges[] = {"s0 -> s1;", "s1 -> s2 [style=dashed];", "s0 -> s3;",
                                        "s2 -> s4;", "s3 -> s4;"};
    char text[1024];
    const char *at = text;
    (void)rt_program_dot(&p, text, sizeof(text));
    for (uint32_t i = 0; i < 5; i++) {
        at = strstr(at, edges[i]);
        if (!at)
            fail_msg("\"%s\" is not in its place in %s", edges[i], text);
    }
    assert_null(strstr(text, "s2 -> s3"));
    rt_program_free(&p);
}

static void test_empty_program(void **state)
{
    (void)state;
    const struct rt_program p = {.spec = {.phase = RT_PHASE_DECODE, .rows = 1, .tokens = 1}};
    char text[128];
    (void)rt_program_dot(&p, text, sizeof(text));
    assert_string_equal(text, "digraph \"batch 1, query length 1\" {\n    node [shape=box];\n}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_matches_the_golden_text, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_capacity_is_respected, set_up, tear_down),
        cmocka_unit_test(test_branches),
        cmocka_unit_test(test_empty_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
