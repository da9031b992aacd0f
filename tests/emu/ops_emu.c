/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replayrt/ops.h with the CUDA kernels: schedule, append and decode through the public door, by
 * every attention kernel, against the C references. int32 and f32 tensors begin where their
 * elements' alignment alone holds, as slices of an engine's tensors do; what nobody may read is
 * NaN.
 */
#include "common/bf16.h"
#include "kernels/ref/ref.h"
#include "runtime/ops_work.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 3
#define PAGES 48
#define SLICE 4u /* bytes: int32 and f32 tensors begin so far behind a multiple of 256 */
#define MOST_TENSORS 24
#define SCALE 3.0f

struct ops_case {
    uint32_t d_qk, d_v, heads, q_len, page_size;
    enum rt_backend backend;
    const char *kind; /* end of the kernel's name */
    bool slots, rope, q_rope;
    bool invariant;
    bool uneven, rope_uneven; /* tokens are farther apart than heads times a head */
    enum rt_lse_base lse_base;
};

struct rig {
    struct ops_case c;
    struct rt_mla_shape shape;
    struct rt_mla_workspace workspace;
    rt_ops *ops;
    uint64_t random;
    void *held[MOST_TENSORS];
    uint32_t held_count;
    /* Tensors. */
    uint16_t *q, *q_rope, *kv, *kv_truth, *latent, *rope, *out;
    int32_t *table, *lengths, *positions, *num_splits;
    int64_t *slot_mapping;
    struct rt_part *parts;
    float *lse, *partial_out, *partial_lse;
};

static _Noreturn void fail(const struct rig *r, const char *what, const char *detail)
{
    printf("%s, %u heads, query length %u, page %u%s%s%s%s%s%s: %s: %s\n", r->workspace.kernel,
           r->c.heads, r->c.q_len, r->c.page_size, r->c.slots ? ", slots" : "",
           r->c.rope ? ", rope" : "", r->c.q_rope ? ", q_rope" : "",
           r->c.uneven ? ", uneven q" : "", r->c.rope_uneven ? ", uneven q_rope" : "",
           r->c.lse_base == RT_LSE_BASE2 ? ", base-2 lse" : "", what, detail);
    exit(1);
}

static void must(const struct rig *r, enum rt_status status, const char *what)
{
    if (status != RT_OK)
        fail(r, what, rt_ops_last_error(r->ops)->message);
}

static void *take(struct rig *r, size_t bytes, size_t slice)
{
    const size_t whole = (bytes + slice + 255) / 256 * 256;
    unsigned char *base = r->held_count < MOST_TENSORS ? aligned_alloc(256, whole) : NULL;
    if (!base)
        fail(r, "take", "no memory");
    memset(base, 0xff, whole); /* NaN, and ids that nobody may follow */
    r->held[r->held_count++] = base;
    return base + slice;
}

static uint32_t below(struct rig *r, uint32_t n)
{
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->random >> 33) % n;
}

/* Up to a quarter: what the kernels round weights to is below the bound then. */
static void fill(struct rig *r, uint16_t *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = rt_float_to_bf16((float)below(r, 2001) / 4000.0f - 0.25f);
}

/* What is chosen for a host device has one size of tile: here it is chosen as on a small H100. */
enum rt_status __real_rt_op_resolve(enum rt_op_id op, const struct rt_op_request *request,
                                    struct rt_variant *out, struct rt_error *err);
enum rt_status __wrap_rt_op_resolve(enum rt_op_id op, const struct rt_op_request *request,
                                    struct rt_variant *out, struct rt_error *err);

enum rt_status __wrap_rt_op_resolve(enum rt_op_id op, const struct rt_op_request *request,
                                    struct rt_variant *out, struct rt_error *err)
{
    struct rt_device_caps caps = *request->caps;
    struct rt_op_request as_cuda = *request;
    caps.kind = RT_DEVICE_KIND_CUDA;
    caps.smem_optin_bytes = 227 * 1024;
    caps.sm_count = 10;
    as_cuda.caps = &caps;
    return __real_rt_op_resolve(op, &as_cuda, out, err);
}

/* ---- a case ---- */

