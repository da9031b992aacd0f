/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/program.h"

#include <stdio.h>
#include <stdlib.h>

static enum rt_status no_memory(const struct rt_program *p, const char *label, struct rt_error *err)
{
    return rt_fail(err, RT_ERR_NOMEM,
                   "no memory for stage %u \"%s\" of the graph (batch %u, query length %u)",
                   p->count, label, p->batch, p->query_len);
}

static bool grow(struct rt_program *p)
{
    if (p->count < p->capacity)
        return true;
    const uint32_t capacity = p->capacity ? 2 * p->capacity : 64;
    struct rt_stage *const stages = realloc(p->stages, (size_t)capacity * sizeof(*stages));
    if (!stages)
        return false;
    p->stages = stages;
    p->capacity = capacity;
    return true;
}

/* The caller has grown the list. */
static struct rt_stage *append(struct rt_program *p, enum rt_stage_kind kind, const char *label,
                               uint32_t layer)
{
    struct rt_stage *const stage = &p->stages[p->count++];
    *stage = (struct rt_stage){.kind = kind, .layer = layer};
    (void)snprintf(stage->label, sizeof(stage->label), "%s", label);
    return stage;
}

enum rt_status rt_program_add_launch(struct rt_program *p, const char *label, uint32_t layer,
                                     const struct rt_launch *launch, struct rt_error *err)
{
    /* malloc aligns less than the parameter block asks for. */
    struct rt_launch *const copy = aligned_alloc(_Alignof(struct rt_launch), sizeof(*copy));
    if (!copy || !grow(p)) {
        free(copy);
        return no_memory(p, label, err);
    }
    *copy = *launch;
    append(p, RT_STAGE_LAUNCH, label, layer)->launch = copy;
    return RT_OK;
}

enum rt_status rt_program_add_call(struct rt_program *p, const char *label, uint32_t layer,
                                   struct rt_stage_call call, struct rt_error *err)
{
    struct rt_stage_call *const copy = malloc(sizeof(*copy));
    if (!copy || !grow(p)) {
        free(copy);
        return no_memory(p, label, err);
    }
    *copy = call;
    append(p, RT_STAGE_CALL, label, layer)->call = copy;
    return RT_OK;
}

void rt_program_free(struct rt_program *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        free(p->stages[i].launch);
        free(p->stages[i].call);
    }
    free(p->stages);
    *p = (struct rt_program){0};
}

bool rt_program_edge_programmatic(const struct rt_program *p, uint32_t i)
{
    return i > 0 && p->stages[i - 1].kind == RT_STAGE_LAUNCH &&
           p->stages[i].kind == RT_STAGE_LAUNCH && p->stages[i].launch->waits;
}

enum rt_status rt_program_stage_failed(const struct rt_program *p, uint32_t i,
                                       enum rt_status status, struct rt_error *err)
{
    if (!err)
        return status;
    const struct rt_error cause = *err;
    return rt_fail(err, status, "graph (batch %u, query length %u), stage \"%s\": %s", p->batch,
                   p->query_len, p->stages[i].label, cause.message);
}

static enum rt_status run_stage(const struct rt_program *p, uint32_t i, struct rt_driver *d,
                                rt_dstream stream, struct rt_error *err)
{
    const struct rt_stage *const s = &p->stages[i];
    if (s->kind == RT_STAGE_LAUNCH)
        return RT_DRV(d, err, launch, (d, s->launch, rt_program_edge_programmatic(p, i), stream));
    /* The host device's streams are nothing that a callback could use. */
    const bool host = d->caps.kind == RT_DEVICE_KIND_HOST;
    const int result = s->call->fn(s->call->user, host ? NULL : stream);
    RT_REQUIRE(result == 0, err, RT_ERR_CALLBACK, "the callback returned %d", result);
    return RT_OK;
}

enum rt_status rt_program_run(const struct rt_program *p, struct rt_driver *d, rt_dstream stream,
                              struct rt_error *err)
{
    for (uint32_t i = 0; i < p->count; i++) {
        const enum rt_status status = run_stage(p, i, d, stream, err);
        if (status != RT_OK)
            return rt_program_stage_failed(p, i, status, err);
    }
    return RT_OK;
}
