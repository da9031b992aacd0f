/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/mla_model.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#define MAX_DIMENSION 1048576

/* Where the keys are read from, and what is said when one is wrong. */
struct reader {
    const cJSON *object;
    const char *label;
    struct rt_error *error;
};

static enum rt_status read_number(const struct reader *reader, const char *key, double *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(reader->object, key);
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
        return rt_error_set(reader->error, RT_ERR_CONFIG, "%s: %s is missing or not a number",
                            reader->label, key);
    *out = item->valuedouble;
    return RT_OK;
}

/* A number that may be missing or null. */
static double number_or(const cJSON *object, const char *key, double fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) && isfinite(item->valuedouble) ? item->valuedouble : fallback;
}

static enum rt_status read_dimension(const struct reader *reader, const char *key, uint32_t *out)
{
    double value = 0.0;
    const enum rt_status status = read_number(reader, key, &value);
    if (status != RT_OK)
        return status;
    if (value < 1 || value > MAX_DIMENSION || value != floor(value))
        return rt_error_set(reader->error, RT_ERR_CONFIG,
                            "%s: %s is %g, not a whole number in 1..%d", reader->label, key, value,
                            MAX_DIMENSION);
    *out = (uint32_t)value;
    return RT_OK;
}

static double mscale(double factor, double weight)
{
    return factor <= 1.0 ? 1.0 : 0.1 * weight * log(factor) + 1.0;
}

static enum rt_status read_yarn(const struct reader *reader, struct mla_rope *rope)
{
    enum rt_status status = read_number(reader, "factor", &rope->factor);
    if (status == RT_OK)
        status = read_number(reader, "original_max_position_embeddings", &rope->original);
    if (status != RT_OK)
        return status;
    const cJSON *object = reader->object;
    rope->beta_fast = number_or(object, "beta_fast", 32.0);
    rope->beta_slow = number_or(object, "beta_slow", 1.0);
    if (rope->factor < 1.0 || rope->original < 1.0 || rope->beta_fast <= 0.0 ||
        rope->beta_slow <= 0.0)
        return rt_error_set(reader->error, RT_ERR_CONFIG,
                            "%s: YaRN with factor %g, %g original positions, beta_fast %g and "
                            "beta_slow %g is impossible",
                            reader->label, rope->factor, rope->original, rope->beta_fast,
                            rope->beta_slow);
    rope->truncate = !cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(object, "truncate"));
    const double weight = number_or(object, "mscale", 0.0);
    const double weight_all = number_or(object, "mscale_all_dim", 0.0);
    const double fallback = weight != 0.0 && weight_all != 0.0
                                ? mscale(rope->factor, weight) / mscale(rope->factor, weight_all)
                                : mscale(rope->factor, 1.0);
    rope->attention_factor = number_or(object, "attention_factor", fallback);
    rope->query_beta = number_or(object, "llama_4_scaling_beta", 0.0);
    return RT_OK;
}

/* Current configurations have rope_parameters with everything, older ones rope_theta and, where the
 * context was stretched, rope_scaling. */
static enum rt_status read_rope(const struct reader *reader, struct mla_rope *rope)
{
    *rope = (struct mla_rope){.attention_factor = 1.0};
    const cJSON *interleave = cJSON_GetObjectItemCaseSensitive(reader->object, "rope_interleave");
    rope->interleave = !cJSON_IsFalse(interleave);

    struct reader inner = *reader;
    inner.object = cJSON_GetObjectItemCaseSensitive(reader->object, "rope_parameters");
    if (!cJSON_IsObject(inner.object))
        inner.object = cJSON_GetObjectItemCaseSensitive(reader->object, "rope_scaling");
    const bool has_theta = cJSON_HasObjectItem(inner.object, "rope_theta");
    const enum rt_status status =
        read_number(has_theta ? &inner : reader, "rope_theta", &rope->theta);
    if (status != RT_OK)
        return status;
    if (rope->theta <= 1.0)
        return rt_error_set(reader->error, RT_ERR_CONFIG, "%s: rope_theta is %g, not above 1",
                            reader->label, rope->theta);

    const cJSON *type = cJSON_GetObjectItemCaseSensitive(inner.object, "rope_type");
    if (type == NULL)
        type = cJSON_GetObjectItemCaseSensitive(inner.object, "type");
    const char *name = cJSON_IsString(type) ? type->valuestring : "default";
    rope->yarn = strcmp(name, "yarn") == 0;
    if (rope->yarn)
        return read_yarn(&inner, rope);
    if (strcmp(name, "default") != 0)
        return rt_error_set(reader->error, RT_ERR_UNSUPPORTED,
                            "%s: rope_type is %.32s; default and yarn are written here",
                            reader->label, name);
    return RT_OK;
}

static enum rt_status read_config(const struct reader *reader, struct mla_config *config)
{
    const struct {
        const char *key;
        uint32_t *out;
    } dimensions[] = {
        {.key = "hidden_size", .out = &config->hidden},
        {.key = "vocab_size", .out = &config->vocab},
        {.key = "num_attention_heads", .out = &config->heads},
        {.key = "kv_lora_rank", .out = &config->kv_rank},
        {.key = "qk_nope_head_dim", .out = &config->nope},
        {.key = "qk_rope_head_dim", .out = &config->rope},
        {.key = "v_head_dim", .out = &config->value},
    };
    for (size_t i = 0; i < sizeof dimensions / sizeof dimensions[0]; i++) {
        const enum rt_status status = read_dimension(reader, dimensions[i].key, dimensions[i].out);
        if (status != RT_OK)
            return status;
    }
    if (config->rope % 2 != 0)
        return rt_error_set(reader->error, RT_ERR_CONFIG,
                            "%s: qk_rope_head_dim is %u, but positions rotate pairs", reader->label,
                            config->rope);
    const cJSON *q_rank = cJSON_GetObjectItemCaseSensitive(reader->object, "q_lora_rank");
    if (q_rank != NULL && !cJSON_IsNull(q_rank)) {
        const enum rt_status status = read_dimension(reader, "q_lora_rank", &config->q_rank);
        if (status != RT_OK)
            return status;
    }
    const enum rt_status status = read_number(reader, "rms_norm_eps", &config->norm_epsilon);
    return status != RT_OK ? status : read_rope(reader, &config->rotation);
}

enum rt_status mla_config_parse(const char *text, const char *label, struct mla_config *config,
                                struct rt_error *error)
{
    *config = (struct mla_config){0};
    cJSON *object = cJSON_ParseWithOpts(text, NULL, true);
    if (!cJSON_IsObject(object)) {
        cJSON_Delete(object);
        return rt_error_set(error, RT_ERR_CONFIG, "%s: not a JSON object", label);
    }
    const struct reader reader = {.object = object, .label = label, .error = error};
    const enum rt_status status = read_config(&reader, config);
    cJSON_Delete(object);
    if (status != RT_OK)
        *config = (struct mla_config){0};
    return status;
}
