/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/serve_requests.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- one line -------------------------------------------------------------------------------- */

struct text {
    const char *begin, *at, *end;
};

static void skip_space(struct text *t)
{
    while (t->at < t->end && strchr(" \t\r", *t->at) && *t->at)
        t->at++;
}

/* The next byte that is no space, taken where it is the one that is expected. */
static bool take(struct text *t, char expected)
{
    skip_space(t);
    const bool there = t->at < t->end && *t->at == expected;
    t->at += there;
    return there;
}

/* A value, or whatever stands in the place of one, as it is told of: up to what would end it. */
static int word_bytes(const struct text *t)
{
    const char *at = t->at;
    while (at < t->end && at - t->at < 40 && *at && !strchr(",]}: \t\r", *at))
        at++;
    return (int)(at - t->at);
}

static bool fail(const struct text *t, struct request *r, const char *expected)
{
    const int column = (int)(t->at - t->begin) + 1, bytes = word_bytes(t);
    if (t->at == t->end)
        (void)rt_error_set(&r->error, RT_ERR_INVALID, "the line ends where %s is expected",
                           expected);
    else
        (void)rt_error_set(&r->error, RT_ERR_INVALID, "column %d: expected %s, not %.*s", column,
                           expected, bytes > 0 ? bytes : 1, t->at);
    return false;
}

/* Of a character of a string; 0 where no string has it. */
static size_t character_bytes(const struct text *t)
{
    static const char hex[] = "0123456789abcdefABCDEF";
    const size_t left = (size_t)(t->end - t->at);
    if (left == 0 || *t->at == '"' || (unsigned char)*t->at < ' ')
        return 0;
    if (*t->at != '\\')
        return 1;
    if (left > 1 && t->at[1] != 'u')
        return memchr("\"\\/bfnrt", t->at[1], 8) ? 2 : 0;
    for (size_t i = 2; i < 6; i++)
        if (i >= left || !memchr(hex, t->at[i], sizeof hex - 1))
            return 0;
    return 6;
}

/* A string's text with its quotes, or null. What is escaped in it stays so. */
static const char *take_string(struct text *t, size_t *bytes)
{
    const char *const begin = t->at;
    if (!take(t, '"'))
        return NULL;
    for (size_t more; (more = character_bytes(t)) > 0;)
        t->at += more;
    if (t->at == t->end || *t->at++ != '"') {
        t->at = begin;
        return NULL;
    }
    *bytes = (size_t)(t->at - begin);
    return begin;
}

/* Whole numbers alone, plainly written: 4, not 4.0, 4e0 or "4". */
static bool take_number(struct text *t, const char *key, uint64_t least, uint64_t most,
                        struct request *r, uint64_t *out)
{
    uint64_t value = 0;
    skip_space(t);
    const int bytes = word_bytes(t);
    bool good = bytes > 0 && bytes < 19 && (bytes == 1 || *t->at != '0');
    for (int i = 0; good && i < bytes; i++) {
        good = t->at[i] >= '0' && t->at[i] <= '9';
        value = value * 10 + (uint64_t)(t->at[i] - '0');
    }
    if (!good || value < least || value > most) {
        (void)rt_error_set(&r->error, RT_ERR_INVALID,
                           "%s is %.*s: expected a whole number from %" PRIu64 " to %" PRIu64, key,
                           bytes, t->at, least, most);
        return false;
    }
    t->at += bytes;
    *out = value;
    return true;
}

static bool take_id(struct text *t, struct request *r)
{
    size_t bytes = 0;
    uint64_t number;
    skip_space(t);
    const char *begin = t->at;
    if (!take_string(t, &bytes)) {
        if (!take_number(t, "id", 0, INT64_MAX, r, &number))
            return fail(t, r, "id to be a string or a whole number");
        bytes = (size_t)(t->at - begin);
    }
    r->id = malloc(bytes + 1);
    if (!r->id)
        return rt_error_set(&r->error, RT_ERR_NOMEM, "out of memory"), false;
    memcpy(r->id, begin, bytes);
    r->id[bytes] = '\0';
    return true;
}

static bool take_prompt(struct text *t, struct request *r)
{
    char name[40];
    uint32_t most = 1; /* one id more than there are commas */
    if (!take(t, '['))
        return fail(t, r, "prompt_ids to be a list");
    for (const char *at = t->at; at < t->end && *at != ']'; at++)
        most += *at == ',';
    r->prompt = malloc(most * sizeof *r->prompt);
    if (!r->prompt)
        return rt_error_set(&r->error, RT_ERR_NOMEM, "out of memory"), false;
    do {
        uint64_t id;
        (void)snprintf(name, sizeof name, "prompt_ids: id %" PRIu32, r->length + 1);
        if (!take_number(t, name, 0, INT32_MAX, r, &id))
            return false;
        r->prompt[r->length++] = (int32_t)id;
    } while (take(t, ','));
    return take(t, ']') || fail(t, r, "a comma or ]");
}

