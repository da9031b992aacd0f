/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_VALUES_H
#define RT_TESTS_SUPPORT_VALUES_H

/* bf16 numbers of operators' tests: filled, read, and held to what they should be. For programs
 * with cmocka. */
#include "common/bf16.h"
#include "tests/support/fixture.h"
#include "tests/support/op_rig.h"

#include <math.h>

static inline double number(uint16_t bits)
{
    return (double)rt_bf16_to_float(bits);
}

static inline void fill(uint64_t *random, uint16_t *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = rt_float_to_bf16((float)(int32_t)fixture_random(random) / 1073741824.0f);
}

/* A rounding to bf16, and what float's sums and products add. */
static inline void near(const char *what, uint32_t i, uint16_t got, double want)
{
    if (!(fabs(number(got) - want) <= fabs(want) * (0x1p-8 + 0x1p-18) + 1e-30))
        fail_msg("%s, number %u: %g, not %g", what, i, number(got), want);
}

static inline double inverse(const uint16_t *x, uint32_t width, double eps)
{
    double squares = 0;
    for (uint32_t i = 0; i < width; i++)
        squares += number(x[i]) * number(x[i]);
    return 1 / sqrt(squares / width + eps);
}

#endif
