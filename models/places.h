/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_PLACES_H
#define RT_MODELS_PLACES_H

/* The table of a model's places: which there are is counted once, what each is follows from its
 * index. */
#include "models/fail.h"
#include "replayrt/layer.h"
#include "replayrt/models.h"

#include <stdbool.h>

struct rt_places {
    struct rt_model model;
    rt_weights *attention; /* of one layer: they are the same in all of them */
    uint32_t attention_count;
    uint32_t count;
    uint32_t rank, ranks; /* whose places: one of so many parts */
    uint32_t context;     /* ranks, neighbours, that have the same heads up to attention */
    uint32_t starts[RT_MAX_LAYERS + 1]; /* first index of each layer, then of what is behind */
};

enum rt_place_part { RT_PART_ALL, RT_PART_ROWS, RT_PART_COLUMNS };

/* Of the model's rows or columns [first, first + count), and zeros behind them. */
struct rt_place_share {
    enum rt_place_part part;
    uint64_t first, count;
    uint64_t size; /* with the zeros */
};
struct rt_place_share rt_place_share_of(const struct rt_places *p, const struct rt_place *whole);

/* What a rank has of a width or vocabulary, at most: whole units, which is what kernels move of
 * bf16 numbers at once, or several of them. */
#define RT_SHARE_UNIT 8u
uint64_t rt_share_size(uint64_t whole, uint32_t unit, uint32_t ranks);

/* A model filled by hand may be anything: RT_ERR_INVALID names the first field that it must not
 * have so. Attention is for others to check. */
enum rt_status rt_places_check_model(const struct rt_model *m, struct rt_error *err);
/* index < count: as the rank has it, or the model. */
void rt_place_of(const struct rt_places *p, uint32_t index, struct rt_place *out);
void rt_place_whole(const struct rt_places *p, uint32_t index, struct rt_place *out);
/* Norms and biases have one dimension; all else has two, also where the first of them is 1. */
bool rt_place_is_vector(const struct rt_place *place);

#endif
