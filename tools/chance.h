/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_CHANCE_H
#define RT_TOOLS_CHANCE_H

/* The commands' only source of chance: the same numbers for the same seed, everywhere. */
#include <stdint.h>

/* xorshift64*, whose state is never 0. */
struct chance {
    uint64_t state;
};

static inline struct chance chance_of(uint64_t seed)
{
    return (struct chance){seed ? seed : 1};
}

static inline uint64_t chance_draw(struct chance *c)
{
    uint64_t x = c->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    c->state = x;
    return x * 0x2545F4914F6CDD1Dull;
}

#endif