static void set_shape(struct rig *r)
{
    const struct ops_case *c = &r->c;
    r->shape = (struct rt_mla_shape){.struct_size = sizeof(r->shape),
                                     .batch = BATCH,
                                     .query_len = c->q_len,
                                     .heads = c->heads,
                                     .d_qk = c->d_qk,
                                     .d_v = c->d_v,
                                     .page_size = c->page_size,
                                     .max_blocks = 256 / c->page_size,
                                     .pages = PAGES,
                                     .causal = 1,
                                     .backend = c->backend};
    r->workspace = (struct rt_mla_workspace){.struct_size = sizeof(r->workspace), .kernel = "?"};
    must(r,
         c->invariant ? rt_mla_invariant_workspace_size(r->ops, &r->shape, &r->workspace)
                      : rt_mla_workspace_size(r->ops, &r->shape, &r->workspace),
         "workspace");
    const char *kernel = r->workspace.kernel;
    const size_t kind = strlen(c->kind), name = strlen(kernel);
    if (name < kind || strcmp(kernel + name - kind, c->kind) != 0)
        fail(r, "meant to be", c->kind);
}

/* Room for either part of q, with gaps between the tokens. */
static size_t q_elements(const struct ops_case *c)
{
    return (size_t)BATCH * c->q_len * (c->heads * c->d_qk + 64);
}

static void take_tensors(struct rig *r)
{
    const struct ops_case *c = &r->c;
    const size_t tokens = (size_t)BATCH * c->q_len, queries = tokens * c->heads;
    const size_t kv = (size_t)PAGES * c->page_size * c->d_qk;
    r->q = take(r, 2 * q_elements(c), 0);
    r->q_rope = take(r, 2 * q_elements(c), 0);
    r->kv = take(r, 2 * kv, 0);
    r->kv_truth = take(r, 2 * kv, 0);
    r->latent = take(r, 2 * tokens * c->d_qk, 0);
    r->rope = take(r, 2 * tokens * c->d_qk, 0);
    r->out = take(r, 2 * queries * c->d_v, 0);
    r->lse = take(r, 4 * queries, SLICE);
    r->table = take(r, sizeof(int32_t) * BATCH * r->shape.max_blocks, SLICE);
    r->lengths = take(r, sizeof(int32_t) * BATCH, SLICE);
    r->positions = take(r, sizeof(int32_t) * BATCH, SLICE);
    r->slot_mapping = take(r, sizeof(int64_t) * tokens, sizeof(int64_t));
    r->parts = take(r, r->workspace.part_bytes, 0);
    r->num_splits = take(r, r->workspace.num_splits_bytes, SLICE);
    r->partial_out = take(r, r->workspace.partial_out_bytes, 0);
    r->partial_lse = take(r, r->workspace.partial_lse_bytes, SLICE);
}

static int64_t slot_of(const struct rig *r, uint32_t row, int32_t position)
{
    const int32_t page = (int32_t)r->c.page_size;
    return (int64_t)r->table[row * r->shape.max_blocks + (uint32_t)(position / page)] * page +
           position % page;
}

/* Old keys are there already, the new ones come by append; everything else is NaN. */
static void fill_tensors(struct rig *r)
{
    const struct ops_case *c = &r->c;
    const size_t tokens = (size_t)BATCH * c->q_len;
    const int32_t lengths[BATCH] = {200, 0, (int32_t)(c->page_size + c->q_len)};
    const uint32_t columns = r->shape.max_blocks;
    fill(r, r->q, q_elements(c));
    fill(r, r->q_rope, q_elements(c));
    fill(r, r->latent, tokens * c->d_qk);
    fill(r, r->rope, tokens * c->d_qk);
    for (uint32_t i = 0; i < BATCH; i++) {
        const int32_t old = lengths[i] - (int32_t)c->q_len;
        r->lengths[i] = lengths[i];
        r->positions[i] = lengths[i] ? old : -1;
        for (uint32_t k = 0; (int32_t)(k * c->page_size) < lengths[i]; k++)
            r->table[i * columns + k] = (int32_t)((k * 7 + i * 23 + 5) % PAGES);
        for (int32_t k = 0; k < old; k++)
            fill(r, r->kv + slot_of(r, i, k) * c->d_qk, c->d_qk);
        for (uint32_t t = 0; t < c->q_len; t++)
            r->slot_mapping[i * c->q_len + t] =
                lengths[i] ? slot_of(r, i, old + (int32_t)t) : -1 - (int64_t)t;
    }
    memcpy(r->kv_truth, r->kv, 2 * (size_t)PAGES * c->page_size * c->d_qk);
}

