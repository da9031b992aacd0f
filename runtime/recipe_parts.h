/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_RECIPE_PARTS_H
#define RT_RUNTIME_RECIPE_PARTS_H

/* What the files that write recipes share: the program that grows, and views of the arena. */
#include "kernels/abi/views.h"
#include "runtime/recipe.h"

struct recipe {
    const struct rt_recipe_source *s;
    const struct rt_graph_spec *spec;
    const struct rt_variant *variants; /* [RT_OP_COUNT] */
    uint32_t query_len;
    struct rt_stage_binding *bindings;
    uint32_t bindings_used;
    struct rt_program *p;
    struct rt_error *err;
};

/* Appends a stage "name" or "name.layer". */
enum rt_status rt_recipe_add(struct recipe *b, const char *name, uint32_t layer,
                             const struct rt_work *work);
/* One call of an operator: `params` is its struct of kernels/abi. */
enum rt_status rt_recipe_add_op(struct recipe *b, enum rt_op_id op, uint32_t layer,
                                const void *params, size_t param_bytes);
enum rt_status rt_recipe_add_attend(struct recipe *b, uint32_t layer);
enum rt_status rt_recipe_add_reduce(struct recipe *b, uint32_t layer);
/* All between a layer's two stages, attention among it. */
enum rt_status rt_recipe_add_block(struct recipe *b, uint32_t layer);

static inline void *rt_recipe_at(const struct recipe *b, enum rt_tensor_id id, uint32_t layer)
{
    return (void *)(uintptr_t)rt_arena_addr(b->s->arena, id, layer);
}

struct rt_rows_view rt_recipe_rows_view(const struct recipe *b);
struct rt_kv_view rt_recipe_kv_view(const struct recipe *b, uint32_t layer);
struct rt_schedule_view rt_recipe_schedule_view(const struct recipe *b);
/* Packed for the step's query length: [rows, q_len, heads, width]. */
struct rt_heads_view rt_recipe_heads_view(const struct recipe *b, enum rt_tensor_id id,
                                          uint32_t layer, uint32_t width);

#endif
