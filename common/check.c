/* SPDX-License-Identifier: Apache-2.0 */
#include "common/check.h"

#include <stdarg.h>
#include <stdbool.h>
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

/* Names in a message come from files and callers. Control characters in them come out as \xNN, so
 * that a message stays one line and steers no terminal. What does not fit is left out whole. */
static void copy_escaped(const char *from, char *to, size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    size_t used = 0;
    for (; *from; from++) {
        const unsigned char byte = (unsigned char)*from;
        const bool control = byte < ' ' || byte == 0x7f;
        if (used + (control ? 4 : 1) >= bytes)
            break;
        if (control) {
            to[used++] = '\\';
            to[used++] = 'x';
            to[used++] = digits[byte >> 4];
            to[used++] = digits[byte & 15];
        } else {
            to[used++] = *from;
        }
    }
    to[used] = '\0';
}

enum rt_status(rt_fail)(struct rt_error *err, enum rt_status status, const char *fmt, ...)
{
    if (!err)
        return status;
    char text[sizeof(err->message)] = ""; /* what is told may be err's own message */
    va_list args;
    va_start(args, fmt);
    int written = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    copy_escaped(written < 0 ? "" : text, err->message, sizeof(err->message));
    err->status = status;
    return status;
}
