/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps over quantised caches: near what bf16 gives; replay as eager, bit for bit; a fork that has
 * a page's copy decodes as what it was forked from; a scale for each layer. And the operators over
 * the same layouts.
 */
#include "common/bf16.h"
#include "common/kv_format.h"
#include "replayrt/ops.h"
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
#define MOST_D 576
#define ROWS 3
#define LAYERS 2
#define SCALE 0.03125

static const struct wide {
    enum rt_kv_layout layout;
    uint32_t rank, rope;
} wides[] = {{RT_KV_FP8_TENSOR, 512, 64}, {RT_KV_FP8_TENSOR, 256, 32}, {RT_KV_FP8_TOKEN, 512, 64},
             {RT_KV_FP8_TOKEN, 512, 0},   {RT_KV_V32, 512, 64},        {RT_KV_V32, 256, 64},
             {RT_KV_V32_NO_ROPE, 512, 0}, {RT_KV_V4, 512, 0}};
#define WIDES (sizeof(wides) / sizeof(wides[0]))

struct inputs {
    uint32_t d_qk;
    uint64_t step;
    bool same_rows; /* all rows of a step have the same inputs */
};

static void *tensor(rt_runtime *rt, const char *name, uint32_t layer)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    assert_int_equal(rt_tensor(rt, name, layer, &t), RT_OK);
    return (void *)(uintptr_t)t.address;
}

static void fill(uint16_t *to, uint32_t count, uint64_t random)
{
    for (uint32_t i = 0; i < count; i++)
        to[i] = rt_float_to_bf16((float)(fixture_random(&random) % 2001) / 1000 - 1);
}

static int before(void *user, const struct rt_stage_context *c)
{
    const struct inputs *in = user;
    uint16_t *q = tensor(c->runtime, "q", 0), *latent = tensor(c->runtime, "latent", 0);
    for (uint32_t i = 0; i < c->batch * c->query_len; i++) {
        const uint32_t row = in->same_rows ? i % c->query_len : i;
        const uint64_t random = ((in->step * 64 + c->layer) * 1024 + row) * 2 + 1;
        fill(q + (size_t)i * HEADS * in->d_qk, HEADS * in->d_qk, random);
        fill(latent + (size_t)i * in->d_qk, in->d_qk, random + 1);
    }
    return 0;
}

/* A runtime, its sequences, and what its last step has left. */
struct side {
    struct inputs in;
    rt_runtime *rt;
    rt_seq seqs[ROWS];
    uint32_t flags, d_v;
    uint16_t out[ROWS * 3 * HEADS * MOST_D];
    float lse[ROWS * 3 * HEADS];
};

static struct side *open_side(const struct wide *w, enum rt_kv_layout layout, uint32_t flags,
                              const float *scales)
{
    struct side *s = calloc(1, sizeof(*s));
    struct rt_config config;
    struct rt_error error = {0};
    assert_non_null(s);
    fixture_config(&config);
    strcpy(config.device, "host");
    config.geometry.kv_lora_rank = w->rank;
    config.geometry.qk_rope_head_dim = w->rope;
    config.kv_layout = layout;
    config.kv_scale = layout == RT_KV_FP8_TENSOR ? SCALE : 1;
    s->in.d_qk = w->rank + w->rope;
    s->d_v = w->rank;
    s->flags = flags;
    struct rt_create_params params = {.struct_size = sizeof(params),
                                      .config = &config,
                                      .stage_user = &s->in,
                                      .kv_scales = scales};
    params.stages[RT_STAGE_BEFORE_ATTENTION] = before;
    if (rt_create(&params, &s->rt, &error) != RT_OK)
        fail_msg("%s", error.message);
    for (uint32_t i = 0; i < ROWS; i++)
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
    memcpy(s->out, tensor(s->rt, "out", 0), (size_t)rows * q * HEADS * s->d_v * sizeof(*s->out));
    memcpy(s->lse, tensor(s->rt, "lse", 0), (size_t)rows * q * HEADS * sizeof(*s->lse));
}

static double cosine_difference(const uint16_t *a, const uint16_t *b, size_t count)
{
    double dot = 0, norms = 0;
    for (size_t i = 0; i < count; i++) {
        const double x = (double)rt_bf16_to_float(a[i]), y = (double)rt_bf16_to_float(b[i]);
        assert_true(isfinite(x) && isfinite(y));
        dot += x * y;
        norms += x * x + y * y;
    }
    return 1 - 2 * dot / norms;
}

