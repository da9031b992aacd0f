/* SPDX-License-Identifier: Apache-2.0 */
/* The front door of the driver table: which device, and why. */
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
