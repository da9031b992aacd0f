/* SPDX-License-Identifier: Apache-2.0 */
#include "models/safetensors.h"

#include "models/jsonscan.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES 8u

static const char metadata[] = "__metadata__"; /* the one entry that is no tensor */

struct reader {
    struct rt_scan scan;
    const char *label;
    const unsigned char *data; /* behind the header */
    uint64_t data_bytes;
    char *words; /* where the next one goes */
    struct rt_error *err;
};

/* The scan's problem, with its place. */
static enum rt_status fail_scan(const struct reader *r)
{
    const struct rt_scan *s = &r->scan;
    return rt_models_fail(r->err, RT_ERR_FILE, "%s: the header of %zu bytes has %s at byte %zu",
                          r->label, (size_t)(s->end - s->begin), s->problem,
                          (size_t)(s->at - s->begin));
}

/* ---- one tensor ------------------------------------------------------------------------------ */

static const struct dtype {
    const char *name;
    enum rt_stored stored;
    uint32_t bytes;
} dtypes[] = {
    {.name = "BF16", .stored = RT_STORED_BF16, .bytes = 2},
    {.name = "F16", .stored = RT_STORED_F16, .bytes = 2},
    {.name = "F32", .stored = RT_STORED_F32, .bytes = 4},
    {.name = "I32", .stored = RT_STORED_I32, .bytes = 4},
    {.name = "BOOL", .bytes = 1},
    {.name = "F64", .bytes = 8},
    {.name = "F8_E4M3", .bytes = 1},
    {.name = "F8_E5M2", .bytes = 1},
    {.name = "I16", .bytes = 2},
    {.name = "I64", .bytes = 8},
    {.name = "I8", .bytes = 1},
    {.name = "U16", .bytes = 2},
    {.name = "U32", .bytes = 4},
    {.name = "U64", .bytes = 8},
    {.name = "U8", .bytes = 1},
};

/* A string of the header as a word that outlives it. The words have room for all of the header, in
 * which each of them also has two quotes. */
static const char *keep(struct reader *r, const struct rt_scan_text *text)
{
    char *const word = r->words;
    r->words += rt_scan_unescape(text, word) + 1;
    return word;
}

static enum rt_status read_shape(struct reader *r, struct rt_stored_entry *t)
{
    struct rt_scan *s = &r->scan;
    RT_MODELS_REQUIRE(rt_scan_peek(s) == RT_SCAN_LIST, r->err, RT_ERR_FILE,
                      "%s: tensor %.96s has no shape that is a list", r->label, t->name);
    t->elements = 1;
    t->rank = 0;
    (void)rt_scan_enter(s, '[');
    while (rt_scan_more(s)) {
        uint64_t size = 0;
        RT_MODELS_REQUIRE(rt_scan_whole(s, &size), r->err, RT_ERR_FILE,
                          "%s: dimension %" PRIu32 " of tensor %.96s is not a whole number",
                          r->label, t->rank, t->name);
        RT_MODELS_REQUIRE(t->rank < RT_TENSOR_MAX_RANK, r->err, RT_ERR_FILE,
                          "%s: tensor %.96s has more than %d dimensions", r->label, t->name,
                          RT_TENSOR_MAX_RANK);
        RT_MODELS_REQUIRE(size == 0 || t->elements <= UINT64_MAX / size, r->err, RT_ERR_FILE,
                          "%s: tensor %.96s has more elements than 64 bits count (%" PRIu64
                          " times %" PRIu64 ")",
                          r->label, t->name, t->elements, size);
        t->shape[t->rank++] = size;
        t->elements *= size;
    }
    return s->problem ? fail_scan(r) : RT_OK;
}

static enum rt_status read_offsets(struct reader *r, struct rt_stored_entry *t)
{
    struct rt_scan *s = &r->scan;
    uint64_t ends[2] = {0, 0};
    uint32_t count = 0;
    bool good = rt_scan_enter(s, '[');
    while (good && rt_scan_more(s)) {
        good = count < 2 && rt_scan_whole(s, &ends[count]);
        count++;
    }
    RT_MODELS_REQUIRE(good && count == 2 && !s->problem, r->err, RT_ERR_FILE,
                      "%s: data_offsets of tensor %.96s are not two whole numbers", r->label,
                      t->name);
    RT_MODELS_REQUIRE(ends[0] <= ends[1] && ends[1] <= r->data_bytes, r->err, RT_ERR_FILE,
                      "%s: data_offsets [%" PRIu64 ", %" PRIu64
                      "] of tensor %.96s do not lie in the %" PRIu64 " bytes of data",
                      r->label, ends[0], ends[1], t->name, r->data_bytes);
    t->data = r->data + ends[0];
    t->bytes = ends[1] - ends[0];
    return RT_OK;
}

