/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/noise.h"

#include <stdlib.h>
#include <string.h>

#define DEVIATION 0.1f

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* The sum of twelve uniform numbers: deviation 1 around 6, near enough to normal. */
static float normal(uint64_t *state)
{
    uint64_t sum = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t z = next(state);
        sum += (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48);
    }
    return (float)sum / 65536.0f - 6.0f;
}

/* Rounded to nearest; never infinite or NaN. */
static uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t *noise_make(size_t count)
{
    uint16_t *noise = malloc(count * sizeof(*noise));
    uint64_t state = 0;
    for (size_t i = 0; noise && i < count; i++) {
        float value = normal(&state) * DEVIATION;
        noise[i] = to_bf16(value > 1 ? 1 : value < -1 ? -1 : value);
    }
    return noise;
}
