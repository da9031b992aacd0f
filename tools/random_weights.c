/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/random_weights.h"

#include "tools/chance.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 256u
/* Random numbers are drawn once and repeated, for gigabytes of them take their time. A prime: no
 * two rows of a weight begin at the same one. */
#define DRAWN 1048573u
/* Between the first numbers of two ranks' weights: no multiple of rows, and prime to DRAWN. */
#define RANKS_APART 7919u
/* Around 1, for a norm's weight. */
#define NORM_SPREAD 0.25f

struct filler {
    const struct rt_config *config;
    struct random_weights *w;
    struct rt_error *error;
    uint32_t rank;
    uint64_t address; /* of the memory; 0 while it is only counted what there is */
    uint64_t at;      /* of the next weight */
    struct chance chance;
    float *drawn;    /* [DRAWN], evenly within -1 and 1 */
    uint16_t *chunk; /* [DRAWN], bf16 of the weight that is being written */
};

#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum rt_status try_status_ = (expr);                                                       \
        if (try_status_ != RT_OK)                                                                  \
            return try_status_;                                                                    \
    } while (0)

static uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return (uint16_t)(bits >> 16);
}

/* ---- one weight ------------------------------------------------------------------------------ */

/* A sum of `columns` products of numbers with deviation 1 has deviation 1. `count` numbers from
 * `first` on, round and round: a small weight has no use for the others. */
static void make_chunk(struct filler *f, const struct rt_weight_place *p, uint64_t first,
                       uint64_t count)
{
    const bool norm = p->rows == 1;
    const float spread = norm ? NORM_SPREAD : sqrtf(3.0f / (float)p->columns);
    const float middle = norm && !f->config->block.norm_one_plus ? 1.0f : 0.0f;
    for (uint64_t i = 0; i < count && i < DRAWN; i++) {
        const uint64_t at = first + i < DRAWN ? first + i : first + i - DRAWN;
        f->chunk[at] = to_bf16(middle + spread * f->drawn[at]);
    }
}

static bool is_one_of(const struct rt_weight_place *p, const char *const names[], size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(p->name, names[i]) == 0)
            return true;
    return false;
}

/* Which part of the whole model's weight the rank has: ranks that share a context have the same
 * heads up to attention, and each its own behind it. */
static uint32_t part_of(const struct filler *f, const struct rt_weight_place *p)
{
    static const char *const queries[] = {"q_proj.weight", "q_b_proj.weight", "kv_b_proj.weight"};
    static const char *const outputs[] = {"o_proj.weight"};
    if (is_one_of(p, queries, sizeof(queries) / sizeof(queries[0])))
        return f->rank / f->config->context_parallel;
    return is_one_of(p, outputs, 1) ? f->rank : 0;
}

static enum rt_status fill(struct filler *f, const struct rt_weight_place *p, uint64_t bytes)
{
    uint64_t first = (chance_draw(&f->chance) + part_of(f, p) * RANKS_APART) % DRAWN;
    make_chunk(f, p, first, bytes / sizeof(*f->chunk));
    for (uint64_t done = 0; done < bytes; first = 0) {
        uint64_t piece = (DRAWN - first) * sizeof(*f->chunk);
        if (piece > bytes - done)
            piece = bytes - done;
        TRY(rt_memory_write(f->w->memory, f->at + done, f->chunk + first, piece, f->error));
        done += piece;
    }
    return RT_OK;
}

/* The weight's turn: counted, or written and bound. */
static enum rt_status take(struct filler *f, const struct rt_weight_place *p)
{
    const uint64_t bytes = p->rows * p->columns * sizeof(uint16_t);
    if (f->address) {
        const struct rt_weight weight = {.struct_size = sizeof(weight),
                                         .dtype = RT_DTYPE_BF16,
                                         .address = f->address + f->at,
                                         .rows = p->rows,
                                         .columns = p->columns};
        TRY(fill(f, p, bytes));
        TRY(rt_weights_bind(f->w->table, p->layer, p->name, &weight, f->error));
    }
    f->at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return RT_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* Both are multiplied by hidden: one behind the other they can be one product. */
static bool is_first(const struct rt_weight_place *p)
{
    static const char *const names[] = {"q_a_proj.weight", "q_proj.weight",
                                        "kv_a_proj_with_mqa.weight"};
    return is_one_of(p, names, sizeof(names) / sizeof(names[0]));
}

static enum rt_status take_layer(struct filler *f, uint32_t begin, uint32_t end, bool first)
{
    struct rt_weight_place p = {.struct_size = sizeof(p)};
    for (uint32_t i = begin; i < end; i++) {
        TRY(rt_weights_place(f->w->table, i, &p, f->error));
        if (p.needed && is_first(&p) == first)
            TRY(take(f, &p));
    }
    return RT_OK;
}

static enum rt_status take_all(struct filler *f)
{
    const uint32_t layers = f->config->geometry.layers;
    const uint32_t each = rt_weights_count(f->w->table) / layers;
    f->at = 0;
    for (uint32_t layer = 0; layer < layers; layer++) {
        TRY(take_layer(f, layer * each, (layer + 1) * each, true));
        TRY(take_layer(f, layer * each, (layer + 1) * each, false));
    }
    return RT_OK;
}

static enum rt_status make(struct filler *f)
{
    TRY(rt_weights_create(f->config, &f->w->table, f->error));
    TRY(take_all(f));
    f->w->bytes = f->at;
    TRY(rt_memory_create(f->config->device, f->w->bytes, &f->w->memory, &f->address, f->error));
    for (uint32_t i = 0; i < DRAWN; i++)
        f->drawn[i] = (float)(int32_t)(chance_draw(&f->chance) >> 32) * 0x1p-31f;
    return take_all(f);
}

static enum rt_status no_memory(struct rt_error *error)
{
    if (error) {
        error->status = RT_ERR_NOMEM;
        (void)snprintf(error->message, sizeof(error->message),
                       "out of host memory for random weights");
    }
    return RT_ERR_NOMEM;
}

enum rt_status random_weights_create(const struct rt_config *config, uint64_t seed, uint32_t rank,
                                     struct random_weights *out, struct rt_error *error)
{
    struct filler f = {.config = config,
                       .w = out,
                       .error = error,
                       .rank = rank,
                       .chance = chance_of(seed),
                       .drawn = malloc(DRAWN * sizeof(*f.drawn)),
                       .chunk = malloc(DRAWN * sizeof(*f.chunk))};
    *out = (struct random_weights){.bytes = 0};
    const enum rt_status status = f.drawn && f.chunk ? make(&f) : no_memory(error);
    free(f.chunk);
    free(f.drawn);
    if (status != RT_OK)
        random_weights_destroy(out);
    return status;
}

void random_weights_destroy(struct random_weights *weights)
{
    rt_weights_destroy(&weights->table);
    rt_memory_destroy(&weights->memory);
    *weights = (struct random_weights){.bytes = 0};
}
