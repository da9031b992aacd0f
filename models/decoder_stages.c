/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a decoder puts between the blocks. With residual r and hidden h, which the blocks' input
 * norm adds to it:
 *
 *   step begin   h = embedding
 *   after l      r += h, x = norm(r), h = MLP(x) or mixture(x)
 *   step end     r += h, x = norm(r), logits = x · W, the next token
 *
 * Of several ranks each does a part of MLPs, mixtures and W: decoder_share.c.
 */
#include "models/decoder_impl.h"

#include "models/fail.h"

#include <inttypes.h>

/* Where all of a stage's operators go. */
struct place {
    struct rt_decoder *d;
    const struct rt_stage_context *context;
    const struct rt_decoder_kinds *weights; /* of the layer */
    uint32_t tokens;
};

static enum rt_status find(struct rt_decoder *d, rt_runtime *rt, const char *name, uint64_t *out)
{
    struct rt_tensor tensor = {.struct_size = sizeof(tensor)};
    const enum rt_status status = rt_tensor(rt, name, 0, &tensor);
    RT_MODELS_REQUIRE(status == RT_OK, &d->error, status, "%s", rt_last_error(rt)->message);
    *out = tensor.address;
    return RT_OK;
}

struct name {
    const char *name;
    uint64_t *address;
};

static enum rt_status find_tensors(struct rt_decoder *d, rt_runtime *rt)
{
    struct rt_decoder_tensors *const t = &d->tensors;
    const struct name all[] = {{"hidden", &t->hidden},     {"residual", &t->residual},
                               {"tokens", &t->tokens},     {"accepted", &t->accepted},
                               {"sampled", &t->sampled},   {"slots", &t->slots},
                               {"lengths", &t->lengths},   {"accept", &t->accept},
                               {"row_base", &t->row_base}, {"positions", &t->positions}};
    const struct name of_chunks[] = {{"chunk_tokens", &t->chunk_tokens},
                                     {"token_slots", &t->token_slots},
                                     {"token_positions", &t->token_positions},
                                     {"token_lengths", &t->token_lengths},
                                     {"row_last", &t->row_last}};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (!*all[i].address)
            RT_MODELS_TRY(find(d, rt, all[i].name, all[i].address));
    for (size_t i = 0; d->config.chunk_count && i < sizeof(of_chunks) / sizeof(of_chunks[0]); i++)
        if (!*of_chunks[i].address)
            RT_MODELS_TRY(find(d, rt, of_chunks[i].name, of_chunks[i].address));
    return RT_OK;
}

/* Rows of one result each, or of query_len. */
static struct rt_token_rows rows_of(const struct place *p)
{
    const struct rt_decoder_tensors *t = &p->d->tensors;
    return (struct rt_token_rows){.rows = p->context->batch,
                                  .query_len = p->context->query_len,
                                  .lengths = t->lengths,
                                  .slots = t->slots,
                                  .positions = t->positions,
                                  .row_base = t->row_base};
}

/* All tokens that go through the layers: of a chunk each is a row. */
static struct rt_token_rows tokens_of(const struct place *p)
{
    const struct rt_decoder_tensors *t = &p->d->tensors;
    if (!p->context->chunk)
        return rows_of(p);
    return (struct rt_token_rows){.rows = p->tokens,
                                  .query_len = 1,
                                  .lengths = t->token_lengths,
                                  .slots = t->token_slots,
                                  .positions = t->token_positions};
}

/* ---- operators ------------------------------------------------------------------------------- */

static enum rt_status embed(const struct place *p)
{
    const struct rt_decoder *d = p->d;
    const struct rt_embed_args args = {.struct_size = sizeof(args),
                                       .precision = d->config.precision,
                                       .rows = tokens_of(p),
                                       .table = p->weights->at[RT_PLACE_EMBEDDING],
                                       .tokens = p->context->chunk ? d->tensors.chunk_tokens
                                                                   : d->tensors.tokens,
                                       .hidden = d->tensors.hidden,
                                       .vocab = d->model.vocab_size,
                                       .width = d->model.hidden_size,
                                       .scale = (float)d->model.embedding_scale};
    return rt_embed(d->ops, &args, p->context->stream);
}

/* Vectors and their residuals. */
struct vectors {
    uint64_t hidden, residual;
    uint32_t count;
};

