/* SPDX-License-Identifier: Apache-2.0 */
#include "common/math.h"
#include "kernels/abi/project_sm90.h"
#include "tests/checkkern/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Weights of 20 layers of the chain; any other product goes through at least 450 MB of its own
 * before it meets the first again. */
#define POOL_BYTES (UINT64_C(1500) << 20)
#define HOST_BYTES (UINT64_C(32) << 20) /* of weights, where the bodies alone are run */
#define SPREAD 0.02                     /* numbers are below */
#define MOST_COPIES 256u
#define LEAST_NODES 96u
#define VECTORS_BYTES (UINT64_C(64) * 128 * 512 * 2)
#define CHAIN_LAYERS 20u
#define FEW_VECTORS RT_PROJECT_SM90_MOST_VECTORS

enum part { QKV_A, Q_B, UP_KEYS, UP_VALUES, OUT, PARTS };
static const char *const names[PARTS] = {"qkv_a", "q_b", "W_UK", "W_UV", "o_proj"};

/* Of one call: how the sm90 kernel is launched. Zeros are what it chooses itself. */
struct knobs {
    uint32_t smem_kb, early_kb, trigger, per_sm;
};

struct bench {
    struct ck *ck;
    rt_addr pool, norm;
    rt_addr vectors[2];
};

/* A DeepSeek-V3 block's product: the shape, and no addresses. x and y as the block has them. */
static struct rt_project_params product(enum part part, uint32_t heads, uint32_t m)
{
    struct rt_project_params p = {.batch = 1, .m = m};
    switch (part) {
    case QKV_A:
        p.k = 7168;
        p.w[0].rows = 1536;
        p.w[1].rows = 576;
        break;
    case Q_B:
        p.k = 1536;
        p.w[0].rows = heads * 192;
        p.x.row_stride = 2112;
        p.norm.width = m > FEW_VECTORS ? 0 : 1536; /* the node in front has it */
        break;
    case UP_KEYS:
        p.batch = heads;
        p.k = 128;
        p.w[0].rows = 512;
        p.x.batch_stride = 192;
        break;
    case UP_VALUES:
        p.batch = heads;
        p.k = 512;
        p.w[0].rows = 128;
        p.x.batch_stride = 512;
        break;
    default:
        p.k = heads * 128;
        p.w[0].rows = 7168;
        break;
    }
    const uint32_t rows = p.w[0].rows + p.w[1].rows;
    if (p.x.row_stride == 0)
        p.x.row_stride = p.x.batch_stride ? p.batch * p.x.batch_stride : p.k;
    p.y.batch_stride = rows;
    p.y.row_stride = (int64_t)p.batch * rows;
    for (int i = 0; i < 2; i++) {
        p.w[i].batch_stride = (int64_t)p.k * p.w[i].rows;
        p.w[i].row_stride = part == UP_KEYS ? 1 : p.k;
        p.w[i].column_stride = part == UP_KEYS ? p.w[i].rows : 1;
    }
    return p;
}

static uint64_t weight_bytes(const struct rt_project_params *p)
{
    return 2 * (uint64_t)p->batch * p->k * (p->w[0].rows + p->w[1].rows);
}

static void place(const struct bench *b, struct rt_project_params *p, uint64_t at, uint32_t turn)
{
    p->x.base = (void *)(uintptr_t)b->vectors[turn % 2];
    p->y.base = (void *)(uintptr_t)b->vectors[(turn + 1) % 2];
    p->w[0].base = (const uint16_t *)(uintptr_t)(b->pool + at);
    if (p->w[1].rows > 0)
        p->w[1].base = p->w[0].base + (uint64_t)p->k * p->w[0].rows;
    if (p->norm.width > 0)
        p->norm = (struct rt_norm_view){.weight = (const uint16_t *)(uintptr_t)b->norm,
                                        .eps = 1e-6f,
                                        .scale = 1,
                                        .width = p->k};
}

