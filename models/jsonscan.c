/* SPDX-License-Identifier: Apache-2.0 */
#include "models/jsonscan.h"

#include <string.h>

#define LONGEST_WORD 64 /* that anybody here looks for */

static bool fail(struct rt_scan *s, const char *problem)
{
    if (!s->problem)
        s->problem = problem;
    return false;
}

uint32_t rt_scan_line(const char *text, const char *at, uint32_t *column)
{
    uint32_t line = 1;
    const char *begin = text;
    for (const char *c = text; c < at; c++)
        if (*c == '\n') {
            line++;
            begin = c + 1;
        }
    if (column)
        *column = (uint32_t)(at - begin) + 1;
    return line;
}

void rt_scan_open(struct rt_scan *s, const void *text, size_t bytes)
{
    *s = (struct rt_scan){.begin = text};
    s->at = s->begin;
    s->end = bytes ? s->begin + bytes : s->begin;
}

static void skip_space(struct rt_scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

/* The next character, NUL at the end: no text that passes has one, so the two need not differ. */
static char next(const struct rt_scan *s)
{
    return s->at < s->end ? *s->at : '\0';
}

enum rt_scan_kind rt_scan_peek(struct rt_scan *s)
{
    if (s->problem)
        return RT_SCAN_BAD;
    skip_space(s);
    switch (next(s)) {
    case '{':
        return RT_SCAN_OBJECT;
    case '[':
        return RT_SCAN_LIST;
    case '"':
        return RT_SCAN_STRING;
    case 't':
        return RT_SCAN_TRUE;
    case 'f':
        return RT_SCAN_FALSE;
    case 'n':
        return RT_SCAN_NULL;
    case '-':
        return RT_SCAN_NUMBER;
    case 'N':
    case 'I':
        return s->has_infinities ? RT_SCAN_NUMBER : RT_SCAN_BAD;
    default:
        return next(s) >= '0' && next(s) <= '9' ? RT_SCAN_NUMBER : RT_SCAN_BAD;
    }
}

/* ---- containers ------------------------------------------------------------------------------ */

bool rt_scan_enter(struct rt_scan *s, char bracket)
{
    if (rt_scan_peek(s) != (bracket == '{' ? RT_SCAN_OBJECT : RT_SCAN_LIST))
        return fail(s, bracket == '{' ? "no object" : "no list");
    if (s->depth == RT_SCAN_MAX_DEPTH)
        return fail(s, "more than 64 levels");
    const uint64_t bit = UINT64_C(1) << s->depth++;
    s->is_list = bracket == '[' ? s->is_list | bit : s->is_list & ~bit;
    s->has_element &= ~bit;
    s->at++;
    return true;
}

bool rt_scan_more(struct rt_scan *s)
{
    if (s->problem || s->depth == 0)
        return false;
    const uint64_t bit = UINT64_C(1) << (s->depth - 1);
    const bool is_list = s->is_list & bit;
    skip_space(s);
    if (next(s) == (is_list ? ']' : '}')) {
        s->at++;
        s->depth--;
        return false;
    }
    if (s->has_element & bit) {
        if (next(s) != ',')
            return fail(s, is_list ? "no ',' or ']'" : "no ',' or '}'");
        s->at++;
    }
    s->has_element |= bit;
    return true;
}

bool rt_scan_end(struct rt_scan *s)
{
    if (s->problem)
        return false;
    skip_space(s);
    return s->at == s->end || fail(s, "more than one value");
}

/* ---- strings --------------------------------------------------------------------------------- */

/* Bytes of the well-formed UTF-8 character at `text`: shortest form, no surrogate, at most
 * U+10FFFF. 0: there is none. */
static size_t character_bytes(const unsigned char *text, size_t bytes)
{
    const unsigned char first = text[0];
    if (first < 0x80)
        return 1;
    const size_t count = first < 0xc2   ? 0
                         : first < 0xe0 ? 2
                         : first < 0xf0 ? 3
                         : first < 0xf5 ? 4
                                        : 0;
    if (count == 0 || count > bytes)
        return 0;
    for (size_t i = 1; i < count; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    const bool overlong = (first == 0xe0 && text[1] < 0xa0) || (first == 0xf0 && text[1] < 0x90);
    const bool surrogate = first == 0xed && text[1] >= 0xa0;
    const bool beyond = first == 0xf4 && text[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : count;
}

/* Four hexadecimal digits behind \u, at the backslash. */
static bool read_code(const char *at, const char *end, uint32_t *code)
{
    if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
        return false;
    *code = 0;
    for (int i = 2; i < 6; i++) {
        const char c = at[i];
        const uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                               : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10
                               : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A') + 10
                                                      : 16;
        if (digit == 16)
            return false;
        *code = *code << 4 | digit;
    }
    return true;
}

/* At a backslash. */
static bool skip_escape(struct rt_scan *s)
{
    uint32_t code = 0;
    const char letter = s->end - s->at > 1 ? s->at[1] : '\0';
    if (read_code(s->at, s->end, &code)) {
        if (code == 0)
            return fail(s, "an escaped NUL");
        s->at += 6;
        return true;
    }
    if (!letter || !strchr("\"\\/bfnrt", letter))
        return fail(s, "an unknown escape");
    s->at += 2;
    return true;
}

bool rt_scan_string(struct rt_scan *s, struct rt_scan_text *out)
{
    if (rt_scan_peek(s) != RT_SCAN_STRING)
        return fail(s, "no string");
    const char *const begin = ++s->at;
    while (s->at < s->end && *s->at != '"') {
        const unsigned char byte = (unsigned char)*s->at;
        const size_t count =
            character_bytes((const unsigned char *)s->at, (size_t)(s->end - s->at));
        if (byte == '\\') {
            if (!skip_escape(s))
                return false;
            continue;
        }
        if (count == 0)
            return fail(s, "text that is no UTF-8");
        if (byte < ' ')
            return fail(s, byte ? "a control character in a string" : "a NUL");
        s->at += count;
    }
    if (s->at == s->end)
        return fail(s, "a string without an end");
    *out = (struct rt_scan_text){.at = begin, .bytes = (size_t)(s->at - begin)};
    s->at++;
    return true;
}

bool rt_scan_key(struct rt_scan *s, struct rt_scan_text *out)
{
    if (!rt_scan_string(s, out))
        return false;
    skip_space(s);
    if (next(s) != ':')
        return fail(s, "no ':' behind a key");
    s->at++;
    return true;
}

static size_t write_utf8(uint32_t code, char *out)
{
    static const unsigned char lead[] = {0x00, 0xC0, 0xE0, 0xF0};
    const size_t more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    out[0] = (char)(lead[more] | code >> (6 * more));
    for (size_t i = 1; i <= more; i++)
        out[i] = (char)(0x80 | (code >> (6 * (more - i)) & 0x3F));
    return more + 1;
}

size_t rt_scan_unescape(const struct rt_scan_text *text, char *out)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *const end = text->at + text->bytes;
    char *to = out;
    for (const char *at = text->at; at < end;) {
        uint32_t code = 0, low = 0;
        if (read_code(at, end, &code)) {
            at += 6;
            if (code >= 0xD800 && code <= 0xDBFF && read_code(at, end, &low) && low >= 0xDC00 &&
                low <= 0xDFFF) {
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                at += 6;
            }
            to += write_utf8(code >= 0xD800 && code <= 0xDFFF ? 0xFFFD : code, to);
        } else if (*at == '\\') {
            *to++ = meanings[strchr(letters, at[1]) - letters];
            at += 2;
        } else {
            *to++ = *at++;
        }
    }
    *to = '\0';
    return (size_t)(to - out);
}

/* Escapes are at most six times as long as what they mean: a longer text is no word of ours. */
bool rt_scan_is(const struct rt_scan_text *text, const char *word)
{
    char plain[6 * LONGEST_WORD];
    if (text->bytes > sizeof(plain))
        return false;
    const size_t bytes = rt_scan_unescape(text, plain);
    return strlen(word) == bytes && memcmp(plain, word, bytes) == 0;
}

/* ---- numbers and words ----------------------------------------------------------------------- */

static size_t skip_digits(struct rt_scan *s)
{
    const char *const begin = s->at;
    while (next(s) >= '0' && next(s) <= '9')
        s->at++;
    return (size_t)(s->at - begin);
}

/* The number at which a scan stands is one of these, which is passed. */
static bool skip_infinity(struct rt_scan *s)
{
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    for (size_t i = 0; s->has_infinities && i < sizeof(words) / sizeof(words[0]); i++) {
        const size_t bytes = strlen(words[i]);
        if ((size_t)(s->end - s->at) < bytes || memcmp(s->at, words[i], bytes) != 0)
            continue;
        s->at += bytes;
        return true;
    }
    return false;
}

bool rt_scan_number(struct rt_scan *s, struct rt_scan_text *out)
{
    if (rt_scan_peek(s) != RT_SCAN_NUMBER)
        return fail(s, "no number");
    const char *const begin = s->at;
    if (skip_infinity(s)) {
        *out = (struct rt_scan_text){.at = begin, .bytes = (size_t)(s->at - begin)};
        return true;
    }
    s->at += next(s) == '-';
    const bool leading_zero = next(s) == '0';
    const size_t whole = skip_digits(s);
    bool good = whole == 1 || (whole > 1 && !leading_zero);
    if (good && next(s) == '.') {
        s->at++;
        good = skip_digits(s) > 0;
    }
    if (good && (next(s) == 'e' || next(s) == 'E')) {
        s->at++;
        s->at += next(s) == '-' || next(s) == '+';
        good = skip_digits(s) > 0;
    }
    if (!good)
        return fail(s, "a number that is none");
    *out = (struct rt_scan_text){.at = begin, .bytes = (size_t)(s->at - begin)};
    return true;
}

bool rt_scan_whole(struct rt_scan *s, uint64_t *out)
{
    struct rt_scan_text text;
    uint64_t value = 0;
    if (!rt_scan_number(s, &text))
        return false;
    for (size_t i = 0; i < text.bytes; i++) {
        const uint64_t digit = (uint64_t)(text.at[i] - '0'); /* huge where it is none */
        if (digit > 9 || value > (UINT64_MAX - digit) / 10) {
            s->at = text.at;
            return fail(s, "no whole number of 64 bits");
        }
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

static bool skip_word(struct rt_scan *s, const char *word)
{
    const size_t bytes = strlen(word);
    if ((size_t)(s->end - s->at) < bytes || memcmp(s->at, word, bytes) != 0)
        return fail(s, "a word that is none");
    s->at += bytes;
    return true;
}

/* A value that has no others in it. */
static bool skip_plain(struct rt_scan *s, enum rt_scan_kind kind)
{
    struct rt_scan_text text;
    switch (kind) {
    case RT_SCAN_STRING:
        return rt_scan_string(s, &text);
    case RT_SCAN_NUMBER:
        return rt_scan_number(s, &text);
    case RT_SCAN_TRUE:
        return skip_word(s, "true");
    case RT_SCAN_FALSE:
        return skip_word(s, "false");
    case RT_SCAN_NULL:
        return skip_word(s, "null");
    default:
        return fail(s, "no value");
    }
}

/* One value, or the opening bracket of one. */
static bool skip_start(struct rt_scan *s)
{
    const enum rt_scan_kind kind = rt_scan_peek(s);
    if (kind == RT_SCAN_OBJECT || kind == RT_SCAN_LIST)
        return rt_scan_enter(s, *s->at);
    return skip_plain(s, kind);
}

bool rt_scan_skip(struct rt_scan *s)
{
    const uint32_t outside = s->depth;
    struct rt_scan_text key;
    if (!skip_start(s))
        return false;
    while (s->depth > outside && !s->problem) {
        if (!rt_scan_more(s))
            continue; /* one level is closed, or there is a problem */
        if (!(s->is_list & UINT64_C(1) << (s->depth - 1)))
            (void)rt_scan_key(s, &key);
        if (!skip_start(s))
            return false;
    }
    return !s->problem;
}
