/* SPDX-License-Identifier: Apache-2.0 */
#include "models/fields.h"

#include "models/jsonscan.h"

#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES (4u << 20)
#define SHOWN_BYTES 48

/* As Python writes them: with NaN and Infinity. */
static void open_scan(const struct rt_fields *f, struct rt_scan *out)
{
    rt_scan_open(out, f->text, f->bytes);
    out->has_infinities = true;
}

enum rt_status rt_fields_open(struct rt_fields *out, const char *label, const void *text,
                              size_t bytes, struct rt_error *err)
{
    static const char mark[] = "\xef\xbb\xbf"; /* a byte order mark, which editors leave */
    const size_t skip = bytes >= 3 && memcmp(text, mark, 3) == 0 ? 3 : 0;
    struct rt_scan s;
    RT_MODELS_REQUIRE(bytes <= MAX_BYTES, err, RT_ERR_FILE,
                      "%s: %zu bytes: a config.json has at most %u", label, bytes, MAX_BYTES);
    *out = (struct rt_fields){
        .label = label, .prefix = "", .whole = text, .text = text, .bytes = bytes};
    if (skip) { /* an empty file's text is null */
        out->text += skip;
        out->bytes -= skip;
    }
    open_scan(out, &s);
    RT_MODELS_REQUIRE(rt_scan_peek(&s) == RT_SCAN_OBJECT, err, RT_ERR_CONFIG,
                      "%s: is not an object of JSON", label);
    (void)rt_scan_skip(&s);
    if (rt_scan_end(&s))
        return RT_OK;
    uint32_t column;
    const uint32_t line = rt_scan_line(out->whole, s.at, &column);
    return rt_models_fail(err, RT_ERR_CONFIG, "%s:%" PRIu32 ": has %s at column %" PRIu32, label,
                          line, s.problem, column);
}

/* ---- finding and failing --------------------------------------------------------------------- */

/* Leaves *out in front of the member's value, and *times says how often there is one. */
static void find(const struct rt_fields *f, const char *key, struct rt_scan *out, uint32_t *times)
{
    struct rt_scan s;
    struct rt_scan_text name;
    *times = 0;
    open_scan(f, &s);
    (void)rt_scan_enter(&s, '{');
    while (rt_scan_more(&s) && rt_scan_key(&s, &name)) {
        if (rt_scan_is(&name, key) && ++*times == 1)
            *out = s;
        (void)rt_scan_skip(&s);
    }
}

/* As it stands in the text, a list or an object by that word, a long one cut. */
static void show(struct rt_scan at, char out[SHOWN_BYTES])
{
    const enum rt_scan_kind kind = rt_scan_peek(&at);
    const char *const begin = at.at;
    (void)rt_scan_skip(&at);
    const int bytes = (int)(at.at - begin);
    if (kind == RT_SCAN_LIST || kind == RT_SCAN_OBJECT)
        (void)snprintf(out, SHOWN_BYTES, "%s", kind == RT_SCAN_LIST ? "a list" : "an object");
    else
        (void)snprintf(out, SHOWN_BYTES, "%.*s%s", bytes > 40 ? 40 : bytes, begin,
                       bytes > 40 ? "..." : "");
}

static enum rt_status fail_at(const struct rt_fields *f, const char *key, const struct rt_scan *at,
                              const char *must, struct rt_error *err)
{
    char shown[SHOWN_BYTES];
    show(*at, shown);
    return rt_models_fail(err, RT_ERR_CONFIG, "%s:%u: %s%s is %s: must be %s", f->label,
                          rt_scan_line(f->whole, at->at, NULL), f->prefix, key, shown, must);
}

/* *given says whether there is a value; one that must be there is. */
static enum rt_status look(const struct rt_fields *f, const char *key, bool is_needed,
                           const char *must, struct rt_scan *at, bool *given, struct rt_error *err)
{
    uint32_t times = 0;
    find(f, key, at, &times);
    RT_MODELS_REQUIRE(times <= 1, err, RT_ERR_CONFIG, "%s: %s%s is given %u times: must be once",
                      f->label, f->prefix, key, times);
    *given = times == 1 && rt_scan_peek(at) != RT_SCAN_NULL;
    RT_MODELS_REQUIRE(*given || !is_needed, err, RT_ERR_CONFIG, "%s: %s%s is missing: must be %s",
                      f->label, f->prefix, key, must);
    return RT_OK;
}

bool rt_field_is_given(const struct rt_fields *f, const char *key)
{
    struct rt_scan at;
    uint32_t times = 0;
    find(f, key, &at, &times);
    return times > 1 || (times == 1 && rt_scan_peek(&at) != RT_SCAN_NULL);
}

