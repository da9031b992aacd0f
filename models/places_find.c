/* SPDX-License-Identifier: Apache-2.0 */
#include "models/checkpoint_table.h"
#include "models/places.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Where a checkpoint has a place: rows of a tensor, which may hold those of others too. */
struct source {
    const struct rt_stored_entry *tensor;
    uint64_t first_row;
    char name[RT_PLACE_NAME_BYTES]; /* what was looked for */
    uint32_t rank;
    uint64_t shape[3]; /* that the tensor must have */
};

static bool is_expert(enum rt_place_kind kind)
{
    return kind == RT_PLACE_EXPERT_GATE || kind == RT_PLACE_EXPERT_UP ||
           kind == RT_PLACE_EXPERT_DOWN;
}

/*
 * Models of several kinds of input have their text model below another: some versions write that
 * in front of the whole name, some behind "model.".
 */
static const struct rt_stored_entry *find(const rt_checkpoint *c, const char *name)
{
    static const char inner[] = "model.";
    char full[RT_PLACE_NAME_BYTES + 32];
    const struct rt_stored_entry *t = rt_stored_find(c->entries, c->count, name);
    if (t)
        return t;
    (void)snprintf(full, sizeof(full), "language_model.%s", name);
    t = rt_stored_find(c->entries, c->count, full);
    if (t || strncmp(name, inner, sizeof(inner) - 1) != 0)
        return t;
    (void)snprintf(full, sizeof(full), "model.language_model.%s", name + sizeof(inner) - 1);
    return rt_stored_find(c->entries, c->count, full);
}

/* All experts of a layer in one tensor: of each its gate and then its up, or its down. */
static void seek_fused(const rt_checkpoint *c, const struct rt_model *m,
                       const struct rt_place *place, struct source *s)
{
    const bool is_down = place->kind == RT_PLACE_EXPERT_DOWN;
    const uint64_t each = is_down ? place->rows : 2 * place->rows;
    (void)snprintf(s->name, sizeof(s->name), "model.layers.%" PRIu32 ".mlp.experts.%s",
                   place->layer, is_down ? "down_proj" : "gate_up_proj");
    s->tensor = find(c, s->name);
    s->first_row = place->expert * each + (place->kind == RT_PLACE_EXPERT_UP ? place->rows : 0);
    s->rank = 3;
    s->shape[0] = m->moe.experts;
    s->shape[1] = each;
    s->shape[2] = place->columns;
}

static void seek(const rt_checkpoint *c, const struct rt_model *m, const struct rt_place *place,
                 struct source *out)
{
    *out = (struct source){.tensor = find(c, place->name)};
    (void)snprintf(out->name, sizeof(out->name), "%s", place->name);
    out->rank = rt_place_is_vector(place) ? 1 : 2;
    out->shape[0] = rt_place_is_vector(place) ? place->columns : place->rows;
    out->shape[1] = rt_place_is_vector(place) ? 0 : place->columns;
    if (!out->tensor && is_expert(place->kind))
        seek_fused(c, m, place, out);
    if (!out->tensor)
        (void)snprintf(out->name, sizeof(out->name), "%s", place->name);
}

/* Why the place cannot be read from there. */
static enum rt_status judge(const rt_checkpoint *c, const struct source *s, struct rt_error *err)
{
    char has[RT_SHAPE_TEXT_BYTES], wants[RT_SHAPE_TEXT_BYTES];
    const struct rt_stored_entry *t = s->tensor;
    RT_MODELS_REQUIRE(t, err, RT_ERR_FILE, "%s: has no tensor %s", c->label, s->name);
    RT_MODELS_REQUIRE(t->stored == RT_STORED_BF16 || t->stored == RT_STORED_F16 ||
                          t->stored == RT_STORED_F32,
                      err, RT_ERR_FILE, "%s: tensor %s has dtype %.16s, expected BF16, F16 or F32",
                      c->label, t->name, t->dtype);
    if (t->rank == s->rank && memcmp(t->shape, s->shape, s->rank * sizeof(s->shape[0])) == 0)
        return RT_OK;
    rt_shape_text(t->rank, t->shape, has);
    rt_shape_text(s->rank, s->shape, wants);
    return rt_models_fail(err, RT_ERR_FILE, "%s: tensor %s has shape %s, expected %s", c->label,
                          t->name, has, wants);
}

