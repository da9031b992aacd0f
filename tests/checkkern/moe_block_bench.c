/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's MLP, weights cold: moe_block, a chain of as many as go by before weights are met again.
 * Bytes are what a right answer has to read: the weights of every expert that has a token, once.
 * Its inputs differ from layer to layer, for each is what the one in front has left: and so do its
 * choices.
 */
#include "common/math.h"
#include "kernels/abi/moe_block.h"
#include "tests/checkkern/harness.h"

#include <stdio.h>
#include <stdlib.h>

#define LAYERS 24u
#define EXCHANGE_BYTES 65536u /* of any of these */
#define SPREAD 0.04           /* numbers are below */

struct model {
    const char *name;
    uint32_t hidden, width, experts, chosen, shared;
    uint32_t layers;
};
static const struct model cuda_models[] = {{"V2-Lite", 2048, 1408, 64, 6, 2, LAYERS},
                                           {"V2-Lite dense", 2048, 10944, 0, 0, 1, LAYERS},
                                           {"V3", 7168, 2048, 256, 8, 1, 2}};
static const struct model host_models[] = {{"tiny", 64, 40, 8, 2, 1, 2}};

/* Of the device; weights of a layer: router, gate, up and down of experts, of shared ones. */
struct bench {
    struct ck *ck;
    const struct model *model;
    uint32_t tokens;
    uint64_t router_bytes, third, layer_bytes; /* a third of an expert */
    rt_addr weights, data;
};

static const uint16_t *weight_at(const struct bench *b, uint32_t layer, bool shared, uint32_t third)
{
    const struct model *m = b->model;
    const uint32_t count = shared ? m->shared : m->experts;
    const uint64_t before = (shared ? m->experts * 3 * b->third : 0) + third * count * b->third;
    return (const uint16_t *)(uintptr_t)(b->weights + layer * b->layer_bytes + b->router_bytes +
                                         before);
}

/* Tensors of tokens, one behind the other, each in lines of its own. */
static void *take(rt_addr *at, uint64_t bytes)
{
    void *const to = (void *)(uintptr_t)*at;
    *at += rt_align_up_u64(bytes, 256);
    return to;
}

static struct rt_moe_block_params params_of(const struct bench *b, uint32_t layer)
{
    const struct model *m = b->model;
    const int64_t hidden = m->hidden, width = m->width, places = m->chosen + m->shared;
    const uint64_t vectors = UINT64_C(2) * b->tokens * m->hidden, pairs = UINT64_C(4) * 64;
    rt_addr at = b->data;
    struct rt_moe_block_params p = {.out_stride = hidden, .shared = m->shared, .width = m->width};
    p.exchange = take(&at, EXCHANGE_BYTES); /* in front: it is zeroed */
    p.h.base = take(&at, UINT64_C(2) * b->tokens * (uint64_t)(places * width));
    p.h.token_stride = places * width;
    p.h.place_stride = width;
    p.out = take(&at, vectors);
    uint16_t *const residual = take(&at, vectors), *const normed = take(&at, vectors);
    float *const logits = take(&at, UINT64_C(4) * b->tokens * 512);
    int32_t *const choices = take(&at, pairs);
    p.gate.norm = (struct rt_input_norm_params){.hidden = p.out,
                                                .residual = residual,
                                                .normed = normed,
                                                .stride = hidden,
                                                .norm = {.weight = weight_at(b, layer, true, 0),
                                                         .eps = 1e-6f,
                                                         .scale = 1.0f,
                                                         .width = m->hidden},
                                                .tokens = b->tokens,
                                                .hidden_scale = 1.0f};
    p.gate.route = (struct rt_route_params){.rows = {.count = b->tokens, .q_len = 1},
                                            .logits = logits,
                                            .choices = choices,
                                            .weights = take(&at, pairs),
                                            .logit_stride = m->experts,
                                            .experts = m->experts,
                                            .chosen = m->chosen,
                                            .scale = 1.0f};
    p.gate.router = (const uint16_t *)(uintptr_t)(b->weights + layer * b->layer_bytes);
    p.gate.router_stride = hidden;
    for (int i = 0; i < 2; i++) {
        p.expert[i] =
            (struct rt_expert_weight_view){weight_at(b, layer, i, 0), width * hidden, hidden};
        p.expert_up[i] =
            (struct rt_expert_weight_view){weight_at(b, layer, i, 1), width * hidden, hidden};
    }
    p.expert_down[0] =
        (struct rt_expert_weight_view){weight_at(b, layer, false, 2), width * hidden, width};
    p.expert_down[1] =
        (struct rt_expert_weight_view){weight_at(b, layer, true, 2), width, width * m->shared};
    return p;
}