enum key { ID, PROMPT, WANTED, ARRIVES, KEYS };
static const char *const keys[KEYS] = {"id", "prompt_ids", "max_new_tokens", "arrive_step"};

static bool take_value(struct text *t, enum key key, struct request *r)
{
    uint64_t number = 0;
    switch (key) {
    case ID:
        return take_id(t, r);
    case PROMPT:
        return take_prompt(t, r);
    case WANTED:
        if (!take_number(t, keys[key], 1, INT32_MAX, r, &number))
            return false;
        r->wanted = (uint32_t)number;
        return true;
    default:
        return take_number(t, keys[key], 0, INT32_MAX, r, &r->arrives);
    }
}

static bool take_pair(struct text *t, struct request *r, bool seen[KEYS])
{
    size_t bytes;
    skip_space(t);
    const char *name = take_string(t, &bytes);
    if (!name)
        return fail(t, r, "a key in quotes");
    enum key key = ID;
    while (key < KEYS &&
           (strlen(keys[key]) != bytes - 2 || memcmp(keys[key], name + 1, bytes - 2) != 0))
        key++;
    if (key == KEYS || seen[key]) {
        (void)rt_error_set(&r->error, RT_ERR_INVALID,
                           key == KEYS ? "%.*s is no key: there are id, prompt_ids, "
                                         "max_new_tokens and arrive_step"
                                       : "%.*s is there twice",
                           (int)(bytes < 40 ? bytes : 40), name);
        return false;
    }
    seen[key] = true;
    return take(t, ':') ? take_value(t, key, r) : fail(t, r, "a colon");
}

static bool parse(const char *line, const char *end, struct request *r)
{
    struct text t = {line, line, end};
    bool seen[KEYS] = {false};
    if (!take(&t, '{'))
        return fail(&t, r, "an object in braces");
    do {
        if (!take_pair(&t, r, seen))
            return false;
    } while (take(&t, ','));
    if (!take(&t, '}'))
        return fail(&t, r, "a comma or }");
    skip_space(&t);
    if (t.at < t.end)
        return fail(&t, r, "the line's end");
    for (enum key key = ID; key < ARRIVES; key++)
        if (!seen[key])
            return rt_error_set(&r->error, RT_ERR_INVALID, "%s is missing", keys[key]), false;
    return true;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static char *read_all(FILE *file, size_t *bytes)
{
    size_t room = 1 << 16, used = 0;
    char *text = malloc(room);
    while (text) {
        used += fread(text + used, 1, room - used, file);
        if (used < room)
            break;
        char *larger = realloc(text, room *= 2);
        if (!larger)
            free(text);
        text = larger;
    }
    *bytes = used;
    if (!text || !ferror(file))
        return text;
    free(text);
    return NULL;
}

static int by_arrival(const void *a, const void *b)
{
    const struct request *x = a, *y = b;
    if (x->arrives != y->arrives)
        return x->arrives < y->arrives ? -1 : 1;
    return x->line < y->line ? -1 : x->line > y->line;
}

static bool blank(const char *line, const char *end)
{
    struct text t = {line, line, end};
    skip_space(&t);
    return t.at == end;
}

bool requests_read(FILE *file, struct requests *out)
{
    size_t bytes = 0, lines = 1;
    char *const text = read_all(file, &bytes);
    *out = (struct requests){.list = NULL};
    for (size_t i = 0; text && i < bytes; i++)
        lines += text[i] == '\n';
    out->list = text ? calloc(lines, sizeof *out->list) : NULL;
    uint32_t number = 0;
    for (const char *at = text, *end; out->list && at < text + bytes; at = end + 1) {
        end = memchr(at, '\n', (size_t)(text + bytes - at));
        end = end ? end : text + bytes;
        number++;
        if (blank(at, end))
            continue;
        struct request *r = &out->list[out->count++];
        r->line = number;
        if (!parse(at, end, r))
            r->arrives = 0; /* it is told of at once */
    }
    free(text);
    if (out->list)
        qsort(out->list, out->count, sizeof *out->list, by_arrival);
    return out->list != NULL;
}

void requests_free(struct requests *requests)
{
    for (uint32_t i = 0; i < requests->count; i++) {
        free(requests->list[i].id);
        free(requests->list[i].prompt);
    }
    free(requests->list);
    *requests = (struct requests){.list = NULL};
}
