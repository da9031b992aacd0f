/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/complain.h"

#include <stdarg.h>
#include <stdio.h>

#define DELETE 0x7f

void complain(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fputs("replayrt: ", stderr);
    for (const char *c = text; *c; c++) {
        const unsigned char byte = (unsigned char)*c;
        if (byte < ' ' || byte == DELETE)
            fprintf(stderr, "\\x%02x", byte);
        else
            fputc(byte, stderr);
    }
    fputc('\n', stderr);
}

void complain_failure(enum rt_status status, const char *message)
{
    if (status == RT_ERR_FILE)
        complain("%s", message);
    else
        complain("%s: %s", rt_status_string(status), message);
}
