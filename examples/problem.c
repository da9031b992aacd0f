/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/problem.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

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

enum rt_status problem(struct rt_error *error, enum rt_status status, const char *format, ...)
{
    if (error == NULL)
        return status;
    char text[sizeof error->message] = "";
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    copy_escaped(text, error->message, sizeof error->message);
    error->status = status;
    return status;
}
