/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/driver.h"

#include "driver/comm/comm.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GIB 1073741824.0

const char *rt_driver_op_name(enum rt_driver_op op)
{
    switch (op) {
#define DRIVER_OP_CASE(name)                                                                       \
    case RT_DOP_##name:                                                                            \
        return #name;
        RT_DRIVER_OPS(DRIVER_OP_CASE)
#undef DRIVER_OP_CASE
    case RT_DOP_COUNT:
        break;
    }
    return "unknown operation";
}

/* "room/file.c": where the compiler was started is nobody's business. */
static const char *short_path(const char *path)
{
    const char *last = NULL, *before = NULL;
    for (const char *c = path; *c; c++) {
        if (*c == '/') {
            before = last;
            last = c;
        }
    }
    return before ? before + 1 : path;
}

static enum rt_status status_of(struct rt_driver *d, int code)
{
    if (rt_driver_is_call_failure(code))
        return RT_ERR_CALLBACK;
    return d->is_out_of_memory(d, code) ? RT_ERR_DEVICE_MEMORY : RT_ERR_DRIVER;
}

/* What is not known is left out: the failure is the story, not the question about it. */
static void free_text(struct rt_driver *d, char *text, size_t bytes)
{
    uint64_t available = 0, total = 0;
    if (d->mem_info(d, &available, &total) == 0)
        snprintf(text, bytes, "; %.3f GiB (%" PRIu64 " bytes) of %.3f GiB are free",
                 (double)available / GIB, available, (double)total / GIB);
}

enum rt_status rt_driver_fail(struct rt_driver *d, struct rt_error *err, enum rt_driver_op op,
                              int code, const char *file, int line)
{
    if (code == RT_DRIVER_COMM_FAILED)
        return rt_fail(err, d->failed_comm->story.status, "%s", d->failed_comm->story.message);
    const char *text = code == RT_DRIVER_INJECTED ? "injected failure" : d->error_text(d, code);
    const enum rt_status status = status_of(d, code);
    /* Which of the driver's calls found it says nothing: the story is the stage's. */
    if (status == RT_ERR_CALLBACK)
        return rt_fail(err, status, "%s", text);
    char room[96] = "";
    if (status == RT_ERR_DEVICE_MEMORY && op != RT_DOP_host_alloc)
        free_text(d, room, sizeof(room));
    return rt_fail(err, status, "%s failed: %s%s [%s:%d]", rt_driver_op_name(op), text, room,
                   short_path(file), line);
}

enum rt_status rt_driver_wanted(enum rt_status status, const char *what, uint64_t bytes,
                                struct rt_error *err)
{
    if (status != RT_ERR_DEVICE_MEMORY || !err)
        return status;
    const struct rt_error reason = *err;
    return rt_fail(err, status, "%s of %.3f GiB (%" PRIu64 " bytes) does not fit: %s", what,
                   (double)bytes / GIB, bytes, reason.message);
}

enum rt_status rt_driver_open_blas(struct rt_driver *d, struct rt_error *err)
{
    if (rt_probe_enter(d, RT_DOP_open_blas))
        return rt_driver_fail(d, err, RT_DOP_open_blas, RT_DRIVER_INJECTED, __FILE__, __LINE__);
    return d->open_blas(d, err);
}
