/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/measure_check.h"

#include "bench/measure_time.h"
#include "graphs/build.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An element is right within the absolute or the relative bound. out has been rounded to bf16 on
 * both sides; lse has not. The same bounds for every layout, because a quantised cache is such that
 * both sides read the same numbers of it (measure_pages.h): of scales that are no powers of two the
 * generic kernel rounds each element to bf16, sm_90's does not, and lse would differ by 2^-8 of a
 * score's products, which is no share of an lse near 0. */
#define OUT_ABS 8e-4
#define OUT_REL (2.01 / 128)
#define OUT_COSINE 5e-6
#define LSE_ABS 1e-6
#define LSE_REL (8.01 / 65536)

struct comparison {
    uint64_t count, wrong, first_wrong;
    double first_found, first_truth;
    double worst_share;
    double dot, norms;
};

static double from_bf16(uint16_t bits)
{
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof(value));
    return (double)value;
}

/* Written so that NaN on either side, and poison is NaN, is more than any bound. */
static void compare(struct comparison *c, double found, double truth, double abs_bound,
                    double rel_bound)
{
    double difference = fabs(found - truth);
    double share = difference / fmax(abs_bound, rel_bound * fabs(truth));
    if (found == truth)
        share = 0; /* infinities too */
    if (!(share <= 1)) {
        share = isnan(share) ? INFINITY : share;
        if (!c->wrong++) {
            c->first_wrong = c->count;
            c->first_found = found;
            c->first_truth = truth;
        }
    }
    c->count++;
    c->worst_share = fmax(c->worst_share, share);
    if (isfinite(found) && isfinite(truth)) {
        c->dot += found * truth;
        c->norms += found * found + truth * truth;
    }
}

static void describe(const struct comparison *c, const char *name, uint32_t width, char *text,
                     size_t bytes)
{
    (void)snprintf(text, bytes,
                   "%llu of %llu elements of %s are wrong, first element %llu of query row %llu: "
                   "%.6g, the generic kernel has %.6g",
                   (unsigned long long)c->wrong, (unsigned long long)c->count, name,
                   (unsigned long long)(c->first_wrong % width),
                   (unsigned long long)(c->first_wrong / width), c->first_found, c->first_truth);
}

/* Both sides' output on the host. */
struct outputs {
    uint16_t *out[RT_RIG_SIDES];
    float *lse[RT_RIG_SIDES];
};

static void judge(const struct rt_rig *rig, const struct outputs *o,
                  struct rt_measure_attention_result *result)
{
    struct comparison outs = {0}, lses = {0};
    uint64_t rows = rig->outputs[RT_RIG_TIMED][RT_RIG_LSE].bytes / sizeof(float);
    for (uint64_t i = 0; i < rows * rig->shape.d_v; i++)
        compare(&outs, from_bf16(o->out[RT_RIG_TIMED][i]), from_bf16(o->out[RT_RIG_TRUTH][i]),
                OUT_ABS, OUT_REL);
    for (uint64_t i = 0; i < rows; i++)
        compare(&lses, (double)o->lse[RT_RIG_TIMED][i], (double)o->lse[RT_RIG_TRUTH][i], LSE_ABS,
                LSE_REL);
    result->compared = outs.count + lses.count;
    result->wrong = outs.wrong + lses.wrong;
    result->worst_share = fmax(outs.worst_share, lses.worst_share);
    result->cosine = outs.norms > 0 ? 1 - 2 * outs.dot / outs.norms : 0;
    if (outs.wrong)
        describe(&outs, "out", rig->shape.d_v, result->problem, sizeof(result->problem));
    else if (lses.wrong)
        describe(&lses, "lse", 1, result->problem, sizeof(result->problem));
    else if (!(result->cosine <= OUT_COSINE))
        (void)snprintf(result->problem, sizeof(result->problem),
                       "cosine difference of out is %.3g, above %.3g", result->cosine, OUT_COSINE);
}

static enum rt_status download(const struct rt_rig *rig, const struct rt_rig_buffer *from, void *to)
{
    struct rt_measure *m = rig->m;
    struct rt_driver *d = &m->driver;
    RT_TRY(RT_DRV(d, &m->error, copy_out, (d, to, from->address, from->bytes, m->stream)));
    return RT_DRV(d, &m->error, stream_sync, (d, m->stream));
}

static enum rt_status run_side(const struct rt_rig *rig, enum rt_rig_side side,
                               struct rt_program *p)
{
    struct rt_measure *m = rig->m;
    const struct rt_stopwatch stopwatch = rt_measure_stopwatch(m);
    RT_TRY(rt_rig_poison(rig, side));
    RT_TRY(rt_rig_add_schedule(rig, side, p));
    RT_TRY(rt_rig_add_attend(rig, side, 0, p));
    return side == RT_RIG_TIMED ? rt_stopwatch_replay(&stopwatch, p)
                                : rt_program_run(p, &m->driver, m->stream, &m->error);
}

static enum rt_status take_outputs(const struct rt_rig *rig, struct outputs *o)
{
    for (uint32_t side = 0; side < RT_RIG_SIDES; side++) {
        const struct rt_rig_buffer *b = rig->outputs[side];
        struct rt_program p = {.spec = rt_rig_spec(rig)};
        enum rt_status status = run_side(rig, side, &p);
        rt_program_free(&p);
        RT_TRY(status);
        o->out[side] = malloc(b[RT_RIG_OUT].bytes);
        o->lse[side] = malloc(b[RT_RIG_LSE].bytes);
        RT_REQUIRE(o->out[side] && o->lse[side], &rig->m->error, RT_ERR_NOMEM,
                   "out of host memory for %llu bytes of output",
                   (unsigned long long)b[RT_RIG_OUT].bytes);
        RT_TRY(download(rig, &b[RT_RIG_OUT], o->out[side]));
        RT_TRY(download(rig, &b[RT_RIG_LSE], o->lse[side]));
    }
    return RT_OK;
}

enum rt_status rt_measure_check_layer(const struct rt_rig *rig, struct rt_measure_check *check,
                                      struct rt_measure_attention_result *out)
{
    struct outputs o = {0};
    enum rt_status status = take_outputs(rig, &o);
    if (status == RT_OK) {
        judge(rig, &o, out);
        check->first = o.out[RT_RIG_TIMED];
        o.out[RT_RIG_TIMED] = NULL;
    }
    for (uint32_t side = 0; side < RT_RIG_SIDES; side++) {
        free(o.out[side]);
        free(o.lse[side]);
    }
    return status;
}

enum rt_status rt_measure_check_again(const struct rt_rig *rig,
                                      const struct rt_measure_check *check,
                                      struct rt_measure_attention_result *out)
{
    const struct rt_rig_buffer *b = &rig->outputs[RT_RIG_TIMED][RT_RIG_OUT];
    uint16_t *now = malloc(b->bytes);
    RT_REQUIRE(now, &rig->m->error, RT_ERR_NOMEM, "out of host memory for %llu bytes of output",
               (unsigned long long)b->bytes);
    enum rt_status status = download(rig, b, now);
    uint64_t different = 0;
    for (uint64_t i = 0; status == RT_OK && i < b->bytes / sizeof(*now); i++)
        different += now[i] != check->first[i];
    if (different && !out->problem[0])
        (void)snprintf(out->problem, sizeof(out->problem),
                       "%llu elements of out at the end of a chain are not what a launch on its "
                       "own gives",
                       (unsigned long long)different);
    free(now);
    return status;
}

void rt_measure_check_free(struct rt_measure_check *check)
{
    free(check->first);
    *check = (struct rt_measure_check){0};
}
