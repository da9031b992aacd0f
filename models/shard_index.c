/* SPDX-License-Identifier: Apache-2.0 */
#include "models/shard_index.h"

#include "models/jsonscan.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A model of a hundred thousand tensors has an index of some ten million bytes. */
#define MAX_BYTES 100000000u

struct reader {
    struct rt_scan scan;
    const char *label;
    char *words; /* where the next one goes */
    struct rt_error *err;
};

static enum rt_status fail_scan(const struct reader *r)
{
    const struct rt_scan *s = &r->scan;
    uint32_t column;
    const uint32_t line = rt_scan_line(s->begin, s->at, &column);
    return rt_models_fail(r->err, RT_ERR_FILE,
                          "%s:%" PRIu32 ": the index has %s at column %" PRIu32, r->label, line,
                          s->problem, column);
}

static const char *keep(struct reader *r, const struct rt_scan_text *text)
{
    char *const word = r->words;
    r->words += rt_scan_unescape(text, word) + 1;
    return word;
}

/* Leaves the scan in front of the value of weight_map. */
static enum rt_status find_map(struct reader *r)
{
    struct rt_scan *s = &r->scan;
    struct rt_scan_text key;
    struct rt_scan found = {.begin = NULL};
    RT_MODELS_REQUIRE(rt_scan_peek(s) == RT_SCAN_OBJECT, r->err, RT_ERR_FILE,
                      "%s: the index is not an object of JSON", r->label);
    (void)rt_scan_enter(s, '{');
    while (rt_scan_more(s) && rt_scan_key(s, &key)) {
        const bool is_map = rt_scan_is(&key, "weight_map");
        RT_MODELS_REQUIRE(!is_map || !found.begin, r->err, RT_ERR_FILE,
                          "%s: weight_map stands twice", r->label);
        if (is_map)
            found = *s;
        (void)rt_scan_skip(s);
    }
    if (!rt_scan_end(s))
        return fail_scan(r);
    RT_MODELS_REQUIRE(found.begin && rt_scan_peek(&found) == RT_SCAN_OBJECT, r->err, RT_ERR_FILE,
                      "%s: the index has no weight_map that is an object", r->label);
    *s = found;
    return RT_OK;
}

static size_t count_members(struct rt_scan s)
{
    struct rt_scan_text key;
    size_t count = 0;
    (void)rt_scan_enter(&s, '{');
    while (rt_scan_more(&s) && rt_scan_key(&s, &key) && rt_scan_skip(&s))
        count++;
    return count;
}

/* Beside the index and nowhere else: a checkpoint does not read other folders' files. */
static bool is_file_name(const char *name)
{
    return name[0] && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static enum rt_status read_lines(struct reader *r, struct rt_shard_index *out)
{
    struct rt_scan *s = &r->scan;
    struct rt_scan_text text;
    (void)rt_scan_enter(s, '{');
    while (rt_scan_more(s) && rt_scan_key(s, &text)) {
        struct rt_index_line *line = &out->lines[out->count];
        line->tensor = keep(r, &text);
        RT_MODELS_REQUIRE(rt_scan_string(s, &text), r->err, RT_ERR_FILE,
                          "%s: the file of tensor %.96s is not a string", r->label, line->tensor);
        line->file = keep(r, &text);
        RT_MODELS_REQUIRE(is_file_name(line->file), r->err, RT_ERR_FILE,
                          "%s: tensor %.96s is said to be in \"%.96s\": must be the name of a file "
                          "beside the index",
                          r->label, line->tensor, line->file);
        out->count++;
    }
    RT_MODELS_REQUIRE(out->count > 0, r->err, RT_ERR_FILE, "%s: the index lists no tensor",
                      r->label);
    return RT_OK;
}

static int by_tensor(const void *a, const void *b)
{
    const struct rt_index_line *left = a, *right = b;
    return strcmp(left->tensor, right->tensor);
}

static int by_file(const void *a, const void *b)
{
    const struct rt_index_line *left = a, *right = b;
    const int order = strcmp(left->file, right->file);
    return order ? order : by_tensor(a, b);
}

static enum rt_status check_names(const struct reader *r, struct rt_shard_index *out)
{
    qsort(out->lines, out->count, sizeof(*out->lines), by_tensor);
    for (size_t i = 1; i < out->count; i++)
        RT_MODELS_REQUIRE(by_tensor(&out->lines[i - 1], &out->lines[i]) != 0, r->err, RT_ERR_FILE,
                          "%s: tensor %.96s stands twice in the index", r->label,
                          out->lines[i].tensor);
    qsort(out->lines, out->count, sizeof(*out->lines), by_file);
    return RT_OK;
}

static enum rt_status read_index(struct reader *r, size_t bytes, struct rt_shard_index *out)
{
    RT_MODELS_TRY(find_map(r));
    const size_t count = count_members(r->scan);
    out->lines = calloc(count + 1, sizeof(*out->lines));
    out->words = malloc(bytes + 1);
    RT_MODELS_REQUIRE(out->lines && out->words, r->err, RT_ERR_NOMEM,
                      "%s: no memory for an index of %zu tensors", r->label, count);
    r->words = out->words;
    RT_MODELS_TRY(read_lines(r, out));
    return check_names(r, out);
}

enum rt_status rt_shard_index_read(const void *text, size_t bytes, const char *label,
                                   struct rt_shard_index *out, struct rt_error *err)
{
    *out = (struct rt_shard_index){.count = 0};
    RT_MODELS_REQUIRE(bytes <= MAX_BYTES, err, RT_ERR_FILE,
                      "%s: an index of %zu bytes: at most %u are allowed", label, bytes, MAX_BYTES);
    struct reader r = {.label = label, .err = err};
    rt_scan_open(&r.scan, text, bytes);
    const enum rt_status status = read_index(&r, bytes, out);
    if (status != RT_OK)
        rt_shard_index_free(out);
    return status;
}

void rt_shard_index_free(struct rt_shard_index *index)
{
    free(index->lines);
    free(index->words);
    *index = (struct rt_shard_index){.count = 0};
}
