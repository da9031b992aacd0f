/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/experts_case.h"

#include "common/bf16.h"
#include "common/math.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/compare.h"
#include "tests/checkkern/parallel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POISON 0xff
#define BF16_NAN 0x7fc1u
#define BF16_INFINITY 0x7f80u

static uint32_t tokens_of(const struct ck_experts *c)
{
    return c->rows * c->q_len;
}

static uint32_t places_of(const struct ck_experts *c)
{
    return c->chosen + c->shared;
}

/* Lines of products of a token. */
static uint32_t lines_of(const struct ck_experts *c)
{
    return c->chosen + (c->shared > 0);
}

void ck_experts_describe(const struct ck_experts *c, char *text, size_t bytes)
{
    static const char *const choices[CK_EXPERTS_CHOICES] = {"", ", all the same", ", skewed"};
    static const char *const troubles[CK_EXPERTS_TROUBLES] = {"", ", NaN", ", infinity", ", zeros"};
    (void)snprintf(text, bytes, "%u of %u x %u tokens of %u, %u of %u + %u experts of %u%s%s%s%s",
                   c->live_rows, c->rows, c->q_len, c->hidden, c->chosen, c->experts, c->shared,
                   c->width, choices[c->choice], troubles[c->trouble], c->gaps ? ", gaps" : "",
                   c->together ? ", together" : "");
}

/* ---- where everything is ---- */

/* From one row of so many numbers to the next. */
static int64_t apart(const struct ck_experts *c, uint32_t numbers)
{
    return rt_ceil_div_u32(numbers, 8) * 8 + (c->gaps ? 24 : 0);
}

static uint64_t h_numbers(const struct ck_experts *c)
{
    return (uint64_t)tokens_of(c) * places_of(c) * (uint64_t)apart(c, c->width);
}

static struct rt_pairs_view h_view(const struct ck_experts *c, const struct ck_experts_rig *rig,
                                   enum ck_side side)
{
    const int64_t each = apart(c, c->width);
    return (struct rt_pairs_view){
        .base = ck_at(&rig->h, side), .token_stride = places_of(c) * each, .place_stride = each};
}

static struct rt_experts_view work_view(const struct ck_experts *c,
                                        const struct ck_experts_rig *rig, enum ck_side side)
{
    return (struct rt_experts_view){.groups = {.offsets = ck_at(&rig->offsets, side),
                                               .pairs = ck_at(&rig->pairs, side),
                                               .active = ck_at(&rig->active, side),
                                               .active_count = ck_at(&rig->count, side)},
                                    .tokens = tokens_of(c),
                                    .experts = c->experts,
                                    .chosen = c->chosen,
                                    .shared = c->shared};
}

struct rt_experts_up_params ck_experts_up_params(const struct ck_experts *c,
                                                 const struct ck_experts_rig *rig,
                                                 enum ck_side side)
{
    struct rt_experts_up_params p = {.work = work_view(c, rig, side),
                                     .x = ck_at(&rig->x, side),
                                     .h = h_view(c, rig, side),
                                     .x_stride = apart(c, c->hidden),
                                     .hidden = c->hidden,
                                     .width = c->width};
    const int64_t row = apart(c, c->hidden), half = c->width * row;
    for (int i = 0; i < 2; i++) {
        const uint32_t experts = i ? c->shared : c->experts;
        p.gate[i] = (struct rt_expert_weight_view){.base = ck_at(&rig->gate_up[i], side),
                                                   .expert_stride = c->together ? 2 * half : half,
                                                   .row_stride = row};
        p.up[i] = p.gate[i];
        if (p.up[i].base)
            p.up[i].base += c->together ? half : experts * half;
    }
    return p;
}

/* Of the shared experts columns lie one behind the other. */
struct rt_experts_down_params ck_experts_down_params(const struct ck_experts *c,
                                                     const struct ck_experts_rig *rig,
                                                     enum ck_side side)
{
    const int64_t row = apart(c, c->width), shared_row = apart(c, c->width * c->shared);
    return (struct rt_experts_down_params){
        .work = work_view(c, rig, side),
        .rows = {.count = c->rows, .q_len = c->q_len, .slot = ck_at(&rig->slot, side)},
        .choices = ck_at(&rig->choices, side),
        .weights = ck_at(&rig->weights, side),
        .h = h_view(c, rig, side),
        .out = ck_at(&rig->out, side),
        .down = {{ck_at(&rig->down[0], side), c->hidden * row, row},
                 {ck_at(&rig->down[1], side), c->width, shared_row}},
        .out_stride = apart(c, c->hidden),
        .hidden = c->hidden,
        .width = c->width};
}

