/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batch-invariant decode through replayrt/ops.h: a request's output and lse have the same bits
 * alone, in batches of any size and place, beside any neighbours and padding, and with any number
 * of multiprocessors; and they are right. Built for the host device's references, and again with
 * the kernels' own source in their place, for every kernel.
 * Usage: invariant [cases a kernel [first seed]]
 */
#include "common/bf16.h"
#include "kernels/op.h"
#include "kernels/ref/ref.h"
#include "replayrt/ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BATCH 12
#define MOST_TOKENS 4700 /* of a request */
#define SHORT_TOKENS 2400
#define PAGE 64
#define COLUMNS ((MOST_TOKENS + PAGE - 1) / PAGE)
#define MOST_QUERIES 128
#define MOST_D 576

/* ---- the device: multiprocessors as a test wants them ---- */

static uint32_t multiprocessors;

enum rt_status __real_rt_op_resolve(enum rt_op_id op, const struct rt_op_request *request,
                                    struct rt_variant *out, struct rt_error *err);
enum rt_status __wrap_rt_op_resolve(enum rt_op_id op, const struct rt_op_request *request,
                                    struct rt_variant *out, struct rt_error *err);

/* The emulated device is a host device of compute capability 9.0; tiles are chosen as on a GPU. */
enum rt_status __wrap_rt_op_resolve(enum rt_op_id op, const struct rt_op_request *request,
                                    struct rt_variant *out, struct rt_error *err)
{
    struct rt_device_caps caps = *request->caps;
    struct rt_op_request other = *request;
    caps.sm_count = multiprocessors;
    if (caps.cc > 0) {
        caps.kind = RT_DEVICE_KIND_CUDA;
        caps.smem_optin_bytes = 227 * 1024;
    }
    other.caps = &caps;
    return __real_rt_op_resolve(op, &other, out, err);
}

/* ---- a request among others ---- */

struct kernel {
    uint32_t d_qk, d_v, heads, q_len;
    enum rt_backend backend;
    const char *kind;   /* end of its name on an emulated device */
    const char *shared; /* likewise where its tiles share keys, or null */
};

struct rig {
    struct kernel k;
    rt_ops *ops;
    uint64_t random;
    uint32_t seed;
    bool sinks;
    int32_t length; /* of the request that is looked at, and its place in the batch */
    uint32_t place, batch;
    int32_t *lengths, *table, *num_splits;
    uint16_t *q, *kv, *out, *own_q, *own_kv;
    float *lse, *sink, *partial_out, *partial_lse;
    struct rt_part *parts;
};

struct answer {
    uint16_t out[MOST_QUERIES * 512];
    float lse[MOST_QUERIES];
};

static _Noreturn void fail(const struct rig *r, const char *what)
{
    printf("seed %u, %u/%u %s, %u heads, query length %u, length %d as %u of %u, %u "
           "multiprocessors: %s\n",
           r->seed, r->k.d_qk, r->k.d_v, r->k.kind, r->k.heads, r->k.q_len, r->length, r->place,
           r->batch, multiprocessors, what);
    exit(1);
}

static uint32_t below(struct rig *r, uint32_t n)
{
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->random >> 33) % n;
}

static void *take(const struct rig *r, size_t bytes)
{
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!memory)
        fail(r, "no memory");
    memset(memory, 0xff, bytes);
    return memory;
}

/* Some keys weigh much more than others, so that maxima move from leaf to leaf. */
static void fill(struct rig *r, uint16_t *to, size_t count, float scale)
{
    for (size_t i = 0; i < count; i++)
        to[i] = rt_float_to_bf16(((float)below(r, 2001) / 1000.0f - 1.0f) * scale);
}

static uint32_t queries_of(const struct rig *r)
{
    return r->k.heads * r->k.q_len;
}

static struct rt_mla_shape shape_of(const struct rig *r)
{
    return (struct rt_mla_shape){.struct_size = sizeof(struct rt_mla_shape),
                                 .batch = r->batch,
                                 .query_len = r->k.q_len,
                                 .heads = r->k.heads,
                                 .d_qk = r->k.d_qk,
                                 .d_v = r->k.d_v,
                                 .page_size = PAGE,
                                 .max_blocks = COLUMNS,
                                 .pages = MOST_BATCH * COLUMNS,
                                 .causal = 1,
                                 .backend = r->k.backend};
}

