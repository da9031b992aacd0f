/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_DECODE_OPTIONS_H
#define RT_TOOLS_DECODE_OPTIONS_H

/* replayrt decode's command line, read and held against itself. */
#include "tools/token_list.h"

#include <stdbool.h>
#include <stdint.h>

struct decode_options {
    const char *checkpoint, *config, *device, *precision, *dump; /* all but the first may be null */
    struct token_list *prompts;                                  /* [rows] */
    uint32_t rows;
    struct token_list *teacher; /* [teachers] */
    uint32_t teachers;          /* 0: nothing is forced; 1: one list for all rows; rows */
    uint64_t tokens;            /* to generate, for every prompt */
    double temperature;         /* 0: greedy */
    double top_p;
    uint64_t top_k, seed;
    uint64_t random;  /* the weights' seed, where is_random */
    uint64_t ranks;   /* 0: none, the command is all there is */
    uint64_t context; /* ranks that share a context; 0: as the configuration has it */
    uint64_t chunk; /* tokens of prompts in one launch, where has_chunk; 0: they go in one by one */
    bool has_chunk, is_random, ignore_eos, json;
};

/* False after a message on stderr. To be freed either way; `options` was zeroed. */
bool decode_options_read(int argc, char **argv, struct decode_options *options);
void decode_options_free(struct decode_options *options);

/* The ids that row `row` is fed in place of what it chooses; null: none are. */
const struct token_list *decode_options_teacher(const struct decode_options *options, uint32_t row);

#endif
