/* SPDX-License-Identifier: Apache-2.0 */
/* prefill_attend: each kernel that serves the dimensions, against the reference. */
#include "tests/checkkern/prefill_case.h"

#include "common/bf16.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"
#include "tests/checkkern/parallel.h"

#include <stdlib.h>
#include <string.h>

/* What a device has left, or the reference. */
struct outcome {
    uint16_t *out;
    float *lse;
};

static struct outcome download(struct ck *ck, const struct prefill_buffers *b)
{
    struct outcome o = {.out = ck_new(ck, b->out.bytes + CK_GUARD_BYTES),
                        .lse = ck_new(ck, b->lse.bytes + CK_GUARD_BYTES)};
    ck_download(ck, &b->out, o.out);
    ck_download(ck, &b->lse, o.lse);
    return o;
}

static void drop(struct outcome *o)
{
    free(o->out);
    free(o->lse);
}

/* What has been compared becomes 0 in both, and then all bytes are the same: nothing was written
 * that is not a token's. */
static void compare(struct ck *ck, const struct prefill_case *c, const struct prefill_buffers *b,
                    const struct rt_prefill_attend_params *p, struct outcome *found)
{
    struct ck_floats out = ck_floats_out(), lse = ck_floats_lse();
    struct outcome truth = {.out = ck_new(ck, b->out.bytes + CK_GUARD_BYTES),
                            .lse = ck_new(ck, b->lse.bytes + CK_GUARD_BYTES)};
    memcpy(truth.out, ck_at(&b->out, CK_REF), b->out.bytes + CK_GUARD_BYTES);
    memcpy(truth.lse, ck_at(&b->lse, CK_REF), b->lse.bytes + CK_GUARD_BYTES);
    for (uint32_t t = c->front; t < p->tokens; t++)
        for (uint32_t h = 0; h < c->heads; h++) {
            const int64_t at = t * p->lse.token_stride + h * p->lse.head_stride;
            const int64_t from = t * p->out.token_stride + h * p->out.head_stride;
            ck_floats_add(&lse, (double)found->lse[at], (double)truth.lse[at],
                          (struct ck_place){.token = t, .head = h});
            found->lse[at] = truth.lse[at] = 0;
            for (uint32_t d = 0; d < c->v_dim; d++) {
                ck_floats_add(&out, (double)rt_bf16_to_float(found->out[from + d]),
                              (double)rt_bf16_to_float(truth.out[from + d]),
                              (struct ck_place){.token = t, .head = h, .d = d});
                found->out[from + d] = truth.out[from + d] = 0;
            }
        }
    ck_floats_end(ck, &out, CK_OUT_COS);
    ck_floats_end(ck, &lse, 0);
    ck_expect_bytes(ck, "out besides", found->out, truth.out, b->out.bytes + CK_GUARD_BYTES);
    ck_expect_bytes(ck, "lse besides", found->lse, truth.lse, b->lse.bytes + CK_GUARD_BYTES);
    drop(&truth);
}

static void run_again(struct ck *ck, const struct prefill_buffers *b,
                      const struct rt_launch *launch, const struct rt_error *err,
                      const struct outcome *first)
{
    ck_launch(ck, RT_OK, err, launch);
    struct outcome second = download(ck, b);
    ck_expect_bytes(ck, "out again", second.out, first->out, b->out.bytes + CK_GUARD_BYTES);
    ck_expect_bytes(ck, "lse again", second.lse, first->lse, b->lse.bytes + CK_GUARD_BYTES);
    drop(&second);
}

/* Twice, and bit for bit the same, unless it has to be quick. */
static void run_variant(struct ck *ck, const struct prefill_case *c,
                        const struct prefill_buffers *b, const struct rt_variant *variant)
{
    const struct rt_prefill_attend_params p = prefill_params(c, b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    const enum rt_status built = ck_build_variant(ck, variant, &p, sizeof(p), &launch, &err);
    ck_launch(ck, built, &err, &launch);
    struct outcome first = download(ck, b);
    if (!ck->quick)
        run_again(ck, b, &launch, &err, &first);
    compare(ck, c, b, &p, &first);
    ck_expect_same(ck, &b->turn);
    drop(&first);
}

static struct rt_prefill_view of_head(struct rt_prefill_view view, uint32_t head, uint32_t bytes)
{
    view.base = (unsigned char *)view.base + head * view.head_stride * bytes;
    return view;
}

/* One head's share of the reference. */
static void work_head(void *arg, uint32_t head)
{
    struct rt_prefill_attend_params p = *(const struct rt_prefill_attend_params *)arg;
    struct rt_prefill_view *views[] = {&p.q, &p.q_rope, &p.k, &p.k_rope, &p.v, &p.out};
    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++)
        *views[i] = of_head(*views[i], head, sizeof(uint16_t));
    p.lse = of_head(p.lse, head, sizeof(float));
    p.sink = p.sink ? p.sink + head : NULL;
    p.heads = 1;
    rt_ref_prefill_attend(&p);
}

