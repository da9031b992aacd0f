/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config_keys.h"

#include "config/config.h"
#include "config/geometry.h"
#include "config/scalar.h"

#include <assert.h>
#include <float.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table ------------------------------------------------------------------------------- */

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define FROM_TO(low, high) " from " TEXT(low) " to " TEXT(high)

/* What a key holds. */
#define INTEGER(low, high, more)                                                                   \
    .holds = RT_HOLDS_INTEGER, .min = (low), .max = (high),                                        \
    .must = "an integer" FROM_TO(low, high) more
#define ANY_INTEGER(words) .holds = RT_HOLDS_INTEGER, .max = UINT32_MAX, .must = words
#define CHOICE(words) .holds = RT_HOLDS_CHOICE, .must = words
#define NUMBER(words, high) .holds = RT_HOLDS_NUMBER, .most = (high), .must = words
#define BOOLEAN .holds = RT_HOLDS_BOOLEAN, .must = "true or false"
#define NUMBERS(most_)                                                                             \
    .holds = RT_HOLDS_NUMBERS, .capacity = (most_), .each = "a number above 0",                    \
    .must = "a list of 1 to " TEXT(most_) " numbers above 0"
#define WORD(words) .holds = RT_HOLDS_WORD, .must = words
#define LIST(or, field_of_count, most, low, high)                                                  \
    .holds = RT_HOLDS_LIST, .count_offset = offsetof(struct rt_config, field_of_count),            \
    .capacity = (most), .min = (low), .max = (high), .each = "an integer" FROM_TO(low, high),      \
    .must = or "a list of 1 to " TEXT(most) " integers" FROM_TO(low, high) ", ascending"
#define DEVICE_NAME(words) .holds = RT_HOLDS_DEVICE, .must = words
#define PATH(words) .holds = RT_HOLDS_PATH, .must = words

/* Where its value comes from if not from the file. */
#define DEFAULT(text) .preset = text
#define NO_DEFAULT .preset = NULL
#define REQUIRED .required = true

#define AT(type, member)                                                                           \
    .offset = offsetof(struct type, member), .bytes = sizeof(((struct type *)0)->member)

static const struct rt_key keys[RT_KEY_COUNT] = {
#define RT_KEY(id, where, member, holding, otherwise, sentence)                                    \
    [RT_KEY_##id] = {.path = where,                                                                \
                     .field = #member,                                                             \
                     AT(rt_config, member),                                                        \
                     holding,                                                                      \
                     otherwise,                                                                    \
                     .meaning = sentence},
#define RT_FILE_KEY(id, where, member, holding, otherwise, sentence)                               \
    [RT_KEY_##id] = {                                                                              \
        .path = where, AT(rt_config_draft, member), holding, otherwise, .meaning = sentence},
#include "config/config_keys.inc"
#undef RT_KEY
#undef RT_FILE_KEY
};

static_assert(offsetof(struct rt_config_draft, config) == 0, "one offset is good for both structs");
static_assert(sizeof(enum rt_backend) == sizeof(uint32_t), "a word is stored as its place");

const struct rt_key *rt_key_of(enum rt_key_id id)
{
    return &keys[id];
}

/* ---- words in a list of words ---------------------------------------------------------------- */

/* The place of a word in "16, 32, 64 or 128"; -1: it is none of them. */
static int32_t place_of(const char *words, const char *word)
{
    size_t length = strlen(word);
    int32_t place = 0;
    while (*words) {
        size_t here = strcspn(words, ", ");
        if (here == length && memcmp(words, word, length) == 0)
            return place;
        words += here;
        words += strncmp(words, " or ", 4) == 0 ? 4 : strspn(words, ", ");
        place++;
    }
    return -1;
}

static uint32_t count_words(const char *words)
{
    uint32_t count = 1;
    for (; *words; words++)
        count += *words == ',' || strncmp(words, " or ", 4) == 0;
    return count;
}

/* ---- fields ---------------------------------------------------------------------------------- */

static void *field_of(const struct rt_key *key, void *values)
{
    return (char *)values + key->offset;
}

static const void *value_of(const struct rt_key *key, const void *values)
{
    return (const char *)values + key->offset;
}

