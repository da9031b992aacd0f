/* SPDX-License-Identifier: Apache-2.0 */
/* RoPE as a config.json has it: modeling_rope_utils.py of Hugging Face transformers says what each
 * key means. */
#include "config/model_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum rope_key {
    ROPE_TYPE = 0,
    TYPE,
    THETA,
    FACTOR,
    ORIGINAL,
    BETA_FAST,
    BETA_SLOW,
    TRUNCATE,
    MSCALE,
    MSCALE_ALL_DIM,
    ATTENTION_FACTOR,
    SHORT_FACTOR,
    LONG_FACTOR,
    QUERY_SCALE_BETA,
    APPLY_YARN,
    ROPE_KEY_COUNT
};

static const struct rt_pick keys[ROPE_KEY_COUNT] = {
    [ROPE_TYPE] = {"rope_type", RT_PICK_TEXT},
    [TYPE] = {"type", RT_PICK_TEXT},
    [THETA] = {"rope_theta", RT_PICK_NUMBER},
    [FACTOR] = {"factor", RT_PICK_NUMBER},
    [ORIGINAL] = {"original_max_position_embeddings", RT_PICK_COUNT},
    [BETA_FAST] = {"beta_fast", RT_PICK_NUMBER},
    [BETA_SLOW] = {"beta_slow", RT_PICK_NUMBER},
    [TRUNCATE] = {"truncate", RT_PICK_BOOLEAN},
    [MSCALE] = {"mscale", RT_PICK_NUMBER},
    [MSCALE_ALL_DIM] = {"mscale_all_dim", RT_PICK_NUMBER},
    [ATTENTION_FACTOR] = {"attention_factor", RT_PICK_NUMBER},
    [SHORT_FACTOR] = {"short_factor", RT_PICK_NUMBERS},
    [LONG_FACTOR] = {"long_factor", RT_PICK_NUMBERS},
    [QUERY_SCALE_BETA] = {"llama_4_scaling_beta", RT_PICK_NUMBER},
    [APPLY_YARN] = {"apply_yarn_scaling", RT_PICK_BOOLEAN},
};

/* What the file says of it, whichever of its mappings has it. */
struct heard {
    const struct rt_model_text *text;
    const char *path; /* of the mapping that said last, for messages */
    const struct rt_node *given[ROPE_KEY_COUNT];
};

static enum rt_status hear(struct heard *h, const struct rt_node *rope, struct rt_error *err)
{
    const struct rt_node *here[ROPE_KEY_COUNT];
    char path[96];
    (void)snprintf(path, sizeof(path), "%s%s.", h->text->prefix, rope->key);
    RT_TRY(rt_pick(h->text->source, rope, path, keys, ROPE_KEY_COUNT, here, err));
    for (uint32_t i = 0; i < ROPE_KEY_COUNT; i++) {
        if (!rt_pick_is_given(here[i]))
            continue;
        h->given[i] = here[i];
        h->path = rope->key;
    }
    return RT_OK;
}

/* A mapping of rope settings; below it there may be one for each kind of layer, and those of the
 * layers that have MLA say more. */
static enum rt_status hear_all(struct heard *h, const struct rt_node *rope, struct rt_error *err)
{
    if (!rt_pick_is_given(rope))
        return RT_OK;
    RT_TRY(hear(h, rope, err));
    for (const struct rt_node *n = rope->first; n; n = n->next)
        if (n->kind == RT_NODE_MAPPING && (strcmp(n->key, "full_attention") == 0 ||
                                           strcmp(n->key, "deepseek_sparse_attention") == 0))
            RT_TRY(hear(h, n, err));
    return RT_OK;
}

static enum rt_status fail_key(const struct heard *h, enum rope_key key, const char *must,
                               struct rt_error *err)
{
    char name[128];
    (void)snprintf(name, sizeof(name), "%s.%s", h->path, keys[key].key);
    return rt_model_fail(h->text, h->given[key], name, must, err);
}

static double number_or(const struct heard *h, enum rope_key key, double otherwise)
{
    return rt_pick_is_given(h->given[key]) ? rt_pick_number(h->given[key]) : otherwise;
}

