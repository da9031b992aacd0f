/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_JSON_H
#define RT_TOOLS_JSON_H

/*
 * What cJSON lacks for writing: integers, for its numbers are doubles; and one place for failures.
 * After json_begin no cJSON call returns null for want of memory, so that no value can be missing
 * silently: the program ends instead, with a message.
 */
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

void json_begin(void);

/* All digits. key: null where `to` is an array. */
void json_uint(cJSON *to, const char *key, uint64_t value);
/* A new object at the array's end. */
cJSON *json_element(cJSON *array);

/* A text from outside, such as a path: each byte that is no part of UTF-8 becomes U+FFFD. */
void json_text(cJSON *to, const char *key, const char *text);

/* Writes the document, indented or on one line, with a newline behind it, and deletes it. */
void json_end(cJSON *document, bool indented, FILE *to);

#endif
