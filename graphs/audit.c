/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/audit.h"

#include "driver/matmul_plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* For messages, which all name the graph. */
#define NAME(a) (rt_spec_name(&(a)->program->spec).text)

struct audit {
    const struct rt_program *program;
    struct rt_driver *driver;
    const struct rt_audit_region *regions;
    uint32_t region_count;
};

static const char *type_name(enum rt_node_type type)
{
    switch (type) {
    case RT_NODE_KERNEL:
        return "kernel";
    case RT_NODE_MATMUL:
        return "matmul";
    case RT_NODE_COLLECTIVE:
        return "collective";
    case RT_NODE_CALL:
        return "call";
    case RT_NODE_MEMCPY:
        return "memcpy";
    case RT_NODE_MEMSET:
        return "memset";
    case RT_NODE_HOST:
        return "host function";
    case RT_NODE_MEM_ALLOC:
        return "memory allocation";
    case RT_NODE_MEM_FREE:
        return "memory free";
    case RT_NODE_EMPTY:
        return "empty";
    case RT_NODE_EVENT:
        return "event";
    case RT_NODE_OTHER:
        break;
    }
    return "unknown";
}

/* Bytes from addr to the end of a region that it lies in; 0: it lies in none. */
static uint64_t held_from(const struct audit *a, rt_addr addr)
{
    for (uint32_t i = 0; i < a->region_count; i++) {
        const struct rt_audit_region *const r = &a->regions[i];
        if (addr >= r->base && addr - r->base < r->bytes)
            return r->bytes - (addr - r->base);
    }
    return 0;
}

/* All of [addr, addr + bytes) in regions, of which one may begin where another ends: two weights
 * that are one operand. */
static bool registered(const struct audit *a, rt_addr addr, uint64_t bytes)
{
    uint64_t held = held_from(a, addr);
    while (held > 0 && held < bytes) {
        addr += held;
        bytes -= held;
        held = held_from(a, addr);
    }
    return held > 0;
}

static enum rt_status stray(const struct audit *a, const struct rt_stage *s,
                            const struct rt_node_info *info, uint32_t word, struct rt_error *err)
{
    return rt_fail(err, RT_ERR_AUDIT,
                   "graph (%s), stage \"%s\", kernel %s: parameter word %u "
                   "= 0x%" PRIx64 " lies in no registered allocation",
                   NAME(a), s->label, info->name, word, info->words[word]);
}

/* The name guards the order: no driver promises to list nodes as they were created. */
static enum rt_status check_launch(const struct audit *a, const struct rt_stage *s,
                                   const struct rt_node_info *info, struct rt_error *err)
{
    const struct rt_launch *const launch = &s->work->launch;
    const uint64_t mask = launch->address_mask;
    const uint32_t words = mask ? 64u - (uint32_t)__builtin_clzll(mask) : 0;
    RT_REQUIRE(info->name[0] == '\0' || strcmp(info->name, launch->entry) == 0, err, RT_ERR_AUDIT,
               "graph (%s), stage \"%s\": kernel %s where %s is expected", NAME(a), s->label,
               info->name, launch->entry);
    RT_REQUIRE(words <= info->word_count, err, RT_ERR_AUDIT,
               "graph (%s), stage \"%s\", kernel %s: %u parameter words "
               "where at least %u are expected",
               NAME(a), s->label, info->name, info->word_count, words);
    RT_REQUIRE(info->cooperative == launch->cooperative, err, RT_ERR_AUDIT,
               "graph (%s), stage \"%s\", kernel %s: the node is%s cooperative, must%s be", NAME(a),
               s->label, launch->entry, info->cooperative ? "" : " not",
               launch->cooperative ? "" : " not");
    for (uint32_t i = 0; i < words; i++)
        if (mask >> i & 1 && info->words[i] != 0 && !registered(a, info->words[i], 1))
            return stray(a, s, info, i, err);
    return RT_OK;
}

