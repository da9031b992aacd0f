/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/outcome.h"

#include <math.h>

static void keep_larger(double *worst, double value)
{
    if (!(value <= *worst)) /* a NaN is the worst of all, and stays */
        *worst = isnan(*worst) ? *worst : value;
}

static void keep_smaller(double *worst, double value)
{
    if (!(value >= *worst))
        *worst = isnan(*worst) ? *worst : value;
}

struct outcome outcome_none(void)
{
    return (struct outcome){.cosine = 1.0};
}

struct outcome outcome_compare(const double *x, const float *recorded_x, const double *y,
                               const float *recorded_y, uint32_t count, double expected)
{
    struct outcome outcome = outcome_none();
    double difference2 = 0.0, recorded2 = 0.0, y2 = 0.0, product = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        const double recorded = recorded_y[i], difference = y[i] - recorded;
        difference2 += difference * difference;
        recorded2 += recorded * recorded;
        y2 += y[i] * y[i];
        product += y[i] * recorded;
        keep_larger(&outcome.absolute, fabs(difference));
        keep_larger(&outcome.input, fabs(x[i] - recorded_x[i]) / fmax(fabs(x[i]), 1e-30));
    }
    outcome.compared = 1;
    outcome.norm = sqrt(difference2 / recorded2);
    outcome.cosine = product / sqrt(recorded2 * y2);
    const double element = outcome.absolute / sqrt(recorded2 / count);
    keep_larger(&outcome.of_limit, outcome.norm / (OUTCOME_NORM_LIMIT * expected));
    keep_larger(&outcome.of_limit, element / (OUTCOME_ELEMENT_LIMIT * expected));
    keep_larger(&outcome.of_limit, outcome.input / OUTCOME_INPUT_LIMIT);
    return outcome;
}

void outcome_merge(struct outcome *worst, const struct outcome *other)
{
    worst->compared += other->compared;
    keep_larger(&worst->absolute, other->absolute);
    keep_larger(&worst->norm, other->norm);
    keep_smaller(&worst->cosine, other->cosine);
    keep_larger(&worst->input, other->input);
    keep_larger(&worst->of_limit, other->of_limit);
}
