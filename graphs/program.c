/* SPDX-License-Identifier: Apache-2.0 */
#include "graphs/program.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static enum rt_status no_memory(const struct rt_program *p, const char *label, struct rt_error *err)
{
    return rt_fail(err, RT_ERR_NOMEM, "no memory for stage %u \"%s\" of the graph (%s)", p->count,
                   label, rt_spec_name(&p->spec).text);
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

enum rt_status rt_program_add(struct rt_program *p, const char *label, uint32_t layer,
                              const struct rt_work *work, struct rt_error *err)
{
    /* malloc aligns less than a launch's parameter block asks for. */
    struct rt_work *const copy = aligned_alloc(_Alignof(struct rt_work), sizeof(*copy));
    if (!copy || !grow(p)) {
        free(copy);
        return no_memory(p, label, err);
    }
    *copy = *work;
    struct rt_stage *const stage = &p->stages[p->count++];
    *stage =
        (struct rt_stage){.layer = layer, .branch = p->branch, .tight = p->tight, .work = copy};
    (void)snprintf(stage->label, sizeof(stage->label), "%s", label);
    return RT_OK;
}

void rt_program_drop(struct rt_program *p)
{
    assert(p->count > 0);
    free(p->stages[--p->count].work);
}

void rt_program_free(struct rt_program *p)
{
    for (uint32_t i = 0; i < p->count; i++)
        free(p->stages[i].work);
    free(p->stages);
    *p = (struct rt_program){0};
}

/* A branch begins: behind the trunk. */
static uint32_t fork_of(const struct rt_program *p, uint32_t i, uint32_t *before)
{
    while (i > 0 && p->stages[i - 1].branch != RT_TRUNK)
        i--;
    *before = i - 1;
    return i > 0 ? 1 : 0;
}

/* The trunk goes on: behind every branch's last stage. */
static uint32_t ends_of(const struct rt_program *p, uint32_t i, uint32_t before[RT_MAX_BRANCHES])
{
    uint32_t branch = RT_TRUNK, count = 0;
    for (; i > 0 && p->stages[i - 1].branch != RT_TRUNK; i--) {
        if (p->stages[i - 1].branch == branch)
            continue;
        assert(count < RT_MAX_BRANCHES);
        branch = p->stages[i - 1].branch;
        before[count++] = i - 1;
    }
    return count;
}

uint32_t rt_program_before(const struct rt_program *p, uint32_t i, uint32_t before[RT_MAX_BRANCHES])
{
    const uint32_t branch = p->stages[i].branch;
    if (i == 0)
        return 0;
    if (p->stages[i - 1].branch == branch) {
        before[0] = i - 1;
        return 1;
    }
    return branch == RT_TRUNK ? ends_of(p, i, before) : fork_of(p, i, before);
}

static bool may_be_overlapped(const struct rt_stage *stage)
{
    return stage->work->kind == RT_WORK_LAUNCH || stage->overlapped;
}

bool rt_program_edge_programmatic(const struct rt_program *p, uint32_t i)
{
    const struct rt_stage *const stage = &p->stages[i];
    uint32_t before[RT_MAX_BRANCHES];
    if (i == 0 || stage->work->kind != RT_WORK_LAUNCH || !stage->work->launch.waits ||
        !may_be_overlapped(&stage[-1]))
        return false;
    const uint32_t count = rt_program_before(p, i, before);
    for (uint32_t k = 0; k < count; k++) {
        const struct rt_stage *const other = &p->stages[before[k]];
        const bool tight = other->branch == stage->branch || other->tight || stage->tight;
        if (!tight || !may_be_overlapped(other))
            return false;
    }
    return count > 0;
}

enum rt_status rt_program_stage_failed(const struct rt_program *p, uint32_t i,
                                       enum rt_status status, struct rt_error *err)
{
    if (!err)
        return status;
    const struct rt_error cause = *err;
    return rt_fail(err, status, "graph (%s), stage \"%s\": %s", rt_spec_name(&p->spec).text,
                   p->stages[i].label, cause.message);
}

enum rt_status rt_work_put(const struct rt_work *work, struct rt_driver *d, bool programmatic,
                           rt_dstream stream, struct rt_error *err)
{
    /* The host device's streams are nothing that a callback could use. */
    const bool host = d->caps.kind == RT_DEVICE_KIND_HOST;
    switch (work->kind) {
    case RT_WORK_LAUNCH:
        return RT_DRV(d, err, launch, (d, &work->launch, programmatic, stream));
    case RT_WORK_MATMUL:
        return RT_DRV(d, err, matmul, (d, &work->matmul, stream));
    case RT_WORK_COLLECTIVE:
        return RT_DRV(d, err, collective, (d, &work->collective, stream));
    case RT_WORK_CALL:
        break;
    }
    const int result = work->call.fn(work->call.user, host ? NULL : stream);
    RT_REQUIRE(result == 0, err, RT_ERR_CALLBACK, RT_CALL_FAILED_TEXT, result);
    return RT_OK;
}

enum rt_status rt_program_run(const struct rt_program *p, struct rt_driver *d, rt_dstream stream,
                              struct rt_error *err)
{
    for (uint32_t i = 0; i < p->count; i++) {
        const enum rt_status status =
            rt_work_put(p->stages[i].work, d, rt_program_edge_programmatic(p, i), stream, err);
        if (status != RT_OK)
            return rt_program_stage_failed(p, i, status, err);
    }
    return RT_OK;
}
