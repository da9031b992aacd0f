/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/options.h"

#include "tools/complain.h"
#include "tools/nearest.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No command has more. */
#define MOST_OPTIONS 24

static bool read_number(const struct option *option, const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    /* Whoever writes 010 may mean 8. */
    const bool octal = text[0] == '0' && text[1];
    if (!isdigit((unsigned char)text[0]) || octal || *end || errno || value < option->least ||
        value > option->most) {
        complain("%s %s: expected a number from %" PRIu64 " to %" PRIu64, option->name, text,
                 option->least, option->most);
        return false;
    }
    *(uint64_t *)option->value = value;
    return true;
}

static bool read_real(const struct option *option, const char *text)
{
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    /* Hexadecimal, infinity and NaN are none; what is too small for a double is 0. */
    const bool decimal = *text && !text[strspn(text, "0123456789.eE+-")];
    if (!decimal || *end || (errno && value > 1) || !(value >= (double)option->least) ||
        !(value <= (double)option->most)) {
        complain("%s %s: expected a number from %" PRIu64 " to %" PRIu64 ", a fraction if need be",
                 option->name, text, option->least, option->most);
        return false;
    }
    *(double *)option->value = value;
    return true;
}

/* As a configuration's key has it. */
static bool read_device(const struct option *option, const char *text)
{
    const char *number = strncmp(text, "cuda:", 5) == 0 ? text + 5 : "";
    const size_t digits = strspn(number, "0123456789");
    const bool ordinal = digits && digits <= 4 && !number[digits] && (digits == 1 || *number > '0');
    if (!ordinal && strcmp(text, "auto") != 0 && strcmp(text, "host") != 0) {
        complain("%s %s: expected auto, host or cuda:N with N from 0 to 9999", option->name, text);
        return false;
    }
    *(const char **)option->value = text;
    return true;
}

static bool read_value(const struct option *option, const char *text)
{
    if (option->kind == OPTION_NUMBER)
        return read_number(option, text);
    if (option->kind == OPTION_REAL)
        return read_real(option, text);
    if (option->kind == OPTION_DEVICE)
        return read_device(option, text);
    if (option->kind == OPTION_TEXTS) {
        struct option_texts *all = option->value;
        all->texts[all->count++] = text;
        return true;
    }
    *(const char **)option->value = text;
    return true;
}

/* A known option whose value hangs on it by a =. */
static bool with_equals(const char *name, const struct option *options, unsigned count)
{
    const char *equals = strchr(name, '=');
    for (unsigned i = 0; equals && i < count; i++) {
        const size_t bytes = (size_t)(equals - name);
        if (strlen(options[i].name) != bytes || strncmp(options[i].name, name, bytes) != 0)
            continue;
        const bool flag = options[i].kind == OPTION_FLAG;
        complain("%s: options take no =, write %s%s%s", name, options[i].name, flag ? "" : " ",
                 flag ? "" : equals + 1);
        return true;
    }
    return false;
}

static bool unknown(const char *name, const struct option *options, unsigned count)
{
    if (with_equals(name, options, count))
        return false;
    const char *names[MOST_OPTIONS] = {NULL};
    char list[512] = "";
    size_t used = 0;
    for (unsigned i = 0; i < count && used < sizeof(list); i++) {
        names[i] = options[i].name;
        used += (size_t)snprintf(list + used, sizeof(list) - used, " %s", names[i]);
    }
    const char *meant = nearest(name, names, count);
    complain("unknown option %s%s%s%s; there are%s", name, meant ? "; did you mean " : "",
             meant ? meant : "", meant ? "?" : "", list);
    return false;
}

/* One option at argv[*at], and its value behind it. */
static bool read_option(int argc, char **argv, int *at, const struct option *options,
                        unsigned count, bool *seen)
{
    const char *name = argv[*at];
    unsigned i = 0;
    while (i < count && strcmp(options[i].name, name) != 0)
        i++;
    if (i == count)
        return unknown(name, options, count);
    if (seen[i] && options[i].kind != OPTION_TEXTS) {
        complain("%s is given twice", name);
        return false;
    }
    seen[i] = true;
    if (options[i].given)
        *options[i].given = true;
    if (options[i].kind == OPTION_FLAG) {
        *(bool *)options[i].value = true;
        return true;
    }
    if (++*at == argc) {
        complain("%s needs a value", name);
        return false;
    }
    return read_value(&options[i], argv[*at]);
}

bool options_read(int argc, char **argv, const struct option *options, unsigned count,
                  const char **positional)
{
    bool seen[MOST_OPTIONS] = {false};
    assert(count <= MOST_OPTIONS);
    if (positional)
        *positional = NULL;
    for (int i = 0; i < argc; i++) {
        /* A path that begins with a dash is written ./-path. */
        if (argv[i][0] == '-') {
            if (!read_option(argc, argv, &i, options, count, seen))
                return false;
        } else if (!positional) {
            complain("%s: only options are expected here", argv[i]);
            return false;
        } else if (*positional) {
            complain("one configuration at a time: %s, then %s", *positional, argv[i]);
            return false;
        } else {
            *positional = argv[i];
        }
    }
    if (!positional || *positional)
        return true;
    complain("which configuration? see replayrt --help");
    return false;
}
