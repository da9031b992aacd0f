/* SPDX-License-Identifier: Apache-2.0 */
#include "common/math.h"
#include "kernels/op.h"
#include "tests/checkkern/project_case.h"

#include <stdio.h>

/* Up to which other kernels multiply. */
#define FEW_VECTORS 16u

/* Multiplications of a case, so that the truth does not take minutes. */
#define MOST_PRODUCTS (UINT64_C(3) << 19)
#define MOST_PRODUCTS_CUDA (UINT64_C(64) << 20)
#define MOST_PRODUCTS_FULL (UINT64_C(1) << 30)

/* What an attention block is made of; q_rank 0: q comes from the hidden vector at once. */
struct model {
    uint32_t hidden, q_rank, rank, rope, nope, value;
};
static const struct model models[] = {
    {7168, 1536, 512, 64, 128, 128}, {2048, 0, 512, 64, 128, 128},
    {2560, 768, 256, 32, 64, 64},    {2048, 768, 512, 64, 192, 256},
    {6144, 1536, 512, 64, 128, 128}, {4096, 1024, 256, 64, 64, 128},
    {120, 48, 32, 16, 24, 16},
};
#define MODELS (sizeof(models) / sizeof(models[0]))

static const uint32_t head_counts[] = {1, 3, 5, 16, 20, 40, 128};
#define HEAD_COUNTS (sizeof(head_counts) / sizeof(head_counts[0]))

enum part { QKV_A, Q_B, UP_KEYS, UP_VALUES, OUT, PARTS };

/* One of the five products of a block. */
static struct ck_project product(const struct model *g, enum part part, uint32_t heads)
{
    const uint32_t q_width = heads * (g->nope + g->rope),
                   q_rank = g->q_rank ? g->q_rank : g->hidden;
    struct ck_project c = {.batch = 1};
    switch (part) {
    case QKV_A:
        c.k = g->hidden;
        c.rows[0] = g->q_rank ? g->q_rank : q_width;
        c.rows[1] = g->rank + g->rope;
        break;
    case Q_B:
        c.k = q_rank;
        c.rows[0] = q_width;
        c.norm = true;
        break;
    case UP_KEYS:
        c.batch = heads;
        c.k = g->nope;
        c.rows[0] = g->rank;
        c.transposed = true;
        c.inside = true;
        break;
    case UP_VALUES:
        c.batch = heads;
        c.k = g->rank;
        c.rows[0] = g->value;
        c.inside = true;
        break;
    default:
        c.k = heads * g->value;
        c.rows[0] = g->hidden;
        break;
    }
    return c;
}

/* Fewer rows, and then fewer heads, until it is small enough. */
static void shrink(struct ck_project *c, uint64_t most)
{
    while ((uint64_t)c->batch * c->m * c->k * (c->rows[0] + c->rows[1]) > most) {
        if (c->rows[0] > 67)
            c->rows[0] = c->rows[0] / 2 + 1;
        else if (c->batch > 1)
            c->batch = c->batch / 2;
        else if (c->rows[1] > 67)
            c->rows[1] = c->rows[1] / 2 + 1;
        else
            return;
    }
}

static bool resolve(struct ck *ck, const struct rt_project_params *p, enum rt_backend backend,
                    struct rt_variant *out)
{
    const struct rt_op_request request = {
        .caps = &ck->driver.caps, .backend = backend, .product = p};
    struct rt_error err = {0};
    const enum rt_status status = rt_op_resolve(RT_OP_PROJECT, &request, out, &err);
    if (status == RT_ERR_UNSUPPORTED)
        return false;
    ck_must(ck, status, &err);
    return true;
}

static void check_variant(struct ck *ck, const struct ck_project *c,
                          const struct ck_project_rig *rig, const struct ck_project_truth *truth,
                          const struct rt_variant *choice)
{
    char text[160];
    struct rt_error err = {0};
    struct rt_launch launch;
    ck_project_describe(c, text, sizeof(text));
    ck_case(ck, "%s, %u blocks, %u bytes: %s", choice->entry, choice->parts, choice->smem_bytes,
            text);
    const struct rt_project_params p = ck_project_params(c, rig, CK_DEVICE);
    enum rt_status status = ck_build_variant(ck, choice, &p, sizeof(p), &launch, &err);
    ck_upload(ck, &rig->y);
    ck_launch(ck, status, &err, &launch);
    ck_project_compare(ck, c, rig, truth);
    const uint64_t vectors = (uint64_t)c->batch * c->m;
    ck_count(ck, rt_backend_name(choice->backend), vectors, vectors);
}

/* Of those for many vectors any other. */
static void cut_otherwise(struct ck_random *random, const struct ck_project *c,
                          struct rt_variant *choice)
{
    static const char *const along[] = {"rt_project_sm90_many64x16", "rt_project_sm90_many64x32",
                                        "rt_project_sm90_many64x64"};
    if (!c->transposed)
        choice->entry = along[ck_random_below(random, 3)];
}