enum rt_status rt_fields_below(const struct rt_fields *f, const char *key, const char *prefix,
                               struct rt_fields *out, bool *is_there, struct rt_error *err)
{
    struct rt_scan at;
    RT_MODELS_TRY(look(f, key, false, "", &at, is_there, err));
    *is_there = *is_there && rt_scan_peek(&at) == RT_SCAN_OBJECT;
    if (!*is_there)
        return RT_OK;
    const char *const begin = at.at;
    (void)rt_scan_skip(&at);
    *out = *f;
    out->prefix = prefix;
    out->text = begin;
    out->bytes = (size_t)(at.at - begin);
    return RT_OK;
}

enum rt_status rt_field_refuse(const struct rt_fields *f, const char *key, const char *must,
                               struct rt_error *err)
{
    struct rt_scan at;
    bool given = false;
    RT_MODELS_TRY(look(f, key, true, must, &at, &given, err));
    return fail_at(f, key, &at, must, err);
}

/* ---- single values --------------------------------------------------------------------------- */

/* On a copy of the scan, which ends at its first problem. */
static bool read_count(const struct rt_scan *at, uint32_t least, uint32_t most, uint32_t *out)
{
    struct rt_scan s = *at;
    uint64_t value = 0;
    if (!rt_scan_whole(&s, &value) || value < least || value > most)
        return false;
    *out = (uint32_t)value;
    return true;
}

enum rt_status rt_field_count(const struct rt_fields *f, const char *key, uint32_t least,
                              uint32_t most, const uint32_t *otherwise, uint32_t *out,
                              struct rt_error *err)
{
    struct rt_scan at;
    char must[64];
    bool given = false;
    (void)snprintf(must, sizeof(must), "an integer from %u to %u", least, most);
    RT_MODELS_TRY(look(f, key, !otherwise, must, &at, &given, err));
    if (!given)
        *out = *otherwise;
    else if (!read_count(&at, least, most, out))
        return fail_at(f, key, &at, must, err);
    return RT_OK;
}

/* strtod takes 0.85 for 0 in some locales of the host program. The locale of this thread alone is
 * changed, and changed back. */
static bool to_double(const struct rt_scan_text *text, double *out)
{
    const locale_t plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
    if (plain == (locale_t)0)
        return false;
    const locale_t before = uselocale(plain);
    errno = 0;
    *out = strtod(text->at, NULL); /* ends at the ',', '}' or space behind: objects have one */
    const int number = errno;
    (void)uselocale(before);
    freelocale(plain);
    return number == 0; /* neither too large for a double, nor too small */
}

bool rt_field_is_zero(const struct rt_fields *f, const char *key)
{
    struct rt_scan at;
    struct rt_scan_text text;
    uint32_t times = 0;
    double value = 1.0;
    find(f, key, &at, &times);
    return times == 1 && rt_scan_number(&at, &text) && to_double(&text, &value) && value == 0.0;
}

enum rt_status rt_field_number(const struct rt_fields *f, const char *key, const double *otherwise,
                               double *out, struct rt_error *err)
{
    static const char must[] = "a number above 0, from 1.18e-38 to 3.4e+38";
    struct rt_scan at;
    struct rt_scan_text text;
    double value = 0.0;
    bool given = false;
    RT_MODELS_TRY(look(f, key, !otherwise, must, &at, &given, err));
    struct rt_scan s = at;
    if (!given)
        value = *otherwise;
    else if (!rt_scan_number(&s, &text) || !to_double(&text, &value) ||
             !(value >= (double)FLT_MIN && value <= (double)FLT_MAX))
        return fail_at(f, key, &at, must, err);
    *out = value;
    return RT_OK;
}

enum rt_status rt_field_flag(const struct rt_fields *f, const char *key, const bool *otherwise,
                             bool *out, struct rt_error *err)
{
    static const char must[] = "true or false";
    struct rt_scan at;
    bool given = false;
    RT_MODELS_TRY(look(f, key, !otherwise, must, &at, &given, err));
    const enum rt_scan_kind kind = given ? rt_scan_peek(&at) : RT_SCAN_BAD;
    if (!given)
        *out = *otherwise;
    else if (kind == RT_SCAN_TRUE || kind == RT_SCAN_FALSE)
        *out = kind == RT_SCAN_TRUE;
    else
        return fail_at(f, key, &at, must, err);
    return RT_OK;
}

