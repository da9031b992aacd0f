/* SPDX-License-Identifier: Apache-2.0 */
#include "models/decoder_weights.h"

#include "models/decoder_load.h"
#include "models/fail.h"
#include "replayrt/ranks.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>

#define ALIGN UINT64_C(256)

static bool is_expert(enum rt_place_kind kind)
{
    return kind == RT_PLACE_EXPERT_GATE || kind == RT_PLACE_EXPERT_UP ||
           kind == RT_PLACE_EXPERT_DOWN;
}

/* ---- where each lies ------------------------------------------------------------------------- */

/* The end of place i's room: of an expert's that of all experts, whose first comes first. */
static uint64_t lay_out(const struct rt_model *m, struct rt_decoder_weights *w,
                        const struct rt_place *place, uint64_t begin, uint64_t *offset)
{
    const bool f32 = place->kind == RT_PLACE_ROUTER_BIAS;
    const uint64_t bytes = place->rows * place->columns * (f32 ? sizeof(float) : sizeof(uint16_t));
    uint64_t *const at = &w->layers[place->layer].at[place->kind];
    if (is_expert(place->kind) && place->expert > 0) {
        *offset = *at + place->expert * bytes;
        return begin;
    }
    *at = *offset = begin;
    const uint64_t all = is_expert(place->kind) ? m->moe.experts * bytes : bytes;
    return (begin + all + ALIGN - 1) / ALIGN * ALIGN;
}

/* Offsets of all places that are needed: biases that the model does not have are not looked for.
 * Those of kinds are offsets too, until the memory is there. The first is not 0, which means none.
 */
static enum rt_status place_all(const struct rt_model *m, const rt_places *places,
                                uint64_t *offsets, struct rt_decoder_weights *w,
                                struct rt_error *err)
{
    uint64_t end = ALIGN;
    for (uint32_t i = 0; i < rt_places_count(places); i++) {
        struct rt_place place = {.struct_size = sizeof(place)};
        RT_MODELS_TRY(rt_places_at(places, i, &place, err));
        offsets[i] = 0;
        if (place.needed)
            end = lay_out(m, w, &place, end, &offsets[i]);
    }
    w->bytes = end;
    return RT_OK;
}

static void make_addresses(const struct rt_model *m, struct rt_decoder_weights *w)
{
    for (uint32_t layer = 0; layer < m->layers; layer++)
        for (uint32_t kind = 0; kind < RT_PLACE_KINDS; kind++)
            if (w->layers[layer].at[kind])
                w->layers[layer].at[kind] += w->address;
}

static enum rt_status bind_all(const rt_places *places, const uint64_t *offsets,
                               struct rt_decoder_weights *w, struct rt_error *err)
{
    for (uint32_t i = 0; i < rt_places_count(places); i++) {
        struct rt_place place = {.struct_size = sizeof(place)};
        RT_MODELS_TRY(rt_places_at(places, i, &place, err));
        const struct rt_weight weight = {.struct_size = sizeof(weight),
                                         .dtype = RT_DTYPE_BF16,
                                         .address = w->address + offsets[i],
                                         .rows = place.rows,
                                         .columns = place.columns};
        if (offsets[i] && (place.kind == RT_PLACE_ATTENTION || place.kind == RT_PLACE_INPUT_NORM))
            RT_MODELS_TRY(rt_weights_bind(w->attention, place.layer, place.name, &weight, err));
    }
    return RT_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static enum rt_status take_part(rt_places *places, const rt_ranks *ranks,
                                const struct rt_config *config, struct rt_error *err)
{
    struct rt_ranks_info info = {.struct_size = sizeof(info)};
    RT_MODELS_TRY(rt_ranks_get_info(ranks, &info, err));
    return rt_places_cut(places, info.rank, info.ranks, config->context_parallel, err);
}

static enum rt_status load(const struct rt_decoder_params *params, const struct rt_config *config,
                           const char *device, rt_places *places, uint64_t *offsets,
                           struct rt_decoder_weights *w, struct rt_error *err)
{
    RT_MODELS_TRY(rt_places_check(places, params->checkpoint, err));
    if (params->ranks)
        RT_MODELS_TRY(take_part(places, params->ranks, config, err));
    RT_MODELS_TRY(place_all(params->model, places, offsets, w, err));
    RT_MODELS_TRY(rt_memory_create(device, w->bytes, &w->memory, &w->address, err));
    make_addresses(params->model, w);
    RT_MODELS_TRY(rt_weights_create(config, &w->attention, err));
    RT_MODELS_TRY(bind_all(places, offsets, w, err));
    return rt_decoder_load(params, places, offsets, w, err);
}

enum rt_status rt_decoder_weights_load(const struct rt_decoder_params *params,
                                       const struct rt_config *config, const char *device,
                                       struct rt_decoder_weights *out, struct rt_error *err)
{
    rt_places *places = NULL;
    *out = (struct rt_decoder_weights){.memory = NULL};
    RT_MODELS_TRY(rt_places_create(params->model, &places, err));
    uint64_t *const offsets = calloc(rt_places_count(places), sizeof(*offsets));
    out->layers = calloc(params->model->layers, sizeof(*out->layers));
    const enum rt_status status =
        offsets && out->layers
            ? load(params, config, device, places, offsets, out, err)
            : rt_models_fail(err, RT_ERR_NOMEM,
                             "no host memory for the places of %" PRIu32 " weights",
                             rt_places_count(places));
    free(offsets);
    rt_places_destroy(&places);
    return status;
}

void rt_decoder_weights_free(struct rt_decoder_weights *w)
{
    rt_weights_destroy(&w->attention);
    rt_memory_destroy(&w->memory);
    free(w->layers);
    *w = (struct rt_decoder_weights){.memory = NULL};
}