/* False where no such kernel serves here. */
static bool resolve(struct ck *ck, const struct rt_project_params *p, const struct knobs *knobs,
                    struct rt_variant *choice)
{
    const struct rt_op_request request = {
        .caps = &ck->driver.caps, .backend = RT_BACKEND_SM90, .product = p};
    struct rt_error err = {0};
    if (rt_op_resolve(RT_OP_PROJECT, &request, choice, &err) != RT_OK)
        return false;
    if (knobs->smem_kb > 0 && p->w[0].row_stride != 1)
        choice->smem_bytes = knobs->smem_kb * 1024;
    if (knobs->per_sm > 0)
        choice->parts = ck->driver.caps.sm_count * knobs->per_sm;
    return true;
}

static struct rt_launch build(struct ck *ck, const struct rt_project_params *p,
                              const struct rt_variant *choice, const struct knobs *knobs)
{
    struct rt_launch launch;
    struct rt_error err = {0};
    ck_must(ck, ck_build_variant(ck, choice, p, sizeof(*p), &launch, &err), &err);
    struct rt_project_sm90_params sm90;
    if (p->m > FEW_VECTORS)
        return launch;
    memcpy(&sm90, launch.params, sizeof(sm90));
    if (knobs->early_kb > 0 && sm90.tile_rows > 0)
        sm90.early =
            rt_max_u32(1, knobs->early_kb * 1024 / (sm90.tile_rows * RT_PROJECT_SM90_ROW_BYTES));
    sm90.trigger = knobs->trigger;
    memcpy(launch.params, &sm90, sizeof(sm90));
    return launch;
}

/* 0 per SM: what the resolver chooses for each. */
static void print_knobs(const struct knobs *k)
{
    printf(" (smem %u KB, early %u KB, trigger %u, %u per SM)\n", k->smem_kb, k->early_kb,
           k->trigger, k->per_sm);
}

static void bench_product(const struct bench *b, enum part part, uint32_t heads, uint32_t m,
                          const struct knobs *knobs)
{
    struct ck *ck = b->ck;
    const bool cuda = ck_is_cuda(ck);
    struct rt_project_params p = product(part, heads, m);
    struct rt_variant choice;
    if (!resolve(ck, &p, knobs, &choice))
        return;
    const uint64_t bytes = weight_bytes(&p);
    const uint64_t pool = cuda ? POOL_BYTES : HOST_BYTES;
    const uint32_t copies = (uint32_t)(pool / bytes > MOST_COPIES ? MOST_COPIES : pool / bytes);
    const uint32_t nodes = cuda ? rt_max_u32(copies, LEAST_NODES) : 2;
    struct rt_launch *all = ck_new(ck, nodes * sizeof(*all));
    for (uint32_t i = 0; i < nodes; i++) {
        place(b, &p, i % copies * bytes, i);
        all[i] = build(ck, &p, &choice, knobs);
    }
    const double ns = ck_time_ns(ck, all, nodes);
    printf("project    %-6s heads %3u m %2u: %8.2f us %6.0f GB/s of %6.1f MB", names[part], heads,
           m, ns / 1e3, (double)bytes / ns, (double)bytes / 1e6);
    print_knobs(knobs);
    free(all);
}

/* The five products one behind the other, each layer with its own weights. */
static void bench_chain(const struct bench *b, uint32_t m, const struct knobs *knobs)
{
    struct ck *ck = b->ck;
    struct rt_launch *all = ck_new(ck, CHAIN_LAYERS * PARTS * sizeof(*all));
    uint64_t at = 0;
    for (uint32_t i = 0; i < CHAIN_LAYERS * PARTS; i++) {
        struct rt_project_params p = product((enum part)(i % PARTS), 16, m);
        struct rt_variant choice;
        if (!resolve(ck, &p, knobs, &choice)) {
            free(all);
            return;
        }
        place(b, &p, at, i);
        at += weight_bytes(&p);
        all[i] = build(ck, &p, &choice, knobs);
    }
    const double ns = PARTS * ck_time_ns(ck, all, CHAIN_LAYERS * PARTS);
    printf("project    chain  heads  16 m %2u: %8.2f us a layer %6.0f GB/s", m, ns / 1e3,
           (double)at / CHAIN_LAYERS / ns);
    print_knobs(knobs);
    free(all);
}