static struct vectors all_of(const struct place *p)
{
    return (struct vectors){p->d->tensors.hidden, p->d->tensors.residual, p->tokens};
}

static struct rt_mla_input_norm_args norm_of(const struct place *p, const struct vectors *v,
                                             uint64_t weight)
{
    const struct rt_decoder *d = p->d;
    return (struct rt_mla_input_norm_args){
        .struct_size = sizeof(struct rt_mla_input_norm_args),
        .tokens = v->count,
        .hidden = v->hidden,
        .residual = v->residual,
        .normed = d->scratch.normed,
        .norm = {.weight = weight,
                 .width = d->model.hidden_size,
                 .eps = (float)d->model.norm_eps,
                 .offset = d->config.block.norm_one_plus ? 1.0f : 0.0f},
        .hidden_scale = (float)d->model.residual_scale,
        .precision = d->config.precision};
}

static enum rt_status normalise(const struct place *p, const struct vectors *v, uint64_t weight)
{
    const struct rt_mla_input_norm_args args = norm_of(p, v, weight);
    return rt_mla_input_norm(p->d->ops, &args, p->context->stream);
}

static enum rt_status multiply(const struct place *p, rt_product *product, uint64_t weight,
                               uint64_t y)
{
    const struct rt_product_args args = {.struct_size = sizeof(args),
                                         .x = p->d->scratch.normed,
                                         .y = y,
                                         .weights = {weight},
                                         .workspace = p->d->scratch.products};
    return rt_product_run(product, &args, p->context->stream);
}

static struct rt_route_args route_of(const struct place *p)
{
    const struct rt_decoder *d = p->d;
    const struct rt_moe *moe = &d->model.moe;
    return (struct rt_route_args){.struct_size = sizeof(struct rt_route_args),
                                  .experts = moe->experts,
                                  .experts_per_token = moe->experts_per_token,
                                  .groups = moe->groups,
                                  .groups_per_token = moe->groups_per_token,
                                  .scoring = moe->scoring,
                                  .group_score = moe->group_score,
                                  .normalise = moe->normalise,
                                  .scale = (float)moe->scale,
                                  .rows = tokens_of(p),
                                  .logits = d->scratch.scores,
                                  .bias = p->weights->at[RT_PLACE_ROUTER_BIAS],
                                  .routing = d->scratch.routing};
}

/* The MLP's norm, the router, and who goes where. */
static enum rt_status find_experts(const struct place *p)
{
    const struct rt_decoder *d = p->d;
    const struct vectors all = all_of(p);
    const struct rt_gate_args args = {.struct_size = sizeof(args),
                                      .norm = norm_of(p, &all, p->weights->at[RT_PLACE_MLP_NORM]),
                                      .route = route_of(p),
                                      .router = p->weights->at[RT_PLACE_ROUTER],
                                      .arrivals = d->scratch.arrivals};
    if (rt_decoder_gates(d, p->tokens))
        return rt_gate(d->ops, &args, p->context->stream);
    RT_MODELS_TRY(rt_mla_input_norm(d->ops, &args.norm, p->context->stream));
    RT_MODELS_TRY(
        multiply(p, rt_decoder_products_of(d, p->tokens)->router, args.router, d->scratch.scores));
    return rt_route(d->ops, &args.route, p->context->stream);
}

/* ---- MLPs ------------------------------------------------------------------------------------ */

/* [0] of the experts' kinds, [1] of the shared ones', whose down has their columns side by side. */
static void set_weights(const struct place *p, const struct rt_experts_shape *shape,
                        const enum rt_place_kind gates[2], struct rt_experts_up_args *up,
                        struct rt_experts_down_args *down)
{
    for (int i = 0; i < 2; i++) {
        const uint64_t *const at = &p->weights->at[gates[i]];
        up->gate[i].address = at[0];
        up->up[i].address = at[1];
        down->down[i].address = at[2];
    }
    down->down[1].row_stride = (int64_t)shape->shared * shape->width;
    down->down[1].expert_stride = shape->width;
}

