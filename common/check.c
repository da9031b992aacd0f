/* SPDX-License-Identifier: Apache-2.0 */
#include "common/check.h"

#include <stdarg.h>
#include <stdio.h>

const char *rt_status_string(enum rt_status status)
{
    switch (status) {
#define RT_STATUS_CASE(name, number, text)                                                         \
    case name:                                                                                     \
        return text;
        RT_STATUS_LIST(RT_STATUS_CASE)
#undef RT_STATUS_CASE
    }
    return "unknown status";
}

enum rt_status(rt_fail)(struct rt_error *err, enum rt_status status, const char *fmt, ...)
{
    if (!err)
        return status;
    va_list args;
    va_start(args, fmt);
    int written = vsnprintf(err->message, sizeof(err->message), fmt, args);
    va_end(args);
    if (written < 0)
        err->message[0] = '\0';
    err->status = status;
    return status;
}