/* The same steps by three: replay is eager bit for bit, and what it gives is near bf16's. */
static void replay_is_eager_and_near_bf16(void **state)
{
    (void)state;
    for (size_t w = 0; w < WIDES; w++) {
        struct side *bf16 = open_side(&wides[w], RT_KV_BF16, 0, NULL);
        struct side *replay = open_side(&wides[w], wides[w].layout, 0, NULL);
        struct side *eager = open_side(&wides[w], wides[w].layout, RT_STEP_EAGER, NULL);
        for (uint32_t n = 0; n < 12; n++) {
            const uint32_t rows = 1 + n % ROWS, q = n % 2 ? 1 : 3;
            const size_t heads = (size_t)rows * q * HEADS, count = heads * replay->d_v;
            step(bf16, rows, q);
            step(replay, rows, q);
            step(eager, rows, q);
            assert_memory_equal(replay->out, eager->out, count * sizeof(*replay->out));
            assert_memory_equal(replay->lse, eager->lse, heads * sizeof(*replay->lse));
            const double off = cosine_difference(bf16->out, replay->out, count);
            if (!(off > 0 && off < 1e-3)) /* as checkkern has it; and it is not bf16 */
                fail_msg("%s of %u: step %u is %g from bf16", rt_kv_layout_name(wides[w].layout),
                         bf16->in.d_qk, n, off);
        }
        close_side(bf16);
        close_side(replay);
        close_side(eager);
    }
}

/* Its last page is half full, so it is copied: rows and, where they are apart, their scales. */
static void a_fork_has_the_scales_too(void **state)
{
    (void)state;
    for (size_t w = 0; w < WIDES; w++) {
        struct side *s = open_side(&wides[w], wides[w].layout, 0, NULL);
        for (uint32_t n = 0; n < 7; n++)
            step(s, 1, 3);
        assert_int_equal(rt_seq_close(s->rt, s->seqs[1]), RT_OK);
        assert_int_equal(rt_seq_fork(s->rt, s->seqs[0], &s->seqs[1]), RT_OK);
        s->in.same_rows = true;
        for (uint32_t n = 0; n < 4; n++) {
            step(s, 2, 3);
            const size_t of_row = (size_t)3 * HEADS * s->d_v;
            assert_memory_equal(s->out, s->out + of_row, of_row * sizeof(*s->out));
            assert_memory_equal(s->lse, s->lse + 3 * HEADS, 3 * HEADS * sizeof(*s->lse));
        }
        close_side(s);
    }
}

/* Of one layer, whose every number is a byte: that of another scale is another. */
static void scales_are_of_layers(void **state)
{
    (void)state;
    const struct wide *w = &wides[0];
    const float same[LAYERS] = {(float)SCALE, (float)SCALE}, other[LAYERS] = {(float)SCALE, 0.125f};
    struct side *a = open_side(w, w->layout, 0, NULL), *b = open_side(w, w->layout, 0, same),
                *c = open_side(w, w->layout, 0, other);
    struct rt_tensor t = {.struct_size = sizeof(t)};
    struct side *const sides[] = {a, b, c};
    for (size_t i = 0; i < 3; i++)
        step(sides[i], 1, 1);
    assert_int_equal(rt_tensor(a->rt, "kv", 0, &t), RT_OK);
    assert_int_equal(t.dtype, RT_DTYPE_U8);
    assert_int_equal(t.shape[2], 576);
    uint32_t page = 0; /* the first sequence's */
    while (memcmp((char *)tensor(a->rt, "kv", 0) + (size_t)page * t.shape[1] * 576,
                  (char *)tensor(b->rt, "kv", 0) + (size_t)page * t.shape[1] * 576, 576) == 0 &&
           page + 1 < t.shape[0])
        page++;
    assert_int_equal(page + 1, t.shape[0]); /* no page differs */
    const size_t layer_bytes = t.bytes;
    assert_memory_equal(tensor(a->rt, "kv", 1), tensor(b->rt, "kv", 1), layer_bytes);
    assert_memory_equal(tensor(a->rt, "kv", 0), tensor(c->rt, "kv", 0), layer_bytes);
    assert_true(memcmp(tensor(a->rt, "kv", 1), tensor(c->rt, "kv", 1), layer_bytes) != 0);
    for (size_t i = 0; i < 3; i++)
        close_side(sides[i]);
}

static void scales_are_refused(void **state)
{
    (void)state;
    const float bad[][LAYERS] = {{1, 0}, {NAN, 1}, {1, INFINITY}, {-1, 1}};
    const char *const words[] = {"kv_scales[1] is 0", "kv_scales[0] is", "kv_scales[1] is inf",
                                 "kv_scales[0] is -1"};
    struct rt_config config;
    struct rt_error error = {0};
    rt_runtime *rt;
    fixture_config(&config);
    strcpy(config.device, "host");
    struct rt_create_params params = {
        .struct_size = sizeof(params), .config = &config, .kv_scales = bad[0]};
    assert_int_equal(rt_create(&params, &rt, &error), RT_ERR_INVALID);
    assert_non_null(strstr(error.message, "kv_scales are given with layout bf16"));
    config.kv_layout = RT_KV_FP8_TENSOR;
    for (size_t i = 0; i < 4; i++) {
        params.kv_scales = bad[i];
        assert_int_equal(rt_create(&params, &rt, &error), RT_ERR_INVALID);
        if (!strstr(error.message, words[i]))
            fail_msg("%s", error.message);
        assert_null(rt);
    }
}

