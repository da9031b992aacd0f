/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/shapes.h"

#include "config/text_file.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_BYTES 40 /* of a value in a message */

struct reader {
    const char *name;
    uint32_t line;
    struct shape *shape;
    struct rt_error *error;
};

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static enum rt_status
refuse(const struct reader *r, const char *format, ...)
{
    struct rt_error *e = r->error;
    char name[RT_FILE_NAME_BYTES];
    rt_file_name(r->name, name);
    int used = snprintf(e->message, sizeof(e->message), "%s:%u: ", name, r->line);
    va_list values;
    va_start(values, format);
    (void)vsnprintf(e->message + used, sizeof(e->message) - (size_t)used, format, values);
    va_end(values);
    return e->status = RT_ERR_CONFIG;
}

/* "KEY is VALUE: must be ..." */
static enum rt_status refuse_value(const struct reader *r, const char *key, const cJSON *value,
                                   const char *must)
{
    char *text = cJSON_PrintUnformatted(value);
    (void)refuse(r, "%s is %.*s: must be %s", key, SHOWN_BYTES, text ? text : "too long", must);
    cJSON_free(text);
    return RT_ERR_CONFIG;
}

/* ---- keys ----------------------------------------------------------------------------------- */

enum kind { KIND_COUNT, KIND_LENGTHS, KIND_LABEL, KIND_TIME };

static const struct key {
    const char *name;
    enum kind kind;
    size_t offset; /* in struct shape */
    bool optional;
    const uint32_t *among; /* KIND_COUNT: ends with UINT32_MAX; null: 1..most */
    uint32_t most;
    const char *must;
} keys[] = {
    {.name = "heads",
     .kind = KIND_COUNT,
     .offset = offsetof(struct shape, heads),
     .most = RT_MAX_HEADS,
     .must = "an integer from 1 to 128"},
    {.name = "s_q",
     .kind = KIND_COUNT,
     .offset = offsetof(struct shape, query_len),
     .most = RT_MAX_QUERY_LEN,
     .must = "an integer from 1 to 8"},
    {.name = "kv_rank",
     .kind = KIND_COUNT,
     .offset = offsetof(struct shape, kv_lora_rank),
     .among = (const uint32_t[]){256, 512, UINT32_MAX},
     .must = "256 or 512"},
    {.name = "rope_dim",
     .kind = KIND_COUNT,
     .offset = offsetof(struct shape, qk_rope_head_dim),
     .among = (const uint32_t[]){0, 32, 64, UINT32_MAX},
     .must = "0, 32 or 64"},
    {.name = "page_size",
     .kind = KIND_COUNT,
     .offset = offsetof(struct shape, page_size),
     .among = (const uint32_t[]){16, 32, 64, 128, UINT32_MAX},
     .must = "16, 32, 64 or 128"},
    {.name = "kv_lens", .kind = KIND_LENGTHS, .must = "a list of 1 to 4096 lengths"},
    {.name = "label", .kind = KIND_LABEL, .optional = true, .must = "a text of 1 to 63 bytes"},
    {.name = "flashmla_layer_us",
     .kind = KIND_TIME,
     .offset = offsetof(struct shape, peer_layer_us),
     .optional = true,
     .must = "a number above 0"},
    {.name = "flashmla_metadata_us",
     .kind = KIND_TIME,
     .offset = offsetof(struct shape, peer_metadata_us),
     .optional = true,
     .must = "a number above 0"},
    {.name = "floor_us",
     .kind = KIND_TIME,
     .offset = offsetof(struct shape, floor_us),
     .optional = true,
     .must = "a number above 0"},
};
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

/* JSON has no integers: 16, 16.0 and 1.6e1 are the same number. */
static bool whole(const cJSON *value, uint32_t most)
{
    double number = value->valuedouble;
    return cJSON_IsNumber(value) && number >= 0 && number <= most && number == floor(number);
}

