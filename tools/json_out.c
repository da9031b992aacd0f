/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/json_out.h"

#include <inttypes.h>
#include <math.h>

static void escaped(FILE *to, const char *text)
{
    fputc('"', to);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < 0x20)
            fprintf(to, "\\u%04x", c);
        else
            fputc(c, to);
    }
    fputc('"', to);
}

static void new_line(const struct json_out *j)
{
    if (j->line)
        return;
    fputc('\n', j->to);
    for (unsigned i = 0; i < j->depth; i++)
        fputs("  ", j->to);
}

static void start(struct json_out *j, const char *key)
{
    if (j->depth) {
        if (!j->first)
            fputs(j->line ? ", " : ",", j->to);
        new_line(j);
    }
    j->first = false;
    if (key) {
        escaped(j->to, key);
        fputs(": ", j->to);
    }
}

void json_open(struct json_out *j, const char *key, char bracket)
{
    start(j, key);
    fputc(bracket, j->to);
    j->depth++;
    j->first = true;
}

void json_close(struct json_out *j, char bracket)
{
    bool empty = j->first;
    j->depth--;
    j->first = false;
    if (!empty)
        new_line(j);
    fputc(bracket, j->to);
    if (!j->depth)
        fputc('\n', j->to);
}

void json_text(struct json_out *j, const char *key, const char *value)
{
    start(j, key);
    escaped(j->to, value);
}

void json_uint(struct json_out *j, const char *key, uint64_t value)
{
    start(j, key);
    fprintf(j->to, "%" PRIu64, value);
}

/* JSON knows no NaN and no infinity. */
void json_real(struct json_out *j, const char *key, double value)
{
    start(j, key);
    if (isfinite(value))
        fprintf(j->to, "%.9g", value);
    else
        fputs("null", j->to);
}

void json_bool(struct json_out *j, const char *key, bool value)
{
    start(j, key);
    fputs(value ? "true" : "false", j->to);
}