struct rt_experts_down_pairs_params ck_experts_pairs_params(const struct ck_experts *c,
                                                            const struct ck_experts_rig *rig,
                                                            enum ck_side side)
{
    return (struct rt_experts_down_pairs_params){.down = ck_experts_down_params(c, rig, side),
                                                 .products = ck_at(&rig->products, side)};
}

/* ---- inputs ---- */

static void fill_rows(struct ck_random *random, const struct ck_buffer *b, uint64_t rows,
                      uint32_t numbers, int64_t stride, double size)
{
    uint16_t *to = (uint16_t *)b->ref;
    for (uint64_t row = 0; row < rows; row++)
        for (uint32_t i = 0; i < numbers; i++)
            to[(int64_t)row * stride + i] =
                rt_float_to_bf16((float)(size * (2 * ck_random_unit(random) - 1)));
}

static void fill_x(struct ck_random *random, const struct ck_experts *c,
                   const struct ck_experts_rig *rig)
{
    const int64_t stride = apart(c, c->hidden);
    const uint32_t middle = tokens_of(c) / 2, last = tokens_of(c) - 1;
    uint16_t *x = (uint16_t *)rig->x.ref;
    fill_rows(random, &rig->x, tokens_of(c), c->hidden, stride, 2);
    if (c->trouble == CK_EXPERTS_NAN)
        x[middle * stride + c->hidden - 1] = BF16_NAN;
    if (c->trouble == CK_EXPERTS_INFINITE)
        x[middle * stride + c->hidden / 2] = BF16_INFINITY;
    if (c->trouble == CK_EXPERTS_ZERO)
        memset(x + last * stride, 0, c->hidden * sizeof(*x));
}

static void fill_logits(struct ck_random *random, const struct ck_experts *c, float *logits)
{
    for (uint32_t t = 0; t < tokens_of(c); t++)
        for (uint32_t e = 0; e < c->experts; e++) {
            const double x = ck_random_normal(random);
            const double more = c->choice == CK_EXPERTS_SAME     ? e * 100.0
                                : c->choice == CK_EXPERTS_SKEWED ? 4.0 * (e % 5 == 0)
                                                                 : 0;
            logits[(size_t)t * c->experts + e] = (float)(x + more);
        }
}

/* As route leaves it. */
static void group(struct ck *ck, struct ck_random *random, const struct ck_experts *c,
                  const struct ck_experts_rig *rig)
{
    const struct rt_experts_down_params down = ck_experts_down_params(c, rig, CK_REF);
    const struct rt_route_params p = {.rows = down.rows,
                                      .logits = ck_at(&rig->logits, CK_REF),
                                      .choices = ck_at(&rig->choices, CK_REF),
                                      .weights = ck_at(&rig->weights, CK_REF),
                                      .groups_of = down.work.groups,
                                      .logit_stride = c->experts,
                                      .experts = c->experts,
                                      .chosen = c->chosen,
                                      .scoring = RT_ROUTE_SIGMOID,
                                      .normalise = 1,
                                      .scale = 1.5f};
    for (uint32_t r = 0; r < c->rows; r++)
        ((int32_t *)rig->slot.ref)[r] = r < c->live_rows ? (int32_t)r : -1;
    fill_logits(random, c, ck_at(&rig->logits, CK_REF));
    if (c->experts > 0)
        rt_ref_route(&p);
    const struct ck_buffer *all[] = {&rig->slot,  &rig->choices, &rig->weights, &rig->offsets,
                                     &rig->pairs, &rig->active,  &rig->count};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_upload(ck, all[i]);
}

