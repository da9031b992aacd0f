/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_CHUNK_FORM_H
#define RT_CONFIG_CHUNK_FORM_H

/* In which form the tokens of a chunk attend: absorbed as decode has it, or with keys and values
 * expanded. Pure, and of the configuration alone, so that its check knows what a runtime does. */
#include "replayrt/rt_config.h"

#include <stdbool.h>

#define RT_FORM_REASON_BYTES 192
#define RT_MAX_CONTEXT_PIECES 63    /* merged with the chunk's own tokens at once */
#define RT_LEAST_CONTEXT_PIECE 8192 /* that nobody chose */
#define RT_EXPANDED_MOST_DIM 256u   /* of a head, in the kernels of attention with expanded keys */

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
 * Of a configuration that is checked, pieces are at most RT_MAX_CONTEXT_PIECES.
 */
void rt_chunk_form_choose(const struct rt_config *config, uint32_t chunk,
                          struct rt_chunk_form *out);

/* Sequences that share a chunk. */
uint32_t rt_chunk_prefill_rows(const struct rt_config *config);

#endif
