/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/compare.h"

#include <math.h>
#include <stdio.h>

struct ck_floats ck_floats_out(void)
{
    return (struct ck_floats){.name = "out", .abs_bound = CK_OUT_ABS, .rel_bound = CK_OUT_REL};
}

struct ck_floats ck_floats_lse(void)
{
    return (struct ck_floats){.name = "lse", .abs_bound = CK_LSE_ABS, .rel_bound = CK_LSE_REL};
}

struct ck_floats ck_floats_e4m3_out(void)
{
    return (struct ck_floats){.name = "out, unquantised", .abs_bound = CK_E4M3_OUT_ABS};
}

struct ck_floats ck_floats_e4m3_lse(void)
{
    return (struct ck_floats){.name = "lse, unquantised", .abs_bound = CK_E4M3_LSE_ABS};
}

/* How much of the bound the difference takes. */
static double share_of_bound(const struct ck_floats *f, double found, double truth)
{
    if (isnan(found) || isnan(truth))
        return isnan(found) && isnan(truth) ? 0 : INFINITY;
    if (isinf(found) || isinf(truth))
        return found == truth ? 0 : INFINITY;
    double difference = fabs(found - truth);
    double share = difference / f->abs_bound;
    if (truth != 0 && f->rel_bound > 0)
        share = fmin(share, difference / fabs(truth) / f->rel_bound);
    return share;
}

void ck_floats_add(struct ck_floats *f, double found, double truth, struct ck_place place)
{
    double share = share_of_bound(f, found, truth);
    f->count++;
    f->wrong += share > 1;
    if (share > f->worst.share || f->count == 1)
        f->worst = (struct ck_worst){share, found, truth, place};
    if (isfinite(found) && isfinite(truth)) {
        f->dot += found * truth;
        f->found_norm += found * found;
        f->truth_norm += truth * truth;
    }
}

/* Numbers whose mean square is this small have no direction that a float could keep: what a sink
 * leaves of values, say, where it outweighs all keys. */
static double least_norm(const struct ck_floats *f)
{
    const double least = f->abs_bound / 64;
    return (double)f->count * least * least;
}

double ck_floats_cosine(const struct ck_floats *f)
{
    double norm = f->found_norm + f->truth_norm;
    return norm > least_norm(f) ? 1 - 2 * f->dot / norm : 0;
}

void ck_floats_end(struct ck *ck, const struct ck_floats *f, double cos_bound)
{
    const struct ck_worst *w = &f->worst;
    if (f->wrong > 0)
        ck_failed(ck,
                  "%llu of %llu elements of %s are wrong; worst at row %u, token %u, head %u, "
                  "element %u: %.9g, truth %.9g, %.3g times the bound",
                  (unsigned long long)f->wrong, (unsigned long long)f->count, f->name, w->place.row,
                  w->place.token, w->place.head, w->place.d, w->found, w->truth, w->share);
    double cosine = ck_floats_cosine(f);
    if (cos_bound > 0 && cosine > cos_bound)
        ck_failed(ck, "cosine difference of %s is %.3g, above %.3g", f->name, cosine, cos_bound);
    double difference = w->found == w->truth ? 0 : fabs(w->found - w->truth);
    ck_note_worst(ck, f->name, w->share, isnan(difference) ? 0 : difference, cosine);
}

static double share_of_own_bound(double found, double truth, double bound)
{
    if (isnan(truth))
        return isnan(found) ? 0 : INFINITY;
    if (isinf(truth) || !isfinite(found))
        return found == truth ? 0 : INFINITY;
    const double off = fabs(found - truth);
    return off == 0 ? 0 : off / bound;
}

void ck_bounded_add(struct ck_bounded *b, uint64_t at, double found, double truth, double bound)
{
    const double share = share_of_own_bound(found, truth, bound);
    b->wrong += share > 1;
    if (share <= b->worst)
        return;
    b->worst = share;
    b->worst_at = at;
    b->found = found;
    b->difference = fabs(found - truth);
}
