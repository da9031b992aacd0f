/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_CHUNK_FORM_H
#define RT_RUNTIME_CHUNK_FORM_H

/* In which form the tokens of a chunk attend: absorbed as decode has it, or with keys and values
 * expanded. Pure. */
#include "common/check.h"
#include "replayrt/rt.h"

#include <stdbool.h>

#define RT_FORM_REASON_BYTES 192
#define RT_MAX_CONTEXT_PIECES 63 /* merged with the chunk's own tokens at once */

struct rt_chunk_form {
    bool absorbed;
    uint32_t piece;  /* expanded: tokens of cached context that are expanded at once */
    uint32_t pieces; /* and the most of them, for one sequence of max_length */
    char reason[RT_FORM_REASON_BYTES];
};

/*
 * By the cost of a key and head, in multiplications: expanded L (P + V) for the key and value, and
 * P + R + V for every token that sees them; absorbed 2 L + R for every token. What is cheaper, but
 * absorbed where no block is there to expand by, or its heads are too wide for prefill's kernels.
 * RT_ERR_CONFIG where context comes in more than RT_MAX_CONTEXT_PIECES pieces.
 */
enum rt_status rt_chunk_form_choose(const struct rt_config *config, uint32_t chunk,
                                    struct rt_chunk_form *out, struct rt_error *err);

#endif
