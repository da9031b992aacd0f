/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/dump.h"

#include <stdarg.h>
#include <stdio.h>

#define DESCRIPTION_BYTES 256

/* Counts everything and writes what fits, so that one walk both measures and prints. */
struct writer {
    char *text;
    size_t capacity;
    size_t used;
};

static void put_char(struct writer *w, char c)
{
    if (w->used < w->capacity)
        w->text[w->used] = c;
    w->used++;
}

static RT_PRINTF(2, 3) void put(struct writer *w, const char *fmt, ...)
{
    const bool room = w->used < w->capacity;
    va_list args;
    va_start(args, fmt);
    const int length =
        vsnprintf(room ? w->text + w->used : NULL, room ? w->capacity - w->used : 0, fmt, args);
    va_end(args);
    w->used += length > 0 ? (size_t)length : 0;
}

static void put_escaped(struct writer *w, const char *s, const char *line_end)
{
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            put_char(w, '\\');
        if (*s == '\n')
            put(w, "%s", line_end);
        else
            put_char(w, *s);
    }
}

static void put_stage(struct writer *w, const struct rt_program *p, uint32_t i)
{
    const struct rt_stage *const s = &p->stages[i];
    char what[DESCRIPTION_BYTES];
    rt_work_describe(s->work, what, sizeof(what));
    put(w, "    s%u [label=\"", i);
    put_escaped(w, s->label, " ");
    put(w, "\\n");
    put_escaped(w, rt_work_name(s->work), " ");
    if (what[0])
        put(w, "\\n");
    put_escaped(w, what, "\\n");
    if (s->trust != RT_STAGE_AUDITED)
        put(w, "\\nforeign: not audited");
    put(w, "\"%s];\n", s->work->kind == RT_WORK_CALL ? ", style=rounded" : "");
    uint32_t before[RT_MAX_BRANCHES];
    for (uint32_t k = rt_program_before(p, i, before); k > 0; k--)
        put(w, "    s%u -> s%u%s;\n", before[k - 1], i,
            rt_program_edge_programmatic(p, i) ? " [style=dashed]" : "");
}

size_t rt_program_dot(const struct rt_program *p, char *text, size_t capacity)
{
    struct writer w = {.text = text, .capacity = capacity};
    put(&w, "digraph \"%s\" {\n    node [shape=box];\n", rt_spec_name(&p->spec).text);
    for (uint32_t i = 0; i < p->count; i++)
        put_stage(&w, p, i);
    put(&w, "}\n");
    if (capacity > 0)
        text[w.used < capacity ? w.used : capacity - 1] = '\0';
    return w.used + 1;
}
