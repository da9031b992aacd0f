/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kv_format.h"
#include "common/math.h"
#include "common/struct_size.h"
#include "config/chunk_form.h"
#include "config/config.h"
#include "config/geometry.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

void rt_config_default(struct rt_config *config)
{
    if (!config)
        return;
    *config = (struct rt_config){.struct_size = sizeof(*config)};
    for (uint32_t id = 0; id < RT_KEY_COUNT; id++)
        if (rt_key_of((enum rt_key_id)id)->field)
            rt_key_reset((enum rt_key_id)id, config);
}

/* ---- what each field cannot know by itself; all are in range here ---------------------------- */

/* Kernels take it as a float, where 1e300 is infinite and 1e-60 is 0. */
static bool check_float(enum rt_key_id id, double scale, struct rt_key_fault *fault)
{
    char must[64];
    if (scale >= (double)FLT_MIN && scale <= (double)FLT_MAX)
        return true;
    (void)snprintf(must, sizeof(must), "from %.3g to %.3g, as a float", (double)FLT_MIN,
                   (double)FLT_MAX);
    (void)snprintf(fault->value, sizeof(fault->value), "%g", scale);
    return rt_key_blame(fault, id, must);
}

static bool check_geometry(const struct rt_geometry *g, struct rt_key_fault *fault)
{
    if (rt_geometry_is_served(g->kv_lora_rank, g->qk_rope_head_dim))
        return true;
    (void)snprintf(fault->value, sizeof(fault->value),
                   "%u with qk_rope_head_dim %u, d_qk/d_v %llu/%u", g->kv_lora_rank,
                   g->qk_rope_head_dim, (unsigned long long)g->kv_lora_rank + g->qk_rope_head_dim,
                   g->kv_lora_rank);
    return rt_key_blame(fault, RT_KEY_RANK, "so that they give " RT_SERVED_GEOMETRIES);
}

static bool check_lengths(const struct rt_config *c, struct rt_key_fault *fault)
{
    char must[160];
    uint32_t query_len = c->query_lens[c->query_len_count - 1];
    (void)snprintf(fault->value, sizeof(fault->value), "%u", c->max_length);
    if (c->max_length < query_len) {
        (void)snprintf(must, sizeof(must), "at least %u, the longest query length", query_len);
        return rt_key_blame(fault, RT_KEY_MAX_LENGTH, must);
    }
    const uint32_t page_tokens = c->page_size * c->context_parallel;
    uint64_t blocks = rt_ceil_div_u32(c->max_length, page_tokens);
    if (blocks * c->max_sequences > INT32_MAX) {
        (void)snprintf(must, sizeof(must),
                       "at most %llu with %u sequences and pages of %u tokens: the page table "
                       "has at most 2147483647 entries",
                       (unsigned long long)(INT32_MAX / c->max_sequences) * page_tokens,
                       c->max_sequences, page_tokens);
        return rt_key_blame(fault, RT_KEY_MAX_LENGTH, must);
    }
    return true;
}

/* ---- the block ------------------------------------------------------------------------------- */

static bool blame_number(struct rt_key_fault *fault, enum rt_key_id id, double value,
                         const char *must)
{
    (void)snprintf(fault->value, sizeof(fault->value), "%g", value);
    return rt_key_blame(fault, id, must);
}

static bool check_dimensions(const struct rt_block *b, struct rt_key_fault *fault)
{
    const struct {
        enum rt_key_id id;
        uint32_t value, least;
    } dims[] = {{RT_KEY_HIDDEN_SIZE, b->hidden_size, 8},
                {RT_KEY_Q_LORA_RANK, b->q_lora_rank, 0},
                {RT_KEY_NOPE_DIM, b->qk_nope_head_dim, 8},
                {RT_KEY_V_DIM, b->v_head_dim, 8}};
    for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++)
        if (dims[i].value < dims[i].least || dims[i].value % 8 != 0)
            return blame_number(fault, dims[i].id, dims[i].value, NULL);
    return true;
}

/* The logarithm of a number of lengths is below 32, and a query's factor is a float. */
static bool check_query_scale(double beta, struct rt_key_fault *fault)
{
    const double most = (double)FLT_MAX / 32;
    char must[64];
    if (beta <= most)
        return true;
    (void)snprintf(must, sizeof(must), "at most %.3g: what q is multiplied by is a float", most);
    (void)snprintf(fault->value, sizeof(fault->value), "%g", beta);
    return rt_key_blame(fault, RT_KEY_ROPE_QUERY_SCALE, must);
}

