/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/keys.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/attend_case.h"
#include "tests/checkkern/attend_truth.h"
#include "tests/checkkern/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of plain values: their clamp, which no weighted mean of them leaves. */
#define MOST_OUT 1.0f
#define MOST_E4M3_OUT (MOST_OUT + (float)CK_E4M3_OUT_ABS)

/* What a case should give: of the cache, and of what was quantised, where that says something. */
struct truths {
    struct ck_truth exact, unquantised;
    bool has_unquantised;
};

/* What came back: as on the device, guard included. */
struct outcome {
    uint16_t *out;
    float *lse;
};

/* One query row of it. */
struct found {
    struct ck_place place;
    uint16_t *out;
    float *lse;
};

static struct outcome read_outcome(struct ck *ck, const struct ck_attend_rig *rig)
{
    struct outcome o = {.out = ck_new(ck, rig->out.bytes + CK_GUARD_BYTES),
                        .lse = ck_new(ck, rig->lse.bytes + CK_GUARD_BYTES)};
    ck_download(ck, &rig->out, o.out);
    ck_download(ck, &rig->lse, o.lse);
    return o;
}

static struct found found_at(const struct ck_attend *c, const struct rt_attend_params *p,
                             const struct outcome *o, uint32_t row, uint32_t query)
{
    int64_t data_row = c->row_base + (int64_t)row;
    struct ck_place place = {row, query / c->heads, query % c->heads, 0};
    return (struct found){place,
                          o->out + data_row * p->out.row_stride +
                              place.token * p->out.token_stride + place.head * p->out.head_stride,
                          o->lse + data_row * p->lse.row_stride +
                              place.token * p->lse.token_stride + place.head * p->lse.head_stride};
}

/* Of all query rows that are compared, against one truth. */
struct compared {
    const struct ck_truth *truth;
    struct ck_floats outs, lses;
};

/* The truth's `at`-th query row. Columns are compared as if all were of the usual size. */
static void compare_query(const struct ck_attend *c, struct found f, uint32_t at,
                          struct compared *to)
{
    const double *out = to->truth->out + (size_t)at * c->d_v;
    ck_floats_add(&to->lses, (double)*f.lse, to->truth->lse[at], f.place);
    for (f.place.d = 0; f.place.d < c->d_v; f.place.d++) {
        const int exponent = ck_attend_exponent(c, f.place.d);
        ck_floats_add(&to->outs, ldexp((double)rt_bf16_to_float(f.out[f.place.d]), -exponent),
                      ldexp(out[f.place.d], -exponent), f.place);
    }
}

/* What can be said of a query row without its truth; poison, being NaN, is outside. */
static bool plausible(const struct ck_attend *c, const struct rt_attend_params *p,
                      const struct found *f)
{
    bool seen =
        p->rows.length[f->place.row] > 0 && rt_ref_seen_keys(p, f->place.row, f->place.token) > 0;
    float most = !seen ? 0 : c->layout == RT_KV_BF16 ? MOST_OUT : MOST_E4M3_OUT;
    bool good = seen ? isfinite(*f->lse) : *f->lse == INFINITY;
    for (uint32_t d = 0; d < p->d_v; d++)
        good &= fabsf(ldexpf(rt_bf16_to_float(f->out[d]), -ck_attend_exponent(c, d))) <= most;
    return good;
}

/* Every query row, against its truth or against what is possible; then it is poison again. */
static void compare_rows(struct ck *ck, const struct ck_attend *c, const struct ck_attend_rig *rig,
                         const struct truths *truths, const struct outcome *o, bool unrounded)
{
    const struct ck_truth *truth = &truths->exact;
    const struct rt_attend_params *p = &rig->ref;
    struct compared exact = {truth, ck_floats_out(), ck_floats_lse()};
    struct compared rough = {&truths->unquantised, ck_floats_e4m3_out(), ck_floats_e4m3_lse()};
    struct ck_place first = {0};
    if (c->flavour == CK_FAR && c->layout != RT_KV_BF16)
        exact.lses.abs_bound = CK_LSE_FAR_ABS;
    if (unrounded)
        exact.lses.abs_bound = CK_LSE_UNROUNDED_ABS;
    uint32_t query_rows = c->q_len * c->heads, next = 0, wrong = 0;
    for (uint32_t i = 0; i < c->rows * query_rows; i++) {
        uint32_t row = i / query_rows, query = i % query_rows;
        struct found f = found_at(c, p, o, row, query);
        const struct ck_query *at = &truth->at[next];
        if (next < truth->count && at->row == row && at->query == query) {
            compare_query(c, f, next, &exact);
            if (truths->has_unquantised)
                compare_query(c, f, next, &rough);
            next++;
        } else if (!plausible(c, p, &f)) {
            if (wrong == 0)
                first = f.place;
            wrong++;
        }
        memset(f.out, 0xff, c->d_v * sizeof(*f.out));
        memset(f.lse, 0xff, sizeof(*f.lse));
    }
    ck_floats_end(ck, &exact.outs, CK_OUT_COS);
    ck_floats_end(ck, &exact.lses, 0);
    if (truths->has_unquantised) {
        ck_floats_end(ck, &rough.outs, CK_E4M3_OUT_COS);
        ck_floats_end(ck, &rough.lses, 0);
    }
    if (wrong > 0)
        ck_failed(
            ck,
            "%u query rows that were not compared cannot be right, first at row %u, token %u, "
            "head %u",
            wrong, first.row, first.token, first.head);
}

