/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_JSON_IN_H
#define RT_TOOLS_JSON_IN_H

/*
 * Reads JSON as it goes: the caller asks for what must come next, and every answer is true where it
 * came. After a false one the reader stands somewhere inside what was wrong, and is no longer used.
 * Strict: no comments, no trailing commas, no bare words.
 */
#include <stdbool.h>
#include <stddef.h>

struct json_in {
    const char *at, *end; /* borrowed, not NUL-terminated */
};

/* A number as it is written. */
struct json_number {
    const char *text;
    size_t length;
    bool integer; /* neither fraction nor exponent */
};

/* Skips blanks. True, and past it, where the next character is c. */
bool json_in_take(struct json_in *j, char c);
/* Skips blanks. True at the end of the text. */
bool json_in_end(struct json_in *j);
bool json_in_number(struct json_in *j, struct json_number *out);
/* Copies up to bytes - 1 characters and a NUL; *length gets how many there were. What is neither
 * printable nor part of UTF-8 becomes '?', as does every escape of more than a character of ASCII.
 */
bool json_in_string(struct json_in *j, char *to, size_t bytes, size_t *length);
/* Any value, nested at most 32 deep. */
bool json_in_skip(struct json_in *j);

#endif