/* Another length for everybody else: none, one, short or long. */
static int32_t other_length(struct rig *r)
{
    const uint32_t kind = below(r, 5);
    return kind == 0 ? 0 : kind == 1 ? 1 : (int32_t)below(r, kind == 2 ? 200 : 700);
}

/* A batch with the request in it: pages in another order, what nobody may read is NaN. */
static void make_batch(struct rig *r, uint32_t batch, bool is_full)
{
    const size_t row = (size_t)queries_of(r) * r->k.d_qk, token = r->k.d_qk;
    r->batch = batch;
    r->place = below(r, batch);
    memset(r->kv, 0xff, sizeof(uint16_t) * MOST_BATCH * COLUMNS * PAGE * token);
    for (uint32_t b = 0; b < batch; b++) {
        const bool own = b == r->place;
        r->lengths[b] = own ? r->length : is_full ? r->length + 64 : other_length(r);
        if (r->lengths[b] > MOST_TOKENS)
            r->lengths[b] = MOST_TOKENS;
        for (uint32_t column = 0; column < COLUMNS; column++)
            r->table[b * COLUMNS + column] = (int32_t)((column * 5 % COLUMNS) * MOST_BATCH + b);
        fill(r, r->q + b * row, row, 1.0f);
        for (int32_t i = 0; i < r->lengths[b]; i++) {
            const int32_t page = r->table[b * COLUMNS + (uint32_t)i / PAGE];
            uint16_t *key = r->kv + ((size_t)page * PAGE + (uint32_t)i % PAGE) * token;
            if (own)
                memcpy(key, r->own_kv + (size_t)i * token, sizeof(uint16_t) * token);
            else if (i % 7 == 0)
                fill(r, key, token, 1.0f);
            else
                memcpy(key, r->own_kv + (size_t)(i % 64) * token, sizeof(uint16_t) * token);
        }
    }
    memcpy(r->q + r->place * row, r->own_q, sizeof(uint16_t) * row);
}

static void must(const struct rig *r, enum rt_status status)
{
    if (status != RT_OK)
        fail(r, rt_ops_last_error(r->ops)->message);
}

static bool ends_with(const char *text, const char *end)
{
    const size_t bytes = strlen(text), least = strlen(end);
    return bytes >= least && strcmp(text + bytes - least, end) == 0;
}

static void decode(struct rig *r, struct answer *answer)
{
    const struct rt_mla_shape shape = shape_of(r);
    struct rt_mla_workspace size = {.struct_size = sizeof(size)};
    must(r, rt_mla_invariant_workspace_size(r->ops, &shape, &size));
    if (r->k.backend != RT_BACKEND_AUTO && !ends_with(size.kernel, r->k.kind) &&
        !(r->k.shared && ends_with(size.kernel, r->k.shared)))
        fail(r, size.kernel);
    r->parts = take(r, size.part_bytes);
    r->partial_out = take(r, size.partial_out_bytes);
    r->partial_lse = take(r, size.partial_lse_bytes);
    const struct rt_mla_schedule_buffers schedule = {(uintptr_t)r->parts, (uintptr_t)r->num_splits};
    const struct rt_mla_schedule_args plan = {.struct_size = sizeof(plan),
                                              .invariant = 1,
                                              .shape = shape,
                                              .lengths = (uintptr_t)r->lengths,
                                              .schedule = schedule};
    const struct rt_mla_decode_args args = {.struct_size = sizeof(args),
                                            .softmax_scale = 0.4f,
                                            .invariant = 1,
                                            .shape = shape,
                                            .q = (uintptr_t)r->q,
                                            .kv = (uintptr_t)r->kv,
                                            .block_table = (uintptr_t)r->table,
                                            .lengths = (uintptr_t)r->lengths,
                                            .schedule = schedule,
                                            .partial_out = (uintptr_t)r->partial_out,
                                            .partial_lse = (uintptr_t)r->partial_lse,
                                            .sink = r->sinks ? (uintptr_t)r->sink : 0,
                                            .out = (uintptr_t)r->out,
                                            .lse = (uintptr_t)r->lse};
    must(r, rt_mla_schedule(r->ops, &plan, NULL));
    const uint64_t slots =
        size.partial_lse_bytes / sizeof(float) / ((uint64_t)r->k.heads * r->k.q_len);
    if ((uint64_t)r->num_splits[r->batch] > slots)
        fail(r, "more slots than the workspace has");
    must(r, rt_mla_decode(r->ops, &args, NULL));
    const size_t values = (size_t)queries_of(r) * r->k.d_v;
    memcpy(answer->out, r->out + r->place * values, sizeof(uint16_t) * values);
    memcpy(answer->lse, r->lse + (size_t)r->place * queries_of(r), sizeof(float) * queries_of(r));
    free(r->parts);
    free(r->partial_out);
    free(r->partial_lse);
}