static bool check_floats(const struct rt_block *b, struct rt_key_fault *fault)
{
    const struct {
        enum rt_key_id id;
        double value;
    } floats[] = {{RT_KEY_NORM_EPS, b->norm_eps},
                  {RT_KEY_INPUT_NORM_EPS, b->input_norm_eps},
                  {RT_KEY_Q_A_SCALE, b->q_a_scale},
                  {RT_KEY_KV_A_SCALE, b->kv_a_scale},
                  {RT_KEY_RESIDUAL_SCALE, b->residual_scale},
                  {RT_KEY_ROPE_THETA, b->rope.theta}};
    for (size_t i = 0; i < sizeof(floats) / sizeof(floats[0]); i++)
        if (!check_float(floats[i].id, floats[i].value, fault))
            return false;
    return (b->rope.attention_factor == 0.0 ||
            check_float(RT_KEY_ROPE_ATTENTION, b->rope.attention_factor, fault)) &&
           (b->rope.factor == 0.0 || check_float(RT_KEY_ROPE_FACTOR, b->rope.factor, fault)) &&
           check_query_scale(b->rope.query_scale_beta, fault);
}

static bool check_factors(enum rt_key_id id, const double *factors, uint32_t pairs,
                          struct rt_key_fault *fault)
{
    char must[80];
    uint32_t count = 0;
    while (count < RT_MAX_ROPE_PAIRS && factors[count] > 0.0)
        count++;
    for (uint32_t i = 0; i < count; i++)
        if (!check_float(id, factors[i], fault))
            return false;
    if (count == pairs)
        return true;
    (void)snprintf(fault->value, sizeof(fault->value), "a list of %u", count);
    (void)snprintf(must, sizeof(must), "a list of %u, half of qk_rope_head_dim", pairs);
    return rt_key_blame(fault, id, must);
}

static bool check_rope(const struct rt_rope *r, uint32_t rope_dim, struct rt_key_fault *fault)
{
    const bool yarn = r->type == RT_ROPE_YARN, longrope = r->type == RT_ROPE_LONGROPE;
    if (yarn && r->factor == 0.0)
        return blame_number(fault, RT_KEY_ROPE_FACTOR, 0, "a number above 0, for yarn");
    if ((yarn || longrope || r->query_scale_beta > 0.0) && r->original_max_length == 0)
        return blame_number(fault, RT_KEY_ROPE_LENGTH, 0,
                            "at least 1, for yarn, longrope and query_scale_beta");
    return !longrope || (check_factors(RT_KEY_ROPE_SHORT, r->short_factor, rope_dim / 2, fault) &&
                         check_factors(RT_KEY_ROPE_LONG, r->long_factor, rope_dim / 2, fault));
}

static bool check_block(const struct rt_config *c, struct rt_key_fault *fault)
{
    if (c->precision == RT_PRECISION_F32 && strncmp(c->device, "cuda", 4) == 0) {
        (void)snprintf(fault->value, sizeof(fault->value), "f32 with device %s", c->device);
        return rt_key_blame(fault, RT_KEY_PRECISION, "bf16 there: f32 is the host device's alone");
    }
    if (!c->layer && c->split_blocks)
        return blame_number(fault, RT_KEY_SPLIT_BLOCKS, 1, "false without layer");
    if (!c->layer)
        return !c->input_norm || blame_number(fault, RT_KEY_INPUT_NORM, 1, "false without layer");
    if (c->tensors == RT_TENSORS_PER_LAYER)
        return blame_number(fault, RT_KEY_TENSORS, c->tensors,
                            "shared with layer, whose data one layer hands to the next");
    return check_dimensions(&c->block, fault) &&
           check_rope(&c->block.rope, c->geometry.qk_rope_head_dim, fault);
}

/* ---- prompts --------------------------------------------------------------------------------- */

/* What says how prompts go in says nothing where none do. */
static bool check_no_chunks(const struct rt_config *c, struct rt_key_fault *fault)
{
    const struct {
        enum rt_key_id id;
        uint32_t value;
    } idle[] = {{RT_KEY_PREFILL_ROWS, c->prefill_rows},
                {RT_KEY_MIXED_ROWS, c->mixed_row_count ? c->mixed_rows[0] : 0},
                {RT_KEY_CONTEXT_PIECE, c->context_piece}};
    for (size_t i = 0; i < sizeof(idle) / sizeof(idle[0]); i++)
        if (idle[i].value)
            return blame_number(fault, idle[i].id, idle[i].value,
                                "absent without prefill.chunks, whose prompts it is about");
    return true;
}