/* What a library's work reads and writes is known whole, not only where it begins. */
static enum rt_status check_spans(const struct audit *a, const struct rt_stage *s,
                                  const struct rt_span *spans, uint32_t count, struct rt_error *err)
{
    for (uint32_t i = 0; i < count; i++)
        RT_REQUIRE(registered(a, spans[i].address, spans[i].bytes), err, RT_ERR_AUDIT,
                   "graph (%s), stage \"%s\", %s: %s, %" PRIu64 " bytes at 0x%" PRIx64
                   ", lies in no registered allocation",
                   NAME(a), s->label, rt_work_name(s->work), spans[i].name, spans[i].bytes,
                   spans[i].address);
    return RT_OK;
}

/*
 * Small numbers by twos in a word, and the order of a tensor's modes, a byte each from 0 on, which
 * a library's products have that a stage may call: 4 and 64, or 0x403020100, look like addresses
 * where a driver maps memory of peers that low. Only the first 64 KiB of each 4 GiB are like them.
 */
static bool is_number(uint64_t word)
{
    uint32_t counted = 0;
    while (counted < 8 && (word >> 8 * counted & 0xff) == counted)
        counted++;
    const bool modes = counted >= 4 && (counted == 8 || word >> 8 * counted == 0);
    return modes || ((word & UINT32_MAX) <= UINT16_MAX && word >> 32 <= UINT16_MAX);
}

/* Of a caller's kernel nothing is known but what the driver knows. */
static enum rt_status check_callers(const struct audit *a, uint32_t stage,
                                    const struct rt_node_info *info, struct rt_error *err)
{
    struct rt_driver *const d = a->driver;
    for (uint32_t i = 0; i < info->word_count; i++) {
        if (is_number(info->words[i]) || registered(a, info->words[i], 1))
            continue;
        struct rt_address_range range;
        const enum rt_status status = RT_DRV(d, err, address_range, (d, info->words[i], &range));
        if (status != RT_OK)
            return rt_program_stage_failed(a->program, stage, status, err);
        if (range.bytes != 0)
            return stray(a, &a->program->stages[stage], info, i, err);
    }
    return RT_OK;
}

/*
 * A library's product that was captured: its operands are registered whole, and its kernels, which
 * name `named` of them, name all that the same way's kernels did when it was tried. A stage whose
 * kernels have stale addresses, or are another product's, does not.
 */
static enum rt_status check_product(const struct audit *a, const struct rt_stage *s, uint32_t named,
                                    struct rt_error *err)
{
    const struct rt_matmul *const m = &s->work->matmul;
    const struct {
        const char *name;
        rt_addr address;
    } operands[] = {{"a", m->a}, {"b", m->b}, {"d", m->d}, {"bias", m->bias}};
    const uint32_t missing = m->plan ? m->plan->named & ~named : 0;
    struct rt_span spans[RT_MAX_SPANS];
    RT_TRY(check_spans(a, s, spans, rt_matmul_spans(m, spans), err));
    for (uint32_t i = 0; i < sizeof(operands) / sizeof(operands[0]); i++)
        RT_REQUIRE(!(missing >> i & 1), err, RT_ERR_AUDIT,
                   "graph (%s), stage \"%s\", %s: none of its kernels names %s, 0x%" PRIx64
                   ", as those of the same way have done",
                   NAME(a), s->label, rt_work_name(s->work), operands[i].name, operands[i].address);
    return RT_OK;
}

/* Allocations in the graph would move under its replays; what is unknown stays refused. Events are
 * how a library keeps replays and its work on streams apart. */
static bool foreign_may_have(enum rt_stage_trust trust, enum rt_node_type type)
{
    return type == RT_NODE_KERNEL || type == RT_NODE_MEMCPY || type == RT_NODE_MEMSET ||
           type == RT_NODE_EMPTY || type == RT_NODE_EVENT ||
           (type == RT_NODE_HOST && trust == RT_STAGE_FOREIGN_HOST);
}

