/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/attend_truth.h"

#include "kernels/ref/ref.h"
#include "tests/checkkern/parallel.h"

#include <stdlib.h>
#include <string.h>

/* Pairs of a query row and a key whose truth a case on a GPU may ask for. */
#define BUDGET_PAIRS UINT64_C(500000)
#define FULL_BUDGET_PAIRS UINT64_C(1000000)

/* Every tile is a multiple of so many query rows, so its edges are there, too. */
#define TILE_STEP 16u

static uint64_t keys_of(const struct ck_attend *c, uint32_t row)
{
    return row < c->rows - c->padded && c->lengths[row] > 0 ? (uint64_t)c->lengths[row] : 1;
}

static uint64_t pairs_of(const struct ck_attend *c)
{
    uint64_t pairs = 0;
    for (uint32_t r = 0; r < c->rows; r++)
        pairs += keys_of(c, r) * c->q_len * c->heads;
    return pairs;
}

/* Only plain values have a bound that what is not compared can be held against. */
static bool takes_all(const struct ck *ck, const struct ck_attend *c)
{
    uint64_t budget = ck->full ? FULL_BUDGET_PAIRS : BUDGET_PAIRS;
    return !ck_is_cuda(ck) || c->flavour != CK_PLAIN || pairs_of(c) <= budget;
}

static uint32_t pick(struct ck_random *random, uint32_t query_rows)
{
    if (query_rows <= TILE_STEP || ck_random_below(random, 2))
        return ck_random_below(random, query_rows);
    uint32_t edge = TILE_STEP * (1 + ck_random_below(random, (query_rows - 1) / TILE_STEP));
    return edge - ck_random_below(random, 2);
}

static void mark_sample(const struct ck *ck, const struct ck_attend *c, unsigned char *marked)
{
    struct ck_random random = {.state = c->seed ^ 0x7a3bu};
    uint64_t share = (ck->full ? FULL_BUDGET_PAIRS : BUDGET_PAIRS) / c->rows;
    uint32_t query_rows = c->q_len * c->heads;
    for (uint32_t r = 0; r < c->rows; r++, marked += query_rows) {
        uint64_t others = share / keys_of(c, r);
        if (others >= query_rows) {
            memset(marked, 1, query_rows);
            continue;
        }
        marked[0] = marked[query_rows - 1] = 1;
        for (uint64_t i = 2; i < others; i++)
            marked[pick(&random, query_rows)] = 1;
    }
}

struct work {
    const struct rt_attend_params *p;
    struct ck_truth *truth;
};

static void one_query(void *arg, uint32_t i)
{
    const struct work *w = arg;
    const struct ck_query *at = &w->truth->at[i];
    rt_ref_mla_attention_query(w->p, at->row, at->query, w->truth->out + (size_t)i * w->p->d_v,
                               w->truth->lse + i);
}

struct ck_truth ck_truth_make(struct ck *ck, const struct ck_attend *c,
                              const struct rt_attend_params *p)
{
    uint32_t query_rows = c->q_len * c->heads, all = c->rows * query_rows;
    unsigned char *marked = ck_new(ck, all);
    if (takes_all(ck, c))
        memset(marked, 1, all);
    else
        mark_sample(ck, c, marked);
    struct ck_truth truth = {.at = ck_new(ck, all * sizeof(*truth.at))};
    for (uint32_t i = 0; i < all; i++)
        if (marked[i])
            truth.at[truth.count++] = (struct ck_query){i / query_rows, i % query_rows};
    free(marked);
    truth.out = ck_new(ck, (uint64_t)truth.count * c->d_v * sizeof(double));
    truth.lse = ck_new(ck, truth.count * sizeof(double));
    struct work work = {p, &truth};
    ck_parallel(truth.count, one_query, &work);
    return truth;
}

void ck_truth_free(struct ck_truth *truth)
{
    free(truth->at);
    free(truth->out);
    free(truth->lse);
}