/* Experts that so many tokens hit where all are as likely. */
static double active_of(const struct model *m, uint32_t tokens)
{
    double missed = 1;
    for (uint32_t t = 0; t < tokens && m->experts > 0; t++)
        missed *= 1 - (double)m->chosen / m->experts;
    return m->shared + m->experts * (1 - missed);
}

static void time_layers(const struct bench *b)
{
    struct ck *ck = b->ck;
    const struct model *m = b->model;
    struct rt_device_caps caps = ck->driver.caps;
    struct rt_launch *all = ck_new(ck, m->layers * sizeof(*all));
    const unsigned char none[EXCHANGE_BYTES] = {0};
    struct rt_error err = {0};
    if (!ck_is_cuda(ck))
        caps.cc = 90;
    CK_DRV(ck, copy_in, (&ck->driver, b->data, none, sizeof(none), ck->stream));
    CK_DRV(ck, stream_sync, (&ck->driver, ck->stream));
    for (uint32_t i = 0; i < m->layers; i++) {
        const struct rt_moe_block_params p = params_of(b, i);
        const struct rt_op_request request = {.caps = &caps, .moe_block = &p};
        struct rt_variant v;
        ck_must(ck, rt_op_resolve(RT_OP_MOE_BLOCK, &request, &v, &err), &err);
        ck_must(ck, ck_build_variant(ck, &v, &p, sizeof(p), &all[i], &err), &err);
    }
    const double ns = ck_time_ns(ck, all, m->layers);
    const double bytes = active_of(m, b->tokens) * 3 * (double)b->third + (double)b->router_bytes;
    printf("moe_block  %-13s %u tokens: %8.2f us a layer, about %6.0f GB/s of %6.1f MB\n", m->name,
           b->tokens, ns / 1e3, bytes / ns, bytes / 1e6);
    free(all);
}

static void bench_model(struct ck *ck, const struct model *m)
{
    static const uint32_t tokens[] = {1, 2, 3, 4};
    struct bench b = {.ck = ck, .model = m};
    const uint64_t data_bytes = UINT64_C(4) << 20;
    b.third = UINT64_C(2) * m->hidden * m->width;
    b.router_bytes = rt_align_up_u64(UINT64_C(2) * m->experts * m->hidden, 256);
    b.layer_bytes = b.router_bytes + (m->experts + m->shared) * 3 * b.third;
    CK_DRV(ck, mem_alloc, (&ck->driver, m->layers * b.layer_bytes, &b.weights));
    CK_DRV(ck, mem_alloc, (&ck->driver, data_bytes, &b.data));
    ck_fill_bf16(ck, b.weights, m->layers * b.layer_bytes, SPREAD);
    ck_fill_bf16(ck, b.data, data_bytes, SPREAD);
    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
        b.tokens = tokens[i];
        if (b.tokens <=
            rt_moe_block_most_tokens(m->hidden, m->experts, m->chosen, m->shared, m->width))
            time_layers(&b);
    }
    CK_DRV(ck, mem_free, (&ck->driver, b.weights));
    CK_DRV(ck, mem_free, (&ck->driver, b.data));
}

void ck_moe_block_bench(struct ck *ck)
{
    const bool cuda = ck_is_cuda(ck);
    const size_t count = cuda ? sizeof(cuda_models) / sizeof(cuda_models[0])
                              : sizeof(host_models) / sizeof(host_models[0]);
    for (size_t i = 0; i < count; i++)
        bench_model(ck, cuda ? &cuda_models[i] : &host_models[i]);
}