/* ---- the operators, each against its reference ---- */

static struct rt_mla_schedule_buffers schedule_of(const struct rig *r)
{
    return (struct rt_mla_schedule_buffers){(uintptr_t)r->parts, (uintptr_t)r->num_splits};
}

static void run_schedule(struct rig *r)
{
    const struct rt_mla_schedule_args args = {.struct_size = sizeof(args),
                                              .invariant = r->c.invariant,
                                              .shape = r->shape,
                                              .lengths = (uintptr_t)r->lengths,
                                              .schedule = schedule_of(r)};
    struct rt_driver device;
    struct rt_ops_choice choice;
    struct rt_error err = {0};
    if (rt_driver_open("host", &device, NULL, 0, &err) != RT_OK ||
        rt_ops_choose("choice", &device.caps, &r->shape, r->c.invariant, &choice, &err) != RT_OK)
        fail(r, "choice", err.message);
    struct rt_part *parts = take(r, r->workspace.part_bytes, 0);
    int32_t *num_splits = take(r, r->workspace.num_splits_bytes, 0);
    const struct rt_schedule_params p = {
        .rows = {.length = r->lengths, .count = BATCH, .q_len = r->c.q_len},
        .schedule = {.parts = parts,
                     .num_splits = num_splits,
                     .part_count = r->workspace.parts,
                     .invariant = r->c.invariant},
        .overhead_blocks = choice.attend.overhead_blocks,
        .min_blocks = choice.attend.min_blocks};
    rt_driver_close(&device);
    rt_ref_schedule(&p);
    must(r, rt_mla_schedule(r->ops, &args, NULL), "schedule");
    if (memcmp(parts, r->parts, r->workspace.part_bytes) != 0 ||
        memcmp(num_splits, r->num_splits, r->workspace.num_splits_bytes) != 0)
        fail(r, "schedule", "differs from the reference");
}

static struct rt_kv_view kv_view(const struct rig *r, uint16_t *base)
{
    return (struct rt_kv_view){.base = (unsigned char *)base,
                               .table = r->table,
                               .page_stride_bytes = 2 * (int64_t)r->c.page_size * r->c.d_qk,
                               .token_stride_bytes = 2 * (int64_t)r->c.d_qk,
                               .page_size = r->c.page_size,
                               .max_blocks = r->shape.max_blocks,
                               .pages = PAGES,
                               .token_bytes = 2 * r->c.d_qk};
}

/* In the reference always by the table, and with the token's two parts where the case has them. */
static void run_append(struct rig *r)
{
    const struct ops_case *c = &r->c;
    const uint32_t width = c->rope ? c->d_v : c->d_qk, rest = c->d_qk - width;
    struct rt_append_general_params p = {
        .append = {.latent = {r->latent, (int64_t)c->q_len * width, width},
                   .kv = kv_view(r, r->kv_truth),
                   .rows = {.position = r->positions, .count = BATCH, .q_len = c->q_len}}};
    if (c->rope) {
        p.rope = (struct rt_tokens_view){r->rope, (int64_t)c->q_len * rest, rest};
        p.rope_bytes = 2 * rest;
    }
    rt_ref_append_general(&p);
    const struct rt_mla_append_args args = {.struct_size = sizeof(args),
                                            .shape = r->shape,
                                            .latent = (uintptr_t)r->latent,
                                            .kv = (uintptr_t)r->kv,
                                            .block_table = c->slots ? 0 : (uintptr_t)r->table,
                                            .positions = c->slots ? 0 : (uintptr_t)r->positions,
                                            .rope = c->rope ? (uintptr_t)r->rope : 0,
                                            .slot_mapping =
                                                c->slots ? (uintptr_t)r->slot_mapping : 0};
    must(r, rt_mla_append(r->ops, &args, NULL), "append");
    if (memcmp(r->kv, r->kv_truth, 2 * (size_t)PAGES * c->page_size * c->d_qk) != 0)
        fail(r, "append", "differs from the reference");
}