struct ck_experts_rig ck_experts_make(struct ck *ck, const struct ck_experts *c)
{
    struct ck_random random = {.state = c->seed};
    const uint64_t tokens = tokens_of(c), pairs = tokens * c->chosen + 1;
    const int64_t in = apart(c, c->hidden);
    struct ck_experts_rig rig = {
        .x = ck_alloc_later(ck, "x", 2 * tokens * (uint64_t)in, POISON),
        .h = ck_alloc(ck, "h", 2 * h_numbers(c), POISON),
        .out = ck_alloc(ck, "out", 2 * tokens * (uint64_t)in, POISON),
        .products = ck_alloc(ck, "products", 4 * tokens * lines_of(c) * c->hidden, POISON),
        .logits = ck_alloc(ck, "logits", 4 * (tokens * c->experts + 1), POISON),
        .choices = ck_alloc_later(ck, "choices", 4 * pairs, POISON),
        .weights = ck_alloc_later(ck, "weights", 4 * pairs, POISON),
        .offsets = ck_alloc_later(ck, "offsets", 4 * ((uint64_t)c->experts + 1), POISON),
        .pairs = ck_alloc_later(ck, "pairs", 4 * pairs, POISON),
        .active = ck_alloc_later(ck, "active", 16 * ((uint64_t)c->experts + 1), POISON),
        .count = ck_alloc_later(ck, "active_count", 4, POISON),
        .slot = ck_alloc_later(ck, "slot", 4 * (uint64_t)c->rows, POISON)};
    fill_x(&random, c, &rig);
    ck_upload(ck, &rig.x);
    for (int i = 0; i < 2; i++) {
        const uint64_t experts = i ? c->shared : c->experts, rows = 2 * experts * c->width;
        const uint32_t columns = i ? c->width * c->shared : c->width;
        const uint64_t down_rows = i ? c->hidden : experts * c->hidden;
        if (experts == 0)
            continue;
        rig.gate_up[i] = ck_alloc_later(ck, "gate and up", 2 * rows * (uint64_t)in, POISON);
        rig.down[i] =
            ck_alloc_later(ck, "down", 2 * down_rows * (uint64_t)apart(c, columns), POISON);
        fill_rows(&random, &rig.gate_up[i], rows, c->hidden, in, 0.3);
        fill_rows(&random, &rig.down[i], down_rows, columns, apart(c, columns), 1);
        ck_upload(ck, &rig.gate_up[i]);
        ck_upload(ck, &rig.down[i]);
    }
    group(ck, &random, c, &rig);
    return rig;
}

