/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_DECODE_SETUP_H
#define RT_TOOLS_DECODE_SETUP_H

/* From replayrt decode's options to a decoder: model, configuration, weights. */
#include "replayrt/decoder.h"
#include "replayrt/ranks.h"
#include "tools/decode_options.h"
#include "tools/rank_crew.h"

struct decode_setup {
    struct rt_model model;
    struct rt_config config;
    rt_ranks *ranks; /* null: there are none */
    rt_decoder *decoder;
    uint32_t ahead; /* steps that its ring has room for */
    struct rt_info info;
    struct rt_decoder_info loaded;
};

/*
 * Exit codes: EXIT_OK, or another after a message on stderr. `setup` was zeroed, and is to be
 * closed either way.
 */
/* This rank's group: waits for the others. */
int decode_setup_join(const struct rank_crew *crew, struct decode_setup *setup);
/* Model and configuration, and whether they have room for what is asked. */
int decode_setup_read(const struct decode_options *options, struct decode_setup *setup);
/* The decoder. Blocks, and shows on a terminal how far it is. */
int decode_setup_load(const struct decode_options *options, struct decode_setup *setup);
/* False: a thread is left in a library (rt_ranks_destroy), see rank_crew_leave. */
bool decode_setup_close(struct decode_setup *setup);

#endif
