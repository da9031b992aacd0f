/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_GOLDEN_H
#define RT_EXAMPLES_GOLDEN_H

/* A recorded decode trace: tests/data/golden/README.md lists the tensors of the file. */
#include "replayrt/status.h"

#include <stdint.h>

struct golden {
    uint32_t prompts;       /* P */
    uint32_t longest;       /* tokens of the longest prompt */
    uint32_t steps;         /* S: tokens that followed each prompt */
    uint32_t hidden;        /* H */
    int32_t *lengths;       /* [P] tokens of each prompt, 1..longest */
    int32_t *prompt_tokens; /* [P, longest] */
    int32_t *greedy;        /* [P, S] */
    float *attn_in;         /* [P, S, H] layer 0, at the position that produced the token */
    float *attn_out;        /* [P, S, H] likewise */
};

/* Reads a golden.safetensors. Blocks. On success *golden is to be given to golden_close; on failure
 * it is zeroed. Returns RT_ERR_FILE or RT_ERR_NOMEM. */
enum rt_status golden_open(const char *path, struct golden *golden, struct rt_error *error);

/* Accepts a zeroed one and leaves one. */
void golden_close(struct golden *golden);

/* Tokens that prompt p feeds: the prompt, and each token that followed but the last, whose
 * successor was not recorded. */
uint32_t golden_length(const struct golden *golden, uint32_t p);

/* The token at a position < golden_length. */
int32_t golden_token(const struct golden *golden, uint32_t p, uint32_t position);

#endif
