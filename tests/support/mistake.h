/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_MISTAKE_H
#define RT_TESTS_SUPPORT_MISTAKE_H

/* One member of an argument's struct that has a value which must be refused, and in what words. */
#include <stddef.h>
#include <stdint.h>

struct mistake {
    size_t member;
    uint64_t value;
    uint32_t bytes;
    const char *words;
};
#define MISTAKE(type, member, value, words)                                                        \
    {                                                                                              \
        offsetof(struct type, member), (uint64_t)(value), sizeof(((struct type *)0)->member),      \
            words                                                                                  \
    }

#endif