/* Escapes are left as they are: no word that is looked for has one. */
static bool read_word(const struct rt_scan *at, char out[RT_FIELD_WORD_BYTES])
{
    struct rt_scan s = *at;
    struct rt_scan_text text;
    if (rt_scan_peek(&s) != RT_SCAN_STRING || !rt_scan_string(&s, &text) ||
        text.bytes >= RT_FIELD_WORD_BYTES)
        return false;
    memcpy(out, text.at, text.bytes);
    out[text.bytes] = '\0';
    return true;
}

enum rt_status rt_field_word(const struct rt_fields *f, const char *key, const char *otherwise,
                             char out[RT_FIELD_WORD_BYTES], struct rt_error *err)
{
    static const char must[] = "a string of at most 63 characters";
    struct rt_scan at;
    bool given = false;
    RT_MODELS_TRY(look(f, key, !otherwise, must, &at, &given, err));
    if (!given)
        (void)snprintf(out, RT_FIELD_WORD_BYTES, "%s", otherwise);
    else if (!read_word(&at, out))
        return fail_at(f, key, &at, must, err);
    return RT_OK;
}

enum rt_status rt_field_choice(const struct rt_fields *f, const char *key, const char *const *words,
                               uint32_t count, const uint32_t *otherwise, uint32_t *out,
                               struct rt_error *err)
{
    struct rt_scan at;
    char word[RT_FIELD_WORD_BYTES], must[160];
    size_t used = 0;
    bool given = false;
    for (uint32_t i = 0; i < count && used < sizeof(must); i++)
        used += (size_t)snprintf(must + used, sizeof(must) - used, "%s\"%s\"", i ? " or " : "",
                                 words[i]);
    RT_MODELS_TRY(look(f, key, !otherwise, must, &at, &given, err));
    if (!given) {
        *out = *otherwise;
        return RT_OK;
    }
    for (uint32_t i = 0; read_word(&at, word) && i < count; i++) {
        if (strcmp(word, words[i]) != 0)
            continue;
        *out = i;
        return RT_OK;
    }
    return fail_at(f, key, &at, must, err);
}

/* ---- lists ----------------------------------------------------------------------------------- */

enum rt_status rt_field_counts(const struct rt_fields *f, const char *key, uint32_t most,
                               uint32_t capacity, uint32_t *out, uint32_t *count,
                               struct rt_error *err)
{
    struct rt_scan at;
    char must[96], element[96];
    bool given = false;
    *count = 0;
    (void)snprintf(must, sizeof(must), "an integer from 0 to %u, or a list of at most %u", most,
                   capacity);
    RT_MODELS_TRY(look(f, key, false, must, &at, &given, err));
    if (!given)
        return RT_OK;
    struct rt_scan s = at;
    if (rt_scan_peek(&s) != RT_SCAN_LIST) {
        *count = 1;
        return read_count(&s, 0, most, out) ? RT_OK : fail_at(f, key, &at, must, err);
    }
    (void)rt_scan_enter(&s, '[');
    while (rt_scan_more(&s)) {
        (void)snprintf(element, sizeof(element), "%s[%u]", key, *count);
        if (*count == capacity)
            return fail_at(f, key, &at, must, err);
        if (!read_count(&s, 0, most, &out[(*count)++]))
            return fail_at(f, element, &s, must, err);
        (void)rt_scan_skip(&s);
    }
    return RT_OK;
}

enum rt_status rt_field_switches(const struct rt_fields *f, const char *key, const char *off,
                                 const char *on, uint32_t count, uint8_t *out, struct rt_error *err)
{
    struct rt_scan at;
    char must[96], element[96], word[RT_FIELD_WORD_BYTES];
    uint32_t have = 0;
    bool given = false;
    (void)snprintf(must, sizeof(must), "a list of %u words, %s or %s", count, off, on);
    RT_MODELS_TRY(look(f, key, true, must, &at, &given, err));
    struct rt_scan s = at;
    if (rt_scan_peek(&s) != RT_SCAN_LIST)
        return fail_at(f, key, &at, must, err);
    (void)rt_scan_enter(&s, '[');
    for (; rt_scan_more(&s); have++) {
        (void)snprintf(element, sizeof(element), "%s[%u]", key, have);
        const bool is_word = have < count && read_word(&s, word);
        if (!is_word || (strcmp(word, off) != 0 && strcmp(word, on) != 0))
            return fail_at(f, element, &s, must, err);
        out[have] = strcmp(word, on) == 0;
        (void)rt_scan_skip(&s);
    }
    if (have < count)
        return fail_at(f, key, &at, must, err);
    return RT_OK;
}
