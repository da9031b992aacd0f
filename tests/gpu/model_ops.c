/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Embedding, experts and sampling as stages of a step, which feed each other their tokens: the same
 * ones from replays and from eager steps, of stages that overlap and of those that do not.
 *
 *   step begin   embed ▸ norm              after attention   router ▸ route ▸ up ▸ down ▸ norm
 *   step end     LM head ▸ sample
 */
#include "replayrt/model_ops.h"
#include "common/bf16.h"
#include "replayrt/memory.h"
#include "tests/gpu/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HIDDEN 256u
#define WIDTH 64u
#define EXPERTS 8u
#define CHOSEN 2u
#define PLACES (CHOSEN + 1u) /* one is shared */
#define VOCAB 3000u
#define MOST_TOKENS 32u
#define SLOTS 24u
#define ROWS 20u /* more than the largest batch: two replays */
#define STEPS 6u

/* What lies in the stages' memory; the first ones are weights. */
enum part {
    TABLE,
    ROUTER,
    GATE,
    UP,
    DOWN,
    HEAD,
    NORM,
    WEIGHT_COUNT,
    LINES = WEIGHT_COUNT,
    DELTA,
    RESIDUAL,
    NORMED,
    ROUTER_LOGITS,
    H,
    LOGITS,
    CHOICES,
    WEIGHTS,
    OFFSETS,
    PAIRS,
    ACTIVE,
    COUNT,
    SCRATCH,
    PARTS
};

struct model {
    rt_ops *ops;
    rt_memory *memory;
    uint64_t at[PARTS + 1];
    /* By vectors, of every graph. */
    rt_product *router[MOST_TOKENS + 1], *head[MOST_TOKENS + 1];
    int32_t found[STEPS * ROWS]; /* sampled, by step and row */
};

/* Experts' weights have the shared one's behind them. */
static void place(struct model *m, uint64_t base, uint64_t scratch)
{
    const uint64_t bytes[PARTS] = {
        [TABLE] = 2 * VOCAB * HIDDEN,
        [ROUTER] = 2 * EXPERTS * HIDDEN,
        [GATE] = 2 * (EXPERTS + 1) * WIDTH * HIDDEN,
        [UP] = 2 * (EXPERTS + 1) * WIDTH * HIDDEN,
        [DOWN] = 2 * (EXPERTS + 1) * WIDTH * HIDDEN,
        [HEAD] = 2 * VOCAB * HIDDEN,
        [NORM] = 2 * HIDDEN,
        [LINES] = SLOTS * sizeof(struct rt_sampling),
        [DELTA] = 2 * MOST_TOKENS * HIDDEN,
        [RESIDUAL] = 2 * MOST_TOKENS * HIDDEN,
        [NORMED] = 2 * MOST_TOKENS * HIDDEN,
        [ROUTER_LOGITS] = 4 * MOST_TOKENS * EXPERTS,
        [H] = 2 * MOST_TOKENS * PLACES * WIDTH,
        [LOGITS] = 4 * MOST_TOKENS * VOCAB,
        [CHOICES] = 4 * MOST_TOKENS * CHOSEN,
        [WEIGHTS] = 4 * MOST_TOKENS * CHOSEN,
        [OFFSETS] = 4 * (EXPERTS + 1),
        [PAIRS] = 4 * MOST_TOKENS * CHOSEN,
        [ACTIVE] = 16 * EXPERTS,
        [COUNT] = 4,
        [SCRATCH] = scratch,
    };
    uint64_t end = base;
    for (int i = 0; i < PARTS; i++) {
        m->at[i] = end;
        end += (bytes[i] + 255) / 256 * 256;
    }
    m->at[PARTS] = end;
}

/* ---- stages ---------------------------------------------------------------------------------- */

static uint64_t tensor(const struct rt_stage_context *c, const char *name)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    return rt_tensor(c->runtime, name, c->layer, &t) == RT_OK ? t.address : 0;
}

static struct rt_token_rows rows_of(const struct rt_stage_context *c)
{
    return (struct rt_token_rows){.rows = c->batch,
                                  .query_len = c->query_len,
                                  .lengths = tensor(c, "lengths"),
                                  .slots = tensor(c, "slots"),
                                  .positions = tensor(c, "positions"),
                                  .row_base = tensor(c, "row_base")};
}

