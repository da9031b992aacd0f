/* SPDX-License-Identifier: Apache-2.0 */
#include "models/decoder_load.h"

#include "models/fail.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#define MOST_THREADS 16
#define LEAST_STAGE_BYTES (UINT64_C(8) << 20)

struct load {
    const struct rt_decoder_params *params;
    const rt_places *places;
    const uint64_t *offsets;
    const struct rt_decoder_weights *weights;
    pthread_mutex_t lock; /* of all below, and of the memory */
    uint32_t next;
    uint64_t done, total; /* bytes */
    uint64_t stage_bytes; /* what is read at once: a row at least */
    enum rt_status status;
    struct rt_error error; /* the first one's */
};

/* What one thread works in. Only the caller's own tells how far it is. */
struct worker {
    struct load *load;
    void *stage;
    bool tells;
};

static uint64_t element_bytes(const struct rt_place *place)
{
    return place->kind == RT_PLACE_ROUTER_BIAS ? sizeof(float) : sizeof(uint16_t);
}

/* false: there is nothing left to do, or no sense in doing it. */
static bool take(struct load *l, uint32_t *index)
{
    (void)pthread_mutex_lock(&l->lock);
    while (l->next < rt_places_count(l->places) && !l->offsets[l->next])
        l->next++;
    const bool more = l->next < rt_places_count(l->places) && l->status == RT_OK;
    *index = l->next;
    l->next += more;
    (void)pthread_mutex_unlock(&l->lock);
    return more;
}

static void fail(struct load *l, const struct rt_error *error)
{
    (void)pthread_mutex_lock(&l->lock);
    if (l->status == RT_OK) {
        l->status = error->status;
        l->error = *error;
    }
    (void)pthread_mutex_unlock(&l->lock);
}

static enum rt_status send(const struct worker *w, uint64_t offset, uint64_t bytes,
                           struct rt_error *err)
{
    struct load *const l = w->load;
    (void)pthread_mutex_lock(&l->lock);
    const enum rt_status status = rt_memory_write(l->weights->memory, offset, w->stage, bytes, err);
    l->done += bytes;
    const uint64_t done = l->done;
    (void)pthread_mutex_unlock(&l->lock);
    if (w->tells && l->params->loading)
        l->params->loading(l->params->user, done, l->total);
    return status;
}

/* Some rows at a time. */
static enum rt_status copy_place(const struct worker *w, uint32_t index, struct rt_error *err)
{
    const struct load *const l = w->load;
    struct rt_place place = {.struct_size = sizeof(place)};
    RT_MODELS_TRY(rt_places_at(l->places, index, &place, err));
    const enum rt_dtype dtype = place.kind == RT_PLACE_ROUTER_BIAS ? RT_DTYPE_F32 : RT_DTYPE_BF16;
    const uint64_t row_bytes = place.columns * element_bytes(&place);
    const uint64_t rows = l->stage_bytes / row_bytes;
    for (uint64_t row = 0; row < place.rows; row += rows) {
        const uint64_t count = place.rows - row < rows ? place.rows - row : rows;
        RT_MODELS_TRY(rt_places_copy(l->places, l->params->checkpoint, index, row, count, dtype,
                                     w->stage, err));
        RT_MODELS_TRY(send(w, l->offsets[index] + row * row_bytes, count * row_bytes, err));
    }
    return RT_OK;
}

static void *labour(void *user)
{
    const struct worker *const w = user;
    struct rt_error error;
    uint32_t index;
    while (take(w->load, &index))
        if (copy_place(w, index, &error) != RT_OK)
            fail(w->load, &error);
    return NULL;
}

static enum rt_status count_bytes(struct load *l, struct rt_error *err)
{
    for (uint32_t i = 0; i < rt_places_count(l->places); i++) {
        struct rt_place place = {.struct_size = sizeof(place)};
        RT_MODELS_TRY(rt_places_at(l->places, i, &place, err));
        const uint64_t row_bytes = place.columns * element_bytes(&place);
        l->stage_bytes = row_bytes > l->stage_bytes ? row_bytes : l->stage_bytes;
        if (l->offsets[i])
            l->total += place.rows * row_bytes;
    }
    return RT_OK;
}

/* As many as there are processors, and fewer where threads or memory end: the caller's own thread
 * is enough. */
static enum rt_status run(struct load *l, struct rt_error *err)
{
    struct worker workers[MOST_THREADS];
    pthread_t threads[MOST_THREADS];
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    const long wanted = processors < MOST_THREADS ? processors : MOST_THREADS;
    int made = 1;
    for (int i = 0; i < MOST_THREADS; i++)
        workers[i] = (struct worker){.load = l, .tells = i == 0};
    workers[0].stage = malloc(l->stage_bytes);
    RT_MODELS_REQUIRE(workers[0].stage, err, RT_ERR_NOMEM,
                      "no host memory of %" PRIu64 " bytes to read weights into", l->stage_bytes);
    for (; made < wanted; made++) {
        workers[made].stage = malloc(l->stage_bytes);
        if (!workers[made].stage ||
            pthread_create(&threads[made], NULL, labour, &workers[made]) != 0)
            break;
    }
    (void)labour(&workers[0]);
    for (int i = 1; i < made; i++)
        (void)pthread_join(threads[i], NULL);
    for (int i = 0; i < MOST_THREADS; i++)
        free(workers[i].stage);
    if (l->status != RT_OK)
        return rt_models_fail(err, l->status, "%s", l->error.message);
    return RT_OK;
}

enum rt_status rt_decoder_load(const struct rt_decoder_params *params, const rt_places *places,
                               const uint64_t *offsets, const struct rt_decoder_weights *w,
                               struct rt_error *err)
{
    struct load l = {.params = params,
                     .places = places,
                     .offsets = offsets,
                     .weights = w,
                     .stage_bytes = LEAST_STAGE_BYTES,
                     .lock = PTHREAD_MUTEX_INITIALIZER};
    RT_MODELS_TRY(count_bytes(&l, err));
    const enum rt_status status = run(&l, err);
    if (status == RT_OK && params->loading)
        params->loading(params->user, l.total, l.total);
    (void)pthread_mutex_destroy(&l.lock);
    return status;
}