static enum rt_status run_mlp(const struct place *p, const struct rt_experts_shape *shape,
                              const enum rt_place_kind gates[2])
{
    const struct rt_decoder *d = p->d;
    struct rt_experts_up_args up = {.struct_size = sizeof(up),
                                    .shape = *shape,
                                    .routing = d->scratch.routing,
                                    .x = d->scratch.normed,
                                    .h = d->scratch.between};
    struct rt_experts_down_args down = {.struct_size = sizeof(down),
                                        .shape = *shape,
                                        .rows = tokens_of(p),
                                        .routing = d->scratch.routing,
                                        .h = d->scratch.between,
                                        .out = d->tensors.hidden,
                                        .behind_up = 1,
                                        .scratch = d->scratch.pairs};
    set_weights(p, shape, gates, &up, &down);
    RT_MODELS_TRY(rt_experts_up(d->ops, &up, p->context->stream));
    return rt_experts_down(d->ops, &down, p->context->stream);
}

/* All of it in one launch. */
static enum rt_status run_block(const struct place *p, const struct rt_experts_shape *shape,
                                const enum rt_place_kind gates[2])
{
    const struct rt_decoder *d = p->d;
    const struct vectors all = all_of(p);
    struct rt_experts_up_args up = {.struct_size = sizeof(up)};
    struct rt_experts_down_args down = {.struct_size = sizeof(down)};
    set_weights(p, shape, gates, &up, &down);
    const struct rt_moe_block_args args = {.struct_size = sizeof(args),
                                           .shape = *shape,
                                           .norm =
                                               norm_of(p, &all, p->weights->at[RT_PLACE_MLP_NORM]),
                                           .route = route_of(p),
                                           .router = p->weights->at[RT_PLACE_ROUTER],
                                           .h = d->scratch.between,
                                           .out = d->tensors.hidden,
                                           .gate = {up.gate[0], up.gate[1]},
                                           .up = {up.up[0], up.up[1]},
                                           .down = {down.down[0], down.down[1]},
                                           .exchange = d->scratch.exchange};
    return rt_moe_block(d->ops, &args, p->context->stream);
}

static enum rt_status dense(const struct place *p)
{
    /* Of experts there are none: their kinds have no addresses in this layer. */
    static const enum rt_place_kind gates[2] = {RT_PLACE_EXPERT_GATE, RT_PLACE_GATE};
    const struct vectors all = all_of(p);
    const struct rt_experts_shape shape = rt_decoder_mlp_shape(p->d, false, p->tokens);
    if (p->tokens <= p->d->block_tokens[false])
        return run_block(p, &shape, gates);
    RT_MODELS_TRY(normalise(p, &all, p->weights->at[RT_PLACE_MLP_NORM]));
    return run_mlp(p, &shape, gates);
}

static enum rt_status mixture(const struct place *p)
{
    static const enum rt_place_kind gates[2] = {RT_PLACE_EXPERT_GATE, RT_PLACE_SHARED_GATE};
    const struct rt_experts_shape shape = rt_decoder_mlp_shape(p->d, true, p->tokens);
    if (p->tokens <= p->d->block_tokens[true])
        return run_block(p, &shape, gates);
    RT_MODELS_TRY(find_experts(p));
    return run_mlp(p, &shape, gates);
}

/* ---- the next token -------------------------------------------------------------------------- */

static enum rt_status choose(const struct place *p)
{
    const struct rt_decoder *d = p->d;
    const int64_t line = (int64_t)rt_decoder_line(d);
    const struct rt_sample_args args = {.struct_size = sizeof(args),
                                        .vocab = d->model.vocab_size,
                                        .rows = rows_of(p),
                                        .logits = d->scratch.logits,
                                        .row_stride = p->context->query_len * line,
                                        .token_stride = line,
                                        .scale = (float)d->model.logits_scale,
                                        .accept = d->tensors.accept,
                                        .tokens = d->tensors.tokens,
                                        .accepted = d->tensors.accepted,
                                        .sampled = d->tensors.sampled,
                                        .lines = d->scratch.lines,
                                        .workspace = d->scratch.sampling};
    return rt_sample(d->ops, &args, p->context->stream);
}

static enum rt_status take(const struct place *p, uint64_t x, uint64_t out)
{
    const struct rt_decoder *d = p->d;
    const struct rt_take_rows_args args = {.struct_size = sizeof(args),
                                           .precision = d->config.precision,
                                           .rows = p->context->batch * p->context->query_len,
                                           .x_rows = p->tokens,
                                           .width = d->model.hidden_size,
                                           .x = x,
                                           .index = d->tensors.row_last,
                                           .out = out};
    return rt_take_rows(d->ops, &args, p->context->stream);
}

