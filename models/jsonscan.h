/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_JSONSCAN_H
#define RT_MODELS_JSONSCAN_H

/*
 * JSON as RFC 8259 has it, read from left to right without a tree: who reads asks for what he
 * expects next, and what was not there ends the scan. A header of a hundred thousand tensors so
 * costs its own length and no memory.
 *
 *   rt_scan_enter(s, '{');
 *   while (rt_scan_more(s)) {
 *       rt_scan_key(s, &key);  ... rt_scan_string, rt_scan_whole, rt_scan_enter, rt_scan_skip
 *   }
 *   rt_scan_end(s);            then s->problem is null where all of it was good
 *
 * Behind the first problem all functions do nothing and return false. Stricter than the standard
 * where two readers may differ: text is UTF-8 without a NUL, also none that is escaped.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RT_SCAN_MAX_DEPTH 64

struct rt_scan {
    const char *begin, *at, *end;
    const char *problem; /* null: none so far; else what is wrong at byte `at - begin` */
    bool has_infinities; /* NaN, Infinity and -Infinity are numbers; set behind rt_scan_open */
    uint32_t depth;
    uint64_t is_list, has_element; /* bit d: of the container open at depth d */
};

/* A string between its quotes, as it stands in the text. */
struct rt_scan_text {
    const char *at;
    size_t bytes;
};

enum rt_scan_kind {
    RT_SCAN_BAD = 0,
    RT_SCAN_OBJECT,
    RT_SCAN_LIST,
    RT_SCAN_STRING,
    RT_SCAN_NUMBER,
    RT_SCAN_TRUE,
    RT_SCAN_FALSE,
    RT_SCAN_NULL
};

void rt_scan_open(struct rt_scan *s, const void *text, size_t bytes);
/* Of a place in a text, counted from 1 as editors do; *column, which may be null, in bytes. */
uint32_t rt_scan_line(const char *text, const char *at, uint32_t *column);
/* What begins next; no problem if it is nothing that can. */
enum rt_scan_kind rt_scan_peek(struct rt_scan *s);
bool rt_scan_enter(struct rt_scan *s, char bracket);
/* Another member or element follows; false at the end of what was entered, which is left. */
bool rt_scan_more(struct rt_scan *s);
bool rt_scan_key(struct rt_scan *s, struct rt_scan_text *out);
bool rt_scan_string(struct rt_scan *s, struct rt_scan_text *out);
/* A number without sign, fraction and exponent, of 64 bits. */
bool rt_scan_whole(struct rt_scan *s, uint64_t *out);
/* Any number, as it stands in the text. */
bool rt_scan_number(struct rt_scan *s, struct rt_scan_text *out);
/* Any value; the whole of it is checked. */
bool rt_scan_skip(struct rt_scan *s);
/* Nothing but space is left. */
bool rt_scan_end(struct rt_scan *s);

/* The string without escapes and with a NUL; `out` has room for bytes + 1. Half a surrogate pair
 * becomes U+FFFD. Returns its length. */
size_t rt_scan_unescape(const struct rt_scan_text *text, char *out);
bool rt_scan_is(const struct rt_scan_text *text, const char *word);

#endif
