/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/shapes.h"

#include "tools/json_in.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_FILE_BYTES ((size_t)64 << 20)
#define NUMBER_BYTES 40
#define NAME_BYTES 160 /* of the file's name in a message */

struct reader {
    const char *name;
    uint32_t line;
    const char *text;
    struct json_in j;
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
    size_t length = strlen(r->name), skip = length < NAME_BYTES ? 0 : length - NAME_BYTES;
    int used = snprintf(e->message, sizeof(e->message), "%s%s:%u: ", skip ? "..." : "",
                        r->name + skip, r->line);
    va_list values;
    va_start(values, format);
    (void)vsnprintf(e->message + used, sizeof(e->message) - (size_t)used, format, values);
    va_end(values);
    return e->status = RT_ERR_CONFIG;
}

/* ---- numbers -------------------------------------------------------------------------------- */

struct text {
    char of[NUMBER_BYTES];
};

/* For a message and for strtod: cut where it is longer than any number that means something. */
static struct text text_of(const struct json_number *number)
{
    struct text t;
    (void)snprintf(t.of, sizeof(t.of), "%.*s",
                   (int)(number->length < sizeof(t.of) - 1 ? number->length : sizeof(t.of) - 1),
                   number->text);
    return t;
}

static bool to_integer(const struct json_number *number, int64_t *out)
{
    struct text t = text_of(number);
    errno = 0;
    *out = strtoll(t.of, NULL, 10);
    return number->integer && number->length < sizeof(t.of) && errno == 0;
}

