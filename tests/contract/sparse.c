/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps whose stages list the keys: lists of all that a token sees give what dense attention gives,
 * a replay what an eager step gives, bit for bit, also where a step is several replays, and padding
 * nothing.
 */
#include "common/bf16.h"
#include "tests/support/fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEADS 3
#define D_QK 576
#define D_V 512
#define TOPK 80
#define MOST_TOKENS (6 * 3)

/* What the stages write: all of it follows from step, layer, row and token. */
struct inputs {
    uint64_t step;
    enum rt_kv_layout layout;
    bool listed; /* there are lists */
    bool random; /* of anything; else of what a causal token sees, last key first */
};

static void *tensor(rt_runtime *rt, const char *name, uint32_t layer)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    assert_int_equal(rt_tensor(rt, name, layer, &t), RT_OK);
    return (void *)(uintptr_t)t.address;
}

static void fill(uint16_t *to, uint32_t count, uint64_t *random)
{
    for (uint32_t i = 0; i < count; i++)
        to[i] = rt_float_to_bf16((float)(fixture_random(random) % 2001) / 1000 - 1);
}

static void list(const struct inputs *in, int32_t seen, int32_t *indices, int32_t *count,
                 uint64_t *random)
{
    *count = in->random ? (int32_t)(fixture_random(random) % (TOPK + 4)) - 2 : seen;
    for (int32_t i = 0; i < TOPK; i++)
        indices[i] = in->random ? (int32_t)(fixture_random(random) % 100) - 8
                     : i < seen ? seen - 1 - i
                                : INT32_MAX;
}

static int before(void *user, const struct rt_stage_context *c)
{
    const struct inputs *in = user;
    const int32_t *length = tensor(c->runtime, "lengths", 0);
    const int32_t base = *(const int32_t *)tensor(c->runtime, "row_base", 0);
    uint16_t *q = tensor(c->runtime, "q", c->layer), *latent = tensor(c->runtime, "latent", 0);
    for (uint32_t i = 0; i < c->batch * c->query_len; i++) {
        const uint32_t token = (uint32_t)base * c->query_len + i;
        const int32_t len = length[i / c->query_len], t = (int32_t)(i % c->query_len);
        uint64_t random = (in->step * 64 + c->layer) * 1024 + token + 1;
        if (len == 0)
            continue;
        fill(q + (size_t)token * HEADS * D_QK, HEADS * D_QK, &random);
        fill(latent + (size_t)token * D_QK, D_QK, &random);
        if (in->listed)
            list(in, len - ((int32_t)c->query_len - 1 - t),
                 (int32_t *)tensor(c->runtime, "sparse_indices", 0) + (size_t)token * TOPK,
                 (int32_t *)tensor(c->runtime, "sparse_counts", 0) + token, &random);
    }
    return 0;
}

static rt_runtime *create(struct inputs *in, const float *sinks)
{
    struct rt_config config;
    struct rt_error error = {0};
    rt_runtime *rt;
    fixture_config(&config);
    strcpy(config.device, "host");
    config.geometry.kv_lora_rank = D_V;
    config.geometry.qk_rope_head_dim = D_QK - D_V;
    config.kv_layout = in->layout;
    config.topk = in->listed ? TOPK : 0;
    config.sinks = sinks != NULL;
    struct rt_create_params params = {
        .struct_size = sizeof(params), .config = &config, .stage_user = in};
    params.stages[RT_STAGE_BEFORE_ATTENTION] = before;
    if (rt_create(&params, &rt, &error) != RT_OK)
        fail_msg("%s", error.message);
    for (uint32_t layer = 0; sinks && layer < config.geometry.layers; layer++)
        assert_int_equal(rt_tensor_write(rt, "attn_sink", layer, 0, sinks, HEADS * sizeof(*sinks)),
                         RT_OK);
    return rt;
}

/* A runtime, its sequences, and what the last layer of the step has left. */
struct side {
    struct inputs in;
    rt_runtime *rt;
    rt_seq seqs[6];
    uint32_t flags;
    uint16_t out[MOST_TOKENS * HEADS * D_V];
    float lse[MOST_TOKENS * HEADS];
};

