/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_RECIPE_H
#define RT_RUNTIME_RECIPE_H

/* A graph's spec -> its program: our operators in order, with the caller's stages between them. */
#include "buffers/arena.h"
#include "graphs/program.h"
#include "runtime/blueprint.h"
#include "runtime/refusals.h"
#include "runtime/stage_exchange.h"
#include "runtime/sums.h"
#include "runtime/weights.h"

/* One call of the caller's: what the stage needs when it runs, for the runtime's life. */
struct rt_stage_binding {
    rt_stage_fn fn;
    void *user;
    struct rt_stage_context context;
    const struct rt_stage_context **running; /* told while it runs */
};

struct rt_recipe_source {
    const struct rt_blueprint *blueprint;
    const struct rt_arena *arena;            /* addresses; a plan's arena has base 0 */
    const struct rt_kernels *kernels;        /* zeroed in a plan without a device */
    rt_runtime *runtime;                     /* for the callbacks' context; null in a plan */
    const struct rt_stage_context **running; /* where a stage is noted while it runs */
    const rt_stage_fn *stages;               /* [RT_STAGE_POINT_COUNT] */
    void *stage_user;
    /* Bits by stage point, as in rt_create_params. */
    uint32_t foreign, host_nodes, overlapped;
    const float *kv_scales;                     /* [layers], or null: the configuration's */
    const struct rt_weights *weights;           /* of blocks; null without */
    const struct rt_refusals *refusals;         /* of the library's; null: none is known */
    struct rt_comm *comm;                       /* of the ranks; null: this is the only one */
    const struct rt_sums *sums;                 /* over them; null: by the communicator */
    const struct rt_stage_exchanges *exchanges; /* behind stages; null: none */
};

/* "before_attention", …: static storage. */
const char *rt_stage_point_name(enum rt_stage_point point);

/* Bindings that one program needs at most. */
uint32_t rt_recipe_binding_count(const struct rt_recipe_source *s);

/*
 * Appends all stages to the empty *p, which becomes the spec's. `bindings` has
 * rt_recipe_binding_count elements and outlives the program; a control graph needs none.
 * On failure *p may be partly filled; free it.
 */
enum rt_status rt_recipe_make(const struct rt_recipe_source *s, const struct rt_graph_spec *spec,
                              struct rt_stage_binding *bindings, struct rt_program *p,
                              struct rt_error *err);

#endif