static enum rt_status norm(const struct model *m, const struct rt_stage_context *c, uint32_t first)
{
    const struct rt_mla_input_norm_args args = {.struct_size = sizeof(args),
                                                .tokens = c->batch * c->query_len,
                                                .hidden = m->at[DELTA],
                                                .residual = m->at[RESIDUAL],
                                                .normed = m->at[NORMED],
                                                .norm = {m->at[NORM], HIDDEN, 1e-5f, 0, 0},
                                                .first = first};
    return rt_mla_input_norm(m->ops, &args, c->stream);
}

static enum rt_status multiply(const struct model *m, const struct rt_stage_context *c,
                               rt_product *product, enum part weight, enum part y)
{
    const struct rt_product_args args = {
        .struct_size = sizeof(args), .x = m->at[NORMED], .y = m->at[y], .weights = {m->at[weight]}};
    return rt_product_run(product, &args, c->stream);
}

static int begin(void *user, const struct rt_stage_context *c)
{
    const struct model *m = user;
    const struct rt_embed_args args = {.struct_size = sizeof(args),
                                       .rows = rows_of(c),
                                       .table = m->at[TABLE],
                                       .tokens = tensor(c, "tokens"),
                                       .hidden = m->at[DELTA],
                                       .vocab = VOCAB,
                                       .width = HIDDEN,
                                       .scale = 4};
    return rt_embed(m->ops, &args, c->stream) != RT_OK || norm(m, c, 1) != RT_OK;
}

static struct rt_expert_weights weight_of(const struct model *m, enum part part, uint64_t first)
{
    return (struct rt_expert_weights){.address = m->at[part] + 2 * first * WIDTH * HIDDEN};
}

static enum rt_status run_experts(const struct model *m, const struct rt_stage_context *c,
                                  const struct rt_routing *routing)
{
    const struct rt_experts_shape shape = {.tokens = c->batch * c->query_len,
                                           .hidden = HIDDEN,
                                           .width = WIDTH,
                                           .experts = EXPERTS,
                                           .experts_per_token = CHOSEN,
                                           .shared = 1};
    const struct rt_experts_up_args up = {
        .struct_size = sizeof(up),
        .shape = shape,
        .routing = *routing,
        .x = m->at[NORMED],
        .h = m->at[H],
        .gate = {weight_of(m, GATE, 0), weight_of(m, GATE, EXPERTS)},
        .up = {weight_of(m, UP, 0), weight_of(m, UP, EXPERTS)}};
    const struct rt_experts_down_args down = {
        .struct_size = sizeof(down),
        .shape = shape,
        .rows = rows_of(c),
        .routing = *routing,
        .h = m->at[H],
        .out = m->at[DELTA],
        .down = {weight_of(m, DOWN, 0), weight_of(m, DOWN, EXPERTS)},
        .behind_up = 1};
    const enum rt_status status = rt_experts_up(m->ops, &up, c->stream);
    return status == RT_OK ? rt_experts_down(m->ops, &down, c->stream) : status;
}

static int mixture(void *user, const struct rt_stage_context *c)
{
    const struct model *m = user;
    const struct rt_routing routing = {m->at[CHOICES], m->at[WEIGHTS], m->at[OFFSETS],
                                       m->at[PAIRS],   m->at[ACTIVE],  m->at[COUNT]};
    const struct rt_route_args route = {.struct_size = sizeof(route),
                                        .experts = EXPERTS,
                                        .experts_per_token = CHOSEN,
                                        .scoring = RT_SCORING_SIGMOID,
                                        .normalise = 1,
                                        .rows = rows_of(c),
                                        .logits = m->at[ROUTER_LOGITS],
                                        .routing = routing};
    return multiply(m, c, m->router[c->batch * c->query_len], ROUTER, ROUTER_LOGITS) != RT_OK ||
           rt_route(m->ops, &route, c->stream) != RT_OK || run_experts(m, c, &routing) != RT_OK ||
           norm(m, c, 0) != RT_OK;
}

