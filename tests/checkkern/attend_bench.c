/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/attend_case.h"

#include <stdio.h>
#include <stdlib.h>

/* What the layers' pools must come to, so that none is left in the L2 cache when its turn is. */
#define COLD_BYTES (UINT64_C(400) << 20)
#define MOST_LAYERS 64u

struct shape {
    uint32_t batch, heads, q_len;
    int32_t length;
};

static const struct shape cuda_shapes[] = {
    {1, 16, 1, 512},    {1, 16, 1, 8192},    {1, 16, 1, 32768},  {4, 16, 1, 4096},
    {8, 16, 1, 512},    {32, 16, 1, 512},    {64, 16, 1, 4096},  {128, 16, 1, 4096},
    {64, 16, 2, 4096},  {1, 128, 1, 512},    {1, 128, 1, 32768}, {8, 128, 1, 4096},
    {64, 128, 1, 4096}, {128, 128, 1, 4096}, {64, 128, 2, 4096},
};
static const struct shape host_shapes[] = {{1, 16, 1, 512}, {4, 16, 2, 128}};

/* Reads of KV, once, of q, and writes of out. */
static double bytes_of(const struct ck_attend *c)
{
    double tokens = 0, query_rows = (double)c->rows * c->q_len * c->heads;
    for (uint32_t r = 0; r < c->rows; r++)
        tokens += c->lengths[r];
    struct rt_kv_format format;
    (void)ck_attend_format(c, &format);
    return tokens * format.token_bytes + 2 * query_rows * (c->d_qk + c->d_v);
}

static double flops_of(const struct ck_attend *c)
{
    double pairs = 0;
    for (uint32_t r = 0; r < c->rows; r++)
        pairs += (double)c->lengths[r] * c->q_len * c->heads;
    return pairs * 2 * (c->d_qk + c->d_v);
}

/* Layers with a pool each: the pool is copied as it is, and only its address differs. */
static uint32_t make_layers(struct ck *ck, const struct ck_attend_rig *rig, rt_addr *pools)
{
    const struct ck_buffer *kv = rig->quant.bytes ? &rig->quant : &rig->kv;
    uint64_t bytes = kv->bytes;
    uint64_t layers = ck_is_cuda(ck) ? (COLD_BYTES + bytes - 1) / bytes : 1;
    uint32_t count = layers > MOST_LAYERS ? MOST_LAYERS : (uint32_t)layers;
    pools[0] = kv->device;
    for (uint32_t i = 1; i < count; i++) {
        CK_DRV(ck, mem_alloc, (&ck->driver, bytes, &pools[i]));
        CK_DRV(ck, copy_in, (&ck->driver, pools[i], kv->ref, bytes, ck->stream));
        CK_DRV(ck, stream_sync, (&ck->driver, ck->stream));
    }
    return count;
}

static double time_layers(struct ck *ck, struct ck_attend_rig *rig)
{
    rt_addr pools[MOST_LAYERS];
    uint32_t layers = make_layers(ck, rig, pools);
    struct rt_launch *launches = ck_new(ck, (2u * MOST_LAYERS + 1) * sizeof(*launches));
    uint32_t each = 2; /* attend and reduce */
    for (uint32_t i = 0; i < layers; i++) {
        rig->attend.kv.base = (unsigned char *)(uintptr_t)pools[i];
        ck_attend_launches(ck, rig, &launches[each * i], &launches[each * i + 1]);
    }
    double ns = each * ck_time_ns(ck, launches, each * layers);
    for (uint32_t i = 1; i < layers; i++)
        CK_DRV(ck, mem_free, (&ck->driver, pools[i]));
    free(launches);
    return ns;
}

static void bench(struct ck *ck, const struct shape *s, uint32_t d_qk, uint32_t d_v,
                  enum rt_kv_layout layout, enum rt_backend backend)
{
    struct ck_attend c = {.d_qk = d_qk,
                          .d_v = d_v,
                          .heads = s->heads,
                          .q_len = s->q_len,
                          .page_size = 64,
                          .rows = s->batch,
                          .causal = s->q_len > 1,
                          .scale = 0.1352338f,
                          .layout = layout,
                          .blank = true,
                          .seed = ck->seed};
    struct rt_variant choice;
    for (uint32_t r = 0; r < c.rows; r++)
        c.lengths[r] = s->length;
    if (!ck_attend_resolve(ck, &c, backend, 0, &choice))
        return;
    struct ck_attend_rig rig;
    ck_attend_inputs(ck, &c, &rig);
    ck_attend_plan(ck, &c, &choice, &rig);
    double ns = time_layers(ck, &rig);
    printf("attend     %-8s %-11s %u/%u batch %3u heads %3u q %u length %5d: %9.2f us %6.0f GB/s "
           "%6.1f "
           "TFLOPS (%u parts, tiles of %u)\n",
           rt_backend_name(backend), rt_kv_layout_name(layout), d_qk, d_v, s->batch, s->heads,
           s->q_len, s->length, ns / 1e3, bytes_of(&c) / ns, flops_of(&c) / ns / 1e3, choice.parts,
           choice.tile_rows);
    ck_attend_unplan(ck, &rig);
    ck_attend_free(ck, &rig);
}

static size_t shapes_of(const struct ck *ck, const struct shape **out)
{
    const bool cuda = ck_is_cuda(ck);
    *out = cuda ? cuda_shapes : host_shapes;
    return cuda ? sizeof(cuda_shapes) / sizeof(cuda_shapes[0])
                : sizeof(host_shapes) / sizeof(host_shapes[0]);
}

void ck_attend_bench(struct ck *ck)
{
    const struct shape *shapes;
    const size_t count = shapes_of(ck, &shapes);
    for (size_t i = 0; i < count; i++) {
        bench(ck, &shapes[i], 576, 512, RT_KV_BF16, RT_BACKEND_GENERIC);
        bench(ck, &shapes[i], 576, 512, RT_KV_BF16, RT_BACKEND_SM90);
    }
    for (size_t i = 0; ck->full && i < count; i++) {
        bench(ck, &shapes[i], 320, 256, RT_KV_BF16, RT_BACKEND_GENERIC);
        bench(ck, &shapes[i], 288, 256, RT_KV_BF16, RT_BACKEND_GENERIC);
        bench(ck, &shapes[i], 512, 512, RT_KV_BF16, RT_BACKEND_GENERIC);
    }
}

static void bench_both(struct ck *ck, const struct shape *s, uint32_t d_qk,
                       enum rt_kv_layout layout)
{
    bench(ck, s, d_qk, 512, layout, RT_BACKEND_GENERIC);
    bench(ck, s, d_qk, 512, layout, RT_BACKEND_SM90);
}

/* Beside bf16 by kernels of the same backend, and with --full all layouts. */
void ck_attend_quant_bench(struct ck *ck)
{
    const struct shape *shapes;
    const size_t count = shapes_of(ck, &shapes);
    for (size_t i = 0; i < count; i++) {
        bench_both(ck, &shapes[i], 576, RT_KV_BF16);
        bench_both(ck, &shapes[i], 576, RT_KV_V32);
        if (!ck->full)
            continue;
        bench_both(ck, &shapes[i], 576, RT_KV_FP8_TENSOR);
        bench_both(ck, &shapes[i], 576, RT_KV_FP8_TOKEN);
        bench_both(ck, &shapes[i], 512, RT_KV_V32_NO_ROPE);
        bench_both(ck, &shapes[i], 512, RT_KV_V4);
    }
}