enum rt_status rt_places_check(const rt_places *places, const rt_checkpoint *checkpoint,
                               struct rt_error *error)
{
    struct rt_error first = {.status = RT_OK};
    struct rt_place place;
    struct source source;
    uint32_t wrong = 0, needed = 0;
    RT_MODELS_REQUIRE(places, error, RT_ERR_INVALID, "rt_places_check: places is null");
    RT_MODELS_REQUIRE(checkpoint, error, RT_ERR_INVALID, "rt_places_check: checkpoint is null");
    for (uint32_t i = 0; i < places->count; i++) {
        rt_place_whole(places, i, &place);
        seek(checkpoint, &places->model, &place, &source);
        needed += place.needed;
        if (!source.tensor && !place.needed)
            continue;
        wrong += judge(checkpoint, &source, wrong ? NULL : &first) != RT_OK;
    }
    RT_MODELS_REQUIRE(wrong == 0, error, RT_ERR_FILE,
                      "%s; %" PRIu32 " of the %" PRIu32
                      " weights of a %s model are missing or wrong",
                      first.message, wrong, needed, places->model.family);
    return RT_OK;
}

/* The zero token's row of rows [first, first + count), where it is one of them. */
static void clear_token(const struct rt_model *m, uint64_t first, uint64_t count,
                        enum rt_dtype dtype, void *out)
{
    const uint64_t row = (uint64_t)m->zero_token, bytes = dtype == RT_DTYPE_BF16 ? 2 : 4;
    if (row >= first && row - first < count)
        memset((unsigned char *)out + (row - first) * m->hidden_size * bytes, 0,
               m->hidden_size * bytes);
}

static uint64_t bytes_of(enum rt_dtype dtype)
{
    return dtype == RT_DTYPE_BF16 ? sizeof(uint16_t) : sizeof(float);
}

/* Of each of these rows the rank's columns. */
static enum rt_status copy_columns(const rt_checkpoint *c, const struct source *s,
                                   const struct rt_place *whole, const struct rt_place_share *share,
                                   uint64_t first, uint64_t count, enum rt_dtype dtype, void *out,
                                   struct rt_error *err)
{
    const uint64_t bytes = bytes_of(dtype);
    RT_MODELS_TRY(rt_checkpoint_copy(c, s->tensor->name, 0, 0, dtype, out, err)); /* may it be? */
    for (uint64_t row = 0; row < count; row++) {
        unsigned char *const to = (unsigned char *)out + row * share->size * bytes;
        rt_stored_copy(c, s->tensor, (s->first_row + first + row) * whole->columns + share->first,
                       share->count, dtype, to);
        memset(to + share->count * bytes, 0, (share->size - share->count) * bytes);
    }
    return RT_OK;
}

/* Of these rows those that the model has, and zeros. */
static enum rt_status copy_rows(const rt_checkpoint *c, const struct source *s,
                                const struct rt_place *whole, const struct rt_place_share *share,
                                uint64_t first, uint64_t count, enum rt_dtype dtype, void *out,
                                struct rt_error *err)
{
    const uint64_t begin = first < share->count ? first : share->count;
    const uint64_t real = share->count - begin < count ? share->count - begin : count;
    const uint64_t row_bytes = whole->columns * bytes_of(dtype);
    RT_MODELS_TRY(rt_checkpoint_copy(c, s->tensor->name, s->first_row + share->first + begin, real,
                                     dtype, out, err));
    if (real < count)
        memset((unsigned char *)out + real * row_bytes, 0, (count - real) * row_bytes);
    return RT_OK;
}

enum rt_status rt_places_copy(const rt_places *places, const rt_checkpoint *checkpoint,
                              uint32_t index, uint64_t first, uint64_t count, enum rt_dtype dtype,
                              void *out, struct rt_error *error)
{
    struct rt_place place, whole;
    struct source source;
    RT_MODELS_REQUIRE(places, error, RT_ERR_INVALID, "rt_places_copy: places is null");
    RT_MODELS_REQUIRE(checkpoint, error, RT_ERR_INVALID, "rt_places_copy: checkpoint is null");
    RT_MODELS_REQUIRE(index < places->count, error, RT_ERR_INVALID,
                      "rt_places_copy: index %" PRIu32 " of %" PRIu32, index, places->count);
    rt_place_of(places, index, &place);
    RT_MODELS_REQUIRE(first <= place.rows && count <= place.rows - first, error, RT_ERR_INVALID,
                      "rt_places_copy: %" PRIu64 " rows from %" PRIu64
                      " on were asked for, %s has %" PRIu64,
                      count, first, place.name, place.rows);
    rt_place_whole(places, index, &whole);
    const struct rt_place_share share = rt_place_share_of(places, &whole);
    seek(checkpoint, &places->model, &whole, &source);
    RT_MODELS_TRY(judge(checkpoint, &source, error));
    if (share.part == RT_PART_COLUMNS)
        return copy_columns(checkpoint, &source, &whole, &share, first, count, dtype, out, error);
    RT_MODELS_TRY(copy_rows(checkpoint, &source, &whole, &share, first, count, dtype, out, error));
    if (place.kind == RT_PLACE_EMBEDDING && places->model.has_zero_token)
        clear_token(&places->model, first, count, dtype, out);
    return RT_OK;
}