/* *named: operands of a library's product, as far as this node's words are they. */
static enum rt_status check_node(const struct audit *a, uint32_t stage, rt_dnode node,
                                 uint32_t *named, struct rt_error *err)
{
    struct rt_driver *const d = a->driver;
    const struct rt_stage *const s = &a->program->stages[stage];
    struct rt_node_info info;
    const enum rt_status status = RT_DRV(d, err, graph_node_info, (d, node, &info));
    if (status != RT_OK)
        return rt_program_stage_failed(a->program, stage, status, err);
    if (s->trust != RT_STAGE_AUDITED && foreign_may_have(s->trust, info.type))
        return RT_OK;
    struct rt_span spans[RT_MAX_SPANS];
    if (s->work->kind == RT_WORK_MATMUL && info.type == RT_NODE_MATMUL)
        return check_spans(a, s, spans, rt_matmul_spans(&info.matmul, spans), err);
    if (s->work->kind == RT_WORK_COLLECTIVE && info.type == RT_NODE_COLLECTIVE)
        return check_spans(a, s, spans, rt_collective_spans(&info.collective, spans), err);
    if (s->work->kind == RT_WORK_CALL && info.type == RT_NODE_CALL &&
        d->caps.kind == RT_DEVICE_KIND_HOST)
        return RT_OK;
    RT_REQUIRE(info.type == RT_NODE_KERNEL, err, RT_ERR_AUDIT,
               "graph (%s), stage \"%s\": %s node, only kernels may be in "
               "the graph",
               NAME(a), s->label, type_name(info.type));
    RT_REQUIRE(!info.is_opaque, err, RT_ERR_AUDIT,
               "graph (%s), stage \"%s\", kernel %s: the driver does not tell its parameters, so "
               "only a foreign stage may have it",
               NAME(a), s->label, info.name[0] ? info.name : "without a name");
    if (s->work->kind == RT_WORK_LAUNCH)
        return check_launch(a, s, &info, err);
    if (s->work->kind != RT_WORK_MATMUL)
        return check_callers(a, stage, &info, err);
    *named |= rt_matmul_named(&s->work->matmul, info.words, info.word_count);
    return RT_OK;
}

static enum rt_status check_nodes(const struct audit *a, const struct rt_graph *g,
                                  const rt_dnode *nodes, struct rt_error *err)
{
    for (uint32_t stage = 0; stage < a->program->count; stage++) {
        const struct rt_stage *const s = &a->program->stages[stage];
        const uint32_t first = g->first_node[stage], end = g->first_node[stage + 1];
        uint32_t named = 0;
        for (uint32_t i = first; i < end; i++)
            RT_TRY(check_node(a, stage, nodes[i], &named, err));
        if (end > first && s->work->kind == RT_WORK_MATMUL)
            RT_TRY(check_product(a, s, named, err));
    }
    return RT_OK;
}

enum rt_status rt_graph_audit(const struct rt_graph *g, const struct rt_program *p,
                              struct rt_driver *d, const struct rt_audit_region *regions,
                              uint32_t region_count, struct rt_error *err)
{
    const struct audit a = {
        .program = p, .driver = d, .regions = regions, .region_count = region_count};
    enum rt_status status = RT_OK;
    uint32_t count = 0;
    RT_TRY(RT_DRV(d, err, graph_nodes, (d, g->graph, NULL, &count)));
    RT_REQUIRE(count == g->node_count, err, RT_ERR_AUDIT, "graph (%s) has %u nodes, %u were built",
               rt_spec_name(&p->spec).text, count, g->node_count);
    rt_dnode *const nodes = calloc((size_t)count + 1, sizeof(rt_dnode));
    RT_REQUIRE(nodes, err, RT_ERR_NOMEM, "no memory to audit %u nodes", count);
    RT_TRY_GOTO(RT_DRV(d, err, graph_nodes, (d, g->graph, nodes, &count)));
    RT_TRY_GOTO(check_nodes(&a, g, nodes, err));
fail:
    free(nodes);
    return status;
}
