/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/driver.h"

#include <stdio.h>
#include <string.h>

#define CUDA_PREFIX "cuda:"

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

static enum rt_status open_auto(struct rt_driver *out, char *why, size_t why_bytes,
                                struct rt_error *err)
{
    struct rt_error reason = {.status = RT_OK};
    if (rt_driver_open_cuda(0, out, &reason) == RT_OK)
        return RT_OK;
    RT_TRY(rt_driver_open_host(out, err));
    if (why && why_bytes)
        snprintf(why, why_bytes, "%s", reason.message);
    return RT_OK;
}

enum rt_status rt_driver_open(const char *device, struct rt_driver *out, char *why,
                              size_t why_bytes, struct rt_error *err)
{
    RT_REQUIRE(out, err, RT_ERR_INVALID, "there is no table to open the device into");
    memset(out, 0, sizeof(*out));
    if (why && why_bytes)
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

enum rt_status rt_driver_fail(struct rt_driver *d, struct rt_error *err, enum rt_driver_op op,
                              int code, const char *file, int line)
{
    const char *text = code == RT_DRIVER_INJECTED ? "injected failure" : d->error_text(d, code);
    return rt_fail(err, status_of(d, code), "%s failed: %s [%s:%d]", rt_driver_op_name(op), text,
                   short_path(file), line);
}
