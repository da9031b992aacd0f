/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_RECIPE_PARTS_H
#define RT_RUNTIME_RECIPE_PARTS_H

/* What the files that write recipes share: the program that grows, and views of the arena. */
#include "kernels/abi/preattend_sums.h"
#include "kernels/abi/project.h"
#include "kernels/abi/quant.h"
#include "kernels/abi/reduce.h"
#include "kernels/abi/schedule.h"
#include "runtime/recipe.h"

/* The tokens that what is added now is about, first .. first + count of the graph's. */
struct span {
    uint32_t first;
    uint32_t rows; /* of query_len tokens */
    /* Every token a row of one, as a chunk's are: it has its own slot and position. */
    bool by_token;
    bool chunk;  /* by chunk's own schedule */
    bool beside; /* rows of several tokens beside a chunk: those of tensors beside_* */
};

struct recipe {
    const struct rt_recipe_source *s;
    const struct rt_graph_spec *spec;
    const struct rt_variant *variants; /* [RT_OP_COUNT] */
    uint32_t query_len;
    struct span span;
    /* Done already for the layer's attention: the keys of the chunk's own tokens are expanded, the
     * queries of rows that decode beside it absorbed. */
    bool has_keys, has_absorbed;
    bool is_whole; /* blocks are one kernel each, this one: */
    struct rt_variant whole_block;
    struct rt_stage_binding *bindings;
    uint32_t bindings_used;
    /* The last sum over ranks that goes in one shot, and how many stages there were behind it: as
     * many as now where it is the last. */
    struct rt_collective summed;
    uint32_t summed_count;
    struct rt_program *p;
    struct rt_error *err;
};

/* Appends a stage "name" or "name.layer". */
enum rt_status rt_recipe_add(struct recipe *b, const char *name, uint32_t layer,
                             const struct rt_work *work);
/* One call of an operator: `params` is its struct of kernels/abi. */
enum rt_status rt_recipe_add_op(struct recipe *b, enum rt_op_id op, uint32_t layer,
                                const void *params, size_t param_bytes);
enum rt_status rt_recipe_add_append(struct recipe *b, uint32_t layer);
/* By the operator that writes the cache's layout, where it does. */
enum rt_status rt_recipe_add_preattend(struct recipe *b, uint32_t layer,
                                       const struct rt_preattend_params *params);
enum rt_status rt_recipe_add_schedule(struct recipe *b);
enum rt_status rt_recipe_add_user_stage(struct recipe *b, enum rt_stage_point point,
                                        uint32_t layer);
/* All between step_begin and step_end of a chunk's graph. */
enum rt_status rt_recipe_add_chunk(struct recipe *b);
enum rt_status rt_recipe_add_attend(struct recipe *b, uint32_t layer);
enum rt_status rt_recipe_add_reduce(struct recipe *b, uint32_t layer);
/* Attention of the span's tokens over the keys that stages list, and its schedule. */
enum rt_status rt_recipe_add_sparse(struct recipe *b, uint32_t layer);
/* Of all rows of a step, behind the stage that lists them. */
enum rt_status rt_recipe_add_listed(struct recipe *b, uint32_t layer);
static inline bool rt_recipe_is_listed(const struct recipe *b)
{
    return b->s->blueprint->config.topk > 0;
}
/* [heads] of the layer, or null: there are none. */
const float *rt_recipe_sink(const struct recipe *b, uint32_t layer);
struct rt_schedule_params rt_recipe_schedule_params(const struct recipe *b);
struct rt_attend_params rt_recipe_attend_params(const struct recipe *b, uint32_t layer);
struct rt_reduce_params rt_recipe_reduce_params(const struct recipe *b, uint32_t layer);
/* Where ranks share a context: how many keys of this rank's each token sees, and whether its own is
 * one of them; from here on the tokens of a step are rows of their own, as a chunk's are. */
enum rt_status rt_recipe_add_context_rows(struct recipe *b);
/* What attention over a rank's own keys leaves for the others, of the span's tokens. */
struct rt_heads_view rt_recipe_given_out(const struct recipe *b);
struct rt_heads_view rt_recipe_given_lse(const struct recipe *b);
/* Of whose product every rank has a part: the bias is rank 0's, or each would add it. */
static inline enum rt_weight_id rt_recipe_output_bias(const struct recipe *b)
{
    return !b->s->comm || b->s->comm->rank == 0 ? RT_WEIGHT_O_BIAS : RT_WEIGHT_COUNT;
}
/* Behind o_proj, of the span's tokens: all ranks' hidden is their sum. Nothing in a group of one,
 * for it is what there is already, and a library captures nothing for it. */
enum rt_status rt_recipe_add_sum(struct recipe *b, uint32_t layer);
/* In front of a layer's block; where the sum of hidden is the stage before, and one launch for both
 * is faster, in its place. */
enum rt_status rt_recipe_add_input_norm(struct recipe *b, uint32_t layer);
/* In front of a layer that is one kernel: where the sum of hidden is the stage before, and the norm
 * costs less in it than in the kernel, hidden becomes what is normed, and *normed says so. */
