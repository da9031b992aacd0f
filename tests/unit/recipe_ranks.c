/* SPDX-License-Identifier: Apache-2.0 */
/* Programs of ranks: what those that share a context have for each other, and what goes in one
 * launch where that was faster; blocks that are one kernel each. */
#include "kernels/abi/all_reduce_norm.h"
#include "kernels/abi/context_merge.h"
#include "kernels/abi/mla_block.h"
#include "runtime/ranks_impl.h"
#include "tests/unit/recipe_plan.h"

#include <stdio.h>

/* ---- ranks that share a context -------------------------------------------------------------- */

static bool fits(const struct rt_placed *t, const struct rt_span *span)
{
    return span->address == ARENA + t->offset && span->bytes > 0 && span->bytes <= t->bytes;
}

/* What ranks have for each other is where there is room for it; all of what they add is placed. */
static void check_context(const struct rt_program *p, const struct rt_placement *l)
{
    struct rt_span spans[RT_MAX_SPANS];
    assert_int_equal(count_stages(p, "context_rows"), 1);
    assert_int_equal(count_stages(p, "out_exchange."), 2);
    assert_int_equal(count_stages(p, "merge."), 2);
    for (uint32_t i = 0; i < p->count; i++) {
        const struct rt_stage *stage = &p->stages[i];
        if (stage->work->kind == RT_WORK_COLLECTIVE) {
            assert_int_equal(rt_collective_spans(&stage->work->collective, spans), 2);
            assert_int_equal(stage->work->collective.group, 4);
            assert_true(fits(&l->tensors[RT_TENSOR_GIVEN], &spans[0]));
            assert_true(fits(&l->tensors[RT_TENSOR_TAKEN], &spans[1]));
            assert_string_equal(p->stages[i + 1].label + strlen("merge"),
                                stage->label + strlen("out_exchange"));
        } else if (strcmp(stage->label, "context_rows") == 0 ||
                   strncmp(stage->label, "merge", 5) == 0)
            check_launch(stage, l);
    }
}

/* Of steps with drafts, of chunks alone and beside rows that decode. */
static void test_context(void **state)
{
    (void)state;
    struct rt_config c = block_config();
    struct planned x;
    struct rt_error err = {0};
    c.geometry.layers = 2;
    c.context_parallel = 4;
    c.query_lens[1] = 3;
    c.query_len_count = 2;
    c.max_sequences = 16;
    c.chunks[0] = 64;
    c.chunks[1] = 512;
    c.chunk_count = 2;
    c.mixed_rows[0] = 8;
    c.mixed_row_count = 1;
    plan(&x, &c);
    assert_int_equal(x.b->placement.max_blocks, 4); /* of 1000 tokens */
    for (uint32_t i = 0; i < x.b->spec_count; i++) {
        struct rt_program program = {0};
        if (rt_recipe_make(&x.source, &x.b->specs[i], NULL, &program, &err) != RT_OK)
            fail_msg("%s", err.message);
        check_context(&program, &x.b->placement);
        rt_program_free(&program);
    }
    forget(&x);
}

/* ---- ranks in one shot ----------------------------------------------------------------------- */

/* A rank of 4 whose memory is said to be mapped. */
static struct rt_comm mapped_comm(struct rt_driver *d)
{
    struct rt_comm comm = {.ranks = 4, .rank = 2, .peers = {.driver = d, .mapped = true}};
    for (uint32_t r = 0; r < 4; r++)
        comm.peers.memory[r] = UINT64_C(0x700000000000) + ((rt_addr)r << 32);
    comm.peers.stop_addr = UINT64_C(0x600000000000);
    return comm;
}

static struct rt_sum_choice chosen(const struct rt_collective *x, bool with_norm, bool one_shot)
{
    return (struct rt_sum_choice){.kind = x->kind,
                                  .count = x->count,
                                  .dtype = x->dtype,
                                  .with_norm = with_norm,
                                  .one_shot = one_shot,
                                  .reason = "measured"};
}

/* The first graph of it on a host device of that compute capability, by these choices for its sum,
 * the norm behind it and its exchange. */
