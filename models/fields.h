/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_FIELDS_H
#define RT_MODELS_FIELDS_H

/*
 * The members of a config.json by name. Each function looks through the whole text, which is some
 * kilobytes; a member that is null counts as not given. Errors are RT_ERR_CONFIG with file, line,
 * key, value and what it must be; `otherwise` is the value of a member that is not given, null
 * where it must be.
 */
#include "models/fail.h"

#include <stdbool.h>

#define RT_FIELD_WORD_BYTES 64

struct rt_fields {
    const char *label;
    const char *prefix; /* of its keys, for messages: "" or "text_config." */
    const char *whole;  /* where lines are counted from */
    const char *text;
    size_t bytes;
};

/* Borrows the text, which must be one JSON object. */
enum rt_status rt_fields_open(struct rt_fields *out, const char *label, const void *text,
                              size_t bytes, struct rt_error *err);

/* Also where it is given more than once, which reading it then refuses. */
bool rt_field_is_given(const struct rt_fields *f, const char *key);
/* Whether it is the number 0, however it is written. */
bool rt_field_is_zero(const struct rt_fields *f, const char *key);
/* The object that is a member, as fields of their own; *is_there 0 where there is none. */
enum rt_status rt_fields_below(const struct rt_fields *f, const char *key, const char *prefix,
                               struct rt_fields *out, bool *is_there, struct rt_error *err);

/* A whole number from least to most. */
enum rt_status rt_field_count(const struct rt_fields *f, const char *key, uint32_t least,
                              uint32_t most, const uint32_t *otherwise, uint32_t *out,
                              struct rt_error *err);
/* Above 0, and one that a float holds. */
enum rt_status rt_field_number(const struct rt_fields *f, const char *key, const double *otherwise,
                               double *out, struct rt_error *err);
enum rt_status rt_field_flag(const struct rt_fields *f, const char *key, const bool *otherwise,
                             bool *out, struct rt_error *err);
/* A string shorter than RT_FIELD_WORD_BYTES. */
enum rt_status rt_field_word(const struct rt_fields *f, const char *key, const char *otherwise,
                             char out[RT_FIELD_WORD_BYTES], struct rt_error *err);
/* One of `count` words; *out is which. */
enum rt_status rt_field_choice(const struct rt_fields *f, const char *key, const char *const *words,
                               uint32_t count, const uint32_t *otherwise, uint32_t *out,
                               struct rt_error *err);

/* A list of whole numbers from 0 to most, at most `capacity` of them, or one alone. *count is 0
 * where it is not given. */
enum rt_status rt_field_counts(const struct rt_fields *f, const char *key, uint32_t most,
                               uint32_t capacity, uint32_t *out, uint32_t *count,
                               struct rt_error *err);
/* A list of exactly `count` words, each of them `off` (0) or `on` (1). It must be given. */
enum rt_status rt_field_switches(const struct rt_fields *f, const char *key, const char *off,
                                 const char *on, uint32_t count, uint8_t *out,
                                 struct rt_error *err);

/* The member is given and says what the library does not do. */
enum rt_status rt_field_refuse(const struct rt_fields *f, const char *key, const char *must,
                               struct rt_error *err);

#endif
