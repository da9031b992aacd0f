/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_OPTIONS_H
#define RT_TOOLS_OPTIONS_H

/* The command line: one table per command says which options there are. */
#include <stdbool.h>
#include <stdint.h>

struct option {
    const char *name; /* "--steps" */
    enum { OPTION_FLAG, OPTION_NUMBER, OPTION_REAL, OPTION_TEXT, OPTION_TEXTS, OPTION_DEVICE } kind;
    void *value;          /* bool, uint64_t, double, const char * or struct option_texts */
    uint64_t least, most; /* OPTION_NUMBER, OPTION_REAL: accepted values */
    bool *given;          /* set where the option is there; may be null */
};

/* The one kind of option that may be given more than once: its values, in their order. */
struct option_texts {
    const char **texts; /* the caller's, with room for as many as there are arguments */
    unsigned count;
};

/*
 * Reads options and exactly one positional argument (a path), in any order; none where positional
 * is null. Numbers are decimal. False after a message on stderr that names the argument and what
 * would be valid.
 */
bool options_read(int argc, char **argv, const struct option *options, unsigned count,
                  const char **positional);

#endif