void ck_experts_free(struct ck *ck, struct ck_experts_rig *rig)
{
    struct ck_buffer *all[] = {&rig->x,          &rig->h,          &rig->out,     &rig->products,
                               &rig->gate_up[0], &rig->gate_up[1], &rig->down[0], &rig->down[1],
                               &rig->logits,     &rig->choices,    &rig->weights, &rig->offsets,
                               &rig->pairs,      &rig->active,     &rig->count,   &rig->slot};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

/* ---- the truth ---- */

struct truth_work {
    const struct ck_experts *c;
    const struct ck_experts_rig *rig;
    struct ck_experts_truth truth;
};

/* A sum of products, and the sum of their sizes. */
struct sum {
    double value, sizes;
};

static struct sum product(const uint16_t *x, const struct rt_expert_weight_view *w, uint32_t expert,
                          uint32_t row, uint32_t count)
{
    const uint16_t *weight = w->base + expert * w->expert_stride + row * w->row_stride;
    struct sum s = {0, 0};
    for (uint32_t i = 0; i < count; i++) {
        const double one = (double)rt_bf16_to_float(x[i]) * (double)rt_bf16_to_float(weight[i]);
        s.value += one;
        s.sizes += fabs(one);
    }
    return s;
}

/* Float sums, as long as a chain of them gets. */
static double slack(const struct sum *s, uint32_t count)
{
    return s->sizes * (count / 16.0 + 8) * 0x1p-23;
}

/* Which expert has the pair, or -1. */
static int32_t expert_of(const struct truth_work *work, uint32_t token, uint32_t place)
{
    const struct ck_experts *c = work->c;
    if (place >= c->chosen)
        return (int32_t)(place - c->chosen);
    return c->experts > 0
               ? ((const int32_t *)work->rig->choices.ref)[(size_t)token * c->chosen + place]
               : -1;
}

static void make_up(void *arg, uint32_t pair)
{
    const struct truth_work *work = arg;
    const struct ck_experts *c = work->c;
    const struct rt_experts_up_params p = ck_experts_up_params(c, work->rig, CK_REF);
    const uint32_t token = pair / places_of(c), place = pair % places_of(c);
    const int32_t expert = expert_of(work, token, place);
    const int shared = place >= c->chosen;
    uint16_t *h = (uint16_t *)p.h.base + token * p.h.token_stride + place * p.h.place_stride;
    for (uint32_t j = 0; j < c->width; j++) {
        const uint64_t at = (uint64_t)pair * c->width + j;
        work->truth.bound[at] = NAN;
        if (expert < 0)
            continue;
        const uint16_t *x = p.x + token * p.x_stride;
        const struct sum a = product(x, &p.gate[shared], (uint32_t)expert, j, c->hidden);
        const struct sum b = product(x, &p.up[shared], (uint32_t)expert, j, c->hidden);
        const double silu = a.value / (1 + exp(-a.value));
        const double off = 1.1 * slack(&a, c->hidden) * fabs(b.value) +
                           fabs(silu) * slack(&b, c->hidden) + fabs(silu * b.value) / 256;
        work->truth.value[at] = silu * b.value;
        work->truth.bound[at] = isfinite(off) ? off + 1e-30 : 0;
        h[j] = rt_float_to_bf16((float)(silu * b.value));
    }
}

/* A line of products: of a place that somebody has chosen, or of all shared experts. */
static void make_pairs(void *arg, uint32_t at_line)
{
    const struct truth_work *work = arg;
    const struct ck_experts *c = work->c;
    const struct rt_experts_down_params p = ck_experts_down_params(c, work->rig, CK_REF);
    const uint32_t token = at_line / lines_of(c), line = at_line % lines_of(c);
    const int shared = line >= c->chosen;
    const uint32_t parts = shared ? c->shared : 1;
    float *products = ck_at(&work->rig->products, CK_REF);
    for (uint32_t j = 0; j < c->hidden; j++) {
        const uint64_t at = (uint64_t)at_line * c->hidden + j;
        const int32_t expert = expert_of(work, token, line);
        struct sum all = {0, 0};
        work->truth.bound[at] = NAN;
        if (expert < 0)
            continue;
        for (uint32_t e = 0; e < parts; e++) {
            const uint16_t *h = (const uint16_t *)p.h.base + token * p.h.token_stride +
                                (line + e) * p.h.place_stride;
            const struct sum s = product(h, &p.down[shared], (uint32_t)expert + e, j, c->width);
            all.value += s.value;
            all.sizes += s.sizes;
        }
        work->truth.value[at] = all.value;
        work->truth.bound[at] = isfinite(all.value) ? slack(&all, parts * c->width) + 1e-30 : 0;
        products[at] = (float)all.value;
    }
}

static void make_down(void *arg, uint32_t token)
{
    const struct truth_work *work = arg;
    const struct ck_experts *c = work->c;
    const struct rt_experts_down_params p = ck_experts_down_params(c, work->rig, CK_REF);
    const bool live = token / c->q_len < c->live_rows;
    for (uint32_t j = 0; j < c->hidden; j++) {
        double value = 0, off = 0;
        for (uint32_t place = 0; live && place < places_of(c); place++) {
            const int shared = place >= c->chosen;
            const int32_t expert = expert_of(work, token, place);
            if (expert < 0)
                continue;
            const uint16_t *h =
                (const uint16_t *)p.h.base + token * p.h.token_stride + place * p.h.place_stride;
            const double weight = shared ? 1 : (double)p.weights[(size_t)token * c->chosen + place];
            const struct sum s = product(h, &p.down[shared], (uint32_t)expert, j, c->width);
            value += weight * s.value;
            off += weight * (slack(&s, c->width) + places_of(c) * s.sizes * 0x1p-23);
        }
        const uint64_t at = (uint64_t)token * c->hidden + j;
        work->truth.value[at] = value;
        work->truth.bound[at] = isfinite(value) ? off + fabs(value) / 256 + 1e-30 : 0;
    }
}

static struct ck_experts_truth truth_of(struct ck *ck, const struct ck_experts *c,
                                        const struct ck_experts_rig *rig, uint32_t vectors,
                                        uint32_t numbers, void (*make)(void *, uint32_t))
{
    const uint64_t bytes = (uint64_t)vectors * numbers * sizeof(double);
    struct truth_work work = {
        .c = c, .rig = rig, .truth = {.value = ck_new(ck, bytes), .bound = ck_new(ck, bytes)}};
    ck_parallel(vectors, make, &work);
    return work.truth;
}

struct ck_experts_truth ck_experts_truth_up(struct ck *ck, const struct ck_experts *c,
                                            const struct ck_experts_rig *rig)
{
    return truth_of(ck, c, rig, tokens_of(c) * places_of(c), c->width, make_up);
}

struct ck_experts_truth ck_experts_truth_pairs(struct ck *ck, const struct ck_experts *c,
                                               const struct ck_experts_rig *rig)
{
    return truth_of(ck, c, rig, tokens_of(c) * lines_of(c), c->hidden, make_pairs);
}

struct ck_experts_truth ck_experts_truth_down(struct ck *ck, const struct ck_experts *c,
                                              const struct ck_experts_rig *rig)
{
    return truth_of(ck, c, rig, tokens_of(c), c->hidden, make_down);
}

void ck_experts_forget(struct ck_experts_truth *truth)
{
    free(truth->value);
    free(truth->bound);
    *truth = (struct ck_experts_truth){0};
}

/* ---- comparing ---- */

static float number_at(const void *at, size_t bytes)
{
    uint16_t half;
    float whole;
    memcpy(bytes == sizeof(half) ? (void *)&half : (void *)&whole, at, bytes);
    return bytes == sizeof(half) ? rt_bf16_to_float(half) : whole;
}

/* Vectors of so many numbers of `bytes`, bf16 or float, `stride` apart; what is left of the buffer
 * must be poison. */
static void compare_numbers(struct ck *ck, const struct ck_buffer *b, uint32_t vectors,
                            uint32_t numbers, int64_t stride, size_t bytes,
                            const struct ck_experts_truth *truth)
{
    unsigned char *found = ck_new(ck, b->bytes + CK_GUARD_BYTES);
    unsigned char *poison = ck_new(ck, b->bytes + CK_GUARD_BYTES);
    struct ck_bounded all = {0};
    ck_download(ck, b, found);
    for (uint64_t at = 0; at < (uint64_t)vectors * numbers; at++) {
        unsigned char *number = found + ((uint64_t)stride * (at / numbers) + at % numbers) * bytes;
        if (isnan(truth->bound[at]))
            continue;
        ck_bounded_add(&all, at, (double)number_at(number, bytes), truth->value[at],
                       truth->bound[at]);
        memset(number, POISON, bytes);
    }
    if (all.wrong > 0)
        ck_failed(ck,
                  "%llu numbers of %s are wrong; worst [%llu, %llu]: %.9g, truth %.9g, %.3g "
                  "times the bound",
                  (unsigned long long)all.wrong, b->name,
                  (unsigned long long)(all.worst_at / numbers),
                  (unsigned long long)(all.worst_at % numbers), all.found,
                  truth->value[all.worst_at], all.worst);
    ck_note_worst(ck, b->name, all.worst, all.difference, 0);
    memset(poison, POISON, b->bytes + CK_GUARD_BYTES);
    ck_expect_bytes(ck, "what is not written", found, poison, b->bytes + CK_GUARD_BYTES);
    free(found);
    free(poison);
}

static void compare(struct ck *ck, const struct ck_buffer *b, uint32_t vectors, uint32_t numbers,
                    int64_t stride, const struct ck_experts_truth *truth)
{
    compare_numbers(ck, b, vectors, numbers, stride, sizeof(uint16_t), truth);
}

void ck_experts_compare_up(struct ck *ck, const struct ck_experts *c,
                           const struct ck_experts_rig *rig, const struct ck_experts_truth *truth)
{
    compare(ck, &rig->h, tokens_of(c) * places_of(c), c->width, apart(c, c->width), truth);
}

void ck_experts_compare_pairs(struct ck *ck, const struct ck_experts *c,
                              const struct ck_experts_rig *rig,
                              const struct ck_experts_truth *truth)
{
    compare_numbers(ck, &rig->products, tokens_of(c) * lines_of(c), c->hidden, c->hidden,
                    sizeof(float), truth);
}

void ck_experts_compare_down(struct ck *ck, const struct ck_experts *c,
                             const struct ck_experts_rig *rig, const struct ck_experts_truth *truth)
{
    compare(ck, &rig->out, tokens_of(c), c->hidden, apart(c, c->hidden), truth);
}
