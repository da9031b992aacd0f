/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_JSON_OUT_H
#define RT_TOOLS_JSON_OUT_H

/* Writes JSON as it goes: commas, indentation and escapes are kept here, nesting by the caller. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json_out {
    FILE *to;
    unsigned depth;
    bool first; /* nothing written yet at this depth */
    bool line;  /* everything on one line, for a file with an object a line */
};

/* key: null inside an array and at the top. */
void json_open(struct json_out *j, const char *key, char bracket);
void json_close(struct json_out *j, char bracket);
void json_text(struct json_out *j, const char *key, const char *value);
void json_uint(struct json_out *j, const char *key, uint64_t value);
void json_real(struct json_out *j, const char *key, double value);
void json_bool(struct json_out *j, const char *key, bool value);

#endif