static uint64_t get_integer(const struct rt_key *key, const void *values)
{
    uint64_t wide = 0;
    uint32_t narrow = 0;
    if (key->bytes == sizeof(wide)) {
        memcpy(&wide, value_of(key, values), sizeof(wide));
        return wide;
    }
    memcpy(&narrow, value_of(key, values), sizeof(narrow));
    return narrow;
}

static bool set_integer(const struct rt_key *key, uint64_t value, void *values)
{
    uint32_t narrow = (uint32_t)value;
    if (key->bytes == sizeof(value))
        memcpy(field_of(key, values), &value, sizeof(value));
    else if (value <= UINT32_MAX)
        memcpy(field_of(key, values), &narrow, sizeof(narrow));
    else
        return false;
    return true;
}

static void set_count(const struct rt_key *key, uint32_t count, void *values)
{
    memcpy((char *)values + key->count_offset, &count, sizeof(count));
}

static uint32_t get_count(const struct rt_key *key, const void *values)
{
    uint32_t count = 0;
    memcpy(&count, (const char *)values + key->count_offset, sizeof(count));
    return count;
}

static bool is_automatic(const struct rt_key *key, const struct rt_node *node)
{
    return key->holds == RT_HOLDS_LIST && place_of(key->must, "auto") == 0 &&
           rt_scalar_is_text(node) && strcmp(node->text, "auto") == 0;
}

/* Anything but a list: false where the node does not say such a thing. */
static bool set_scalar(const struct rt_key *key, const struct rt_node *node, void *values)
{
    uint64_t integer = 0;
    bool boolean = false;
    switch (key->holds) {
    case RT_HOLDS_INTEGER:
    case RT_HOLDS_CHOICE:
        return rt_scalar_integer(node, &integer) && set_integer(key, integer, values);
    case RT_HOLDS_NUMBER:
        return rt_scalar_number(node, field_of(key, values));
    case RT_HOLDS_BOOLEAN:
        return rt_scalar_boolean(node, &boolean) && set_integer(key, boolean, values);
    case RT_HOLDS_WORD:
        if (!rt_scalar_is_text(node) || place_of(key->must, node->text) < 0)
            return false;
        return set_integer(key, (uint64_t)place_of(key->must, node->text), values);
    case RT_HOLDS_DEVICE:
        if (!rt_scalar_is_text(node) || node->text_bytes >= key->bytes)
            return false;
        memset(field_of(key, values), 0, key->bytes);
        memcpy(field_of(key, values), node->text, node->text_bytes);
        return true;
    case RT_HOLDS_PATH:
        if (!rt_scalar_is_text(node) || node->text_bytes == 0 || node->text_bytes > 4095)
            return false;
        memcpy(field_of(key, values), &node->text, sizeof(node->text));
        return true;
    default:
        return false;
    }
}

/* ---- defaults -------------------------------------------------------------------------------- */

static void reset_list(const struct rt_key *key, void *values)
{
    uint32_t *list = field_of(key, values);
    uint32_t count = 0;
    char *end = NULL;
    memset(list, 0, key->bytes);
    for (const char *at = key->preset + 1; *at != '\0' && count < key->capacity; at = end + 1)
        list[count++] = (uint32_t)strtoul(at, &end, 10);
    set_count(key, count, values);
}

void rt_key_reset(enum rt_key_id id, void *values)
{
    const struct rt_key *key = &keys[id];
    if (!key->preset) {
        memset(field_of(key, values), 0, key->bytes);
        if (key->holds == RT_HOLDS_LIST)
            set_count(key, 0, values);
        return;
    }
    if (key->holds == RT_HOLDS_LIST) {
        reset_list(key, values);
        return;
    }
    const struct rt_node node = {.text = key->preset, .text_bytes = (uint32_t)strlen(key->preset)};
    (void)set_scalar(key, &node, values);
}

/* ---- faults ---------------------------------------------------------------------------------- */

bool rt_key_blame(struct rt_key_fault *fault, enum rt_key_id id, const char *must)
{
    const struct rt_key *key = &keys[id];
    if (!must)
        must = fault->element >= 0 ? key->each : key->must;
    fault->id = id;
    fault->status = strncmp(key->path, "geometry.", 9) == 0 ? RT_ERR_GEOMETRY : RT_ERR_CONFIG;
    (void)snprintf(fault->must, sizeof(fault->must), "%s", must);
    return false;
}

