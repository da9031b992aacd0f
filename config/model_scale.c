/* SPDX-License-Identifier: Apache-2.0 */
#include "config/model_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define PATH_BYTES 96

enum rope_key { ROPE_TYPE = 0, TYPE, FACTOR, MSCALE_ALL_DIM, APPLY_YARN, ROPE_KEY_COUNT };

static const struct rt_pick keys[ROPE_KEY_COUNT] = {
    [ROPE_TYPE] = {"rope_type", RT_PICK_TEXT},
    [TYPE] = {"type", RT_PICK_TEXT}, /* the older spelling of rope_type */
    [FACTOR] = {"factor", RT_PICK_NUMBER},
    [MSCALE_ALL_DIM] = {"mscale_all_dim", RT_PICK_NUMBER},
    [APPLY_YARN] = {"apply_yarn_scaling", RT_PICK_BOOLEAN},
};

/* What has been said so far. */
struct saying {
    char path[PATH_BYTES]; /* "": nothing */
    double mscale;
};

/* `path` is of the mapping, without the text's prefix. */
static enum rt_status fail_rope(const struct rt_model_text *text, const char *path,
                                const struct rt_node *node, const char *key, const char *must,
                                struct rt_error *err)
{
    char name[PATH_BYTES + 32];
    (void)snprintf(name, sizeof(name), "%s.%s", path, key);
    return rt_model_fail(text, node, name, must, err);
}

static enum rt_status read_mscale(const struct rt_model_text *text, const char *path,
                                  const struct rt_node *const *given, double *out,
                                  struct rt_error *err)
{
    double dims = rt_pick_number(given[MSCALE_ALL_DIM]), factor = rt_pick_number(given[FACTOR]);
    const char *type = rt_pick_text(given[rt_pick_is_given(given[ROPE_TYPE]) ? ROPE_TYPE : TYPE]);
    bool is_yarn = strcmp(type, "yarn") == 0;
    *out = 1.0;
    if (dims == 0.0)
        return RT_OK;
    if (type[0] == '\0')
        return fail_rope(text, path, given[ROPE_TYPE], "rope_type",
                         "the kind of scaling that mscale_all_dim belongs to", err);
    if (strcmp(type, "default") == 0 || !rt_pick_boolean(given[APPLY_YARN], true) ||
        (text->family->mscale == RT_MSCALE_YARN && !is_yarn))
        return RT_OK;
    if (factor <= 0.0)
        return fail_rope(text, path, given[FACTOR], "factor", "a number above 0", err);
    if (factor > 1.0)
        *out = 0.1 * dims * log(factor) + 1.0;
    return RT_OK;
}

/* One mapping of rope settings, alone: whatever lies below it. */
static enum rt_status hear(const struct rt_model_text *text, const struct rt_node *rope,
                           const char *path, struct saying *said, struct rt_error *err)
{
    const struct rt_node *given[ROPE_KEY_COUNT];
    char full[PATH_BYTES + 32];
    double mscale = 1.0;
    bool says = false;
    (void)snprintf(full, sizeof(full), "%s%s.", text->prefix, path);
    RT_TRY(rt_pick(text->source, rope, full, keys, ROPE_KEY_COUNT, given, err));
    for (uint32_t i = 0; i < ROPE_KEY_COUNT; i++)
        says = says || rt_pick_is_given(given[i]);
    if (!says)
        return RT_OK;
    RT_TRY(read_mscale(text, path, given, &mscale, err));
    RT_REQUIRE(said->path[0] == '\0' || said->mscale == mscale, err, RT_ERR_CONFIG,
               "%s: %s%s gives the mscale %g and %s %g: must agree", text->source->name,
               text->prefix, said->path, said->mscale, path, mscale);
    (void)snprintf(said->path, sizeof(said->path), "%s", path);
    said->mscale = mscale;
    return RT_OK;
}

static bool is_latent(const struct rt_node *member)
{
    return strcmp(member->key, "full_attention") == 0 ||
           strcmp(member->key, "deepseek_sparse_attention") == 0;
}

/* A mapping of rope settings, or of such mappings by the kind of layer: then those of the layers
 * that have MLA, if they are named so, else all of them. */
static enum rt_status hear_all(const struct rt_model_text *text, const struct rt_node *rope,
                               struct saying *said, struct rt_error *err)
{
    char path[PATH_BYTES], shown[RT_NODE_SHOWN_BYTES];
    bool has_latent = false;
    RT_TRY(hear(text, rope, rope->key, said, err));
    for (const struct rt_node *n = rope->first; n; n = n->next)
        has_latent = has_latent || (n->kind == RT_NODE_MAPPING && is_latent(n));
    for (const struct rt_node *n = rope->first; n; n = n->next) {
        if (n->kind != RT_NODE_MAPPING || (has_latent && !is_latent(n)))
            continue;
        rt_text_show(n->key, n->key_bytes, shown);
        (void)snprintf(path, sizeof(path), "%s.%s", rope->key, shown);
        RT_TRY(hear(text, n, path, said, err));
    }
    return RT_OK;
}

enum rt_status rt_model_scale(const struct rt_model_text *text, uint32_t nope, uint32_t rope,
                              double *out, struct rt_error *err)
{
    static const enum rt_model_key places[] = {RT_MODEL_ROPE_PARAMETERS, RT_MODEL_ROPE_SCALING};
    struct saying said = {.mscale = 1.0};
    for (size_t i = 0; i < 2 && text->family->mscale != RT_MSCALE_NEVER; i++)
        if (rt_pick_is_given(text->given[places[i]]))
            RT_TRY(hear_all(text, text->given[places[i]], &said, err));
    *out = said.mscale * said.mscale / sqrt((double)nope + (double)rope);
    RT_REQUIRE(isfinite(*out) && *out > 0.0, err, RT_ERR_GEOMETRY,
               "%s: qk_nope_head_dim %u, qk_rope_head_dim %u and mscale %g give the softmax scale "
               "%g: must be above 0",
               text->source->name, nope, rope, said.mscale, *out);
    return RT_OK;
}