/* 0.1 m ln(s) + 1 */
static double mscale_of(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

static enum rt_status read_factor(const struct heard *h, struct rt_rope *out, struct rt_error *err)
{
    out->factor = number_or(h, FACTOR, 0.0);
    return out->factor > 0.0 ? RT_OK : fail_key(h, FACTOR, "a number above 0", err);
}

static enum rt_status read_yarn(const struct heard *h, struct rt_rope *out, struct rt_error *err)
{
    const double mscale = number_or(h, MSCALE, 0.0), all = number_or(h, MSCALE_ALL_DIM, 0.0);
    RT_TRY(read_factor(h, out, err));
    const double factor = mscale != 0.0 && all != 0.0
                              ? mscale_of(out->factor, mscale) / mscale_of(out->factor, all)
                              : mscale_of(out->factor, 1.0);
    out->attention_factor = number_or(h, ATTENTION_FACTOR, factor);
    out->beta_fast = number_or(h, BETA_FAST, 32.0);
    out->beta_slow = number_or(h, BETA_SLOW, 1.0);
    out->truncate = rt_pick_boolean(h->given[TRUNCATE], true);
    return RT_OK;
}

static enum rt_status read_factors(const struct heard *h, enum rope_key key, uint32_t pairs,
                                   double *out, struct rt_error *err)
{
    char must[64];
    const struct rt_node *list = h->given[key];
    (void)snprintf(must, sizeof(must), "a list of %u numbers above 0", pairs);
    if (!list || list->count != pairs)
        return fail_key(h, key, must, err);
    uint32_t i = 0;
    for (const struct rt_node *n = list->first; n; n = n->next, i++) {
        out[i] = rt_pick_number(n);
        if (!(out[i] > 0.0))
            return fail_key(h, key, must, err);
    }
    return RT_OK;
}

static enum rt_status read_longrope(const struct heard *h, uint32_t pairs, struct rt_rope *out,
                                    struct rt_error *err)
{
    const double most = rt_pick_count(h->text->given[RT_MODEL_MAX_POSITIONS]);
    const double original = out->original_max_length;
    const double factor = number_or(h, FACTOR, original > 0.0 ? most / original : 1.0);
    RT_TRY(read_factors(h, SHORT_FACTOR, pairs, out->short_factor, err));
    RT_TRY(read_factors(h, LONG_FACTOR, pairs, out->long_factor, err));
    const double grown = factor > 1.0 ? sqrt(1.0 + log(factor) / log(original)) : 1.0;
    out->attention_factor = number_or(h, ATTENTION_FACTOR, grown);
    return RT_OK;
}

static enum rt_status read_type(const struct heard *h, uint32_t rope_dim, struct rt_rope *out,
                                struct rt_error *err)
{
    const enum rope_key key = h->given[ROPE_TYPE] ? ROPE_TYPE : TYPE;
    const char *type = rt_pick_text(h->given[key]);
    if (rt_pick_boolean(h->text->given[RT_MODEL_NO_ROPE], false) || rope_dim == 0) {
        out->type = RT_ROPE_NONE;
        return RT_OK;
    }
    if (strcmp(type, "yarn") == 0 || strcmp(type, "deepseek_yarn") == 0) {
        out->type = rt_pick_boolean(h->given[APPLY_YARN], true) ? RT_ROPE_YARN : RT_ROPE_DEFAULT;
        return out->type == RT_ROPE_YARN ? read_yarn(h, out, err) : RT_OK;
    }
    if (strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0) {
        out->type = RT_ROPE_LONGROPE;
        return read_longrope(h, rope_dim / 2, out, err);
    }
    return type[0] == '\0' || strcmp(type, "default") == 0
               ? RT_OK
               : fail_key(h, key, "default, yarn, deepseek_yarn or longrope", err);
}

static enum rt_rope_order order_of(const struct rt_model_text *text)
{
    const bool interleaved =
        rt_pick_boolean(text->given[RT_MODEL_ROPE_INTERLEAVE], !text->family->is_half);
    return interleaved ? RT_ROPE_INTERLEAVED : RT_ROPE_HALF;
}

enum rt_status rt_model_rope(const struct rt_model_text *text, uint32_t rope_dim,
                             struct rt_rope *out, struct rt_error *err)
{
    struct heard h = {.text = text, .path = "rope_parameters"};
    RT_TRY(hear_all(&h, text->given[RT_MODEL_ROPE_SCALING], err));
    RT_TRY(hear_all(&h, text->given[RT_MODEL_ROPE_PARAMETERS], err));
    const struct rt_node *theta = text->given[RT_MODEL_ROPE_THETA];
    const struct rt_node *original =
        h.given[ORIGINAL] ? h.given[ORIGINAL] : text->given[RT_MODEL_MAX_POSITIONS];
    *out = (struct rt_rope){
        .order = order_of(text),
        .theta = number_or(&h, THETA, rt_pick_is_given(theta) ? rt_pick_number(theta) : 10000.0),
        .original_max_length = rt_pick_count(original),
        .truncate = 1,
        .beta_fast = 32.0,
        .beta_slow = 1.0,
        .attention_factor = 1.0,
        .query_scale_beta = number_or(&h, QUERY_SCALE_BETA, 0.0),
    };
    return read_type(&h, rope_dim, out, err);
}
