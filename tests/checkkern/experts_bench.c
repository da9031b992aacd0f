/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's experts, weights cold: the two products one by one in a chain of their own kind, and
 * route, up and down as a layer has them. Bytes are what a right answer has to read: the weights of
 * every expert that has a token, once; of many tokens it is the products that set the pace.
 */
#include "common/math.h"
#include "kernels/abi/experts_many.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* At least so much goes by before weights are met again; a host only runs the bodies. */
#define COLD_BYTES (UINT64_C(2) << 30)
#define MOST_LAYERS 64u
#define SPREAD 0.02 /* numbers are below */
/* Layers of many tokens: each is a gigabyte of weights, and takes its time. */
#define MANY_TOKENS 65u
#define MANY_LAYERS 4u

struct model {
    const char *name;
    uint32_t hidden, width, experts, chosen, shared;
    uint32_t most_tokens;
};
static const struct model cuda_models[] = {{"V2-Lite", 2048, 1408, 64, 6, 2, 2048},
                                           {"V2-Lite dense", 2048, 10944, 0, 0, 1, 2048},
                                           {"V3", 7168, 2048, 256, 8, 1, 64}};
static const struct model host_models[] = {{"tiny", 64, 40, 8, 2, 1, 512}};

struct bench {
    struct ck *ck;
    const struct model *model;
    uint32_t tokens, layers;
    uint64_t layer_bytes;
    rt_addr weights, x, h, out, logits, products;
    struct ck_buffer choices, factors, offsets, pairs, active, count;
};

static uint64_t expert_bytes(const struct model *m)
{
    return UINT64_C(6) * m->hidden * m->width;
}

static struct rt_experts_view work_of(const struct bench *b, enum ck_side side)
{
    return (struct rt_experts_view){.groups = {ck_at(&b->offsets, side), ck_at(&b->pairs, side),
                                               ck_at(&b->active, side), ck_at(&b->count, side)},
                                    .tokens = b->tokens,
                                    .experts = b->model->experts,
                                    .chosen = b->model->chosen,
                                    .shared = b->model->shared};
}

static struct rt_pairs_view h_of(const struct bench *b)
{
    const int64_t places = b->model->chosen + b->model->shared;
    return (struct rt_pairs_view){(void *)(uintptr_t)b->h, places * b->model->width,
                                  b->model->width};
}

/* Of a layer: gate and up of the experts, of the shared ones, down likewise. */
static const uint16_t *weight_at(const struct bench *b, uint32_t layer, bool shared, bool down)
{
    const struct model *m = b->model;
    const uint64_t third = UINT64_C(2) * m->hidden * m->width;
    const uint64_t before = (shared ? m->experts * 3 * third : 0) +
                            (down ? (shared ? m->shared : m->experts) * 2 * third : 0);
    return (const uint16_t *)(uintptr_t)(b->weights + layer * b->layer_bytes + before);
}

static struct rt_experts_up_params up_of(const struct bench *b, uint32_t layer)
{
    const struct model *m = b->model;
    const int64_t half = (int64_t)m->width * m->hidden;
    struct rt_experts_up_params p = {.work = work_of(b, CK_DEVICE),
                                     .x = (const uint16_t *)(uintptr_t)b->x,
                                     .h = h_of(b),
                                     .x_stride = m->hidden,
                                     .hidden = m->hidden,
                                     .width = m->width};
    for (int i = 0; i < 2; i++) {
        const uint16_t *base = weight_at(b, layer, i != 0, false);
        p.gate[i] = (struct rt_expert_weight_view){base, 2 * half, m->hidden};
        p.up[i] = (struct rt_expert_weight_view){base + half, 2 * half, m->hidden};
    }
    return p;
}

static struct rt_experts_down_params down_of(const struct bench *b, uint32_t layer, bool early)
{
    const struct model *m = b->model;
    const int64_t width = m->width;
    return (struct rt_experts_down_params){
        .work = work_of(b, CK_DEVICE),
        .rows = {.count = b->tokens, .q_len = 1},
        .choices = ck_at(&b->choices, CK_DEVICE),
        .weights = ck_at(&b->factors, CK_DEVICE),
        .h = h_of(b),
        .out = (uint16_t *)(uintptr_t)b->out,
        .down = {{weight_at(b, layer, false, true), width * m->hidden, width},
                 {weight_at(b, layer, true, true), width, width * m->shared}},
        .out_stride = m->hidden,
        .hidden = m->hidden,
        .width = m->width,
        .early = early};
}

static struct rt_route_params route_of(const struct bench *b, enum ck_side side,
                                       const float *logits)
{
    return (struct rt_route_params){.rows = {.count = b->tokens, .q_len = 1},
                                    .logits = logits,
                                    .choices = ck_at(&b->choices, side),
                                    .weights = ck_at(&b->factors, side),
                                    .groups_of = work_of(b, side).groups,
                                    .logit_stride = b->model->experts,
                                    .experts = b->model->experts,
                                    .chosen = b->model->chosen,
                                    .scale = 1.0f};
}