static enum rt_status read_dtype(struct reader *r, struct rt_stored_entry *t)
{
    struct rt_scan_text text;
    RT_MODELS_REQUIRE(rt_scan_peek(&r->scan) == RT_SCAN_STRING, r->err, RT_ERR_FILE,
                      "%s: dtype of tensor %.96s is not a string", r->label, t->name);
    if (!rt_scan_string(&r->scan, &text))
        return fail_scan(r);
    t->dtype = keep(r, &text);
    return RT_OK;
}

/* Formats add dtypes: one that is not known here hurts only who asks for the tensor. */
static enum rt_status check_bytes(const struct reader *r, struct rt_stored_entry *t)
{
    const struct dtype *known = NULL;
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (strcmp(dtypes[i].name, t->dtype) == 0)
            known = &dtypes[i];
    if (!known)
        return RT_OK;
    t->stored = known->stored;
    RT_MODELS_REQUIRE(t->elements <= UINT64_MAX / known->bytes &&
                          t->elements * known->bytes == t->bytes,
                      r->err, RT_ERR_FILE,
                      "%s: tensor %.96s has %" PRIu64 " elements of %s, %" PRIu32
                      " bytes each, but its data_offsets give %" PRIu64 " bytes",
                      r->label, t->name, t->elements, known->name, known->bytes, t->bytes);
    return RT_OK;
}

enum member { DTYPE = 0, SHAPE, OFFSETS, MEMBER_COUNT };

static const char *const members[MEMBER_COUNT] = {
    [DTYPE] = "dtype", [SHAPE] = "shape", [OFFSETS] = "data_offsets"};

static enum rt_status read_member(struct reader *r, struct rt_stored_entry *t, enum member member)
{
    switch (member) {
    case DTYPE:
        return read_dtype(r, t);
    case SHAPE:
        return read_shape(r, t);
    case OFFSETS:
        return read_offsets(r, t);
    default:
        return rt_scan_skip(&r->scan) ? RT_OK : fail_scan(r);
    }
}

