/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_MODELS_RECORDING_H
#define RT_TESTS_MODELS_RECORDING_H

/* What another implementation made of six prompts, tests/data/golden/README.md: prompts, the
 * tokens that followed each, and the logits that chose them. */
#include "replayrt/checkpoint.h"

#include <stdbool.h>

enum {
    RECORDING_PROMPTS = 6,
    RECORDING_LONGEST = 130,
    RECORDING_STEPS = 16,
    RECORDING_VOCAB = 256,
};

/* Of every prompt and every token behind it. */
struct recorded_logits {
    float of[RECORDING_PROMPTS][RECORDING_STEPS][RECORDING_VOCAB];
};

struct recording {
    int32_t lens[RECORDING_PROMPTS];
    int32_t prompts[RECORDING_PROMPTS][RECORDING_LONGEST];
    int32_t greedy[RECORDING_PROMPTS][RECORDING_STEPS];
    struct recorded_logits logits;
};

/* A folder's golden.safetensors. False after a line on stdout. */
bool recording_read(const char *folder, struct recording *out);

#endif