static bool check_mixed_rows(const struct rt_config *c, struct rt_key_fault *fault)
{
    char must[96];
    if (c->mixed_row_count == 0 || c->mixed_rows[c->mixed_row_count - 1] <= c->max_sequences)
        return true;
    fault->element = (int32_t)c->mixed_row_count - 1;
    (void)snprintf(must, sizeof(must), "at most %u, for so many sequences are there at once",
                   c->max_sequences);
    return blame_number(fault, RT_KEY_MIXED_ROWS, c->mixed_rows[c->mixed_row_count - 1], must);
}

/* Absorbed, every token of a chunk is a row of the schedule; expanded, context comes in pieces. */
static bool check_form(const struct rt_config *c, uint32_t i, struct rt_key_fault *fault)
{
    struct rt_chunk_form form;
    char must[240];
    rt_chunk_form_choose(c, c->chunks[i], &form);
    if (form.absorbed && c->chunks[i] > RT_MAX_BATCH) {
        fault->element = (int32_t)i;
        (void)snprintf(must, sizeof(must), "at most %d, which absorbed attention takes (%s)",
                       RT_MAX_BATCH, form.reason);
        return blame_number(fault, RT_KEY_CHUNKS, c->chunks[i], must);
    }
    if (form.pieces <= RT_MAX_CONTEXT_PIECES)
        return true;
    (void)snprintf(must, sizeof(must), "at least %u, for max_length %u comes in %d pieces at most",
                   rt_ceil_div_u32(c->max_length, RT_MAX_CONTEXT_PIECES), c->max_length,
                   RT_MAX_CONTEXT_PIECES);
    return blame_number(fault, RT_KEY_CONTEXT_PIECE, c->context_piece, must);
}

static bool check_chunks(const struct rt_config *c, struct rt_key_fault *fault)
{
    if (c->chunk_count == 0)
        return check_no_chunks(c, fault);
    for (uint32_t i = 0; i < c->chunk_count; i++)
        if (!check_form(c, i, fault))
            return false;
    return check_mixed_rows(c, fault);
}

/* ---- the cache's layout ---------------------------------------------------------------------- */

static bool blame_layout(const struct rt_config *c, struct rt_key_fault *fault, const char *must)
{
    (void)snprintf(fault->value, sizeof(fault->value), "%s", rt_kv_layout_name(c->kv_layout));
    return rt_key_blame(fault, RT_KEY_LAYOUT, must);
}

static bool check_layout(const struct rt_config *c, struct rt_key_fault *fault)
{
    const struct rt_geometry *g = &c->geometry;
    const uint32_t d_v = g->kv_lora_rank, d_qk = d_v + g->qk_rope_head_dim;
    struct rt_kv_format format;
    char must[96];
    if (c->kv_layout != RT_KV_FP8_TENSOR && c->kv_scale != 1.0)
        return blame_number(fault, RT_KEY_KV_SCALE, c->kv_scale,
                            "absent, or 1: of layouts fp8_tensor alone has one");
    if (!check_float(RT_KEY_KV_SCALE, c->kv_scale, fault))
        return false;
    if (c->kv_layout == RT_KV_BF16)
        return true;
    if (c->precision == RT_PRECISION_F32)
        return blame_layout(c, fault, "bf16 with precision f32");
    if (rt_kv_format_make(c->kv_layout, c->precision, d_qk, d_v, &format))
        return true;
    (void)snprintf(must, sizeof(must), "one that d_qk/d_v %u/%u has (docs/kv_formats.md)", d_qk,
                   d_v);
    return blame_layout(c, fault, must);
}

/* ---- lists --------------------------------------------------------------------------------- */