/* ---- operators ------------------------------------------------------------------------------- */

#define PAGE 16
#define PAGES 9
#define COLUMNS 3
#define TOKENS 37

/* A cache of one request, filled by slots, and what attention makes of it. */
struct op_case {
    struct rt_mla_shape shape;
    float kv_scale;
    unsigned char *kv;
    uint16_t *latent, *q, *out;
    float lse[HEADS];
};

static void *must_alloc(size_t bytes)
{
    void *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
    assert_non_null(p);
    memset(p, 0xff, (bytes + 255) / 256 * 256);
    return p;
}

static uint64_t address(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

static void op_append(rt_ops *ops, struct op_case *c, bool in_two)
{
    int64_t slots[TOKENS];
    const uint32_t d_v = c->shape.d_v, rope = c->shape.d_qk - d_v;
    uint16_t *of_rope = must_alloc((size_t)TOKENS * MOST_D * sizeof(*of_rope));
    uint16_t *of_latent = must_alloc((size_t)TOKENS * MOST_D * sizeof(*of_latent));
    struct rt_mla_append_args args = {.struct_size = sizeof(args),
                                      .shape = c->shape,
                                      .latent = address(c->latent),
                                      .kv = address(c->kv),
                                      .slot_mapping = address(slots),
                                      .kv_scale = c->kv_scale};
    args.shape.batch = TOKENS;
    for (uint32_t t = 0; t < TOKENS; t++) {
        slots[t] = (int64_t)(t / PAGE * 2 + 1) * PAGE + t % PAGE;
        memcpy(of_latent + (size_t)t * d_v, c->latent + (size_t)t * c->shape.d_qk, 2 * (size_t)d_v);
        memcpy(of_rope + (size_t)t * rope, c->latent + (size_t)t * c->shape.d_qk + d_v,
               2 * (size_t)rope);
    }
    if (in_two) {
        args.latent = address(of_latent);
        args.rope = address(of_rope);
    }
    if (rt_mla_append(ops, &args, NULL) != RT_OK)
        fail_msg("%s", rt_ops_last_error(ops)->message);
    free(of_rope);
    free(of_latent);
}

static void op_decode(rt_ops *ops, struct op_case *c)
{
    int32_t table[COLUMNS] = {1, 3, 5}, length = TOKENS;
    struct rt_mla_workspace w = {.struct_size = sizeof(w)};
    assert_int_equal(rt_mla_workspace_size(ops, &c->shape, &w), RT_OK);
    void *parts = must_alloc(w.part_bytes), *splits = must_alloc(w.num_splits_bytes);
    void *partial_out = must_alloc(w.partial_out_bytes), *lse = must_alloc(w.partial_lse_bytes);
    const struct rt_mla_schedule_args schedule = {
        .struct_size = sizeof(schedule),
        .shape = c->shape,
        .lengths = address(&length),
        .schedule = {.parts = address(parts), .num_splits = address(splits)}};
    const struct rt_mla_decode_args decode = {.struct_size = sizeof(decode),
                                              .softmax_scale = 0.1f,
                                              .shape = c->shape,
                                              .q = address(c->q),
                                              .kv = address(c->kv),
                                              .block_table = address(table),
                                              .lengths = address(&length),
                                              .schedule = schedule.schedule,
                                              .partial_out = address(partial_out),
                                              .partial_lse = address(lse),
                                              .out = address(c->out),
                                              .lse = address(c->lse),
                                              .kv_scale = c->kv_scale};
    if (rt_mla_schedule(ops, &schedule, NULL) != RT_OK ||
        rt_mla_decode(ops, &decode, NULL) != RT_OK)
        fail_msg("%s", rt_ops_last_error(ops)->message);
    free(parts);
    free(splits);
    free(partial_out);
    free(lse);
}

static struct op_case open_case(const struct wide *w, enum rt_kv_layout layout)
{
    struct op_case c = {.shape = {.struct_size = sizeof(c.shape),
                                  .batch = 1,
                                  .query_len = 1,
                                  .heads = HEADS,
                                  .d_qk = w->rank + w->rope,
                                  .d_v = w->rank,
                                  .page_size = PAGE,
                                  .max_blocks = COLUMNS,
                                  .pages = PAGES,
                                  .causal = 1,
                                  .kv_layout = layout},
                        .kv_scale = layout == RT_KV_FP8_TENSOR ? (float)SCALE : 0};
    c.kv = must_alloc((size_t)PAGES * PAGE * MOST_D * 2);
    c.latent = must_alloc((size_t)TOKENS * MOST_D * 2);
    c.q = must_alloc((size_t)HEADS * MOST_D * 2);
    c.out = must_alloc((size_t)HEADS * MOST_D * 2);
    fill(c.latent, TOKENS * c.shape.d_qk, 77);
    fill(c.q, HEADS * c.shape.d_qk, 78);
    return c;
}

static void close_case(struct op_case *c)
{
    free(c->kv);
    free(c->latent);
    free(c->q);
    free(c->out);
}

static void operators_have_layouts(void **state)
{
    (void)state;
    rt_ops *ops;
    assert_int_equal(rt_ops_create("host", &ops, NULL), RT_OK);
    for (size_t w = 0; w < WIDES; w++) {
        struct op_case plain = open_case(&wides[w], RT_KV_BF16);
        struct op_case whole = open_case(&wides[w], wides[w].layout);
        struct op_case in_two = open_case(&wides[w], wides[w].layout);
        op_append(ops, &plain, false);
        op_append(ops, &whole, false);
        op_append(ops, &in_two, wides[w].rope > 0);
        assert_memory_equal(whole.kv, in_two.kv, (size_t)PAGES * PAGE * MOST_D * 2);
        op_decode(ops, &plain);
        op_decode(ops, &whole);
        const double off = cosine_difference(plain.out, whole.out, (size_t)HEADS * plain.shape.d_v);
        if (!(off > 0 && off < 1e-3))
            fail_msg("%s of %u is %g from bf16", rt_kv_layout_name(wides[w].layout),
                     plain.shape.d_qk, off);
        for (uint32_t h = 0; h < HEADS; h++)
            assert_true(fabsf(plain.lse[h] - whole.lse[h]) < 0.1f);
        close_case(&plain);
        close_case(&whole);
        close_case(&in_two);
    }
    rt_ops_destroy(&ops);
}

static void refuse_append(rt_ops *ops, struct rt_mla_append_args args, enum rt_status status,
                          const char *words)
{
    assert_int_equal(rt_mla_append(ops, &args, NULL), status);
    if (!strstr(rt_ops_last_error(ops)->message, words))
        fail_msg("\"%s\" does not say \"%s\"", rt_ops_last_error(ops)->message, words);
}

static void operators_refuse(void **state)
{
    (void)state;
    rt_ops *ops;
    int64_t slot = 0;
    assert_int_equal(rt_ops_create("host", &ops, NULL), RT_OK);
    struct op_case c = open_case(&wides[4], RT_KV_V32);
    const struct rt_mla_append_args good = {.struct_size = sizeof(good),
                                            .shape = c.shape,
                                            .latent = address(c.latent),
                                            .kv = address(c.kv),
                                            .slot_mapping = address(&slot)};
    assert_int_equal(rt_mla_append(ops, &good, NULL), RT_OK);
    struct rt_mla_append_args bad = good;
    bad.shape.kv_layout = (enum rt_kv_layout)6;
    refuse_append(ops, bad, RT_ERR_INVALID, "kv_layout 6 is not known");
    bad.shape.kv_layout = RT_KV_V4;
    refuse_append(ops, bad, RT_ERR_GEOMETRY, "kv_layout v4 has no d_qk/d_v 576/512");
    bad = good;
    bad.kv_scale = 1;
    refuse_append(ops, bad, RT_ERR_INVALID, "kv_scale 1 with layout v32");
    bad = good;
    bad.shape.kv_layout = RT_KV_FP8_TENSOR;
    refuse_append(ops, bad, RT_ERR_INVALID, "kv_scale 0 is not a finite number above 0");
    bad.kv_scale = NAN;
    refuse_append(ops, bad, RT_ERR_INVALID, "is not a finite number above 0");
    bad = good;
    bad.kv_token_stride = 664; /* bytes */
    refuse_append(ops, bad, RT_ERR_INVALID, "kv_token_stride = 664");
    bad = good;
    bad.shape.kv_layout = RT_KV_FP8_TOKEN;
    bad.kv_page_stride = PAGE * 640; /* without their scales */
    refuse_append(ops, bad, RT_ERR_INVALID, "scales of kv");
    bad = good;
    bad.shape.backend = RT_BACKEND_SM90; /* pages of a token are the generic kernels' */
    bad.shape.page_size = 1;
    bad.kv_page_stride = 0;
    refuse_append(ops, bad, RT_ERR_UNSUPPORTED, "sm90");
    close_case(&c);
    rt_ops_destroy(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replay_is_eager_and_near_bf16),
        cmocka_unit_test(a_fork_has_the_scales_too),
        cmocka_unit_test(scales_are_of_layers),
        cmocka_unit_test(scales_are_refused),
        cmocka_unit_test(operators_have_layouts),
        cmocka_unit_test(operators_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
