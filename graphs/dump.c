/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/dump.h"

#include <stdarg.h>
#include <stdio.h>

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

static void put_escaped(struct writer *w, const char *s)
{
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            put_char(w, '\\');
        put_char(w, (char)(*s == '\n' ? ' ' : *s));
    }
}

static void put_launch(struct writer *w, const struct rt_launch *l)
{
    put(w, "\\n");
    put_escaped(w, l->entry);
    put(w, "\\ngrid %ux%ux%u block %ux%ux%u", l->grid[0], l->grid[1], l->grid[2], l->block[0],
        l->block[1], l->block[2]);
    if (l->cluster_x > 1)
        put(w, " cluster %u", l->cluster_x);
    if (l->smem_bytes > 0)
        put(w, "\\n%u bytes shared", l->smem_bytes);
}

static void put_stage(struct writer *w, const struct rt_program *p, uint32_t i)
{
    const struct rt_stage *const s = &p->stages[i];
    put(w, "    s%u [label=\"", i);
    put_escaped(w, s->label);
    if (s->kind == RT_STAGE_LAUNCH)
        put_launch(w, s->launch);
    else
        put(w, "\\ncallback");
    put(w, "\"%s];\n", s->kind == RT_STAGE_CALL ? ", style=rounded" : "");
    if (i > 0)
        put(w, "    s%u -> s%u%s;\n", i - 1, i,
            rt_program_edge_programmatic(p, i) ? " [style=dashed]" : "");
}

size_t rt_program_dot(const struct rt_program *p, char *text, size_t capacity)
{
    struct writer w = {.text = text, .capacity = capacity};
    put(&w, "digraph \"batch %u, query length %u\" {\n    node [shape=box];\n", p->batch,
        p->query_len);
    for (uint32_t i = 0; i < p->count; i++)
        put_stage(&w, p, i);
    put(&w, "}\n");
    if (capacity > 0)
        text[w.used < capacity ? w.used : capacity - 1] = '\0';
    return w.used + 1;
}
