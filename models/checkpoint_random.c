/* SPDX-License-Identifier: Apache-2.0 */
#include "models/checkpoint_table.h"
#include "models/places.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BF16_BYTES 2u
#define BF16_ONE 0x3f80u

/* ---- values ---------------------------------------------------------------------------------- */

/* A bijection of 64 bits in which every bit of what goes in turns about half of what comes out. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 32;
}

static uint64_t hash_of(const char *name, uint64_t seed)
{
    uint64_t hash = mix(seed + 1);
    for (const char *c = name; *c; c++)
        hash = mix(hash ^ (unsigned char)*c);
    return hash;
}

static bool is_norm(const struct rt_stored_entry *t)
{
    static const char end[] = "norm.weight";
    const size_t length = strlen(t->name), bytes = sizeof(end) - 1;
    return length >= bytes && strcmp(t->name + length - bytes, end) == 0;
}

static uint16_t bf16_of(float value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof(word));
    return (uint16_t)((word + 0x7fffu + (word >> 16 & 1u)) >> 16);
}

/* Four elements come of one hash, so where a copy begins makes no difference to them. */
void rt_random_values(const struct rt_stored_entry *t, uint64_t seed, uint64_t first,
                      uint64_t count, uint16_t *out)
{
    const uint64_t key = hash_of(t->name, seed);
    const bool norm = is_norm(t);
    /* Even in ±bound has the deviation bound / sqrt(3). */
    const float bound = sqrtf(3.0f / (float)rt_stored_columns(t)), step = bound / 65536.0f;
    uint64_t four = 0;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t element = first + i;
        if (i == 0 || element % 4 == 0)
            four = mix(key + element / 4);
        const int32_t draw = (int32_t)(four >> 16 * (element % 4) & 0xffff);
        out[i] = norm ? BF16_ONE : bf16_of((float)(2 * draw - 65535) * step);
    }
}

/* ---- the table ------------------------------------------------------------------------------- */

static void add(rt_checkpoint *c, const struct rt_place *place)
{
    char *const name = c->names + c->count * RT_PLACE_NAME_BYTES;
    const bool vector = rt_place_is_vector(place);
    (void)snprintf(name, RT_PLACE_NAME_BYTES, "%s", place->name);
    c->entries[c->count++] = (struct rt_stored_entry){
        .name = name,
        .dtype = "BF16",
        .file = "",
        .elements = place->rows * place->columns,
        .bytes = place->rows * place->columns * BF16_BYTES,
        .stored = RT_STORED_BF16,
        .rank = vector ? 1 : 2,
        .shape = {vector ? place->columns : place->rows, vector ? 0 : place->columns}};
}

static enum rt_status fill(const struct rt_places *places, rt_checkpoint *c, struct rt_error *err)
{
    struct rt_place place;
    c->entries = calloc(places->count, sizeof(*c->entries));
    c->names = calloc(places->count, RT_PLACE_NAME_BYTES);
    RT_MODELS_REQUIRE(c->entries && c->names, err, RT_ERR_NOMEM,
                      "%s: no memory for the names of %u weights", c->label, places->count);
    for (uint32_t i = 0; i < places->count; i++) {
        rt_place_of(places, i, &place);
        if (place.needed)
            add(c, &place);
    }
    rt_stored_sort(c->entries, c->count);
    return RT_OK;
}

static enum rt_status make(const char *config_json, rt_checkpoint *c, struct rt_error *err)
{
    struct rt_model model = {.struct_size = sizeof(model)};
    rt_places *places = NULL;
    RT_MODELS_TRY(rt_model_read(config_json, &model, err));
    RT_MODELS_TRY(rt_places_create(&model, &places, err));
    const enum rt_status status = fill(places, c, err);
    rt_places_destroy(&places);
    return status;
}

enum rt_status rt_checkpoint_random(const char *config_json, uint64_t seed, rt_checkpoint **out,
                                    struct rt_error *error)
{
    RT_MODELS_REQUIRE(out, error, RT_ERR_INVALID, "rt_checkpoint_random: out is null");
    *out = NULL;
    RT_MODELS_REQUIRE(config_json, error, RT_ERR_INVALID, "rt_checkpoint_random: path is null");
    rt_checkpoint *c = calloc(1, sizeof(*c));
    RT_MODELS_REQUIRE(c, error, RT_ERR_NOMEM, "out of host memory for a checkpoint");
    rt_path_label(config_json, c->label);
    c->seed = seed;
    const enum rt_status status = make(config_json, c, error);
    if (status != RT_OK)
        rt_checkpoint_close(&c);
    *out = c;
    return status;
}
