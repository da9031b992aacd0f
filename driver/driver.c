/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/driver.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CUDA_PREFIX "cuda:"
#define GIB 1073741824.0

/* The driver takes ordinals as int. One spelling per device: no sign, no blank, no leading zero. */
static bool parse_ordinal(const char *digits, uint32_t *out)
{
    uint32_t value = 0;
    if (digits[0] == '\0' || (digits[0] == '0' && digits[1] != '\0'))
        return false;
    for (; *digits; digits++) {
        if (*digits < '0' || *digits > '9')
            return false;
        const uint32_t digit = (uint32_t)(*digits - '0');
        if (value > (INT32_MAX - digit) / 10)
            return false;
        value = 10 * value + digit;
    }
    *out = value;
    return true;
}

/* What every device passed over had to say, "; " between; as much as a message holds. */
struct reasons {
    char text[sizeof(((struct rt_error *)0)->message)];
    size_t used;
};

static void add_reason(struct reasons *r, const char *reason)
{
    const size_t room = sizeof(r->text) - r->used;
    const int n = snprintf(r->text + r->used, room, "%s%s", r->used ? "; " : "", reason);
    r->used += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

/* A driver that is there is meant to be used: where it serves nothing, taking the host instead
 * would hide a broken machine behind one that is a thousand times slower. */
static enum rt_status open_auto(struct rt_driver *out, char *why, size_t why_bytes,
                                struct rt_error *err)
{
    struct rt_error reason = {.status = RT_OK};
    struct reasons passed_over = {.text = ""};
    enum rt_status first = RT_OK;
    uint32_t count = 0;
    const enum rt_status counted = rt_driver_cuda_count(&count, &reason);
    if (counted == RT_ERR_NO_DEVICE) {
        RT_TRY(rt_driver_open_host(out, err));
        snprintf(why, why_bytes, "%s", reason.message);
        return RT_OK;
    }
    RT_REQUIRE(counted == RT_OK, err, counted, "%s; the host device is to be named \"host\"",
               reason.message);
    for (uint32_t i = 0; i < count; i++) {
        const enum rt_status status = rt_driver_open_cuda(i, out, &reason);
        if (status == RT_OK) {
            snprintf(why, why_bytes, "cuda:%u: %s", i, i ? passed_over.text : "the first device");
            return RT_OK;
        }
        first = first ? first : status;
        add_reason(&passed_over, reason.message);
    }
    return rt_fail(err, first, "no device serves: %s", passed_over.text);
}

enum rt_status rt_driver_open(const char *device, struct rt_driver *out, char *why,
                              size_t why_bytes, struct rt_error *err)
{
    RT_REQUIRE(out, err, RT_ERR_INVALID, "there is no table to open the device into");
    memset(out, 0, sizeof(*out));
    char nowhere[1];
    if (!why || !why_bytes) {
        why = nowhere;
        why_bytes = sizeof(nowhere);
    }
    why[0] = '\0';
    RT_REQUIRE(device, err, RT_ERR_INVALID, "the device is null, not auto, host or cuda:N");
    if (strcmp(device, "auto") == 0)
        return open_auto(out, why, why_bytes, err);
    if (strcmp(device, "host") == 0)
        return rt_driver_open_host(out, err);
    const size_t prefix = strlen(CUDA_PREFIX);
    RT_REQUIRE(strncmp(device, CUDA_PREFIX, prefix) == 0, err, RT_ERR_INVALID,
               "device \"%.64s\" is not auto, host or cuda:N", device);
    uint32_t ordinal;
    RT_REQUIRE(parse_ordinal(device + prefix, &ordinal), err, RT_ERR_INVALID,
               "device \"%.64s\": what follows \"cuda:\" is not a number from 0 to %d", device,
               INT32_MAX);
    return rt_driver_open_cuda(ordinal, out, err);
}

void rt_driver_close(struct rt_driver *d)
{
    if (!d)
        return;
    if (d->close)
        d->close(d);
    memset(d, 0, sizeof(*d));
}

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