static void check(struct ck *ck, struct ck_random *random, const struct prefill_case *c)
{
    static const char *const layouts[] = {"packed", "model", "heads first"};
    ck_case(ck, "%u rows, the first of %u after %u, %d short, %u heads of %u + %u/%u, %s, %s%s",
            c->rows, c->queries[0], c->context[0], (int)c->short_of, c->heads, c->nope_dim,
            c->rope_dim, c->v_dim, layouts[c->layout], c->causal ? "causal" : "all",
            c->sink ? ", sinks" : "");
    struct prefill_buffers b = prefill_make(ck, random, c);
    struct rt_prefill_attend_params ref = prefill_params(c, &b, CK_REF);
    ck_parallel(c->heads, work_head, &ref);
    static const enum rt_backend backends[] = {RT_BACKEND_SM90, RT_BACKEND_GENERIC};
    for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
        struct rt_variant variant;
        if (!prefill_variant(ck, c, backends[i], &variant))
            continue;
        const uint64_t rows = (uint64_t)c->heads * prefill_tokens(c);
        ck_count(ck, rt_backend_name(variant.backend), rows, rows);
        run_variant(ck, c, &b, &variant);
    }
    prefill_free(ck, &b);
}

/* ---- cases ---- */

static const struct dims {
    uint32_t nope, rope, v;
} dims[] = {{128, 64, 128}, {192, 64, 256}, {64, 32, 64}, {64, 64, 128}, {256, 0, 256},
            {40, 8, 24},    {8, 0, 8},      {96, 32, 96}, {192, 0, 128}};
#define DIMS ((uint32_t)(sizeof(dims) / sizeof(dims[0])))

static struct prefill_case make_case(uint32_t number)
{
    const struct dims *d = &dims[number % DIMS];
    return (struct prefill_case){.rows = 1,
                                 .heads = 1,
                                 .nope_dim = d->nope,
                                 .rope_dim = d->rope,
                                 .v_dim = d->v,
                                 .layout = number % 3 == 0   ? PREFILL_MODEL
                                           : number % 3 == 1 ? PREFILL_PACKED
                                                             : PREFILL_HEADS_FIRST,
                                 .causal = true,
                                 .lse_base2 = number % 2,
                                 .poison_row = -1,
                                 .spread = 1.0f};
}

/* Lengths at and beside the edges of tiles and blocks, each by other dimensions, and the main ones
 * always. */
static void check_lengths(struct ck *ck, struct ck_random *random)
{
    static const uint32_t lengths[] = {0, 1, 63, 64, 65, 127, 128, 129, 191, 256, 257};
    for (uint32_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i += ck->quick ? 4 : 1)
        for (uint32_t main = 0; main < 2; main++) {
            struct prefill_case c = make_case(main ? i * DIMS : i);
            c.queries[0] = lengths[i];
            c.front = main ? 0 : 3;
            c.behind = i % 3 == 0 ? 0 : i;
            check(ck, random, &c);
        }
}

/* Keys in front of the queries, fewer keys than queries, and all keys seen by all. */
static void check_context(struct ck *ck, struct ck_random *random)
{
    static const uint32_t context[] = {1, 64, 100, 128, 200, 320};
    for (uint32_t i = 0; i < sizeof(context) / sizeof(context[0]); i += ck->quick ? 2 : 1) {
        struct prefill_case c = make_case(i);
        c.heads = 2;
        c.queries[0] = 1 + ck_random_below(random, 200);
        c.context[0] = context[i];
        c.causal = i % 3 != 2;
        c.behind = 5;
        check(ck, random, &c);
        c.context[0] = 0;
        c.short_of = (int32_t)(i % 2 ? 1 + c.queries[0] / 2 : c.queries[0]);
        check(ck, random, &c);
    }
}