static bool count_fits(const struct key *key, const cJSON *value)
{
    if (!key->among)
        return whole(value, key->most) && value->valuedouble >= 1;
    const uint32_t *one = key->among;
    while (*one != UINT32_MAX && *one != value->valuedouble)
        one++;
    return cJSON_IsNumber(value) && *one != UINT32_MAX;
}

static enum rt_status read_count(struct reader *r, const struct key *key, const cJSON *value)
{
    if (!count_fits(key, value))
        return refuse_value(r, key->name, value, key->must);
    *(uint32_t *)(void *)((char *)r->shape + key->offset) = (uint32_t)value->valuedouble;
    return RT_OK;
}

static enum rt_status read_time(struct reader *r, const struct key *key, const cJSON *value)
{
    if (!cJSON_IsNumber(value) || !isfinite(value->valuedouble) || value->valuedouble <= 0)
        return refuse_value(r, key->name, value, key->must);
    *(double *)(void *)((char *)r->shape + key->offset) = value->valuedouble;
    return RT_OK;
}

/* Against s_q they are checked when all keys are there. */
static enum rt_status read_lengths(struct reader *r, const struct key *key, const cJSON *list)
{
    struct shape *s = r->shape;
    const cJSON *value;
    if (!cJSON_IsArray(list) || !list->child)
        return refuse_value(r, key->name, list, key->must);
    cJSON_ArrayForEach(value, list)
    {
        char element[32];
        if (s->batch == RT_MAX_BATCH)
            return refuse(r, "kv_lens has more than %u elements: must be %s", s->batch, key->must);
        (void)snprintf(element, sizeof(element), "kv_lens[%u]", s->batch);
        if (!whole(value, RT_MAX_LENGTH) || value->valuedouble < 1)
            return refuse_value(r, element, value, "an integer from 1 to 1048576");
        s->lengths[s->batch++] = (int32_t)value->valuedouble;
    }
    return RT_OK;
}

/* It is printed in a table: what would move the cursor becomes '?'. */
static enum rt_status read_label(struct reader *r, const struct key *key, const cJSON *value)
{
    if (!cJSON_IsString(value))
        return refuse_value(r, key->name, value, key->must);
    size_t length = strlen(value->valuestring);
    if (length < 1 || length >= sizeof(r->shape->label))
        return refuse(r, "label has %zu bytes: must be %s", length, key->must);
    for (size_t i = 0; i < length; i++) {
        char c = value->valuestring[i];
        r->shape->label[i] = (unsigned char)c < 0x20 || c == 0x7f ? '?' : c;
    }
    return RT_OK;
}

static enum rt_status read_value(struct reader *r, const struct key *key, const cJSON *value)
{
    switch (key->kind) {
    case KIND_COUNT:
        return read_count(r, key, value);
    case KIND_LENGTHS:
        return read_lengths(r, key, value);
    case KIND_LABEL:
        return read_label(r, key, value);
    case KIND_TIME:
        return read_time(r, key, value);
    }
    return RT_OK;
}

/* ---- one line ------------------------------------------------------------------------------- */

static enum rt_status read_pair(struct reader *r, const cJSON *value, bool seen[KEY_COUNT])
{
    size_t i = 0;
    while (i < KEY_COUNT && strcmp(keys[i].name, value->string) != 0)
        i++;
    if (i == KEY_COUNT)
        return RT_OK;
    if (seen[i])
        return refuse(r, "%s is given twice", keys[i].name);
    seen[i] = true;
    return read_value(r, &keys[i], value);
}

static enum rt_status finish(const struct reader *r, const bool seen[KEY_COUNT])
{
    struct shape *s = r->shape;
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (!seen[i] && !keys[i].optional)
            return refuse(r, "%s is missing: must be %s", keys[i].name, keys[i].must);
    for (uint32_t i = 0; i < s->batch; i++)
        if (s->lengths[i] < (int32_t)s->query_len)
            return refuse(r, "kv_lens[%u] is %d: must be at least s_q, %u", i, s->lengths[i],
                          s->query_len);
    if (!s->label[0])
        (void)snprintf(s->label, sizeof(s->label), "b%u h%u q%u k%d%s", s->batch, s->heads,
                       s->query_len, s->lengths[0], s->batch > 1 ? " .." : "");
    return RT_OK;
}