/* ---- what is expected ---- */

static void expect_same(const struct rig *r, const struct answer *a, const struct answer *b)
{
    const size_t values = (size_t)queries_of(r) * r->k.d_v;
    char text[128];
    for (size_t i = 0; i < values; i++)
        if (a->out[i] != b->out[i]) {
            (void)snprintf(text, sizeof(text), "out of query row %zu, column %zu is %04x, not %04x",
                           i / r->k.d_v, i % r->k.d_v, b->out[i], a->out[i]);
            fail(r, text);
        }
    if (memcmp(a->lse, b->lse, sizeof(float) * queries_of(r)) != 0)
        fail(r, "lse differs");
}

static void expect_right(const struct rig *r, const struct answer *a)
{
    const uint32_t hq = queries_of(r);
    const int32_t length = r->lengths[r->place];
    const struct rt_attend_params p = {
        .q = {r->own_q, (int64_t)hq * r->k.d_qk, (int64_t)r->k.heads * r->k.d_qk, r->k.d_qk},
        .kv = {.base = (unsigned char *)r->kv,
               .table = r->table + r->place * COLUMNS,
               .page_stride_bytes = 2 * PAGE * (int64_t)r->k.d_qk,
               .token_stride_bytes = 2 * (int64_t)r->k.d_qk,
               .page_size = PAGE,
               .max_blocks = COLUMNS,
               .pages = MOST_BATCH * COLUMNS},
        .rows = {.length = &length, .count = 1, .q_len = r->k.q_len},
        .scale = 0.4f,
        .heads = r->k.heads,
        .d_qk = r->k.d_qk,
        .d_v = r->k.d_v,
        .causal = 1,
        .sink = r->sinks ? r->sink : NULL};
    double *out = calloc((size_t)hq * (r->k.d_v + 1), sizeof(double));
    if (!out)
        fail(r, "no memory");
    rt_ref_mla_attention(&p, out, out + (size_t)hq * r->k.d_v);
    for (size_t i = 0; i < (size_t)hq * r->k.d_v; i++)
        if (!(fabs((double)rt_bf16_to_float(a->out[i]) - out[i]) <=
              8e-4 + fabs(out[i]) * 2.01 / 128))
            fail(r, "out is wrong");
    for (size_t i = 0; i < hq; i++) {
        const double want = out[(size_t)hq * r->k.d_v + i], got = (double)a->lse[i];
        if (got != want && !(fabs(got - want) <= 1e-5 + fabs(want) * 8.01 / 65536))
            fail(r, "lse is wrong");
    }
    free(out);
}

/* One leaf; the edges of groups, and of leaves of one block and two; more groups, which tiles of 64
 * query rows have from 65 blocks on. */
static int32_t pick_length(struct rig *r)
{
    static const int32_t edges[] = {1, 64, 65, 512, 513, 1024, 1025, 2048, 2049, 4097};
    const uint32_t kind = below(r, 3);
    if (queries_of(r) > 32 && kind > 0)
        return 4097 + (int32_t)below(r, MOST_TOKENS - 4096);
    return kind == 0   ? edges[below(r, sizeof(edges) / sizeof(edges[0]))]
           : kind == 1 ? 1 + (int32_t)below(r, 1100)
                       : 1 + (int32_t)below(r, SHORT_TOKENS);
}

