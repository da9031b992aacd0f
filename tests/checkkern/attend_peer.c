/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/attend_case.h"

/*
 * The shapes that FlashMLA holds its own dense decode kernel to: 576/512 in pages of 64, lengths
 * all the same or normally distributed about a mean with half of it as deviation, no shorter than
 * the query, and in some cases half of them zero.
 */
static const uint32_t batches[] = {1, 2, 6, 64};
static const uint32_t query_lens[] = {1, 2, 4};
static const uint32_t means[] = {20, 140, 4096};
static const uint32_t head_counts[] = {1, 3, 9, 63, 64, 126, 128};
#define BATCHES 4u
#define QUERY_LENS 3u
#define MEANS 3u
#define HEAD_COUNTS 7u
#define SHAPES (BATCHES * QUERY_LENS * MEANS * HEAD_COUNTS)
#define VARIANTS 4u /* lengths all the same or not, causal or not */

/* Pairs of a query row and a key, so that the default run stays short: everywhere, and where the
 * kernels are the C references. */
#define SOME_PAIRS 2500000u
#define HOST_PAIRS 15000u

static int32_t length_of(struct ck_random *random, uint32_t mean, uint32_t q_len)
{
    double length = mean * (1 + ck_random_normal(random) / 2);
    return length > q_len ? (int32_t)length : (int32_t)q_len;
}

static struct ck_attend make(const struct ck *ck, uint32_t shape, uint32_t variant)
{
    uint32_t head = shape % HEAD_COUNTS, mean = means[shape / HEAD_COUNTS % MEANS];
    struct ck_attend c = {.d_qk = 576,
                          .d_v = 512,
                          .heads = head_counts[head],
                          .q_len = query_lens[shape / HEAD_COUNTS / MEANS % QUERY_LENS],
                          .page_size = 64,
                          .rows = batches[shape / HEAD_COUNTS / MEANS / QUERY_LENS],
                          .causal = variant / 2,
                          .scale = 0.0416666667f,
                          .seed = ck->seed * 1000003u + shape * VARIANTS + variant};
    struct ck_random random = {.state = c.seed ^ 0x1e47u};
    bool zeros = (shape + variant) % 3 == 0;
    for (uint32_t r = 0; r < c.rows; r++) {
        c.lengths[r] = variant % 2 ? length_of(&random, mean, c.q_len) : (int32_t)mean;
        if (zeros && ck_random_below(&random, 2))
            c.lengths[r] = 0;
    }
    return c;
}

static uint64_t pairs_of(const struct ck_attend *c)
{
    uint64_t pairs = 0;
    for (uint32_t r = 0; r < c->rows; r++)
        pairs += (uint64_t)c->lengths[r] * c->q_len * c->heads;
    return pairs;
}

void ck_attend_peer_run(struct ck *ck)
{
    uint64_t most = !ck_is_cuda(ck) ? HOST_PAIRS * (ck->full ? 4u : 1u) / (ck->quick ? 2u : 1u)
                    : ck->full      ? UINT64_MAX
                                    : SOME_PAIRS;
    for (uint32_t i = 0; i < SHAPES * VARIANTS; i++) {
        uint32_t shape = i / VARIANTS, variant = i % VARIANTS;
        /* Thinned: every fifth shape, in one variant. */
        if (!ck->full && (shape % 5 != ck->seed % 5 || shape / 5 % VARIANTS != variant))
            continue;
        struct ck_attend c = make(ck, shape, variant);
        if (pairs_of(&c) <= most)
            ck_attend_check(ck, &c);
    }
}