static enum rt_status read_object(struct reader *r, const cJSON *object)
{
    bool seen[KEY_COUNT] = {false};
    const cJSON *value;
    if (!cJSON_IsObject(object))
        return refuse(r, "an object was expected");
    cJSON_ArrayForEach(value, object)
    {
        enum rt_status status = read_pair(r, value, seen);
        if (status != RT_OK)
            return status;
    }
    return finish(r, seen);
}

static enum rt_status read_text(struct reader *r, const char *text)
{
    const char *end = text;
    cJSON *object = cJSON_ParseWithOpts(text, &end, false);
    enum rt_status status;
    if (!object)
        status = refuse(r, "not JSON near column %u", (unsigned)(end - text) + 1);
    else if (end[strspn(end, " \t\r\n")])
        status = refuse(r, "the line goes on where the object should end, in column %u",
                        (unsigned)(end - text) + 1);
    else
        status = read_object(r, object);
    cJSON_Delete(object);
    return status;
}

enum rt_status shape_read(const char *name, uint32_t line, const char *text, struct shape *out,
                          struct rt_error *error)
{
    struct rt_error unused = {0};
    struct shape *shape = calloc(1, sizeof(*shape));
    struct reader r = {
        .name = name, .line = line, .shape = shape, .error = error ? error : &unused};
    if (!shape) {
        (void)refuse(&r, "out of host memory");
        return r.error->status = RT_ERR_NOMEM;
    }
    enum rt_status status = read_text(&r, text);
    if (status == RT_OK)
        *out = *shape;
    free(shape);
    return status;
}

/* ---- a file --------------------------------------------------------------------------------- */

static enum rt_status add(struct shapes *shapes, const char *path, uint32_t line, const char *text,
                          struct rt_error *e)
{
    struct shape *list = realloc(shapes->list, (shapes->count + 1) * sizeof(*list));
    RT_REQUIRE(list, e, RT_ERR_NOMEM, "out of host memory for %u shapes", shapes->count + 1);
    shapes->list = list;
    enum rt_status status = shape_read(path, line, text, &list[shapes->count], e);
    shapes->count += status == RT_OK;
    return status;
}

/* Cuts the text into lines, each with its own NUL. */
static enum rt_status read_lines(struct shapes *shapes, const char *path, char *text, char *end,
                                 struct rt_error *e)
{
    uint32_t line = 1;
    for (char *at = text; at < end; line++) {
        char *newline = memchr(at, '\n', (size_t)(end - at));
        char *stop = newline ? newline : end;
        *stop = '\0';
        if (strlen(at) != (size_t)(stop - at))
            return rt_fail(e, RT_ERR_CONFIG, "%s:%u: a NUL byte is no text", path, line);
        if (at[strspn(at, " \t\r")])
            RT_TRY(add(shapes, path, line, at, e));
        at = stop + 1;
    }
    return RT_OK;
}

enum rt_status shapes_load(const char *path, struct shapes *out, struct rt_error *error)
{
    char *text, name[RT_FILE_NAME_BYTES];
    size_t bytes;
    struct shapes shapes = {0};
    RT_TRY(rt_text_file_read(path, &text, &bytes, error));
    rt_file_name(path, name);
    enum rt_status status = read_lines(&shapes, name, text, text + bytes, error);
    if (status == RT_OK && !shapes.count)
        status = rt_fail(error, RT_ERR_CONFIG, "%s: no shape in it", name);
    free(text);
    if (status == RT_OK)
        *out = shapes;
    else
        shapes_free(&shapes);
    return status;
}

void shapes_free(struct shapes *shapes)
{
    free(shapes->list);
    *shapes = (struct shapes){0};
}
