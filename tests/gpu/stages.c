/* SPDX-License-Identifier: Apache-2.0 */
/* Stages of the caller on the device: what they capture, and what create says of it. */
#include "runtime/runtime.h"
#include "tests/gpu/suite.h"

#include <stdio.h>
#include <string.h>

#define FILL_BYTES 64u

struct stage_user {
    rt_addr memory; /* outside of every region */
    char said[512]; /* the last warning */
};

static void keep_warning(void *user, enum rt_log_level level, const char *message)
{
    struct stage_user *u = user;
    if (level == RT_LOG_WARNING)
        (void)snprintf(u->said, sizeof(u->said), "%s", message);
}

static int put_nothing(void *user, const struct rt_stage_context *context)
{
    (void)user;
    (void)context;
    return 0;
}

/* A fill of memory that nobody has registered, as a library would put it there. */
static int put_fill(void *user, const struct rt_stage_context *context)
{
    struct stage_user *u = user;
    struct rt_driver *d = &context->runtime->driver;
    return d->fill(d, u->memory, 0x5a, FILL_BYTES, context->stream);
}

static enum rt_status create(const struct gpu_suite *suite, struct stage_user *u, rt_stage_fn fn,
                             uint32_t flags, uint32_t foreign, rt_runtime **rt,
                             struct rt_error *error)
{
    struct rt_config config;
    gpu_config(suite, &config);
    const struct rt_create_params params = {.struct_size = sizeof(params),
                                            .flags = flags,
                                            .config = &config,
                                            .stages = {[RT_STAGE_AFTER_ATTENTION] = fn},
                                            .stage_user = u,
                                            .foreign_stages = foreign,
                                            .log = keep_warning,
                                            .log_user = u};
    u->said[0] = '\0';
    return rt_create(&params, rt, error);
}

/* Create warns of a stage that captured nothing, and fails where it is asked to. */
static enum gpu_outcome check_empty(const struct gpu_suite *suite, bool host)
{
    struct stage_user u = {0};
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    const char *words = "stage \"user_after_attention.0\": the stage's function captured nothing";
    if (create(suite, &u, put_nothing, 0, 0, &rt, &error) != RT_OK)
        return gpu_fail("rt_create: %s", error.message);
    rt_destroy(&rt);
    if (host != !strstr(u.said, words))
        return gpu_fail("create warned \"%s\"", u.said);
    const enum rt_status strict =
        create(suite, &u, put_nothing, RT_CREATE_NO_EMPTY_STAGES, 0, &rt, &error);
    rt_destroy(&rt);
    if (strict != (host ? RT_OK : RT_ERR_CALLBACK) || (!host && !strstr(error.message, words)))
        return gpu_fail("strict create gave %s: %s", rt_status_string(strict), error.message);
    return GPU_PASSED;
}

static enum gpu_outcome step_and_look(rt_runtime *rt, const struct stage_user *u)
{
    struct rt_driver *d = &rt->driver;
    unsigned char found[FILL_BYTES] = {0};
    rt_seq seq = 0;
    uint64_t ticket = 0;
    const struct rt_step_params p = {.struct_size = sizeof(p), .rows = 1, .seqs = &seq};
    if (rt_seq_open(rt, NULL, &seq) != RT_OK || rt_step(rt, &p, &ticket) != RT_OK ||
        rt_wait(rt, ticket, UINT64_MAX) != RT_OK || rt_thread_enter(rt) != RT_OK)
        return gpu_fail("%s", rt_last_error(rt)->message);
    if (d->copy_out(d, found, u->memory, FILL_BYTES, rt->stream) != 0 ||
        d->stream_sync(d, rt->stream) != 0)
        return gpu_fail("the filled memory cannot be read");
    for (uint32_t i = 0; i < FILL_BYTES; i++)
        if (found[i] != 0x5a)
            return gpu_fail("byte %u of the foreign fill is 0x%02x", i, found[i]);
    return rt_thread_leave(rt) == RT_OK ? GPU_PASSED : GPU_FAILED;
}

/* A fill is refused by name in an ordinary stage; in a foreign one it is captured and replayed. */
static enum gpu_outcome check_foreign(const struct gpu_suite *suite, struct stage_user *u)
{
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    const enum rt_status plain = create(suite, u, put_fill, 0, 0, &rt, &error);
    rt_destroy(&rt);
    if (plain != RT_ERR_AUDIT ||
        !strstr(error.message, "stage \"user_after_attention.0\": memset node"))
        return gpu_fail("an ordinary stage gave %s: %s", rt_status_string(plain), error.message);
    if (create(suite, u, put_fill, 0, 1u << RT_STAGE_AFTER_ATTENTION, &rt, &error) != RT_OK)
        return gpu_fail("foreign: %s", error.message);
    const enum gpu_outcome outcome = step_and_look(rt, u);
    rt_destroy(&rt);
    return outcome;
}

enum gpu_outcome gpu_stages(const struct gpu_suite *suite)
{
    struct rt_driver d;
    struct rt_error error = {0};
    struct stage_user u = {0};
    if (rt_driver_open(suite->device, &d, NULL, 0, &error) != RT_OK)
        return gpu_fail("%s", error.message);
    const bool host = d.caps.kind == RT_DEVICE_KIND_HOST;
    enum gpu_outcome outcome = GPU_FAILED;
    if (d.ctx_enter(&d) == 0 && d.mem_alloc(&d, FILL_BYTES, &u.memory) == 0) {
        outcome = check_empty(suite, host);
        if (outcome == GPU_PASSED && !host) /* where a stage is called, nothing is captured */
            outcome = check_foreign(suite, &u);
        (void)d.mem_free(&d, u.memory);
    }
    (void)d.ctx_leave(&d);
    rt_driver_close(&d);
    return outcome;
}
