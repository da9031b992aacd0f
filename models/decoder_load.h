/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_DECODER_LOAD_H
#define RT_MODELS_DECODER_LOAD_H

/* Copies weights from a checkpoint to the device, by several threads, for reading and converting
 * take longer than the way there. */
#include "models/decoder_weights.h"

/* offsets[i]: of place i in the memory, 0: it is not stored. */
enum rt_status rt_decoder_load(const struct rt_decoder_params *params, const rt_places *places,
                               const uint64_t *offsets, const struct rt_decoder_weights *w,
                               struct rt_error *err);

#endif
