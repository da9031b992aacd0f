/* SPDX-License-Identifier: Apache-2.0 */
#include "config/tree_build.h"

#include "common/utf8.h"
#include "config/decimal.h"

#include <string.h>

/*
 * JSON as RFC 8259 has it, and two things that files in the wild begin with or hold: a byte order
 * mark, and NaN, Infinity and -Infinity as Python writes them. YAML would read most of it, but not
 * a key of more than 1024 characters, a colon on the next line, or half a surrogate pair.
 */
struct json {
    struct rt_tree_build *build;
    const char *at, *end;
    uint32_t line;
};

static enum rt_status fail_syntax(const struct json *j, const char *problem)
{
    return rt_fail(j->build->err, RT_ERR_CONFIG, "%s:%u: not JSON: %s", j->build->source->name,
                   j->line, problem);
}

/* The next character, NUL at the end: no valid text has one, so the two need not differ. */
static char peek(const struct json *j)
{
    return j->at < j->end ? *j->at : '\0';
}

static void skip_space(struct json *j)
{
    for (; j->at < j->end; j->at++) {
        if (*j->at == '\n')
            j->line++;
        else if (*j->at != ' ' && *j->at != '\t' && *j->at != '\r')
            return;
    }
}

/* ---- strings --------------------------------------------------------------------------------- */

static size_t write_utf8(uint32_t code, char *out)
{
    size_t more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0x00, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(lead[more] | code >> (6 * more));
    for (size_t i = 1; i <= more; i++)
        out[i] = (char)(0x80 | (code >> (6 * (more - i)) & 0x3F));
    return more + 1;
}

/* Four hexadecimal digits behind \u. */
static bool read_code(const struct json *j, const char *at, uint32_t *code)
{
    static const char digits[] = "0123456789abcdef";
    if (j->end - at < 6 || at[0] != '\\' || at[1] != 'u')
        return false;
    *code = 0;
    for (int i = 2; i < 6; i++) {
        char lower = at[i] >= 'A' && at[i] <= 'F' ? (char)(at[i] | 0x20) : at[i];
        const char *digit = lower ? strchr(digits, lower) : NULL;
        if (!digit)
            return false;
        *code = *code << 4 | (uint32_t)(digit - digits);
    }
    return true;
}

/* At the backslash; writes no more than it reads. Half a surrogate pair becomes U+FFFD. */
static enum rt_status read_escape(struct json *j, char **out)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    uint32_t code = 0, low = 0;
    if (read_code(j, j->at, &code)) {
        j->at += 6;
        if (code >= 0xD800 && code <= 0xDBFF && read_code(j, j->at, &low) && low >= 0xDC00 &&
            low <= 0xDFFF) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            j->at += 6;
        }
        *out += write_utf8(code >= 0xD800 && code <= 0xDFFF ? 0xFFFD : code, *out);
        return RT_OK;
    }
    char letter = j->end - j->at > 1 ? j->at[1] : '\0';
    const char *found = letter ? strchr(letters, letter) : NULL;
    if (!found)
        return fail_syntax(j, "found unknown escape character");
    *(*out)++ = meanings[found - letters];
    j->at += 2;
    return RT_OK;
}

/* The place of the closing quote, from behind the opening one; null: none. */
static const char *find_quote(const struct json *j)
{
    bool escaped = false;
    for (const char *at = j->at; at < j->end && *at != '\n'; at++) {
        if (*at == '"' && !escaped)
            return at;
        escaped = *at == '\\' && !escaped;
    }
    return NULL;
}

/* At the opening quote; ends behind the closing one. */
static enum rt_status read_string(struct json *j, const char **text, uint32_t *bytes)
{
    struct rt_tree_build *b = j->build;
    j->at++;
    const char *quote = find_quote(j);
    if (!quote)
        return fail_syntax(j, "did not find expected '\"' at the end of a string");
    char *out = rt_tree_reserve(b->tree, (size_t)(quote - j->at) + 1);
    RT_REQUIRE(out, b->err, RT_ERR_NOMEM, "no memory to read %s", b->source->name);
    *text = out;
    while (j->at < quote) {
        if (*j->at == '\\') {
            RT_TRY(read_escape(j, &out));
            continue;
        }
        if ((unsigned char)*j->at < ' ')
            return fail_syntax(j, "control characters are not allowed");
        size_t length = rt_utf8_bytes((const unsigned char *)j->at, (const unsigned char *)quote);
        if (length == 0)
            return fail_syntax(j, "invalid UTF-8");
        memcpy(out, j->at, length);
        out += length;
        j->at += length;
    }
    *out = '\0';
    *bytes = (uint32_t)(out - *text);
    j->at++;
    return RT_OK;
}