static enum rt_status read_tensor(struct reader *r, struct rt_stored_entry *t)
{
    struct rt_scan *s = &r->scan;
    struct rt_scan_text key;
    bool given[MEMBER_COUNT] = {false};
    RT_MODELS_REQUIRE(rt_scan_peek(s) == RT_SCAN_OBJECT, r->err, RT_ERR_FILE,
                      "%s: entry %.96s is not an object", r->label, t->name);
    (void)rt_scan_enter(s, '{');
    while (rt_scan_more(s) && rt_scan_key(s, &key)) {
        uint32_t m = 0;
        while (m < MEMBER_COUNT && !rt_scan_is(&key, members[m]))
            m++;
        RT_MODELS_REQUIRE(m == MEMBER_COUNT || !given[m], r->err, RT_ERR_FILE,
                          "%s: key %s stands twice in %.96s", r->label, members[m], t->name);
        if (m < MEMBER_COUNT)
            given[m] = true;
        RT_MODELS_TRY(read_member(r, t, (enum member)m));
    }
    if (s->problem)
        return fail_scan(r);
    for (uint32_t m = 0; m < MEMBER_COUNT; m++)
        RT_MODELS_REQUIRE(given[m], r->err, RT_ERR_FILE, "%s: tensor %.96s has no %s", r->label,
                          t->name, members[m]);
    return check_bytes(r, t);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const struct rt_stored_entry *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static int by_position(const void *a, const void *b)
{
    const struct rt_stored_entry *left = a, *right = b;
    if (left->data != right->data)
        return left->data < right->data ? -1 : 1;
    return (left->bytes > right->bytes) - (left->bytes < right->bytes);
}

void rt_stored_sort(struct rt_stored_entry *entries, size_t count)
{
    if (count > 0)
        qsort(entries, count, sizeof(*entries), by_name);
}

const struct rt_stored_entry *rt_stored_find(const struct rt_stored_entry *entries, size_t count,
                                             const char *name)
{
    const struct rt_stored_entry key = {.name = name};
    return count == 0 ? NULL : bsearch(&key, entries, count, sizeof(*entries), by_name);
}

/* Tensors follow each other without gap or overlap and use up the data. */
static enum rt_status check_cover(const struct reader *r, struct rt_safetensors *file)
{
    uint64_t covered = 0;
    if (file->count > 0)
        qsort(file->entries, file->count, sizeof(*file->entries), by_position);
    for (size_t i = 0; i < file->count; i++) {
        const struct rt_stored_entry *t = &file->entries[i];
        const uint64_t begin = (uint64_t)(t->data - r->data);
        RT_MODELS_REQUIRE(begin == covered, r->err, RT_ERR_FILE,
                          "%s: tensor %.96s begins at byte %" PRIu64
                          " of the data, the one before it ends at %" PRIu64,
                          r->label, t->name, begin, covered);
        covered += t->bytes;
    }
    RT_MODELS_REQUIRE(covered == r->data_bytes, r->err, RT_ERR_FILE,
                      "%s: tensors take %" PRIu64 " bytes of data, the file has %" PRIu64, r->label,
                      covered, r->data_bytes);
    return RT_OK;
}

/* Sorted by name, for that is also how equal ones meet. */
static enum rt_status check_names(const struct reader *r, struct rt_safetensors *file)
{
    rt_stored_sort(file->entries, file->count);
    for (size_t i = 1; i < file->count; i++)
        RT_MODELS_REQUIRE(strcmp(file->entries[i - 1].name, file->entries[i].name) != 0, r->err,
                          RT_ERR_FILE, "%s: tensor %.96s stands twice in the header", r->label,
                          file->entries[i].name);
    return RT_OK;
}

/* How many entries the header has; that all of it is JSON is then known too. */
static enum rt_status count_entries(struct reader *r, size_t *out)
{
    struct rt_scan *s = &r->scan;
    const struct rt_scan start = *s;
    struct rt_scan_text key;
    *out = 0;
    RT_MODELS_REQUIRE(rt_scan_peek(s) == RT_SCAN_OBJECT, r->err, RT_ERR_FILE,
                      "%s: the header of %zu bytes is not an object of JSON", r->label,
                      (size_t)(s->end - s->begin));
    (void)rt_scan_enter(s, '{');
    while (rt_scan_more(s) && rt_scan_key(s, &key) && rt_scan_skip(s))
        ++*out;
    if (!rt_scan_end(s))
        return fail_scan(r);
    *s = start;
    return RT_OK;
}

static enum rt_status read_entries(struct reader *r, struct rt_safetensors *file)
{
    struct rt_scan *s = &r->scan;
    struct rt_scan_text key;
    bool has_metadata = false;
    (void)rt_scan_enter(s, '{');
    while (rt_scan_more(s) && rt_scan_key(s, &key)) {
        struct rt_stored_entry *t = &file->entries[file->count];
        t->name = keep(r, &key);
        t->file = r->label;
        if (strcmp(t->name, metadata) != 0) {
            RT_MODELS_TRY(read_tensor(r, t));
            file->count++;
            continue;
        }
        RT_MODELS_REQUIRE(!has_metadata, r->err, RT_ERR_FILE,
                          "%s: key %s stands twice in the header", r->label, metadata);
        has_metadata = true;
        (void)rt_scan_skip(s);
    }
    RT_MODELS_TRY(check_cover(r, file));
    return check_names(r, file);
}

static enum rt_status read_header(struct reader *r, struct rt_safetensors *out)
{
    size_t entries = 0;
    const size_t header_bytes = (size_t)(r->scan.end - r->scan.begin);
    RT_MODELS_TRY(count_entries(r, &entries));
    out->entries = calloc(entries + 1, sizeof(*out->entries));
    out->words = malloc(header_bytes + 1);
    RT_MODELS_REQUIRE(out->entries && out->words, r->err, RT_ERR_NOMEM,
                      "%s: no memory for %zu tensors", r->label, entries);
    r->words = out->words;
    return read_entries(r, out);
}

enum rt_status rt_safetensors_read(const void *bytes, size_t count, const char *label,
                                   struct rt_safetensors *out, struct rt_error *err)
{
    const unsigned char *const file = bytes;
    uint64_t header_bytes = 0;
    *out = (struct rt_safetensors){.count = 0};
    RT_MODELS_REQUIRE(count >= LENGTH_BYTES, err, RT_ERR_FILE,
                      "%s: %zu bytes are too few for a safetensors file", label, count);
    for (uint32_t i = 0; i < LENGTH_BYTES; i++)
        header_bytes |= (uint64_t)file[i] << (8 * i);
    const uint64_t rest = count - LENGTH_BYTES;
    RT_MODELS_REQUIRE(file[0] != '{' || header_bytes <= rest, err, RT_ERR_FILE,
                      "%s: is text, as JSON begins, and no safetensors file", label);
    RT_MODELS_REQUIRE(header_bytes <= rest && header_bytes <= RT_SAFETENSORS_MAX_HEADER_BYTES, err,
                      RT_ERR_FILE,
                      "%s: a header of %" PRIu64 " bytes does not fit: %" PRIu64
                      " bytes follow, at most %u are allowed",
                      label, header_bytes, rest, RT_SAFETENSORS_MAX_HEADER_BYTES);
    struct reader r = {.label = label,
                       .data = file + LENGTH_BYTES + header_bytes,
                       .data_bytes = rest - header_bytes,
                       .err = err};
    rt_scan_open(&r.scan, file + LENGTH_BYTES, (size_t)header_bytes);
    const enum rt_status status = read_header(&r, out);
    if (status != RT_OK)
        rt_safetensors_free(out);
    return status;
}

void rt_safetensors_free(struct rt_safetensors *file)
{
    free(file->entries);
    free(file->words);
    *file = (struct rt_safetensors){.count = 0};
}