static int end(void *user, const struct rt_stage_context *c)
{
    const struct model *m = user;
    const struct rt_sample_args args = {.struct_size = sizeof(args),
                                        .vocab = VOCAB,
                                        .rows = rows_of(c),
                                        .logits = m->at[LOGITS],
                                        .accept = tensor(c, "accept"),
                                        .tokens = tensor(c, "tokens"),
                                        .accepted = tensor(c, "accepted"),
                                        .sampled = tensor(c, "sampled"),
                                        .lines = m->at[LINES],
                                        .workspace = m->at[SCRATCH]};
    return multiply(m, c, m->head[c->batch * c->query_len], HEAD, LOGITS) != RT_OK ||
           rt_sample(m->ops, &args, c->stream) != RT_OK;
}

/* ---- a model --------------------------------------------------------------------------------- */

static enum rt_status make_products(struct model *m, uint32_t vectors)
{
    struct rt_product_shape shape = {.struct_size = sizeof(shape),
                                     .batch = 1,
                                     .vectors = vectors,
                                     .k = HIDDEN,
                                     .weights = {{.rows = EXPERTS}},
                                     .output = RT_DTYPE_F32,
                                     .projections = RT_PROJECTIONS_OWN};
    if (m->router[vectors])
        return RT_OK;
    const enum rt_status status = rt_product_create(m->ops, &shape, &m->router[vectors]);
    shape.weights[0].rows = VOCAB;
    return status == RT_OK ? rt_product_create(m->ops, &shape, &m->head[vectors]) : status;
}

static enum rt_status write_numbers(struct model *m, struct rt_error *error)
{
    const uint64_t bytes = m->at[PARTS] - m->at[0], weights = m->at[WEIGHT_COUNT] - m->at[0];
    unsigned char *const memory = calloc(1, bytes);
    uint32_t random = 12345;
    if (!memory)
        return RT_ERR_NOMEM;
    for (uint64_t i = 0; i < weights / 2; i++) {
        random = random * 1664525u + 1013904223u;
        const float number = (float)(int32_t)random / 2147483648.0f;
        const bool is_norm = i >= (m->at[NORM] - m->at[0]) / 2;
        const uint16_t bits = rt_float_to_bf16(is_norm ? 1 : number / 8);
        memcpy(memory + 2 * i, &bits, sizeof(bits));
    }
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        struct rt_sampling line = {
            .temperature = slot % 2 ? 0.9f : 0, .top_p = 0.95f, .top_k = 40, .seed = slot};
        memset(line.stops, 0xff, sizeof(line.stops));
        memcpy(memory + (m->at[LINES] - m->at[0]) + slot * sizeof(line), &line, sizeof(line));
    }
    const enum rt_status status = rt_memory_write(m->memory, 0, memory, bytes, error);
    free(memory);
    return status;
}

static void destroy(struct model *m)
{
    for (uint32_t i = 0; i <= MOST_TOKENS; i++) {
        rt_product_destroy(&m->router[i]);
        rt_product_destroy(&m->head[i]);
    }
    rt_ops_destroy(&m->ops);
    rt_memory_destroy(&m->memory);
}

static enum rt_status make(struct model *m, const struct gpu_suite *suite, struct rt_error *error)
{
    static const uint32_t batches[] = {1, 4, 16};
    uint64_t scratch = 0, address = 0;
    enum rt_status status = rt_sample_workspace(16, 2, VOCAB, &scratch, error);
    if (status == RT_OK)
        status = rt_ops_create(suite->device, &m->ops, error);
    place(m, 0, scratch);
    if (status == RT_OK)
        status = rt_memory_create(suite->device, m->at[PARTS], &m->memory, &address, error);
    if (status != RT_OK)
        return status;
    place(m, address, scratch);
    for (uint32_t i = 0; i < 6 && status == RT_OK; i++)
        status = make_products(m, batches[i / 2] * (1 + i % 2));
    if (status != RT_OK)
        *error = *rt_ops_last_error(m->ops);
    return status == RT_OK ? write_numbers(m, error) : status;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* Steps of one and of two tokens: only the first is told which, the others take what was chosen. */
static enum rt_status step(rt_runtime *rt, const rt_seq *seqs, uint32_t n, uint32_t flags,
                           int32_t *found)
{
    struct rt_row_result results[ROWS] = {{0, 0}};
    int32_t tokens[ROWS * 2], accept[ROWS];
    uint32_t count = 0;
    uint64_t ticket = 0;
    for (uint32_t i = 0; i < ROWS * 2; i++)
        tokens[i] = (int32_t)((i * 37 + 5) % VOCAB);
    for (uint32_t i = 0; i < ROWS; i++)
        accept[i] = 1; /* nobody drafts: a second token is none */
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .flags = flags,
                                     .rows = n % 3 == 2 ? 3 : ROWS,
                                     .query_len = 1 + n % 2,
                                     .seqs = seqs,
                                     .tokens = n == 0 ? tokens : NULL,
                                     .accept = accept};
    enum rt_status status = rt_step(rt, &p, &ticket);
    if (status == RT_OK)
        status = rt_wait(rt, ticket, UINT64_MAX);
    if (status == RT_OK)
        status = rt_result(rt, ticket, results, ROWS, &count);
    for (uint32_t i = 0; i < count; i++)
        found[i] = results[i].sampled;
    return status;
}