static struct rt_launch build(const struct bench *b, enum rt_op_id op, const void *params,
                              size_t bytes)
{
    struct ck *ck = b->ck;
    const bool is_up = op == RT_OP_EXPERTS_UP;
    const struct rt_op_request request = {.caps = &ck->driver.caps,
                                          .experts_up = is_up ? params : NULL,
                                          .experts_down = is_up ? NULL : params};
    struct rt_variant v;
    struct rt_launch launch;
    struct rt_error err = {0};
    ck_must(ck, rt_op_resolve(op, &request, &v, &err), &err);
    ck_must(ck, ck_build_variant(ck, &v, params, bytes, &launch, &err), &err);
    return launch;
}

/* A product of every pair, two operations a number of a weight: of `thirds` weights. */
static double tera_operations(const struct bench *b, uint32_t thirds)
{
    const struct model *m = b->model;
    return 2e-12 * thirds * m->hidden * m->width * b->tokens * (m->chosen + m->shared);
}

static void print(const struct bench *b, const char *what, double ns, uint64_t bytes,
                  uint32_t thirds)
{
    printf("experts    %-13s %-14s %4u tokens, %3d experts: %8.2f us %6.0f GB/s of %6.1f MB",
           b->model->name, what, b->tokens, *(const int32_t *)b->count.ref, ns / 1e3,
           (double)bytes / ns, (double)bytes / 1e6);
    if (b->tokens >= MANY_TOKENS && thirds > 0)
        printf(" %4.0f TFLOPS", tera_operations(b, thirds) / (ns * 1e-9));
    printf("\n");
}

/* Down in two launches, where that is served; how many they are. */
static uint32_t put_pairs(const struct bench *b, uint32_t layer, struct rt_launch *all)
{
    static const enum rt_op_id ops[] = {RT_OP_EXPERTS_DOWN_PAIRS, RT_OP_EXPERTS_DOWN_SUM};
    const struct rt_experts_down_pairs_params p = {.down = down_of(b, layer, false),
                                                   .products = (float *)(uintptr_t)b->products};
    const struct rt_op_request request = {.caps = &b->ck->driver.caps, .experts_down = &p.down};
    struct rt_variant v;
    struct rt_error err = {0};
    for (int i = 0; i < 2; i++) {
        if (rt_op_resolve(ops[i], &request, &v, &err) != RT_OK)
            return 0;
        ck_must(b->ck, ck_build_variant(b->ck, &v, &p, sizeof(p), &all[i], &err), &err);
    }
    return 2;
}

/* Layers as a model has them; how many nodes they are. */
static uint32_t put_layers(const struct bench *b, uint32_t layers, bool pairs,
                           struct rt_launch *all)
{
    const float *logits = (const float *)(uintptr_t)b->logits;
    const struct rt_route_params route = route_of(b, CK_DEVICE, logits);
    uint32_t nodes = 0;
    for (uint32_t i = 0; i < layers; i++) {
        const struct rt_experts_up_params up = up_of(b, i);
        const struct rt_experts_down_params down = down_of(b, i, true);
        if (b->model->experts > 0)
            all[nodes++] = build(b, RT_OP_ROUTE, &route, sizeof(route));
        all[nodes++] = build(b, RT_OP_EXPERTS_UP, &up, sizeof(up));
        if (pairs)
            nodes += put_pairs(b, i, &all[nodes]);
        else
            all[nodes++] = build(b, RT_OP_EXPERTS_DOWN, &down, sizeof(down));
    }
    return nodes;
}

/* The products of all layers, all their sums, and whole layers of which both are part. */
static void time_pairs(const struct bench *b, uint32_t layers, struct rt_launch *all,
                       uint64_t bytes)
{
    struct ck *ck = b->ck;
    struct rt_launch two[2];
    if (put_pairs(b, 0, two) == 0)
        return;
    const uint64_t lines = b->model->chosen + (b->model->shared > 0);
    const uint64_t products = UINT64_C(4) * b->tokens * lines * b->model->hidden;
    for (int i = 0; i < 2; i++) {
        for (uint32_t layer = 0; layer < layers; layer++) {
            put_pairs(b, layer, two);
            all[layer] = two[i];
        }
        print(b, i == 0 ? "pairs" : "sum", ck_time_ns(ck, all, layers),
              products + (i == 0 ? bytes / 3 : UINT64_C(2) * b->tokens * b->model->hidden),
              i == 0 ? 1 : 0);
    }
    const uint32_t nodes = put_layers(b, layers, true, all);
    print(b, "layer, scratch", ck_time_ns(ck, all, nodes) * nodes / layers, bytes, 3);
}

