/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_DECODER_WEIGHTS_H
#define RT_MODELS_DECODER_WEIGHTS_H

/*
 * A model's weights on the device: one allocation, place after place, experts of a kind one behind
 * the other. All are bf16, but for the routers' biases, which are f32.
 */
#include "replayrt/decoder.h"
#include "replayrt/layer.h"
#include "replayrt/memory.h"

#define RT_PLACE_KINDS (RT_PLACE_SHARED_DOWN + 1)

/* Addresses by kind; 0 where there is none. Attention's weights, of which there are several, are in
 * the table alone. Of experts: the first's. */
struct rt_decoder_kinds {
    uint64_t at[RT_PLACE_KINDS];
};

struct rt_decoder_weights {
    rt_memory *memory;
    uint64_t address, bytes;
    rt_weights *attention;           /* for rt_create */
    struct rt_decoder_kinds *layers; /* [layers]; the first has what is no layer's too */
};

/* `config` is the runtime's, complete. `device` has the weights. What was made is given back by
 * rt_decoder_weights_free, also behind a failure. */
enum rt_status rt_decoder_weights_load(const struct rt_decoder_params *params,
                                       const struct rt_config *config, const char *device,
                                       struct rt_decoder_weights *out, struct rt_error *err);
void rt_decoder_weights_free(struct rt_decoder_weights *w);

#endif
