/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/model_memory.h"

static uint64_t number_bytes(uint32_t is_f32)
{
    return is_f32 ? sizeof(float) : sizeof(uint16_t);
}

/* ---- what several of them have --------------------------------------------------------------- */

/* Of a step's own tensors the host does not know where this replay's part begins, which the device
 * reads in row_base: they are taken to be as long as that part, which is the least. */
static void add_rows(struct rt_operands *o, const struct rt_token_rows *r)
{
    const uint64_t bytes = r->rows * sizeof(int32_t);
    rt_operands_reads(o, rt_strided_flat("rows.lengths", r->lengths, bytes));
    rt_operands_reads(o, rt_strided_flat("rows.slots", r->slots, bytes));
    rt_operands_reads(o, rt_strided_flat("rows.positions", r->positions, bytes));
    rt_operands_reads(o, rt_strided_flat("rows.row_base", r->row_base, sizeof(int32_t)));
}

typedef void (*add_fn)(struct rt_operands *o, struct rt_strided one);

static void add_routing(struct rt_operands *o, add_fn add, const struct rt_routing *r,
                        uint64_t pairs, uint32_t experts)
{
    add(o, rt_strided_flat("routing.choices", r->choices, pairs * sizeof(int32_t)));
    add(o, rt_strided_flat("routing.weights", r->weights, pairs * sizeof(float)));
    add(o, rt_strided_flat("routing.offsets", r->offsets, (experts + 1) * sizeof(int32_t)));
    add(o, rt_strided_flat("routing.pairs", r->pairs, pairs * sizeof(int32_t)));
    add(o, rt_strided_flat("routing.active", r->active, experts * sizeof(struct rt_expert_group)));
    add(o, rt_strided_flat("routing.active_count", r->active_count, sizeof(int32_t)));
}

/* ---- embed, take ----------------------------------------------------------------------------- */

enum rt_status rt_ops_embed_memory(const struct rt_embed_args *args,
                                   const struct rt_embed_params *p, struct rt_error *err)
{
    struct rt_operands o = {.count = 0};
    const uint32_t tokens = p->rows.count * p->rows.q_len;
    rt_operands_writes(&o, rt_strided_vectors("hidden", args->hidden, tokens, p->width,
                                              p->hidden_stride, number_bytes(p->is_f32),
                                              "hidden_stride"));
    rt_operands_reads(&o, rt_strided_vectors("table", args->table, p->vocab, p->width,
                                             p->table_stride, sizeof(uint16_t), "table_stride"));
    rt_operands_reads(&o, rt_strided_flat("tokens", args->tokens, tokens * sizeof(int32_t)));
    add_rows(&o, &args->rows);
    return rt_operands_check("rt_embed", &o, err);
}

enum rt_status rt_ops_take_memory(const struct rt_take_rows_args *args,
                                  const struct rt_take_params *p, struct rt_error *err)
{
    struct rt_operands o = {.count = 0};
    const uint64_t number = number_bytes(p->is_f32);
    rt_operands_writes(&o, rt_strided_vectors("out", args->out, p->rows, p->width, p->out_stride,
                                              number, "out_stride"));
    rt_operands_reads(
        &o, rt_strided_vectors("x", args->x, p->x_rows, p->width, p->x_stride, number, "x_stride"));
    rt_operands_reads(&o, rt_strided_flat("index", args->index, p->rows * sizeof(int32_t)));
    return rt_operands_check("rt_take_rows", &o, err);
}

/* ---- route ----------------------------------------------------------------------------------- */

void rt_ops_route_operands(const struct rt_route_args *args, struct rt_operands *o)
{
    const uint64_t tokens = (uint64_t)args->rows.rows * args->rows.query_len;
    add_routing(o, rt_operands_writes, &args->routing, tokens * args->experts_per_token,
                args->experts);
    rt_operands_reads(o, rt_strided_flat("bias", args->bias, args->experts * sizeof(float)));
    add_rows(o, &args->rows);
}

struct rt_strided rt_ops_route_logits(const struct rt_route_args *args,
                                      const struct rt_route_params *p)
{
    return rt_strided_vectors("logits", args->logits, p->rows.count * p->rows.q_len, p->experts,
                              p->logit_stride, sizeof(float), "logit_stride");
}

enum rt_status rt_ops_route_memory(const struct rt_route_args *args,
                                   const struct rt_route_params *p, struct rt_error *err)
{
    struct rt_operands o = {.count = 0};
    rt_ops_route_operands(args, &o);
    rt_operands_reads(&o, rt_ops_route_logits(args, p));
    return rt_operands_check("rt_route", &o, err);
}

/* ---- experts --------------------------------------------------------------------------------- */

