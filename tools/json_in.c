/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/json_in.h"

#include <string.h>

#define MOST_DEPTH 32u

static void skip_blanks(struct json_in *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\r' || *j->at == '\n'))
        j->at++;
}

bool json_in_take(struct json_in *j, char c)
{
    skip_blanks(j);
    if (j->at == j->end || *j->at != c)
        return false;
    j->at++;
    return true;
}

bool json_in_end(struct json_in *j)
{
    skip_blanks(j);
    return j->at == j->end;
}

/* At least one. */
static bool digits(struct json_in *j)
{
    const char *from = j->at;
    while (j->at < j->end && *j->at >= '0' && *j->at <= '9')
        j->at++;
    return j->at > from;
}

static bool one_of(struct json_in *j, const char *characters)
{
    if (j->at == j->end || !*j->at || !strchr(characters, *j->at))
        return false;
    j->at++;
    return true;
}

bool json_in_number(struct json_in *j, struct json_number *out)
{
    skip_blanks(j);
    const char *from = j->at;
    (void)one_of(j, "-");
    const char *first = j->at;
    if (!digits(j) || (*first == '0' && j->at - first > 1))
        return false;
    bool integer = true;
    if (one_of(j, ".")) {
        integer = false;
        if (!digits(j))
            return false;
    }
    if (one_of(j, "eE")) {
        integer = false;
        (void)one_of(j, "+-");
        if (!digits(j))
            return false;
    }
    *out = (struct json_number){.text = from, .length = (size_t)(j->at - from), .integer = integer};
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Behind the backslash. */
static bool escape(struct json_in *j, unsigned *out)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (one_of(j, letters)) {
        *out = (unsigned char)meant[strchr(letters, j->at[-1]) - letters];
        return true;
    }
    if (!one_of(j, "u") || j->end - j->at < 4)
        return false;
    *out = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*j->at++);
        if (digit < 0)
            return false;
        *out = *out * 16 + (unsigned)digit;
    }
    return true;
}

bool json_in_string(struct json_in *j, char *to, size_t bytes, size_t *length)
{
    if (!json_in_take(j, '"'))
        return false;
    size_t count = 0;
    while (j->at < j->end && *j->at != '"') {
        unsigned character = (unsigned char)*j->at++;
        bool raw = character != '\\';
        if (character < 0x20 || (!raw && !escape(j, &character)))
            return false;
        if (character < 0x20 || character == 0x7f || (!raw && character > 0x7f))
            character = '?';
        if (count + 1 < bytes)
            to[count] = (char)character;
        count++;
    }
    to[count + 1 < bytes ? count : bytes - 1] = '\0';
    *length = count;
    return json_in_take(j, '"');
}

static bool word(struct json_in *j, const char *text)
{
    size_t length = strlen(text);
    if ((size_t)(j->end - j->at) < length || memcmp(j->at, text, length) != 0)
        return false;
    j->at += length;
    return true;
}

static bool skip_scalar(struct json_in *j)
{
    char unused[1];
    size_t length;
    struct json_number number;
    skip_blanks(j);
    if (j->at < j->end && *j->at == '"')
        return json_in_string(j, unused, sizeof(unused), &length);
    return word(j, "true") || word(j, "false") || word(j, "null") || json_in_number(j, &number);
}

/* Up to and with a value's first token: '{' and '[' are entered, with the key in the former. */
static bool enter(struct json_in *j, char *open, unsigned *depth)
{
    bool object = json_in_take(j, '{');
    if (!object && !json_in_take(j, '['))
        return skip_scalar(j);
    if (*depth == MOST_DEPTH)
        return false;
    open[(*depth)++] = object ? '}' : ']';
    return true;
}

static bool key(struct json_in *j)
{
    char unused[1];
    size_t length;
    return json_in_string(j, unused, sizeof(unused), &length) && json_in_take(j, ':');
}

bool json_in_skip(struct json_in *j)
{
    char open[MOST_DEPTH];
    unsigned depth = 0;
    if (!enter(j, open, &depth))
        return false;
    bool empty = depth > 0; /* nothing yet in what was opened last */
    while (depth > 0) {
        char close = open[depth - 1];
        if (json_in_take(j, close)) {
            depth--;
            empty = false;
            continue;
        }
        unsigned before = depth;
        if ((!empty && !json_in_take(j, ',')) || (close == '}' && !key(j)) ||
            !enter(j, open, &depth))
            return false;
        empty = depth > before;
    }
    return true;
}