static void fill_random_rows(struct ck_random *random, struct prefill_case *c, uint32_t most)
{
    static const uint32_t edges[] = {0, 1, 63, 64, 65, 127, 128, 129};
    for (uint32_t r = 0; r < c->rows; r++) {
        c->queries[r] = ck_random_below(random, 2) ? edges[ck_random_below(random, 8)]
                                                   : ck_random_below(random, most);
        c->context[r] = ck_random_below(random, 2) ? 0 : ck_random_below(random, most);
    }
}

/* One row is NaN all over: none beside it is. */
static void check_ragged(struct ck *ck, struct ck_random *random)
{
    static const uint32_t heads[] = {1, 5, 16, 2, 3};
    const uint32_t rounds = ck->full ? 60 : ck->quick ? 3 : 14;
    for (uint32_t i = 0; i < rounds; i++) {
        struct prefill_case c = make_case(i);
        c.rows = 1 + ck_random_below(random, 6);
        c.heads = heads[i % 5];
        c.front = ck_random_below(random, 9);
        c.behind = ck_random_below(random, ck->quick ? 20 : 150);
        c.causal = i % 5 != 3;
        c.poison_row = (int)ck_random_below(random, c.rows + 1) - 1;
        c.spread = i % 4 == 1 ? 300.0f : 1.0f;
        c.sink = i % 3 != 1;
        fill_random_rows(random, &c, c.heads > 4 ? 60 : 300);
        check(ck, random, &c);
    }
}

/* As many rows as there may be, of a few tokens. */
static void check_many_rows(struct ck *ck, struct ck_random *random)
{
    struct prefill_case c = make_case(0);
    c.rows = RT_PREFILL_MOST_ROWS;
    for (uint32_t r = 0; r < c.rows; r++) {
        c.queries[r] = ck_random_below(random, 5) ? 0 : ck_random_below(random, 4);
        c.context[r] = ck_random_below(random, 4);
    }
    check(ck, random, &c);
}

/* Offsets that point outside of the tensors, which nobody touches; those of keys also back. */
static void check_offsets(struct ck *ck, struct ck_random *random)
{
    static const int32_t queries[][4] = {
        {-5, 70, 70, 1 << 30}, {INT32_MIN, 0, 100, 100}, {0, 200, 150, INT32_MAX}};
    static const int32_t keys[][4] = {
        {0, 100, 20, INT32_MAX}, {-1, 70, 60, 1 << 30}, {500, 600, INT32_MIN, 110}};
    for (uint32_t i = 0; i < 3; i++) {
        struct prefill_case c = make_case(0);
        c.rows = 3;
        c.queries[0] = 50;
        c.queries[1] = 70;
        struct prefill_buffers b = prefill_make(ck, random, &c);
        memcpy(ck_at(&b.q_first, CK_REF), queries[i], sizeof(queries[i]));
        memcpy(ck_at(&b.k_first, CK_REF), keys[i], sizeof(keys[i]));
        ck_upload(ck, &b.q_first);
        ck_upload(ck, &b.k_first);
        ck_case(ck, "offsets %u", i);
        const struct rt_prefill_attend_params ref = prefill_params(&c, &b, CK_REF);
        struct rt_variant variant;
        rt_ref_prefill_attend(&ref);
        if (prefill_variant(ck, &c, RT_BACKEND_AUTO, &variant))
            run_variant(ck, &c, &b, &variant);
        prefill_free(ck, &b);
    }
}

/* Many blocks of keys, and more items than blocks of threads; for a device that is one. */
static void check_long(struct ck *ck, struct ck_random *random)
{
    for (uint32_t i = 0; i < 5; i++) {
        struct prefill_case c = make_case(i);
        c.rows = 2;
        c.heads = 16;
        c.queries[0] = 700;
        c.context[0] = 333;
        c.queries[1] = 1100;
        check(ck, random, &c);
    }
}

void ck_prefill_run(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    check_lengths(ck, &random);
    check_context(ck, &random);
    check_ragged(ck, &random);
    check_many_rows(ck, &random);
    check_offsets(ck, &random);
    if (ck_is_cuda(ck))
        check_long(ck, &random);
}