static void expect_near(const struct rig *r, const char *what, double got, double want,
                        double bound)
{
    char text[96];
    if (got == want || fabs(got - want) <= bound)
        return;
    (void)snprintf(text, sizeof(text), "%g, not %g", got, want);
    fail(r, what, text);
}

/* One tensor, or the values alone. */
static struct rt_heads_view q_view(const struct rig *r)
{
    const struct ops_case *c = &r->c;
    const int64_t head = c->q_rope ? c->d_v : c->d_qk;
    const int64_t token = c->heads * head + (c->uneven ? 8 : 0);
    return (struct rt_heads_view){r->q, c->q_len * token, token, head};
}

/* The rope part of q has gaps between heads, and between requests. */
static struct rt_heads_view q_rope_view(const struct rig *r)
{
    const struct ops_case *c = &r->c;
    const int64_t head = c->d_qk - c->d_v + 8, token = c->heads * head + (c->rope_uneven ? 24 : 0);
    if (!c->q_rope)
        return (struct rt_heads_view){0};
    return (struct rt_heads_view){r->q_rope, c->q_len * token + 16, token, head};
}

static void check_decode(const struct rig *r)
{
    const struct ops_case *c = &r->c;
    const size_t queries = (size_t)BATCH * c->q_len * c->heads;
    const struct rt_attend_params p = {
        .q = q_view(r),
        .q_rope = q_rope_view(r),
        .kv = kv_view(r, r->kv_truth),
        .rows = {.length = r->lengths, .count = BATCH, .q_len = c->q_len},
        .scale = SCALE,
        .heads = c->heads,
        .d_qk = c->d_qk,
        .d_v = c->d_v,
        .causal = 1,
        .lse_base2 = c->lse_base == RT_LSE_BASE2};
    double *out = calloc(queries * (c->d_v + 1), sizeof(double));
    if (!out)
        fail(r, "truth", "no memory");
    double *lse = out + queries * c->d_v;
    rt_ref_mla_attention(&p, out, lse);
    for (size_t i = 0; i < queries; i++)
        expect_near(r, "lse", (double)r->lse[i], lse[i], 1e-5 + fabs(lse[i]) * 8.01 / 65536);
    for (size_t i = 0; i < queries * c->d_v; i++)
        expect_near(r, "out", (double)rt_bf16_to_float(r->out[i]), out[i],
                    8e-4 + fabs(out[i]) * 2.01 / 128);
    free(out);
}

static void run_decode(struct rig *r)
{
    const struct rt_heads_view q = q_view(r), rope = q_rope_view(r);
    const size_t queries = (size_t)BATCH * r->c.q_len * r->c.heads;
    struct rt_mla_decode_args args = {.struct_size = sizeof(args),
                                      .softmax_scale = SCALE,
                                      .shape = r->shape,
                                      .q = (uintptr_t)q.base,
                                      .kv = (uintptr_t)r->kv,
                                      .block_table = (uintptr_t)r->table,
                                      .lengths = (uintptr_t)r->lengths,
                                      .schedule = schedule_of(r),
                                      .partial_out = (uintptr_t)r->partial_out,
                                      .partial_lse = (uintptr_t)r->partial_lse,
                                      .out = (uintptr_t)r->out,
                                      .lse = (uintptr_t)r->lse,
                                      .q_rope = (uintptr_t)rope.base,
                                      .q_rope_row_stride = rope.row_stride,
                                      .q_rope_token_stride = rope.token_stride,
                                      .q_rope_head_stride = rope.head_stride,
                                      .lse_base = r->c.lse_base};
    if (r->c.uneven) { /* it is packed else */
        args.q_row_stride = q.row_stride;
        args.q_token_stride = q.token_stride;
        args.q_head_stride = q.head_stride;
    }
    memset(r->out, 0xff, 2 * queries * r->c.d_v);
    memset(r->lse, 0xff, 4 * queries);
    must(r, rt_mla_decode(r->ops, &args, NULL), "decode");
    check_decode(r);
}