/* The value at fault is what the file has, whatever it is: then no geometry is at fault. */
static bool blame_node(struct rt_key_fault *fault, enum rt_key_id id, const struct rt_node *node)
{
    char shown[RT_NODE_SHOWN_BYTES];
    rt_node_show(node, shown);
    (void)snprintf(fault->value, sizeof(fault->value), "%s", shown);
    (void)rt_key_blame(fault, id, NULL);
    fault->status = RT_ERR_CONFIG;
    return false;
}

static bool blame_integer(struct rt_key_fault *fault, enum rt_key_id id, uint64_t value)
{
    (void)snprintf(fault->value, sizeof(fault->value), "%llu", (unsigned long long)value);
    return rt_key_blame(fault, id, NULL);
}

static bool blame_count(struct rt_key_fault *fault, enum rt_key_id id, uint32_t count)
{
    (void)snprintf(fault->value, sizeof(fault->value), "a list of %u", count);
    return rt_key_blame(fault, id, NULL);
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool is_list(enum rt_key_id id, const struct rt_node *node, struct rt_key_fault *fault)
{
    if (node->kind != RT_NODE_LIST)
        return blame_node(fault, id, node);
    if (node->count > keys[id].capacity)
        return blame_count(fault, id, node->count);
    if (node->count > 0)
        return true;
    (void)snprintf(fault->value, sizeof(fault->value), "an empty list");
    return rt_key_blame(fault, id, NULL);
}

static bool read_numbers(enum rt_key_id id, const struct rt_node *node, void *values,
                         struct rt_key_fault *fault)
{
    double *list = field_of(&keys[id], values);
    if (!is_list(id, node, fault))
        return false;
    memset(list, 0, keys[id].bytes);
    uint32_t i = 0;
    for (const struct rt_node *child = node->first; child; child = child->next, i++) {
        fault->element = (int32_t)i;
        if (!rt_scalar_number(child, &list[i]) || list[i] <= 0.0)
            return blame_node(fault, id, child);
    }
    fault->element = -1;
    return true;
}

static bool read_list(enum rt_key_id id, const struct rt_node *node, void *values,
                      struct rt_key_fault *fault)
{
    const struct rt_key *key = &keys[id];
    uint32_t *list = field_of(key, values);
    if (!is_list(id, node, fault))
        return false;
    memset(list, 0, key->bytes);
    uint32_t i = 0;
    for (const struct rt_node *child = node->first; child; child = child->next, i++) {
        uint64_t element = 0;
        fault->element = (int32_t)i;
        if (!rt_scalar_integer(child, &element) || element > UINT32_MAX)
            return blame_node(fault, id, child);
        list[i] = (uint32_t)element;
    }
    fault->element = -1;
    set_count(key, node->count, values);
    return true;
}

bool rt_key_read(enum rt_key_id id, const struct rt_node *node, void *values,
                 struct rt_key_fault *fault)
{
    const struct rt_key *key = &keys[id];
    fault->element = -1;
    if (is_automatic(key, node))
        return true;
    if (key->holds == RT_HOLDS_LIST) {
        if (!read_list(id, node, values, fault))
            return false;
    } else if (key->holds == RT_HOLDS_NUMBERS) {
        if (!read_numbers(id, node, values, fault))
            return false;
    } else if (!set_scalar(key, node, values)) {
        return blame_node(fault, id, node);
    }
    if (key->holds == RT_HOLDS_INTEGER && get_integer(key, values) == 0 && key->min > 0)
        return blame_integer(fault, id, 0);
    return rt_key_check(id, values, fault);
}

/* ---- checking -------------------------------------------------------------------------------- */

static bool check_integer(enum rt_key_id id, const void *values, struct rt_key_fault *fault)
{
    const struct rt_key *key = &keys[id];
    uint64_t value = get_integer(key, values);
    bool is_unset = value == 0 && !key->preset && !key->required;
    if (is_unset || (value >= key->min && value <= key->max))
        return true;
    return blame_integer(fault, id, value);
}

static bool check_choice(enum rt_key_id id, const void *values, struct rt_key_fault *fault)
{
    char text[24];
    uint64_t value = get_integer(&keys[id], values);
    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    return place_of(keys[id].must, text) >= 0 || blame_integer(fault, id, value);
}

static bool check_number(enum rt_key_id id, const void *values, struct rt_key_fault *fault)
{
    double value = 0.0;
    memcpy(&value, value_of(&keys[id], values), sizeof(value));
    bool is_unset = value == 0.0 && !keys[id].preset && !keys[id].required;
    if (is_unset || (value > 0.0 && value <= keys[id].most))
        return true;
    (void)snprintf(fault->value, sizeof(fault->value), "%g", value);
    return rt_key_blame(fault, id, NULL);
}

static bool check_list(enum rt_key_id id, const void *values, struct rt_key_fault *fault)
{
    const struct rt_key *key = &keys[id];
    const uint32_t *list = value_of(key, values);
    uint32_t count = get_count(key, values);
    char must[64];
    if (count == 0 && !key->preset)
        return true;
    if (count < 1 || count > key->capacity)
        return blame_count(fault, id, count);
    for (uint32_t i = 0; i < count; i++) {
        fault->element = (int32_t)i;
        if (list[i] < key->min || list[i] > key->max)
            return blame_integer(fault, id, list[i]);
        if (i > 0 && list[i] <= list[i - 1]) {
            (void)blame_integer(fault, id, list[i]);
            (void)snprintf(must, sizeof(must), "greater than the %u before it", list[i - 1]);
            return rt_key_blame(fault, id, must);
        }
    }
    fault->element = -1;
    return true;
}

/* Those that are given come first, and what follows is 0. */
static bool check_numbers(enum rt_key_id id, const void *values, struct rt_key_fault *fault)
{
    const double *list = value_of(&keys[id], values);
    bool ended = false;
    for (uint32_t i = 0; i < keys[id].capacity; i++) {
        ended = ended || list[i] == 0.0;
        if (ended ? list[i] == 0.0 : list[i] > 0.0 && list[i] <= DBL_MAX)
            continue;
        fault->element = (int32_t)i;
        (void)snprintf(fault->value, sizeof(fault->value), "%g", list[i]);
        return rt_key_blame(fault, id, NULL);
    }
    return true;
}

static bool check_device(enum rt_key_id id, const void *values, struct rt_key_fault *fault)
{
    const char *device = value_of(&keys[id], values);
    size_t length = strnlen(device, keys[id].bytes);
    if (length < keys[id].bytes) {
        if (strcmp(device, "auto") == 0 || strcmp(device, "host") == 0)
            return true;
        const char *number = device + 5;
        if (strncmp(device, "cuda:", 5) == 0) {
            size_t digits = strspn(number, "0123456789");
            if (digits >= 1 && digits <= 4 && number[digits] == '\0' &&
                (digits == 1 || number[0] != '0'))
                return true;
        }
    }
    (void)snprintf(fault->value, sizeof(fault->value), "\"%.*s\"", (int)length, device);
    return rt_key_blame(fault, id, NULL);
}

bool rt_key_check(enum rt_key_id id, const void *values, struct rt_key_fault *fault)
{
    fault->element = -1;
    switch (keys[id].holds) {
    case RT_HOLDS_INTEGER:
        return check_integer(id, values, fault);
    case RT_HOLDS_CHOICE:
        return check_choice(id, values, fault);
    case RT_HOLDS_NUMBER:
        return check_number(id, values, fault);
    case RT_HOLDS_BOOLEAN:
        return get_integer(&keys[id], values) <= 1 ||
               blame_integer(fault, id, get_integer(&keys[id], values));
    case RT_HOLDS_NUMBERS:
        return check_numbers(id, values, fault);
    case RT_HOLDS_WORD:
        return get_integer(&keys[id], values) < count_words(keys[id].must) ||
               blame_integer(fault, id, get_integer(&keys[id], values));
    case RT_HOLDS_LIST:
        return check_list(id, values, fault);
    case RT_HOLDS_DEVICE:
        return check_device(id, values, fault);
    default: /* a path is what it is */
        return true;
    }
}
