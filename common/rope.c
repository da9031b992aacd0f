/* SPDX-License-Identifier: Apache-2.0 */
#include "common/rope.h"

#include <assert.h>
#include <math.h>

#define TWO_PI 6.283185307179586476925286766559

/* Keeps the two ends of the ramp apart where they are one. */
#define LEAST_RAMP 0.001

/* The pair, seldom a whole number, that turns `turns` times within the original length. */
static double pair_of_turns(const struct rt_rope *rope, uint32_t rope_dim, double turns)
{
    const double length = rope->original_max_length;
    return rope_dim * log(length / (turns * TWO_PI)) / (2.0 * log(rope->theta));
}

/*
 * How much of pair i is interpolated: 0 up to `low`, 1 from `high` on. As transformers has it, the
 * ends are bounded on one side each, low by 0 and high by R - 1, and a range that is upside down is
 * taken as it is.
 */
struct ramp {
    double low, high;
};

static struct ramp yarn_ramp(const struct rt_rope *rope, uint32_t rope_dim)
{
    double low = pair_of_turns(rope, rope_dim, rope->beta_fast);
    double high = pair_of_turns(rope, rope_dim, rope->beta_slow);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0.0);
    high = fmin(high, rope_dim - 1.0);
    return (struct ramp){low, low == high ? high + LEAST_RAMP : high};
}

static double interpolated(struct ramp ramp, uint32_t pair)
{
    return fmin(fmax((pair - ramp.low) / (ramp.high - ramp.low), 0.0), 1.0);
}

void rt_rope_speeds(const struct rt_rope *rope, uint32_t rope_dim, uint32_t max_length,
                    double speeds[RT_MAX_ROPE_PAIRS])
{
    const uint32_t pairs = rope_dim / 2;
    assert(rope_dim % 2 == 0 && pairs <= RT_MAX_ROPE_PAIRS);
    const double *factors =
        max_length > rope->original_max_length ? rope->long_factor : rope->short_factor;
    struct ramp ramp = {0};
    if (rope->type == RT_ROPE_YARN)
        ramp = yarn_ramp(rope, rope_dim);
    for (uint32_t i = 0; i < pairs; i++) {
        const double speed = pow(rope->theta, -2.0 * i / rope_dim);
        switch (rope->type) {
        case RT_ROPE_DEFAULT:
            speeds[i] = speed;
            break;
        case RT_ROPE_NONE:
            speeds[i] = 0.0;
            break;
        case RT_ROPE_YARN: {
            const double share = interpolated(ramp, i);
            speeds[i] = speed / rope->factor * share + speed * (1.0 - share);
            break;
        }
        case RT_ROPE_LONGROPE:
            speeds[i] = speed / factors[i];
            break;
        }
    }
}

void rt_rope_rows(const struct rt_rope *rope, const double *speeds, uint32_t pairs, uint32_t first,
                  uint32_t count, float *rows)
{
    const double factor = rope->attention_factor == 0.0 ? 1.0 : rope->attention_factor;
    for (uint32_t p = 0; p < count; p++)
        for (uint32_t i = 0; i < pairs; i++) {
            const double x = ((double)first + p) * speeds[i];
            *rows++ = (float)(cos(x) * factor);
            *rows++ = (float)(sin(x) * factor);
        }
}

double rt_rope_query_scale(const struct rt_rope *rope, uint32_t position)
{
    if (rope->query_scale_beta == 0.0)
        return 1.0;
    assert(rope->original_max_length > 0);
    const uint32_t lengths = position / rope->original_max_length;
    return 1.0 + rope->query_scale_beta * log1p(lengths);
}