static enum rt_status read_number(struct reader *r, const char *key, const char *must,
                                  struct json_number *out)
{
    struct json_in before = r->j;
    if (json_in_number(&r->j, out))
        return RT_OK;
    (void)json_in_end(&before); /* to the value itself */
    int shown = before.end - before.at < 20 ? (int)(before.end - before.at) : 20;
    return refuse(r, "%s is %.*s: must be %s", key, shown, before.at, must);
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
#define KEY_BYTES 32 /* more than the longest */

static bool count_fits(const struct key *key, int64_t value)
{
    if (!key->among)
        return value >= 1 && value <= key->most;
    const uint32_t *one = key->among;
    while (*one != UINT32_MAX && *one != value)
        one++;
    return *one != UINT32_MAX;
}

static enum rt_status read_count(struct reader *r, const struct key *key)
{
    struct json_number number;
    int64_t value;
    enum rt_status status = read_number(r, key->name, key->must, &number);
    if (status != RT_OK)
        return status;
    if (!to_integer(&number, &value) || !count_fits(key, value))
        return refuse(r, "%s is %s: must be %s", key->name, text_of(&number).of, key->must);
    *(uint32_t *)(void *)((char *)r->shape + key->offset) = (uint32_t)value;
    return RT_OK;
}

static enum rt_status read_time(struct reader *r, const struct key *key)
{
    struct json_number number;
    enum rt_status status = read_number(r, key->name, key->must, &number);
    if (status != RT_OK)
        return status;
    double value = strtod(text_of(&number).of, NULL);
    if (number.length >= NUMBER_BYTES || !isfinite(value) || value <= 0)
        return refuse(r, "%s is %s: must be %s", key->name, text_of(&number).of, key->must);
    *(double *)(void *)((char *)r->shape + key->offset) = value;
    return RT_OK;
}

/* Against s_q they are checked when all keys are there. */
static enum rt_status read_lengths(struct reader *r, const struct key *key)
{
    struct shape *s = r->shape;
    if (!json_in_take(&r->j, '['))
        return refuse(r, "kv_lens is no list: must be %s", key->must);
    if (json_in_take(&r->j, ']'))
        return refuse(r, "kv_lens is []: must be %s", key->must);
    do {
        char element[KEY_BYTES];
        struct json_number number;
        int64_t value;
        (void)snprintf(element, sizeof(element), "kv_lens[%u]", s->batch);
        if (s->batch == RT_MAX_BATCH)
            return refuse(r, "kv_lens has more than %u elements: must be %s", s->batch, key->must);
        enum rt_status status = read_number(r, element, "an integer", &number);
        if (status != RT_OK)
            return status;
        if (!to_integer(&number, &value) || value < 1 || value > RT_MAX_LENGTH)
            return refuse(r, "%s is %s: must be an integer from 1 to %d", element,
                          text_of(&number).of, RT_MAX_LENGTH);
        s->lengths[s->batch++] = (int32_t)value;
    } while (json_in_take(&r->j, ','));
    if (!json_in_take(&r->j, ']'))
        return refuse(r, "kv_lens does not end behind element %u: must be %s", s->batch - 1,
                      key->must);
    return RT_OK;
}

static enum rt_status read_label(struct reader *r, const struct key *key)
{
    size_t length = 0;
    if (!json_in_string(&r->j, r->shape->label, sizeof(r->shape->label), &length))
        return refuse(r, "label is no text: must be %s", key->must);
    if (length < 1 || length >= sizeof(r->shape->label))
        return refuse(r, "label has %zu bytes: must be %s", length, key->must);
    return RT_OK;
}

static enum rt_status read_value(struct reader *r, const struct key *key)
{
    switch (key->kind) {
    case KIND_COUNT:
        return read_count(r, key);
    case KIND_LENGTHS:
        return read_lengths(r, key);
    case KIND_LABEL:
        return read_label(r, key);
    case KIND_TIME:
        return read_time(r, key);
    }
    return RT_OK;
}

/* ---- one line ------------------------------------------------------------------------------- */

static enum rt_status read_pair(struct reader *r, bool seen[KEY_COUNT])
{
    char name[KEY_BYTES];
    size_t length, i = 0;
    if (!json_in_string(&r->j, name, sizeof(name), &length) || !json_in_take(&r->j, ':'))
        return refuse(r, "a key in quotes and a colon were expected in column %u",
                      (unsigned)(r->j.at - r->text) + 1);
    while (i < KEY_COUNT && strcmp(keys[i].name, name) != 0)
        i++;
    if (i == KEY_COUNT)
        return json_in_skip(&r->j) ? RT_OK : refuse(r, "the value of %s is not JSON", name);
    if (seen[i])
        return refuse(r, "%s is given twice", name);
    seen[i] = true;
    return read_value(r, &keys[i]);
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

static enum rt_status read_object(struct reader *r)
{
    bool seen[KEY_COUNT] = {false};
    if (!json_in_take(&r->j, '{'))
        return refuse(r, "an object was expected: {\"heads\": 16, ...}");
    do {
        enum rt_status status = read_pair(r, seen);
        if (status != RT_OK)
            return status;
    } while (json_in_take(&r->j, ','));
    if (!json_in_take(&r->j, '}') || !json_in_end(&r->j))
        return refuse(r, "the line goes on where the object should end, in column %u",
                      (unsigned)(r->j.at - r->text) + 1);
    return finish(r, seen);
}

enum rt_status shape_read(const char *name, uint32_t line, const char *text, size_t bytes,
                          struct shape *out, struct rt_error *error)
{
    struct rt_error unused = {0};
    struct shape *shape = calloc(1, sizeof(*shape));
    struct reader r = {.name = name,
                       .line = line,
                       .text = text,
                       .j = {.at = text, .end = text + bytes},
                       .shape = shape,
                       .error = error ? error : &unused};
    if (!shape) {
        (void)refuse(&r, "out of host memory");
        return r.error->status = RT_ERR_NOMEM;
    }
    enum rt_status status = read_object(&r);
    if (status == RT_OK)
        *out = *shape;
    free(shape);
    return status;
}

/* ---- a file --------------------------------------------------------------------------------- */

static enum rt_status fail(struct rt_error *e, enum rt_status status, const char *path,
                           const char *why)
{
    (void)snprintf(e->message, sizeof(e->message), "%.*s: %s", NAME_BYTES, path, why);
    return e->status = status;
}

/* The whole file; *text is the caller's to free. */
static enum rt_status read_file(const char *path, char **text, size_t *bytes, struct rt_error *e)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return fail(e, RT_ERR_FILE, path, strerror(errno));
    size_t capacity = 1 << 16, used = 0;
    char *all = malloc(capacity);
    enum rt_status status = all ? RT_OK : fail(e, RT_ERR_NOMEM, path, "out of host memory");
    while (status == RT_OK) {
        used += fread(all + used, 1, capacity - used, file);
        if (used < capacity)
            break;
        char *more = capacity < MOST_FILE_BYTES ? realloc(all, 2 * capacity) : NULL;
        if (!more)
            status = fail(e, RT_ERR_FILE, path, "too large for a list of shapes");
        else
            all = more;
        capacity *= 2;
    }
    if (status == RT_OK && ferror(file))
        status = fail(e, RT_ERR_FILE, path, "reading failed");
    (void)fclose(file);
    if (status != RT_OK) {
        free(all);
        return status;
    }
    *text = all;
    *bytes = used;
    return RT_OK;
}

static bool blank(const char *text, const char *end)
{
    struct json_in j = {.at = text, .end = end};
    return json_in_end(&j);
}

static enum rt_status add(struct shapes *shapes, const char *path, uint32_t line, const char *text,
                          const char *end, struct rt_error *e)
{
    struct shape *list = realloc(shapes->list, (shapes->count + 1) * sizeof(*list));
    if (!list)
        return fail(e, RT_ERR_NOMEM, path, "out of host memory");
    shapes->list = list;
    enum rt_status status =
        shape_read(path, line, text, (size_t)(end - text), &list[shapes->count], e);
    shapes->count += status == RT_OK;
    return status;
}

enum rt_status shapes_load(const char *path, struct shapes *out, struct rt_error *error)
{
    char *text;
    size_t bytes;
    struct shapes shapes = {0};
    enum rt_status status = read_file(path, &text, &bytes, error);
    if (status != RT_OK)
        return status;
    const char *end = text + bytes;
    uint32_t line = 1;
    for (const char *at = text; at < end && status == RT_OK; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline ? newline : end;
        if (!blank(at, stop))
            status = add(&shapes, path, line, at, stop, error);
        at = newline ? newline + 1 : end;
    }
    if (status == RT_OK && !shapes.count)
        status = fail(error, RT_ERR_CONFIG, path, "no shape in it");
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