static const uint64_t bf16 = sizeof(uint16_t);

/* names: of the address and of its two strides, of experts and of shared ones. */
static void add_weights(struct rt_operands *o, const char *const names[2][3],
                        const struct rt_experts_view *work, const struct rt_expert_weight_view w[2],
                        uint32_t rows, uint32_t columns)
{
    const uint32_t counts[] = {work->experts, work->shared};
    for (int i = 0; i < 2; i++)
        if (counts[i] > 0)
            rt_operands_reads(o, (struct rt_strided){.name = names[i][0],
                                                     .address = (uintptr_t)w[i].base,
                                                     .bytes = columns * bf16,
                                                     .count = {counts[i], rows},
                                                     .stride = {(uint64_t)w[i].expert_stride * bf16,
                                                                (uint64_t)w[i].row_stride * bf16},
                                                     .stride_name = {names[i][1], names[i][2]}});
}
#define WEIGHT_NAMES(name)                                                                         \
    {                                                                                              \
        {name "[0]", name "[0].expert_stride", name "[0].row_stride"},                             \
        {                                                                                          \
            name "[1]", name "[1].expert_stride", name "[1].row_stride"                            \
        }                                                                                          \
    }

static const char *const gate_names[2][3] = WEIGHT_NAMES("gate");
static const char *const up_names[2][3] = WEIGHT_NAMES("up");
static const char *const down_names[2][3] = WEIGHT_NAMES("down");

static struct rt_strided pairs_of(const struct rt_experts_view *work, const struct rt_pairs_view *h,
                                  uint32_t width, uint64_t number)
{
    return (struct rt_strided){
        .name = "h",
        .address = (uintptr_t)h->base,
        .bytes = width * number,
        .count = {work->tokens, work->chosen + work->shared},
        .stride = {(uint64_t)h->token_stride * number, (uint64_t)h->place_stride * number},
        .stride_name = {"h_token_stride", "h_place_stride"}};
}

enum rt_status rt_ops_experts_up_memory(const struct rt_experts_up_args *args,
                                        const struct rt_experts_up_params *p, struct rt_error *err)
{
    struct rt_operands o = {.count = 0};
    const struct rt_experts_view *work = &p->work;
    const uint64_t number = number_bytes(p->is_f32);
    rt_operands_writes(&o, pairs_of(work, &p->h, p->width, number));
    rt_operands_reads(&o, rt_strided_vectors("x", args->x, work->tokens, p->hidden, p->x_stride,
                                             number, "x_stride"));
    if (work->experts > 0)
        add_routing(&o, rt_operands_reads, &args->routing, (uint64_t)work->tokens * work->chosen,
                    work->experts);
    add_weights(&o, gate_names, work, p->gate, p->width, p->hidden);
    add_weights(&o, up_names, work, p->up, p->width, p->hidden);
    return rt_operands_check("rt_experts_up", &o, err);
}

enum rt_status rt_ops_experts_down_memory(const struct rt_experts_down_args *args,
                                          const struct rt_experts_down_params *p,
                                          uint64_t scratch_bytes, struct rt_error *err)
{
    struct rt_operands o = {.count = 0};
    const struct rt_experts_view *work = &p->work;
    const uint64_t number = number_bytes(p->is_f32);
    rt_operands_writes(&o, rt_strided_vectors("out", args->out, work->tokens, p->hidden,
                                              p->out_stride, number, "out_stride"));
    rt_operands_writes(&o, rt_strided_flat("scratch", args->scratch, scratch_bytes));
    rt_operands_reads(&o, pairs_of(work, &p->h, p->width, number));
    if (work->experts > 0)
        add_routing(&o, rt_operands_reads, &args->routing, (uint64_t)work->tokens * work->chosen,
                    work->experts);
    add_weights(&o, down_names, work, p->down, p->hidden, p->width);
    add_rows(&o, &args->rows);
    return rt_operands_check("rt_experts_down", &o, err);
}

/* ---- an MLP as one launch -------------------------------------------------------------------- */

static struct rt_strided vectors_of(const char *name, uint64_t address,
                                    const struct rt_moe_block_params *p, int64_t stride,
                                    const char *stride_name)
{
    return rt_strided_vectors(name, address, p->gate.norm.tokens, p->gate.norm.norm.width, stride,
                              bf16, stride_name);
}