static struct rt_program program_of(struct rt_config *c, uint32_t cc, bool sum, bool norm,
                                    bool context)
{
    struct planned x;
    struct rt_program program = {0};
    struct rt_error err = {0};
    struct rt_driver d = {0};
    struct rt_comm comm = mapped_comm(&d);
    static struct rt_sums sums; /* too large for the stack */
    sums.choice_count = 3;
    assert_int_equal(rt_driver_open_host(&d, &err), RT_OK);
    d.caps.cc = cc;
    plan_with(&x, c, &d.caps);
    assert_int_equal(rt_kernels_load(&d, &x.kernels, &err), RT_OK);
    const struct rt_graph_spec *const spec = &x.b->specs[0];
    const struct rt_collective hidden =
        rt_ranks_sum(c, &comm, rt_arena_addr(&x.arena, RT_TENSOR_HIDDEN, 0), spec->tokens);
    const struct rt_context_exchange swap =
        rt_context_exchange_of(x.b, &x.arena, &comm, spec->tokens);
    sums.choices[0] = chosen(&hidden, false, sum);
    sums.choices[1] = chosen(&hidden, true, norm);
    sums.choices[2] = chosen(&swap.swap, false, context);
    x.source.comm = &comm;
    x.source.sums = &sums;
    if (rt_recipe_make(&x.source, spec, NULL, &program, &err) != RT_OK)
        fail_msg("%s", err.message);
    rt_kernels_unload(&x.kernels);
    rt_driver_close(&d);
    forget(&x);
    return program;
}

static struct rt_program one_shot_program(struct rt_config *c, bool sum, bool norm, bool context)
{
    return program_of(c, 0, sum, norm, context);
}

static void expect_stages(struct rt_program p, const uint32_t counts[7])
{
    static const char *const names[] = {"o_proj_sum.",   "input_norm.", "sum_input_norm.",
                                        "out_exchange.", "merge.",      "context_merge.",
                                        "o_proj."};
    for (int i = 0; i < 7; i++)
        if (count_stages(&p, names[i]) != counts[i])
            fail_msg("%u stages %s, expected %u", count_stages(&p, names[i]), names[i], counts[i]);
    rt_program_free(&p);
}

static void test_ranks_in_one_shot(void **state)
{
    (void)state;
    struct rt_config c = block_config();
    c.geometry.layers = 3;
    c.input_norm = 1;
    expect_stages(one_shot_program(&c, false, false, false), (uint32_t[]){3, 3, 0, 0, 0, 0, 3});
    expect_stages(one_shot_program(&c, true, false, false), (uint32_t[]){3, 3, 0, 0, 0, 0, 3});
    /* The last layer's sum has no block behind it, the first one's norm no sum in front. */
    expect_stages(one_shot_program(&c, true, true, false), (uint32_t[]){1, 1, 2, 0, 0, 0, 3});
    c.context_parallel = 2;
    expect_stages(one_shot_program(&c, true, true, false), (uint32_t[]){1, 1, 2, 3, 3, 0, 3});
    expect_stages(one_shot_program(&c, true, true, true), (uint32_t[]){1, 1, 2, 0, 0, 3, 3});
}

/* What one launch does in place of two has their memory, and the mailboxes of who shares it. */
static void test_what_one_shot_gets(void **state)
{
    (void)state;
    struct rt_config c = block_config();
    struct rt_all_reduce_norm_params sum;
    struct rt_context_merge_params merge;
    c.geometry.layers = 2;
    c.input_norm = 1;
    c.context_parallel = 2;
    struct rt_program p = one_shot_program(&c, true, true, true);
    memcpy(&sum, p.stages[stage_at(&p, "sum_input_norm.1")].work->launch.params, sizeof(sum));
    memcpy(&merge, p.stages[stage_at(&p, "context_merge.1")].work->launch.params, sizeof(merge));
    assert_string_equal(p.stages[stage_at(&p, "sum_input_norm.1")].reason, "measured");
    assert_string_equal(p.stages[stage_at(&p, "context_merge.1")].reason, "measured");
    assert_ptr_equal(sum.sum.from, sum.norm.hidden);
    assert_int_equal(sum.sum.rank, 2);
    assert_int_equal(sum.sum.ranks, 4);
    assert_int_equal(sum.norm.norm.width, c.block.hidden_size);
    assert_int_equal(merge.rank, 0); /* of ranks 2 and 3 */
    assert_int_equal(merge.ranks, 2);
    assert_int_equal(merge.v_dim, c.geometry.kv_lora_rank);
    const uint64_t behind = rt_all_reduce_mailbox_bytes(4, RT_ALL_REDUCE_MOST_BLOCKS);
    assert_int_equal((uintptr_t)merge.mailbox[0], UINT64_C(0x700200000000) + behind);
    assert_int_equal((uintptr_t)merge.mailbox[1], UINT64_C(0x700300000000) + behind);
    assert_null(merge.mailbox[2]);
    assert_int_equal((uintptr_t)sum.sum.mailbox[3], UINT64_C(0x700300000000));
    rt_program_free(&p);
}