static void compare(struct ck *ck, const struct ck_attend *c, const struct ck_attend_rig *rig,
                    const struct truths *truths, enum rt_backend backend)
{
    struct outcome o = read_outcome(ck, rig);
    compare_rows(ck, c, rig, truths, &o,
                 backend == RT_BACKEND_SM90 && ck_attend_is_rounded(c, rig));
    /* ref's out and lse were never written: all poison. So must be the rest of the device's. */
    ck_expect_bytes(ck, "out beside the rows", o.out, rig->out.ref,
                    rig->out.bytes + CK_GUARD_BYTES);
    ck_expect_bytes(ck, "lse beside the rows", o.lse, rig->lse.ref,
                    rig->lse.bytes + CK_GUARD_BYTES);
    free(o.out);
    free(o.lse);
}

/* Partial buffers are of exactly the size that the plan asks for. */
static void check_guard(struct ck *ck, const struct ck_buffer *b)
{
    unsigned char *found = ck_new(ck, b->bytes + CK_GUARD_BYTES);
    ck_download(ck, b, found);
    ck_expect_bytes(ck, b->name, found + b->bytes, b->ref + b->bytes, CK_GUARD_BYTES);
    free(found);
}

static void check_stamps(struct ck *ck, const struct ck_buffer *b)
{
    uint64_t found[2 + CK_GUARD_BYTES / sizeof(uint64_t)];
    ck_download(ck, b, found);
    if (found[0] == 0 || found[1] < found[0])
        ck_failed(ck, "attention begins at %llu ns and ends at %llu", (unsigned long long)found[0],
                  (unsigned long long)found[1]);
}

static void name_case(struct ck *ck, const struct ck_attend *c, const struct rt_variant *choice)
{
    static const char *const flavours[CK_FLAVOURS] = {
        "plain",   "huge",      "equal",     "-inf", "+inf",  "NaN query",
        "NaN key", "bad draft", "bad pages", "far",  "scales"};
    ck_case(ck,
            "%s, %s, %u heads, query length %u%s, %u rows (%u padded; %d, %d, %d, …), page %u, "
            "row_base %u%s%s%s%s%s%s, %u parts, %s",
            choice->entry, rt_kv_layout_name(c->layout), c->heads, c->q_len,
            c->causal ? " causal" : "", c->rows, c->padded, c->lengths[0], c->lengths[1],
            c->lengths[2], c->page_size, c->row_base, c->slots ? ", slots" : "",
            c->sink ? ", sinks" : "", c->lse_base2 ? ", base-2 lse" : "",
            ck_attend_has_q_rope(c) ? ", q_rope" : "", c->strided ? ", strided" : "",
            c->far ? ", far" : "", choice->parts, flavours[c->flavour]);
}

static void run(struct ck *ck, const struct ck_attend *c, const struct rt_variant *choice,
                struct ck_attend_rig *rig, const struct truths *truths)
{
    struct rt_launch attend, reduce;
    struct rt_error none = {0};
    name_case(ck, c, choice);
    ck_count(ck, rt_backend_name(choice->backend), truths->exact.count,
             (uint64_t)c->rows * c->q_len * c->heads);
    ck_attend_plan(ck, c, choice, rig);
    ck_attend_launches(ck, rig, &attend, &reduce);
    ck_launch(ck, RT_OK, &none, &attend);
    ck_launch(ck, RT_OK, &none, &reduce);
    compare(ck, c, rig, truths, choice->backend);
    check_guard(ck, &rig->partial_out);
    check_guard(ck, &rig->partial_lse);
    check_stamps(ck, &rig->stamps);
    ck_attend_unplan(ck, rig);
}

/* Batch-invariant kernels have every case, too, or where there is no GPU, every third. */
#define BACKENDS 2u
#define CHOICES (2u * BACKENDS)
static uint32_t choose(struct ck *ck, const struct ck_attend *c, struct rt_variant *choices)
{
    static const enum rt_backend backends[BACKENDS] = {RT_BACKEND_GENERIC, RT_BACKEND_SM90};
    const bool both = !c->tile_rows && (ck_is_cuda(ck) || c->seed % 3 == 0);
    uint32_t served = 0;
    for (uint32_t i = 0; i < (c->tile_rows ? 1 : BACKENDS); i++)
        served += ck_attend_resolve(ck, c, backends[i], 0, &choices[served]);
    for (uint32_t i = 0; i < (both ? BACKENDS : 0); i++)
        served += ck_attend_resolve(ck, c, backends[i], 1, &choices[served]);
    return served;
}

static struct truths make_truths(struct ck *ck, const struct ck_attend *c,
                                 const struct ck_attend_rig *rig)
{
    struct truths t = {.exact = ck_truth_make(ck, c, &rig->ref)};
    struct rt_attend_params plain = rig->ref;
    t.has_unquantised = c->layout != RT_KV_BF16 && c->flavour == CK_PLAIN;
    if (t.has_unquantised) {
        plain.kv.base = ck_at(&rig->plain, CK_REF);
        t.unquantised = ck_truth_make(ck, c, &plain);
    }
    return t;
}

void ck_attend_check(struct ck *ck, const struct ck_attend *c)
{
    struct rt_variant choices[CHOICES];
    uint32_t served = choose(ck, c, choices);
    if (served == 0)
        return;
    struct ck_attend_rig rig;
    (void)snprintf(ck->where, sizeof(ck->where), "inputs for %u rows, %u heads, query length %u",
                   c->rows, c->heads, c->q_len);
    ck_attend_inputs(ck, c, &rig);
    struct truths truths = make_truths(ck, c, &rig);
    for (uint32_t i = 0; i < served; i++)
        run(ck, c, &choices[i], &rig, &truths);
    ck_truth_free(&truths.exact);
    ck_truth_free(&truths.unquantised);
    ck_attend_free(ck, &rig);
}