/* Rows of sparse attention's schedule are query tokens. */
static bool check_sparse(const struct rt_config *c, struct rt_key_fault *fault)
{
    char must[96];
    const uint32_t longest = c->query_lens[c->query_len_count - 1];
    const uint32_t most = RT_MAX_BATCH / longest;
    if (c->invariant && (c->topk || c->kv_layout != RT_KV_BF16))
        return blame_number(fault, RT_KEY_INVARIANT, 1,
                            "false with attention.topk and with kv_cache.layout other than bf16");
    if (!c->topk)
        return true;
    if (c->context_parallel > 1)
        return blame_number(fault, RT_KEY_TOPK, c->topk, "absent with context_parallel above 1");
    if (!rt_geometry_is_sparse(c->geometry.kv_lora_rank))
        return blame_number(fault, RT_KEY_TOPK, c->topk, "absent but with " RT_SPARSE_GEOMETRIES);
    (void)snprintf(must, sizeof(must), "at most %u with attention.topk and query length %u", most,
                   longest);
    if (c->mixed_row_count && c->mixed_rows[c->mixed_row_count - 1] > most) {
        fault->element = (int32_t)c->mixed_row_count - 1;
        return blame_number(fault, RT_KEY_MIXED_ROWS, c->mixed_rows[c->mixed_row_count - 1], must);
    }
    if (c->batch_sizes[c->batch_size_count - 1] <= most)
        return true;
    fault->element = (int32_t)c->batch_size_count - 1;
    return blame_number(fault, RT_KEY_BATCH_SIZES, c->batch_sizes[c->batch_size_count - 1], must);
}

/* ---- a context over ranks -------------------------------------------------------------------- */

/* Rows of its schedule are query tokens, and a rank's heads are shared out behind attention. */
static bool check_context(const struct rt_config *c, struct rt_key_fault *fault)
{
    char must[96];
    const uint32_t ranks = c->context_parallel;
    const uint32_t longest = c->query_lens[c->query_len_count - 1];
    const uint32_t most = RT_MAX_BATCH / longest;
    if (ranks == 1)
        return true;
    if (!c->layer || c->sinks)
        return blame_number(fault, RT_KEY_CONTEXT_PARALLEL, ranks,
                            "1 without layer and with attention.sinks");
    if (c->geometry.heads % ranks != 0) {
        (void)snprintf(must, sizeof(must), "a divisor of the %u heads", c->geometry.heads);
        return blame_number(fault, RT_KEY_CONTEXT_PARALLEL, ranks, must);
    }
    if (c->batch_sizes[c->batch_size_count - 1] <= most)
        return true;
    fault->element = (int32_t)c->batch_size_count - 1;
    (void)snprintf(must, sizeof(must), "at most %u with context_parallel and query length %u", most,
                   longest);
    return blame_number(fault, RT_KEY_BATCH_SIZES, c->batch_sizes[c->batch_size_count - 1], must);
}

bool rt_config_is_good(const struct rt_config *config, struct rt_key_fault *fault)
{
    for (uint32_t id = 0; id < RT_KEY_COUNT; id++)
        if (rt_key_of((enum rt_key_id)id)->field &&
            !rt_key_check((enum rt_key_id)id, config, fault))
            return false;
    fault->element = -1;
    return check_float(RT_KEY_SOFTMAX_SCALE, config->geometry.softmax_scale, fault) &&
           check_geometry(&config->geometry, fault) && check_lengths(config, fault) &&
           check_floats(&config->block, fault) && check_block(config, fault) &&
           check_chunks(config, fault) && check_layout(config, fault) &&
           check_sparse(config, fault) && check_context(config, fault);
}

enum rt_status rt_config_take(const struct rt_config *given, struct rt_config *out,
                              struct rt_error *err)
{
    struct rt_key_fault fault = {.element = -1};
    char element[16] = "";
    RT_TRY(rt_struct_check(given, sizeof(*out), "rt_config_check", "config", err));
    rt_config_default(out);
    memcpy(out, given, rt_min_u32(given->struct_size, sizeof(*out)));
    out->struct_size = sizeof(*out);
    RT_REQUIRE(out->block.reserved == 0, err, RT_ERR_CONFIG, "block.reserved is %u: must be 0",
               out->block.reserved);
    if (rt_config_is_good(out, &fault))
        return RT_OK;
    if (fault.element >= 0)
        (void)snprintf(element, sizeof(element), "[%d]", fault.element);
    return rt_fail(err, fault.status, "%s%s is %s: must be %s", rt_key_of(fault.id)->field, element,
                   fault.value, fault.must);
}

enum rt_status rt_config_check(const struct rt_config *config, struct rt_error *error)
{
    struct rt_config whole;
    return rt_config_take(config, &whole, error);
}