enum rt_status rt_recipe_norm_sum(struct recipe *b, uint32_t layer, bool *normed);
/* What the caller has listed behind its stage: adds it, or nothing in a group of one. */
enum rt_status rt_recipe_add_stage_exchange(struct recipe *b, const struct rt_stage_exchange *x,
                                            uint32_t layer);
/* Behind attention of all tokens: it becomes that over all ranks' keys. */
enum rt_status rt_recipe_add_context(struct recipe *b, uint32_t layer);
static inline bool rt_recipe_has_context(const struct recipe *b)
{
    return b->s->blueprint->config.context_parallel > 1;
}
/* All between a layer's two stages, attention among it. */
enum rt_status rt_recipe_add_block(struct recipe *b, uint32_t layer);

/* Of a step's graph of blocks: decides whether they are one kernel each (is_whole, whole_block), on
 * all ranks alike, and notes why in the program. */
enum rt_status rt_recipe_choose_whole(struct recipe *b);
/* All between a layer's two stages as one kernel, with the sum over ranks behind it. */
enum rt_status rt_recipe_add_whole(struct recipe *b, uint32_t layer);

/* Parts of a block, of the span's tokens: from hidden to queries and the cache, with what of an
 * expanded chunk's attention can be done beside it; queries absorbed; what attention wrote becomes
 * values, and values hidden. */
enum rt_status rt_recipe_add_query(struct recipe *b, uint32_t layer);
enum rt_status rt_recipe_add_absorption(struct recipe *b, uint32_t layer);
enum rt_status rt_recipe_add_values(struct recipe *b, uint32_t layer);
enum rt_status rt_recipe_add_hidden(struct recipe *b, uint32_t layer);

/* Queries of the span's tokens before absorption, [P + R] each; R of them not yet turned. */
struct rt_heads_view rt_recipe_full_query(const struct recipe *b);
/* Keys and values of the span's rows of expanded_latent. */
enum rt_status rt_recipe_add_expansion(struct recipe *b, uint32_t layer);
/* Behind q_b in a branch: what of an expanded chunk's attention needs no more than that. */
enum rt_status rt_recipe_add_ahead(struct recipe *b, uint32_t layer);
/* Keys and values of the chunk's own tokens, which are in the cache. */
enum rt_status rt_recipe_add_own_keys(struct recipe *b, uint32_t layer);
/* Attention of a chunk's prompts with expanded keys and values, up to `values`. */
enum rt_status rt_recipe_add_expanded(struct recipe *b, uint32_t layer);

static inline uint32_t rt_recipe_tokens(const struct recipe *b)
{
    return b->span.rows * b->query_len;
}

static inline void *rt_recipe_at(const struct recipe *b, enum rt_tensor_id id, uint32_t layer)
{
    return (void *)(uintptr_t)rt_arena_addr(b->s->arena, id, layer);
}

/* For the library's products, of the branch that grows; 0: there is none. */
static inline rt_addr rt_recipe_workspace(const struct recipe *b)
{
    const uint64_t bytes = b->s->blueprint->placement.dims.workspace_bytes;
    const uint64_t which = b->p->branch == RT_TRUNK ? 0 : b->p->branch - 1;
    return bytes ? rt_arena_addr(b->s->arena, RT_TENSOR_WORKSPACE, 0) + which * bytes : 0;
}

/* At the span's first token of rows of `width` numbers. */
void *rt_recipe_at_span(const struct recipe *b, enum rt_tensor_id id, uint32_t layer,
                        uint64_t width);

/* So many elements behind `base` in a data tensor, whose elements are of the configuration's
 * precision. */
void *rt_recipe_behind(const struct recipe *b, void *base, uint64_t elements);

/* Of one of a layer's weights as it lies; bias RT_WEIGHT_COUNT: none. */
struct rt_weight_view rt_recipe_weight(const struct recipe *b, uint32_t layer, enum rt_weight_id id,
                                       enum rt_weight_id bias);
struct rt_norm_view rt_weights_norm(const struct rt_weights *weights, const struct rt_block *block,
                                    uint32_t layer, enum rt_weight_id id, double eps, double scale);
struct rt_norm_view rt_recipe_norm(const struct recipe *b, uint32_t layer, enum rt_weight_id id,
                                   double eps, double scale);
struct rt_rope_view rt_recipe_rope_view(const struct recipe *b);
/* The whole node of the span's tokens, to be left without the parts that are not wanted. */
struct rt_preattend_params rt_recipe_preattend_params(const struct recipe *b, uint32_t layer);

struct rt_rows_view rt_recipe_rows_view(const struct recipe *b);
struct rt_kv_view rt_recipe_kv_view(const struct recipe *b, uint32_t layer);
/* What a quantised cache's rows hold; not of others. */
bool rt_recipe_is_quantised(const struct recipe *b);
struct rt_quant_view rt_recipe_quant_view(const struct recipe *b, uint32_t layer);
struct rt_schedule_view rt_recipe_schedule_view(const struct recipe *b);
/* Packed for the step's query length: [rows, q_len, heads, width]. */
struct rt_heads_view rt_recipe_heads_view(const struct recipe *b, enum rt_tensor_id id,
                                          uint32_t layer, uint32_t width);

#endif
