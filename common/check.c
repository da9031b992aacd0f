/* SPDX-License-Identifier: Apache-2.0 */
#include "common/check.h"

#include "common/utf8.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

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

/* Bytes of the character at `at` that may stand in a message; 0: a control character, among them
 * U+0080 to U+009F, or no UTF-8. */
static size_t printable_bytes(const unsigned char *at, const unsigned char *end)
{
    const size_t bytes = rt_utf8_bytes(at, end);
    const bool control = bytes == 1   ? *at < ' ' || *at == 0x7f
                         : bytes == 2 ? at[0] == 0xc2 && at[1] < 0xa0
                                      : false;
    return control ? 0 : bytes;
}

/* Names in a message come from files and callers. What in them steers a terminal comes out as
 * \xNN, byte by byte, and the message stays one line. What does not fit is left out whole. */
static void copy_escaped(const char *from, char *to, size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *at = (const unsigned char *)from;
    const unsigned char *const end = at + strlen(from);
    size_t used = 0;
    while (at < end) {
        const size_t plain = printable_bytes(at, end);
        if (used + (plain ? plain : 4) >= bytes)
            break;
        if (plain) {
            memcpy(to + used, at, plain);
            used += plain;
            at += plain;
        } else {
            const char escaped[4] = {'\\', 'x', digits[*at >> 4], digits[*at & 15]};
            memcpy(to + used, escaped, sizeof(escaped));
            used += sizeof(escaped);
            at++;
        }
    }
    to[used] = '\0';
}

enum rt_status rt_error_set(struct rt_error *error, enum rt_status status, const char *format, ...)
{
    if (!error)
        return status;
    char text[sizeof(error->message)] = ""; /* what is told may be error's own message */
    va_list args;
    va_start(args, format);
    const int written = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    copy_escaped(written < 0 ? "" : text, error->message, sizeof(error->message));
    error->status = status;
    return status;
}