static enum gpu_outcome run(const struct gpu_suite *suite, struct model *m, uint32_t overlap,
                            uint32_t flags)
{
    struct rt_config config;
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    rt_seq seqs[ROWS];
    gpu_config(suite, &config);
    const struct rt_memory_region region = {m->at[0], m->at[PARTS] - m->at[0]};
    const struct rt_create_params params = {.struct_size = sizeof(params),
                                            .flags = RT_CREATE_NO_EMPTY_STAGES,
                                            .config = &config,
                                            .stages = {[RT_STAGE_STEP_BEGIN] = begin,
                                                       [RT_STAGE_AFTER_ATTENTION] = mixture,
                                                       [RT_STAGE_STEP_END] = end},
                                            .stage_user = m,
                                            .regions = &region,
                                            .region_count = 1,
                                            .overlapped_stages =
                                                overlap ? (1u << RT_STAGE_POINT_COUNT) - 1 : 0};
    memset(m->found, 0xff, sizeof(m->found));
    enum rt_status status = rt_ops_overlap(m->ops, overlap);
    if (status != RT_OK || rt_create(&params, &rt, &error) != RT_OK)
        return gpu_fail("rt_create: %s; %s", error.message, rt_ops_last_error(m->ops)->message);
    for (uint32_t i = 0; i < ROWS && status == RT_OK; i++)
        status = rt_seq_open(rt, NULL, &seqs[i]);
    for (uint32_t n = 0; n < STEPS && status == RT_OK; n++)
        status = step(rt, seqs, n, flags, m->found + n * ROWS);
    if (status != RT_OK)
        (void)gpu_fail("%s; %s", rt_last_error(rt)->message, rt_ops_last_error(m->ops)->message);
    rt_destroy(&rt);
    return status == RT_OK ? GPU_PASSED : GPU_FAILED;
}

static enum gpu_outcome compare(const struct gpu_suite *suite, struct model *m)
{
    int32_t truth[STEPS * ROWS];
    for (uint32_t way = 0; way < 4; way++) {
        const uint32_t overlap = way / 2, eager = way % 2 ? RT_STEP_EAGER : 0;
        if (run(suite, m, overlap, eager) != GPU_PASSED)
            return GPU_FAILED;
        if (way == 0)
            memcpy(truth, m->found, sizeof(truth));
        for (uint32_t i = 0; i < STEPS * ROWS; i++)
            if (m->found[i] != truth[i])
                return gpu_fail("step %u, row %u: %s steps %s overlap chose %d, not %d", i / ROWS,
                                i % ROWS, eager ? "eager" : "replayed",
                                overlap ? "with" : "without", m->found[i], truth[i]);
    }
    for (uint32_t row = 0; row < ROWS; row++)
        if (truth[row] < 0 || truth[row] >= (int32_t)VOCAB)
            return gpu_fail("row %u chose %d of %u", row, truth[row], VOCAB);
    return GPU_PASSED;
}

enum gpu_outcome gpu_model_ops(const struct gpu_suite *suite)
{
    struct model *m = calloc(1, sizeof(*m));
    struct rt_error error = {0};
    if (!m)
        return gpu_fail("no memory");
    const enum gpu_outcome outcome =
        make(m, suite, &error) == RT_OK ? compare(suite, m) : gpu_fail("%s", error.message);
    destroy(m);
    free(m);
    return outcome;
}