/* By every kernel that serves it; the tuned one also with other blocks and rings. */
static void check(struct ck *ck, struct ck_random *random, const struct ck_project *c)
{
    static const uint32_t parts[] = {1, 2, 7, 8, 132};
    struct rt_variant choice;
    struct ck_project_rig rig = ck_project_make(ck, c);
    struct ck_project_truth truth = ck_project_truth(ck, c, &rig);
    const struct rt_project_params p = ck_project_params(c, &rig, CK_DEVICE);
    if (resolve(ck, &p, RT_BACKEND_GENERIC, &choice))
        check_variant(ck, c, &rig, &truth, &choice);
    if (resolve(ck, &p, RT_BACKEND_SM90, &choice)) {
        check_variant(ck, c, &rig, &truth, &choice);
        /* Of the most blocks, all but a few have nothing to do. */
        choice.parts = parts[ck_random_below(random, ck->quick ? 4 : 5)];
        if (c->m > FEW_VECTORS)
            cut_otherwise(random, c, &choice);
        if (!c->transposed || c->m > FEW_VECTORS)
            choice.smem_bytes = (106 + ck_random_below(random, 121)) * 1024;
        check_variant(ck, c, &rig, &truth, &choice);
    }
    ck_project_forget(&truth);
    ck_project_free(ck, &rig);
}

/* Every number of vectors, every count of heads, every product, in turn. */
static void check_models(struct ck *ck, struct ck_random *random, uint64_t most)
{
    const uint32_t rounds = ck->full ? 720 : ck->quick ? 9 : 90;
    for (uint32_t i = 0; i < rounds; i++) {
        const uint32_t m = i % 18 < 16 ? 1 + i % 18 : i % 18 == 16 ? 17 : 64;
        const struct model *g = &models[ck_random_below(random, MODELS)];
        struct ck_project c =
            product(g, (enum part)(i % PARTS), head_counts[ck_random_below(random, HEAD_COUNTS)]);
        c.m = m;
        c.bias = c.batch == 1 && ck_random_below(random, 3) == 0;
        c.gaps = ck_random_below(random, 2);
        c.y_f32 = i % 3 == 1;
        c.norm = c.norm || (!c.transposed && ck_random_below(random, 5) == 0);
        c.trouble = (enum ck_project_trouble)(ck_random_below(random, 2 * CK_PROJECT_TROUBLES) %
                                              (i % 2 ? CK_PROJECT_TROUBLES : 1));
        c.seed = ck_random_u64(random) >> 8;
        shrink(&c, most);
        check(ck, random, &c);
    }
}

/* Lengths at every edge of what a kernel takes at once, and one number beside it. */
static void check_lengths(struct ck *ck, struct ck_random *random, uint64_t most)
{
    static const uint32_t lengths[] = {7,    50,   48,   56,   64,    120,  128,  136,
                                       248,  256,  264,  504,  512,   520,  1016, 1024,
                                       1032, 2048, 2056, 4104, 16376, 16384};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        for (uint32_t turn = 0; turn < 4; turn++) {
            if (ck->quick && i % 4 != turn)
                continue;
            struct ck_project c = {.batch = turn % 2 ? 3 : 1,
                                   .m = 1 + ck_random_below(random, 16),
                                   .k = lengths[i],
                                   .rows = {1 + ck_random_below(random, 150)},
                                   .transposed = turn > 1,
                                   .norm = turn == 0,
                                   .inside = ck_random_below(random, 2),
                                   .gaps = ck_random_below(random, 2),
                                   .y_f32 = (i + turn) % 3 == 0,
                                   .seed = ck_random_u64(random) >> 8};
            if (turn == 0)
                c.rows[1] = 1 + ck_random_below(random, 40);
            shrink(&c, most);
            check(ck, random, &c);
        }
}

/* More vectors than there are kernels for few, beside each edge of a tile of 16 or 64. */
static void check_many(struct ck *ck, struct ck_random *random, uint64_t most)
{
    static const uint32_t vectors[] = {17, 24, 32, 33, 48, 49, 63, 64};
    static const uint32_t lengths[] = {8, 64, 72, 248, 512, 1032, 2048};
    for (uint32_t i = 0; i < (ck->quick ? 8 : 24); i++) {
        struct ck_project c = {.batch = i % 3 == 2 ? 3 : 1,
                               .m = vectors[i % 8],
                               .k = lengths[i % 7],
                               .rows = {1 + ck_random_below(random, 150)},
                               .transposed = i % 4 == 3,
                               .inside = ck_random_below(random, 2),
                               .gaps = ck_random_below(random, 2),
                               .y_f32 = i % 5 == 0,
                               .trouble = (enum ck_project_trouble)(i % CK_PROJECT_TROUBLES),
                               .seed = ck_random_u64(random) >> 8};
        c.bias = c.batch == 1 && i % 2 == 0;
        if (i % 2)
            c.rows[1] = 1 + ck_random_below(random, 70);
        shrink(&c, most);
        check(ck, random, &c);
    }
}

void ck_project_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    uint64_t most = ck_is_cuda(ck) ? MOST_PRODUCTS_CUDA : MOST_PRODUCTS;
    if (ck->full)
        most = MOST_PRODUCTS_FULL;
    check_models(ck, &random, most);
    check_lengths(ck, &random, most);
    check_many(ck, &random, most);
}
