/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_number(const struct option *option, const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno || value < option->least ||
        value > option->most) {
        fprintf(stderr, "replayrt: %s %s: expected a number from %" PRIu64 " to %" PRIu64 "\n",
                option->name, text, option->least, option->most);
        return false;
    }
    *(uint64_t *)option->value = value;
    return true;
}

static bool unknown(const char *name, const struct option *options, unsigned count)
{
    fprintf(stderr, "replayrt: unknown option %s; there are", name);
    for (unsigned i = 0; i < count; i++)
        fprintf(stderr, " %s", options[i].name);
    fputc('\n', stderr);
    return false;
}

/* One option at argv[*at], and its value behind it. */
static bool read_option(int argc, char **argv, int *at, const struct option *options,
                        unsigned count)
{
    const char *name = argv[*at];
    unsigned i = 0;
    while (i < count && strcmp(options[i].name, name) != 0)
        i++;
    if (i == count)
        return unknown(name, options, count);
    if (options[i].kind == OPTION_FLAG) {
        *(bool *)options[i].value = true;
        return true;
    }
    if (++*at == argc) {
        fprintf(stderr, "replayrt: %s needs a value\n", name);
        return false;
    }
    if (options[i].kind == OPTION_NUMBER)
        return read_number(&options[i], argv[*at]);
    *(const char **)options[i].value = argv[*at];
    return true;
}

bool options_read(int argc, char **argv, const struct option *options, unsigned count,
                  const char **positional)
{
    if (positional)
        *positional = NULL;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "--", 2)) {
            if (!read_option(argc, argv, &i, options, count))
                return false;
        } else if (!positional) {
            fprintf(stderr, "replayrt: %s: only options are expected here\n", argv[i]);
            return false;
        } else if (*positional) {
            fprintf(stderr, "replayrt: one configuration at a time: %s, then %s\n", *positional,
                    argv[i]);
            return false;
        } else {
            *positional = argv[i];
        }
    }
    if (!positional || *positional)
        return true;
    fputs("replayrt: which configuration? see replayrt --help\n", stderr);
    return false;
}