/* ---- blocks as one kernel -------------------------------------------------------------------- */

/* Each with the sum behind it, of the hidden that it leaves; norms are in the blocks. */
static void test_blocks_as_one_kernel(void **state)
{
    (void)state;
    struct rt_config c = block_config();
    struct rt_comm comm = {.ranks = 8, .rank = 3}; /* that nobody meets */
    struct planned x;
    struct rt_program p = {0};
    struct rt_error err = {0};
    c.geometry.layers = 3;
    c.input_norm = 1;
    plan(&x, &c);
    x.source.comm = &comm;
    if (rt_recipe_make(&x.source, &x.b->specs[0], NULL, &p, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_non_null(strstr(p.form, "a block is one kernel: "));
    assert_int_equal(count_stages(&p, "input_norm."), 0);
    assert_int_equal(count_stages(&p, "o_proj_sum."), 3);
    for (uint32_t layer = 0; layer < 3; layer++) {
        char name[32];
        struct rt_mla_block_params block;
        (void)snprintf(name, sizeof(name), "mla_block.%u", layer);
        const struct rt_stage *const at = &p.stages[stage_at(&p, name)];
        const struct rt_collective *const sum = &at[1].work->collective;
        memcpy(&block, at->work->launch.params, sizeof(block));
        assert_int_equal(at[1].work->kind, RT_WORK_COLLECTIVE);
        assert_int_equal(sum->from, (uintptr_t)block.hidden);
        assert_int_equal(sum->to, sum->from);
        assert_int_equal(sum->count, x.b->specs[0].tokens * c.block.hidden_size);
        assert_non_null(block.input_norm.weight);
    }
    rt_program_free(&p);
    forget(&x);
}

static struct rt_mla_block_params block_of(const struct rt_program *p, const char *label)
{
    struct rt_mla_block_params block;
    memcpy(&block, p->stages[stage_at(p, label)].work->launch.params, sizeof(block));
    return block;
}

/* Of several tokens in the sum in front, which leaves it where the block reads; of one, and behind
 * no sum, in the block. */
static void test_norms_of_blocks_as_one_kernel(void **state)
{
    (void)state;
    struct rt_config c = block_config();
    c.geometry.layers = 3;
    c.block.hidden_size = 2048;
    c.input_norm = 1;
    c.batch_size_count = 1;
    for (uint32_t rows = 1; rows <= 2; rows++) {
        const bool many = rows > 1;
        c.batch_sizes[0] = rows;
        struct rt_program p = program_of(&c, 90, true, true, false);
        struct rt_all_reduce_norm_params sum;
        assert_int_equal(count_stages(&p, "mla_block."), 3);
        assert_int_equal(count_stages(&p, "o_proj_sum."), many ? 1 : 3);
        assert_int_equal(count_stages(&p, "sum_input_norm."), many ? 2 : 0);
        assert_non_null(block_of(&p, "mla_block.0").input_norm.weight);
        const struct rt_mla_block_params next = block_of(&p, "mla_block.1");
        assert_int_equal(!next.input_norm.weight, many);
        assert_int_equal(!next.residual, many);
        if (many) {
            const struct rt_stage *const at = &p.stages[stage_at(&p, "mla_block.1") - 1];
            assert_string_equal(at->label, "sum_input_norm.1");
            memcpy(&sum, at->work->launch.params, sizeof(sum));
            assert_ptr_equal(sum.sum.to, next.hidden);
            assert_ptr_equal(sum.norm.normed, next.hidden);
            assert_ptr_equal(sum.norm.residual, block_of(&p, "mla_block.0").residual);
        }
        rt_program_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_ranks_in_one_shot),
        cmocka_unit_test(test_what_one_shot_gets),
        cmocka_unit_test(test_blocks_as_one_kernel),
        cmocka_unit_test(test_norms_of_blocks_as_one_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