static void run_case(rt_ops *ops, const struct ops_case *c, uint32_t n)
{
    struct rig r = {.c = *c, .ops = ops, .random = n + 1};
    set_shape(&r);
    take_tensors(&r);
    fill_tensors(&r);
    run_append(&r);
    run_schedule(&r);
    for (uint32_t gaps = 0; gaps < (c->q_len == 1 ? 1 : c->q_rope ? 4 : 2); gaps++) {
        r.c.uneven = gaps % 2;
        r.c.rope_uneven = gaps / 2;
        run_decode(&r);
    }
    for (uint32_t i = 0; i < r.held_count; i++)
        free(r.held[i]);
}

/* A batch whose requests have no key needs no table: nothing is kept anywhere. */
static void run_without_a_table(rt_ops *ops)
{
    struct rig r = {.c = {.d_qk = 576,
                          .d_v = 512,
                          .heads = 4,
                          .q_len = 1,
                          .page_size = 64,
                          .backend = RT_BACKEND_SM90,
                          .kind = "n8"},
                    .ops = ops};
    set_shape(&r);
    take_tensors(&r);
    fill(&r, r.q, q_elements(&r.c));
    r.table = NULL;
    r.shape.max_blocks = 0;
    for (uint32_t i = 0; i < BATCH; i++)
        r.lengths[i] = r.positions[i] = 0;
    run_append(&r);
    run_schedule(&r);
    run_decode(&r);
    for (uint32_t i = 0; i < r.held_count; i++)
        free(r.held[i]);
}

int main(void)
{
    static const uint32_t widths[][2] = {{576, 512}, {320, 256}, {288, 256}, {512, 512}};
    static const struct ops_case kinds[] = {
        {.heads = 16, .q_len = 1, .page_size = 16, .backend = RT_BACKEND_GENERIC, .kind = "_r16"},
        {.heads = 10, .q_len = 3, .page_size = 64, .backend = RT_BACKEND_GENERIC, .kind = "_r32"},
        {.heads = 23, .q_len = 2, .page_size = 32, .backend = RT_BACKEND_GENERIC, .kind = "_r64"},
        {.heads = 8, .q_len = 1, .page_size = 128, .backend = RT_BACKEND_SM90, .kind = "_n8"},
        {.heads = 5, .q_len = 3, .page_size = 64, .backend = RT_BACKEND_SM90, .kind = "_n16"},
        {.heads = 16, .q_len = 2, .page_size = 16, .backend = RT_BACKEND_SM90, .kind = "_n32"},
        {.heads = 17, .q_len = 4, .page_size = 32, .backend = RT_BACKEND_SM90, .kind = "_m64"},
    };
    const uint32_t kind_count = sizeof(kinds) / sizeof(kinds[0]);
    rt_ops *ops;
    struct rt_error error = {0};
    if (rt_ops_create("host", &ops, &error) != RT_OK)
        return printf("%s\n", error.message), 1;
    for (uint32_t n = 0; n < 8 * kind_count; n++) {
        struct ops_case c = kinds[n % kind_count];
        c.d_qk = widths[n / kind_count % 4][0];
        c.d_v = widths[n / kind_count % 4][1];
        if (c.d_qk == 576 && c.heads * c.q_len > 64) /* two tiles, and rows enough */
            c.kind = "_c64";
        c.q_rope = n / kind_count / 4 && c.d_qk > c.d_v;
        c.slots = n % 2;
        c.rope = n % 3 && c.d_qk > c.d_v;
        c.lse_base = (n / kind_count + n / kind_count / 4) % 2 ? RT_LSE_BASE2 : RT_LSE_NATURAL;
        run_case(ops, &c, n);
    }
    run_without_a_table(ops);
    rt_ops_destroy(&ops);
    printf("%u kernels through ops.h, of one q and of two, even and uneven\n", 4 * kind_count);
    return 0;
}