/* Every way to launch it, where all are asked for. */
static void bench_knobs(const struct bench *b,
                        void (*bench)(const struct bench *, enum part, uint32_t,
                                      const struct knobs *),
                        enum part part, uint32_t m)
{
    static const uint32_t smem_kb[] = {64, 75, 112, 200, 227}, early_kb[] = {16, 32, 48, 96, 256};
    for (size_t s = 0; s < sizeof(smem_kb) / sizeof(smem_kb[0]); s++)
        for (size_t e = 0; e < sizeof(early_kb) / sizeof(early_kb[0]); e++)
            for (uint32_t trigger = 0; trigger < 3; trigger++)
                if (early_kb[e] < smem_kb[s] || e == 4)
                    bench(b, part, m,
                          &(struct knobs){
                              .smem_kb = smem_kb[s], .early_kb = early_kb[e], .trigger = trigger});
}

static void product_of_16(const struct bench *b, enum part part, uint32_t m,
                          const struct knobs *knobs)
{
    bench_product(b, part, 16, m, knobs);
}

static void chain_of_16(const struct bench *b, enum part part, uint32_t m,
                        const struct knobs *knobs)
{
    (void)part;
    bench_chain(b, m, knobs);
}

static void bench_all_knobs(const struct bench *b)
{
    static const uint32_t vectors[] = {1, 8};
    for (size_t i = 0; i < 2; i++) {
        for (int part = 0; part < PARTS; part++) {
            if (part != UP_KEYS)
                bench_knobs(b, product_of_16, (enum part)part, vectors[i]);
            for (uint32_t trigger = 0; part == UP_KEYS && trigger < 3; trigger++)
                bench_product(b, UP_KEYS, 16, vectors[i], &(struct knobs){.trigger = trigger});
            for (uint32_t per_sm = 1; per_sm <= 3; per_sm++)
                bench_product(b, (enum part)part, 128, vectors[i],
                              &(struct knobs){.per_sm = per_sm});
        }
        bench_knobs(b, chain_of_16, QKV_A, vectors[i]);
    }
}

/* --full: every ring, request in flight and trigger too. */
void ck_project_bench(struct ck *ck)
{
    static const uint32_t heads[] = {16, 128}, vectors[] = {1, 4, 8, 16, 32, 64};
    enum { VECTORS = sizeof(vectors) / sizeof(vectors[0]) };
    const bool cuda = ck_is_cuda(ck);
    const uint64_t pool_bytes = cuda ? POOL_BYTES : HOST_BYTES;
    struct bench b = {.ck = ck};
    CK_DRV(ck, mem_alloc, (&ck->driver, pool_bytes, &b.pool));
    CK_DRV(ck, mem_alloc, (&ck->driver, VECTORS_BYTES, &b.vectors[0]));
    CK_DRV(ck, mem_alloc, (&ck->driver, VECTORS_BYTES, &b.vectors[1]));
    CK_DRV(ck, mem_alloc, (&ck->driver, 16384 * 2, &b.norm));
    ck_fill_bf16(ck, b.pool, pool_bytes, SPREAD);
    for (int i = 0; i < 2; i++)
        ck_fill_bf16(ck, b.vectors[i], VECTORS_BYTES, SPREAD);
    ck_fill_bf16(ck, b.norm, 16384 * 2, SPREAD);
    const struct knobs own = {0};
    for (size_t h = 0; h < (cuda ? 2 : 1); h++)
        for (int part = cuda ? QKV_A : UP_KEYS; part < (cuda ? PARTS : OUT); part++)
            for (size_t i = 0; i < (cuda ? VECTORS : 1); i++)
                if (h == 0 || part != QKV_A)
                    bench_product(&b, (enum part)part, heads[h], vectors[i], &own);
    for (size_t i = 0; cuda && i < VECTORS; i++)
        bench_chain(&b, vectors[i], &own);
    if (cuda && ck->full)
        bench_all_knobs(&b);
    CK_DRV(ck, mem_free, (&ck->driver, b.norm));
    CK_DRV(ck, mem_free, (&ck->driver, b.vectors[1]));
    CK_DRV(ck, mem_free, (&ck->driver, b.vectors[0]));
    CK_DRV(ck, mem_free, (&ck->driver, b.pool));
}