static struct side *open_side(enum rt_kv_layout layout, bool listed, bool random, uint32_t flags,
                              const float *sinks)
{
    struct side *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->in = (struct inputs){.layout = layout, .listed = listed, .random = random};
    s->flags = flags;
    s->rt = create(&s->in, sinks);
    for (uint32_t i = 0; i < 6; i++)
        s->seqs[i] = fixture_open(s->rt);
    return s;
}

static void close_side(struct side *s)
{
    rt_destroy(&s->rt);
    free(s);
}

static void step(struct side *s, uint32_t rows, uint32_t q)
{
    const struct rt_step_params params = {.struct_size = sizeof(params),
                                          .rows = rows,
                                          .query_len = q,
                                          .seqs = s->seqs,
                                          .flags = s->flags};
    uint64_t ticket;
    s->in.step++;
    if (rt_step(s->rt, &params, &ticket) != RT_OK || rt_wait(s->rt, ticket, UINT64_MAX) != RT_OK)
        fail_msg("%s", rt_last_error(s->rt)->message);
    const size_t queries = (size_t)rows * q * HEADS;
    memcpy(s->out, tensor(s->rt, "out", 0), queries * D_V * sizeof(*s->out));
    memcpy(s->lse, tensor(s->rt, "lse", 0), queries * sizeof(*s->lse));
}

/* (rows of a step, their tokens): with padding, without, and five rows in two replays. */
static const uint32_t steps[][2] = {{1, 1}, {3, 3}, {5, 3}, {6, 1}, {4, 3}, {5, 1}, {6, 3}, {2, 1}};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

static void compare_with_dense(enum rt_kv_layout layout)
{
    const float sinks[HEADS] = {0.5f, -INFINITY, 3};
    struct side *dense = open_side(layout, false, false, 0, sinks);
    struct side *sparse = open_side(layout, true, false, 0, sinks);
    for (size_t n = 0; n < STEPS; n++) {
        step(dense, steps[n][0], steps[n][1]);
        step(sparse, steps[n][0], steps[n][1]);
        for (size_t i = 0; i < (size_t)steps[n][0] * steps[n][1] * HEADS; i++) {
            assert_true(fabsf(dense->lse[i] - sparse->lse[i]) <= 1e-4f);
            for (size_t d = i * D_V; d < (i + 1) * D_V; d++)
                if (!(fabsf(rt_bf16_to_float(dense->out[d]) - rt_bf16_to_float(sparse->out[d])) <=
                      0x1p-7f))
                    fail_msg("step %zu, out %zu: %g of all keys, %g of their list", n, d,
                             (double)rt_bf16_to_float(dense->out[d]),
                             (double)rt_bf16_to_float(sparse->out[d]));
        }
    }
    close_side(dense);
    close_side(sparse);
}

static void all_keys_are_dense_attention(void **state)
{
    (void)state;
    compare_with_dense(RT_KV_BF16);
    compare_with_dense(RT_KV_V32);
}

static void compare_with_eager(enum rt_kv_layout layout)
{
    struct side *replay = open_side(layout, true, true, 0, NULL);
    struct side *eager = open_side(layout, true, true, RT_STEP_EAGER, NULL);
    uint32_t numbers = 0, none = 0;
    for (size_t n = 0; n < 3 * STEPS; n++) {
        const uint32_t rows = steps[n % STEPS][0], q = steps[n % STEPS][1];
        const size_t queries = (size_t)rows * q * HEADS;
        step(replay, rows, q);
        step(eager, rows, q);
        assert_memory_equal(replay->out, eager->out, queries * D_V * sizeof(*replay->out));
        assert_memory_equal(replay->lse, eager->lse, queries * sizeof(*replay->lse));
        for (size_t i = 0; i < queries; i++) {
            assert_false(isnan(replay->lse[i]));
            numbers += isfinite(replay->lse[i]) != 0;
            none += replay->lse[i] == INFINITY;
        }
    }
    assert_true(numbers > 100 && none > 10); /* lists of keys, and lists of none */
    close_side(replay);
    close_side(eager);
}