static void run_case(struct rig *r)
{
    static const uint32_t counts[] = {1, 3, 10, 24, 60, 132, 500};
    static struct answer alone, other;
    r->length = pick_length(r);
    r->sinks = below(r, 3) == 0;
    fill(r, r->own_q, (size_t)queries_of(r) * r->k.d_qk, 1.0f);
    fill(r, r->own_kv, (size_t)MOST_TOKENS * r->k.d_qk, 0.3f);
    if (r->k.q_len > 1) /* a draft that is not finite is seen by the last token alone */
        r->own_kv[(size_t)(r->length - 1) * r->k.d_qk + below(r, r->k.d_v)] =
            below(r, 3) ? 0x3f80 : 0x7f80;
    for (uint32_t h = 0; h < r->k.heads; h++)
        r->sink[h] = (float)below(r, 8) - 2.0f;
    multiprocessors = counts[2 + below(r, 4)];
    make_batch(r, 1, false);
    decode(r, &alone);
    if (r->k.q_len == 1)
        expect_right(r, &alone);
    for (uint32_t again = 0; again < 3; again++) {
        multiprocessors = counts[below(r, sizeof(counts) / sizeof(counts[0]))];
        make_batch(r, 1 + below(r, again == 2 ? 4 : MOST_BATCH), again == 2);
        decode(r, &other);
        expect_same(r, &alone, &other);
    }
}

static void run_kernel(rt_ops *ops, const struct kernel *k, uint32_t seed)
{
    const size_t queries = (size_t)MOST_BATCH * k->heads * k->q_len;
    struct rig r = {.k = *k, .ops = ops, .random = seed * 0x9e3779b97f4a7c15u, .seed = seed};
    r.lengths = take(&r, MOST_BATCH * sizeof(int32_t));
    r.num_splits = take(&r, (MOST_BATCH + 1) * sizeof(int32_t));
    r.table = take(&r, MOST_BATCH * COLUMNS * sizeof(int32_t));
    r.q = take(&r, queries * k->d_qk * sizeof(uint16_t));
    r.own_q = take(&r, queries * k->d_qk * sizeof(uint16_t));
    r.own_kv = take(&r, (size_t)MOST_TOKENS * k->d_qk * sizeof(uint16_t));
    r.kv = take(&r, (size_t)MOST_BATCH * COLUMNS * PAGE * k->d_qk * sizeof(uint16_t));
    r.out = take(&r, queries * k->d_v * sizeof(uint16_t));
    r.lse = take(&r, queries * sizeof(float));
    r.sink = take(&r, k->heads * sizeof(float));
    run_case(&r);
    void *all[] = {r.lengths, r.num_splits, r.table, r.q,   r.own_q,
                   r.own_kv,  r.kv,         r.out,   r.lse, r.sink};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
}

int main(int argc, char **argv)
{
    static const struct kernel kernels[] = {
        {576, 512, 8, 1, RT_BACKEND_SM90, "sm90_576x512_f8", NULL},
        {576, 512, 16, 1, RT_BACKEND_SM90, "sm90_576x512_f16", NULL},
        {576, 512, 16, 2, RT_BACKEND_SM90, "sm90_576x512_f32", NULL},
        {512, 512, 5, 3, RT_BACKEND_SM90, "sm90_512x512_f16", NULL},
        {320, 256, 40, 1, RT_BACKEND_SM90, "sm90_320x256_p64", NULL},
        {576, 512, 24, 3, RT_BACKEND_SM90, "sm90_576x512_p64", "sm90_576x512_c64p"},
        {288, 256, 8, 1, RT_BACKEND_SM90, "sm90_288x256_f8", NULL},
        {576, 512, 16, 1, RT_BACKEND_GENERIC, "attend_576x512_f16", NULL},
        {512, 512, 10, 2, RT_BACKEND_GENERIC, "attend_512x512_f32", NULL},
        {320, 256, 23, 3, RT_BACKEND_GENERIC, "attend_320x256_f32", NULL},
        {288, 256, 3, 4, RT_BACKEND_GENERIC, "attend_288x256_f16", NULL},
    };
    const uint32_t count = sizeof(kernels) / sizeof(kernels[0]);
    const uint32_t cases = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 4;
    const uint32_t first = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1;
    rt_ops *ops;
    struct rt_error error = {0};
    if (rt_ops_create("host", &ops, &error) != RT_OK)
        return printf("%s\n", error.message), 1;
#ifdef RT_TEST_EMULATED
    const bool emulated = true;
#else
    const bool emulated = false;
#endif
    for (uint32_t i = 0; i < cases * count; i++) {
        struct kernel k = kernels[i % count];
        if (!emulated)
            k.backend = RT_BACKEND_AUTO;
        run_kernel(ops, &k, first + i);
    }
    rt_ops_destroy(&ops);
    printf("%u cases, each four times: the same bits\n", cases * count);
    return 0;
}