/* All layers' up, all layers' down, and whole layers. */
static void time_layers(const struct bench *b)
{
    struct ck *ck = b->ck;
    struct rt_launch *all = ck_new(ck, (uint64_t)b->layers * 4 * sizeof(*all));
    const uint64_t active = (uint64_t) * (const int32_t *)b->count.ref + b->model->shared;
    const uint64_t bytes = active * expert_bytes(b->model);
    const uint32_t layers =
        b->tokens >= MANY_TOKENS ? rt_min_u32(b->layers, MANY_LAYERS) : b->layers;
    for (uint32_t i = 0; i < layers; i++) {
        const struct rt_experts_up_params p = up_of(b, i);
        all[i] = build(b, RT_OP_EXPERTS_UP, &p, sizeof(p));
    }
    print(b, "up", ck_time_ns(ck, all, layers), bytes / 3 * 2, 2);
    for (uint32_t i = 0; i < layers; i++) {
        const struct rt_experts_down_params p = down_of(b, i, false);
        all[i] = build(b, RT_OP_EXPERTS_DOWN, &p, sizeof(p));
    }
    print(b, "down", ck_time_ns(ck, all, layers), bytes / 3, 1);
    const uint32_t nodes = put_layers(b, layers, false, all);
    print(b, "layer", ck_time_ns(ck, all, nodes) * nodes / layers, bytes, 3);
    time_pairs(b, layers, all, bytes);
    free(all);
}

/* Every expert as likely as any other; the device gets what the reference makes of it. */
static void route(struct bench *b)
{
    struct ck *ck = b->ck;
    struct ck_random random = {.state = ck->seed};
    const uint64_t count = (uint64_t)b->tokens * b->model->experts;
    float *logits = ck_new(ck, (count + 1) * sizeof(*logits));
    for (uint64_t i = 0; i < count; i++)
        logits[i] = (float)ck_random_normal(&random);
    if (count > 0) {
        const struct rt_route_params p = route_of(b, CK_REF, logits);
        rt_ref_route(&p);
        CK_DRV(ck, copy_in, (&ck->driver, b->logits, logits, count * sizeof(*logits), ck->stream));
        CK_DRV(ck, stream_sync, (&ck->driver, ck->stream));
    }
    const struct ck_buffer *all[] = {&b->choices, &b->factors, &b->offsets,
                                     &b->pairs,   &b->active,  &b->count};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_upload(ck, all[i]);
    free(logits);
}

static void bench_model(struct ck *ck, const struct model *m)
{
    static const uint32_t tokens[] = {1, 8, 32, 64, 512, 2048};
    const uint32_t places = m->chosen + m->shared;
    const uint64_t layer_bytes = (m->experts + m->shared) * expert_bytes(m);
    /* What a token alone reads of a layer, and cold still. */
    const uint64_t cold = COLD_BYTES / (places * expert_bytes(m)) + 1;
    const uint64_t fit = (UINT64_C(64) << 30) / layer_bytes;
    struct bench b = {.ck = ck, .model = m, .layer_bytes = layer_bytes};
    b.layers = ck_is_cuda(ck)
                   ? rt_max_u32(2, rt_min_u32(MOST_LAYERS, (uint32_t)(cold < fit ? cold : fit)))
                   : 2;
    const uint64_t pairs = UINT64_C(4) * m->most_tokens * (m->chosen + 1);
    const struct {
        rt_addr *at;
        uint64_t bytes;
    } device[] = {{&b.weights, b.layers * layer_bytes},
                  {&b.x, UINT64_C(2) * m->most_tokens * m->hidden},
                  {&b.h, UINT64_C(2) * m->most_tokens * places * m->width},
                  {&b.out, UINT64_C(2) * m->most_tokens * m->hidden},
                  {&b.products, UINT64_C(4) * m->most_tokens * places * m->hidden},
                  {&b.logits, UINT64_C(4) * m->most_tokens * (m->experts + 1)}};
    for (size_t i = 0; i < sizeof(device) / sizeof(device[0]); i++) {
        CK_DRV(ck, mem_alloc, (&ck->driver, device[i].bytes, device[i].at));
        ck_fill_bf16(ck, *device[i].at, device[i].bytes, SPREAD);
    }
    b.choices = ck_alloc(ck, "choices", pairs, 0);
    b.factors = ck_alloc(ck, "weights", pairs, 0);
    b.offsets = ck_alloc(ck, "offsets", UINT64_C(4) * (m->experts + 1), 0);
    b.pairs = ck_alloc(ck, "pairs", pairs, 0);
    b.active = ck_alloc(ck, "active", UINT64_C(16) * (m->experts + 1), 0);
    b.count = ck_alloc(ck, "active_count", 4, 0);
    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]) && tokens[i] <= m->most_tokens; i++) {
        b.tokens = tokens[i];
        route(&b);
        time_layers(&b);
    }
    struct ck_buffer *all[] = {&b.choices, &b.factors, &b.offsets, &b.pairs, &b.active, &b.count};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
    for (size_t i = 0; i < sizeof(device) / sizeof(device[0]); i++)
        CK_DRV(ck, mem_free, (&ck->driver, *device[i].at));
}

void ck_experts_bench(struct ck *ck)
{
    const bool cuda = ck_is_cuda(ck);
    const size_t count = cuda ? sizeof(cuda_models) / sizeof(cuda_models[0])
                              : sizeof(host_models) / sizeof(host_models[0]);
    for (size_t i = 0; i < count; i++)
        bench_model(ck, cuda ? &cuda_models[i] : &host_models[i]);
}
