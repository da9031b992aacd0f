/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_CONFIG_KEYS_H
#define RT_CONFIG_CONFIG_KEYS_H

/*
 * The keys of a configuration as a table (config_keys.inc), and what can be done with one of them.
 * A value lies at an offset of struct rt_config_draft, which begins with the struct rt_config: so a
 * key with a field of its own is good for both, and `values` below is either.
 */
#include "config/tree.h"
#include "replayrt/rt.h"

enum rt_key_id {
#define RT_KEY(id, ...) RT_KEY_##id,
#define RT_FILE_KEY RT_KEY
#include "config/config_keys.inc"
#undef RT_KEY
#undef RT_FILE_KEY
    RT_KEY_COUNT
};

/* A list whose `must` begins with auto has that word in a file too: it writes nothing. */
enum rt_key_holds {
    RT_HOLDS_INTEGER = 0, /* uint32_t or uint64_t, min..max */
    RT_HOLDS_CHOICE,      /* uint32_t, one of the numbers in `must` */
    RT_HOLDS_NUMBER,      /* double, above 0, at most `most` */
    RT_HOLDS_WORD,        /* an enum: the place of the word in `must` */
    RT_HOLDS_BOOLEAN,     /* uint32_t, 0 or 1 */
    RT_HOLDS_LIST,        /* uint32_t[capacity], ascending, each min..max, a count beside it */
    RT_HOLDS_NUMBERS,     /* double[capacity], each above 0, 0 behind the last */
    RT_HOLDS_DEVICE,      /* char[]: auto, host, cuda:N */
    RT_HOLDS_PATH         /* const char *, the text of the node it was read from */
};

struct rt_key {
    const char *path;  /* in a file: "graphs.ring_depth" */
    const char *field; /* of struct rt_config, for messages; null: of files only */
    enum rt_key_holds holds;
    size_t offset, bytes, count_offset;
    uint64_t min, max;
    double most;
    uint32_t capacity;
    const char *must;    /* what a value must be, for messages: "an integer from 2 to 64" */
    const char *each;    /* what an element of a list must be */
    const char *preset;  /* the default, as a file would write it; null: none */
    bool required;       /* where anything of its section is given */
    const char *meaning; /* a sentence of Markdown */
};
/* Static storage. */
const struct rt_key *rt_key_of(enum rt_key_id id);

/* The first thing wrong with a value, fit for a message about the struct or about the file. */
struct rt_key_fault {
    enum rt_status status; /* RT_ERR_GEOMETRY for the geometry, RT_ERR_CONFIG for the rest */
    enum rt_key_id id;
    int32_t element; /* of a list; -1: the value as a whole */
    char value[96];
    char must[240];
};
/* Says what is wrong with a value, in the table's words where `must` is null. Returns false, so
 * that it can stand after `return`. */
bool rt_key_blame(struct rt_key_fault *fault, enum rt_key_id id, const char *must);

/* Writes the default. */
void rt_key_reset(enum rt_key_id id, void *values);
/* Reads a value from a file; false, and why, where it does not have the type or the range. */
bool rt_key_read(enum rt_key_id id, const struct rt_node *node, void *values,
                 struct rt_key_fault *fault);
/* Whether the value is in its range; false, and why, where not. What is optional may be 0. */
bool rt_key_check(enum rt_key_id id, const void *values, struct rt_key_fault *fault);

#endif
