/* SPDX-License-Identifier: Apache-2.0 */
/* A chain of layers, each with weights and a cache of its own, so that nothing is in L2 when its
 * turn comes; the exchanges of neighbours are apart, as a graph has them. */
#include "tests/checkkern/mla_block_case.h"

#include <stdio.h>

#define LAYERS 24u
#define LAYERS_HOST 2u

/* Weights and cache of layer `layer`: a case's buffers are as many times as long. */
static struct rt_mla_block_params layer_of(const struct rt_mla_block_params *first,
                                           const struct ck_block_case *c, uint32_t layer)
{
    struct rt_mla_block_params p = *first;
    const int64_t hidden = c->hidden_size, rank = c->q_rank;
    const int64_t heads = c->heads, q_rows = heads * RT_MLA_BLOCK_QUERY;
    p.q.base += layer * (rank ? rank : q_rows) * hidden;
    p.kv_a.base += layer * (int64_t)RT_MLA_BLOCK_TOKEN * hidden;
    p.q_b.base = rank ? p.q_b.base + layer * q_rows * rank : NULL;
    p.kv_b.base += layer * heads * (RT_MLA_BLOCK_NOPE + RT_MLA_BLOCK_VALUE) * RT_MLA_BLOCK_LATENT;
    p.o.base += layer * hidden * heads * RT_MLA_BLOCK_VALUE;
    p.kv.base += layer * p.kv.pages * (uint64_t)p.kv.page_stride_bytes;
    p.exchange = layer % 2 > 0 ? first->stale : first->exchange;
    p.stale = layer % 2 > 0 ? first->exchange : first->stale;
    p.first = layer == 0;
    p.early = layer > 0;
    return p;
}

/* With what stands in front of the products in a model, or hidden as it is. */
static double time_layers(struct ck *ck, const struct ck_block_case *c,
                          const struct rt_mla_block_params *first, const struct rt_variant *choice,
                          bool normed)
{
    const uint32_t layers = ck_is_cuda(ck) ? LAYERS : LAYERS_HOST;
    struct rt_launch launches[LAYERS];
    struct rt_error err = {0};
    for (uint32_t i = 0; i < layers; i++) {
        struct rt_mla_block_params p = layer_of(first, c, i);
        p.residual = normed ? p.residual : NULL;
        p.input_norm.weight = normed ? p.input_norm.weight : NULL;
        ck_must(ck, ck_build_variant(ck, choice, &p, sizeof(p), &launches[i], &err), &err);
    }
    return ck_time_ns(ck, launches, layers) / 1e3;
}

static void bench(struct ck *ck, struct ck_random *random, const char *model,
                  const struct ck_block_case *c)
{
    struct ck_block_buffers b = ck_block_make(ck, random, c, ck_is_cuda(ck) ? LAYERS : LAYERS_HOST);
    const struct rt_mla_block_params first = ck_block_params(c, &b, CK_DEVICE);
    struct rt_variant choice;
    if (ck_block_resolve(ck, c, &first, &choice))
        printf("mla_block  %-12s %2u heads, %u rows of %4d tokens, %u new: %6.2f us a layer, %6.2f "
               "with norm and residual\n",
               model, c->heads, c->rows, c->length[0], c->q_len,
               time_layers(ck, c, &first, &choice, false),
               time_layers(ck, c, &first, &choice, true));
    ck_block_free(ck, &b);
}

void ck_mla_block_bench(struct ck *ck)
{
    static const struct {
        const char *model;
        uint32_t rows, q_len, heads, hidden, rank;
        int32_t length;
    } lines[] = {
        {"DeepSeek-V3", 1, 1, 16, 7168, 1536, 4096}, {"DeepSeek-V3", 8, 1, 16, 7168, 1536, 4096},
        {"DeepSeek-V3", 2, 4, 16, 7168, 1536, 4096}, {"DeepSeek-V3", 1, 1, 8, 7168, 1536, 4096},
        {"DeepSeek-V3", 8, 1, 8, 7168, 1536, 4096},  {"DeepSeek-V3", 1, 1, 32, 7168, 1536, 4096},
        {"DeepSeek-V3", 8, 1, 32, 7168, 1536, 4096}, {"V2-Lite", 1, 1, 16, 2048, 0, 1024},
        {"V2-Lite", 8, 1, 16, 2048, 0, 1024},
    };
    struct ck_random random = {.state = ck->seed};
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct ck_block_case c = {.rows = lines[i].rows,
                                  .q_len = lines[i].q_len,
                                  .heads = lines[i].heads,
                                  .hidden_size = lines[i].hidden,
                                  .q_rank = lines[i].rank,
                                  .page_size = 64,
                                  .flags = CK_BLOCK_NORM | CK_BLOCK_RESIDUAL | CK_BLOCK_ROPE};
        for (uint32_t r = 0; r < c.rows; r++)
            c.length[r] = lines[i].length;
        bench(ck, &random, lines[i].model, &c);
    }
}