/* Of hidden, where out is the same, it is out that counts; nobody goes a single token's stride. */
static void add_norm(struct rt_operands *o, const struct rt_moe_block_args *args,
                     const struct rt_moe_block_params *p)
{
    const struct rt_input_norm_params *norm = &p->gate.norm;
    const bool is_alike = norm->tokens == 1 || p->out_stride == norm->stride;
    const bool in_place = args->out == args->norm.hidden && is_alike;
    const bool is_residual = args->norm.first && args->norm.residual == args->norm.hidden;
    rt_operands_writes(o, vectors_of("normed", args->norm.normed, p, norm->stride, "norm.stride"));
    rt_operands_writes(o,
                       vectors_of("residual", args->norm.residual, p, norm->stride, "norm.stride"));
    rt_operands_writes(o, vectors_of("out", args->out, p, p->out_stride, "out_stride"));
    if (!in_place && !is_residual)
        rt_operands_reads(o,
                          vectors_of("hidden", args->norm.hidden, p, norm->stride, "norm.stride"));
    rt_operands_reads(
        o, rt_strided_flat("norm.weight", args->norm.norm.weight, norm->norm.width * bf16));
}

/* What gate has, without groups. */
static void add_choices(struct rt_operands *o, const struct rt_moe_block_args *args,
                        const struct rt_moe_block_params *p)
{
    const struct rt_route_params *r = &p->gate.route;
    const uint64_t pairs = (uint64_t)p->gate.norm.tokens * r->chosen;
    const struct rt_routing *routing = &args->route.routing;
    rt_operands_writes(o, rt_ops_route_logits(&args->route, r));
    rt_operands_writes(
        o, rt_strided_flat("routing.choices", routing->choices, pairs * sizeof(int32_t)));
    rt_operands_writes(o,
                       rt_strided_flat("routing.weights", routing->weights, pairs * sizeof(float)));
    rt_operands_reads(o, rt_strided_flat("bias", args->route.bias, r->experts * sizeof(float)));
    rt_operands_reads(o, rt_strided_vectors("router", args->router, r->experts,
                                            p->gate.norm.norm.width, p->gate.router_stride, bf16,
                                            "router_stride"));
}

enum rt_status rt_ops_moe_block_memory(const struct rt_moe_block_args *args,
                                       const struct rt_moe_block_params *p, struct rt_error *err)
{
    struct rt_operands o = {.count = 0};
    const struct rt_experts_view work = {.tokens = p->gate.norm.tokens,
                                         .experts = p->gate.route.experts,
                                         .chosen = p->gate.route.chosen,
                                         .shared = p->shared};
    const uint32_t hidden = p->gate.norm.norm.width;
    add_norm(&o, args, p);
    rt_operands_writes(&o, pairs_of(&work, &p->h, p->width, bf16));
    rt_operands_writes(&o, rt_strided_flat("exchange", args->exchange,
                                           rt_moe_block_exchange_bytes(work.tokens, work.experts)));
    if (work.experts > 0)
        add_choices(&o, args, p);
    add_weights(&o, gate_names, &work, p->expert, p->width, hidden);
    add_weights(&o, up_names, &work, p->expert_up, p->width, hidden);
    add_weights(&o, down_names, &work, p->expert_down, hidden, p->width);
    add_rows(&o, &args->route.rows);
    return rt_operands_check("rt_moe_block", &o, err);
}

/* ---- sample ---------------------------------------------------------------------------------- */

/* Slots are numbers that the device reads: where they are given, one line is known of. */
enum rt_status rt_ops_sample_memory(const struct rt_sample_args *args,
                                    const struct rt_sample_params *p, uint64_t workspace_bytes,
                                    struct rt_error *err)
{
    struct rt_operands o = {.count = 0};
    const uint64_t rows = p->rows.count, q_len = p->rows.q_len, words = rows * sizeof(int32_t);
    const uint64_t lines = args->rows.slots ? 1 : rows;
    rt_operands_writes(&o, rt_strided_flat("accepted", args->accepted, words));
    rt_operands_writes(&o, rt_strided_flat("sampled", args->sampled, words));
    rt_operands_writes(&o, rt_strided_flat("workspace", args->workspace, workspace_bytes));
    rt_operands_reads(&o, (struct rt_strided){.name = "logits",
                                              .address = args->logits,
                                              .bytes = p->vocab * sizeof(float),
                                              .count = {p->rows.count, p->rows.q_len},
                                              .stride = {(uint64_t)p->row_stride * sizeof(float),
                                                         (uint64_t)p->token_stride * sizeof(float)},
                                              .stride_name = {"row_stride", "token_stride"}});
    rt_operands_reads(&o, rt_strided_flat("accept", args->accept, words));
    rt_operands_reads(&o, rt_strided_flat("tokens", args->tokens, words * q_len));
    rt_operands_reads(&o,
                      rt_strided_flat("lines", args->lines, lines * sizeof(struct rt_sampling)));
    add_rows(&o, &args->rows);
    return rt_operands_check("rt_sample", &o, err);
}