/* ---- values ---------------------------------------------------------------------------------- */

static bool is_number(const char *text)
{
    text += *text == '-';
    size_t whole = rt_decimal_digits(text);
    if (whole == 0 || (whole > 1 && text[0] == '0'))
        return false;
    text += whole;
    if (*text == '.') {
        size_t fraction = rt_decimal_digits(++text);
        if (fraction == 0)
            return false;
        text += fraction;
    }
    return rt_decimal_ends(text);
}

static bool is_word(const char *text)
{
    static const char *const words[] = {"null", "true", "false", "NaN", "Infinity", "-Infinity"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(text, words[i]) == 0)
            return true;
    return false;
}

/* Everything up to what can follow a value. */
static enum rt_status read_plain(struct json *j, const char **text, uint32_t *bytes)
{
    struct rt_tree_build *b = j->build;
    const char *start = j->at;
    char shown[RT_NODE_SHOWN_BYTES], key[RT_NODE_SHOWN_BYTES] = "a value";
    while (j->at < j->end && !strchr(",]} \t\r\n", *j->at))
        j->at++;
    *bytes = (uint32_t)(j->at - start);
    char *copy = rt_tree_reserve(b->tree, (size_t)*bytes + 1);
    RT_REQUIRE(copy, b->err, RT_ERR_NOMEM, "no memory to read %s", b->source->name);
    memcpy(copy, start, *bytes);
    copy[*bytes] = '\0';
    *text = copy;
    if (is_number(copy) || is_word(copy))
        return RT_OK;
    rt_text_show(copy, *bytes, shown);
    if (b->key)
        rt_text_show(b->key, b->key_bytes, key);
    return rt_fail(b->err, RT_ERR_CONFIG,
                   "%s:%u: not JSON: %s is %s: must be a string in quotes, a number, true, false, "
                   "null, [ or {",
                   b->source->name, j->line, key, *bytes ? shown : "nothing");
}

static enum rt_status read_value(struct json *j)
{
    skip_space(j);
    struct rt_node node = {.kind = RT_NODE_SCALAR, .line = j->line};
    if (peek(j) == '{' || peek(j) == '[') {
        node.kind = *j->at++ == '{' ? RT_NODE_MAPPING : RT_NODE_LIST;
    } else if (peek(j) == '"') {
        node.quoted = true;
        RT_TRY(read_string(j, &node.text, &node.text_bytes));
    } else {
        RT_TRY(read_plain(j, &node.text, &node.text_bytes));
    }
    return rt_build_value(j->build, &node);
}

static enum rt_status read_key(struct json *j)
{
    const char *text = NULL;
    uint32_t bytes = 0, line = j->line;
    if (peek(j) != '"')
        return fail_syntax(j, "did not find expected key in quotes");
    RT_TRY(read_string(j, &text, &bytes));
    skip_space(j);
    if (peek(j) != ':')
        return fail_syntax(j, "did not find expected ':' behind a key");
    j->at++;
    rt_build_key(j->build, text, bytes, line);
    return RT_OK;
}

/* The next member or element of what is open, or its end. */
static enum rt_status read_next(struct json *j)
{
    const struct rt_node *open = j->build->open[j->build->depth - 1];
    bool is_mapping = open->kind == RT_NODE_MAPPING;
    skip_space(j);
    if (peek(j) == (is_mapping ? '}' : ']')) {
        j->at++;
        rt_build_close(j->build);
        return RT_OK;
    }
    if (open->count > 0) {
        if (peek(j) != ',')
            return fail_syntax(j, is_mapping ? "did not find expected ',' or '}'"
                                             : "did not find expected ',' or ']'");
        j->at++;
        skip_space(j);
    }
    if (is_mapping)
        RT_TRY(read_key(j));
    return read_value(j);
}

enum rt_status rt_build_json(struct rt_tree_build *b)
{
    const struct rt_source *source = b->source;
    struct json j = {.build = b, .line = 1, .at = source->text};
    j.end = source->bytes ? source->text + source->bytes : source->text;
    if (source->bytes >= 3 && memcmp(j.at, "\xEF\xBB\xBF", 3) == 0)
        j.at += 3;
    skip_space(&j);
    if (j.at == j.end)
        return RT_OK;
    RT_TRY(read_value(&j));
    while (b->depth > 0)
        RT_TRY(read_next(&j));
    skip_space(&j);
    RT_REQUIRE(j.at == j.end, b->err, RT_ERR_CONFIG, "%s:%u: a second document begins: must be one",
               source->name, j.line);
    return RT_OK;
}
