/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_FUZZ_FUZZ_H
#define RT_TESTS_FUZZ_FUZZ_H

/* What a fuzz target offers, to libFuzzer or to the replay of its corpus. */
#include "replayrt/status.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Ends the program with the words: a fuzzer's only way to fail. */
static inline void fuzz_expect(int holds, const char *words)
{
    if (holds)
        return;
    (void)fprintf(stderr, "violated: %s\n", words);
    abort();
}

/* An object filled with FUZZ_FILL before the call: a refusal has written nothing to it. */
#define FUZZ_FILL 0x5A
static inline void fuzz_expect_untouched(const void *object, size_t bytes)
{
    const unsigned char *at = object;
    for (size_t i = 0; i < bytes; i++)
        fuzz_expect(at[i] == FUZZ_FILL, "a refusal writes nothing");
}

/* A refusal of a text has one of two codes, the same in the struct, and a whole sentence. */
static inline void fuzz_expect_refusal(enum rt_status status, const struct rt_error *err)
{
    fuzz_expect(status == RT_ERR_CONFIG || status == RT_ERR_GEOMETRY, "the code is about the text");
    fuzz_expect(err->status == status, "the struct has the code");
    fuzz_expect(memchr(err->message, 0, sizeof(err->message)) != NULL, "the message ends");
    fuzz_expect(strncmp(err->message, "fuzz:", 5) == 0 ||
                    strncmp(err->message, "fuzz.json:", 10) == 0,
                "the message names the file");
}

#endif