/* What is sampled from: of a chunk every row's columns, of which a prompt has its last token. */
static enum rt_status take_ends(const struct place *p, struct vectors *out)
{
    const struct rt_decoder *d = p->d;
    *out = all_of(p);
    if (!p->context->chunk)
        return RT_OK;
    *out = (struct vectors){d->scratch.last_hidden, d->scratch.last_residual,
                            p->context->batch * p->context->query_len};
    RT_MODELS_TRY(take(p, d->tensors.hidden, out->hidden));
    return take(p, d->tensors.residual, out->residual);
}

/* The rank's part of the vocabulary: rows of W, which is the whole table where it is tied. */
static enum rt_status head(const struct place *p)
{
    const struct rt_decoder *const d = p->d;
    const bool alone = d->ranks == 1;
    struct vectors ends;
    uint32_t first;
    (void)rt_decoder_own_ids(d, &first);
    const uint64_t weight = d->model.tied
                                ? p->weights->at[RT_PLACE_EMBEDDING] +
                                      (uint64_t)first * d->model.hidden_size * sizeof(uint16_t)
                                : p->weights->at[RT_PLACE_LM_HEAD];
    RT_MODELS_TRY(take_ends(p, &ends));
    RT_MODELS_TRY(normalise(p, &ends, p->weights->at[RT_PLACE_FINAL_NORM]));
    rt_product *const product = rt_decoder_products_of(d, ends.count)->lm_head;
    if (product)
        RT_MODELS_TRY(multiply(p, product, weight, alone ? d->scratch.logits : d->scratch.part));
    return alone ? choose(p) : RT_OK;
}

/* Vector by vector: a line of f32 is twice as many numbers of bf16, which are moved bit for bit. */
static enum rt_status order(const struct place *p)
{
    const struct rt_decoder *const d = p->d;
    const uint32_t vectors = p->context->batch * p->context->query_len;
    const struct rt_take_rows_args args = {.struct_size = sizeof(args),
                                           .rows = vectors * d->ranks,
                                           .x_rows = vectors * d->ranks,
                                           .width = 2 * rt_decoder_slice(d),
                                           .x = d->scratch.gathered,
                                           .index = rt_decoder_products_of(d, vectors)->order,
                                           .out = d->scratch.logits};
    return rt_take_rows(d->ops, &args, p->context->stream);
}

/* Behind the gathering, of the same logits on every rank. */
static enum rt_status choose_of_all(const struct place *p)
{
    RT_MODELS_TRY(order(p));
    return choose(p);
}

/* ---- stages ---------------------------------------------------------------------------------- */

static enum rt_status enter(void *user, const struct rt_stage_context *context, struct place *out)
{
    struct rt_decoder *d = user;
    *out = (struct place){.d = d,
                          .context = context,
                          .weights = &d->weights.layers[context->layer],
                          .tokens = context->tokens};
    return find_tensors(d, context->runtime);
}

/* The runtime tells which stage has failed, and this why. */
static int leave(const struct place *p, enum rt_status status)
{
    const struct rt_error *why = rt_ops_last_error(p->d->ops);
    if (status == RT_OK)
        return 0;
    return rt_models_fail(&p->d->error, status, "%s", why->message) != RT_OK;
}

int rt_decoder_begin(void *user, const struct rt_stage_context *context)
{
    struct place p;
    if (enter(user, context, &p) != RT_OK)
        return 1;
    return leave(&p, embed(&p));
}

static enum rt_status after_attention(const struct place *p)
{
    return p->d->model.moe_layers[p->context->layer] ? mixture(p) : dense(p);
}

int rt_decoder_mlp(void *user, const struct rt_stage_context *context)
{
    struct place p;
    if (enter(user, context, &p) != RT_OK)
        return 1;
    return leave(&p, after_attention(&p));
}

int rt_decoder_end(void *user, const struct rt_stage_context *context)
{
    struct place p;
    if (enter(user, context, &p) != RT_OK)
        return 1;
    return leave(&p, context->part == 0 ? head(&p) : choose_of_all(&p));
}