static void replay_is_eager(void **state)
{
    (void)state;
    compare_with_eager(RT_KV_BF16);
    compare_with_eager(RT_KV_V32);
}

static void padding_is_zero(void **state)
{
    (void)state;
    struct side *s = open_side(RT_KV_BF16, true, false, 0, NULL);
    uint16_t *out = tensor(s->rt, "out", 0);
    float *lse = tensor(s->rt, "lse", 0);
    int32_t *count = tensor(s->rt, "sparse_counts", 0);
    for (size_t i = 0; i < 4 * 3; i++)
        count[i] = TOPK; /* of padding, which nobody looks at */
    memset(out, 0x7f, 4 * 3 * HEADS * D_V * sizeof(*out));
    step(s, 3, 3);
    for (size_t i = 3 * 3 * HEADS; i < 4 * 3 * HEADS; i++) {
        assert_true(lse[i] == INFINITY);
        for (size_t d = 0; d < D_V; d++)
            assert_int_equal(out[i * D_V + d], 0);
    }
    close_side(s);
}

static void refuse(void (*change)(struct rt_config *config), const char *words)
{
    struct rt_config config;
    struct rt_error error = {0};
    fixture_config(&config);
    config.geometry.kv_lora_rank = D_V;
    config.geometry.qk_rope_head_dim = D_QK - D_V;
    config.topk = TOPK;
    change(&config);
    struct rt_create_params params = {.struct_size = sizeof(params), .config = &config};
    rt_runtime *rt;
    assert_int_equal(rt_create(&params, &rt, &error), RT_ERR_CONFIG);
    assert_string_equal(error.message, words);
    assert_int_equal(rt_config_check(&config, &error), RT_ERR_CONFIG);
    assert_string_equal(error.message, words);
}

static void with_too_many_tokens(struct rt_config *config)
{
    config->batch_sizes[2] = 1366;
}

static void with_another_geometry(struct rt_config *config)
{
    config->geometry.kv_lora_rank = 256;
}

static void refusals(void **state)
{
    (void)state;
    refuse(with_too_many_tokens,
           "batch_sizes[2] is 1366: must be at most 1365 with attention.topk and query length 3");
    refuse(with_another_geometry,
           "topk is 80: must be absent but with d_qk/d_v 576/512 or 512/512");
}

/* A plan names each graph's kernel: 8 to 15 tokens of few heads have one without a reduction. */
static void plan_names_the_kernel(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {7, 8, 15, 16};
    struct rt_config config;
    struct rt_error error = {0};
    rt_plan *plan;
    fixture_config(&config);
    config.geometry.heads = 8;
    config.geometry.kv_lora_rank = D_V;
    config.geometry.qk_rope_head_dim = D_QK - D_V;
    config.topk = TOPK;
    (void)snprintf(config.device, sizeof(config.device), "auto");
    config.query_len_count = 1;
    config.query_lens[0] = 1;
    config.batch_size_count = sizeof(sizes) / sizeof(sizes[0]);
    memcpy(config.batch_sizes, sizes, sizeof(sizes));
    config.max_sequences = 16;
    if (rt_plan_create(&config, "h200", &plan, &error) != RT_OK)
        fail_msg("%s", error.message);
    for (uint32_t i = 0; i < config.batch_size_count; i++) {
        struct rt_plan_graph g = {.struct_size = sizeof(g)};
        const bool whole = sizes[i] >= 8 && sizes[i] <= 15;
        assert_int_equal(rt_plan_graph(plan, i, &g), RT_OK);
        assert_int_equal(g.batch, sizes[i]);
        assert_string_equal(g.attend, whole ? "rt_mla_sparse_sm90_576x512_w8"
                                            : "rt_mla_sparse_sm90_576x512_n8");
    }
    rt_plan_destroy(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_keys_are_dense_attention),
        cmocka_unit_test(replay_is_eager),
        cmocka_unit_test(padding_is_zero),
        cmocka_unit_test(refusals),
        cmocka_unit_test(plan_names_the_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
